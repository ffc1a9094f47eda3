"""Training on several devices: weights on all of them, the rows of the data and of every batch shared out.

XLA compiles one program for all devices and adds up the gradients between them. Batches are drawn by the number of
the row among all rows, and random numbers by their place in the batch, so that a model is the same, to rounding,
whatever the number of devices.
"""

import logging
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

log = logging.getLogger(__name__)

ROWS = "rows"  # the one axis of the mesh
_ALL, _SHARED = PartitionSpec(), PartitionSpec(ROWS)


class Layout(NamedTuple):
    """Devices, and the number of rows that are spread over them."""

    mesh: Mesh | None  # the devices; None for one device, where every method leaves arrays as they are
    n_rows: int  # rows that are trained on; device k holds the k-th part of them

    def shared(self, tree):
        """Rows as arrays spread over the devices, filled up with copies where the devices do not divide them."""
        if self.mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        sharding = NamedSharding(self.mesh, _SHARED)
        length = -(-self.n_rows // self.mesh.size) * self.mesh.size

        def put(rows):
            if len(rows) < length:
                rows = np.resize(rows, (length, *rows.shape[1:]))
            return jax.device_put(rows, sharding)

        return jax.tree.map(put, tree)

    def everywhere(self, tree):
        """Arrays, or keys, whole on every device."""
        tree = jax.tree.map(jnp.asarray, tree)
        if self.mesh is None:
            return tree
        return jax.device_put(tree, NamedSharding(self.mesh, _ALL))

    def take(self, tree, numbers: Array):
        """The rows of such numbers, spread over the devices.

        Each device looks up those that it holds; adding zeros from the others is exact. The sum is taken whole and
        then cut, since on CPUs a scattered one (`psum_scatter`) fails where a device is half a minute late.
        """

        mesh = self.mesh
        assert mesh is not None

        def own(rows, numbers):
            own = numbers - jax.lax.axis_index(ROWS) * len(rows)
            found = rows.at[own].get(mode="fill", fill_value=0, wrap_negative_indices=False)
            n = len(found) // mesh.size
            return jax.lax.dynamic_slice_in_dim(jax.lax.psum(found, ROWS), jax.lax.axis_index(ROWS) * n, n)

        spread = jax.shard_map(own, mesh=mesh, in_specs=(_SHARED, _ALL), out_specs=_SHARED)
        return jax.tree.map(lambda rows: spread(rows, numbers), tree)

    def spread(self, tree, axis: int = 0):
        """Within a compiled program: work on these rows is shared by the devices, whatever their number."""
        return self._constrain(tree, PartitionSpec(*[None] * axis, ROWS))

    def replicate(self, tree):
        """Within a compiled program: all devices hold the same."""
        return self._constrain(tree, _ALL)

    def _constrain(self, tree, spec: PartitionSpec):
        if self.mesh is None:
            return tree
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, spec))


def layout_for(batch_size: int, n_rows: int) -> Layout:
    """The devices that share batches of `batch_size` rows: as many as divide it."""
    devices = jax.local_devices()
    used = max(k for k in range(1, len(devices) + 1) if batch_size % k == 0)
    if used == 1:
        return Layout(None, n_rows)
    share = batch_size // used
    log.info("training on %d devices, with %d frames of each batch of %d on each", used, share, batch_size)
    if used < len(devices):
        log.info("%d are here, which do not divide a batch", len(devices))
    return Layout(Mesh(np.array(devices[:used]), (ROWS,)), n_rows)


def copy_to_one_device(tree):
    """Copy arrays that all devices hold alike to one device."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), tree)

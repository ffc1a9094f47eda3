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

from polyvae.errors import InputError

log = logging.getLogger(__name__)

ROWS = "rows"  # the one axis of the mesh
_ALL, _SHARED = PartitionSpec(), PartitionSpec(ROWS)


class Layout(NamedTuple):
    """Where the rows that are trained on lie: on each process those of its own, spread over its devices.

    Args:
        mesh: the devices, those of one process after another.
        counts: rows of each process; row k of all is the k-th one over the processes in order.
    """

    mesh: Mesh
    counts: tuple[int, ...]

    def length(self) -> int:
        """Rows in the arrays of each process: all have as many, filled up where they need."""
        per_process = self.mesh.size // len(self.counts)
        return -(-max(self.counts) // per_process) * per_process

    def shared(self, tree):
        """Rows of this process as arrays over all devices."""
        sharding, length = NamedSharding(self.mesh, _SHARED), self.length()

        def put(rows):
            rows = np.asarray(rows)
            filled = np.resize(rows, (length, *rows.shape[1:])) if len(rows) < length else rows
            return jax.make_array_from_process_local_data(
                sharding, filled, (length * len(self.counts), *rows.shape[1:])
            )

        return jax.tree.map(put, tree)

    def everywhere(self, tree):
        """Arrays, or keys, that every process has, on every device."""
        sharding = NamedSharding(self.mesh, _ALL)

        def put(leaf):
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return jax.random.wrap_key_data(put(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
            return jax.make_array_from_process_local_data(sharding, np.asarray(jnp.asarray(leaf)))

        return jax.tree.map(put, tree)

    def take(self, tree, numbers: Array):
        """The rows of such numbers among all rows, spread over the devices.

        Each device looks up those that it holds; adding zeros from the others is exact. The sum is taken whole and
        then cut, since on CPUs a scattered one (`psum_scatter`) fails where a process is half a minute late.
        """
        numbers = places(numbers, self.counts, self.length())

        def own(rows, numbers):
            own = numbers - jax.lax.axis_index(ROWS) * len(rows)
            found = rows.at[own].get(mode="fill", fill_value=0, wrap_negative_indices=False)
            n = len(found) // self.mesh.size
            return jax.lax.dynamic_slice_in_dim(jax.lax.psum(found, ROWS), jax.lax.axis_index(ROWS) * n, n)

        spread = jax.shard_map(own, mesh=self.mesh, in_specs=(_SHARED, _ALL), out_specs=_SHARED)
        return jax.tree.map(lambda rows: spread(rows, numbers), tree)

    def spread(self, tree, axis: int = 0):
        """Within a compiled program: work on these rows is shared by the devices, whatever their number."""
        sharding = NamedSharding(self.mesh, PartitionSpec(*[None] * axis, ROWS))
        return jax.lax.with_sharding_constraint(tree, sharding)

    def alike(self, tree):
        """Within a compiled program: all devices hold the same."""
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, _ALL))


def places(numbers: Array, counts: tuple[int, ...], length: int) -> Array:
    """Where rows lie, by their number among all, in arrays of `length` rows a process, `counts` of them used."""
    if len(counts) == 1:
        return numbers
    ends = np.cumsum(counts)
    unused = np.arange(len(ends)) * length - (ends - counts)  # before the rows of each process
    return numbers + jnp.asarray(unused)[jnp.searchsorted(jnp.asarray(ends), numbers, side="right")]


def check_batch(batch_size: int, n_processes: int) -> None:
    """Refuse a batch that several processes do not divide."""
    if batch_size % n_processes:
        raise InputError(
            f"a batch of {batch_size} frames cannot be shared by {n_processes} processes; give a multiple of "
            f"{n_processes} (--batch-size)"
        )


def layout_for(batch_size: int, counts: tuple[int, ...]) -> Layout | None:
    """The devices that share batches of so many rows: as many of each process as divide them; None for one device.

    Args:
        counts: rows of each process. One process alone takes its own devices.

    Raises:
        InputError: several processes that do not divide the batch.
    """
    check_batch(batch_size, n_processes := len(counts))
    devices = np.array(jax.local_devices() if n_processes == 1 else jax.devices()).reshape(n_processes, -1)
    per_process = devices.shape[1]
    used = max(k for k in range(1, per_process + 1) if batch_size // n_processes % k == 0)
    if used * n_processes == 1:
        return None
    log.info(
        "training on %d devices, with %d frames of each batch of %d on each%s",
        used * n_processes,
        batch_size // (used * n_processes),
        batch_size,
        "" if used == per_process else f": {per_process * n_processes} are here, which do not divide it",
    )
    return Layout(Mesh(devices[:, :used].ravel(), (ROWS,)), counts)


def at_home(tree):
    """The arrays of several devices, all of which hold the same, as arrays of one."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), tree)

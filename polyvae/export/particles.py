"""An engine's particles as a model's beads: which ones, in which unit, in which image."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polyvae.arguments import (
    if_given,
    numbers_array,
    one_of,
    real_number,
    refusal,
)
from polyvae.core.units import LENGTH_UNITS
from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.export import kernel
from polyvae.export.c import compiled_if_possible
from polyvae.export.grid_bias import GridBias
from polyvae.trajectory.record import unit_factor
from polyvae.trajectory.wholeness import NEAR_HALF, spanning_tree


def length_factor(cv: LatentCV, unit: str, sigma: float | None) -> float:
    """Number that turns the engine's lengths, in `unit`, into the model's.

    Args:
        sigma: length of one sigma in `unit`, for a model in reduced units in an engine that has none.

    Raises:
        InputError: no such unit; `sigma` is missing where the model needs it, or given where it has no meaning.
    """
    one_of("the engine's length unit", unit, LENGTH_UNITS)
    sigma = if_given(real_number, "sigma", sigma)
    if cv.length_unit == "sigma" and unit != "sigma":
        if sigma is None:
            raise InputError(
                f"the model is in reduced units and the engine in {unit}; say how many {unit} one sigma is: "
                f"sigma=1.0 where the run was set up that way"
            )
        if sigma <= 0:
            raise InputError(f"sigma must be a length greater than 0, in {unit}; got {sigma}")
        return 1 / sigma
    if sigma is not None:
        raise InputError(
            f"sigma= is for models in reduced units, and this one is in {cv.length_unit}; leave it out"
        )
    return unit_factor(unit, cv.length_unit)


class Wholeness(NamedTuple):
    """How to make the beads whole along their bonds: arrays that an engine's callable carries.

    Args:
        bonds: (n_bonds, 2) bead numbers, bonds of the spanning tree first, each as (parent, child).
        paths: (n_beads, n_beads - 1), 1 where a bond of the tree is on the way from the first bead to this one.
    """

    bonds: np.ndarray
    paths: np.ndarray


def wholeness(n_beads: int, bonds: np.ndarray | None) -> Wholeness:
    """The spanning tree of a molecule of `n_beads`.

    Raises:
        InputError: bonds are not known, join beads that there are not, or leave beads apart.
    """
    if bonds is None:
        raise InputError(
            "in a periodic box the molecule is made whole along its bonds, and the model knows none; give "
            "bonds=[(0, 1), (1, 2), ...] in bead numbers"
        )
    pairs = "whole numbers (n_bonds, 2), the beads of each bond"
    bonds = numbers_array("bonds", bonds, pairs, int)
    if bonds.size and (bonds.ndim != 2 or bonds.shape[1] != 2):
        raise refusal("bonds", pairs, bonds)
    bonds = bonds.reshape(-1, 2)
    if bonds.size and (bonds.min() < 0 or bonds.max() >= n_beads):
        raise InputError(f"bonds must join beads 0 to {n_beads - 1}; got {bonds.min()} to {bonds.max()}")
    tree = spanning_tree(n_beads, bonds)
    if tree.n_molecules > 1:
        apart = int(np.argmax(tree.molecule > 0))
        raise InputError(
            f"in a periodic box the bonds must join all beads; bead {apart} is not joined to bead 0. Give bonds= "
            f"that join beads which are always less than half the box apart"
        )
    child = np.flatnonzero(tree.parent != np.arange(n_beads))
    place = {int(bead): k for k, bead in enumerate(child)}
    paths = np.zeros((n_beads, len(child)))
    for start in child:
        bead = int(start)
        while bead in place:
            paths[start, place[bead]] = 1
            bead = int(tree.parent[bead])
    return Wholeness(np.concatenate([np.stack([tree.parent[child], child], axis=1), tree.loose]), paths)


def make_whole(
    positions: Float[Array, "beads 3"], box: Float[Array, "3 3"], known: Wholeness
) -> tuple[Float[Array, "beads 3"], Float[Array, "bonds 3"]]:
    """Positions with every bead next to the one it hangs on, and each bond's extents as fractions of the box.

    The first bead stays; whole boxes are added to the others, so that the derivative is the identity. From
    a fraction of about a half on, another image could be meant, or the molecule is bonded to its own image.

    Args:
        box: vectors as rows, lower triangular, as OpenMM holds them; row by row from the last one is then exact
            for bonds within half its diagonal.
    """
    first, second = known.bonds[: known.paths.shape[1]].T
    near = positions[second] - positions[first]
    shift = jnp.zeros_like(near)
    for axis in (2, 1, 0):
        step = -jnp.round(near[:, axis] / box[axis, axis])[:, None] * box[axis][None, :]
        near, shift = near + step, shift + step
    whole = positions + jax.lax.stop_gradient(known.paths.astype(positions.dtype) @ shift)
    i, j = known.bonds.T
    return whole, jnp.abs(whole[i] - whole[j]) / jnp.diagonal(box)[None, :]


def in_engine(cv: LatentCV, factor: float, known: Wholeness | None) -> Callable:
    """A function from an engine's positions (n_beads, 3) and box (3, 3), both float64 and in its unit, to latents
    (latent_dim,), gradients (latent_dim, n_beads, 3) by those positions, the positions made whole
    (n_beads, n_dims), and whether every bond was short enough for that. By the compiled kernel, or in JAX where
    there is no compiler.

    Args:
        factor: of `length_factor`.
        known: how to make the molecule whole in the periodic box; None leaves the positions as they are.
    """
    in_jax = functools.cache(lambda: _in_jax(cv, factor, known))
    code, leaning = kernel_of(cv, known)
    if code is None:
        return in_jax()
    in_c = _in_c(code, cv.n_dims, factor, known)
    if not leaning:
        return in_c
    return lambda positions, box: (in_jax() if box[2, :2].any() else in_c)(positions, box)


def pushed_in_engine(cv: LatentCV, factor: float, known: Wholeness | None, bias: GridBias) -> Callable:
    """A function from an engine's positions (n_beads, 3) and box (3, 3), as of `in_engine`, to the energy of a
    bias, what it adds to the forces (n_beads, 3), and whether every bond was short enough. By the compiled kernel
    where `in_engine` uses it."""
    code, leaning = kernel_of(cv, known)
    evaluate = None if code is not None and not leaning else in_engine(cv, factor, known)

    def in_steps(positions: np.ndarray, box: np.ndarray):
        assert evaluate is not None
        z, gradient, _, whole = evaluate(positions, box)
        energy, slope = bias(z)
        return energy, -np.tensordot(slope, gradient, 1), whole

    def in_c(positions: np.ndarray, box: np.ndarray):
        assert code is not None
        x, whole = positions[:, : cv.n_dims], True
        if known is not None:
            x, whole = code.whole(np.ascontiguousarray(x), np.ascontiguousarray(box[: cv.n_dims, : cv.n_dims]))
        energy, push = code.pushed(x, factor, bias)
        return energy, push if cv.n_dims == 3 else np.pad(push, ((0, 0), (0, 1))), whole

    return in_steps if evaluate is not None else in_c


def kernel_of(cv: LatentCV, known: Wholeness | None) -> tuple[kernel.Kernel | None, bool]:
    """The compiled kernel, where there is a compiler; and whether it knows too little of some boxes: that of a
    plane knows nothing of a third vector that leans over it."""
    bonds = cv.template.bonds if known is None else known.bonds
    template = dataclasses.replace(cv.template, bonds=bonds)
    code = compiled_if_possible(LatentCV(cv.featurizer, cv.scaled, template, cv.record))
    return code, known is not None and cv.n_dims == 2


def _in_c(code: kernel.Kernel, n_dims: int, factor: float, known: Wholeness | None):
    def evaluate(positions: np.ndarray, box: np.ndarray):
        x, whole = positions[:, :n_dims], True
        if known is not None:
            x, whole = code.whole(np.ascontiguousarray(x), np.ascontiguousarray(box[:n_dims, :n_dims]))
        z, gradient = code.one(x, factor)
        if n_dims == 2:
            gradient = np.concatenate([gradient, np.zeros((*gradient.shape[:2], 1))], axis=2)
        return z, gradient, x, whole

    return evaluate


def _in_jax(cv: LatentCV, factor: float, known: Wholeness | None):
    function = cv.function()

    @jax.jit
    def both(positions, box):
        def encode(r):
            r, reach = (r, jnp.zeros((1, 3))) if known is None else make_whole(r, box, known)
            r = r[:, : cv.n_dims]
            return function.posterior(factor * r)[0], (r, reach)

        z, pull, (r, reach) = jax.vjp(encode, positions, has_aux=True)
        return z, jax.vmap(pull)(jnp.eye(len(z), dtype=z.dtype))[0], r, reach

    def evaluate(positions: np.ndarray, box: np.ndarray):
        with jax.enable_x64(True):
            z, gradient, r, reach = map(np.asarray, both(positions, box))
        return z, gradient, r, bool((reach[:, : cv.n_dims] <= NEAR_HALF).all())

    return evaluate


def too_long(positions: np.ndarray, box: np.ndarray, known: Wholeness, n_dims: int) -> str:
    """Return the message on the longest bond, which is too long to make the molecule whole."""
    with jax.enable_x64(True):
        reach = np.asarray(make_whole(jnp.asarray(positions), jnp.asarray(box), known)[1])[:, :n_dims].max(axis=1)
    bond = int(np.argmax(reach))
    return (
        f"the bond of beads {' and '.join(map(str, known.bonds[bond]))} spans {reach[bond]:.2g} of the periodic "
        f"box, about half or more, so that the molecule cannot be made whole; check that box, bonds and particles "
        f"belong together"
    )

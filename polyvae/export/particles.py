"""An engine's particles as a model's beads: which ones, in which unit, in which image."""

import dataclasses
from typing import NamedTuple

import numpy as np

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
from polyvae.export.c import compiled_if_possible
from polyvae.export.common import exact
from polyvae.export.grid_bias import GridBias
from polyvae.trajectory.record import unit_factor
from polyvae.trajectory.wholeness import NEAR_HALF, spanning_tree


def length_factor(cv: LatentCV, unit: str, sigma: float | None) -> float:
    """Return the number that turns the engine's lengths, in `unit`, into the model's.

    Args:
        sigma: length of one sigma where either the model or the engine is in reduced units, in the unit of the
            other.

    Raises:
        InputError: no such unit; `sigma` is missing, or given where it has no meaning.
    """
    one_of("the engine's length unit", unit, LENGTH_UNITS)
    sigma = if_given(real_number, "sigma", sigma)
    if unit != "sigma" and cv.length_unit != "sigma":
        if sigma is not None:
            raise InputError(f"sigma= is for reduced units, and the model is in {cv.length_unit}; leave it out")
        return unit_factor(unit, cv.length_unit)
    if unit == cv.length_unit:
        if sigma is not None:
            raise InputError("both the model and the engine are in reduced units; leave out sigma=")
        return 1.0
    physical = cv.length_unit if unit == "sigma" else unit
    if sigma is None or sigma <= 0:
        raise InputError(
            f"the model is in {cv.length_unit} and the engine in {unit}, so that sigma= must say how many "
            f"{physical} one sigma is, a number greater than 0; got {sigma}"
        )
    return sigma if unit == "sigma" else 1 / sigma


class Wholeness(NamedTuple):
    """How to make the beads whole along their bonds: arrays that an engine's callable carries.

    Args:
        bonds: (n_bonds, 2) bead numbers, bonds of the spanning tree first, each as (parent, child).
        paths: (n_beads, n_beads - 1), 1 where a bond of the tree is on the way from the first bead to this one.
    """

    bonds: np.ndarray
    paths: np.ndarray


def wholeness(cv: LatentCV, bonds: np.ndarray | None, periodic: bool) -> Wholeness | None:
    """Return how to make the model's molecule whole; None outside a periodic box.

    Args:
        bonds: (n_bonds, 2) bead numbers; by default those of the training data.

    Raises:
        InputError: bonds are not known, join beads that there are not, or leave beads apart.
    """
    if not periodic:
        return None
    n_beads = cv.n_beads
    if bonds is None:
        bonds = cv.template.bonds
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


def join_beads(positions: np.ndarray, box: np.ndarray, known: Wholeness) -> tuple[np.ndarray, np.ndarray]:
    """Return positions with every bead next to the one it hangs on, and extents of bonds as fractions of the box.

    The first bead stays; whole boxes are added to the others, so that the derivative is the identity. From
    a fraction of about a half on, another image could be meant, or the molecule is bonded to its own image.

    Args:
        positions: (n_beads, 3).
        box: (3, 3) vectors as rows, lower triangular, as OpenMM holds them; row by row from the last one is then
            exact for bonds within half its diagonal.
    """
    first, second = known.bonds[: known.paths.shape[1]].T
    near = positions[second] - positions[first]
    shift = np.zeros_like(near)
    for axis in (2, 1, 0):
        step = -np.round(near[:, axis] / box[axis, axis])[:, None] * box[axis]
        near, shift = near + step, shift + step
    whole = positions + known.paths @ shift
    i, j = known.bonds.T
    return whole, np.abs(whole[i] - whole[j]) / np.diagonal(box)


class InEngine:
    """The CV at an engine's positions, by the compiled kernel, or in JAX without a compiler.

    Positions are (n_beads, 3) and boxes (3, 3), both float64 and in the engine's unit.

    Args:
        cv: the model.
        factor: see `length_factor`.
        known: how to make the molecule whole in the periodic box; None leaves the positions as they are.

    Attributes:
        code: the kernel, or None without a compiler.
    """

    def __init__(self, cv: LatentCV, factor: float, known: Wholeness | None):
        bonds = cv.template.bonds if known is None else known.bonds
        template = dataclasses.replace(cv.template, bonds=bonds)
        self.code = compiled_if_possible(LatentCV(cv.featurizer, cv.scaled, template, cv.record))
        self.n_dims, self.factor, self.known = cv.n_dims, factor, known
        self._exact = exact(cv)

    def knows_box(self, box: np.ndarray) -> bool:
        """Whether the kernel can make molecules whole in a box: that of a plane ignores a leaning third vector."""
        return self.n_dims == 3 or not box[2, :2].any()

    def whole(self, positions: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, bool]:
        """Return the positions (n_beads, n_dims), made whole, and whether every bond was short enough for that."""
        d = self.n_dims
        if self.known is None:
            return positions[:, :d], True
        if self.code is not None and self.knows_box(box):
            return self.code.whole(np.ascontiguousarray(positions[:, :d]), np.ascontiguousarray(box[:d, :d]))
        whole, reach = join_beads(positions, box, self.known)
        return whole[:, :d], bool((reach[:, :d] <= NEAR_HALF).all())

    def __call__(self, positions: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
        """Return latents (latent_dim,), gradients (latent_dim, n_beads, 3), and what `whole` returns."""
        x, is_whole = self.whole(positions, box)
        if self.code is not None:
            z, gradient = self.code.one(x, self.factor)
        else:
            z, gradient = self._exact(self.factor * x)
            gradient = self.factor * gradient
        return z, self._in_space(gradient), x, is_whole

    def pushed(self, positions: np.ndarray, box: np.ndarray, bias: GridBias) -> tuple[float, np.ndarray, bool]:
        """Return the energy of a bias, what it adds to the forces (n_beads, 3), and whether bonds were short."""
        if self.code is None:
            z, gradient, _, is_whole = self(positions, box)
            energy, slope = bias(z)
            return energy, -np.tensordot(slope, gradient, 1), is_whole
        x, is_whole = self.whole(positions, box)
        energy, push = self.code.pushed(x, self.factor, bias)
        return energy, self._in_space(push), is_whole

    def _in_space(self, vectors: np.ndarray) -> np.ndarray:
        """Return vectors (..., n_dims) with zeros up to three dimensions."""
        if self.n_dims == 3:
            return vectors
        return np.concatenate([vectors, np.zeros((*vectors.shape[:-1], 1))], axis=-1)


def too_long(positions: np.ndarray, box: np.ndarray, known: Wholeness, n_dims: int) -> str:
    """Return the message on the longest bond, which is too long to make the molecule whole."""
    reach = join_beads(positions, box, known)[1][:, :n_dims].max(axis=1)
    bond = int(np.argmax(reach))
    return (
        f"the bond of beads {' and '.join(map(str, known.bonds[bond]))} spans {reach[bond]:.2g} of the periodic "
        f"box, about half or more, so that the molecule cannot be made whole; check that box, bonds and particles "
        f"belong together"
    )

"""Featurizers: one frame of positions to a vector that rotation and translation leave alone, and back.

Each is a record of options; `fit` returns a copy that also holds what comes from the data (masses, a
reference, a list of pairs). `featurizer(positions)` is a pure function of one frame.

Symmetries are the caller's choice. They are canonical forms: `mirror=True` gives a conformation and its
mirror image the same features, `reversal=True` a chain and the same chain numbered from its other end
(they are equal for a homopolymer; see `geometry.canonical_order`). Both identify what a continuous
motion keeps apart, so features may jump where the motion crosses from one side to the other;
`continuity.jumps` counts how often. The alternative that keeps features continuous, and the symmetry
approximate, is to train on the images as well: `continuity.with_images`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polyvae import geometry
from polyvae.arguments import check_shape, flag, one_frame, one_of, real_number, whole_number
from polyvae.batches import single_precision
from polyvae.errors import InputError
from polyvae.geometry import superposition
from polyvae.geometry.distance_geometry import coordinates_from_distances, straight_between
from polyvae.trajectory.convert import as_trajectory
from polyvae.trajectory.record import Trajectory

# A PDB file holds three decimals. In reduced units an engine reads the number as it is; `write` takes
# 10 Å for one sigma, so its files hold such a number as well.
_PDB_STEP = {"angstrom": 1e-3, "nm": 1e-4, "sigma": 1e-3}
ALL_BEADS = 100  # most beads with all their pairs by default: 4,950 pairs, which every engine can compute
MOST_PAIRS = 200_000  # most pairs that a network can be trained on: some 300 weights each, held five times


def _option(name: str, default, check: Callable, **bounds) -> Any:
    """A static field, checked where the record is made; None is accepted if it is the default."""

    def converter(value):
        return None if value is None and default is None else check(name, value, **bounds)

    return eqx.field(static=True, default=default, converter=converter)


class PrincipalAxes(eqx.Module):
    """Coordinates in the chain's own principal frame, flattened bead by bead.

    Centre on the centre of mass, turn the principal axes of the gyration tensor onto x, y(, z), largest
    extent first (`geometry.principal_frame`). A function of the conformation alone: no reference
    structure. Mirror images stay different. The frame jumps where two extents become equal or the chain
    moment becomes perpendicular to an axis.

    Args:
        sign: "chain" fixes the direction of each axis by the chain moment; "none" leaves it to the
            eigensolver, as many scripts do, so that frames flip.
        mirror: give mirror images the same features, the chain moment signing the last axis too.
        reversal: give a chain and its reverse the same features.
        masses: set by `fit`.
    """

    sign: str = _option("sign", "chain", one_of, known=("chain", "none"))
    masses: Float[Array, "beads"] | None = None
    mirror: bool = _option("mirror", False, flag)
    reversal: bool = _option("reversal", False, flag)

    coordinates: ClassVar[bool] = True

    def __check_init__(self):
        _check_masses(self.masses)
        if self.mirror and self.sign != "chain":
            raise InputError('mirror=True needs sign="chain"')

    @single_precision
    def fit(self, traj: Trajectory) -> "PrincipalAxes":
        """The featurizer with values from the training data `traj`: the masses, where they differ."""
        return dataclasses.replace(self, masses=_masses(as_trajectory(traj), self.reversal))

    def __call__(self, positions: Float[Array, "beads dims"]) -> Float[Array, "features"]:
        """Features (n_beads n_dims,) of one frame, `positions` (n_beads, n_dims)."""
        positions = _order(self, positions)
        return geometry.in_principal_frame(positions, self.masses, self.sign, self.mirror).ravel()

    def inverse(self, features: Float[Array, "features"], n_dims: int) -> Float[Array, "beads dims"]:
        """Positions (n_beads, `n_dims`) of unscaled `features` (n_features,) in the principal frame, centred."""
        return features.reshape(-1, n_dims)

    def margins(self, positions: Float[Array, "beads dims"]) -> dict[str, Float[Array, ""]]:
        """Distance of `positions` (n_beads, n_dims) from a jump of the features; see `geometry.frame_margins`."""
        gap, moment = geometry.frame_margins(_order(self, positions), self.masses, self.mirror)
        found = {"eigenvalue_gap": gap, **_reversal_margin(self, positions)}
        if self.sign == "chain":
            found["chain_moment"] = moment
        return found


class Reference(eqx.Module):
    """Coordinates after the best superposition on a reference structure, flattened bead by bead.

    Centre on the centre of mass, then the rotation that brings the beads closest to the reference, mass
    weighted where masses differ (`superposition.superpose`). Proper rotations only, so that mirror
    images stay different. Undefined only where the frame has no part of the reference's shape left
    (`margins`), hence nearly always continuous.

    Args:
        structure: (n_beads, n_dims) in the unit of the data, or a `Trajectory` of one frame in any
            physical unit. By default the iterated mean of the data (`superposition.mean_structure`).
        planar: kind of superposition for 2-D data. "in-plane" turns within the plane. "3d" is the rotation in
            space of MD engines (PLUMED's OPTIMAL, Colvars' rotateToReference): it may turn the plane over, so that
            mirror images have the same features. It has no effect in 3-D.
        pdb_grid: round the reference to the three decimals that a PDB file holds, its centroid exactly
            zero, so that an engine that reads it from a PDB file works with the very same numbers. With
            unequal masses it is the plain centroid, which the features do not depend on.
        mirror: give mirror images the same features: reflections are allowed in the superposition.
        reversal: give a chain and its reverse the same features.
        step: grid of the reference with `pdb_grid`, set by `fit`.

    Raises:
        InputError: from `fit`, for a structure that does not match the data.
    """

    structure: Float[Array, "beads dims"] | Trajectory | None = None
    planar: str = _option("planar", "in-plane", one_of, known=("in-plane", "3d"))
    pdb_grid: bool = _option("pdb_grid", False, flag)
    mirror: bool = _option("mirror", False, flag)
    reversal: bool = _option("reversal", False, flag)
    masses: Float[Array, "beads"] | None = None
    step: float | None = _option("step", None, real_number, above=0)

    coordinates: ClassVar[bool] = True

    def __check_init__(self):
        if not isinstance(self.structure, (Trajectory, type(None))):
            check_shape("structure", self.structure, ("n_beads", "n_dims"))
        _check_masses(self.masses)

    @single_precision
    def fit(self, traj: Trajectory) -> "Reference":
        """The featurizer with values from the training data `traj`: reference, masses where they differ, grid."""
        traj = as_trajectory(traj)
        masses = _masses(traj, self.reversal)
        given: Array | np.ndarray | Trajectory | None = self.structure
        if given is None:
            given = superposition.mean_structure(
                traj.positions,
                masses,
                traj.weights,
                mirror=self._mirrored(traj.n_dims),
                prepare=geometry.canonical_order if self.reversal else None,
            )
        elif isinstance(given, Trajectory):
            if given.n_frames != 1:
                raise InputError(
                    f"the reference must be one frame; got {given.n_frames}. Choose one, as in traj[0]"
                )
            given = given.to_unit(traj.length_unit).positions[0]
        structure = np.asarray(given, np.float64)
        if structure.shape != (traj.n_beads, traj.n_dims):
            raise InputError(
                f"the reference must have the shape of a frame, ({traj.n_beads}, {traj.n_dims}); "
                f"got {structure.shape}. Select the same beads in both"
            )
        if not np.isfinite(structure).all():
            raise InputError("the reference must be finite; it holds NaN or infinity")
        step = None
        if self.pdb_grid:
            step = _PDB_STEP[traj.length_unit]
            structure = superposition.round_to_grid(structure, step) * step
        else:
            structure = structure - structure.mean(axis=0)
        return dataclasses.replace(self, structure=jnp.asarray(structure, jnp.float32), masses=masses, step=step)

    def template(self) -> Float[Array, "beads dims"]:
        """The reference as the superposition takes it.

        With `pdb_grid` in whole steps of the grid: a rotation has no scale, and whole numbers are exact
        in every precision where 0.001 is not.
        """
        if self.structure is None or isinstance(self.structure, Trajectory):
            raise InputError("this Reference has no structure yet; use the featurizer that .fit(traj) returns")
        if self.step is None:
            return self.structure
        return jnp.round(self.structure / self.step)

    def __call__(self, positions: Float[Array, "beads dims"]) -> Float[Array, "features"]:
        """Features (n_beads n_dims,) of one frame, `positions` (n_beads, n_dims)."""
        mirror = self._mirrored(positions.shape[1])
        return superposition.superpose(_order(self, positions), self.template(), self.masses, mirror).ravel()

    def inverse(self, features: Float[Array, "features"], n_dims: int) -> Float[Array, "beads dims"]:
        """Positions (n_beads, `n_dims`) of unscaled `features` (n_features,) in the reference's frame, centred."""
        return features.reshape(-1, n_dims)

    def margins(self, positions: Float[Array, "beads dims"]) -> dict[str, Float[Array, ""]]:
        """Distance of `positions` (n_beads, n_dims) from a jump of the features; see `superposition_margin`."""
        mirror = self._mirrored(positions.shape[1])
        margin = superposition.superposition_margin(_order(self, positions), self.template(), self.masses, mirror)
        return {"rotation": margin} | _reversal_margin(self, positions)

    def _mirrored(self, n_dims: int) -> bool:
        # A plane turned over in space is its mirror image in the plane.
        return self.mirror or (n_dims == 2 and self.planar == "3d")


class PairDistances(eqx.Module):
    """Distances between beads. They need no frame, so that nothing can jump.

    They are the same for a conformation and its mirror image.

    Args:
        pairs: (n_pairs, 2) bead numbers from 0. By default all pairs i < j, thinned by `every` and `max_pairs`.
        every: use only pairs among every k-th bead, the first included. By default, if `max_pairs` is not given
            either, k is the smallest number that leaves at most 100 beads. All pairs of N beads are
            N (N - 1) / 2: 4,950 for 100 beads.
        max_pairs: largest number of pairs; they are spread evenly over that list.
        reversal: give a chain and its reverse the same features.
        n_beads: set by `fit`.

    Raises:
        InputError: from `fit`, for pairs that the data do not have, if no pair is left, or if there are more than
            200,000, which cannot be trained on.
    """

    pairs: Array | np.ndarray | None = None  # whole numbers (n_pairs, 2), which `fit` sees to
    every: int | None = _option("every", None, whole_number, least=1)
    max_pairs: int | None = _option("max_pairs", None, whole_number, least=1)
    reversal: bool = _option("reversal", False, flag)
    n_beads: int | None = _option("n_beads", None, whole_number, least=1)

    coordinates: ClassVar[bool] = False

    def __check_init__(self):
        if self.pairs is not None:
            check_shape("pairs", self.pairs, ("n_pairs", 2), whole=True)

    @single_precision
    def fit(self, traj: Trajectory) -> "PairDistances":
        """The featurizer with its list of pairs for the training data `traj`."""
        n, every = as_trajectory(traj).n_beads, self.every
        if self.pairs is None:
            if every is None and self.max_pairs is None and n > ALL_BEADS:
                every = -(-n // ALL_BEADS)
            beads = np.arange(0, n, every or 1)
            n_all = len(beads) * (len(beads) - 1) // 2
            n_pairs = min(n_all, self.max_pairs or n_all)
            _check_number(n_pairs, n)
            places = np.linspace(0, n_all - 1, n_pairs).round().astype(int)
            pairs = beads[geometry.pairs_at(len(beads), places)]
        else:
            if self.n_beads is None:
                every = None  # a caller's list is used as it is
            pairs = np.asarray(self.pairs)
            if pairs.size and (pairs.min() < 0 or pairs.max() >= n or (pairs[:, 0] == pairs[:, 1]).any()):
                raise InputError(
                    f"pairs must join two different beads of 0 to {n - 1}; got {pairs.tolist()[:10]} ..."
                )
            _check_number(len(pairs), n)
        if len(pairs) == 0:
            raise InputError(f"{n} beads, every {every or 1}: no pair is left; use at least two beads")
        return dataclasses.replace(self, pairs=jnp.asarray(pairs, jnp.int32), every=every, n_beads=n)

    def __call__(self, positions: Float[Array, "beads dims"]) -> Float[Array, "features"]:
        """Distances (n_pairs,) in one frame, `positions` (n_beads, n_dims); call `fit` first."""
        if self.pairs is None:
            raise InputError("this PairDistances has no pairs yet; use the featurizer that .fit(traj) returns")
        return geometry.distances(_order(self, positions), self.pairs)

    def inverse(self, features: Float[Array, "features"], n_dims: int) -> Float[Array, "beads dims"]:
        """Positions whose distances come closest, up to a mirror image, in their principal frame.

        Multidimensional scaling and refinement (`distance_geometry.coordinates_from_distances`). With `every`
        that holds for every k-th bead, and the beads between, without distances, are put on straight lines.

        Args:
            features: (n_features,) of one frame, unscaled.
            n_dims: 2 or 3.

        Raises:
            InputError: the pairs leave out beads, or fall into parts with no distance between them.
        """
        self.check_joined()
        assert self.n_beads is not None  # `fit` sets it with the pairs
        assert self.pairs is not None
        n, every = self.n_joined, self.every or 1
        if every == 1:
            return coordinates_from_distances(features, self.pairs, n, n_dims)
        x = coordinates_from_distances(features, self.pairs // every, n, n_dims)
        return straight_between(x, every, self.n_beads)

    @property
    def n_joined(self) -> int:
        """Number of beads that the distances determine: all, or every k-th."""
        return -(-(self.n_beads or 0) // (self.every or 1))

    @property
    def work(self) -> int:
        """Numbers that `inverse` goes through for one conformation: a matrix of distances, in each refinement."""
        return 100 * self.n_joined**2

    def margins(self, positions: Float[Array, "beads dims"]) -> dict[str, Float[Array, ""]]:
        """The margin of `reversal` alone for `positions` (n_beads, n_dims): distances need no frame."""
        return _reversal_margin(self, positions)

    def check_joined(self) -> None:
        """Raise `InputError` where the pairs leave beads, of every k-th, without any distance to bead 0."""
        if self.pairs is None:
            raise InputError("this PairDistances has no pairs yet; use the featurizer that .fit(traj) returns")
        if isinstance(self.pairs, jax.core.Tracer):
            return
        every = self.every or 1
        part = np.arange(self.n_joined)
        for i, j in np.asarray(self.pairs) // every:
            part[part == part[j]] = part[i]
        apart = np.flatnonzero(part != part[0])
        if len(apart):
            raise InputError(
                f"coordinates need distances that join all {self.n_joined} beads; bead {every * apart[0]} is not "
                f"joined to bead 0 by the {len(self.pairs)} pairs used. Use all pairs of these beads for a model "
                f"that generates structures"
            )


FEATURIZERS = {kind.__name__: kind for kind in (PrincipalAxes, Reference, PairDistances)}


def _check_number(n_pairs: int, n_beads: int) -> None:
    """Refuse more pairs than can be trained on, before any list of them is made."""
    if n_pairs > MOST_PAIRS:
        few = -(-n_beads // ALL_BEADS)
        raise InputError(
            f"{n_pairs:,} pairs of {n_beads:,} beads are more than can be trained on ({MOST_PAIRS:,}); "
            f"take one bead in {few} (--every {few}, PairDistances(every={few})), or select fewer (--select)"
        )


def _check_masses(masses) -> None:
    if masses is not None:
        check_shape("masses", masses, ("n_beads",))


def _masses(traj: Trajectory, reversal: bool):
    """The masses as an array, or None if all are equal; with `reversal` they must be the same from both ends."""
    if (traj.masses == traj.masses[0]).all():
        return None
    if reversal and not np.array_equal(traj.masses, traj.masses[::-1]):
        bead = int(np.argmax(traj.masses != traj.masses[::-1]))
        raise InputError(
            f"reversal=True needs a chain that reads the same from both ends; bead {bead} has mass "
            f"{traj.masses[bead]:g} and its partner {traj.n_beads - 1 - bead} {traj.masses[-1 - bead]:g}"
        )
    return jnp.asarray(traj.masses, jnp.float32)


def _order(featurizer, positions):
    positions = one_frame(positions)
    if featurizer.reversal:
        positions = geometry.canonical_order(positions)
    return positions


def _reversal_margin(featurizer, positions):
    if not featurizer.reversal:
        return {}
    return {"reversal": geometry.reversal_margin(positions)}

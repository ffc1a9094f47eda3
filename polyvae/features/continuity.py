"""Diagnostics of an alignment: where its frame is undefined, and whether features jump in time."""

import dataclasses
import functools

import equinox as eqx
import jax
import numpy as np

from polyvae import geometry
from polyvae.batches import map_frames
from polyvae.errors import InputError
from polyvae.features.featurizers import PairDistances, PrincipalAxes, Reference
from polyvae.geometry import superposition
from polyvae.trajectory.record import Trajectory

FACTOR = 5.0
FLOOR = 0.05
_HELD = 1 << 24  # features at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Jumps:
    """Result of `jumps`.

    Args:
        fraction: share of the steps that are jumps; 0 without steps.
        frames: numbers of the frames after each jump.
        n_steps: pairs of neighbouring frames within a segment.
        aligned: (n_steps,) root mean square change of the features, a length.
        superposed: (n_steps,) RMSD between the two frames after superposition on each other.
        floor: in the unit of the data.
    """

    fraction: float
    frames: np.ndarray
    n_steps: int
    aligned: np.ndarray
    superposed: np.ndarray
    floor: float

    count = property(lambda self: len(self.frames), doc="Number of jumps.")


@dataclasses.dataclass(frozen=True, eq=False)
class AlignmentReport:
    """Result of `check_alignment`.

    Args:
        name: name of the featurizer.
        jumps: its jumps.
        alternatives: jump fraction of each other featurizer that was tried, in the order tried.
        better: the first other one that does not jump, or the one that jumps least. None if the featurizer does
            not jump or no other jumps less.
        message: one sentence for a person; None if the featurizer does not jump.
    """

    name: str
    jumps: Jumps
    alternatives: dict[str, float]
    better: str | None
    message: str | None


# Compiled once for all featurizers of one kind, which are arguments and not constants.
_radii = jax.jit(jax.vmap(geometry.radius_of_gyration))
_features = eqx.filter_jit(lambda featurizer, frames: jax.vmap(featurizer)(frames))
_margins = eqx.filter_jit(lambda featurizer, frames: jax.vmap(featurizer.margins)(frames))
_superposed = eqx.filter_jit(
    lambda masses, now, then: jax.vmap(lambda a, b: superposition.rmsd(a, b, masses))(now, then)
)


def margins(traj: Trajectory, featurizer) -> dict[str, np.ndarray]:
    """Distance of each frame from one with undefined axes, (n_frames,) each, from 0 (undefined) to 1.

    "eigenvalue_gap" and "chain_moment" for `PrincipalAxes` (`geometry.frame_margins`), "rotation" for
    `Reference` (`superposition.superposition_margin`), none for `PairDistances`; with `reversal` also
    "reversal" (`geometry.reversal_margin`). The featurizer must be fitted.
    """
    found = map_frames(functools.partial(_margins, featurizer), traj.positions)
    return {name: np.asarray(values) for name, values in found.items()}


def jumps(traj: Trajectory, featurizer, *, factor: float = FACTOR, floor: float = FLOOR) -> Jumps:
    """Steps at which the features change much more than the conformation does.

    A step leads from a frame to the next in the same segment; none crosses from one segment to another.
    It is a jump where

        sqrt(sum_i |f_i(t+1) - f_i(t)|^2 / n) > factor * RMSD(t, t+1) + floor * size

    with f the featurized positions and n the beads (for distances: the pairs), RMSD the distance of the
    two frames superposed on each other, and size the root mean square radius of gyration over the
    trajectory. Frames far apart in time differ by the size itself, so that few steps can exceed the right
    side: the figure means something for frames that are close in time. Weights count in the size, not in steps.

    Args:
        featurizer: fitted.
        floor: in units of the data's size.
    """
    masses = getattr(featurizer, "masses", None)
    like = jax.ShapeDtypeStruct(traj.positions.shape[1:], np.float32)
    n_features = eqx.filter_eval_shape(featurizer, like).size
    per_frame = traj.n_beads if featurizer.coordinates else n_features
    last = np.cumsum(traj.segments) - 1
    starts = np.setdiff1d(np.arange(traj.n_frames), last)

    radii = map_frames(_radii, traj.positions)
    weights = traj.weights if traj.weights is not None and traj.weights.any() else None
    size = float(np.sqrt(np.average(np.square(radii, dtype=np.float64), weights=weights)))
    if len(starts) == 0:
        empty = np.empty(0)
        return Jumps(0.0, np.empty(0, int), 0, empty, empty, floor * size)
    now, then = traj.positions[starts], traj.positions[starts + 1]
    superposed = map_frames(functools.partial(_superposed, masses), now, then).astype(np.float64)
    change = np.zeros(traj.n_frames - 1)
    features = functools.partial(map_frames, functools.partial(_features, featurizer), width=n_features)
    size_of_piece = max(1, _HELD // n_features)  # features of all frames may be many times their coordinates
    for k in range(0, len(change), size_of_piece):
        steps = np.diff(features(traj.positions[k : k + size_of_piece + 1]), axis=0)
        change[k : k + size_of_piece] = np.sum(np.square(steps, dtype=np.float64), axis=1)
    aligned = np.sqrt(change[starts] / per_frame)
    found = np.flatnonzero(aligned > factor * superposed + floor * size)
    return Jumps(len(found) / len(starts), starts[found] + 1, len(starts), aligned, superposed, floor * size)


def jump_fraction(traj: Trajectory, featurizer, *, factor: float = FACTOR, floor: float = FLOOR) -> float:
    """Fraction of the steps within segments at which a fitted featurizer jumps; see `jumps`."""
    return jumps(traj, featurizer, factor=factor, floor=floor).fraction


def check_alignment(traj: Trajectory, featurizer, candidates=None) -> AlignmentReport:
    """Count the jumps of a featurizer on a trajectory and, if there are any, find one that does not jump.

    Args:
        featurizer: fitted.
        candidates: featurizers to try instead, in this order; each is fitted to `traj`. By default `Reference()`,
            `PrincipalAxes()` and `PairDistances()`, without those of its own kind and options. An empty list only
            counts jumps.
    """
    found = jumps(traj, featurizer)
    name = describe(featurizer)
    if found.count == 0:
        return AlignmentReport(name, found, {}, None, None)
    if candidates is None:
        candidates = [Reference(), PrincipalAxes(), PairDistances(max_pairs=1000)]
    tried: dict[str, float] = {}
    for candidate in candidates:
        label = describe(candidate)
        if label == name or (traj.n_beads < 2 and isinstance(candidate, PairDistances)):
            continue
        tried[label] = jump_fraction(traj, candidate.fit(traj))
        if tried[label] == 0:
            break
    best = min(tried, key=tried.__getitem__, default=None)
    message = f"{name} jumps at {found.count} of {found.n_steps} steps (first at frame {found.frames[0]})"
    if best is None:
        return AlignmentReport(name, found, tried, None, message)
    if tried[best] >= found.fraction:
        return AlignmentReport(name, found, tried, None, f"{message}, and no other alignment jumps less")
    advice = "does not" if tried[best] == 0 else f"jumps at {tried[best]:.2%} of them only"
    return AlignmentReport(name, found, tried, best, f"{message}; {best} {advice}")


def describe(featurizer) -> str:
    """The featurizer as its call with the options that differ from the defaults, such as `Reference()`."""
    options = [
        f"{field.name}={getattr(featurizer, field.name)!r}"
        for field in dataclasses.fields(featurizer)
        if field.metadata.get("static", False)
        and field.name not in ("step", "n_beads")
        and getattr(featurizer, field.name) != field.default
    ]
    return f"{type(featurizer).__name__}({', '.join(options)})"


def with_images(traj: Trajectory, *, mirror: bool = False, reversal: bool = False) -> Trajectory:
    """Each frame followed by its images, as data to train on: augmentation by symmetry.

    `mirror` adds the mirror image (the last coordinate negated), `reversal` the chain numbered from its
    other end, both together all four. A model trained on them is symmetric as far as it has learned to
    be, and stays continuous; `PrincipalAxes(reversal=True)` and the like are symmetric exactly. The
    images follow their frame, so that blocks held out for validation hold both. Each frame
    becomes its own segments: times and lagged pairs have no meaning any more.

    Raises:
        InputError: reversal of a chain with masses that distinguish its ends.
    """
    if reversal and not np.array_equal(traj.masses, traj.masses[::-1]):
        raise InputError("reversal=True needs masses that read the same from both ends of the chain")
    images = [traj.positions]
    if reversal:
        images += [image[:, ::-1] for image in images]
    if mirror:
        flip = np.array([1.0] * (traj.n_dims - 1) + [-1.0], np.float32)
        images += [image * flip for image in images]
    n = len(images)
    positions = np.stack(images, axis=1).reshape(n * traj.n_frames, traj.n_beads, traj.n_dims)
    return dataclasses.replace(
        traj,
        positions=positions,
        time=None,
        box=None,
        origin=None if traj.origin is None else np.repeat(traj.origin, n, axis=0),
        segments=(1,) * len(positions),
        weights=None if traj.weights is None else np.repeat(traj.weights / n, n),
    )

"""Distances between ensembles of conformations."""

import functools
from collections.abc import Iterator

import jax
import numpy as np

from polyvae import geometry
from polyvae.arguments import seed_number, whole_number
from polyvae.batches import map_frames, single_precision
from polyvae.measures.pairs import even_pairs
from polyvae.trajectory.convert import as_trajectory
from polyvae.trajectory.record import Trajectory, bonded_triples, bonds_of

MAX_PAIRS = 2000


def ensemble_distances(a: Trajectory, b: Trajectory) -> dict[str, float]:
    """Wasserstein-1 distances between two ensembles of one chain, in their length unit.

    "bond" over all bond lengths pooled (consecutive beads where no bonds are known), "angle" over all angles
    between bonds that meet in a bead, in radians (0 where none do), "rg", "end_to_end", and "pairs", the mean
    over all pairs of beads of the distance for that pair (at most `MAX_PAIRS`, evenly chosen). Frames count
    by their weights.
    """
    a, b = as_trajectory(a), as_trajectory(b)
    pairs = even_pairs(a.n_beads, MAX_PAIRS)
    return _apart(*((_measures(traj, bonds_of(a), pairs), frame_weights(traj)) for traj in (a, b)))


def noise_floor(traj: Trajectory, *, n_splits: int = 8, seed: int = 0) -> dict[str, float]:
    """`ensemble_distances` between two random halves of the frames, the mean over several ways to halve them.

    A single split is a poor estimate: its distances vary by a factor of four from one split to the next. "pairs"
    is over at most 250 pairs. The floor of a length that hardly varies (by half a percent or less: rigid bonds,
    rounded in a file) is at least a thousandth of its mean. The floor of one frame is 0.
    """
    traj = as_trajectory(traj)
    traj = traj[np.flatnonzero(frame_weights(traj) > 0)]
    n_splits, seed = whole_number("n_splits", n_splits, 1), seed_number(seed)
    measured, weights = _measures(traj, bonds_of(traj), even_pairs(traj.n_beads, 250)), frame_weights(traj)
    if len(traj) < 2:
        return dict.fromkeys(measured, 0.0)
    found = []
    for halves in random_halves(len(traj), n_splits, seed):
        found.append(
            _apart(*(({name: v[half] for name, v in measured.items()}, weights[half]) for half in halves))
        )
    floor = {name: float(np.mean([apart[name] for apart in found])) for name in measured}
    for name, values in measured.items():
        mean = float(values.mean(dtype=np.float64)) if values.size else 0.0
        if values.size and values.std(axis=0, dtype=np.float64).max() < 5e-3 * mean:
            floor[name] = max(floor[name], 1e-3 * mean)
    return floor


def random_halves(n: int, n_splits: int = 8, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers of the frames in either half, in order, of several ways to halve n frames."""
    rng = np.random.default_rng(seed)
    for _ in range(n_splits):
        one, other = np.array_split(rng.permutation(n), 2)
        yield np.sort(one), np.sort(other)


def _measures(traj: Trajectory, bonds: np.ndarray, pairs: np.ndarray) -> dict[str, np.ndarray]:
    return shape_measures(traj, bonds) | {"pairs": pair_distances(traj, pairs)}


def _apart(one: tuple[dict, np.ndarray], other: tuple[dict, np.ndarray]) -> dict[str, float]:
    """Distances between measures of frames and their weights."""
    from scipy.stats import wasserstein_distance

    (a, a_weights), (b, b_weights) = one, other

    def distance(x, y):  # (n_frames,) or, pooled, (n_frames, n)
        weights = (np.repeat(w, v[0].size) for w, v in ((a_weights, x), (b_weights, y)))
        return float(wasserstein_distance(x.ravel(), y.ravel(), *weights)) if x.size else 0.0

    result = {name: distance(a[name], b[name]) for name in a if name != "pairs"}
    each = zip(a["pairs"].T, b["pairs"].T, strict=True)
    return result | {"pairs": float(np.mean([distance(x, y) for x, y in each]))}


@single_precision
def shape_measures(traj: Trajectory, bonds: np.ndarray) -> dict[str, np.ndarray]:
    """Per frame: "bond" (n_frames, n_bonds), "angle" (n_frames, n_angles), "rg" and "end_to_end" (n_frames,)."""
    measures = map_frames(
        functools.partial(_shape, traj.unequal_masses, bonds, bonded_triples(bonds)), traj.positions
    )
    return dict(zip(("bond", "angle", "rg", "end_to_end"), measures, strict=True))


@jax.jit
def _shape(masses, bonds, triples, frames):
    def measures(x):
        inner = geometry.distances(x, bonds), geometry.angles(x, triples)
        return *inner, geometry.radius_of_gyration(x, masses), geometry.end_to_end(x)

    return jax.vmap(measures)(frames)


@single_precision
def pair_distances(traj: Trajectory, pairs: np.ndarray) -> np.ndarray:
    """Distances (n_frames, n_pairs) between pairs of beads, pairs of shape (n_pairs, 2)."""
    return map_frames(functools.partial(_distances, pairs), traj.positions)


@jax.jit
def _distances(pairs, frames):
    return jax.vmap(lambda x: geometry.distances(x, pairs))(frames)


def frame_weights(traj: Trajectory) -> np.ndarray:
    """Statistical weights (n_frames,), 1 where none are given."""
    traj = as_trajectory(traj)
    return np.ones(len(traj)) if traj.weights is None else traj.weights

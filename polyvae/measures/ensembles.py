"""Distances between ensembles of conformations."""

import functools

import jax
import numpy as np

from polyvae import geometry
from polyvae.arguments import whole_number
from polyvae.batches import map_frames
from polyvae.errors import InputError
from polyvae.measures.pairs import even_pairs
from polyvae.trajectory.convert import as_trajectory
from polyvae.trajectory.record import Trajectory, bonded_triples, chain_bonds

MAX_PAIRS = 2000


def ensemble_distances(a: Trajectory, b: Trajectory) -> dict[str, float]:
    """Wasserstein-1 distances between two ensembles of one chain, in their length unit.

    "bond" over all bond lengths pooled (consecutive beads where no bonds are known), "angle" over all angles
    between bonds that meet in a bead, in radians (0 where none do), "rg", "end_to_end", and "pairs", the mean
    over all pairs of beads of the distance for that pair (at most `MAX_PAIRS`, evenly chosen). Frames count
    by their weights.
    """
    from scipy.stats import wasserstein_distance

    a, b = as_trajectory(a), as_trajectory(b)
    pairs = even_pairs(a.n_beads, MAX_PAIRS)
    bonds = a.bonds if a.bonds is not None and len(a.bonds) else chain_bonds(a.n_beads)
    shapes = [shape_measures(traj, bonds) for traj in (a, b)]
    apart = [pair_distances(traj, pairs) for traj in (a, b)]

    def distance(x, y):  # (n_frames,) or, pooled, (n_frames, n)
        weights = [np.repeat(frame_weights(t), v[0].size) for t, v in ((a, x), (b, y))]
        return float(wasserstein_distance(x.ravel(), y.ravel(), *weights)) if x.size else 0.0

    result = {name: distance(*(s[name] for s in shapes)) for name in shapes[0]}
    result["pairs"] = float(np.mean([distance(x, y) for x, y in zip(*(d.T for d in apart), strict=True)]))
    return result


def shape_measures(traj: Trajectory, bonds: np.ndarray) -> dict[str, np.ndarray]:
    """Per frame: "bond" (n_frames, n_bonds), "angle" (n_frames, n_angles), "rg" and "end_to_end" (n_frames,)."""
    measures = map_frames(functools.partial(_shape, bonds, bonded_triples(bonds)), traj.positions)
    return dict(zip(("bond", "angle", "rg", "end_to_end"), measures, strict=True))


@jax.jit
def _shape(bonds, triples, frames):
    def measures(x):
        inner = geometry.distances(x, bonds), geometry.angles(x, triples)
        return *inner, geometry.radius_of_gyration(x), geometry.end_to_end(x)

    return jax.vmap(measures)(frames)


def pair_distances(traj: Trajectory, pairs: np.ndarray) -> np.ndarray:
    """Distances (n_frames, n_pairs) between pairs of beads, pairs of shape (n_pairs, 2)."""
    return map_frames(functools.partial(_distances, pairs), traj.positions)


@jax.jit
def _distances(pairs, frames):
    return jax.vmap(lambda x: geometry.distances(x, pairs))(frames)


def frame_weights(chunk: Trajectory, first: int = 0) -> np.ndarray:
    """Weights (n_frames,) of a chunk whose first frame has the number `first`."""
    chunk, first = as_trajectory(chunk), whole_number("first", first, 0)
    if chunk.weights is None:
        return np.ones(len(chunk))
    if (chunk.weights < 0).any():
        bad = int(np.argmax(chunk.weights < 0))
        raise InputError(
            f"weights must not be negative; frame {first + bad} has {chunk.weights[bad]:g}. "
            f"Give exp(bias / kT), not the bias"
        )
    return chunk.weights

"""Paths and grids of conformations through the latent space."""

import dataclasses
from typing import NamedTuple

import numpy as np

from polyvae.arguments import numbers_array, one_of, seed_number, whole_number
from polyvae.batches import single_precision
from polyvae.cv.latent import LatentCV, check_cv
from polyvae.errors import InputError
from polyvae.measures.ensembles import frame_weights
from polyvae.measures.weights import quantile
from polyvae.trajectory.record import Trajectory
from polyvae.trajectory.stream import Stream

WAYS = ("straight", "data")
_NODES = 2000  # of the data's latents
_POINTS = 200  # that a path through them is smoothed with
_LARGEST_GRID = 100_000


class LatentPath(NamedTuple):
    """Decoded conformations, a `Trajectory` of n frames, and their latent points z (n, latent_dim)."""

    conformations: Trajectory
    z: np.ndarray


@single_precision
def interpolate(
    cv: LatentCV,
    a,
    b,
    n: int,
    *,
    along: str = "straight",
    data: Trajectory | np.ndarray | None = None,
    seed: int = 0,
) -> LatentPath:
    """Decoded conformations at `n` points of a path from `a` to `b`, at equal distances along it in z.

    The conformations are the decoder's means over everything that the latents do not hold. `relax` corrects their
    bonds. The encoder returns nearly the same z for each; the difference measures how well the model knows the
    point.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        a, b: latent points (latent_dim,), or frames (n_beads, n_dims), or trajectories of one frame.
        along: "straight", or "data" for a path where the data's z are dense (`find_dense_path`).
        data: the trajectory for that density.
        n: number of points, both ends included.
        seed: seed of the search for a dense path.

    Raises:
        InputError: ends of another shape, fewer than 2 points, `along="data"` without data.
    """
    ends = [_point(check_cv(cv), end, name) for end, name in ((a, "a"), (b, "b"))]
    n, seed = whole_number("n", n, 2), seed_number(seed)
    one_of("along", along, WAYS)
    if along == "data":
        if data is None:
            raise InputError('along="data" needs the trajectory whose density the path follows: data=traj')
        points, weights = _latents(cv, data)
        z = find_dense_path(points, ends[0], ends[1], n, weights=weights, seed=seed)
    else:
        z = ends[0] + np.linspace(0, 1, n)[:, None] * (ends[1] - ends[0])
    return _decoded(cv, z, (n,))


@single_precision
def latent_grid(cv: LatentCV, n: int, *, data: Trajectory | np.ndarray | None = None) -> LatentPath:
    """Decoded conformations on a regular grid of the latent space, n points for each latent, the last one fastest.

    It spans the 1 % and 99 % quantiles of the data's z, or without data -2 to 2, which is two standard
    deviations of the prior.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        n: points along each latent.
        data: the trajectory that sets the range of the grid.
    """
    n = whole_number("n", n, 2)
    if n ** check_cv(cv).latent_dim > _LARGEST_GRID:
        raise InputError(
            f"a grid needs 2 or more points for each latent, and {_LARGEST_GRID} in all at most; got {n} for each "
            f"of {cv.latent_dim}"
        )
    low, high = np.full((2, cv.latent_dim), [[-2.0], [2.0]])
    if data is not None:
        z, weights = _latents(cv, data)
        low, high = ([quantile(column, q, weights) for column in z.T] for q in (0.01, 0.99))
    axes = np.linspace(low, high, n).T
    z = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, cv.latent_dim)
    return _decoded(cv, z, (1,) * len(z))


def _latents(cv: LatentCV, data) -> tuple[np.ndarray, np.ndarray]:
    """The z of all frames, and their weights."""
    z, weights = [], []
    for chunk in data if isinstance(data, Stream) else [data]:
        traj = cv.as_trajectory(chunk)
        z.append(cv.encode(traj.positions))
        weights.append(frame_weights(traj))
    return np.concatenate(z), np.concatenate(weights)


def _decoded(cv: LatentCV, z: np.ndarray, segments: tuple[int, ...]) -> LatentPath:
    frames = dataclasses.replace(cv.template, positions=cv.decode(z, coordinates=True), segments=segments)
    return LatentPath(frames, np.asarray(z, np.float32))


def find_dense_path(
    points: np.ndarray, a: np.ndarray, b: np.ndarray, n: int, *, weights: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """n points (n, dim) from a to b, evenly along a smooth path where `points` (n_points, dim) are dense.

    It is the shortest path over a, b and at most 2,000 of the points, where a step costs its length to the power
    dim + 1. For many points the cost of a path becomes the integral of 1 / density (D. Hwang, S. B. Damelin and
    A. O. Hero, doi:10.1214/15-AAP1162). The path is smoothed over 2 % of its length, or over one step if that is
    more. Points count by their weights (n_points,).
    """
    from scipy.sparse.csgraph import dijkstra
    from scipy.spatial.distance import cdist

    rng = np.random.default_rng(seed)
    if weights is not None and (weights != weights[0]).any():
        points = rng.choice(points, min(len(points), _NODES), p=weights / weights.sum())
    elif len(points) > _NODES:
        points = rng.choice(points, _NODES, replace=False)
    nodes = np.concatenate([[a], [b], points]).astype(np.float64)
    scale = nodes.std(axis=0).mean() or 1.0  # powers of large numbers must not overflow
    costs = np.maximum(cdist(nodes, nodes) / scale, 1e-9) ** (nodes.shape[1] + 1)
    before = dijkstra(costs, indices=0, return_predecessors=True)[1]
    chosen = [1]
    while chosen[-1] != 0:
        chosen.append(before[chosen[-1]])
    path = _space_evenly(nodes[chosen[::-1]], _POINTS)
    width = max(0.02, 1 / len(chosen)) * _POINTS
    if len(chosen) == 2:
        width = 0  # a straight line
    for _ in range(int(2 * width**2)):  # a diffusion with fixed ends
        path[1:-1] = 0.25 * path[:-2] + 0.5 * path[1:-1] + 0.25 * path[2:]
    return _space_evenly(path, n)


def _space_evenly(path: np.ndarray, n: int) -> np.ndarray:
    """Put n points at equal distances along a path of straight pieces."""
    gone = np.concatenate([[0.0], np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()])
    at = np.linspace(0, gone[-1], n)
    return np.stack([np.interp(at, gone, column) for column in path.T], axis=1)


def _point(cv: LatentCV, end, name: str) -> np.ndarray:
    """The latent point that `end` is, or that it is encoded to if it is a frame."""
    if isinstance(end, Trajectory):
        if len(end) != 1:
            raise InputError(f"{name} must be one frame; got {len(end)}")
        return cv.transform(end)[0]
    shapes = f"a finite latent point of shape ({cv.latent_dim},), or a frame of shape ({cv.n_beads}, {cv.n_dims})"
    end = numbers_array(name, end, shapes, np.float32, finite=False)
    if end.shape == (cv.n_beads, cv.n_dims):
        return cv.transform(end[None])[0]
    if end.shape != (cv.latent_dim,) or not np.isfinite(end).all():
        raise InputError(f"{name} must be {shapes}; got shape {end.shape}")
    return end

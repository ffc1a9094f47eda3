"""Statistical weights of frames: which frames count, how many they are worth, quantiles by weight."""

import dataclasses

import numpy as np

from polyvae.trajectory.record import Trajectory


def counting(traj: Trajectory) -> tuple[np.ndarray, np.ndarray | None]:
    """Numbers of the frames whose weight is not 0, and their weights; all frames, and none, where no frame has any
    weight."""
    if traj.weights is None or not traj.weights.any():
        return np.arange(traj.n_frames), None
    rows = np.flatnonzero(traj.weights)
    return rows, traj.weights[rows]


def counted(traj: Trajectory) -> Trajectory:
    """The frames that count, as `counting` has them."""
    rows, weights = counting(traj)
    return dataclasses.replace(traj if len(rows) == len(traj) else traj[rows], weights=weights)


def quantile(values: np.ndarray, q: float, weights: np.ndarray | None = None) -> float:
    """The smallest of the values (n_frames, ...) with at least a share `q` of the weight up to it.

    The inverse of the cumulative distribution, which is one of the values: weights may have any scale, and frames
    of whole-number weights count as that many frames.

    Args:
        weights: (n_frames,), equal by default.
    """
    if weights is None:
        return float(np.quantile(values, q, method="inverted_cdf"))
    shares = np.repeat(np.asarray(weights, np.float64), np.size(values) // len(weights))
    return float(np.quantile(np.ravel(values), q, method="inverted_cdf", weights=shares))


def merged(frames: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Numbers, in order, of the first of each kind of equal frames (n_frames, ...), and the weight of the kind;
    kinds of weight 0 are left out.

    Repeated frames hold nothing new, so a number of independent frames must not depend on them.
    """
    rows = np.ascontiguousarray(frames).reshape(len(frames), -1)
    rows = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0]
    _, first, kind = np.unique(rows, return_index=True, return_inverse=True)
    shares = np.bincount(kind, weights, len(first)).astype(np.float64)
    order = np.argsort(first)
    order = order[shares[order] > 0]
    return first[order], shares[order]


def effective_size(frames: np.ndarray, weights: np.ndarray | None = None) -> float:
    """How many frames of equal weight are worth as much: (sum w)^2 / sum w^2 over frames that differ.

    Source: Kish, Survey Sampling (1965), section 11.2.
    """
    weights = merged(frames, weights)[1]
    return float(weights.sum() ** 2 / (weights**2).sum())


def drawn_evenly(weights: np.ndarray, n: int) -> np.ndarray:
    """Numbers (n,) of frames, in order, each as often as its weight says."""
    cumulative = np.cumsum(weights)
    return np.searchsorted(cumulative / cumulative[-1], (np.arange(n) + 0.5) / n).clip(max=len(weights) - 1)

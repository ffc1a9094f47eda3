"""Range and width of a bias on latents, and the bias as a table on a grid with walls, which a run changes."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from polyvae.cv.latent import LatentCV
from polyvae.cv.steepness import find_slopes, sample_step
from polyvae.errors import InputError
from polyvae.export.steepness import check_steepness
from polyvae.measures.basins import find_basins
from polyvae.trajectory.convert import chunks_of
from polyvae.trajectory.stream import Stream

log = logging.getLogger(__name__)

_FINEST = (150, 100, 30)  # widths of hills in the range of each of one, two, and more latents
_AXIS = 6  # numbers of an axis, as `Axis` of c_files/in_process.c has them


def report_no_data() -> None:
    """Log that an export has no lines of metadynamics, and why."""
    log.warning(
        "no data were given, so the export has no metadynamics lines: their widths and bounds come from the "
        "latents of a trajectory. Give one: --data TRAJ"
    )


def statistics(cv: LatentCV, data) -> dict[str, Any]:
    """Mean, standard deviation, smallest and largest of each latent over a trajectory, "basin", its smallest
    standard deviation within one basin (`measures.basins`), and "slopes" (`cv.steepness`).

    Args:
        data: a `Trajectory`, a `Stream`, or what `as_trajectory` takes. Weights of frames count.
    """
    rows, weights, few, done = [], [], [], 0
    for chunk in chunks_of(data, array_unit=cv.length_unit, dims=cv.n_dims):
        x = cv.frames(chunk)
        rows.append(cv.encode(x, first_frame=done).astype(np.float64))
        done += len(x)
        n_frames = data.n_frames if isinstance(data, Stream) else len(x)
        few.append(x[:: sample_step(n_frames, x[0].size)])
        weights.append(np.ones(len(chunk)) if chunk.weights is None else chunk.weights)
    found = spread_of(np.concatenate(rows), np.concatenate(weights))
    return found | {"slopes": find_slopes(cv, np.concatenate(few))}


def spread_of(z: np.ndarray, w: np.ndarray) -> dict[str, Any]:
    """`statistics` of latents (n_frames, latent_dim) with weights (n_frames,), without slopes."""
    mean = np.average(z, axis=0, weights=w)
    std = np.sqrt(np.average((z - mean) ** 2, axis=0, weights=w))
    if not (std > 0).all():
        raise InputError(
            f"latent {int(np.argmin(std))} is the same in all {len(z)} frames of the data, which gives it no "
            f"width; give a trajectory that moves, or export without data"
        )
    narrowest = [min(basin.spread for basin in find_basins(column, w)) for column in z.T]
    return {
        "mean": mean,
        "std": std,
        "basin": np.array(narrowest),
        "min": z.min(axis=0),
        "max": z.max(axis=0),
        "n_frames": np.array(len(z)),
    }


def bias_width(stats: dict[str, np.ndarray]) -> np.ndarray:
    """Standard deviation (latent_dim,) of the hills of metadynamics and of the kernels of OPES.

    The spread inside the narrowest basin, which is what OPES asks for (Invernizzi & Parrinello,
    10.1021/acs.jpclett.0c00497), or a fifth of the standard deviation over all, whichever is smaller: where one
    basin alone is known, kernels as wide as it never push a run out of it. And no narrower than a 150th of the
    range, since a steeper bias breaks bonds that have nothing to do with the CV.
    """
    finest = _FINEST[min(len(stats["std"]), 3) - 1]
    return np.maximum(np.minimum(stats["basin"], 0.2 * stats["std"]), (stats["max"] - stats["min"]) / finest)


def check_bias(cv: LatentCV, stats: dict[str, Any] | None, *, without=None) -> np.ndarray | None:
    """Width (latent_dim,) of the kernels that an export writes, checked by `steepness.check_steepness`.

    Args:
        stats: of `statistics`.
        without: the width where there are no statistics; None where the export then writes none.
    """
    if stats is not None:
        width, slopes = bias_width(stats), stats["slopes"]
    elif without is not None:
        width, slopes = np.full(cv.latent_dim, without), cv.record.slopes
    else:
        return None
    check_steepness(cv, width, slopes)
    return width


def bias_grid(stats: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Hill widths (`bias_width`) and bounds of a grid: the data's range and half of it more on each side, in whole
    hill widths. Bins: five a hill width, but two from three latents on, where five are more than ten million."""
    sigma = np.array([float(f"{value:.2g}") for value in bias_width(stats)])
    margin = 0.5 * (stats["max"] - stats["min"])
    low, high = np.floor((stats["min"] - margin) / sigma), np.ceil((stats["max"] + margin) / sigma)
    bins = (5 if len(sigma) < 3 else 2) * (high - low).astype(int)
    return {"sigma": sigma, "low": low * sigma, "high": high * sigma, "bins": bins}


class GridBias:
    """Energy of a bias at latents, and its slope: a table, smooth between its points, and harmonic walls.

    Along each latent the curve goes through the points, with the slope at each that its two neighbours give
    (Catmull and Rom); outside the table it is what it is at the edge. Compiled code reads the same arrays.

    Args:
        low, high: (latent_dim,) first and last point of the table along each latent.
        points: along each latent, 4 or more.
        walls: (3, latent_dim) least and greatest values and the force constants of what pushes back beyond them;
            None for no walls.

    Attributes:
        values: of the table, in the engine's unit of energy; to be written to.
        last: latents (latent_dim,), and the energies of table and walls there, of the last call.
    """

    def __init__(self, low, high, points: Sequence[int], walls: np.ndarray | None = None):
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        self.values = np.zeros(tuple(points))
        count = np.array(points, np.float64)
        if walls is None:
            walls = np.stack([np.full(len(low), -np.inf), np.full(len(low), np.inf), np.zeros(len(low))])
        axes = np.stack([low, (high - low) / (count - 1), count, *np.asarray(walls, np.float64)], axis=1)
        self.axes = np.ascontiguousarray(axes)  # (latent_dim, _AXIS)
        self.last = np.full(len(low), np.nan), 0.0, 0.0

    def grid(self) -> list[np.ndarray]:
        """Return the points along each latent."""
        return [low + step * np.arange(int(n)) for low, step, n, *_ in self.axes]

    def __call__(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        """Return energy, and its derivative by each latent, at latents z (latent_dim,)."""
        at = np.array(z, np.float64)
        if not np.isfinite(at).all():  # the run blew up, which its engine reports
            self.last = at, np.nan, 0.0
            return np.nan, np.full(len(at), np.nan)
        low, step, count, wall_low, wall_high, stiffness = self.axes.T
        place = (at - low) / step
        inside = np.clip(place, 1, count - 2)
        cell = np.minimum(np.floor(inside), count - 3).astype(int)
        block = self.values[tuple(slice(k - 1, k + 3) for k in cell)]
        # Weights (latent_dim, 4) of the points around each latent, for the value and for its derivative.
        t = inside - cell
        u = 1 - t
        here = [-0.5 * t * u * u, 1 + t * t * (1.5 * t - 2.5), 1 + u * u * (1.5 * u - 2.5), -0.5 * u * t * t]
        rise = [u * (1.5 * t - 0.5), t * (4.5 * t - 5), -u * (4.5 * u - 5), -t * (1.5 * u - 0.5)]
        values, rises = np.transpose(here), np.transpose(rise) * ((inside == place) / step)[:, None]
        slope = np.empty(len(at))
        for k, row in enumerate(rises):
            slope[k] = _weighted_sum(block, [*values[:k], row, *values[k + 1 :]])
        energy = _weighted_sum(block, values)
        out = at - np.clip(at, wall_low, wall_high)
        walls = float(0.5 * (stiffness * out**2).sum())
        self.last = at, energy, walls
        return energy + walls, slope + stiffness * out


def _weighted_sum(block: np.ndarray, weights) -> float:
    """Return the sum of a block with a row of weights along each axis."""
    for row in weights:
        block = np.tensordot(row, block, 1)
    return float(block)

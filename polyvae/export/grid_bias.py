"""A bias on latents as a table on a grid, with walls, which changes as a run goes on."""

from collections.abc import Sequence

import numpy as np

_AXIS = 6  # numbers of an axis, as `Axis` of c_files/in_process.c has them


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
        self._plain = self.axes.tolist()

    def grid(self) -> list[np.ndarray]:
        """The points along each latent."""
        return [low + step * np.arange(int(n)) for low, step, n, *_ in self._plain]

    def __call__(self, z: np.ndarray) -> tuple[float, list[float]]:
        """Energy, and its derivative by each latent, at latents z (latent_dim,). In plain numbers, which for one
        place are quicker than arrays."""
        at = np.asarray(z, np.float64).tolist()
        if not np.isfinite(at).all():  # of a run that blew up, which its engine tells
            self.last = np.array(at), np.nan, 0.0
            return np.nan, [np.nan] * len(at)
        cells, counts = [], []
        for s, (low, step, n, *_) in zip(at, self._plain, strict=True):
            place = (s - low) / step
            inside = min(max(place, 1.0), n - 2)
            cell = min(int(inside), int(n) - 3)
            cells.append(slice(cell - 1, cell + 3))
            counts.append(_counts(inside - cell, (inside == place) / step))
        energy, *slope = _summed(self.values[tuple(cells)].tolist(), counts)
        walls = 0.0
        for k, (_, _, _, low, high, stiffness) in enumerate(self._plain):
            if not low <= at[k] <= high:
                out = at[k] - (high if at[k] > high else low)
                walls += 0.5 * stiffness * out * out
                slope[k] += stiffness * out
        self.last = np.array(at), energy, walls
        return energy + walls, slope


def _counts(t: float, by: float) -> tuple:
    """What each of four points counts at t between the inner two, in the value and in its derivative."""
    u = 1.0 - t
    value = (-0.5 * t * u * u, 1.0 + t * t * (1.5 * t - 2.5), 1.0 + u * u * (1.5 * u - 2.5), -0.5 * u * t * t)
    slope = (u * (1.5 * t - 0.5), t * (4.5 * t - 5.0), -u * (4.5 * u - 5.0), -t * (1.5 * u - 0.5))
    return value, tuple(by * part for part in slope)


def _summed(block: list, counts: list) -> list[float]:
    """Value and derivatives of nested lists of four, an axis deep for each of the counts."""
    (a, b, c, d), (da, db, dc, dd) = counts[0]
    deeper = [block] if len(counts) == 1 else zip(*(_summed(part, counts[1:]) for part in block), strict=True)
    first, *others = deeper
    p, q, r, s = first
    each = [a * p + b * q + c * r + d * s, da * p + db * q + dc * r + dd * s]
    return each + [a * p + b * q + c * r + d * s for p, q, r, s in others]

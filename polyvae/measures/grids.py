"""Grids over one or two variables, and the density of weighted frames on them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from polyvae.arguments import is_array_like, numbers_array, real_number, refusal, whole_number
from polyvae.errors import InputError
from polyvae.measures.basins import find_basins

_POINTS = {1: (100, 400), 2: (50, 120)}  # least and most of a grid by default, for each variable
_KERNEL = {1: (0.1, 0.2), 2: (0.1, 0.3)}  # of the spread in the narrowest basin; 0.1 makes a basin 1 % wider


@dataclasses.dataclass(frozen=True)
class Axis:
    """Points of a variable's grid.

    Args:
        points: of the grid, evenly spaced.
        low, high: ends of its range.
        width: standard deviation of the kernels; 0 for the bins of a histogram, with the points in their middle.
        period: length of the variable's period, or None.
        around: the grid goes once around the period.
    """

    points: np.ndarray
    low: float
    high: float
    width: float
    period: float | None
    around: bool

    def cells(self, s: np.ndarray) -> np.ndarray:
        """The number of the point nearest to each value, or of the bin, as `numpy.histogram` has them."""
        n, step = len(self.points), float(self.points[1] - self.points[0])
        if not self.width:
            return (np.searchsorted(np.linspace(self.low, self.high, n + 1), s, "right") - 1).clip(0, n - 1)
        found = np.rint((s - self.points[0]) / step).astype(int)
        return found % n if self.around else found.clip(0, n - 1)

    def kernels(self, s: np.ndarray) -> np.ndarray:
        """Density at each point by each value, (n_values, n_points)."""
        if not self.width:
            found = np.zeros((len(s), len(self.points)))
            found[np.arange(len(s)), self.cells(s)] = len(self.points) / (self.high - self.low)
            return found
        away = self.points - s[:, None]
        if self.period:
            away -= self.period * np.round(away / self.period)
        return np.exp(-0.5 * (away / self.width) ** 2) / (self.width * np.sqrt(2 * np.pi))


def kernel_density(s: np.ndarray, share: np.ndarray, axes: list[Axis]) -> np.ndarray:
    """Sum of the weighted kernels of frames (n, n_variables) at all points of the grid."""
    rows = max(1, (1 << 22) // len(axes[0].points))
    total = np.zeros([len(a.points) for a in axes])
    for start in np.arange(0, len(s), rows):
        part, w = s[start : start + rows], share[start : start + rows]
        first = axes[0].kernels(part[:, 0]) * w[:, None]
        total += first.sum(axis=0) if len(axes) == 1 else first.T @ axes[1].kernels(part[:, 1])
    return total


def pairs_of(name: str, given, dims: int) -> list[tuple[float, float] | None]:
    """(low, high) or None for each variable."""
    if given is None:
        return [None] * dims
    what = "(low, high) with low < high" + ("" if dims == 1 else ", or None, for each of two variables")
    if not is_array_like(given):
        raise refusal(name, what, given)
    rows = list(np.atleast_1d(given) if not isinstance(given, Sequence) else given)
    rows = [rows] if dims == 1 and len(rows) == 2 and np.ndim(rows[0]) == 0 else rows
    if len(rows) != dims:
        raise refusal(name, what, given)
    found: list[tuple[float, float] | None] = []
    for row in rows:
        pair = None if row is None else numbers_array(name, row, what)
        if pair is not None and (pair.shape != (2,) or not pair[0] < pair[1]):
            raise refusal(name, what, given)
        found.append(None if pair is None else (float(pair[0]), float(pair[1])))
    return found


def one_or_each(name: str, given, dims: int) -> list:
    """A value for each variable, of one or of as many; None for each where nothing is given."""
    values = list(given) if isinstance(given, (list, tuple, np.ndarray)) and np.ndim(given) else [given]
    if len(values) not in (1, dims):
        raise refusal(name, f"one number, or {dims}, one for each variable", given)
    return values * dims if len(values) == 1 else values


def axes_of(s, share, ranges, ends, bins, method, bandwidth) -> list[Axis]:
    """The axes for weighted frames (n_frames, n_variables); periodic values are brought into range in place."""
    dims = s.shape[1]
    given_bins, widths = one_or_each("bins", bins, dims), one_or_each("bandwidth", bandwidth, dims)
    least, most = _POINTS[dims]
    axes = []
    for k in np.arange(dims):
        period = ends[k]
        values = s[share > 0, k]
        low, high = ranges[k] or period or (float(values.min()), float(values.max()))
        if not low < high:
            raise InputError(f"variable {k} is {low:g} in all frames; a free energy needs one that varies")
        if widths[k] is None:
            narrow = min(b.spread for b in find_basins(values, share[share > 0])) or values.std()
            width = narrow * np.clip(len(values) ** (-1 / (dims + 4)), *_KERNEL[dims])  # by Silverman's rule
        else:
            width = real_number("bandwidth", widths[k], above=0)
        n = int(np.clip((high - low) / width, least, most)) if given_bins[k] is None else given_bins[k]
        n = whole_number("bins", n, 2)
        span = None if period is None else period[1] - period[0]
        around = span is not None and bool(np.isclose(high - low, span))
        step = (high - low) / n
        if method == "histogram":
            points, width = low + step * (np.arange(n) + 0.5), 0.0
        else:
            points = np.linspace(low, high, n, endpoint=not around)
            if widths[k] is None:
                width = max(width, 0.5 * step)
        if period is not None:
            s[:, k] = low + (s[:, k] - low) % (span or 1.0)
        axes.append(Axis(points, low, high, float(width), span, around))
    return axes

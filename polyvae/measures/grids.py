"""Grids over one or two variables, and the density of weighted frames on them."""

import dataclasses
import itertools
import logging
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from polyvae.arguments import is_array_like, numbers_array, real_number, refusal, whole_number
from polyvae.errors import InputError
from polyvae.measures.basins import find_basins
from polyvae.measures.blocks import Blocking, BlockSums, finest_blocks

log = logging.getLogger(__name__)

_POINTS = {1: (100, 4000), 2: (50, 120)}  # least and most of a grid by default, for each variable
_KERNEL = {1: (0.1, 0.1), 2: (0.1, 0.3)}  # of the spread in the narrowest basin; 0.1 makes a basin 1 % wider
_MOST_POINTS = 1 << 18  # of a whole grid, which is held some 60 times
_AT_ONCE = 1 << 19  # kernels in memory together, as many as a cache holds
_IN_FLIGHT = 16  # such parts
TIMES = 20  # equal shares of a run in time
_REACH = 11.0  # widths of a kernel: down to 1e-26
_SECTORS = 36  # of a period, in which the emptiest place is looked for


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

    def between(self, s: np.ndarray, pair: tuple[float, float] | None) -> np.ndarray:
        """Whether values are from the first number up to the second, also around the end of the period."""
        if pair is None:
            return np.ones(np.shape(s), bool)
        low, high = pair
        return (s >= low) & (s < high) if self.period is None else (s - low) % self.period < high - low

    def table(self, s: np.ndarray) -> np.ndarray:
        """Density by each value at each point, (n_values, n_points)."""
        n, width = len(self.points), self.width
        if (steps := self.steps(s)) is not None:
            return steps.table(len(s))[:, 1:-1]
        if not width:
            found = np.zeros((len(s), n))
            found[np.arange(len(s)), self.cells(s)] = n / (self.high - self.low)
            return found
        away = self.points - s[:, None]
        if self.period:
            away -= self.period * np.round(away / self.period)
        found = np.exp(-0.5 * (away / width) ** 2) / (width * np.sqrt(2 * np.pi))
        found[np.abs(away) > _REACH * width] = 0  # numbers so small are slow to multiply
        return found

    def steps(self, s: np.ndarray) -> "Steps | None":
        """`table` from point to point; None where they reach half around a period, so that ways compete."""
        step = float(self.points[1] - self.points[0])
        if not self.width or (self.period is not None and _REACH * self.width > 0.5 * self.period):
            return None
        return Steps(self, s, step, int(_REACH * self.width / step + 0.5))


class Steps:
    """Kernels of values at the points near each, with two exponentials a value.

    With d the distance of a value from its nearest point, the kernel at the m-th point from there is
    exp(-d^2 / 2w^2) exp(d h / w^2)^m exp(-(m h)^2 / 2w^2), h the distance of points and w the width.

    Args:
        rows: (n,) numbers of the values, twice for one that is near both ends of a period; a slice of all.
        cell: (n,) nearest point of each, counted from `most` points before the first.
        most: points that a kernel reaches to each side.
    """

    def __init__(self, axis: Axis, s: np.ndarray, step: float, most: int):
        self.axis, self.step, self.most = axis, step, most
        self.size = len(axis.points) + 2 * most
        self.rows: Any = slice(None)
        if axis.period is not None:
            reach = _REACH * axis.width
            low = np.flatnonzero(s < axis.points[-1] - axis.period + reach)
            high = np.flatnonzero(s > axis.points[0] + axis.period - reach)
            self.rows = np.concatenate([np.arange(len(s)), low, high])
            s = np.concatenate([s, s[low] + axis.period, s[high] - axis.period])
        cell = np.rint((s - axis.points[0]) / step)
        near = (cell >= -most) & (cell < len(axis.points) + most)
        if not near.all():
            kept = np.flatnonzero(near)
            self.rows = kept if isinstance(self.rows, slice) else self.rows[kept]
            s, cell = s[kept], cell[kept]
        self._d = s - (axis.points[0] + step * cell)
        self.cell = cell.astype(np.int64) + most

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """(m, values (n,)) for m from -most to most, in no order."""
        width, reach = self.axis.width, _REACH * self.axis.width
        middle = np.exp(-0.5 * (self._d / width) ** 2) / (width * np.sqrt(2 * np.pi))
        for sign in (1, -1):
            value, factor = middle, np.exp(sign * self.step / width**2 * self._d)
            for m in range(0 if sign > 0 else 1, int(self.most) + 1):
                if m:
                    value = value * factor
                away = m * self.step
                found = value * np.exp(-0.5 * (away / width) ** 2)
                if away + 0.5 * self.step > reach:  # beyond its reach a kernel is 0
                    found[np.abs(sign * away - self._d) > reach] = 0
                yield sign * m, found

    def table(self, n: int) -> np.ndarray:
        """(n, n_points + 2) kernels of n values, with a column at each end for all that is beyond the grid."""
        width = len(self.axis.points) + 2
        found, row = np.zeros(n * width), np.arange(n)[self.rows] * width
        cell = self.cell - (self.most - 1)
        for m, values in self:
            found[row + (cell + m).clip(0, width - 1)] = values
        return found.reshape(n, width)


def block_densities(s: np.ndarray, share: np.ndarray, block: np.ndarray, axes: list[Axis]) -> Iterator[np.ndarray]:
    """Sums on the grid of the weighted kernels of the frames (n, n_variables) of each block, one after another.

    Args:
        share: (n,) weights.
        block: (n,) number of the block that each frame is of, which never decreases.
    """
    rows = max(1, _AT_ONCE // len(axes[-1].points)) if len(axes) > 1 else _AT_ONCE >> 3
    parts = [slice(start, start + rows) for start in range(0, len(s), rows)]

    def sums_of(part: slice) -> np.ndarray:
        low, high = int(block[part][0]), int(block[part][-1]) + 1
        return _sums(s[part], share[part], block[part] - low, high - low, axes)

    begun = None  # a block that may have more frames
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for k in range(0, len(parts), _IN_FLIGHT):  # so that memory does not grow with the number of frames
            together = parts[k : k + _IN_FLIGHT]
            for part, sums in zip(together, pool.map(sums_of, together), strict=True):
                if begun is not None and block[part.start] == block[part.start - 1]:
                    sums[0] += begun
                elif begun is not None:
                    yield begun
                yield from sums[:-1]
                begun = sums[-1].copy()
    if begun is not None:
        yield begun


def _sums(s: np.ndarray, share: np.ndarray, block: np.ndarray, n_blocks: int, axes: list[Axis]) -> np.ndarray:
    """The sums (n_blocks, *grid) of the weighted kernels of some frames."""
    steps = axes[0].steps(s[:, 0])
    if steps is None:
        second = axes[1].table(s[:, 1]) if len(axes) > 1 else np.ones((len(s), 1))
        first = axes[0].table(s[:, 0]) * share[:, None]
        ends = np.searchsorted(block, np.arange(n_blocks + 1))
        sums = np.stack([first[low:high].T @ second[low:high] for low, high in itertools.pairwise(ends)])
        return sums.reshape(n_blocks, *(len(axis.points) for axis in axes))
    most, size = steps.most, steps.size + 2 * steps.most
    share, place = share[steps.rows], block[steps.rows] * size + steps.cell
    if len(axes) == 1:
        sums = np.zeros(n_blocks * size)
        for m, values in steps:
            sums += np.bincount(place + (most + m), values * share, len(sums))
        return sums.reshape(n_blocks, size)[:, 2 * most : 2 * most + len(axes[0].points)]
    from scipy import sparse

    # Few points of the first variable are near a frame, so that a sparse matrix is several times smaller.
    values = np.empty((len(place), 2 * most + 1))
    for m, column in steps:
        np.multiply(column, share, out=values[:, most + m])
    places = (place[:, None] + np.arange(2 * most + 1)).astype(np.int32)
    starts = np.arange(len(place) + 1, dtype=np.int32) * (2 * most + 1)
    first = sparse.csc_array((values.ravel(), places.ravel(), starts), shape=(n_blocks * size, len(place)))
    beside = axes[1].steps(s[:, 1])
    second = np.pad(axes[1].table(s[:, 1]), ((0, 0), (1, 1))) if beside is None else beside.table(len(s))
    sums = (first @ second[steps.rows]).reshape(n_blocks, size, -1)
    return sums[:, 2 * most : 2 * most + len(axes[0].points), 1:-1]


def cells_of(s: np.ndarray, axes: list[Axis]) -> np.ndarray:
    """The number (n,) of the cell of the flattened grid that each frame (n, n_variables) is in."""
    found, shape = np.empty(len(s), np.int32), [len(axis.points) for axis in axes]
    for start in np.arange(0, len(s), _AT_ONCE >> 3):
        part = slice(start, start + (_AT_ONCE >> 3))
        index = tuple(axis.cells(s[part, k]) for k, axis in enumerate(axes))
        found[part] = np.ravel_multi_index(index, shape)
    return found


def ranges_of(name: str, given, dims: int) -> list[tuple[float, float] | None]:
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


def check_points(counts: Sequence[int]) -> None:
    """Refuse a grid that memory would not hold."""
    if (n := math.prod(counts)) > _MOST_POINTS:
        raise InputError(f"a grid must have at most {_MOST_POINTS} points; got {n}. Give fewer bins")


def unrolled(values: np.ndarray, period: float | None) -> np.ndarray:
    """Values of a periodic variable, cut open where the fewest are, so that no basin is cut."""
    if period is None:
        return values
    counts = np.bincount((values / period % 1 * _SECTORS).astype(int) % _SECTORS, minlength=_SECTORS)
    cut = (np.argmin(counts) + 0.5) * period / _SECTORS
    return cut + (values - cut) % period


def one_or_each(name: str, given, dims: int) -> list:
    """A value for each variable, of one or of as many; None for each where nothing is given."""
    values = list(given) if isinstance(given, (list, tuple, np.ndarray)) and np.ndim(given) else [given]
    if len(values) not in (1, dims):
        raise refusal(name, f"one number, or {dims}, one for each variable", given)
    return values * dims if len(values) == 1 else values


def kernel_width(values: np.ndarray, share: np.ndarray, dims: int) -> float:
    """Standard deviation of the kernels for values (n_frames,) of one of `dims` variables, with their weights.

    By Silverman's rule from the narrowest basin, within `_KERNEL` of its spread.
    """
    narrow = min(basin.spread for basin in find_basins(values, share)) or values.std()
    return float(narrow * np.clip(len(values) ** (-1 / (dims + 4)), *_KERNEL[dims]))


def axes_of(s, share, ranges, ends, bins, method, bandwidth) -> list[Axis]:
    """The axes for weighted frames (n_frames, n_variables); periodic values are brought into range in place."""
    dims = s.shape[1]
    given_bins, widths = one_or_each("bins", bins, dims), one_or_each("bandwidth", bandwidth, dims)
    least, most = _POINTS[dims]
    axes = []
    for k in range(dims):
        span = None if (end := ends[k]) is None else end[1] - end[0]
        values = s[:, k] if share.all() else s[share > 0, k]
        low, high = ranges[k] or end or (float(values.min()), float(values.max()))
        if not low < high:
            raise InputError(f"variable {k} is {low:g} in all frames; a free energy needs one that varies")
        if span is not None and high - low > span * (1 + 1e-9):
            raise InputError(
                f"the range of variable {k} must be no longer than its period, {span:g}; got {high - low:g}"
            )
        if widths[k] is None:
            weights = share if len(values) == len(share) else share[share > 0]
            width = kernel_width(unrolled(values, span), weights, dims)
        else:
            width = real_number("bandwidth", widths[k], above=0)
        if not 0 < width < np.inf:
            raise InputError(
                f"the weights leave variable {k} no spread in any frames; are bias and kT right, and in one unit?"
            )
        wanted = int(min((high - low) / width, 1e9))
        n = int(np.clip(wanted, least, most)) if given_bins[k] is None else whole_number("bins", given_bins[k], 2)
        check_points([n])
        around = span is not None and bool(np.isclose(high - low, span))
        step = (high - low) / n
        if method == "histogram":
            points, width = low + step * (np.arange(n) + 0.5), 0.0
        else:
            points = np.linspace(low, high, n, endpoint=not around)
            if width < 0.5 * step:  # between two points of the grid frames would be missed
                log.info(
                    "the grid is coarse, %d points from %.3g to %.3g, for kernels of %.3g", n, low, high, width
                )
                width = width if widths[k] is not None else 0.5 * step
        if span is not None:
            s[:, k] = low + (s[:, k] - low) % span
        axes.append(Axis(points, low, high, float(width), span, around))
        check_points([len(axis.points) for axis in axes])
    return axes


@dataclasses.dataclass(frozen=True)
class Density:
    """The density of frames on a grid, and its parts.

    Args:
        axes: of the grid.
        kT: thermal energy.
        s, share, within: variables and weight of each frame, and whether it is in the range.
        block, segment: of each frame its block, of each block its run.
        totals: (n_blocks,) weights.
        sums: over the blocks, of the weighted kernels on the grid.
        at, parts: (n_blocks,) share of its run in time that each block is of, and the sums of each share.
    """

    axes: list[Axis]
    kT: float
    s: np.ndarray
    share: np.ndarray
    within: np.ndarray
    block: np.ndarray
    segment: np.ndarray
    totals: np.ndarray
    sums: BlockSums
    at: np.ndarray
    parts: np.ndarray

    @property
    def values(self) -> np.ndarray:
        return self.sums.total / self.totals.sum()

    @property
    def energy(self) -> np.ndarray:
        """-kT log of the density, its lowest value 0."""
        with np.errstate(divide="ignore"):
            energy = -self.kT * np.log(self.values)
        return energy - energy.min()

    def error_with(self, blocks: Blocking) -> np.ndarray:
        """Error of -kT log of the density, infinite where it is 0."""
        error, values = self.kT * blocks.factor * self.sums.error(blocks.merged), self.values
        return np.divide(error, values, where=values > 0, out=np.full(error.shape, np.inf))


def density_of(s: np.ndarray, share: np.ndarray, lengths: Sequence[int], axes: list[Axis], kT: float) -> Density:
    within = np.ones(len(s), bool)
    for k, axis in enumerate(axes):
        within &= (s[:, k] >= axis.low) & (s[:, k] <= axis.high)
    if not share[within].any():
        said = ", ".join(f"{axis.low:g} to {axis.high:g}" for axis in axes)
        raise InputError(f"no frame lies in the range {said}; give range= that holds some")
    block, segment = finest_blocks(lengths)
    totals = np.bincount(block, share, len(segment))
    counted = share if axes[0].width else share * within  # kernels reach over the ends of the range, bins do not
    sums = BlockSums(totals, segment, tuple(len(axis.points) for axis in axes))
    at = _places(segment)
    parts = np.zeros((TIMES, *sums.total.shape))
    for k, of_block in zip(at, block_densities(s, counted, block, axes), strict=True):
        sums.add(of_block)
        parts[k] += of_block
    return Density(axes, kT, s, share, within, block, segment, totals, sums, at, parts)


def _places(segment: np.ndarray) -> np.ndarray:
    """In which of `TIMES` equal parts of its run each block ends."""
    counts = np.unique(segment, return_counts=True)[1]
    share = np.concatenate([np.arange(1, n + 1) / n for n in counts])
    return np.searchsorted(np.linspace(1 / TIMES, 1, TIMES) + 1e-9, share)

"""The basins that the density of one latent coordinate has, or a free energy on a grid."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from polyvae.arguments import numbers_array, real_number
from polyvae.errors import InputError

_FEWEST = 5  # frames of a basin on a grid
_WINDOWS = 400  # at which the density is estimated
_SMOOTHING = 0.01, 0.25  # least and largest share of the frames in a window
_IN_WINDOW = 50  # frames, of equal weight, without which noise looks like a barrier of 1 kT
_CLEAR = 3.0  # spreads between the centres of basins that are states apart


@dataclasses.dataclass(frozen=True)
class Basin:
    """A maximum of a latent coordinate's density and what belongs to it.

    Args:
        weight: share of the statistical weight of all frames.
        centre: median of its values.
        spread: standard deviation, from the quantiles at 16 % and 84 %, which frames in transit hardly move.
        low, high: its ends; infinite towards a side without another basin.
    """

    weight: float
    centre: float
    spread: float
    low: float
    high: float


def find_basins(
    z: np.ndarray, weights: np.ndarray | None = None, *, barrier: float = 1.0, least: float = 0.02
) -> tuple[Basin, ...]:
    """The basins of one latent coordinate, in the order of their values.

    The density at a quantile q is m / (Z(q + m) - Z(q)), with Z the inverse of the cumulative distribution: each
    window holds the same weight m, so that a peak is resolved however narrow it is, and a broad shoulder beside
    it is smooth. Two maxima are two basins where -log of the density between them rises by more than `barrier`
    above both.

    Args:
        z: (n_frames,) values.
        weights: (n_frames,) statistical weights, none negative; by default all the same.
        barrier: in kT.
        least: share of the weight below which a basin is left out.

    Returns:
        At least one basin. It holds all frames if z is the same in all of them, or if they are worth fewer than
        200 of equal weight, which is too few to find more.

    Raises:
        InputError: values that are not finite or no row of numbers; weights that do not fit them.
    """
    barrier, least = real_number("barrier", barrier, least=0), real_number("least", least, least=0)
    z, share = _checked(z, weights)
    order = np.argsort(z)  # of equal values any may come first
    z, share = z[order], share[order]
    del order
    effective = 1 / (share @ share)
    # The middle of a frame's step, so that a gap is between the quantiles of the frames beside it.
    middle = np.cumsum(share)
    middle -= 0.5 * share
    everything = _basin(z, share, middle, -np.inf, np.inf)
    assert everything is not None
    if effective < _IN_WINDOW / _SMOOTHING[1]:
        return (everything,)
    m = max(_IN_WINDOW / effective, _SMOOTHING[0])
    start = np.linspace(0, 1 - m, _WINDOWS)
    left, right = np.interp(start, middle, z), np.interp(start + m, middle, z)
    finest = 1e-6 * (z[-1] - z[0]) or 1.0  # of equal values
    log_density = -np.log(np.maximum(right - left, finest))
    peaks = _peaks(log_density, barrier)
    edges = [-np.inf]
    for a, b in itertools.pairwise(peaks):
        lowest = a + int(np.argmin(log_density[a : b + 1]))
        edges.append(float(0.5 * (left[lowest] + right[lowest])))
    edges.append(np.inf)
    found = [_basin(z, share, middle, low, high) for low, high in itertools.pairwise(edges)]
    kept = tuple(basin for basin in found if basin is not None and basin.weight >= least)
    return kept or (everything,)


def _peaks(heights: np.ndarray, prominence: float) -> list[int]:
    """Numbers of the maxima, at the ends too, from which one must go down by `prominence` to come higher.

    A flat one has the number in its middle.
    """
    first = np.r_[0, np.flatnonzero(np.diff(heights)) + 1]
    level = heights[first]
    last = np.r_[first[1:], len(heights)] - 1
    found = []
    for k in np.flatnonzero((np.r_[level[1:], -np.inf] < level) & (np.r_[-np.inf, level[:-1]] < level)):
        sides = level[:k][::-1], level[k + 1 :]
        lowest = []
        for side in sides:
            higher = np.flatnonzero(side > level[k])
            lowest.append(side[: higher[0]].min() if len(higher) else -np.inf)
        if level[k] - max(lowest) >= prominence:
            found.append(int(first[k] + last[k]) // 2)
    return found


def _checked(z, weights) -> tuple[np.ndarray, np.ndarray]:
    """Values and shares (n_frames,) in float64, of the frames that have a weight."""
    row = "finite numbers, one a frame"
    z = numbers_array("z", z, row, finite=False)
    share = np.ones(z.shape) if weights is None else numbers_array("weights", weights, row, finite=False)
    if z.ndim != 1 or not len(z) or not np.isfinite(z).all():
        raise InputError(f"basins need the finite values of one latent, (n_frames,); got shape {z.shape}")
    if share.shape != z.shape or not (share >= 0).all() or not 0 < share.sum() < np.inf:
        raise InputError(f"weights must be {len(z)} finite numbers, none negative and not all 0")
    if not share.all():
        z, share = z[share > 0], share[share > 0]
    return z, share / share.sum()


def _basin(z: np.ndarray, share: np.ndarray, middle: np.ndarray, low: float, high: float) -> Basin | None:
    """The basin of the sorted values from `low` to `high`; None if it is empty.

    Args:
        middle: sums of the shares up to the middle of each frame's.
    """
    first, last = np.searchsorted(z, [low, high])
    if first == last:
        return None
    weight = float(share[first:last].sum())
    below = float(middle[first] - 0.5 * share[first])
    quantiles = below + weight * np.array([0.16, 0.5, 0.84])
    lower, centre, upper = np.interp(quantiles, middle[first:last], z[first:last])
    return Basin(weight, float(centre), float(0.5 * (upper - lower)), low, high)


def spreads_apart(one: Basin, two: Basin) -> float:
    """How far apart two basins are, in the larger of their spreads."""
    return abs(two.centre - one.centre) / max(one.spread, two.spread, 1e-12)


def clear_states(basins: tuple[Basin, ...]) -> list[Basin]:
    """Merge basins, from left to right, that overlap with the one before them; the heavier of the two is kept."""
    found = [basins[0]]
    for basin in basins[1:]:
        if spreads_apart(found[-1], basin) >= _CLEAR:
            found.append(basin)
        elif basin.weight > found[-1].weight:
            found[-1] = basin
    return found


def crossings(z: np.ndarray, states: list[Basin], segments: Sequence[int]) -> int:
    """How often the run goes from the core of one state, within a spread of its centre, to that of another.

    At the border between states a run goes to and fro many times on one way across it.
    """
    return int(arrivals(z, states, segments).sum())


def arrivals(z: np.ndarray, states: list[Basin], segments: Sequence[int]) -> Int[np.ndarray, " states"]:
    """How often the run comes into the core of each state from that of another, see `crossings`."""
    centre, spread = (np.array([getattr(s, name) for s in states]) for name in ("centre", "spread"))
    near = np.abs(z[:, None] - centre) <= np.maximum(spread, 1e-12)
    core = np.where(near.any(axis=1), near.argmax(axis=1), -1)
    return count_entries(core, segments, len(states))


def count_entries(
    core: Int[np.ndarray, "frames"], segments: Sequence[int], n_states: int
) -> Int[np.ndarray, " states"]:
    """How often a run comes into the core of each state from that of another.

    Args:
        core: state in whose core each frame is, -1 for none.
    """
    visited = [part[part >= 0] for part in np.split(core, np.cumsum(segments)[:-1])]
    into = np.concatenate([part[1:][np.diff(part) != 0] for part in visited])
    return np.bincount(into, minlength=n_states)


def watershed(
    energy: np.ndarray,
    barrier: float,
    frames: np.ndarray,
    noise: np.ndarray | None = None,
    periodic: Sequence[bool] | None = None,
    least: float = 0.01,
) -> np.ndarray:
    """The basin of each cell of a grid, -1 for none, numbered by their lowest energies.

    Cells are filled from the lowest up. Where two basins meet, both are kept if the shallower is deeper than
    `barrier`, and the noise at its bottom and where they meet beside, and if each holds `least` of the frames, and
    five at least.

    Args:
        energy: of any number of dimensions.
        frames: how many are in each cell, of the same shape.
        noise: standard error of the energy, or some such, of the same shape.
        periodic: whether each axis is.
    """
    shape, flat = energy.shape, energy.ravel().tolist()
    periodic = [False] * energy.ndim if periodic is None else periodic
    count, enough = frames.ravel().astype(float).tolist(), max(least * frames.sum(), _FEWEST)
    neighbours, parent = _neighbours(shape, periodic), [-1] * len(flat)
    bottom: dict[int, int] = {}
    apart: set[int] = set()  # basins known to be their own, by the first deeper one that they met

    def root(cell: int) -> int:
        while parent[cell] != cell:
            parent[cell] = parent[parent[cell]]
            cell = parent[cell]
        return cell

    for cell in np.argsort(energy.ravel(), kind="stable").tolist():
        if not math.isfinite(flat[cell]):
            break
        parent[cell] = bottom[cell] = cell
        filled = [near for near in neighbours[cell] if near >= 0 and parent[near] >= 0]
        roots = {root(near) for near in filled}
        if barrier > 0 and len(roots) == 1:  # most cells are within a basin
            (parent[cell],) = roots
            count[parent[cell]] += count[cell]
            continue
        for near in filled:
            a, b = root(near), root(cell)
            deep, shallow = (a, b) if flat[bottom[a]] <= flat[bottom[b]] else (b, a)
            if a == b or shallow in apart:
                continue
            low = bottom[shallow]
            height = barrier if noise is None else barrier + float(np.hypot(noise.flat[low], noise.flat[cell]))
            if flat[cell] - flat[low] < height or min(count[a], count[b]) < enough:
                parent[shallow] = deep
                count[deep] += count[shallow]
            else:
                apart.add(shallow)
    found = np.full(len(flat), -1)
    taken = np.flatnonzero(np.array(parent) >= 0)
    tops_of = [root(cell) for cell in taken.tolist()]
    tops = sorted(set(tops_of), key=lambda top: flat[bottom[top]])
    tops = [top for top in tops if count[top] >= enough] or tops[:1]  # islands of few frames are none
    numbers = {top: k for k, top in enumerate(tops)}
    found[taken] = [numbers.get(top, -1) for top in tops_of]
    return found.reshape(shape)


def _neighbours(shape: tuple[int, ...], periodic: Sequence[bool]) -> list[list[int]]:
    """Cells beside each cell of a grid; -1 beyond an end."""
    cells = np.arange(math.prod(shape)).reshape(shape)
    columns = []
    for axis, around in enumerate(periodic):
        for step in (1, -1):
            beside = np.roll(cells, step, axis)
            if not around:
                end = [slice(None)] * len(shape)
                end[axis] = slice(0, 1) if step > 0 else slice(-1, None)
                beside[tuple(end)] = -1
            columns.append(beside.ravel())
    return np.stack(columns, axis=1).tolist()

"""Errors of weighted averages over correlated frames, by averages over blocks of the run."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

FINEST = 512  # blocks, at most
FEWEST = 6  # blocks that an error is read from
_BINS = 4096  # of values, in which quantiles are looked for
_LEAST = 1.5  # effective ones, without which there is none


def finest_blocks(segments: Sequence[int]) -> tuple[Int[np.ndarray, "frames"], Int[np.ndarray, "blocks"]]:
    """The number of the block that each frame is of, and of the segment that each block is of.

    Blocks are contiguous, nearly equal, at most about `FINEST`, and none crosses a segment.
    """
    length = max(1, sum(segments) // FINEST)
    counts = [max(1, round(n / length)) for n in segments]
    edges = [np.linspace(0, n, count + 1).astype(int) for n, count in zip(segments, counts, strict=True)]
    sizes = np.concatenate([np.diff(e) for e in edges])
    numbers = np.arange(len(sizes), dtype=np.int32)  # one a frame
    return np.repeat(numbers, sizes), np.repeat(np.arange(len(segments)), counts)


def _starts(segment: Int[np.ndarray, "blocks"], m: int) -> np.ndarray:
    """The first block of every m neighbours in a segment; what is left at its end joins its last."""
    new = np.r_[True, np.diff(segment) != 0]
    first = np.flatnonzero(new)
    counts = np.diff(np.r_[first, len(segment)])
    place = np.arange(len(segment)) - np.repeat(first, counts)
    whole = np.repeat(np.maximum(1, counts // m) * m, counts)
    return np.flatnonzero((place % m == 0) & (place < whole))


def together(
    sums: Float[np.ndarray, "blocks ..."], segment: Int[np.ndarray, "blocks"], m: int
) -> Float[np.ndarray, "merged ..."]:
    """Sums over m neighbouring blocks each, within segments; what is left at the end of one joins its last."""
    return sums if m == 1 else np.add.reduceat(sums, _starts(segment, m), axis=0)


def _tried(segment: Int[np.ndarray, "blocks"]) -> list[tuple[int, int]]:
    """How many neighbours are merged, and how many blocks that makes, for each length that is tried."""
    found = [(1, len(segment))]
    while found[-1][1] >= FEWEST:
        m = max(found[-1][0] + 1, int(1.5 * found[-1][0]))
        n_blocks = len(_starts(segment, m))
        if n_blocks < FEWEST:
            break
        found.append((m, n_blocks))
        if n_blocks == found[-2][1]:
            break
    return found


def effective_blocks(weights: Float[np.ndarray, "blocks"]) -> float:
    """How many blocks of equal weight these are worth: of those without weight, none."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def error_of_ratio(
    sums: Float[np.ndarray, "blocks ..."], weights: Float[np.ndarray, "blocks"]
) -> Float[np.ndarray, "..."]:
    """Standard error of sum(sums) / sum(weights) from its blocks, for intervals of 68 %. Infinite where one block
    has all the weight."""
    ratio = sums.sum(axis=0) / weights.sum()
    off = sums - np.multiply.outer(weights, ratio)
    return _error(np.asarray((off**2).sum(axis=0)), weights)


def _error(squares: np.ndarray, weights: Float[np.ndarray, "blocks"]) -> np.ndarray:
    """The error of a ratio, from the sum of the squares of the blocks' deviations.

    The quantile of Student's t takes the place of 1, since few blocks hardly show the spread itself.
    """
    from scipy.special import stdtrit

    n = effective_blocks(weights)
    if n < _LEAST:
        return np.full(squares.shape, np.inf)
    return np.asarray(np.sqrt(n / (n - 1) * squares) / weights.sum() * stdtrit(n - 1, 0.5 + 0.5 * 0.6827))


class BlockSums:
    """Sums over blocks, and their errors, of arrays that come block by block and are not kept.

    For each length of blocks that may be chosen, two sums over merged blocks are held: of squares, and of products
    with the weights. Deviations from the mean of all follow from these.

    Args:
        weights: (n_blocks,) of the frames of each block.
        segment: (n_blocks,) segment of each block.
        shape: of the arrays.
    """

    def __init__(self, weights: np.ndarray, segment: Int[np.ndarray, "blocks"], shape: tuple[int, ...]):
        self.total, self._away, self._near = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self._finest, self._n = weights, 0
        self._weights: dict[int, np.ndarray] = {}
        self._ends: dict[int, dict[int, float]] = {}
        self._before, self._squares, self._products = {}, {}, {}
        for m, _ in _tried(segment):
            ends = np.r_[_starts(segment, m)[1:], len(segment)]
            self._weights[m] = together(weights, segment, m)
            self._ends[m] = dict(zip(ends.tolist(), self._weights[m].tolist(), strict=True))
            self._before[m], self._squares[m], self._products[m] = (np.zeros(shape) for _ in range(3))

    def add(self, values: np.ndarray) -> None:
        """Take the array of the next block."""
        weight = self._finest[self._n]
        if self._n == 0 and weight > 0:
            # Squares of what is left beside a mean that is nearly right lose fewer digits.
            self._near = values / weight
        self.total += values
        self._away += values - weight * self._near
        self._n += 1
        for m, ends in self._ends.items():
            if self._n in ends:
                merged = self._away - self._before[m]
                self._products[m] += ends[self._n] * merged
                merged *= merged
                self._squares[m] += merged
                self._before[m][...] = self._away

    def error(self, m: int) -> np.ndarray:
        """Standard error of the sums over the sum of all weights, from blocks of m; see `error_of_ratio`."""
        weights = self._weights[m]
        ratio = self._away / weights.sum()
        squares = self._squares[m] - 2 * ratio * self._products[m] + ratio**2 * (weights**2).sum()
        return _error(squares.clip(0), weights)


@dataclasses.dataclass(frozen=True)
class Blocking:
    """How long blocks must be for their averages to be independent.

    Args:
        size: frames of a block.
        merged: finest blocks that make one.
        n_blocks: how many there are.
        factor: to multiply errors by, as neighbouring blocks still know of each other.
        enough: whether the criterion was met with at least `FEWEST` blocks; else the error is too small.
        sizes, errors: (n_sizes,) lengths tried, in frames, and the largest error of an observable, in that of
            independent frames.
    """

    size: int
    merged: int
    n_blocks: int
    factor: float
    enough: bool
    sizes: np.ndarray
    errors: np.ndarray


@dataclasses.dataclass(frozen=True)
class Deviations:
    """Deviations of observables from their means, summed over blocks.

    Args:
        sums: (n_blocks, n_observables) weighted deviations of the frames of each block.
        alone: (n_observables,) the standard deviation that the sum over all blocks has if frames are independent.
        weights: (n_blocks,) weight of the frames of each block.
        n_frames: frames in all.
    """

    sums: np.ndarray
    alone: np.ndarray
    weights: np.ndarray
    n_frames: int


def deviations(
    kind: Int[np.ndarray, "frames"],
    values: Float[np.ndarray, "kinds observables"] | Bool[np.ndarray, "kinds observables"],
    weights: Float[np.ndarray, "frames"],
    block: Int[np.ndarray, "frames"],
    n_blocks: int,
) -> Deviations:
    """Sum the deviations of observables whose values depend on the kind of a frame alone.

    Each frame is counted once, and not once an observable.
    """
    n_kinds = len(values)
    counts = np.bincount(block * n_kinds + kind, weights, n_blocks * n_kinds).reshape(n_blocks, n_kinds)
    squares = np.bincount(kind, weights**2, n_kinds)
    off = values - counts.sum(axis=0) @ values / counts.sum()
    return Deviations(counts @ off, np.sqrt(squares @ off**2), counts.sum(axis=1), len(kind))


def thirds_of(columns: Sequence[np.ndarray], weights: np.ndarray) -> Int[np.ndarray, "frames"]:
    """The third of the weight, by each variable, in which a frame is: the digits, to base 3, of one number."""
    found = np.zeros(len(weights), np.int8)
    for k, values in enumerate(columns):
        ends = _weighted_quantiles(values, weights, (1 / 3, 2 / 3))
        found += np.searchsorted(ends, values).astype(np.int8) * np.int8(3**k)
    return found


def _weighted_quantiles(values: np.ndarray, weights: np.ndarray, shares: Sequence[float]) -> list[float]:
    """The first values up to which there is each share of the weight: only those in the same bin are sorted."""
    low, high = values.min(), values.max()
    place = ((values - low) * (_BINS / ((high - low) or 1.0))).astype(np.int32)
    total = np.cumsum(np.bincount(place, weights, _BINS + 1))
    found = []
    for share in shares:
        wanted = share * total[-1]
        k = int(np.searchsorted(total, wanted).clip(max=_BINS))
        near = np.flatnonzero(place == k)
        near = near[np.argsort(values[near])]
        until = np.cumsum(weights[near]) + (total[k - 1] if k else 0.0)
        found.append(float(values[near[np.searchsorted(until, wanted).clip(max=len(near) - 1)]]))
    return found


def deviations_of(
    labels: np.ndarray, thirds: np.ndarray, n_variables: int, weights: np.ndarray, block: np.ndarray, n_blocks: int
) -> Deviations:
    """Deviations of the observables that are slow: the basin of a frame, where there are several, and its thirds.

    Args:
        labels: (n_frames,) basin of each frame, -1 for none.
        thirds: result of `thirds_of` for `n_variables` variables.
        weights, block: (n_frames,) weight of each frame, and the number of its block.
    """
    n_basins, n_thirds = int(labels.max()) + 1, 3**n_variables
    basin, third = np.divmod(np.arange((n_basins + 1) * n_thirds), n_thirds)
    digits = third[:, None] // 3 ** np.arange(n_variables) % 3
    values = [digits > 0, digits > 1]
    if n_basins > 1:
        values.append(basin[:, None] == np.arange(1, n_basins + 1))
    kind = (labels + 1) * n_thirds + thirds
    return deviations(kind, np.concatenate(values, axis=1), weights, block, n_blocks)


def block_size(found: Deviations, segment: Int[np.ndarray, "blocks"]) -> Blocking:
    """Blocks twice as long as the shortest of B of N frames with B^3 > 2 N (error / that of independent frames)^4,
    for the slowest of the observables; twice, as neighbours of that length still know a little of each other.

    Source: Lee, Conduit, Nemec, Lopez Rios & Drummond, 10.1103/PhysRevE.83.066706.
    """
    n, alone = found.n_frames, found.alone
    varies = alone > 1e-9 * found.weights.sum()
    if not varies.any():
        return Blocking(max(1, n // len(segment)), 1, len(segment), 1.0, False, np.ones(1), np.ones(1))
    sums = found.sums[:, varies]
    tried: list[tuple[int, int, int, float]] = []
    for m, blocks in _tried(segment):
        squares = (together(sums, segment, m) ** 2).sum(axis=0)
        apart = np.sqrt(blocks / max(blocks - 1, 1) * squares) / alone[varies]
        tried.append((m, blocks, n // blocks, float(apart.max())))
    many = [entry for entry in tried if entry[1] >= FEWEST]
    fine = [size**3 > 2 * n * ratio**4 for _, _, size, ratio in many]
    # A length at which the condition holds, but not for a longer one, passed by chance.
    good = [entry for k, entry in enumerate(many) if all(fine[k:])]
    chosen = next((entry for entry in tried if good and entry[2] >= 2 * good[0][2]), tried[-1])
    # Runs that end before the criterion is met are independent of each other, though.
    enough = bool(good) or (chosen[1] >= FEWEST and chosen[1] == len(np.unique(segment)))
    worth = effective_blocks(together(found.weights, segment, chosen[0]))
    enough = enough and worth >= 0.5 * FEWEST
    lengths, errors = np.array([entry[2] for entry in tried], float), np.array([entry[3] for entry in tried])
    # If correlations decay exponentially, blocks of B frames show the part 1 - g / 2B of the statistical
    # inefficiency g, which is the square of the ratio of errors.
    part = 0.5 * (1 + np.sqrt(max(0.0, 1 - 2 * chosen[3] ** 2 / chosen[2])))
    if chosen[1] == len(np.unique(segment)):  # whole runs or molecules, which know nothing of each other
        part = 1.0
    return Blocking(chosen[2], chosen[0], chosen[1], float(part**-0.5), enough, lengths, errors)

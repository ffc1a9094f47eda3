"""Errors of weighted averages over correlated frames, by averages over blocks of the run."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

FINEST = 512  # blocks, at most
FEWEST = 6  # blocks that an error is read from
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


def together(
    sums: Float[np.ndarray, "blocks ..."], segment: Int[np.ndarray, "blocks"], m: int
) -> Float[np.ndarray, "merged ..."]:
    """Sums over m neighbouring blocks each, within segments; what is left at the end of one joins its last."""
    if m == 1:
        return sums
    starts = []
    for k in np.unique(segment):
        rows = np.flatnonzero(segment == k)
        starts += rows[: max(1, len(rows) // m) * m : m].tolist()
    return np.add.reduceat(sums, starts, axis=0)


def effective_blocks(weights: Float[np.ndarray, "blocks"]) -> float:
    """How many blocks of equal weight these are worth: of those without weight, none."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def error_of_ratio(
    sums: Float[np.ndarray, "blocks ..."], weights: Float[np.ndarray, "blocks"]
) -> Float[np.ndarray, "..."]:
    """Standard error of sum(sums) / sum(weights) from its blocks, for intervals of 68 %: with the quantile of
    Student's t in place of 1, since of few blocks the spread itself is hardly known. Infinite where one block has
    all the weight."""
    from scipy.special import stdtrit

    n, total = effective_blocks(weights), weights.sum()
    ratio = np.asarray(sums.sum(axis=0) / total)
    if n < _LEAST:
        return np.full(np.shape(ratio), np.inf)
    squares = np.zeros_like(ratio)
    for block, weight in zip(sums, weights, strict=True):  # memory holds few copies of all blocks on a grid
        squares += (block - ratio * weight) ** 2
    return np.asarray(np.sqrt(n / (n - 1) * squares) / total * stdtrit(n - 1, 0.5 + 0.5 * 0.6827))


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
    found = np.zeros(len(weights), np.int32)
    for k, values in enumerate(columns):
        order = np.argsort(values)
        total = np.cumsum(weights[order])
        ends = values[order[np.searchsorted(total, total[-1] * np.array([1 / 3, 2 / 3]))]]
        found += 3**k * np.searchsorted(ends, values).astype(np.int32)
    return found


def deviations_of(
    labels: np.ndarray, thirds: np.ndarray, n_variables: int, weights: np.ndarray, block: np.ndarray, n_blocks: int
) -> Deviations:
    """Deviations of the observables that are slow: the basin of a frame, where there are several, and its thirds.

    Args:
        labels: (n_frames,) basin of each frame, -1 for none.
        thirds: of `thirds_of`, of so many variables.
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
    m = 1
    while True:
        merged = together(sums, segment, m)
        if len(merged) < FEWEST and tried:
            break
        blocks = len(merged)
        apart = np.sqrt(blocks / max(blocks - 1, 1) * (merged**2).sum(axis=0)) / alone[varies]
        tried.append((m, blocks, n // blocks, float(apart.max())))
        if (len(tried) > 1 and blocks == tried[-2][1]) or blocks < FEWEST:
            break
        m = max(m + 1, int(1.5 * m))
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

"""Free energies over variables of the frames, from runs with or without a bias."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from polyvae.arguments import (
    flag,
    numbers_array,
    one_each,
    one_of,
    real_number,
    refusal,
    segment_lengths,
    statistical_weights,
)
from polyvae.errors import InputError
from polyvae.measures.basins import watershed
from polyvae.measures.blocks import Blocking, block_size, error_of_ratio, finest_blocks, together
from polyvae.measures.grids import axes_of, kernel_density, pairs_of
from polyvae.measures.hills import LIMIT
from polyvae.measures.kinetics import autocorrelation_time

_CUTS = np.arange(0, 0.51, 0.05)  # shares of each run that may be a transient
_LEAST_CUT = 0.1  # of a biased run, whose bias grows from nothing
_SERIES = 20_000  # rows that the transient is looked for in
_STATES = 1.0  # kT between two basins
_TIMES = 20  # of the course in time


@dataclasses.dataclass(frozen=True)
class State:
    """A basin of a free energy.

    Args:
        centre: where the free energy is lowest, one number a variable.
        weight: share of the statistical weight.
        energy: -kT log(weight), above that of the basin with the largest weight.
        error: of `energy`, 68 %; 0 for the basin with the largest weight.
    """

    centre: tuple[float, ...]
    weight: float
    energy: float
    error: float


@dataclasses.dataclass(frozen=True)
class FreeEnergy:
    """A free energy over one or two variables, in the unit of kT.

    Args:
        grid: points of each variable, (n_points,) each; of a histogram the middle of its bins.
        energy: (n_points,) or (n_points, n_points) -kT log of the density, its lowest value 0; infinite where no
            frame is.
        error: of the same shape, -kT log of the density up to which 68 % lie; infinite where no frame is.
        states: basins, the one with the largest weight first.
        kT: thermal energy.
        dropped: share of each run that was left out at its beginning.
        n_frames: frames that were used.
        kish: how many frames of equal weight the weights are worth, (sum w)^2 / sum w^2.
        n_effective: how many independent frames all are worth, correlations and weights together.
        blocks: the blocks that errors are from.
        bandwidth: standard deviation of the kernel along each variable; None of a histogram.
        times: (n_times,) shares of the run, and
        course: (n_times, n_states) energies of the basins from that share of the run,
        apart: (n_times,) root mean square difference from `energy` where that is below 6 kT; infinite where a
            point had not been visited.
        halves: the same between the first and the second half of the run.
        weights: (n_frames,) of the frames that were used, 1 on average.
    """

    grid: tuple[np.ndarray, ...]
    energy: np.ndarray
    error: np.ndarray
    states: tuple[State, ...]
    kT: float
    dropped: float
    n_frames: int
    kish: float
    n_effective: float
    blocks: Blocking
    bandwidth: tuple[float, ...] | None
    times: np.ndarray
    course: np.ndarray
    apart: np.ndarray
    halves: float
    weights: np.ndarray = dataclasses.field(repr=False)
    _sums: np.ndarray = dataclasses.field(repr=False)  # weight of each state in each block

    def difference(self, one: int, other: int) -> tuple[float, float]:
        """Energy of state `other` above that of state `one`, and its error (68 %)."""
        a, b = self._sums[:, one], self._sums[:, other]
        return _log_ratio(a, b, self.kT, self.blocks.factor)


def free_energy(
    s: Float[np.ndarray, "frames"] | Float[np.ndarray, "frames variables"],
    *,
    weights: Float[np.ndarray, "frames"] | None = None,
    bias: Float[np.ndarray, "frames"] | None = None,
    kT: float | None = None,
    segments: Sequence[int] | None = None,
    walkers: bool = False,
    method: Literal["kde", "histogram"] = "kde",
    bandwidth: float | Sequence[float] | None = None,
    bins: int | Sequence[int] | None = None,
    range: Sequence | None = None,
    periods: Sequence | None = None,
    transient: float | None = None,
    states: Sequence | None = None,
) -> FreeEnergy:
    """Free energy over one or two variables with its error, -kT log p(s) of the reweighted frames.

    Each frame counts exp(bias / kT): with the bias of OPES (Invernizzi & Parrinello,
    10.1021/acs.jpclett.0c00497), METAD's `rbias` (Tiwary & Parrinello, 10.1021/jp504920s), or that of a bias which
    does not change any more. Errors are from blocks, so long that they are independent (`measures.blocks`).

    Args:
        s: (n_frames,) or (n_frames, 1 or 2).
        weights: (n_frames,) statistical weights in place of a bias.
        bias: (n_frames,) at each frame, in the unit of kT.
        kT: thermal energy; 1 by default, where there is no bias.
        segments: frames of each run, where there are several. The constant of its bias is each run's own, so that
            a run counts by the number of its frames.
        walkers: the runs are walkers that share one bias, whose weights compare.
        method: "kde", Gaussian kernels, or "histogram".
        bandwidth: standard deviation of the kernels, a number or one a variable; by Silverman's
            rule from the spread in the narrowest basin, but a tenth of it at least, which makes a basin 1 % wider,
            and two tenths at most, of two variables three.
        bins: points of the grid, a number or one a variable.
        range: (low, high), or one for each variable; by default all frames that have a weight.
        periods: (low, high) for a periodic variable, or one or None for each.
        transient: share of each run that is left out at its beginning. By default it is chosen, up to a half, so
            that what is left is worth the most independent frames; of a biased run at least a tenth.
        states: ranges that are the basins, (low, high) each, or one for each variable; by default those that a
            barrier of 1 kT separates, noise aside, and that hold 1 % of the frames.

    Raises:
        InputError: a bias without kT, weights and a bias, no frame in the range, values that are not finite.
    """
    s = _variables(s)
    n, dims = s.shape
    kT = 1.0 if kT is None and bias is None else real_number("kT, which a bias needs,", kT, above=0)
    log_weights = _log_weights(weights, bias, kT, n)
    runs = segment_lengths(segments, n)
    walkers = flag("walkers", walkers)
    method = one_of("method", method, ("kde", "histogram"))
    ends = pairs_of("periods", periods, dims)
    share, kept, cut = _production(s, log_weights, runs, transient, least=0.0 if bias is None else _LEAST_CUT)
    lengths = tuple(int(kept[a:b].sum()) for a, b in zip(np.cumsum([0, *runs[:-1]]), np.cumsum(runs), strict=True))
    s, share = s[kept], share[kept]  # copies
    if not walkers:
        each = np.split(share, np.cumsum(lengths)[:-1])
        share = np.concatenate([w * (len(w) / w.sum()) if w.any() else w for w in each])
    if not share.sum() > 0:
        raise InputError("no frame has any weight; weights must not all be 0")

    axes = axes_of(s, share, pairs_of("range", range, dims), ends, bins, method, bandwidth)
    within = np.all([(s[:, k] >= a.low) & (s[:, k] <= a.high) for k, a in enumerate(axes)], axis=0)
    if not (share * within).sum() > 0:
        said = ", ".join(f"{a.low:g} to {a.high:g}" for a in axes)
        raise InputError(f"no frame lies in the range {said}; give range= that holds some")
    block, segment = finest_blocks(lengths)
    totals = np.bincount(block, share * within, len(segment))
    sums = np.stack(
        [kernel_density(s[block == b], (share * within)[block == b], axes) for b in np.arange(len(segment))]
    )
    density = sums.sum(axis=0) / totals.sum()
    with np.errstate(divide="ignore"):
        energy = -kT * np.log(density)
    lowest = energy.min()

    def error_with(blocks: Blocking) -> np.ndarray:
        parts = (together(rows, segment, blocks.merged) for rows in (sums, totals))
        return kT * blocks.factor * _relative(next(parts), next(parts), density)

    # The blocks must be right for what is slow: which basin a frame is in, or which part of the only one.
    labels, cells = _labels(states, energy - lowest, axes, s, kT, None)
    blocks = block_size(_observables(labels, s, share), share, block, segment)
    if states is None and labels.max() > 0:  # what is a barrier beside its noise?
        labels, cells = _labels(None, energy - lowest, axes, s, kT, 2 * error_with(blocks))
        blocks = block_size(_observables(labels, s, share), share, block, segment)

    n_states = int(labels.max()) + 1
    of_states = np.zeros((len(segment), max(n_states, 1)))
    inside = (labels >= 0) & within
    np.add.at(of_states, (block[inside], labels[inside]), share[inside])
    order = np.argsort(-of_states.sum(axis=0), kind="stable")
    of_states = of_states[:, order]
    by_blocks = together(of_states, segment, blocks.merged)
    found = _states(by_blocks, cells, order, energy, axes, kT, blocks.factor)
    slow = float(blocks.errors[np.searchsorted(blocks.sizes, blocks.size).clip(max=len(blocks.errors) - 1)])
    kish = float(share.sum() ** 2 / (share**2).sum())
    times, course, apart, halves = _course(sums, of_states, energy, lowest, segment, kT)
    return FreeEnergy(
        grid=tuple(a.points for a in axes),
        energy=energy - lowest,
        error=error_with(blocks),
        states=found,
        kT=kT,
        dropped=cut,
        n_frames=len(s),
        kish=kish,
        n_effective=min(kish / max(slow, 1e-12) ** 2, kish),
        blocks=blocks,
        bandwidth=None if method == "histogram" else tuple(a.width for a in axes),
        times=times,
        course=course,
        apart=apart,
        halves=halves,
        weights=share * len(share) / share.sum(),
        _sums=by_blocks,
    )


def _variables(s) -> np.ndarray:
    what = "numbers of one or two variables, (n_frames,) or (n_frames, 2)"
    s = numbers_array("s", s, what)
    s = s[:, None] if s.ndim == 1 else s
    if s.ndim != 2 or s.shape[1] not in (1, 2) or not len(s):
        raise InputError(f"s must be {what}; got shape {s.shape}")
    return s


def _log_weights(weights, bias, kT: float, n: int) -> np.ndarray:
    if bias is None:
        found = np.ones(n) if weights is None else statistical_weights(weights, n)
        with np.errstate(divide="ignore"):
            return np.log(found)
    if weights is not None:
        raise InputError("frames have weights or a bias, which gives weights; got both. Give one of them")
    return one_each("bias", bias, n) / kT


def _production(s, log_weights, runs, transient, least: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Weights (n_frames,), the largest 1, which frames are left when the transient is cut off each run, and its
    share."""
    place = np.concatenate([np.arange(n) / n for n in runs])
    log_weights = log_weights.copy()
    starts = np.cumsum([0, *runs[:-1]])
    most = np.maximum.reduceat(log_weights, starts)
    if not np.isfinite(most).any():
        raise InputError("no frame has any weight; weights must not all be 0")
    share = np.exp(log_weights - most.max())
    if transient is not None:
        cut = real_number("transient", transient, least=0)
        if cut >= 1:
            raise refusal("transient", "a share of the run, at least 0 and less than 1", transient)
        return share, place >= cut, cut
    worth = []
    cuts = [cut for cut in _CUTS if cut >= least]
    stride = max(1, len(s) // _SERIES)
    for cut in cuts:
        kept = place >= cut
        w = np.exp(log_weights[kept] - log_weights[kept].max()) if np.isfinite(log_weights[kept]).any() else None
        lengths = [int(part.sum()) for part in np.split(kept, starts[1:])]
        thin = [
            np.arange(a, a + n, stride) for a, n in zip(np.cumsum([0, *lengths[:-1]]), lengths, strict=True) if n
        ]
        series = s[kept][np.concatenate(thin)]
        tau = (
            np.nan_to_num(autocorrelation_time(series, [len(t) for t in thin]), nan=1.0) if w is not None else [1]
        )
        worth.append(0.0 if w is None else float(w.sum() ** 2 / (w**2).sum() / max(1.0, float(np.max(tau)))))
    # A little more is noise of the estimate, and each frame that is left out costs.
    best = next(k for k, value in enumerate(worth) if value >= 0.9 * max(worth))
    return share, place >= cuts[best], float(cuts[best])


def _labels(states, energy, axes, s, kT, noise) -> tuple[Int[np.ndarray, "frames"], np.ndarray]:
    """The basin of each frame and of each cell of the grid, -1 for none."""
    index = tuple(a.cells(s[:, k]) for k, a in enumerate(axes))
    if states is None:
        frames = np.zeros(energy.shape)
        np.add.at(frames, index, 1)
        cells = watershed(energy, _STATES * kT, frames, noise, [a.around for a in axes])
        return cells[index], cells
    labels = np.full(len(s), -1)
    cells = np.full(energy.shape, -1)
    mesh = np.meshgrid(*(a.points for a in axes), indexing="ij")
    if not isinstance(states, (Sequence, np.ndarray)) or isinstance(states, str) or not len(states):
        raise refusal("states", "ranges, (low, high) each", states)
    for number, state in enumerate(states):
        pairs = pairs_of("states", state, len(axes))
        bounds = [pair or (-np.inf, np.inf) for pair in pairs]
        labels[np.all([(s[:, k] >= lo) & (s[:, k] < hi) for k, (lo, hi) in enumerate(bounds)], axis=0)] = number
        cells[np.all([(m >= lo) & (m < hi) for m, (lo, hi) in zip(mesh, bounds, strict=True)], axis=0)] = number
        if not (labels == number).any():
            raise InputError(f"no frame lies in the state {_shown(pairs)}; give states= that hold some")
    return labels, cells


def _shown(pairs) -> str:
    return ", ".join("all" if pair is None else f"{pair[0]:g} to {pair[1]:g}" for pair in pairs)


def _observables(labels, s, share) -> np.ndarray:
    """What must be known of the frames, (n_frames, n): the basin of each, and which third of each variable."""
    columns = [labels == k for k in np.arange(labels.max() + 1)] if labels.max() > 0 else []
    order = np.argsort(s, axis=0, kind="stable")
    for k in np.arange(s.shape[1]):
        total = np.cumsum(share[order[:, k]])
        for q in (1 / 3, 2 / 3):
            columns.append(s[:, k] > s[order[np.searchsorted(total, q * total[-1]), k], k])
    return np.stack(columns, axis=1).astype(np.float64)


def _relative(sums: np.ndarray, totals: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Error of the logarithm of a density; infinite where it is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(density > 0, error_of_ratio(sums, totals) / density, np.inf)


def _log_ratio(one: np.ndarray, other: np.ndarray, kT: float, factor: float) -> tuple[float, float]:
    """-kT log of sum(other) / sum(one) of blocks (n_blocks,), and its error."""
    if not other.sum() > 0 or not one.sum() > 0:
        return (np.inf if one.sum() > 0 else -np.inf), np.inf
    ratio = other.sum() / one.sum()
    return float(-kT * np.log(ratio)), float(kT * factor * error_of_ratio(other, one) / ratio)


def _states(sums, cells, order, energy, axes, kT: float, factor: float) -> tuple[State, ...]:
    found = []
    for k, label in enumerate(order.tolist()):
        here = np.where(cells == label, energy, np.inf)
        lowest = np.unravel_index(np.argmin(here), here.shape)
        centre = tuple(float(a.points[i]) for a, i in zip(axes, lowest, strict=True))
        weight = float(sums[:, k].sum() / sums.sum()) if sums.sum() > 0 else 0.0
        found.append(State(centre, weight, *(_log_ratio(sums[:, 0], sums[:, k], kT, factor) if k else (0.0, 0.0))))
    return tuple(found)


def _course(sums, of_states, energy, lowest: float, segment, kT: float):
    """What the first shares of every run give, in time, and how far the halves of the runs are apart."""
    place = np.concatenate([(np.arange(n) + 1) / n for n in np.unique(segment, return_counts=True)[1]])
    compared = energy - lowest < LIMIT * kT
    times = np.linspace(1 / _TIMES, 1, _TIMES)
    course, apart = [], []

    def part(rows) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return -np.log(sums[rows].sum(axis=0)[compared])

    def off(one: np.ndarray, other: np.ndarray) -> float:
        return kT * float(np.std(one - other)) if np.isfinite(one).all() and np.isfinite(other).all() else np.inf

    for time in times:
        rows = place <= time + 1e-9
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = of_states[rows].sum(axis=0)
            course.append(-kT * np.log(weights / weights[0]))
        apart.append(off(part(rows), energy[compared] / kT) if rows.any() else np.inf)
    return times, np.array(course), np.array(apart), off(part(place <= 0.5), part(place > 0.5))

"""Free energies over variables of the frames, from runs with or without a bias."""

import dataclasses
import string
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int

from polyvae.arguments import (
    flag,
    numbers_array,
    one_of,
    real_number,
    refusal,
    segment_lengths,
)
from polyvae.errors import InputError
from polyvae.measures.basins import watershed
from polyvae.measures.blocks import (
    Blocking,
    block_size,
    deviations_of,
    error_of_ratio,
    thirds_of,
    together,
)
from polyvae.measures.grids import TIMES, Density, axes_of, cells_of, density_of, ranges_of, unrolled
from polyvae.measures.hills import LIMIT
from polyvae.measures.transients import choose_transient, relative_weights, without_starts
from polyvae.records import html_of

_LEAST_CUT = 0.1  # share of a biased run, since its bias grows from nothing
_STATES = 1.0  # kT between two basins
_FEWEST = 10


@dataclasses.dataclass(frozen=True)
class State:
    """A basin of a free energy.

    Args:
        centre: where the free energy is lowest, one number a variable.
        weight: share of the statistical weight of all frames.
        energy: -kT log(weight), above that of the basin with the largest weight.
        error: of `energy`, 68 %; 0 for the basin with the largest weight.
    """

    centre: tuple[float, ...]
    weight: float
    energy: float
    error: float


def state_name(k: int) -> str:
    """The letter that tables and pictures have for a state."""
    return string.ascii_uppercase[k % 26]


@dataclasses.dataclass(frozen=True)
class FreeEnergy:
    """A free energy over one or two variables, in the unit of kT.

    Args:
        grid: points of each variable, (n_points,) each; of a histogram the middle of its bins.
        energy: (n_points,) or (n_points, n_points) -kT log of the density, its lowest value 0; infinite where no
            frame is.
        error: of the same shape, of -kT log of the density before its lowest value was set to 0: the truth is
            within it in 68 of 100 runs; infinite where no frame is.
        states: basins, the one with the largest weight first.
        cells: of the shape of `energy`, the number of the state that each point is of, -1 for none.
        kT: thermal energy.
        dropped: share of each run that was left out at its beginning.
        n_frames: frames that were used.
        kish: how many frames of equal weight the weights are worth, (sum w)^2 / sum w^2.
        n_effective: how many independent frames all are worth, correlations and weights together.
        blocks: the blocks that errors are from.
        bandwidth: standard deviation of the kernel along each variable; None of a histogram.
        times: (n_times,) shares of the run, and
        course: (n_times, n_states) energies of the basins from that share of the run,
        apart: (n_times,) root mean square difference from `energy` where that is `known`; infinite where a point
            had not been visited.
        halves: the same between the first and the second half of the run.
        weights: (n_frames,) of the frames that were used, 1 on average.
        periods: of each variable, or None; the grid goes around a period once.
    """

    grid: tuple[np.ndarray, ...]
    energy: np.ndarray
    error: np.ndarray
    states: tuple[State, ...]
    cells: np.ndarray
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
    periods: tuple[float | None, ...]
    _sums: np.ndarray = dataclasses.field(repr=False)  # weight in each block of each state, and of all

    @property
    def known(self) -> np.ndarray:
        """Where two free energies are compared: below 6 kT, with an error of at most twice the median there.

        Where there are only a handful of frames, half of the run may have none, and its logarithm is meaningless.
        """
        return _known(self.energy, self.error, self.kT)

    def table(self, names: Sequence[str] | None = None) -> list[list[str]]:
        """A row for each basin: where it is, under `names` of the variables, its share and its energy."""
        rows = [["basin", *(names or [f"s{k}" for k in range(len(self.grid))]), "share", "energy"]]
        for k, state in enumerate(self.states):
            energy = "0" if k == 0 else f"{state.energy:.2f} ± {state.error:.2f}"
            rows.append([state_name(k), *(f"{c:.3g}" for c in state.centre), f"{state.weight:.1%}", energy])
        return rows

    def __str__(self):
        """Three lines: the frames, the basins, the errors."""
        basins = []
        for k, state in enumerate(self.states):
            basins.append(f"{state_name(k)} {state.weight:.1%}")
            if k:
                basins[-1] += f" at {state.energy:.2f} ± {state.error:.2f}"
        return (
            f"free energy of {self.n_frames} frames, worth {self.n_effective:.0f} independent ones, at kT "
            f"{self.kT:.4g}\n"
            f"basins: {', '.join(basins)}\n"
            f"errors (68 %) from {self.blocks.n_blocks} blocks of {self.blocks.size} frames"
        )

    def to_frame(self):
        """The basins as a pandas table, one a row."""
        import pandas as pd

        rows = [dataclasses.asdict(state) for state in self.states]
        return pd.DataFrame(rows, index=[state_name(k) for k in range(len(rows))])

    def _repr_html_(self) -> str:
        worth = f"{self.n_frames} frames, worth {self.n_effective:.0f} independent ones; kT = {self.kT:.4g}"
        return html_of("Free energy", self.table(), f"{worth}; errors (68 %) from {self.blocks.n_blocks} blocks")

    def difference(self, one: int, other: int) -> tuple[float, float]:
        """Energy of state `other` above that of state `one`, and its error (68 %)."""
        a, b, whole = (self._sums[:, k] for k in (one, other, -1))
        if not (a.sum() > 0 and b.sum() > 0):
            return (np.inf if a.sum() > 0 else -np.inf), np.inf
        off = error_of_ratio((b / b.sum() - a / a.sum()) * whole.sum(), whole)  # of the logarithm of their ratio
        return float(-self.kT * np.log(b.sum() / a.sum())), float(self.kT * self.blocks.factor * off)


def free_energy(
    s: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    bias: np.ndarray | None = None,
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
        kT: thermal energy; 1 by default, without a bias.
        segments: frames of each run, where there are several. Each run's bias is known only up to a constant of
            its own, so that runs are weighted by their numbers of frames.
        walkers: the runs are walkers that share one bias, so that their weights compare.
        method: "kde", Gaussian kernels, or "histogram".
        bandwidth: standard deviation of the kernels, a number or one per variable; by default a tenth of the
            spread of the narrowest basin, which widens it by 1 %; with two variables up to three tenths.
        bins: points of the grid, a number or one a variable.
        range: (low, high), or one for each variable; by default all frames that have a weight.
        periods: (low, high) for a periodic variable, or one or None for each.
        transient: share of each run that is left out at its beginning. By default it is chosen, up to a half, so
            that what is left is worth the most independent frames; of a biased run at least a tenth.
        states: the basins as ranges: (low, high) each, or one such pair for each variable; a range may cross the
            end of a period. By default basins are found: those that at least 1 kT beyond noise separates, with at
            least 1 % of the frames.

    Raises:
        InputError: a bias without kT, weights and a bias, no frame in the range, values that are not finite.
    """
    s = _variables(s)
    dims = s.shape[1]
    kT = 1.0 if kT is None and bias is None else real_number("kT, which a bias needs,", kT, above=0)
    runs = segment_lengths(segments, len(s))
    share = relative_weights(weights, bias, kT, runs, flag("walkers", walkers))
    method = one_of("method", method, ("kde", "histogram"))
    ends = ranges_of("periods", periods, dims)
    cut = choose_transient(s, ends, runs, transient, least=0.0 if bias is None else _LEAST_CUT)
    lengths = tuple(n_run - int(cut * n_run) for n_run in runs)
    s, share = (without_starts(values, runs, lengths) for values in (s, share))
    if any(end is not None for end in ends):
        s = s.copy()  # brought into one period below
    if not walkers:
        for part in np.split(share, np.cumsum(lengths)[:-1]):
            part *= len(part) / (part.sum() or 1.0)
    if not share.sum() > 0:
        raise InputError("no frame that is used has any weight; weights must not all be 0")
    axes = axes_of(s, share, ranges_of("range", range, dims), ends, bins, method, bandwidth)
    density = density_of(s, share, lengths, axes, kT)
    return _result(density, *_states_and_blocks(density, states), cut)


def _states_and_blocks(of: Density, states) -> tuple[np.ndarray, np.ndarray, Blocking]:
    """The state of each frame and of each point of the grid, and blocks long enough to be independent.

    They must be so for what is slow: which basin a frame is in, or which part of the only one.
    """
    n_blocks, dims = len(of.segment), len(of.axes)
    thirds = thirds_of([unrolled(of.s[:, k], axis.period) for k, axis in enumerate(of.axes)], of.share)
    place, energy = cells_of(of.s, of.axes), of.energy

    def with_noise(noise) -> tuple[np.ndarray, np.ndarray, Blocking]:
        labels, cells = _labels(states, energy, of.axes, of.s, place, of.within, of.kT, noise)
        of_slow = deviations_of(labels, thirds, dims, of.share, of.block, n_blocks)
        return labels, cells, block_size(of_slow, of.segment)

    labels, cells, blocks = with_noise(None)
    if states is not None or labels.max() <= 0:
        return labels, cells, blocks
    return with_noise(2 * of.error_with(blocks))  # is it a barrier beside its noise?


def _result(of: Density, labels: np.ndarray, cells: np.ndarray, blocks: Blocking, cut: float) -> FreeEnergy:
    n_states, n_blocks, share = int(labels.max()) + 1, len(of.segment), of.share
    of_states = np.bincount(of.block * (n_states + 1) + labels + 1, share, n_blocks * (n_states + 1))
    of_states = of_states.reshape(n_blocks, -1)[:, 1:]  # without the frames of no state
    order = np.argsort(-of_states.sum(axis=0), kind="stable")
    of_states = of_states[:, order]
    merged = [together(sums, of.segment, blocks.merged) for sums in (of_states, of.totals)]
    slow = float(blocks.errors[np.searchsorted(blocks.sizes, blocks.size).clip(max=len(blocks.errors) - 1)])
    kish = float(share.sum() ** 2 / (share**2).sum())
    energy, error = of.energy, of.error_with(blocks)
    known = _known(energy, error, of.kT)
    times, course, apart, halves = _course(of.parts, of_states, energy, known, of.at, of.kT)
    result = FreeEnergy(
        grid=tuple(axis.points for axis in of.axes),
        energy=energy,
        error=error,
        states=(),
        cells=_numbered(cells, order),
        kT=of.kT,
        dropped=cut,
        n_frames=len(share),
        kish=kish,
        n_effective=min(kish / max(slow, 1e-12) ** 2, kish),
        blocks=blocks,
        bandwidth=tuple(axis.width for axis in of.axes) if of.axes[0].width else None,
        times=times,
        course=course,
        apart=apart,
        halves=halves,
        weights=share * len(share) / share.sum(),
        periods=tuple(axis.period if axis.around else None for axis in of.axes),
        _sums=np.column_stack(merged),
    )
    return dataclasses.replace(result, states=_states(result, cells, order))


def _variables(s) -> np.ndarray:
    what = "numbers of one or two variables, (n_frames,) or (n_frames, 2)"
    s = numbers_array("s", s, what)
    s = s[:, None] if s.ndim == 1 else s
    if s.ndim != 2 or s.shape[1] not in (1, 2):
        raise InputError(f"s must be {what}; got shape {s.shape}")
    if len(s) < _FEWEST:
        raise InputError(f"a free energy needs {_FEWEST} frames at the very least; got {len(s)}")
    return s


def _labels(states, energy, axes, s, place, within, kT, noise) -> tuple[Int[np.ndarray, "frames"], np.ndarray]:
    """The basin of each frame and of each cell of the grid, -1 for none; `place` is the cell of each frame."""
    if states is None:
        frames = np.bincount(place[within], minlength=energy.size).reshape(energy.shape)
        cells = watershed(energy, _STATES * kT, frames, noise, [a.around for a in axes])
        labels = cells.astype(np.int16).ravel()[place]
        labels[~within] = -1
        return labels, cells
    if not isinstance(states, (Sequence, np.ndarray)) or isinstance(states, str) or not len(states):
        raise refusal("states", "ranges, (low, high) each", states)
    mesh = np.meshgrid(*(a.points for a in axes), indexing="ij")
    labels, cells = np.full(len(s), -1), np.full(energy.shape, -1)
    for number, state in enumerate(states):
        pairs = ranges_of("states", state, len(axes))

        def has(values, pairs=pairs) -> np.ndarray:
            return np.all([a.between(v, pair) for a, v, pair in zip(axes, values, pairs, strict=True)], axis=0)

        rows = has(s.T) & within
        labels[rows], cells[has(mesh)] = number, number
        if not rows.any() or not (cells == number).any():
            raise InputError(f"no frame lies in the state {_shown(pairs)}; give states= that hold some")
    return labels, cells


def _numbered(cells: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Cells by the places of their basins in `order`, -1 for none."""
    places = np.append(np.argsort(order), -1)
    return places[cells]


def _known(energy: np.ndarray, error: np.ndarray, kT: float) -> np.ndarray:
    deep = energy < LIMIT * kT
    return deep & (error <= 2 * np.median(error[deep]))


def _shown(pairs) -> str:
    return ", ".join("all" if pair is None else f"{pair[0]:g} to {pair[1]:g}" for pair in pairs)


def _states(result: FreeEnergy, cells: np.ndarray, order: np.ndarray) -> tuple[State, ...]:
    found = []
    whole = result._sums[:, -1].sum()
    for k, label in enumerate(order.tolist()):
        here = np.where(cells == label, result.energy, np.inf)
        lowest = np.unravel_index(np.argmin(here), here.shape)
        centre = tuple(float(points[i]) for points, i in zip(result.grid, lowest, strict=True))
        energy, error = result.difference(0, k) if k else (0.0, 0.0)
        found.append(State(centre, float(result._sums[:, k].sum() / whole), energy, error))
    return tuple(found)


def _course(parts, of_states, energy, compared, at, kT: float):
    """Results of the first shares of every run, in time, and the difference between the halves of the runs.

    Args:
        parts: (n_times, ...) densities of each part of the runs.
        of_states: (n_blocks, n_states) weight of each state in each block.
        at: (n_blocks,) part of the runs that each block is of.
    """
    known = np.cumsum(parts[:, compared], axis=0)
    weights = np.zeros((TIMES, of_states.shape[1]))
    np.add.at(weights, at, of_states)
    weights = weights.cumsum(axis=0)
    half = TIMES // 2 - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        course = -kT * np.log(weights / weights[:, :1])
        logs = -np.log(known)
        second = -np.log(parts[half + 1 :, compared].sum(axis=0))

    def off(one: np.ndarray, other: np.ndarray) -> float:
        return kT * float(np.std(one - other)) if np.isfinite(one).all() and np.isfinite(other).all() else np.inf

    apart = np.array([off(log, energy[compared] / kT) for log in logs])
    return np.linspace(1 / TIMES, 1, TIMES), course, apart, off(logs[half], second)

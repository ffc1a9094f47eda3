"""Free energies with their errors, and whether they can be believed."""

from collections.abc import Mapping, Sequence

import numpy as np

from polyvae.arguments import without_mask
from polyvae.measures.free_energy import FreeEnergy, state_name
from polyvae.measures.hills import HillsEnergy
from polyvae.measures.weights import quantile
from polyvae.plot.style import DATA, MODEL, NEUTRAL, canvas, color_key, evenly, styled

_DEEP = 4.0  # kT that a picture shows at least
_MOST = {1: 25.0, 2: 15.0}  # kT that it shows at most, over one and two variables
_POINTS = 4000
LARGEST = 1.0  # kT, the error that a map shows at most: that of a place which a single block has seen
_NAMED = 6  # states in a picture, at most


@styled
def free_energy(
    result: FreeEnergy | HillsEnergy,
    *,
    names: Sequence[str] = ("s",),
    unit: str = "kT",
    others: Mapping[str, np.ndarray] | None = None,
    ax=None,
):
    """A free energy: over one variable as a curve with the band of its error (68 %), over two as a map.

    Args:
        result: of `polyvae.free_energy`.
        names: of the variables, with their units.
        unit: of the energies.
        others: further curves on the same grid by their label, such as that of the hills.
        ax: matplotlib axes to draw into; by default those of a new figure.

    Returns:
        The axes.
    """
    for name, curve in (others or {}).items():
        without_mask(f"others[{name!r}]", curve)
    (ax,) = canvas(None if ax is None else [ax], 1, 1, (5.2, 3.9))
    known, top = np.isfinite(result.energy), _top(result)
    if len(result.grid) == 1:
        curves = {"reweighted": result.energy, **(others or {})}
        (grid,), (energy, error, *more) = _around(result, result.energy, result.error, *(others or {}).values())
        sure = np.isfinite(energy)
        band = [np.where(sure, energy, np.nan) + side * np.where(sure, error, 0) for side in (-1, 1)]
        ax.fill_between(grid, *band, color=DATA, alpha=0.25, lw=0)
        ax.plot(grid, energy, color=DATA, lw=1.6, label="reweighted" if others else None)
        for label, curve, style in zip(list(curves)[1:], more, ("--", ":", "-."), strict=False):
            ax.plot(grid, curve, color=MODEL, lw=1.2, ls=style, label=label)
        if others:
            ax.legend()
        ax.set(xlabel=names[0], ylabel=f"free energy ({unit})", ylim=(-0.03 * top, top))
        seen = result.grid[0][known & (result.energy < top)]
        ax.set_xlim(*_ends(result)[0] or _margins(seen.min(), seen.max()))
    else:
        _map(ax, result, _believed(result, result.energy), top, f"free energy ({unit})", "viridis", 16)
        ax.set(xlabel=names[0], ylabel=names[1])
    if isinstance(result, FreeEnergy):
        _name_states(ax, result)
    return ax


@styled
def free_energy_with_error(
    result: FreeEnergy | HillsEnergy, *, names: Sequence[str], unit: str = "kT", axes=None
) -> np.ndarray:
    """A free energy over two variables beside its error (68 %), both as maps.

    Args:
        result: of `polyvae.free_energy` over two variables.
        names: of the variables, with their units.
        unit: of the energies.
        axes: two, to draw into.

    Returns:
        Two axes: the free energy, its error where the free energy is shown.
    """
    axes = canvas(axes, 1, 2, (9.6, 3.9), sharex=True, sharey=True)
    free_energy(result, names=names, unit=unit, ax=axes[0])
    top = _top(result)
    error = _believed(result, np.where(result.energy < top, result.error, np.inf))
    most = float(error[np.isfinite(error)].max(initial=1e-3 * result.kT))
    _map(axes[1], result, error, min(most, 2 * result.kT), f"error ({unit})", "cividis", 10)
    axes[1].set(xlabel=names[0])
    return axes


def _believed(result: FreeEnergy | HillsEnergy, values: np.ndarray) -> np.ndarray:
    """Values where the error is below `LARGEST` kT, infinite elsewhere; all, where it is larger everywhere."""
    sure = result.error < LARGEST * result.kT
    return np.where(sure, values, np.inf) if sure.any() else values


def _top(result: FreeEnergy | HillsEnergy) -> float:
    """The highest energy that a picture shows: that of a light frame alone; beyond are tails of kernels."""
    highest = 1.05 * float(result.energy[np.isfinite(result.energy)].max())
    if isinstance(result, FreeEnergy) and result.bandwidth is not None:
        steps = np.prod([points[1] - points[0] for points in result.grid])
        whole = np.exp(-result.energy / result.kT).sum() * steps
        light = quantile(result.weights[result.weights > 0], 0.01) / len(result.weights)
        alone = light / np.prod(np.sqrt(2 * np.pi) * np.array(result.bandwidth))
        highest = min(highest, -result.kT * (np.log(alone * whole) - 0.5))
    return min(_MOST[len(result.grid)] * result.kT, max(_DEEP * result.kT, highest))


def _map(ax, result, values: np.ndarray, top: float, label: str, colors: str, n_levels: int) -> None:
    """Values over two variables as filled contours, or as the bins of a histogram, with a key."""
    from matplotlib.ticker import MaxNLocator

    grid, (values,) = _around(result, values)
    if isinstance(result, FreeEnergy) and result.bandwidth is None:  # bins, and nothing between them
        bins = np.where(values <= top, values, np.nan).T
        shown = ax.pcolormesh(*grid, bins, vmin=0, vmax=top, cmap=colors, rasterized=True)
    else:
        levels = MaxNLocator(n_levels).tick_values(0, top)
        shown = ax.contourf(*grid, values.T, levels=levels, cmap=colors)
        shown.set_rasterized(True)
        lines = ax.contour(*grid, values.T, levels=levels[::2], colors="white", linewidths=0.4)
        lines.set_alpha(0.7)
    color_key(shown, ax, label)
    for ends, put in zip(_ends(result), (ax.set_xlim, ax.set_ylim), strict=True):
        if ends is not None:
            put(*ends)


def _around(result: FreeEnergy | HillsEnergy, *fields: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The grid, and fields on it, one point longer at both ends of a variable that goes around: without a seam."""
    grid, found = list(result.grid), list(fields)
    for k, period in enumerate(result.periods):
        if period is not None:
            step = period / len(grid[k])
            grid[k] = np.concatenate([[grid[k][0] - step], grid[k], [grid[k][-1] + step]])
            sides = [(int(j == k),) * 2 for j in range(len(grid))]
            found = [np.pad(field, sides, mode="wrap") for field in found]
    return grid, found


def _ends(result: FreeEnergy | HillsEnergy) -> list[tuple[float, float] | None]:
    """First and last value of each variable that goes around, None of others."""
    found: list[tuple[float, float] | None] = []
    for points, period in zip(result.grid, result.periods, strict=True):
        middle = isinstance(result, FreeEnergy) and result.bandwidth is None  # of the first bin
        start = points[0] - (period or 0.0) / len(points) / 2 * middle
        found.append(None if period is None else (float(start), float(start + period)))
    return found


def _margins(low: float, high: float) -> tuple[float, float]:
    wide = 0.04 * (high - low) or 1.0
    return low - wide, high + wide


def _name_states(ax, result: FreeEnergy) -> None:
    if len(result.states) < 2:
        return
    for k, state in enumerate(result.states[:_NAMED]):
        if len(state.centre) == 1:
            at = (state.centre[0], float(np.interp(state.centre[0], result.grid[0], result.energy)))
            ax.annotate(state_name(k), at, xytext=(0, 6), textcoords="offset points", ha="center", color=NEUTRAL)
        else:
            # Not on the edge, where half of a letter is.
            sides = [(a + 0.03 * (b - a), b - 0.03 * (b - a)) for a, b in (ax.get_xlim(), ax.get_ylim())]
            x, y = (float(np.clip(c, *side)) for c, side in zip(state.centre, sides, strict=True))
            ax.annotate(state_name(k), (x, y), ha="center", va="center", color="white", weight="bold")


@styled
def free_energy_checks(
    result: FreeEnergy,
    s: np.ndarray,
    *,
    time: np.ndarray | None = None,
    segments: Sequence[int] | None = None,
    names: Sequence[str] = ("s",),
    unit: str = "kT",
    axes=None,
):
    """Whether to believe a free energy: the way of the first variable, the basins in the course of the run, the
    error by the length of blocks, which ends level where blocks are long enough.

    Args:
        result: of `polyvae.free_energy`.
        s: (n_frames,) the first variable of all frames, those of the transient too.
        time: (n_frames,) their times.
        segments: frames of each run.
        names: of the variables, with their units.
        unit: of the energies.
        axes: three of them; by default those of a new figure.

    Returns:
        Array of three axes.
    """
    without_mask("s", s)
    without_mask("time", time)
    way, course, error = axes = canvas(axes, 1, 3, (12.0, 3.5))
    lengths = (len(s),) if segments is None else tuple(segments)
    starts = np.cumsum([0, *lengths[:-1]])
    for k, (start, n) in enumerate(zip(starts, lengths, strict=True)):
        rows = start + evenly(n, max(200, _POINTS // len(lengths)))
        at = rows - start if time is None else time[rows]
        left_out = rows - start < result.dropped * n
        one = len(lengths) == 1
        for here, color, label in ((left_out, "#b8bec8", "left out"), (~left_out, DATA, None)):
            shade = color if one or here is left_out else (DATA, MODEL, NEUTRAL)[k % 3]
            ax_label = label if k == 0 and here.any() else None
            way.plot(at[here], s[rows][here], ".", color=shade, ms=1.5, alpha=0.7, label=ax_label)
    if result.dropped:
        way.legend(markerscale=5)
    way.set(xlabel="frame" if time is None else "time", ylabel=names[0])
    way.set_title("The way of the run" if len(lengths) == 1 else f"The ways of {len(lengths)} runs")

    percent = 100 * result.times
    for k, state in enumerate(result.states[1:_NAMED], start=1):
        values = np.where(np.isfinite(result.course[:, k]), result.course[:, k], np.nan)
        (line,) = course.plot(percent, values, lw=1.4, color=(MODEL, DATA, NEUTRAL)[(k - 1) % 3])
        band = (state.energy - state.error, state.energy + state.error)
        if np.isfinite(band).all():
            course.axhspan(*band, color=line.get_color(), alpha=0.15, lw=0)
        course.annotate(
            f"{state_name(k)} – A",
            (percent[-1], state.energy),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    if len(result.states) > 1:
        course.set(ylabel=f"difference of basins ({unit})")
        course.set_title("Basins, from the first part of the run")
    else:
        values = np.where(np.isfinite(result.apart), result.apart, np.nan)
        course.plot(percent, values, color=MODEL, lw=1.4)
        course.set(ylabel=f"rms difference from the end ({unit})", ylim=(0, None))
        course.set_title("Free energy, from the first part of the run")
    course.set(xlabel="part of the run (%)", xlim=(0, 100))

    error.plot(result.blocks.sizes, result.blocks.errors, "o-", ms=3, lw=1, color=DATA)
    error.axvline(result.blocks.size, color=MODEL, lw=1, ls="--", label=f"chosen: {result.blocks.n_blocks} blocks")
    error.set(xscale="log", xlabel="frames in a block", ylabel="error (of independent frames)", ylim=(0, None))
    error.set_title("Are the blocks independent?")
    error.legend()
    return axes

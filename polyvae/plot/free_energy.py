"""Free energies with their errors, and whether they can be believed."""

from collections.abc import Mapping, Sequence

import numpy as np

from polyvae.measures.free_energy import FreeEnergy, state_name
from polyvae.measures.hills import HillsEnergy
from polyvae.plot.style import DATA, MODEL, NEUTRAL, canvas, evenly, styled

_DEEP = 4.0  # kT that a picture shows above the lowest energies with a finite error, at least
_MOST = {1: 25.0, 2: 15.0}  # kT that it shows at most, over one and two variables
_POINTS = 4000
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
    (ax,) = canvas(None if ax is None else [ax], 1, 1, (5.2, 3.9))
    known = np.isfinite(result.energy)
    top = max(_DEEP * result.kT, 1.05 * float(result.energy[known].max()))
    top = min(_MOST[len(result.grid)] * result.kT, top)
    if len(result.grid) == 1:
        (grid,), energy = result.grid, result.energy
        band = [np.where(known, energy, np.nan) + side * np.where(known, result.error, 0) for side in (-1, 1)]
        ax.fill_between(grid, *band, color=DATA, alpha=0.25, lw=0)
        ax.plot(grid, energy, color=DATA, lw=1.6, label="reweighted" if others else None)
        for (label, curve), style in zip((others or {}).items(), ("--", ":", "-."), strict=False):
            ax.plot(grid, curve, color=MODEL, lw=1.2, ls=style, label=label)
        if others:
            ax.legend()
        ax.set(xlabel=names[0], ylabel=f"free energy ({unit})", ylim=(-0.03 * top, top))
        seen = grid[known & (energy < top)]
        ax.set_xlim(*_margins(seen.min(), seen.max()))
    else:
        from matplotlib.ticker import MaxNLocator

        levels = MaxNLocator(16).tick_values(0, top)
        if isinstance(result, FreeEnergy) and result.bandwidth is None:  # bins, and nothing between them
            energy = np.where(known, result.energy, np.nan).T
            shown = ax.pcolormesh(*result.grid, energy, vmax=top, cmap="viridis", rasterized=True)
        else:
            shown = ax.contourf(*result.grid, result.energy.T, levels=levels, extend="max", cmap="viridis")
            shown.set_rasterized(True)
            lines = ax.contour(*result.grid, result.energy.T, levels=levels[::2], colors="white", linewidths=0.4)
            lines.set_alpha(0.7)
        ax.figure.colorbar(shown, ax=ax, label=f"free energy ({unit})")
        ax.set(xlabel=names[0], ylabel=names[1])
    if isinstance(result, FreeEnergy):
        _name_states(ax, result)
    return ax


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
            ax.annotate(state_name(k), state.centre, ha="center", va="center", color="white", weight="bold")


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

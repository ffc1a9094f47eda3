"""Pictures of latent coordinates."""

from collections.abc import Sequence

import numpy as np

from polyvae.core.units import LENGTHS
from polyvae.cv.latent import LatentCV
from polyvae.measures.weights import effective_size
from polyvae.plot.style import (
    ALONG,
    DATA,
    NEUTRAL,
    VALUE,
    axis_limits,
    canvas,
    color_key,
    evenly,
    styled,
)
from polyvae.tasks.states import plane_of
from polyvae.trajectory.record import Trajectory


@styled
def latent_trajectory(
    z: np.ndarray,
    *,
    time: np.ndarray | None = None,
    segments: Sequence[int] | None = None,
    length_unit: str = "sigma",
    kl: Sequence[float] | np.ndarray | None = None,
    weights: np.ndarray | None = None,
    ax=None,
):
    """The way through the latent plane, coloured by time, over the density of all frames.

    A long way is shown in part: the frames from the start of the longest segment until the way is as long
    as a page can carry. One latent is drawn against time, all of it. With more than two, those with the
    largest KL are shown (the largest variance where `kl` is not given).

    Args:
        z: (n_frames, latent_dim), in the order of time.
        time: (n_frames,), increasing, in ps, or in tau where lengths are in sigma; otherwise the frame number.
        segments: lengths of the continuous pieces; no line joins two of them.
        kl: (latent_dim,) KL of each latent.
        weights: (n_frames,), of the density; the way goes through all frames alike.
        length_unit: of the data, which the unit of time goes with: "nm", "angstrom" or "sigma".
        ax: matplotlib axes to draw into; by default those of a new figure.

    Returns:
        The axes; the way is a `LineCollection`.
    """
    from matplotlib.collections import LineCollection

    n_frames = len(z)
    shown, note = to_show(z, kl, weights)
    (ax,) = canvas(ax, 1, 1, (6.2, 5.0) if len(shown) == 2 else (8.4, 3.6))
    time, unit = clock_of(time, n_frames, length_unit)
    clock = unit if unit == "frame" else f"time ({unit})"
    ends = np.cumsum([n_frames] if segments is None else segments)
    joined = ~np.isin(np.arange(1, n_frames), ends)

    if len(shown) == 1:
        every = evenly(n_frames, 20_000)
        points = np.stack([time[every], z[every, 0]], axis=1)
        piece = np.searchsorted(ends, every, side="right")
        steps = np.stack([points[:-1], points[1:]], axis=1)[piece[1:] == piece[:-1]]
        few = min(1.0, 600 / n_frames)
        ax.add_collection(LineCollection(steps, colors=DATA, linewidth=0.7, alpha=0.12 + 0.7 * few))
        ax.scatter(*points.T, s=2 + 8 * few, color=DATA, linewidths=0, zorder=3)
        ax.axhspan(-1, 1, color=NEUTRAL, alpha=0.12, linewidth=0, zorder=0, label="prior, ±1 std")
        ax.set(xlabel=clock, ylabel="z0", title=f"Latent trajectory, {n_frames:,} frames")
        ax.legend(loc="upper right")
        return ax

    first, last = _stretch(z[:, shown], ends)
    way, clocks = z[first:last][:, shown], time[first:last]
    if last - first < n_frames:
        density_under(ax, z[:, shown], weights)
    steps = np.stack([way[:-1], way[1:]], axis=1)[joined[first : last - 1]]
    lines = LineCollection(list(steps), cmap=ALONG, linewidth=0.9, alpha=0.7)
    lines.set_array(((clocks[:-1] + clocks[1:]) / 2)[joined[first : last - 1]])
    ax.add_collection(lines)
    dots = ax.scatter(*way.T, c=clocks, cmap=ALONG, s=9, linewidths=0, zorder=3)
    if len(clocks) > 1:
        lines.set_clim(clocks[0], clocks[-1])
    part = f"{n_frames:,} frames" if last - first == n_frames else f"frames {first:,}–{last - 1:,} of {n_frames:,}"
    latent_plane(ax, z, shown, f"Latent trajectory, {part}{note}")
    color_key(dots, ax, clock)
    return ax


@styled
def latent_values(
    z: np.ndarray,
    values: np.ndarray,
    *,
    label: str = "value",
    kl: Sequence[float] | np.ndarray | None = None,
    max_points: int = 20_000,
    weights: np.ndarray | None = None,
    ax=None,
):
    """The latent plane coloured by a quantity of each frame; one latent: the quantity against it.

    Args:
        z: (n_frames, latent_dim).
        values: (n_frames,), for example radii of gyration.
        label: of the values, with their unit.
        max_points: more frames than this are thinned evenly, by weights (n_frames,) if any, and the title says so.
        weights: (n_frames,) of the frames, if any.
        kl: (latent_dim,) KL of each latent, which of more than two are shown.
        ax: matplotlib axes to draw into; by default those of a new figure.

    Returns:
        The axes, with one scatter.
    """
    shown, note = to_show(z, kl, weights)
    (ax,) = canvas(ax, 1, 1, (6.2, 5.0) if len(shown) == 2 else (6.2, 4.2))
    chosen = evenly(len(z), max_points, weights if len(z) > max_points else None)
    size = float(np.clip(14_000 / len(chosen), 2.5, 16))
    part = f"{len(z):,} frames" if len(chosen) == len(z) else f"{len(chosen):,} of {len(z):,} frames"
    if len(shown) == 1:
        ax.scatter(z[chosen, 0], values[chosen], s=size, color=DATA, alpha=0.6, linewidths=0, rasterized=True)
        ax.set(xlabel="z0", ylabel=label, title=f"Latent coordinate, {part}")
        return ax
    x, y = z[chosen][:, shown].T
    dots = ax.scatter(x, y, c=values[chosen], cmap=VALUE, s=size, linewidths=0, rasterized=True)
    latent_plane(ax, z, shown, f"Latent plane, {part}{note}")
    color_key(dots, ax, label)
    return ax


def clock_of(time: np.ndarray | None, n_frames: int, length_unit: str) -> tuple[np.ndarray, str]:
    """Times of frames, (n_frames,), and their unit; their numbers, and "frame", where no one clock is known."""
    if time is None or (np.diff(time) <= 0).any():  # several files, each with a clock of its own
        return np.arange(n_frames), "frame"
    return np.asarray(time), LENGTHS[length_unit].time


def mean_kl(cv: LatentCV, traj: Trajectory, weights: np.ndarray | None = None) -> np.ndarray:
    """KL of each latent (latent_dim,) in nats, the mean over frames by their weights (n_frames,)."""
    mean, std = cv.transform_posterior(traj)
    return np.average(0.5 * (mean**2 + std**2 - 1) - np.log(std), axis=0, weights=weights)


def density_under(ax, z: np.ndarray, weights: np.ndarray | None = None) -> None:
    """Shades of grey that hold 95, 75, 50 and 25 % of all points (n_frames, 2), by their weights if any."""
    xs, ys, density, levels = density_levels(z, weights)
    shades = ("#eceef1", "#dcdfe4", "#c9cdd4", "#b4bac3")[: len(levels)]
    ax.contourf(xs, ys, density.T, levels=[*levels, np.inf], colors=shades, zorder=0)


def to_show(
    z: np.ndarray, kl: Sequence[float] | np.ndarray | None, weights: np.ndarray | None
) -> tuple[list[int], str]:
    """The one or two latents to show, and a note for the title where there are more."""
    n = z.shape[1]
    if n <= 2:
        return list(range(n)), ""
    variance = np.average((z - np.average(z, axis=0, weights=weights)) ** 2, axis=0, weights=weights)
    measure, name = (variance, "variance") if kl is None else (np.asarray(kl), "KL")
    shown = plane_of(measure)
    return shown, f"\nz{shown[0]} and z{shown[1]}: the largest {name} of {n} latents"


def latent_plane(ax, z: np.ndarray, shown: list[int], title: str) -> None:
    """Labels, limits that hold every frame, and circles at one and two standard deviations of the prior."""
    from matplotlib import patheffects

    angle = np.linspace(0, 2 * np.pi, 200)
    for r, label in ((1, "1 std"), (2, "prior, 2 std")):
        ax.plot(r * np.cos(angle), r * np.sin(angle), color=NEUTRAL, linewidth=0.9, linestyle=(0, (1, 2)))
        text = ax.text(0, -r, label, ha="center", va="center", size="small", color=NEUTRAL)
        text.set_path_effects([patheffects.withStroke(linewidth=2.5, foreground="white")])
    (x0, x1), (y0, y1) = axis_limits(z[:, shown], np.array([[-2.0, -2.0], [2.0, 2.0]]))
    ax.set(xlim=(x0, x1), ylim=(y0, y1), aspect="equal")
    ax.set(xlabel=f"z{shown[0]}", ylabel=f"z{shown[1]}", title=title)


def _stretch(z: np.ndarray, ends: np.ndarray) -> tuple[int, int]:
    """First and last frame (exclusive) of a piece whose way is 60 times the spread, or all if it is shorter."""
    spread = np.sqrt(z.var(axis=0).sum()) or 1.0
    steps = np.linalg.norm(np.diff(z, axis=0), axis=1)
    if len(z) <= 4000 and steps.sum() <= 60 * spread:
        return 0, len(z)
    lengths = np.diff([0, *ends])
    longest = int(np.argmax(lengths))
    first, end = int(ends[longest] - lengths[longest]), int(ends[longest])
    walked = np.cumsum(steps[first : end - 1])
    return first, first + 1 + min(int(np.searchsorted(walked, 60 * spread)), len(walked), 4000)


def density_levels(
    z: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[float]]:
    """The density of points (n_frames, 2) on a grid: its x and y, the values there, and the levels above which 95,
    75, 50 and 25 % of the points are, by their weights if any."""
    from scipy.ndimage import gaussian_filter

    if weights is not None:
        z, weights = z[weights > 0], weights[weights > 0]
    low, high = z.min(axis=0), z.max(axis=0)
    pad = 0.15 * np.where(high > low, high - low, 1.0)
    bounds = np.stack([low - pad, high + pad], axis=1)
    counts, xs, ys = np.histogram2d(z[:, 0], z[:, 1], bins=90, range=bounds, weights=weights)
    density = gaussian_filter(counts, max(1.5, 0.5 * 90 * effective_size(z, weights) ** (-1 / 6) / 4))
    order = np.sort(density.ravel())[::-1]
    held = np.cumsum(order) / order.sum()
    levels = sorted({float(order[np.searchsorted(held, part)]) for part in (0.95, 0.75, 0.5, 0.25)})
    x, y = ((edges[1:] + edges[:-1]) / 2 for edges in (xs, ys))
    return x, y, density, levels

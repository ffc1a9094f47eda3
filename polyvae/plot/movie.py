"""A run as a movie: the chain as it moves, the same frame aligned, and the way of its latent point."""

import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from polyvae.arguments import file_name, real_number, whole_number
from polyvae.cv.latent import LatentCV, check_cv
from polyvae.errors import InputError
from polyvae.features.featurizers import Reference
from polyvae.files import check_output, replacing
from polyvae.measures.weights import counting
from polyvae.plot.chains import ball_radius, balls_and_sticks
from polyvae.plot.latent import clock_of, density_under, latent_plane, mean_kl, to_show
from polyvae.plot.style import MODEL, axis_limits, evenly, label_length, styled
from polyvae.progress import reports
from polyvae.trajectory.record import Trajectory, bonds_of

log = logging.getLogger(__name__)

SUFFIXES = (".gif", ".mp4")
_SIZE = (10.8, 3.84)  # inches; with the dots an inch below an even number of pixels, which MP4 asks for
_DOTS = {".gif": 100, ".mp4": 150}
_SLOWEST = 0.1  # a frame in ten seconds; GIF counts in 16 bits
_FASTEST = 50  # GIF counts hundredths of a second, and viewers slow down below two
_TRAIL = 16  # frames
_ROOM = 0.25  # that a chain may move in before the view follows, of its own reach


@styled
@reports("drawing", "frame")
def movie(
    cv: LatentCV,
    data,
    path: str | os.PathLike,
    *,
    frames: int = 200,
    fps: float = 10.0,
    progress: Callable[[int], None] | bool | None = None,
) -> int:
    """Write a run as a movie, GIF or MP4 by the suffix; returns the number of frames in it.

    On the left the chain moves as in the data, and the view follows before it would leave; a 3-D chain is seen
    along its third axis. In the middle the same frame is shown in the model's alignment; for `PairDistances`,
    which has none, in its principal axes. On the right its latent point draws a fading trail over the density of
    all frames of the data, by their weights if any; one latent is drawn against time, and of more than two those
    with the largest KL are shown.

    Args:
        cv: the model.
        data: what `as_trajectory` takes.
        path: of the file, which appears whole or not at all; one that is there is replaced.
        frames: largest number of frames, evenly spaced over the data; a log line reports it.
        fps: frames a second, of a GIF at most 50.
        progress: True for a bar, or a function of the number of frames drawn since the last call.

    Raises:
        InputError: another suffix, data that do not fit the model, MP4 without the program ffmpeg.
    """
    path, frames = Path(file_name("path", path)), whole_number("frames", frames, 1)
    fps = real_number("fps", fps, above=0)
    check_movie_output(path, fps=fps, force=True)
    traj = check_cv(cv).as_trajectory(data)
    rows = evenly(len(traj), frames)
    if len(rows) < len(traj):
        log.info("the movie shows %d of %d frames, evenly spread", len(rows), len(traj))
    figure, draw = storyboard(cv, traj, rows)
    write = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
    with replacing(path) as temporary:
        write(temporary, figure, draw, len(rows), fps, progress or (lambda _: None))
    return len(rows)


def check_movie_output(path: Path, *, fps: float, force: bool = False) -> None:
    """Raise, before any work is done, where a movie cannot or must not be written."""
    check_output(path, force=force, suffixes=SUFFIXES)
    if fps < _SLOWEST:
        raise InputError(f"a movie shows at least {_SLOWEST:g} frames a second; got fps {fps:g}")
    if path.suffix.lower() == ".gif":
        if fps > _FASTEST:
            raise InputError(f"a GIF shows at most {_FASTEST} frames a second; got fps {fps:g}. Write an .mp4")
        return
    from matplotlib.animation import FFMpegWriter

    if not FFMpegWriter.isAvailable():
        raise InputError(
            f"{path}: an MP4 is made by the program ffmpeg, which is not here; install it or name a .gif"
        )


def storyboard(cv: LatentCV, traj: Trajectory, rows: np.ndarray):
    """The figure for a movie of frames (n,) of a trajectory in the model's unit, and what draws the k-th."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=_DOTS[".gif"])
    FigureCanvasAgg(figure)
    as_read, aligned, latent = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.056, right=0.99, bottom=0.13, top=0.92, wspace=0.22)
    for ax in (as_read, aligned, latent):
        ax.set_box_aspect(1)
        ax.locator_params(nbins=5)
    draws = [
        _drawn_as_read(as_read, traj, rows),
        _drawn_aligned(aligned, cv, traj, rows),
        _drawn_latent(latent, cv, traj, rows),
    ]

    def draw(k: int) -> None:
        for one in draws:
            one(k)

    return figure, draw


def _drawn_as_read(ax, traj: Trajectory, rows: np.ndarray) -> Callable[[int], None]:
    bonds, x = bonds_of(traj), traj.positions[rows].astype(np.float64)
    centre = x[..., :2].mean(axis=1)
    radius = ball_radius(x, bonds)
    reach = float(np.abs(x[..., :2] - centre[:, None]).max()) + 1.5 * radius
    views = followed(centre, _ROOM * reach)
    half = 1.02 * (1 + _ROOM) * reach
    times, unit = clock_of(traj.time, len(traj), traj.length_unit)
    clock = "frame {:,.0f}" if unit == "frame" else "{:,.6g} " + unit
    show = _one_chain(ax, bonds, radius)
    ax.set(xlabel=label_length("x", traj.length_unit), ylabel=label_length("y", traj.length_unit))
    ax.ticklabel_format(useOffset=False)
    ax.grid(color="#eceef1", linewidth=0.8)
    ax.set_axisbelow(True)

    def draw(k: int) -> None:
        show(x[k])
        x0, y0 = views[k] - half
        ax.set(xlim=(x0, x0 + 2 * half), ylim=(y0, y0 + 2 * half))
        ax.set_title("As read, " + clock.format(times[rows[k]]), loc="left")

    return draw


def followed(centre: np.ndarray, room: float) -> np.ndarray:
    """Middles (n, 2) of a view that stays where it is while the chain's centre (n, 2) is within `room` of it."""
    views = np.empty_like(centre)
    here = centre[0]
    for k, point in enumerate(centre):
        views[k] = here = np.clip(here, point - room, point + room)
    return views


def _drawn_aligned(ax, cv: LatentCV, traj: Trajectory, rows: np.ndarray) -> Callable[[int], None]:
    bonds, x = bonds_of(traj), cv.turn(traj.positions[rows]).astype(np.float64)
    radius = ball_radius(x, bonds)
    _square(ax, axis_limits(x - 1.5 * radius, x + 1.5 * radius))
    ax.set(xlabel=label_length("x", traj.length_unit), ylabel=label_length("y", traj.length_unit))
    ax.set_title(
        "Aligned to the " + ("reference" if isinstance(cv.featurizer, Reference) else "principal axes"), loc="left"
    )
    show = _one_chain(ax, bonds, radius)
    return lambda k: show(x[k])


def _square(ax, limits) -> None:
    """Limits as wide as high about the middle of ((x0, x1), (y0, y1))."""
    half = np.ptp(limits, axis=1).max() / 2
    for put, middle in zip((ax.set_xlim, ax.set_ylim), np.mean(limits, axis=1), strict=True):
        put(middle - half, middle + half)


def _one_chain(ax, bonds: np.ndarray, radius: float) -> Callable[[np.ndarray], None]:
    """Draws one conformation (n_beads, n_dims) in the place of the last."""

    def show(positions: np.ndarray) -> None:
        for last in list(ax.collections):
            last.remove()
        ax.add_collection(balls_and_sticks(positions, bonds, radius), autolim=False)

    return show


def _drawn_latent(ax, cv: LatentCV, traj: Trajectory, rows: np.ndarray) -> Callable[[int], None]:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb

    counts, weights = counting(traj)
    z = cv.encode(traj.positions)
    kl = mean_kl(cv, traj[counts], weights) if cv.latent_dim > 2 else None
    shown, note = to_show(z[counts], kl, weights)
    if len(shown) == 1:
        times, unit = clock_of(traj.time, len(traj), traj.length_unit)
        points = np.stack([times[rows], z[rows, 0]], axis=1)
        ax.plot(times[counts], z[counts, 0], ".", color="#c9cdd4", markersize=2.5, rasterized=True)
        ax.set(xlabel=unit if unit == "frame" else f"time ({unit})", ylabel="z0")
        ax.locator_params(axis="x", nbins=3)
    else:
        density_under(ax, z[counts][:, shown], weights)
        latent_plane(ax, z, shown, "")
        ax.set_aspect("auto")  # the box is a square, and so are its limits
        _square(ax, (ax.get_xlim(), ax.get_ylim()))
        points = z[rows][:, shown]
    ax.set_title(f"Latent{'s' * (len(shown) > 1)}{note}", loc="left")
    piece = np.searchsorted(np.cumsum(traj.segments), rows, side="right")
    trail = ax.add_collection(LineCollection([], linewidth=1.8, capstyle="round", zorder=4), autolim=False)
    color = to_rgb(MODEL)
    (dot,) = ax.plot([], [], "o", color=MODEL, markersize=8, markeredgecolor="white", zorder=5)

    def draw(k: int) -> None:
        steps = np.arange(max(0, k - _TRAIL), k)
        steps = steps[piece[steps] == piece[steps + 1]]
        trail.set_segments(list(np.stack([points[steps], points[steps + 1]], axis=1)))
        fading = ((steps - k + _TRAIL + 1) / (_TRAIL + 1)) ** 1.5
        trail.set_color([(*color, alpha) for alpha in fading])
        dot.set_data(*points[k][:, None])

    return draw


def _write_gif(path: Path, figure, draw, n: int, fps: float, progress) -> None:
    from PIL import Image

    def picture(k: int) -> Image.Image:
        draw(k)
        figure.canvas.draw()
        return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())

    # One table of colours for all frames, which then differ where something moved alone.
    some = [np.asarray(picture(k)) for k in evenly(n, 6)]
    palette = Image.fromarray(np.concatenate(some)).quantize(255, dither=Image.Dither.NONE)
    colors = np.array(palette.getpalette()).reshape(-1, 3)
    colors[colors.min(axis=1) >= 246] = 255  # paper is white; pillow looks colours up in boxes of eight
    palette.putpalette(colors.ravel().tolist())

    def pictures() -> Iterator[Image.Image]:
        for k in range(n):
            yield picture(k).quantize(palette=palette, dither=Image.Dither.NONE)
            progress(1)

    rest = pictures()
    first = next(rest)
    hundredths = max(1, round(100 / fps))
    with path.open("wb") as file:
        first.save(file, format="GIF", save_all=True, append_images=rest, duration=10 * hundredths, loop=0)


def _write_mp4(path: Path, figure, draw, n: int, fps: float, progress) -> None:
    from matplotlib.animation import FFMpegWriter

    writer = FFMpegWriter(
        fps=fps,  # type: ignore[arg-type]  # ffmpeg takes fractions
        codec="h264",
        extra_args=["-pix_fmt", "yuv420p", "-crf", "18"],
    )
    try:
        with writer.saving(figure, path, _DOTS[".mp4"]):
            for k in range(n):
                draw(k)
                writer.grab_frame()
                progress(1)
    except (subprocess.CalledProcessError, BrokenPipeError) as error:
        raise InputError(f"{path}: ffmpeg could not write the movie ({error}); name a .gif") from None

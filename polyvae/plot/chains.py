"""Pictures of conformations: overlays of ensembles, ball and stick."""

from collections.abc import Sequence

import numpy as np

from polyvae import geometry
from polyvae.core.units import LENGTHS
from polyvae.plot.style import (
    ALONG,
    axis_limits,
    canvas,
    color_key,
    digits,
    evenly,
    label_length,
    styled,
)
from polyvae.tasks.optimum import Optimum
from polyvae.trajectory.record import chain_bonds

_BALLS = 1000  # beads that are drawn as balls
_STICKS = 100_000  # bonds that an overlay draws


@styled
def overlay(
    positions: np.ndarray,
    *,
    bonds: np.ndarray | None = None,
    length_unit: str = "sigma",
    title: str = "Aligned frames",
    limits=None,
    max_frames: int = 600,
    weights: np.ndarray | None = None,
    alpha: float | None = None,
    colorbar: bool = True,
    ax=None,
):
    """All conformations over each other, each bond coloured by its place along the chain.

    Args:
        positions: (n_frames, n_beads, n_dims), aligned (`cv.align`); in 3-D the first two axes are shown.
        limits: ((x0, x1), (y0, y1)), by default those that hold every frame.
        max_frames: more frames than this, or than make 100,000 bonds, are thinned evenly, and the title says so.
        weights: (n_frames,); a frame is then drawn as often as its weight says.
        alpha: opacity of the lines, by default from their density.
        colorbar: with a key to the colours.
        bonds: (n_bonds, 2) bead numbers; by default neighbours along the chain.
        length_unit: of the lengths: "nm", "angstrom" or "sigma".
        title: of the axes.
        ax: matplotlib axes to draw into; by default those of a new figure.

    Returns:
        The axes, with one `LineCollection`.
    """
    from matplotlib.collections import LineCollection

    (x0, x1), (y0, y1) = limits or axis_limits(positions)
    (ax,) = canvas(ax, 1, 1, (7.2, 6.2 * (y1 - y0) / (x1 - x0) + 0.8))
    n_frames, n_beads, n_dims = positions.shape
    bonds = bonds_or_chain(bonds, n_beads)
    chosen = evenly(n_frames, min(max_frames, max(1, _STICKS // len(bonds))), weights)
    sticks = positions[chosen][:, bonds, :2].reshape(-1, 2, 2)

    width = 0.9
    ax.set(xlim=(x0, x1), ylim=(y0, y1), aspect="equal")
    alpha = alpha or _line_alpha(sticks * _points_per_length(ax), width)
    colors = _chain_map()(np.linspace(0, 1, n_beads))[:, :3]
    lines = LineCollection(sticks, colors=np.tile(colors[bonds].mean(axis=1), (len(chosen), 1)))
    lines.set(linewidth=width, alpha=alpha, capstyle="round", rasterized=True)
    ax.add_collection(lines)
    if colorbar:
        _bead_key(ax, n_beads)
    ax.set(xlabel=label_length("x in the aligned frame", length_unit), ylabel=label_length("y", length_unit))
    shown = f"{n_frames:,} frames" if len(chosen) == n_frames else f"{len(chosen):,} of {n_frames:,} frames"
    shown += "" if weights is None else " by weight"
    ax.set_title(f"{title}: {shown}" + (", first two of three axes" if n_dims == 3 else ""))
    return ax


@styled
def side_by_side(
    data: np.ndarray,
    generated: np.ndarray,
    *,
    bonds: np.ndarray | None = None,
    length_unit: str = "sigma",
    max_frames: int = 600,
    weights: np.ndarray | None = None,
    axes=None,
):
    """Overlays of the data, by weights (n_frames,) if any, and of generated conformations, both aligned, with the
    same limits; two axes.

    Args:
        data: (n_frames, n_beads, n_dims).
        generated: the same.
        bonds: (n_bonds, 2) bead numbers; by default neighbours along the chain.
        length_unit: of the lengths: "nm", "angstrom" or "sigma".
        max_frames: more frames than this are thinned evenly.
        weights: (n_frames,) of the data, if any.
        axes: two of them; by default those of a new figure.
    """
    limits = axis_limits(data, generated)
    ratio = (limits[1][1] - limits[1][0]) / (limits[0][1] - limits[0][0])
    axes = canvas(axes, 1, 2, (9.2, 4.1 * ratio + 0.8), sharex=True, sharey=True)
    n, alpha = min(len(data), len(generated), max_frames), None
    options = {"bonds": bonds, "length_unit": length_unit, "limits": limits, "max_frames": n, "colorbar": False}
    for ax, positions, title, shares in zip(
        axes, (data, generated), ("Data", "Generated"), (weights, None), strict=True
    ):
        overlay(positions, title=title, weights=shares, alpha=alpha, ax=ax, **options)
        alpha = ax.collections[0].get_alpha()  # one opacity, so that one grey is one density
        ax.set_title(ax.get_title(loc="left").split(", first")[0])
    axes[1].set_ylabel("")
    _bead_key(list(axes), data.shape[1])
    return axes


def bonds_or_chain(bonds: np.ndarray | None, n_beads: int) -> np.ndarray:
    """Bonds (n_bonds, 2); those of a chain where none are known."""
    return chain_bonds(n_beads) if bonds is None or not len(bonds) else np.asarray(bonds)


def _chain_map():
    """Colours from the first bead to the last; the pale end of the map is left out."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    return ListedColormap(matplotlib.colormaps[ALONG](np.linspace(0, 0.92, 256)))


def _bead_key(axes, n_beads: int) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    beads = ScalarMappable(Normalize(0, max(n_beads - 1, 1)), _chain_map())
    color_key(beads, axes, "bead").set_ticks([0, max(n_beads - 1, 1)])


def _points_per_length(ax) -> float:
    """Size of the data's length unit on the page, before the layout has its last word."""
    box = ax.get_window_extent()
    return float(72 / ax.figure.dpi * min(box.width / np.ptp(ax.get_xlim()), box.height / np.ptp(ax.get_ylim())))


def _line_alpha(sticks: np.ndarray, width: float) -> float:
    """Opacity at which a typical spot of these lines, all in points, is 80 % covered."""
    middle = sticks.mean(axis=1)
    x, y = middle.T
    counts, xs, ys = np.histogram2d(x, y, bins=40)
    cell = (xs[1] - xs[0]) * (ys[1] - ys[0])
    typical = (counts**2).sum() / counts.sum()  # lines in the cell of a line picked at random
    length = np.linalg.norm(sticks[:, 1] - sticks[:, 0], axis=1).mean()
    layers = typical * length * width / max(cell, 1e-12)
    return float(np.clip(1 - 0.2 ** (1 / max(layers, 1e-12)), 0.02, 0.8))


@styled
def structure(
    positions: np.ndarray,
    *,
    bonds: np.ndarray | None = None,
    length_unit: str = "sigma",
    title: str | None = None,
    limits=None,
    radius: float | None = None,
    ax=None,
):
    """One conformation, ball and stick, beads coloured along the chain and the ends numbered.

    A 3-D chain is seen along its third axis: nearer beads cover farther ones, and farther ones fade. More than
    1,000 beads are too many for a page; then the bonds are drawn as lines.

    Args:
        positions: (n_beads, n_dims).
        radius: of the balls, in the length unit; by default a sixth of the mean bond.
        bonds: (n_bonds, 2) bead numbers; by default neighbours along the chain.
        length_unit: of the lengths: "nm", "angstrom" or "sigma".
        title: of the axes.
        limits: ((x0, x1), (y0, y1)) of the axes.
        ax: matplotlib axes to draw into; by default those of a new figure.

    Returns:
        The axes, with one `PatchCollection` of balls and half bonds in the order of their depth, or one
        `LineCollection` of bonds.
    """
    (ax,) = canvas(ax, 1, 1, (5.0, 4.2))
    positions = np.asarray(positions, float)
    n_beads = len(positions)
    bonds = bonds_or_chain(bonds, n_beads)
    if radius is None:
        radius = ball_radius(positions, bonds)
    flat = positions[:, :2]
    ax.add_collection(balls_and_sticks(positions, bonds, radius))
    (x0, x1), (y0, y1) = limits or axis_limits(np.concatenate([flat - 1.5 * radius, flat + 1.5 * radius]))
    ax.set(xlim=(x0, x1), ylim=(y0, y1), aspect="equal")
    ax.set(xlabel=label_length("x", length_unit), ylabel=label_length("y", length_unit))
    _number_ends(ax, flat, radius)
    if title:
        ax.set_title(title)
    return ax


def _number_ends(ax, flat: np.ndarray, radius: float) -> None:
    from matplotlib import patheffects

    n_beads = len(flat)
    points = _points_per_length(ax) * radius
    for end, inner in {0: 1, n_beads - 1: n_beads - 2}.items():
        away = flat[end] - flat[inner] if n_beads > 1 else np.zeros(2)
        away = away / (np.linalg.norm(away) or 1.0) * (0 if points > 7 else points + 6)
        text = ax.annotate(str(end), flat[end], away, textcoords="offset points", ha="center", va="center")
        text.set(fontsize="small", fontweight="bold")
        text.set_path_effects([patheffects.withStroke(linewidth=2.2, foreground="white")])


def balls_and_sticks(positions: np.ndarray, bonds: np.ndarray, radius: float):
    """One conformation as a collection: balls and half bonds in the order of their depth, the far ones pale, or of
    more than 1,000 beads the bonds as lines."""
    from matplotlib.collections import LineCollection, PatchCollection
    from matplotlib.patches import Circle, Patch, Polygon

    n_beads, n_dims = positions.shape
    flat, depth = positions[:, :2], positions[:, 2] if n_dims == 3 else np.zeros(n_beads)
    near = (depth - depth.min()) / (np.ptp(depth) or 1.0) if n_dims == 3 else np.ones(n_beads)
    colors = _chain_map()(np.linspace(0, 1, n_beads))[:, :3]
    colors = colors + (0.55 * (1 - near))[:, None] * (1 - colors)

    if n_beads > _BALLS:
        back = bonds[np.argsort(depth[bonds].mean(axis=1))]
        return LineCollection(list(flat[back]), colors=colors[back].mean(axis=1), linewidths=0.9)
    # (depth, order among equals), patch, face, edge
    parts: list[tuple[tuple[float, int], Patch, np.ndarray, np.ndarray]] = []
    for i, j in bonds:
        step = positions[j] - positions[i]
        length = float(np.linalg.norm(step))
        if length <= 1.9 * radius:
            continue  # the balls touch
        middle = (positions[i] + positions[j]) / 2
        side = 0.35 * radius * np.array([-step[1], step[0]]) / (np.linalg.norm(step[:2]) or 1.0)
        for end, sign in ((i, 1), (j, -1)):
            # A stick begins where it leaves the ball, which it covers only if it points at the viewer.
            start = positions[end] + sign * 0.9 * radius * step / length
            corners = [start[:2] + side, middle[:2] + side, middle[:2] - side, start[:2] - side]
            level = (start[2] + middle[2]) / 2 if n_dims == 3 else -1.0
            parts.append(((level, 0), Polygon(corners), 0.8 * colors[end], 0.8 * colors[end]))
    for k in range(n_beads):
        parts.append(((depth[k], 2 * k), Circle(flat[k], radius), colors[k], 0.55 * colors[k] + 0.1))
        glint = Circle(flat[k] + radius * np.array([-0.3, 0.35]), 0.28 * radius)
        pale = colors[k] + 0.45 * (1 - colors[k])
        parts.append(((depth[k], 2 * k + 1), glint, pale, pale))
    parts.sort(key=lambda part: part[0])
    _, patches, faces, edges = zip(*parts, strict=True)
    return PatchCollection(patches, facecolors=faces, edgecolors=edges, linewidths=0.6)


@styled
def structures(
    positions: Sequence[np.ndarray],
    titles: Sequence[str],
    *,
    bonds: np.ndarray | None = None,
    length_unit: str = "sigma",
    axes=None,
):
    """Conformations (n_beads, n_dims) beside each other, ball and stick, on one scale; one axes for each.

    Args:
        positions: conformations, (n_beads, n_dims) each.
        titles: one for each.
        bonds: (n_bonds, 2) bead numbers; by default neighbours along the chain.
        length_unit: of the lengths: "nm", "angstrom" or "sigma".
        axes: one for each; by default those of a new figure.
    """
    positions = [np.asarray(p, float) for p in positions]
    n_beads = positions[0].shape[0]
    bonds = bonds_or_chain(bonds, n_beads)
    radius = ball_radius(np.stack(positions), bonds)
    limits = axis_limits(*[p[:, :2] + s * 2.5 * radius for p in positions for s in (-1, 1)])
    ratio = (limits[1][1] - limits[1][0]) / (limits[0][1] - limits[0][0])
    width = 9.0 / len(positions)
    axes = canvas(
        axes,
        1,
        len(positions),
        (9.0, (width - 0.35) * ratio + 0.75 + 0.2 * max(t.count("\n") + 1 for t in titles)),
        sharex=True,
        sharey=True,
    )
    for ax, x, title in zip(axes, positions, titles, strict=True):
        structure(x, bonds=bonds, length_unit=length_unit, title=title, limits=limits, radius=radius, ax=ax)
        if ax is not axes[0]:
            ax.set_ylabel("")
    return axes


def ball_radius(positions: np.ndarray, bonds: np.ndarray) -> float:
    lengths = np.linalg.norm(positions[..., bonds[:, 0], :] - positions[..., bonds[:, 1], :], axis=-1)
    return float(lengths.mean() if lengths.size else 0.0) / 6 or 1.0


@styled
def optimum_structures(optimum: Optimum, *, axes=None):
    """The optimised conformation beside the data's most extreme frame, both in their principal frame; two axes.

    The titles give the radius of gyration, the shortest bond and the closest pair of each.

    Args:
        optimum: of `polyvae.optimize`.
        axes: two of them; by default those of a new figure.
    """
    import jax

    in_own_frame = jax.jit(lambda x: geometry.center(x) @ geometry.principal_frame(x).T)
    numbers = optimum.summary()
    unit = LENGTHS[optimum.structure.length_unit].symbol
    shapes, titles = [], []
    for name, traj, key in (
        ("Optimised", optimum.structure, "optimized"),
        ("Data, most extreme frame", optimum.extreme, "data_extreme"),
    ):
        shapes.append(np.asarray(in_own_frame(traj.positions[0])))
        n = numbers[key]
        titles.append(
            f"{name}: Rg {digits(n['rg'])} {unit}\n"
            f"shortest bond {digits(n['shortest_bond'])}, closest pair {digits(n['closest_pair'])} {unit}"
        )
    bonds, length_unit = optimum.limits.bonds, optimum.structure.length_unit
    return structures(shapes, titles, bonds=bonds, length_unit=length_unit, axes=axes)

"""Units, colours, text and axes (new ones or the caller's) of all pictures."""

import functools
import math
import os
import sys
from pathlib import Path

import numpy as np

from polyvae.arguments import one_of
from polyvae.core.units import LENGTHS
from polyvae.files import replacing
from polyvae.measures.weights import drawn_evenly

# Blue and vermilion stay apart for every kind of colour vision; so do all steps of the two maps.
DATA, MODEL, NEUTRAL = "#2b6a99", "#d1602b", "#6b7280"
ALONG = "viridis"  # along the chain, along time
VALUE = "plasma"  # a quantity of the conformation
STYLE = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.edgecolor": "#4b5563",
    "axes.labelcolor": "#1f2937",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#4b5563",
    "ytick.color": "#4b5563",
    "text.color": "#1f2937",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.titlesize": 11,
}


def styled(function):
    """Draw in this module's style, unless the caller brought axes and with them a style of their own."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        import matplotlib

        given = kwargs.get("ax") is not None or kwargs.get("axes") is not None
        with matplotlib.rc_context(None if given else STYLE):
            return function(*args, **kwargs)

    return wrapped


def canvas(axes, rows: int, columns: int, size: tuple[float, float], **options) -> np.ndarray:
    """The caller's axes as a flat array, checked for their number, or those of a new figure."""
    if axes is None:
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        # With several rows, a title needs room below the label above it.
        layout = ConstrainedLayoutEngine(h_pad=0.04 if rows == 1 else 0.07)
        figure = _figure_class()(figsize=size, dpi=150, layout=layout)
        return np.ravel(figure.subplots(rows, columns, squeeze=False, **options))
    axes = np.ravel(np.asarray(axes, dtype=object))
    if len(axes) < rows * columns:
        raise ValueError(f"this picture needs {rows * columns} axes; got {len(axes)}")
    return axes[: rows * columns]


def _figure_class():
    """Return what makes a figure: pyplot in a notebook, which shows it; elsewhere pyplot might open windows."""
    if "ipykernel" in sys.modules:
        from matplotlib import pyplot

        return pyplot.figure
    from matplotlib.figure import Figure

    return Figure


# Metadata to leave out: date and software would make the files of two runs differ.
FORMATS = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


def save(axes, path: str | os.PathLike) -> Path:
    """Write the figure of some axes as PNG, PDF or SVG by the suffix of `path`, the same bytes each time.

    A figure that pyplot knows of is closed.
    """
    import matplotlib

    figure, path = np.ravel(np.asarray(axes, dtype=object))[0].figure, Path(path)
    kind = one_of("the format of a figure", path.suffix[1:].lower(), tuple(FORMATS))
    dots = 150 if kind == "png" else 300  # of what a vector format holds as pixels
    with replacing(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "polyvae", "pdf.fonttype": 42}):
        figure.savefig(temporary, dpi=dots, facecolor="white", metadata=FORMATS[kind])
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close(figure)  # a notebook would show it as well
    return path


def color_key(mappable, axes, label: str):
    """A slim colour bar beside axes, with its label."""
    figure = np.ravel(np.asarray(axes, dtype=object))[0].figure
    bar = figure.colorbar(mappable, ax=axes, label=label, shrink=0.72, aspect=32, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2.5)
    return bar


def label_length(name: str, length_unit: str) -> str:
    return f"{name} ({LENGTHS[length_unit].symbol})"


def digits(value: float) -> str:
    """Three significant digits without an exponent."""
    places = 2 - int(f"{value:.2e}".split("e")[1]) if math.isfinite(value) else 0
    return f"{value:.{min(max(places, 0), 6)}f}"


def evenly(n: int, at_most: int, weights: np.ndarray | None = None) -> np.ndarray:
    """At most `at_most` indices below n, evenly spread from the first to the last; with weights (n,) each as often
    as its weight says."""
    if weights is not None:
        return drawn_evenly(weights, min(n, at_most))
    return np.arange(n) if n <= at_most else np.linspace(0, n - 1, at_most).round().astype(int)


def axis_limits(*positions: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """x and y limits that hold all positions (..., n_dims) with a margin, and are never narrower than flat."""
    low = np.min([p[..., :2].min(axis=tuple(range(p.ndim - 1))) for p in positions], axis=0)
    high = np.max([p[..., :2].max(axis=tuple(range(p.ndim - 1))) for p in positions], axis=0)
    center, half = (low + high) / 2, (high - low) / 2
    half = np.maximum(half, 0.35 * half.max()) * 1.04
    half = np.where(half > 0, half, 1.0)
    (x0, y0), (x1, y1) = (center - half).tolist(), (center + half).tolist()
    return (x0, x1), (y0, y1)

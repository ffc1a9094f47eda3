"""What the examples share: where the data lie, `--quick` and `--out FOLDER`, and the look of the pictures."""

import sys
from pathlib import Path

import matplotlib
from PIL import Image

DATA = Path(__file__).resolve().parent.parent / "data"
QUICK = "--quick" in sys.argv  # a short form that shows how it goes; its numbers are not converged
OUT = Path(sys.argv[sys.argv.index("--out") + 1] if "--out" in sys.argv else ".")

# Blue and vermilion stay apart for every kind of colour vision.
BLUE, ORANGE, GREY, INK = "#2b6a99", "#d1602b", "#6b7280", "#111827"
DASHED = (0, (4, 3))

matplotlib.rcParams.update(
    {
        "figure.dpi": 110,
        "figure.constrained_layout.use": True,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#4b5563",
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": "#4b5563",
        "ytick.color": "#4b5563",
        "legend.frameon": False,
        "legend.fontsize": 9,
    }
)

if QUICK:
    print("--quick: little data and little training; the numbers show the way, not the result")


def save(figure, name: str, at_most: int = 199_000) -> None:
    """Write a figure as NAME.png, in 256 colours where it would be larger than `at_most` bytes, and say where."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{name}.png"
    figure.savefig(path, pil_kwargs={"optimize": True})
    if path.stat().st_size > at_most:
        with Image.open(path) as image:
            full = image.convert("RGB")
        few = full.quantize(palette=full.quantize(256, kmeans=1), dither=Image.Dither.FLOYDSTEINBERG)
        colors, paper = few.getpalette(), 3 * few.getpixel((0, 0))
        colors[paper : paper + 3] = 255, 255, 255  # the mean of many whites is none
        few.putpalette(colors)
        few.save(path, optimize=True)
    print(path)

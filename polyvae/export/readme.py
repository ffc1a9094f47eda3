"""README.md of an export, from a template of its engine."""

import re
import textwrap
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.cv.latent import LatentCV
from polyvae.export.common import encoder_layers, featurizer_name, ranges
from polyvae.export.exporter import Export, fill_template
from polyvae.export.steepness import describe_steepness

_WIDTH = 110  # characters of a line
_COLUMNS = ("mean", "std", "basin", "min", "max")
_HEAD = """| | mean | standard deviation | within the narrowest basin | smallest | largest |
|---|---|---|---|---|---|"""
_CHECK = (
    "`polyvae export MODEL --to {} --out DIR --check TRAJ` evaluates the exported files in the engine on frames "
    "of a trajectory and prints the largest difference from the model, in values and in gradients. Or let the "
    "engine print the latents of a run, and compare with `polyvae project MODEL TRAJ` of the frames that it wrote."
)


def write_readme(
    place: Path,
    to: str,
    export: Export,
    words: Mapping[str, object],
    *,
    width: np.ndarray | None = None,
    first: int = 1,
    unit: str | None = None,
    blocks: Mapping[str, str] | None = None,
) -> None:
    """Write README.md from `templates/TO.md.in`, without the lines on files that are not in the folder.

    Args:
        place: the folder, with all other files.
        to: name of the engine.
        export: what is exported.
        words: texts for the template, each put on one line.
        width: (latent_dim,) of the kernels of a bias, or None where the export sets none.
        first: the number that the engine gives to its first atom.
        unit: the engine's length unit; by default the model's.
        blocks: texts of several lines.
    """
    cv, unit = export.cv, unit or export.cv.length_unit
    reduced = " (reduced units)" if unit == "sigma" else ""
    kind = to if export.dialect is None else f"{to} --dialect {export.dialect}"
    texts = {
        "what": _describe(cv),
        "unit": unit,
        "units": f"Lengths are in {unit}{reduced}; the latents have no unit. Beads 1 to {cv.n_beads} of the model "
        f"are the engine's atoms {ranges(export.atoms)}, counted from {first} in the order of the engine's input.",
        "steepness": describe_steepness(cv, export.slopes, width),
        "check": _CHECK.format(kind),
    }
    # A name in a text, of a file or from one, must not begin a line of Markdown.
    plain = {name: " ".join(str(text).splitlines()) for name, text in (texts | dict(words)).items()}
    statistics = "" if export.stats is None else _table(export.stats)
    text = fill_template(f"{to}.md.in", plain | {"statistics": statistics} | dict(blocks or {}))
    (place / "README.md").write_text("\n".join(_wrapped(text, place)) + "\n")


def _wrapped(text: str, place: Path) -> list[str]:
    """Return the lines of a README, long ones outside code wrapped."""
    lines: list[str] = []
    in_code = False
    for line in text.splitlines():
        in_code ^= line.startswith("```")
        named = re.match(r"- `([\w.]+)`: ", line)
        if named and not (place / named[1]).exists():
            continue
        if in_code or len(line) <= _WIDTH:
            lines.append(line)
            continue
        indent = "  " if line.startswith("- ") else ""
        lines.append(wrap_text(line, indent))
    return lines


def wrap_text(text: str, indent: str = "") -> str:
    """Break a text into lines of a README; `indent` begins all but the first."""
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False, subsequent_indent=indent)


def _describe(cv: LatentCV) -> str:
    latents = ", ".join(f"z{k}" for k in range(cv.latent_dim))
    widths = " -> ".join(str(width) for width in (cv.mean.size, *(len(bias) for _, bias in encoder_layers(cv))))
    text = (
        f"{latents}: the encoder's mean of a polyvae model of {cv.n_beads} beads in {cv.n_dims}-D, "
        f"`{featurizer_name(cv)}`, network {widths} with tanh. Exported by polyvae {metadata.version('polyvae')}"
    )
    digest = cv.record.data.sha256[:16]
    if re.fullmatch(r"[0-9a-f]{16}", digest):  # a model file may hold any text there
        text += f" from a model of data sha256 {digest}"
    return f"{text}."


def _table(stats: dict[str, Any]) -> str:
    """Return statistics of each latent as a table of Markdown."""
    rows = [f"Statistics of the {int(stats['n_frames'])} frames given:\n", _HEAD]
    for k in range(len(stats["mean"])):
        cells = " | ".join(f"{stats[name][k]:.4g}" for name in _COLUMNS)
        rows.append(f"| z{k} | {cells} |")
    return "\n".join(rows) + "\n\n"

"""README.md of an export, from a template."""

import dataclasses
import re
import textwrap
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from polyvae.cv.latent import LatentCV
from polyvae.export.common import encoder_layers, featurizer_name, ranges
from polyvae.export.steepness import describe_steepness

_COLUMNS = ("mean", "std", "basin", "min", "max")
_HEAD = """| | mean | standard deviation | within the narrowest basin | smallest | largest |
|---|---|---|---|---|---|"""


@dataclasses.dataclass(frozen=True)
class Readme:
    """README.md of an export: the model, its units and atoms, how to use and to check it.

    Args:
        engine: name of the engine, for the title.
        kind: the word after `--to`, with its options.
        atoms: the engine's numbers of the beads.
        files: what each file in the folder is.
        use: how to use them, in Markdown.
        notes: sentences on details, one item each.
        checked: versions that the export was checked with.
        stats: see `grid_bias.statistics`, or None.
        width: (latent_dim,) of the kernels of a bias, or None where the export sets none.
        unit: the engine's length unit; by default the model's.
        first: the number that the engine gives to its first atom.
        check: how to check the export, where that is not by the engine.
    """

    engine: str
    kind: str
    atoms: Sequence[int]
    files: dict[str, str]
    use: str
    notes: Sequence[str]
    checked: str
    stats: dict[str, Any] | None
    width: np.ndarray | None = None
    unit: str | None = None
    first: int = 1
    check: str | None = None

    def write(self, folder: Path, cv: LatentCV) -> None:
        """Write README.md.

        Args:
            folder: where to.
            cv: the model that is exported.
        """
        unit = self.unit or cv.length_unit
        reduced = " (reduced units)" if unit == "sigma" else ""
        check = self.check or (
            f"`polyvae export MODEL --to {self.kind} --out DIR --check TRAJ` evaluates the exported files in the "
            "engine on frames of a trajectory and prints the largest difference from the model, in values and in "
            "gradients. Or let the engine print the latents of a run, and compare with `polyvae project MODEL "
            "TRAJ` of the frames that it wrote."
        )
        slopes = cv.record.slopes if self.stats is None else self.stats["slopes"]
        notes = [*self.notes, describe_steepness(cv, slopes, self.width)]
        text = {
            "engine": self.engine,
            "what": filled(_describe(cv)),
            "files": "\n".join(f"- `{name}`: {words}" for name, words in self.files.items()),
            "units": filled(
                f"Lengths are in {unit}{reduced}; the latents have no unit. Beads 1 to {cv.n_beads} of the model "
                f"are the engine's atoms {ranges(self.atoms)}, counted from {self.first} in the order of the "
                f"engine's input."
            ),
            "use": self.use,
            "notes": "\n\n".join(filled(f"- {plain(note)}", indent="  ") for note in notes),
            "statistics": "" if self.stats is None else _table(self.stats),
            "check": filled(check),
            "checked": f"Checked with {self.checked}.",
        }
        template = resources.files("polyvae.export") / "readme_files" / "README.md.in"
        (folder / "README.md").write_text(Template(template.read_text()).substitute(text))


def plain(text: str) -> str:
    """Return a text on one line, so that a name in it, of a file or from one, cannot begin a line of Markdown."""
    return " ".join(text.split())


def filled(text: str, indent: str = "") -> str:
    """Break a text into lines of a README; `indent` begins all but the first."""
    return textwrap.fill(text, width=110, break_long_words=False, break_on_hyphens=False, subsequent_indent=indent)


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
    """Statistics of each latent as a table of Markdown."""
    rows = [f"Statistics of the {int(stats['n_frames'])} frames given:\n", _HEAD]
    for k in range(len(stats["mean"])):
        cells = " | ".join(f"{stats[name][k]:.4g}" for name in _COLUMNS)
        rows.append(f"| z{k} | {cells} |")
    return "\n".join(rows) + "\n\n"

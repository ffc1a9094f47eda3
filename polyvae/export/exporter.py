"""Parts that all exporters share: the record of an export, the protocol of an engine's module, and templates."""

import dataclasses
import os
from collections.abc import Collection, Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, Protocol

import numpy as np

from polyvae.cv.latent import LatentCV
from polyvae.vae.settings import Slopes


@dataclasses.dataclass(frozen=True)
class Export:
    """One export of a model to an engine, as `polyvae.export.write` makes it.

    Args:
        cv: the model of the latents that are exported.
        atoms: (n_beads,) the engine's numbers of the beads.
        stats: see `grid_bias.statistics`; None without data.
        folder: where the files are once all are written.
        dialect, sigma, bias: options of some exporters, each None where it is not given.
    """

    cv: LatentCV
    atoms: list[int]
    stats: dict[str, Any] | None
    folder: Path
    dialect: str | None = None
    sigma: float | None = None
    bias: str | None = None

    @property
    def slopes(self) -> Slopes | None:
        """Slopes of the latents over the data; without data over those of the training, where they are known."""
        return self.cv.record.slopes if self.stats is None else self.stats["slopes"]


class Exporter(Protocol):
    """A module that exports to one engine.

    Attributes:
        FIRST_ATOM: the number that the engine gives to its first atom.
        OPTIONS: options of `Export` that it takes, each with the words that are known; None for any value.
    """

    FIRST_ATOM: int
    OPTIONS: Mapping[str, Collection[str] | None]

    def write_files(self, export: Export, place: Path) -> None:
        """Write all files of an `export` into the folder `place`.

        Raises:
            InputError: what the engine cannot do.
        """

    def evaluate(
        self, folder: str | os.PathLike, cv: LatentCV, frames: np.ndarray, *, atoms: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the engine's latents (n_frames, latent_dim) and gradients, with (n_beads, n_dims) behind these.

        Args:
            folder: the folder of an export.
            cv: the model that was exported.
            frames: (n_frames, n_beads, n_dims) in the model's unit.
            atoms: numbers of the beads, as the engine counts them.

        Raises:
            InputError: the engine is not installed.
        """


def fill_template(name: str, words: Mapping[str, object]) -> str:
    """Return the text of a file in `templates` with words in the places of its $names."""
    text = (resources.files("polyvae.export") / "templates" / name).read_text()
    return Template(text).substitute(words)


def rounded(values: np.ndarray, digits: int) -> list[float]:
    """Return numbers rounded to some significant digits, as a script lists them."""
    return [float(f"{value:.{digits}g}") for value in values]

"""The latent coordinates as collective variables of PySAGES, which runs JAX functions inside HOOMD-blue, LAMMPS,
OpenMM, ASE and JAX MD.

Source: the base class of collective variables in PySAGES, `pysages.colvars.core` (github.com/SSAGESLabs/PySAGES).
For code of one's own in JAX nothing is needed: `cv` is a pure function of the positions.
"""

import os
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from polyvae.cv.latent import LatentCV, load_cv
from polyvae.errors import InputError
from polyvae.export.common import particle_numbers
from polyvae.export.exporter import Export, fill_template, rounded
from polyvae.export.grid_bias import bias_grid, check_bias
from polyvae.export.particles import length_factor
from polyvae.export.readme import write_readme

FIRST_ATOM = 0
OPTIONS: dict[str, None] = {}


def latent_cvs(
    cv: LatentCV,
    particles: Sequence[int],
    *,
    length_unit: str,
    n_particles: int | None = None,
    sigma: float | None = None,
) -> list:
    """One PySAGES `CollectiveVariable` for each latent coordinate, for any of its sampling methods.

    `function` of each takes the positions of the particles, (n_beads, 3), and gives a scalar. PySAGES computes
    in float64. Molecules must be whole: PySAGES unwraps positions by the image flags of HOOMD-blue and LAMMPS, and
    OpenMM's positions are not wrapped unless a run was started from wrapped ones.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        particles: (n_beads,) numbers from 0, in the order of the model's beads. A 2-D model ignores z.
        length_unit: unit of the engine that PySAGES drives: "nm" (OpenMM), "angstrom" (ASE, LAMMPS in real or
            metal units), or "sigma" (HOOMD-blue and LAMMPS in reduced units).
        n_particles: particles in the system, to check the numbers against.
        sigma: length of one sigma in the engine's unit, for a model in reduced units if the engine has units.

    Raises:
        InputError: a model without coordinates; particles of the wrong count, repeated or out of range; units
            that cannot be related; no PySAGES.
    """
    try:
        from pysages.colvars.core import CollectiveVariable
    except ImportError:
        raise InputError(
            "this needs PySAGES, which is not installed, nor on the package index: "
            "pip install git+https://github.com/SSAGESLabs/PySAGES.git"
        ) from None
    numbers = particle_numbers(cv, particles, n_particles)
    factor = length_factor(cv, length_unit, sigma)
    latents = cv.function()

    class Latent(CollectiveVariable):
        def __init__(self, index: int):
            super().__init__(numbers)
            self.index = index

        @property
        def function(self):
            return lambda rs: latents.posterior(factor * rs[:, : cv.n_dims])[0][self.index]

    return [Latent(k) for k in range(cv.latent_dim)]


def write_files(export: Export, place: Path) -> None:
    """Write the model, a biased run as a Python script, and a README.

    The script runs as it is, on a bead-spring chain in ASE, until the user's simulation takes its place. Widths
    and bounds come from data; without data they are those of a standard normal.
    """
    cv, whence = export.cv, "the frames given"
    stats = export.stats
    if stats is None:
        # Latents of a trained model are spread much like the prior.
        prior = {"std": 1.0, "basin": 1.0, "min": -2.0, "max": 2.0}
        stats = {name: np.full(cv.latent_dim, value) for name, value in prior.items()}
        whence = "a standard normal"
    grid = bias_grid(stats)
    check_bias(cv, export.stats, without=grid["sigma"])
    words = {
        "particles": export.atoms,
        "sigma": 1.0 if cv.length_unit == "sigma" else None,
        "bins": grid["bins"].tolist(),
        "low": rounded(grid["low"], 6),
        "high": rounded(grid["high"], 6),
        "width": rounded(grid["sigma"], 6),
    }
    cv.save(place / "model.safetensors")
    (place / "biased_run.py").write_text(fill_template("pysages.py.in", words))
    write_readme(place, "pysages", export, {"whence": whence}, width=grid["sigma"], first=0)


def evaluate(
    folder: str | os.PathLike, cv: LatentCV, frames: np.ndarray, *, atoms: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return latents and gradients in PySAGES of the exported model; see `exporter.Exporter.evaluate`.

    Importing PySAGES sets JAX to double precision for all of the process.
    """
    numbers = particle_numbers(cv, atoms)
    latents = latent_cvs(load_cv(Path(folder) / "model.safetensors"), numbers, length_unit=cv.length_unit)
    from pysages.colvars.core import build

    function = build(*latents)
    Snapshot = namedtuple("Snapshot", "positions indices")
    positions = np.zeros((len(frames), max(numbers) + 1, 3))
    positions[:, numbers, : cv.n_dims] = frames
    found = [function(Snapshot(frame, np.arange(len(frame)))) for frame in positions]
    values, gradients = (np.array(part, np.float64) for part in zip(*found, strict=True))
    gradients = gradients.reshape(len(frames), cv.latent_dim, *positions.shape[1:])
    return values.reshape(len(frames), -1), gradients[:, :, numbers, : cv.n_dims]

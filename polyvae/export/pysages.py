"""The latent coordinates as collective variables of PySAGES, which runs JAX functions inside HOOMD-blue, LAMMPS,
OpenMM, ASE and JAX MD.

Source: the base class of collective variables in PySAGES, `pysages.colvars.core` (github.com/SSAGESLabs/PySAGES).
For code of one's own in JAX nothing is needed: `cv` is a pure function of the positions.
"""

import os
from collections import namedtuple
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np

from polyvae.cv.latent import LatentCV, load_cv
from polyvae.errors import InputError
from polyvae.export.common import particle_numbers
from polyvae.export.grid_bias import bias_grid, check_bias, statistics
from polyvae.export.particles import length_factor
from polyvae.export.readme import Readme
from polyvae.files import replacing_folder

CHECKED = "PySAGES 0.5.1 (its repository at d98a381, June 2026) with ASE 3.29"
_PRIOR = {"std": 1.0, "min": -2.0, "max": 2.0}  # latents of a trained model are spread much like the prior


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


def export(
    cv: LatentCV,
    folder: str | os.PathLike,
    *,
    atoms: Sequence[int] | None = None,
    data=None,
    force: bool = False,
) -> None:
    """Write the model, a biased run as a Python script, and a README into a folder.

    The script runs as it is, on a bead-spring chain in ASE, until the user's simulation takes its place.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        folder: where to write; made if need be.
        atoms: particle numbers from 0, one for each bead; by default those of the training data in their file.
        data: see `grid_bias.statistics`; widths and bounds, else those of a standard normal.
        force: write into a folder that holds files.

    Raises:
        InputError: a model without coordinates; atom numbers that do not fit; a folder that holds files.
    """
    numbers = particle_numbers(cv, atoms)
    with replacing_folder(folder, force=force) as place:
        stats = None if data is None else statistics(cv, data)
        spread = {name: np.full(cv.latent_dim, value) for name, value in _PRIOR.items()}
        grid = bias_grid(stats or spread | {"basin": spread["std"]})
        check_bias(cv, stats, without=grid["sigma"])
        words = {
            "particles": numbers,
            "sigma": 1.0 if cv.length_unit == "sigma" else None,
            "bins": grid["bins"].tolist(),
            **{name: [float(f"{v:.6g}") for v in grid[name]] for name in ("low", "high")},
            "width": [float(f"{v:.6g}") for v in grid["sigma"]],
        }
        cv.save(place / "model.safetensors")
        script = resources.files("polyvae.export") / "pysages_files" / "biased_run.py.in"
        (place / "biased_run.py").write_text(Template(script.read_text()).substitute(words))
        readme = Readme(
            engine="PySAGES (HOOMD-blue, LAMMPS, OpenMM, ASE, JAX MD)",
            kind="pysages",
            atoms=numbers,
            first=0,
            files={
                "biased_run.py": "well-tempered metadynamics on the latents; edit this one",
                "model.safetensors": "the model",
            },
            use="```sh\npip install polyvae ase git+https://github.com/SSAGESLabs/PySAGES.git\n"
            "python biased_run.py 5000\n```",
            notes=[
                "The script runs as it is, on a bead-spring chain like the model's in ASE, and prints the largest "
                "difference between the latents in PySAGES and the model's own. Put your simulation in the place "
                "of `simulation`, and at the top its engine's LENGTH_UNIT (`latent_cvs` converts), KB and SIGMA.",
                "The bias has range and width of "
                + ("a standard normal" if stats is None else "the frames given")
                + ".",
                "Molecules must be whole: PySAGES unwraps positions by the image flags of HOOMD-blue and LAMMPS, "
                "and OpenMM's are not wrapped unless a run was started from wrapped ones.",
            ],
            checked=CHECKED,
            stats=stats,
            width=grid["sigma"],
        )
        readme.write(place, cv)


def evaluate(
    folder: str | os.PathLike, cv: LatentCV, frames: np.ndarray, *, atoms: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Latents (n_frames, latent_dim) and gradients (n_frames, latent_dim, n_beads, n_dims) of PySAGES.

    Importing PySAGES sets JAX to double precision for all of the process.

    Args:
        folder: what `export` wrote; the model in it is what is evaluated.
        frames: (n_frames, n_beads, n_dims) in the model's unit.

    Raises:
        InputError: no PySAGES.
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

"""polyvae: collective variables from finished MD runs."""

import importlib
from typing import TYPE_CHECKING

from polyvae.cv.fitting import fit
from polyvae.cv.generator import fit_generator
from polyvae.cv.latent import LatentCV, load
from polyvae.errors import InputError
from polyvae.features.featurizers import PairDistances, PrincipalAxes, Reference
from polyvae.geometry.shape import (
    acylindricity,
    asphericity,
    contacts,
    end_to_end,
    radius_of_gyration,
    shape_anisotropy,
)
from polyvae.geometry.superposition import rmsd
from polyvae.io.colvar import write_colvar
from polyvae.io.reading import read, stream
from polyvae.io.tables import Colvar, read_colvar
from polyvae.io.writing import write
from polyvae.measures.free_energy import FreeEnergy, free_energy
from polyvae.measures.limits import Check, Limits, check_conformations
from polyvae.progress import progress_bar
from polyvae.tasks.adapting import Adapted, adapt
from polyvae.tasks.compiling import compile
from polyvae.tasks.optimization import Optimum, optimize
from polyvae.tasks.paths import LatentPath, interpolate, latent_grid
from polyvae.tasks.planning import Plan, plan
from polyvae.tasks.projection import project
from polyvae.tasks.relaxation import Relaxed, chain_energy, relax
from polyvae.tasks.sampling import sample
from polyvae.tasks.scoring import score
from polyvae.tasks.sweeps import Sweep, sweep
from polyvae.tasks.tables import Tables, transform_many
from polyvae.trajectory.convert import as_trajectory
from polyvae.trajectory.record import Trajectory
from polyvae.trajectory.stream import Stream
from polyvae.vae.check import check_vae
from polyvae.vae.fitting import fit_vae
from polyvae.vae.likelihood import Bernoulli, Categorical, Gaussian
from polyvae.vae.model import FittedVAE

if TYPE_CHECKING:
    from polyvae.app.explorer import explore
    from polyvae.plot.movie import movie

__all__ = [
    "Adapted",
    "Bernoulli",
    "Categorical",
    "Check",
    "Colvar",
    "FittedVAE",
    "FreeEnergy",
    "Gaussian",
    "InputError",
    "LatentCV",
    "LatentPath",
    "Limits",
    "Optimum",
    "PairDistances",
    "Plan",
    "PrincipalAxes",
    "Reference",
    "Relaxed",
    "Stream",
    "Sweep",
    "Tables",
    "Trajectory",
    "acylindricity",
    "adapt",
    "as_trajectory",
    "asphericity",
    "chain_energy",
    "check_conformations",
    "check_vae",
    "compile",
    "contacts",
    "end_to_end",
    "explore",
    "fit",
    "fit_generator",
    "fit_vae",
    "free_energy",
    "interpolate",
    "latent_grid",
    "load",
    "movie",
    "optimize",
    "plan",
    "progress_bar",
    "project",
    "radius_of_gyration",
    "read",
    "read_colvar",
    "relax",
    "rmsd",
    "sample",
    "score",
    "shape_anisotropy",
    "stream",
    "sweep",
    "transform_many",
    "write",
    "write_colvar",
]


def __getattr__(name: str):
    """`polyvae.plot`, what draws and the page are loaded where they are used."""
    if name == "plot":
        return importlib.import_module("polyvae.plot")
    if name == "movie":
        return importlib.import_module("polyvae.plot.movie").movie
    if name == "explore":
        return importlib.import_module("polyvae.app.explorer").explore
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("polyvae")
    raise AttributeError(f"module 'polyvae' has no attribute {name!r}")

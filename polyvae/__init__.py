"""polyvae: collective variables from finished MD runs."""

from polyvae.check import check_vae
from polyvae.cv import LatentCV, fit, load
from polyvae.errors import InputError
from polyvae.featurize import PairDistances, PrincipalAxes, Reference
from polyvae.fitted import FittedVAE
from polyvae.generate import sample
from polyvae.generator import fit_generator
from polyvae.geometry import (
    acylindricity,
    asphericity,
    contacts,
    end_to_end,
    radius_of_gyration,
    shape_anisotropy,
)
from polyvae.io.colvar import write_colvar
from polyvae.io.read import read, stream
from polyvae.io.write import write
from polyvae.likelihood import Bernoulli, Categorical, Gaussian
from polyvae.optimize import Optimum, optimize
from polyvae.paths import LatentPath, interpolate, latent_grid
from polyvae.prepared import fit_vae
from polyvae.project import project
from polyvae.relax import Relaxed, chain_energy, relax
from polyvae.score import score
from polyvae.sources import Stream, as_trajectory
from polyvae.superposition import rmsd
from polyvae.sweep import Sweep, sweep
from polyvae.trajectory import Trajectory
from polyvae.validity import Check, Limits, check_conformations

__all__ = [
    "Bernoulli",
    "Categorical",
    "Check",
    "FittedVAE",
    "Gaussian",
    "InputError",
    "LatentCV",
    "LatentPath",
    "Limits",
    "Optimum",
    "PairDistances",
    "PrincipalAxes",
    "Reference",
    "Relaxed",
    "Stream",
    "Sweep",
    "Trajectory",
    "acylindricity",
    "as_trajectory",
    "asphericity",
    "chain_energy",
    "check_conformations",
    "check_vae",
    "contacts",
    "end_to_end",
    "fit",
    "fit_generator",
    "fit_vae",
    "interpolate",
    "latent_grid",
    "load",
    "optimize",
    "project",
    "radius_of_gyration",
    "read",
    "relax",
    "rmsd",
    "sample",
    "score",
    "shape_anisotropy",
    "stream",
    "sweep",
    "write",
    "write_colvar",
]

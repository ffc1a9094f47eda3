"""Uses of a collective variable, a module for each task."""

from polyvae.tasks.optimization import optimize
from polyvae.tasks.optimum import Optimum
from polyvae.tasks.paths import LatentPath, interpolate, latent_grid
from polyvae.tasks.projection import project
from polyvae.tasks.relaxation import Relaxed, chain_energy, relax
from polyvae.tasks.sampling import sample
from polyvae.tasks.scorecard import Scores
from polyvae.tasks.scoring import score
from polyvae.tasks.sweeps import Sweep, sweep
from polyvae.tasks.tables import Tables, transform_many

__all__ = [
    "LatentPath",
    "Optimum",
    "Relaxed",
    "Scores",
    "Sweep",
    "Tables",
    "chain_energy",
    "interpolate",
    "latent_grid",
    "optimize",
    "project",
    "relax",
    "sample",
    "score",
    "sweep",
    "transform_many",
]

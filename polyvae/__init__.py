"""polyvae: collective variables from finished MD runs."""

from polyvae.cv import LatentCV, fit, load
from polyvae.errors import InputError
from polyvae.featurize import PrincipalAxes
from polyvae.generate import sample
from polyvae.geometry import end_to_end, radius_of_gyration
from polyvae.io.colvar import write_colvar
from polyvae.io.read import read, stream
from polyvae.io.write import write
from polyvae.optimize import Optimum, optimize
from polyvae.project import project
from polyvae.score import score
from polyvae.sources import Stream, as_trajectory
from polyvae.trajectory import Trajectory

__all__ = [
    "InputError",
    "LatentCV",
    "Optimum",
    "PrincipalAxes",
    "Stream",
    "Trajectory",
    "as_trajectory",
    "end_to_end",
    "fit",
    "load",
    "optimize",
    "project",
    "radius_of_gyration",
    "read",
    "sample",
    "score",
    "stream",
    "write",
    "write_colvar",
]

"""polyvae: collective variables from finished MD runs."""

from polyvae.cv import LatentCV, fit, load
from polyvae.errors import InputError
from polyvae.featurize import PrincipalAxes
from polyvae.geometry import end_to_end, radius_of_gyration
from polyvae.trajectory import Trajectory

__all__ = [
    "InputError",
    "LatentCV",
    "PrincipalAxes",
    "Trajectory",
    "end_to_end",
    "fit",
    "load",
    "radius_of_gyration",
]

"""polyvae: collective variables from finished MD runs."""

from polyvae.cv import LatentCV, fit, load
from polyvae.errors import InputError
from polyvae.featurize import PairDistances, PrincipalAxes, Reference
from polyvae.geometry import (
    acylindricity,
    asphericity,
    contacts,
    end_to_end,
    radius_of_gyration,
    shape_anisotropy,
)
from polyvae.superposition import rmsd
from polyvae.trajectory import Trajectory

__all__ = [
    "InputError",
    "LatentCV",
    "PairDistances",
    "PrincipalAxes",
    "Reference",
    "Trajectory",
    "acylindricity",
    "asphericity",
    "contacts",
    "end_to_end",
    "fit",
    "load",
    "radius_of_gyration",
    "rmsd",
    "shape_anisotropy",
]

"""Measures of frames: distances of ensembles, limits of conformations, kinetics, density."""

from polyvae.measures.density import log_density
from polyvae.measures.ensembles import ensemble_distances, frame_weights, noise_floor
from polyvae.measures.kinetics import autocorrelation_time, timescales, vamp2
from polyvae.measures.limits import Check, Limits, check_conformations, limits_of

__all__ = [
    "Check",
    "Limits",
    "autocorrelation_time",
    "check_conformations",
    "ensemble_distances",
    "frame_weights",
    "limits_of",
    "log_density",
    "noise_floor",
    "timescales",
    "vamp2",
]

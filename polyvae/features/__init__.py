"""Featurizers: one frame to a vector that rotation and translation leave alone, and where such vectors jump."""

from polyvae.features.featurizers import FEATURIZERS, PairDistances, PrincipalAxes, Reference

__all__ = ["FEATURIZERS", "PairDistances", "PrincipalAxes", "Reference"]

"""Featurizers: one frame to a vector that rotation and translation leave alone, and where such vectors jump."""

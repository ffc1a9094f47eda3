"""The latent collective variable: featurizer and trained VAE in one artefact, and its generator."""

from polyvae.cv.fitting import fit
from polyvae.cv.generator import fit_generator
from polyvae.cv.latent import LatentCV, load, load_cv

__all__ = ["LatentCV", "fit", "fit_generator", "load", "load_cv"]

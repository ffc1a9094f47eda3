"""The variational autoencoder on vectors: network, likelihood, training, and its model file."""

from polyvae.vae.check import check_vae
from polyvae.vae.fitting import fit_vae
from polyvae.vae.likelihood import Bernoulli, Categorical, Gaussian
from polyvae.vae.model import FittedVAE
from polyvae.vae.network import VAE
from polyvae.vae.scaled import ScaledVAE
from polyvae.vae.settings import ModelRecord, Settings

__all__ = [
    "VAE",
    "Bernoulli",
    "Categorical",
    "FittedVAE",
    "Gaussian",
    "ModelRecord",
    "ScaledVAE",
    "Settings",
    "check_vae",
    "fit_vae",
]

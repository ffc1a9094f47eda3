"""Conformations drawn from a latent CV's model."""

import dataclasses

import jax
import numpy as np

from polyvae.batches import map_frames
from polyvae.cv import LatentCV
from polyvae.errors import InputError
from polyvae.trajectory import Trajectory


def sample(cv: LatentCV, n: int, *, seed: int = 0, noise: bool = True) -> Trajectory:
    """Draw `n` conformations from the model: z from the standard normal prior, then x from p(x|z).

    Args:
        noise: with False the decoder's mean is taken in place of a draw from p(x|z). It looks smoother,
            but is no sample of the ensemble: what the latents do not hold is averaged away, and bonds
            come out too short.

    Returns:
        A `Trajectory` in the featurizer's frame and the model's unit, without times. Frames are
        independent of each other.
    """
    if n < 1:
        raise InputError(f"the number of conformations must be at least 1; got {n}")
    z_key, x_key = jax.random.split(jax.random.key(seed))
    z = jax.random.normal(z_key, (n, cv.latent_dim))

    if noise:
        draws = jax.random.normal(x_key, (n, cv.mean.size))
        rows = np.concatenate([np.asarray(z), np.asarray(draws)], axis=1)

        def conformation(row):
            features = cv.vae.decode(row[: cv.latent_dim])
            features = features + cv.vae.likelihood.width * row[cv.latent_dim :]
            return cv.featurizer.inverse(features * cv.scale + cv.mean, cv.n_dims)

        positions = map_frames(jax.jit(jax.vmap(conformation)), rows)
    else:
        positions = cv.decode(np.asarray(z), coordinates=True)
    return dataclasses.replace(cv.template, positions=positions, segments=(1,) * n)

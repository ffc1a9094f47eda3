"""Conformations drawn from a latent CV's model."""

import dataclasses

import jax
import numpy as np

from polyvae.arguments import flag, numbers_array, one_of, seed_number, whole_number
from polyvae.batches import map_frames, single_precision
from polyvae.cv.diffusion import draw_frames, draw_latents
from polyvae.cv.latent import LatentCV, check_cv
from polyvae.errors import InputError
from polyvae.features.featurizers import PairDistances
from polyvae.trajectory.record import Trajectory

PRIORS = ("normal", "data")


@single_precision
def sample(
    cv: LatentCV,
    n: int,
    *,
    at: np.ndarray | None = None,
    prior: str | None = None,
    seed: int = 0,
    noise: bool = True,
) -> Trajectory:
    """Draw `n` conformations from the model: z, then x from p(x|z).

    If the CV has a generator (`fit_generator`), x comes from it and is distributed as in the data, bonds and
    contacts included. Otherwise x comes from the decoder with its Gaussian noise, a poor sample of the ensemble.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        at: z to draw at, (latent_dim,), or n of them, (n, latent_dim). The encoder returns this z for the
            conformations with some spread.
        prior: distribution of z without `at`: "data", the density of the z of the training frames, or "normal",
            N(0, I). The default is "data" with a generator, which keeps that density, since the data never quite
            fill the normal prior. Without a generator it is "normal".
        noise: draw from p(x|z). With False the decoder's mean is returned. It looks smoother, but is not a sample
            of the ensemble: it is a mean over everything that the latents do not hold, and bonds are too short.
        n: number of conformations.
        seed: seed of the draws.

    Returns:
        A `Trajectory` in the featurizer's frame and the model's unit, without times. Frames are
        independent of each other.

    Raises:
        InputError: n below 1; z of another shape, not finite or too far from the data for a finite conformation;
            an unknown prior; both `at` and `prior`; "data" without a generator.
    """
    check_cv(cv)
    n, noise = whole_number("n", n, 1), flag("noise", noise)
    z_key, x_key = jax.random.split(jax.random.key(seed_number(seed)))
    z = _latents(cv, n, z_key, prior) if at is None else _given(cv, n, at, prior)
    if not noise:
        positions = cv.decode(z, coordinates=True)
    elif cv.generator is not None:
        positions = draw_frames(cv.generator, x_key, z)
    else:
        positions = _decoded(cv, z, x_key)
    if not (good := np.isfinite(positions).all(axis=(1, 2))).all():
        bad = ",".join(f"{value:g}" for value in z[np.argmin(good)])
        raise InputError(f"no finite conformation is drawn at z = {bad}, which is too far from the data")
    if noise and cv.generator is not None:
        positions = cv.align(positions)
    return dataclasses.replace(cv.template, positions=positions, segments=(1,) * n)


def prior_of(cv: LatentCV) -> str:
    """The prior that `sample` takes z from by default."""
    if cv.generator is None:
        return "normal"
    return "data"


def _given(cv: LatentCV, n: int, at, prior: str | None) -> np.ndarray:
    if prior is not None:
        raise InputError(f"z is either given or drawn; got at= and prior={prior!r}. Leave one out")
    at = numbers_array("z", at, f"numbers of shape ({cv.latent_dim},) or ({n}, {cv.latent_dim})", np.float32)
    if at.shape not in ((cv.latent_dim,), (n, cv.latent_dim)):
        raise InputError(f"z must have shape ({cv.latent_dim},) or ({n}, {cv.latent_dim}); got {at.shape}")
    return np.ascontiguousarray(np.broadcast_to(at, (n, cv.latent_dim)))


def _latents(cv: LatentCV, n: int, key, prior: str | None) -> np.ndarray:
    prior = prior_of(cv) if prior is None else prior
    one_of("prior", prior, PRIORS)
    if prior == "normal":
        return np.asarray(jax.random.normal(key, (n, cv.latent_dim)))
    if cv.generator is None:
        raise InputError(
            'prior="data" needs a model with a generator, which keeps the data\'s z: pv.fit_generator(cv, traj)'
        )
    return draw_latents(cv.generator, key, n)


def _decoded(cv: LatentCV, z: np.ndarray, key) -> np.ndarray:
    """Draws of the decoder, with its noise."""
    draws = jax.random.normal(key, (len(z), cv.mean.size))

    def conformation(z, noise):
        features = cv.vae.decode(z) + cv.vae.likelihood.width * noise
        return cv.featurizer.inverse(cv.scaled.restore(features), cv.n_dims)

    width = cv.featurizer.work if isinstance(cv.featurizer, PairDistances) else 1
    return map_frames(jax.jit(jax.vmap(conformation)), z, np.asarray(draws), width=width)

"""Where the data are in latent space: a kernel density estimate."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from polyvae.arguments import numbers_array, refusal, statistical_weights
from polyvae.batches import single_precision
from polyvae.errors import InputError
from polyvae.measures.weights import merged, quantile

_POINTS = 1000
_LEAST_VARIANCE = 1e-6  # of a direction, as a fraction of the variance in all


@single_precision
def log_density(
    z: np.ndarray, rng: np.random.Generator, weights: np.ndarray | None = None
) -> tuple[Callable, float]:
    """Log density of the data's latents z (n_frames, latent_dim), and its 1 % quantile over them.

    A Gaussian kernel density estimate over at most 1,000 of them; the first result is a JAX function of one
    point (latent_dim,). Directions in which the data hardly vary, such as a latent that is not used, get a
    least width, so that both are finite for any data. Frames count by their weights (n_frames,).
    """
    z = numbers_array("z", z, "an array of numbers (n_frames, latent_dim)")
    if z.ndim != 2 or not len(z):
        raise InputError(f"z must have shape (n_frames, latent_dim); got {z.shape}")
    if not isinstance(rng, np.random.Generator):
        raise refusal("rng", "a numpy.random.Generator", rng)
    if weights is not None:
        weights = statistical_weights(weights, len(z))
    rows, shares = merged(z, weights)
    if len(rows) > _POINTS and (shares == shares[0]).all():
        rows = rng.choice(rows, _POINTS, replace=False)
        shares = np.ones(_POINTS)
    elif len(rows) > _POINTS:
        rows, shares = np.unique(rng.choice(rows, _POINTS, p=shares / shares.sum()), return_counts=True)
    chosen, shares = np.asarray(z[rows], np.float64), shares / shares.sum()
    n, dim = 1 / (shares**2).sum(), chosen.shape[1]
    mean = shares @ chosen
    spread = chosen - mean
    covariance = (spread.T * shares) @ spread * n / max(n - 1, 1)
    covariance += _LEAST_VARIANCE * (np.trace(covariance) or 1.0) * np.eye(dim)
    # Half of Scott's width: the data's z come in clusters, between which nothing lives.
    whiten = np.linalg.cholesky(np.linalg.inv(covariance)) / (0.5 * n ** (-1 / (dim + 4)))
    offset = np.linalg.slogdet(whiten)[1] - 0.5 * dim * np.log(2 * np.pi)
    center, whiten, points = (jnp.asarray(a, jnp.float32) for a in (mean, whiten, spread @ whiten))
    logs = jnp.asarray(np.log(shares), jnp.float32)

    def density(point):
        apart = points - ((point - center) @ whiten)[None]
        return jax.nn.logsumexp(logs - 0.5 * jnp.sum(apart**2, axis=1)) + float(offset)

    return density, quantile(jax.lax.map(density, jnp.asarray(chosen, jnp.float32)), 0.01, shares)

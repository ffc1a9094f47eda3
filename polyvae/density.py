"""Where the data are in latent space: a kernel density estimate."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import gaussian_kde

_POINTS = 1000


def log_density(z: np.ndarray, rng: np.random.Generator) -> tuple[Callable, float]:
    """Log density of the data's latents z (n_frames, latent_dim), and its 1 % quantile over them.

    A Gaussian kernel density estimate over at most 1,000 of them; the first result is a JAX function of one
    point (latent_dim,).
    """
    chosen = z if len(z) <= _POINTS else rng.choice(z, _POINTS, replace=False)
    # Half of Scott's width: the data's z come in clusters, between which nothing lives.
    width = 0.5 * len(chosen) ** (-1 / (z.shape[1] + 4))
    kde = gaussian_kde(jnp.asarray(chosen).T, bw_method=width)
    floor = float(jnp.quantile(kde.logpdf(jnp.asarray(chosen).T), 0.01))
    return lambda point: kde.logpdf(point[:, None])[0], floor

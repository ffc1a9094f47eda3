"""Terms of the bounds on the log-likelihood of a VAE: the KL divergence of the evidence lower bound, and the
importance-weighted bound. Takes one vector; use `jax.vmap` for many."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polyvae.vae.network import VAE


def kl_to_standard_normal(mean: Float[Array, "latent"], std: Float[Array, "latent"]) -> Float[Array, "latent"]:
    """KL(N(mean, std^2) || N(0, 1)) per latent, in nats."""
    return 0.5 * (mean**2 + std**2 - 1) - jnp.log(std)


def elbo_terms(
    vae: VAE, x: Float[Array, "features"], noise: Float[Array, "latent"], target: Float[Array, "features"]
) -> tuple[Float[Array, ""], Float[Array, "latent"]]:
    """One-sample estimate of E_q[log p(target|z)] and the exact KL(q(z|x) || p(z)) per latent, in nats.

    With x as its own target, the evidence lower bound is the first minus the sum of the second. A later frame as
    the target makes the latents hold what is still there after that time. `noise` is a draw from the standard
    normal.
    """
    mean, std = vae.encode(x)
    return vae.likelihood.log_prob(target, vae.decode(mean + std * noise)), kl_to_standard_normal(mean, std)


def unevenness(
    vae: VAE, a: Float[Array, "features"], b: Float[Array, "features"], part: Float[Array, ""]
) -> Float[Array, ""]:
    """Estimate how unevenly the encoder's mean goes from one vector to another:

        int_0^1 |d mean(a + t (b - a)) / dt|^2 dt - |mean(b) - mean(a)|^2

    at t = `part`, uniform between 0 and 1. It is 0 where the mean is linear on the way, whatever the distance, and
    large where it is a step, which an MD engine's time step cannot follow.
    """

    def mean(x):
        return vae.encode(x)[0]

    _, slope = jax.jvp(mean, (a + part * (b - a),), (b - a,))
    return jnp.sum(slope**2 - (mean(b) - mean(a)) ** 2)


def importance_weighted_bound(
    vae: VAE, x: Float[Array, "features"], *, target: Float[Array, "features"] | None = None, k: int, key
) -> Float[Array, ""]:
    """One estimate, from k draws of z, of the importance-weighted bound on log p(x), in nats:

        log (1/k) sum_i p(x|z_i) p(z_i) / q(z_i|x),    z_i from q(z|x)

    Its expectation is the evidence lower bound at k = 1, never falls as k grows, and comes to log p(x).
    Burda, Grosse & Salakhutdinov, arXiv:1509.00519.

    Args:
        target: vector to decode, in p(target|z_i), such as the later frame of a model with a time lag; by
            default x.
    """
    mean, std = vae.encode(x)
    if target is None:
        target = x

    def add(total, key):  # one draw after another, so that memory does not grow with k
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        z = mean + std * noise
        log_prior_ratio = jnp.sum(0.5 * (noise**2 - z**2) + jnp.log(std))
        return jnp.logaddexp(total, vae.likelihood.log_prob(target, vae.decode(z)) + log_prior_ratio), None

    start = jnp.asarray(-jnp.inf, x.dtype)
    return jax.lax.scan(add, start, jax.random.split(key, k))[0] - math.log(k)

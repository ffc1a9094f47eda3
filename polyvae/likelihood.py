"""Decoder likelihoods p(x | z): normalised log densities, in nats, summed over features."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Gaussian(eqx.Module):
    """Isotropic Gaussian about the decoder's output.

    log p(x | mean) = -sum((x - mean)^2) / (2 s^2) - D log s - D/2 log(2 pi)

    Args:
        width: standard deviation s, fixed, or "learned": one scalar trained with the weights.

    A sum of squares without a width, as many codes use, is s = sqrt(1/2) up to a constant; weighting it
    against `w * mean(KL)` over L latents is then beta = w / L.
    """

    log_width: Float[Array, ""]
    learned: bool = eqx.field(static=True)

    def __init__(self, width: float | str = "learned"):
        if isinstance(width, str) and width != "learned":
            raise ValueError(f'width must be "learned" or a positive number; got {width!r}')
        self.learned = width == "learned"
        if not self.learned and not 0 < width < math.inf:
            raise ValueError(f'width must be "learned" or a positive number; got {width!r}')
        self.log_width = jnp.asarray(0.0 if self.learned else math.log(width))

    def _log_width(self):
        return self.log_width if self.learned else jax.lax.stop_gradient(self.log_width)

    @property
    def width(self) -> Float[Array, ""]:
        """Standard deviation of every feature about the decoder's output."""
        return jnp.exp(self._log_width())

    def log_prob(self, x: Float[Array, "features"], mean: Float[Array, "features"]) -> Float[Array, ""]:
        """log p(x | mean) in nats."""
        if x.shape != mean.shape:
            raise ValueError(f"x and mean must have one shape; got {x.shape} and {mean.shape}")
        log_width = self._log_width()
        return -0.5 * jnp.sum((x - mean) ** 2) * jnp.exp(-2 * log_width) - x.size * (
            log_width + 0.5 * math.log(2 * math.pi)
        )

    def sample(self, key, mean: Float[Array, "features"]) -> Float[Array, "features"]:
        """One draw from p(x | mean)."""
        return mean + self.width * jax.random.normal(key, mean.shape, mean.dtype)

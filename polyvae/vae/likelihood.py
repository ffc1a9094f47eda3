"""Decoder likelihoods p(x | z): normalised log probabilities, in nats, summed over features.

Each takes what the decoder puts out, one number a feature, and says what it means: `log_prob(x, out)`,
`mean(out)` and `sample(key, out)` of one frame, and `check(x)` for a whole data set.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polyvae.arguments import if_given, real_number, refusal, whole_number
from polyvae.errors import InputError


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
        self.learned = isinstance(width, str) and width == "learned"
        try:
            number = 1.0 if self.learned else real_number("width", width, above=0)
        except InputError:
            raise refusal("width", '"learned" or a positive number', width) from None
        self.log_width = jnp.asarray(math.log(number), jnp.float32)

    def _log_width(self):
        return self.log_width if self.learned else jax.lax.stop_gradient(self.log_width)

    @property
    def width(self) -> Float[Array, ""]:
        """Standard deviation of every feature about the decoder's output."""
        return jnp.exp(self._log_width())

    def log_prob(self, x: Float[Array, "features"], out: Float[Array, "features"]) -> Float[Array, ""]:
        """log p(x | out), out the mean."""
        _same_shape(x, out)
        log_width = self._log_width()
        return -0.5 * jnp.sum((x - out) ** 2) * jnp.exp(-2 * log_width) - x.size * (
            log_width + 0.5 * math.log(2 * math.pi)
        )

    def mean(self, out: Float[Array, "features"]) -> Float[Array, "features"]:
        """The decoder's output `out` itself."""
        return out

    def sample(self, key, out: Float[Array, "features"]) -> Float[Array, "features"]:
        """One draw from p(x | out), by the random `key`."""
        return out + self.width * jax.random.normal(key, out.shape, out.dtype)

    def check(self, x: np.ndarray) -> None:
        """All finite x, (n_frames, n_features), will do."""


class Categorical(eqx.Module):
    """Discrete states, one-hot encoded: log p(x | out) = sum over variables of x . log softmax(out).

    Args:
        n_classes: number of states of each variable. The features are blocks of `n_classes` numbers, one block
            per variable: 1 at the variable's state, 0 elsewhere. None: all features are one variable.
    """

    n_classes: int | None = eqx.field(
        static=True, default=None, converter=lambda value: if_given(whole_number, "n_classes", value, 2)
    )

    def _blocks(self, x):
        return x.reshape(-1, x.size if self.n_classes is None else self.n_classes)

    def log_prob(self, x: Float[Array, "features"], out: Float[Array, "features"]) -> Float[Array, ""]:
        """log p(x | out), out the logits."""
        _same_shape(x, out)
        return jnp.sum(self._blocks(x) * jax.nn.log_softmax(self._blocks(out), axis=1))

    def mean(self, out: Float[Array, "features"]) -> Float[Array, "features"]:
        """Probabilities of the states, of the logits `out`."""
        return jax.nn.softmax(self._blocks(out), axis=1).ravel()

    def sample(self, key, out: Float[Array, "features"]) -> Float[Array, "features"]:
        """One draw of each variable, one-hot, of the logits `out` by the random `key`."""
        blocks = self._blocks(out)
        return jax.nn.one_hot(jax.random.categorical(key, blocks), blocks.shape[1], dtype=out.dtype).ravel()

    def check(self, x: np.ndarray) -> None:
        """Raise `InputError` where the rows of x, (n_frames, n_features), are not one-hot."""
        n = x.shape[1] if self.n_classes is None else self.n_classes
        if x.shape[1] % n or x.shape[1] < 2:
            raise InputError(
                f"Categorical(n_classes={n}) needs a multiple of {max(n, 2)} features; got {x.shape[1]}. "
                f"One-hot encode each variable"
            )
        blocks = x.reshape(len(x), -1, n)
        good = ((blocks == 0) | (blocks == 1)).all(axis=(1, 2)) & (blocks.sum(axis=2) == 1).all(axis=1)
        if not good.all():
            raise InputError(
                f"Categorical needs one-hot rows, zeros and a single 1 for each variable; frame "
                f"{int(np.argmin(good))} is not. numpy.eye(n_classes)[states] makes them"
            )


class Bernoulli(eqx.Module):
    """Features that are 0 or 1, such as contacts: log p(x | out) = sum(x out - log(1 + exp(out))).

    A number between them, such as a soft contact, is taken as the probability of a 1, and log p as its
    expectation.
    """

    def log_prob(self, x: Float[Array, "features"], out: Float[Array, "features"]) -> Float[Array, ""]:
        """log p(x | out), out the logits of a 1."""
        _same_shape(x, out)
        return jnp.sum(x * out - jax.nn.softplus(out))

    def mean(self, out: Float[Array, "features"]) -> Float[Array, "features"]:
        """Probabilities of a 1, of the logits `out`."""
        return jax.nn.sigmoid(out)

    def sample(self, key, out: Float[Array, "features"]) -> Float[Array, "features"]:
        """One draw of each feature, of the logits `out` by the random `key`."""
        return jax.random.bernoulli(key, jax.nn.sigmoid(out)).astype(out.dtype)

    def check(self, x: np.ndarray) -> None:
        """Raise `InputError` where x, (n_frames, n_features), holds anything but probabilities."""
        good = ((x >= 0) & (x <= 1)).all(axis=1)
        if not good.all():
            frame = int(np.argmin(good))
            value = x[frame][(x[frame] < 0) | (x[frame] > 1)][0]
            raise InputError(
                f"Bernoulli needs features from 0 to 1; frame {frame} holds {value:g}. "
                f"Use Gaussian() for real numbers, or apply a cutoff first"
            )


LIKELIHOODS = {kind.__name__: kind for kind in (Gaussian, Categorical, Bernoulli)}


def _same_shape(x, out) -> None:
    if x.shape != out.shape:
        raise ValueError(f"x and the decoder's output must have one shape; got {x.shape} and {out.shape}")

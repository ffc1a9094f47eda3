"""The variational autoencoder on vectors: encoder and decoder. Their training objective is in `bound`.

Everything takes one vector; use `jax.vmap` for many. Source: Kingma & Welling, arXiv:1312.6114.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polyvae.errors import InputError
from polyvae.vae.likelihood import Bernoulli, Categorical, Gaussian


class Dense(eqx.Module):
    """Fully connected network: linear layers with tanh between them and none after the last.

    tanh gives smooth forces, and every engine's text format has it.
    """

    layers: tuple[eqx.nn.Linear, ...]

    def __init__(self, widths: Sequence[int], *, key):
        keys = jax.random.split(key, len(widths) - 1)
        self.layers = tuple(
            eqx.nn.Linear(n_in, n_out, key=k) for n_in, n_out, k in zip(widths[:-1], widths[1:], keys, strict=True)
        )

    def __call__(self, x: Float[Array, "inputs"]) -> Float[Array, "outputs"]:
        for layer in self.layers[:-1]:
            x = jnp.tanh(layer(x))
        return self.layers[-1](x)


class VAE(eqx.Module):
    """Gaussian encoder q(z|x), decoder p(x|z), standard normal prior p(z)."""

    encoder: Dense
    decoder: Dense
    likelihood: Gaussian | Categorical | Bernoulli
    latent_dim: int = eqx.field(static=True)

    def __init__(
        self,
        n_features: int,
        *,
        latent_dim: int = 2,
        encoder: Sequence[int] = (64, 64),
        decoder: Sequence[int] = (256, 256),
        likelihood: Gaussian | Categorical | Bernoulli | None = None,
        key,
    ):
        check_latent_dim(latent_dim, n_features)
        if min([*encoder, *decoder, 1]) < 1:
            raise InputError(f"layer widths must be positive; got encoder {encoder}, decoder {decoder}")
        encoder_key, decoder_key = jax.random.split(key)
        self.encoder = Dense((n_features, *encoder, 2 * latent_dim), key=encoder_key)
        self.decoder = Dense((latent_dim, *decoder, n_features), key=decoder_key)
        self.likelihood = Gaussian() if likelihood is None else likelihood
        self.latent_dim = latent_dim

    def encode(self, x: Float[Array, "features"]) -> tuple[Float[Array, "latent"], Float[Array, "latent"]]:
        """Mean and standard deviation of q(z|x)."""
        out = self.encoder(x)
        return out[: self.latent_dim], jnp.exp(out[self.latent_dim :])

    def decode(self, z: Float[Array, "latent"]) -> Float[Array, "features"]:
        """Parameter of the likelihood: the mean of a Gaussian, the logits of the others."""
        return self.decoder(z)


def check_latent_dim(latent_dim: int, n_features: int) -> None:
    if not 1 <= latent_dim <= n_features:
        raise InputError(f"latent_dim must lie between 1 and the {n_features} features; got {latent_dim}")

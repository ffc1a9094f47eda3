"""The arithmetic of a trained model: a VAE on vectors in their own unit. Takes one vector; `jax.vmap` for many."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from polyvae.vae.bound import elbo_terms, importance_weighted_bound
from polyvae.vae.network import VAE


class ScaledVAE(eqx.Module):
    """A VAE that sees (x - mean) / scale, and whose densities are those of x itself.

    With y = (x - mean) / scale, p(x|z) is p(y|z) over the volume that scaling shrinks, so that

        log p(x|z) = log p(y|z) - sum(log scale)
    """

    mean: Float[Array, "features"]  # (n_features,), in the unit of the data; 0 for states and contacts
    scale: Float[Array, "*features"]  # one standard deviation for all features, or one a feature; or 1
    vae: VAE  # acts on the scaled features

    def standardize(self, x: Float[Array, "features"]) -> Float[Array, "features"]:
        """Scale a vector for the VAE."""
        return (x - self.mean) / self.scale

    def restore(self, y: Float[Array, "features"]) -> Float[Array, "features"]:
        """The vector that `standardize` makes y of."""
        return y * self.scale + self.mean

    def log_volume(self) -> Float[Array, ""]:
        """Logarithm of the volume that scaling shrinks to 1."""
        return jnp.sum(jnp.log(jnp.broadcast_to(self.scale, self.mean.shape)))

    def encode(self, x: Float[Array, "features"]) -> tuple[Float[Array, "latent"], Float[Array, "latent"]]:
        """Mean and standard deviation of q(z|x)."""
        return self.vae.encode(self.standardize(x))

    def decode(self, z: Float[Array, "latent"]) -> Float[Array, "features"]:
        """Mean of p(x|z): for states and contacts their probabilities."""
        return self.restore(self.vae.likelihood.mean(self.vae.decode(z)))

    def sample(self, key, z: Float[Array, "latent"]) -> Float[Array, "features"]:
        """One draw from p(x|z)."""
        return self.restore(self.vae.likelihood.sample(key, self.vae.decode(z)))

    def elbo_terms(
        self,
        x: Float[Array, "features"],
        noise: Float[Array, "latent"],
        target: Float[Array, "features"] | None = None,
    ) -> tuple[Float[Array, ""], Float[Array, "latent"]]:
        """`bound.elbo_terms`, log p(target|z) a density in the unit of the data; the target is x by default."""
        y = self.standardize(x)
        log_prob, kl = elbo_terms(self.vae, y, noise, y if target is None else self.standardize(target))
        return log_prob - self.log_volume(), kl

    def importance_weighted_bound(
        self, x: Float[Array, "features"], target: Float[Array, "features"], *, k: int, key
    ) -> Float[Array, ""]:
        """The importance-weighted bound on log p(target), a density in the unit of the data."""
        x, target = self.standardize(x), self.standardize(target)
        return importance_weighted_bound(self.vae, x, target=target, k=k, key=key) - self.log_volume()

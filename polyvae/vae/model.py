"""A trained VAE on feature vectors of any kind."""

import dataclasses
import functools
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polyvae.arguments import numbers_array, seed_number, whole_number
from polyvae.batches import map_frames, single_precision
from polyvae.errors import InputError
from polyvae.records import html_of
from polyvae.vae import modelfile
from polyvae.vae.scaled import ScaledVAE
from polyvae.vae.settings import ModelRecord


@dataclasses.dataclass(frozen=True, eq=False)
class FittedVAE:
    """A trained VAE on feature vectors, in the units of the data.

    `model(x)` is a pure function of one vector (n_features,): the encoder's mean.

    Args:
        scaled: the arithmetic; its `vae`, `mean` and `scale` are those of the model.
        record: how the model was made: settings, data fingerprint, versions, history.
    """

    scaled: ScaledVAE
    record: ModelRecord

    vae = property(lambda self: self.scaled.vae, doc="Acts on (x - mean) / scale.")
    mean = property(lambda self: self.scaled.mean, doc="(n_features,), of the training vectors, or 0.")
    scale = property(lambda self: self.scaled.scale, doc="Their standard deviation, one or one a feature; or 1.")
    latent_dim = property(lambda self: self.vae.latent_dim, doc="Number of latent coordinates.")
    n_features = property(lambda self: self.mean.size, doc="Numbers in a vector.")

    def __repr__(self):
        return (
            f"<FittedVAE: {self.n_features} features -> {self.latent_dim} latents "
            f"({type(self.vae.likelihood).__name__})>"
        )

    def _repr_html_(self) -> str:
        return html_of(repr(self)[1:-1], self.record.table())

    def __call__(self, x: Float[Array, "features"]) -> Float[Array, "latent"]:
        """Latent coordinates (latent_dim,) of one vector x, (n_features,): the mean of the encoder."""
        return self.posterior(x)[0]

    def posterior(self, x: Float[Array, "features"]):
        """Mean and standard deviation of q(z|x) for one vector."""
        if jnp.shape(x) != self.mean.shape:
            raise InputError(
                f"one vector must have shape {self.mean.shape}; got {jnp.shape(x)}. Use model.transform for many"
            )
        return self.scaled.encode(jnp.asarray(x))

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Latent coordinates (n_frames, latent_dim) of vectors x (n_frames, n_features), in their unit."""
        return self.transform_posterior(x)[0]

    def transform_posterior(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of q(z|x) for each vector, both (n_frames, latent_dim)."""
        x = vectors(x)
        if x.shape[1] != self.n_features:
            raise InputError(f"the model takes {self.n_features} features; the data hold {x.shape[1]}")
        return map_frames(functools.partial(_encoded, self.scaled), x)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Mean of p(x|z), (n, n_features), at latent points (n, latent_dim): for states, their probabilities."""
        z = numbers_array("z", z, f"an array of numbers (n, {self.latent_dim})", np.float32)
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise InputError(f"z must have shape (n, {self.latent_dim}); got {z.shape}")
        return map_frames(functools.partial(_decoded, self.scaled), z)

    @single_precision
    def sample(self, n: int, *, seed: int = 0) -> np.ndarray:
        """Draw n vectors (n, n_features) by `seed`: z from the standard normal prior, then x from p(x|z)."""
        keys = jax.random.split(jax.random.key(seed_number(seed)), whole_number("n", n, 1))
        return map_frames(functools.partial(_sampled, self.scaled), np.asarray(jax.random.key_data(keys)))

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to `path`, as safetensors with a JSON header; the file appears whole or not at all."""
        header = modelfile.header_of(self.vae) | {"record": self.record.to_dict()}
        modelfile.write_model(path, modelfile.tensors_of(self.scaled), header)

    @classmethod
    def from_file(cls, tensors: dict, header: dict) -> "FittedVAE":
        """The model of the `tensors` and the `header` that a model file holds; `load` reads one."""
        return cls(modelfile.scaled_of(tensors, header), ModelRecord.from_dict(header["record"]))


@eqx.filter_jit
def _encoded(scaled: ScaledVAE, x):
    return jax.vmap(scaled.encode)(x)


@eqx.filter_jit
def _decoded(scaled: ScaledVAE, z):
    return jax.vmap(scaled.decode)(z)


@eqx.filter_jit
def _sampled(scaled: ScaledVAE, key_data):
    def one(data):
        z_key, x_key = jax.random.split(jax.random.wrap_key_data(data))
        return scaled.sample(x_key, jax.random.normal(z_key, (scaled.vae.latent_dim,)))

    return jax.vmap(one)(key_data)


def vectors(x) -> np.ndarray:
    """x as a float32 array (n_frames, n_features) in memory, checked."""
    what = "an array of numbers, (n_frames, n_features) (pv.fit takes trajectories)"
    x = numbers_array("data", x, what, np.float32, finite=False)
    x = np.array(x) if isinstance(x, np.memmap) else np.asarray(x)
    if x.ndim == 1:
        raise InputError(
            f"data must have shape (n_frames, n_features); got {x.shape}. Give x[:, None] for one number a frame, "
            f"numpy.eye(n_classes)[states] for states"
        )
    if x.ndim != 2 or 0 in x.shape:
        raise InputError(f"data must have shape (n_frames, n_features); got {x.shape}. Reshape them first")
    if not np.isfinite(x).all():
        raise InputError(f"data must be finite; frame {int(np.argmin(np.isfinite(x).all(axis=1)))} is not")
    return x

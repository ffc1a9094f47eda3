"""Training on feature vectors of any kind: coordinates, distances, contacts, discrete states."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from importlib import metadata

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polyvae import modelfile
from polyvae.batches import map_frames
from polyvae.checkpoint import Checkpoint, digest
from polyvae.errors import InputError
from polyvae.likelihood import Bernoulli, Categorical, Gaussian
from polyvae.train import BETA_SCHEDULES, LR_SCHEDULES, Trained, first_of_pairs, train, validation_blocks
from polyvae.vae import VAE

_DEFAULT_STEPS = 8000
_CHUNK = 1 << 16  # rows at a time where features lie on disk


@dataclasses.dataclass(frozen=True, eq=False)
class FittedVAE:
    """A trained VAE on feature vectors, in the units of the data.

    `model(x)` is a pure function of one vector (n_features,): the encoder's mean.

    Args:
        vae: acts on (x - mean) / scale.
        mean: (n_features,), the mean of the training vectors, or 0 where they are not real numbers.
        scale: their standard deviation about it: one for all features, or one a feature; or 1.
        record: how the model was made: settings, data fingerprint, versions, history.
    """

    vae: VAE
    mean: Float[Array, "features"]
    scale: Float[Array, "*features"]
    record: dict

    latent_dim = property(lambda self: self.vae.latent_dim, doc="Number of latent coordinates.")
    n_features = property(lambda self: self.mean.size, doc="Numbers in a vector.")

    def __repr__(self):
        return (
            f"<FittedVAE: {self.n_features} features -> {self.latent_dim} latents "
            f"({type(self.vae.likelihood).__name__})>"
        )

    def __call__(self, x: Float[Array, "features"]) -> Float[Array, "latent"]:
        return self.posterior(x)[0]

    def posterior(self, x: Float[Array, "features"]):
        """Mean and standard deviation of q(z|x) for one vector."""
        if jnp.shape(x) != self.mean.shape:
            raise InputError(
                f"one vector must have shape {self.mean.shape}; got {jnp.shape(x)}. Use model.transform for many"
            )
        return self.vae.encode((jnp.asarray(x) - self.mean) / self.scale)

    def transform(self, x: np.ndarray) -> np.ndarray:
        """Latent coordinates (n_frames, latent_dim) of vectors (n_frames, n_features)."""
        return self.transform_posterior(x)[0]

    def transform_posterior(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of q(z|x) for each vector, both (n_frames, latent_dim)."""
        x = vectors(x)
        if x.shape[1] != self.n_features:
            raise InputError(f"the model takes {self.n_features} features; the data hold {x.shape[1]}")
        return map_frames(lambda rows: _posterior(self.vae, self.mean, self.scale, rows), x)

    def decode(self, z: np.ndarray) -> np.ndarray:
        """Mean of p(x|z), (n, n_features), at latent points (n, latent_dim): for states, their probabilities."""
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise InputError(f"z must have shape (n, {self.latent_dim}); got {z.shape}")
        return map_frames(lambda rows: _decoded(self.vae, self.mean, self.scale, rows), z)

    def sample(self, n: int, *, seed: int = 0) -> np.ndarray:
        """Draw vectors (n, n_features): z from the standard normal prior, then x from p(x|z)."""
        if n < 1:
            raise InputError(f"the number of draws must be at least 1; got {n}")
        keys = jax.random.split(jax.random.key(seed), n)
        rows = np.asarray(jax.random.key_data(keys))
        return map_frames(lambda rows: _sampled(self.vae, self.mean, self.scale, rows), rows)

    def save(self, path: str | os.PathLike) -> None:
        """Write the model as safetensors with a JSON header; the file appears whole or not at all."""
        tensors = {"mean": self.mean, "scale": self.scale} | modelfile.tensors_of(self.vae)
        modelfile.write(path, tensors, modelfile.header_of(self.vae) | {"record": self.record})

    @classmethod
    def from_file(cls, tensors: dict, header: dict) -> "FittedVAE":
        mean = jnp.asarray(tensors["mean"])
        return cls(modelfile.vae_of(tensors, header), mean, jnp.asarray(tensors["scale"]), header["record"])


@eqx.filter_jit
def _posterior(vae, mean, scale, x):
    return jax.vmap(lambda row: vae.encode((row - mean) / scale))(x)


@eqx.filter_jit
def _decoded(vae, mean, scale, z):
    return jax.vmap(lambda row: vae.likelihood.mean(vae.decode(row)) * scale + mean)(z)


@eqx.filter_jit
def _sampled(vae, mean, scale, key_data):
    def one(data):
        z_key, x_key = jax.random.split(jax.random.wrap_key_data(data))
        z = jax.random.normal(z_key, (vae.latent_dim,))
        return vae.likelihood.sample(x_key, vae.decode(z)) * scale + mean

    return jax.vmap(one)(key_data)


def vectors(x) -> np.ndarray:
    """x as float32 (n_frames, n_features), checked; what lies on disk stays there."""
    x = x if isinstance(x, np.memmap) else np.asarray(x, np.float32)
    if x.ndim != 2 or 0 in x.shape:
        raise InputError(f"data must have shape (n_frames, n_features); got {x.shape}. Reshape them first")
    if not isinstance(x, np.memmap) and not np.isfinite(x).all():
        raise InputError(f"data must be finite; frame {int(np.argmin(np.isfinite(x).all(axis=1)))} is not")
    return x


def fit_vae(
    x: np.ndarray,
    *,
    likelihood: Gaussian | Categorical | Bernoulli | None = None,
    latent_dim: int = 2,
    encoder: Sequence[int] = (64, 64),
    decoder: Sequence[int] = (256, 256),
    beta: float = 1.0,
    beta_schedule: str = "constant",
    free_bits: float = 0.0,
    lag: int = 0,
    weights: np.ndarray | None = None,
    segments: Sequence[int] | None = None,
    scaling: str = "global",
    epochs: int | None = None,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    lr_schedule: str = "cosine",
    validation: float = 0.1,
    patience: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
    checkpoint: str | os.PathLike | None = None,
    resume: bool = False,
) -> FittedVAE:
    """Train a VAE on vectors of any kind.

    The objective, in nats per frame, is E_q[log p(x|z)] - beta KL(q(z|x) || N(0, I)), log p(x|z) a
    normalised log probability, for real numbers a density in the unit of the data; beta = 1 is the evidence
    lower bound. Both terms are sums over their dimensions, so that beta means the same for every unit
    and batch size.

    Args:
        x: (n_frames, n_features).
        likelihood: `Gaussian()`, whose width is learned, by default; `Gaussian(0.1)` for a fixed width in
            the unit of the data, `Categorical(n_classes)` for one-hot states, `Bernoulli()` for contacts.
        latent_dim: number of latent coordinates.
        encoder, decoder: widths of the hidden layers.
        beta: weight of the KL term.
        beta_schedule: "constant", "warmup" (a rise from 0 over the first tenth of the steps) or "cycle" (a
            rise over the first half).
        free_bits: nats per latent that cost nothing, against latents that die early.
        lag: decode the frame `lag` frames later, so that the latents hold what lasts. No pair crosses a
            segment, and none joins training and validation frames.
        weights: (n_frames,) statistical weights, such as exp(bias / kT) of a biased run, normalised here;
            integer weights count as duplicated frames. A pair has the weight of its first frame.
        segments: lengths of the pieces that are continuous in time; one by default.
        scaling: of real numbers: "global", one mean a feature and one standard deviation over all;
            "feature", one each.
        epochs: by default as many as make about 8,000 steps, at least 10.
        learning_rate, lr_schedule: of Adam; "cosine", "plateau" or "constant".
        validation: fraction of the frames held out in contiguous blocks, for early stopping. With 0
            the model learns from every frame for all epochs, and will in time learn them by heart.
        patience: epochs without a better validation bound before training stops.
        seed: of weights, batches and noise; one seed gives one result.
        progress: called with epochs done, epochs in all, and the latest loss terms.
        checkpoint: file for the state of the run, renewed about every second; remove it once the model is saved.
        resume: go on from that file where it exists; the result has the same bits.

    Raises:
        InputError: unusable settings or data; named.
    """
    x = vectors(x)
    segments = (len(x),) if segments is None else tuple(int(n) for n in segments)
    if sum(segments) != len(x) or min(segments) < 1:
        raise InputError(f"segments must add up to {len(x)} frames; got {segments}")
    if scaling not in ("global", "feature"):
        raise InputError(f'scaling must be "global" or "feature"; got {scaling!r}')
    likelihood = Gaussian() if likelihood is None else likelihood
    likelihood.check(x)
    prepared = prepare(
        x,
        likelihood,
        weights=weights,
        segments=segments,
        scaling=scaling,
        settings={
            "likelihood": type(likelihood).__name__,
            "scaling": scaling,
            "latent_dim": int(latent_dim),
            "encoder": list(map(int, encoder)),
            "decoder": list(map(int, decoder)),
            "beta": float(beta),
            "beta_schedule": beta_schedule,
            "free_bits": float(free_bits),
            "lag": int(lag),
            "epochs": epochs,
            "batch_size": int(batch_size),
            "learning_rate": float(learning_rate),
            "lr_schedule": lr_schedule,
            "validation": float(validation),
            "patience": patience,
            "seed": int(seed),
        },
    )
    return prepared.train(progress=progress, checkpoint=checkpoint, resume=resume)


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """Data and settings, checked and scaled, ready to be trained on.

    Args:
        x: (n_frames, n_features), scaled.
        rows, val_rows: the frames to encode.
        likelihood: in scaled units.
        jacobian: log of the volume that scaling shrinks, which makes densities those of the data's unit.
        identity: what decides the result, beside the settings.
    """

    x: np.ndarray
    weights: np.ndarray | None
    rows: np.ndarray
    val_rows: np.ndarray
    mean: Array
    scale: Array
    likelihood: Gaussian | Categorical | Bernoulli
    jacobian: float
    settings: dict
    identity: dict

    @property
    def options(self) -> dict:
        """The settings that the training program is compiled for."""
        names = ("epochs", "batch_size", "patience", "learning_rate", "lr_schedule", "beta_schedule")
        return {name: self.settings[name] for name in (*names, "free_bits", "lag")}

    def initial(self) -> tuple[VAE, Array]:
        """The untrained model, and the key to train it with."""
        s = self.settings
        init_key, train_key = jax.random.split(jax.random.key(s["seed"]))
        vae = eqx.filter_jit(VAE)(  # compiled as one: a dozen small programs take seconds
            self.x.shape[1],
            latent_dim=s["latent_dim"],
            encoder=tuple(s["encoder"]),
            decoder=tuple(s["decoder"]),
            likelihood=self.likelihood,
            key=init_key,
        )
        return vae, train_key

    def train(self, *, progress=None, checkpoint=None, resume=False) -> FittedVAE:
        vae, key = self.initial()
        run = None
        if checkpoint is not None:
            run = Checkpoint(checkpoint, self.settings | self.identity | versions(), resume=resume)
        trained = train(
            vae,
            self.x,
            self.rows,
            self.val_rows,
            weights=self.weights,
            beta=self.settings["beta"],
            **self.options,
            key=key,
            progress=progress and (lambda n, terms: progress(n, self.settings["epochs"], self._in_units(terms))),
            saved=None if run is None else run.saved,
            save=None if run is None else run.save,
        )
        return self.model(trained)

    def model(self, trained: Trained) -> FittedVAE:
        record = {
            "settings": self.settings,
            "data": self.identity | {"n_train": len(self.rows), "n_validation": len(self.val_rows)},
            "versions": versions(),
            "history": {k: v.astype(float).tolist() for k, v in self._in_units(trained.history).items()},
            "best_epoch": trained.best_epoch,
            "stopped": trained.stopped,
        }
        return FittedVAE(trained.vae, self.mean, self.scale, record)

    def _in_units(self, terms: dict) -> dict:
        return {k: v + self.jacobian if k.endswith("reconstruction") else v for k, v in terms.items()}


def versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("polyvae", "jax", "equinox", "optax")}


def prepare(
    x: np.ndarray,
    likelihood: Gaussian | Categorical | Bernoulli,
    *,
    settings: dict,
    segments: Sequence[int],
    weights: np.ndarray | None,
    scaling: str,
    sha256: str | None = None,
) -> Prepared:
    """Check the settings of `fit_vae`, choose the frames to train on and to validate with, and scale the data.

    Args:
        x: (n_frames, n_features) float32; a `numpy.memmap` is scaled where it lies.
        sha256: of the data that the record is to name, where these are not x.
    """
    _check_settings(settings)
    n, lag = len(x), settings["lag"]
    held_out = validation_blocks(n, settings["validation"])
    rows, val_rows = (first_of_pairs(mask, tuple(segments), lag) for mask in (~held_out, held_out))
    if len(rows) < settings["batch_size"]:
        pairs = f" and in pairs {lag} frames apart" if lag else ""
        raise InputError(
            f"training needs at least one batch of {settings['batch_size']} frames; the data hold {n} frames, "
            f"{len(rows)} after {settings['validation']:.0%} for validation{pairs}. "
            f"Use more frames or a smaller batch size"
        )
    if held_out.any() and not len(val_rows):
        raise InputError(
            f"no two validation frames are {lag} frames apart in one segment; lower the lag, hold out a larger "
            f"fraction (now {settings['validation']:.0%}), or none (validation 0)"
        )
    weights = _checked_weights(weights, n, rows)
    mean, scale, jacobian = jnp.zeros(x.shape[1]), jnp.asarray(1.0), 0.0
    if isinstance(likelihood, Gaussian):
        mean, scale = _moments(x, ~held_out if weights is None else np.where(held_out, 0, weights))
        if scaling == "global":
            scale = np.sqrt(np.mean(scale**2))
            likelihood = likelihood if likelihood.learned else Gaussian(float(likelihood.width / scale))
        elif not likelihood.learned:
            raise InputError("features that are scaled one by one need a learned width; a fixed one has one unit")
        else:
            # A feature that hardly varies, such as a stiff bond, must not have its noise blown up.
            scale = np.maximum(scale, 0.01 * np.sqrt(np.mean(scale**2)))
        mean, scale = jnp.asarray(mean, jnp.float32), jnp.asarray(scale, jnp.float32)
        # The VAE sees scaled features; this constant makes its log density one of the features themselves.
        jacobian = float(jnp.sum(jnp.log(jnp.broadcast_to(scale, mean.shape))))
        x = _scaled(x, np.asarray(mean), np.asarray(scale))
    if settings["epochs"] is None:
        steps = -(-_DEFAULT_STEPS // (len(rows) // settings["batch_size"]))
        settings = settings | {"epochs": int(max(10, steps))}
    identity = {"sha256": digest(x) if sha256 is None else sha256, "n_frames": n}
    if weights is not None:
        identity["weights_sha256"] = digest(weights)
    return Prepared(x, weights, rows, val_rows, mean, scale, likelihood, jacobian, settings, identity)


def _check_settings(s: dict) -> None:
    for name, least in (("beta", 0), ("free_bits", 0)):
        if not least <= s[name] < float("inf"):
            raise InputError(f"{name} must be {least} or a positive number; got {s[name]}")
    if not 0 < s["learning_rate"] < float("inf"):
        raise InputError(f"the learning rate must be positive; got {s['learning_rate']}")
    for name, least in (("epochs", 1), ("batch_size", 1), ("lag", 0), ("patience", 1)):
        if s[name] is not None and s[name] < least:
            raise InputError(f"{name.replace('_', ' ')} must be at least {least}; got {s[name]}")
    if not 0 <= s["seed"] < 2**32:
        raise InputError(f"the seed must lie between 0 and 2^32 - 1; got {s['seed']}")
    for name, known in (("beta_schedule", BETA_SCHEDULES), ("lr_schedule", LR_SCHEDULES)):
        if s[name] not in known:
            raise InputError(f"{name} must be one of {', '.join(known)}; got {s[name]!r}")


def _checked_weights(weights, n: int, rows: np.ndarray) -> np.ndarray | None:
    if weights is None:
        return None
    weights = np.asarray(weights, np.float64)
    if weights.shape != (n,):
        raise InputError(f"weights must hold one number a frame, shape ({n},); got {weights.shape}")
    good = np.isfinite(weights) & (weights >= 0)
    if not good.all():
        frame = int(np.argmin(good))
        raise InputError(f"weights must be 0 or positive numbers; that of frame {frame} is {weights[frame]}")
    if not weights[rows].any():
        raise InputError(
            "all training frames have weight 0; give the weights of a biased run, such as exp(bias / kT)"
        )
    return weights


def _moments(x: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and standard deviation of each feature, float64; refuses data that do not vary."""
    pieces = [slice(k, k + _CHUNK) for k in range(0, len(x), _CHUNK)]
    total = float(weights.sum(dtype=np.float64))
    mean = sum(weights[p].astype(np.float64) @ x[p] for p in pieces) / total
    variance = sum(weights[p].astype(np.float64) @ (x[p] - mean) ** 2 for p in pieces) / total
    largest = max(float(np.abs(x[p]).max()) for p in pieces)
    if not np.sqrt(variance.mean()) > 1e-6 * largest:
        raise InputError(f"the {len(x)} frames are all the same; there is nothing to learn from them")
    return mean, np.sqrt(variance)


def _scaled(x: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    if not isinstance(x, np.memmap):
        return (x - mean) / scale
    for k in range(0, len(x), _CHUNK):
        x[k : k + _CHUNK] = (x[k : k + _CHUNK] - mean) / scale
    return x

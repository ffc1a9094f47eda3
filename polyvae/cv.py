"""The latent collective variable: featurizer, scaling and VAE in one artefact."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from importlib import metadata

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jaxtyping import Array, Float

from polyvae import geometry
from polyvae.errors import InputError
from polyvae.featurize import FEATURIZERS, PairDistances, PrincipalAxes, Reference
from polyvae.files import replacing
from polyvae.likelihood import Gaussian
from polyvae.sources import Stream, as_trajectory
from polyvae.train import train, validation_blocks
from polyvae.trajectory import Trajectory
from polyvae.vae import VAE

FORMAT = 1
_CHUNK = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class LatentCV:
    """Latent coordinates of a conformation, as a function of its bead positions.

    `cv(positions)` is a pure function of one frame (n_beads, n_dims), in `length_unit`; `jax.jit`,
    `jax.grad` and `jax.vmap` apply. It is the mean of the encoder, hence deterministic.

    Args:
        featurizer: positions to features, rotation and translation taken off.
        mean: (n_features,), the mean of the features over the training frames.
        scale: one standard deviation over all features, about that mean; for distances one a feature.
            Both in `length_unit`, so that a fit does not depend on the unit of the data.
        vae: acts on (features - mean) / scale.
        template: one frame of the training data, for its bead count, unit, masses, names and bonds.
        record: how the model was made: settings, data fingerprint, versions, history.
    """

    featurizer: PrincipalAxes | Reference | PairDistances
    mean: Float[Array, "features"]
    scale: Float[Array, "*features"]
    vae: VAE
    template: Trajectory
    record: dict

    # Compiled once for each model, not once for each call.
    _compiled = functools.cached_property(lambda self: jax.jit(lambda x: self.posterior(x)[0]))
    _batched = functools.cached_property(lambda self: jax.jit(jax.vmap(self)))
    _batched_posterior = functools.cached_property(lambda self: jax.jit(jax.vmap(self.posterior)))
    _batched_align = functools.cached_property(lambda self: jax.jit(jax.vmap(self._align_one)))
    _batched_decode = functools.cached_property(lambda self: jax.jit(jax.vmap(self.decode_one)))
    _batched_features = functools.cached_property(lambda self: jax.jit(jax.vmap(self.decode_features)))

    latent_dim = property(lambda self: self.vae.latent_dim, doc="Number of latent coordinates.")
    n_beads = property(lambda self: self.template.n_beads, doc="Beads in a frame.")
    n_dims = property(lambda self: self.template.n_dims, doc="2 or 3.")
    length_unit = property(lambda self: self.template.length_unit, doc="Unit of all lengths.")

    def __repr__(self):
        return (
            f"<LatentCV: {self.n_beads} beads in {self.n_dims}-D ({self.length_unit}) "
            f"-> {type(self.featurizer).__name__} -> {self.latent_dim} latents>"
        )

    def __call__(self, positions: Float[Array, "beads dims"]) -> Float[Array, "latent"]:
        """Latent coordinates of one frame."""
        return self._compiled(jnp.asarray(positions))

    def posterior(self, positions: Float[Array, "beads dims"]):
        """Mean and standard deviation of q(z|x) for one frame."""
        return self.vae.encode(self.standardize(positions))

    def standardize(self, positions: Float[Array, "beads dims"]) -> Float[Array, "features"]:
        """Scaled features of one frame: what the VAE sees."""
        positions = jnp.asarray(positions)
        if positions.shape != (self.n_beads, self.n_dims):
            raise InputError(
                f"one frame must have shape ({self.n_beads}, {self.n_dims}); got {positions.shape}. "
                f"Use jax.vmap, or cv.transform for many frames"
            )
        return (self.featurizer(positions) - self.mean) / self.scale

    def decode_one(self, z: Float[Array, "latent"]) -> Float[Array, "beads dims"]:
        """Mean conformation at one point of the latent space, in the featurizer's frame."""
        return self.featurizer.inverse(self.decode_features(z), self.n_dims)

    def decode_features(self, z: Float[Array, "latent"]) -> Float[Array, "features"]:
        """Mean features at one point of the latent space, in `length_unit`."""
        return self.vae.decode(z) * self.scale + self.mean

    def transform(self, data: Trajectory | np.ndarray) -> np.ndarray:
        """Latent coordinates (n_frames, latent_dim) of a trajectory, or of all that `as_trajectory` takes.

        Data in another physical unit are converted; a plain array (n_frames, n_beads, n_dims) is taken to
        be in the model's unit. The result for a frame does not depend on the other frames.
        """
        if isinstance(data, Stream):
            return np.concatenate([self.transform(chunk) for chunk in data])
        return map_frames(self._batched, self.frames(data))

    def transform_posterior(self, data: Trajectory | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of q(z|x) for each frame, both (n_frames, latent_dim)."""
        return map_frames(self._batched_posterior, self.frames(data))

    def decode(self, z: Float[Array, "frames latent"], *, coordinates: bool = False) -> np.ndarray:
        """Mean conformations (n, n_beads, n_dims) at latent points (n, latent_dim).

        A model of `PairDistances` gives the mean distances (n, n_pairs) instead, or, with
        `coordinates=True`, the conformations whose distances come closest to those, which takes longer.
        """
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise InputError(f"z must have shape (n, {self.latent_dim}); got {z.shape}")
        if self.featurizer.coordinates or coordinates:
            return map_frames(self._batched_decode, z)
        return np.maximum(map_frames(self._batched_features, z), 0)

    def align(self, data: Trajectory | np.ndarray) -> np.ndarray:
        """Positions (n_frames, n_beads, n_dims) in the featurizer's frame, where decoded ones are too.

        `PairDistances` has no frame; the principal axes then stand in.
        """
        return map_frames(self._batched_align, self.frames(data))

    def _align_one(self, positions):
        if self.featurizer.coordinates:
            return self.featurizer.inverse(self.featurizer(positions), self.n_dims)
        return geometry.in_principal_frame(positions)

    def frames(self, data: Trajectory | np.ndarray) -> np.ndarray:
        """Positions (n_frames, n_beads, n_dims) in the model's unit, checked against the model."""
        data = as_trajectory(data, array_unit=self.length_unit, dims=self.n_dims)
        if (data.n_beads, data.n_dims) != (self.n_beads, self.n_dims):
            raise InputError(
                f"the model takes {self.n_beads} beads in {self.n_dims}-D; the data hold {data.n_beads} beads "
                f"in {data.n_dims}-D. Select the beads that the model was trained on"
            )
        return data.to_unit(self.length_unit).positions

    def save(self, path: str | os.PathLike) -> None:
        """Write the model as safetensors with a JSON header; the file appears whole or not at all."""
        tensors, header = _pack(self)
        with replacing(path) as temporary:
            safetensors.numpy.save_file(tensors, temporary, metadata={"polyvae": header})


def map_frames(batched: Callable, rows: np.ndarray):
    """A compiled, batched function over many rows, in chunks of one fixed size.

    One compilation and bounded memory; and since the shape is always the same, the result for a row does
    not depend, to the last bit, on how many rows come with it.
    """
    if len(rows) == 0:
        output = jax.eval_shape(batched, jax.ShapeDtypeStruct((0, *rows.shape[1:]), rows.dtype))
        return jax.tree.map(lambda a: np.empty(a.shape, a.dtype), output)
    outputs = []
    for start in range(0, len(rows), _CHUNK):
        piece = rows[start : start + _CHUNK]
        padding = [(0, _CHUNK - len(piece))] + [(0, 0)] * (rows.ndim - 1)
        output = batched(np.pad(piece, padding, mode="edge"))
        outputs.append(jax.tree.map(functools.partial(_head, n=len(piece)), output))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)


def _head(rows, n: int) -> np.ndarray:
    return np.asarray(rows)[:n]


def fit(
    data: Trajectory | np.ndarray,
    *,
    featurizer: PrincipalAxes | Reference | PairDistances | None = None,
    latent_dim: int = 2,
    encoder: Sequence[int] = (64, 64),
    decoder: Sequence[int] = (256, 256),
    beta: float = 1.0,
    width: float | str = "learned",
    epochs: int | None = None,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    validation: float = 0.1,
    patience: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> LatentCV:
    """Train a VAE on a trajectory and return its latent coordinates as a collective variable.

    The objective, in nats per frame and as a density in the data's length unit, is
    E_q[log p(x|z)] - beta KL(q(z|x) || N(0, I)); beta = 1 is the evidence lower bound.

    Args:
        data: a `Trajectory`, or what `as_trajectory` takes; an array (n_frames, n_beads, n_dims) is in
            reduced units.
        featurizer: `PrincipalAxes()` by default.
        latent_dim: number of collective variables.
        encoder, decoder: widths of the hidden layers. The encoder is what runs inside an MD engine at
            every step, the decoder never does.
        beta: weight of the KL term.
        width: standard deviation of the decoder's Gaussian, "learned" or a length. With `PairDistances`,
            whose features each have their own scale, only "learned".
        epochs: by default as many as make about 8,000 steps, at least 10.
        validation: fraction of the frames held out in contiguous blocks, for early stopping. With 0
            the model learns from every frame for all epochs, and will in time learn them by heart.
        patience: epochs without a better validation bound before training stops.
        seed: of weights, batches and noise; one seed gives one result.
        progress: called with epochs done, epochs in all, and the latest loss terms.

    Raises:
        InputError: unusable settings, constant data, fewer training frames than a batch.
    """
    traj = as_trajectory(data)
    if not 0 <= beta < float("inf"):
        raise InputError(f"beta must be 0 or a positive number; got {beta}")
    if epochs is not None and epochs < 1:
        raise InputError(f"epochs must be at least 1; got {epochs}")
    if not 0 <= seed < 2**32:
        raise InputError(f"the seed must lie between 0 and 2^32 - 1; got {seed}")
    if batch_size < 1:
        raise InputError(f"the batch size must be at least 1; got {batch_size}")
    held_out = validation_blocks(traj.n_frames, validation)
    n_train = int((~held_out).sum())
    if n_train < batch_size:
        raise InputError(
            f"training needs at least one batch of {batch_size} frames; the data hold {traj.n_frames} frames, "
            f"{n_train} after {validation:.0%} for validation. Use more frames or a smaller batch size"
        )
    featurizer = (PrincipalAxes() if featurizer is None else featurizer).fit(traj)
    if not (featurizer.coordinates or isinstance(width, str)):
        raise InputError(f'with {type(featurizer).__name__} the width must be "learned"; got {width!r}')
    features = map_frames(jax.jit(jax.vmap(featurizer)), traj.positions)
    mean = features[~held_out].mean(axis=0, dtype=np.float64)
    scale = float(np.sqrt(np.mean((features[~held_out] - mean) ** 2)))
    if not scale > 1e-6 * float(np.abs(traj.positions).max()):
        raise InputError(
            f"the {traj.n_frames} frames are all the same conformation; there is nothing to learn from them"
        )
    if not featurizer.coordinates:
        # A distance that hardly varies, such as a stiff bond, must not have its noise blown up.
        scale = np.maximum(features[~held_out].std(axis=0, dtype=np.float64), 0.01 * scale)
    mean, scale = jnp.asarray(mean, jnp.float32), jnp.asarray(scale, jnp.float32)
    x = (jnp.asarray(features) - mean[None]) / jnp.atleast_2d(scale)

    settings = {
        "featurizer": type(featurizer).__name__,
        "latent_dim": int(latent_dim),
        "encoder": list(map(int, encoder)),
        "decoder": list(map(int, decoder)),
        "beta": float(beta),
        "width": width if isinstance(width, str) else float(width),
        "epochs": int(max(10, -(-8000 // (n_train // batch_size))) if epochs is None else epochs),
        "batch_size": int(batch_size),
        "learning_rate": float(learning_rate),
        "validation": float(validation),
        "seed": int(seed),
    }
    init_key, train_key = jax.random.split(jax.random.key(seed))
    likelihood = Gaussian(width if isinstance(width, str) else width / float(scale))
    initial = eqx.filter_jit(VAE)(  # compiled as one: a dozen small programs take seconds
        x.shape[1],
        latent_dim=latent_dim,
        encoder=tuple(encoder),
        decoder=tuple(decoder),
        likelihood=likelihood,
        key=init_key,
    )
    # The VAE sees scaled features; this constant makes its log density one of the features themselves.
    jacobian = float(jnp.sum(jnp.log(jnp.broadcast_to(scale, mean.shape))))

    def in_data_units(terms):
        return {k: v + jacobian if k.endswith("reconstruction") else v for k, v in terms.items()}

    trained = train(
        initial,
        x[np.flatnonzero(~held_out)],
        x[np.flatnonzero(held_out)] if held_out.any() else None,
        beta=beta,
        epochs=settings["epochs"],
        batch_size=batch_size,
        learning_rate=learning_rate,
        patience=patience,
        key=train_key,
        progress=progress and (lambda done, terms: progress(done, settings["epochs"], in_data_units(terms))),
    )
    record = {
        "settings": settings,
        "data": {
            "sha256": fingerprint(traj),
            "n_frames": traj.n_frames,
            "n_train": n_train,
            "n_validation": traj.n_frames - n_train,
        },
        "versions": {name: metadata.version(name) for name in ("polyvae", "jax", "equinox", "optax")},
        "history": {k: v.astype(float).tolist() for k, v in in_data_units(trained.history).items()},
        "best_epoch": trained.best_epoch,
        "stopped": trained.stopped,
    }
    template = dataclasses.replace(traj[0], time=None, weights=None, box=None, origin=None)
    return LatentCV(featurizer, mean, scale, trained.vae, template, record)


def fingerprint(traj: Trajectory) -> str:
    """SHA-256 of the positions, which tells whether a model has seen exactly these frames."""
    return hashlib.sha256(traj.positions.tobytes()).hexdigest()


def load(path: str | os.PathLike) -> LatentCV:
    """Read a model that `LatentCV.save` wrote. Nothing in the file is executed.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the file is no polyvae model, of a newer format, or incomplete; named.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file; give a model that `polyvae fit` or `run` wrote")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get("polyvae")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(header) if header else None
    except (safetensors.SafetensorError, json.JSONDecodeError, OSError) as error:
        raise InputError(f"{path} is not a polyvae model ({error}); give a model.safetensors") from None
    if not isinstance(header, dict):
        raise InputError(f"{path} is a safetensors file but no polyvae model: it has no polyvae header")
    if header.get("format") != FORMAT:
        raise InputError(
            f"{path} has model format {header.get('format')!r}; this version of polyvae reads {FORMAT}. "
            f"Use the polyvae version that wrote it"
        )
    try:
        return _unpack(tensors, header)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path} is damaged: {error}. Write the model again") from None


def _pack(cv: LatentCV) -> tuple[dict[str, np.ndarray], str]:
    """Tensors by name, and the JSON header."""
    tensors = {"mean": cv.mean, "scale": cv.scale, "log_width": cv.vae.likelihood.log_width}
    for name in ("encoder", "decoder"):
        for k, layer in enumerate(getattr(cv.vae, name).layers):
            tensors |= {f"{name}.{k}.weight": layer.weight, f"{name}.{k}.bias": layer.bias}
    tensors |= {f"template.{name}": getattr(cv.template, name) for name in ("positions", "masses")}
    if cv.template.bonds is not None:
        tensors["template.bonds"] = cv.template.bonds
    options = {}
    for field in dataclasses.fields(cv.featurizer):
        value = getattr(cv.featurizer, field.name)
        if eqx.is_array_like(value) and not isinstance(value, (bool, int, float)):
            tensors[f"featurizer.{field.name}"] = value
        elif value is not None:
            options[field.name] = value
    header = {
        "format": FORMAT,
        "featurizer": {"kind": type(cv.featurizer).__name__, "options": options},
        "length_unit": cv.length_unit,
        "n_beads": cv.n_beads,
        "n_dims": cv.n_dims,
        "names": cv.template.names,
        "latent_dim": cv.latent_dim,
        "activation": "tanh",
        "width_learned": cv.vae.likelihood.learned,
        "record": cv.record,
    }
    # One key of sorted JSON: the same model is the same bytes.
    text = json.dumps(header, sort_keys=True, separators=(",", ":"))
    return {name: np.asarray(value, order="C") for name, value in tensors.items()}, text


def _unpack(tensors: dict[str, np.ndarray], header: dict) -> LatentCV:
    template = Trajectory(
        tensors["template.positions"],
        length_unit=header["length_unit"],
        masses=tensors["template.masses"],
        names=header["names"],
        bonds=tensors.get("template.bonds"),
    )
    kind = header["featurizer"]["kind"]
    if kind not in FEATURIZERS:
        raise ValueError(f"featurizer {kind!r} is not known")
    arrays = {
        name.removeprefix("featurizer."): jnp.asarray(value)
        for name, value in tensors.items()
        if name.startswith("featurizer.")
    }
    featurizer = FEATURIZERS[kind](**header["featurizer"]["options"], **arrays)
    hidden = {
        name: [len(tensors[f"{name}.{k}.bias"]) for k in range(sum(f"{name}." in t for t in tensors) // 2 - 1)]
        for name in ("encoder", "decoder")
    }
    vae = VAE(
        len(tensors["mean"]),
        latent_dim=header["latent_dim"],
        **hidden,
        likelihood=Gaussian("learned" if header["width_learned"] else 1.0),
        key=jax.random.key(0),
    )

    def take(name, like):
        value = tensors[name]
        if value.shape != like.shape or value.dtype != like.dtype:
            raise ValueError(f"{name} is {value.dtype}{value.shape}, expected {like.dtype}{like.shape}")
        return jnp.asarray(value)

    for name in ("encoder", "decoder"):
        layers = getattr(vae, name).layers
        layers = tuple(
            eqx.tree_at(
                lambda layer: (layer.weight, layer.bias),
                layer,
                (take(f"{name}.{k}.weight", layer.weight), take(f"{name}.{k}.bias", layer.bias)),
            )
            for k, layer in enumerate(layers)
        )
        vae = eqx.tree_at(lambda v, name=name: getattr(v, name).layers, vae, layers)
    vae = eqx.tree_at(lambda v: v.likelihood.log_width, vae, take("log_width", vae.likelihood.log_width))
    n_features = (len(tensors["mean"]),)
    mean = take("mean", np.empty(n_features, np.float32))
    scale = take("scale", np.float32(1) if featurizer.coordinates else mean)
    return LatentCV(featurizer, mean, scale, vae, template, header["record"])

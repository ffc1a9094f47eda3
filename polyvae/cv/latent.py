"""The latent collective variable: featurizer, scaling and VAE in one artefact."""

import contextlib
import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polyvae import geometry
from polyvae.batches import map_frames
from polyvae.cv.diffusion import Generator
from polyvae.errors import InputError
from polyvae.features.featurizers import FEATURIZERS, PairDistances, PrincipalAxes, Reference
from polyvae.measures.limits import limits_of
from polyvae.trajectory.record import Selection, Trajectory
from polyvae.trajectory.stream import Stream, as_trajectory, concatenate
from polyvae.vae import modelfile
from polyvae.vae.checkpoint import digest
from polyvae.vae.fitting import prepare, settings_of
from polyvae.vae.likelihood import Gaussian
from polyvae.vae.model import FittedVAE
from polyvae.vae.network import VAE
from polyvae.vae.training import validation_blocks

IN_MEMORY = 1 << 30  # bytes of coordinates beyond which `fit` works from a file
_PIECE = 1 << 16  # frames at a time then


class CVFunction(eqx.Module):
    """What a `LatentCV` computes, for one frame, without what it knows beside."""

    featurizer: PrincipalAxes | Reference | PairDistances
    mean: Float[Array, "features"]
    scale: Float[Array, "*features"]
    vae: VAE
    n_dims: int = eqx.field(static=True)

    def standardize(self, positions):
        return (self.featurizer(positions) - self.mean) / self.scale

    def posterior(self, positions):
        return self.vae.encode(self.standardize(positions))

    def decode_features(self, z):
        return self.vae.decode(z) * self.scale + self.mean

    def decode(self, z):
        return self.featurizer.inverse(self.decode_features(z), self.n_dims)

    def align(self, positions):
        if self.featurizer.coordinates:
            return self.featurizer.inverse(self.featurizer(positions), self.n_dims)
        return geometry.in_principal_frame(positions)


# The weights are arguments: a second model of the same shape is not compiled again.
_encode = eqx.filter_jit(lambda cv, rows: jax.vmap(cv.posterior)(rows))
_decode = eqx.filter_jit(lambda cv, rows: jax.vmap(cv.decode)(rows))
_decode_features = eqx.filter_jit(lambda cv, rows: jax.vmap(cv.decode_features)(rows))
_align = eqx.filter_jit(lambda cv, rows: jax.vmap(cv.align)(rows))
_featurize = eqx.filter_jit(lambda featurizer, rows: jax.vmap(featurizer)(rows))


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
        generator: draws conformations at a z, where `fit_generator` has made one. The CV does not use it.
    """

    featurizer: PrincipalAxes | Reference | PairDistances
    mean: Float[Array, "features"]
    scale: Float[Array, "*features"]
    vae: VAE
    template: Trajectory
    record: dict
    generator: Generator | None = None

    # For one frame the weights are constants of the program, compiled once for each model.
    _compiled = functools.cached_property(lambda self: jax.jit(lambda x: self.posterior(x)[0]))

    latent_dim = property(lambda self: self.vae.latent_dim, doc="Number of latent coordinates.")
    n_beads = property(lambda self: self.template.n_beads, doc="Beads in a frame.")
    n_dims = property(lambda self: self.template.n_dims, doc="2 or 3.")
    length_unit = property(lambda self: self.template.length_unit, doc="Unit of all lengths.")

    def __repr__(self):
        return (
            f"<LatentCV: {self.n_beads} beads in {self.n_dims}-D ({self.length_unit}) "
            f"-> {type(self.featurizer).__name__} -> {self.latent_dim} latents"
            f"{'' if self.generator is None else ', with a generator'}>"
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
        return self.function().standardize(positions)

    def function(self) -> "CVFunction":
        """The model's arithmetic alone, a pytree, for functions that take the weights as an argument."""
        return CVFunction(self.featurizer, self.mean, self.scale, self.vae, self.n_dims)

    def decode_one(self, z: Float[Array, "latent"]) -> Float[Array, "beads dims"]:
        """Mean conformation at one point of the latent space, in the featurizer's frame."""
        return self.function().decode(z)

    def decode_features(self, z: Float[Array, "latent"]) -> Float[Array, "features"]:
        """Mean features at one point of the latent space, in `length_unit`."""
        return self.function().decode_features(z)

    def transform(self, data: Trajectory | np.ndarray, *, first_frame: int = 0) -> np.ndarray:
        """Latent coordinates (n_frames, latent_dim) of a trajectory, or of all that `as_trajectory` takes.

        Data in another physical unit are converted; a plain array (n_frames, n_beads, n_dims) is taken to
        be in the model's unit. The result for a frame does not depend on the other frames. A frame whose
        latent coordinates are not finite is refused; frames are counted from `first_frame` in that message.
        """
        if isinstance(data, Stream):
            found = []
            for chunk in data:
                found.append(self.transform(chunk, first_frame=first_frame + sum(map(len, found))))
            return np.concatenate(found)
        positions = self.frames(data)
        z = self._map(_encode, positions)[0]
        if not (good := np.isfinite(z).all(axis=1)).all():
            bad = int(np.argmin(good))
            raise InputError(
                f"the latent coordinates of frame {first_frame + bad} are {z[bad].tolist()}, where the largest "
                f"coordinate is {np.abs(positions[bad]).max():g} {self.length_unit}; they must be finite. "
                f"Remove that frame, or check its coordinates"
            )
        return z

    def transform_posterior(self, data: Trajectory | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of q(z|x) for each frame, both (n_frames, latent_dim)."""
        return self._map(_encode, self.frames(data))

    def decode(self, z: Float[Array, "frames latent"], *, coordinates: bool = False) -> np.ndarray:
        """Mean conformations (n, n_beads, n_dims) at latent points (n, latent_dim).

        A model of `PairDistances` gives the mean distances (n, n_pairs) instead, or, with
        `coordinates=True`, the conformations whose distances come closest to those, which takes longer.
        """
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise InputError(f"z must have shape (n, {self.latent_dim}); got {z.shape}")
        if self.featurizer.coordinates or coordinates:
            if not self.featurizer.coordinates:
                self.featurizer.check_joined()  # within a compiled function the pairs are not known
            return self._map(_decode, z)
        return np.maximum(self._map(_decode_features, z), 0)

    def align(self, data: Trajectory | np.ndarray) -> np.ndarray:
        """Positions (n_frames, n_beads, n_dims) in the featurizer's frame, where decoded ones are too.

        `PairDistances` has no frame; the principal axes then stand in.
        """
        return self._map(_align, self.frames(data))

    def _map(self, batched: Callable, rows: np.ndarray):
        return map_frames(functools.partial(batched, self.function()), rows)

    def frames(self, data: Trajectory | np.ndarray) -> np.ndarray:
        """Positions (n_frames, n_beads, n_dims) in the model's unit, checked against the model."""
        data = as_trajectory(data, array_unit=self.length_unit, dims=self.n_dims)
        if (data.n_beads, data.n_dims) != (self.n_beads, self.n_dims):
            trained = self.template.selection
            raise InputError(
                f"the model takes {self.n_beads} beads in {self.n_dims}-D; the data hold {data.n_beads} beads "
                f"in {data.n_dims}-D. Select the beads that the model was trained on"
                + (f" ({trained})" if trained else "")
            )
        return data.to_unit(self.length_unit).positions

    def save(self, path: str | os.PathLike) -> None:
        """Write the model as safetensors with a JSON header; the file appears whole or not at all."""
        tensors = {"mean": self.mean, "scale": self.scale} | modelfile.tensors_of(self.vae)
        tensors |= {f"template.{name}": getattr(self.template, name) for name in ("positions", "masses")}
        if self.template.bonds is not None:
            tensors["template.bonds"] = self.template.bonds
        if self.generator is not None:
            tensors |= {f"generator.{name}": value for name, value in self.generator.tensors().items()}
        selection, options = self.template.selection, {}
        for field in dataclasses.fields(self.featurizer):
            value = getattr(self.featurizer, field.name)
            if eqx.is_array_like(value) and not isinstance(value, (bool, int, float)):
                tensors[f"featurizer.{field.name}"] = value
            elif value is not None:
                options[field.name] = value
        header = {
            "featurizer": {"kind": type(self.featurizer).__name__, "options": options},
            "length_unit": self.length_unit,
            "n_beads": self.n_beads,
            "n_dims": self.n_dims,
            "names": self.template.names,
            "selection": selection and selection._asdict() | {"atoms": selection.atoms.tolist()},
            "record": self.record,
        }
        modelfile.write(path, tensors, header | modelfile.header_of(self.vae))

    @classmethod
    def from_file(cls, tensors: dict, header: dict) -> "LatentCV":
        template = Trajectory(
            tensors["template.positions"],
            length_unit=header["length_unit"],
            masses=tensors["template.masses"],
            names=header["names"],
            bonds=tensors.get("template.bonds"),
            selection=Selection(**header["selection"]) if header.get("selection") else None,
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
        vae = modelfile.vae_of(tensors, header)
        mean = modelfile.take(tensors, "mean", np.empty(vae.encoder.layers[0].in_features, np.float32))
        scale = modelfile.take(tensors, "scale", np.float32(1) if featurizer.coordinates else mean)
        own = {name.removeprefix("generator."): t for name, t in tensors.items() if name.startswith("generator.")}
        generator = Generator.from_tensors(own, template.positions.shape[1:]) if own else None
        return cls(featurizer, mean, scale, vae, template, header["record"], generator)


def load(path: str | os.PathLike) -> LatentCV | FittedVAE:
    """Read a model that was saved. Nothing in the file is executed.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the file is no polyvae model, of another format, or incomplete; named.
    """
    tensors, header = modelfile.read(path)
    try:
        return (LatentCV if "featurizer" in header else FittedVAE).from_file(tensors, header)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path} is damaged: {error}. Write the model again") from None


def load_cv(path: str | os.PathLike) -> LatentCV:
    """`load`, for what needs coordinates; another kind of model is refused by name."""
    model = load(path)
    if not isinstance(model, LatentCV):
        raise InputError(f"{path} holds {model!r}, which takes no coordinates; give a model of a trajectory")
    return model


def fit(
    data: Trajectory | np.ndarray,
    *,
    featurizer: PrincipalAxes | Reference | PairDistances | None = None,
    latent_dim: int = 2,
    encoder: Sequence[int] = (64, 64),
    decoder: Sequence[int] = (256, 256),
    beta: float = 1.0,
    beta_schedule: str = "constant",
    free_bits: float = 0.0,
    lag: int = 0,
    weights: np.ndarray | None = None,
    width: float | str = "learned",
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
    cache: str | os.PathLike | None = None,
) -> LatentCV:
    """Train a VAE on a trajectory and return its latent coordinates as a collective variable.

    The objective, in nats per frame and as a density in the data's length unit, is
    E_q[log p(x|z)] - beta KL(q(z|x) || N(0, I)); beta = 1 is the evidence lower bound.

    Args:
        data: a `Trajectory`, a `Stream`, or what `as_trajectory` takes; an array (n_frames, n_beads, n_dims)
            is in reduced units.
        featurizer: `PrincipalAxes()` by default.
        latent_dim: number of collective variables.
        encoder, decoder: widths of the hidden layers. The encoder is what runs inside an MD engine at
            every step, the decoder never does.
        beta: weight of the KL term.
        beta_schedule, free_bits, lag, learning_rate, lr_schedule: see `fit_vae`. With a lag the decoder
            gives the mean conformation that many frames later.
        weights: (n_frames,) of the frames, such as exp(bias / kT) of a biased run; those of the data by default.
        width: standard deviation of the decoder's Gaussian, "learned" or a length. With `PairDistances`,
            whose features each have their own scale, only "learned".
        epochs: by default as many as make about 8,000 steps, at least 10.
        validation: fraction of the frames held out in contiguous blocks, for early stopping. With 0
            the model learns from every frame for all epochs, and will in time learn them by heart.
        patience: epochs without a better validation bound before training stops.
        seed: of weights, batches and noise; one seed gives one result.
        progress: called with epochs done, epochs in all, and the latest loss terms.
        checkpoint: file for the state of the run, renewed about every second; remove it once the model is saved.
        resume: go on from that file where it exists; on the same machine with as many cores the result has
            the same bits.
        cache: folder for temporary files with coordinates and features, which data of more than
            `IN_MEMORY` bytes are trained from; the system's own by default.

    Raises:
        InputError: unusable settings, constant data, fewer training frames than a batch.
    """
    settings = settings_of(locals()) | {
        "width": width if isinstance(width, str) else Gaussian(width) and float(width)
    }
    with prepared_data(data, featurizer, settings, weights, cache) as (featurizer, template, prepared):
        return latent_cv(
            prepared.train(progress=progress, checkpoint=checkpoint, resume=resume), featurizer, template
        )


def latent_cv(model: FittedVAE, featurizer, template: Trajectory) -> LatentCV:
    return LatentCV(featurizer, model.mean, model.scale, model.vae, template, model.record)


@contextlib.contextmanager
def prepared_data(data, featurizer, settings: dict, weights=None, cache=None) -> Iterator[tuple]:
    """The fitted featurizer, the template frame, and the features ready for training."""
    with contextlib.ExitStack() as stack:
        new_file = functools.partial(_temporary_file, stack, cache)
        traj = _gathered(data, new_file) if isinstance(data, Stream) else as_trajectory(data)
        if weights is not None:
            traj = dataclasses.replace(traj, weights=weights)
        featurizer = PrincipalAxes() if featurizer is None else featurizer
        if not isinstance(featurizer, tuple(FEATURIZERS.values())):
            raise InputError(
                f"featurizer must be one of {', '.join(FEATURIZERS)}, as in Reference(); got {featurizer!r}"
            )
        # A reference structure must not see the frames that the model is measured on.
        seen = ~validation_blocks(traj.n_frames, settings["validation"])
        featurizer = featurizer.fit(
            dataclasses.replace(traj, weights=seen * (1.0 if traj.weights is None else traj.weights))
        )
        if not (featurizer.coordinates or isinstance(settings["width"], str)):
            raise InputError(
                f'with {type(featurizer).__name__} the width must be "learned"; got {settings["width"]!r}'
            )
        prepared = prepare(
            _features(featurizer, traj, new_file),
            Gaussian(settings["width"]),
            settings=settings | {"featurizer": type(featurizer).__name__},
            segments=traj.segments,
            weights=traj.weights,
            scaling="global" if featurizer.coordinates else "feature",
            sha256=digest(traj.positions),
        )
        about = prepared.identity | {"limits": limits_of(traj, of_frames=True).record()}
        yield featurizer, _template(traj), dataclasses.replace(prepared, identity=about)


def _template(traj: Trajectory) -> Trajectory:
    return dataclasses.replace(traj[0], time=None, weights=None, box=None, origin=None)


def _temporary_file(stack: contextlib.ExitStack, folder, shape: tuple[int, ...]) -> np.memmap:
    """Zeros in a file that goes when the stack does, or at the latest when the process ends."""
    file = stack.enter_context(tempfile.TemporaryFile(dir=folder, prefix="polyvae-"))  # noqa: SIM115
    return np.memmap(file, np.float32, "w+", shape=shape)


def _gathered(stream: Stream, new_file: Callable) -> Trajectory:
    """All chunks of a stream as one trajectory, whose positions lie on disk where they are many."""
    chunks, store, n = [], None, 0
    for chunk in stream:
        if not chunks and len(stream) * chunk.positions[0].nbytes > IN_MEMORY:
            store = new_file((len(stream), *chunk.positions.shape[1:]))
        if store is not None:
            store[n : n + len(chunk)] = chunk.positions
            chunk = dataclasses.replace(chunk, positions=store[n : n + len(chunk)])
        chunks.append(chunk)
        n += len(chunk)
    return concatenate(chunks, positions=None if store is None else store[:n])


def _features(featurizer, traj: Trajectory, new_file: Callable) -> np.ndarray:
    """Features (n_frames, n_features) of all frames, on disk where the positions are many."""
    batched = functools.partial(_featurize, featurizer)
    if traj.positions.nbytes <= IN_MEMORY:
        return map_frames(batched, traj.positions)
    n = jax.eval_shape(featurizer, jax.ShapeDtypeStruct(traj.positions.shape[1:], np.float32)).shape[0]
    store = new_file((traj.n_frames, n))
    for start in range(0, traj.n_frames, _PIECE):
        store[start : start + _PIECE] = map_frames(batched, traj.positions[start : start + _PIECE])
    return store

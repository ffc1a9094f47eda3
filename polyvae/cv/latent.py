"""The latent collective variable: featurizer, scaling and VAE in one artefact."""

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from polyvae import geometry
from polyvae.arguments import flag, numbers_array, one_frame, refusal, whole_number, whole_numbers
from polyvae.batches import map_frames, single_precision
from polyvae.cv.diffusion import Generator
from polyvae.cv.matching import match_beads
from polyvae.errors import InputError
from polyvae.features.featurizers import FEATURIZERS, PairDistances, PrincipalAxes, Reference
from polyvae.measures.limits import Limits
from polyvae.records import check_kinds, html_of
from polyvae.trajectory.convert import as_trajectory
from polyvae.trajectory.record import Selection, Trajectory, bonds_of
from polyvae.trajectory.stream import Stream
from polyvae.vae import modelfile
from polyvae.vae.model import FittedVAE
from polyvae.vae.order import reordered
from polyvae.vae.scaled import ScaledVAE
from polyvae.vae.settings import ModelRecord, Slopes

log = logging.getLogger(__name__)


class CVFunction(eqx.Module):
    """The function of one frame that a `LatentCV` computes, without its records."""

    featurizer: PrincipalAxes | Reference | PairDistances
    scaled: ScaledVAE
    n_dims: int = eqx.field(static=True)

    def posterior(self, positions):
        return self.scaled.encode(self.featurizer(positions))

    def decode(self, z):
        return self.featurizer.inverse(self.scaled.decode(z), self.n_dims)

    def align(self, positions):
        if self.featurizer.coordinates:
            return self.featurizer.inverse(self.featurizer(positions), self.n_dims)
        return geometry.in_principal_frame(positions)


# The weights are arguments: a second model of the same shape is not compiled again.
_encode = eqx.filter_jit(lambda cv, rows: jax.vmap(cv.posterior)(rows))
_decode = eqx.filter_jit(lambda cv, rows: jax.vmap(cv.decode)(rows))
_decode_features = eqx.filter_jit(lambda cv, rows: jax.vmap(cv.scaled.decode)(rows))
_align = eqx.filter_jit(lambda cv, rows: jax.vmap(cv.align)(rows))


@dataclasses.dataclass(frozen=True, eq=False)
class LatentCV:
    """Latent coordinates of a conformation, as a function of its bead positions.

    `cv(positions)` is a pure function of one frame (n_beads, n_dims), in `length_unit`; `jax.jit`,
    `jax.grad` and `jax.vmap` apply. It is the mean of the encoder, hence deterministic.

    Args:
        featurizer: function of positions to features without rotation and translation.
        scaled: scaling and VAE. `mean` (n_features,) is the mean of the features over the training frames.
            `scale` is their standard deviation, one over all features, or one for each distance. Both are in
            `length_unit`, so that a fit does not depend on the unit of the data.
        template: one frame of the training data, with bead count, unit, masses, names, ids and bonds.
        record: how the model was made: settings, data fingerprint, versions, history.
        generator: model of `fit_generator` that draws conformations at a z. The CV does not use it.
    """

    featurizer: PrincipalAxes | Reference | PairDistances
    scaled: ScaledVAE
    template: Trajectory
    record: ModelRecord
    generator: Generator | None = None

    # For one frame the weights are constants of the program, compiled once for each model.
    _compiled = functools.cached_property(lambda self: jax.jit(lambda x: self.posterior(x)[0]))

    vae = property(lambda self: self.scaled.vae, doc="Acts on (features - mean) / scale.")
    mean = property(lambda self: self.scaled.mean, doc="(n_features,), of the features, in `length_unit`.")
    scale = property(lambda self: self.scaled.scale, doc="Their standard deviation, one or one a feature.")
    latent_dim = property(lambda self: self.vae.latent_dim, doc="Number of latent coordinates.")
    n_beads = property(lambda self: self.template.n_beads, doc="Beads in a frame.")
    n_dims = property(lambda self: self.template.n_dims, doc="2 or 3.")
    length_unit = property(lambda self: self.template.length_unit, doc="Unit of all lengths.")

    @property
    def active_latents(self) -> list[int]:
        """Numbers of the latents that are not inactive, slowest first; see `record.collapsed`."""
        inactive = self.record.collapsed or ()
        return [k for k in range(self.latent_dim) if k not in inactive]

    @property
    def limits(self) -> Limits:
        """Limits of bonds and pairs in the training data; `InputError` where the model keeps none."""
        kept = self.record.data.limits
        if kept is None:
            raise InputError(
                "this model keeps no limits of its data, since an older version trained it; train it again, or "
                "give the data: --data TRAJ, or data=traj"
            )
        return Limits(bonds_of(self.template), **kept)

    def __getstate__(self):
        state = dict(self.__dict__)
        state.pop("_compiled", None)  # programs do not travel between processes
        return state

    def __repr__(self):
        text = (
            f"{self.n_beads} beads in {self.n_dims}-D ({self.length_unit}) -> {type(self.featurizer).__name__} "
            f"-> {self.latent_dim} latents"
        )
        if self.generator is not None:
            text += ", with a generator"
        return f"<LatentCV: {text}>"

    def _repr_html_(self) -> str:
        return html_of(repr(self)[1:-1], self.record.table())

    def __call__(self, positions: ArrayLike) -> Float[Array, "latent"]:
        """Latent coordinates of one frame, `positions` (n_beads, n_dims); another shape is refused."""
        return self._compiled(jnp.asarray(one_frame(positions)))

    def posterior(self, positions: ArrayLike):
        """Mean and standard deviation of q(z|x) for one frame, `positions` (n_beads, n_dims)."""
        return self.scaled.encode(self.featurizer(self._one_frame(positions)))

    def standardize(self, positions: ArrayLike) -> Float[Array, "features"]:
        """Scaled features of one frame, `positions` (n_beads, n_dims), as the VAE takes them."""
        return self.scaled.standardize(self.featurizer(self._one_frame(positions)))

    def _one_frame(self, positions) -> Float[Array, "beads dims"]:
        positions = jnp.asarray(one_frame(positions))
        if positions.shape != (self.n_beads, self.n_dims):
            raise InputError(
                f"one frame must have shape ({self.n_beads}, {self.n_dims}); got {positions.shape}. "
                f"Use jax.vmap, or cv.transform for many frames"
            )
        return positions

    def function(self) -> CVFunction:
        """The model's arithmetic alone, a pytree, for functions that take the weights as an argument."""
        return CVFunction(self.featurizer, self.scaled, self.n_dims)

    def transform(self, data: Trajectory | np.ndarray, *, first_frame: int = 0) -> np.ndarray:
        """Latent coordinates (n_frames, latent_dim) of a trajectory, or of all that `as_trajectory` takes.

        Data in another physical unit are converted; the unit of a plain array (n_frames, n_beads, n_dims) is that
        of the model. The result for a frame does not depend on the other frames.

        Args:
            data: a `Trajectory`, a `Stream`, or what `polyvae.as_trajectory` takes.
            first_frame: number of the first frame, for messages.

        Raises:
            InputError: data of other beads; a frame with latent coordinates that are not finite.
        """
        first_frame = whole_number("first_frame", first_frame, 0)
        if isinstance(data, Stream):
            pieces, n_done = [], 0
            for chunk in data:
                pieces.append(self.transform(chunk, first_frame=first_frame + n_done))
                n_done += len(chunk)
            return np.concatenate(pieces)
        return self.encode(self.frames(data), first_frame=first_frame)

    def encode(self, positions: Float[np.ndarray, "frames beads dims"], *, first_frame: int = 0) -> np.ndarray:
        """`transform` without conversion or checks, for `positions` from `frames`; `first_frame` as there."""
        z = self._map(_encode, positions)[0]
        good = np.isfinite(z).all(axis=1)
        if not good.all():
            bad = int(np.argmin(good))
            raise InputError(
                f"the latent coordinates of frame {first_frame + bad} are {z[bad].tolist()}, where the largest "
                f"coordinate is {np.abs(positions[bad]).max():g} {self.length_unit}; they must be finite. "
                f"Remove that frame, or check its coordinates"
            )
        return z

    def transform_posterior(self, data: Trajectory | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of q(z|x), both (n_frames, latent_dim), of `data` as in `transform`."""
        return self._map(_encode, self.frames(data))

    def decode(self, z: Float[Array | np.ndarray, "frames latent"], *, coordinates: bool = False) -> np.ndarray:
        """Mean conformations (n, n_beads, n_dims) at latent points (n, latent_dim).

        A model of `PairDistances` returns the mean distances (n, n_pairs). With `coordinates=True` it returns the
        conformations whose distances come closest to these, which takes longer. Beads without distances are put
        on straight lines between their neighbours.

        Args:
            z: (n, latent_dim).
            coordinates: return conformations for a model of `PairDistances`, too.
        """
        points = numbers_array("z", z, f"an array of numbers (n, {self.latent_dim})", np.float32, finite=False)
        flag("coordinates", coordinates)
        if points.ndim != 2 or points.shape[1] != self.latent_dim:
            raise InputError(f"z must have shape (n, {self.latent_dim}); got {points.shape}")
        if not isinstance(self.featurizer, PairDistances):
            return self._map(_decode, points)
        if not coordinates:
            return np.maximum(self._map(_decode_features, points), 0)
        self.featurizer.check_joined()  # within a compiled function the pairs are not known
        return self._map(_decode, points, width=self.featurizer.work)

    def align(self, data: Trajectory | np.ndarray) -> np.ndarray:
        """Positions (n_frames, n_beads, n_dims) of `data` in the featurizer's frame, as decoded ones are.

        `PairDistances` has no frame; the principal axes are used for it.
        """
        return self.turn(self.frames(data))

    def turn(self, positions: Float[np.ndarray, "frames beads dims"]) -> np.ndarray:
        """`align` without conversion or checks, for `positions` from `frames`."""
        return self._map(_align, positions)

    def _map(self, batched: Callable, rows: np.ndarray, width: int = 1):
        return map_frames(functools.partial(batched, self.function()), rows, width=max(width, self.mean.size))

    def frames(self, data: Trajectory | np.ndarray) -> np.ndarray:
        """Positions (n_frames, n_beads, n_dims) of `data`, converted and checked by `as_trajectory`."""
        return self.as_trajectory(data).positions

    def as_trajectory(self, data: Trajectory | np.ndarray) -> Trajectory:
        """Convert `data` with `polyvae.as_trajectory` to the model's unit, and check them against the model."""
        data = as_trajectory(data, array_unit=self.length_unit, dims=self.n_dims)
        return match_beads(data.to_unit(self.length_unit), self.template, self._report)

    def _report(self, text: str) -> None:
        """Log a warning once for this model."""
        reported = self.__dict__.setdefault("_reported", set())
        if text not in reported:
            reported.add(text)
            log.warning("%s", text)

    @single_precision
    def keep(self, latents: Sequence[int]) -> "LatentCV":
        """The CV of some of the `latents`, by their numbers, in that order, such as `active_latents`.

        Their values and forces stay what they are. The decoder takes 0 for the others. A generator is dropped,
        since it needs all latents. `InputError` for a number that is not that of a latent, or one twice.
        """
        some = f"some of 0 to {self.latent_dim - 1}, each once"
        chosen = list(whole_numbers("latents", np.atleast_1d(latents), some))
        if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(self.latent_dim)):
            raise refusal("latents", some, latents)
        if chosen == list(range(self.latent_dim)):
            return self
        vae = reordered(self.vae, np.array(chosen))
        active, slopes = self.active_latents, self.record.slopes
        if slopes is not None:
            slopes = Slopes(*([values[k] for k in chosen] for values in slopes.to_dict().values()))
        record = dataclasses.replace(
            self.record,
            slopes=slopes,
            settings=dataclasses.replace(self.record.settings, latent_dim=len(chosen)),
            collapsed=[k for k, latent in enumerate(chosen) if latent not in active],
            generator=None,
        )
        scaled = eqx.tree_at(lambda scaled: scaled.vae, self.scaled, vae)
        return dataclasses.replace(self, scaled=scaled, record=record, generator=None)

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to `path`, as safetensors with a JSON header. The file appears whole or not at all."""
        tensors: dict[str, Any] = dict(modelfile.tensors_of(self.scaled))
        tensors |= {f"template.{name}": getattr(self.template, name) for name in ("positions", "masses")}
        if self.template.bonds is not None:
            tensors["template.bonds"] = self.template.bonds
        if self.generator is not None:
            tensors |= {
                f"generator.{name}": value for name, value in modelfile.named_leaves(self.generator).items()
            }
        options, ids, selection = {}, None, None
        if self.template.ids is not None:
            ids = self.template.ids.tolist()
        if (atoms := self.template.selection) is not None:
            selection = atoms._asdict() | {"atoms": atoms.atoms.tolist()}
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
            "ids": ids,
            "periodic": self.template.periodic,
            "selection": selection,
            "record": self.record.to_dict(),
        }
        modelfile.write_model(path, tensors, header | modelfile.header_of(self.vae))

    @classmethod
    def from_file(cls, tensors: dict, header: dict) -> "LatentCV":
        """The CV of the `tensors` and the `header` that a model file holds; `load` reads one."""
        selection = header.get("selection")
        if selection:
            selection = Selection(**selection)
        template = Trajectory(
            tensors["template.positions"],
            length_unit=header["length_unit"],
            masses=tensors["template.masses"],
            names=header["names"],
            bonds=tensors.get("template.bonds"),
            ids=header.get("ids"),
            periodic=header.get("periodic"),
            selection=selection,
        )
        kind = header["featurizer"]["kind"]
        if kind not in FEATURIZERS:
            raise ValueError(f"featurizer {kind!r} is not known")
        arrays: dict[str, Any] = {
            name: jnp.asarray(value) for name, value in _under("featurizer.", tensors).items()
        }
        featurizer = FEATURIZERS[kind](**header["featurizer"]["options"], **arrays)
        scaled = modelfile.scaled_of(tensors, header, one_scale=featurizer.coordinates)
        shape = template.positions.shape[1:]
        modelfile.check_featurizer(featurizer, shape, scaled.mean.size)
        generator = None
        if own := _under("generator.", tensors):
            generator = Generator.from_tensors(own, shape, scaled.vae.latent_dim)
        cv = cls(featurizer, scaled, template, ModelRecord.from_dict(header["record"]), generator)
        if cv.record.data.limits is not None:
            check_kinds(Limits, cv.record.data.limits)
            assert cv.limits  # raises where a value is missing
        return cv


def _under(prefix: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def check_cv(value: Any) -> LatentCV:
    """The argument `cv` of a function that needs one of positions."""
    if not isinstance(value, LatentCV):
        raise refusal("cv", "a LatentCV, the CV of a trajectory that pv.fit and pv.load return", value)
    return value


@single_precision
def load(path: str | os.PathLike) -> LatentCV | FittedVAE:
    """Read a model that was saved. Nothing in the file is executed.

    Args:
        path: a file that `save` wrote.

    Raises:
        FileNotFoundError: the file does not exist.
        InputError: the file is not a polyvae model, has another format version, or is incomplete.
    """
    tensors, header = modelfile.read_model(path)
    try:
        if "featurizer" in header:
            return LatentCV.from_file(tensors, header)
        return FittedVAE.from_file(tensors, header)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        raise InputError(f"{path} is damaged: {error}. Write the model again") from None


def load_cv(path: str | os.PathLike) -> LatentCV:
    """Load a model of coordinates; a model of other vectors is refused."""
    model = load(path)
    if not isinstance(model, LatentCV):
        raise InputError(f"{path} holds {model!r}, which takes no coordinates; give a model of a trajectory")
    return model

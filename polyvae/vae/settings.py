"""Training settings, training data, and results: the records of a model."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

from polyvae.arguments import (
    LARGEST_SEED,
    check_run,
    file_name,
    if_given,
    one_of,
    real_number,
    refusal,
    seed_number,
    whole_number,
    whole_numbers,
)
from polyvae.errors import InputError
from polyvae.records import Record

BETA_SCHEDULES = {"constant": 0.0, "warmup": 0.1, "cycle": 0.5}  # share of the steps on which beta rises from 0
LR_SCHEDULES = ("cosine", "plateau", "constant")
Left = Any  # of the kind in the docstring, or None until the data decide
LEFT_TO_THE_DATA = ("lag", "smoothness", "batch_size", "validation", "encoder", "epochs", "patience")
LEAST_FRAMES = 50  # with fewer, no default makes sense
FEW_FRAMES = 1000  # with fewer, a larger share is held out
WIDE = 1500  # features; from there on the encoder is narrow, since engines run it at every step


@dataclasses.dataclass(frozen=True)
class Settings(Record):
    """The settings of `fit` or `fit_vae`, checked where the record is made.

    Args:
        width, featurizer: of `fit`.
        likelihood, scaling: of `fit_vae`.
        lag, batch_size, epochs: whole numbers. These, `smoothness`, `validation` and `encoder` are None until the
            data decide (`sized`; `cv.choices` for the lag, `prepare` for the epochs).

    Raises:
        InputError: a setting of another kind, or outside its range; named.
    """

    latent_dim: int = 2
    lag: Left = 0
    batch_size: Left = 256
    seed: int = 0
    epochs: Left = None
    patience: int | None = None
    beta: float = 1.0
    free_bits: float = 0.0
    smoothness: Left = 0.0
    learning_rate: float = 2e-3
    validation: Left = 0.1
    encoder: Left = (64, 64)
    decoder: Sequence[int] = (256, 256)
    beta_schedule: str = "constant"
    lr_schedule: str = "cosine"
    width: float | str | None = None
    featurizer: str | None = None
    likelihood: str | None = None
    scaling: str | None = None

    OPTIONAL = ("width", "featurizer", "likelihood", "scaling")

    def __post_init__(self):
        for name, (check, bounds) in _CHECKS.items():
            value = getattr(self, name)
            if value is not None or name not in LEFT_TO_THE_DATA:
                object.__setattr__(self, name, check(name.replace("_", " "), value, **bounds))
        if self.validation is not None and self.validation >= 1:
            raise InputError(f"the validation fraction must be below 1; got {self.validation}")
        one_of("beta_schedule", self.beta_schedule, BETA_SCHEDULES)
        one_of("lr_schedule", self.lr_schedule, LR_SCHEDULES)


def _layer_widths(name: str, value: Any) -> tuple[int, ...]:
    return whole_numbers(name, value, "layer widths, (64, 64)", 1)


# The check of each setting, and its bounds.
_CHECKS: dict[str, tuple[Callable, dict[str, float]]] = {
    "latent_dim": (whole_number, {}),
    "lag": (whole_number, {"least": 0}),
    "batch_size": (whole_number, {"least": 1}),
    "seed": (whole_number, {"least": 0, "most": LARGEST_SEED}),
    "epochs": (whole_number, {"least": 1}),
    "patience": (whole_number, {"least": 1}),
    "beta": (real_number, {"least": 0}),
    "free_bits": (real_number, {"least": 0}),
    "smoothness": (real_number, {"least": 0}),
    "learning_rate": (real_number, {"above": 0}),
    "validation": (real_number, {"least": 0}),
    "encoder": (_layer_widths, {}),
    "decoder": (_layer_widths, {}),
}
_OF_THE_RUN = ("progress", "checkpoint", "resume", "cache")


@dataclasses.dataclass(frozen=True)
class Training:
    """Options of training that are rarely changed, for `fit` and `fit_vae`; checked where the record is made.

    >>> brief = pv.Training(epochs=5, batch_size=32)
    >>> pv.fit(traj, training=brief).record.settings.epochs
    5

    Args:
        beta_schedule: "constant", "warmup" (a rise from 0 over the first tenth of the steps) or "cycle" (a rise
            over the first half).
        free_bits: KL, in nats per latent, that is not penalised; it keeps latents from becoming inactive early.
        epochs: by default as many as make about 8,000 steps, at least 3; fewer steps for wide networks.
        batch_size: frames in a step; by default as `settings.sized` says.
        learning_rate, lr_schedule: of Adam; "cosine" (a rise over the first twentieth of the steps, then a fall
            along a cosine), "plateau" (0.3 times the rate, down to a thousandth of it, each time the bound has not
            grown for a third of `patience`) or "constant".
        validation: fraction of the frames held out in contiguous blocks, for early stopping; by default a tenth,
            of few frames a fifth. With 0 the model is trained on every frame for all epochs, and will overfit.
        patience: epochs without a better validation bound before training stops; by default a fifth of all, and
            with a lag all.
        progress: True for a bar, or a function of epochs done, epochs in all, and the latest loss terms.
        checkpoint: file for the state of the run, renewed about every second; remove it once the model is saved.
        resume: continue from that file where it exists; on the same machine with as many cores the result has
            the same bits.
        cache: folder for temporary files with coordinates and features, for `fit` with data that are too large for
            memory; the system's own by default.

    Raises:
        InputError: an option of another kind, or outside its range; named.
    """

    beta_schedule: str = "constant"
    free_bits: float = 0.0
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float = 2e-3
    lr_schedule: str = "cosine"
    validation: float | None = None
    patience: int | None = None
    progress: Callable[[int, int, dict[str, float]], None] | bool | None = None
    checkpoint: str | os.PathLike | None = None
    resume: bool = False
    cache: str | os.PathLike | None = None

    def __post_init__(self):
        check_run(self.progress, self.checkpoint, self.resume)
        if_given(file_name, "cache", self.cache)
        checked = Settings(**self.settings())
        for name in self.settings():
            object.__setattr__(self, name, getattr(checked, name))

    @classmethod
    def of(cls, training: "Training | None", options: Mapping[str, Any]) -> "Training":
        """A record for a function: `training` or the default, with the `options` that are given by name."""
        if not isinstance(training, Training | None):
            raise refusal("training", "a polyvae.Training(...)", training)
        names = [field.name for field in dataclasses.fields(cls)]
        if unknown := [name for name in options if name not in names]:
            raise TypeError(f"unexpected keyword argument {unknown[0]!r}; the options of training are {names}")
        return dataclasses.replace(training or cls(), **options)

    def settings(self) -> dict[str, Any]:
        """The options that decide the result, by their names in `Settings`."""
        found = {**vars(self)}
        for name in _OF_THE_RUN:
            del found[name]
        return found


def sized(settings: Settings, n_frames: int, n_features: int) -> Settings:
    """Replace a validation share, batch size and encoder that are None by values for this number of frames and
    features.

    The share held out is a tenth, of fewer than 1,000 frames a fifth. A batch is a third of the training frames,
    as a power of two from 16 to 256. The encoder is (64, 64), from 1,500 features on (32, 32). Smaller networks
    for few frames were tried: 60 to 900 frames of a 12-bead chain gave the same bound on held-out ones to 1 nat.

    Raises:
        InputError: fewer than 50 frames, where the batch is left to the data.
    """
    if settings.batch_size is None and n_frames < LEAST_FRAMES:
        raise InputError(
            f"training needs at least {LEAST_FRAMES} frames, better {FEW_FRAMES} or more; got {n_frames}. Use "
            f"more frames, or set a batch size (--batch-size) to train on so few"
        )
    found: dict[str, Any] = {"validation": 0.1, "encoder": (64, 64)}
    if n_frames < FEW_FRAMES:
        found["validation"] = 0.2
    if n_features >= WIDE:
        found["encoder"] = (32, 32)
    found |= {name: getattr(settings, name) for name in found if getattr(settings, name) is not None}
    if settings.batch_size is None:
        third = max(1, int(n_frames * (1 - found["validation"])) // 3)
        found["batch_size"] = min(256, max(16, 1 << third.bit_length() - 1))
    return dataclasses.replace(settings, **found)


@dataclasses.dataclass(frozen=True)
class DataRecord(Record):
    """The data that a model was trained on.

    Args:
        sha256: digest of the positions, or vectors.
        weights_sha256: digest of the weights, if there were any.
        n_frames, n_train, n_validation: numbers of all frames, of those for training, and of those held out.
        limits: limits of conformations (`Limits.record`), if the data were coordinates.
    """

    sha256: str = ""
    n_frames: int = 0
    weights_sha256: str | None = None
    limits: dict | None = None
    n_train: int = 0
    n_validation: int = 0

    OPTIONAL = ("weights_sha256", "limits")


@dataclasses.dataclass(frozen=True)
class GeneratorSettings(Record):
    """The settings of `fit_generator`, checked where the record is made; InputError names what cannot be used."""

    steps: int
    batch_size: int
    learning_rate: float
    width: int
    depth: int
    validation: float
    seed: int

    def __post_init__(self):
        put = object.__setattr__
        for name, least in (("steps", 1), ("batch_size", 1), ("width", 1), ("depth", 0)):
            words = f"the generator's {name.replace('_', ' ')}"
            put(self, name, whole_number(words, getattr(self, name), least))
        put(self, "learning_rate", real_number("the learning rate", self.learning_rate, above=0))
        put(self, "validation", real_number("the validation fraction", self.validation, least=0))
        put(self, "seed", seed_number(self.seed))


@dataclasses.dataclass(frozen=True)
class GeneratorRecord(Record):
    """How a generator was made: settings, training frames, versions, the step that its weights come from, and the
    loss on batches ("loss") and on the validation frames ("val_loss") at every look."""

    settings: GeneratorSettings
    n_train: int
    versions: dict[str, str]
    best_step: int
    history: dict[str, list[float]]


@dataclasses.dataclass(frozen=True)
class Slopes(Record):
    """How fast each latent changes on lines between frames at both ends of it (`cv.steepness`), in 1 / length.

    Args:
        steep: (latent_dim,) norm of the gradient that 95 % of the lines keep below.
        steepest: (latent_dim,) the largest of all lines.
    """

    steep: list[float]
    steepest: list[float]


@dataclasses.dataclass(frozen=True)
class ModelRecord(Record):
    """How a model was made.

    Args:
        settings: settings of the training.
        data: record of the training data.
        versions: of polyvae and of the libraries that did the arithmetic.
        history: per epoch, in nats per frame: "reconstruction" and "kl", and "val_" of both if any.
        best_epoch: the epoch, from 0, that the weights come from.
        stopped: why training ended, in words.
        choices: settings that were chosen from the data, with the reason, one sentence each: "featurizer",
            "pairs", "lag".
        collapsed: numbers, from 0, of the inactive latents: their mean hardly varies. Latents are ordered by
            slowness, inactive ones last.
        generator: how the generator was made, where there is one.
        slopes: how steep the latents are between the basins; None in files of older versions.
    """

    settings: Settings = dataclasses.field(default_factory=Settings)
    data: DataRecord = dataclasses.field(default_factory=DataRecord)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    best_epoch: int = 0
    stopped: str = ""
    choices: dict[str, str] | None = None
    collapsed: list[int] | None = None
    generator: GeneratorRecord | None = None
    slopes: Slopes | None = None

    OPTIONAL = ("choices", "collapsed", "generator", "slopes")

    def rows(self) -> list[tuple[str, str]]:
        """Rows (name, text) that describe the model to people."""
        rows = [(name, str(value)) for name, value in self.settings.to_dict().items()]
        rows += [("chosen", text) for text in (self.choices or {}).values()]
        if self.collapsed:
            rows.append(("collapsed", ", ".join(f"z{k}" for k in self.collapsed)))
        rows.append(("trained on", f"{self.data.n_train} frames (sha256 {self.data.sha256[:16]})"))
        rows.append(("best epoch", f"{self.best_epoch} ({self.stopped})"))
        return [*rows, ("made with", ", ".join(f"{name} {version}" for name, version in self.versions.items()))]

    def table(self) -> list[list[str]]:
        return [[""], *map(list, self.rows())]


def versions() -> dict[str, str]:
    """Versions of the packages that a result depends on."""
    return {name: metadata.version(name) for name in ("polyvae", "jax", "equinox", "optax")}

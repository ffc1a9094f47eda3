"""What a training run was told, what it was told it on, and what came of it: the records of a model."""

import dataclasses
import operator
from collections.abc import Callable, Sequence
from importlib import metadata

from polyvae.errors import InputError
from polyvae.records import Record

BETA_SCHEDULES = {"constant": 0.0, "warmup": 0.1, "cycle": 0.5}  # share of the steps on which beta rises from 0
LR_SCHEDULES = ("cosine", "plateau", "constant")


@dataclasses.dataclass(frozen=True, eq=False)
class Settings(Record):
    """The settings of `fit` or `fit_vae`, checked where the record is made.

    Args:
        width, featurizer: of `fit`.
        likelihood, scaling: of `fit_vae`.
        epochs: None until the data say how many.

    Raises:
        InputError: a setting of another kind, or outside its range; named.
    """

    latent_dim: int = 2
    lag: int = 0
    batch_size: int = 256
    seed: int = 0
    epochs: int | None = None
    patience: int | None = None
    beta: float = 1.0
    free_bits: float = 0.0
    learning_rate: float = 2e-3
    validation: float = 0.1
    encoder: Sequence[int] = (64, 64)
    decoder: Sequence[int] = (256, 256)
    beta_schedule: str = "constant"
    lr_schedule: str = "cosine"
    width: float | str | None = None
    featurizer: str | None = None
    likelihood: str | None = None
    scaling: str | None = None

    OPTIONAL = ("width", "featurizer", "likelihood", "scaling")

    def __post_init__(self):
        for name in ("latent_dim", "lag", "batch_size", "seed", "epochs", "patience"):
            if not (name in ("epochs", "patience") and getattr(self, name) is None):
                self._put(name, operator.index, "a whole number")
        for name in ("beta", "free_bits", "learning_rate", "validation"):
            self._put(name, float, "a number")
        for name in ("encoder", "decoder"):
            self._put(name, lambda widths: tuple(map(operator.index, widths)), "layer widths, (64, 64)")
        self._check_ranges()
        super().__post_init__()

    def _put(self, name: str, kind: Callable, what: str) -> None:
        object.__setattr__(self, name, as_plain(name, getattr(self, name), kind, what))

    def _check_ranges(self) -> None:
        for name in ("beta", "free_bits"):
            if not 0 <= (value := getattr(self, name)) < float("inf"):
                raise InputError(f"{name} must be 0 or a positive number; got {value}")
        if not 0 < self.learning_rate < float("inf"):
            raise InputError(f"the learning rate must be positive; got {self.learning_rate}")
        for name, least in (("epochs", 1), ("batch_size", 1), ("lag", 0), ("patience", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name.replace('_', ' ')} must be at least {least}; got {value}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"the seed must lie between 0 and 2^32 - 1; got {self.seed}")
        for name, known in (("beta_schedule", BETA_SCHEDULES), ("lr_schedule", LR_SCHEDULES)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}")


@dataclasses.dataclass(frozen=True, eq=False)
class DataRecord(Record):
    """The data that a model was trained on.

    Args:
        sha256: of the positions, or vectors; weights_sha256: of the weights, where there were any.
        n_frames, n_train, n_validation: frames in all, trained on and held out.
        limits: of conformations (`Limits.record`), where the data were coordinates.
    """

    sha256: str = ""
    n_frames: int = 0
    weights_sha256: str | None = None
    limits: dict | None = None
    n_train: int = 0
    n_validation: int = 0

    OPTIONAL = ("weights_sha256", "limits")


@dataclasses.dataclass(frozen=True, eq=False)
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
        for name, least in (("steps", 1), ("batch_size", 1), ("width", 1), ("depth", 0)):
            if (value := getattr(self, name)) < least:
                words = name.replace("_", " ")
                raise InputError(f"the generator's {words} must be at least {least}; got {value}")
        if not 0 < self.learning_rate < float("inf"):
            raise InputError(f"the learning rate must be positive; got {self.learning_rate}")
        super().__post_init__()


@dataclasses.dataclass(frozen=True, eq=False)
class GeneratorRecord(Record):
    """How a generator was made: settings, training frames, versions, the step that its weights come from, and the
    loss on batches ("loss") and on the validation frames ("val_loss") at every look."""

    settings: GeneratorSettings
    n_train: int
    versions: dict[str, str]
    best_step: int
    history: dict[str, list[float]]


@dataclasses.dataclass(frozen=True, eq=False)
class ModelRecord(Record):
    """How a model was made.

    Args:
        settings: what it was told.
        data: what it was trained on.
        versions: of polyvae and of the libraries that did the arithmetic.
        history: per epoch, in nats per frame: "reconstruction" and "kl", and "val_" of both if any.
        best_epoch: the epoch, from 0, that the weights come from.
        stopped: why training ended, in words.
        generator: how the generator was made, where there is one.
    """

    settings: Settings = dataclasses.field(default_factory=Settings)
    data: DataRecord = dataclasses.field(default_factory=DataRecord)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    best_epoch: int = 0
    stopped: str = ""
    generator: GeneratorRecord | None = None

    OPTIONAL = ("generator",)


def as_plain(name: str, value, kind: Callable, what: str):
    """The value as one of its kind; raises `InputError` where it is none."""
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise InputError(f"{name.replace('_', ' ')} must be {what}; got {value!r}") from None


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    return {name: metadata.version(name) for name in ("polyvae", "jax", "equinox", "optax")}

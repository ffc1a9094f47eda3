"""Training on feature vectors of any kind: coordinates, distances, contacts, discrete states."""

import dataclasses
import itertools
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from polyvae.arguments import one_of, real_number, segment_lengths, statistical_weights, whole_number
from polyvae.batches import single_precision
from polyvae.errors import InputError
from polyvae.files import locked
from polyvae.progress import reporting
from polyvae.vae import modelfile, training
from polyvae.vae.checkpoint import Checkpoint, digest, digest_if_any
from polyvae.vae.likelihood import Bernoulli, Categorical, Gaussian
from polyvae.vae.model import FittedVAE, vectors
from polyvae.vae.network import VAE
from polyvae.vae.order import order_by_slowness
from polyvae.vae.scaled import ScaledVAE
from polyvae.vae.settings import DataRecord, ModelRecord, Settings, Training, sized, versions
from polyvae.vae.splits import first_of_pairs, validation_blocks
from polyvae.vae.training import Trained, train

log = logging.getLogger(__name__)

_DEFAULT_STEPS, _LEAST_STEPS = 8000, 500
_DEFAULT_WORK = 2e12  # multiplications, about a minute: a wide network has fewer steps in this time
_ADAM_WORK = 200  # multiplications of each weight in a step of Adam, beside 6 for each frame
_CHUNK = 1 << 24  # features in double precision at a time, since all of them may be on disk


@single_precision
def fit_vae(
    x: np.ndarray,
    *,
    likelihood: Gaussian | Categorical | Bernoulli | None = None,
    latent_dim: int = 2,
    encoder: Sequence[int] | None = None,
    decoder: Sequence[int] = (256, 256),
    beta: float = 1.0,
    lag: int = 0,
    smoothness: float = 0.0,
    weights: np.ndarray | None = None,
    segments: Sequence[int] | None = None,
    scaling: str = "global",
    seed: int = 0,
    training: Training | None = None,
    **options,
) -> FittedVAE:
    """Train a VAE on vectors of any kind.

    The objective, in nats per frame, is E_q[log p(x|z)] - beta KL(q(z|x) || N(0, I)), log p(x|z) a
    normalised log probability, for real numbers a density in the unit of the data; beta = 1 is the evidence
    lower bound. Both terms are sums over their dimensions, so that beta means the same for every unit
    and batch size.

    Args:
        x: (n_frames, n_features).
        likelihood: `Gaussian()`, with a trained width, by default; `Gaussian(0.1)` for a fixed width in
            the unit of the data, `Categorical(n_classes)` for one-hot states, `Bernoulli()` for contacts.
        latent_dim, encoder, decoder, beta, seed: as those of `fit`.
        lag: decode the frame `lag` frames later, so that the latents hold what lasts. No pair crosses a
            segment, and none joins training and validation frames.
        smoothness: weight of a term that makes latents go evenly from one vector to another (`bound.unevenness`).
        weights: (n_frames,) statistical weights, such as exp(bias / kT) of a biased run, normalised here;
            integer weights count as duplicated frames. A pair has the weight of its first frame.
        segments: lengths of the pieces that are continuous in time; one by default.
        scaling: of real numbers: "global", one mean a feature and one standard deviation over all;
            "feature", one each.
        training, options: rarer options as a `Training`, or by name, such as epochs=20.

    Raises:
        InputError: unusable settings or data; named.
    """
    x = vectors(x)
    segments = segment_lengths(segments, len(x))
    whole_number("lag", lag)
    real_number("smoothness", smoothness, least=0)
    one_of("scaling", scaling, ("global", "feature"))
    training = Training.of(training, options)
    if likelihood is None:
        likelihood = Gaussian()
    if not isinstance(likelihood, (Gaussian, Categorical, Bernoulli)):
        raise InputError(f"likelihood must be Gaussian(), Categorical() or Bernoulli(); got {likelihood!r}")
    likelihood.check(x)
    of_model: dict[str, Any] = {"latent_dim": latent_dim, "encoder": encoder, "decoder": decoder, "seed": seed}
    of_loss: dict[str, Any] = {"beta": beta, "lag": lag, "smoothness": smoothness, "scaling": scaling}
    own = training.settings() | {"likelihood": type(likelihood).__name__}
    settings = sized(Settings(**of_model, **of_loss, **own), *x.shape)
    if weights is not None:
        weights = statistical_weights(weights, len(x))
    prepared = prepare(
        x,
        likelihood,
        weights=weights,
        segments=segments,
        held_out=validation_blocks(len(x), settings.validation),
        scaling=scaling,
        settings=settings,
        data=DataRecord(digest(x), len(x), digest_if_any(weights)),
    )
    return prepared.train(training)


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """Data and settings, checked and scaled, ready to be trained on."""

    x: np.ndarray  # (n_frames, n_features), scaled
    weights: np.ndarray | None
    rows: np.ndarray  # rows, val_rows: the frames to encode
    val_rows: np.ndarray
    mean: Array  # mean, scale: of the data, by which x is scaled
    scale: Array
    likelihood: Gaussian | Categorical | Bernoulli  # in scaled units
    settings: Settings  # with the number of epochs
    data: DataRecord  # the record of the data
    pairs: np.ndarray  # frames, trained on, that have another one a lag later (one frame later without a lag)
    choices: dict[str, str] | None = None  # see `ModelRecord`

    def initial(self) -> tuple[ScaledVAE, Array]:
        """The untrained model, and the key to train it with."""
        settings = self.settings
        init_key, train_key = jax.random.split(jax.random.key(settings.seed))
        vae = eqx.filter_jit(VAE)(  # compiled as one: a dozen small programs take seconds
            self.x.shape[1],
            latent_dim=settings.latent_dim,
            encoder=settings.encoder,
            decoder=settings.decoder,
            likelihood=self.likelihood,
            key=init_key,
        )
        return ScaledVAE(self.mean, self.scale, vae), train_key

    def train(self, options: Training | None = None) -> FittedVAE:
        """The trained model. Only `progress`, `checkpoint` and `resume` of the options count."""
        options = options or Training()
        with locked(options.checkpoint), reporting(options.progress, "training", "epoch") as progress:
            return self._train(options, progress)

    def _train(self, options: Training, progress: Callable | None) -> FittedVAE:
        scaled, key = self.initial()
        unfinished = None
        if options.checkpoint is not None:
            identity = self.settings.to_dict() | versions() | {"inputs": self._inputs(scaled)}
            unfinished = Checkpoint(options.checkpoint, identity, resume=options.resume)
        volume, epochs = float(scaled.log_volume()), self.settings.epochs
        trained = train(
            scaled.vae,
            self.x,
            self.rows,
            self.val_rows,
            weights=self.weights,
            settings=self.settings,
            key=key,
            progress=progress and (lambda n, terms: progress(n, epochs, _in_units(terms, volume))),
            unfinished=unfinished,
        )
        return self.model(scaled, trained)

    def _inputs(self, scaled: ScaledVAE) -> str:
        """Digest of all that training works on beside the settings."""
        likelihood = json.dumps(modelfile.header_of(scaled.vae)["likelihood"], sort_keys=True)
        text = np.frombuffer(likelihood.encode(), np.uint8)
        width = [jnp.atleast_1d(leaf) for leaf in jax.tree.leaves(self.likelihood)]
        data = (self.x, self.weights, self.rows, self.val_rows)
        return digest(*data, self.mean[None], jnp.atleast_2d(self.scale), text, *width)

    def model(self, scaled: ScaledVAE, trained: Trained) -> FittedVAE:
        """The model with the weights that training found, and its record."""
        if "not finite" in trained.stopped:
            text = "%s; the model is that of epoch %d. Lower the learning rate"
            log.warning(text, trained.stopped, trained.best_epoch)
        history = _in_units(trained.history, float(scaled.log_volume()))
        vae, collapsed = order_by_slowness(
            trained.vae, self.x, self.rows, self.pairs, max(self.settings.lag or 1, 1)
        )
        if collapsed:
            names = ", ".join(f"z{k}" for k in collapsed)
            log.info("%s of %d latents hardly vary: they are inactive", names, vae.latent_dim)
        record = ModelRecord(
            settings=self.settings,
            data=dataclasses.replace(self.data, n_train=len(self.rows), n_validation=len(self.val_rows)),
            versions=versions(),
            history={name: values.astype(float).tolist() for name, values in history.items()},
            best_epoch=trained.best_epoch,
            stopped=trained.stopped,
            choices=self.choices,
            collapsed=collapsed,
        )
        return FittedVAE(eqx.tree_at(lambda model: model.vae, scaled, vae), record)


def _in_units(terms: dict, log_volume: float) -> dict:
    """Loss terms of scaled features as those of the features themselves."""
    found = dict(terms)
    for name in terms:
        if name.endswith("reconstruction"):
            found[name] = terms[name] + log_volume
    return found


def train_together(runs: list[Prepared]) -> list[FittedVAE]:
    """`Prepared.train` of runs that differ in beta and seed alone, as one program."""
    first = runs[0]
    models, keys = zip(*(run.initial() for run in runs), strict=True)
    trained = training.train_stacked(
        [model.vae for model in models],
        first.x,
        first.rows,
        first.val_rows,
        settings=[run.settings for run in runs],
        weights=first.weights,
        keys=list(keys),
    )
    return [run.model(*pair) for run, *pair in zip(runs, models, trained, strict=True)]


def prepare(
    x: np.ndarray,
    likelihood: Gaussian | Categorical | Bernoulli,
    *,
    settings: Settings,
    segments: Sequence[int],
    weights: np.ndarray | None,
    held_out: np.ndarray,
    scaling: str,
    data: DataRecord,
) -> Prepared:
    """Choose the frames to train on and to validate with (`held_out`), and scale the data.

    x (n_frames, n_features) is scaled in place if it is a `numpy.memmap`. `InputError` for too few frames for a
    batch or for the lag, weights that leave none, data that do not vary.
    """
    rows, val_rows = _chosen_rows(settings, tuple(segments), held_out)
    if weights is not None:
        _check_sums(weights, rows, val_rows)
    mean, scale = jnp.zeros(x.shape[1]), jnp.asarray(1.0)
    if not isinstance(likelihood, Gaussian) and (x == x[:1]).all():
        raise InputError(f"the {len(x)} frames are all the same; there is nothing to learn from them")
    if isinstance(likelihood, Gaussian):
        middle, spread = _moments(x, ~held_out if weights is None else np.where(held_out, 0, weights))
        if scaling == "global":
            spread = np.sqrt(np.mean(spread**2))
            likelihood = likelihood if likelihood.learned else Gaussian(float(likelihood.width / spread))
        elif not likelihood.learned:
            raise InputError("features that are scaled one by one need a learned width; a fixed one has one unit")
        else:
            # A feature that hardly varies, such as a stiff bond, must not have its noise blown up.
            spread = np.maximum(spread, 0.01 * np.sqrt(np.mean(spread**2)))
        mean, scale = jnp.asarray(middle, jnp.float32), jnp.asarray(spread, jnp.float32)
        x = _scaled(x, np.asarray(mean), np.asarray(scale))
    if settings.epochs is None:
        settings = dataclasses.replace(settings, epochs=default_epochs(settings, len(rows), x.shape[1]))
    pairs = first_of_pairs(~held_out, tuple(segments), max(settings.lag, 1))
    return Prepared(x, weights, rows, val_rows, mean, scale, likelihood, settings, data, pairs)


def default_epochs(settings: Settings, n_rows: int, n_features: int) -> int:
    """The epochs that make about 8,000 steps, or fewer for a wide network.

    They are at least 10, or 3 for a million frames and more.
    """
    widths = (
        [n_features, *settings.encoder, 2 * settings.latent_dim],
        [settings.latent_dim, *settings.decoder, n_features],
    )
    n_weights = sum(a * b for layers in widths for a, b in itertools.pairwise(layers))
    affordable = _DEFAULT_WORK / (n_weights * (6 * settings.batch_size + _ADAM_WORK))
    steps = int(min(_DEFAULT_STEPS, max(_LEAST_STEPS, affordable)))
    n_batches = n_rows // settings.batch_size
    least = 1 if steps < _DEFAULT_STEPS else min(10, max(3, 5 * _DEFAULT_STEPS // n_batches))
    return max(least, -(-steps // n_batches))


def _chosen_rows(
    settings: Settings, segments: tuple[int, ...], held_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The frames to encode in training and in validation: those with another one a lag later."""
    lag = settings.lag
    if lag >= (longest := max(segments)):
        raise InputError(
            f"a lag of {lag} frames needs a segment of more frames than that; the longest has {longest}. "
            f"Use a shorter lag"
        )
    rows, val_rows = first_of_pairs(~held_out, segments, lag), first_of_pairs(held_out, segments, lag)
    if len(rows) < settings.batch_size:
        pairs = f" and in pairs {lag} frames apart" * (lag > 0)
        raise InputError(
            f"training needs at least one batch of {settings.batch_size} frames; the data hold {len(held_out)} "
            f"frames, {len(rows)} after {settings.validation:.0%} for validation{pairs}. "
            f"Use more frames or a smaller batch size"
        )
    if held_out.any() and not len(val_rows):
        raise InputError(
            f"no two validation frames are {lag} frames apart in one segment; lower the lag, hold out a larger "
            f"fraction (now {settings.validation:.0%}), or none (validation 0)"
        )
    return rows, val_rows


def _check_sums(weights: np.ndarray, rows: np.ndarray, val_rows: np.ndarray) -> None:
    for name, chosen in (("training", rows), ("validation", val_rows)):
        with np.errstate(over="ignore"):
            total = weights[chosen].sum()
        if len(chosen) and not 0 < total < np.inf:
            raise InputError(
                f"the weights of all {name} frames are 0, or too large to add; give exp((bias - max(bias)) / kT)"
            )


def _moments(x: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and standard deviation of each feature, float64; refuses data that do not vary."""
    pieces = _pieces(x)
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
    for piece in _pieces(x):
        x[piece] = (x[piece] - mean) / scale
    return x


def _pieces(x: np.ndarray) -> list[slice]:
    n = max(1, _CHUNK // x.shape[1])
    return [slice(k, k + n) for k in range(0, len(x), n)]

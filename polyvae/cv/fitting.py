"""Training of a latent collective variable on a trajectory."""

import contextlib
import dataclasses
import functools
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from polyvae.arguments import statistical_weights
from polyvae.batches import map_frames, single_precision
from polyvae.cv.choices import NO_LAG_OF_WEIGHTS, Choice, choose_alignment, choose_lag, describe_pairs
from polyvae.cv.latent import LatentCV
from polyvae.cv.steepness import featurize, find_slopes, sample_step
from polyvae.errors import InputError
from polyvae.features.featurizers import FEATURIZERS, PairDistances, PrincipalAxes, Reference
from polyvae.measures.kinetics import segments_within
from polyvae.measures.limits import limits_of
from polyvae.measures.weights import counting
from polyvae.trajectory.convert import as_trajectory
from polyvae.trajectory.record import Trajectory
from polyvae.trajectory.stream import Stream, concatenate
from polyvae.vae.checkpoint import digest, digest_if_any
from polyvae.vae.fitting import prepare
from polyvae.vae.likelihood import Gaussian
from polyvae.vae.model import FittedVAE
from polyvae.vae.settings import DataRecord, Settings, Training, sized
from polyvae.vae.splits import validation_blocks

log = logging.getLogger(__name__)

SMOOTHNESS = 1.0  # with a time lag: the latents then jump between basins, and are what is biased
IN_MEMORY = 1 << 30  # bytes of coordinates beyond which `fit` works from a file
_PIECE = 1 << 16  # frames at a time from a file


@single_precision
def fit(
    data: Trajectory | Stream | np.ndarray,
    *,
    featurizer: PrincipalAxes | Reference | PairDistances | None = None,
    latent_dim: int = 2,
    encoder: Sequence[int] | None = None,
    decoder: Sequence[int] = (256, 256),
    beta: float = 1.0,
    lag: int | None = None,
    smoothness: float | None = None,
    weights: np.ndarray | None = None,
    width: float | str = "learned",
    seed: int = 0,
    training: Training | None = None,
    **options,
) -> LatentCV:
    """Train a VAE on a trajectory and return its latent coordinates as a collective variable.

    The objective, in nats per frame and as a density in the data's length unit, is
    E_q[log p(x|z)] - beta KL(q(z|x) || N(0, I)); beta = 1 is the evidence lower bound.

    Args:
        data: a `Trajectory`, a `Stream`, or what `as_trajectory` takes; an array (n_frames, n_beads, n_dims)
            is in reduced units.
        featurizer: by default the first of `PrincipalAxes()`, `Reference()` and `PairDistances()` that does not
            jump on these data; `Reference()` may jump at one step in a thousand (`choices.choose_alignment`).
        latent_dim: number of collective variables.
        encoder, decoder: widths of the hidden layers, for the encoder by default those of `settings.sized`. An MD
            engine runs the encoder at every step, and never the decoder.
        beta: weight of the KL term.
        lag: decode the frame `lag` frames later, so that the latents hold slow motions; the decoder then returns
            the mean conformation at that time. By default from the run's own relaxation times
            (`choices.choose_lag`), and 0 where frames are as good as independent, have no order, or have weights.
        smoothness: see `fit_vae`; by default 1 with a time lag, 0 without. Without it a latent may jump between
            two basins, where data are missing, and a bias on it is too steep for an engine's time step.
        weights: (n_frames,) weights of the frames, such as exp(bias / kT) of a biased run; by default those of the
            data.
        width: standard deviation of the decoder's Gaussian, "learned" or a length. With `PairDistances`,
            whose features each have their own scale, only "learned".
        seed: seed of weights, batches and noise; one seed gives one result.
        training, options: rarer options as a `Training`, or by name, such as epochs=20.

    Training takes all devices of the process; `jax.local_devices()` lists them. To rounding, the model is that of
    one device.

    Raises:
        InputError: unusable settings, constant data, fewer training frames than a batch.
    """
    training = Training.of(training, options)
    settings = Settings(
        latent_dim=latent_dim,
        encoder=encoder,
        decoder=decoder,
        beta=beta,
        lag=lag,
        smoothness=smoothness,
        seed=seed,
        width=check_width(width),
        **training.settings(),
    )
    with prepare_data(data, featurizer, settings, weights, training.cache) as (make, prepared):
        return make(prepared.train(training))


def check_width(width) -> float | str:
    """Check a width: a length, or "learned"; raises `InputError` otherwise."""
    Gaussian(width)
    return width if isinstance(width, str) else float(width)


def _make_cv(featurizer, template: Trajectory, positions: np.ndarray, model: FittedVAE) -> LatentCV:
    """The CV of a VAE that was trained on the features of a trajectory, with its slopes between some frames."""
    cv = LatentCV(featurizer, model.scaled, template, model.record)
    return dataclasses.replace(cv, record=dataclasses.replace(model.record, slopes=find_slopes(cv, positions)))


@contextlib.contextmanager
def prepare_data(data, featurizer, settings: Settings, weights=None, cache=None) -> Iterator[tuple]:
    """A function from a trained VAE to its CV, and the features ready for training."""
    with contextlib.ExitStack() as stack:
        new_file = functools.partial(_temporary_file, stack, cache)
        traj = _gathered(data, new_file) if isinstance(data, Stream) else as_trajectory(data)
        n_frames = len(traj)
        if weights is not None:
            traj = dataclasses.replace(traj, weights=statistical_weights(weights, n_frames))
        width = settings.width
        assert width is not None
        settings = sized(settings, n_frames, traj.n_beads * traj.n_dims)
        choices: dict[str, Choice] = {}
        if featurizer is None:
            choices["featurizer"] = choose_alignment(traj)
            featurizer = choices["featurizer"].value
        if not isinstance(featurizer, (PrincipalAxes, Reference, PairDistances)):
            raise InputError(
                f"featurizer must be one of {', '.join(FEATURIZERS)}, as in Reference(); got {featurizer!r}"
            )
        # A reference structure must not depend on the frames that the model is measured on.
        held_out = validation_blocks(n_frames, settings.validation)
        weights, given = traj.weights, featurizer
        counted = np.where(held_out, 0.0, 1.0 if weights is None else weights)
        seen = dataclasses.replace(traj, weights=counted, part=True)
        featurizer = given.fit(seen)
        if isinstance(given, PairDistances) and featurizer.every != given.every and given.pairs is None:
            choices["pairs"] = describe_pairs(featurizer)
        if not (featurizer.coordinates or isinstance(settings.width, str)):
            raise InputError(
                f'with {type(featurizer).__name__} the width must be "learned"; got {settings.width!r}'
            )
        features = _features(featurizer, traj, new_file)
        if settings.lag is None:
            # A block that is held out must hold pairs, so that the lag is at most half of it.
            most = (max(segments_within(held_out, traj.segments), default=0) or n_frames) // 2
            found = choose_lag(features, traj.segments, most) if weights is None else NO_LAG_OF_WEIGHTS
            choices["lag"] = found
            settings = dataclasses.replace(settings, lag=choices["lag"].value)
        if settings.smoothness is None:
            settings = dataclasses.replace(settings, smoothness=SMOOTHNESS if settings.lag else 0.0)
        for choice in choices.values():
            log.info(choice.reason)
        prepared = prepare(
            features,
            Gaussian(width),
            settings=dataclasses.replace(settings, featurizer=type(featurizer).__name__),
            segments=traj.segments,
            weights=weights,
            held_out=held_out,
            scaling="global" if featurizer.coordinates else "feature",
            data=DataRecord(digest(traj.positions), n_frames, digest_if_any(weights)),
        )
        limits = limits_of(traj, of_frames=True).record()
        data = dataclasses.replace(prepared.data, limits=limits)
        reasons = {name: choice.reason for name, choice in choices.items()}
        rows, _ = counting(traj)
        few = traj.positions[rows[:: sample_step(len(rows), traj.positions[0].size)]]
        make = functools.partial(_make_cv, featurizer, _template(traj), few)
        yield make, dataclasses.replace(prepared, data=data, choices=reasons or None)


def _template(traj: Trajectory) -> Trajectory:
    return dataclasses.replace(traj[0], time=None, weights=None, box=None, origin=None)


def _temporary_file(stack: contextlib.ExitStack, folder, shape: tuple[int, ...]) -> np.memmap:
    """Zeros in a file that is removed with the stack, or at the latest when the process ends."""
    file = stack.enter_context(tempfile.TemporaryFile(dir=folder, prefix="polyvae-"))  # noqa: SIM115
    if hasattr(os, "posix_fallocate"):  # a disk that is full later would end the process
        try:
            os.posix_fallocate(file.fileno(), 0, 4 * math.prod(shape))
        except OSError as error:
            error.filename = folder or tempfile.gettempdir()
            raise
    return np.memmap(file, np.float32, "w+", shape=shape)


def _gathered(stream: Stream, new_file: Callable) -> Trajectory:
    """All chunks of a stream as one trajectory; its positions are kept on disk if they are large."""
    chunks: list[Trajectory] = []
    store, n = None, 0
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
    """Features (n_frames, n_features) of all frames, on disk where they or the positions are many."""
    n = jax.eval_shape(featurizer, jax.ShapeDtypeStruct(traj.positions.shape[1:], np.float32)).shape[0]
    batched = functools.partial(map_frames, functools.partial(featurize, featurizer), width=n)
    if max(traj.positions.nbytes, 4 * n * traj.n_frames) <= IN_MEMORY:
        return batched(traj.positions)
    store = new_file((traj.n_frames, n))
    piece = max(1, min(_PIECE, IN_MEMORY // (8 * n)))
    for start in range(0, traj.n_frames, piece):
        store[start : start + piece] = batched(traj.positions[start : start + piece])
    return store

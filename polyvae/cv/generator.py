"""Training of a generator, which draws conformations from p(x|z), for a CV that does not change."""

import dataclasses
import os
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from polyvae.arguments import check_run
from polyvae.batches import single_precision
from polyvae.cv.diffusion import (
    LOG_NOISE,
    Generator,
    Network,
    draw_frames,
    draw_latents,
    internal_of,
    network_for,
    quadratic,
)
from polyvae.cv.latent import LatentCV, check_cv
from polyvae.errors import InputError
from polyvae.files import locked
from polyvae.measures.ensembles import frame_weights, pair_distances
from polyvae.measures.weights import drawn_evenly
from polyvae.progress import reports
from polyvae.trajectory.convert import as_trajectory
from polyvae.trajectory.record import Trajectory, bonded_triples, bonds_of
from polyvae.trajectory.stream import Stream, concatenate
from polyvae.vae.checkpoint import Checkpoint, digest
from polyvae.vae.settings import GeneratorRecord, GeneratorSettings, versions
from polyvae.vae.splits import validation_blocks
from polyvae.vae.training import restored, train_until_end

MAX_BEADS = 1000  # with more, training and settling take hours: their cost grows as the square
MAX_FRAMES = 50_000  # evenly spaced frames of a `Stream` for training
MAX_PAIRS = 2000  # pairs of beads in the network: all for 64 beads; otherwise bonds and evenly chosen ones
MAX_POINTS = 10_000  # latent points for the data's density of z
_BATCH = 256  # frames in a batch by default
_STRIDE = 250  # steps between two looks at the validation frames
_PATIENCE = 4  # training stops after this number of looks without improvement
_CALIBRATION = 4096  # raw draws for the quantiles of bond lengths
_QUANTILES = 401
_DISTANCES = 200_000_000  # most distances for the smallest one; 20 million take a second
_EXPLAINED = 0.01  # draws start from a fit on z if it leaves no more of the variance than this share
_LEAST = 0.01  # least spread about that fit, since a fit through every point leaves none
MAX_VALIDATION = 4096
_REPEATS = 8  # noise levels for each validation frame


class _State(NamedTuple):
    """State of training between two looks at the validation frames."""

    network: Network
    mean: Network  # running mean of the weights, which becomes the result
    opt_state: tuple
    step: Array
    best_value: Array
    best_step: Array
    best: Network


@single_precision
@reports("training the generator")
def fit_generator(
    cv: LatentCV,
    data,
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float = 5e-3,
    width: int = 128,
    depth: int = 4,
    validation: float = 0.1,
    seed: int = 0,
    progress: Callable[[int, int, dict[str, float]], None] | bool | None = None,
    checkpoint: str | os.PathLike | None = None,
    resume: bool = False,
) -> LatentCV:
    """Train a generator for `sample` on the data of a CV; returns the same CV with the generator.

    The generator is a diffusion model of the aligned coordinates given the encoder's mean z
    (`diffusion.Generator`), with the density of the data's z by Gaussian kernels. Values, forces and exports of
    the CV do not change. The quantiles of the data correct bonds, angles and the radius of gyration of draws, so
    that these three do not measure the quality of the draws. Training takes about 30 s of one core for 12 beads
    and 90 s for 40.

    Args:
        cv: a trained CV.
        data: its training data, or more: a `Trajectory`, what `as_trajectory` takes, or a `Stream` of any length,
            of which at most `MAX_FRAMES` evenly spaced frames are used. Weights count.
        steps: most steps. By default 350 passes over the training frames, and no more than 6,000 steps: few frames
            are soon memorised, and the learning rate should have fallen by then.
        batch_size: frames in a batch; by default 256, or all training frames if these are fewer.
        learning_rate: largest rate of Adam, with a rise over the first twentieth and a fall along a cosine.
        width, depth: units and residual blocks of the network.
        validation: fraction of the frames held out in contiguous blocks. The weights that denoise them best are
            kept, so that frames are not memorised, and training stops 1,000 steps after these. With 0 the last
            weights are kept.
        seed: seed of weights, batches and noise; one seed gives one result.
        progress: True for a bar, or a function of steps done, steps in all, and the losses of training and
            validation frames.
        checkpoint: file for the state of the run, renewed now and then; remove it once the model is saved.
        resume: continue from that file where it exists; on the same machine with as many cores the result has
            the same bits.

    Raises:
        InputError: data that do not fit the CV, unusable settings, fewer training frames than a batch, more
            than `MAX_BEADS` beads.
    """
    if check_cv(cv).n_beads > MAX_BEADS:
        raise InputError(
            f"a generator is for at most {MAX_BEADS} beads, since more take hours; got {cv.n_beads}. Train on a "
            f"selection of them, or draw from the decoder"
        )
    check_run(progress, checkpoint, resume)
    settings = GeneratorSettings(
        steps=1 if steps is None else steps,
        batch_size=1 if batch_size is None else batch_size,
        learning_rate=learning_rate,
        width=width,
        depth=depth,
        validation=validation,
        seed=seed,
    )
    traj = _in_memory(cv, data)
    held_out = validation_blocks(len(traj), settings.validation)
    weights = frame_weights(traj)
    rows = np.flatnonzero(~held_out & (weights > 0))
    batch_size = max(1, min(_BATCH, len(rows))) if batch_size is None else settings.batch_size
    if len(rows) < batch_size:
        raise InputError(
            f"a generator needs at least one batch of {batch_size} frames; the data hold {len(traj)} frames, "
            f"{len(rows)} of them for training. Use more frames or a smaller batch size"
        )
    steps = min(6000, 350 * len(rows) // batch_size) if steps is None else settings.steps
    settings = dataclasses.replace(settings, steps=steps, batch_size=batch_size)

    z, x = cv.encode(traj.positions), cv.turn(traj.positions)
    keys = jax.random.split(jax.random.key(settings.seed), 4)
    generator, x = _untrained(cv, traj, x, z, rows, weights, settings=settings, key=keys[0])
    share = weights / weights[rows].sum()
    train = jnp.asarray(x[rows]), jnp.asarray(z[rows]), jnp.asarray(np.cumsum(share[rows]), jnp.float32)
    held = _validation(x, z, weights, np.flatnonzero(held_out & (weights > 0)), generator.spread, keys[1])
    with locked(checkpoint):
        unfinished = None
        if checkpoint is not None:
            inputs = {"inputs": digest(x, z, weights)}
            unfinished = Checkpoint(checkpoint, settings.to_dict() | versions() | inputs, resume=resume)
        generator, best_step, history = _train(generator, train, held, settings, keys[2], progress, unfinished)
    generator = _calibrated(generator, x[weights > 0], weights[weights > 0], keys[3])
    about = GeneratorRecord(settings, len(rows), versions(), best_step, history)
    return dataclasses.replace(cv, generator=generator, record=dataclasses.replace(cv.record, generator=about))


def _in_memory(cv: LatentCV, data) -> Trajectory:
    """The frames to train on, in the model's unit; evenly spaced ones of a `Stream`."""
    if isinstance(data, Stream):
        every, first, kept = -(-len(data) // MAX_FRAMES), 0, []
        for chunk in data:
            kept.append(chunk[-first % every :: every])
            first += len(chunk)
        data = concatenate([chunk for chunk in kept if len(chunk)])
    data = as_trajectory(data, array_unit=cv.length_unit, dims=cv.n_dims)
    return dataclasses.replace(data, positions=cv.frames(data), length_unit=cv.length_unit, box=None)


def _untrained(
    cv: LatentCV, traj: Trajectory, x, z, rows, weights, *, settings: GeneratorSettings, key
) -> tuple[Generator, np.ndarray]:
    """A generator with random weights, and the coordinates centred and scaled for it."""
    x = x - x.mean(axis=1, keepdims=True)
    share = weights[rows] / weights[rows].sum()
    scale = np.float32(np.sqrt(share @ (x[rows] ** 2).mean(axis=(1, 2), dtype=np.float64)))
    if not scale > 0:
        raise InputError("all beads are at one point in all frames; a generator needs coordinates that vary")
    x = x / scale
    sample = dataclasses.replace(traj, positions=x)[rows]
    shape = (cv.n_beads, cv.n_dims)
    bonds = np.unique(np.sort(bonds_of(cv.template), axis=1), axis=0)
    free = np.stack(np.triu_indices(cv.n_beads, 1), axis=1)
    free = free[~np.isin(free @ [cv.n_beads, 1], bonds @ [cv.n_beads, 1])]
    few = sample[:: max(1, -(-len(sample) * len(free) // _DISTANCES))]
    pieces = [pair_distances(few, free[k : k + MAX_PAIRS]).min() for k in range(0, len(free), MAX_PAIRS)]
    pairs = np.concatenate([bonds, free[:: max(1, -(-len(free) // MAX_PAIRS))]])
    apart = pair_distances(sample, pairs)
    closest = min(pieces, default=apart.min() / 2)
    pair_mean = share.astype(np.float32) @ apart
    apart -= pair_mean
    mean, spread = _centre(x[rows], z[rows], share)
    points, z_width = _density(z[weights > 0], weights[weights > 0])
    single = {
        "scale": scale,
        "pair_mean": pair_mean,
        "pair_std": np.sqrt(np.einsum("f,fp,fp->p", share.astype(np.float32), apart, apart)),
        "closest": closest,
        "z": points,
        "mean": mean,
        "spread": spread,
        "z_width": z_width,
    }
    generator = Generator(
        network=eqx.filter_jit(network_for)(shape, pairs, z, settings.width, settings.depth, key),
        shape=shape,
        pairs=jnp.asarray(pairs, jnp.int32),
        bonds=jnp.asarray(bonds, jnp.int32),
        angles=jnp.asarray(bonded_triples(bonds), jnp.int32),
        drawn=jnp.zeros((0, 0)),
        real=jnp.zeros((0, 0)),
        **{name: jnp.asarray(value, jnp.float32) for name, value in single.items()},
    )
    return generator, x


def _centre(x: np.ndarray, z: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, float]:
    """`mean` and `spread` of a `Generator`: a least-squares fit if z determines nearly all, or zeros and 1.

    Few frames of a large molecule cannot be generated from noise alone if z determines all but thermal motion. A
    chain with a less informative z gains nothing from the fit: its draws were further from the data. The residual
    is corrected for the number of terms, since a fit of nearly as many terms as frames has none on its own frames.
    """
    terms = np.asarray(jax.vmap(quadratic)(jnp.asarray(z)), np.float64)
    n, n_terms = 1 / (share**2).sum(), terms.shape[1]
    nothing = np.zeros((n_terms, *x.shape[1:])), 1.0
    if n < 3 * n_terms:
        return nothing
    root, flat = np.sqrt(share)[:, None], x.reshape(len(x), -1).astype(np.float64)
    mean = np.linalg.lstsq(root * terms, root * flat, rcond=1e-4)[0]
    left = share @ ((flat - terms @ mean) ** 2).mean(axis=1) * n / (n - n_terms)
    if left > _EXPLAINED:
        return nothing
    return mean.reshape(-1, *x.shape[1:]), max(float(np.sqrt(left)), _LEAST)


def _density(z: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of equal weight, and the widths of the kernel on each.

    The width is the distance to the nearest other point, shared among the latents as their standard deviations.
    The density of a CV has sharp edges and clusters next to empty regions, which one width for all would blur.
    Inactive latents hardly vary, so they neither separate the points nor widen the others.
    Source: Breiman, Meisel & Purcell, 10.1080/00401706.1977.10489521.
    """
    from scipy.spatial import KDTree

    if len(z) > MAX_POINTS or (weights != weights[0]).any():
        z = z[drawn_evenly(weights, min(len(z), MAX_POINTS))]
    points = np.unique(z, axis=0)  # equal frames must not be neighbours of each other
    if len(points) < 2:
        return z, np.zeros_like(z)
    spread = z.std(axis=0)
    return z, KDTree(points).query(z, k=2)[0][:, 1:] * spread / np.linalg.norm(spread)


def _noise_levels(quantiles, unit):
    mean, spread = LOG_NOISE
    return unit * jnp.exp(mean + spread * jax.scipy.special.ndtri(jnp.clip(quantiles, 1e-5, 1 - 1e-5)))


def _validation(x, z, weights, rows, unit, key):
    """Frames, latents, noise levels and keys for validation, always the same; None without frames."""
    if not len(rows):
        return None
    rows = np.tile(rows[drawn_evenly(weights[rows], min(len(rows), MAX_VALIDATION))], _REPEATS)
    order_key, noise_key = jax.random.split(key)
    levels = _noise_levels((jax.random.permutation(order_key, len(rows)) + 0.5) / len(rows), unit)
    return jnp.asarray(x[rows]), jnp.asarray(z[rows]), levels, jax.random.split(noise_key, len(rows))


def _optimiser(settings: GeneratorSettings) -> optax.GradientTransformation:
    steps, rate = settings.steps, float(settings.learning_rate)
    rise = min(max(1, steps // 20), steps - 1)  # no rise if there is only one step
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, rise, steps, 0.01 * rate)
    return optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))


def _mean_loss(network, generator, x, z, levels, keys):
    generator = dataclasses.replace(generator, network=network)
    return jnp.mean(jax.vmap(generator.loss)(x, z, levels, keys))


@eqx.filter_jit
def _advance(state: _State, static, generator, train, validation, key, n: int, settings: GeneratorSettings):
    """Do `n` steps and look at the validation frames; returns the new state and the mean losses."""
    x, z, cumulative = train
    batch_size, optimiser = settings.batch_size, _optimiser(settings)

    def step(carried, key):
        network, mean, opt_state, done = carried
        row_key, level_key, noise_key = jax.random.split(key, 3)
        rows = jnp.searchsorted(cumulative, jax.random.uniform(row_key, (batch_size,)))
        rows = jnp.minimum(rows, len(x) - 1)  # rounding may go beyond the last row
        # Evenly spaced quantiles, shifted together: each batch sees all levels, and gradients vary less.
        quantiles = (jnp.arange(batch_size) + jax.random.uniform(level_key)) / batch_size
        levels = _noise_levels(quantiles, generator.spread)
        keys = jax.random.split(noise_key, batch_size)

        def loss(weights):
            return _mean_loss(eqx.combine(weights, static), generator, x[rows], z[rows], levels, keys)

        value, grads = jax.value_and_grad(loss)(network)
        updates, opt_state = optimiser.update(grads, opt_state, network)
        network = optax.apply_updates(network, updates)
        keep = jnp.minimum(0.999, (done + 1) / (done + 10))
        mean = jax.tree.map(lambda old, new: keep * old + (1 - keep) * new, mean, network)
        return (network, mean, opt_state, done + 1), value

    moved, values = jax.lax.scan(step, state[:4], jax.random.split(key, n))
    mean, done = moved[1], moved[3]
    row = jnp.mean(values)[None]
    better, value = jnp.isfinite(row[0]), state.best_value
    if validation is not None:
        judged = _mean_loss(eqx.combine(mean, static), generator, *validation)
        row, better = jnp.stack([row[0], judged]), judged < state.best_value
        value = jnp.where(better, judged, value)
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), mean, state.best)
    return _State(*moved, value, jnp.where(better, done, state.best_step), best), row[None]


def _train(
    generator: Generator,
    train: tuple[Array, Array, Array],
    validation: tuple[Array, Array, Array, Array] | None,
    settings: GeneratorSettings,
    key,
    progress,
    unfinished: Checkpoint | None,
) -> tuple[Generator, int, dict[str, list[float]]]:
    """Train the network; returns the generator with the best weights, their step, and the history."""
    weights, static = eqx.partition(generator.network, eqx.is_inexact_array)
    names = ("loss",) if validation is None else ("loss", "val_loss")
    zero, worst = jnp.zeros((), jnp.int32), jnp.full((), jnp.inf, jnp.float32)
    state = _State(weights, weights, _optimiser(settings).init(weights), zero, worst, zero, weights)
    state, table = restored(state, unfinished, len(names))
    looks = -(-settings.steps // _STRIDE)

    def advance(state, look: int, _):
        done = look * _STRIDE
        n = min(_STRIDE, settings.steps - done)
        return _advance(state, static, generator, train, validation, jax.random.fold_in(key, done), n, settings)

    def ended(table, state):
        if not np.isfinite(table).all():
            raise InputError(
                f"the loss was not finite by step {min(len(table) * _STRIDE, settings.steps)}; lower the learning "
                f"rate (now {settings.learning_rate:g})"
            )
        if len(table) >= looks:
            return "all steps done"
        since = len(table) - -(-int(state.best_step) // _STRIDE)
        return "no progress" if validation is not None and since >= _PATIENCE else None

    def report(look: int, row) -> None:
        terms = dict(zip(names, row.tolist(), strict=True))
        progress(min(look * _STRIDE, settings.steps), settings.steps, terms)

    state, table, _ = train_until_end(
        advance,
        state,
        table,
        total=looks,
        stride=1,
        ended=ended,
        unfinished=unfinished,
        progress=progress and report,
    )
    if unfinished is not None:
        unfinished.save(jax.tree.leaves(state), table, True)
    history = {name: table[:, k].astype(float).tolist() for k, name in enumerate(names)}
    trained = dataclasses.replace(generator, network=eqx.combine(state.best, static))
    return trained, int(state.best_step), history


def _calibrated(generator: Generator, x: np.ndarray, weights: np.ndarray, key) -> Generator:
    """The generator with the quantiles that `settle` needs, in all data and in raw draws."""
    # Large molecules take long to draw, and few frames have no fine quantiles.
    n_draws = min(_CALIBRATION, max(512, 64 * _CALIBRATION // generator.shape[0]), 10 * len(x))
    z_key, x_key = jax.random.split(key)
    raw = draw_frames(generator, x_key, draw_latents(generator, z_key, n_draws), raw=True)
    real = x if (weights == weights[0]).all() else x[drawn_evenly(weights, max(n_draws, len(x)))]
    levels = np.linspace(0, 1, _QUANTILES)
    tables = [np.quantile(internal_of(generator, frames), levels, axis=0).T for frames in (raw, real)]
    # A rank is looked up by value, so that values must rise.
    rise = 1e-7 * np.arange(_QUANTILES)
    drawn, real = (jnp.asarray(np.asarray(table, np.float64) + rise, jnp.float32) for table in tables)
    return dataclasses.replace(generator, drawn=drawn, real=real)

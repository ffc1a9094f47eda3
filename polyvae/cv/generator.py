"""Training of the part that draws conformations from p(x|z), beside a CV that stays as it is."""

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
from polyvae.cv.latent import LatentCV, latent_cv
from polyvae.errors import InputError
from polyvae.files import locked
from polyvae.measures.ensembles import frame_weights, pair_distances
from polyvae.measures.weights import drawn_evenly
from polyvae.trajectory.convert import as_trajectory
from polyvae.trajectory.record import Trajectory, bonded_triples, bonds_of
from polyvae.trajectory.stream import Stream, concatenate
from polyvae.vae.checkpoint import Checkpoint, digest
from polyvae.vae.settings import GeneratorRecord, GeneratorSettings, versions
from polyvae.vae.splits import validation_blocks
from polyvae.vae.training import restored, run

MAX_BEADS = 1000  # with more, training and settling take hours: their cost grows as the square
MAX_FRAMES = 50_000  # of a `Stream` that a generator is trained on, evenly spaced
MAX_PAIRS = 2000  # that the network sees: all up to 64 beads, beyond that the bonds and evenly chosen ones
MAX_POINTS = 10_000  # latent points that represent the data's density of z
_BATCH = 256  # frames, by default
_STRIDE = 250  # steps between two looks at the validation frames
_PATIENCE = 4  # looks without a better one, after which training stops
_CALIBRATION = 4096  # raw draws that measure how far bond lengths are off
_QUANTILES = 401
_DISTANCES = 200_000_000  # looked at for the smallest, a second for 20 million
_EXPLAINED = 0.01  # share of the variance that z may leave unexplained for draws to start from a fit on z
_LEAST = 0.01  # spread about that fit, of the whole: a fit through every point leaves none
MAX_VALIDATION = 4096
_REPEATS = 8  # noise levels at which each validation frame is looked at


class _State(NamedTuple):
    """All that training carries from one look at the validation frames to the next."""

    network: Network
    mean: Network  # the running mean of the weights, which is what is kept
    opt_state: tuple
    step: Array
    best_value: Array
    best_step: Array
    best: Network


@single_precision
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
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
    checkpoint: str | os.PathLike | None = None,
    resume: bool = False,
) -> LatentCV:
    """The same CV with a generator beside it, trained on its own data, for `sample` to draw from.

    A diffusion model of the aligned coordinates given the encoder's mean z (`diffusion.Generator`), and the
    density of the data's z by Gaussian kernels. The CV is not changed: its values, forces and exports stay
    what they were. Bonds, angles and the radius of gyration of draws are put right by their quantiles in the
    data, so that these three say little of how good the draws are. Training takes some 30 s of one core for
    12 beads and 90 s for 40.

    Args:
        cv: a trained CV.
        data: what it was trained on, or more: a `Trajectory`, what `as_trajectory` takes, or a `Stream` of
            any length, sampled at up to `MAX_FRAMES` evenly spaced frames. Weights count.
        steps: at most; by default 350 passes over the training frames and no more than 6,000 steps: few frames
            are soon memorised, and the learning rate should have come down by then.
        batch_size: by default 256, or all training frames where they are fewer.
        learning_rate: of Adam, with a rise over the first twentieth and a fall along a cosine.
        width, depth: of the network, in units and residual blocks.
        validation: fraction of the frames held out in contiguous blocks. The weights that denoise them best
            are kept, so that frames are not memorised, and training stops 1,000 steps after them; with 0
            the last.
        seed: of weights, batches and noise; one seed gives one result.
        progress: called with steps done, steps in all, and the loss on training and validation frames.
        checkpoint: file for the state of the run, renewed now and then; remove it once the model is saved.
        resume: continue from that file where it exists; on the same machine with as many cores the result has
            the same bits.

    Raises:
        InputError: data that do not fit the CV, unusable settings, fewer training frames than a batch, more
            than `MAX_BEADS` beads.
    """
    if latent_cv(cv).n_beads > MAX_BEADS:
        raise InputError(
            f"a generator is for at most {MAX_BEADS} beads, more would take hours; got {cv.n_beads}. Train on a "
            f"selection of them, or draw from the decoder"
        )
    check_run(progress, checkpoint, resume)
    told = GeneratorSettings(
        steps=1 if steps is None else steps,
        batch_size=1 if batch_size is None else batch_size,
        learning_rate=learning_rate,
        width=width,
        depth=depth,
        validation=validation,
        seed=seed,
    )
    traj = _in_memory(cv, data)
    held_out = validation_blocks(len(traj), told.validation)
    weights = frame_weights(traj)
    rows = np.flatnonzero(~held_out & (weights > 0))
    batch_size = max(1, min(_BATCH, len(rows))) if batch_size is None else told.batch_size
    if len(rows) < batch_size:
        raise InputError(
            f"a generator needs at least one batch of {batch_size} frames; the data hold {len(traj)} frames, "
            f"{len(rows)} of them for training. Use more frames or a smaller batch size"
        )
    steps = min(6000, 350 * len(rows) // batch_size) if steps is None else told.steps
    told = dataclasses.replace(told, steps=steps, batch_size=batch_size)

    z, x = cv.encode(traj.positions), cv.turn(traj.positions)
    keys = jax.random.split(jax.random.key(told.seed), 4)
    generator, x = _untrained(cv, traj, x, z, rows, weights, settings=told, key=keys[0])
    share = weights / weights[rows].sum()
    train = jnp.asarray(x[rows]), jnp.asarray(z[rows]), jnp.asarray(np.cumsum(share[rows]), jnp.float32)
    held = _validation(x, z, weights, np.flatnonzero(held_out & (weights > 0)), generator.spread, keys[1])
    with locked(checkpoint):
        unfinished = None
        if checkpoint is not None:
            inputs = {"inputs": digest(x, z, weights)}
            unfinished = Checkpoint(checkpoint, told.to_dict() | versions() | inputs, resume=resume)
        generator, best_step, history = _train(generator, train, held, told, keys[2], progress, unfinished)
    generator = _calibrated(generator, x[weights > 0], weights[weights > 0], keys[3])
    about = GeneratorRecord(told, len(rows), versions(), best_step, history)
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
    """Points of equal weight, and the widths of the kernel on each: the distance to the nearest other point,
    shared among the latents as their standard deviations.

    The density of a CV has sharp edges and clusters next to empty regions, which one width for all blurs.
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
    """Frames, latents, noise levels and keys to judge weights by, always the same; None without frames."""
    if not len(rows):
        return None
    rows = np.tile(rows[drawn_evenly(weights[rows], min(len(rows), MAX_VALIDATION))], _REPEATS)
    order_key, noise_key = jax.random.split(key)
    levels = _noise_levels((jax.random.permutation(order_key, len(rows)) + 0.5) / len(rows), unit)
    return jnp.asarray(x[rows]), jnp.asarray(z[rows]), levels, jax.random.split(noise_key, len(rows))


def _optimiser(settings: GeneratorSettings) -> optax.GradientTransformation:
    steps, rate = settings.steps, float(settings.learning_rate)
    rise = min(max(1, steps // 20), steps - 1)  # none where there is one step
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, rise, steps, 0.01 * rate)
    return optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))


def _mean_loss(network, generator, x, z, levels, keys):
    generator = dataclasses.replace(generator, network=network)
    return jnp.mean(jax.vmap(generator.loss)(x, z, levels, keys))


@eqx.filter_jit
def _advance(state: _State, static, generator, train, validation, key, n: int, settings: GeneratorSettings):
    """`n` steps and a look at the validation frames: the new state, and the mean loss on batches and on these."""
    x, z, cumulative = train
    batch_size, optimiser = settings.batch_size, _optimiser(settings)

    def step(carried, key):
        network, mean, opt_state, done = carried
        row_key, level_key, noise_key = jax.random.split(key, 3)
        rows = jnp.searchsorted(cumulative, jax.random.uniform(row_key, (batch_size,)))
        rows = jnp.minimum(rows, len(x) - 1)  # of rounding in the last digit
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
    """The generator with the weights that do best on the validation frames, the step they are of, the history."""
    weights, static = eqx.partition(generator.network, eqx.is_inexact_array)
    names = ("loss",) if validation is None else ("loss", "val_loss")
    zero = jnp.zeros((), jnp.int32)
    state = _State(
        weights,
        weights,
        _optimiser(settings).init(weights),
        zero,
        jnp.full((), jnp.inf, jnp.float32),
        zero,
        weights,
    )
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

    state, table, _ = run(
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
    """With the quantiles of what `settle` puts right, in all data and in raw draws, z included."""
    # Large molecules take long to draw, and of few frames quantiles need not be finer than theirs.
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

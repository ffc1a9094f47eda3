"""Training: whole epochs compiled into one program, early stopping on held-out frames."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from polyvae.errors import InputError
from polyvae.measures.kinetics import lagged
from polyvae.vae.network import VAE

TERMS = ("reconstruction", "kl", "val_reconstruction", "val_kl")
BETA_SCHEDULES = {"constant": 0.0, "warmup": 0.1, "cycle": 0.5}  # share of the steps on which beta rises from 0
LR_SCHEDULES = ("cosine", "plateau", "constant")
MAX_VALIDATION = 65_536  # validation frames that are looked at after each epoch, evenly spread
BLOCK_ROWS = 1 << 18  # frames in memory at once where the data lie on disk
_RUN_OF_ROWS = 1024  # neighbours that are read together from there


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """What a training run gives.

    Args:
        vae: the weights of the epoch with the best validation objective, or of the last epoch.
        history: per epoch, in nats per frame: -E[log p(x|z)] and KL on the training frames
            ("reconstruction", "kl") and on the validation frames, if any ("val_reconstruction", "val_kl").
        best_epoch: the epoch, from 0, that `vae` comes from.
        stopped: why training ended, in words.
    """

    vae: VAE
    history: dict[str, np.ndarray]
    best_epoch: int
    stopped: str


def validation_blocks(n_frames: int, fraction: float = 0.1, n_blocks: int = 5) -> np.ndarray:
    """Mask (n_frames,) of `n_blocks` contiguous blocks, evenly spread, that hold `fraction` of the frames.

    Neighbouring frames of a trajectory are alike, so frames picked one by one would not be independent
    of the training frames; whole blocks nearly are.
    """
    if not 0 <= fraction < 1:
        raise InputError(f"the validation fraction must be at least 0 and below 1; got {fraction}")
    if fraction == 0:
        return np.zeros(n_frames, dtype=bool)
    n_blocks = max(1, min(n_blocks, int(n_frames * fraction)))
    held = max(1, int(n_frames * fraction / n_blocks))
    starts = ((np.arange(n_blocks) + 0.5) / n_blocks * n_frames - held / 2).astype(int)
    mask = np.zeros(n_frames, dtype=bool)
    mask[(starts[:, None] + np.arange(held)).ravel()] = True
    return mask


def first_of_pairs(taken: np.ndarray, segments: tuple[int, ...], lag: int) -> np.ndarray:
    """Numbers of the frames that are taken and have, `lag` frames later in the same segment, one that is too.

    Args:
        taken: (n_frames,) mask, such as of the training frames.
        segments: lengths of the pieces that are continuous in time.
    """
    first = lagged(segments, lag)
    return first[taken[first] & taken[first + lag]]


class Plan(NamedTuple):
    """What the compiled program is made for, beside the shapes of its arrays."""

    batch_size: int
    n_batches: int  # in a pass over the rows that are in memory
    n_steps: int  # in all
    stride: int  # epochs a call, about 200 steps: Python costs nothing then, and a progress bar still moves
    learning_rate: float
    lr_schedule: str
    beta_schedule: str
    free_bits: float
    patience: int
    lag: int
    ramp: int  # epochs until beta has its final value: only then do patience and the plateau begin to count

    def optimiser(self) -> optax.GradientTransformation:
        rate = self.learning_rate
        if self.lr_schedule == "cosine":
            rate = optax.warmup_cosine_decay_schedule(
                0.0, rate, warmup_steps=self.n_steps // 20, decay_steps=self.n_steps, end_value=0.01 * rate
            )
        return optax.chain(optax.clip_by_global_norm(100.0), optax.adam(rate))

    def plateau(self) -> optax.GradientTransformation:
        return optax.contrib.reduce_on_plateau(
            factor=0.3, patience=max(1, self.patience // 3), rtol=0.0, atol=1e-3, min_scale=1e-3
        )

    def beta_factor(self, step):
        """What beta is multiplied by at a step: 1, or a ramp from 0 over a tenth or half of the steps."""
        share = BETA_SCHEDULES[self.beta_schedule]
        return 1.0 if share == 0 else optax.linear_schedule(0.0, 1.0, max(1, int(share * self.n_steps)))(step)


class State(NamedTuple):
    """All that training carries from epoch to epoch."""

    weights: VAE
    opt_state: tuple
    plateau: tuple
    step: Array
    best_value: Array
    best_epoch: Array
    best_weights: VAE


class Rows(NamedTuple):
    """Frames, what is to be decoded from each, and their weights, whose mean over all is 1; or None for equal."""

    x: Array
    target: Array
    weights: Array | None

    @classmethod
    def of(cls, x, weights, rows, lag: int) -> "Rows":
        chosen = x[rows]
        return cls(chosen, chosen if lag == 0 else x[rows + lag], None if weights is None else weights[rows])


def initial_state(weights: VAE, plan: Plan) -> State:
    return State(
        weights,
        plan.optimiser().init(weights),
        plan.plateau().init(weights),
        jnp.zeros((), jnp.int32),  # of fixed types, or the second call would be compiled again
        jnp.full((), jnp.inf, jnp.float32),
        jnp.full((), -1, jnp.int32),
        weights,
    )


def _terms(weights, static, data: Rows, noise, free_bits: float):
    """Means over a batch of -log p, of the KL as it stands, and of the KL as it is paid for."""
    model = eqx.combine(weights, static)
    log_prob, kl = jax.vmap(model.elbo_terms)(data.x, noise, data.target)
    if data.weights is not None:
        log_prob, kl = data.weights * log_prob, data.weights[:, None] * kl
    kl = jnp.mean(kl, axis=0)
    return -jnp.mean(log_prob), jnp.sum(kl), jnp.sum(jnp.maximum(kl, free_bits)) if free_bits else jnp.sum(kl)


def _pass(state: State, static, data: Rows, key, beta, plan: Plan):
    """One optimiser step a batch, over all rows in a new order: the new state, the mean terms."""
    optimiser = plan.optimiser()
    order_key, noise_key = jax.random.split(key)
    shape = (plan.n_batches, plan.batch_size)
    order = jax.random.permutation(order_key, len(data.x))[: shape[0] * shape[1]].reshape(shape)
    latent_dim = eqx.combine(state.weights, static).latent_dim
    # Gathered and drawn once an epoch, which is much cheaper than once a step.
    batches = jax.tree.map(lambda rows: rows[order], data._replace(target=None if plan.lag == 0 else data.target))
    noise = jax.random.normal(noise_key, (*shape, latent_dim))

    def loss(weights, batch, noise, beta):
        batch = batch if plan.lag else batch._replace(target=batch.x)
        reconstruction, kl, paid = _terms(weights, static, batch, noise, plan.free_bits)
        return reconstruction + beta * paid, jnp.stack([reconstruction, kl])

    def step(state, inputs):
        grads, pair = jax.grad(loss, has_aux=True)(state.weights, *inputs, beta * plan.beta_factor(state.step))
        updates, opt_state = optimiser.update(grads, state.opt_state, state.weights)
        if plan.lr_schedule == "plateau":
            updates = jax.tree.map(lambda u: state.plateau.scale * u, updates)
        weights = optax.apply_updates(state.weights, updates)
        return state._replace(weights=weights, opt_state=opt_state, step=state.step + 1), pair

    state, pairs = jax.lax.scan(step, state, (batches, noise))
    return state, jnp.mean(pairs, axis=0)


def _judge(state: State, static, row, val: Rows | None, sample: Rows, noise, number, beta, plan: Plan):
    """The state after an epoch, with the best weights so far, and the row of the history.

    Without validation frames a sample of the training frames tells whether the weights are of any use.
    """
    terms = _terms(state.weights, static, sample if val is None else val, noise, plan.free_bits)
    if val is None:
        value = row[0] + beta * row[1]
        better = jnp.isfinite(row).all() & jnp.isfinite(terms[0] + terms[1])
    else:
        row = jnp.concatenate([row, jnp.stack(terms[:2])])
        value = terms[0] + beta * terms[2]
        # Late improvements do not count: a run within a sweep ends where it would have ended alone.
        waited = number - jnp.maximum(state.best_epoch, plan.ramp - 1)
        better = (value < state.best_value) & (waited <= plan.patience)  # False for NaN
    plateau = state.plateau
    if plan.lr_schedule == "plateau":
        _, later = plan.plateau().update((), plateau, value=value)
        plateau = jax.tree.map(lambda new, old: jnp.where(number < plan.ramp, old, new), later, plateau)
    return state._replace(
        plateau=plateau,
        best_value=jnp.where(better, value, state.best_value),
        best_epoch=jnp.where(better, number, state.best_epoch),
        best_weights=jax.tree.map(lambda new, old: jnp.where(better, new, old), state.weights, state.best_weights),
    ), row


def epochs(state: State, static, data: Rows, val: Rows | None, keys, beta, span, plan: Plan):
    """`span[1]` epochs from number `span[0]` on: the new state, and their rows among `plan.stride` rows.

    Data, keys and beta are arguments and not constants of the program, so that a second fit of the same
    shapes is not compiled again.
    """
    train_key, val_key = keys
    sample = _sample(data, plan)
    noise = _fixed_noise(val_key, state, static, sample if val is None else val)

    def body(k, carried):
        state, table = carried
        number = span[0] + k
        state, row = _pass(state, static, data, jax.random.fold_in(train_key, number), beta, plan)
        state, row = _judge(state, static, row, val, sample, noise, number, beta, plan)
        return state, table.at[k].set(row)

    table = jnp.zeros((plan.stride, 2 if val is None else len(TERMS)))
    return jax.lax.fori_loop(0, span[1], body, (state, table))


def _sample(data: Rows, plan: Plan) -> Rows:
    return jax.tree.map(lambda rows: rows[: plan.batch_size], data)


def _fixed_noise(key, state, static, rows: Rows):
    return jax.random.normal(key, (len(rows.x), eqx.combine(state.weights, static).latent_dim))


_epochs = eqx.filter_jit(epochs)
_block = eqx.filter_jit(_pass)


@eqx.filter_jit
def _finish(state, static, row, val, sample, val_key, number, beta, plan):
    noise = _fixed_noise(val_key, state, static, sample if val is None else val)
    return _judge(state, static, row, val, sample, noise, number, beta, plan)


def _blocks(x, weights, rows, key, plan: Plan) -> Iterator[Rows]:
    """Rows of data on disk, for one epoch: runs of neighbours in random order, some blocks of them."""
    runs = np.array_split(rows, max(1, len(rows) // _RUN_OF_ROWS))
    order = np.random.default_rng(np.asarray(jax.random.key_data(key))).permutation(len(runs))
    mixed = np.concatenate([runs[k] for k in order])
    size = plan.n_batches * plan.batch_size
    for start in range(0, len(mixed) - size + 1, size):
        yield jax.tree.map(jnp.asarray, Rows.of(x, weights, np.sort(mixed[start : start + size]), plan.lag))


def _epoch_from_disk(state, static, x, weights, rows, val, keys, beta, number: int, plan: Plan):
    key, block_rows = jax.random.fold_in(keys[0], number), []
    for k, block in enumerate(_blocks(x, weights, rows, key, plan)):
        state, row = _block(state, static, block, jax.random.fold_in(key, k), beta, plan)
        block_rows.append(row)
    row = jnp.mean(jnp.stack(block_rows), axis=0)
    state, row = _finish(state, static, row, val, _sample(block, plan), keys[1], jnp.asarray(number), beta, plan)
    return state, row[None]


def make_plan(
    n_rows: int, *, epochs: int, batch_size: int, patience: int | None, on_disk: bool, **options
) -> Plan:
    """The plan of a training run on so many rows; refuses fewer than a batch."""
    n_batches = n_rows // batch_size
    if n_batches == 0:
        raise InputError(
            f"training needs at least one batch of {batch_size} frames; got {n_rows} training frames. "
            f"Use more frames or a smaller batch size"
        )
    stride = min(epochs, max(1, 200 // n_batches))
    if on_disk:
        n_blocks = -(-n_rows // BLOCK_ROWS)
        n_batches, stride = n_rows // n_blocks // batch_size, 1
        n_steps = epochs * n_batches * n_blocks
    else:
        n_steps = epochs * n_batches
    return Plan(
        batch_size,
        n_batches,
        n_steps,
        stride,
        patience=max(1, -(-epochs // 5)) if patience is None else patience,
        ramp=math.ceil(BETA_SCHEDULES[options["beta_schedule"]] * epochs),
        **options,
    )


def normalised(weights: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """Weights whose mean over `rows` is 1."""
    return None if weights is None else (weights / weights[rows].mean()).astype(np.float32)


def validation_rows(x, weights, val_rows, lag: int) -> Rows | None:
    """The validation frames on the device, thinned evenly to `MAX_VALIDATION`."""
    if val_rows is None or not len(val_rows):
        return None
    val_rows = val_rows[:: -(-len(val_rows) // MAX_VALIDATION)]
    return jax.tree.map(jnp.asarray, Rows.of(x, normalised(weights, val_rows), val_rows, lag))


def train(
    vae: VAE,
    x: np.ndarray,
    rows: np.ndarray,
    val_rows: np.ndarray | None = None,
    *,
    weights: np.ndarray | None = None,
    lag: int = 0,
    beta: float = 1.0,
    beta_schedule: str = "constant",
    free_bits: float = 0.0,
    epochs: int,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    lr_schedule: str = "cosine",
    patience: int | None = None,
    key,
    progress: Callable[[int, dict[str, float]], None] | None = None,
    saved: tuple[list[np.ndarray], np.ndarray] | None = None,
    save: Callable[[list[Array], np.ndarray, bool], None] | None = None,
) -> Trained:
    """Maximise E_q[log p(x|z)] - beta KL(q(z|x) || p(z)), averaged over frames, with Adam.

    Each epoch visits the frames in a new order and leaves out the last partial batch. After each epoch
    the objective, with the final beta, is taken on the validation frames, with the same noise every
    time; the best weights are kept, and training stops when `patience` epochs (a fifth of `epochs` by
    default) bring no better ones, not counting those in which beta rises. Without validation frames every
    epoch is done and the last weights are kept. Gradients are clipped at a norm of 100.

    Args:
        x: (n_frames, n_features), scaled. A `numpy.memmap` stays on disk, and is read in blocks.
        rows, val_rows: numbers of the training and the validation frames.
        weights: (n_frames,) of the frames; both terms are linear in them, and they are normalised once.
        lag: decode, from frame i, frame i + lag, which must be there; see `first_of_pairs`.
        beta_schedule: "constant", "warmup" (a rise from 0 over the first tenth of the steps) or "cycle"
            (a rise over the first half, then constant: one cycle of Fu et al., arXiv:1903.10145).
        free_bits: nats per latent, averaged over a batch, that cost nothing (Kingma et al.,
            arXiv:1606.04934).
        lr_schedule: "cosine" (a rise over the first twentieth of the steps, then a fall along a cosine),
            "plateau" (0.3 times the rate, down to a thousandth of it, each time the objective has not fallen
            for a third of `patience`), or "constant".
        progress: called with the number of epochs done and the latest terms.
        save: called now and then with all that is needed to go on: the leaves of the state, the history
            so far, (epochs done, terms), and whether this is the end.
        saved: leaves and history that `save` was called with; training goes on from there, and ends, on the
            same machine with as many cores, with the same bits as if it had not been interrupted.

    Raises:
        InputError: fewer frames than a batch; or a loss that is not finite before any epoch is done.
    """
    on_disk = isinstance(x, np.memmap)
    plan = make_plan(
        len(rows),
        epochs=epochs,
        batch_size=batch_size,
        patience=patience,
        on_disk=on_disk,
        learning_rate=float(learning_rate),
        lr_schedule=lr_schedule,
        beta_schedule=beta_schedule,
        free_bits=float(free_bits),
        lag=lag,
    )
    val = validation_rows(x, weights, val_rows, lag)
    weights = normalised(weights, rows)
    start, static = eqx.partition(vae, eqx.is_inexact_array)
    state, table = initial_state(start, plan), np.zeros((0, 2 if val is None else len(TERMS)), np.float32)
    if saved is not None:
        leaves, table = saved
        state = jax.tree.unflatten(jax.tree.structure(state), [jnp.asarray(leaf) for leaf in leaves])
    keys, beta = jax.random.split(key), jnp.asarray(beta, jnp.float32)
    data = None if on_disk else jax.tree.map(jnp.asarray, Rows.of(x, weights, rows, lag))
    stopped = None
    while (stopped := ended(table, int(state.best_epoch), epochs, plan, val is not None)) is None:
        n = min(plan.stride, epochs - len(table))
        if on_disk:
            state, new = _epoch_from_disk(state, static, x, weights, rows, val, keys, beta, len(table), plan)
        else:
            state, new = _epochs(state, static, data, val, keys, beta, jnp.asarray([len(table), n]), plan)
        table = np.concatenate([table, np.asarray(new)[:n]])
        if save is not None and np.isfinite(table).all():
            save(jax.tree.leaves(state), table, False)
        if progress is not None:
            progress(len(table), dict(zip(TERMS, table[-1].tolist(), strict=False)))
    trained = finished(state.best_weights, static, table, int(state.best_epoch), stopped, plan)
    if save is not None:
        save(jax.tree.leaves(state), table, True)
    return trained


def ended(table: np.ndarray, best_epoch: int, epochs: int, plan: Plan, validated: bool) -> str | None:
    """Why training ends after the epochs in the table, in words; None where it does not."""
    finite = np.isfinite(table).all(axis=1)
    if not finite.all():
        return f"the loss was not finite in epoch {int(np.argmin(finite))}"
    if validated and len(table) - 1 - max(best_epoch, plan.ramp - 1) >= plan.patience:
        return f"no better validation objective in {plan.patience} epochs"
    return f"all {epochs} epochs done" if len(table) >= epochs else None


def finished(best_weights, static, table, best_epoch: int, stopped: str, plan: Plan) -> Trained:
    if best_epoch < 0:
        raise InputError(f"{stopped}, the first; lower the learning rate (now {plan.learning_rate:g})")
    history = {name: table[:, k] for k, name in enumerate(TERMS[: table.shape[1]])}
    return Trained(eqx.combine(best_weights, static), history, best_epoch, stopped)

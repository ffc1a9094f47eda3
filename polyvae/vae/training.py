"""Training: the loop around compiled epochs, early stopping on held-out frames, data in memory and on disk."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from polyvae.errors import InputError
from polyvae.vae import epochs
from polyvae.vae.checkpoint import Checkpoint
from polyvae.vae.epochs import Plan, Rows, make_initial_state, make_plan
from polyvae.vae.mesh import copy_to_one_device, layout_for
from polyvae.vae.network import VAE
from polyvae.vae.settings import Settings

MAX_VALIDATION = 65_536  # validation frames that are looked at after each epoch, evenly spread
_RUN_OF_ROWS = 1024  # neighbours that are read together where the data are on disk


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """Result of a training run."""

    vae: VAE  # the weights of the epoch with the best validation objective, or of the last epoch
    # per epoch, in nats per frame: -E[log p(x|z)] and KL on the training frames ("reconstruction", "kl") and on
    # the validation frames, if any ("val_reconstruction", "val_kl")
    history: dict[str, np.ndarray]
    best_epoch: int  # the epoch, from 0, that `vae` comes from
    stopped: str  # why training ended, in words


_epochs = eqx.filter_jit(epochs.epochs)
_block = eqx.filter_jit(epochs.one_pass)


class OnDisk(NamedTuple):
    """Data in a file: all frames, their weights, and the numbers of those to train on."""

    x: np.ndarray
    weights: np.ndarray | None
    rows: np.ndarray


@eqx.filter_jit
def _finish(state, static, row, seen, val_key, number, beta, plan):
    noise = epochs.draw_fixed_noise(val_key, state, static, seen)
    return epochs.judge(state, static, row, seen, noise, number, beta, plan)


def _blocks(data: OnDisk, key, plan: Plan) -> Iterator[Rows]:
    """Rows for one epoch: runs of neighbours in random order, some blocks of them."""
    runs = np.array_split(data.rows, max(1, len(data.rows) // _RUN_OF_ROWS))
    order = np.random.default_rng(np.asarray(jax.random.key_data(key))).permutation(len(runs))
    mixed = np.concatenate([runs[k] for k in order])
    size = plan.n_batches * plan.batch_size
    for start in range(0, len(mixed) - size + 1, size):
        rows = np.sort(mixed[start : start + size])
        yield _spread(Rows.of(data.x, data.weights, rows, plan.lag), plan)


def _epoch_from_disk(state, static, data: OnDisk, val, keys, beta, number: int, plan: Plan):
    key, block_rows = jax.random.fold_in(keys[0], number), []
    for k, block in enumerate(_blocks(data, key, plan)):
        state, row = _block(state, static, block, jax.random.fold_in(key, k), beta, plan)
        block_rows.append(row)
    row = jnp.mean(jnp.stack(block_rows), axis=0)
    number = plan.layout.everywhere(np.asarray(number))
    seen = epochs.take_first_batch(block, plan) if val is None else val
    state, row = _finish(state, static, row, seen, keys[1], number, beta, plan)
    return state, row[None]


def normalise_weights(weights: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """Weights whose mean over `rows` is 1."""
    if weights is None:
        return None
    return (weights / (weights[rows].sum() / len(rows))).astype(np.float32)


def take_validation_rows(x, weights, val_rows, plan: Plan) -> Rows | None:
    """The validation frames on every device, at most `MAX_VALIDATION` evenly spaced ones."""
    if val_rows is None or not len(val_rows):
        return None
    val_rows = val_rows[:: -(-len(val_rows) // MAX_VALIDATION)]
    return plan.layout.everywhere(Rows.of(x, normalise_weights(weights, val_rows), val_rows, plan.lag))


def _spread(rows: Rows, plan: Plan) -> Rows:
    """Copy the rows that are trained on to the devices; frames that are their own target go there once."""
    if rows.target is not rows.x:
        return plan.layout.shared(rows)
    placed = plan.layout.shared(rows._replace(target=None))
    return placed._replace(target=placed.x)


def train_until_end(
    advance: Callable[[Any, int, int], tuple[Any, Array]],
    state,
    table: np.ndarray,
    *,
    total: int,
    stride: int,
    ended: Callable[[np.ndarray, Any], str | None],
    unfinished: Checkpoint | None = None,
    progress: Callable[[int, np.ndarray], None] | None = None,
) -> tuple[Any, np.ndarray, str]:
    """The loop of every training: advance the state until there is a reason to end.

    Args:
        advance: called with the state, the rounds done, and the number of rounds to do. It returns the new state
            and a row of numbers for each of these rounds, (..., rounds, terms).
        state: a pytree.
        table: the rows so far, (..., rounds, terms).
        total: rounds in all.
        stride: rounds at a time.
        ended: called with table and state; it returns why training ends, in words, or None.
        unfinished: file that state and table are written to.
        progress: called with the rounds done and the last row.

    Returns:
        State and table at the end, and why it is the end.
    """
    while (stopped := ended(table, state)) is None:
        done = table.shape[-2]
        n = min(stride, total - done)
        state, rows = advance(state, done, n)
        table = np.concatenate([table, np.asarray(rows)[..., :n, :]], axis=-2)
        if unfinished is not None and np.isfinite(table).all():
            unfinished.save(jax.tree.leaves(state), table, False)
        if progress is not None:
            progress(table.shape[-2], table[..., -1, :])
    return state, table, stopped


def restored(state, unfinished: Checkpoint | None, n_terms: int):
    """The state and table to begin with: those that were saved, or this state and no rows."""
    if unfinished is None or unfinished.saved is None:
        return state, np.zeros((0, n_terms), np.float32)
    leaves, table = unfinished.saved
    shapes = [leaf.shape for leaf in leaves], table.shape[1:]
    if shapes != ([np.shape(leaf) for leaf in jax.tree.leaves(state)], (n_terms,)):
        raise InputError(f"{unfinished.path} is damaged; remove it and train from the beginning")
    return jax.tree.unflatten(jax.tree.structure(state), [jnp.asarray(leaf) for leaf in leaves]), table


def train(
    vae: VAE,
    x: np.ndarray,
    rows: np.ndarray,
    val_rows: np.ndarray | None = None,
    *,
    settings: Settings,
    weights: np.ndarray | None = None,
    key,
    progress: Callable[[int, dict[str, float]], None] | None = None,
    unfinished: Checkpoint | None = None,
) -> Trained:
    """Maximise E_q[log p(x|z)] - beta KL(q(z|x) || p(z)), averaged over frames, with Adam.

    Each epoch visits the frames in a new order and leaves out the last partial batch. After each epoch
    the objective, with the final beta, is taken on the validation frames, with the same noise every
    time; the best weights are kept. Epochs in which beta rises do not count towards `patience`. Gradients
    are clipped at a norm of 100. Settings are explained in `Training`. The schedule "cycle" is one cycle of
    Fu et al., arXiv:1903.10145, free bits are those of Kingma et al., arXiv:1606.04934.

    Args:
        x: (n_frames, n_features), scaled. A `numpy.memmap` stays on disk, and is read in blocks.
        rows, val_rows: numbers of the training and the validation frames, each with a frame `lag` later.
        weights: (n_frames,) of the frames; both terms are linear in them, and they are normalised once.
        progress: called with the number of epochs done and the latest terms.
        unfinished: file of the state, renewed about every second; training continues from it.

    Raises:
        InputError: fewer frames than a batch; or a loss that is not finite before any epoch is done.
    """
    on_disk = isinstance(x, np.memmap)
    validated = val_rows is not None and len(val_rows) > 0
    plan = make_plan(len(rows), settings, on_disk=on_disk, validated=validated)
    plan = plan._replace(layout=layout_for(plan.batch_size, plan.layout.n_rows))
    val = take_validation_rows(x, weights, val_rows, plan)
    weights = normalise_weights(weights, rows)
    start, static = eqx.partition(vae, eqx.is_inexact_array)
    state, table = restored(make_initial_state(start, plan), unfinished, len(plan.terms))
    keys, beta = jax.random.split(key), jnp.asarray(settings.beta, jnp.float32)
    state, keys, beta = plan.layout.everywhere((state, keys, beta))
    data: OnDisk | Rows = OnDisk(x, weights, rows)
    if not on_disk:
        data = _spread(Rows.of(x, weights, rows, plan.lag), plan)

    def advance(state, done: int, n: int):
        if isinstance(data, OnDisk):
            return _epoch_from_disk(state, static, data, val, keys, beta, done, plan)
        span = plan.layout.everywhere(np.asarray([done, n]))
        return _epochs(state, static, data, val, keys, beta, span, plan)

    state, table, stopped = train_until_end(
        advance,
        state,
        table,
        total=plan.epochs,
        stride=plan.stride,
        ended=lambda table, state: ended(table, int(state.best_epoch), plan),
        unfinished=unfinished,
        progress=progress and (lambda done, row: progress(done, dict(zip(plan.terms, row.tolist(), strict=True)))),
    )
    trained = finished(copy_to_one_device(state.best_weights), static, table, int(state.best_epoch), stopped, plan)
    if unfinished is not None:
        unfinished.save(jax.tree.leaves(state), table, True)
    return trained


def train_stacked(
    vaes: list[VAE],
    x: np.ndarray,
    rows: np.ndarray,
    val_rows: np.ndarray | None,
    *,
    settings: list[Settings],
    weights: np.ndarray | None,
    keys: list,
) -> list[Trained]:
    """`train` of models that differ in beta and seed alone, as one program over stacked weights."""
    validated = val_rows is not None and len(val_rows) > 0
    plan = make_plan(len(rows), settings[0], validated=validated)
    val = take_validation_rows(x, weights, val_rows, plan)
    data = jax.tree.map(jnp.asarray, Rows.of(x, normalise_weights(weights, rows), rows, plan.lag))
    states, statics = zip(*(eqx.partition(vae, eqx.is_inexact_array) for vae in vaes), strict=True)
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(make_initial_state(start, plan) for start in states))
    pairs = jax.vmap(jax.random.split)(jnp.stack(keys))
    betas = jnp.asarray([s.beta for s in settings], jnp.float32)

    def advance(state, done: int, n: int):
        return _epochs_of_all(state, statics[0], data, val, pairs, betas, jnp.asarray([done, n]), plan)

    def ends(tables, state) -> list[tuple[int, str] | None]:
        best = np.asarray(state.best_epoch)
        return [_end_one(t, int(b), plan) for t, b in zip(tables, best, strict=True)]

    state, tables, _ = train_until_end(
        advance,
        state,
        np.zeros((len(vaes), 0, len(plan.terms)), np.float32),
        total=plan.epochs,
        stride=plan.stride,
        ended=lambda tables, state: None if None in ends(tables, state) else "all have ended",
    )
    found = []
    for k, end in enumerate(ends(tables, state)):
        assert end is not None
        n, stopped = end
        best_weights = jax.tree.map(lambda leaf, k=k: leaf[k], state.best_weights)
        found.append(finished(best_weights, statics[0], tables[k, :n], int(state.best_epoch[k]), stopped, plan))
    return found


@eqx.filter_jit
def _epochs_of_all(state, static, data, val, keys, betas, span, plan):
    def one(state, keys, beta):
        return epochs.epochs(state, static, data, val, keys, beta, span, plan)

    return jax.vmap(one)(state, keys, betas)


def _end_one(table: np.ndarray, best_epoch: int, plan: Plan) -> tuple[int, str] | None:
    """Number of epochs of one of many runs, and why it ended; None where it continues."""
    n = len(table)
    if plan.validated:
        n = min(n, max(best_epoch + plan.patience + 1, 1))
    stopped = ended(table[:n], best_epoch, plan)
    if stopped is None:
        return None
    return n, stopped


def ended(table: np.ndarray, best_epoch: int, plan: Plan) -> str | None:
    """Why training ends after the epochs in the table, in words; None where it does not."""
    finite = np.isfinite(table).all(axis=1)
    if not finite.all():
        return f"the loss was not finite in epoch {int(np.argmin(finite))}"
    if plan.validated and len(table) - 1 - max(best_epoch, plan.ramp - 1) >= plan.patience:
        return f"no better validation objective in {plan.patience} epochs"
    if len(table) >= plan.epochs:
        return f"all {plan.epochs} epochs done"
    return None


def finished(best_weights, static, table, best_epoch: int, stopped: str, plan: Plan) -> Trained:
    """Make the result of training; raises `InputError` where no epoch gave usable weights."""
    if best_epoch < 0:
        raise InputError(f"{stopped}, the first; lower the learning rate (now {plan.learning_rate:g})")
    history = dict(zip(plan.terms, table.T, strict=True))
    return Trained(eqx.combine(best_weights, static), history, best_epoch, stopped)

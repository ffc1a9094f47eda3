"""Whole epochs of training as one compiled program: steps, validation, and the best weights so far."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from polyvae.errors import InputError
from polyvae.vae.bound import elbo_terms, unevenness
from polyvae.vae.mesh import Layout
from polyvae.vae.network import VAE
from polyvae.vae.settings import BETA_SCHEDULES, Settings

TERMS = ("reconstruction", "kl", "val_reconstruction", "val_kl")
BLOCK_ROWS = 1 << 18  # frames in memory at once where the data are on disk


class Plan(NamedTuple):
    """Settings that the compiled program depends on, beside the shapes of its arrays."""

    batch_size: int
    n_batches: int  # in a pass over the rows that are in memory
    n_steps: int  # in all
    epochs: int
    stride: int  # epochs a call, about 200 steps: Python costs nothing then, and a progress bar still moves
    learning_rate: float
    lr_schedule: str
    beta_schedule: str
    free_bits: float
    smoothness: float
    patience: int
    lag: int
    ramp: int  # epochs until beta has its final value: only then do patience and the plateau begin to count
    layout: Layout  # the devices, and the number of rows in memory
    validated: bool = False  # whether there are validation frames; otherwise a batch for training is looked at

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the numbers in a row of the history."""
        if self.validated:
            return TERMS
        return TERMS[:2]

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
        """Factor of beta at a step: 1, or a ramp from 0 over a tenth or half of the steps."""
        share = BETA_SCHEDULES[self.beta_schedule]
        if share == 0:
            return 1.0
        return optax.linear_schedule(0.0, 1.0, max(1, int(share * self.n_steps)))(step)


class TrainingState(NamedTuple):
    """State that training carries from epoch to epoch."""

    weights: VAE
    opt_state: tuple
    plateau: tuple
    step: Array
    best_value: Array
    best_epoch: Array
    best_weights: VAE


class Rows(NamedTuple):
    """Frames, the target to decode from each, and weights with a mean of 1 over all frames, or None if equal."""

    x: Array
    target: Array | None
    weights: Array | None

    @classmethod
    def of(cls, x, weights, rows, lag: int) -> "Rows":
        chosen = target = x[rows]
        if lag:
            target = x[rows + lag]
        if weights is not None:
            weights = weights[rows]
        return cls(chosen, target, weights)


def make_initial_state(weights: VAE, plan: Plan) -> TrainingState:
    # The types are fixed, or the second call would be compiled again.
    step, value, epoch = jnp.zeros((), jnp.int32), jnp.full((), jnp.inf, jnp.float32), jnp.full((), -1, jnp.int32)
    opt_state, plateau = plan.optimiser().init(weights), plan.plateau().init(weights)
    return TrainingState(weights, opt_state, plateau, step, value, epoch, weights)


def loss_terms(weights, static, data: Rows, noise, free_bits: float):
    """Means over a batch of -log p, of the KL, and of the KL that counts beyond `free_bits`."""
    model = eqx.combine(weights, static)
    log_prob, kl = jax.vmap(lambda *row: elbo_terms(model, *row))(data.x, noise, data.target)
    if data.weights is not None:
        log_prob, kl = data.weights * log_prob, data.weights[:, None] * kl
    kl = jnp.mean(kl, axis=0)
    paid = jnp.sum(kl)
    if free_bits:
        paid = jnp.sum(jnp.maximum(kl, free_bits))
    return -jnp.mean(log_prob), jnp.sum(kl), paid


def one_pass(state: TrainingState, static, data: Rows, key, beta, plan: Plan):
    """One optimiser step a batch, over all rows in a new order: the new state, the mean terms."""
    optimiser = plan.optimiser()
    order_key, noise_key = jax.random.split(key)
    shape = (plan.n_batches, plan.batch_size)
    layout, several = plan.layout, plan.layout.mesh is not None
    order = jax.random.permutation(order_key, layout.n_rows)[: shape[0] * shape[1]].reshape(shape)
    latent_dim = eqx.combine(state.weights, static).latent_dim
    if not plan.lag:
        data = data._replace(target=None)
    # Rows are gathered once an epoch, which is much cheaper than once a step. On several devices they are gathered
    # once a step, or each device would come to hold all of them.
    batches = order
    if not several:
        batches = jax.tree.map(lambda rows: rows[order], data)
    noise = jax.random.normal(noise_key, (*shape, latent_dim))
    parts = jnp.zeros((shape[0], 0))
    if plan.smoothness:
        parts = jax.random.uniform(jax.random.fold_in(noise_key, 1), shape)
    noise, parts = layout.spread((noise, parts), axis=1)

    def loss(weights, batch, noise, parts, beta):
        if not plan.lag:
            batch = batch._replace(target=batch.x)
        reconstruction, kl, paid = loss_terms(weights, static, batch, noise, plan.free_bits)
        total = reconstruction + beta * paid
        if plan.smoothness:  # between each frame of the batch and the one before it, in random order
            model = eqx.combine(weights, static)
            uneven = jax.vmap(lambda *pair: unevenness(model, *pair))(batch.x, jnp.roll(batch.x, 1, axis=0), parts)
            total += plan.smoothness * jnp.mean(uneven)
        return total, jnp.stack([reconstruction, kl])

    def step(state, inputs):
        batch, noise, parts = inputs
        if several:
            batch = layout.take(data, batch)
        paid = beta * plan.beta_factor(state.step)
        grads, pair = jax.grad(loss, has_aux=True)(state.weights, batch, noise, parts, paid)
        updates, opt_state = optimiser.update(grads, state.opt_state, state.weights)
        if plan.lr_schedule == "plateau":
            updates = jax.tree.map(lambda u: state.plateau.scale * u, updates)
        weights = optax.apply_updates(state.weights, updates)
        return state._replace(weights=weights, opt_state=opt_state, step=state.step + 1), pair

    state, pairs = jax.lax.scan(step, state, (batches, noise, parts))
    return layout.replicate((state, jnp.mean(pairs, axis=0)))


def judge(state: TrainingState, static, row, seen: Rows, noise, number, beta, plan: Plan):
    """The state after an epoch, with the best weights so far, and the row of the history.

    `row` holds the mean terms of the epoch. `seen` are the validation frames, or without these a batch for
    training, which shows whether the weights are usable.
    """
    seen, noise = plan.layout.spread((seen, noise))
    terms = loss_terms(state.weights, static, seen, noise, plan.free_bits)
    value = row[0] + beta * row[1]
    better = jnp.isfinite(row).all() & jnp.isfinite(terms[0] + terms[1])
    if plan.validated:
        row = jnp.concatenate([row, jnp.stack(terms[:2])])
        value = terms[0] + beta * terms[2]
        # Late improvements do not count: a run within a sweep ends where it would have ended alone.
        waited = number - jnp.maximum(state.best_epoch, plan.ramp - 1)
        better = (value < state.best_value) & (waited <= plan.patience)  # False for NaN
    plateau = state.plateau
    if plan.lr_schedule == "plateau":
        _, later = plan.plateau().update((), plateau, value=value)
        plateau = jax.tree.map(lambda new, old: jnp.where(number < plan.ramp, old, new), later, plateau)
    state = state._replace(
        plateau=plateau,
        best_value=jnp.where(better, value, state.best_value),
        best_epoch=jnp.where(better, number, state.best_epoch),
        best_weights=jax.tree.map(lambda new, old: jnp.where(better, new, old), state.weights, state.best_weights),
    )
    return plan.layout.replicate((state, row))


def epochs(state: TrainingState, static, data: Rows, val: Rows | None, keys, beta, span, plan: Plan):
    """`span[1]` epochs from number `span[0]` on: the new state, and their rows among `plan.stride` rows.

    Data, keys and beta are arguments and not constants of the program, so that a second fit of the same
    shapes is not compiled again.
    """
    train_key, val_key = keys
    seen = take_first_batch(data, plan) if val is None else val
    noise = draw_fixed_noise(val_key, state, static, seen)

    def body(k, carried):
        state, table = carried
        number = span[0] + k
        state, row = one_pass(state, static, data, jax.random.fold_in(train_key, number), beta, plan)
        state, row = judge(state, static, row, seen, noise, number, beta, plan)
        return state, table.at[k].set(row)

    table = jnp.zeros((plan.stride, len(plan.terms)))
    return jax.lax.fori_loop(0, span[1], body, (state, table))


def take_first_batch(data: Rows, plan: Plan) -> Rows:
    return jax.tree.map(lambda rows: rows[: plan.batch_size], data)


def draw_fixed_noise(key, state, static, rows: Rows):
    return jax.random.normal(key, (len(rows.x), eqx.combine(state.weights, static).latent_dim))


def make_plan(n_rows: int, settings: Settings, *, on_disk: bool = False, validated: bool = False) -> Plan:
    """The plan of a training run on one device; raises `InputError` for fewer rows than a batch."""
    batch_size, epochs, lag = settings.batch_size, settings.epochs, settings.lag
    n_batches = n_rows // batch_size
    if n_batches == 0:
        raise InputError(
            f"training needs at least one batch of {batch_size} frames; got {n_rows} training frames. "
            f"Use more frames or a smaller batch size"
        )
    stride, n_blocks = min(epochs, max(1, 200 // n_batches)), 1
    if on_disk:
        n_blocks = -(-n_rows // BLOCK_ROWS)
        n_batches, stride = n_rows // n_blocks // batch_size, 1
        n_rows = n_batches * batch_size
    patience = settings.patience
    if patience is None and lag:
        patience = epochs  # the bound on a later frame falls late, with the learning rate
    return Plan(
        batch_size=batch_size,
        n_batches=n_batches,
        n_steps=epochs * n_batches * n_blocks,
        epochs=epochs,
        stride=stride,
        learning_rate=settings.learning_rate,
        lr_schedule=settings.lr_schedule,
        beta_schedule=settings.beta_schedule,
        free_bits=settings.free_bits,
        smoothness=settings.smoothness,
        patience=patience or max(1, -(-epochs // 5)),
        lag=lag,
        ramp=math.ceil(BETA_SCHEDULES[settings.beta_schedule] * epochs),
        layout=Layout(None, n_rows),
        validated=validated,
    )

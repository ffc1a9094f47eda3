"""Training: whole epochs compiled into one program, early stopping on held-out blocks."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from polyvae.errors import InputError
from polyvae.vae import VAE

TERMS = ("reconstruction", "kl", "val_reconstruction", "val_kl")


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


class _Plan(NamedTuple):
    """What the compiled program is made for, beside the shapes of its arrays."""

    batch_size: int
    n_batches: int
    n_steps: int
    learning_rate: float
    # Epochs a call, about 200 steps: long enough that Python costs nothing, short for a live progress bar.
    stride: int

    def optimiser(self) -> optax.GradientTransformation:
        schedule = optax.warmup_cosine_decay_schedule(
            0.0,
            self.learning_rate,
            warmup_steps=self.n_steps // 20,
            decay_steps=self.n_steps,
            end_value=0.01 * self.learning_rate,
        )
        return optax.chain(optax.clip_by_global_norm(100.0), optax.adam(schedule))


@eqx.filter_jit
def _run(carry, static, x, x_val, keys, beta, span, plan: _Plan):
    """`span[1]` epochs from number `span[0]` on: the new carry and a row of terms for each, `plan.stride` rows.

    Data, keys and beta are arguments and not constants of the program, so that a second fit of the same
    shapes is not compiled again.
    """
    train_key, val_key = keys
    optimiser = plan.optimiser()

    def terms(weights, batch, key):
        model = eqx.combine(weights, static)
        log_prob, kl = jax.vmap(model.elbo_terms)(batch, jax.random.split(key, len(batch)))
        return -jnp.mean(log_prob), jnp.mean(kl)

    def loss(weights, batch, key):
        reconstruction, kl = terms(weights, batch, key)
        return reconstruction + beta * kl, jnp.stack([reconstruction, kl])

    def step(carry, inputs):
        weights, opt_state = carry
        rows, key = inputs
        grads, pair = jax.grad(loss, has_aux=True)(weights, x[rows], key)
        updates, opt_state = optimiser.update(grads, opt_state, weights)
        return (optax.apply_updates(weights, updates), opt_state), pair

    def epoch(carry, number):
        weights, opt_state, best_value, best_weights = carry
        order_key, noise_key = jax.random.split(jax.random.fold_in(train_key, number))
        order = jax.random.permutation(order_key, len(x))[: plan.n_batches * plan.batch_size]
        rows = order.reshape(plan.n_batches, plan.batch_size)
        noise_keys = jax.random.split(noise_key, plan.n_batches)
        (weights, opt_state), pairs = jax.lax.scan(step, (weights, opt_state), (rows, noise_keys))
        row = jnp.mean(pairs, axis=0)
        if x_val is None:
            better = jnp.isfinite(row).all()
        else:
            val = jnp.stack(terms(weights, x_val, val_key))
            value = val[0] + beta * val[1]
            better = value < best_value  # False for NaN
            best_value = jnp.where(better, value, best_value)
            row = jnp.concatenate([row, val])
        best_weights = jax.tree.map(lambda new, old: jnp.where(better, new, old), weights, best_weights)
        return (weights, opt_state, best_value, best_weights), row

    def body(k, state):
        carry, table = state
        carry, row = epoch(carry, span[0] + k)
        return carry, table.at[k].set(row)

    table = jnp.zeros((plan.stride, len(TERMS) if x_val is not None else 2))
    return jax.lax.fori_loop(0, span[1], body, (carry, table))


def train(
    vae: VAE,
    x: Float[Array, "frames features"],
    x_val: Float[Array, "val_frames features"] | None = None,
    *,
    beta: float = 1.0,
    epochs: int,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    patience: int | None = None,
    key,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> Trained:
    """Maximise E_q[log p(x|z)] - beta KL(q(z|x) || p(z)), averaged over frames, with Adam.

    The learning rate rises over the first twentieth of the steps and falls along a cosine. Each epoch
    visits the frames in a new order and leaves out the last partial batch. After each epoch the
    objective is taken on `x_val`, with the same noise every time; the best weights are kept, and
    training stops when `patience` epochs (a fifth of `epochs` by default) bring no better ones.
    Without `x_val` every epoch is done and the last weights are kept.

    Args:
        x, x_val: standardised features.
        progress: called with the number of epochs done and the latest terms.

    Raises:
        InputError: fewer frames than a batch; or a loss that is not finite before any epoch is done.
    """
    n_batches = len(x) // batch_size
    if n_batches == 0:
        raise InputError(
            f"training needs at least one batch of {batch_size} frames; got {len(x)} training frames. "
            f"Use more frames or a smaller batch size"
        )
    patience = max(1, -(-epochs // 5)) if patience is None else patience
    plan = _Plan(
        batch_size, n_batches, epochs * n_batches, float(learning_rate), min(epochs, max(1, 200 // n_batches))
    )
    weights, static = eqx.partition(vae, eqx.is_inexact_array)
    keys = jax.random.split(key)
    carry = (weights, plan.optimiser().init(weights), jnp.asarray(jnp.inf), weights)
    rows: list[np.ndarray] = []
    best_epoch, stopped = -1, f"all {epochs} epochs done"
    while len(rows) < epochs:
        n = min(plan.stride, epochs - len(rows))
        carry, new = _run(carry, static, x, x_val, keys, jnp.asarray(beta), jnp.asarray([len(rows), n]), plan)
        rows.extend(np.asarray(new)[:n])
        table = np.stack(rows)
        if progress is not None:
            progress(len(rows), dict(zip(TERMS, table[-1].tolist(), strict=False)))
        finite = np.isfinite(table).all(axis=1)
        if finite.any():
            objective = np.where(finite, table[:, -2] + beta * table[:, -1], np.inf)
            best_epoch = int(np.argmin(objective) if x_val is not None else np.flatnonzero(finite)[-1])
        if not finite.all():
            stopped = f"the loss was not finite in epoch {int(np.argmin(finite))}"
            if best_epoch < 0:
                raise InputError(f"{stopped}, the first; lower the learning rate (now {learning_rate:g})")
            break
        if len(rows) - 1 - best_epoch >= patience:
            stopped = f"no better validation bound in {patience} epochs"
            break
    history = {name: table[:, k] for k, name in enumerate(TERMS[: table.shape[1]])}
    return Trained(eqx.combine(carry[3], static), history, best_epoch, stopped)

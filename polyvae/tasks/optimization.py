"""Conformations that minimise, maximise or meet an objective, searched for through the latent space."""

import dataclasses
import logging
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from polyvae import geometry
from polyvae.arguments import flag, if_given, real_number, seed_number, shown, whole_number
from polyvae.batches import map_frames, single_precision
from polyvae.cv.latent import LatentCV, check_cv
from polyvae.errors import InputError
from polyvae.measures.density import log_density
from polyvae.measures.limits import QUANTILE, Limits, limits_of
from polyvae.measures.objectives import OBJECTIVES, objective_of
from polyvae.measures.penalties import make_violation
from polyvae.measures.weights import counted, quantile
from polyvae.tasks.optimum import Optimum
from polyvae.trajectory.record import Trajectory

log = logging.getLogger(__name__)

_MET = 0.01  # how near a target is near enough, as a fraction of it
_PULL = 10.0  # to a target, over the pull to smaller or larger values
MAX_BEADS = 1000  # with more, refinement takes hours: its cost grows as the square
_HELD = 1 << 23  # distances in memory together
_SHOWN = 100  # frames that each half of the path is kept as


@single_precision
def optimize(
    cv: LatentCV,
    objective: Callable | str = geometry.radius_of_gyration,
    *,
    start: Trajectory | np.ndarray,
    minimize: bool = True,
    target: float | None = None,
    n_starts: int | None = None,
    prior_weight: float = 1.0,
    bond_weight: float = 1.0,
    steps: int = 300,
    refine_steps: int = 2000,
    seed: int = 0,
) -> Optimum:
    """Find a conformation with an extreme or a given value of an objective, within what the data allow.

    The search has two halves. First, z moves down the gradient of objective(decode(z)) from several points of the
    data. A penalty keeps it where a Gaussian kernel density estimate of the data's z is above its own 1 %
    quantile.

    The decoder's conformation is a mean over many, with bonds too short and beads too close. So the coordinates
    themselves move in the second half, from the decoded end points, from the extreme frames of the data, and from
    the frames nearest to the end points. Penalties bring bonds and pairs within the data's quantiles, keep the
    mean strain of the bonds at or below that of the data, keep z where data are, and keep the conformation one
    that the model reconstructs no worse than 99.9 % of the data. A frame of the data within the limits stays as
    it is if this makes it no better.

    All starts move at once, in one compiled program for each half. The coordinates of more than 1,000 beads are
    not refined: their pairs would take hours.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        objective: pure JAX function of one frame (n_beads, n_dims), in the model's unit, or one of "rg",
            "end_to_end", "asphericity", "shape_anisotropy", which count beads by their masses.
        start: the trajectory whose latents bound the search and whose bonds and pairs set the limits.
        minimize: minimise; maximise with False.
        target: a value to meet to 1 %, in place of the smallest or largest.
        n_starts: number of starts, half of them at the data's most extreme frames or those nearest the target,
            half at random frames. By default 64, and with more than 64 beads fewer, at least 8, as their pairs
            grow.
        prior_weight: weight of the penalties that keep z and the conformation where the model knows them.
        bond_weight: weight of the penalties on bonds and pairs.
        steps: steps of the search in z.
        refine_steps: steps of the refinement of coordinates.
        seed: seed of the random starts.

    Raises:
        InputError: data that do not fit the model; an objective that does not return one number, or that is not
            finite in the data; a target that was not met, with the range that was reached.
    """
    traj = counted(check_cv(cv).as_trajectory(start))
    objective = _check_objective(objective, traj)
    if n_starts is None:
        n_starts = min(64, max(8, 64**3 // traj.n_beads**2))
    n_starts, steps = whole_number("n_starts", n_starts, 1), whole_number("steps", steps, 1)
    refine_steps, seed = whole_number("refine_steps", refine_steps, 1), seed_number(seed)
    target, minimize = if_given(real_number, "target", target), flag("minimize", minimize)
    real_number("prior_weight", prior_weight, least=0)
    real_number("bond_weight", bond_weight, least=0)
    values = _evaluate(objective, traj.positions)
    cost = _make_cost(values, traj.weights, minimize, target)
    limits = limits_of(traj)
    z_data = cv.encode(traj.positions)
    rng = np.random.default_rng(seed)
    outside = _make_outside(z_data, traj.weights, prior_weight, rng)

    extremes = np.argsort(cost(values), kind="stable")[: (n_starts + 1) // 2]
    others = rng.choice(traj.n_frames, n_starts - len(extremes), replace=traj.n_frames < n_starts)
    z0 = z_data[np.concatenate([extremes, others])]
    z_end, z_path, path = _descend(_make_latent_loss(cv, objective, cost, outside), z0, steps, learning_rate=0.03)
    decoded = cv.decode(z_end, coordinates=True)

    # Twice as many are refined: the decoder's conformations; and the extreme frames themselves, and for the
    # other starts the frames nearest in z, since their bonds are sound already.
    nearest = ((z_end[len(extremes) :, None] - z_data[None]) ** 2).sum(axis=2).argmin(axis=1)
    x0 = np.concatenate([decoded, traj.positions[extremes], traj.positions[nearest]])
    refined, refining, kept = x0, x0[None], np.arange(len(x0)) >= n_starts
    if traj.n_beads <= MAX_BEADS:
        strained = _make_strained(cv, traj, limits, prior_weight, bond_weight)
        loss = _make_refine_loss(cv, objective, cost, outside, strained)
        refined, refining = _refine(loss, x0, refine_steps, 0.02 * limits.longest_mean_bond)
        # A frame of the data that only grew worse is a candidate as it is.
        kept[n_starts:] = _better_before(cv, objective, cost, limits, x0[n_starts:], refined[n_starts:])
        refined = np.where(kept[:, None, None], x0, refined)
    else:
        log.info("coordinates of over %d beads would take hours to refine, and stay as they are", MAX_BEADS)
    candidates = cv.turn(refined)

    final, valid = map_frames(jax.jit(jax.vmap(objective)), candidates), limits.accept(candidates)
    found = np.asarray(cost(final))
    best = int(np.argmin(np.where(valid, found, np.inf) if valid.any() else found))
    extreme = int(extremes[0])
    if target is not None:
        _check_met(target, float(final[best]), final[valid], values)
    better = target is not None or bool(found[best] < cost(values)[extreme] and not kept[best])
    moving = cv.decode(z_path[:: max(1, steps // _SHOWN), best % n_starts], coordinates=True)
    moved = cv.turn(np.concatenate([refining[:, best], refined[best, None]]))
    return Optimum(
        structure=_as_frames(cv, candidates)[best],
        value=float(final[best]),
        z=cv.encode(candidates)[best],
        valid=bool(valid[best]),
        better=better,
        message=_describe(better, bool(valid[best]), minimize, target),
        extreme=traj[extreme],
        extreme_value=float(values[extreme]),
        limits=limits,
        path=path,
        z_path=z_path,
        decoded=_as_frames(cv, decoded),
        candidates=_as_frames(cv, candidates),
        candidate_values=final,
        candidate_valid=valid,
        route=_as_frames(cv, np.concatenate([moving, moved]), (len(moving), len(moved))),
    )


def _refine(loss: Callable, x0: np.ndarray, steps: int, pace: float) -> tuple[np.ndarray, np.ndarray]:
    """Move coordinates down the loss; returns the end points, and the points on the way."""
    n_pairs = x0.shape[1] * (x0.shape[1] - 1) // 2
    every = max(1, steps // _SHOWN)
    refined, refining, _ = _descend(loss, x0, steps, learning_rate=pace, every=every, width=n_pairs)
    return refined, refining


def _better_before(
    cv: LatentCV, objective: Callable, cost: Callable, limits: Limits, x0: np.ndarray, refined: np.ndarray
) -> np.ndarray:
    """Which conformations are within the limits, and got a worse objective or left the limits when refined."""
    ends, values = cv.turn(refined), jax.jit(jax.vmap(objective))
    worse = np.asarray(cost(map_frames(values, x0)) < cost(map_frames(values, ends)))
    return limits.accept(x0) & (worse | ~limits.accept(ends))


def _as_frames(cv: LatentCV, positions: np.ndarray, segments: tuple[int, ...] | None = None) -> Trajectory:
    """Conformations as a trajectory, without segments each a piece of its own."""
    return dataclasses.replace(cv.template, positions=positions, segments=segments or (1,) * len(positions))


def _check_objective(objective: Callable | str, traj: Trajectory) -> Callable:
    if isinstance(objective, str):
        if objective not in OBJECTIVES:
            raise InputError(
                f"the objective must be one of {', '.join(OBJECTIVES)}, or a function; got {objective!r}"
            )
        objective = objective_of(objective, traj.unequal_masses)
    if not callable(objective):
        raise InputError(f"the objective must be a function of one frame, or its name; got {shown(objective)}")
    result = jax.eval_shape(objective, jax.ShapeDtypeStruct(traj.positions.shape[1:], jnp.float32))
    if getattr(result, "shape", None) != ():
        raise InputError(f"the objective must give one number for one frame; it gives {result}")
    return objective


def _evaluate(objective: Callable, positions: np.ndarray) -> np.ndarray:
    """The objective in each frame of the data; raises `InputError` where one is not finite."""
    values = map_frames(jax.jit(jax.vmap(objective)), positions)
    if not (good := np.isfinite(values)).all():
        bad = int(np.argmin(good))
        raise InputError(
            f"the objective must be finite in every frame of the data; in frame {bad} it is {values[bad]}"
        )
    return values


def _make_cost(values: np.ndarray, weights: np.ndarray | None, minimize: bool, target: float | None) -> Callable:
    """The function of the objective's value to minimise, in standard deviations of the data's values."""
    spread = math.sqrt(np.cov(values, ddof=0, aweights=weights)) or 1.0
    sign = 1.0 if minimize else -1.0

    def cost(value):
        if target is None:
            return sign * value / spread
        return _PULL * ((value - target) / spread) ** 2

    return cost


def _make_outside(
    z_data: np.ndarray, weights: np.ndarray | None, weight: float, rng: np.random.Generator
) -> Callable:
    """Penalty, in nats squared, on a latent point in a place less dense than 99 % of the data's z are in."""
    density, floor = log_density(z_data, rng, weights)

    def outside(z):  # the cap keeps the penalty flat far out, where the slope vanishes
        return weight * jnp.minimum(jax.nn.relu(floor - density(z)), 50.0) ** 2

    return outside


def _make_strained(
    cv: LatentCV, traj: Trajectory, limits: Limits, prior_weight: float, bond_weight: float
) -> Callable:
    """Penalty on a conformation outside the limits, or one that the model reconstructs worse than the data."""
    residuals = map_frames(
        jax.jit(jax.vmap(lambda positions: _reconstruction_error(cv, positions))), traj.positions
    )
    reach = quantile(residuals, 1 - QUANTILE, traj.weights) or 1.0
    violation = make_violation(limits, traj.n_beads)

    def strained(positions):
        astray = prior_weight * jax.nn.relu(_reconstruction_error(cv, positions) / reach - 1) ** 2
        return bond_weight * violation(positions) + astray

    return strained


def _make_latent_loss(cv: LatentCV, objective: Callable, cost: Callable, outside: Callable) -> Callable:
    """The cost of a latent point, and the objective of its conformation."""

    decode = cv.function().decode

    def loss(z, progress):
        value = objective(decode(z))
        return cost(value) + outside(z), value

    return loss


def _make_refine_loss(
    cv: LatentCV, objective: Callable, cost: Callable, outside: Callable, strained: Callable
) -> Callable:
    """The cost of a conformation's coordinates, with limits that grow steeper, and its objective."""

    def loss(positions, progress):
        value = objective(positions)
        weight = 10.0 ** (1.0 + 2.5 * progress)
        return cost(value) + outside(cv(positions)) + weight * strained(positions), value

    return loss


def _describe(better: bool, valid: bool, minimize: bool, target: float | None) -> str:
    word = "smaller" if minimize else "larger"
    found = f"no conformation was found whose objective is {word} than in every frame of the data"
    if target is not None:
        found = f"the objective is within {100 * _MET:g} % of its target, {target:g}"
    elif better:
        found = f"the objective is {word} than in every frame of the data"
    within = "no conformation was found with all bonds and pairs within the data's 0.1 % and 99.9 % quantiles"
    if valid:
        within = (
            "bonds are between the data's 0.1 % and 99.9 % quantiles and no pair is closer than its 0.1 % quantile"
        )
    return f"{found}; {within}"


def _check_met(target: float, value: float, valid: np.ndarray, data: np.ndarray) -> None:
    """Refuse a target that was missed by more than 1 %; of 0, by more than 1 % of the data's spread."""
    if abs(value - target) <= _MET * (abs(target) or float(data.std())):
        return
    reached = "none"
    if len(valid):
        reached = f"{valid.min():.4g} to {valid.max():.4g}"
    raise InputError(
        f"the target {target:g} was not met to {100 * _MET:g} %: sound conformations found for it have "
        f"{reached}, the data {data.min():.4g} to {data.max():.4g}. Ask for a value within reach"
    )


def _reconstruction_error(cv: LatentCV, positions):
    """Squared distance between a frame's features and the decoded mean of its encoding."""
    x = cv.featurizer(positions)
    return jnp.sum((x - cv.scaled.decode(cv.scaled.encode(x)[0])) ** 2)


def _descend(
    loss: Callable, start: np.ndarray, steps: int, *, learning_rate: float, every: int = 1, width: int = 1
):
    """Adam from many starts in one compiled program.

    `loss(point, progress)`, progress running from 0 to 1, gives the cost and a value to report. It makes `width`
    numbers of a point, and as many starts are worked on together as memory holds. Returns the end points
    (n_starts, ...), and before each step, or each `every`-th step, the points (n, n_starts, ...) and the values
    there (n, n_starts).
    """
    blocks = -(-steps // every)
    steps = blocks * every
    optimiser = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    one, together = jax.grad(loss, has_aux=True), max(1, _HELD // width)

    def slope(x, progress):
        if len(x) <= together:
            return jax.vmap(one, in_axes=(0, None))(x, progress)
        return jax.lax.map(lambda point: one(point, progress), x, batch_size=together)

    def step(carry, k):
        x, state = carry
        grads, value = slope(x, k / steps)
        updates, state = optimiser.update(grads, state)
        return (optax.apply_updates(x, updates), state), value

    def block(carry, numbers):
        after, values = jax.lax.scan(step, carry, numbers)
        return after, (carry[0], values[0])

    @jax.jit
    def run(x):
        numbers = jnp.arange(steps).reshape(blocks, every)
        (last, _), (points, values) = jax.lax.scan(block, (x, optimiser.init(x)), numbers)
        return last, points, values

    return jax.tree.map(np.asarray, run(start))

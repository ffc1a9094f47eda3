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
from polyvae.cv.latent import LatentCV, latent_cv
from polyvae.errors import InputError
from polyvae.geometry.linalg import safe_sqrt
from polyvae.measures.density import log_density
from polyvae.measures.limits import QUANTILE, Limits, limits_of
from polyvae.measures.objectives import OBJECTIVES, objective_of
from polyvae.measures.pairs import FrameMeasures, frame_measures, mean_contact, separations
from polyvae.measures.weights import counted, quantile
from polyvae.records import html_of, in_words
from polyvae.trajectory.record import Trajectory, is_linear

log = logging.getLogger(__name__)

_MET = 0.01  # how near a target is near enough, as a fraction of it
_PULL = 10.0  # to a target, over the pull to smaller or larger values
MAX_BEADS = 1000  # with more, refinement takes hours: its cost grows as the square
_HELD = 1 << 23  # distances in memory together
_SHOWN = 100  # frames that each half of the path is kept as


@dataclasses.dataclass(frozen=True, eq=False)
class Optimum:
    """Result of `optimize`.

    Args:
        structure: the best conformation, one frame in the featurizer's frame.
        value: the objective there; `z`, its latent coordinates.
        valid: all bonds and pairs of `structure` are within `limits`.
        better: `value` is beyond that of every frame of the data, or within 1 % of the target.
        message: both in words.
        extreme, extreme_value: the frame of the data with the best objective.
        limits: what was asked of bonds and pairs.
        path: (n_steps, n_starts), the objective of the decoded conformation while z moves.
        z_path: (n_steps, n_starts, latent_dim).
        decoded: (n_starts,) Trajectory of the decoder's conformations at the end of `path`.
        candidates: (2 n_starts,) Trajectory after refinement, `candidate_values` and `candidate_valid`
            (2 n_starts,); `structure` is the best of them.
        route: Trajectory of how `structure` came about, about 200 frames in two segments: decoded
            conformations while z moves, then the conformation while its coordinates are refined.
    """

    structure: Trajectory
    value: float
    z: np.ndarray
    valid: bool
    better: bool
    message: str
    extreme: Trajectory
    extreme_value: float
    limits: Limits
    path: np.ndarray
    z_path: np.ndarray
    decoded: Trajectory
    candidates: Trajectory
    candidate_values: np.ndarray
    candidate_valid: np.ndarray
    route: Trajectory

    def _repr_html_(self) -> str:
        both, names = self.summary(), ("objective", "rg", "shortest_bond", "longest_bond", "closest_pair")
        found = (both["optimized"], both["data_extreme"])
        rows = [[name.replace("_", " "), *(in_words(which[name]) for which in found)] for name in names]
        head = [f"lengths in {self.structure.length_unit}", "found", "data extreme"]
        return html_of("Optimum", [head, *rows], self.message)

    def summary(self) -> dict:
        """The result as plain numbers: what was found beside the most extreme frame of the data, and the limits
        as they are checked: where several limit one distance, the narrowest."""

        linear = is_linear(self.limits.bonds, self.structure.n_beads)

        def numbers(traj: Trajectory, value: float) -> dict:
            positions = traj.positions[0]
            found = FrameMeasures(*(part[0] for part in frame_measures(traj.positions[:1], self.limits.bonds)))
            bonds, shortest = found.bonds, found.bonds.min(initial=np.inf)
            apart = [float(r) if np.isfinite(r) else None for r in found.closest_apart]
            free = float(found.closest_apart.min())
            return {
                "objective": value,
                "rg": float(objective_of("rg", traj.unequal_masses)(positions)),
                "end_to_end": float(geometry.end_to_end(positions)) if linear else None,
                "shortest_bond": float(shortest),
                "mean_bond": float(bonds.mean()),
                "longest_bond": float(bonds.max(initial=0.0)),
                "closest_pair": min(float(shortest), free),
                "closest_free_pair": free if math.isfinite(free) else None,
                "closest_apart": apart,
                "closest_mean_apart": [
                    None if least is None else float(mean)
                    for least, mean in zip(apart, found.mean_apart, strict=False)
                ],
                "closest_contacts": float(found.contacts),
            }

        limits = {name: value for name, value in self.limits.record().items() if name != "shape"}
        bond, *apart = self.limits.least_apart()
        limits |= {"shortest_bond": bond, "closest_free_pair": min(apart), "closest_apart": apart}
        return {
            "optimized": numbers(self.structure, self.value) | {"z": self.z.tolist()},
            "data_extreme": numbers(self.extreme, self.extreme_value),
            "limits": limits,
            "valid": self.valid,
            "better": self.better,
            "message": self.message,
        }


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

    From several points of the data, z moves down the gradient of objective(decode(z)), held by a penalty
    to where a Gaussian kernel density estimate of the data's z is above its own 1 % quantile. The
    decoder's conformation is a mean over many, with bonds too short and beads too close. So from there,
    and from frames of the data, the extreme ones and those nearest to end points, the coordinates
    themselves are then moved, still down the objective, with penalties that bring bonds and pairs within the
    data's quantiles, strain the bonds together no more than the data's are on average, keep the latent
    coordinates where data live, and keep the conformation one that the model reconstructs no worse than it
    does 99.9 % of the data. A frame of the data within the limits that this makes no better stays as it is.
    All starts move at once, in one compiled program for each half. The coordinates of more than 1,000 beads stay
    as they are: their pairs would take hours.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        objective: pure JAX function of one frame (n_beads, n_dims), in the model's unit, or one of "rg",
            "end_to_end", "asphericity", "shape_anisotropy", which count beads by their masses.
        start: the trajectory whose latents bound the search and whose bonds and pairs set the limits.
        minimize: with False, maximise.
        target: a value to meet to 1 %, in place of the smallest or largest.
        n_starts: half of them at the data's most extreme frames, or those nearest the target; half at random
            frames. By default 64; of more than 64 beads fewer, as their pairs grow, but 8.
        prior_weight: of the penalties that keep z and the conformation where the model knows them.
        bond_weight: of those on bonds and pairs.
        steps: of the search in z.
        refine_steps: of the refinement of coordinates.
        seed: of the random starts.

    Raises:
        InputError: data that do not fit the model; an objective that gives no single number, or none that is
            finite in the data; a target that no conformation was found for, with the range that was reached.
    """
    traj = counted(latent_cv(cv).as_trajectory(start))
    objective = _checked(objective, traj)
    if n_starts is None:
        n_starts = min(64, max(8, 64**3 // traj.n_beads**2))
    n_starts, steps = whole_number("n_starts", n_starts, 1), whole_number("steps", steps, 1)
    refine_steps, seed = whole_number("refine_steps", refine_steps, 1), seed_number(seed)
    target, minimize = if_given(real_number, "target", target), flag("minimize", minimize)
    real_number("prior_weight", prior_weight, least=0)
    real_number("bond_weight", bond_weight, least=0)
    values = _values(objective, traj.positions)
    cost = _cost(values, traj.weights, minimize, target)
    limits = limits_of(traj)
    z_data = cv.encode(traj.positions)
    rng = np.random.default_rng(seed)
    outside = _outside(z_data, traj.weights, prior_weight, rng)

    extremes = np.argsort(cost(values), kind="stable")[: (n_starts + 1) // 2]
    others = rng.choice(traj.n_frames, n_starts - len(extremes), replace=traj.n_frames < n_starts)
    z0 = z_data[np.concatenate([extremes, others])]
    z_end, z_path, path = _descend(_latent_loss(cv, objective, cost, outside), z0, steps, learning_rate=0.03)
    decoded = cv.decode(z_end, coordinates=True)

    # Twice as many are refined: the decoder's conformations; and the extreme frames themselves, and for the
    # other starts the frames nearest in z, since their bonds are sound already.
    nearest = ((z_end[len(extremes) :, None] - z_data[None]) ** 2).sum(axis=2).argmin(axis=1)
    x0 = np.concatenate([decoded, traj.positions[extremes], traj.positions[nearest]])
    refines = traj.n_beads <= MAX_BEADS
    if refines:
        strained = _strained(cv, traj, limits, prior_weight, bond_weight)
        loss, pace = _refine_loss(cv, objective, cost, outside, strained), 0.02 * limits.longest_mean_bond
        options = {"every": max(1, refine_steps // _SHOWN), "width": traj.n_beads * (traj.n_beads - 1) // 2}
        refined, refining, _ = _descend(loss, x0, refine_steps, learning_rate=pace, **options)
    else:
        log.info("coordinates of over %d beads would take hours to refine, and stay as they are", MAX_BEADS)
        refined, refining = x0, x0[None]
    # A frame of the data that only grew worse is a candidate as it is.
    x, ends = x0[n_starts:], cv.turn(refined[n_starts:])
    worse = np.asarray(cost(_values(objective, x)) < cost(map_frames(jax.jit(jax.vmap(objective)), ends)))
    kept = np.zeros(len(x0), bool)
    kept[n_starts:] = (limits.accept(x) & (worse | ~limits.accept(ends))) | (not refines)
    refined = np.where(kept[:, None, None], x0, refined)
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
        message=_message(better, bool(valid[best]), minimize, target),
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


def _as_frames(cv: LatentCV, positions: np.ndarray, segments: tuple[int, ...] | None = None) -> Trajectory:
    """Conformations as a trajectory, without segments each a piece of its own."""
    return dataclasses.replace(cv.template, positions=positions, segments=segments or (1,) * len(positions))


def _checked(objective: Callable | str, traj: Trajectory) -> Callable:
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


def _values(objective: Callable, positions: np.ndarray) -> np.ndarray:
    """The objective in each frame of the data; raises `InputError` where one is not finite."""
    values = map_frames(jax.jit(jax.vmap(objective)), positions)
    if not (good := np.isfinite(values)).all():
        bad = int(np.argmin(good))
        raise InputError(
            f"the objective must be finite in every frame of the data; in frame {bad} it is {values[bad]}"
        )
    return values


def _cost(values: np.ndarray, weights: np.ndarray | None, minimize: bool, target: float | None) -> Callable:
    """The function of the objective's value to minimise, in standard deviations of the data's values."""
    spread = math.sqrt(np.cov(values, ddof=0, aweights=weights)) or 1.0
    sign = 1.0 if minimize else -1.0

    def cost(value):
        return sign * value / spread if target is None else _PULL * ((value - target) / spread) ** 2

    return cost


def _outside(z_data: np.ndarray, weights: np.ndarray | None, weight: float, rng: np.random.Generator) -> Callable:
    """The penalty on a latent point where the data's z are less dense than 99 % of them are, in nats squared."""
    density, floor = log_density(z_data, rng, weights)

    def outside(z):  # the cap keeps the penalty flat far out, where the slope vanishes
        return weight * jnp.minimum(jax.nn.relu(floor - density(z)), 50.0) ** 2

    return outside


def _strained(cv: LatentCV, traj: Trajectory, limits: Limits, prior_weight: float, bond_weight: float) -> Callable:
    """The penalty on a conformation outside the limits, or one that the model reconstructs worse than the data."""
    residuals = map_frames(jax.jit(jax.vmap(lambda positions: _residual(cv, positions))), traj.positions)
    reach = quantile(residuals, 1 - QUANTILE, traj.weights) or 1.0
    violation = _violation(limits, traj.n_beads)

    def strained(positions):
        astray = prior_weight * jax.nn.relu(_residual(cv, positions) / reach - 1) ** 2
        return bond_weight * violation(positions) + astray

    return strained


def _latent_loss(cv: LatentCV, objective: Callable, cost: Callable, outside: Callable) -> Callable:
    """The cost of a latent point, and the objective of its conformation."""

    decode = cv.function().decode

    def loss(z, progress):
        value = objective(decode(z))
        return cost(value) + outside(z), value

    return loss


def _refine_loss(
    cv: LatentCV, objective: Callable, cost: Callable, outside: Callable, strained: Callable
) -> Callable:
    """The cost of a conformation's coordinates, with limits that grow steeper, and its objective."""

    def loss(positions, progress):
        value = objective(positions)
        weight = 10.0 ** (1.0 + 2.5 * progress)
        return cost(value) + outside(cv(positions)) + weight * strained(positions), value

    return loss


def _message(better: bool, valid: bool, minimize: bool, target: float | None) -> str:
    word = "smaller" if minimize else "larger"
    if target is not None:
        found = f"the objective is within {100 * _MET:g} % of its target, {target:g}"
    elif better:
        found = f"the objective is {word} than in every frame of the data"
    else:
        found = f"no conformation was found whose objective is {word} than in every frame of the data"
    if valid:
        return (
            f"{found}; bonds lie between the data's 0.1 % and 99.9 % quantiles and no pair is closer than its "
            f"0.1 % quantile"
        )
    return (
        f"{found}; no conformation was found with all bonds and pairs within the data's 0.1 % and 99.9 % quantiles"
    )


def _check_met(target: float, value: float, valid: np.ndarray, data: np.ndarray) -> None:
    """Refuse a target that was missed by more than 1 %; of 0, by more than 1 % of the data's spread."""
    if abs(value - target) <= _MET * (abs(target) or float(data.std())):
        return
    reached = f"{valid.min():.4g} to {valid.max():.4g}" if len(valid) else "none"
    raise InputError(
        f"the target {target:g} was not met to {100 * _MET:g} %: sound conformations found for it have "
        f"{reached}, the data {data.min():.4g} to {data.max():.4g}. Ask for a value within reach"
    )


def _residual(cv: LatentCV, positions):
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


def _violation(limits: Limits, n_beads: int) -> Callable:
    """Squared distance of a conformation from the limits, in units of the bonds' range.

    A hundredth of each range is kept free on each side, so that what a penalty leaves over is still inside.
    Beside the limits, the bonds' mean squared deviation is kept at the data's or below: a conformation
    with many bonds at their limits at once is not like the data, even if every bond is.
    """
    pairs, apart = separations(n_beads, limits.bonds)
    # All distances as one matrix: its gradient is many times faster than that of chosen pairs.
    separation = np.zeros((n_beads, n_beads), int)
    separation[tuple(pairs.T)] = apart
    low = np.array([0.0, *limits.least_apart()], np.float32)[separation]
    high = np.where(separation == 1, np.float32(limits.longest_bond), np.float32(np.inf))
    contacts = min(n_beads, int((separation > 1).sum()))
    shares = [of / max(1, of.sum()) for of in (separation == k for k in (1, 2, 3))]
    width = limits.longest_bond - limits.shortest_bond or limits.longest_bond or 1.0
    margin = 0.01 * width
    mean_width = limits.longest_mean_bond - limits.shortest_mean_bond or limits.longest_mean_bond or 1.0
    center = 0.5 * (limits.longest_mean_bond + limits.shortest_mean_bond)
    bond = limits.shape.get("bond", {"mean": 0.0, "std": 0.0})
    strain = (bond["std"] or width) ** 2

    def violation(positions):
        r = safe_sqrt(jnp.sum((positions[:, None] - positions[None]) ** 2, axis=2))
        over = jax.nn.relu(low + margin - r) + jax.nn.relu(r - (high - margin))
        over = jnp.where(separation > 0, over, 0.0)
        bonded, *means = (jnp.sum(share * r) for share in shares)
        means.append(mean_contact(jnp.where(separation > 1, r, jnp.inf).ravel(), contacts))
        least = np.array([*limits.closest_mean_apart, limits.closest_contacts], np.float32)
        close = jax.nn.relu(least + margin - jnp.stack(means)) * (least > 0)
        off_center = jnp.abs(bonded - center)
        strained = jnp.sum(shares[0] * (r - bond["mean"]) ** 2) / strain
        return (
            jnp.sum((over / width) ** 2)
            + jnp.sum((close / width) ** 2)
            + jax.nn.relu(off_center / mean_width - 0.49) ** 2
            + jax.nn.relu(strained - 0.99) ** 2
        )

    return violation

"""Conformations that minimise or maximise an objective, searched for through the latent space."""

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.stats import gaussian_kde

from polyvae import geometry
from polyvae.batches import map_frames
from polyvae.cv import LatentCV
from polyvae.errors import InputError
from polyvae.sources import as_trajectory
from polyvae.trajectory import Trajectory, chain_bonds

_KDE_POINTS = 1000
_QUANTILE = 0.001


@dataclasses.dataclass(frozen=True, eq=False)
class Limits:
    """What the data allow: the 0.1 % and 99.9 % quantiles of bond lengths and of a frame's mean bond length,
    the 0.1 % quantile of all pair distances and of those between beads that are not bonded. Lengths in the
    unit of the data. The mean is there because no frame has all its bonds at the end of their range."""

    bonds: np.ndarray
    shortest_bond: float
    longest_bond: float
    shortest_mean_bond: float
    longest_mean_bond: float
    closest_pair: float
    closest_free_pair: float

    def accepts(self, positions: np.ndarray) -> bool:
        """Whether a conformation (n_beads, n_dims) keeps within the limits."""
        bonds, free = _split(positions, self.bonds)
        return bool(
            (bonds >= self.shortest_bond).all()
            and (bonds <= self.longest_bond).all()
            and self.shortest_mean_bond <= bonds.mean() <= self.longest_mean_bond
            and bonds.min(initial=np.inf) >= self.closest_pair
            and free.min(initial=np.inf) >= max(self.closest_pair, self.closest_free_pair)
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Optimum:
    """What `optimize` found.

    Args:
        structure: the best conformation, one frame in the featurizer's frame.
        value: the objective there; `z`, its latent coordinates.
        valid: all bonds and pairs of `structure` are within `limits`.
        better: `value` is beyond that of every frame of the data.
        message: both in words.
        extreme, extreme_value: the frame of the data with the best objective.
        limits: what was asked of bonds and pairs.
        path: (n_steps, n_starts), the objective of the decoded conformation while z moves.
        z_path: (n_steps, n_starts, latent_dim).
        decoded: (n_starts,) Trajectory of the decoder's conformations at the end of `path`.
        candidates: (2 n_starts,) Trajectory after refinement, and `candidate_values` (2 n_starts,);
            `structure` is the best of them.
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

    def summary(self) -> dict:
        """The result as plain numbers: what was found beside the most extreme frame of the data."""

        def numbers(traj: Trajectory, value: float) -> dict:
            positions = traj.positions[0]
            bonds, free = _split(positions, self.limits.bonds)
            return {
                "objective": value,
                "rg": float(geometry.radius_of_gyration(positions)),
                "end_to_end": float(geometry.end_to_end(positions)),
                "shortest_bond": float(bonds.min(initial=np.inf)),
                "mean_bond": float(bonds.mean()),
                "longest_bond": float(bonds.max(initial=0.0)),
                "closest_pair": float(np.concatenate([bonds, free]).min()),
                "closest_free_pair": float(free.min()) if len(free) else None,
            }

        limits = {k: v for k, v in dataclasses.asdict(self.limits).items() if k != "bonds"}
        return {
            "optimized": numbers(self.structure, self.value) | {"z": self.z.tolist()},
            "data_extreme": numbers(self.extreme, self.extreme_value),
            "limits": limits,
            "valid": self.valid,
            "better": self.better,
            "message": self.message,
        }


def optimize(
    cv: LatentCV,
    *,
    objective: Callable = geometry.radius_of_gyration,
    start: Trajectory | np.ndarray,
    minimize: bool = True,
    n_starts: int = 32,
    steps: int = 300,
    refine_steps: int = 2000,
    seed: int = 0,
) -> Optimum:
    """Find a conformation with an extreme value of an objective, within what the data allow.

    From several points of the data, z moves down the gradient of objective(decode(z)), held by a penalty
    to where a Gaussian kernel density estimate of the data's z is above its own 1 % quantile. The
    decoder's conformation is a mean over many, with bonds too short and beads too close. So from there,
    and from the frame of the data nearest to each end point, the coordinates themselves are then moved,
    still down the objective, with penalties that bring bonds and pairs within the data's quantiles, keep
    the latent coordinates where data live, and keep the conformation one that the model reconstructs no
    worse than it does 99.9 % of the data.

    Args:
        objective: pure JAX function of one frame (n_beads, n_dims), in the model's unit.
        start: the trajectory whose latents bound the search and whose bonds and pairs set the limits.
        minimize: with False, maximise.
        n_starts: half of them at the data's most extreme frames, half at random frames.

    Raises:
        InputError: data that do not fit the model; an objective that gives no single number.
    """
    traj = as_trajectory(start, array_unit=cv.length_unit, dims=cv.n_dims)
    traj = dataclasses.replace(traj, positions=cv.frames(traj), length_unit=cv.length_unit)
    if n_starts < 1:
        raise InputError(f"n_starts must be at least 1; got {n_starts}")
    if seed < 0:
        raise InputError(f"the seed must be 0 or a positive number; got {seed}")
    shape = jax.eval_shape(objective, jax.ShapeDtypeStruct(traj.positions.shape[1:], jnp.float32))
    if getattr(shape, "shape", None) != ():
        raise InputError(f"the objective must give one number for one frame; it gives {shape}")
    sign = 1.0 if minimize else -1.0
    values = sign * map_frames(jax.jit(jax.vmap(objective)), traj.positions)
    spread = float(values.std()) or 1.0
    limits = _limits(traj)
    z_data = cv.transform(traj)
    rng = np.random.default_rng(seed)
    log_density, floor = _density(z_data, rng)

    extremes = np.argsort(values)[: (n_starts + 1) // 2]
    others = rng.choice(traj.n_frames, n_starts - len(extremes), replace=traj.n_frames < n_starts)
    z0 = z_data[np.concatenate([extremes, others])]

    def outside(z):  # nats below the floor; the cap keeps the penalty flat far out, where there is no slope
        return jnp.minimum(jax.nn.relu(floor - log_density(z)), 50.0) ** 2

    def latent_loss(z, progress):
        value = sign * objective(cv.decode_one(z))
        return value / spread + outside(z), value

    z_end, z_path, path = _descend(latent_loss, z0, steps, learning_rate=0.03)
    decoded = cv.decode(z_end, coordinates=True)

    # Each end point is refined twice: from the decoder's conformation, and from the frame nearest in z.
    nearest = ((z_end[:, None] - z_data[None]) ** 2).sum(axis=2).argmin(axis=1)
    x0 = np.concatenate([decoded, traj.positions[nearest]])
    residual = map_frames(jax.jit(jax.vmap(lambda x: _residual(cv, x))), traj.positions)
    reach = float(np.quantile(residual, 1 - _QUANTILE)) or 1.0

    def refine_loss(positions, progress):
        value = sign * objective(positions)
        astray = jax.nn.relu(_residual(cv, positions) / reach - 1) ** 2
        weight = 10.0 ** (1.0 + 2.5 * progress)
        broken = weight * (_violation(positions, limits) + astray)
        return value / spread + outside(cv(positions)) + broken, value

    pace = 0.02 * limits.longest_mean_bond
    refined, _, _ = _descend(refine_loss, x0, refine_steps, learning_rate=pace)
    candidates = cv.align(refined)

    final = sign * map_frames(jax.jit(jax.vmap(objective)), candidates)
    valid = np.array([limits.accepts(x) for x in candidates])
    best = int(np.argmin(np.where(valid, final, np.inf) if valid.any() else final))
    extreme = int(np.argmin(values))
    better = bool(final[best] < values[extreme])
    word = "smaller" if minimize else "larger"
    message = (
        f"the objective is {word} than in every frame of the data"
        if better
        else f"no conformation was found whose objective is {word} than in every frame of the data"
    )
    message += (
        "; bonds lie between the data's 0.1 % and 99.9 % quantiles and no pair is closer than its 0.1 % quantile"
        if valid[best]
        else "; no conformation was found with all bonds and pairs within the data's 0.1 % and 99.9 % quantiles"
    )
    frames = dataclasses.replace(cv.template, positions=candidates, segments=(1,) * len(candidates))
    return Optimum(
        structure=frames[best],
        value=float(sign * final[best]),
        z=cv.transform(candidates)[best],
        valid=bool(valid[best]),
        better=better,
        message=message,
        extreme=traj[extreme],
        extreme_value=float(sign * values[extreme]),
        limits=limits,
        path=sign * path,
        z_path=z_path,
        decoded=dataclasses.replace(frames, positions=decoded, segments=(1,) * n_starts),
        candidates=frames,
        candidate_values=sign * final,
    )


def _residual(cv: LatentCV, positions):
    """Squared distance between a frame's features and the decoded mean of its encoding."""
    x = cv.standardize(positions)
    return jnp.sum(((x - cv.vae.decode(cv.vae.encode(x)[0])) * cv.scale) ** 2)


def _descend(loss: Callable, start: np.ndarray, steps: int, *, learning_rate: float):
    """Adam from many starts in one compiled program.

    `loss(point, progress)`, progress running from 0 to 1, gives the cost and a value to report. Returns the
    end points (n_starts, ...), the points before each step (steps, n_starts, ...), and the values there
    (steps, n_starts).
    """
    optimiser = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    slope = jax.vmap(jax.grad(loss, has_aux=True), in_axes=(0, None))

    def step(carry, k):
        x, state = carry
        grads, value = slope(x, k / steps)
        updates, state = optimiser.update(grads, state)
        return (optax.apply_updates(x, updates), state), (x, value)

    @jax.jit
    def run(x):
        (last, _), (points, values) = jax.lax.scan(step, (x, optimiser.init(x)), jnp.arange(steps))
        return last, points, values

    return jax.tree.map(np.asarray, run(start))


def _density(z: np.ndarray, rng: np.random.Generator):
    """Log density of the data's latents, and its 1 % quantile over them."""
    chosen = z if len(z) <= _KDE_POINTS else rng.choice(z, _KDE_POINTS, replace=False)
    # Half of Scott's width: the data's z come in clusters, between which nothing lives.
    width = 0.5 * len(chosen) ** (-1 / (z.shape[1] + 4))
    kde = gaussian_kde(jnp.asarray(chosen).T, bw_method=width)
    floor = float(jnp.quantile(kde.logpdf(jnp.asarray(chosen).T), 0.01))
    return lambda point: kde.logpdf(point[:, None])[0], floor


def _split(positions: np.ndarray, bonds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of the bonds and of all other pairs of beads."""
    n = positions.shape[-2]
    bonded = {tuple(sorted(map(int, bond))) for bond in bonds}
    free = np.array([p for p in itertools.combinations(range(n), 2) if p not in bonded], dtype=int).reshape(-1, 2)
    return tuple(
        np.linalg.norm(positions[..., pairs[:, 0], :] - positions[..., pairs[:, 1], :], axis=-1)
        for pairs in (np.asarray(bonds), free)
    )


def _limits(traj: Trajectory) -> Limits:
    bonds = traj.bonds if traj.bonds is not None and len(traj.bonds) else chain_bonds(traj.n_beads)
    bonded, free = _split(traj.positions, bonds)
    mean_bond = bonded.mean(axis=1)
    bonded, free = bonded.ravel(), free.ravel()
    every = np.concatenate([bonded, free])

    def quantile(values, q):
        return float(np.quantile(values, q)) if len(values) else 0.0

    return Limits(
        bonds=np.asarray(bonds),
        shortest_bond=quantile(bonded, _QUANTILE),
        longest_bond=quantile(bonded, 1 - _QUANTILE),
        shortest_mean_bond=quantile(mean_bond, _QUANTILE),
        longest_mean_bond=quantile(mean_bond, 1 - _QUANTILE),
        closest_pair=quantile(every, _QUANTILE),
        closest_free_pair=quantile(free, _QUANTILE),
    )


def _violation(positions, limits: Limits):
    """How far bonds and pairs lie outside the limits, squared, in units of the bonds' range.

    A hundredth of that range is kept free on each side, so that what a penalty leaves over is still inside.
    """
    n = positions.shape[0]
    width = limits.longest_bond - limits.shortest_bond or limits.longest_bond
    margin = 0.01 * width
    pairs = np.array(list(itertools.combinations(range(n), 2))).reshape(-1, 2)
    bonded = {tuple(sorted(map(int, bond))) for bond in limits.bonds}
    is_bond = np.array([tuple(p) in bonded for p in pairs])
    low = np.where(
        is_bond,
        max(limits.shortest_bond, limits.closest_pair),
        max(limits.closest_pair, limits.closest_free_pair),
    )
    high = np.where(is_bond, limits.longest_bond, np.inf)
    r = geometry.distances(positions, pairs)
    over = jax.nn.relu(low + margin - r) + jax.nn.relu(r - (high - margin))
    mean_width = limits.longest_mean_bond - limits.shortest_mean_bond or limits.longest_mean_bond
    off_center = jnp.abs(jnp.mean(r[is_bond]) - 0.5 * (limits.longest_mean_bond + limits.shortest_mean_bond))
    return jnp.sum((over / width) ** 2) + jax.nn.relu(off_center / mean_width - 0.49) ** 2

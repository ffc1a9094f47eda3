"""Relaxation of conformations: a potential from the data corrects bonds and overlaps."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from polyvae.arguments import function, if_given, whole_number
from polyvae.batches import single_precision
from polyvae.errors import InputError
from polyvae.geometry.linalg import safe_sqrt
from polyvae.geometry.superposition import rmsd
from polyvae.measures.limits import Limits, as_the_data, data_or_model, known_limits
from polyvae.measures.pairs import over_frames, separations
from polyvae.trajectory.convert import as_trajectory
from polyvae.trajectory.record import Trajectory

_MARGIN = 0.02  # share of the closest approach, since a soft wall is passed by a little
_CONVERGED = 1e-4  # share of the first gradient


@dataclasses.dataclass(frozen=True, eq=False)
class Relaxed:
    """Result of `relax`.

    Args:
        conformations: Trajectory of the relaxed conformations.
        moved: (n_frames,) RMSD from the conformation before, after superposition.
        energy_before, energy: (n_frames,) potential energies, in kT for the potential of the data.
    """

    conformations: Trajectory
    moved: np.ndarray
    energy_before: np.ndarray
    energy: np.ndarray


def chain_energy(data) -> Callable:
    """A potential of bonds and excluded volume, in kT, with parameters from the data.

        U = 1/(2 var b) [ sum over bonds (b - <b>)^2 + sum over other pairs max(0, d - r)^2
                          + sum over k = 2, 3 of n_k max(0, m_k - mean r_k)^2 ]

    d is the closest approach in the data of pairs two, three, or four and more bonds apart. The last term
    keeps a frame from having all its bends at their sharpest: mean r_k is over its n_k pairs k bonds apart,
    m_k the data's 0.1 % quantile of that mean.

    Args:
        data: a trajectory, or a `LatentCV`, which keeps the limits of its training data.

    Returns:
        A pure JAX function of one frame (n_beads, n_dims), in the unit of the data.
    """
    return _energy_of(known_limits(data_or_model(data)))


def _energy_of(limits: Limits) -> Callable:
    bond = limits.shape.get("bond", {"mean": 1.0, "std": 0.1})
    mean, std = bond["mean"], max(bond["std"], 1e-3 * bond["mean"])

    def energy(positions):
        # All distances as one matrix: its gradient is many times faster than that of chosen pairs.
        n = positions.shape[0]
        pairs, _, low, _ = limits.pairs(n)
        separation, least = np.zeros((n, n), int), np.zeros((n, n), np.float32)
        separation[tuple(pairs.T)], least[tuple(pairs.T)] = separations(n, limits.bonds)[1], (1 + _MARGIN) * low
        r = safe_sqrt(jnp.sum((positions[:, None] - positions[None]) ** 2, axis=2))
        off = jnp.sum(jnp.where(separation == 1, r - mean, jax.nn.relu(least - r)) ** 2)
        for k, closest in enumerate(limits.closest_mean_apart, start=2):
            if count := int((separation == k).sum()):
                mean_apart = jnp.sum(jnp.where(separation == k, r, 0.0)) / count
                off += count * jax.nn.relu((1 + _MARGIN) * closest - mean_apart) ** 2
        return 0.5 * off / std**2

    return energy


@single_precision
def relax(traj: Trajectory, data=None, *, energy: Callable | None = None, steps: int = 200) -> Relaxed:
    """Move conformations to the nearest minimum of a potential, by L-BFGS, all in one compiled program.

    With the potential of `chain_energy`, bonds end at the data's mean length and pairs at or beyond their closest
    approach. A simulation can start from such conformations, but they are not an ensemble, in which bonds vibrate.
    L-BFGS: D. C. Liu and J. Nocedal, doi:10.1007/BF01589116.

    Args:
        traj: conformations, a `Trajectory` or what `as_trajectory` takes.
        data: the trajectory, or the `LatentCV`, for `chain_energy`. The result is in its unit.
        energy: your own potential instead, a pure JAX function of one frame (n_beads, n_dims).
        steps: most steps of the minimiser.

    Raises:
        InputError: neither data nor energy, or both; data of other beads or units; an energy that does not return
            one number; a minimisation that does not end in finite coordinates.
    """
    if (data is None) == (energy is None):
        raise InputError("relax needs either data, for a potential, or energy=, a function of one frame")
    steps, energy = whole_number("steps", steps, 1), if_given(function, "energy", energy)
    if data is None:
        traj = as_trajectory(traj)
    else:
        data = data_or_model(data)
        traj, energy = as_the_data(traj, data), _energy_of(known_limits(data))
    assert energy is not None
    shape = jax.eval_shape(energy, jax.ShapeDtypeStruct(traj.positions.shape[1:], jnp.float32))
    if getattr(shape, "shape", None) != ():
        raise InputError(f"the energy must give one number for one frame; it gives {shape}")
    optimiser = optax.lbfgs(linesearch=optax.scale_by_zoom_linesearch(max_linesearch_steps=10))

    def one(start):
        slope = optax.value_and_grad_from_state(energy)

        def step(carry):
            x, state, _, k = carry
            value, grad = slope(x, state=state)
            updates, state = optimiser.update(grad, state, x, value=value, grad=grad, value_fn=energy)
            return optax.apply_updates(x, updates), state, jnp.linalg.norm(grad), k + 1

        def going(carry):
            return (carry[3] < steps) & (carry[2] > _CONVERGED * jnp.linalg.norm(jax.grad(energy)(start)))

        first = (start, optimiser.init(start), jnp.asarray(jnp.inf, start.dtype), 0)
        x = jax.lax.while_loop(going, step, first)[0]
        return x, energy(start), energy(x), rmsd(x, start)

    x, before, after, moved = over_frames(one, traj.positions)
    if not (good := np.isfinite(x).all(axis=(1, 2))).all():
        raise InputError(
            f"relaxing frame {int(np.argmin(good))} did not end in finite coordinates; the energy must be finite "
            f"and bounded below"
        )
    return Relaxed(dataclasses.replace(traj, positions=x), moved, before, after)

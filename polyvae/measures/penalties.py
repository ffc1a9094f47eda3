"""Penalty on a conformation that data do not allow, as a function to differentiate."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from polyvae.geometry.linalg import safe_sqrt
from polyvae.measures.limits import Limits
from polyvae.measures.pairs import mean_contact, separations


def make_violation(limits: Limits, n_beads: int) -> Callable:
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
    masks = np.stack([separation == k for k in (1, 2, 3)])
    shares = masks / np.maximum(1, masks.sum(axis=(1, 2), keepdims=True))
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

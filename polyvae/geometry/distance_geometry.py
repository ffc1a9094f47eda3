"""Coordinates from distances: classical multidimensional scaling, then stress majorisation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from polyvae.geometry.linalg import matmul
from polyvae.geometry.shape import in_principal_frame


def coordinates_from_distances(
    distances: Float[Array, "pairs"], pairs, n_beads: int, n_dims: int, *, refinements: int = 100
) -> Float[Array, "beads dims"]:
    """Positions whose distances come closest to the given ones, in their principal frame.

    Classical scaling of the distance matrix comes first (Torgerson, 10.1007/BF02288916), with shortest paths for
    missing pairs. Then each of the `refinements` steps of SMACOF (de Leeuw, 10.1007/BF01897162) lowers the stress
    sum_pairs (|r_i - r_j| - d_ij)^2. All pair distances of a real conformation are reproduced exactly; others,
    such as those of a decoder, in the least-squares sense. Negative distances count as 0.

    Distances are the same for a conformation and its mirror image: the one whose coordinates correlate with
    the bead number along every axis (`principal_frame(mirror=True)`) is returned.

    The derivative is that of the refinement alone. That of the starting point is undefined where eigenvalues meet.

    Args:
        distances: in any unit, which is that of the result.
        pairs: (n_pairs, 2) bead numbers. They must join all beads, directly or by way of others.
    """
    pairs = jnp.asarray(pairs)
    i, j = pairs[:, 0], pairs[:, 1]
    d = jnp.maximum(distances, 0.0)

    def full(values, fill):
        return jnp.full((n_beads, n_beads), fill, d.dtype).at[i, j].set(values).at[j, i].set(values)

    target = full(d, 0.0)
    weights = full(jnp.ones_like(d), 0.0)
    start = jax.lax.stop_gradient(_classical_scaling(full(d, jnp.inf), n_dims))
    # The inverse of the weights' Laplacian on what is orthogonal to a common shift.
    laplacian = jnp.diag(jnp.sum(weights, axis=1)) - weights
    inverse = jnp.linalg.inv(laplacian + 1 / n_beads) - 1 / n_beads

    def refine(_, x):
        squared = jnp.sum((x[:, None] - x[None, :]) ** 2, axis=-1)
        apart = squared > 0
        # The step is a move from x, so that errors of the inverse move nothing once the distances fit.
        stretch = jnp.where(apart, target / jnp.sqrt(jnp.where(apart, squared, 1.0)) - weights, -weights)
        return x + matmul(inverse, matmul(jnp.diag(jnp.sum(stretch, axis=1)) - stretch, x))

    x = jax.lax.fori_loop(0, refinements, refine, start)
    return in_principal_frame(x, mirror=True)


def straight_between(x: Float[Array, "some dims"], every: int, n_beads: int) -> Float[Array, "beads dims"]:
    """Positions of all beads of a chain, in its principal frame, from those of every k-th bead.

    The other beads are put evenly on straight lines between these, and beyond the last of these on the last line.
    """
    place = jnp.arange(n_beads)
    left = jnp.minimum(place // every, x.shape[0] - 2)
    along = (place / every - left).astype(x.dtype)[:, None]
    return in_principal_frame((1 - along) * x[left] + along * x[left + 1], mirror=True)


def _classical_scaling(matrix, n_dims):
    n = matrix.shape[0]
    matrix = jnp.where(jnp.eye(n, dtype=bool), 0.0, matrix)

    def shorten(k, d):
        return jnp.minimum(d, d[:, k][:, None] + d[k, :][None, :])

    squared = jax.lax.fori_loop(0, n, shorten, matrix) ** 2
    rows = jnp.mean(squared, axis=1)
    gram = -0.5 * (squared - rows[:, None] - rows[None, :] + jnp.mean(rows))
    values, vectors = jnp.linalg.eigh(gram)
    kept = min(n, n_dims)
    x = vectors[:, ::-1][:, :kept] * jnp.sqrt(jnp.maximum(values[::-1][:kept], 0.0))[None, :]
    return jnp.pad(x, ((0, 0), (0, n_dims - kept)))

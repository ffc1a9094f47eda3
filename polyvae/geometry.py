"""Geometry of one frame: centring, gyration tensor, principal frame, and shape measures.

Every function takes the positions of one frame, (n_beads, n_dims) with n_dims 2 or 3, in any length
unit and any float precision, and is pure: `jax.jit`, `jax.grad` and `jax.vmap` apply. Gradients are
finite everywhere; where the derivative does not exist the docstring says what is returned.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Jacobi sweeps converge quadratically: after four the off-diagonal part is below float32 rounding,
# after six below float64 rounding.
_SWEEPS = {4: 4, 8: 6}


def safe_sqrt(x):
    """Square root whose derivative at 0 is 0 instead of infinite."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def center_of_mass(
    positions: Float[Array, "beads dims"], masses: Float[Array, "beads"] | None = None
) -> Float[Array, "dims"]:
    """Centre of mass; the plain mean where no masses are given."""
    return jnp.average(positions, axis=0, weights=masses)


def center(
    positions: Float[Array, "beads dims"], masses: Float[Array, "beads"] | None = None
) -> Float[Array, "beads dims"]:
    """Positions relative to the centre of mass.

    The first bead is taken off first, so that a chain far from the origin loses no digits.
    """
    local = positions - positions[:1]
    return local - center_of_mass(local, masses)[None]


def gyration_tensor(
    positions: Float[Array, "beads dims"], masses: Float[Array, "beads"] | None = None
) -> Float[Array, "dims dims"]:
    """Gyration tensor S = sum_i m_i r_i r_i^T / sum_i m_i about the centre of mass, in length squared."""
    r = center(positions, masses)
    if masses is None:
        return r.T @ r / r.shape[0]
    return (r * (masses / jnp.sum(masses))[:, None]).T @ r


def radius_of_gyration(
    positions: Float[Array, "beads dims"], masses: Float[Array, "beads"] | None = None
) -> Float[Array, ""]:
    """Radius of gyration, sqrt(sum_i m_i |r_i - r_com|^2 / sum_i m_i), in the unit of the positions.

    The gradient where all beads coincide is 0.
    """
    squared = jnp.sum(center(positions, masses) ** 2, axis=1)
    return safe_sqrt(jnp.average(squared, weights=masses))


def end_to_end(positions: Float[Array, "beads dims"]) -> Float[Array, ""]:
    """Distance between the first and the last bead; its gradient at 0 is 0."""
    return safe_sqrt(jnp.sum((positions[-1] - positions[0]) ** 2))


def distances(positions: Float[Array, "beads dims"], pairs) -> Float[Array, "pairs"]:
    """Distances between pairs of beads, `pairs` of shape (n_pairs, 2); the gradient at 0 is 0."""
    pairs = jnp.asarray(pairs)
    return safe_sqrt(jnp.sum((positions[pairs[:, 0]] - positions[pairs[:, 1]]) ** 2, axis=1))


def chain_moment(positions: Float[Array, "beads dims"]) -> Float[Array, "dims"]:
    """Chain moment sum_i (i - (N-1)/2) r_i: where the second half of the chain lies from the first."""
    n = positions.shape[0]
    order = jnp.arange(n, dtype=positions.dtype) - (n - 1) / 2
    return order @ (positions - positions[:1])


def principal_frame(
    positions: Float[Array, "beads dims"], masses: Float[Array, "beads"] | None = None, sign: str = "chain"
) -> Float[Array, "dims dims"]:
    """Principal axes of the gyration tensor as the rows of a proper rotation, largest extent first.

    The sign of each axis makes the chain moment's component along it positive; the last axis completes
    a right-handed frame, so that mirror images stay different. With `sign="none"` the signs are those
    that the eigensolver happens to return, and only the handedness is fixed.

    `principal_frame(x) @ (x - com)` is unchanged by rotation and translation of x, except where two
    extents are equal or the chain moment is perpendicular to an axis: there the frame is undefined and
    jumps. The derivative leaves out the terms that divide by an extent difference of zero.
    """
    if sign not in ("chain", "none"):
        raise ValueError(f'sign must be "chain" or "none"; got {sign!r}')
    _, axes = eigh_descending(gyration_tensor(positions, masses))
    if sign == "chain":
        along = axes @ chain_moment(positions)
        axes = axes * jnp.where(along < 0, -1.0, 1.0)[:, None].astype(axes.dtype)
    if axes.shape[0] == 2:
        return jnp.stack([axes[0], jnp.stack([-axes[0, 1], axes[0, 0]])])
    return jnp.stack([axes[0], axes[1], jnp.cross(axes[0], axes[1])])


@jax.custom_jvp
def eigh_descending(
    tensor: Float[Array, "dims dims"],
) -> tuple[Float[Array, "dims"], Float[Array, "dims dims"]]:
    """Eigenvalues, largest first, and eigenvectors (as rows) of a symmetric 2x2 or 3x3 tensor.

    A closed form in 2-D and Jacobi rotations in 3-D, written out in scalars so that `vmap` turns them
    into vector instructions. The derivative is first-order perturbation theory with the terms of equal
    eigenvalues left out, hence finite.
    """
    if tensor.shape == (2, 2):
        return _eigh_2(tensor)
    if tensor.shape == (3, 3):
        return _eigh_3(tensor)
    raise ValueError(f"tensor must be 2x2 or 3x3; got shape {tensor.shape}")


@eigh_descending.defjvp
def _eigh_jvp(primals, tangents):
    values, axes = eigh_descending(*primals)
    mixed = axes @ tangents[0] @ axes.T
    gap = values[:, None] - values[None, :]
    tiny = jnp.abs(gap) <= 8 * jnp.finfo(values.dtype).eps * jnp.sum(jnp.abs(values))
    coupling = jnp.where(tiny, 0.0, mixed / jnp.where(tiny, 1.0, gap))
    return (values, axes), (jnp.diagonal(mixed), coupling @ axes)


def _eigh_2(tensor):
    a, b, c = tensor[0, 0], tensor[0, 1], tensor[1, 1]
    angle = 0.5 * jnp.arctan2(2 * b, a - c)
    first = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    radius = jnp.hypot(0.5 * (a - c), b)
    values = 0.5 * (a + c) + jnp.stack([radius, -radius])
    return values, jnp.stack([first, jnp.stack([-first[1], first[0]])])


def _eigh_3(tensor):
    trace = jnp.trace(tensor)
    scale = jnp.where(trace > 0, trace, 1.0)  # rotations then see the same numbers in every unit
    a = [[tensor[i, j] / scale for j in range(3)] for i in range(3)]
    one, zero = jnp.ones_like(trace), jnp.zeros_like(trace)
    v = [[one if i == j else zero for j in range(3)] for i in range(3)]  # rows
    for _ in range(_SWEEPS[tensor.dtype.itemsize]):
        for p, q, r in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
            apq, difference = a[p][q], a[q][q] - a[p][p]
            root = jnp.sqrt(difference**2 + 4 * apq**2)
            below = difference + jnp.where(difference < 0, -root, root)
            t = jnp.where(below == 0, 0.0, 2 * apq / jnp.where(below == 0, 1.0, below))
            cos = jax.lax.rsqrt(1 + t**2)
            sin = t * cos
            a[p][p], a[q][q] = a[p][p] - t * apq, a[q][q] + t * apq
            a[p][q] = a[q][p] = zero
            apr, aqr = a[p][r], a[q][r]
            a[p][r] = a[r][p] = cos * apr - sin * aqr
            a[q][r] = a[r][q] = sin * apr + cos * aqr
            for k in range(3):
                v[p][k], v[q][k] = cos * v[p][k] - sin * v[q][k], sin * v[p][k] + cos * v[q][k]
    values = [a[k][k] for k in range(3)]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        swap = values[j] > values[i]
        values[i], values[j] = jnp.where(swap, values[j], values[i]), jnp.where(swap, values[i], values[j])
        upper, lower = v[i], v[j]
        v[i] = [jnp.where(swap, y, x) for x, y in zip(upper, lower, strict=True)]
        v[j] = [jnp.where(swap, x, y) for x, y in zip(upper, lower, strict=True)]
    return jnp.stack(values) * scale, jnp.stack([jnp.stack(row) for row in v])

"""Small symmetric eigenproblems and nearest rotations in 2-D and 3-D, safe to differentiate.

The solvers are written in scalars: under `jax.vmap` each scalar is one array over the frames, and the whole
solver a sequence of vector instructions. The library routines call LAPACK once for each frame. The iterations
cannot be differentiated, since they divide by numbers that vanish at convergence. So each public function has a
derivative rule of its own, without the undefined terms.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# GPUs would otherwise multiply float32 matrices with ten-bit mantissas.
matmul = functools.partial(jnp.matmul, precision="highest")

# Jacobi sweeps converge quadratically: after four the off-diagonal part is below float32 rounding,
# after six below float64 rounding.
_SWEEPS = {4: 4, 8: 6}


def safe_sqrt(x):
    """Square root whose derivative at 0 is 0 instead of infinite."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


@jax.custom_jvp
def eigh_descending(
    tensor: Float[Array, "dims dims"],
) -> tuple[Float[Array, "dims"], Float[Array, "dims dims"]]:
    """Eigenvalues, largest first, and eigenvectors (as rows) of a symmetric 2x2 or 3x3 tensor.

    A closed form in 2-D, Jacobi rotations in 3-D. The derivative is first-order perturbation theory;
    the terms that divide by the difference of two equal eigenvalues are left out, so it is finite, and
    right for every function that does not depend on the choice of axes among equal ones.
    """
    if tensor.shape == (2, 2):
        return _eigh_2(tensor)
    if tensor.shape == (3, 3):
        return _eigh_3(tensor)
    raise ValueError(f"tensor must be 2x2 or 3x3; got shape {tensor.shape}")


@eigh_descending.defjvp
def _eigh_jvp(primals, tangents):
    values, axes = eigh_descending(*primals)
    mixed = matmul(matmul(axes, tangents[0]), axes.T)
    gap = values[:, None] - values[None, :]
    tiny = jnp.abs(gap) <= 8 * jnp.finfo(values.dtype).eps * jnp.sum(jnp.abs(values))
    coupling = jnp.where(tiny, 0.0, mixed / jnp.where(tiny, 1.0, gap))
    return (values, axes), (jnp.diagonal(mixed), matmul(coupling, axes))


def nearest_rotation(matrix: Float[Array, "dims dims"]) -> Float[Array, "dims dims"]:
    """The proper rotation R that maximises trace(R^T H) for a 2x2 or 3x3 matrix H.

    With H = sum_i a_i b_i^T it is the R that makes sum_i |a_i - R b_i|^2 smallest (Kabsch,
    10.1107/S0567739476001873). In 2-D a closed form, in 3-D a one-sided Jacobi singular value
    decomposition whose third pair of axes follows from the first two by cross products, so that the
    result is a rotation also for H that is singular or whose determinant is negative.

    Where several rotations are optimal (H of rank 1 or 0; a mirror image of something symmetric) one of
    them is returned, and the derivative along the undefined direction is 0.
    """
    if matrix.shape == (2, 2):
        cosine, sine = _unit(matrix[0, 0] + matrix[1, 1], matrix[1, 0] - matrix[0, 1], _size(matrix))
        return jnp.stack([jnp.stack([cosine, -sine]), jnp.stack([sine, cosine])])
    if matrix.shape == (3, 3):
        return _nearest_rotation_3(matrix)
    raise ValueError(f"matrix must be 2x2 or 3x3; got shape {matrix.shape}")


def nearest_orthogonal(matrix: Float[Array, "dims dims"]) -> Float[Array, "dims dims"]:
    """Like `nearest_rotation`, but mirror images are allowed: the nearest of all orthogonal matrices.

    It turns into a reflection where the determinant of H is negative, and jumps where that is 0.
    """
    if matrix.shape == (2, 2):
        size = _size(matrix)
        cosine, sine = _unit(matrix[0, 0] - matrix[1, 1], matrix[1, 0] + matrix[0, 1], size)
        reflection = jnp.stack([jnp.stack([cosine, sine]), jnp.stack([sine, -cosine])])
        determinant = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
        return jnp.where(determinant < 0, reflection, nearest_rotation(matrix))
    determinant = jnp.sum(matrix[0] * jnp.cross(matrix[1], matrix[2]))
    sign = jnp.where(determinant < 0, -1.0, 1.0).astype(matrix.dtype)
    return sign * nearest_rotation(sign * matrix)


def _size(matrix):
    """Largest absolute entry, 1 for a zero matrix: a constant to divide by before squaring."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(matrix)))
    return jnp.where(largest > 0, largest, 1.0)


def _unit(x, y, size):
    """(x, y) made a unit vector; (1, 0) with derivative 0 where it vanishes against `size`."""
    x, y = x / size, y / size
    squared = x**2 + y**2
    defined = squared > (8 * jnp.finfo(squared.dtype).eps) ** 2
    inverse = jnp.where(defined, jax.lax.rsqrt(jnp.where(defined, squared, 1.0)), 0.0)
    return jnp.where(defined, x * inverse, 1.0), y * inverse


@jax.custom_jvp
def _nearest_rotation_3(matrix):
    size = _size(matrix)
    zero = jnp.zeros_like(size)
    one = jnp.ones_like(size)
    h = [[matrix[i, k] / size for i in range(3)] for k in range(3)]  # columns of H
    v = [[one if i == k else zero for i in range(3)] for k in range(3)]
    for _ in range(_SWEEPS[matrix.dtype.itemsize]):
        for p, q in ((0, 1), (0, 2), (1, 2)):
            cos, sin, _ = _jacobi(_dot(h[p], h[p]), _dot(h[q], h[q]), _dot(h[p], h[q]))
            for rows in (h, v):
                rows[p], rows[q] = _turn(cos, sin, rows[p], rows[q])
    _sort_descending([_dot(row, row) for row in h], h, v)

    u1 = _normalised(h[0], v[0], _dot(h[0], h[0]) > 0)
    # A rank of one leaves the turn about u1 open: take the axis nearest to where it was.
    eps = jnp.finfo(matrix.dtype).eps
    known = _dot(h[1], h[1]) > (8 * eps) ** 2 * _dot(h[0], h[0])
    near = [_reject(row, u1) for row in (v[1], v[2])]
    first = _dot(near[0], near[0]) > 0.25
    spare = [jnp.where(first, a, b) for a, b in zip(*near, strict=True)]
    swapped = ~known & ~first  # v[1] then plays the part of v[2]
    v1, v2 = v[0], [jnp.where(swapped, b, a) for a, b in zip(v[1], v[2], strict=True)]
    u2 = _reject([jnp.where(known, a, b) for a, b in zip(_normalised(h[1], spare, known), spare, strict=True)], u1)
    u2 = _normalised(u2, u2, one > 0)
    u3, v3 = _cross(u1, u2), _cross(v1, v2)
    entries = [[u1[i] * v1[k] + u2[i] * v2[k] + u3[i] * v3[k] for k in range(3)] for i in range(3)]
    return _matrix(entries)


@_nearest_rotation_3.defjvp
def _nearest_rotation_jvp(primals, tangents):
    # R^T R = 1 and H R^T symmetric, differentiated: with dR = [w] R,
    # (tr(M) - M) w = axis of (dH R^T - R dH^T), M = H R^T.
    (matrix,), (change,) = primals, tangents
    rotation = _nearest_rotation_3(matrix)
    aligned, twist = matmul(matrix, rotation.T), matmul(change, rotation.T)
    aligned = 0.5 * (aligned + aligned.T)
    stiffness = jnp.trace(aligned) * jnp.eye(3, dtype=matrix.dtype) - aligned
    values, axes = eigh_descending(stiffness)
    torque = jnp.stack([twist[2, 1] - twist[1, 2], twist[0, 2] - twist[2, 0], twist[1, 0] - twist[0, 1]])
    tiny = values <= 8 * jnp.finfo(values.dtype).eps * jnp.sum(jnp.abs(values))
    w = matmul(jnp.where(tiny, 0.0, matmul(axes, torque) / jnp.where(tiny, 1.0, values)), axes)
    zero = jnp.zeros_like(w[0])
    cross = jnp.stack([jnp.stack(row) for row in ([zero, -w[2], w[1]], [w[2], zero, -w[0]], [-w[1], w[0], zero])])
    return rotation, matmul(cross, rotation)


def _eigh_2(tensor):
    a, b, c = tensor[0, 0], tensor[0, 1], tensor[1, 1]
    angle = 0.5 * jnp.arctan2(2 * b, a - c)
    first = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    radius = jnp.hypot(0.5 * (a - c), b)
    values = jnp.stack([0.5 * (a + c) + radius, 0.5 * (a + c) - radius])
    return values, jnp.stack([first, jnp.stack([-first[1], first[0]])])


def _eigh_3(tensor):
    trace = jnp.trace(tensor)
    scale = jnp.where(trace > 0, trace, 1.0)  # rotations then see the same numbers in every unit
    a = [[tensor[i, j] / scale for j in range(3)] for i in range(3)]
    one, zero = jnp.ones_like(trace), jnp.zeros_like(trace)
    v = [[one if i == j else zero for j in range(3)] for i in range(3)]  # rows
    for _ in range(_SWEEPS[tensor.dtype.itemsize]):
        for p, q, r in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
            cos, sin, shift = _jacobi(a[p][p], a[q][q], a[p][q])
            a[p][p], a[q][q] = a[p][p] - shift, a[q][q] + shift
            a[p][q] = a[q][p] = zero
            (a[p][r],), (a[q][r],) = _turn(cos, sin, [a[p][r]], [a[q][r]])
            a[r][p], a[r][q] = a[p][r], a[q][r]
            v[p], v[q] = _turn(cos, sin, v[p], v[q])
    values = [a[k][k] for k in range(3)]
    _sort_descending(values, v)
    return _vector(values) * scale, _matrix(v)


def _jacobi(app, aqq, apq):
    """Cosine and sine of the rotation that makes the off-diagonal element vanish, and tan * apq."""
    difference = aqq - app
    root = jnp.sqrt(difference**2 + 4 * apq**2)
    below = difference + jnp.where(difference < 0, -root, root)
    tan = jnp.where(below == 0, 0.0, 2 * apq / jnp.where(below == 0, 1.0, below))
    cos = jax.lax.rsqrt(1 + tan**2)
    return cos, tan * cos, tan * apq


def _turn(cos, sin, x, y):
    pairs = list(zip(x, y, strict=True))
    return [cos * a - sin * b for a, b in pairs], [sin * a + cos * b for a, b in pairs]


def _sort_descending(values, *rows):
    """Sort three scalars in place, and rows of scalars along with them."""
    for i, j in ((0, 1), (0, 2), (1, 2)):
        swap = values[j] > values[i]
        values[i], values[j] = jnp.where(swap, values[j], values[i]), jnp.where(swap, values[i], values[j])
        for v in rows:
            pairs = list(zip(v[i], v[j], strict=True))
            v[i], v[j] = [jnp.where(swap, b, a) for a, b in pairs], [jnp.where(swap, a, b) for a, b in pairs]


def _dot(x, y):
    return x[0] * y[0] + x[1] * y[1] + x[2] * y[2]


def _cross(x, y):
    return [x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]]


def _reject(x, unit):
    along = _dot(x, unit)
    return [a - along * b for a, b in zip(x, unit, strict=True)]


def _normalised(x, otherwise, defined):
    inverse = jax.lax.rsqrt(jnp.where(defined, _dot(x, x), 1.0))
    return [jnp.where(defined, a * inverse, b) for a, b in zip(x, otherwise, strict=True)]


def _vector(scalars):
    # Without the barrier XLA repeats the solver's last steps inside whatever loop reads the result.
    return jnp.stack(jax.lax.optimization_barrier(scalars))


def _matrix(rows):
    flat = jax.lax.optimization_barrier([entry for row in rows for entry in row])
    return jnp.stack(flat).reshape(3, 3)

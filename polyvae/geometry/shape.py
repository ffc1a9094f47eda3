"""Geometry of one frame: centring, gyration tensor, principal frame, chain reversal, shape measures.

Every function takes the positions of one frame, (n_beads, n_dims) with n_dims 2 or 3, in any length
unit, float32 or float64, and is pure: `jax.jit`, `jax.grad` and `jax.vmap` apply. Gradients are finite
everywhere; where the derivative does not exist the docstring says what is returned. Positions must be
whole: a chain cut by a periodic boundary has to be unwrapped first.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polyvae.arguments import check_shape, one_frame, one_of, real_number, whole_number
from polyvae.errors import InputError
from polyvae.geometry.linalg import eigh_descending, matmul, safe_sqrt

_LIE = np.array([1.0, 0.618, 0.414], np.float32)  # a direction that chains are hardly ever perpendicular to


def bead_weights(
    positions: Float[Array, "beads dims"], masses: Float[Array, "beads"] | None
) -> Float[Array, "beads"]:
    """Masses as fractions of their sum, in the precision of the positions; equal fractions without masses."""
    n = positions.shape[0]
    if masses is None:
        return jnp.full(n, 1 / n, jnp.result_type(positions))
    check_shape("masses", masses, (n,))
    masses = jnp.asarray(masses, jnp.result_type(positions))  # first, so that the fractions add up to 1
    return masses / jnp.sum(masses)


def bead_sums(
    coefficients: Float[Array, "sums beads"], positions: Float[Array, "beads dims"]
) -> Float[Array, "sums dims"]:
    """Sums over the beads, `coefficients @ positions`.

    Written as a product of the flattened positions with one matrix that all frames share: under
    `jax.vmap` that is one large matrix product, several times faster than a small one for each frame.
    """
    n_dims = positions.shape[1]
    spread = jnp.kron(coefficients.T, jnp.eye(n_dims, dtype=coefficients.dtype))
    return matmul(positions.ravel(), spread).reshape(-1, n_dims)


def center_of_mass(
    positions: Float[Array, "beads dims"], masses: Float[Array, "beads"] | None = None
) -> Float[Array, "dims"]:
    """Centre of mass; the plain mean without masses."""
    return positions[0] + bead_sums(bead_weights(positions, masses)[None], positions - positions[:1])[0]


def center(
    positions: Float[Array, "beads dims"], masses: Float[Array, "beads"] | None = None
) -> Float[Array, "beads dims"]:
    """Positions relative to the centre of mass.

    The first bead is subtracted first, so that a chain far from the origin loses no digits.
    """
    return center_with_sums(positions, masses)[0]


def center_with_sums(
    positions: Float[Array, "beads dims"],
    masses: Float[Array, "beads"] | None,
    coefficients: Float[Array, "sums beads"] | None = None,
) -> tuple[Float[Array, "beads dims"], Float[Array, "sums dims"]]:
    """`center(positions)` and `bead_sums(coefficients, positions)`, for coefficients that add up to 0.

    Such sums do not depend on the place of the chain, so the same matrix product computes them and the centre.
    """
    local = positions - positions[:1]
    weights = bead_weights(positions, masses)[None]
    sums = bead_sums(weights if coefficients is None else jnp.concatenate([weights, coefficients]), local)
    return local - sums[:1], sums[1:]


def rotate(
    positions: Float[Array, "beads dims"], rotation: Float[Array, "dims dims"]
) -> Float[Array, "beads dims"]:
    """Turn every position by a rotation matrix: r_i -> R r_i."""
    # Sums of outer products, not a matrix product: these fuse into one pass over many frames.
    columns = [positions[:, k : k + 1] * rotation[None, :, k] for k in range(positions.shape[1])]
    return sum(columns[1:], columns[0])


def gyration_tensor(
    positions: Float[Array, "beads dims"], masses: Float[Array, "beads"] | None = None
) -> Float[Array, "dims dims"]:
    """Gyration tensor S = sum_i m_i r_i r_i^T / sum_i m_i about the centre of mass, in length squared."""
    return _second_moments(center(positions, masses), masses)


def chain_moment(positions: Float[Array, "beads dims"]) -> Float[Array, "dims"]:
    """Chain moment sum_i (i - (N-1)/2) r_i: the direction from the first half of the chain to the second.

    It changes sign when the chain is numbered from its other end.
    """
    return bead_sums(_bead_order(positions)[None], positions - positions[:1])[0]


def principal_frame(
    positions: Float[Array, "beads dims"],
    masses: Float[Array, "beads"] | None = None,
    sign: str = "chain",
    mirror: bool = False,
) -> Float[Array, "dims dims"]:
    """Principal axes of the gyration tensor as the rows of a proper rotation, largest extent first.

    The sign of each axis makes the chain moment's component along it positive; the last axis completes
    a right-handed frame, so that mirror images stay different. With `sign="none"` the eigensolver decides the
    signs, and only the handedness is fixed. With `mirror=True` the chain moment signs the last axis too: the frame
    is then left-handed for one of two mirror images, and both have the same coordinates in it.

    `principal_frame(x) @ (x - com)` is unchanged by rotation and translation of x, except where two
    extents are equal or the chain moment is perpendicular to an axis: there the frame is undefined and
    jumps (`frame_margins` measures how near that is). The derivative leaves out the terms that divide by an
    extent difference of zero.
    """
    return _center_and_frame(positions, masses, sign, mirror)[1]


def in_principal_frame(
    positions: Float[Array, "beads dims"],
    masses: Float[Array, "beads"] | None = None,
    sign: str = "chain",
    mirror: bool = False,
) -> Float[Array, "beads dims"]:
    """Positions about the centre of mass, in the axes of `principal_frame`."""
    return rotate(*_center_and_frame(positions, masses, sign, mirror))


def _center_and_frame(positions, masses, sign, mirror):
    one_of("sign", sign, ("chain", "none"))
    if mirror and sign != "chain":
        raise InputError('mirror=True needs sign="chain": without a sign rule mirror images cannot be matched')
    r, moment = center_with_sums(positions, masses, _bead_order(positions)[None])
    _, axes = eigh_descending(_second_moments(r, masses))
    if sign == "chain":
        along = matmul(axes, moment[0])
        axes = axes * jnp.where(along < 0, -1.0, 1.0)[:, None].astype(axes.dtype)
        if mirror:
            return r, axes
    if axes.shape[0] == 2:
        return r, jnp.stack([axes[0], jnp.stack([-axes[0, 1], axes[0, 0]])])
    return r, jnp.stack([axes[0], axes[1], jnp.cross(axes[0], axes[1])])


def frame_margins(
    positions: Float[Array, "beads dims"], masses: Float[Array, "beads"] | None = None, mirror: bool = False
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Distance of the principal frame from an undefined one: relative eigenvalue gap and relative chain moment.

    The gap is the smallest difference of neighbouring eigenvalues of the gyration tensor over their sum;
    at 0 two axes are arbitrary. The moment is the smallest |correlation| between a bead's number and its
    coordinate along an axis, over the axes that it signs (all but the last; with `mirror` all of them);
    at 0 a sign is arbitrary. Both are between 0 and 1, without a unit.
    """
    values, axes = eigh_descending(gyration_tensor(positions, masses))
    total = jnp.sum(values)
    gap = jnp.min(values[:-1] - values[1:]) / jnp.where(total > 0, total, 1.0)
    order = _bead_order(positions)
    r = rotate(center(positions), axes)  # without masses, as the moment has none either
    bound = safe_sqrt(jnp.sum(order**2) * jnp.sum(r**2, axis=0))
    tiny = bound <= 8 * jnp.finfo(r.dtype).eps * jnp.max(bound)
    relative = jnp.where(tiny, 0.0, jnp.abs(bead_sums(order[None], r)[0]) / jnp.where(tiny, 1.0, bound))
    signed = relative if mirror else relative[:-1]
    return jnp.clip(gap, 0, 1), jnp.clip(jnp.min(signed), 0, 1)


def canonical_order(positions: Float[Array, "beads dims"]) -> Float[Array, "beads dims"]:
    """The canonical one of the chain and its reversal (bead i <-> N-1-i), the same array for both.

    The end with the larger second moment comes last: the chain is reversed where
    a = sum_i (i - (N-1)/2) |r_i - c|^2 < 0, c the plain mean. Where a is 0 to rounding, as for a C or an
    S shape, the signed area sum_i r_i x r_{i+1} decides in 2-D; in 3-D a itself does.

    This holds bit for bit: each step treats beads i and N-1-i in the same way, and a of the reversed chain is
    exactly -a, so that functions of the result are exactly equal for a chain and its reverse. The price is
    continuity: a motion that takes a through 0 swaps all beads at once, and features jump there unless the
    conformation is its own reversal. The derivative is that of the chosen numbering.
    """
    asymmetry, bound = _asymmetry(positions)
    if positions.shape[1] == 2:
        a, b = positions[:-1] - positions[:1], positions[1:] - positions[:1]
        area = jnp.sum(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
        tie = jnp.abs(asymmetry) <= 64 * jnp.finfo(positions.dtype).eps * bound
        asymmetry = jnp.where(tie, area, asymmetry)
    # The asymmetry is exactly 0 for chains that a half turn maps on their reversal. Features are then equal for
    # both numberings except in the last bits, so the orientation of the chain decides.
    half = positions.shape[0] // 2
    lie = jnp.sum((positions[:half] - positions[::-1][:half]) * _LIE[None, : positions.shape[1]])
    asymmetry = jnp.where(asymmetry == 0, lie, asymmetry)
    return jnp.where(asymmetry < 0, positions[::-1], positions)


def reversal_margin(positions: Float[Array, "beads dims"]) -> Float[Array, ""]:
    """Distance of `canonical_order` from swapping the beads: |a| over its bound, between 0 and 1, without unit."""
    asymmetry, bound = _asymmetry(positions)
    return jnp.abs(asymmetry) / jnp.where(bound > 0, bound, 1.0)


def _asymmetry(positions):
    """Second moment of the later beads minus that of the earlier ones, and the largest possible difference."""
    n = positions.shape[0]
    half = n // 2
    local = positions - 0.5 * (positions[:1] + positions[-1:])
    first, second = local[:half], local[::-1][:half]  # bead i beside its partner N-1-i
    middle = local[half : half + n % 2]
    mean = (jnp.sum(first + second, axis=0, keepdims=True) + jnp.sum(middle, axis=0, keepdims=True)) / n
    reach = [jnp.sum((r - mean) ** 2, axis=1) for r in (first, second)]
    order = _bead_order(positions)[:half]
    return jnp.sum(order * (reach[0] - reach[1])), jnp.sum(-order * (reach[0] + reach[1]))


def _second_moments(r, masses):
    if masses is None:
        return matmul(r.T, r) / r.shape[0]
    return matmul((r * bead_weights(r, masses)[:, None]).T, r)


def _bead_order(positions):
    """Bead numbers counted from the middle of the chain."""
    n = positions.shape[0]
    return jnp.asarray(np.arange(n) - (n - 1) / 2, jnp.result_type(positions))


def radius_of_gyration(
    positions: Float[Array, "beads dims"], masses: Float[Array, "beads"] | None = None
) -> Float[Array, ""]:
    """Radius of gyration, sqrt(sum_i m_i |r_i - r_com|^2 / sum_i m_i), in the unit of the positions.

    The gradient where all beads coincide is 0.

    Args:
        positions: (n_beads, n_dims) of one frame.
        masses: (n_beads,); equal by default.

    Example:
        >>> float(pv.radius_of_gyration(np.array([[0.0, 0.0], [2.0, 0.0]])))
        1.0
    """
    positions = one_frame(positions)
    squared = jnp.sum(center(positions, masses) ** 2, axis=1)
    return safe_sqrt(jnp.sum(bead_weights(positions, masses) * squared))


def end_to_end(positions: Float[Array, "beads dims"]) -> Float[Array, ""]:
    """Distance |r_N - r_1| between the first and the last bead of `positions` (n_beads, n_dims).

    It is in the unit of the positions. The gradient at 0 is 0.
    """
    positions = one_frame(positions)
    return safe_sqrt(jnp.sum((positions[-1] - positions[0]) ** 2))


def asphericity(
    positions: Float[Array, "beads dims"], masses: Float[Array, "beads"] | None = None
) -> Float[Array, ""]:
    """Asphericity: largest principal moment minus the mean of the others, in length squared.

    b = l_1 - (l_2 + l_3) / 2 in 3-D and l_1 - l_2 in 2-D, with l the eigenvalues of the gyration tensor,
    largest first; 0 for a sphere, Rg^2 for a rod. Source: Theodorou & Suter, 10.1021/ma00148a028. Where
    the two largest moments are equal the derivative is that of one of them, chosen by the eigensolver.

    Args:
        positions: (n_beads, n_dims) of one frame.
        masses: (n_beads,); equal by default.
    """
    moments, _ = eigh_descending(gyration_tensor(one_frame(positions), masses))
    return moments[0] - jnp.mean(moments[1:])


def acylindricity(
    positions: Float[Array, "beads dims"], masses: Float[Array, "beads"] | None = None
) -> Float[Array, ""]:
    """Acylindricity c = l_2 - l_3, the difference of the two smaller principal moments, in length squared.

    In 3-D alone (`InputError` in 2-D). 0 for a chain whose mass is spread evenly about its long axis.
    Source: Theodorou & Suter, 10.1021/ma00148a028. Where l_2 = l_3 the derivative is one of two.

    Args:
        positions: (n_beads, n_dims) of one frame.
        masses: (n_beads,); equal by default.
    """
    positions = one_frame(positions)
    if positions.shape[1] != 3:
        raise InputError(f"acylindricity needs positions in 3-D; got shape {positions.shape}")
    moments, _ = eigh_descending(gyration_tensor(positions, masses))
    return moments[1] - moments[2]


def shape_anisotropy(
    positions: Float[Array, "beads dims"], masses: Float[Array, "beads"] | None = None
) -> Float[Array, ""]:
    """Relative shape anisotropy, from 0 (evenly spread) to 1 (a rod); no unit.

    kappa^2 = (d tr(S^2) / tr(S)^2 - 1) / (d - 1) with the gyration tensor S in d dimensions: in 3-D
    1 - 3 (l_1 l_2 + l_2 l_3 + l_3 l_1) / (l_1 + l_2 + l_3)^2. Source: Theodorou & Suter,
    10.1021/ma00148a028. Smooth wherever the beads do not all coincide; there it is 0 with gradient 0.

    Args:
        positions: (n_beads, n_dims) of one frame.
        masses: (n_beads,); equal by default.
    """
    r = center(one_frame(positions), masses)
    # The ratio has no scale; taken out as a constant, none of its powers can overflow or vanish.
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(r)))
    tensor = _second_moments(r / jnp.where(size > 0, size, 1.0), masses)
    n_dims = tensor.shape[0]
    trace = jnp.where(size > 0, jnp.trace(tensor), 1.0)
    return jnp.where(size > 0, (n_dims * jnp.sum(tensor**2) / trace**2 - 1) / (n_dims - 1), 0.0)


def distances(positions: Float[Array, "beads dims"], pairs) -> Float[Array, "pairs"]:
    """Distances between pairs of beads, `pairs` of shape (n_pairs, 2); the gradient at 0 is 0."""
    pairs = jnp.asarray(pairs)
    return safe_sqrt(jnp.sum((positions[pairs[:, 0]] - positions[pairs[:, 1]]) ** 2, axis=1))


def pairs_at(n_beads: int, places: np.ndarray) -> np.ndarray:
    """Pairs (n, 2) of beads by their places (n,) in the list (0, 1), (0, 2), ... of all, which is never made."""
    beads = np.arange(n_beads)
    starts = beads * n_beads - beads * (beads + 1) // 2  # the place of each bead's first pair
    first = np.searchsorted(starts, places, side="right") - 1
    return np.stack([first, places - starts[first] + first + 1], axis=1)


def angles(positions: Float[Array, "beads dims"], triples) -> Float[Array, "triples"]:
    """Angles at the middle bead of triples (n_triples, 3), in radians from 0 to pi.

    The formula 2 atan(|u - v| / |u + v|), with unit vectors u and v to the outer beads (Kahan), is exact also
    near 0 and pi, where the arc cosine loses half the digits. The derivative there is one of many, and 0 at
    coincident beads.
    """
    triples = jnp.asarray(triples)
    a, b = (positions[triples[:, k]] - positions[triples[:, 1]] for k in (0, 2))
    length_a, length_b = (safe_sqrt(jnp.sum(v**2, axis=1, keepdims=True)) for v in (a, b))
    half = [safe_sqrt(jnp.sum((length_b * a + sign * length_a * b) ** 2, axis=1)) for sign in (-1, 1)]
    known = (half[0] > 0) | (half[1] > 0)
    return 2 * jnp.arctan2(half[0], jnp.where(known, half[1], 1.0))


def contacts(positions: Float[Array, "beads dims"], cutoff: float, separation: int = 3) -> Float[Array, ""]:
    """Smooth number of contacts: sum over pairs of 1 / (1 + (r_ij / cutoff)^6).

    A pair counts 1/2 at the cutoff and next to nothing at twice that. It is the rational switching
    function (1 - x^6) / (1 - x^12) of Iannuzzi, Laio & Parrinello, 10.1103/PhysRevLett.90.238302. Its
    removable singularity at x = 1 is divided out, and it is smooth everywhere, also at coincident beads.

    Args:
        positions: (n_beads, n_dims) of one frame.
        cutoff: r_0, in the unit of the positions.
        separation: only pairs with |i - j| of at least this count; bonded neighbours would always touch.
    """
    positions = one_frame(positions)
    if not isinstance(cutoff, jax.core.Tracer):
        real_number("cutoff", cutoff, above=0)
    first, second = np.triu_indices(positions.shape[0], whole_number("separation", separation, 0))
    squared = jnp.sum((positions[first] - positions[second]) ** 2, axis=1) / cutoff**2
    return jnp.sum(1 / (1 + squared**3))

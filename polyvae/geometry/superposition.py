"""Superposition of frames on a reference structure, and the mean structure of a trajectory.

The functions of one frame are pure JAX, like those of `geometry`; `mean_structure` and `round_to_grid`
prepare a reference once and work in NumPy.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polyvae.arguments import check_shape, one_frame
from polyvae.errors import InputError
from polyvae.geometry.linalg import eigh_descending, matmul, nearest_orthogonal, nearest_rotation, safe_sqrt
from polyvae.geometry.shape import bead_weights, center, center_with_sums, in_principal_frame, rotate

_CHUNK = 4096
_PDB_LIMIT = 999_999  # thousandths; the largest negative number in "%8.3f"


def _center_and_correlation(positions, reference, masses):
    """Centred positions r, and H = sum_i m_i ref_i r_i^T / sum_i m_i."""
    reference = center(reference.astype(jnp.result_type(positions)), masses)
    coefficients = reference * bead_weights(positions, masses)[:, None]
    return center_with_sums(positions, masses, coefficients.T)


def superpose(
    positions: Float[Array, "beads dims"],
    reference: Float[Array, "beads dims"],
    masses: Float[Array, "beads"] | None = None,
    mirror: bool = False,
) -> Float[Array, "beads dims"]:
    """Positions about their centre of mass, turned to fit the reference best.

    Minimises sum_i m_i |R (r_i - r_com) - ref_i|^2 over proper rotations R; with `mirror` over all
    orthogonal R, so that a mirror image fits as well as the original. Sources: Kabsch,
    10.1107/S0567739476001873 and 10.1107/S0567739478001680. Only the reference's shape matters, not its
    position or size. Where several R are best (everything on one line) see `linalg.nearest_rotation`.

    Args:
        positions, reference: in any one unit; whole, not cut by a periodic boundary.
    """
    fit = nearest_orthogonal if mirror else nearest_rotation
    r, h = _center_and_correlation(positions, reference, masses)
    return rotate(r, fit(h))


def superposition_margin(
    positions: Float[Array, "beads dims"],
    reference: Float[Array, "beads dims"],
    masses: Float[Array, "beads"] | None = None,
    mirror: bool = False,
) -> Float[Array, ""]:
    """Distance of the superposition from an undefined one, between 0 (some rotation is arbitrary) and 1.

    The smallest (s_i + s_j) / sum |s| over pairs of the singular values of H = sum_i m_i ref_i r_i^T, the
    last one negative where the best fit would be a mirror image; with `mirror` the smallest s_i / sum s
    instead, at 0 of which one side turns into its mirror image. No unit.
    """
    _, h = _center_and_correlation(positions, reference, masses)
    fitted = matmul(h, (nearest_orthogonal if mirror else nearest_rotation)(h).T)
    values, _ = eigh_descending(0.5 * (fitted + fitted.T))  # none but the last can be negative
    total = jnp.sum(jnp.abs(values))
    smallest = values[-1] if mirror else values[-1] + values[-2]
    return jnp.clip(smallest / jnp.where(total > 0, total, 1.0), 0, 1)


def rmsd(
    positions: Float[Array, "beads dims"],
    reference: Float[Array, "beads dims"],
    masses: Float[Array, "beads"] | None = None,
) -> Float[Array, ""]:
    """Root mean square deviation from the reference after the best superposition, in the positions' unit.

    sqrt(sum_i m_i |R (r_i - r_com) - (ref_i - ref_com)|^2 / sum_i m_i), R a proper rotation. The
    gradient at 0 is 0.

    Args:
        positions: (n_beads, n_dims) of one frame.
        masses: (n_beads,); equal by default.
        reference: (n_beads, n_dims) in the same unit.
    """
    positions, reference = one_frame(positions), one_frame(reference, "reference")
    check_shape("reference", reference, jnp.shape(positions))
    reference = center(reference, masses)
    squared = jnp.sum((superpose(positions, reference, masses) - reference) ** 2, axis=1)
    return safe_sqrt(jnp.sum(bead_weights(positions, masses) * squared))


def mean_structure(
    positions: np.ndarray,
    masses: np.ndarray | Array | None = None,
    weights: np.ndarray | None = None,
    *,
    mirror: bool = False,
    prepare: Callable | None = None,
    tolerance: float = 1e-5,
    max_iterations: int = 100,
) -> np.ndarray:
    """Mean of all frames, each superposed on that mean: the reference with the least deviation from a data set.

    The first mean is taken in the principal frame, so that the result does not depend on orientation and order of
    the frames. Superposition and mean are repeated until the structure moves by less than `tolerance` of its size.

    Args:
        positions: (n_frames, n_beads, n_dims).
        masses: (n_beads,) or None.
        weights: (n_frames,) statistical weights, or None for equal ones.
        mirror: superpose mirror images too.
        prepare: applied to each frame first, such as `geometry.canonical_order`.

    Returns:
        (n_beads, n_dims) float64, centre of mass at the origin.
    """
    weights = np.ones(len(positions)) if weights is None else np.asarray(weights, np.float64)
    masses = None if masses is None else jnp.asarray(masses, jnp.float32)
    whole = weights.sum()

    def mean(reference):
        found = np.zeros(positions.shape[1:])
        for start in range(0, len(positions), _CHUNK):
            rows, share = positions[start : start + _CHUNK], weights[start : start + _CHUNK]
            missing = min(_CHUNK, len(positions)) - len(rows)  # fill up, so that one shape is compiled
            rows = np.pad(rows, ((0, missing), (0, 0), (0, 0)), mode="edge")
            aligned = np.asarray(_aligned(rows, reference, masses, mirror, prepare), np.float64)
            found = found + np.tensordot(np.pad(share, (0, missing)), aligned, 1)
        return found / whole

    structure = mean(None)
    for _ in range(max_iterations):
        previous, structure = structure, mean(jnp.asarray(structure, jnp.float32))
        if np.linalg.norm(structure - previous) <= tolerance * np.linalg.norm(structure):
            break
    return structure


@functools.partial(jax.jit, static_argnames=("mirror", "prepare"))
def _aligned(frames, reference, masses, mirror, prepare):
    """All frames superposed on the reference, or each in its own principal frame without one."""

    def align(frame):
        if prepare is not None:
            frame = prepare(frame)
        if reference is None:
            return in_principal_frame(frame, masses, mirror=mirror)
        return superpose(frame, reference, masses, mirror)

    return jax.vmap(align)(frames)


def round_to_grid(structure: np.ndarray, step: float) -> np.ndarray:
    """Positions as whole numbers of steps, (n_beads, n_dims), with a sum of exactly zero along each axis.

    A file with a fixed number of decimals, such as PDB, then holds exactly the reference that was used. After
    rounding, the rest of the sum is subtracted from the coordinates with the largest rounding errors, one step
    each.

    Raises:
        InputError: coordinates too large for a PDB column of eight characters.
    """
    exact = np.asarray(structure, np.float64) / step
    exact = exact - exact.mean(axis=0)
    counts = np.rint(exact)
    for k in range(exact.shape[1]):
        excess = int(counts[:, k].sum())
        order = np.argsort(np.sign(excess) * (exact[:, k] - counts[:, k]), kind="stable")
        counts[order[: abs(excess)], k] -= np.sign(excess)
    if np.abs(counts).max() > _PDB_LIMIT:
        raise InputError(
            f"the reference reaches {np.abs(counts).max() * step:g} from its centre, and a PDB file holds at most "
            f"{_PDB_LIMIT * step:g}; use pdb_grid=False"
        )
    return counts

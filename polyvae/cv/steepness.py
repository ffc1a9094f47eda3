"""Steepness of a CV: how far the atoms move while a latent changes by the width of a bias's kernels.

Between basins there are few frames or none, so the data hardly determine the encoder there. Where a latent is
nearly a step, a bias on it is stiffer than a bond, and the time step of an engine cannot follow it.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polyvae.batches import map_frames, single_precision
from polyvae.cv.latent import CVFunction, LatentCV
from polyvae.features.featurizers import PrincipalAxes
from polyvae.geometry.linalg import safe_sqrt
from polyvae.geometry.shape import bead_weights
from polyvae.vae.settings import Slopes

LINES = 48  # for each latent
POINTS = 64  # on a line
QUANTILE = 0.95  # of the lines, for the slope that a bias meets; a single line may lead through a clash
_SAMPLE = 5000  # frames that the ends of the lines are taken from
_HELD = 1 << 24  # coordinates of them, at most

featurize = eqx.filter_jit(lambda featurizer, rows: jax.vmap(featurizer)(rows))


def latents_of(cv: CVFunction, aligned: Float[Array, "beads dims"]) -> Float[Array, "latent"]:
    """Latents of one frame that is already in the featurizer's frame, if it has one.

    Superposition is left out, since its derivative takes ten seconds to compile; `slopes_at` puts it in.
    """
    if cv.featurizer.coordinates:
        return cv.scaled.encode(aligned.ravel())[0]
    return cv.posterior(aligned)[0]


def slopes_at(cv: CVFunction, aligned: Float[Array, "beads dims"]) -> Float[Array, "latent"]:
    """|grad_x z_k| of each latent, the root of the sum over all coordinates x, in 1 / length.

    Args:
        aligned: one frame, as for `latents_of`.
    """
    gradients = jax.jacrev(lambda x: latents_of(cv, x))(aligned)
    if cv.featurizer.coordinates:
        gradients = _through_alignment(cv.featurizer, aligned, gradients)
    return safe_sqrt(jnp.sum(gradients**2, axis=(1, 2)))


def _through_alignment(featurizer, y, gradients):
    """Gradients (n_latents, n_beads, n_dims) by positions, from those by positions in the featurizer's frame.

    The frame keeps conditions c(y) = 0: no shift of the centre of mass, and a symmetric correlation with the
    reference, or a diagonal gyration tensor. So the gradient is g - sum_k l_k grad c_k, and the l_k are such that
    no motion of the whole molecule changes the latent.
    """
    masses = bead_weights(y, featurizer.masses)[None, :, None]
    axes = jnp.eye(y.shape[1], dtype=y.dtype)

    def turns(x, sign):
        pairs = [(a, b) for b in range(x.shape[1]) for a in range(b)]
        return jnp.stack([jnp.outer(x[:, a], axes[b]) + sign * jnp.outer(x[:, b], axes[a]) for a, b in pairs])

    shifts = jnp.repeat(axes[:, None], len(y), axis=1)
    if isinstance(featurizer, PrincipalAxes):
        kept = turns(y, 1.0)
    else:
        reference = featurizer.template()
        kept = turns(reference / jnp.max(jnp.abs(reference)) * jnp.max(jnp.abs(y)), -1.0)
    moves = jnp.concatenate([shifts, turns(y, -1.0)])
    kept = masses * jnp.concatenate([shifts, kept])
    matrix = jnp.einsum("jbd,kbd->jk", moves, kept)
    shares = jnp.linalg.pinv(matrix, rtol=1e-5) @ jnp.einsum("jbd,lbd->jl", moves, gradients)
    return gradients - jnp.einsum("kl,kbd->lbd", shares, kept)


@eqx.filter_jit
def slopes_between(
    cv: CVFunction, start: Float[Array, "lines beads dims"], end: Float[Array, "lines beads dims"]
) -> Float[Array, "lines latent"]:
    """The largest |grad_x z_k| of each latent on straight lines between frames, in 1 / length.

    The gradient is taken in the middle of the step on which the latent changes most. It is at least the change on
    that step divided by its length, so that a latent that is a step is found between two points, too.

    Args:
        start, end: as for `latents_of`.
    """

    def on_line(a, b):
        def point(t):
            return a + t * (b - a)

        parts = jnp.linspace(0.0, 1.0, POINTS)
        change = jnp.abs(jnp.diff(jax.vmap(lambda t: latents_of(cv, point(t)))(parts), axis=0))
        place = jnp.argmax(change, axis=0)
        middle = jax.vmap(point)(0.5 * (parts[place] + parts[place + 1]))
        slopes = jnp.diagonal(jax.vmap(lambda x: slopes_at(cv, x))(middle))
        length = safe_sqrt(jnp.sum((b - a) ** 2)) / (POINTS - 1)
        rounding = 1e-5 * safe_sqrt(jnp.mean(a**2))  # between two frames that are nearly the same
        secant = change.max(axis=0) / jnp.where(length > rounding, length, jnp.inf)
        return jnp.maximum(slopes, secant)

    return jax.vmap(on_line)(start, end)


_latents = eqx.filter_jit(lambda cv, rows: jax.vmap(lambda row: latents_of(cv, row))(rows))


@single_precision
def find_slopes(cv: LatentCV, positions: Float[np.ndarray, "frames beads dims"]) -> Slopes:
    """The slopes of each latent on lines between frames at both ends of it, see `slopes_between`.

    The frames of a latent are those next to `2 * LINES` evenly spaced values of it, so that a basin of few frames
    counts as any other. The lowest is joined to the highest, and so on.

    Args:
        positions: in the model's unit; of many frames those `sample_step` apart are enough.
    """
    positions = positions[:: sample_step(len(positions), positions[0].size)]
    function, width = cv.function(), max(cv.mean.size, positions[0].size)
    if cv.featurizer.coordinates:
        rows = map_frames(functools.partial(featurize, cv.featurizer), positions, width=width)
        positions = rows.reshape(positions.shape)
    z = map_frames(functools.partial(_latents, function), positions, width=width)
    rows = np.stack([_evenly_spaced(column) for column in z.T])
    start, end = positions[rows[:, :LINES].ravel()], positions[rows[:, : -LINES - 1 : -1].ravel()]
    if not cv.featurizer.coordinates:
        start, end = _superposed(start, end)
    lines = functools.partial(slopes_between, function)
    found = map_frames(lines, start, end, batch=len(start), width=POINTS * width)
    found = np.asarray(found, np.float64).reshape(cv.latent_dim, LINES, cv.latent_dim)
    own = [found[k, :, k] for k in range(cv.latent_dim)]
    return Slopes([float(np.quantile(one, QUANTILE)) for one in own], [float(one.max()) for one in own])


def _superposed(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames (n, n_beads, n_dims) about their centres, those of b each superposed on that of a (Kabsch)."""
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    u, _, v = np.linalg.svd(np.einsum("lni,lnj->lij", b, a))
    u[..., -1] *= np.sign(np.linalg.det(u @ v))[:, None]
    return a, b @ (u @ v)


def sample_step(n_frames: int, frame_size: int) -> int:
    """Frames from one that `find_slopes` uses to the next, by the number of coordinates in a frame."""
    return max(1, -(-n_frames // min(_SAMPLE, max(2 * LINES, _HELD // frame_size))))


def _evenly_spaced(z: np.ndarray) -> np.ndarray:
    """Numbers of the frames next to evenly spaced values, from the least to the greatest."""
    order = np.argsort(z, kind="stable")
    wanted = np.linspace(z[order[0]], z[order[-1]], 2 * LINES)
    above = np.clip(np.searchsorted(z[order], wanted), 1, len(z) - 1)
    nearer = wanted - z[order[above - 1]] < z[order[above]] - wanted
    return order[above - nearer]

"""A latent CV as machine code, for frames in NumPy arrays."""

from collections.abc import Callable

import numpy as np

from polyvae.arguments import flag, without_mask
from polyvae.cv.latent import LatentCV, latent_cv
from polyvae.errors import InputError


def compile(cv: LatentCV) -> Callable:
    """The CV as C, compiled here and now: a function of frames, with gradients, in float64 and on one core.

    For few frames at a time, where a call of JAX takes longer than the arithmetic, and for programs that step
    through a simulation. Many frames without gradients are faster with `LatentCV.transform`, which computes them
    together, in float32.

    Args:
        cv: the collective variable, as `fit` and `load` give it.

    Returns:
        A function from positions (n_frames, n_beads, n_dims), in the model's unit, or a trajectory, to latents
        (n_frames, latent_dim); with `gradients=True` also their gradients (n_frames, latent_dim, n_beads, n_dims).

    Raises:
        InputError: no C compiler. And, from the function, positions of another shape, or latents that are not
            finite.

    Example:
        >>> z, dz_dx = pv.compile(cv)(traj.positions, gradients=True)
    """
    from polyvae.export.c import compiled

    code = compiled(latent_cv(cv))

    def evaluate(positions: np.ndarray, *, gradients: bool = False):
        if not isinstance(positions, np.ndarray):
            positions = cv.frames(positions)
        without_mask("positions", positions)
        flag("gradients", gradients)
        if positions.dtype.kind not in "fiu":
            raise InputError(f"positions must be real numbers; got {positions.dtype}")
        if np.shape(positions)[1:] != (cv.n_beads, cv.n_dims):
            raise InputError(
                f"positions must have shape (n_frames, {cv.n_beads}, {cv.n_dims}); got {np.shape(positions)}"
            )
        z, slopes, bad = code.frames(positions, gradients)
        if bad >= 0:
            raise InputError(
                f"the latent coordinates of frame {bad} are {z[bad].tolist()}; they must be finite. Remove that "
                f"frame, or check its coordinates"
            )
        return (z, slopes) if gradients else z

    return evaluate

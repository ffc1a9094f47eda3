"""Numbers that need the order of the frames: how slow latent coordinates are.

Functions of latent coordinates (n_frames, latent_dim) and of `segments`, the lengths of the pieces that are
continuous in time, as `Trajectory.segments` has them; None is one piece. No pair of frames crosses from one
segment to another. Frames count alike, whatever their weights: a run reweighted frame by frame has lost the
dynamics that it was simulated with.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from polyvae.arguments import numbers_array, segment_lengths, whole_number
from polyvae.errors import InputError

WINDOW = 5  # in autocorrelation times
_RANK = 1e-10  # of the variance of standardised coordinates: what float32 resolves, squared, and some


def lagged(segments: Sequence[int], lag: int) -> Int[np.ndarray, "pairs"]:
    """The frames t for which t and t + lag are in one segment."""
    ends = np.repeat(np.cumsum(segments), segments)
    frames = np.arange(len(ends))
    return frames[frames + lag < ends]


def segments_within(mask: Bool[np.ndarray, "frames"], segments: Sequence[int]) -> tuple[int, ...]:
    """Segments of `z[mask]`: runs of chosen frames that follow on each other in one segment."""
    chosen = np.flatnonzero(mask)
    piece = np.repeat(np.arange(len(segments)), segments)[chosen]
    breaks = np.flatnonzero((np.diff(piece) != 0) | (np.diff(chosen) != 1)) + 1
    return tuple(np.diff([0, *breaks, len(chosen)]).tolist()) if len(chosen) else ()


def time_step(time: Float[np.ndarray, "frames"] | None, segments: Sequence[int]) -> float | None:
    """Time between neighbouring frames; None where times are not known or not evenly spaced."""
    starts = lagged(segments, 1)
    if time is None or not len(starts):
        return None
    steps = time[starts + 1] - time[starts]
    mean = float(steps.mean())
    rounding = 2 * np.finfo(np.float32).eps * np.abs(time).max()  # many formats keep times in single precision
    return mean if mean > 0 and (np.abs(steps - mean) <= 1e-3 * mean + rounding).all() else None


def singular_values(
    z: Float[np.ndarray, "frames latent"],
    lag: int,
    segments: Sequence[int] | None = None,
) -> Float[np.ndarray, "latent"]:
    """Singular values of C00^(-1/2) C0t Ctt^(-1/2), largest first.

    C00, Ctt and C0t are the covariances of z(t), of z(t + lag) and between them, each with its own mean taken
    off. The values are canonical correlations, between 0 and 1; directions in which z does not vary count 0.

    Args:
        lag: in frames.

    Raises:
        InputError: the lag is not positive, or leaves at most latents + 1 pairs, and so few always look perfectly
            correlated.
    """
    z, segments = _checked(z, segments)
    lag = whole_number("lag", lag, 1)
    starts = lagged(segments, lag)
    if (n := len(starts)) <= z.shape[1] + 1:
        raise InputError(
            f"a lag of {lag} frames needs more than {z.shape[1] + 1} pairs of frames within segments for "
            f"{z.shape[1]} latents; got {n}, the longest segment having {max(segments)} frames. "
            f"Use a shorter lag"
        )
    pairs = (z[starts + shift] for shift in (0, lag))
    now, then = (x - x.sum(axis=0) / n for x in pairs)
    resolution = _resolution(z)
    left, right = (_whitening(x.T @ x / n, resolution) for x in (now, then))
    values = np.linalg.svd(left.T @ (now.T @ then / n) @ right, compute_uv=False)
    return np.clip(np.pad(values, (0, z.shape[1] - len(values))), 0, 1)


def vamp2(z: Float[np.ndarray, "frames latent"], lag: int, segments: Sequence[int] | None = None) -> float:
    """VAMP-2 score: 1 + the sum of the squared `singular_values`.

    The 1 is the constant function's, so that the score is between 1 and 1 + latent_dim: more is slower.
    It is the same for every invertible linear map of z. Hence the score of held-out frames is just this
    function of them: the cross-validated score, of the singular functions that were fitted to the training
    frames, is such a map's as long as all latents are kept. Wu & Noé 2020, doi:10.1007/s00332-019-09567-y.

    Args and errors: as for `singular_values`.
    """
    return 1 + float(np.sum(singular_values(z, lag, segments) ** 2))


def timescales(
    z: Float[np.ndarray, "frames latent"],
    lag: int,
    segments: Sequence[int] | None = None,
) -> Float[np.ndarray, "latent"]:
    """Implied timescales -lag / ln(s) of the `singular_values` s, longest first, in frames.

    In equilibrium the singular values are the eigenvalues of the Koopman operator, which is self-adjoint
    then. A lower bound on the true timescales, up to statistics; 0 for s = 0, infinite for s = 1.
    """
    with np.errstate(divide="ignore"):
        return lag / np.abs(np.log(singular_values(z, lag, segments)))


def autocorrelation(
    z: Float[np.ndarray, "frames latent"], segments: Sequence[int] | None = None
) -> Float[np.ndarray, "lags latent"]:
    """Normalised autocorrelation functions, at lags from 0 to one less than the longest segment.

    The mean is that of all frames, and each lag is averaged over the pairs that there are. NaN for a latent
    that does not vary.
    """
    z, segments = _checked(z, segments)
    starts = np.cumsum([0, *segments[:-1]])
    lengths, n_lags = np.asarray(segments), max(segments)
    products, n_pairs = np.zeros((n_lags, z.shape[1])), np.zeros(n_lags)
    apart = z - z.mean(axis=0)
    for length in np.unique(lengths):  # all segments of one length in one transform
        first = starts[lengths == length]
        size = 1 << int(2 * length - 1).bit_length()  # filled up with zeros, so that the ends do not meet
        n_pairs[:length] += len(first) * (length - np.arange(length))
        for k in range(z.shape[1]):
            power = np.abs(np.fft.rfft(apart[first[:, None] + np.arange(length), k], size)) ** 2
            products[:length, k] += np.fft.irfft(power.sum(axis=0), size)[:length]
    covariance = products / n_pairs[:, None]
    return covariance / np.where(covariance[0] > _resolution(z) ** 2, covariance[0], np.nan)


def autocorrelation_time(
    z: Float[np.ndarray, "frames latent"], segments: Sequence[int] | None = None
) -> Float[np.ndarray, "latent"]:
    """Integrated autocorrelation time of each latent, 1 + 2 sum_t rho(t), in frames.

    Frames divided by it is the number of independent ones; an exponential decay of time T has about 2 T.
    The sum ends at the first lag that is at least `WINDOW` times the sum up to it: Sokal's self-consistent
    window, in doi:10.1007/978-1-4899-0319-8_6, as emcee has it. NaN for a latent that does not vary, and
    where every segment ends before the window does: the run is too short for an estimate.
    """
    rho = autocorrelation(z, segments)
    times = 2 * np.cumsum(rho, axis=0) - 1
    closed = (np.arange(len(rho))[:, None] >= WINDOW * times) & (times > 0)
    found = times[np.argmax(closed, axis=0), np.arange(times.shape[1])]
    return np.where(closed.any(axis=0), found, np.nan)


def _checked(z, segments) -> tuple[np.ndarray, tuple[int, ...]]:
    z = numbers_array("z", z, "an array of numbers (n_frames, latent_dim)")
    if z.ndim != 2 or not len(z):
        raise InputError(f"z must have shape (n_frames, latent_dim); got {z.shape}")
    return z, segment_lengths(segments, len(z))


def _resolution(z: np.ndarray) -> np.ndarray:
    """The smallest standard deviation of each latent that single precision resolves."""
    return np.finfo(np.float32).eps * np.abs(z).max(axis=0)


def _whitening(covariance: np.ndarray, resolution: np.ndarray) -> np.ndarray:
    """Columns w for which the z @ w have variance 1 and no correlation, as many as vary."""
    std = np.sqrt(np.diag(covariance))
    varies = std > resolution
    covariance, std = covariance[np.ix_(varies, varies)], std[varies]
    variances, axes = np.linalg.eigh(covariance / np.outer(std, std))
    kept = variances > _RANK
    white = np.zeros((len(varies), kept.sum()))
    white[varies] = axes[:, kept] / np.sqrt(variances[kept]) / std[:, None]
    return white

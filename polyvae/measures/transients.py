"""The frames of runs that a free energy is from: their weights, and the transient at the start of each run."""

from collections.abc import Sequence

import numpy as np

from polyvae.arguments import one_each, real_number, refusal, statistical_weights
from polyvae.errors import InputError
from polyvae.measures.kinetics import autocorrelation_time

_CUTS = np.arange(0, 0.51, 0.05)  # shares of each run that may be a transient
_SERIES = 20_000  # rows that the transient is looked for in
_GAIN = 0.67  # of the most independent frames that are left


def relative_weights(weights, bias, kT: float, runs: Sequence[int], walkers: bool) -> np.ndarray:
    """Weights (n_frames,) from statistical weights or a bias, 1 for the largest of each run.

    Args:
        runs: frames of each run.
        walkers: the runs are walkers of one bias, so that their weights compare.
    """
    n = sum(runs)
    if bias is None:
        found = np.ones(n) if weights is None else statistical_weights(weights, n)
        with np.errstate(divide="ignore"):
            return _shares(np.log(found), runs, walkers)
    if weights is not None:
        raise InputError("frames have weights or a bias, which gives weights; got both. Give one of them")
    return _shares(one_each("bias", bias, n) / kT, runs, walkers)


def _shares(log_weights: np.ndarray, runs: Sequence[int], walkers: bool) -> np.ndarray:
    """Weights (n_frames,), in place: the largest of each run, or of all walkers, is 1.

    A constant of thousands of kT beside the bias changes nothing.
    """
    if not log_weights.max() > -np.inf:
        raise InputError("no frame has any weight; weights must not all be 0")
    parts = [log_weights] if walkers else np.split(log_weights, np.cumsum(runs)[:-1])
    for part in parts:
        if (most := part.max()) > -np.inf:
            part -= most
    return np.exp(log_weights, out=log_weights)


def choose_transient(s, ends, runs, transient, least: float) -> float:
    """The share of each run that is left out at its start.

    Weights do not count here, since the frames that matter most must be kept.
    """
    if transient is not None:
        cut = real_number("transient", transient, least=0)
        if cut >= 1:
            raise refusal("transient", "a share of the run, at least 0 and less than 1", transient)
        return cut
    worth = []
    stride = max(1, len(s) // _SERIES)
    cuts = [cut for cut in _CUTS if cut >= least]
    for cut in cuts:
        pieces = [part[int(cut * len(part)) :: stride] for part in np.split(s, np.cumsum(runs)[:-1])]
        tau = autocorrelation_time(_on_circles(np.concatenate(pieces), ends), [len(piece) for piece in pieces])
        worth.append(sum(map(len, pieces)) / max(1.0, float(np.nan_to_num(tau, nan=1.0).max())))
    # Less of a gain is noise of the estimate, and each frame that is left out costs.
    return float(next(cut for cut, value in zip(cuts, worth, strict=True) if value >= _GAIN * max(worth)))


def _on_circles(s: np.ndarray, ends) -> np.ndarray:
    """Variables (n, n_columns), with the cosine and the sine of those that have a period in their place."""
    columns = []
    for k, end in enumerate(ends):
        if end is None:
            columns.append(s[:, k])
        else:
            angle = 2 * np.pi * s[:, k] / (end[1] - end[0])
            columns += [np.cos(angle), np.sin(angle)]
    return np.stack(columns, axis=1)


def without_starts(values: np.ndarray, runs, lengths) -> np.ndarray:
    """The last rows of each run, as many as `lengths` says; a view of a single run."""
    ends = np.cumsum(runs)
    parts = [values[end - n : end] for end, n in zip(ends, lengths, strict=True)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)

"""Which frames a model is trained on, and which are held out."""

import numpy as np

from polyvae.arguments import real_number
from polyvae.errors import InputError
from polyvae.measures.kinetics import lagged


def validation_blocks(n_frames: int, fraction: float = 0.1, n_blocks: int = 5) -> np.ndarray:
    """Mask (n_frames,) of `n_blocks` contiguous blocks, evenly spread, that hold `fraction` of the frames.

    Neighbouring frames of a trajectory are alike, so frames picked one by one would not be independent
    of the training frames; whole blocks nearly are.
    """
    if not 0 <= real_number("the validation fraction", fraction) < 1:
        raise InputError(f"the validation fraction must be at least 0 and below 1; got {fraction}")
    if fraction == 0:
        return np.zeros(n_frames, dtype=bool)
    n_blocks = max(1, min(n_blocks, int(n_frames * fraction)))
    held = max(1, int(n_frames * fraction / n_blocks))
    starts = ((np.arange(n_blocks) + 0.5) / n_blocks * n_frames - held / 2).astype(int)
    mask = np.zeros(n_frames, dtype=bool)
    mask[(starts[:, None] + np.arange(held)).ravel()] = True
    return mask


def first_of_pairs(taken: np.ndarray, segments: tuple[int, ...], lag: int) -> np.ndarray:
    """Numbers of the frames that are taken and have, `lag` frames later in the same segment, one that is too.

    `taken` is a mask (n_frames,), `segments` are the lengths of the pieces that are continuous in time.
    """
    first = lagged(segments, lag)
    return first[taken[first] & taken[first + lag]]

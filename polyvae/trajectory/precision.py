"""Coordinates far from the origin, where single precision keeps too few digits. NumPy only."""

import logging

import numpy as np

log = logging.getLogger(__name__)

LARGEST = 1e15  # of a coordinate; damage alone makes larger ones, and their squares leave single precision
# The spacing of single precision, as a share of a frame's size, up to which coordinates stay where they are, and
# from which they are reported as blurred.
_SHARP, _BLURRED = 1e-4, 1e-2
_BLOCK = 1 << 18  # coordinates treated at once
_SAMPLE = 64  # evenly spaced frames that are looked at


def in_single_precision(positions: np.ndarray) -> np.ndarray:
    """Positions (n_frames, n_beads, n_dims) as float32, with as many digits of each frame's shape as it can hold.

    Frames of a finer type so far from the origin that float32 would blur them have their centre moved there first.
    """
    positions = np.asarray(positions)
    if positions.dtype in (np.float32, np.float16):
        return np.asarray(positions, np.float32)
    result = np.empty(positions.shape, np.float32)
    step = max(1, _BLOCK // max(1, positions[0].size)) if len(positions) else 1
    for start in range(0, len(positions), step):
        part = positions[start : start + step].astype(np.float64, copy=False)
        with np.errstate(all="ignore"):  # frames that are not finite are refused where they are used
            largest, spacing, size = _resolution(part)
            far = (spacing > _SHARP * size) & (size > 0) & (largest < LARGEST)
            if far.any():
                part = np.where(far[:, None, None], part - part.mean(axis=1, keepdims=True), part)
            result[start : start + step] = part
    return result


def warn_of_blur(positions: np.ndarray, where: str) -> bool:
    """Log, and return, whether float32 positions (n_frames, n_beads, n_dims) hold shapes that it blurs.

    Evenly spaced frames are looked at.
    """
    largest, spacing, size = _resolution(positions[:: max(1, len(positions) // _SAMPLE)].astype(np.float64))
    blurred = (spacing > _BLURRED * size) & (size > 0)
    if not blurred.any():
        return False
    k = int(np.argmax(np.where(blurred, spacing / np.where(size > 0, size, 1), 0)))
    log.warning(
        "%s: coordinates reach %.3g, where single precision tells %.2g apart, %.2g %% of a frame's size (%.3g); "
        "centre the molecule in each frame before the file is written, or keep double precision (npz)",
        where,
        largest[k],
        spacing[k],
        100 * spacing[k] / size[k],
        size[k],
    )
    return True


def _resolution(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The largest coordinate of each frame, the spacing of float32 there, and the beads' rms distance from their
    centre; float64."""
    largest = np.maximum(positions.max(axis=(1, 2)), -positions.min(axis=(1, 2)))
    spacing = np.spacing(largest.astype(np.float32)).astype(np.float64)
    return largest, spacing, np.sqrt(positions.var(axis=1).sum(axis=1))

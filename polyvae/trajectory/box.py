"""Vectors of periodic boxes: from lengths and angles and back, and which of them can be used. NumPy only."""

import numpy as np

from polyvae.errors import FrameError, InputError


def box_vectors(lengths: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Box vectors (n, 3, 3), as rows and lower triangular, from lengths (n, 3) and angles (n, 3) in degrees."""
    a, b, c = np.asarray(lengths, np.float64).T
    angles = np.asarray(angles, np.float64)
    cos = np.where(angles == 90, 0.0, np.cos(np.radians(angles)))
    alpha, beta, gamma = cos.T
    sin = np.sqrt(np.clip(1 - gamma**2, 0, None))
    with np.errstate(divide="ignore", invalid="ignore"):
        cx, cy = c * beta, c * (alpha - beta * gamma) / sin
        cz = np.sqrt(c**2 - cx**2 - cy**2)
    box = np.zeros((len(a), 3, 3))
    box[:, 0, 0], box[:, 1, 0], box[:, 1, 1] = a, b * gamma, b * sin
    box[:, 2] = np.stack([cx, cy, cz], axis=1)
    box[~(np.asarray(lengths) != 0).any(axis=1)] = 0  # no box, whatever the angles
    return box.astype(np.float32)


def lengths_and_angles(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths (n, 3) and angles (n, 3) in degrees of box vectors (n, 3, 3)."""
    box = np.asarray(box, np.float64)
    lengths = np.linalg.norm(box, axis=2)
    cos = [
        (box[:, i] * box[:, j]).sum(1) / np.maximum(lengths[:, i] * lengths[:, j], 1e-30)  # a box may be none
        for i, j in ((1, 2), (0, 2), (0, 1))
    ]
    return lengths, np.degrees(np.arccos(np.clip(np.stack(cos, axis=1), -1, 1)))


def usable_box(box: np.ndarray, n_dims: int, frames=None) -> np.ndarray | None:
    """Box vectors (n, n_dims, n_dims) that unwrapping can use; None where no frame has a box.

    One and the same box in all frames is given once, with a stride of 0.

    Raises:
        FrameError: a length that is zero, negative, NaN or infinite; the first such frame is named.
    """
    n = len(box)
    box = box[:1] if (box == box[:1]).all() else box
    box = box[:, :n_dims, :n_dims]
    if not box.any():
        return None
    lengths = np.diagonal(box, axis1=1, axis2=2)
    bad = ~(np.isfinite(box).all(axis=(1, 2)) & (lengths > 0).all(axis=1))
    if bad.any():
        frame = int(np.argmax(bad))
        number = frame if frames is None else frames[frame]
        raise FrameError(
            f"frame {number} has the box lengths {lengths[frame].tolist()}; molecules cannot be made "
            f"whole in it. Mend the box, or read the coordinates as they are (unwrap=False, --no-unwrap)",
            number,
        )
    upper = np.triu(box, 1)
    if upper.any() and (np.abs(upper).max(axis=(1, 2)) > 1e-5 * lengths.max(axis=1)).any():
        raise InputError(
            "the box vectors are not lower triangular (first along x, second in the xy plane); turn box and "
            "coordinates into that form, or read the coordinates as they are (unwrap=False, --no-unwrap)"
        )
    return np.broadcast_to(box, (n, n_dims, n_dims)) if len(box) == 1 else box

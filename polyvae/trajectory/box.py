"""Vectors of periodic boxes: from lengths and angles and back, and which of them can be used. NumPy only."""

import numpy as np

from polyvae.errors import FrameError


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


def usable_box(
    box: np.ndarray, n_dims: int, frames=None, periodic: tuple[bool, ...] = (True, True, True)
) -> np.ndarray | None:
    """Box vectors (n, n_dims, n_dims) that unwrapping can use; None where no frame has a box.

    One and the same box in all frames is given once, with a stride of 0. A vector along which the box is not
    periodic may be anything; another that is zero, not finite, or in the plane of the others, raises `FrameError`.
    """
    n = len(box)
    box = box[:1] if (box == box[:1]).all() else box
    box = box[:, :n_dims, :n_dims]
    axes = np.flatnonzero(periodic[:n_dims])
    if not box[:, axes].any():
        return None
    lengths = np.diagonal(box, axis1=1, axis2=2)
    good = np.isfinite(box[:, axes]).all(axis=(1, 2))
    if is_lower(box):
        good &= (lengths[:, axes] > 0).all(axis=1)
    else:
        good &= np.isfinite(box).all(axis=(1, 2))
        good[good] &= np.linalg.det(_filled(box[good])) != 0
    if not good.all():
        frame = int(np.argmin(good))
        number = frame if frames is None else frames[frame]
        what = f"lengths {lengths[frame].tolist()}" if is_lower(box) else f"vectors {box[frame].tolist()}"
        raise FrameError(
            f"frame {number} has the box {what}; molecules cannot be made "
            f"whole in it. Mend the box, or read the coordinates as they are (unwrap=False, --no-unwrap)",
            number,
        )
    return np.broadcast_to(box, (n, n_dims, n_dims)) if len(box) == 1 else box


def is_lower(box: np.ndarray) -> bool:
    """Whether all box vectors (n, d, d) are lower triangular: the first along x, the second in the xy plane."""
    size = np.abs(np.nan_to_num(box, posinf=0, neginf=0))
    return bool((np.triu(size, 1).max(axis=(1, 2)) <= 1e-5 * size.max(axis=(1, 2))).all())


def lower_triangular(box: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Boxes (n, d, d) turned so that they are lower triangular, and the rotations; None for boxes that are.

    A row vector in the box's frame times the rotation (n, d, d) is that vector in the turned frame.
    """
    if is_lower(box):
        return box, None
    # box.T = q r, so that box q = r.T is lower triangular; signs make its diagonal positive.
    q, r = np.linalg.qr(np.swapaxes(_filled(box), 1, 2))
    signs = np.where(np.diagonal(r, axis1=1, axis2=2) < 0, -1.0, 1.0)
    q = q * signs[:, None, :]
    return box @ q, q


def _filled(box: np.ndarray) -> np.ndarray:
    """Boxes whose zero vectors, of directions that are not periodic, are unit vectors normal to the others."""
    box = np.array(box, np.float64)
    for cell in box:
        for k in np.flatnonzero(~cell.any(axis=1)):
            normal = np.linalg.svd(cell)[2][-1]
            cell[k] = normal
            cell[k] *= np.sign(np.linalg.det(cell)) or 1.0
    return box

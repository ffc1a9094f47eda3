"""Boxes of an MDAnalysis reader, and the facts that it has lost of them. NumPy only."""

import re

import numpy as np

from polyvae.errors import InputError
from polyvae.trajectory.box import box_vectors

# MDAnalysis keeps lengths and angles alone; in these formats the vectors may have any orientation.
_ORIENTED = ("DCD", "H5MD")
_FLAGS = re.compile(r"ITEM: BOX BOUNDS.*?((?:\s[pfsm]{2}){3})\s*$", re.MULTILINE)
_HEAD = 4096  # characters of a dump that hold its first header


def boxes_of(dimensions: np.ndarray, reader, unwrap: bool) -> np.ndarray | None:
    """Box vectors (n, 3, 3) from lengths and angles (n, 6) of an MDAnalysis reader; None without any.

    `InputError` for an oblique box that is to be unwrapped, if the reader has lost its orientation.
    """
    dimensions = np.asarray(dimensions, np.float64)
    lengths, angles = dimensions[:, :3], dimensions[:, 3:]
    if not lengths.any():
        return None
    formats = formats_of(reader)
    if "GSD" in formats:
        # The reader takes the tilts for cosines of the angles.
        return _of_tilts(lengths, np.cos(np.radians(angles)))
    oblique = (np.abs(angles[lengths.any(axis=1)] - 90) > 1e-3).any()
    lost = formats & set(_ORIENTED)
    if unwrap and oblique and lost:
        raise InputError(
            f"MDAnalysis keeps lengths and angles of a box, and has lost the orientation that {lost.pop()} "
            f"states, so that molecules cannot be made whole; read the file with pv.read, or use unwrap=False"
        )
    return box_vectors(lengths, angles)


def _of_tilts(lengths: np.ndarray, tilts: np.ndarray) -> np.ndarray:
    """Box vectors from lengths (n, 3) and HOOMD's tilts xy, xz, yz (n, 3), fractions of the lengths."""
    box = np.zeros((len(lengths), 3, 3), np.float32)
    box[:, range(3), range(3)] = lengths
    xy, xz, yz = tilts.T
    box[:, 1, 0], box[:, 2, 0], box[:, 2, 1] = xy * lengths[:, 1], xz * lengths[:, 2], yz * lengths[:, 2]
    return box


def periodic_of(reader) -> tuple[bool, bool, bool] | None:
    """Along which box vectors the run is periodic, where its file says so: a dump of LAMMPS, in its header."""
    found = set()
    for one in getattr(reader, "readers", [reader]):
        if one.format != "LAMMPSDUMP" or not isinstance(one.filename, str):
            return None
        try:
            with open(one.filename, encoding="latin1") as file:
                head = file.read(_HEAD)
        except OSError:
            return None
        flags = _FLAGS.search(head)
        if flags is None:
            return None
        found.add(tuple("p" in flag for flag in flags[1].split()))
    if len(found) > 1:
        raise InputError("the files of the universe state different periodic directions; read them one by one")
    a, b, c = found.pop()
    return a, b, c


def formats_of(reader) -> set[str]:
    """The formats of an MDAnalysis reader's files."""
    return {str(getattr(one, "format", "")) for one in getattr(reader, "readers", [reader])}

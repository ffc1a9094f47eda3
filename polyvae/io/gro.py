"""GRO of one or many frames: columns of fixed width, which may run together.

Read here because MDAnalysis reads the first frame alone, and mdtraj gives up on times and coordinates below zero
that fill their columns. Format: https://manual.gromacs.org/current/reference-manual/file-formats.html#gro.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from polyvae.errors import InputError
from polyvae.io.formats import UNPACKING_ERRORS, opened
from polyvae.io.frames import DamagedError, Frames, TrajectoryFile, part_of
from polyvae.trajectory.facts import OF_ATOMS, stated_if

_TIME = re.compile(rb"\bt=\s*([-+]?\d[\d.eE+-]*)")
_COLUMNS = 20  # characters of residue, name and number, before the coordinates
# Places of the nine numbers of a box line in the matrix of box vectors.
_PLACES = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1))


class _Frame(NamedTuple):
    """Where the lines of a frame's atoms are, in bytes; its time; its box line."""

    begin: int
    end: int
    n_atoms: int
    time: float
    box: bytes


class GroFile(TrajectoryFile):
    """A GRO file, plain or packed; see `frames.TrajectoryFile`."""

    # Names and residues are read with the topology, which a GRO is as well.
    NO_PLACE_FOR = OF_ATOMS
    usual_unit = "nm"

    def __init__(self, path: Path):
        self.path = path
        self._index, self.is_cut = _index(path)
        if not self._index:
            raise DamagedError(path, 0)
        self.n_frames, self.n_atoms = len(self._index), self._index[0].n_atoms
        self._boxes = np.array([_box(frame.box, path, k) for k, frame in enumerate(self._index)])
        times = stated_if(self.clock() is not None)
        self.state(time=times, time_unit="ps", box=stated_if(self._boxes.any()))

    def read(self, start: int, stop: int) -> Frames:
        positions = np.empty((stop - start, self.n_atoms, 3))
        for k, frame in enumerate(self._index[start:stop], start):
            self.check_count(k, frame.n_atoms)
            positions[k - start] = self._coordinates(self.bytes_between(frame.begin, frame.end), k)
        boxes = self._boxes if self.facts.stated("box") else None
        return Frames(positions, part_of(self.clock(), start, stop), part_of(boxes, start, stop))

    def _coordinates(self, text: bytes, frame: int) -> np.ndarray:
        """Positions (n_atoms, 3) in the lines of atoms; two decimal points are the width of a column apart."""
        lines = [line[_COLUMNS:] for line in text.splitlines()]
        points = [k for k, letter in enumerate(lines[0]) if letter == ord(".")]
        try:
            width = points[1] - points[0]
            columns = b"".join(line[: 3 * width].ljust(3 * width) for line in lines)
            return np.frombuffer(columns, f"S{width}").astype(np.float64).reshape(self.n_atoms, 3)
        except (IndexError, ValueError):
            raise InputError(
                f"{self.path}: frame {frame} has lines without three coordinates in columns of one width"
            ) from None

    def clock(self) -> np.ndarray | None:
        times = np.array([frame.time for frame in self._index])
        return None if np.isnan(times).any() else times


def _index(path: Path) -> tuple[list[_Frame], bool]:
    """Whole frames, and whether something else comes after them."""
    frames: list[_Frame] = []
    at = 0
    try:
        with opened(path) as file:
            while title := file.readline():
                count = file.readline()
                at += len(title) + len(count)
                if not title.strip() and not count.strip():
                    continue
                try:
                    n_atoms = int(count)
                except ValueError:
                    n_atoms = 0
                if n_atoms < 1:
                    if frames:
                        return frames, True
                    raise InputError(f"{path} is not a GRO file (its second line is not the number of atoms)")
                begin, size = at, 0
                for _ in range(n_atoms):
                    if not (line := file.readline()):
                        return frames, True
                    size += len(line)
                box = file.readline()
                at += size + len(box)
                if len(box.split()) not in (3, 9):
                    return frames, True
                found = _TIME.search(title)
                frames.append(_Frame(begin, begin + size, n_atoms, float(found[1]) if found else np.nan, box))
    except (*UNPACKING_ERRORS, ValueError):
        return frames, True
    return frames, False


def _box(line: bytes, path: Path, frame: int) -> np.ndarray:
    """Box vectors (3, 3), as rows, of a box line of three or nine numbers."""
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        raise InputError(
            f"{path}: the box line of frame {frame} holds other things than numbers; mend it"
        ) from None
    box = np.zeros((3, 3), np.float32)
    for place, number in zip(_PLACES, numbers, strict=False):
        box[place] = number
    return box

"""TRR: big-endian headers and bare numbers. MDAnalysis gives up on frames that hold velocities alone, and its
decoder ends the process on a damaged header.

Format: GROMACS, `xdrfile_trr.c` of its library xdrfile.
"""

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from polyvae.io.frames import DamagedError, Frames, TrajectoryFile, log
from polyvae.trajectory.facts import IN_FRAMES, OF_ATOMS, stated_if

_HEADER = struct.Struct(">3i12s13i")  # up to the time
_MAGIC, _NAME = 1993, 12  # and the length of the version's name
# Bytes of what a frame may hold, in this order; of the others none are ever written.
_PARTS = ("ir", "e", "box", "vir", "pres", "top", "sym", "x", "v", "f")


class _Frame(NamedTuple):
    """A frame: where its box and its positions are, 0 where it has none; bytes of a number; time; end."""

    n_atoms: int
    box: int
    positions: int
    real: int
    time: float
    end: int


class TrrFile(TrajectoryFile):
    """A TRR file of GROMACS; see `frames.TrajectoryFile`. Frames without positions are passed over."""

    NO_PLACE_FOR = OF_ATOMS
    usual_unit, seeks = "nm", True

    def __init__(self, path: Path):
        self.path = path
        everything, self.is_cut = _scan(path)
        self._frames = [frame for frame in everything if frame.positions]
        self.n_frames = len(self._frames)
        if not self.n_frames:
            raise DamagedError(path, 0)
        self.n_atoms = self._frames[0].n_atoms
        if without := len(everything) - self.n_frames:
            log.info("%s: %d of %d frames hold no positions and are passed over", path, without, len(everything))
        boxed = bool(self._numbers("box", 0, self.n_frames, 9).any())
        self.state(time=IN_FRAMES, time_unit="ps", box=stated_if(boxed))

    def read(self, start: int, stop: int) -> Frames:
        positions = self._numbers("positions", start, stop, 3 * self.n_atoms).reshape(-1, self.n_atoms, 3)
        box = None
        if self.facts.stated("box"):
            box = self._numbers("box", start, stop, 9).reshape(-1, 3, 3)
        return Frames(positions, self.clock()[start:stop], box)

    def _numbers(self, part: str, start: int, stop: int, count: int) -> np.ndarray:
        """The numbers of a part of some frames, (n, count) float32; zeros where a frame has none."""
        found = np.zeros((stop - start, count), np.float32)
        with self.path.open("rb") as file:
            for row, frame in zip(found, self._frames[start:stop], strict=True):
                if at := getattr(frame, part):
                    file.seek(at)
                    row[:] = np.frombuffer(file.read(count * frame.real), f">f{frame.real}")
        return found

    def clock(self) -> np.ndarray:
        return np.array([frame.time for frame in self._frames])


def _scan(path: Path) -> tuple[list[_Frame], bool]:
    """Whole frames of the same atoms, and whether something else comes after them."""
    frames: list[_Frame] = []
    size, at = path.stat().st_size, 0
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            frame = _frame(file.read(_HEADER.size + 16), at)
            if frame is None or frame.end > size or (frames and frame.n_atoms != frames[0].n_atoms):
                return frames, True
            frames.append(frame)
            at = frame.end
    return frames, False


def _frame(head: bytes, at: int) -> _Frame | None:
    """The frame that begins with a header at a place in the file; None where this is no header."""
    if len(head) < _HEADER.size + 8:
        return None
    magic, _, length, _, *numbers = _HEADER.unpack_from(head)
    sizes, n_atoms = dict(zip(_PARTS, numbers, strict=False)), numbers[len(_PARTS)]
    if magic != _MAGIC or length != _NAME or n_atoms < 1:
        return None
    counts = {"box": 9, "vir": 9, "pres": 9} | dict.fromkeys("xvf", 3 * n_atoms)
    real = next((sizes[name] // count for name, count in counts.items() if sizes[name]), 4)
    good = all(size in (0, real * counts.get(name, 0)) for name, size in sizes.items())
    if real not in (4, 8) or not good or len(head) < _HEADER.size + 2 * real:
        return None
    (time,) = struct.unpack_from(">f" if real == 4 else ">d", head, _HEADER.size)
    box = at + _HEADER.size + 2 * real
    positions = box + sum(sizes[name] for name in ("box", "vir", "pres"))
    end = positions + sum(sizes[name] for name in "xvf")
    return _Frame(n_atoms, box if sizes["box"] else 0, positions if sizes["x"] else 0, real, time, end)

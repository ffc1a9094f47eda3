"""DCD: frames of one fixed size, hence a structured array; each is checked by its record markers.

Read by NumPy because it takes a tenth of the time of mdtraj's and MDAnalysis' frame loops, and because
neither names the frame of a damaged file, nor reads the cells of CHARMM in their own orientation.
"""

import struct
from pathlib import Path

import numpy as np

from polyvae.errors import InputError
from polyvae.io.frames import BLOCK_BYTES, DamagedError, Frames, TrajectoryFile, log, part_of
from polyvae.trajectory.box import box_vectors
from polyvae.trajectory.facts import OF_ATOMS, stated_if

_SHAPE_MATRIX = 25  # CHARMM's version in the header from which on a cell is a symmetric matrix

_SMALLEST_FS = 0.05  # a step of LAMMPS from which on it is one in fs: no step is as long as 50 fs


class DcdFile(TrajectoryFile):
    """A CHARMM, NAMD, LAMMPS or X-PLOR DCD file; see `frames.TrajectoryFile`.

    Record markers of 4 and 8 bytes, both byte orders, and fixed atoms, which only the first frame holds, are read.
    """

    NO_PLACE_FOR = OF_ATOMS
    usual_unit, seeks = "angstrom", True

    def __init__(self, path: Path):
        self.path = path
        stated_frames = self._read_header()
        rest = path.stat().st_size - self._first - self._whole.itemsize
        self.n_frames, over = divmod(rest, self._later.itemsize)
        self.n_frames += 1
        self.is_cut = over > 0
        if rest < 0:
            raise DamagedError(path, 0)
        if self.n_frames < stated_frames and not self.is_cut:
            text = "%s: its header states %d frames, but it holds %d, as a stopped run leaves it; all are taken"
            log.warning(text, path, stated_frames, self.n_frames)
        times = self.clock()
        unit = stated_if(times is not None, self._time_unit())
        self.state(time=stated_if(times is not None), time_unit=unit, box=stated_if(self._has_cell))

    def _time_unit(self) -> str:
        """CHARMM's unit, or that of LAMMPS, which writes its time step as it is and not in which unit.

        Lengths in Å belong to the styles real (steps of about 1 fs) and metal (of about 0.001 ps). In reduced
        units the number is taken as it is.
        """
        if b"LAMMPS" not in self._title:
            return "akma"
        unit = "fs" if self._delta >= _SMALLEST_FS else "ps"
        log.info(
            "%s: written by LAMMPS, which does not state the unit of its time step of %g; taken for %s unless "
            "lengths are in reduced units; otherwise give the time between frames (--dt, dt=)",
            self.path,
            self._delta,
            unit,
        )
        return unit

    def _read_header(self) -> int:
        """Read the block of integers, the title and the atom count; return the frame count that is stated."""
        path = self.path
        with path.open("rb") as file:
            head = file.read(16)
            self._order, self._marker = _layout(head, path)
            file.seek(0)
            try:
                block = self._record(file)
                self._title = self._record(file)
                (n_atoms,) = struct.unpack(f"{self._order}i", self._record(file))
                integers = struct.unpack_from(f"{self._order}20i", block, 4)
                n_fixed = integers[8]
                free = self._record(file) if n_fixed else b""
            except struct.error:
                raise InputError(f"{path} is a DCD file that is cut off in its header; copy it again") from None
            self._first = file.tell()
        # X-PLOR's variant has neither cell nor fourth dimension; its time step is a double over both.
        version = integers[19]
        self._delta = struct.unpack_from(f"{self._order}{'f' if version else 'd'}", block, 4 + 36)[0]
        if n_atoms < 1 or n_fixed < 0 or n_fixed >= n_atoms > 1 or 4 * n_atoms > path.stat().st_size:
            raise InputError(f"{path} is a DCD file of {n_atoms} atoms, {n_fixed} of them fixed; copy it again")
        self.n_atoms, self._first_step, self._stride = n_atoms, integers[1], integers[2]
        self._free = np.frombuffer(free, f"{self._order}i4").astype(int) - 1
        if n_fixed and (
            len(self._free) != n_atoms - n_fixed or not (self._free >= 0).all() or self._free.max() >= n_atoms
        ):
            raise InputError(f"{path} is a DCD file whose list of free atoms is damaged; copy it again")
        self._is_matrix = version >= _SHAPE_MATRIX
        self._has_cell = bool(version and integers[10])
        parts = {"cell": self._has_cell, "w": bool(version and integers[11])}
        self._whole = self._frame(n_atoms, **parts)
        self._later = self._frame(n_atoms - n_fixed, **parts)
        return integers[0]

    def _record(self, file) -> bytes:
        """A record between its markers."""
        marker = struct.Struct(f"{self._order}{'i' if self._marker == 4 else 'q'}")
        (size,) = marker.unpack(file.read(marker.size))
        if not 0 <= size <= self.path.stat().st_size:
            raise struct.error("a record beyond the end of the file")
        data = file.read(size)
        if len(data) < size or marker.unpack(file.read(marker.size))[0] != size:
            raise struct.error("a record that is cut off")
        return data

    def _frame(self, n_atoms: int, *, cell: bool, w: bool) -> np.dtype:
        """The layout of a frame of `n_atoms` atoms."""
        marker = f"{self._order}i{self._marker}"
        columns = [("cell", f"{self._order}f8", (6,))] if cell else []
        columns += [(axis, f"{self._order}f4", (n_atoms,)) for axis in ("xyzw" if w else "xyz")]
        fields: list = []
        for name, kind, shape in columns:
            fields += [(f"before_{name}", marker), (name, kind, shape), (f"after_{name}", marker)]
        return np.dtype(fields)

    def read(self, start: int, stop: int) -> Frames:
        positions = np.empty((stop - start, self.n_atoms, 3), np.float32)
        cells = []
        for first, raw in self._raw(start, stop):
            rows = slice(first - start, first - start + len(raw))
            if raw["x"].shape[1] < self.n_atoms:
                positions[rows] = self._first_positions
            for k, axis in enumerate("xyz"):
                if raw[axis].shape[1] < self.n_atoms:
                    positions[rows, self._free, k] = raw[axis]
                else:
                    positions[rows, :, k] = raw[axis]
            if self._has_cell:
                cells.append(raw["cell"].astype(np.float64))
        box = _box(np.concatenate(cells), self._is_matrix) if cells else None
        return Frames(positions, part_of(self.clock(), start, stop), box)

    def _raw(self, start: int, stop: int):
        """Frames as they are in the file, in blocks that fit the cache, with the number of the first of each."""
        if len(self._free):
            raw = self._checked(self._whole, 0, 1)
            self._first_positions = np.stack([raw[axis][0] for axis in "xyz"], axis=1)
            if start == 0:
                yield 0, raw
                start = 1
        block = max(1, BLOCK_BYTES // self._later.itemsize)
        for first in range(start, stop, block):
            yield first, self._checked(self._later, first, min(block, stop - first))

    def _checked(self, layout: np.dtype, first: int, count: int) -> np.ndarray:
        """Frames whose record markers are right."""
        offset = self._first + (self._whole.itemsize + (first - 1) * self._later.itemsize if first else 0)
        raw = np.fromfile(self.path, layout, count, offset=offset)
        sound = np.ones(len(raw), bool)
        assert layout.names is not None
        for name in layout.names:
            if name.startswith(("before_", "after_")):
                sound &= raw[name] == layout[name.partition("_")[2]].itemsize
        if not sound.all():
            raise DamagedError(self.path, first + int(np.argmin(sound)))
        if len(raw) < count:
            raise DamagedError(self.path, first + len(raw))
        return raw

    def clock(self) -> np.ndarray | None:
        """Times of all frames, or None where the header holds no real time step.

        A step of exactly 1 at stride 1 is put there by writers that know none.
        """
        if not 0 < self._delta < np.inf or self._stride <= 0 or (self._delta == 1 and self._stride == 1):
            return None
        return (self._first_step + self._stride * np.arange(self.n_frames)) * self._delta


def _layout(head: bytes, path: Path) -> tuple[str, int]:
    """Byte order and size of the record markers of a DCD file, from its first bytes."""
    for order in "<>":
        if head[:8] == struct.pack(f"{order}i4s", 84, b"CORD"):
            return order, 4
        if head[:12] == struct.pack(f"{order}q4s", 84, b"CORD"):
            return order, 8
    raise InputError(f"{path} is not a DCD file (it does not begin with a CORD header)")


def _box(cell: np.ndarray, is_matrix: bool) -> np.ndarray:
    """Box vectors (n, 3, 3) from the six numbers of each cell.

    CHARMM writes the lower triangle of a symmetric matrix whose rows are the box vectors. All others write
    A, gamma, B, beta, alpha, C; NAMD has cosines in place of angles.
    """
    n = len(cell)
    cell = cell[:1] if (cell == cell[0]).all() else cell
    right_angles = (cell[:, [1, 3, 4]] == 90).all()  # of a writer that is not CHARMM
    if is_matrix and not right_angles:
        matrix = np.empty((len(cell), 3, 3))
        for k, (i, j) in enumerate(((0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2))):
            matrix[:, i, j] = matrix[:, j, i] = cell[:, k]
        if _are_cells(matrix):
            return np.broadcast_to(matrix.astype(np.float32), (n, 3, 3))
    lengths, angles = cell[:, [0, 2, 5]], cell[:, [4, 3, 1]]
    cosines = (np.abs(angles) <= 1).all(axis=1, keepdims=True)
    angles = np.where(cosines, np.degrees(np.arccos(np.clip(angles, -1, 1))), angles)
    angles = np.where(np.abs(angles - 90) < 1e-9, 90.0, angles)
    return np.broadcast_to(box_vectors(lengths, angles), (n, 3, 3))


def _are_cells(matrix: np.ndarray) -> bool:
    """Whether symmetric matrices (n, 3, 3) have positive eigenvalues, as those of cells do, or are zero."""
    some = matrix[matrix.any(axis=(1, 2))]
    return bool(np.isfinite(some).all()) and bool((np.linalg.eigvalsh(some) > 0).all())

"""DCD: frames of one fixed size, hence a structured array; each is checked by its record markers.

Read by NumPy because it takes a tenth of the time of mdtraj's and MDAnalysis' frame loops, and because
neither names the frame of a damaged file.
"""

import os
import struct
from pathlib import Path

import numpy as np

from polyvae.errors import InputError
from polyvae.io.frames import BLOCK_BYTES, DamagedError, Frames, log
from polyvae.trajectory.box import box_vectors

AKMA_PS = 0.04888821  # the time unit of CHARMM's DCD header


class DcdFile:
    """A CHARMM, NAMD, LAMMPS or X-PLOR DCD file; see `frames.TrajectoryFile`."""

    stated_unit: str | None = None
    usual_unit, always_3d, akma_time, unwrapped, seeks = "angstrom", True, True, False, True

    def __init__(self, path: Path):
        self.path = path
        self.extras: dict[str, np.ndarray] = {}
        stated_frames = self._read_header()
        self.n_frames, rest = divmod(path.stat().st_size - self._first, self._frame.itemsize)
        self.is_cut = rest > 0
        if self.n_frames == 0:
            raise DamagedError(path, 0)
        if self.n_frames < stated_frames and not self.is_cut:
            log.warning(
                "%s: its header says %d frames, but it holds %d, as a stopped run leaves it; all are taken",
                path,
                stated_frames,
                self.n_frames,
            )

    def _read_header(self) -> int:
        """84-byte block, title block, atom count; gives the frame count that the file states."""
        path = self.path
        with path.open("rb") as file:
            block = file.read(92)
            for order in "<>":
                if len(block) == 92 and struct.unpack_from(f"{order}i4s", block) == (84, b"CORD"):
                    break
            else:
                raise InputError(f"{path} is not a DCD file (it does not begin with a CORD header)")
            integers = struct.unpack_from(f"{order}20i", block, 8)
            # X-PLOR's variant has neither cell nor fourth dimension; its time step is a double over both.
            charmm = bool(integers[19])
            self._delta = struct.unpack_from(f"{order}f" if charmm else f"{order}d", block, 8 + 36)[0]
            try:
                (title,) = struct.unpack(f"{order}i", file.read(4))
                file.seek(title + 4, os.SEEK_CUR)
                _, n_atoms, _ = struct.unpack(f"{order}3i", file.read(12))
            except struct.error:
                raise InputError(f"{path} is a DCD file that is cut off in its header; copy it again") from None
            self._first = file.tell()
        fixed, cell, four_dims = integers[8], charmm and integers[10], charmm and integers[11]
        if fixed:
            raise InputError(f"{path} keeps {fixed} fixed atoms in its first frame only, which is not read here")
        if n_atoms < 1:
            raise InputError(f"{path} is a DCD file of {n_atoms} atoms; copy it again")
        self.n_atoms, self._first_step, self._stride = n_atoms, integers[1], integers[2]
        marker, fields = f"{order}i4", []
        if cell:
            fields += [("before_cell", marker), ("cell", f"{order}f8", (6,)), ("after_cell", marker)]
        for axis in "xyz" + ("w" if four_dims else ""):
            fields += [(f"before_{axis}", marker), (axis, f"{order}f4", (n_atoms,)), (f"after_{axis}", marker)]
        self._frame = np.dtype(fields)
        return integers[0]

    def read(self, start: int, stop: int) -> Frames:
        assert self._frame.names is not None
        positions = np.empty((stop - start, self.n_atoms, 3), np.float32)
        cell = np.empty((stop - start, 6)) if "cell" in self._frame.names else None
        block = max(1, BLOCK_BYTES // self._frame.itemsize)
        for first in range(start, stop, block):
            count = min(block, stop - first)
            raw = np.fromfile(self.path, self._frame, count, offset=self._first + first * self._frame.itemsize)
            sound = np.ones(count, bool)
            for name in self._frame.names:
                if name.startswith(("before_", "after_")):
                    size = 48 if name.endswith("cell") else 4 * self.n_atoms
                    sound[: len(raw)] &= raw[name] == size
            if len(raw) < count or not sound.all():
                raise DamagedError(self.path, first + (int(np.argmin(sound)) if not sound.all() else len(raw)))
            rows = slice(first - start, first - start + count)
            for k, axis in enumerate("xyz"):
                positions[rows, :, k] = raw[axis]
            if cell is not None:
                cell[rows] = raw["cell"]
        box = None if cell is None else _box(cell)
        return Frames(positions, self._times(start, stop), box)

    def close(self) -> None:
        pass

    def _times(self, start: int, stop: int) -> np.ndarray | None:
        """Times in the engine's own unit, or None where the header holds no real time step.

        A step of exactly 1 at stride 1 is what writers put that know none.
        """
        if self._delta <= 0 or self._stride <= 0 or (self._delta == 1 and self._stride == 1):
            return None
        return (self._first_step + self._stride * np.arange(start, stop)) * self._delta


def _box(cell: np.ndarray) -> np.ndarray:
    """Box vectors from A, gamma, B, beta, alpha, C; CHARMM and NAMD write cosines in place of angles."""
    n = len(cell)
    cell = cell[:1] if (cell == cell[0]).all() else cell
    lengths, angles = cell[:, [0, 2, 5]], cell[:, [4, 3, 1]]
    cosines = (np.abs(angles) <= 1).all(axis=1, keepdims=True)
    angles = np.where(cosines, np.degrees(np.arccos(np.clip(angles, -1, 1))), angles)
    angles = np.where(np.abs(angles - 90) < 1e-9, 90.0, angles)
    return np.broadcast_to(box_vectors(lengths, angles), (n, 3, 3))

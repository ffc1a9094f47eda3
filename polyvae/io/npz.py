"""npz: arrays in a zip file, read piece by piece."""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.core.units import LENGTH_UNITS
from polyvae.errors import InputError
from polyvae.io.archives import arrays_of, check_sizes, stated_header
from polyvae.io.frames import Frames, TrajectoryFile, reading
from polyvae.trajectory.facts import NOT_STATED, stated_array, stated_if

_PER_FRAME = {"time": (), "box": (3, 3), "weights": (), "origin": (2,)}  # shape of each frame's
_EXTRAS = ("masses", "bonds", "names", "segments", "ids", "periodic")


class NpzFile(TrajectoryFile):
    """Positions (n_frames, n_beads, 2 or 3) in an npz; see `frames.TrajectoryFile`."""

    NO_PLACE_FOR = ("images", "charges", "types", "chains", "residues")
    usual_unit, always_3d = "sigma", False

    def __init__(self, path: Path):
        self.path = path
        known = arrays_of(path, (*_EXTRAS, "length_unit"))
        self.stated_unit = str(known.pop("length_unit")) if "length_unit" in known else None
        self.extras = known
        with reading(path, "npz"):
            names = check_sizes(path)
            found = names if len(names) == 1 else [name for name in ("arr", "positions") if name in names]
            if len(found) == 1:
                self._columns = {name: _Column(path, name) for name in (found[0], *_PER_FRAME) if name in names}
        if len(found) != 1:
            raise InputError(
                f'{path} holds the arrays {", ".join(names) or "(none)"}; name the positions "arr" or "positions"'
            )
        self._name = found[0]
        self._check()
        self._state()

    def _state(self) -> None:
        periodic = self.extras.get("periodic")
        if periodic is not None and periodic.shape != (3,):
            raise InputError(
                f"{self.path}: periodic needs three bools, one for each box vector; got {periodic.shape}"
            )
        there, arrays = self.columns, ("ids", "masses", "names", "bonds", "segments")
        self.state(
            length_unit=self.stated_unit or NOT_STATED,
            time=stated_if("time" in there),
            time_unit="ps",  # by the definition of this format; the engine's own in reduced units
            box=stated_if("box" in there),
            periodic=NOT_STATED if periodic is None else tuple(map(bool, periodic)),
            weights=stated_if("weights" in there),
            **{name: stated_array(self.extras.get(name)) for name in arrays},
        )

    def _check(self) -> None:
        path = self.path
        shape = self._columns[self._name].shape
        if len(shape) != 3 or shape[2] not in (2, 3):
            raise InputError(
                f"{path}: array {self._name!r} has shape {shape}; "
                f"positions need (n_frames, n_beads, 2 or 3). Reshape it and save it again"
            )
        kind: str = self._columns[self._name].dtype.kind
        if kind not in "fiu" or shape[1] == 0:
            raise InputError(f"{path}: positions must be real numbers of at least one bead; got {kind!r} {shape}")
        if self.stated_unit is not None and self.stated_unit not in LENGTH_UNITS:
            raise InputError(f"{path}: length_unit must be {', '.join(LENGTH_UNITS)}; got {self.stated_unit!r}")
        self.n_frames, self.n_atoms = shape[:2]
        for name, inner in _PER_FRAME.items():
            column = self._columns.get(name)
            if column is None or name == self._name:
                continue
            if column.shape != (self.n_frames, *inner):
                raise InputError(
                    f"{path}: array {name!r} needs one entry a frame, shape {(self.n_frames, *inner)}; got shape "
                    f"{column.shape}. Save it again in that shape, or leave it out"
                )
            if column.dtype.kind not in ("iu" if name == "origin" else "fiu"):
                kind = "whole" if name == "origin" else "real"
                raise InputError(f"{path}: array {name!r} must hold {kind} numbers; got {column.dtype}")
        segments = self.extras.get("segments")
        if segments is None:
            return
        if segments.ndim != 1 or segments.dtype.kind not in "iu":
            raise InputError(
                f"{path}: segments must be whole numbers, one a piece; got {segments.dtype} {segments.shape}"
            )
        if segments.sum() != self.n_frames or (segments < 1).any():
            listed = ", ".join(map(str, segments[:8])) + (", ..." if len(segments) > 8 else "")
            raise InputError(
                f"{path}: segments must be lengths of at least 1 that add up to the {self.n_frames} frames; "
                f"got {listed or 'none'}, in all {segments.sum()}. Mend them, or leave them out"
            )

    columns = property(lambda self: set(self._columns) - {self._name}, doc="Names of the other arrays.")

    def read(self, start: int, stop: int) -> Frames:
        with reading(self.path, "npz"):
            arrays = {name: column.read(start, stop) for name, column in self._columns.items()}
        return Frames(arrays.pop(self._name), **arrays)

    def clock(self) -> np.ndarray | None:
        if "time" not in self.columns:
            return None
        try:
            with reading(self.path, "npz"):
                return self._columns["time"].read(0, self.n_frames)
        finally:
            self.close()

    def close(self) -> None:
        for column in self._columns.values():
            column.close()


class _Column:
    """One array of a zip file, read along its first axis; backwards it is unpacked from the begin."""

    def __init__(self, path: Path, name: str):
        self.path, self.name, self._whole = path, name, None
        self._file: Any = None
        try:
            self._open()
        finally:
            self.close()
        if self._fortran or not self.shape:  # frames do not follow one another in the file
            self._whole = arrays_of(path, (name,))[name]

    def _open(self) -> None:
        self.close()
        self._zip = zipfile.ZipFile(self.path)
        self._file = self._zip.open(f"{self.name}.npy")
        self.shape, self._fortran, self.dtype = stated_header(self._file, self.name)
        self._row = self.dtype.itemsize * math.prod(self.shape[1:])
        self._begin = self._file.tell()

    def read(self, start: int, stop: int) -> np.ndarray:
        if self._whole is not None:
            return self._whole[start:stop]
        if self._file is None:
            self._open()
        buffer = bytearray((stop - start) * self._row)
        self._file.seek(self._begin + start * self._row)
        if self._file.readinto(buffer) < len(buffer):
            raise ValueError(f"array {self.name!r} ends early")
        return np.frombuffer(buffer, self.dtype).reshape(stop - start, *self.shape[1:])

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._zip.close()
            self._file = None

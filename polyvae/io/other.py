"""The formats without a reader of their own here, by MDAnalysis."""

import contextlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.core.units import length_of
from polyvae.errors import InputError
from polyvae.io.formats import Unpacked, check_installed, is_packed
from polyvae.io.frames import DamagedError, Frames, TrajectoryFile, part_of, short
from polyvae.io.heads import head_of
from polyvae.trajectory.box import box_vectors
from polyvae.trajectory.convert import time_of
from polyvae.trajectory.facts import NOT_STATED, stated_array, stated_if


class UniverseFile(TrajectoryFile):
    """Any trajectory that MDAnalysis reads, frame by frame; see `frames.TrajectoryFile`.

    Args:
        name: MDAnalysis' name of the format; "" where that is not known.
        n_atoms: atoms in a frame, which some formats do not state.
        length_unit: of the numbers in the file, where the caller knows it.
    """

    NO_PLACE_FOR = (
        "ids", "images", "masses", "charges", "types", "names", "chains", "residues", "bonds",
        "weights", "segments",
    )  # fmt: skip

    def __init__(self, path: Path, name: str, n_atoms: int | None = None, length_unit: str | None = None):
        self.path = path
        check_installed(path, name)
        # MDAnalysis unpacks gzip and bzip2 in some of its readers, and xz in none.
        self._unpacked = Unpacked(path)
        check_pdb(self._unpacked.path, name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about time steps and boxes that the file does not hold
                known: dict[str, Any] = {} if n_atoms is None else {"n_atoms": n_atoms}
                self._reader = reader_of(self._unpacked.path, name, convert_units=False, **known)
                self.n_frames, self.n_atoms = int(self._reader.n_frames), int(self._reader.n_atoms)
        except Exception as error:  # the parsers raise whatever their format calls for
            why = f"({short(error)})" if name else "known by its name"
            raise InputError(
                f"{path}: trajectories are read from npz, XTC, DCD, GRO and all that MDAnalysis reads; "
                f"this one is not {why}{_hint(name, n_atoms)}"
            ) from None
        units = self._reader.units or {}
        self.usual_unit = (length_of(str(units.get("length"))) or ("angstrom", 1.0))[0]
        head = head_of(self._unpacked.path, name, self.n_atoms)
        # The caller's word about the numbers in the file counts more than the file's.
        stated = head.unit if length_unit in (None, head.unit) else None
        self._per_unit = 1.0 if stated is None else head.per_unit
        self._only_box, self.is_cut = head.box, head.is_cut
        if head.n_whole is not None:
            self.n_frames = min(self.n_frames, head.n_whole)
        if head.time is not None and len(head.time) >= self.n_frames:
            self._times: np.ndarray | None = head.time[: self.n_frames]
        else:
            self._times = self._all_times()
        self.state(
            length_unit=NOT_STATED if stated is None else stated,
            time=stated_if(self._times is not None),
            time_unit=units.get("time") or NOT_STATED,
            periodic=stated_array(head.periodic),
            box=stated_if(self._only_box is not None or self._reader.ts.dimensions is not None),
        )

    def _all_times(self) -> np.ndarray | None:
        """Times of all frames; a second reading is made only where the first frame has one."""
        if np.isnan(time_of(self._reader.ts, self._reader)):
            return None
        times = np.full(self.n_frames, np.nan)
        with contextlib.suppress(Exception), warnings.catch_warnings():  # reading a damaged frame will report it
            warnings.simplefilter("ignore")
            for k, ts in enumerate(self._reader):
                times[k] = time_of(ts, self._reader)
        return times

    def read(self, start: int, stop: int) -> Frames:
        n = stop - start
        positions, box = np.empty((n, self.n_atoms, 3), np.float32), np.zeros((n, 6))
        given = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for k, ts in enumerate(self._reader[start:stop]):
                self.check_count(start + k, ts.n_atoms)
                positions[k] = ts.positions
                dimensions = self._only_box if ts.dimensions is None else ts.dimensions
                if dimensions is not None:
                    box[k] = dimensions
                given += 1
        if given < n:
            raise DamagedError(self.path, start + given)
        if self._per_unit != 1:
            positions, box[:, :3] = positions / np.float32(self._per_unit), box[:, :3] / self._per_unit
        boxes = box_vectors(box[:, :3], box[:, 3:]) if box[:, :3].any() else None
        return Frames(positions, part_of(self._times, start, stop), boxes)

    def clock(self) -> np.ndarray | None:
        return self._times

    def close(self) -> None:
        self._reader.close()


def reader_of(path: Path, name: str, **options) -> Any:
    """MDAnalysis' reader of a file; one that cannot be made is not closed, which would print a traceback."""
    from MDAnalysis.core._get_readers import get_reader_for

    kind = get_reader_for(str(path), format=name or None)
    made = kind.__new__(kind)
    try:
        made.__init__(str(path), **options)
    except Exception:
        with contextlib.suppress(Exception):
            made.close()
        made.close = lambda: None
        raise
    return made


def _hint(name: str, n_atoms: int | None) -> str:
    """Advice on a file that no reader takes, where there is any."""
    if not name:
        return "; say what it is with --format (format=)"
    if n_atoms is not None:
        return ""
    if name == "DATA":
        return "; a LAMMPS data file is a topology: name the dump, and this one by --top (topology=)"
    return "; some formats need a topology (--top, topology=)"


def check_pdb(path: Path, name: str) -> None:
    """Raise `InputError` for a file that is called a PDB and holds no atoms, which MDAnalysis stumbles over."""
    if name not in ("PDB", "ENT") or is_packed(path):
        return
    with path.open("rb") as file:
        if not any(line.startswith((b"ATOM", b"HETATM")) for line in file):
            raise InputError(f"{path}: a PDB needs ATOM or HETATM records, and this file holds none; give a PDB")

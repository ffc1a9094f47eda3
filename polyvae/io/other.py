"""The formats without a reader of their own here, by MDAnalysis."""

import contextlib
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.errors import InputError
from polyvae.io.formats import Unpacked, check_installed, is_packed
from polyvae.io.frames import DamagedError, Frames, short
from polyvae.trajectory.box import box_vectors
from polyvae.trajectory.convert import time_of
from polyvae.trajectory.facts import NOT_STATED, Facts, not_stated, stated_if

# How a PDB says that its numbers are not plain Å; see `scale_note`.
_SCALE = re.compile(r"(?<![\d.])1 (SIGMA|NM|ANGSTROM) = ([0-9.E+-]+) ANGSTROM")
_UNITS = {"A": "angstrom", "Angstrom": "angstrom", "angstrom": "angstrom", "nm": "nm", "nanometer": "nm"}


class UniverseFile:
    """Any trajectory that MDAnalysis reads, frame by frame; see `frames.TrajectoryFile`.

    Args:
        name: MDAnalysis' name of the format; "" where that is not known.
        n_atoms: atoms in a frame, which some formats do not state.
        length_unit: of the numbers in the file, where the caller knows it.
    """

    NO_PLACE_FOR = (
        "periodic", "ids", "images", "masses", "charges", "types", "names", "chains", "residues", "bonds",
        "weights", "segments",
    )  # fmt: skip
    always_3d, is_cut, seeks = True, False, False

    def __init__(self, path: Path, name: str, n_atoms: int | None = None, length_unit: str | None = None):
        from MDAnalysis.coordinates.core import reader

        self.path = path
        check_installed(path, name)
        # MDAnalysis unpacks gzip and bzip2 in some of its readers, and xz in none.
        self._unpacked = Unpacked(path)
        check_pdb(self._unpacked.path, name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about time steps and boxes that the file does not hold
                known: dict[str, Any] = {} if n_atoms is None else {"n_atoms": n_atoms}
                self._reader = reader(str(self._unpacked.path), format=name or None, convert_units=False, **known)
                self.n_frames, self.n_atoms = int(self._reader.n_frames), int(self._reader.n_atoms)
        except Exception as error:  # the parsers raise whatever their format calls for
            why = f"({short(error)})" if name else "known by its name"
            raise InputError(
                f"{path}: trajectories are read from npz, XTC, DCD, GRO and all that MDAnalysis reads; "
                f"this one is not {why}{_hint(name, n_atoms)}"
            ) from None
        units = self._reader.units or {}
        self.usual_unit = _UNITS.get(str(units.get("length")), "angstrom")
        stated, self._per_unit, self._only_box = None, 1.0, None
        if is_plain_pdb(path, name):
            stated, per_unit, self._only_box = _pdb_head(path)
            # The caller's word about the numbers in the file stands above the file's.
            if stated is not None and length_unit in (None, stated):
                self._per_unit = per_unit
            else:
                stated = None
        self._times = self._all_times()
        self.facts = Facts(
            length_unit=NOT_STATED if stated is None else stated,
            time=stated_if(self._times is not None),
            time_unit=units.get("time") or NOT_STATED,
            box=stated_if(self._only_box is not None or self._reader.ts.dimensions is not None),
            **not_stated(*self.NO_PLACE_FOR),
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
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for k, ts in enumerate(self._reader[start:stop]):
                    if ts.n_atoms != self.n_atoms:
                        raise InputError(
                            f"{self.path}: frame {start + k} holds {ts.n_atoms} atoms, those before "
                            f"{self.n_atoms}; write the same atoms in every frame"
                        )
                    positions[k] = ts.positions
                    dimensions = self._only_box if ts.dimensions is None else ts.dimensions
                    if dimensions is not None:
                        box[k] = dimensions
                    given += 1
        except (InputError, MemoryError):
            raise
        except Exception as error:
            raise InputError(f"{self.path} cannot be read on from frame {start} ({short(error)})") from None
        if given < n:
            raise DamagedError(self.path, start + given)
        if self._per_unit != 1:
            positions, box[:, :3] = positions / np.float32(self._per_unit), box[:, :3] / self._per_unit
        return Frames(
            positions,
            None if self._times is None else self._times[start:stop],
            box_vectors(box[:, :3], box[:, 3:]) if box[:, :3].any() else None,
        )

    def clock(self) -> np.ndarray | None:
        return self._times

    def close(self) -> None:
        self._reader.close()


def _hint(name: str, n_atoms: int | None) -> str:
    """What to do about a file that no reader takes, where that can be told."""
    if not name:
        return "; say what it is with --format (format=)"
    if n_atoms is not None:
        return ""
    if name == "DATA":
        return "; a LAMMPS data file is a topology: name the dump, and this one by --top (topology=)"
    return "; some formats need a topology (--top, topology=)"


def scale_note(unit: str, angstrom: float) -> str:
    """What the title of a PDB says where a length unit stands for other than its Å."""
    return f"1 {unit.upper()} = {angstrom:g} ANGSTROM"


def is_plain_pdb(path: Path, name: str) -> bool:
    """Whether a file, by the name of its format, is a PDB that is not compressed."""
    return name in ("PDB", "ENT") and not is_packed(path)


def check_pdb(path: Path, name: str) -> None:
    """Raise `InputError` for a file that is called a PDB and holds no atoms, which MDAnalysis stumbles over."""
    if not is_plain_pdb(path, name):
        return
    with path.open("rb") as file:
        if not any(line.startswith((b"ATOM", b"HETATM")) for line in file):
            raise InputError(f"{path}: a PDB needs ATOM or HETATM records, and this file holds none; give a PDB")


def _pdb_head(path: Path) -> tuple[str | None, float, list[float] | None]:
    """What a PDB says before its first model: the unit of its lengths and the Å it is written as, and the box.

    Where a box is said once for all models, MDAnalysis takes it for no model's.
    """
    unit, per_unit, box = None, 1.0, None
    with path.open(errors="replace") as file:
        for line in file:
            if line.startswith(("MODEL", "ATOM", "HETATM")):
                break
            if line.startswith(("TITLE", "REMARK")) and (found := _SCALE.search(line)):
                with contextlib.suppress(ValueError):
                    per_unit = float(found[2])
                    unit = found[1].lower() if 0 < per_unit < np.inf else None
            if line.startswith("CRYST1") and box is None:
                with contextlib.suppress(ValueError):
                    box = [
                        float(line[k : k + n]) for k, n in ((6, 9), (15, 9), (24, 9), (33, 7), (40, 7), (47, 7))
                    ]
    box = None if box == [1, 1, 1, 90, 90, 90] else box  # what stands for no box
    return unit, per_unit if unit else 1.0, box

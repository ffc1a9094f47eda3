"""The formats without a reader of their own here: GRO by mdtraj, everything else by MDAnalysis."""

import contextlib
import re
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.errors import InputError
from polyvae.io.formats import check_installed, is_packed
from polyvae.io.frames import Frames, short
from polyvae.trajectory.box import box_vectors
from polyvae.trajectory.convert import time_of

# How a PDB says that its numbers are not plain Å; see `scale_note`.
_SCALE = re.compile(r"(?<![\d.])1 (SIGMA|NM|ANGSTROM) = ([0-9.E+-]+) ANGSTROM")
_UNITS = {"A": "angstrom", "Angstrom": "angstrom", "angstrom": "angstrom", "nm": "nm", "nanometer": "nm"}


class GroFile:
    """A GRO file of one or many frames; see `frames.TrajectoryFile`. MDAnalysis reads the first frame alone."""

    stated_unit: str | None = None
    usual_unit, always_3d, akma_time = "nm", True, False
    is_cut = unwrapped = seeks = False

    def __init__(self, path: Path):
        from mdtraj.formats import GroTrajectoryFile

        self.extras: dict[str, np.ndarray] = {}
        try:
            with warnings.catch_warnings(), GroTrajectoryFile(str(path)) as file:
                warnings.simplefilter("ignore")  # about a last line that ends the file
                positions, time, box = file.read()
        except Exception as error:  # the parser raises whatever a line leads it to
            raise InputError(f"{path} cannot be read as GRO ({short(error)})") from None
        timed = time is not None and len(time) == len(positions) and np.isfinite(np.asarray(time, float)).all()
        self._frames = Frames(
            np.asarray(positions, np.float32),
            np.asarray(time, float) if timed else None,
            None if box is None else box,
        )
        self.n_frames, self.n_atoms = positions.shape[:2]

    def read(self, start: int, stop: int) -> Frames:
        return Frames._make(None if array is None else array[start:stop] for array in self._frames)

    def close(self) -> None:
        pass


class UniverseFile:
    """Any trajectory that MDAnalysis reads, frame by frame; see `frames.TrajectoryFile`.

    Args:
        name: MDAnalysis' name of the format; "" where that is not known.
        n_atoms: atoms in a frame, which some formats do not tell.
        length_unit: of the numbers in the file, where the caller knows it.
    """

    always_3d, akma_time = True, False
    is_cut = unwrapped = seeks = False

    def __init__(self, path: Path, name: str, n_atoms: int | None = None, length_unit: str | None = None):
        from MDAnalysis.coordinates.core import reader

        self.path = path
        self.extras: dict[str, np.ndarray] = {}
        check_pdb(path, name)
        check_installed(path, name)
        if name == "H5MD":
            _check_h5md(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about time steps and boxes that the file does not hold
                known: dict[str, Any] = {} if n_atoms is None else {"n_atoms": n_atoms}
                open_file = _trr_reader() if name == "TRR" else partial(reader, format=name or None)
                self._reader = open_file(str(path), convert_units=False, **known)
                self.n_frames, self.n_atoms = int(self._reader.n_frames), int(self._reader.n_atoms)
        except Exception as error:  # the parsers raise whatever their format calls for
            why = f"({short(error)})" if name else "told by its name"
            raise InputError(
                f"{path}: trajectories are read from npz, XTC, DCD, GRO and all that MDAnalysis reads; "
                f"this one is not {why}{_hint(name, n_atoms)}"
            ) from None
        unit = (self._reader.units or {}).get("length")
        self.stated_unit, self._per_unit, self._only_box = None, 1.0, None
        if name == "H5MD":  # the file's own word; many simulation packages write it in reduced units
            self.stated_unit = _UNITS.get(str(unit))
        if is_plain_pdb(path, name):
            stated, per_unit, self._only_box = _pdb_head(path)
            # The caller's word about the numbers in the file stands above the file's.
            if stated is not None and length_unit in (None, stated):
                self.stated_unit, self._per_unit = stated, per_unit
        self.usual_unit = _UNITS.get(str(unit), "sigma" if name == "H5MD" else "angstrom")

    def read(self, start: int, stop: int) -> Frames:
        n = stop - start
        positions, box = np.empty((n, self.n_atoms, 3), np.float32), np.zeros((n, 6))
        time, step = [], []
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
                    time.append(time_of(ts, self._reader))
                    step.append(ts.data.get("step"))
        except (InputError, MemoryError):
            raise
        except Exception as error:
            raise InputError(f"{self.path} cannot be read on from frame {start} ({short(error)})") from None
        if self._per_unit != 1:
            positions, box[:, :3] = positions / np.float32(self._per_unit), box[:, :3] / self._per_unit
        return Frames(
            positions,
            None if np.isnan(time).all() else np.array(time, float),
            box_vectors(box[:, :3], box[:, 3:]) if box[:, :3].any() else None,
            np.array(step) if n and None not in step else None,
        )

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


def _check_h5md(path: Path) -> None:
    """Raise `InputError` for what is no H5MD file: MDAnalysis' reader prints a traceback when it gives one up."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found = "particles" in file
    except OSError as error:
        raise InputError(f"{path} cannot be read as H5MD ({short(error)})") from None
    if not found:
        raise InputError(f"{path}: an H5MD file needs a group particles, and this one holds none")


def _trr_reader() -> type:
    """MDAnalysis' reader of TRR, without the index of frames and the lock that it leaves beside the file."""
    from MDAnalysis.coordinates.TRR import TRRReader

    class Reader(TRRReader):
        def _load_offsets(self):
            self._read_offsets(store=False)

    return Reader


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

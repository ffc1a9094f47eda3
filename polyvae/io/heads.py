"""Facts that files state in places where MDAnalysis does not look.

The head of a PDB, the keys of DL_POLY, the last line of an AMBER restart, the number of lines of a Tinker archive.
Sources: https://www.wwpdb.org/documentation/file-format, the DL_POLY user manual (CONFIG and HISTORY files),
https://ambermd.org/FileFormats.php, the Tinker user's guide.
"""

import contextlib
import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

# How a PDB says that its numbers are not plain Å; see `scale_note`.
_SCALE = re.compile(r"(?<![\d.])1 (SIGMA|NM|ANGSTROM) = ([0-9.E+-]+) ANGSTROM")
_TITLE_TIME = re.compile(r"TITLE\b.*\bt=\s*([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)")
_IMCON = {0: (False, False, False), 6: (True, True, False)}  # all others: periodic along all vectors


class Head(NamedTuple):
    """Facts of one file, each None where it does not state it."""

    unit: str | None = None  # of lengths, where that is not the format's
    per_unit: float = 1.0  # numbers in the file for one of `unit`
    box: list[float] | None = None  # three lengths and three angles for frames that have no box of their own
    periodic: tuple[bool, bool, bool] | None = None  # three bools
    time: np.ndarray | None = None  # (n_frames,) in ps
    n_whole: int | None = None  # frames that are whole
    is_cut: bool = False  # whether one that is not follows them


def head_of(path: Path, name: str, n_atoms: int) -> Head:
    """The facts of a file, by MDAnalysis' name of its format; numbers that cannot be read state nothing."""
    if name in ("PDB", "ENT"):
        return _of_pdb(path)
    with contextlib.suppress(ValueError, IndexError, StopIteration):
        if name in ("CONFIG", "HISTORY"):
            return _of_dl_poly(path)
        if name in ("INPCRD", "RESTRT"):
            return Head(box=_box_of_restart(path, n_atoms))
        if name in ("TXYZ", "ARC"):
            return _of_archive(path, n_atoms)
    return Head()


def scale_note(unit: str, angstrom: float) -> str:
    """The words of the title of a PDB in which a length unit is written as another number of Å."""
    return f"1 {unit.upper()} = {angstrom:g} ANGSTROM"


def _of_pdb(path: Path) -> Head:
    """Facts that a PDB states before its first model: the unit of its lengths and their scale, and the box.

    GROMACS writes times into titles. A box that is stated once for all models MDAnalysis takes for no model's.
    """
    unit, per_unit, box = None, 1.0, None
    times: list[float] = []
    with path.open(errors="replace") as file:
        for line in file:
            if line.startswith("TITLE") and (found := _TITLE_TIME.search(line)):
                times.append(float(found[1]))
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
        if times:  # GROMACS writes one before each model
            times += [float(found[1]) for line in file if (found := _TITLE_TIME.match(line))]
    box = None if box == [1, 1, 1, 90, 90, 90] else box  # as some programs write no box
    return Head(unit, per_unit if unit else 1.0, box, time=np.array(times) if times else None)


def _of_dl_poly(path: Path) -> Head:
    """The key of the periodic boundary, and the times of a HISTORY: step times time step, or a time of its own."""
    times = []
    with path.open(errors="replace") as file:
        next(file)
        periodic = _IMCON.get(int(next(file).split()[1]), (True, True, True))
        for line in file:
            if line.startswith("timestep"):
                words = line.split()
                times.append(float(words[6]) if len(words) > 6 else int(words[1]) * float(words[5]))
    return Head(periodic=periodic, time=np.array(times) if times else None)


def _box_of_restart(path: Path, n_atoms: int) -> list[float] | None:
    """The last line of a restart file, if it is one more than coordinates and velocities take."""
    lines = [line for line in path.read_text(errors="replace").splitlines()[2:] if line.strip()]
    per_array = math.ceil(n_atoms / 2)
    if len(lines) not in (per_array + 1, 2 * per_array + 1):
        return None
    numbers = [float(lines[-1][k : k + 12]) for k in range(0, len(lines[-1].rstrip()), 12)]
    return {3: [*numbers, 90.0, 90.0, 90.0], 6: numbers}.get(len(numbers))


def _of_archive(path: Path, n_atoms: int) -> Head:
    """Frames of a Tinker archive by its lines; a line of the box may be the second of each frame."""
    with path.open(errors="replace") as file:
        next(file)
        words = next(file).split()
        n_lines = 2 + sum(1 for line in file if line.strip())
    has_box = len(words) == 6 and not words[1][:1].isalpha()  # the line of an atom has its name there
    n_whole, rest = divmod(n_lines, n_atoms + 1 + has_box)
    return Head(n_whole=n_whole, is_cut=rest != 0)

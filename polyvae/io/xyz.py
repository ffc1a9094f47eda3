"""XYZ, plain and extended: frames are found first, then pandas reads the columns of many frames at once.

Read here because MDAnalysis passes over the box and the columns that extended XYZ states, and yields fewer
frames than it promises if blank lines separate them; ASE reads both, one `Atoms` object a frame, several times
slower. Extended XYZ: https://github.com/libAtoms/extxyz#extended-xyz-specification.
"""

import contextlib
import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from polyvae.errors import InputError
from polyvae.io.comments import pairs_of
from polyvae.io.formats import UNPACKING_ERRORS, opened
from polyvae.io.frames import DamagedError, Frames, TrajectoryFile, part_of, short
from polyvae.trajectory.facts import NOT_STATED, stated_array, stated_if, understood_length

_PIECE = 1 << 22  # bytes of text that become numbers in one go
_TRUE, _FALSE = ("T", "1", "TRUE"), ("F", "0", "FALSE")
_WIDTHS = {"S": str, "R": float, "I": int, "L": str}


class _Frame(NamedTuple):
    """Where the lines of a frame's atoms are, in bytes, and its comment."""

    begin: int
    end: int
    n_atoms: int
    comment: str


class XyzFile(TrajectoryFile):
    """An XYZ file, plain or packed; see `frames.TrajectoryFile`."""

    NO_PLACE_FOR = ("images", "types", "chains", "residues", "bonds", "weights", "segments")
    usual_unit = "angstrom"
    _names: np.ndarray | None = None

    def __init__(self, path: Path, n_frames: int | None = None):
        self.path = path
        self._index, self.is_cut = _index(path, n_frames)
        if not self._index:
            raise DamagedError(path, 0)
        self.n_frames, self.n_atoms = len(self._index), self._index[0].n_atoms
        self._pairs = [pairs_of(frame.comment) for frame in self._index]
        self._columns = _columns(self._pairs[0], path)
        with contextlib.closing(self):
            first = self._table(0, 1)
        if "id" in self._columns:
            self.ids = np.sort(first["id"][0].astype(np.int64))
        first = {name: values[0] for name, values in self._ordered(first).items()}
        self._names = first.get("names")
        head = self._pairs[0]
        self.state(
            length_unit=understood_length(head.get("length_unit")),
            time_unit=head.get("time_unit", NOT_STATED),
            time=stated_if(self.clock() is not None and "time" in head),
            box=stated_if(any("lattice" in pairs for pairs in self._pairs)),
            periodic=self._periodic(),
            ids=stated_array(self.ids),
            masses=stated_array(first.get("masses")),
            charges=stated_array(first.get("charges")),
            names=stated_array(self._names),
        )

    def _periodic(self) -> Any:
        """Along which box vectors the frames are periodic; one that has a box and no flags is, along all."""
        found = {pairs.get("pbc", "T T T" if "lattice" in pairs else "") for pairs in self._pairs}
        if found == {""}:
            return NOT_STATED
        if "" in found:
            first = next(k for k, pairs in enumerate(self._pairs) if "lattice" not in pairs)
            raise InputError(f"{self.path}: frame {first} states no box, others do; write Lattice= in every frame")
        if len(found) > 1:
            raise InputError(
                f"{self.path}: frames state different periodic directions ({' and '.join(sorted(found))}); split "
                f"the file where they change"
            )
        flags = found.pop().upper().replace(",", " ").split()
        if len(flags) != 3 or not set(flags) <= {*_TRUE, *_FALSE}:
            raise InputError(
                f"{self.path}: pbc needs three flags, T or F; the first frame has {' '.join(flags)!r}"
            )
        return tuple(flag in _TRUE for flag in flags)

    def read(self, start: int, stop: int) -> Frames:
        positions = np.empty((stop - start, self.n_atoms, 3), np.float32)
        at = start
        while at < stop:
            end = at + 1
            while end < stop and self._index[end].end - self._index[at].begin < _PIECE:
                end += 1
            table = self._ordered(self._table(at, end), at)
            positions[at - start : end - start] = np.stack([table[axis] for axis in "xyz"], axis=-1)
            at = end
        times = self.clock() if self.facts.stated("time") else None
        box = None
        if self.facts.stated("box"):
            box = np.stack([self._box(k) for k in range(start, stop)])
        return Frames(positions, part_of(times, start, stop), box)

    def clock(self) -> np.ndarray | None:
        for key in ("time", "timestep", "step"):
            if all(key in pairs for pairs in self._pairs):
                try:
                    return np.array([float(pairs[key]) for pairs in self._pairs])
                except ValueError:
                    return None
        return None

    def _box(self, frame: int) -> np.ndarray:
        """Box vectors of a frame, as rows; zeros where it states none."""
        words = self._pairs[frame].get("lattice", "0 0 0 0 0 0 0 0 0").replace(",", " ").split()
        try:
            return np.array(words, np.float32).reshape(3, 3)
        except ValueError:
            raise InputError(
                f"{self.path}: Lattice needs nine numbers, three for each box vector; frame {frame} has "
                f"{' '.join(words)!r}"
            ) from None

    def _table(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """The columns of frames by name, (n, n_atoms) each."""
        import pandas

        rows = []
        for k, frame in enumerate(self._index[start:stop], start):
            self.check_count(k, frame.n_atoms)
            lines = self.bytes_between(frame.begin, frame.end)
            rows.append(lines if lines.endswith(b"\n") else lines + b"\n")
        kinds = dict(self._columns.values())
        try:
            how: dict[str, Any] = {"header": None, "quoting": csv.QUOTE_NONE, "na_filter": False}
            text = io.BytesIO(b"".join(rows))
            table = pandas.read_csv(text, sep=r"\s+", usecols=sorted(kinds), dtype=kinds, **how)
        except (ValueError, pandas.errors.ParserError) as error:
            if stop - start > 1:  # find the frame that is at fault
                for k in range(start, stop):
                    self._table(k, k + 1)
            raise InputError(
                f"{self.path}: frame {start} has lines that are not an atom and its coordinates ({short(error)}); "
                f"mend them, or leave the frame out (stop=)"
            ) from None
        shape = stop - start, self.n_atoms
        return {name: table[place].to_numpy().reshape(shape) for name, (place, _) in self._columns.items()}

    def _ordered(self, table: dict[str, np.ndarray], first: int = 0) -> dict[str, np.ndarray]:
        """Columns in the order of ids, where there are any; the same beads in every frame."""
        if self.ids is not None:
            order = self.order_of(table["id"], first)
            table = {name: np.take_along_axis(values, order, axis=1) for name, values in table.items()}
        if self._names is not None and not (same := (table["names"] == self._names).all(axis=1)).all():
            raise InputError(
                f"{self.path}: the names of frame {first + int(np.argmin(same))} are not those of the first, in "
                f"this order; write the same atoms in the same order in every frame, or a column id"
            )
        return table


def _index(path: Path, n_frames: int | None) -> tuple[list[_Frame], bool]:
    """Whole frames, the first `n_frames` or all, and whether something else comes after them."""
    frames: list[_Frame] = []
    try:
        with opened(path) as file:
            at = 0
            while line := file.readline():
                at += len(line)
                if not line.strip():
                    continue
                try:
                    n_atoms = int(line)
                except ValueError:
                    if frames:
                        return frames, True
                    raise InputError(
                        f"{path} is not an XYZ file (its first line is not the number of atoms)"
                    ) from None
                comment = file.readline()
                begin = at = at + len(comment)
                last = b""
                for _ in range(n_atoms):
                    if not (last := file.readline()):
                        return frames, True
                    at += len(last)
                if n_atoms < 1 or not comment or not last or (not last.endswith(b"\n") and len(last.split()) < 4):
                    return frames, True
                frames.append(_Frame(begin, at, n_atoms, comment.decode("utf-8", "replace")))
                if len(frames) == n_frames:
                    break
    except UNPACKING_ERRORS:
        return frames, True
    return frames, False


def _columns(pairs: dict[str, str], path: Path) -> dict[str, tuple[int, type]]:
    """Places and kinds of the columns wanted: names, x, y, z, and id, masses, charges where they are stated."""
    found: dict[str, tuple[int, type]] = {}
    words = pairs.get("properties", "species:S:1:pos:R:3").split(":")
    place = 0
    wanted = {"species": "names", "element": "names", "id": "id", "mass": "masses", "masses": "masses"}
    wanted |= {"charge": "charges", "q": "charges", "initial_charges": "charges"}
    try:
        for name, kind, width in zip(words[::3], words[1::3], words[2::3], strict=True):
            if name.lower() in ("pos", "positions"):
                found |= {axis: (place + k, float) for k, axis in enumerate("xyz")}
            elif name.lower() in wanted and int(width) == 1:
                found.setdefault(wanted[name.lower()], (place, _WIDTHS[kind]))
            place += int(width)
    except (KeyError, ValueError):
        raise InputError(
            f"{path}: Properties={':'.join(words)!r} cannot be read; give name:kind:columns"
        ) from None
    if not {"x", "y", "z"} <= set(found):
        raise InputError(f"{path}: Properties={':'.join(words)!r} holds no positions (pos:R:3); write them")
    return found

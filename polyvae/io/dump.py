"""LAMMPS dumps: text, whose frames are found first, and whose columns NumPy reads for many frames at once.

Read here because MDAnalysis reads line by line, takes wrapped coordinates where unwrapped ones stand beside them,
moves beads by image flags as if every box were orthogonal, and counts a frame that is cut off as a whole one.
Format: https://docs.lammps.org/dump.html, boxes: https://docs.lammps.org/Howto_triclinic.html.
"""

import contextlib
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from polyvae.errors import InputError
from polyvae.io.formats import UNPACKING_ERRORS, BytesFile, opened
from polyvae.io.frames import DamagedError, Frames, log
from polyvae.trajectory.convert import STEPS_ALONE
from polyvae.trajectory.facts import NOT_STATED, Facts, NotUnderstood, not_stated, stated_array, stated_if
from polyvae.trajectory.units import LAMMPS

_PIECE = 1 << 22  # bytes of text looked at, or turned into numbers, in one go
_LONG = 1 << 20  # bytes of text for which it pays to import pandas
_HEADER = 200  # more than the lines from the time of a frame to its step
_LONGEST_HEADER = 1 << 16  # of the first frame, whose columns may be many
_IMAGES = ("ix", "iy", "iz")
_ATOMS, _STEP, _TIME = b"ITEM: ATOMS", b"ITEM: TIMESTEP", b"ITEM: TIME\n"
_HEAD = re.compile(
    rb"(?:ITEM: UNITS\s+(?P<units>\w+)\s+)?"
    rb"(?:ITEM: TIME\s+(?P<time>\S+)\s+)?"
    rb"ITEM: TIMESTEP\s+(?P<step>-?\d+)\s+"
    rb"ITEM: NUMBER OF ATOMS\s+(?P<n_atoms>\d+)\s+"
    rb"ITEM: BOX BOUNDS(?P<kind>.*)\n(?P<bounds>.*\n.*\n.*\n)"
    rb"ITEM: ATOMS(?P<columns>.*)\n"
)
# The begin of a frame, whole where it is not damaged.
_STEPPED = re.compile(rb"ITEM: TIMESTEP(?:\s+(?P<step>\S+))?")
_TIMED = re.compile(rb"ITEM: TIME\n(?:\s*(?P<time>\S+))?(?:\s+ITEM: TIMESTEP\s+(?P<step>\S+))?")
_FLAG = re.compile(rb"[pfsm]{2}")  # of both faces of the box in one direction


class DumpFile:
    """A LAMMPS dump of atoms, plain or packed; see `frames.TrajectoryFile`.

    Beads come in the order of their ids. Steps that do not rise begin a segment.
    """

    NO_PLACE_FOR = ("chains", "bonds", "weights")
    usual_unit, always_3d = "sigma", True
    seeks: bool

    def __init__(self, path: Path):
        self.path = path
        self._file: BytesFile | None = None
        self._last_header = b"", b""  # bounds of the box, and all that follows the step
        self._offsets, self._steps, self._times, head, self.is_cut = _index(path)
        self.n_frames = len(self._steps)
        with opened(path) as file:
            self.seeks = isinstance(file, io.BufferedReader)
        first = first_frame(path)
        self._ids = first.get("id")
        units, periodic = self._read_head(head)
        self.facts = self._facts(first, units, periodic)

    def _read_head(self, text: bytes) -> tuple[str, tuple[bool, ...] | None]:
        """Read from the first frame what holds for all; return the style of units and the periodic directions."""
        head = _HEAD.match(text)
        if head is None:
            raise DamagedError(self.path, 0)
        self._title, self._columns = head["columns"], head["columns"].decode().split()
        self.n_atoms = int(head["n_atoms"])
        self._kind = head["kind"].split()
        flags = [word for word in self._kind if _FLAG.fullmatch(word)]
        periodic = tuple(b"p" in flag for flag in flags) if len(flags) == 3 else None
        self._boxed = periodic is None or any(periodic)
        self._general = b"abc" in head["kind"]
        self._choose_columns()
        if "id" not in self._columns:
            log.warning(
                "%s: no ids, so beads are taken in the order of lines, which LAMMPS may change at any time; dump "
                "the column id",
                self.path,
            )
        return (head["units"] or b"").decode("latin1"), periodic

    def _facts(self, first: dict[str, np.ndarray], style: str, periodic) -> Facts:
        length: Any
        time: Any
        length, time = LAMMPS.get(style, (NOT_STATED, NOT_STATED))
        if style and style not in LAMMPS:
            length = NotUnderstood(
                f"states the units {style!r}, which are not known here; give the unit of lengths"
            )
        if self._times is None:
            log.info("%s: %s", self.path, STEPS_ALONE)
        segments: Any = NOT_STATED
        begins = np.flatnonzero(np.diff(self._steps) <= 0) + 1
        if len(begins):
            segments = np.diff([0, *begins, self.n_frames])
            log.info(
                "%s: its steps do not rise at frame %s, where a segment begins",
                self.path,
                ", ".join(map(str, begins[:4])) + (", ..." if len(begins) > 4 else ""),
            )

        def column(name: str, kind: type) -> Any:
            return first[name].astype(kind) if name in first else NOT_STATED

        return Facts(
            length_unit=length,
            time=stated_if(self._times is not None),
            time_unit=time,
            box=stated_if(self._boxed),
            periodic=NOT_STATED if periodic is None else periodic,
            ids=stated_array(self._ids),
            images=stated_if(self._unwrapped),
            masses=column("mass", float),
            charges=column("q", float),
            types=column("type", str),
            names=column("element", str),
            residues=column("mol", int),
            segments=segments,
            **not_stated(*self.NO_PLACE_FOR),
        )

    def _choose_columns(self) -> None:
        """Unwrapped coordinates, else wrapped ones with image flags, else wrapped ones."""
        columns = self._columns
        axes = "xyz" if any(re.fullmatch("zs?u?", name) for name in columns) else "xy"
        kinds = [[axis + kind for axis in axes] for kind in ("u", "su", "", "s")]
        kind = next((names for names in kinds if set(names) <= set(columns)), None)
        if kind is None:
            raise InputError(
                f"{self.path}: a LAMMPS dump needs the columns x y z, or another kind of them (xu, xs, xsu), or x "
                f"and y of a flat run; this one holds {' '.join(columns)}. Dump them, too"
            )
        self._n_dims, self._scaled = len(axes), "s" in kind[0]
        images = list(_IMAGES[: len(axes)])
        self._unwrapped = kind[0].endswith("u") or set(images) <= set(columns)
        self._has_images = self._unwrapped and not kind[0].endswith("u")
        wanted = [*kind, *(images if self._has_images else []), *(["id"] if "id" in columns else [])]
        self._taken = [columns.index(name) for name in wanted]

    def read(self, start: int, stop: int) -> Frames:
        n, d = stop - start, self._n_dims
        positions, box = np.empty((n, self.n_atoms, d)), np.empty((n, 3, 3))
        for first, last in self._pieces(start, stop):
            rows = slice(first - start, last - start)
            text = self._text(first, last)
            places = (self._offsets[first : last + 1] - self._offsets[first]).tolist()
            frames = zip(range(first, last), places, places[1:], strict=False)
            bounds, tables = zip(*(self._split(k, text, *place) for k, *place in frames), strict=True)
            box[rows], corner = self._boxes(first, bounds)
            positions[rows] = self._positions(self._table(first, tables), box[rows], corner, first)
        return Frames(
            positions,
            None if self._times is None else self._times[start:stop],
            box.astype(np.float32) if self._boxed else None,
            self._steps[start:stop],
        )

    def clock(self) -> np.ndarray:
        return self._steps if self._times is None else self._times

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Frames whose text is of bounded length together."""
        while start < stop:
            end = int(np.searchsorted(self._offsets, self._offsets[start] + _PIECE))
            end = min(stop, max(start + 1, end - 1))
            yield start, end
            start = end

    def _text(self, first: int, last: int) -> bytes:
        if self._file is None:
            self._file = opened(self.path)
        self._file.seek(self._offsets[first])
        try:
            return self._file.read(self._offsets[last] - self._offsets[first])
        except UNPACKING_ERRORS:
            raise DamagedError(self.path, first) from None

    def _split(self, frame: int, text: bytes, begin: int, end: int) -> tuple[bytes, bytes]:
        """The bounds of a frame's box, and the lines of its atoms; the frame is a part of the text."""
        if text.startswith(_STEP, begin):  # most headers are that of the frame before but for the step
            at = text.find(b"\n", begin + len(_STEP) + 1) + 1  # the line after the step
            bounds, header = self._last_header
            step = text[begin + len(_STEP) : at].strip()
            if header and text.startswith(header, at) and step.isdigit():
                return bounds, self._rows(frame, text[at + len(header) : end])
        head = _HEAD.match(text, begin, end)
        if head is None:
            raise DamagedError(self.path, frame)
        self._check_header(frame, head)
        header = text[text.find(b"\n", head.start("step")) + 1 : head.end()]
        self._last_header = head["bounds"], header
        return head["bounds"], self._rows(frame, text[head.end() : end])

    def _check_header(self, frame: int, head: re.Match) -> None:
        """Refuse a frame whose header states other things than the first one."""
        if int(head["n_atoms"]) != self.n_atoms:
            raise InputError(
                f"{self.path}: frame {frame} holds {int(head['n_atoms'])} atoms, the first {self.n_atoms}; dump "
                f"the same atoms in every frame"
            )
        if head["kind"].split() != self._kind:
            raise InputError(
                f"{self.path}: frame {frame} states the box as {head['kind'].decode('latin1').strip()!r}, the "
                f"first as {b' '.join(self._kind).decode('latin1')!r}; split the file where the boundary changes"
            )
        if head["columns"] != self._title:
            raise InputError(
                f"{self.path}: frame {frame} holds the columns {head['columns'].decode('latin1').strip()}, the "
                f"first {' '.join(self._columns)}; dump the same columns in every frame"
            )

    def _rows(self, frame: int, rows: bytes) -> bytes:
        """The lines of a frame's atoms, without what comes after them."""
        if not rows.endswith(b"\n"):
            rows += b"\n"
        if rows.count(b"\n") != self.n_atoms:
            rows, _, _ = rows.partition(b"ITEM: ")  # units, stated again where a run goes on
            if rows.endswith(b"\n"):  # files put together by hand hold blank lines
                rows = rows.rstrip() + b"\n"
            if rows.count(b"\n") != self.n_atoms:
                raise DamagedError(self.path, frame)
        return rows

    def _boxes(self, first: int, bounds) -> tuple[np.ndarray, np.ndarray]:
        """Box vectors (n, 3, 3) and their corners (n, 3), from the bounds in headers."""
        width = 3 + self._general
        known: dict[bytes, np.ndarray] = {}
        for k, text in enumerate(bounds):
            if text not in known:
                try:
                    rows = [[*map(float, line.split()), 0.0][:width] for line in text.splitlines()]
                    known[text] = np.array(rows).reshape(3, width)
                except ValueError:
                    raise DamagedError(self.path, first + k) from None
        numbers = np.array([known[text] for text in bounds])
        return (_general_box if self._general else _box)(numbers)

    def _table(self, first: int, tables) -> np.ndarray:
        """The columns wanted of frames, (n, n_atoms, n_wanted)."""
        try:
            numbers = _loaded(b"".join(tables), self._taken)
            return numbers.reshape(len(tables), self.n_atoms, len(self._taken))
        except ValueError:
            for k, table in enumerate(tables):
                try:
                    _loaded(table, self._taken).reshape(self.n_atoms, len(self._taken))
                except ValueError:
                    raise DamagedError(self.path, first + k) from None
            raise

    def _positions(self, table: np.ndarray, box: np.ndarray, corner: np.ndarray, first: int) -> np.ndarray:
        d, table = self._n_dims, self._in_order(table, first)
        positions, cell, shifts = table[..., :d], box[:, :d, :d], None
        if self._has_images:
            shifts = table[..., d : 2 * d]
        if self._scaled:
            shifts = positions if shifts is None else positions + shifts
            positions = corner[:, None, :d]
        return positions if shifts is None else positions + shifts @ cell

    def _in_order(self, table: np.ndarray, first: int) -> np.ndarray:
        if self._ids is None or (table[..., -1] == self._ids).all():
            return table
        order = np.argsort(table[..., -1], axis=1)
        table = np.take_along_axis(table, order[..., None], axis=1)
        if not (same := (table[..., -1] == self._ids).all(axis=1)).all():
            raise InputError(
                f"{self.path}: frame {first + int(np.argmin(same))} holds other atoms (ids) than the first; dump "
                f"the same atoms in every frame"
            )
        return table


class _Index(NamedTuple):
    """Where each whole frame begins, and the last one ends; their steps and times; the header of the first;
    whether something is cut off after them."""

    offsets: np.ndarray
    steps: np.ndarray
    times: np.ndarray | None
    head: bytes
    is_cut: bool


def first_frame(path: Path) -> dict[str, np.ndarray]:
    """The columns of the first frame by name, (n_atoms,) each, in the order of ids where there are any.

    Raises:
        InputError: a file that is no dump of atoms, or one in which an id stands twice.
        DamagedError: a frame with lines that are not whole.
    """
    n, columns = None, None
    with opened(path) as file:
        try:
            for line in file:
                if line.startswith(b"ITEM: NUMBER OF ATOMS"):
                    n = int(next(file))
                elif line.startswith(_ATOMS):
                    columns = line.decode().split()[2:]
                    break
            if not n or columns is None:
                raise InputError(
                    f"{path} is not a LAMMPS dump of atoms (its first frame has no header or no atoms)"
                )
            table = np.loadtxt(itertools.islice(file, n), dtype=str, comments=None, ndmin=2, encoding="latin1")
            table = table.reshape(n, len(columns))
            found = dict(zip(columns, table.T, strict=True))
            if "id" in found:
                found["id"] = found["id"].astype(np.int64)
        except (ValueError, StopIteration, *UNPACKING_ERRORS):
            raise DamagedError(path, 0) from None
    if "id" not in found:
        return found
    order = np.argsort(found["id"])
    found = {name: values[order] for name, values in found.items()}
    if not (np.diff(found["id"]) > 0).all():
        raise InputError(f"{path}: an id stands twice in the first frame; dump each atom once")
    return found


def _index(path: Path) -> _Index:
    offsets: list[int] = []
    steps: list[int] = []
    times: list[float] = []
    text, base, head, marker, more = b"", 0, b"", _STEPPED, True
    last: list[bytes] = []  # pieces of the last frame
    with opened(path) as file:
        while more:
            piece = _next(file)
            text, more = text + piece, bool(piece)
            if not head:
                if not text.startswith(b"ITEM: "):
                    raise InputError(f"{path} is not a LAMMPS dump (it does not begin with ITEM:)")
                found = re.search(_ATOMS + rb".*\n", text)
                if found is None and more and len(text) < _LONGEST_HEADER:
                    continue
                if found is None:
                    if more or b"ENTRIES" in text:
                        raise InputError(f"{path} is a LAMMPS dump without atoms (ITEM: ATOMS); give one of atoms")
                    raise DamagedError(path, 0)
                head = text[: found.end()]
                marker = _TIMED if _TIME in head else _STEPPED
            # A header that the text ends in waits for the next piece.
            until = text.rfind(b"\n", 0, max(0, len(text) - _HEADER)) + 1 if more else len(text)
            begin = 0
            for found in marker.finditer(text):
                if found.start() >= until:
                    break
                begin, last = found.start(), []
                offsets.append(base + begin)
                steps.append(_whole_number(found["step"]))
                if marker is _TIMED:
                    times.append(_real_number(found["time"]))
            last.append(text[begin:until])
            base, text = base + until, text[until:]
    end = b"".join(last)
    is_cut = not _is_whole(end)
    if not is_cut and not end.endswith(b"\n"):
        log.info("%s: its last line has no end, and is taken as whole", path)
    n = len(steps) - is_cut
    if n == 0:
        raise DamagedError(path, 0)
    return _Index(
        np.array([*offsets, base][: n + 1]),
        np.array(steps[:n]),
        np.array(times[:n]) if times else None,
        head,
        is_cut,
    )


def _next(file: BytesFile) -> bytes:
    """What comes next of a file, nothing at its end; a packed file that is cut off ends there."""
    try:
        return file.read1(_PIECE)
    except UNPACKING_ERRORS:
        return b""


def _whole_number(word: bytes | None) -> int:
    """A step; one that cannot be read is damage, which reading the frame will find."""
    try:
        return int(word or 0)
    except ValueError:
        return 0


def _real_number(word: bytes | None) -> float:
    """A time, NaN where it cannot be read."""
    try:
        return float(word or np.nan)
    except ValueError:
        return np.nan


def _is_whole(text: bytes) -> bool:
    """Whether a text is a frame with all its lines; the last one may lack its end, not its words."""
    head = _HEAD.match(text)
    if head is None:
        return False
    n_lines, n_atoms = text.count(b"\n", head.end()), int(head["n_atoms"])
    if n_lines != n_atoms - 1:
        return n_lines >= n_atoms
    *others, last = text[head.end() :].split(b"\n")
    words = last.split()
    if len(words) != len(head["columns"].split()) or any(
        line.endswith(b" ") != last.endswith(b" ") for line in others
    ):
        return False
    # A last number that is cut has fewer decimals than those above it.
    return last.endswith(b" ") or all(_decimals(words[-1]) >= _decimals(line.split()[-1]) for line in others)


def _decimals(word: bytes) -> int:
    return len(word.partition(b".")[2])


def _loaded(text: bytes, columns: list[int]) -> np.ndarray:
    if len(text) > _LONG:
        import pandas

        # For single spaces, as LAMMPS writes them, it takes half the time.
        with contextlib.suppress(ValueError):
            table = pandas.read_csv(
                io.BytesIO(text), sep=" ", header=None, usecols=columns, dtype=np.float64, na_filter=False
            )
            return table[columns].to_numpy()
    return np.loadtxt(io.BytesIO(text), usecols=columns, comments=None, ndmin=2)


def _box(bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and corners of boxes whose a lies along x, from the bounds of what encloses them and the tilts."""
    low, high, (xy, xz, yz) = bounds[..., 0].copy(), bounds[..., 1].copy(), bounds[..., 2].T
    nothing = np.zeros_like(xy)
    low[:, 0] -= np.min([nothing, xy, xz, xy + xz], axis=0)
    high[:, 0] -= np.max([nothing, xy, xz, xy + xz], axis=0)
    low[:, 1] -= np.minimum(nothing, yz)
    high[:, 1] -= np.maximum(nothing, yz)
    box = np.zeros((len(bounds), 3, 3))
    box[:, range(3), range(3)] = high - low
    box[:, 1, 0], box[:, 2, 0], box[:, 2, 1] = xy, xz, yz
    return box, low


def _general_box(bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and corners of boxes that are given as such."""
    return bounds[..., :3], bounds[..., 3]

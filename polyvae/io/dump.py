"""LAMMPS dumps: frames are found first, then NumPy or pandas reads the columns of many frames at once.

Read here because MDAnalysis reads line by line, takes wrapped coordinates where there are unwrapped ones, too,
moves beads by image flags as if every box were orthogonal, and counts a frame that is cut off as a whole one.
Format: https://docs.lammps.org/dump.html, boxes: https://docs.lammps.org/Howto_triclinic.html.
"""

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.core.units import LAMMPS
from polyvae.errors import InputError
from polyvae.io.dump_index import HEAD, PIECE, STEP, first_frame, index_dump
from polyvae.io.formats import UNPACKING_ERRORS, opened
from polyvae.io.frames import DamagedError, Frames, TrajectoryFile, log, part_of
from polyvae.trajectory.convert import STEPS_ALONE
from polyvae.trajectory.facts import NOT_STATED, NotUnderstood, stated_array, stated_if

_STEP_LINE = STEP + b"\n"
_LONG = 1 << 20  # bytes of text for which it pays to import pandas
_IMAGES = ("ix", "iy", "iz")
_FLAG = re.compile(rb"[pfsm]{2}")  # of both faces of the box in one direction


class DumpFile(TrajectoryFile):
    """A LAMMPS dump of atoms, plain or packed; see `frames.TrajectoryFile`.

    Beads come in the order of their ids. Steps that do not rise begin a segment.
    """

    NO_PLACE_FOR = ("chains", "bonds", "weights")
    usual_unit = "sigma"

    def __init__(self, path: Path):
        self.path = path
        self._last_header = b"", b""  # bounds of the box, and all that follows the step
        self._offsets, self._steps, self._times, head, self.is_cut = index_dump(path)
        self.n_frames = len(self._steps)
        with opened(path) as file:
            self.seeks = isinstance(file, io.BufferedReader)
        first = first_frame(path)
        self.ids = first.get("id")
        self._state(first, *self._read_head(head))

    def _read_head(self, text: bytes) -> tuple[str, tuple[bool, ...] | None]:
        """Read from the first frame what holds for all; return the style of units and the periodic directions."""
        head = HEAD.match(text)
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

    def _state(self, first: dict[str, np.ndarray], style: str, periodic) -> None:
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
            first_ones = ", ".join(map(str, begins[:4])) + ", ..." * (len(begins) > 4)
            log.info("%s: its steps do not rise at frame %s, where a segment begins", self.path, first_ones)

        def column(name: str, kind: type) -> Any:
            return first[name].astype(kind) if name in first else NOT_STATED

        self.state(
            length_unit=length,
            time=stated_if(self._times is not None),
            time_unit=time,
            box=stated_if(self._boxed),
            periodic=NOT_STATED if periodic is None else periodic,
            ids=stated_array(self.ids),
            images=stated_if(self._unwrapped),
            masses=column("mass", float),
            charges=column("q", float),
            types=column("type", str),
            names=column("element", str),
            residues=column("mol", int),
            segments=segments,
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
            places = self._offsets[first : last + 1] - self._offsets[first]
            begin = self._split(first, text, *map(int, places[:2]))
            bounds: Sequence[bytes]
            tables: Sequence[bytes]
            if (same := self._of_one_header(first, text, places)) is not None:
                bounds, tables = [begin[0]] * (last - first), [same]
            else:
                frames = zip(range(first, last), places.tolist(), places[1:].tolist(), strict=False)
                bounds, tables = zip(*(self._split(k, text, *place) for k, *place in frames), strict=True)
            box[rows], corner = self._boxes(first, bounds)
            positions[rows] = self._positions(self._table(first, tables), box[rows], corner, first)
        return Frames(
            positions,
            part_of(self._times, start, stop),
            box.astype(np.float32) if self._boxed else None,
            self._steps[start:stop],
        )

    def clock(self) -> np.ndarray:
        return self._steps if self._times is None else self._times

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Frames whose text is of bounded length together."""
        while start < stop:
            end = int(np.searchsorted(self._offsets, self._offsets[start] + PIECE))
            end = min(stop, max(start + 1, end - 1))
            yield start, end
            start = end

    def _text(self, first: int, last: int) -> bytes:
        self._file = self._file or opened(self.path)
        try:
            return self.bytes_between(self._offsets[first], self._offsets[last])
        except UNPACKING_ERRORS:
            raise DamagedError(self.path, first) from None

    def _split(self, frame: int, text: bytes, begin: int, end: int) -> tuple[bytes, bytes]:
        """The bounds of a frame's box, and the lines of its atoms; the frame is a part of the text."""
        if text.startswith(STEP, begin):  # most headers are that of the frame before but for the step
            at = text.find(b"\n", begin + len(STEP) + 1) + 1  # the line after the step
            bounds, header = self._last_header
            step = text[begin + len(STEP) : at].strip()
            if header and text.startswith(header, at) and step.isdigit():
                return bounds, self._rows(frame, text[at + len(header) : end])
        head = HEAD.match(text, begin, end)
        if head is None:
            raise DamagedError(self.path, frame)
        self._check_header(frame, head)
        header = text[text.find(b"\n", head.start("step")) + 1 : head.end()]
        self._last_header = head["bounds"], header
        return head["bounds"], self._rows(frame, text[head.end() : end])

    def _of_one_header(self, first: int, text: bytes, places: np.ndarray) -> bytes | None:
        """The lines of all atoms, where the headers of all frames are that of the first but for the step.

        `places` (n + 1,) are where each frame begins in the text, and where the last one ends.
        """
        header = np.frombuffer(self._last_header[1], np.uint8)
        if not text.startswith(_STEP_LINE) or not text.endswith(b"\n"):
            return None
        letters = np.frombuffer(text, np.uint8)
        ends = np.flatnonzero(letters == ord("\n"))  # of lines
        title = np.searchsorted(ends, places[:-1])  # the line "ITEM: TIMESTEP" of each frame
        if title[-1] + 1 >= len(ends):
            return None
        body = ends[title + 1] + 1  # what follows the step
        steps = self._steps[first : first + len(body)]
        if (ends[title + 1] - ends[title] - 1 != np.char.str_len(steps.astype(str))).any():
            return None
        rows = body + len(header)
        n_lines = np.searchsorted(ends, places[1:]) - np.searchsorted(ends, rows)
        if (rows > places[1:]).any() or (n_lines != self.n_atoms).any():
            return None
        windows = np.lib.stride_tricks.sliding_window_view(letters, len(header))
        if not (windows[body] == header).all():
            return None
        lengths = np.stack([rows - places[:-1], places[1:] - rows], axis=1)  # of headers and tables in turn
        wanted = np.repeat(np.tile([False, True], len(rows)), lengths.ravel())
        return letters[wanted].tobytes()

    def _check_header(self, frame: int, head: re.Match) -> None:
        """Refuse a frame whose header states other things than the first one."""
        self.check_count(frame, int(head["n_atoms"]))
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
            rows, _, _ = rows.partition(b"ITEM: ")  # units, stated again where a run continues
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
        text = b"".join(tables)
        try:
            return _loaded(text, self._taken).reshape(-1, self.n_atoms, len(self._taken))
        except ValueError:
            lines = text.splitlines(keepends=True)
            for k in range(0, len(lines), self.n_atoms):
                try:
                    _loaded(b"".join(lines[k : k + self.n_atoms]), self._taken)
                except ValueError:
                    raise DamagedError(self.path, first + k // self.n_atoms) from None
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
        if self.ids is None or (table[..., -1] == self.ids).all():
            return table
        return np.take_along_axis(table, self.order_of(table[..., -1], first)[..., None], axis=1)


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
    """Vectors and corners of boxes whose a is along x, from the bounds of what encloses them and the tilts."""
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

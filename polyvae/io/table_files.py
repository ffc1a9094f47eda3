"""Tables of numbers in one file: what the file is, by its header; names, units and rows."""

import bz2
import csv
import dataclasses
import gzip
import io
import lzma
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from polyvae.errors import InputError
from polyvae.io.archives import arrays_of
from polyvae.io.frames import reading
from polyvae.io.text_rows import TIME, Section

_BLOCK = 1 << 22  # bytes in memory together
_COMMENTS = 200  # lines of a head that are kept
_PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_KIND = re.compile(r"@\s*TYPE\s+(\w+)", re.IGNORECASE)
_LEGEND = re.compile(r'@\s+s(\d+)\s+legend\s+"(.*)"')
_AXIS = re.compile(r'@\s+([xy])axis\s+label\s+"(.*)"')
_UNIT = re.compile(r"[(\[](?!\d+[)\]])([^()\[\]]+)[)\]]\s*$")  # a number there is the index of a component
_VECTOR = re.compile(r"\(\s*[-+.\d]")

# Files without rows of a run: a sign in its head, its name, and what to give in its place.
_OTHERS = (
    (re.compile(r"^configuration \{", re.M), "a state of Colvars", "the .colvars.traj of the run"),
    (re.compile(r"^# +\d+ *\n(# +[-+.\deE]+ +[-+.\deE]+ +\d+ +\d *\n)+"), "a grid of Colvars (.pmf, .count)",
     "the .colvars.traj of the run"),
    (re.compile(r"^#! SET nbins_", re.M), "a grid (of sum_hills, a histogram or GRID_WFILE)",
     "the COLVAR of the run"),
    (re.compile(r"^LAMMPS \(\d"), "a log of LAMMPS", "the table of a `fix ave/time`"),
    (re.compile(r"^# TimeStep Number-of-", re.M), "a `fix ave/time` of vectors (mode vector)",
     "one of scalars, a row for each step"),
)  # fmt: skip


@dataclasses.dataclass
class TableFile:
    """The tables of one file.

    Args:
        path: of the file.
        sections: a table for each header.
        settings: what PLUMED's `#! SET` lines give, of the last header.
        periods: name to (low, high), from those lines.
        units: of the columns that state one.
        notes: which rows are left out, and why.
    """

    path: Path
    sections: list[Section]
    settings: dict[str, str]
    periods: dict[str, tuple[float, float]]
    units: dict[str, str]
    notes: list[str]

    @property
    def kind(self) -> str:
        """ "rows" of a run, "HILLS", or what OPES writes: "KERNELS" or "STATE"."""
        names = self.sections[-1].names
        if "height" not in names or not any(name.startswith("sigma_") for name in names):
            return "rows"
        if "logweight" in names:
            return "KERNELS"
        return "STATE" if "zed" in self.settings or "epsilon" in self.settings else "HILLS"


def read_table(path: Path) -> TableFile:
    """Read a file of any program that `polyvae.read_colvar` knows.

    Raises:
        InputError: a file of another kind, a damaged one, rows that do not fit the names.
    """
    with path.open("rb") as file:
        head = file.read(8)
    with reading(path, "a table"):
        if head.startswith(b"PK"):
            return _read_npz(path)
        reader = _Reader(path)
        for block in _blocks(path, head):
            reader.add(block)
        return reader.finish()


def _blocks(path: Path, head: bytes) -> Iterator[bytes]:
    """Whole lines of a file, unpacked, some megabytes at a time."""
    packed: Any = next((unpack for magic, unpack in _PACKED.items() if head.startswith(magic)), None)
    try:
        with (packed or open)(path, "rb") as opened:
            file: BinaryIO = opened  # type: ignore[assignment]
            block = file.read(_BLOCK)
            if block.startswith((b"\xff\xfe", b"\xfe\xff")):
                file = io.BytesIO((block + file.read()).decode("utf-16").encode())
                block = file.read(_BLOCK)
            block = block.removeprefix(b"\xef\xbb\xbf")
            if b"\0" in block[:1000]:
                raise InputError(f"{path}: a table is text or an npz; this is a binary file of another kind")
            while block:
                yield block + file.readline()
                block = file.read(_BLOCK)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the file is cut off or damaged ({error}); pack or save it again") from None


def _marks(block: bytes) -> list[int]:
    """Places of the signs of headers."""
    found = []
    for sign in (b"#", b"@", b"&"):
        at = block.find(sign)
        while at >= 0:
            found.append(at)
            at = block.find(sign, at + 1)
    return sorted(found)


class _Reader:
    """Takes the lines of a file in turn: those of a header, and rows."""

    def __init__(self, path: Path):
        self._path = path
        self._line = 0  # lines so far
        self._signed = False  # a comment, as no person puts above a csv
        self._names: list[str] | None = None  # as `#! FIELDS` has them
        self._comments: list[str] = []
        self._axes: dict[str, str] = {}
        self._legends: dict[int, str] = {}
        self._ended = False  # a set of an xvg
        self._sections: list[Section] = []
        self._settings: dict[str, str] = {}
        self._periods: dict[str, dict[str, str]] = {}
        self._notes: list[str] = []

    def add(self, block: bytes) -> None:
        for section in self._sections:
            section.parse(self._note)
        if not self._sections and not self._comments:
            text = block[:4000].decode(errors="replace")
            for sign, what, instead in _OTHERS:
                if sign.search(text):
                    raise InputError(f"{self._path} is {what}, which frames cannot be weighed by; give {instead}")
        at = 0
        for mark in _marks(block):
            start = block.rfind(b"\n", 0, mark) + 1
            before = block[start:mark]
            if start < at or (block[mark] != ord("#") and before.strip()):
                continue
            end = block.find(b"\n", start) + 1 or len(block)
            self._rows(block[at:start])
            if before.strip() and block.startswith(b"#!", mark):
                self._note("a row that was cut off, before a header, is left out")
            elif before.strip():
                self._rows(before + b"\n")
            self._header(block[mark:end].decode(errors="replace").strip())
            at = end
        self._rows(block[at:])

    def _note(self, text: str) -> None:
        self._notes.append(f"{self._path}: {text}")

    def _rows(self, data: bytes) -> None:
        if not data or data.isspace():
            return
        if self._ended:
            raise InputError(f"{self._path} holds several sets of data, parted by &; give one set in a file")
        if not self._sections or self._sections[-1].closed:
            head, _, rest = data.lstrip().partition(b"\n")
            first = head.decode(errors="replace")
            if not self._sections and self._is_head(first):
                self._comments, data = [first.strip()], rest
                self._line += 1
                first = rest.partition(b"\n")[0].decode(errors="replace")
                if not rest.strip():
                    return
            vectors = _VECTOR.search(first) is not None
            separator = _separator(first)
            self._sections.append(Section(self._path, self._named(first), vectors, separator, self._line))
            self._sections[-1].by_hand = separator != " " and not self._signed
        self._line += self._sections[-1].add(data)

    def _is_head(self, row: str) -> bool:
        """Whether the first line is names, as those of a csv without a sign of comments are."""
        if self._names is not None or self._axes or self._legends:
            return False
        words = _cells(row)
        stated = any(len(_cells(line)) == len(words) for line in self._comments)
        return not stated and not any(map(is_number, words))

    def _header(self, line: str) -> None:
        words, self._line = line.split(), self._line + 1
        self._signed = True
        open_section = self._sections[-1] if self._sections and not self._sections[-1].closed else None
        if words[0] == "#!" and len(words) > 1:
            if words[1] == "FIELDS":
                self._begin(open_section, words[2:])
                self._names = words[2:]
            elif words[1] == "SET" and len(words) > 3:
                self._set(words[2], words[3])
        elif line[0] == "&":
            self._ended = open_section is not None
        elif line[0] == "@":
            if open_section is not None:  # files put together
                open_section.restart()
            if found := _KIND.match(line):
                self._axes["kind"] = found[1].lower()
            elif found := _LEGEND.match(line):
                self._legends[int(found[1])] = found[2]
            elif found := _AXIS.match(line):
                self._axes[found[1]] = found[2]
        elif text := line.lstrip("#").strip():
            cells = _cells(text)
            if open_section is not None and TIME.fullmatch(cells[0]) and not any(map(is_number, cells)):
                same = open_section.stated == cells
                self._begin(open_section, cells if same else None)
                self._comments = [text] if not same else self._comments
            elif len(self._comments) < _COMMENTS:
                self._comments.append(text)

    def _begin(self, section: Section | None, names: list[str] | None) -> None:
        """A header follows the rows of a section: of the same names, or of others."""
        if section is not None:
            section.restart()
            section.closed = section.stated != names or "zed" in self._settings

    def _set(self, key: str, value: str) -> None:
        self._settings[key] = value
        end, _, name = key.partition("_")
        if end in ("min", "max") and name:
            known = self._periods.setdefault(name, {}).setdefault(end, value)
            if known != value and period_end(known) != period_end(value):
                raise InputError(
                    f"{self._path}: {key} is {known} above and {value} below; a column must have one period. "
                    f"Part the file there"
                )

    def _named(self, first: str) -> list[str]:
        """A name for each number of a row: those that were stated, else the first comment of as many words."""
        cells = _cells(first)
        if self._legends or self._axes:
            names = self._of_xvg(len(cells))
        elif self._names is not None:
            names = self._names
        elif self._path.name.endswith(".hills.traj") and len(cells) % 2 == 0:
            # Colvars writes step, centres, widths and height, without a name.
            self._settings["kerneltype"] = "colvars"
            own = [f"cv{k}" for k in range(len(cells) // 2 - 1)]
            names = ["step", *own, *(f"sigma_{name}" for name in own), "height"]
        elif self._path.suffix == ".xvg":
            names = ["time", *(f"y{k}" for k in range(len(cells) - 1))]
        else:
            lines = [_cells(line) for line in self._comments]
            names = next((line for line in lines if len(line) == len(cells)), lines[-1] if lines else [])
        if len(names) != len(cells):
            raise InputError(
                f"{self._path}: the columns must have as many names as numbers, {len(cells)}; got {len(names)}: "
                f"{' '.join(names) or 'none'}. A first line `#! FIELDS time z0 ...` names them"
            )
        return names

    def _of_xvg(self, n: int) -> list[str]:
        axis = self._axes.get("x", "Time (ps)")
        unit = _UNIT.search(axis)
        first = axis[: unit.start()].strip() if unit else axis.strip()
        names = ["time" if first.lower() == "time" else first or "x"]
        if self._axes.get("kind") == "xydy":  # each value is followed by its error
            values = [self._legends.get(k, f"y{k}") for k in range(n // 2)]
            return names + [column for value in values for column in (value, f"{value}_error")]
        return names + [self._legends.get(k, f"y{k}") for k in range(n - 1)]

    def finish(self) -> TableFile:
        for section in self._sections:
            section.parse(self._note, last=True)
        sections = [section for section in self._sections if section.n]
        if not sections:
            raise InputError(
                f"{self._path}: a COLVAR must hold rows of numbers under `#! FIELDS time z0 ...`; got no row"
            )
        if "zed" in self._settings:  # of the states of OPES the last counts
            sections = sections[-1:]
        names = {name for section in sections for name in section.names}
        units = {name: found[1] for name in names if (found := _UNIT.search(name))}
        for name in names:
            if (found := TIME.fullmatch(name)) and (unit := found["unit"] or found["short"]):
                units[name] = unit
        if (found := _UNIT.search(self._axes.get("x", ""))) is not None:
            units[sections[0].names[0]] = found[1]
        if "y" in self._axes:
            labels = [label.strip() for label in self._axes["y"].split(",")]
            of_y = sections[0].names[1:]
            labels = labels if len(labels) == len(of_y) else labels * len(of_y) if len(labels) == 1 else []
            units |= {
                n: found[1] for n, label in zip(of_y, labels, strict=False) if (found := _UNIT.search(label))
            }
        periods = {}
        for name, ends in self._periods.items():
            low, high = (period_end(ends.get(end, "")) for end in ("min", "max"))
            if name in names and not 1e-100 < high - low < 1e100:
                raise InputError(
                    f"{self._path}: the period of {name} must be two numbers, min_{name} below max_{name}; got "
                    f"{ends}. Mend these `#! SET` lines"
                )
            periods[name] = (low, high)
        return TableFile(self._path, sections, self._settings, periods, units, self._notes)


def _separator(row: str) -> str:
    """The sign between columns: a semicolon, beside which numbers may have decimal commas, a comma or blanks."""
    if ";" in row:
        return ";"
    return "," if "," in row and not _VECTOR.search(row) else " "


def _cells(row: str) -> list[str]:
    """The columns of a row; a vector, as Colvars writes it, is one."""
    if (separator := _separator(row)) != " ":
        return [cell.strip() for cell in next(csv.reader([row], delimiter=separator))]
    if '"' in row:
        return next(csv.reader([" ".join(row.split())], delimiter=" "))
    return re.findall(r"\([^)]*\)|\S+", row) if re.search(r"\(\s", row) else row.split()


def is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word


def period_end(word: str) -> float:
    """A number, or PLUMED's multiple of pi; NaN where it is neither."""
    match = re.fullmatch(r"([+-]?)(.*?)\*?pi(?:/(\d+))?", word)
    if match is None:
        return float(word) if is_number(word) and math.isfinite(float(word)) else math.nan
    factor = match[2] or "1"
    if not is_number(factor) or factor[0] in "+-" or match[3] == "0":
        return math.nan
    return float(match[1] + factor) * math.pi / int(match[3] or 1)


def _read_npz(path: Path) -> TableFile:
    found = {}
    for name, array in arrays_of(path).items():
        if array.dtype.kind in "iuf" and array.ndim == 1:
            found[name] = array.astype(np.float64)
        elif array.dtype.kind in "iuf" and array.ndim == 2 and name == "z":
            found |= {f"z{k}": column.astype(np.float64) for k, column in enumerate(array.T)}
    if not found or len({len(values) for values in found.values()}) > 1:
        raise InputError(f"{path}: an npz of collective variables holds rows (n_frames,) of one length by name")
    return TableFile(path, [Section.of(path, found)], {}, {}, {}, [])

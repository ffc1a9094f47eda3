"""Where the frames of a LAMMPS dump are, their steps and times, and the columns of the first one."""

import contextlib
import itertools
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from polyvae.errors import InputError
from polyvae.io.formats import UNPACKING_ERRORS, BytesFile, opened
from polyvae.io.frames import DamagedError

log = logging.getLogger(__name__)

PIECE = 1 << 22  # bytes of text looked at, or turned into numbers, in one go
_HEADER = 200  # more than the lines from the time of a frame to its step
_LONGEST_HEADER = 1 << 16  # of the first frame, which may have many columns
_ATOMS, STEP, _TIME = b"ITEM: ATOMS", b"ITEM: TIMESTEP", b"ITEM: TIME\n"
HEAD = re.compile(
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


class DumpIndex(NamedTuple):
    """The frames of a dump."""

    offsets: np.ndarray  # where each whole frame begins, and the last one ends
    steps: np.ndarray
    times: np.ndarray | None
    head: bytes  # of the first frame
    is_cut: bool  # whether something is cut off after them


def first_frame(path: Path) -> dict[str, np.ndarray]:
    """The columns of the first frame by name, (n_atoms,) each, in the order of ids where there are any.

    `InputError` for a file other than a dump of atoms, and an id that occurs twice; `DamagedError` for a cut line.
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


def index_dump(path: Path) -> DumpIndex:
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
                steps.append(_number(int, found["step"], 0))
                if marker is _TIMED:
                    times.append(_number(float, found["time"], np.nan))
            last.append(text[begin:until])
            base, text = base + until, text[until:]
    end = b"".join(last)
    is_cut = not _is_whole(end)
    if not is_cut and not end.endswith(b"\n"):
        log.info("%s: its last line has no end, and is taken as whole", path)
    n = len(steps) - is_cut
    if n == 0:
        raise DamagedError(path, 0)
    known_times = np.array(times[:n]) if times else None
    return DumpIndex(np.array([*offsets, base][: n + 1]), np.array(steps[:n]), known_times, head, is_cut)


def _next(file: BytesFile) -> bytes:
    """The next bytes of a file, nothing at its end; a packed file that is cut off ends there."""
    try:
        return file.read1(PIECE)
    except UNPACKING_ERRORS:
        return b""


def _number(kind: Callable[[bytes], Any], word: bytes | None, otherwise: float) -> Any:
    """A step or time; one that cannot be read is damage, which reading the frame will find."""
    with contextlib.suppress(ValueError):
        return kind(word) if word else otherwise
    return otherwise


def _is_whole(text: bytes) -> bool:
    """Whether a text is a frame with all its lines; the last one may lack its end, not its words."""
    head = HEAD.match(text)
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

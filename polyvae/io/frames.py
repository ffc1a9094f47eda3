"""The shape of every reader of a trajectory file, the frames that it yields, and its error for damage."""

import contextlib
import ctypes
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from polyvae.errors import InputError
from polyvae.io.formats import opened
from polyvae.trajectory.facts import Facts, not_stated

log = logging.getLogger(__name__)

_ONE_AT_A_TIME = threading.RLock()  # where a worker has threads: the screen is one for all
BLOCK_BYTES = 1 << 21  # of a file looked at in one go; it stays in the processor's cache


class Frames(NamedTuple):
    """Frames as they are in a file."""

    positions: np.ndarray  # (n, n_atoms, 2 or 3), float32 where the format allows
    time: np.ndarray | None = None  # (n,), or None
    box: np.ndarray | None = None  # (n, 3, 3) box vectors as rows, or None
    step: np.ndarray | None = None  # (n,) numbers of MD steps, or None
    weights: np.ndarray | None = None  # (n,) statistical weights, or None
    origin: np.ndarray | None = None  # (n, 2) frame and molecule of another run, or None


class DamagedError(Exception):
    """A file that is whole up to a frame, `n_good`, and not beyond."""

    def __init__(self, path: Path, n_good: int):
        whole = f"the {n_good} frames before it are whole" if n_good else "no frame is whole"
        super().__init__(
            f"{path} is cut off or damaged in frame {n_good} ({whole}); copy the file again or repair it"
            + (", or take those (--keep-good, keep_good=True)" if n_good else "")
        )
        self.n_good = n_good


class TrajectoryFile:
    """A trajectory file, open only while frames are read. The readers of the formats are subclasses.

    Attributes:
        NO_PLACE_FOR: the facts that no file of the format can state.
        usual_unit: the length unit of the format by convention.
        always_3d: whether the format cannot but hold three coordinates.
        seeks: whether frames far into the file cost no reading of those before, also by a copy in another process.
        n_frames, n_atoms: number of whole frames, and of atoms in each.
        facts: what the file states beside its frames.
        is_cut: whether a frame that is cut off or damaged comes after them.
        ids: (n_atoms,) the ids of the first frame in increasing order, where frames are sorted by them.
    """

    NO_PLACE_FOR: tuple[str, ...]
    usual_unit: str
    always_3d, seeks, is_cut = True, False, False
    n_frames: int
    n_atoms: int
    facts: Facts
    ids: np.ndarray | None = None
    _file: Any = None

    def __init__(self, path: Path):
        self.path = path

    def read(self, start: int, stop: int) -> Frames:
        """Frames start to stop - 1; cheapest where each call begins where the last one ended."""
        raise NotImplementedError

    def clock(self) -> np.ndarray | None:
        """Times of all frames, or steps of a file without times, (n_frames,); None without either."""
        raise NotImplementedError

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __getstate__(self):
        return self.__dict__ | {"_file": None}

    def state(self, **facts: Any) -> None:
        """Set the facts; those that the format has no place for are not stated."""
        self.facts = Facts(**facts, **not_stated(*self.NO_PLACE_FOR))

    def bytes_between(self, begin: int, end: int) -> bytes:
        """A part of the file, unpacked where it is packed."""
        if self._file is None:
            self._file = opened(self.path)
        self._file.seek(begin)
        return self._file.read(end - begin)

    def check_count(self, frame: int, n_atoms: int) -> None:
        """Refuse a frame with another number of atoms than the first."""
        if n_atoms != self.n_atoms:
            raise InputError(
                f"{self.path}: frame {frame} holds {n_atoms} atoms, the first {self.n_atoms}; write the same "
                f"atoms in every frame"
            )

    def order_of(self, ids: np.ndarray, first_frame: int) -> np.ndarray:
        """Places (n, n_atoms) that sort the atoms of frames by ids, which must be those of the first frame."""
        order = np.argsort(ids, axis=1)
        same = (np.take_along_axis(ids, order, axis=1) == self.ids).all(axis=1)
        if not same.all():
            raise InputError(
                f"{self.path}: frame {first_frame + int(np.argmin(same))} holds other atoms (id) than the first; "
                f"write the same atoms in every frame"
            )
        return order


def part_of(values: np.ndarray | None, start: int, stop: int) -> np.ndarray | None:
    """Entries of some frames, where there are any."""
    return None if values is None else values[start:stop]


def warn_of_damage(path: Path, n_good: int) -> None:
    """Log that only the frames before the damage are taken."""
    log.warning("%s: cut off or damaged in frame %d; the frames before it are taken", path, n_good)


def existing(path: str | os.PathLike) -> Path:
    """A file that is there and holds something; raises `FileNotFoundError` or `InputError` otherwise."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; check the name")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; was the run that wrote it cut off at once?")
    return path


def short(error: BaseException) -> str:
    """One line of an error's text."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn any error of a decoder into one `InputError`, since decoders raise all kinds of them on damaged files.

    Overflows of numbers are silent, as what they lead to is checked. The cause is kept for `--debug`.
    """
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (InputError, DamagedError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as {kind} ({short(error)}); is it whole, and of that format?"
        ) from error


@contextlib.contextmanager
def quiet_c_library() -> Iterator[None]:
    """Keep what the C readers print about a file off the user's screen; the checks here say it better."""
    flush = ctypes.CDLL(None).fflush
    with _ONE_AT_A_TIME:
        sys.stdout.flush()
        sys.stderr.flush()
        saved = {fd: os.dup(fd) for fd in (1, 2)}
        try:
            with open(os.devnull, "w") as nowhere:
                for fd in saved:
                    os.dup2(nowhere.fileno(), fd)
            yield
        finally:
            flush(None)
            for fd, copy in saved.items():
                os.dup2(copy, fd)
                os.close(copy)

"""Results of every reader of one file, and how it says that the file is damaged."""

import contextlib
import ctypes
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from polyvae.errors import InputError
from polyvae.trajectory.facts import Facts

log = logging.getLogger(__name__)

_ONE_AT_A_TIME = threading.RLock()  # where a worker has threads: the screen is one for all
BLOCK_BYTES = 1 << 21  # of a file looked at in one go; it stays in the processor's cache


class Frames(NamedTuple):
    """Frames as they stand in a file.

    Args:
        positions: (n, n_atoms, 2 or 3), float32 where the format allows.
        time: (n,), or None.
        box: (n, 3, 3) box vectors as rows, or None.
        step: (n,) numbers of MD steps, or None.
        weights: (n,) statistical weights, or None.
        origin: (n, 2) frame and molecule of another run, or None.
    """

    positions: np.ndarray
    time: np.ndarray | None = None
    box: np.ndarray | None = None
    step: np.ndarray | None = None
    weights: np.ndarray | None = None
    origin: np.ndarray | None = None


class TrajectoryFile(Protocol):
    """An open trajectory file.

    Args:
        NO_PLACE_FOR: the facts that no file of the format can state.
        n_frames: whole frames in it.
        n_atoms: atoms in a frame.
        facts: what the file states beside its frames.
        usual_unit: the length unit of the format by convention.
        always_3d: whether the format cannot but hold three coordinates.
        is_cut: whether a frame that is cut off or damaged comes after them.
        seeks: whether frames far into the file cost no reading of those before, also by a copy in another process.
    """

    n_frames: int
    n_atoms: int
    facts: Facts
    usual_unit: str
    always_3d: bool
    is_cut: bool
    seeks: bool

    @property
    def NO_PLACE_FOR(self) -> tuple[str, ...]: ...  # a constant of each class

    def read(self, start: int, stop: int) -> Frames:
        """Frames start to stop - 1; cheapest where each call begins where the last one ended."""

    def clock(self) -> np.ndarray | None:
        """Times of all frames, or step numbers where there are no times, (n_frames,); None where there are
        neither."""

    def close(self) -> None: ...


class DamagedError(Exception):
    """A file that is whole up to a frame, `n_good`, and not beyond."""

    def __init__(self, path: Path, n_good: int):
        whole = f"the {n_good} frames before it are whole" if n_good else "no frame is whole"
        super().__init__(
            f"{path} is cut off or damaged in frame {n_good} ({whole}); copy the file again or repair it"
            + (", or take those (--keep-good, keep_good=True)" if n_good else "")
        )
        self.n_good = n_good


def warn_of_damage(path: Path, n_good: int) -> None:
    """Say that only the frames before the damage are taken."""
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

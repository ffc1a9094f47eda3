"""XTC: decoding by mdtraj, and the checks that its reader leaves out.

A frame is a row of big-endian words: magic number, atom count, step, time, box (9 floats), atom count
again; then bare floats for up to 9 atoms, else precision, 3 smallest and 3 largest integer coordinates, a
table index, the byte count, and that many bytes padded to whole words. The newer magic number has a byte
count of two words.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

from polyvae.errors import InputError
from polyvae.io import processes
from polyvae.io.frames import BLOCK_BYTES, DamagedError, Frames, TrajectoryFile, quiet_c_library
from polyvae.trajectory.facts import IN_FRAMES, OF_ATOMS

_MAGIC, _WIDE_MAGIC = 1995, 2023
_HEADER = 24  # words up to the bytes of the longer header
_TABLE = 73  # entries of the decoder's table of sizes
_KEPT = 1 << 20  # frames whose headers stay in memory
_IN_CACHE = 1 << 16  # coordinates that are looked at together
_MARK = 4096  # frames between two places in the file that are kept

_CHILD = """
import sys
from MDAnalysis.lib.formats.libmdaxdr import XTCFile
with XTCFile(sys.argv[1]) as file:
    file.seek(int(sys.argv[2]))
    for _ in range(int(sys.argv[3])):
        frame = file.read()
        for part, kind in ((frame.x, "f4"), (frame.time, "f4"), (frame.step, "i4"), (frame.box, "f4")):
            sys.stdout.buffer.write(__import__("numpy").asarray(part, kind).tobytes())
        sys.stdout.flush()
"""


class XtcFile(TrajectoryFile):
    """An XTC file; see `frames.TrajectoryFile`. Every frame's structure is checked on opening."""

    NO_PLACE_FOR = OF_ATOMS
    usual_unit, seeks = "nm", True

    def __init__(self, path: Path):
        self.path = path
        self.state(time=IN_FRAMES, time_unit="ps", box=IN_FRAMES)
        start = np.fromfile(path, ">i4", count=2)
        if len(start) < 2 or start[0] not in (_MAGIC, _WIDE_MAGIC) or start[1] < 1:
            raise InputError(f"{path} is not an XTC file (it does not begin with the header of a frame)")
        self.n_atoms, self._wide = int(start[1]), bool(start[0] == _WIDE_MAGIC)
        self._magic = _swapped(int(start[0]))
        self._marks, self.n_frames, whole = [], 0, 0
        headers: list[np.ndarray] | None = []
        times = []
        for at, words in self._scan(0, None):
            if headers is not None and self.n_atoms > 9:
                headers.append(_headers_at(words, at))
            self._marks.extend((whole + at[-self.n_frames % _MARK :: _MARK]).tolist())
            times.append(words[at + 3].byteswap().view(np.float32))
            self.n_frames += len(at)
            whole += len(words)
            headers = headers if self.n_frames <= _KEPT else None  # read again where they are needed
        self._headers = np.concatenate(headers, axis=1) if headers else None
        self._marks.append(whole)
        self.is_cut = 4 * whole != path.stat().st_size
        if not self.n_frames:
            raise DamagedError(path, 0)
        self._times = np.concatenate(times)
        self._at, self._apart = 0, False

    def read(self, start: int, stop: int) -> Frames:
        headers = self._sane_headers(start, stop) if self.n_atoms > 9 else None
        with quiet_c_library():
            if self._file is None or not self._at <= start < self._at + _MARK:
                self._seek(start // _MARK)
            while self._at < start:
                self._decode(min(_MARK, start - self._at))
            positions, time, step, box = self._decode(stop - start)
        if headers is not None:
            self._check_extremes(positions, headers, start)
        return Frames(positions, time.astype(np.float64), box, step)

    def clock(self) -> np.ndarray:
        return self._times

    def __getstate__(self):
        return super().__getstate__() | {"_headers": None}  # read again, for the frames that are wanted

    def _seek(self, mark: int) -> None:
        """Open the file where a place in it was kept."""
        from mdtraj.formats import XTCTrajectoryFile

        self.close()
        self._file, self._at = XTCTrajectoryFile(str(self.path)), mark * _MARK
        if mark:  # without them mdtraj reads all headers for the places of frames
            self._file.offsets = np.broadcast_to(np.int64(4 * self._marks[mark]), self._at + 1)
            self._file.seek(self._at)

    def _decode(self, n: int):
        """The next n frames: positions, times, steps, boxes."""
        self._at += n
        if not self._apart:
            try:
                arrays = self._file.read(n_frames=n)
                if len(arrays[0]) == n:
                    return arrays
            except RuntimeError:
                pass
            self._apart = True
        return self._decode_apart(self._at - n, n)

    def _decode_apart(self, first: int, n: int):
        """Frames by MDAnalysis' decoder, in a process of its own.

        mdtraj gives up on all frames of a call where one is damaged, and on a few sound frames (with
        coordinates that coincide). MDAnalysis' decoder reads those, but crashes on damaged ones.
        """
        words = [sys.executable, "-c", _CHILD, str(self.path), str(first), str(n)]
        child = processes.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        record = np.dtype([("x", "f4", (self.n_atoms, 3)), ("time", "f4"), ("step", "i4"), ("box", "f4", (3, 3))])
        rows = np.frombuffer(child.stdout[: len(child.stdout) // record.itemsize * record.itemsize], record)
        if len(rows) < n:
            raise DamagedError(self.path, first + len(rows))
        assert record.names is not None
        return tuple(np.ascontiguousarray(rows[name]) for name in record.names)

    def _scan(self, first_word: int, n_words: int | None):
        """Block by block, the places of whole frames, in words, and the words that they are places in.

        A block's words reach from its first frame to the end of its last, and hold until the next block; the scan
        ends at the first frame that does not begin where the one before it ended.
        """
        place = first_word
        last = None if n_words is None else first_word + n_words
        size = max(BLOCK_BYTES // 4, 32 * self.n_atoms)
        buffer = np.empty(min(size, self.path.stat().st_size // 4 + 1), np.int32)
        with self.path.open("rb") as file:
            while True:
                count = len(buffer) if last is None else min(len(buffer), last - place)
                file.seek(4 * place)
                words = buffer[: file.readinto(buffer[:count].data) // 4]
                at, end = self._frames_in(words)
                if not len(at):
                    return
                yield at, words[:end]
                place += int(end)

    def _frames_in(self, words: np.ndarray) -> tuple[np.ndarray, int]:
        if self.n_atoms <= 9:
            size = 14 + 3 * self.n_atoms
            at = np.arange(len(words) // size) * size
            good = (words[at] == self._magic) & (words[at + 1] == _swapped(self.n_atoms))
            at = at if good.all() else at[: int(np.argmin(good))]
            return at, len(at) * size
        inner = words[: max(0, len(words) - _HEADER)]
        at = np.flatnonzero(inner == self._magic)
        at = at[words[at + 1] == _swapped(self.n_atoms)]
        n_bytes = words[at + 22 + self._wide].byteswap().astype(np.int64)  # below 2 GB a frame
        end = at + 23 + self._wide + ((n_bytes + 3) >> 2)
        kept = end <= len(words)
        at, end = at[kept], end[kept]
        if len(at) and at[0] == 0 and (end[:-1] == at[1:]).all():
            return at, end[-1]
        # Compressed bytes can look like a header: follow the frames from one to the next.
        follow, place = [], 0
        while (k := int(np.searchsorted(at, place))) < len(at) and at[k] == place:
            follow.append(k)
            place = int(end[k])
        return at[follow], place

    def _sane_headers(self, start: int, stop: int) -> np.ndarray:
        """Precision, extremes and table index of frames, (8, n) words; the decoder crashes on absurd ones."""
        if self._headers is not None:
            headers = self._headers[:, start:stop]
        else:
            mark, after = start // _MARK, min(-(-stop // _MARK), len(self._marks) - 1)
            blocks = self._scan(self._marks[mark], self._marks[after] - self._marks[mark])
            headers = np.concatenate([_headers_at(words, at) for at, words in blocks], axis=1)
            headers = headers[:, start - mark * _MARK :][:, : stop - start]
        precision, table = headers[0].view(np.float32), headers[7]
        with np.errstate(invalid="ignore"):
            good = (precision > 0) & (precision < np.inf) & (table >= 0) & (table < _TABLE)
        good &= (headers[4:7] >= headers[1:4]).all(axis=0)
        if not good.all():
            raise DamagedError(self.path, start + int(np.argmin(good)))
        return headers

    def _check_extremes(self, positions: np.ndarray, headers: np.ndarray, start: int) -> None:
        """Each frame states its smallest and largest coordinates; damage in its bytes mostly changes them."""
        precision = headers[0].view(np.float32).astype(np.float64)
        step = max(1, _IN_CACHE // positions[0].size)
        for first in range(0, len(positions), step):
            part = slice(first, first + step)
            for rows, extremes in zip((slice(1, 4), slice(4, 7)), _extremes(positions[part]), strict=True):
                stated = headers[rows, part]
                apart = np.abs(extremes * precision[part] - stated)
                if apart.max() <= 0.5:
                    continue
                good = (apart <= 0.5 + 4e-7 * np.abs(stated.astype(np.float64))).all(axis=0)  # of single precision
                if not good.all():
                    raise DamagedError(self.path, start + first + int(np.argmin(good)))


def _headers_at(words: np.ndarray, at: np.ndarray) -> np.ndarray:
    return words.take(at + np.arange(14, 22)[:, None]).byteswap()


def _extremes(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest coordinates (3, n_frames).

    They are compared in a copy in which frames or beads, whichever are more, are side by side.
    """
    if positions.shape[1] > positions.shape[0]:
        rows = np.ascontiguousarray(positions.transpose(2, 0, 1))
        return rows.min(axis=2), rows.max(axis=2)
    rows = np.ascontiguousarray(positions.transpose(1, 2, 0))
    return rows.min(axis=0), rows.max(axis=0)


def _swapped(number: int) -> np.int32:
    return np.int32(np.array(number, ">i4").view(np.int32)[()])

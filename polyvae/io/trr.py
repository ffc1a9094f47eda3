"""TRR, by MDAnalysis' decoder: its reader gives up on frames that hold velocities alone."""

from pathlib import Path
from typing import Any

import numpy as np

from polyvae.errors import InputError
from polyvae.io.frames import DamagedError, Frames, log, short
from polyvae.trajectory.facts import IN_FRAMES, Facts, not_stated, stated_if


class TrrFile:
    """A TRR file of GROMACS; see `frames.TrajectoryFile`. Frames without positions are passed over."""

    NO_PLACE_FOR = (
        "length_unit", "periodic", "ids", "images", "masses", "charges", "types", "names", "chains", "residues",
        "bonds", "weights", "segments",
    )  # fmt: skip
    usual_unit, always_3d, seeks = "nm", True, False

    def __init__(self, path: Path):
        self.path = path
        self._file: Any = None
        self._at = 0  # of the next frame in the file
        self._frames: list[int] = []  # numbers in the file of the frames with positions
        self._times: list[float] = []
        self.is_cut, n_all, boxed = False, 0, False
        try:
            file = self._opened()
        except Exception as error:  # whatever damage leads the package to
            raise InputError(f"{path} cannot be read as TRR ({short(error)})") from None
        self.n_atoms = int(file.n_atoms)
        while True:
            try:
                frame = file.read()
            except StopIteration:
                break
            except Exception:
                self.is_cut = True
                break
            if frame.hasx:
                self._frames.append(n_all)
                self._times.append(frame.time)
                boxed |= bool(np.any(frame.box))
            n_all += 1
        self.close()
        self.n_frames = len(self._frames)
        if not self.n_frames:
            raise DamagedError(path, 0)
        if self.n_frames < n_all:
            log.info(
                "%s: %d of %d frames hold no positions and are passed over", path, n_all - self.n_frames, n_all
            )
        self.facts = Facts(time=IN_FRAMES, time_unit="ps", box=stated_if(boxed), **not_stated(*self.NO_PLACE_FOR))

    def _opened(self) -> Any:
        """The file, opened at its begin."""
        from MDAnalysis.lib.formats.libmdaxdr import TRRFile

        self.close()
        self._file, self._at = TRRFile(str(self.path)), 0
        return self._file

    def read(self, start: int, stop: int) -> Frames:
        positions = np.empty((stop - start, self.n_atoms, 3), np.float32)
        box = np.zeros((stop - start, 3, 3), np.float32)
        if self._file is None or self._at > self._frames[start]:
            self._opened()
        for row, wanted in enumerate(self._frames[start:stop]):
            try:
                while self._at <= wanted:
                    frame = self._file.read()
                    self._at += 1
            except (StopIteration, OSError):
                raise DamagedError(self.path, start + row) from None
            positions[row], box[row] = frame.x, frame.box
        return Frames(positions, self.clock()[start:stop], box if self.facts.stated("box") else None)

    def clock(self) -> np.ndarray:
        return np.array(self._times, np.float64)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

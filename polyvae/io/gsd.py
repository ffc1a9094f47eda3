"""GSD of HOOMD-blue, by its own package: MDAnalysis takes the tilts of a box for cosines of its angles."""

from pathlib import Path

import numpy as np

from polyvae.errors import InputError
from polyvae.io.formats import check_installed
from polyvae.io.frames import DamagedError, Frames, short


class GsdFile:
    """A GSD file; see `frames.TrajectoryFile`. Format: https://gsd.readthedocs.io/en/stable/schema-hoomd.html."""

    stated_unit: str | None = None
    usual_unit, always_3d, akma_time = "sigma", True, False
    is_cut = unwrapped = False
    seeks = True

    def __init__(self, path: Path):
        check_installed(path, "GSD")
        self.path = path
        self.extras: dict[str, np.ndarray] = {}
        self._file = None
        file = self._opened()
        self.n_frames = len(file)
        if self.n_frames == 0:
            raise DamagedError(path, 0)
        self.n_atoms = int(file[0].particles.N)
        self.close()  # it is open only while frames are read

    def read(self, start: int, stop: int) -> Frames:
        file = self._opened()
        positions, box = np.empty((stop - start, self.n_atoms, 3), np.float32), np.zeros((stop - start, 3, 3))
        step = np.empty(stop - start, np.int64)
        for k in range(start, stop):
            try:
                frame = file[k]
            except Exception as error:  # whatever damage leads the package to
                raise InputError(f"{self.path} cannot be read on from frame {k} ({short(error)})") from None
            if self.n_atoms != frame.particles.N:
                raise InputError(
                    f"{self.path}: frame {k} holds {frame.particles.N} atoms, the first {self.n_atoms}; write the "
                    f"same atoms in every frame"
                )
            positions[k - start], step[k - start] = frame.particles.position, frame.configuration.step
            x, y, z, xy, xz, yz = map(float, frame.configuration.box)
            box[k - start] = [[x, 0, 0], [xy * y, y, 0], [xz * z, yz * z, z]]
        return Frames(positions, None, box.astype(np.float32) if box.any() else None, step)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self):
        if self._file is None:
            import gsd.hoomd

            try:
                self._file = gsd.hoomd.open(str(self.path), mode="r")
            except Exception as error:
                raise InputError(f"{self.path} cannot be read as GSD ({short(error)})") from None
        return self._file

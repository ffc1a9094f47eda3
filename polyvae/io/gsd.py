"""GSD of HOOMD-blue, by its own package: MDAnalysis takes the tilts of a box for cosines of its angles.

Format: https://gsd.readthedocs.io/en/stable/schema-hoomd.html.
"""

from pathlib import Path
from typing import Any

import numpy as np

from polyvae.errors import InputError
from polyvae.io.formats import check_installed
from polyvae.io.frames import DamagedError, Frames, TrajectoryFile
from polyvae.trajectory.facts import IN_FRAMES, NOT_STATED, stated_array, stated_if


class GsdFile(TrajectoryFile):
    """A GSD file; see `frames.TrajectoryFile`. A box length is 0 along a direction that is not periodic."""

    NO_PLACE_FOR = (
        "length_unit", "time", "time_unit", "ids", "names", "chains", "residues", "weights", "segments",
    )  # fmt: skip
    usual_unit, seeks = "sigma", True

    def __init__(self, path: Path):
        check_installed(path, "GSD")
        self.path = path
        file = self._opened()
        self.n_frames = len(file)
        if self.n_frames == 0:
            raise DamagedError(path, 0)
        first = self._frame(0)
        self.n_atoms = int(first.particles.N)
        lengths = np.asarray(first.configuration.box[:3])
        self.state(
            box=stated_if(lengths.any()),
            periodic=tuple(map(bool, lengths > 0)),
            images=stated_if(first.particles.image is not None and lengths.any() and self._any_image()),
            masses=stated_array(self._chunk("particles/mass")),
            charges=stated_array(self._chunk("particles/charge")),
            types=np.asarray(first.particles.types)[first.particles.typeid],
            bonds=self._bonds(),
        )
        self._steps = self._all_steps()
        self.close()  # it is open only while frames are read

    def read(self, start: int, stop: int) -> Frames:
        positions, box = np.empty((stop - start, self.n_atoms, 3)), np.zeros((stop - start, 3, 3))
        for k in range(start, stop):
            frame, row = self._frame(k), k - start
            self.check_count(k, frame.particles.N)
            x, y, z, xy, xz, yz = map(float, frame.configuration.box)
            if (x > 0, y > 0, z > 0) != self.facts.periodic:
                raise InputError(
                    f"{self.path}: the box lengths of frame {k} are {x:g} {y:g} {z:g}, and other ones are 0 in "
                    f"the first frame; split the file where the box changes"
                )
            box[row] = [[x, 0, 0], [xy * y, y, 0], [xz * z, yz * z, z]]
            positions[row] = frame.particles.position
            if self.facts.images is IN_FRAMES:
                positions[row] += frame.particles.image @ box[row]
        boxed = self.facts.stated("box")
        return Frames(positions, None, box.astype(np.float32) if boxed else None, self._steps[start:stop])

    def clock(self) -> np.ndarray:
        return self._steps

    def _opened(self):
        if self._file is None:
            import gsd.hoomd

            self._file = gsd.hoomd.open(str(self.path), mode="r")
        return self._file

    def _frame(self, k: int):
        return self._opened()[k]

    def _chunk(self, name: str) -> np.ndarray | None:
        """An array of the first frame, or None where the file holds none; the package makes up defaults then."""
        raw = self._opened().file
        return raw.read_chunk(0, name) if raw.chunk_exists(0, name) else None

    def _any_image(self) -> bool:
        raw = self._opened().file
        return any(raw.chunk_exists(k, "particles/image") for k in range(self.n_frames))

    def _all_steps(self) -> np.ndarray:
        raw = self._opened().file
        name = "configuration/step"
        found = [int(raw.read_chunk(k, name)[0]) if raw.chunk_exists(k, name) else 0 for k in range(self.n_frames)]
        return np.array(found)

    def _bonds(self) -> Any:
        """Bonds of the first frame that holds any."""
        raw = self._opened().file
        for k in range(self.n_frames):
            if raw.chunk_exists(k, "bonds/group"):
                return np.asarray(self._frame(k).bonds.group, np.int64).reshape(-1, 2)
        return NOT_STATED

"""NetCDF after Amber's convention, by netCDF4 where it is installed and SciPy otherwise.

MDAnalysis reads by SciPy, which takes neither CDF-5 nor NetCDF-4, and passes over ids and units of LAMMPS.
Convention: https://ambermd.org/netcdf/nctraj.xhtml; LAMMPS' `dump netcdf` follows it.
"""

import contextlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.core.units import LAMMPS, picoseconds
from polyvae.errors import InputError
from polyvae.io.frames import Frames, TrajectoryFile, part_of
from polyvae.trajectory.box import box_vectors
from polyvae.trajectory.facts import NOT_STATED, stated_array, stated_if, understood_length

_CLASSIC = (b"CDF\x01", b"CDF\x02")


class NetcdfFile(TrajectoryFile):
    """An Amber NetCDF trajectory; see `frames.TrajectoryFile`."""

    NO_PLACE_FOR = (
        "periodic", "images", "masses", "charges", "names", "chains", "residues", "bonds", "weights", "segments",
    )  # fmt: skip
    usual_unit = "angstrom"

    def __init__(self, path: Path):
        self.path = path
        with contextlib.closing(self):
            variables = self._opened().variables
            if "coordinates" not in variables:
                raise InputError(f"{path}: a NetCDF trajectory needs coordinates, and this file holds none")
            shape = variables["coordinates"].shape
            self._has_frames = len(shape) == 3  # a restart file holds one frame, without that dimension
            self.n_frames, self.n_atoms = (
                (int(shape[0]), int(shape[1])) if self._has_frames else (1, int(shape[0]))
            )
            if not self.n_frames or not self.n_atoms:
                raise InputError(f"{path} is a NetCDF trajectory of no frames, or of no atoms")
            self._state(variables)

    def _opened(self) -> Any:
        if self._file is not None:
            return self._file
        with self.path.open("rb") as file:
            head = file.read(4)
        if importlib.util.find_spec("netCDF4") is not None:
            import netCDF4

            self._file = netCDF4.Dataset(self.path, "r")
            self._file.set_auto_mask(False)
        elif head in _CLASSIC:
            from scipy.io import netcdf_file

            self._file = netcdf_file(self.path, "r", mmap=False, maskandscale=False)
        else:
            raise InputError(
                f"{self.path}: this version of NetCDF is read with netCDF4, not installed here: pip install "
                f"'polyvae[formats]'"
            )
        return self._file

    def _state(self, variables) -> None:
        unit = _attribute(variables["coordinates"], "units")
        if unit in LAMMPS:  # LAMMPS names its style of units
            unit = LAMMPS[unit][0]
        times = self.clock()
        named = _attribute(variables["time"], "units") if times is not None else None
        named = LAMMPS[named][1] if named in LAMMPS else named or "picosecond"  # the only one of the convention
        ids = self._per_atom(variables, "id")
        self.ids = None if ids is None else np.sort(ids)
        self.state(
            length_unit=understood_length(unit),
            time=stated_if(times is not None),
            time_unit=NOT_STATED if times is None or picoseconds(named) is None else named,
            box=stated_if("cell_lengths" in variables),
            ids=stated_array(self.ids),
            types=stated_array(self._per_atom(variables, "type")),
        )

    def _per_atom(self, variables, name: str) -> np.ndarray | None:
        """Numbers of the atoms in the first frame."""
        if name not in variables:
            return None
        values = np.array(variables[name][:])
        return (values[0] if values.ndim == 2 else values).astype(np.int64)

    def read(self, start: int, stop: int) -> Frames:
        box, variables = None, self._opened().variables
        positions = self._rows(variables["coordinates"], start, stop)
        if "id" in variables and variables["id"].shape[0] == self.n_frames and self._has_frames:
            order = self.order_of(np.array(variables["id"][start:stop]), start)
            positions = np.take_along_axis(positions, order[..., None], axis=1)
        if "cell_lengths" in variables:
            lengths = self._rows(variables["cell_lengths"], start, stop)
            right = np.full_like(lengths, 90.0)
            angles = self._rows(variables["cell_angles"], start, stop) if "cell_angles" in variables else right
            box = box_vectors(lengths, angles)
        return Frames(positions, part_of(self.clock(), start, stop), box)

    def _rows(self, variable, start: int, stop: int) -> np.ndarray:
        """Values of some frames as float64, (n, ...), times the factor that the file states."""
        return _scaled(
            variable, np.array(variable[start:stop] if self._has_frames else variable[:][None], np.float64)
        )

    def clock(self) -> np.ndarray | None:
        variables = self._opened().variables
        if "time" not in variables:
            return None
        values = _scaled(variables["time"], np.atleast_1d(np.array(variables["time"][:], np.float64)))
        return values if len(values) == self.n_frames else None


def _scaled(variable, values: np.ndarray) -> np.ndarray:
    if importlib.util.find_spec("netCDF4") is not None:  # which multiplies by itself
        return values
    return values * float(_attribute(variable, "scale_factor") or 1)


def _attribute(variable, name: str) -> Any:
    """An attribute of a variable, text as text; None where there is none."""
    value = getattr(variable, name, None)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value.strip() if isinstance(value, str) else value

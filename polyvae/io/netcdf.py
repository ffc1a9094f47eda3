"""NetCDF after Amber's convention, by netCDF4 where it is installed and SciPy otherwise.

MDAnalysis reads by SciPy, which takes neither CDF-5 nor NetCDF-4, and passes over ids and units of LAMMPS.
Convention: https://ambermd.org/netcdf/nctraj.xhtml; LAMMPS' `dump netcdf` follows it.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.core.units import LAMMPS, length_of, picoseconds
from polyvae.errors import InputError
from polyvae.io.frames import Frames
from polyvae.trajectory.box import box_vectors
from polyvae.trajectory.facts import NOT_STATED, Facts, NotUnderstood, not_stated, stated_array, stated_if

_CLASSIC = (b"CDF\x01", b"CDF\x02")


class NetcdfFile:
    """An Amber NetCDF trajectory; see `frames.TrajectoryFile`."""

    NO_PLACE_FOR = (
        "periodic", "images", "masses", "charges", "names", "chains", "residues", "bonds", "weights", "segments",
    )  # fmt: skip
    usual_unit, always_3d, seeks, is_cut = "angstrom", True, False, False

    def __init__(self, path: Path):
        self.path = path
        self._file: Any = None
        try:
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
            self.facts = self._facts(variables)
        finally:
            self.close()

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

    def _facts(self, variables) -> Facts:
        unit = _attribute(variables["coordinates"], "units")
        if unit in LAMMPS:  # LAMMPS names its style of units
            unit = LAMMPS[unit][0]
        length: Any = NOT_STATED if unit is None else unit
        if unit is not None and length_of(unit) is None:
            length = NotUnderstood(f"states lengths in {unit!r}, a unit that is not known here; give the unit")
        times = self.clock()
        named = _attribute(variables["time"], "units") if times is not None else None
        named = LAMMPS[named][1] if named in LAMMPS else named or "picosecond"  # the only one of the convention
        ids = self._per_atom(variables, "id")
        return Facts(
            length_unit=length,
            time=stated_if(times is not None),
            time_unit=NOT_STATED if times is None or picoseconds(named) is None else named,
            box=stated_if("cell_lengths" in variables),
            ids=stated_array(None if ids is None else np.sort(ids)),
            types=stated_array(self._per_atom(variables, "type")),
            **not_stated(*self.NO_PLACE_FOR),
        )

    def _per_atom(self, variables, name: str) -> np.ndarray | None:
        """Numbers of the atoms in the first frame."""
        if name not in variables:
            return None
        values = np.array(variables[name][:])
        return (values[0] if values.ndim == 2 else values).astype(np.int64)

    def read(self, start: int, stop: int) -> Frames:
        variables = self._opened().variables
        positions = self._rows(variables["coordinates"], start, stop)
        if "id" in variables and variables["id"].shape[0] == self.n_frames and self._has_frames:
            self._check_ids(np.array(variables["id"][start:stop]), start)
            order = np.argsort(np.array(variables["id"][start:stop]), axis=1)
            positions = np.take_along_axis(positions, order[..., None], axis=1)
        box = None
        if "cell_lengths" in variables:
            lengths = self._rows(variables["cell_lengths"], start, stop)
            right = np.full_like(lengths, 90.0)
            angles = self._rows(variables["cell_angles"], start, stop) if "cell_angles" in variables else right
            box = box_vectors(lengths, angles)
        times = self.clock()
        return Frames(positions, None if times is None else times[start:stop], box)

    def _check_ids(self, ids: np.ndarray, start: int) -> None:
        same = (np.sort(ids, axis=1) == self.facts.ids).all(axis=1)
        if not same.all():
            raise InputError(
                f"{self.path}: frame {start + int(np.argmin(same))} holds other atoms (id) than the first; "
                f"write the same atoms in every frame"
            )

    def _rows(self, variable, start: int, stop: int) -> np.ndarray:
        """Values of some frames as float64, (n, ...), times the factor that the file states."""
        values = np.array(variable[start:stop] if self._has_frames else variable[:][None], np.float64)
        # netCDF4 multiplies by itself.
        if importlib.util.find_spec("netCDF4") is None:
            values *= float(_attribute(variable, "scale_factor") or 1)
        return values

    def clock(self) -> np.ndarray | None:
        variables = self._opened().variables
        if "time" not in variables:
            return None
        variable = variables["time"]
        values = np.atleast_1d(np.array(variable[:], np.float64))
        if importlib.util.find_spec("netCDF4") is None:
            values = values * float(_attribute(variable, "scale_factor") or 1)
        return values if len(values) == self.n_frames else None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _attribute(variable, name: str) -> Any:
    """An attribute of a variable, text as text; None where there is none."""
    value = getattr(variable, name, None)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value.strip() if isinstance(value, str) else value

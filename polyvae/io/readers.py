"""The reader of each format."""

from collections.abc import Callable
from pathlib import Path

from polyvae.errors import InputError
from polyvae.io.dcd import DcdFile
from polyvae.io.dump import DumpFile
from polyvae.io.formats import format_of, is_packed
from polyvae.io.frames import DamagedError, TrajectoryFile, reading
from polyvae.io.gro import GroFile
from polyvae.io.gsd import GsdFile
from polyvae.io.h5md import H5mdFile
from polyvae.io.netcdf import NetcdfFile
from polyvae.io.npz import NpzFile
from polyvae.io.options import ReadOptions
from polyvae.io.other import UniverseFile
from polyvae.io.trr import TrrFile
from polyvae.io.xtc import XtcFile
from polyvae.io.xyz import XyzFile

READERS: dict[str, Callable[[Path], TrajectoryFile]] = {
    "NPZ": NpzFile,
    "XTC": XtcFile,
    "DCD": DcdFile,
    "GRO": GroFile,
    "LAMMPSDUMP": DumpFile,
    "GSD": GsdFile,
    "H5MD": H5mdFile,
    "NCDF": NetcdfFile,
    "TRR": TrrFile,
    "XYZ": XyzFile,
}
_OF_TEXT = ("GRO", "LAMMPSDUMP", "XYZ")  # read from packed files, too


def opened_trajectory(path: Path, options: ReadOptions, n_atoms: int | None = None) -> TrajectoryFile:
    """The file, opened by the reader of its format; some formats need the number of atoms in a frame."""
    name = format_of(path, options.format)
    if path.suffix.lower() == ".npy" and not options.format:
        raise InputError(
            f'{path} is a bare array; save it as npz (numpy.savez, array "positions"), or give the array '
            f"itself in Python (pv.fit(numpy.load(...)))"
        )
    if name in READERS and is_packed(path) and name not in _OF_TEXT:
        raise InputError(f"{path} is packed, and {name} is read unpacked; unpack it first")
    try:
        with reading(path, name or "a trajectory"):
            if name in READERS:
                return READERS[name](path)
            return UniverseFile(path, name, n_atoms, options.length_unit)
    except DamagedError as damage:
        raise InputError(str(damage)) from None

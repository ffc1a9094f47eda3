"""Formats of files by their names: those that MDAnalysis has, and npz; and packed files."""

import bz2
import contextlib
import gzip
import importlib.util
import io
import lzma
import shutil
import weakref
import zlib
from pathlib import Path
from typing import Any

from polyvae.arguments import refusal
from polyvae.errors import InputError
from polyvae.files import temporary_folder

# Names that MDAnalysis does not know, or that are found without importing it.
_OF_SUFFIX = {
    ".npz": "NPZ", ".xtc": "XTC", ".dcd": "DCD", ".gro": "GRO", ".trr": "TRR", ".gsd": "GSD",
    ".lammpstrj": "LAMMPSDUMP", ".lammpsdump": "LAMMPSDUMP", ".dump": "LAMMPSDUMP", ".lmp": "DATA",
    ".xyz": "XYZ", ".extxyz": "XYZ", ".h5md": "H5MD", ".nc": "NCDF", ".ncdf": "NCDF", ".netcdf": "NCDF",
    ".pdb": "PDB",
}  # fmt: skip
# Formats of MDAnalysis that are in memory, or that it only writes.
_NO_FILES = {"CHAIN", "CHEMFILES", "IMD", "MEMORY", "MINIMAL", "OPENMMAPP", "OPENMMSIMULATION", "OPENMMTOPOLOGY"}
_NO_FILES |= {"PARMED", "RDKIT"}
_MAGIC = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_PACKED = (".gz", ".bz2", ".xz")
_READ_WITH = {"GSD": "gsd.hoomd", "H5MD": "h5py", "TNG": "pytng"}
UNPACKING_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)

BytesFile = gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile | io.BufferedReader


def format_of(path: Path, given: str | None = None) -> str:
    """The name of a format, as given or by the suffix of the unpacked file; "" if it is not known."""
    if given is not None:
        return "NCDF" if given.upper() == "NC" else given.upper()
    name = Path(path.stem) if is_packed(path) else path
    if found := _OF_SUFFIX.get(name.suffix.lower()):
        return found
    import MDAnalysis
    from MDAnalysis.lib.util import guess_format

    try:
        found = guess_format(str(name))
    except ValueError:
        return ""
    return found if found in MDAnalysis._READERS or found in MDAnalysis._PARSERS else ""


def is_packed(path: Path) -> bool:
    """Whether a file's name says that it is compressed."""
    return path.suffix.lower() in _PACKED


def check_format(option: str, name: str | None) -> None:
    """Raise `InputError` for the name of an unknown format of trajectories ("format") or of "topology_format"."""
    if name is None:
        return
    import MDAnalysis

    known = {*MDAnalysis._READERS, "NPZ"} if option == "format" else set(MDAnalysis._PARSERS)
    if not isinstance(name, str) or name.upper() not in known - _NO_FILES:
        raise refusal(option, f"one of {', '.join(sorted(known - _NO_FILES))}", name)


def check_installed(path: Path, name: str) -> None:
    """Raise `InputError` where the package that reads a format is not installed."""
    module = _READ_WITH.get(name, "")
    package = module.partition(".")[0]
    if package and importlib.util.find_spec(package) is None:
        extra = package if package == "pytng" else "'polyvae[formats]'"
        raise InputError(f"{path}: {name} is read with {package}, not installed here: pip install {extra}")


def opened(path: Path) -> BytesFile:
    """A file's bytes, unpacked where they are those of gzip, bzip2 or xz."""
    with path.open("rb") as file:
        head = file.read(6)
    unpack: Any = next((unpack for magic, unpack in _MAGIC.items() if head.startswith(magic)), None)
    return path.open("rb") if unpack is None else unpack(path)


class Unpacked:
    """A packed file, unpacked to `path` in a temporary folder that goes with this object; other files stay."""

    def __init__(self, path: Path):
        self.path = path
        if not is_packed(path):
            return
        stack = contextlib.ExitStack()
        weakref.finalize(self, stack.close)
        self.path = stack.enter_context(temporary_folder()) / path.stem
        try:
            with opened(path) as packed, self.path.open("wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 22)
        except UNPACKING_ERRORS as error:
            raise InputError(f"{path} cannot be unpacked ({error}); copy it again") from None

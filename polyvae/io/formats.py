"""Formats of files by their names: those that MDAnalysis has, and npz."""

import gzip
import importlib.util
import io
from pathlib import Path

from polyvae.arguments import refusal
from polyvae.errors import InputError

# Of names that MDAnalysis does not know, or that are told without importing it.
_OF_SUFFIX = {
    ".npz": "NPZ", ".xtc": "XTC", ".dcd": "DCD", ".gro": "GRO",
    ".lammpstrj": "LAMMPSDUMP", ".lammpsdump": "LAMMPSDUMP", ".dump": "LAMMPSDUMP", ".lmp": "DATA",
}  # fmt: skip
# What MDAnalysis counts among its formats and is no file, or a file that it only writes.
_NO_FILES = {"CHAIN", "CHEMFILES", "IMD", "MEMORY", "MINIMAL", "OPENMMAPP", "OPENMMSIMULATION", "OPENMMTOPOLOGY"}
_NO_FILES |= {"PARMED", "RDKIT"}
_PACKED = (".gz", ".bz2")
_READ_WITH = {"GSD": "gsd.hoomd", "H5MD": "h5py"}


BytesFile = gzip.GzipFile | io.BufferedReader


def format_of(path: Path, given: str | None = None) -> str:
    """The name of a file's format: the given one, else by its suffix; "" where that tells nothing."""
    if given is not None:
        return given.upper()
    suffix = path.suffix.lower()
    if suffix == ".gz" and (found := _OF_SUFFIX.get(Path(path.stem).suffix.lower())) == "LAMMPSDUMP":
        return found
    if suffix in _OF_SUFFIX:
        return _OF_SUFFIX[suffix]
    import MDAnalysis
    from MDAnalysis.lib.util import guess_format

    try:
        found = guess_format(str(path))
    except ValueError:
        return ""
    return found if found in MDAnalysis._READERS or found in MDAnalysis._PARSERS else ""


def is_packed(path: Path) -> bool:
    """Whether a file's name says that it is compressed."""
    return path.suffix.lower() in _PACKED


def check_format(option: str, name: str | None) -> None:
    """Raise `InputError` for a name that is no format of trajectories ("format") or of "topology_format"."""
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
        raise InputError(
            f"{path}: {name} is read with {package}, not installed here: pip install 'polyvae[formats]'"
        )


def opened(path: Path) -> BytesFile:
    """A file's bytes, unpacked where they are gzip's."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")

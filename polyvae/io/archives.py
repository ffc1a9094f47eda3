"""npz files as they come from anyone: what they state is checked against their size before memory is taken."""

import math
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np

from polyvae.io.frames import reading

_MOST = 1032  # times that deflate makes anything smaller; with some room for what is short
_ROOM = 1 << 16


def stated_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type that an array in an npz states; raises ValueError for other objects."""
    version = np.lib.format.read_magic(file)  # type: ignore[arg-type]
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(file)  # type: ignore[arg-type]
    if dtype.hasobject:
        raise ValueError(f"array {name!r} holds Python objects")
    if min(shape, default=0) < 0:
        raise ValueError(f"array {name!r} states the shape {shape}")
    return shape, fortran, dtype


def check_sizes(path: Path) -> list[str]:
    """Names of the arrays in an npz; ValueError for one that states more than the file can hold."""
    names = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            name = member.filename.removesuffix(".npy")
            if member.file_size > _MOST * member.compress_size + _ROOM:
                raise ValueError(f"array {name!r} states {member.file_size} bytes, too many for the file")
            with archive.open(member) as file:
                shape, _, dtype = stated_header(file, name)
                size = math.prod(shape) * dtype.itemsize
                if file.tell() + size > member.file_size:
                    raise ValueError(f"array {name!r} states {size} bytes, and the file holds {member.file_size}")
            names.append(name)
    return names


def arrays_of(path: Path, wanted: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of an npz by name: those that are wanted and there, or all; `InputError` for another file."""
    with reading(path, "npz"):
        with path.open("rb") as stream:  # NumPy leaves a file open that it has opened itself and cannot read
            head = stream.read(6)
        if not head.startswith(b"PK"):
            raise ValueError("it is a bare .npy array" if head == b"\x93NUMPY" else "it is no zip file")
        names = check_sizes(path)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names if wanted is None or name in wanted}

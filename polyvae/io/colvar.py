"""Collective variables of frames as tables: PLUMED's COLVAR, csv, npz."""

import contextlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from polyvae import arguments
from polyvae.errors import InputError
from polyvae.files import replacing

_ROWS = 1 << 13  # turned into text at once
# Suffixes that a table may not have: a slip of the name would put it in a trajectory's place.
_NOT_TABLES = (
    ".arc", ".crd", ".dcd", ".dump", ".ent", ".gro", ".gsd", ".h5", ".h5md", ".inpcrd",
    ".lammpstrj", ".mdcrd", ".mol2", ".nc", ".ncdf", ".netcdf", ".npy", ".pdb", ".pdbqt", ".psf",
    ".rst7", ".safetensors", ".tng", ".tpr", ".trj", ".trr", ".trz", ".xtc", ".xyz",
)  # fmt: skip


def check_table_name(path: str | os.PathLike) -> None:
    """Raise `InputError` for the name of a trajectory, a topology or a model."""
    suffix = Path(path).suffix.lower()
    if suffix in _NOT_TABLES:
        raise InputError(f"{path}: a table of latents is no {suffix} file; name it COLVAR, or end in .csv or .npz")


def write_colvar(
    path: str | os.PathLike,
    z: np.ndarray,
    *,
    time: np.ndarray | None = None,
    columns: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write latent coordinates (n_frames, latent_dim) with the time of each frame.

    .csv and .npz by suffix ("time", "z0", "z1", ...; in npz one array "z"); any other name is written
    as PLUMED writes a COLVAR file, `#! FIELDS time z0 z1 ...`. Nine digits, enough to give back every
    float32, and twelve for times. Time is the frame's number where none is known. Always a whole new file,
    never appended to.

    Args:
        columns: further numbers of each frame, (n_frames,), by name, such as {"rg": rg}.

    Raises:
        InputError: columns that do not hold one number a frame, names with blanks or commas, a path that ends as
            a trajectory, a topology or a model does.
    """
    z = arguments.numbers_array("z", z, "an array of numbers (n_frames, latent_dim)", None, finite=False)
    if z.ndim != 2:
        raise InputError(f"z must have shape (n_frames, latent_dim); got {z.shape}")
    if not isinstance(columns, (Mapping, type(None))):
        raise arguments.refusal("columns", 'rows of numbers by name, such as {"rg": rg}', columns)
    columns = dict(columns or {})
    with colvar_writer(path, z.shape[1], list(columns)) as write:
        write(z, time, columns)


@contextlib.contextmanager
def colvar_writer(path: str | os.PathLike, latent_dim: int, columns: Sequence[str] = ()) -> Iterator:
    """A function `write(z, time, columns)` that adds frames to a new table of the kinds of `write_colvar`.

    Memory does not grow with the number of frames. The file appears, whole, when the block ends well.
    """
    path = Path(arguments.file_name("path", path))
    check_table_name(path)
    for name in columns:
        if not name or any(c.isspace() or c == "," or not c.isprintable() for c in name):
            raise InputError(f"the name of a column may not hold blanks, commas or control letters; got {name!r}")
    suffix, n_done = path.suffix.lower(), 0
    with replacing(path) as temporary:
        sink = (_Npz if suffix == ".npz" else _Text)(temporary, suffix, latent_dim, columns)

        def write(z, time=None, values: Mapping[str, np.ndarray] | None = None) -> None:
            nonlocal n_done
            z = np.asarray(z)
            n = len(z)
            time = np.arange(n_done, n_done + n) if time is None else time
            given = {"time": time, **(values or {})}
            rows = {name: arguments.one_each(name, given[name], n, finite=False) for name in ("time", *columns)}
            n_done += n
            sink.write(rows.pop("time"), z, rows)

        with contextlib.closing(sink):
            yield write
            sink.finish()


class _Text:
    def __init__(self, path: Path, suffix: str, latent_dim: int, columns: Sequence[str]):
        self._delimiter = "," if suffix == ".csv" else " "
        names = ["time", *(f"z{k}" for k in range(latent_dim)), *columns]
        header = ",".join(names) if suffix == ".csv" else "#! FIELDS " + " ".join(names)
        self._file = path.open("wb")
        self._file.write(header.encode() + b"\n")

    def write(self, time, z, values) -> None:
        numbers = np.column_stack([time, z, *values.values()])
        line = self._delimiter.join(["%.12g", *["%.9g"] * (numbers.shape[1] - 1)]) + "\n"
        for start in range(0, len(numbers), _ROWS):
            part = numbers[start : start + _ROWS]
            # One format for many rows is four times faster than one for each.
            self._file.write((line * len(part) % tuple(part.ravel().tolist())).encode())

    def finish(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()


class _Npz:
    """Each array grows in a file of its own, since an npz holds one after another."""

    def __init__(self, path: Path, suffix: str, latent_dim: int, columns: Sequence[str]):
        self._path, self._n = path, 0
        self._shapes = {"time": (), "z": (latent_dim,)} | dict.fromkeys(columns, ())
        self._dtypes: dict[str, np.dtype] = {}
        self._files = {name: tempfile.TemporaryFile(dir=path.parent) for name in self._shapes}  # noqa: SIM115

    def write(self, time, z, values) -> None:
        for name, array in {"time": time, "z": z, **values}.items():
            dtype = self._dtypes.setdefault(name, array.dtype)
            self._files[name].write(np.ascontiguousarray(array, dtype).data)
        self._n += len(z)

    def finish(self) -> None:
        with zipfile.ZipFile(self._path, "w") as target:
            for name, file in self._files.items():
                dtype = self._dtypes.get(name, np.dtype(np.float32))
                descr = np.lib.format.dtype_to_descr(dtype)
                shape = (self._n, *self._shapes[name])
                with target.open(f"{name}.npy", "w", force_zip64=True) as member:
                    header = {"descr": descr, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(member, header)
                    file.seek(0)
                    shutil.copyfileobj(file, member, 1 << 20)

    def close(self) -> None:
        for file in self._files.values():
            file.close()

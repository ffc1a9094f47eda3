"""Collective variables of frames as tables: PLUMED's COLVAR, csv, npz."""

import os
from pathlib import Path

import numpy as np

from polyvae.errors import InputError
from polyvae.files import replacing


def write_colvar(path: str | os.PathLike, z: np.ndarray, *, time: np.ndarray | None = None) -> None:
    """Write latent coordinates (n_frames, latent_dim) with the time of each frame.

    .csv and .npz by suffix ("time", "z0", "z1", ...; in npz one array "z"); any other name is written
    as PLUMED writes a COLVAR file, `#! FIELDS time z0 z1 ...`. Nine digits, enough to give back every
    float32. Time is the frame's number where none is known. Always a whole new file, never appended to.
    """
    path, z = Path(path), np.asarray(z)
    if z.ndim != 2:
        raise InputError(f"z must have shape (n_frames, latent_dim); got {z.shape}")
    time = np.arange(len(z), dtype=float) if time is None else np.asarray(time, dtype=float)
    if time.shape != (len(z),):
        raise InputError(f"time must hold one number a frame, {len(z)}; got shape {time.shape}")
    names = ["time", *(f"z{k}" for k in range(z.shape[1]))]
    suffix = path.suffix.lower()
    with replacing(path) as temporary:
        if suffix == ".npz":
            np.savez(temporary, time=time, z=z)
        elif suffix == ".csv":
            _table(temporary, time, z, ",", ",".join(names))
        else:
            _table(temporary, time, z, " ", "#! FIELDS " + " ".join(names))


def _table(path: Path, time: np.ndarray, z: np.ndarray, delimiter: str, header: str) -> None:
    columns = np.column_stack([time, z.astype(np.float64)])
    formats = ["%.10g"] + ["%.9g"] * z.shape[1]
    np.savetxt(path, columns, fmt=formats, delimiter=delimiter, header=header, comments="")

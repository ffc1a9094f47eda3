"""Tables of collective variables, for trajectories of any length."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from polyvae.arguments import functions
from polyvae.batches import map_frames
from polyvae.cv.latent import LatentCV, check_cv
from polyvae.errors import InputError
from polyvae.files import locked
from polyvae.io.colvar import colvar_writer
from polyvae.progress import reports
from polyvae.trajectory.stream import Stream


class TableRows(NamedTuple):
    """Rows of a table: latent coordinates (n, latent_dim), times (n,) or None, further columns (n,) by name."""

    z: np.ndarray
    time: np.ndarray | None
    values: dict[str, np.ndarray]


@reports("projecting", "frame")
def project(
    cv: LatentCV,
    data,
    path: str | os.PathLike,
    *,
    columns: Mapping[str, Callable] | None = None,
    progress: Callable[[int], None] | bool | None = None,
) -> int:
    """Write the latent coordinates of every frame of a trajectory, in constant memory for a `Stream`.

    The kinds of tables are those of `write_colvar`. Where frames show one of many molecules, a column
    "molecule" holds its number, and frames come in order of time, with all molecules of one frame together.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        data: a `Stream`, or what `as_trajectory` takes.
        columns: further numbers of each frame by name: functions of the positions (n_beads, n_dims) of one
            frame, in the model's unit, such as {"rg": polyvae.radius_of_gyration}.
        progress: True for a bar, or a function of the number of frames done since the last call.
        path: file to write: a table of the kind of its suffix, `.csv` or `.npz`, otherwise a COLVAR.

    Returns:
        The number of frames written.

    Raises:
        InputError: data that do not fit the model, a frame whose latent coordinates are not finite, a file that
            another job writes.
    """
    projector = Projector(check_cv(cv), functions("columns", columns))
    rows: Iterable[TableRows]
    if isinstance(data, Stream):
        rows = data.apply(project_chunk, projector)
    else:
        rows = [project_chunk(data, 0, projector)]
    with locked(path):
        return projector.write(path, rows, progress if callable(progress) else None)


@dataclasses.dataclass(frozen=True, eq=False)
class Projector:
    """A model and further columns of a table, functions of one frame that each process compiles once."""

    cv: LatentCV
    columns: dict[str, Callable]

    measures = functools.cached_property(
        lambda self: {name: jax.jit(jax.vmap(measure)) for name, measure in self.columns.items()}
    )

    def __getstate__(self):  # programs cannot go to other processes
        return {"cv": self.cv, "columns": self.columns}

    def write(
        self, path: str | os.PathLike, rows: Iterable[TableRows], progress: Callable[[int], None] | None = None
    ) -> int:
        """Write pieces of rows as one table, which appears when it is whole; returns the number of rows."""
        rows, n_done = iter(rows), 0
        first = next(rows, None)
        if first is None:
            raise InputError("the stream holds no frames; give a trajectory with at least one")
        with colvar_writer(path, self.cv.latent_dim, list(first.values)) as write:
            for piece in itertools.chain([first], rows):
                write(*piece)
                n_done += len(piece.z)
                if progress is not None:
                    progress(len(piece.z))
        return n_done


def project_chunk(chunk, first_frame: int, projector: Projector) -> TableRows:
    """Project a chunk of a trajectory. `first_frame` is the number of its first frame.

    Where frames show one of many molecules, all molecules of one frame come together.
    """
    chunk = projector.cv.as_trajectory(chunk)
    z = projector.cv.encode(chunk.positions, first_frame=first_frame)
    values = {name: map_frames(measure, chunk.positions) for name, measure in projector.measures.items()}
    if chunk.origin is None:
        return TableRows(z, chunk.time, values)
    time = chunk.origin[:, 0] if chunk.time is None else chunk.time
    order = np.lexsort(chunk.origin.T[::-1])
    values = {"molecule": chunk.origin[:, 1]} | values
    return TableRows(z[order], time[order], {name: value[order] for name, value in values.items()})

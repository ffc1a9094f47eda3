"""Collective variables of trajectories of any length, straight into a table."""

import os
from collections.abc import Callable, Mapping

import jax
import numpy as np

from polyvae.arguments import function, functions, if_given
from polyvae.batches import map_frames
from polyvae.cv.latent import LatentCV, latent_cv
from polyvae.io.colvar import colvar_writer
from polyvae.trajectory.record import Trajectory
from polyvae.trajectory.stream import Stream


def project(
    cv: LatentCV,
    data,
    path: str | os.PathLike,
    *,
    columns: Mapping[str, Callable] | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write the latent coordinates of every frame of a trajectory, in constant memory for a `Stream`.

    The kinds of tables are those of `write_colvar`. Where frames show one of many molecules, a column
    "molecule" tells which, and frames come in order of time, with all molecules of one frame together.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        data: a `Stream`, or what `as_trajectory` takes.
        columns: further numbers of each frame by name: functions of the positions (n_beads, n_dims) of one
            frame, in the model's unit, such as {"rg": polyvae.radius_of_gyration}.
        progress: called with the number of frames done since the last call.
        path: file to write; `.csv` and `.npz` by suffix, else a COLVAR.

    Returns:
        The number of frames written.

    Raises:
        InputError: data that do not fit the model, a frame whose latent coordinates are not finite.
    """
    measures = {name: jax.jit(jax.vmap(measure)) for name, measure in functions("columns", columns).items()}
    if_given(function, "progress", progress)
    chunks = map(latent_cv(cv).as_trajectory, data if isinstance(data, Stream) else [data])
    first = next(chunks)
    names = [*(["molecule"] if first.origin is not None else []), *measures]
    n_done = 0
    with colvar_writer(path, cv.latent_dim, names) as write:
        chunk: Trajectory | None = first
        while chunk is not None:
            z = cv.encode(chunk.positions, first_frame=n_done)
            values = {name: map_frames(measure, chunk.positions) for name, measure in measures.items()}
            time = chunk.time
            if chunk.origin is not None:
                values["molecule"] = chunk.origin[:, 1]
                time = chunk.origin[:, 0] if time is None else time
                order = np.lexsort(chunk.origin.T[::-1])
                values = {name: value[order] for name, value in values.items()}
                write(z[order], time[order], values)
            else:
                write(z, time, values)
            n_done += len(chunk)
            if progress is not None:
                progress(len(chunk))
            chunk = next(chunks, None)
    return n_done

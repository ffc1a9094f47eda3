"""Trajectories and weights from the reading options of the command line."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import polyvae as pv
from polyvae.app.console import say
from polyvae.errors import InputError

if TYPE_CHECKING:
    import numpy as np


def as_the_model(reading: dict, cv: "pv.LatentCV") -> dict:
    """Options for reading, where by default the dimensions are the model's, and so is the selection if the
    topology has as many atoms."""
    from polyvae.io.topology import read_topology

    found = reading | {"dims": cv.n_dims if reading["dims"] is None else reading["dims"]}
    trained, topology = cv.template.selection, reading["topology"]
    if trained is None or trained.text is None or topology is None or reading["select"] is not None:
        return found
    if read_topology(topology, None, reading["topology_format"]).n_total != trained.n_atoms:
        return found
    say(f"atoms as in training: {trained.text!r}")
    return found | {"select": trained.text}


def for_reading(reading: dict) -> dict:
    """The options of `pv.read` from those of the command line."""
    return reading | {"unwrap": "auto" if reading["unwrap"] is None else reading["unwrap"]}


def read_files(files, reading: dict) -> "pv.Trajectory":
    """Read a trajectory, and print what was read."""
    traj = pv.read(files, **for_reading(reading))
    say(f"read {traj}")
    return traj


def read_weights(path: Path | None) -> "np.ndarray | None":
    if path is None:
        return None
    import numpy as np

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty file
            weights = np.loadtxt(path, ndmin=1)
    except ValueError as error:
        raise InputError(f"{path}: weights must be one number a line ({error})") from None
    if weights.ndim != 1:
        raise InputError(f"{path}: weights must be one number a line; got {weights.shape[1]} columns")
    return weights


def with_weights(data, weights: "np.ndarray | None"):
    """A trajectory or a stream with the weights, where they are given."""
    if weights is None:
        return data
    from polyvae.trajectory.stream import weighted

    return weighted(data, weights)

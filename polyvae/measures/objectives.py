"""Sizes and shapes of a conformation by name, as options have them."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from polyvae import geometry
from polyvae.batches import map_frames
from polyvae.trajectory.record import Trajectory

OBJECTIVES = {
    "rg": geometry.radius_of_gyration,
    "end_to_end": geometry.end_to_end,
    "asphericity": geometry.asphericity,
    "shape_anisotropy": geometry.shape_anisotropy,
}
_UNWEIGHTED = ("end_to_end",)


def objective_of(name: str, masses: np.ndarray | None) -> Callable:
    """The objective of that name as a function of one frame, weighted by masses (n_beads,) where they differ."""
    if name in _UNWEIGHTED or masses is None:
        return OBJECTIVES[name]
    weighted: Callable = OBJECTIVES[name]
    return functools.partial(weighted, masses=masses)


def values_of(name: str, traj: Trajectory) -> np.ndarray:
    """The objective of that name in each frame (n_frames,), by the masses of the beads."""
    return np.asarray(map_frames(jax.jit(jax.vmap(objective_of(name, traj.unequal_masses))), traj.positions))

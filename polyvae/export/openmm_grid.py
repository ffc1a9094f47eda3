"""A bias on a grid in OpenMM: one force, which asks the compiled kernel once a step."""

import pickle
from collections.abc import Sequence

import numpy as np

from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.export import openmm
from polyvae.export.grid_bias import GridBias
from polyvae.export.particles import pushed_in_engine, too_long


def grid_force(cv: LatentCV, particles: Sequence[int], bias: GridBias, *, system, sigma: float | None = None):
    """`bias_force` of a `GridBias`, which the compiled kernel looks up; it cannot be written to XML.

    Args:
        cv, particles, system, sigma: as for `latent_forces`.
    """
    model, make = openmm.force_maker(cv, particles, system, None, None, sigma)
    return make(_Grid(model, bias), "bias on latents")


class _Grid:
    """A bias on a grid as a function of a state."""

    def __init__(self, model: bytes, bias: GridBias):
        cv, factor, self.known = pickle.loads(model)
        self.n_beads, self.n_dims, self.no_box = cv.n_beads, cv.n_dims, np.zeros((3, 3))
        self.evaluate = pushed_in_engine(cv, factor, self.known, bias)

    def __call__(self, state) -> tuple[float, np.ndarray]:
        positions, box = openmm.positions_of(state, self.n_beads), self.no_box
        if self.known is not None:
            box = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value, np.float64)
        energy, push, whole = self.evaluate(positions, box)
        if not whole:
            raise InputError(too_long(positions, box, self.known, self.n_dims))
        return energy, push

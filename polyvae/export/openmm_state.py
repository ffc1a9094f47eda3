"""Functions of a state that OpenMM's `PythonForce` calls: a latent, a bias, a bias on a grid."""

import functools
import pickle
from collections.abc import Callable

import numpy as np

from polyvae.errors import InputError
from polyvae.export.grid_bias import GridBias
from polyvae.export.particles import in_engine, pushed_in_engine, too_long


class Latent:
    """One latent coordinate as the function of a state that `PythonForce` calls."""

    def __init__(self, model: bytes, index: int):
        self.model, self.index = model, index
        self.joint = joint_of(model)

    def __reduce__(self):
        return Latent, (self.model, self.index)

    def __call__(self, state) -> tuple[float, np.ndarray]:
        _, values, gradients = self.joint.at(state)
        return float(values[self.index]), -gradients[self.index]


class BiasOfLatents:
    """A function of all latents as that of a state."""

    def __init__(self, model: bytes, bias: Callable):
        self.model, self.bias = model, bias
        self.joint = joint_of(model)
        self.none = np.zeros((self.joint.n_beads, 3))

    def __reduce__(self):
        return BiasOfLatents, (self.model, self.bias)

    def __call__(self, state) -> tuple[float, np.ndarray]:
        _, z, gradients = self.joint.at(state)
        energy, slope = self.bias(z)
        if slope is None:
            return float(energy), self.none
        if len(slope) != len(z):
            raise InputError(
                f"the bias must return an energy and a derivative for each of {len(z)} latents; got {len(slope)}"
            )
        forces = gradients[0] * -slope[0]
        for k in range(1, len(z)):
            forces -= slope[k] * gradients[k]
        return float(energy), forces


class Joint:
    """All latents and their gradients, kept for the positions that were seen last."""

    def __init__(self, model: bytes):
        cv, factor, self.known = pickle.loads(model)
        self.n_beads, self.n_dims = cv.n_beads, cv.n_dims
        self.no_box = np.zeros((3, 3))
        self.evaluate = in_engine(cv, factor, self.known)
        self.last = (b"", np.empty(0), np.empty(0))

    def at(self, state) -> tuple[bytes, np.ndarray, np.ndarray]:
        """Return a key of the positions, the latents and their gradients at a `state` of OpenMM."""
        positions, box = positions_of(state, self.n_beads), self.no_box
        key = positions.tobytes()
        if self.known is not None:
            box = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value, np.float64)
            key += box.tobytes()
        last = self.last  # read once: another thread may put its own there
        if last[0] == key:
            return last
        z, gradient, _, whole = self.evaluate(positions, box)
        if not whole:
            raise InputError(too_long(positions, box, self.known, self.n_dims))
        found = self.last = (key, z, gradient)
        return found


def positions_of(state, n_beads: int) -> np.ndarray:
    """Positions (n_beads, 3) of a state in nm, a copy of the engine's. What `getPositions` does about units takes
    longer than the CV, so it is passed over where this OpenMM lets us."""
    try:
        read = state._getVectorAsNumpy
    except AttributeError:
        return np.array(state.getPositions(asNumpy=True)._value, np.float64)
    positions = np.empty((n_beads, 3))
    read(state.Positions, positions)
    return positions


# Copies of a force share nothing but what their bytes lead to here.
joint_of = functools.lru_cache(maxsize=32)(Joint)


class BiasOnGrid:
    """A bias on a grid as a function of a state."""

    def __init__(self, model: bytes, bias: GridBias):
        cv, factor, self.known = pickle.loads(model)
        self.n_beads, self.n_dims, self.no_box = cv.n_beads, cv.n_dims, np.zeros((3, 3))
        self.evaluate = pushed_in_engine(cv, factor, self.known, bias)

    def __call__(self, state) -> tuple[float, np.ndarray]:
        positions, box = positions_of(state, self.n_beads), self.no_box
        if self.known is not None:
            box = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value, np.float64)
        energy, push, whole = self.evaluate(positions, box)
        if not whole:
            raise InputError(too_long(positions, box, self.known, self.n_dims))
        return energy, push

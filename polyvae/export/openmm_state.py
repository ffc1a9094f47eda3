"""Functions of a state that OpenMM's `PythonForce` calls: a latent, a bias, a bias on a grid."""

import functools
import pickle
from collections.abc import Callable

import numpy as np

from polyvae.errors import InputError
from polyvae.export.grid_bias import GridBias
from polyvae.export.particles import InEngine, too_long


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
        self.in_engine = InEngine(cv, factor, self.known)
        self.last = (b"", np.empty(0), np.empty(0))

    def places(self, state) -> tuple[np.ndarray, np.ndarray]:
        """Return positions and, where the molecule is made whole, the box of a `state` of OpenMM."""
        box = self.no_box
        if self.known is not None:
            box = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value, np.float64)
        return positions_of(state, self.n_beads), box

    def at(self, state) -> tuple[bytes, np.ndarray, np.ndarray]:
        """Return a key of the positions, the latents and their gradients at a `state` of OpenMM."""
        positions, box = self.places(state)
        key = positions.tobytes() + box.tobytes()
        last = self.last  # read once: another thread may put its own there
        if last[0] == key:
            return last
        z, gradient, _, is_whole = self.in_engine(positions, box)
        self.check(is_whole, positions, box)
        found = self.last = (key, z, gradient)
        return found

    def pushed(self, state, bias: GridBias) -> tuple[float, np.ndarray]:
        """Return the energy of a bias at a `state` of OpenMM, and what it adds to the forces."""
        positions, box = self.places(state)
        energy, push, is_whole = self.in_engine.pushed(positions, box, bias)
        self.check(is_whole, positions, box)
        return energy, push

    def check(self, is_whole: bool, positions: np.ndarray, box: np.ndarray) -> None:
        """Raise `InputError` for positions with a bond that was too long to make the molecule whole."""
        if not is_whole:
            raise InputError(too_long(positions, box, self.known, self.n_dims))


def positions_of(state, n_beads: int) -> np.ndarray:
    """Return positions (n_beads, 3) of a state in nm, a copy of the engine's.

    `getPositions` spends more time on units than the CV takes; it is passed over where this OpenMM allows it.
    """
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
        self.joint, self.bias = joint_of(model), bias

    def __call__(self, state) -> tuple[float, np.ndarray]:
        return self.joint.pushed(state, self.bias)

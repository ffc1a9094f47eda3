"""OPES on latents as one force of OpenMM, with walls.

The package openmm-opes lets a `CustomCVForce` look up the bias, which evaluates a system of its own in each step
and fits a spline to the whole table whenever a kernel is added: with two latents and narrow kernels that takes ten
times as long as all else. Here it estimates, and a `PythonForce` looks up.

Source: Invernizzi & Parrinello, 10.1021/acs.jpclett.0c00497; the package's documentation.
"""

import copy
from collections.abc import Sequence

import numpy as np
import openmm
from openmm import app, unit
from openmm_opes import OPES

from polyvae.cv.latent import LatentCV
from polyvae.engines.runs import Bias
from polyvae.export.openmm import bias_force

# Points of the table, by the number of latents: a width of the kernels, and along each latent at most. Kernels get
# narrower in a run, to a third of their first width.
_POINTS = ((5, 2000), (3, 300), (2, 40))


class Table:
    """A function on a grid, smooth between its points; outside it is what it is at the edge.

    Along each axis the curve goes through the points, with the slope at each that its two neighbours give (Catmull
    and Rom). All in plain numbers, which for one place are quicker than arrays.

    Args:
        low, high: (n,) first and last point of each axis.
        values: on the grid, four points or more along each of n axes.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, values: np.ndarray):
        self.values = np.ascontiguousarray(values, np.float64)
        steps = (np.asarray(high, float) - low) / (np.array(values.shape) - 1)
        self.axes = [(float(a), float(step), n - 2.0) for a, step, n in zip(low, steps, values.shape, strict=True)]

    def __call__(self, z: Sequence[float]) -> tuple[float, list[float]]:
        """Value and derivatives at a place (n,)."""
        cells, counts = [], []
        for s, (low, step, last) in zip(z, self.axes, strict=True):
            place = (s - low) / step
            at = min(max(place, 1.0), last)
            cell = min(int(at), int(last) - 1)
            cells.append(slice(cell - 1, cell + 3))
            counts.append(_counts(at - cell, (at == place) / step))
        value, *slope = _summed(self.values[tuple(cells)].tolist(), counts)
        return value, slope


def _counts(t: float, by: float) -> tuple:
    """What each of four points counts at t between the inner two, in the value and in its derivative."""
    u = 1.0 - t
    value = (-0.5 * t * u * u, 1.0 + t * t * (1.5 * t - 2.5), 1.0 + u * u * (1.5 * u - 2.5), -0.5 * u * t * t)
    slope = (u * (1.5 * t - 0.5), t * (4.5 * t - 5.0), -u * (4.5 * u - 5.0), -t * (1.5 * u - 0.5))
    return value, tuple(by * part for part in slope)


def _summed(block: list, counts: list) -> list[float]:
    """Value and derivatives of nested lists of four, an axis deep for each of the counts."""
    (a, b, c, d), (da, db, dc, dd) = counts[0]
    deeper = [block] if len(counts) == 1 else zip(*(_summed(part, counts[1:]) for part in block), strict=True)
    first, *others = deeper
    p, q, r, s = first
    each = [a * p + b * q + c * r + d * s, da * p + db * q + dc * r + dd * s]
    return each + [a * p + b * q + c * r + d * s for p, q, r, s in others]


class LatentOPES(OPES):
    """OPES on all latents of a CV, and the walls of a bias.

    Args:
        system: of OpenMM; the force is added to it, in a group of its own.
        cv: whose latents.
        particles: (n_beads,) numbers of the beads.
        bias: range and first width of the kernels, barrier, pace, walls.
        temperature: K.
        kT: kJ/mol.
        sigma: nm per sigma, of a model in reduced units.
    """

    def __init__(self, system, cv: LatentCV, particles, bias: Bias, *, temperature: float, kT: float, sigma=None):
        low, high, n = np.asarray(bias.low, float), np.asarray(bias.high, float), cv.latent_dim
        a_width, most = _POINTS[n - 1]
        points = np.clip(np.ceil(a_width * (high - low) / bias.width), 8, most).astype(int).tolist()
        # What the package would look the bias up by: forces of a system that is never run.
        self._unused, nothing = openmm.System(), openmm.CustomExternalForce("0")
        variables = [
            app.BiasVariable(copy.deepcopy(nothing), low[k], high[k], bias.width[k], False, points[k])
            for k in range(n)
        ]
        super().__init__(self._unused, variables, temperature, bias.barrier * kT, bias.pace, None)
        self._low, self._high = low, high
        self._table = Table(low, high, np.full(points, -bias.barrier * kT))
        self._edges = None
        if bias.walls is not None:
            self._edges = list(zip(*bias.walls.tolist(), (kT * bias.stiffness()).tolist(), strict=True))
        self._last = np.full(n, np.nan), 0.0, 0.0
        force = bias_force(cv, particles, self._on_latents, system=system, sigma=sigma)
        force.setForceGroup(max(set(range(32)) - {other.getForceGroup() for other in system.getForces()}))
        system.addForce(force)
        self._groups = {force.getForceGroup()}

    def _on_latents(self, z: np.ndarray) -> tuple[float, list[float]]:
        """Energy and slope of bias and walls, in plain numbers, which are quicker than arrays at every step."""
        at = z.tolist()
        energy, slope = self._table(at)
        pushed = 0.0
        for k, (low, high, stiffness) in enumerate(self._edges or ()):
            if not low <= at[k] <= high:
                out = at[k] - (high if at[k] > high else low)
                pushed += 0.5 * stiffness * out * out
                slope[k] += stiffness * out
        self._last = z, energy, pushed
        return energy + pushed, slope

    def look(self, context) -> tuple[np.ndarray, float, float]:
        """Latents (latent_dim,), and the energies of bias and walls in kJ/mol, at a context's positions."""
        context.getState(energy=True, groups=self._groups)
        return self._last

    def updateContext(self, context) -> None:
        self._table = Table(self._low, self._high, self.getBias().value_in_unit(unit.kilojoules_per_mole).T)

    def getCollectiveVariables(self, simulation):
        return self.look(simulation.context)[0]

    def getBiasEnergy(self, context):
        return self.look(context)[1] * unit.kilojoules_per_mole

"""OPES on latents as one force of OpenMM, with walls.

The package openmm-opes lets a `CustomCVForce` look up the bias, which evaluates a system of its own in each step
and fits a spline to the whole table whenever a kernel is added: with two latents and narrow kernels that takes ten
times as long as all else. Here it estimates, and a `PythonForce` looks up.

Source: Invernizzi & Parrinello, 10.1021/acs.jpclett.0c00497; the package's documentation.
"""

from collections.abc import Sequence

import numpy as np

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


class Pushed:
    """Energy and slope of a bias and its walls at latents, and what it was asked last.

    Args:
        bias: whose range and walls.
        values: of the bias on a grid over the range, kJ/mol.
        kT: kJ/mol.

    Attributes:
        last: latents (latent_dim,), and the energies of bias and walls there in kJ/mol.
    """

    def __init__(self, bias: Bias, values: np.ndarray, kT: float):
        self.range = np.asarray(bias.low, float), np.asarray(bias.high, float)
        self.fill(values)
        self.edges: list[tuple] = []
        if bias.walls is not None:
            self.edges = list(zip(*bias.walls.tolist(), (kT * bias.stiffness()).tolist(), strict=True))
        self.last = np.full(values.ndim, np.nan), 0.0, 0.0

    def fill(self, values: np.ndarray) -> None:
        self.table = Table(*self.range, values)

    def __call__(self, z: np.ndarray) -> tuple[float, list[float]]:
        at = z.tolist()
        energy, slope = self.table(at)
        walls = 0.0
        for k, (low, high, stiffness) in enumerate(self.edges):
            if not low <= at[k] <= high:
                out = at[k] - (high if at[k] > high else low)
                walls += 0.5 * stiffness * out * out
                slope[k] += stiffness * out
        self.last = z, energy, walls
        return energy + walls, slope


def latent_opes(
    system,
    cv: LatentCV,
    particles: Sequence[int],
    bias: Bias,
    *,
    temperature: float,
    kT: float,
    sigma: float | None = None,
):
    """An `openmm_opes.OPES` on all latents of a CV, with the walls of a bias.

    Its `look(context)` gives latents (latent_dim,), and the energies of bias and walls in kJ/mol, at a context's
    positions.

    Args:
        system: of OpenMM; the force is added to it, in a group of its own.
        cv: whose latents.
        particles: (n_beads,) numbers of the beads.
        bias: range and first width of the kernels, barrier, pace, walls.
        temperature: K.
        kT: kJ/mol.
        sigma: nm per sigma, of a model in reduced units.

    Raises:
        ImportError: no openmm-opes.
        InputError: as `export.openmm.bias_force`.
    """
    import openmm
    from openmm import app, unit
    from openmm_opes import OPES

    a_width, most = _POINTS[cv.latent_dim - 1]
    points = np.clip(np.ceil(a_width * (bias.high - bias.low) / bias.width), 8, most).astype(int)
    pushed = Pushed(bias, np.full(points, -bias.barrier * kT), kT)
    force = bias_force(cv, particles, pushed, system=system, sigma=sigma)
    force.setForceGroup(max(set(range(32)) - {other.getForceGroup() for other in system.getForces()}))
    system.addForce(force)
    groups = {force.getForceGroup()}

    class LatentOPES(OPES):
        def look(self, context) -> tuple[np.ndarray, float, float]:
            context.getState(energy=True, groups=groups)
            return pushed.last

        def updateContext(self, context) -> None:
            pushed.fill(self.getBias().value_in_unit(unit.kilojoules_per_mole).T)

        def getCollectiveVariables(self, simulation):
            return self.look(simulation.context)[0]

        def getBiasEnergy(self, context):
            return self.look(context)[1] * unit.kilojoules_per_mole

    # What the package would look the bias up by: forces of a system that is never run.
    axes = zip(*(array.tolist() for array in (bias.low, bias.high, bias.width, points)), strict=True)
    variables = [app.BiasVariable(openmm.CustomExternalForce("0"), *row, False, n) for *row, n in axes]
    nowhere = openmm.System()
    opes = LatentOPES(nowhere, variables, temperature, bias.barrier * kT, bias.pace, None)
    opes.nowhere = nowhere  # which owns what the package holds on to
    return opes

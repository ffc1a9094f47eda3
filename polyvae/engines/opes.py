"""OPES on latents as one force of OpenMM, with walls.

The package openmm-opes lets a `CustomCVForce` look up the bias, which evaluates a system of its own in each step
and fits a spline to the whole table whenever a kernel is added: with two latents and narrow kernels that takes ten
times as long as all else. Here it estimates, and one `PythonForce` looks up.

Source: Invernizzi & Parrinello, 10.1021/acs.jpclett.0c00497; the package's documentation.
"""

from collections.abc import Sequence

import numpy as np

from polyvae.cv.latent import LatentCV
from polyvae.engines.runs import Bias
from polyvae.export.openmm import grid_force


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
    positions. `felt(simulation)`, right after `step`, gives the same without the kernel that this step added: it
    has not acted yet, and would make those frames weigh too much that kernels are added at.

    Args:
        system: of OpenMM; the force is added to it, in the first group that it uses.
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
    from openmm import unit
    from openmm_opes import OPES

    table = bias.table(kT)
    table.values[:] = -bias.barrier * kT
    force = grid_force(cv, particles, table, system=system, sigma=sigma)
    # Among forces that are integrated: of a group of its own an integrator with fixed groups knows nothing.
    force.setForceGroup(min((other.getForceGroup() for other in system.getForces()), default=0))
    system.addForce(force)
    groups = {force.getForceGroup()}

    class LatentOPES(OPES):
        def look(self, context) -> tuple[np.ndarray, float, float]:
            context.getState(energy=True, groups=groups)
            return table.last

        def felt(self, simulation) -> tuple[np.ndarray, float, float]:
            added = simulation.currentStep % self.frequency == 0  # and looked, before it added
            return table.last if added else self.look(simulation.context)

        def updateContext(self, context) -> None:
            table.values[:] = self.getBias().value_in_unit(unit.kilojoules_per_mole).T

        def getCollectiveVariables(self, simulation):
            return self.look(simulation.context)[0]

        def getBiasEnergy(self, context):
            return self.look(context)[1] * unit.kilojoules_per_mole

    nowhere = openmm.System()  # never run; it owns what the package holds on to
    variables = _unused_variables(bias, table.values.shape)
    opes = LatentOPES(nowhere, variables, temperature, bias.barrier * kT, bias.pace, None)
    opes.nowhere = nowhere
    return opes


def _unused_variables(bias: Bias, points: Sequence[int]) -> list:
    """Return variables by which the package looks the bias up; their forces are of a system that never runs."""
    import openmm
    from openmm import app

    axes = zip(bias.low.tolist(), bias.high.tolist(), bias.width.tolist(), points, strict=True)
    return [app.BiasVariable(openmm.CustomExternalForce("0"), *row, False, n) for *row, n in axes]

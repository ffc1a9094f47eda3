"""The latent coordinates as collective variables of PySAGES, which runs JAX functions inside HOOMD-blue, LAMMPS,
OpenMM, ASE and JAX MD.

Source: the base class of collective variables in PySAGES, `pysages.colvars.core` (github.com/SSAGESLabs/PySAGES).
For code of one's own in JAX nothing is needed: `cv` is a pure function of the positions.
"""

from collections.abc import Sequence

from polyvae.cv import LatentCV
from polyvae.errors import InputError
from polyvae.export.particles import length_factor, particle_numbers


def latent_cvs(
    cv: LatentCV,
    particles: Sequence[int],
    *,
    length_unit: str,
    n_particles: int | None = None,
    sigma: float | None = None,
) -> list:
    """One PySAGES `CollectiveVariable` for each latent coordinate, for any of its sampling methods.

    `function` of each takes the positions of the particles, (n_beads, 3), and gives a scalar. PySAGES computes
    in float64. Molecules must be whole: PySAGES unwraps positions by the image flags of HOOMD-blue and LAMMPS,
    and OpenMM's positions are not wrapped unless a run was started from wrapped ones.

    Args:
        particles: (n_beads,) numbers from 0, in the order of the model's beads. Of a 2-D model z is ignored.
        length_unit: of the engine that PySAGES drives: "nm" (OpenMM), "angstrom" (ASE, LAMMPS in real or metal
            units), or "sigma" (HOOMD-blue and LAMMPS in reduced units).
        n_particles: particles in the system, to check the numbers against.
        sigma: of a model in reduced units, its sigma in the engine's unit where that has one.

    Raises:
        InputError: a model without coordinates; particles of the wrong count, repeated or out of range; units
            that cannot be related; no PySAGES.
    """
    try:
        from pysages.colvars.core import CollectiveVariable
    except ImportError:
        raise InputError(
            "this needs PySAGES, which is not installed, nor on the package index: "
            "pip install git+https://github.com/SSAGESLabs/PySAGES.git"
        ) from None
    numbers = particle_numbers(cv, particles, n_particles)
    factor = length_factor(cv, length_unit, sigma)

    class Latent(CollectiveVariable):
        def __init__(self, index: int):
            super().__init__(numbers)
            self.index = index

        @property
        def function(self):
            return lambda rs: cv(factor * rs[:, : cv.n_dims])[self.index]

    return [Latent(k) for k in range(cv.latent_dim)]

"""Runs in OpenMM, biased by OPES (the package openmm-opes).

Source: Invernizzi & Parrinello, 10.1021/acs.jpclett.0c00497; the OpenMM user guide (openmm.org).
"""

import dataclasses
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.arguments import function, real_number
from polyvae.cv.latent import LatentCV
from polyvae.engines.opes import latent_opes
from polyvae.engines.runs import Bias, Run, Snapshots, bead_trajectory, check_finite, kept_frames
from polyvae.errors import InputError
from polyvae.export.common import particle_numbers
from polyvae.export.particles import InEngine, length_factor, too_long, wholeness


@dataclasses.dataclass(frozen=True)
class OpenMMEngine:
    """An engine of the simulations that a function makes.

    Args:
        make: called without arguments, returns an `openmm.app.Simulation` with positions and without a bias, a
            new one in every call.
        temperature: K, of its thermostat.
        particles: numbers of the beads from 0; by default those of the training data.
        sigma: nm per sigma, for a model in reduced units.

    Raises:
        InputError: no OpenMM, no openmm-opes; in a run, what `export.openmm` refuses, and a run that blows up.
    """

    make: Callable
    _: dataclasses.KW_ONLY
    temperature: float
    particles: Sequence[int] | None = None
    sigma: float | None = None

    def __post_init__(self) -> None:
        function("make", self.make)
        object.__setattr__(self, "temperature", real_number("temperature", self.temperature, above=0))
        try:
            import openmm_opes  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"this needs OpenMM and openmm-opes ({error}): pip install 'polyvae[openmm]'"
            ) from None

    def facts(self) -> dict[str, Any]:
        """Facts that decide the runs, beside the function."""
        particles = None if self.particles is None else [int(number) for number in self.particles]
        return {"particles": particles, "sigma": self.sigma}

    def run(
        self,
        cv: LatentCV,
        *,
        bias: Bias | None,
        start: Snapshots | None,
        steps: int,
        stride: int,
        seed: int,
        folder: Path | None = None,
    ) -> Run:
        """Run with `cv`, `bias`, `start`, `steps`, `stride`, `seed` and `folder`: see `engines.runs.Engine`."""
        import openmm
        from openmm import unit

        kT = (unit.MOLAR_GAS_CONSTANT_R * self.temperature * unit.kelvin).value_in_unit(unit.kilojoule_per_mole)
        simulation = self.make()
        system, opes = simulation.system, None
        numbers = particle_numbers(cv, self.particles, system.getNumParticles())
        if bias is not None:
            given = {"temperature": self.temperature, "kT": kT, "sigma": self.sigma}
            opes = latent_opes(system, cv, numbers, bias, **given)
        self._set_off(simulation, start, seed)
        periodic = system.usesPeriodicBoundaryConditions()
        factor = length_factor(cv, "nm", self.sigma)
        known = wholeness(cv, None, periodic)
        in_engine = InEngine(cv, factor, known)
        n, dt = max(1, steps // stride), simulation.integrator.getStepSize()._value
        kept = kept_frames(n, system.getNumParticles())
        frames, energies, snapshots, boxes = [], np.zeros(n), [], []
        for frame in range(n):
            try:
                if opes is None:
                    simulation.step(stride)
                else:
                    opes.step(simulation, stride)
                    energies[frame] = sum(opes.felt(simulation)[1:])
            except (openmm.OpenMMException, ValueError, FloatingPointError) as error:
                where = f"between steps {frame * stride} and {(frame + 1) * stride}"
                raise InputError(f"the run failed {where}: {error}. Shorten the step where it blew up") from error
            state = simulation.context.getState(positions=True)
            x = state.getPositions(asNumpy=True)._value
            check_finite(x, frame, stride)
            box = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value)
            beads, is_whole = in_engine.whole(x[numbers], box)
            if known is not None and not is_whole:
                raise InputError(too_long(x[numbers], box, known, cv.n_dims))
            frames.append(factor * beads)
            if frame in kept:
                snapshots.append(x.astype(np.float32))
                boxes.append(box)
        traj = bead_trajectory(frames, stride * dt * np.arange(1, n + 1), cv.template, cv.length_unit)
        taken = Snapshots(np.array(snapshots), kept, np.array(boxes) if periodic else None)
        return Run(traj, energies / kT, taken)

    def _set_off(self, simulation, start: Snapshots | None, seed: int) -> None:
        """Put a simulation at its start, with the seed and new velocities."""
        from openmm import unit

        integrator, context = simulation.integrator, simulation.context
        if hasattr(integrator, "setRandomNumberSeed"):
            integrator.setRandomNumberSeed(seed)
        if hasattr(integrator, "getTemperature"):
            bath = integrator.getTemperature().value_in_unit(unit.kelvin)
            if abs(bath - self.temperature) > 0.01:
                raise InputError(
                    f"the thermostat must have the temperature that weights are taken with, {self.temperature:g} "
                    f"K; the simulation's has {bath:g} K"
                )
        state, parameters = context.getState(positions=True), dict(context.getParameters())
        context.reinitialize()  # with the bias, and with the seed, which a state that is kept would undo
        for name, value in parameters.items():
            context.setParameter(name, value)
        box = state.getPeriodicBoxVectors() if start is None or start.box is None else start.box[0]
        context.setPeriodicBoxVectors(*box)
        context.setPositions(state.getPositions() if start is None else start.positions[0])
        context.applyConstraints(1e-6)
        context.setVelocitiesToTemperature(self.temperature, seed)

    def __call__(self, cv: LatentCV, **given) -> Run:
        """`run` of `cv`, with the other arguments `given`."""
        return self.run(cv, **given)


openmm_engine = OpenMMEngine  # as scripts name it


def simulation_maker(
    system: str | os.PathLike,
    structure: str | os.PathLike,
    *,
    temperature: float,
    timestep: float = 0.002,
    friction: float = 1.0,
    platform: str | None = None,
) -> Callable:
    """A function that makes simulations of a serialised system with a Langevin thermostat.

    Args:
        system: the XML file of an `openmm.System`.
        structure: a PDB file of the same particles, for topology and positions.
        temperature: K.
        timestep: ps.
        friction: 1/ps.
        platform: by OpenMM's name; by default the one that OpenMM chooses.

    Raises:
        InputError: files that do not hold what they should, other numbers of particles.
    """
    import openmm
    from openmm import app, unit

    text = Path(system).read_text()
    try:
        loaded = openmm.XmlSerializer.deserialize(text)
    except Exception as error:
        raise InputError(f"{system}: no XML of an openmm.System ({str(error).splitlines()[0]})") from None
    if not isinstance(loaded, openmm.System):
        raise InputError(f"{system}: must hold an openmm.System; got {type(loaded).__name__}")
    try:
        pdb = app.PDBFile(os.fspath(structure))
    except Exception as error:
        raise InputError(f"{structure}: no PDB that OpenMM reads ({error})") from None
    if pdb.topology.getNumAtoms() != loaded.getNumParticles():
        raise InputError(
            f"the structure must be of the system's particles; got {pdb.topology.getNumAtoms()} atoms in "
            f"{structure} and {loaded.getNumParticles()} particles in {system}"
        )

    def make():
        integrator = openmm.LangevinMiddleIntegrator(
            temperature * unit.kelvin, friction / unit.picosecond, timestep * unit.picoseconds
        )
        chosen = [] if platform is None else [openmm.Platform.getPlatformByName(platform)]
        simulation = app.Simulation(pdb.topology, openmm.XmlSerializer.deserialize(text), integrator, *chosen)
        simulation.context.setPositions(pdb.positions)
        return simulation

    return make


def function_in(path: str) -> Callable:
    """The function of `FILE.py:NAME`.

    Raises:
        InputError: no such file or function.
    """
    file, _, name = path.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise InputError(f"a function of a script is named as run.py:make; got {path}")
    if not Path(file).is_file():
        raise FileNotFoundError(f"{file}: no such file")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[Path(file).stem] = module
    sys.path.insert(0, str(Path(file).resolve().parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    found = getattr(module, name, None)
    if not callable(found):
        raise InputError(f"{file} has no function {name}")
    return found

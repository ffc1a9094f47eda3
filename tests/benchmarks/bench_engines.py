"""What a latent CV costs inside an engine: microseconds a step of a 12-bead chain, both latents biased.

A Langevin run of a bead-spring chain with and without a bias on both latents (untrained: the cost does not
depend on the weights), at 32, 64 and 256 units in each of two hidden layers; superposition on a reference. The
difference of the two, taken in turns, is the cost of the CV with its gradient. A missing engine is left out.
Run: python tests/benchmarks/bench_engines.py [steps] [rounds]; pin it to one core to compare with others.

To add an engine: a function that takes a model and gives two functions, each of which runs so many steps, without
and with the bias; and a line in `ENGINES`.
"""

import statistics
import sys
from collections.abc import Callable

import jax
import numpy as np
from common import side_by_side

import polyvae as pv
from polyvae.vae import VAE

WIDTHS = (32, 64, 256)


def model(width: int) -> pv.LatentCV:
    steps = np.random.default_rng(0).normal(size=(200, 12, 3))
    traj = pv.Trajectory(np.cumsum(steps / np.linalg.norm(steps, axis=2, keepdims=True), axis=1), length_unit="nm")
    vae = VAE(36, encoder=(width, width), decoder=(8,), key=jax.random.key(0))
    scale = np.float32(traj.positions.std())
    return pv.LatentCV(pv.Reference().fit(traj), np.zeros(36, np.float32), scale, vae, traj[0], {})


def openmm(cv: pv.LatentCV) -> tuple[Callable[[int], None], Callable[[int], None]]:
    from openmm import Context, CustomCVForce, HarmonicBondForce, LangevinMiddleIntegrator, Platform, System

    from polyvae.export.openmm import latent_forces

    def run(biased: bool) -> Callable[[int], None]:
        system, bonds = System(), HarmonicBondForce()
        for i in range(12):
            system.addParticle(100.0)
            if i:
                bonds.addBond(i - 1, i, 1.0, 500.0)
        system.addForce(bonds)
        if biased:
            bias = CustomCVForce("z0^2 + z1^2")
            for k, force in enumerate(latent_forces(cv, range(12), system=system)):
                bias.addCollectiveVariable(f"z{k}", force)
            system.addForce(bias)
        integrator = LangevinMiddleIntegrator(300, 0.2, 0.01)
        context = Context(system, integrator, Platform.getPlatformByName("CPU"), {"Threads": "1"})
        context.setPositions(np.asarray(cv.template.positions[0], float))
        return lambda n_steps: context.getIntegrator().step(n_steps)  # and keeps the context

    return run(False), run(True)


ENGINES = {"OpenMM": openmm}


def main(n_steps: int = 2000, rounds: int = 5) -> None:
    print(f"microseconds a step, median of {rounds} rounds of {n_steps} steps (no claim)")
    print(f"{'engine':12s}{'hidden':>8s}{'no bias':>10s}{'biased':>10s}{'the CV':>10s}")
    for name, engine in ENGINES.items():
        for width in WIDTHS:
            try:
                runs = dict(zip(("bare", "biased"), engine(model(width)), strict=True))
            except ImportError as error:
                print(f"{name:12s} left out: {error}")
                break
            for run in runs.values():
                run(20)  # compiles
            functions = {key: lambda run=run: run(n_steps) for key, run in runs.items()}
            seconds = side_by_side(functions, rounds)
            bare, biased = (1e6 * np.array(seconds[key]) / n_steps for key in ("bare", "biased"))
            cells = (statistics.median(values) for values in (bare, biased, biased - bare))
            print(f"{name:12s}{width:8d}" + "".join(f"{cell:10.1f}" for cell in cells))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

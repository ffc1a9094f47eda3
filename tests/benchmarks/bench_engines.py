"""What a latent CV costs inside an engine: microseconds a step of a chain of 12 or 100 beads, both latents biased.

A bead-spring chain with and without a bias z0^2 + z1^2 (untrained: the cost does not depend on the weights), at
32, 64 and 256 units in each of two hidden layers; superposition on a reference. The difference of the two, taken
in turns, is the cost of the CV with its gradient. PLUMED is driven from Python, and since it does nothing without
a CV, a restraint on the distance of two beads stands against it there. The kernel in plain C is called for a
thousand frames at a time. A missing engine is left out.
Run: taskset -c 0 python tests/benchmarks/bench_engines.py [rounds] [beads ...]

To add an engine: a function that takes a model and a folder that is not there yet, and gives two functions, each
of which runs so many steps, without and with the bias; and a line in `ENGINES`.
"""

import contextlib
import functools
import itertools
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from common import side_by_side

import polyvae as pv
from polyvae.errors import InputError
from polyvae.export import write
from polyvae.export.c import compiled
from polyvae.vae.network import VAE
from polyvae.vae.scaled import ScaledVAE
from polyvae.vae.settings import ModelRecord

SIZES, WIDTHS = (12, 100), (32, 64, 256)
Runs = tuple[Callable[[int], None], Callable[[int], None]]


def model(width: int, n_beads: int = 12) -> pv.LatentCV:
    steps = np.random.default_rng(0).normal(size=(200, n_beads, 3))
    traj = pv.Trajectory(
        np.cumsum(steps / np.linalg.norm(steps, axis=2, keepdims=True), axis=1), length_unit="sigma"
    )
    vae = VAE(3 * n_beads, encoder=(width, width), decoder=(8,), key=jax.random.key(0))
    scale = np.float32(traj.positions.std())
    scaled = ScaledVAE(jnp.zeros(3 * n_beads), jnp.asarray(scale), vae)
    return pv.LatentCV(pv.Reference().fit(traj), scaled, traj[0], ModelRecord())


def openmm(cv: pv.LatentCV, folder: Path) -> Runs:
    from openmm import Context, CustomCVForce, HarmonicBondForce, LangevinMiddleIntegrator, Platform, System

    from polyvae.export.openmm import latent_forces

    def run(biased: bool) -> Callable[[int], None]:
        system, bonds = System(), HarmonicBondForce()
        for i in range(cv.n_beads):
            system.addParticle(100.0)
            if i:
                bonds.addBond(i - 1, i, 1.0, 500.0)
        system.addForce(bonds)
        if biased:
            bias = CustomCVForce("z0^2 + z1^2")
            for k, force in enumerate(latent_forces(cv, range(cv.n_beads), system=system, sigma=1.0)):
                bias.addCollectiveVariable(f"z{k}", force)
            system.addForce(bias)
        integrator = LangevinMiddleIntegrator(300, 0.2, 0.01)
        context = Context(system, integrator, Platform.getPlatformByName("CPU"), {"Threads": "1"})
        context.setPositions(np.asarray(cv.template.positions[0], float))
        return lambda n_steps: context.getIntegrator().step(n_steps)  # and keeps the context

    return run(False), run(True)


def plumed(cv: pv.LatentCV, folder: Path, latents: str = "z0,z1", **options) -> Runs:
    from plumed import Plumed

    n = cv.n_beads
    write(cv, "plumed", folder, **options)
    text = (folder / "plumed.dat").read_text().replace("PRINT", "# PRINT")
    text = text.replace("INCLUDE FILE=latent.dat", (folder / "latent.dat").read_text())
    text = text.replace("LOAD FILE=./", f"LOAD FILE={folder}/")
    (folder / "biased.dat").write_text(f"{text}RESTRAINT ARG={latents} AT=0,0 KAPPA=2,2\n")
    (folder / "bare.dat").write_text("UNITS NATURAL\nd: DISTANCE ATOMS=1,2\nRESTRAINT ARG=d AT=0 KAPPA=2\n")
    start, rng = np.asarray(cv.template.positions[0], float), np.random.default_rng(0)
    frames = start + 0.01 * rng.normal(size=(100, n, 3))

    def run(name: str) -> Callable[[int], None]:
        engine, masses, charges, step = Plumed(), np.ones(n), np.zeros(n), 0
        forces, virial = np.zeros((n, 3)), np.zeros((3, 3))
        for command in ("setNaturalUnits", ("setNatoms", n), ("setMDEngine", "bench"), ("setTimestep", 0.01),
                        ("setLogFile", os.devnull), ("setPlumedDat", name), "init"):  # fmt: skip
            engine.cmd(*([command] if isinstance(command, str) else command))

        def steps(n_steps: int) -> None:
            nonlocal step
            for _ in range(n_steps):
                step += 1
                engine.cmd("setStep", step)
                engine.cmd("setMasses", masses)
                engine.cmd("setCharges", charges)
                engine.cmd("setPositions", frames[step % 100])
                engine.cmd("setForces", forces)
                engine.cmd("setVirial", virial)
                engine.cmd("calc")

        return steps

    with contextlib.chdir(folder):
        return run("bare.dat"), run("biased.dat")


def plain_c(cv: pv.LatentCV, folder: Path) -> Runs:
    code = compiled(cv)
    start = np.asarray(cv.template.positions[0], float)
    frames = start + 0.01 * np.random.default_rng(0).normal(size=(1000, cv.n_beads, 3))

    def run(n_steps: int) -> None:
        for done in range(0, n_steps, 1000):
            code.frames(frames[: n_steps - done])

    return lambda n_steps: None, run


def colvars(cv: pv.LatentCV, folder: Path) -> Runs:
    if cv.vae.encoder.layers[0].out_features > 64 or cv.n_beads > 12:
        raise InputError("more than the 64 hidden units and few beads up to which its slow derivative is sensible")
    write(cv, "colvars", folder)
    with (folder / "colvars.in").open("a") as file:
        file.write("harmonic {\n colvars z0 z1\n centers 0 0\n forceConstant 2\n}\n")
    with contextlib.chdir(folder):
        bare, biased = chain_in_lammps(cv), chain_in_lammps(cv)
        biased.command(f"fix latent all colvars colvars.in output {folder}/run")
        return steps_of(bare), steps_of(biased)


def lammps(cv: pv.LatentCV, folder: Path) -> Runs:
    from polyvae.export.lammps import attach

    bare, biased = chain_in_lammps(cv), chain_in_lammps(cv)
    attached = attach(biased, cv, lambda z, step: (z @ z, 2 * z))
    run = steps_of(biased)
    return steps_of(bare), lambda n_steps, keep=attached: run(n_steps)


def chain_in_lammps(cv: pv.LatentCV):
    """LAMMPS with the chain, in a box that it does not reach the end of."""
    from polyvae.export.colvars import load_lammps

    engine = load_lammps()(cmdargs=["-log", "none", "-screen", "none"])
    commands = ["units lj", "atom_style bond", "atom_modify map array", "boundary s s s"]
    commands += ["region box block -90 90 -90 90 -90 90", "create_box 1 box bond/types 1 extra/bond/per/atom 2"]
    commands += ["mass 1 100.0"]
    for bead in np.asarray(cv.template.positions[0], float):
        commands.append(f"create_atoms 1 single {' '.join(map(repr, bead.tolist()))}")
    commands += ["bond_style harmonic", "bond_coeff 1 250.0 1.0", "pair_style zero 3.0", "pair_coeff * *"]
    commands += [f"create_bonds single/bond 1 {i} {i + 1}" for i in range(1, cv.n_beads)]
    commands += ["fix move all nve", "fix heat all langevin 2.5 2.5 5.0 1", "timestep 0.01", "thermo 0"]
    engine.commands_list(commands)
    return engine


def steps_of(engine) -> Callable[[int], None]:
    engine.command("run 0")
    return lambda n_steps: engine.command(f"run {n_steps} pre no post no")


ENGINES = {
    "plain C": plain_c,
    "PLUMED native": functools.partial(plumed, dialect="native", latents="latent.z0,latent.z1"),
    "PLUMED text": plumed,
    "OpenMM": openmm,
    "LAMMPS": lammps,
    "Colvars": colvars,
}


def measured(runs: Runs, rounds: int) -> list[np.ndarray]:
    """Microseconds a step without and with the bias, and their difference, in each round of about 0.2 s."""
    for run in runs:
        run(20)  # compiles
    started = time.perf_counter()
    runs[1](20)
    n_steps = int(np.clip(0.2 * 20 / (time.perf_counter() - started), 20, 5000))
    functions = {key: lambda run=run: run(n_steps) for key, run in zip(("bare", "biased"), runs, strict=True)}
    seconds = side_by_side(functions, rounds)
    bare, biased = (1e6 * np.array(seconds[key]) / n_steps for key in ("bare", "biased"))
    return [bare, biased, biased - bare]


def main(rounds: int = 7, *sizes: int) -> None:
    logging.getLogger("polyvae").setLevel(logging.ERROR)  # no data are given, on purpose
    print(f"microseconds a step, median of {rounds} rounds (no claim)")
    heads = f"{'without':>10s}{'biased':>10s}{'the CV':>10s}{'its range':>20s}"
    print(f"{'engine':14s}{'beads':>6s}{'hidden':>8s}{heads}")
    with tempfile.TemporaryDirectory() as folder:
        for n_beads, (name, engine), width in itertools.product(sizes or SIZES, ENGINES.items(), WIDTHS):
            try:
                place = Path(folder, f"{name.replace(' ', '-')}-{n_beads}-{width}")
                costs = measured(engine(model(width, n_beads), place), rounds)
            except (ImportError, InputError) as error:
                print(f"{name:14s}{n_beads:6d}{width:8d}  left out: {error}")
                continue
            cells = "".join(f"{statistics.median(values):10.1f}" for values in costs)
            scatter = f"{min(costs[2]):.1f} to {max(costs[2]):.1f}"
            print(f"{name:14s}{n_beads:6d}{width:8d}{cells}{scatter:>20s}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

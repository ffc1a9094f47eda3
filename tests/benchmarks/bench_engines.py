"""What a latent CV costs inside an engine: microseconds a step of a 12-bead chain, both latents biased.

A Langevin run of a bead-spring chain with and without a bias z0^2 + z1^2 (untrained: the cost does not depend on
the weights), at 32, 64 and 256 units in each of two hidden layers; superposition on a reference. The difference of
the two, taken in turns, is the cost of the CV with its gradient. PLUMED is driven from Python, and what it does
without a CV is the first column; Colvars stands in LAMMPS. A missing engine is left out.
Run: python tests/benchmarks/bench_engines.py [steps] [rounds]; pin it to one core to compare with others.

To add an engine: a function that takes a model and a folder that is not there yet, and gives two functions, each
of which runs so many steps, without and with the bias; and a line in `ENGINES`.
"""

import contextlib
import logging
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from common import side_by_side

import polyvae as pv
from polyvae.errors import InputError
from polyvae.export import write
from polyvae.vae.network import VAE
from polyvae.vae.scaled import ScaledVAE
from polyvae.vae.settings import ModelRecord

WIDTHS = (32, 64, 256)
Runs = tuple[Callable[[int], None], Callable[[int], None]]


def model(width: int) -> pv.LatentCV:
    steps = np.random.default_rng(0).normal(size=(200, 12, 3))
    traj = pv.Trajectory(
        np.cumsum(steps / np.linalg.norm(steps, axis=2, keepdims=True), axis=1), length_unit="sigma"
    )
    vae = VAE(36, encoder=(width, width), decoder=(8,), key=jax.random.key(0))
    scale = np.float32(traj.positions.std())
    scaled = ScaledVAE(jnp.zeros(36), jnp.asarray(scale), vae)
    return pv.LatentCV(pv.Reference().fit(traj), scaled, traj[0], ModelRecord())


def openmm(cv: pv.LatentCV, folder: Path) -> Runs:
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
            for k, force in enumerate(latent_forces(cv, range(12), system=system, sigma=1.0)):
                bias.addCollectiveVariable(f"z{k}", force)
            system.addForce(bias)
        integrator = LangevinMiddleIntegrator(300, 0.2, 0.01)
        context = Context(system, integrator, Platform.getPlatformByName("CPU"), {"Threads": "1"})
        context.setPositions(np.asarray(cv.template.positions[0], float))
        return lambda n_steps: context.getIntegrator().step(n_steps)  # and keeps the context

    return run(False), run(True)


def plumed(cv: pv.LatentCV, folder: Path, to: str = "plumed") -> Runs:
    from plumed import Plumed

    write(cv, to, folder)
    text = (folder / "plumed.dat").read_text().replace("PRINT", "# PRINT")
    (folder / "biased.dat").write_text(f"{text}RESTRAINT ARG=z0,z1 AT=0,0 KAPPA=2,2\n")
    (folder / "bare.dat").write_text("UNITS NATURAL\n")
    start, rng = np.asarray(cv.template.positions[0], float), np.random.default_rng(0)

    def run(name: str) -> Callable[[int], None]:
        engine, masses, charges, step = Plumed(), np.ones(12), np.zeros(12), 0
        for command in ("setNaturalUnits", ("setNatoms", 12), ("setMDEngine", "bench"), ("setTimestep", 0.01),
                        ("setLogFile", os.devnull), ("setPlumedDat", name), "init"):  # fmt: skip
            engine.cmd(*([command] if isinstance(command, str) else command))

        def steps(n_steps: int) -> None:
            nonlocal step
            for _ in range(n_steps):
                step += 1
                x, forces, virial = start + 0.01 * rng.normal(size=(12, 3)), np.zeros((12, 3)), np.zeros((3, 3))
                engine.cmd("setStep", step)
                for what, array in (
                    ("Masses", masses),
                    ("Charges", charges),
                    ("Positions", x),
                    ("Forces", forces),
                ):
                    engine.cmd(f"set{what}", array)
                engine.cmd("setVirial", virial)
                engine.cmd("calc")

        return steps

    sys.modules.pop("polyvae_cv", None)  # pycv's module of another width
    with contextlib.chdir(folder):
        sys.path.insert(0, str(folder))
        runs = run("bare.dat"), run("biased.dat")
        sys.path.remove(str(folder))
    return runs


def pycv(cv: pv.LatentCV, folder: Path) -> Runs:
    return plumed(cv, folder, "pycv")


def colvars(cv: pv.LatentCV, folder: Path) -> Runs:
    from polyvae.export.colvars import load_lammps

    if cv.vae.encoder.layers[0].out_features > 64:
        raise InputError("more hidden units than the 64 up to which its slow derivative is sensible")
    lammps = load_lammps()
    write(cv, "colvars", folder)
    with (folder / "colvars.in").open("a") as file:
        file.write("harmonic {\n colvars z0 z1\n centers 0 0\n forceConstant 2\n}\n")
    beads = [" ".join(map(repr, x.tolist())) for x in np.asarray(cv.template.positions[0], float)]

    def run(bias: str | None) -> Callable[[int], None]:
        engine = lammps(cmdargs=["-log", "none", "-screen", "none"])
        commands = [
            "units lj",
            "atom_style bond",
            "atom_modify map array",
            "region box block -30 30 -30 30 -30 30",
        ]
        commands += ["create_box 1 box bond/types 1 extra/bond/per/atom 2", "mass 1 100.0"]
        commands += [f"create_atoms 1 single {x}" for x in beads]
        commands += ["bond_style harmonic", "bond_coeff 1 250.0 1.0", "pair_style zero 3.0", "pair_coeff * *"]
        commands += [f"create_bonds single/bond 1 {i} {i + 1}" for i in range(1, 12)]
        commands += ["fix move all nve", "fix heat all langevin 2.5 2.5 5.0 1", "timestep 0.01", "thermo 0"]
        engine.commands_list([*commands, *([bias] if bias else []), "run 0"])
        return lambda n_steps: engine.command(f"run {n_steps} pre no post no")

    with contextlib.chdir(folder):
        return run(None), run(f"fix latent all colvars colvars.in output {folder}/run")


ENGINES = {"PLUMED text": plumed, "PLUMED pycv": pycv, "Colvars": colvars, "OpenMM": openmm}


def measured(runs: Runs, n_steps: int, rounds: int) -> list[np.ndarray]:
    """Microseconds a step without and with the bias, and their difference, in each round."""
    for run in runs:
        run(20)  # compiles
    functions = {key: lambda run=run: run(n_steps) for key, run in zip(("bare", "biased"), runs, strict=True)}
    seconds = side_by_side(functions, rounds)
    bare, biased = (1e6 * np.array(seconds[key]) / n_steps for key in ("bare", "biased"))
    return [bare, biased, biased - bare]


def main(n_steps: int = 2000, rounds: int = 5) -> None:
    logging.getLogger("polyvae").setLevel(logging.ERROR)  # no data are given, on purpose
    print(f"microseconds a step, median of {rounds} rounds of {n_steps} steps (no claim)")
    print(f"{'engine':12s}{'hidden':>8s}{'no bias':>10s}{'biased':>10s}{'the CV':>10s}{'its range':>20s}")
    with tempfile.TemporaryDirectory() as folder:
        for name, engine in ENGINES.items():
            for width in WIDTHS:
                try:
                    costs = measured(engine(model(width), Path(folder, f"{name}{width}")), n_steps, rounds)
                except (ImportError, InputError) as error:
                    print(f"{name:12s}{width:8d}  left out: {error}")
                    continue
                cells = "".join(f"{statistics.median(values):10.1f}" for values in costs)
                print(
                    f"{name:12s}{width:8d}{cells}{f'{min(costs[2]):.1f} to {max(costs[2]):.1f}':>20s}", flush=True
                )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

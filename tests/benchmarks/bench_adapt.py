"""Compare rounds of bias and learning (`polyvae adapt`) with OPES on the textbook variable.

    python tests/benchmarks/bench_adapt.py SYSTEM OUT [--seeds 3]
    python tests/benchmarks/bench_adapt.py cost OUT  # of a step, of alanine dipeptide

SYSTEM is `alanine`, `alanine_two`, `valine`, `ring` or `globule`. OUT keeps rounds and references. The systems,
the figures and the attempts that failed are in docs/reference/rounds.md.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import systems

import polyvae as pv
from polyvae.engines.lammps import lammps_engine
from polyvae.engines.openmm import openmm_engine
from polyvae.engines.runs import Bias, Engine

KT = 8.31446e-3 * 300  # kJ/mol
STEPS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Case:
    """What `adapt` is given, and what it is held against.

    Args:
        data: unbiased frames to begin with, of a seed.
        engine: of a seed.
        variable: the textbook variable (n_frames,) of frames.
        cores: its ranges in the two states.
        edges: bins of its free energy.
        reference: that free energy; called once, and kept.
        stride: steps between frames.
        limit: in kT, up to where free energies are compared.
        steps: of each biased run.
    """

    data: Callable[[int], pv.Trajectory]
    engine: Callable[[int], Engine]
    variable: Callable[[np.ndarray], np.ndarray]
    cores: tuple[tuple[float, float], tuple[float, float]]
    edges: np.ndarray
    reference: Callable[[], np.ndarray]
    stride: int
    limit: float = 6.0
    steps: int = STEPS

    def told(self, s: np.ndarray, weights: np.ndarray, reference: np.ndarray | None) -> str:
        """Crossings, the states' difference and how far the free energy is off, in words."""
        one, other = self.cores
        rate = core_crossings(s, one, other) / (len(s) * self.stride / 1e6)
        n = len(s) // 10  # while the bias grows
        s, weights = s[n:], weights[n:]
        shares = [weights[(s > low) & (s < high)].sum() for low, high in self.cores]
        with np.errstate(divide="ignore"):
            text = f"{rate:.1f} crossings per 10^6 steps, difference {-np.log(shares[1] / shares[0]):.2f} kT"
        if reference is None:
            return text
        return f"{text}, rms {off(s, weights, self.edges, reference, self.limit):.2f} kT"


def core_crossings(s, one, other) -> int:
    """From the range `one` to the range `other` or back."""
    state = np.select([(s > one[0]) & (s < one[1]), (s > other[0]) & (s < other[1])], [1, -1])
    return int((np.diff(state[state != 0]) != 0).sum())


def energy_of(s, edges, weights=None) -> np.ndarray:
    with np.errstate(divide="ignore"):
        energy = -np.log(np.histogram(s, edges, weights=weights)[0])
    return energy - energy.min()


def off(s, weights, edges, reference, limit) -> float:
    """Root mean square difference in kT from a reference, where that is low; infinite with a bin empty."""
    deep = reference - reference.min() < limit
    energy = energy_of(s, edges, weights)[deep]
    return float(np.std(energy - reference[deep])) if np.isfinite(energy).all() else np.inf


def watched(engine, look):
    """The engine, which also tells what `look` finds in each biased run, and counts steps."""
    seen = {"steps": 0}

    def run(cv, **given):
        began = time.perf_counter()
        found = engine(cv, **given)
        seen["steps"] += given["steps"]
        if given["bias"] is not None:
            micro = 1e6 * (time.perf_counter() - began) / given["steps"]
            so_far = f"{seen['steps'] / 1e6:.1f}e6 steps so far"
            print(f"    {look(found)}; {micro:.0f} us a step; {so_far}", flush=True)
        return found

    return run


# ------------------------------------------------------------------------------------------------- in OpenMM


def simulation_of(topology, system, start, step: float):
    """On one core, at 300 K; `step` in ps."""
    import openmm
    from openmm import app

    integrator = openmm.LangevinMiddleIntegrator(300, 1.0, step)
    made = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    made.context.setPositions(start)
    return made


def textbook(make, variables, barrier: float, steps: int, stride: int, seed: int):
    """Positions (n_frames, n_atoms, 3) and weights (n_frames,) of OPES on variables, and microseconds a step."""
    from openmm_opes import OPES

    made = make()
    start = made.context.getState(positions=True).getPositions()
    bias = OPES(made.system, variables, 300, barrier, 500, None)
    made.integrator.setRandomNumberSeed(1 + seed)
    made.context.reinitialize()
    made.context.setPositions(start)
    made.context.setVelocitiesToTemperature(300, 1 + seed)
    frames, energy, began = [], [], time.perf_counter()
    for _ in range(steps // stride):
        bias.step(made, stride)
        frames.append(made.context.getState(positions=True).getPositions(asNumpy=True)._value)
        energy.append(bias.getBiasEnergy(made.context)._value)
    energy = np.array(energy)
    return np.array(frames), np.exp((energy - energy.max()) / KT), 1e6 * (time.perf_counter() - began) / steps


def dipeptide(residue: str, two: bool) -> Case:
    import openmm

    topology, system, _, heavy, torsions = systems.dipeptide(residue)
    xml = openmm.XmlSerializer.serialize(system)  # many simulations are made of it
    at = [heavy.index(atom) for atom in torsions[0]]
    stride, cores, edges = systems.EVERY, ((-165, -35), (30, 110)), np.linspace(-180, 180, 61)

    def made(seed: int):
        start = systems.prepared(seed, 0, residue)[0].context.getState(positions=True).getPositions()
        return lambda: simulation_of(topology, openmm.XmlSerializer.deserialize(xml), start, systems.STEP)

    def data(seed: int) -> pv.Trajectory:
        pieces = [systems.alanine_piece(1, basin, 6000, residue) for basin in range(1 + two)]
        return systems.joined(pieces)

    def engine(seed: int) -> Engine:
        return openmm_engine(made(100 + seed), temperature=300, particles=heavy)

    def phi(x: np.ndarray) -> np.ndarray:
        return np.degrees(systems.torsion(x[:, at]))

    def reference() -> np.ndarray:
        counts = 0
        for seed in (900, 901):
            variables = systems.torsion_variables(torsions[:2])
            x, weights, micro = textbook(made(seed), variables, 40.0, 4 * STEPS, stride, seed)
            s = phi(x[:, heavy])
            print(f"phi, psi: {case.told(s, weights, None)}, {micro:.0f} us a step", flush=True)
            n = len(s) // 10
            counts = counts + np.histogram(s[n:], edges, weights=weights[n:] / weights[n:].mean())[0]
        with np.errstate(divide="ignore"):
            return -np.log(counts)

    case = Case(data, engine, phi, cores, edges, reference, stride)
    return case


SIX = np.arange(6)
SIGNS = (-1.0) ** SIX


def pucker(x: np.ndarray) -> np.ndarray:
    """Mean of the sines of the torsions of (n_frames, 6, 3), with signs that alternate: +-0.8 in the chairs."""
    four = np.stack([x[:, (SIX + k) % 6] for k in range(4)], axis=2)
    return (np.sin(systems.torsion(four)) * SIGNS).mean(axis=1)


def chair(torsion: float = 7.0) -> Case:
    """Beads of 14 u, bonds of 0.153 nm, angles of 111 degrees, and torsions (1 + cos 3 phi) times some kJ/mol."""
    import openmm
    from openmm import app

    topology = app.Topology()
    residue = topology.addResidue("RNG", topology.addChain())
    for k in range(6):
        topology.addAtom(f"B{k}", None, residue)

    def system():
        made = openmm.System()
        bonds, angles, torsions = (
            openmm.HarmonicBondForce(),
            openmm.HarmonicAngleForce(),
            openmm.PeriodicTorsionForce(),
        )
        for k in range(6):
            a, b, c, d = ((k + j) % 6 for j in range(4))
            made.addParticle(14.0)
            bonds.addBond(a, b, 0.153, 5e4)
            angles.addAngle(a, b, c, np.radians(111.0), 600.0)
            torsions.addTorsion(a, b, c, d, 3, 0.0, torsion)
        for force in (bonds, angles, torsions):
            made.addForce(force)
        return made

    angle = np.pi / 3 * SIX
    start = np.c_[0.145 * np.cos(angle), 0.145 * np.sin(angle), 0.025 * SIGNS]

    def make():
        made = simulation_of(topology, system(), start, 0.004)
        made.minimizeEnergy()
        return made

    def data(seed: int) -> pv.Trajectory:
        made = make()
        made.integrator.setRandomNumberSeed(1 + seed)
        made.context.reinitialize(preserveState=True)
        made.context.setVelocitiesToTemperature(300, 1 + seed)
        frames = []
        for _ in range(6000):
            made.step(100)
            frames.append(made.context.getState(positions=True).getPositions(asNumpy=True)._value)
        x = np.array(frames)
        bonds = np.stack([SIX, (SIX + 1) % 6], axis=1)
        return pv.Trajectory(x - x.mean(axis=1, keepdims=True), length_unit="nm", bonds=bonds)

    def reference() -> np.ndarray:
        sines = "+".join(
            f"{SIGNS[k]}*sin(dihedral({','.join(f'p{(k + j) % 6 + 1}' for j in range(4))}))" for k in range(6)
        )
        counts = 0
        for seed in (900, 901):
            force = openmm.CustomCompoundBondForce(6, f"({sines})/6")
            force.addBond(list(range(6)), [])
            variable = app.BiasVariable(force, -1.2, 1.2, 0.05, False)
            x, weights, micro = textbook(make, [variable], 60.0, 4 * STEPS, 100, seed)
            print(f"pucker: {case.told(pucker(x), weights, None)}, {micro:.0f} us a step", flush=True)
            counts = counts + np.histogram(pucker(x), case.edges, weights=weights / weights.mean())[0]
        with np.errstate(divide="ignore"):
            return -np.log(counts + counts[::-1])

    case = Case(
        data, lambda seed: openmm_engine(make, temperature=300), pucker, ((-1, -0.6), (0.6, 1)),
        np.linspace(-1, 1, 41), reference, 100,
    )  # fmt: skip
    return case


# ------------------------------------------------------------------------------------------------- in LAMMPS


def globule(folder: Path) -> Case:
    sys.path.append(str(systems.ROOT / "data"))
    import simulate

    chain = dataclasses.replace(simulate.FLAT, epsilon=3.0, equilibration=100_000)
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "in.lammps"
    lines = [line for line in simulate.setup_commands(chain, 1) if not line.startswith("run ")]
    lines = [line.replace("langevin 1.0 1.0 1.0 2", "langevin 1.0 1.0 1.0 ${seed}") for line in lines]
    script.write_text("\n".join(lines) + "\n")
    table = np.loadtxt(systems.ROOT / "data" / "globule_rg.csv", delimiter=",", skiprows=1)

    def data(seed: int) -> pv.Trajectory:
        x = simulate.simulate(simulate.DataSet(chain, 100 + seed, 2000, 500, ()), "unbiased")[..., :2]
        bonds = np.stack([np.arange(11), np.arange(1, 12)], axis=1)
        return pv.Trajectory(x, length_unit="sigma", bonds=bonds)

    def reference() -> np.ndarray:
        with np.errstate(divide="ignore"):
            return -np.log(table[:, 2:].sum(axis=1))

    return Case(
        data, lambda seed: lammps_engine(script, temperature=1.0),
        lambda x: np.sqrt((x**2).sum(axis=2).mean(axis=1)), ((1.3, 1.5), (2.0, 3.5)),
        np.r_[table[:, 0], table[-1, 1]], reference, 500, limit=9.0, steps=4 * STEPS,
    )  # fmt: skip


def cost(steps: int = 20_000, turns: int = 7) -> None:
    """Microseconds of processor time a step of alanine dipeptide takes, in turns, without setting up."""
    import openmm

    topology, system, _, heavy, torsions = systems.dipeptide()
    frames = systems.alanine_piece(1, 0, 400)
    start = systems.prepared(1, 0)[0].context.getState(positions=True).getPositions()
    xml = openmm.XmlSerializer.serialize(system)

    def make():
        return simulation_of(topology, openmm.XmlSerializer.deserialize(xml), start, systems.STEP)

    engine = openmm_engine(make, temperature=300, particles=heavy)
    cv = pv.fit(frames, lag=0, epochs=2)  # its weights cost nothing else

    def latents(biased) -> Callable[[int], object]:
        z = biased.transform(frames)
        low, high = z.min(axis=0), z.max(axis=0)
        bias = Bias(low - 1, high + 1, np.full(biased.latent_dim, 0.1), 16.0, 500, np.stack([low, high]))
        return lambda n: engine(biased, bias=bias, start=None, steps=n, stride=systems.EVERY, seed=1)

    kinds: dict[str, Callable[[int], object]] = {
        "plain": lambda n: engine(cv, bias=None, start=None, steps=n, stride=systems.EVERY, seed=1),
        "phi, psi": lambda n: textbook(make, systems.torsion_variables(torsions[:2]), 40.0, n, systems.EVERY, 1),
        "one latent": latents(cv.keep([0])),
        "two latents": latents(cv.keep([0, 1])),
    }

    def seconds(run, n: int) -> float:
        began = time.process_time()
        run(n)
        return time.process_time() - began

    found: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(1 + turns):
        for name, run in kinds.items():
            micro = 1e6 * (seconds(run, steps + 1000) - seconds(run, 1000)) / steps
            if turn:  # the first one compiles
                found[name].append(micro)
    plain = np.array(found["plain"])
    for name, each in found.items():
        ratio = np.array(each) / plain
        print(f"{name:12s} {np.median(each):6.1f} us a step, {np.median(ratio):.2f} times a plain one "
              f"({ratio.min():.2f} to {ratio.max():.2f})")  # fmt: skip


CASES = {
    "alanine": lambda out: dipeptide("ALA", False),
    "alanine_two": lambda out: dipeptide("ALA", True),
    "valine": lambda out: dipeptide("VAL", False),
    "ring": lambda out: chair(),
    "globule": globule,
}


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("system", choices=[*CASES, "cost"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args(argv)
    if args.system == "cost":
        return cost()
    out = args.out / args.system
    out.mkdir(parents=True, exist_ok=True)
    case = CASES[args.system](out)
    kept = args.out / f"{args.system.removesuffix('_two')}_reference.npy"
    if not kept.exists():
        np.save(kept, case.reference())
    reference = np.load(kept)

    def look(run) -> str:
        return case.told(case.variable(run.traj.positions), np.exp(run.bias - run.bias.max()), reference)

    for seed in range(args.first, args.first + args.seeds):
        print(f"{args.system}, seed {seed}", flush=True)
        began = time.perf_counter()
        found = pv.adapt(
            case.data(seed),
            watched(case.engine(seed), look),
            out / f"seed_{seed}",
            steps=case.steps,
            stride=case.stride,
            rounds=args.rounds,
            seed=seed,
            progress=lambda line: print("  " + line, flush=True),
        )
        rms = off(case.variable(found.biased.positions), found.biased.weights, case.edges, reference, case.limit)
        print(f"  {len(found.biased)} frames together: rms {rms:.2f} kT", flush=True)
        print(f"  {time.perf_counter() - began:.0f} s in all; converged: {found.converged}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

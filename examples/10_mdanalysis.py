"""You learn to use a CV inside MDAnalysis: train on an `AtomGroup`, compute the latents as one more analysis
beside those that MDAnalysis has, select frames by them, and write these with MDAnalysis itself.

`polyvae.mdanalysis.LatentAnalysis` is an `AnalysisBase`: it takes `start`, `stop`, `step` and a backend, and
leaves its numbers in `results`. Lengths are MDAnalysis' Å; the chain of data/ is in sigma, of which one stands
for 10 Å in its PDB and for 1 nm in its XTC, so that both agree.

    python 10_mdanalysis.py [--quick] [--out FOLDER]
"""

# %%
import matplotlib.pyplot as plt
import MDAnalysis as mda
import numpy as np
from common import BLUE, DATA, GREY, ORANGE, OUT, QUICK, save
from MDAnalysis.analysis.base import AnalysisFromFunction

import polyvae as pv
from polyvae import plot
from polyvae.mdanalysis import LatentAnalysis

# %%
universe = mda.Universe(DATA / "chain3d.pdb", DATA / "chain3d.xtc")
beads = universe.select_atoms("name B")
print(f"{universe}, {len(universe.trajectory):,} frames")

# %% [markdown]
# `pv.fit`, `cv.transform` and `pv.score` take the group as it is. (An mdtraj trajectory or an array would do as
# well.)

# %%
step = 6 if QUICK else 1
traj = pv.as_trajectory(beads)[::step]
brief = {"epochs": 3, "encoder": (16,), "decoder": (32,), "featurizer": pv.PairDistances(every=4)} if QUICK else {}
cv = pv.fit(traj, seed=0, **brief)
print(cv)

# %% [markdown]
# Two analyses over the same frames, polyvae's and one of MDAnalysis. For long runs:
# `run(backend="multiprocessing", n_workers=4)`, in a script that is guarded by `if __name__ == "__main__":`.
# Expect the same bits as from `cv.transform`.

# %%
latent = LatentAnalysis(beads, cv).run(step=step)
rg = AnalysisFromFunction(lambda group: group.radius_of_gyration(), beads).run(step=step).results.timeseries
z, time = latent.results.latent, latent.results.times
print(f"latents {z.shape}, equal to cv.transform: {np.array_equal(z, cv.transform(traj))}")
for k, column in enumerate(z.T):
    print(f"z{k}: correlation with MDAnalysis' radius of gyration {np.corrcoef(column, rg)[0, 1]:+.2f}")

# %% [markdown]
# Frames by their latents: those nearest to the middle of the plane, written by MDAnalysis. Expect all of them to
# be of much the same size, while the run as a whole is not.

# %%
k = int(np.argmax([abs(np.corrcoef(column, rg)[0, 1]) for column in z.T]))
near = np.sort(np.argsort(np.abs(z[:, k] - np.median(z[:, k])))[: len(z) // 10])
OUT.mkdir(parents=True, exist_ok=True)
beads.write(OUT / "middle.xtc", frames=universe.trajectory[(step * near).tolist()])
again = mda.Universe(DATA / "chain3d.pdb", OUT / "middle.xtc")
print(f"middle.xtc: {len(again.trajectory)} frames; Rg {rg[near].mean():.1f} ± {rg[near].std():.1f} Å,", end=" ")
print(f"all frames {rg.mean():.1f} ± {rg.std():.1f} Å")

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12.6, 3.9), width_ratios=[1.1, 1.2, 1])
plot.latent_values(z, rg, label="radius of gyration (Å), by MDAnalysis", ax=left)
left.set_title("The latents of an AtomGroup")
shown = slice(0, 120)
middle.plot(time[shown] / 1000, z[shown, k], color=BLUE, lw=1)
middle.set_ylabel(f"z{k}", color=BLUE)
middle.set(xlabel="time (ns; 1 τ stands for 1 ps)", title="Both analyses, the first 120 frames")
other = middle.twinx()
other.plot(time[shown] / 1000, rg[shown], color=ORANGE, lw=1)
other.spines["right"].set_visible(True)
other.set_ylabel("radius of gyration (Å)", color=ORANGE)
if np.corrcoef(z[:, k], rg)[0, 1] < 0:
    other.invert_yaxis()
bins = np.linspace(rg.min(), rg.max(), 40)
right.hist(rg, bins, density=True, color=GREY, alpha=0.35, label="all frames")
right.hist(rg[near], bins, density=True, histtype="step", color=BLUE, lw=1.4, label=f"a tenth, by z{k}")
right.set(xlabel="radius of gyration (Å)", ylabel="density", title="Frames selected by the latent")
right.legend()
save(figure, "10_mdanalysis")

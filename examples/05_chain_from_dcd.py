"""You learn to read what an MD engine writes (a DCD with its topology, in reduced units), to choose an alignment
that does not jump, to tell what the latents mean and how good they are on a run held out, and to write them as
COLVAR.

The data are data/chain3d.dcd and chain3d.pdb, a chain of 24 beads in three dimensions from LAMMPS. A DCD says
nothing of its unit, and readers take Å; these are sigma, so the script says so. The model remembers, and
converts.

    python 05_chain_from_dcd.py [--quick] [--out FOLDER]
"""

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
from common import DATA, OUT, QUICK, save

import polyvae as pv
from polyvae import plot

# %%
reading = {"topology": DATA / "chain3d.pdb", "length_unit": "sigma", "step": 6 if QUICK else 1}
traj = pv.read(DATA / "chain3d.dcd", **reading)
heldout = pv.read(DATA / "chain3d_heldout.dcd", **reading)
print(traj)

# %% [markdown]
# Which alignment? A superposition on the mean structure seldom jumps; principal axes need no reference, and
# change places where two extents of the chain are equal; distances of pairs cannot jump. `pv.fit` without
# `featurizer=` tries them in this spirit and says what it took.
#
# The frames of this run are far apart, as good as independent, so there is no slow motion to learn from: a time
# lag would be 0 by default. (`07_alanine_dipeptide.py` has one.)

# %%
choice = {"epochs": 3, "encoder": (16,), "decoder": (32,)} if QUICK else {}
models = {}
for featurizer in (
    [pv.PairDistances(every=4)] if QUICK else [pv.Reference(), pv.PairDistances(), pv.PrincipalAxes()]
):
    name = type(featurizer).__name__
    models[name] = cv = pv.fit(traj, featurizer=featurizer, lag=0, seed=0, **choice)
    frames = pv.score(cv, heldout, alternatives=False).frames.all
    print(
        f"{name}: explains {frames.fve:.1%} of the variance of the held-out run, {frames.n_jumps} jumps,", end=" "
    )
    print(f"largest gradient of a latent {max(frames.gradient_max):.2f} / σ")
cv = models["PairDistances" if QUICK else "Reference"]

# %% [markdown]
# What do the latents mean? Correlations with what one knows. Expect one of them to follow the size of the chain,
# with a correlation of 0.9 or more.

# %%
z = cv.transform(heldout)
known = {
    "Rg (σ)": pv.radius_of_gyration,
    "end to end (σ)": pv.end_to_end,
    "contacts": lambda x: pv.contacts(x, 1.5),
}
values = {name: np.asarray(jax.jit(jax.vmap(function))(heldout.positions)) for name, function in known.items()}
for name, value in values.items():
    found = [np.corrcoef(value, column)[0, 1] for column in z.T]
    print(f"correlation with {name:15s}", ", ".join(f"z{k} {r:+.2f}" for k, r in enumerate(found)))

# %% [markdown]
# A table of latents for PLUMED's tools or a spreadsheet, with further columns; and the model as one file, which
# gives the same numbers wherever it is loaded.

# %%
OUT.mkdir(parents=True, exist_ok=True)
pv.write_colvar(OUT / "COLVAR", z, time=heldout.time, columns={"rg": values["Rg (σ)"]})
cv.save(OUT / "chain3d.safetensors")
same = np.array_equal(pv.load(OUT / "chain3d.safetensors").transform(heldout), z)
print(f"COLVAR: {(OUT / 'COLVAR').read_text().splitlines()[0]}; the loaded model gives the same bits: {same}")

# %% [markdown]
# The latent plane by three observables, and one frame from each end of the way from compact to stretched.

# %%
figure = plt.figure(figsize=(12.6, 6.6))
top, bottom = figure.subfigures(2, 1, height_ratios=[1.7, 1])
for ax, (name, value) in zip(top.subplots(1, 3), values.items(), strict=True):
    plot.latent_values(z, value, label=name, ax=ax)
    ax.set_title(f"Held-out frames by {name.split(' (')[0]}")
order = np.argsort(values["Rg (σ)"])
shown = [order[int(q * (len(order) - 1))] for q in (0.02, 0.5, 0.98)]
aligned = cv.align(heldout)[shown]
titles = [f"Rg {values['Rg (σ)'][k]:.2f} σ, z = ({z[k, 0]:+.2f}, {z[k, 1]:+.2f})" for k in shown]
plot.structures(aligned, titles, bonds=traj.bonds, axes=bottom.subplots(1, 3))
save(figure, "05_chain_from_dcd")

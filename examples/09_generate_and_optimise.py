"""You learn to draw new conformations and to judge them (against the data's own noise), to decode a path between
two frames, to relax what the decoder gives, and to search for a structure with any property that you can write
in JAX.

Two latents make a good CV and a poor generator: what they do not hold is averaged away. So a second network, a
diffusion model beside the CV, draws conformations; the CV stays as it is. The chain is that of `04_polymer.py`.

    python 09_generate_and_optimise.py [--quick] [--out FOLDER]
"""

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import BLUE, DATA, GREY, ORANGE, OUT, QUICK, save
from scipy.stats import gaussian_kde

import polyvae as pv
from polyvae import plot

# %%
traj = pv.read(DATA / "chain2d.npz", step=8 if QUICK else 1)
brief = {"epochs": 3, "encoder": (16,), "decoder": (32,), "featurizer": pv.PrincipalAxes()} if QUICK else {}
cv = pv.fit(traj, seed=0, **brief)
decoded = pv.sample(cv, len(traj), seed=1)  # as long as there is no generator: the decoder's draws, with its noise
cv = pv.fit_generator(cv, traj, seed=0, **({"steps": 100, "width": 32, "depth": 2} if QUICK else {}))
drawn = pv.sample(cv, len(traj), seed=1)

# %% [markdown]
# How good are the draws? Distances between ensembles (Wasserstein-1, in σ), beside that of two random halves of
# the data. Expect the generator within a factor of two of that floor, and the decoder beyond it by far in the
# bonds. `check_conformations` counts how many keep within the limits of bonds and pairs that the data have.

# %%
for name, ensemble in {"decoder": decoded, "generator": drawn}.items():
    found = pv.score(cv, traj, generated=ensemble, alternatives=False).generated
    apart = ", ".join(f"{key} {found[key]:.3f} ({found.noise_floor[key]:.3f})" for key in ("bond", "rg", "pairs"))
    inside = pv.check_conformations(ensemble, traj)
    print(f"{name}: {apart}; {inside.valid.mean():.0%} within the limits of the data")
OUT.mkdir(parents=True, exist_ok=True)
pv.write(OUT / "generated.xtc", drawn)

# %% [markdown]
# The way from the most stretched frame to the most compact one, along where the data are dense. The decoder's
# conformations are means, with bonds too short; relaxing mends them. Expect bonds of 0.99 σ after it, as in the
# data.

# %%
rg = np.asarray(jax.vmap(pv.radius_of_gyration)(traj.positions))
ends = traj.positions[[rg.argmax(), rg.argmin()]]
path = pv.interpolate(cv, *ends, 6, along="data", data=traj)
relaxed = pv.relax(path.conformations, traj)


def bond_lengths(frames):
    return np.linalg.norm(np.diff(frames.positions, axis=1), axis=2)


print(f"bonds: data {bond_lengths(traj).mean():.3f} σ", end="; ")
for name, frames in {"decoded path": path.conformations, "relaxed": relaxed.conformations}.items():
    print(f"{name} {bond_lengths(frames).min():.3f} to {bond_lengths(frames).max():.3f} σ", end="; ")
print(f"moved by {relaxed.moved.mean():.2f} σ RMSD")

# %% [markdown]
# An objective of one's own, any JAX function of one frame: here a ring, the two ends 1.1 σ apart in a chain that
# is otherwise wide. Expect a value below that of every frame, and valid bonds.


# %%
def open_ring(x):
    return 5 * (pv.end_to_end(x) - 1.1) ** 2 - pv.radius_of_gyration(x)


best = pv.optimize(
    cv, objective=open_ring, start=traj, **({"n_starts": 2, "steps": 30, "refine_steps": 100} if QUICK else {})
)
found = best.structure.positions[0]
print(
    f"ring: ends {jnp.linalg.norm(found[0] - found[-1]):.2f} σ apart, Rg {pv.radius_of_gyration(found):.2f} σ;",
    end=" ",
)
print(f"objective {best.value:.2f}, best frame {best.extreme_value:.2f}; valid: {best.valid}")

# %% [markdown]
# Above: the path. Below: distances in data and draws, and the ring.

# %%


def bonds_of(frames):
    return bond_lengths(frames).ravel()[:: max(1, len(frames) // 500)]


def ends_of(frames):
    return np.asarray(jax.vmap(pv.end_to_end)(frames.positions))


figure = plt.figure(figsize=(12.6, 6.0))
top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.9])
path_rg = [float(pv.radius_of_gyration(x)) for x in relaxed.conformations.positions]
titles = [f"Rg {value:.2f} σ" for value in path_rg]
plot.structures(cv.align(relaxed.conformations), titles, axes=top.subplots(1, 6, sharex=True, sharey=True))

left, middle, right = bottom.subplots(1, 3, width_ratios=[1, 1, 0.9])
for ax, name, of, grid in (
    (left, "bond length (σ)", bonds_of, np.linspace(0.5, 1.5, 300)),
    (middle, "end-to-end distance (σ)", ends_of, np.linspace(0, 11, 300)),
):
    ax.fill_between(grid, gaussian_kde(of(traj), 0.1)(grid), color=GREY, alpha=0.3, linewidth=0, label="data")
    ax.plot(grid, gaussian_kde(of(drawn), 0.1)(grid), color=BLUE, label="generator")
    ax.plot(grid, gaussian_kde(of(decoded), 0.1)(grid), color=ORANGE, label="decoder alone")
    ax.set(xlabel=name, ylabel="density", ylim=(0, None), xlim=(grid[0], grid[-1]))
left.set_title("Bonds")
middle.set_title("Ends")
middle.legend()
plot.structure(found, title=f"A ring, on demand: Rg {pv.radius_of_gyration(found):.2f} σ", ax=right)
save(figure, "09_generate_and_optimise")

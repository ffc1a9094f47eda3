"""You learn to make a CV of one molecule from a run that holds many, in a periodic box that cuts them: a polymer
melt, read with `per_molecule=True`, in which every chain at every time is a frame.

The melt is simulated here, in JAX, so that the script runs anywhere: soft beads at a density of 3, chains held
by springs (Groot & Warren, 10.1063/1.474784), Brownian dynamics. In a melt chains are nearly ideal, which gives
a number to check the reading by: of N beads <Re²> / <Rg²> = 6 N / (N + 1). A molecule that is not made whole
fails it by far.

    python 06_melt_per_molecule.py [--quick] [--out FOLDER]
"""

# %%
import itertools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from common import BLUE, GREY, INK, ORANGE, OUT, QUICK, save

import polyvae as pv
from polyvae import plot

CHAINS, N = (24, 10) if QUICK else (30, 10)
FRAMES, STRIDE, DT = (30, 100, 0.004) if QUICK else (200, 200, 0.004)
SIDE = (CHAINS * N / 3.0) ** (1 / 3)

# %% [markdown]
# The simulation. Forces are minus the gradient of the energy; only bonded beads feel the springs.

# %%
bonds = np.concatenate([[(c * N + k, c * N + k + 1) for k in range(N - 1)] for c in range(CHAINS)])


def energy(x):
    """In kT, of positions (n_beads, 3) that are not wrapped."""
    away = x[:, None] - x[None]
    away = away - SIDE * jnp.round(away / SIDE)
    r = jnp.sqrt(jnp.sum(away**2, axis=2) + jnp.eye(len(x)))
    soft = jnp.sum(jnp.triu(12.5 * jnp.maximum(1 - r, 0) ** 2, k=1))
    stretch = x[bonds[:, 0]] - x[bonds[:, 1]]
    return soft + jnp.sum(4.0 * stretch**2)


@jax.jit
def run(x, key):
    """Positions after `STRIDE` steps."""

    def step(x, key):
        return x - DT * jax.grad(energy)(x) + jnp.sqrt(2 * DT) * jax.random.normal(key, x.shape), None

    return jax.lax.scan(step, x, jax.random.split(key, STRIDE))[0]


rng = np.random.default_rng(0)
start = rng.uniform(0, SIDE, (CHAINS, 1, 3)) + rng.normal(0, 0.5, (CHAINS, N, 3)).cumsum(axis=1)
x, keys = jnp.asarray(start.reshape(-1, 3), jnp.float32), jax.random.split(jax.random.key(1), FRAMES // 5 + FRAMES)
frames = []
for key in keys:
    x = run(x, key)
    frames.append(x)
frames = np.array(frames[FRAMES // 5 :])  # the first fifth: until it has forgotten the start

# %% [markdown]
# As an engine would write it: all beads wrapped into the box. `pv.write` puts a PDB with the bonds beside the
# XTC. With LAMMPS the line to read would be `pv.read("melt.dump", topology="melt.data", per_molecule=True)`.

# %%
OUT.mkdir(parents=True, exist_ok=True)
box = np.broadcast_to(SIDE * np.eye(3), (FRAMES, 3, 3))
names, time = ["B"] * (CHAINS * N), STRIDE * DT * np.arange(FRAMES)
melt = pv.Trajectory(frames % SIDE, time=time, bonds=bonds, names=names, box=box)
pv.write(OUT / "melt.xtc", melt)
traj = pv.read(OUT / "melt.xtc", topology=OUT / "melt.pdb", length_unit="sigma", per_molecule=True)
print(f"the file: {CHAINS} chains of {N} beads, box {SIDE:.2f} σ, {FRAMES} frames")
print(f"read per molecule: {traj}")
print(f"frame 7 is (frame, molecule) = {tuple(int(k) for k in traj.origin[7])} of the file")

rg = np.asarray(jax.vmap(pv.radius_of_gyration)(traj.positions))
ends = np.asarray(jax.vmap(pv.end_to_end)(traj.positions))
ratio, ideal = (ends**2).mean() / (rg**2).mean(), 6 * N / (N + 1)
print(f"<Re²> / <Rg²> = {ratio:.2f}, ideal chains {ideal:.2f}: expect it within some percent")

# %% [markdown]
# The CV of one molecule. Every molecule is a piece of its own in time, so no pair of frames crosses from one to
# another and the autocorrelation times are right. It works for each chain of any melt of such chains.

# %%
brief = (
    {"epochs": 3, "encoder": (16,), "decoder": (32,), "featurizer": pv.PairDistances(), "lag": 0} if QUICK else {}
)
cv = pv.fit(traj, seed=0, **brief)
z = cv.transform(traj)
scores = pv.score(cv, traj, alternatives=False)
print(cv)
print(f"{scores.frames.all.fve:.1%} of the variance explained; autocorrelation times", end=" ")
print(", ".join(f"z{k} {tau:.1f}" for k, tau in enumerate(scores.frames.all.autocorrelation_time)), end=" τ\n")
for name, value in (("Rg", rg), ("end to end", ends)):
    print(
        f"correlation with {name}:",
        ", ".join(f"z{k} {np.corrcoef(value, c)[0, 1]:+.2f}" for k, c in enumerate(z.T)),
    )

# %% [markdown]
# Left: the last frame of the file, three chains in colour, cut by the box. Middle: one plane for the frames of
# all chains. Right: how long a chain remembers its shape.


# %%
def memory(values, lags):
    """Autocorrelation (n_lags,) of a quantity, averaged over molecules that lie one after another."""
    of_chains = values.reshape(CHAINS, FRAMES) - values.mean()
    return [np.mean(of_chains[:, : FRAMES - k] * of_chains[:, k:]) / np.mean(of_chains**2) for k in lags]


figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.1), width_ratios=[0.95, 1.1, 1])
last = melt.positions[-1].reshape(CHAINS, N, 3)
left.scatter(*last[3:].reshape(-1, 3)[:, :2].T, s=14, color=GREY, alpha=0.25, linewidths=0)
for chain, color in zip(last[:3], (BLUE, ORANGE, INK), strict=True):
    left.scatter(*chain[:, :2].T, s=34, color=color, linewidths=0)
    for a, b in itertools.pairwise(chain):
        if np.abs(a - b).max() < SIDE / 2:
            left.plot(*np.transpose([a, b])[:2], color=color, lw=1.5)
left.set(xlim=(0, SIDE), ylim=(0, SIDE), aspect="equal", xlabel="x (σ)", ylabel="y (σ)")
left.spines[["top", "right"]].set_visible(True)
left.set_title(f"The file: {CHAINS} chains, wrapped")
plot.latent_values(z, ends, label="end-to-end distance (σ)", ax=middle)
middle.set_title(f"{len(traj):,} frames, one chain each")
lags = np.arange(min(30, FRAMES // 2))
for k, (values, color) in enumerate([(z[:, 0], BLUE), (z[:, 1], ORANGE), (ends, INK)]):
    label = "end to end" if k == 2 else f"z{k}"
    right.plot(
        lags * STRIDE * DT, memory(values, lags), color=color, linestyle=":" if k == 2 else "-", label=label
    )
right.axhline(0, color=GREY, lw=0.6)
right.set(xlabel="time (τ)", ylabel="autocorrelation", ylim=(-0.1, 1), title="Memory of a chain, over all chains")
right.legend()
save(figure, "06_melt_per_molecule")

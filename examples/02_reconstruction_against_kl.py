"""You learn what beta does: how reconstruction is traded for KL, where the limit of that trade lies, and why a
beta above 1 ends with a latent that says nothing.

Of the KL at most all is information about the state, so that -E log p + KL >= H, the entropy of the data: no
model lies below that line, whose slope is -1. Minimising -E log p + beta KL runs down the line for beta < 1, and
to KL = 0 for beta > 1, where the posterior has collapsed: q(z|x) is the prior for every x. At beta = 1 all of
the line is as good. The data are the 32 states of `01_discrete_states.py`.

    python 02_reconstruction_against_kl.py [--quick] [--out FOLDER]
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from common import DASHED, GREY, INK, ORANGE, QUICK, save
from matplotlib.colors import LogNorm
from scipy.stats import norm

import polyvae as pv

NAMED = {0.2: "rebalanced", 1.0: "the bound", 4.0: "disentangling"}
BETAS = tuple(NAMED) if QUICK else (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0, 2.0, 4.0, 8.0)
SEEDS = 1 if QUICK else 2

# %%
N, N_STATES = 1024, 32
rng = np.random.default_rng(0)
values = np.where(rng.random(N) < 0.5, rng.normal(-1, 0.5, N), rng.normal(1, 0.25, N)).astype(np.float32)
edges = np.linspace(values.min(), values.max(), N_STATES + 1)
x = np.eye(N_STATES, dtype=np.float32)[np.clip(np.searchsorted(edges, values) - 1, 0, N_STATES - 1)]
frequency = x.mean(axis=0, dtype=float)
entropy = -np.sum(frequency[frequency > 0] * np.log(frequency[frequency > 0]))

# %% [markdown]
# One model for each beta and seed, and its two terms. Expect the distance from the line to stay below 0.6 nats,
# and the KL to be all but gone from beta = 1 on.

# %%
network = {"latent_dim": 1, "encoder": (16, 16), "decoder": (16, 16), "learning_rate": 1e-2, "validation": 0}
rows, models = [], {}
print(f"entropy H = {entropy:.3f} nats\n  beta  -E log p      KL   above H  right state")
for beta in BETAS:
    for seed in range(SEEDS):
        model = pv.fit_vae(
            x, likelihood=pv.Categorical(), beta=beta, seed=seed, epochs=150 if QUICK else 2000, **network
        )
        models.setdefault(beta, model)
        found = pv.check_vae(model, x, n_draws=64)
        rows.append((beta, found["reconstruction"], found["kl"]))
        off = found["reconstruction"] + found["kl"] - entropy
        print(f"  {beta:4g}  {rows[-1][1]:8.3f}  {rows[-1][2]:6.3f}  {off:+8.4f}  {found['accuracy']:8.1%}")
betas, loss, kl = np.array(rows).T
if not QUICK:
    print(f"never below the line: smallest distance {(loss + kl - entropy).min():+.4f} nats")

# %% [markdown]
# Left: every run as a point. Right: where three of the models put each state in z (one colour a state), and what
# the sum of them should be, the prior. With beta = 0.2 the states lie side by side; from 1 on they lie over each
# other.

# %%
figure = plt.figure(figsize=(12.6, 5.0))
left, right = figure.subfigures(1, 2, width_ratios=[1.1, 1])
ax = left.subplots()
ax.fill_between([0, entropy], [entropy, 0], color=GREY, alpha=0.13, linewidth=0)
ax.plot([0, entropy], [entropy, 0], color=GREY, lw=1)
ax.text(0.12, 0.12, f"no model lies here:\n−E log p + KL ≥ H = {entropy:.3f} nats", color=GREY)
dots = ax.scatter(kl, loss, c=betas, norm=LogNorm(0.05, 8), cmap="plasma", s=36, lw=0.4, ec="white", zorder=3)
left.colorbar(dots, ax=ax, label="beta", ticks=[0.05, 0.2, 1, 4], format="%g", shrink=0.8, pad=0.02)
for beta, place in zip(NAMED, [(32, 40), (38, -14), (38, 8)], strict=True):
    at = kl[betas == beta][0], loss[betas == beta][0]
    arrow = {"arrowstyle": "-", "lw": 0.8, "shrinkB": 3}
    ax.annotate(f"beta {beta:g}, {NAMED[beta]}", at, place, textcoords="offset points", arrowprops=arrow)
ax.set(xlabel="KL(q(z|x) ‖ prior) (nats per frame)", ylabel="reconstruction, −E log p(x|z) (nats per frame)")
ax.set(xlim=(-0.08, 4.0), ylim=(-0.08, 1.1 * entropy), title="Reconstruction against KL, a dot for each run")

grid = np.linspace(-3.5, 3.5, 2801)
for beta, ax in zip(NAMED, right.subplots(3, 1, sharex=True), strict=True):
    mean, std = models[beta].transform_posterior(np.eye(N_STATES, dtype=np.float32))
    shares = frequency[:, None] * norm.pdf(grid, mean, std)
    order = np.argsort(mean[:, 0])
    ax.stackplot(
        grid, shares[order], colors=plt.get_cmap("viridis")(order / (N_STATES - 1)), alpha=0.6, linewidth=0
    )
    ax.plot(grid, shares.sum(axis=0), color=ORANGE, lw=1.2 if beta >= 1 else 0.6, label="encoder, all states")
    ax.plot(grid, norm.pdf(grid), color=INK, linestyle=DASHED, lw=1.2, label="prior")
    said = kl[betas == beta][0]
    ax.set(xlim=(-3.5, 3.5), ylabel="density", title=f"beta {beta:g}, {NAMED[beta]}: z tells {said:.2f} nats")
right.axes[0].legend(loc="upper right")
right.axes[-1].set_xlabel("latent z")
save(figure, "02_reconstruction_against_kl")

"""You learn the three checks that any VAE should pass (what it draws, what it gives back, how its encoder fills
the prior), on data where the exact answer is known: 32 discrete states and one latent. And you learn why the
best model of them uses no latent at all, so that a KL of 0 is no bug.

The evidence lower bound cannot exceed minus the entropy of the data, -H. A decoder that knows how frequent each
state is and ignores z gets there, with KL = 0. Every other model falls short: each state would need a Gaussian
of its own in z, and no mixture of different Gaussians is the standard normal.

    python 01_discrete_states.py [--quick] [--out FOLDER]
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from common import BLUE, DASHED, INK, ORANGE, QUICK, save
from scipy.stats import norm

import polyvae as pv

# %% [markdown]
# The data: 1,024 draws of two Gaussians, put into 32 equal bins. Each frame is a row of 31 zeros and a 1.

# %%
N, N_STATES = 1024, 32
rng = np.random.default_rng(0)
values = np.where(rng.random(N) < 0.5, rng.normal(-1, 0.5, N), rng.normal(1, 0.25, N)).astype(np.float32)
edges = np.linspace(values.min(), values.max(), N_STATES + 1)
state = np.clip(np.searchsorted(edges, values) - 1, 0, N_STATES - 1)
x = np.eye(N_STATES, dtype=np.float32)[state]

frequency = x.mean(axis=0, dtype=float)
entropy = -np.sum(frequency[frequency > 0] * np.log(frequency[frequency > 0]))
print(f"{N:,} frames of {N_STATES} states, entropy H = {entropy:.4f} nats: no model's bound exceeds -H")

# %% [markdown]
# The model: one latent, a decoder that gives a probability to each state, beta = 1, the evidence lower bound.

# %%
model = pv.fit_vae(
    x,
    likelihood=pv.Categorical(),
    latent_dim=1,
    encoder=(16, 16),
    decoder=(16, 16),
    beta=1.0,
    learning_rate=1e-2,
    validation=0,
    epochs=150 if QUICK else 2000,
    seed=0,
)

# %% [markdown]
# The three checks. The samples are as near to the data as two halves of the data are to each other; the decoder
# gives back nothing but the frequencies, at a price of H; and the encoder is the prior, whatever it sees.

# %%
found = pv.check_vae(model, x, n_draws=64)
above = -found["elbo"] - entropy
print(f"samples         {found['sample_distance']:.3f} from the data (total variation),", end=" ")
print(f"two halves of the data {found['sample_noise_floor']:.3f}")
print(
    f"reconstruction  -log p = {found['reconstruction']:.4f} nats; right state {found['accuracy']:.1%}", end=", "
)
print(f"the most frequent one is {frequency.max():.1%}")
print(f"encoder         KL {found['kl']:.4f} nats, aggregated std {found['aggregated_std'][0]:.3f} (prior: 1)")
print(f"-ELBO - H       {above:+.4f} ± {found['elbo_error']:.4f} nats: expect less than 0.001 from 0")

# %% [markdown]
# The same three in pictures. An encoder of mean 0 and std 1 for every state looks perfect if one averages over
# frames, and says nothing: look at the KL.

# %%
quantiles = norm.ppf((np.arange(4096) + 0.5) / 4096)  # of the prior, to integrate it out
modelled = model.decode(quantiles[:, None]).mean(axis=0)
mean, std = model.transform_posterior(np.eye(N_STATES, dtype=np.float32))
z = mean + std * quantiles[::16]
decoded = model.decode(z.reshape(-1, 1)).reshape(N_STATES, -1, N_STATES).mean(axis=1)

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12.6, 3.9), width_ratios=[1.3, 0.95, 1.05])
figure.suptitle(
    "beta = 1: the samples are right, and every state decodes to the same frequencies"
    if found["kl"] < 0.1
    else "beta = 1, hardly trained",
    x=0.01,
    ha="left",
    fontweight="bold",
    fontsize=11,
)
noise = np.sqrt(N * modelled * (1 - modelled))
left.bar(np.arange(N_STATES), N * frequency, width=0.85, color=BLUE, alpha=0.35, label=f"data, {N:,} frames")
left.errorbar(np.arange(N_STATES), N * modelled, noise, fmt="_", color=ORANGE, lw=1, label="model, ±1 sd of draws")
left.plot(model.sample(N, seed=0).sum(axis=0), "o", color=ORANGE, markersize=3.5, label=f"{N:,} samples")
left.set(xlabel="state", ylabel="count", xticks=[0, 8, 16, 24, 31])
left.set_title(f"Samples: {found['sample_distance']:.3f} off; two halves {found['sample_noise_floor']:.3f}")
left.legend()

image = middle.imshow(decoded, origin="lower", cmap="Blues", vmin=0, vmax=0.25)
middle.set(xlabel="decoded state", ylabel="encoded state", xticks=[0, 15, 31], yticks=[0, 15, 31])
middle.spines[["top", "right"]].set_visible(True)
middle.set_title(f"Reconstruction: {found['reconstruction']:.3f} nats, H = {entropy:.3f}")
figure.colorbar(image, ax=middle, label="probability", shrink=0.8)

grid = np.linspace(-3.5, 3.5, 701)
shares = frequency[:, None] * norm.pdf(grid, mean, std)
right.stackplot(grid, shares, colors=plt.get_cmap("viridis")(np.linspace(0, 1, N_STATES)), alpha=0.6, linewidth=0)
right.plot(grid, shares.sum(axis=0), color=ORANGE, label="encoder, all states")
right.plot(grid, norm.pdf(grid), color=INK, linestyle=DASHED, lw=1.2, label="prior")
right.set(xlabel="latent z", ylabel="density", xlim=(-3.5, 3.5), ylim=(0, 0.55))
right.set_title(f"Encoder: KL {found['kl']:.3f} nats, std {found['aggregated_std'][0]:.3f}")
right.legend(loc="upper left")
save(figure, "01_discrete_states")

"""You learn what the width of the decoder decides: how many nats go through the latent, and the finest detail
that the samples can have. One number, one latent, and closed forms to hold every measured number against.

If the model's density were the density p of the data, its decoder of width s would be off by s² in the mean
square for z drawn from the posterior; the mean of that posterior would decode to x + s² d log p / dx (Tweedie's
formula); and the KL would be h(x) - h(x|z), the entropy of the data less that of the decoder's noise. The width
is fixed here: with as many latents as features the data do not decide it, since what is not noise of the decoder
may be spread of z.

    python 03_regression.py [--quick] [--out FOLDER]
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from common import BLUE, DASHED, GREY, INK, ORANGE, QUICK, save
from scipy.stats import norm

import polyvae as pv

N, WIDTH = 1024, 0.1
WIDTHS = (0.1, 0.4) if QUICK else (0.03, 0.1, 0.2, 0.4, 0.8)

# %% [markdown]
# The data, two Gaussians of equal weight, and what is known of them exactly.


# %%
def density(x):
    return 0.5 * norm.pdf(x, -1, 0.5) + 0.5 * norm.pdf(x, 1, 0.25)


def score(x):
    """d log p / dx."""
    a, b = 0.5 * norm.pdf(x, -1, 0.5), 0.5 * norm.pdf(x, 1, 0.25)
    return -(a * (x + 1) / 0.5**2 + b * (x - 1) / 0.25**2) / (a + b)


def exact_kl(width):
    return entropy - 0.5 * np.log(2 * np.pi * np.e * width**2)


rng = np.random.default_rng(0)
x = np.where(rng.random(N) < 0.5, rng.normal(-1, 0.5, N), rng.normal(1, 0.25, N)).astype(np.float32)[:, None]
grid = np.linspace(-5, 4, 18_001)
p, step = density(grid), grid[1] - grid[0]
entropy = -np.sum(p * np.log(p)) * step
fisher = np.sum(p * score(grid) ** 2) * step

# %% [markdown]
# A model for each width of the decoder. Expect the KL within some percent of the closed form, and samples as
# near to the data as two halves of them, where the width is well below 0.25, that of the narrower Gaussian. A
# wider decoder blurs what it draws: no density can be sharper than the decoder's own, and the closed forms end
# there.

# %%
network = {"latent_dim": 1, "encoder": (16, 16), "decoder": (16, 16), "learning_rate": 1e-2, "validation": 0}
models, found = {}, {}
print(f"entropy of the density h = {entropy:.4f} nats")
print(" width      KL   exact   squared error   exact   W1 of samples   two halves     ELBO   best -h")
for width in WIDTHS:
    models[width] = pv.fit_vae(x, likelihood=pv.Gaussian(width), seed=0, epochs=150 if QUICK else 2000, **network)
    found[width] = row = pv.check_vae(models[width], x, n_draws=64, n_samples=20_000)
    print(
        f"  {width:4g}  {row['kl']:6.3f}  {exact_kl(width) if width < 0.25 else np.nan:6.3f}"
        f"  {row['squared_error']:14.5f} {width**4 * fisher if width < 0.25 else np.nan:7.5f}"
        f"  {row['sample_distance']:14.4f}  {row['sample_noise_floor']:11.4f}"
        f"  {row['elbo']:7.3f}  {-entropy:8.3f}"
    )

# %% [markdown]
# The errors are no noise: the encoder's mean decodes to where the density is larger, as Tweedie says.

# %%
figure, ((samples, errors), (encoder, sizes)) = plt.subplots(2, 2, figsize=(11.6, 7.0))
model, row = models[WIDTH], found[WIDTH]
bins, fine = np.linspace(-3, 2.2, 66), np.linspace(-3, 2.2, 1000)
samples.hist(x[:, 0], bins, density=True, color=BLUE, alpha=0.35, label=f"data, {N:,} points")
samples.hist(model.sample(100_000, seed=1)[:, 0], bins, density=True, histtype="step", color=ORANGE, label="model")
samples.plot(fine, density(fine), color=INK, lw=1, linestyle=DASHED, label="exact density")
samples.set(xlabel="x", ylabel="density", xlim=(-3, 2.2))
samples.set_title(
    f"Samples: W₁ {row['sample_distance']:.3f}; two halves of the data {row['sample_noise_floor']:.3f}"
)
samples.legend(loc="upper left")

off = model.decode(model.transform(x))[:, 0] - x[:, 0]
errors.axhspan(-WIDTH, WIDTH, color=GREY, alpha=0.12, linewidth=0)
errors.text(-1.4, WIDTH - 0.006, "decoder's width s", va="top", color=GREY)
errors.plot(x[:, 0], off, ".", color=ORANGE, markersize=4, label=f"model, mean square {np.mean(off**2):.5f}")
label = f"exact, s² d log p/dx, mean square {WIDTH**4 * fisher:.5f}"
errors.plot(fine, WIDTH**2 * score(fine), color=INK, lw=1, linestyle=DASHED, label=label)
errors.set(xlabel="x", ylabel="decoded − x", xlim=(-3, 2.2), ylim=(-0.22, 0.16))
errors.set_title("Reconstruction of the encoder's mean")
errors.legend(loc="lower left")

mean, std = model.transform_posterior(x)
z = np.linspace(-3.5, 3.5, 701)
for k in np.argsort(x[:, 0])[:: N // 24]:
    encoder.fill_between(z, norm.pdf(z, mean[k], std[k]) / 12, color=BLUE, alpha=0.25, linewidth=0)
total = norm.pdf(z[:, None], mean[:, 0], std[:, 0]).mean(axis=1)
encoder.plot(z, total, color=ORANGE, label="encoder, all points")
encoder.plot(z, norm.pdf(z), color=INK, lw=1, linestyle=DASHED, label="prior")
encoder.fill_between([], [], color=BLUE, alpha=0.4, label="some points (÷ 12)")
encoder.set(xlabel="latent z", ylabel="density", xlim=(-3.5, 3.5), ylim=(0, None))
encoder.set_title(f"Encoder: KL {row['kl']:.2f} nats, aggregated std {row['aggregated_std'][0]:.3f}")
encoder.legend(loc="upper left")

sizes.plot(WIDTHS, [found[w]["sample_distance"] for w in WIDTHS], "o-", color=ORANGE)
sizes.axhline(row["sample_noise_floor"], color=GREY, lw=1, linestyle=":")
sizes.text(WIDTHS[-1], row["sample_noise_floor"], "two halves of the data", va="top", ha="right", color=GREY)
sizes.set(xscale="log", xlabel="width s of the decoder", ylim=(0, None), xticks=WIDTHS, xticklabels=WIDTHS)
sizes.minorticks_off()
sizes.set_ylabel("W₁, samples to data", color=ORANGE)
sizes.set_title("What the width decides: nats in z, and detail in the samples")
other = sizes.twinx()
other.spines["right"].set_visible(True)
other.plot(WIDTHS, [found[w]["kl"] for w in WIDTHS], "s", color=BLUE, markersize=5)
fine = np.geomspace(WIDTHS[0], 0.25, 100)
other.plot(fine, exact_kl(fine), color=INK, lw=1, linestyle=DASHED)
other.set(ylim=(0, None))
other.set_ylabel("KL (nats); dashed: h(x) − h(x|z)", color=BLUE)
save(figure, "03_regression")

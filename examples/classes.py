"""Discrete states: 32 classes and one latent, and why the best model of them is one that uses no latent.

python examples/classes.py [--quick] [--out FOLDER]

The evidence lower bound of a data set cannot exceed minus its entropy, -H. A decoder that knows the frequencies
of the classes and ignores z reaches -H, with KL = 0. No other does: each class would need its own Gaussian in
z, weighted they would have to add up to the standard normal, and no mixture of different Gaussians does. It all
but does, though: an encoder that tells 1.4 of the 3.0 nats comes within 1e-5 nats of the bound
(tests/claims/test_chapter_systems.py), which thus hardly prefers the collapse; training from small random weights
ends there all the same.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from scipy.stats import norm

import polyvae as pv
from polyvae.plot.style import ALONG, DATA, MODEL, STYLE

N, N_CLASSES = 1024, 32
# At the default rate of 2e-3 a network so small needs more steps to keep the classes apart.
NETWORK = {"latent_dim": 1, "encoder": (16, 16), "decoder": (16, 16), "learning_rate": 1e-2, "validation": 0}
EPOCHS = 2000  # 8,000 steps


def mixture(n: int, seed: int) -> np.ndarray:
    """Draws from two Gaussians of equal weight, at -1 (sd 0.5) and 1 (sd 0.25)."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(n) < 0.5, rng.normal(-1, 0.5, n), rng.normal(1, 0.25, n)).astype(np.float32)


def states(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """One-hot rows (n, N_CLASSES) of the bin that each value lies in; what lies outside counts to the end bins."""
    return np.eye(N_CLASSES, dtype=np.float32)[np.clip(np.searchsorted(edges, values) - 1, 0, N_CLASSES - 1)]


def data_and_edges(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The data, and the edges of the equal bins over their range."""
    values = mixture(N, seed)
    edges = np.linspace(values.min(), values.max(), N_CLASSES + 1)
    return states(values, edges), edges


def frequencies(x: np.ndarray) -> np.ndarray:
    return x.mean(axis=0, dtype=np.float64)


def entropy(x: np.ndarray) -> float:
    """Entropy of the classes' frequencies in the data, nats."""
    f = frequencies(x)
    return float(-np.sum(f[f > 0] * np.log(f[f > 0])))


def total_variation(a: np.ndarray, b: np.ndarray) -> float:
    return float(0.5 * np.abs(a - b).sum())


def noise_floor(edges: np.ndarray, pairs: int = 200) -> np.ndarray:
    """Total variation distance within pairs of fresh data sets of this size."""
    sets = [frequencies(states(mixture(N, 1000 + k), edges)) for k in range(2 * pairs)]
    return np.array([total_variation(a, b) for a, b in zip(sets[::2], sets[1::2], strict=True)])


def model_frequencies(model: pv.FittedVAE) -> np.ndarray:
    """The model's own probability of each class, the prior integrated out at 4,096 quantiles."""
    return model.decode(norm.ppf((np.arange(4096) + 0.5) / 4096)[:, None]).mean(axis=0)


def decoded_by_class(model: pv.FittedVAE, draws: int = 256) -> np.ndarray:
    """Mean decoded probabilities (class, class) when z is drawn from the encoder of each class."""
    mean, std = model.transform_posterior(np.eye(N_CLASSES, dtype=np.float32))
    z = mean + std * norm.ppf((np.arange(draws) + 0.5) / draws)
    return model.decode(z.reshape(-1, 1)).reshape(N_CLASSES, draws, -1).mean(axis=1)


def fit(x: np.ndarray, beta: float, *, seed: int = 0, epochs: int = EPOCHS) -> pv.FittedVAE:
    return pv.fit_vae(x, likelihood=pv.Categorical(), beta=beta, seed=seed, epochs=epochs, **NETWORK)


def checks(model: pv.FittedVAE, x: np.ndarray, edges: np.ndarray) -> dict:
    """The three checks of `pv.check_vae`, and how far the bound lies below what is possible."""
    result = pv.check_vae(model, x, n_draws=64)
    floor = noise_floor(edges)
    return result | {
        "entropy": entropy(x),
        "gap": -result["elbo"] - entropy(x),
        "floor_mean": float(floor.mean()),
        "floor_95": float(np.quantile(floor, 0.95)),
        "model_distance": total_variation(model_frequencies(model), frequencies(x)),
    }


def tell(r: dict) -> None:
    print(
        f"  samples: total variation to the data {r['sample_distance']:.3f} ({r['model_distance']:.3f} without "
        f"the samples' noise); two data sets {r['floor_mean']:.3f}, 95 % below {r['floor_95']:.3f}"
    )
    print(
        f"  reconstruction: -log p {r['reconstruction']:.4f} nats, squared error {r['squared_error']:.3f}, "
        f"most probable class right {r['accuracy']:.1%}"
    )
    print(
        f"  encoder: KL {r['kl']:.4f} nats, mean {r['latent_mean'][0]:+.3f}, aggregated std "
        f"{r['aggregated_std'][0]:.3f}, mean std {r['mean_std'][0]:.3f}; "
        f"-ELBO - H = {r['gap']:+.4f} ± {r['elbo_error']:.4f} nats"
    )


def draw_decoded(ax, model: pv.FittedVAE):
    """Which classes come back for each class that is encoded."""
    # The root of the probability sets the shade, so that 1 in 32 is seen as well as 1.
    image = ax.imshow(decoded_by_class(model), origin="lower", cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    ax.set(xlabel="decoded class", ylabel="encoded class", xticks=[0, 15, 31], yticks=[0, 15, 31])
    ax.spines[["top", "right"]].set_visible(True)
    return image


def draw_encoder(ax, model: pv.FittedVAE, x: np.ndarray) -> None:
    """The share of each class in z, stacked, and the prior that their sum should be."""
    mean, std = model.transform_posterior(np.eye(N_CLASSES, dtype=np.float32))
    z = np.linspace(-3.5, 3.5, 2801)
    shares = frequencies(x)[:, None] * norm.pdf(z, mean, std)
    order = np.argsort(mean[:, 0])
    ax.stackplot(z, shares[order], colors=colormaps[ALONG](order / (N_CLASSES - 1)), alpha=0.6, linewidth=0)
    total = shares.sum(axis=0)
    ax.plot(z, total, color=MODEL, linewidth=1.4 if total.max() < 0.5 else 0.6, label="encoder, all classes")
    ax.plot(z, norm.pdf(z), color="#111827", linewidth=1.2, linestyle=(0, (4, 3)), label="prior")
    ax.set(xlabel="latent z", ylabel="density", xlim=(-3.5, 3.5), ylim=(0, max(0.55, 1.05 * total.max())))


def draw(model: pv.FittedVAE, x: np.ndarray, result: dict) -> Figure:
    figure = Figure(figsize=(12.6, 3.9), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.3, 0.95, 1.05])
    classes, counts = np.arange(N_CLASSES), x.sum(axis=0)
    left.bar(classes, counts, width=0.85, color=DATA, alpha=0.35, label=f"data, {N:,} points")
    expected = N * model_frequencies(model)
    noise = np.sqrt(expected * (1 - expected / N))
    left.errorbar(classes, expected, noise, fmt="none", ecolor=MODEL, elinewidth=1, alpha=0.5)
    left.plot(classes, expected, "_", color=MODEL, markersize=7, label=f"model, ±1 sd of {N:,} draws")
    drawn = model.sample(N, seed=0).sum(axis=0)
    left.plot(classes, drawn, "o", color=MODEL, markersize=3.5, label=f"{N:,} samples")
    left.set(xlabel="class", ylabel="count", xticks=[0, 8, 16, 24, 31])
    left.set_title(
        f"Samples: {result['sample_distance']:.3f} from the data; two data sets {result['floor_mean']:.3f}"
    )
    left.legend()
    image = draw_decoded(middle, model)
    figure.colorbar(image, ax=middle, label="probability", shrink=0.8, ticks=[0, 0.05, 0.2, 0.5, 1])
    middle.set_title(f"Reconstruction: {result['reconstruction']:.3f} nats, H = {result['entropy']:.3f}")
    draw_encoder(right, model, x)
    right.set_title(f"Encoder: KL {result['kl']:.3f} nats, std {result['aggregated_std'][0]:.3f}")
    right.legend(loc="upper left")
    title = "beta = 1: the samples are right, and every class decodes to the same frequencies"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def main(argv=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="train briefly")
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="for the figure")
    args = parser.parse_args(argv)

    x, edges = data_and_edges()
    model = fit(x, beta=1.0, epochs=200 if args.quick else EPOCHS)
    result = checks(model, x, edges)
    print(f"beta 1, {N_CLASSES} classes, entropy H = {result['entropy']:.4f} nats")
    tell(result)
    # Mean and std alone, averaged over frames, cannot tell: 0 and 1 are those of an encoder that says nothing.
    args.out.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        draw(model, x, result).savefig(args.out / "classes.png", dpi=110)
    print(args.out / "classes.png")
    return result


if __name__ == "__main__":
    main()

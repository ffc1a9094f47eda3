"""One number, one latent, a decoder of fixed width: what a VAE of exact limits should measure, and does.

python examples/regression.py [--quick] [--out FOLDER]

If the model's density were the data's density p, its decoder of width s would have to be, for z drawn from the
true posterior, off by s^2 in the mean square; the mean of that posterior decodes to x + s^2 d log p / dx
(Tweedie's formula), whose mean squared error is s^4 times the Fisher information of p; and the KL would be
h(x) - h(x | z), the entropy of the data less that of the decoder's noise. The width is fixed, because with as many
latents as features the data do not decide it: what is not noise of the decoder may be spread of z, at the same
likelihood, down to any width. A learned one ends somewhere below the finest detail of the data; or training starts
wide, stays there, and uses no latent.
"""

import argparse
from pathlib import Path

import numpy as np
from classes import NETWORK, mixture
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.stats import norm, wasserstein_distance

import polyvae as pv
from polyvae.plot.style import DATA, MODEL, NEUTRAL, STYLE

N, WIDTH, EPOCHS = 1024, 0.1, 2000
WIDTHS = (0.03, 0.1, 0.2, 0.4, 0.8)
GRID = np.linspace(-5.0, 4.0, 18_001)


def density(x: np.ndarray) -> np.ndarray:
    """Of the two Gaussians that the data are drawn from."""
    return 0.5 * norm.pdf(x, -1, 0.5) + 0.5 * norm.pdf(x, 1, 0.25)


def score_function(x: np.ndarray) -> np.ndarray:
    """d log p / dx."""
    a, b = 0.5 * norm.pdf(x, -1, 0.5), 0.5 * norm.pdf(x, 1, 0.25)
    return -(a * (x + 1) / 0.5**2 + b * (x - 1) / 0.25**2) / (a + b)


def exact(width: float) -> dict:
    """Entropy of the data's density, and what follows for a model that has this density and this width; nats."""
    p, step = density(GRID), GRID[1] - GRID[0]
    h = float(-np.sum(p * np.log(p)) * step)
    return {
        "entropy": h,
        "kl": h - 0.5 * np.log(2 * np.pi * np.e * width**2),
        "expected_squared_error": width**2,
        "squared_error": width**4 * float(np.sum(p * score_function(GRID) ** 2) * step),
    }


def fit(x: np.ndarray, width: float | str, *, seed: int = 0, epochs: int = EPOCHS) -> pv.FittedVAE:
    return pv.fit_vae(x, likelihood=pv.Gaussian(width), seed=seed, epochs=epochs, **NETWORK)


def width_of(model: pv.FittedVAE) -> float:
    """In the unit of the data; the model itself works in scaled units."""
    return float(model.vae.likelihood.width * model.scale)


def noise_floor(pairs: int = 200) -> np.ndarray:
    """Wasserstein-1 distance within pairs of fresh data sets of this size."""
    return np.array([wasserstein_distance(mixture(N, 1000 + k), mixture(N, 5000 + k)) for k in range(pairs)])


def checks(model: pv.FittedVAE, x: np.ndarray) -> dict:
    """The three checks of `pv.check_vae`, on the data and on new draws, and the noise floors."""
    floor = noise_floor()
    seen = pv.check_vae(model, x, n_draws=64, n_samples=N)
    new = pv.check_vae(model, mixture(20_000, 77)[:, None], n_draws=4)
    s = width_of(model)
    return seen | {
        "width": s,
        # The one term of log p(x|z) that is not a constant.
        "expected_squared_error": 2 * s**2 * (seen["reconstruction"] - 0.5 * np.log(2 * np.pi * s**2)),
        "floor_mean": float(floor.mean()),
        "floor_95": float(np.quantile(floor, 0.95)),
        "new_distance": new["sample_distance"],
        "new_elbo": new["elbo"],
    }


def tell(r: dict) -> None:
    e = exact(r["width"])
    print(
        f"  samples: Wasserstein-1 to the data {r['sample_distance']:.4f}; two data sets {r['floor_mean']:.4f}, "
        f"95 % below {r['floor_95']:.4f}; two halves {r['sample_noise_floor']:.4f}"
    )
    print(
        f"  reconstruction: log p {-r['reconstruction']:.4f} nats; squared error "
        f"{r['expected_squared_error']:.5f} (exact {e['expected_squared_error']:.5f})"
    )
    print(f"    of the encoder's mean {r['squared_error']:.5f} (exact {e['squared_error']:.5f})")
    print(
        f"  encoder: KL {r['kl']:.3f} nats (exact {e['kl']:.3f}), mean {r['latent_mean'][0]:+.3f}, aggregated std "
        f"{r['aggregated_std'][0]:.3f}, mean std {r['mean_std'][0]:.3f}; ELBO {r['elbo']:.4f}, on new data "
        f"{r['new_elbo']:.4f}, at best -h = {-e['entropy']:.4f}"
    )


def draw(model, x, result, widths) -> Figure:
    figure = Figure(figsize=(12.6, 7.0), layout="constrained")
    (samples, errors), (encoder, sizes) = figure.subplots(2, 2)
    bins = np.linspace(-3, 2.2, 66)
    grid = np.linspace(-3, 2.2, 1000)
    samples.hist(x[:, 0], bins, density=True, color=DATA, alpha=0.35, label=f"data, {N:,} points")
    drawn = model.sample(100_000, seed=1)[:, 0]
    samples.hist(drawn, bins, density=True, histtype="step", color=MODEL, linewidth=1.4, label="model")
    samples.plot(grid, density(grid), color="#111827", linewidth=1, linestyle=(0, (4, 3)), label="exact density")
    samples.set(xlabel="x", ylabel="density", xlim=(-3, 2.2))
    samples.set_title(f"Samples: W₁ {result['sample_distance']:.3f}; two data sets {result['floor_mean']:.3f}")
    samples.legend(loc="upper left")

    decoded = model.decode(model.transform(x))[:, 0]
    errors.axhspan(-WIDTH, WIDTH, color=NEUTRAL, alpha=0.12, linewidth=0)
    errors.text(-2.9, WIDTH - 0.006, "decoder's width", va="top", color=NEUTRAL, fontsize=9)
    label = f"model, mean square {result['squared_error']:.5f}"
    errors.plot(x[:, 0], decoded - x[:, 0], ".", color=MODEL, markersize=4, label=label)
    theory = WIDTH**2 * score_function(grid)
    label = f"exact, s² d log p/dx, mean square {exact(WIDTH)['squared_error']:.5f}"
    errors.plot(grid, theory, color="#111827", linewidth=1, linestyle=(0, (4, 3)), label=label)
    errors.set(xlabel="x", ylabel="decoded − x", xlim=(-3, 2.2), ylim=(-0.22, 0.16))
    errors.set_title("Reconstruction of the encoder's mean")
    errors.legend(loc="lower left")

    mean, std = model.transform_posterior(x)
    z = np.linspace(-3.5, 3.5, 701)
    total = norm.pdf(z[:, None], mean[:, 0], std[:, 0]).mean(axis=1)
    for k in np.argsort(x[:, 0])[:: N // 24]:
        encoder.fill_between(z, norm.pdf(z, mean[k], std[k]) / 12, color=DATA, alpha=0.25, linewidth=0)
    encoder.plot(z, total, color=MODEL, linewidth=1.4, label="encoder, all points")
    encoder.plot(z, norm.pdf(z), color="#111827", linewidth=1, linestyle=(0, (4, 3)), label="prior")
    encoder.fill_between([], [], color=DATA, alpha=0.4, label="some points (÷ 12)")
    encoder.set(xlabel="latent z", ylabel="density", xlim=(-3.5, 3.5), ylim=(0, None))
    encoder.set_title(f"Encoder: KL {result['kl']:.2f} nats, aggregated std {result['aggregated_std'][0]:.3f}")
    encoder.legend(loc="upper left")

    s = np.array([row["width"] for row in widths])
    sizes.plot(s, [row["sample_distance"] for row in widths], "o-", color=MODEL, label="W₁, samples to data")
    sizes.axhspan(0, result["floor_95"], color=NEUTRAL, alpha=0.15, linewidth=0)
    sizes.text(s[0], 0.004, "two data sets, 95 %", va="bottom", color=NEUTRAL, fontsize=9)
    other = sizes.twinx()
    other.spines["right"].set_visible(True)
    other.plot(s, [row["kl"] for row in widths], "s-", color=DATA, markersize=5)
    fine = np.geomspace(s[0], s[-1], 100)
    other.plot(fine, [max(exact(w)["kl"], 0) for w in fine], color="#111827", linewidth=1, linestyle=(0, (4, 3)))
    sizes.set(
        xscale="log", xlabel="width of the decoder s", ylim=(0, None), xticks=s, xticklabels=map("{:g}".format, s)
    )
    sizes.minorticks_off()
    sizes.set_ylabel("W₁, samples to data", color=MODEL)
    other.set_ylim(0, None)
    other.set_ylabel("KL (nats); dashed: h(x) − h(x|z)", color=DATA)
    sizes.set_title("What the width decides: nats in z, and the finest detail of the samples")
    return figure


def main(argv=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three widths, trained briefly")
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="for the figure")
    args = parser.parse_args(argv)

    x = mixture(N, seed=0)[:, None]
    epochs = 300 if args.quick else EPOCHS
    model = fit(x, WIDTH, epochs=epochs)
    result = checks(model, x)
    print(f"width {WIDTH}")
    tell(result)
    # Mean and std alone, averaged over points, cannot tell: a std far from 1 is what a latent that says much has.
    widths = []
    for width in WIDTHS[1::2] if args.quick else WIDTHS:
        other = model if width == WIDTH else fit(x, width, epochs=epochs)
        widths.append({"width": width} | pv.check_vae(other, x, n_samples=20_000))
        row = widths[-1]
        print(
            f"  width {width:4g}: KL {row['kl']:.3f} nats, squared error {row['squared_error']:.5f}, "
            f"W1 {row['sample_distance']:.4f}, ELBO {row['elbo']:.4f}"
        )
    if not args.quick:
        learned = [width_of(fit(x, "learned", seed=seed)) for seed in range(4)]
        print("  learned, four seeds:", ", ".join(f"{w:.3f}" for w in learned))
        result["learned_widths"] = learned
    args.out.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        draw(model, x, result, widths).savefig(args.out / "regression.png", dpi=110)
    print(args.out / "regression.png")
    return result | {"widths": widths}


if __name__ == "__main__":
    main()

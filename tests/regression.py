"""One number, one latent, a decoder of fixed width, with its exact limits (`claims/test_chapter_systems.py`).

If the model's density were the data's density p, its decoder of width s would have to be, for z drawn from the
true posterior, off by s^2 in the mean square; the mean of that posterior decodes to x + s^2 d log p / dx
(Tweedie's formula), whose mean squared error is s^4 times the Fisher information of p; and the KL would be
h(x) - h(x | z), the entropy of the data less that of the decoder's noise. The width is fixed, because with as many
latents as features the data do not decide it: what is not noise of the decoder may be spread of z, at the same
likelihood, down to any width. A learned one ends somewhere below the finest detail of the data; or training starts
wide, stays there, and uses no latent.
"""

import numpy as np
from discrete import NETWORK, mixture
from scipy.stats import norm, wasserstein_distance

import polyvae as pv

N, WIDTH, EPOCHS = 1024, 0.1, 2000
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

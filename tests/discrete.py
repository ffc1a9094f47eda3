"""32 discrete states and one latent, with what is exact about them (`claims/test_chapter_systems.py`).

The evidence lower bound of a data set cannot exceed minus its entropy, -H. A decoder that knows the frequencies
of the classes and ignores z reaches -H, with KL = 0. No other does: each class would need its own Gaussian in
z, weighted they would have to add up to the standard normal, and no mixture of different Gaussians does. It all
but does, though: an encoder that tells 1.4 of the 3.0 nats comes within 1e-5 nats of the bound, which thus hardly
prefers the collapse; training from small random weights ends there all the same.

Of the KL at most all is information about the class, so that -E log p + KL >= H: no model lies below that line,
whose slope is -1. Minimising -E log p + beta KL runs down the line for beta < 1, and to KL = 0 for beta > 1.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm

import polyvae as pv

N, N_CLASSES = 1024, 32
# At the default rate of 2e-3 a network so small needs more steps to keep the classes apart.
NETWORK = {"latent_dim": 1, "encoder": (16, 16), "decoder": (16, 16), "learning_rate": 1e-2, "validation": 0}
EPOCHS = 2000  # 8,000 steps
NAMED = {0.2: "rebalanced", 1.0: "the bound", 4.0: "disentangling"}
BETAS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0, 2.0, 4.0, 8.0)
SEEDS = 4


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


def best_gaussian_encoder(f: np.ndarray, beta: float, *, starts: int = 2) -> tuple[float, float]:
    """-E log p and KL at the best Gaussian encoder that is found, nats, without networks, draws or training.

    Each class has a mean and a standard deviation of its own, and the decoder is Bayes' rule, integrated on a
    grid. The order of the classes along z is a matter of the start, and the best of some starts is taken.

    Args:
        f: frequencies of the classes.
    """
    f = f[f > 0]
    z = np.linspace(-8, 8, 1601)

    def terms(point):
        mean, log_std = np.split(point, 2)
        u = (z - mean[:, None]) * np.exp(-log_std)[:, None]
        q = np.exp(-0.5 * u**2 - log_std[:, None]) * ((z[1] - z[0]) / np.sqrt(2 * np.pi))
        joint = f[:, None] * q
        surprise = np.log(joint.sum(axis=0) + 1e-300) - np.log(joint + 1e-300)
        variance = np.exp(2 * log_std)
        loss = np.sum(joint * surprise)
        kl = np.sum(f * (0.5 * (mean**2 + variance - 1) - log_std))
        # Bayes' rule is the best decoder of any encoder, so its own change does not count to first order.
        slope = (
            np.sum(joint * surprise * u, axis=1) * np.exp(-log_std),
            np.sum(joint * surprise * (u**2 - 1), axis=1),
        )
        return loss, kl, np.concatenate(slope), np.concatenate([f * mean, f * (variance - 1)])

    def objective(point):
        loss, kl, loss_slope, kl_slope = terms(point)
        return loss + beta * kl, loss_slope + beta * kl_slope

    best = None
    for seed in range(starts):
        order = np.random.default_rng(seed).permutation(len(f))
        middle = np.empty(len(f))
        middle[order] = f[order].cumsum() - f[order] / 2
        start = np.concatenate([norm.ppf(middle), np.full(len(f), np.log(0.15))])
        found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 300})
        best = found if best is None or found.fun < best.fun else best
    loss, kl, _, _ = terms(best.x)
    return float(loss), float(kl)


def sweep(x: np.ndarray, betas, *, seeds: int, epochs: int) -> tuple[list[dict], dict[float, pv.FittedVAE]]:
    """One row of numbers for each beta and seed; and the first model of each beta."""
    rows, models = [], {}
    for beta in betas:
        for seed in range(seeds):
            model = fit(x, beta, seed=seed, epochs=epochs)
            models.setdefault(beta, model)
            rows.append({"beta": beta, "seed": seed} | pv.check_vae(model, x, n_draws=64))
    return rows, models

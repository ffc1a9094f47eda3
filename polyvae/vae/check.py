"""Three checks on a VAE of any vectors: its samples, its reconstructions, and how it fills its prior."""

import functools

import equinox as eqx
import jax
import numpy as np

from polyvae.arguments import if_given, refusal, seed_number, whole_number
from polyvae.batches import map_frames, single_precision
from polyvae.vae.likelihood import Categorical, Gaussian
from polyvae.vae.model import FittedVAE, vectors
from polyvae.vae.scaled import ScaledVAE


@single_precision
def check_vae(
    model: FittedVAE, x: np.ndarray, *, n_samples: int | None = None, n_draws: int = 16, seed: int = 0
) -> dict:
    """Measure the quality of a `FittedVAE` on vectors, in the unit of the data; `score` does so for a `LatentCV`.

    A model that was trained with a lag is measured without it: each frame is decoded to itself.

    Args:
        x: (n_frames, n_features), the training data or others.
        n_samples: number of vectors to draw; by default the number of frames.
        n_draws: draws of z for each frame, over which the reconstruction is averaged.
        seed: seed of the draws.

    Returns:
        Samples against data:

        - sample_distance: between `model.sample` and x, averaged over variables: for real numbers the
          Wasserstein-1 distance in their unit, of states and contacts the total variation distance, half the
          sum of the differences between frequencies;
        - sample_noise_floor: the same between two random halves of x.

        Reconstruction:

        - reconstruction: -E_q[log p(x|z)], nats per frame;
        - squared_error: between x and the decoded mean of its encoding, summed over features;
        - accuracy: fraction of states or contacts for which the most probable one of the decoded mean is right;
          None for real numbers.

        Encoder against the standard normal:

        - kl, kl_per_latent, nats per frame; elbo is minus reconstruction minus kl, and elbo_error its standard
          error from the draws of z alone, not from the choice of the frames;
        - latent_mean, latent_std: of the encoder's mean, over frames; mean_std: the encoder's own standard
          deviation, averaged over frames; aggregated_std: of all z that the encoder gives, with
          aggregated_std^2 = latent_std^2 + mean of std^2. The last one is 1 where the data fill the prior; an
          encoder whose mean_std is small may do so as well as one whose mean_std is 1.

    Raises:
        InputError: data that do not fit the model, or no draws.
    """
    if not isinstance(model, FittedVAE):
        raise refusal("model", "a FittedVAE, which pv.fit_vae returns (pv.score measures a LatentCV)", model)
    x = vectors(x)
    likelihood = model.vae.likelihood
    n_draws, n_samples = whole_number("n_draws", n_draws, 1), if_given(whole_number, "n_samples", n_samples, 1)
    seed = seed_number(seed)
    mean, std = (a.astype(np.float64) for a in model.transform_posterior(x))  # refuses other features
    likelihood.check(x)

    key = jax.random.key(seed)
    log_prob = np.empty((n_draws, len(x)))
    for k in range(n_draws):
        noise = jax.random.normal(jax.random.fold_in(key, k), mean.shape)
        log_prob[k], kl = map_frames(functools.partial(_terms, model.scaled), x, np.asarray(noise))
    decoded = model.decode(mean)
    kl = kl.mean(axis=0, dtype=np.float64)
    spread = np.sqrt(log_prob.var(axis=0, ddof=1).mean()) if n_draws > 1 else np.nan

    distance = functools.partial(_distance, likelihood)
    order = np.random.default_rng(seed).permutation(len(x))
    halves = np.array_split(order, 2) if len(x) > 1 else [order, order]
    return {
        "n_frames": len(x),
        "sample_distance": distance(model.sample(n_samples or len(x), seed=seed), x),
        "sample_noise_floor": distance(x[halves[0]], x[halves[1]]),
        "reconstruction": float(-log_prob.mean()),
        "squared_error": float(((decoded - x) ** 2).sum(axis=1).mean()),
        "accuracy": _accuracy(likelihood, decoded, x),
        "kl": float(kl.sum()),
        "kl_per_latent": kl.tolist(),
        "elbo": float(log_prob.mean() - kl.sum()),
        "elbo_error": float(spread / np.sqrt(n_draws * len(x))),
        "latent_mean": mean.mean(axis=0).tolist(),
        "latent_std": mean.std(axis=0).tolist(),
        "mean_std": std.mean(axis=0).tolist(),
        "aggregated_std": np.sqrt(mean.var(axis=0) + (std**2).mean(axis=0)).tolist(),
    }


@eqx.filter_jit
def _terms(scaled: ScaledVAE, x, noise):
    """log p(x|z) and the KL of each latent, for vectors and the noise of their latents."""
    return jax.vmap(scaled.elbo_terms)(x, noise)


def _blocks(likelihood, x: np.ndarray) -> np.ndarray:
    n = likelihood.n_classes if isinstance(likelihood, Categorical) else 1
    return x.reshape(len(x), -1, x.shape[1] if n is None else n)


def _distance(likelihood, a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import wasserstein_distance

    if isinstance(likelihood, Gaussian):
        return float(np.mean([wasserstein_distance(*pair) for pair in zip(a.T, b.T, strict=True)]))
    apart = np.abs(_blocks(likelihood, a).mean(axis=0) - _blocks(likelihood, b).mean(axis=0)).sum(axis=1)
    return float((apart / 2 if isinstance(likelihood, Categorical) else apart).mean())


def _accuracy(likelihood, decoded: np.ndarray, x: np.ndarray) -> float | None:
    if isinstance(likelihood, Gaussian):
        return None
    if isinstance(likelihood, Categorical):
        return float((_blocks(likelihood, decoded).argmax(axis=2) == _blocks(likelihood, x).argmax(axis=2)).mean())
    return float(((decoded > 0.5) == (x > 0.5)).mean())

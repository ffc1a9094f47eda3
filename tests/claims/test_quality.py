"""Claims on data/chain2d.npz and an independent held-out run of it, data/chain2d_heldout.npz, and on chain2d_dense.

1. At 2, 4 and 8 latents the fraction of variance explained and the importance-weighted bound (k = 64) on held-out
   frames are above those of as many principal components of the same aligned coordinates, and of probabilistic PCA
   (Tipping & Bishop, 10.1111/1467-9868.00196).
2. A time lag raises the VAMP-2 score on held-out frames of closely spaced data.
Five seeds each; the short form takes one. Run with `-s` to see the figures.
"""

import numpy as np
import pytest
from conftest import DATA
from scipy import stats

import polyvae as pv


def principal_components(train: np.ndarray, test: np.ndarray, k: int) -> tuple[float, float]:
    """Fraction of the variance of `test` explained, and its mean log-likelihood under probabilistic PCA."""
    mean = train.mean(axis=0)
    # Centring leaves coordinates that do not vary: take the full-rank part, where densities are finite.
    values, vectors = np.linalg.eigh(np.cov(train.T, bias=True))
    kept, left = vectors[:, -k:], values[:-k]
    apart = test - mean
    residual = apart - apart @ kept @ kept.T
    fve = 1 - (residual**2).sum() / ((test - test.mean(axis=0)) ** 2).sum()
    noise = left.mean()
    covariance = (kept * (values[-k:] - noise)) @ kept.T + noise * np.eye(len(values))
    return fve, stats.multivariate_normal(mean, covariance).logpdf(test).mean()


def compare(seeds) -> list[tuple]:
    train, test = pv.read(DATA / "chain2d.npz"), pv.read(DATA / "chain2d_heldout.npz")
    rows = []
    for latent_dim in (2, 4, 8):
        fve, bound = [], []
        for seed in seeds:
            cv = pv.fit(train, latent_dim=latent_dim, seed=seed)
            found = pv.score(cv, test, alternatives=False)["frames"]["all"]
            fve.append(found["fve"])
            bound.append(found["iw_bound"])
        x, y = (cv.align(traj).reshape(len(traj), -1).astype(float) for traj in (train, test))
        rows.append((latent_dim, fve, bound, *principal_components(x, y, latent_dim)))
    print("\nlatents   FVE: VAE (sd), PCA        bound, nats: VAE (sd), probabilistic PCA")
    for latent_dim, fve, bound, pca_fve, pca_bound in rows:
        print(
            f"{latent_dim:7d}   {np.mean(fve):.4f} ({np.std(fve):.4f}), {pca_fve:.4f}"
            f"   {np.mean(bound):9.3f} ({np.std(bound):.3f}), {pca_bound:9.3f}"
        )
    return rows


def check(rows) -> None:
    for latent_dim, fve, bound, pca_fve, pca_bound in rows:
        assert min(fve) > pca_fve, latent_dim
        assert min(bound) > pca_bound, latent_dim


def test_above_principal_components():
    check(compare([0]))


@pytest.mark.slow
def test_above_principal_components_for_five_seeds():
    check(compare(range(5)))


def lagged_scores(seeds, lags=(0, 5, 20), at: int = 20) -> dict[int, list[float]]:
    """VAMP-2 at lag `at` on the last third of chain2d_dense, of models trained on the first two thirds."""
    traj = pv.read(DATA / "chain2d_dense.npz")
    cut = 2 * len(traj) // 3
    train, test = traj[:cut], traj[cut:]
    found = {}
    for lag in lags:
        models = [pv.fit(train, featurizer=pv.Reference(), lag=lag, seed=seed) for seed in seeds]
        scores = [pv.score(cv, test, lag=at, alternatives=False)["frames"]["all"]["vamp2"] for cv in models]
        found[lag] = scores
        print(f"lag {lag:3d}: VAMP-2 at {at} frames, held out {np.mean(scores):.3f} (sd {np.std(scores):.3f})")
    return found


@pytest.mark.slow
def test_a_lag_raises_vamp2():
    print()
    found = lagged_scores(range(5))
    assert np.mean(found[20]) > np.mean(found[0])

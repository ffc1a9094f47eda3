"""The three checks of a VAE against the same numbers by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import polyvae as pv


def fitted(x, likelihood, **options):
    options = {"latent_dim": 2, "epochs": 3, "batch_size": 64, "encoder": (8,), "decoder": (8,)} | options
    return pv.fit_vae(x, likelihood=likelihood, **options)


@pytest.fixture(scope="module")
def gaussian():
    """400 vectors of 3 numbers whose spread and mean are far from 1 and 0."""
    x = np.random.default_rng(0).normal(7, 30, size=(400, 3)).astype(np.float32)
    return fitted(x, pv.Gaussian(12.0)), x


def test_gaussian_terms_by_hand(gaussian):
    """log p(x|z) with the width as it was given, in the data's unit; 8 standard errors of the draws."""
    model, x = gaussian
    result = pv.check_vae(model, x, n_draws=64)
    mean, std = model.transform_posterior(x)
    rng, values = np.random.default_rng(5), []
    for _ in range(64):
        decoded = model.decode(mean + std * rng.normal(size=mean.shape))
        values.append(norm.logpdf(x, decoded, 12.0).sum(axis=1).mean())
    assert abs(-result["reconstruction"] - np.mean(values)) < 8 * result["elbo_error"]
    kl = (0.5 * (mean**2 + std**2 - 1) - np.log(std)).mean(axis=0)
    np.testing.assert_allclose(result["kl_per_latent"], kl, rtol=1e-4)
    np.testing.assert_allclose(result["elbo"], -result["reconstruction"] - kl.sum(), rtol=1e-5)
    np.testing.assert_allclose(
        result["squared_error"], ((model.decode(mean) - x) ** 2).sum(axis=1).mean(), rtol=1e-5
    )
    assert result["accuracy"] is None
    assert result["n_frames"] == 400


def test_aggregated_posterior_by_draws(gaussian):
    model, x = gaussian
    result = pv.check_vae(model, x)
    mean, std = model.transform_posterior(x)
    z = mean + std * np.random.default_rng(1).normal(size=(2000, *mean.shape))
    np.testing.assert_allclose(result["aggregated_std"], z.std(axis=(0, 1)), rtol=0.01)
    np.testing.assert_allclose(result["latent_mean"], mean.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(result["mean_std"], std.mean(axis=0), rtol=1e-5)


def test_the_error_is_that_of_the_draws(gaussian):
    model, x = gaussian
    runs = [pv.check_vae(model, x, seed=seed, n_draws=4, n_samples=1) for seed in range(30)]
    measured = np.std([run["elbo"] for run in runs], ddof=1)
    assert 0.6 < runs[0]["elbo_error"] / measured < 1.6  # 30 runs know it to 13 %


def test_samples_of_states():
    """Total variation, averaged over two variables of three states, against its definition."""
    rng = np.random.default_rng(2)
    states = np.stack([rng.choice(3, 500, p=[0.2, 0.3, 0.5]), rng.choice(3, 500, p=[0.7, 0.2, 0.1])], axis=1)
    x = np.eye(3, dtype=np.float32)[states].reshape(500, 6)
    model = fitted(x, pv.Categorical(3))
    result = pv.check_vae(model, x, n_samples=2000, seed=4)
    drawn = model.sample(2000, seed=4).reshape(-1, 2, 3).argmax(axis=2)
    expected = [
        0.5 * sum(abs((drawn[:, v] == s).mean() - (states[:, v] == s).mean()) for s in range(3)) for v in (0, 1)
    ]
    assert result["sample_distance"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert 0 < result["sample_noise_floor"] < 0.2
    right = model.decode(model.transform(x)).reshape(500, 2, 3).argmax(axis=2) == states
    assert result["accuracy"] == pytest.approx(right.mean())


def test_contacts():
    x = (np.random.default_rng(3).random((300, 4)) < [0.1, 0.5, 0.9, 1.0]).astype(np.float32)
    model = fitted(x, pv.Bernoulli())
    result = pv.check_vae(model, x)
    apart = np.abs(model.sample(300, seed=0).mean(axis=0) - x.mean(axis=0)).mean()
    assert result["sample_distance"] == pytest.approx(apart, abs=1e-6)
    assert 0.5 < result["accuracy"] <= 1


def test_refusals(gaussian):
    model, x = gaussian
    with pytest.raises(pv.InputError, match="3 features.* 2"):
        pv.check_vae(model, x[:, :2])
    with pytest.raises(pv.InputError, match="n_draws"):
        pv.check_vae(model, x, n_draws=0)
    states = np.eye(3, dtype=np.float32)[[0, 1, 2] * 30]
    with pytest.raises(pv.InputError, match="one-hot"):
        pv.check_vae(fitted(states, pv.Categorical()), 0.5 * states)


def test_one_frame_is_enough(gaussian):
    model, x = gaussian
    result = pv.check_vae(model, x[:1], n_draws=1)
    assert np.isfinite(result["elbo"])
    assert np.isnan(result["elbo_error"])
    assert jnp.isfinite(result["sample_distance"])

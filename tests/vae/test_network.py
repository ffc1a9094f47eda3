"""The bound's two terms, the likelihood, and training, against closed forms."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from scipy import stats

import polyvae as pv
from polyvae.vae.bound import elbo_terms, kl_to_standard_normal
from polyvae.vae.likelihood import Gaussian
from polyvae.vae.network import VAE
from polyvae.vae.settings import Settings
from polyvae.vae.splits import validation_blocks
from polyvae.vae.training import train


def test_gaussian_is_a_normalised_density():
    x, mean = jnp.array([0.3, -1.2, 2.0]), jnp.array([0.1, 0.0, 1.5])
    expected = stats.norm(np.asarray(mean), 0.7).logpdf(np.asarray(x)).sum()
    assert float(Gaussian(0.7).log_prob(x, mean)) == pytest.approx(expected, rel=1e-5)


def test_gaussian_refuses_shapes_that_would_broadcast():
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="one shape|log_prob"):
        Gaussian().log_prob(jnp.zeros(3), jnp.zeros((3, 1)))


@pytest.mark.parametrize("width", [0.0, -1.0, math.inf, math.nan, "wide"])
def test_gaussian_refuses_widths(width):
    with pytest.raises(pv.InputError, match="width"):
        Gaussian(width)


def test_only_a_learned_width_has_a_gradient():
    def loss(likelihood):
        return likelihood.log_prob(jnp.ones(3), jnp.zeros(3))

    assert float(jax.grad(loss)(Gaussian(0.5)).log_width) == 0
    assert float(jax.grad(loss)(Gaussian()).log_width) == pytest.approx(0.0)  # at its optimum: mean square 1
    assert float(
        jax.grad(lambda g: g.log_prob(2 * jnp.ones(3), jnp.zeros(3)))(Gaussian()).log_width
    ) == pytest.approx(9)


def test_kl_against_monte_carlo():
    mean, std = 0.8, 0.4
    exact = float(kl_to_standard_normal(jnp.array([mean]), jnp.array([std]))[0])
    z = np.random.default_rng(0).normal(mean, std, 200_000)
    draws = stats.norm(mean, std).logpdf(z) - stats.norm.logpdf(z)
    assert abs(draws.mean() - exact) < 5 * draws.std() / math.sqrt(z.size)


def test_elbo_of_a_linear_model_is_below_and_can_reach_the_evidence():
    """x = W z + noise with the exact posterior as encoder: the bound is tight (probabilistic PCA)."""
    rng = np.random.default_rng(1)
    w, s = rng.normal(size=(3, 1)), 0.5
    vae = VAE(3, latent_dim=1, encoder=(), decoder=(), likelihood=Gaussian(s), key=jax.random.key(0))
    precision = 1 + float((w**2).sum()) / s**2
    encoder = np.concatenate([w.T / s**2 / precision, np.zeros((1, 3))])
    weights = (encoder, np.array([0.0, -0.5 * math.log(precision)]), w, np.zeros(3))
    vae = eqx.tree_at(
        lambda v: (
            v.encoder.layers[0].weight,
            v.encoder.layers[0].bias,
            v.decoder.layers[0].weight,
            v.decoder.layers[0].bias,
        ),
        vae,
        tuple(jnp.asarray(a, jnp.float32) for a in weights),
    )
    x = jnp.asarray(rng.normal(size=3), jnp.float32)
    evidence = stats.multivariate_normal(np.zeros(3), w @ w.T + s**2 * np.eye(3)).logpdf(np.asarray(x))
    noise = jax.random.normal(jax.random.key(2), (20_000, 1))
    log_prob, kl = jax.vmap(lambda e: elbo_terms(vae, x, e, x))(noise)
    bound = np.asarray(log_prob - kl[:, 0], np.float64)
    assert abs(bound.mean() - evidence) < 5 * bound.std() / math.sqrt(bound.size)


def test_training_a_linear_vae_reaches_probabilistic_pca():
    """Maximum likelihood of a linear-Gaussian model is known (Tipping & Bishop 1999): compare the width."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2048, 2)) @ rng.normal(size=(2, 6)) + 0.3 * rng.normal(size=(2048, 6))
    x = ((x - x.mean(0)) / x.std()).astype(np.float32)
    eigenvalues = np.linalg.eigvalsh(np.cov(x.T, bias=True))
    best_width = math.sqrt(eigenvalues[:-2].mean())
    vae = VAE(6, latent_dim=2, encoder=(), decoder=(), key=jax.random.key(0))
    out = train(
        vae,
        x,
        np.arange(2048),
        settings=Settings(epochs=200, batch_size=128, learning_rate=1e-2),
        key=jax.random.key(1),
    )
    assert float(out.vae.likelihood.width) == pytest.approx(best_width, rel=0.02)
    covariance = np.cov(x.T, bias=True)
    exact = -stats.multivariate_normal(np.zeros(6), _ppca(covariance, 2)).logpdf(x).mean()
    reached = out.history["reconstruction"][-20:].mean() + out.history["kl"][-20:].mean()
    assert exact - 0.01 < reached < exact + 0.05


def _ppca(covariance, k):
    values, vectors = np.linalg.eigh(covariance)
    noise = values[:-k].mean()
    return (vectors[:, -k:] * (values[-k:] - noise)) @ vectors[:, -k:].T + noise * np.eye(len(values))


def test_validation_blocks_are_contiguous_and_hold_their_share():
    mask = validation_blocks(1000, 0.1, 5)
    assert mask.sum() == 100
    assert (np.diff(mask.astype(int)) == 1).sum() == 5
    assert not validation_blocks(1000, 0.0).any()
    assert validation_blocks(10, 0.1).sum() == 1
    with pytest.raises(pv.InputError, match="validation"):
        validation_blocks(10, 1.0)


def everything(vae, x, val_rows=(), **options):
    """Train on all rows of x that are not for validation."""
    rows = np.setdiff1d(np.arange(len(x)), val_rows)
    settings = Settings(**options)
    return train(vae, np.asarray(x), rows, np.asarray(val_rows, int), key=jax.random.key(3), settings=settings)


def test_early_stopping_keeps_the_best_epoch():
    x = np.asarray(jax.random.normal(jax.random.key(0), (192, 6)))
    vae, val = VAE(6, latent_dim=2, decoder=(64, 64), key=jax.random.key(2)), np.arange(128, 192)
    out = everything(vae, x, val, epochs=600, batch_size=64, learning_rate=5e-3, patience=100)
    objective = out.history["val_reconstruction"] + out.history["val_kl"]
    assert out.best_epoch == int(np.argmin(objective))
    assert "no better validation objective" in out.stopped
    assert len(objective) < 600
    # The weights kept are those of that epoch, not the last: the objective on the same noise says so.
    _, val_key = jax.random.split(jax.random.key(3))
    log_prob, kl = jax.vmap(elbo_terms, in_axes=(None, 0, 0, 0))(
        out.vae, x[val], jax.random.normal(val_key, (64, 2)), x[val]
    )
    assert float(jnp.mean(kl.sum(axis=1) - log_prob)) == pytest.approx(objective.min(), rel=1e-5)


def test_a_loss_that_is_not_finite_stops_training():
    with pytest.raises(pv.InputError, match="not finite.*epoch 0"):
        everything(VAE(4, key=jax.random.key(0)), np.full((64, 4), 1e20, np.float32), epochs=3, batch_size=32)

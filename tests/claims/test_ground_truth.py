"""Claim: on linear-Gaussian data a linear VAE reaches probabilistic PCA's exact log-likelihood within 0.05 nats.

The exact value is known (Tipping & Bishop, 10.1111/1467-9868.00196). 4,096 frames of 10 features, 3 of them
latent, seed 0. The importance-weighted bound (Burda et al., arXiv:1509.00519) of a model with an inexact encoder
rises towards the log-likelihood of the same model as k grows, and stays below it. Run with `-s` for the figures.
"""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import polyvae as pv
from polyvae.vae.bound import importance_weighted_bound

pytestmark = pytest.mark.long


def test_linear_vae():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4096, 3)) @ (2 * rng.normal(size=(3, 10))) + 0.5 * rng.normal(size=(4096, 10)) + 5
    values = np.sort(np.linalg.eigvalsh(np.cov(x.T, bias=True)))[::-1]
    noise = values[3:].mean()
    exact = -0.5 * (10 * np.log(2 * np.pi) + np.log(values[:3]).sum() + 7 * np.log(noise) + 10)
    model = pv.fit_vae(
        x, latent_dim=3, encoder=(), decoder=(), epochs=300, batch_size=256, learning_rate=1e-2, validation=0
    )

    # The log-likelihood of the very model that was trained is known too: x ~ N(mean, W W^T + s^2).
    scale, mean = float(model.scale), np.asarray(model.mean, float)
    weight, bias = (
        np.asarray(a, float) for a in (model.vae.decoder.layers[0].weight, model.vae.decoder.layers[0].bias)
    )
    width = float(model.vae.likelihood.width)
    covariance = scale**2 * (weight @ weight.T + width**2 * np.eye(10))
    own_each = stats.multivariate_normal(mean + scale * bias, covariance).logpdf(x)
    own = own_each.mean()

    scaled = jnp.asarray((x - mean) / scale, jnp.float32)
    jacobian = 10 * np.log(scale)

    def bound(vae, k):
        keys = jax.random.split(jax.random.key(k), len(scaled))
        each = jax.jit(jax.vmap(lambda row, key: importance_weighted_bound(vae, row, k=k, key=key)))(scaled, keys)
        gap = np.asarray(each, float) - jacobian - own_each  # per frame, where little else varies
        return gap.mean(), gap.std() / np.sqrt(len(gap))

    gap, error = bound(model.vae, 1)
    print(
        f"\nprobabilistic PCA {exact:.4f}, this model {own:.4f}, its ELBO {-gap:.4f} +- {error:.4f} below (nats)"
    )
    assert exact - 0.05 < own <= exact + 1e-4  # nothing linear does better
    assert exact - 0.05 < own + gap < own + 5 * error

    # An encoder of twice the right width: the ELBO loses, k draws win it back.
    def twice(bias):
        return bias.at[3:].add(jnp.log(2.0))

    wide = eqx.tree_at(lambda vae: vae.encoder.layers[-1].bias, model.vae, replace_fn=twice)
    gaps = {k: bound(wide, k) for k in (1, 8, 64, 512)}
    print("too wide an encoder, below the model's own log-likelihood by " + ", ".join(
        f"{-gap:.4f} +- {error:.4f} (k = {k})" for k, (gap, error) in gaps.items()
    ))  # fmt: skip
    assert gaps[1][0] < -0.5
    for (low, low_error), (high, high_error) in itertools.pairwise(gaps.values()):
        assert low < high - 2 * (low_error + high_error)
    assert -0.02 < gaps[512][0] < 3 * gaps[512][1]

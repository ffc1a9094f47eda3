"""How evenly a latent goes from one vector to another: a term against steps that no data lie on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import polyvae as pv
from polyvae.vae import bound


@pytest.mark.parametrize("steep", [1.0, 30.0])
def test_unevenness_is_what_a_straight_way_would_save(steep):
    """Of a latent tanh(k x) along a line of length L from -L/2 to L/2, in closed form."""

    class Step:
        def encode(self, x):
            return jnp.tanh(steep * x), None

    half = 1.3
    a, b = jnp.array([-half]), jnp.array([half])
    parts = (jnp.arange(40_000) + 0.5) / 40_000
    found = jnp.mean(jax.vmap(lambda part: bound.unevenness(Step(), a, b, part))(parts))
    u = np.tanh(steep * half)
    # int (L k sech^2)^2 dt = L k [tanh - tanh^3 / 3] over the ends
    exact = 2 * half * steep * 2 * (u - u**3 / 3) - (2 * u) ** 2
    assert found == pytest.approx(exact, rel=1e-3)


def test_a_linear_encoder_goes_evenly():
    class Linear:
        def encode(self, x):
            return jnp.array([[1.0, -2.0], [0.5, 3.0]]) @ x, None

    a, b = jnp.array([0.3, -1.0]), jnp.array([2.0, 5.0])
    assert bound.unevenness(Linear(), a, b, jnp.array(0.37)) == pytest.approx(0, abs=1e-4)


def test_smoothness_makes_a_latent_even_between_two_heaps():
    rng = np.random.default_rng(0)
    x = np.repeat([-1.0, 1.0], 600)[:, None] + 0.05 * rng.normal(size=(1200, 1))
    x = rng.permutation(x).astype(np.float32)
    options = {"latent_dim": 1, "encoder": (32,), "decoder": (32,), "epochs": 150, "seed": 0}
    way = np.linspace(-1, 1, 101, dtype=np.float32)[:, None]
    share = {}
    for weight in (0.0, 1.0):
        z = pv.fit_vae(x, smoothness=weight, **options).transform(way)[:, 0]
        share[weight] = np.abs(np.diff(z)).max() / abs(z[-1] - z[0])
    assert share[1.0] < 0.03  # of a hundred steps
    assert share[0.0] > 1.5 * share[1.0]

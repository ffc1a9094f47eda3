"""The compiled kernel inside JAX programs: the CV's own values and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engines import float64_values, ideal, random_model

import polyvae as pv
from polyvae.export.xla import latent_function

KINDS = {
    "axes": pv.PrincipalAxes(mirror=True, reversal=True),
    "reference": pv.Reference(),
    "distances": pv.PairDistances(),
}


@pytest.fixture(
    scope="module", params=["reference", *(pytest.param(k, marks=pytest.mark.long) for k in ("axes", "distances"))]
)
def cv(request):
    return random_model(ideal(3), KINDS[request.param], encoder=(16, 8))


def test_values_and_gradients_in_programs(cv):
    frames = ideal(3).positions.astype(float)[:20]
    expected = float64_values(cv, frames)
    function = latent_function(cv)
    with jax.enable_x64(True):
        program = jax.jit(lambda x: (function(x), jax.jacrev(function)(x), jax.jacfwd(function)(x)))
        one = [np.array(part) for part in zip(*map(program, jnp.asarray(frames)), strict=True)]
        many = list(map(np.asarray, jax.jit(jax.vmap(lambda x: (function(x), jax.jacrev(function)(x))))(frames)))
        text = jax.jit(function).lower(jnp.asarray(frames[0])).as_text()
    assert "polyvae_latent_cv" in text, "the kernel is not what runs"
    for found in (one[:2], [one[0], one[2]], many):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12 * np.abs(b).max())


def test_within_a_larger_function(cv):
    """The force of a bias on the latents, by finite differences."""
    function = latent_function(cv)
    x = ideal(3).positions[0].astype(float)
    with jax.enable_x64(True):
        bias = jax.jit(lambda r: jnp.sum(jnp.sin(function(3.0 * r)) ** 2))
        force = np.asarray(jax.grad(bias)(x))
        step = 1e-6
        for bead, axis in ((0, 0), (3, 1), (6, 2)):
            moved = np.zeros_like(x)
            moved[bead, axis] = step
            slope = (bias(x + moved) - bias(x - moved)) / (2 * step)
            assert force[bead, axis] == pytest.approx(float(slope), rel=1e-6, abs=1e-8)


def test_single_precision_and_no_compiler_are_jax(cv, monkeypatch, caplog):
    x = jnp.asarray(ideal(3).positions[0])
    np.testing.assert_allclose(latent_function(cv)(x), cv(x), atol=1e-6)
    monkeypatch.setenv("CXX", "no-such-compiler")
    np.testing.assert_allclose(latent_function(cv)(x), cv(x), atol=1e-6)
    assert "the CV runs in JAX" in caplog.text


def test_another_shape_is_refused_and_a_model_compiled_once(cv):
    function = latent_function(cv)
    with jax.enable_x64(True):
        for shape in ((5, 3), (20, 7, 3), (7, 2)):
            with pytest.raises(pv.InputError, match="one frame"):
                function(np.zeros(shape))
        texts = [jax.jit(f).lower(np.zeros((7, 3))).as_text() for f in (function, latent_function(cv))]
        first, second = ({word for word in text.split() if "polyvae_latent_cv" in word} for text in texts)
        assert first == second


@pytest.mark.long
def test_two_models_stay_apart():
    models = [random_model(ideal(3), pv.Reference(), encoder=(8,), seed=seed) for seed in (0, 1)]
    functions = [latent_function(model) for model in models]
    x = ideal(3).positions[:1].astype(float)
    with jax.enable_x64(True):
        for model, function in zip(models, functions, strict=True):
            np.testing.assert_allclose(function(jnp.asarray(x[0])), float64_values(model, x)[0][0], rtol=1e-12)

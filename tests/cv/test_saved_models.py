"""Model files that version 0.1.0 wrote load, and give what they gave: `tests/saved`, one of each featurizer and
likelihood, on frames of `data/`, with what 0.1.0 computed in `expected.npz`."""

import jax
import numpy as np
import pytest
from conftest import ROOT, arrays

import polyvae as pv

SAVED = ROOT / "tests" / "saved"
EXPECTED = arrays(SAVED / "expected.npz")
CVS = ["principal_2d", "principal_3d", "reference_2d", "reference_3d", "distances_2d", "distances_3d"]


@pytest.mark.parametrize("name", CVS)
def test_a_cv_of_0_1_0(name):
    cv = pv.load(SAVED / f"{name}.safetensors")
    z = cv.transform(EXPECTED[f"frames_{name[-2:]}"])
    np.testing.assert_allclose(z, EXPECTED[name], atol=1e-5)
    assert z.std(axis=0).min() > 0.01, "latents that hardly move show nothing"
    np.testing.assert_allclose(cv.decode(EXPECTED[name]), EXPECTED[f"{name}_decoded"], atol=1e-5)
    assert cv.record["settings"]["seed"] == 3
    assert cv.record["versions"]["polyvae"] == "0.1.0"


def test_a_generator_of_0_1_0():
    """Of a draw the steps are compared: small differences between them grow over a whole one."""
    generator = pv.load(SAVED / "principal_2d.safetensors").generator
    noise = np.float32([0.01, 0.1, 0.5, 1.0, 4.0])
    denoised = jax.vmap(generator.denoise)(EXPECTED["aligned"], noise, EXPECTED["principal_2d"][:5])
    np.testing.assert_allclose(denoised, EXPECTED["denoised"], atol=1e-5)
    settled = jax.vmap(generator.settle)(EXPECTED["aligned"])
    np.testing.assert_allclose(settled, EXPECTED["settled"], atol=1e-4)


@pytest.mark.parametrize("name", ["gaussian", "categorical", "bernoulli"])
def test_vectors_of_0_1_0(name):
    model = pv.load(SAVED / f"{name}.safetensors")
    np.testing.assert_allclose(model.transform(EXPECTED[f"{name}_x"]), EXPECTED[name], atol=1e-5)


@pytest.mark.parametrize("name", [*CVS, "gaussian", "categorical", "bernoulli"])
def test_saved_again_nothing_is_lost(name, tmp_path):
    model = pv.load(SAVED / f"{name}.safetensors")
    model.save(tmp_path / "again.safetensors")
    assert pv.load(tmp_path / "again.safetensors").record == model.record

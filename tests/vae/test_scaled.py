"""The one arithmetic of a model: scaling and VAE, against NumPy and SciPy."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import polyvae as pv
from polyvae.vae.network import VAE
from polyvae.vae.scaled import ScaledVAE
from polyvae.vae.settings import DataRecord, GeneratorRecord, GeneratorSettings, ModelRecord, Settings


@pytest.mark.parametrize("scale", [np.float32(2.5), np.linspace(0.5, 3, 4, dtype=np.float32)], ids=["one", "each"])
def test_densities_are_those_of_the_data(scale):
    """A Gaussian decoder gives the normal density about its mean, of width times scale, in the unit of x."""
    vae = VAE(4, latent_dim=2, encoder=(5,), decoder=(5,), likelihood=pv.Gaussian(0.3), key=jax.random.key(0))
    model = ScaledVAE(jnp.arange(4.0), jnp.asarray(scale), vae)
    x, target, noise = (jax.random.normal(jax.random.key(k), (n,)) for k, n in ((1, 4), (2, 4), (3, 2)))
    mean, std = model.encode(x)
    center = np.asarray(model.decode(mean + std * noise))
    log_prob, kl = model.elbo_terms(x, noise, target)
    assert float(log_prob) == pytest.approx(stats.norm(center, 0.3 * scale).logpdf(target).sum(), rel=1e-4)
    z = np.linspace(-12, 12, 20001)
    for k in range(2):
        q = stats.norm(float(mean[k]), float(std[k]))
        exact = np.trapezoid(q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z)), z)
        assert float(kl[k]) == pytest.approx(exact, rel=1e-3, abs=1e-5)
    own, _ = model.elbo_terms(x, noise)
    assert float(own) == pytest.approx(stats.norm(center, 0.3 * scale).logpdf(x).sum(), rel=1e-4)


def test_scaling_goes_there_and_back():
    model = ScaledVAE(jnp.arange(3.0), jnp.array([1.0, 2.0, 4.0]), VAE(3, latent_dim=1, key=jax.random.key(0)))
    x = jnp.array([3.0, -1.0, 0.5])
    np.testing.assert_allclose(model.restore(model.standardize(x)), x, atol=1e-6)
    volume = np.linalg.slogdet(jax.jacfwd(model.restore)(jnp.zeros(3)))[1]
    assert float(model.log_volume()) == pytest.approx(volume, rel=1e-6)


class TestRecords:
    def test_a_record_is_what_its_file_gives_back(self):
        generator = GeneratorRecord(
            GeneratorSettings(9, 4, 1e-3, 8, 1, 0.1, 3), 12, {"jax": "1"}, 5, {"loss": [1.0]}
        )
        for record in (
            ModelRecord(),
            ModelRecord(
                Settings(epochs=3, width="learned"), DataRecord("ab", 5), {"jax": "1"}, {"kl": [2.0]}, 1, "x"
            ),
            ModelRecord(generator=generator),
        ):
            plain = json.loads(json.dumps(record.to_dict()))
            again = ModelRecord.from_dict(plain)
            assert again == record
            assert again.to_dict() == plain
            assert all(record[name] == getattr(record, name) for name in plain)
            assert type(again.settings) is Settings
        assert again.generator.settings.depth == 1

    def test_what_was_not_asked_is_left_out(self):
        assert "generator" not in ModelRecord().to_dict()
        assert "likelihood" not in Settings(width=0.5).to_dict()
        assert Settings().to_dict()["epochs"] is None  # until the data say how many

    def test_it_is_checked_where_it_is_made_and_cannot_be_changed(self):
        settings = Settings(encoder=[np.int64(8)], beta=1)
        assert settings.encoder == (8,)
        assert settings.to_dict()["encoder"] == [8]
        with pytest.raises(dataclasses.FrozenInstanceError):
            settings.beta = 2.0
        with pytest.raises(pv.InputError, match="lag must"):
            dataclasses.replace(settings, lag=-1)
        with pytest.raises(TypeError, match="colour"):
            Settings.from_dict({"colour": "red"})

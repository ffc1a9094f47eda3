"""What training minimises, and what it never mixes: schedules, lags, weights, interruptions, data on disk."""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ideal_chains
from hypothesis import given, settings
from hypothesis import strategies as st

import polyvae as pv
from polyvae.cv import fitting as cv_fitting
from polyvae.cv.latent import load_cv
from polyvae.vae import epochs, training
from polyvae.vae import fitting as prepared
from polyvae.vae.epochs import Rows
from polyvae.vae.network import VAE
from polyvae.vae.settings import Settings
from polyvae.vae.splits import first_of_pairs, validation_blocks

SMALL = {"encoder": (16,), "decoder": (16,), "batch_size": 64}


def probabilistic_pca(x: np.ndarray, k: int, weights: np.ndarray | None = None) -> float:
    """Mean log-likelihood at the maximum (Tipping & Bishop, 10.1111/1467-9868.00196)."""
    covariance = np.cov(x.T, bias=True, aweights=weights)
    values = np.sort(np.linalg.eigvalsh(covariance))[::-1]
    noise = values[k:].mean()
    d = x.shape[1]
    return -0.5 * (d * np.log(2 * np.pi) + np.log(values[:k]).sum() + (d - k) * np.log(noise) + d)


def linear_data(n: int = 2048, d: int = 6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, 2)) @ rng.normal(size=(2, d)) + 0.3 * rng.normal(size=(n, d))).astype(np.float32)


def linear_fit(x, **options):
    options = {"epochs": 200, "batch_size": 128, "learning_rate": 1e-2, "validation": 0} | options
    return pv.fit_vae(x, encoder=(), decoder=(), **options)


def last_bound(model) -> float:
    history = model.record["history"]
    return -np.mean(history["reconstruction"][-20:]) - np.mean(history["kl"][-20:])


@pytest.mark.long
def test_a_linear_model_reaches_probabilistic_pca_whatever_the_batch_size_and_the_unit():
    x = linear_data()
    exact = probabilistic_pca(x, 2)
    for factor, batch_size in ((1.0, 128), (10.0, 128), (1.0, 512)):
        model = linear_fit(factor * x, batch_size=batch_size, epochs=200 * batch_size // 128)
        reached = last_bound(model) + 6 * np.log(factor)  # a density over Å is smaller than one over nm
        assert exact - 0.05 < reached < exact + 0.01, (factor, batch_size)


@pytest.mark.parametrize("beta", [0.3, 1.0, 2.0])
def test_beta_shrinks_a_linear_decoder_as_the_formula_says(beta):
    """With width s fixed, W is that of probabilistic PCA with noise beta s^2: singular values^2 l - beta s^2."""
    x, s = linear_data(), 0.5
    x = x - x.mean(axis=0)
    model = linear_fit(x, likelihood=pv.Gaussian(s), beta=beta, epochs=800, learning_rate=3e-2)
    w = np.asarray(model.vae.decoder.layers[0].weight) * float(model.scale)
    values = np.sort(np.linalg.eigvalsh(np.cov(x.T, bias=True)))[::-1][:2]
    found = np.linalg.svd(w, compute_uv=False)
    np.testing.assert_allclose(found**2, values - beta * s**2, rtol=0.05)


class TestBetaSchedule:
    def plan(self, kind, n_steps=1000):
        return epochs.make_plan(
            100,
            Settings(
                epochs=n_steps,
                batch_size=100,
                patience=None,
                learning_rate=1e-3,
                lr_schedule="cosine",
                beta_schedule=kind,
                free_bits=0.0,
                lag=0,
            ),
        )

    def test_ramps(self):
        for kind, end in (("warmup", 100), ("cycle", 500)):
            factor = self.plan(kind).beta_factor
            assert float(factor(0)) == 0
            assert float(factor(end // 2)) == pytest.approx(0.5)
            assert float(factor(end)) == float(factor(1000)) == 1
        assert self.plan("constant").beta_factor(0) == 1

    def test_what_is_chosen_is_judged_with_the_final_beta(self):
        """Early on a ramp the KL is cheap; an epoch from there must not look best."""
        x = linear_data(640)
        model = pv.fit_vae(x, **SMALL, beta=8.0, beta_schedule="cycle", epochs=40, patience=40)
        history = {k: np.array(v) for k, v in model.record["history"].items()}
        assert model.record["best_epoch"] == np.argmin(history["val_reconstruction"] + 8 * history["val_kl"])
        assert history["val_kl"][2] > history["val_kl"][-1]


def test_free_bits_cost_nothing_and_are_used():
    noise = np.random.default_rng(0).normal(size=(640, 4)).astype(np.float32)
    common = {"latent_dim": 2, "epochs": 60, "validation": 0, "learning_rate": 5e-3, "beta": 4.0}
    without, with_free = (pv.fit_vae(noise, **SMALL, **common, free_bits=f) for f in (0.0, 0.5))
    assert np.mean(without.record["history"]["kl"][-10:]) < 0.05
    assert np.mean(with_free.record["history"]["kl"][-10:]) > 0.8  # about 0.5 for each of two


class TestLag:
    @given(
        st.lists(st.integers(1, 12), min_size=1, max_size=6),
        st.integers(0, 8),
        st.floats(0, 0.8),
    )
    @settings(deadline=None)
    def test_pairs_lie_in_one_segment_and_one_set(self, lengths, lag, fraction):
        n = sum(lengths)
        held_out = validation_blocks(n, fraction)
        piece = np.repeat(np.arange(len(lengths)), lengths)
        for mask in (held_out, ~held_out):
            expected = [
                i for i in range(n - lag) if mask[i] and mask[i + lag] and piece[i] == piece[i + lag]
            ]  # fmt: skip
            assert first_of_pairs(mask, tuple(lengths), lag).tolist() == expected

    def test_the_decoder_learns_the_later_frame(self):
        """Frames that swap sign at every step: a model with lag 1 decodes minus what it is given."""
        sign = np.where(np.arange(640) % 2 == 0, 1.0, -1.0)
        x = sign[:, None] * np.array([1.0, 2.0, -1.0]) + 0.05 * np.random.default_rng(0).normal(size=(640, 3))
        x = x.astype(np.float32)
        model = pv.fit_vae(x, **SMALL, latent_dim=1, lag=1, epochs=100)
        np.testing.assert_allclose(model.decode(model.transform(x)), -x, atol=0.4)

    def test_a_lag_longer_than_every_piece_is_refused(self):
        x = linear_data(640)
        with pytest.raises(pv.InputError, match="lag of 70"):
            pv.fit_vae(x, **SMALL, lag=70, segments=(64,) * 10)
        with pytest.raises(pv.InputError, match=r"\b0 after 10%.*63 frames"):
            pv.fit_vae(x, **SMALL, lag=63, segments=(64,) * 10, validation=0.1)
        with pytest.raises(pv.InputError, match="two validation frames.*20"):
            pv.fit_vae(x, **SMALL, lag=20, validation=0.1)  # five blocks of 12


class TestWeights:
    def test_integer_weights_are_duplicated_frames_in_the_objective_and_the_scaling(self):
        x, counts = linear_data(50), np.random.default_rng(1).integers(0, 4, 50)
        repeated = np.repeat(np.arange(50), counts)
        vae = VAE(6, latent_dim=2, encoder=(5,), decoder=(5,), key=jax.random.key(0))
        weights, static = eqx.partition(vae, eqx.is_inexact_array)
        noise = np.random.default_rng(2).normal(size=(50, 2)).astype(np.float32)
        shares = training.normalise_weights(counts.astype(float), np.arange(50))

        def objective(weights, data, noise):
            reconstruction, kl, _ = epochs.loss_terms(weights, static, data, noise, 0.0)
            return reconstruction + 0.7 * kl

        one = jax.value_and_grad(objective)(weights, Rows(x, x, shares), noise)
        many = jax.value_and_grad(objective)(weights, Rows(x[repeated], x[repeated], None), noise[repeated])
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)
        for a, b in zip(
            prepared._moments(x, counts.astype(float)),
            prepared._moments(x[repeated], np.ones(len(repeated))),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-6)

    def test_a_weighted_linear_model_reaches_the_weighted_optimum(self):
        x = linear_data(4096)
        weights = np.exp(x[:, 0])  # as if a bias had pushed frames out of where x0 is large
        model = linear_fit(x, weights=weights)
        exact = probabilistic_pca(x, 2, weights)
        assert exact != pytest.approx(probabilistic_pca(x, 2), abs=0.3)  # else this could not fail
        assert exact - 0.1 < last_bound(model) < exact + 0.1

    def test_the_data_s_own_weights_are_taken(self):
        traj = pv.Trajectory(ideal_chains(200, 5, 2))
        weights = np.linspace(0.1, 2, 200)
        options = {**SMALL, "epochs": 2}
        own = pv.fit(dataclasses.replace(traj, weights=weights), **options)
        given_ = pv.fit(traj, weights=weights, **options)
        plain = pv.fit(traj, **options)
        np.testing.assert_array_equal(own.transform(traj), given_.transform(traj))
        assert not np.allclose(own.mean, plain.mean)

    @pytest.mark.parametrize(
        ("weights", "words"),
        [
            (np.ones(3), r"weights .*\(200,\).*\(3,\)"),
            (np.full(200, -1.0), "frame 0 is -1"),
            (np.full(200, np.nan), "frame 0 is nan"),
            (np.zeros(200), "must not all be 0"),
            (np.where(validation_blocks(200, 0.1), 1.0, 0.0), "all training frames"),
            (np.where(validation_blocks(200, 0.1), 0.0, 1.0), "all validation frames"),
            (np.full(200, 1e308), "too large to add"),
        ],
    )
    def test_bad_weights(self, weights, words):
        with pytest.raises(pv.InputError, match=words):
            pv.fit_vae(linear_data(200), **SMALL, weights=weights, validation=0.1)


def test_plateau_lowers_the_rate_once_nothing_is_left_to_learn():
    x = np.random.default_rng(0).normal(size=(128, 3)).astype(np.float32)
    weights, static = eqx.partition(
        VAE(3, encoder=(4,), decoder=(4,), key=jax.random.key(0)), eqx.is_inexact_array
    )
    scales = {}
    for kind in ("plateau", "cosine"):
        plan = epochs.make_plan(
            128,
            Settings(
                epochs=60,
                batch_size=64,
                patience=9,
                learning_rate=1e-2,
                lr_schedule=kind,
                beta_schedule="constant",
                free_bits=0.0,
                lag=0,
            ),
        )
        state, _ = eqx.filter_jit(epochs.epochs)(
            epochs.make_initial_state(weights, plan), static, Rows(x, x, None), None,
            jax.random.split(jax.random.key(1)), jnp.asarray(1.0), jnp.asarray([0, 60]), plan,
        )  # fmt: skip
        scales[kind] = float(state.plateau.scale)
    assert scales["cosine"] == 1
    assert scales["plateau"] < 0.1


def test_a_loss_that_is_lost_later_keeps_the_best_weights():
    x = linear_data(128)
    vae = VAE(6, encoder=(4,), decoder=(4,), key=jax.random.key(0))
    weights, static = eqx.partition(vae, eqx.is_inexact_array)
    plan = epochs.make_plan(
        128,
        Settings(
            epochs=20,
            batch_size=64,
            patience=20,
            learning_rate=1e-2,
            lr_schedule="constant",
            beta_schedule="constant",
            free_bits=0.0,
            lag=0,
        ),
        validated=True,
    )
    run = eqx.filter_jit(epochs.epochs)
    rest = (static, Rows(x, x, None), Rows(x, x, None), jax.random.split(jax.random.key(1)), jnp.asarray(1.0))
    good, before = run(epochs.make_initial_state(weights, plan), *rest, jnp.asarray([0, 10]), plan)
    poisoned = good._replace(weights=jax.tree.map(lambda a: a * jnp.nan, good.weights))
    state, after = run(poisoned, *rest, jnp.asarray([10, 10]), plan)
    for kept, best in zip(jax.tree.leaves(state.best_weights), jax.tree.leaves(good.best_weights), strict=True):
        np.testing.assert_array_equal(kept, best)
    table = np.concatenate([np.asarray(before)[:10], np.asarray(after)[:10]])
    assert training.ended(table, int(state.best_epoch), plan) == "the loss was not finite in epoch 10"
    assert int(state.best_epoch) == np.argmin(table[:10, 2] + table[:10, 3])


class TestSettings:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (
                {"beta_schedule": "sawtooth"},
                "beta_schedule .*cycle.*'sawtooth'",
            ),
            ({"lr_schedule": "x"}, "lr_schedule"),
            ({"lag": -1}, "lag must"),
            ({"free_bits": -0.1}, "free bits"),
            ({"learning_rate": 0.0}, "learning rate must"),
            ({"patience": 0}, "patience"),
            ({"scaling": "none"}, "scaling must be"),
            ({"latent_dim": 2.7}, r"latent dim .*2\.7"),
            ({"epochs": 2.5}, "epochs .*whole"),
            ({"beta": None}, "beta .*a number"),
            ({"encoder": 64}, "encoder .*layer widths"),
            ({"segments": 200}, "segments must be lengths"),
            ({"weights": "w.txt"}, "weights .*200 .*'w.txt'"),
            ({"likelihood": pv.Bernoulli}, "likelihood must be Gaussian"),
            ({"segments": (100, 99)}, "segments .*add up to 200"),
            ({"likelihood": pv.Gaussian(0.1), "scaling": "feature"}, "need a learned width"),
        ],
    )
    def test_refused_by_name(self, options, words):
        with pytest.raises(pv.InputError, match=words):
            pv.fit_vae(linear_data(200), **SMALL | options)

    @pytest.mark.parametrize(
        ("x", "words"),
        [
            (np.zeros((5, 2, 2)), r"n_features\).*\(5, 2, 2\)"),
            (np.zeros((0, 2)), "got \\(0, 2\\)"),
            (np.full((5, 2), np.inf), "finite.*frame 0"),
        ],
    )
    def test_bad_data(self, x, words):
        with pytest.raises(pv.InputError, match=words):
            pv.fit_vae(x)


class TestDiscrete:
    """Likelihoods are normalised over all states, their draws have their frequencies, and data are checked."""

    def test_categorical_is_normalised_over_two_variables(self):
        out = jnp.asarray(np.random.default_rng(0).normal(size=6), jnp.float32)
        states = [np.concatenate([np.eye(3)[i], np.eye(3)[j]]) for i, j in itertools.product(range(3), repeat=2)]
        likelihood = pv.Categorical(3)
        p = np.exp([float(likelihood.log_prob(jnp.asarray(s, jnp.float32), out)) for s in states])
        assert p.sum() == pytest.approx(1, rel=1e-5)
        np.testing.assert_allclose(likelihood.mean(out), p @ np.array(states), rtol=1e-5)
        self.frequencies(likelihood, out)

    def test_bernoulli_is_normalised(self):
        out = jnp.asarray(np.random.default_rng(0).normal(size=4), jnp.float32)
        states = np.array(list(itertools.product([0.0, 1.0], repeat=4)), np.float32)
        p = np.exp([float(pv.Bernoulli().log_prob(jnp.asarray(s), out)) for s in states])
        assert p.sum() == pytest.approx(1, rel=1e-5)
        np.testing.assert_allclose(pv.Bernoulli().mean(out), p @ states, rtol=1e-5)
        self.frequencies(pv.Bernoulli(), out)

    def frequencies(self, likelihood, out, n=20_000):
        draws = jax.vmap(lambda key: likelihood.sample(key, out))(jax.random.split(jax.random.key(0), n))
        likelihood.check(np.asarray(draws))
        p = np.asarray(likelihood.mean(out))
        assert (np.abs(np.asarray(draws).mean(axis=0) - p) < 5 * np.sqrt(p * (1 - p) / n)).all()

    @pytest.mark.parametrize(
        ("likelihood", "x", "words"),
        [
            (pv.Categorical(), np.full((300, 3), 0.5), "one-hot.*frame 0"),
            (pv.Categorical(), np.eye(3)[[0] * 299 + [1]] * 2, "one-hot"),
            (pv.Categorical(4), np.eye(6)[[0] * 300], "multiple of 4 .*6"),
            (pv.Bernoulli(), np.eye(3)[[0] * 300] * 1.5, r"0 to 1; frame 0 .*1\.5"),
        ],
    )
    def test_data_that_do_not_fit(self, likelihood, x, words):
        with pytest.raises(pv.InputError, match=words):
            pv.fit_vae(x, likelihood=likelihood)

    @pytest.mark.parametrize("likelihood", [pv.Categorical(3), pv.Bernoulli()])
    def test_a_model_of_states_is_saved_and_does_not_pass_for_a_cv(self, likelihood, tmp_path):
        states = np.random.default_rng(0).integers(0, 3, (300, 2))
        x = np.eye(3, dtype=np.float32)[states].reshape(300, 6)
        model = pv.fit_vae(x, likelihood=likelihood, **SMALL, epochs=2)
        model.save(tmp_path / "m.safetensors")
        again = pv.load(tmp_path / "m.safetensors")
        np.testing.assert_array_equal(again.transform(x), model.transform(x))
        np.testing.assert_array_equal(again.sample(10, seed=1), model.sample(10, seed=1))
        np.testing.assert_allclose(again(x[3]), model.transform(x)[3], rtol=1e-4, atol=1e-5)
        assert again.record == model.record
        with pytest.raises(pv.InputError, match=r"takes no coordinates"):
            load_cv(tmp_path / "m.safetensors")


LONG = {**SMALL, "epochs": 300, "patience": 300, "validation": 0.1}
SHORT = {**SMALL, "epochs": 40, "patience": 40, "validation": 0.1}


class TestInterruptions:
    def interrupted(self, x, path, after: int):
        def stop(done, total, terms):
            if done >= after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pv.fit_vae(x, **LONG, checkpoint=path, progress=stop)

    def test_going_on_gives_the_same_bytes(self, tmp_path, monkeypatch):
        monkeypatch.setattr("polyvae.vae.checkpoint._EVERY", 0.0)
        x = linear_data(640)
        pv.fit_vae(x, **LONG).save(tmp_path / "whole")
        self.interrupted(x, tmp_path / "run", after=60)
        seen = []
        pv.fit_vae(
            x, **LONG, checkpoint=tmp_path / "run", resume=True, progress=lambda n, *_: seen.append(n)
        ).save(tmp_path / "resumed")
        assert 22 < seen[0] <= 88  # it did not begin again
        assert (tmp_path / "whole").read_bytes() == (tmp_path / "resumed").read_bytes()
        # What is finished and not yet saved comes at once.
        pv.fit_vae(
            x, **LONG, checkpoint=tmp_path / "run", resume=True, progress=lambda *_: pytest.fail("trained")
        ).save(tmp_path / "again")
        assert (tmp_path / "whole").read_bytes() == (tmp_path / "again").read_bytes()

    def test_another_run_s_file_is_refused_by_what_differs(self, tmp_path, monkeypatch):
        monkeypatch.setattr("polyvae.vae.checkpoint._EVERY", 0.0)
        x = linear_data(640)
        self.interrupted(x, tmp_path / "run", after=1)
        before = (tmp_path / "run").read_bytes()
        with pytest.raises(pv.InputError, match=r"other beta \(1\.0 .*2\.0"):
            pv.fit_vae(x, **LONG, beta=2.0, checkpoint=tmp_path / "run", resume=True)
        with pytest.raises(pv.InputError, match="other data"):
            pv.fit_vae(x[::-1], **LONG, checkpoint=tmp_path / "run", resume=True)
        with pytest.raises(pv.InputError, match="holds an unfinished run"):
            pv.fit_vae(x, **LONG, checkpoint=tmp_path / "run")
        assert (tmp_path / "run").read_bytes() == before
        (tmp_path / "run").write_bytes(before[:-50])
        with pytest.raises(pv.InputError, match="is not an unfinished run"):
            pv.fit_vae(x, **LONG, checkpoint=tmp_path / "run", resume=True)


class TestWhatARunIs:
    """A run is taken up again only where everything that decides its result is the same."""

    @pytest.mark.parametrize(
        "change",
        [
            {"likelihood": pv.Gaussian(0.9)},
            {"likelihood": pv.Gaussian()},
            {"segments": (320, 320)},
            {"weights": np.linspace(1, 2, 640)},
            {"scaling": "feature", "likelihood": pv.Gaussian()},
        ],
    )
    def test_vectors(self, change, tmp_path, monkeypatch):
        monkeypatch.setattr("polyvae.vae.checkpoint._EVERY", 0.0)
        x, base = linear_data(640), SHORT | {"likelihood": pv.Gaussian(0.1), "lag": 1}
        pv.fit_vae(x, **base, checkpoint=tmp_path / "run")
        with pytest.raises(pv.InputError, match="unfinished run with other"):
            pv.fit_vae(x, **base | change, checkpoint=tmp_path / "run", resume=True)
        pv.fit_vae(x, **base | change, checkpoint=tmp_path / "other")
        with pytest.raises(pv.InputError, match="unfinished run with other"):
            pv.fit_vae(x, **base, checkpoint=tmp_path / "other", resume=True)

    def test_trajectories(self, tmp_path, monkeypatch):
        monkeypatch.setattr("polyvae.vae.checkpoint._EVERY", 0.0)
        traj = pv.Trajectory(ideal_chains(320, 5, 2))
        heavy = dataclasses.replace(traj, masses=[2.0, 1, 1, 1, 1])
        pv.fit(traj, **SHORT, checkpoint=tmp_path / "run")
        for other, featurizer in ((traj, pv.PrincipalAxes(mirror=True)), (heavy, None)):
            with pytest.raises(pv.InputError, match="unfinished run with other"):
                pv.fit(other, **SHORT, featurizer=featurizer, checkpoint=tmp_path / "run", resume=True)

    def test_a_run_that_fails_at_once_leaves_nothing_in_the_way(self, tmp_path, monkeypatch):
        monkeypatch.setattr("polyvae.vae.checkpoint._EVERY", 0.0)
        with pytest.raises(pv.InputError, match="lower the learning rate"):
            pv.fit_vae(linear_data(640), **LONG, learning_rate=1e30, checkpoint=tmp_path / "run")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_the_user_s_own_file_is_left_alone(mode, tmp_path):
    np.save(tmp_path / "x.npy", linear_data(200))
    before = (tmp_path / "x.npy").read_bytes()
    mapped = np.load(tmp_path / "x.npy", mmap_mode=mode)
    model = pv.fit_vae(mapped, **SMALL, epochs=1)
    np.testing.assert_array_equal(model.transform(mapped), model.transform(linear_data(200)))
    assert (tmp_path / "x.npy").read_bytes() == before


def test_patience_waits_for_the_end_of_the_ramp():
    """While beta rises, the objective with the final beta gets worse; that must not end training."""
    x = linear_data(640)
    model = pv.fit_vae(x, **SMALL, beta=8.0, beta_schedule="cycle", epochs=100, patience=3)
    assert len(model.record["history"]["kl"]) > 50 + 3
    assert model.record["best_epoch"] >= 45


def test_without_validation_weights_that_lost_the_loss_are_not_kept(caplog):
    """One batch an epoch: the loss of an epoch is finite, and the step after it is what ruins the weights."""
    x, key = linear_data(64), jax.random.key(0)
    weights, static = eqx.partition(VAE(6, encoder=(4,), decoder=(4,), key=key), eqx.is_inexact_array)
    plan = epochs.make_plan(
        64,
        Settings(
            epochs=5,
            batch_size=64,
            patience=5,
            learning_rate=1e25,
            lr_schedule="constant",
            beta_schedule="constant",
            free_bits=0.0,
            lag=0,
        ),
    )
    start = epochs.make_initial_state(weights, plan)
    state, table = eqx.filter_jit(epochs.epochs)(
        start, static, Rows(x, x, None), None, jax.random.split(key), jnp.asarray(1.0), jnp.asarray([0, 1]), plan
    )
    assert np.isfinite(np.asarray(table)[0]).all()  # the loss before the step
    assert int(state.best_epoch) == -1  # and yet nothing came of it
    with pytest.raises(pv.InputError, match="lower the learning rate"):
        pv.fit_vae(x, **SMALL, validation=0, learning_rate=1e25, lr_schedule="constant", epochs=5)


class TestOnDisk:
    def test_every_frame_of_a_long_run_is_visited_once_an_epoch(self, tmp_path):
        x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(10_000, 2))
        x[:, 0] = np.arange(10_000)
        rows = np.flatnonzero(~validation_blocks(10_000, 0.1))
        plan = epochs.make_plan(
            len(rows),
            Settings(
                epochs=1,
                batch_size=64,
                patience=None,
                learning_rate=1e-3,
                lr_schedule="cosine",
                beta_schedule="constant",
                free_bits=0.0,
                lag=3,
            ),
            on_disk=True,
        )._replace(n_batches=40)
        blocks = list(training._blocks(training.OnDisk(x, None, rows[:-3]), jax.random.key(0), plan))
        assert [len(b.x) for b in blocks] == [2560, 2560, 2560]
        seen = np.concatenate([np.asarray(b.x)[:, 0] for b in blocks])
        assert len(np.unique(seen)) == len(seen) == 7680
        assert np.isin(seen, rows).all()
        for block in blocks:
            np.testing.assert_array_equal(block.target[:, 0], block.x[:, 0] + 3)

    @pytest.mark.long
    def test_a_stream_too_long_for_memory_trains_as_well_from_a_file(self, tmp_path, monkeypatch):
        """The order of the frames differs, and nothing else: the bounds agree to a few hundredths."""
        x = ideal_chains(6000, 6, 3)
        for k in range(1, 6000):  # frames that remember, or a lag leaves nothing to learn
            x[k] = 0.95 * x[k - 1] + 0.3 * x[k]
        pv.write(tmp_path / "run.npz", pv.Trajectory(x, segments=(2500, 3500)))
        options = {**SMALL, "featurizer": pv.PrincipalAxes(), "epochs": 12, "lag": 1, "learning_rate": 5e-3}
        bounds = {}
        for name, limit in (("memory", 1 << 30), ("disk", 100_000)):
            monkeypatch.setattr(cv_fitting, "IN_MEMORY", limit)
            monkeypatch.setattr(epochs, "BLOCK_ROWS", 1024)
            made = []
            real = cv_fitting._temporary_file
            monkeypatch.setattr(
                cv_fitting, "_temporary_file", lambda *a, made=made, real=real: made.append(a) or real(*a)
            )
            stream = pv.stream(tmp_path / "run.npz", chunk_bytes=1 << 16)
            cv = pv.fit(stream, **options, cache=tmp_path)
            assert len(made) == {"memory": 0, "disk": 2}[name]  # positions, and features
            assert cv.record["data"]["n_frames"] == 6000
            history = cv.record["history"]
            bounds[name] = min(np.add(history["val_reconstruction"], history["val_kl"]))
            untrained = history["val_reconstruction"][0] + history["val_kl"][0]
            assert bounds[name] < untrained - 0.5
        assert bounds["disk"] == pytest.approx(bounds["memory"], abs=0.15)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["run.npz"]  # no temporary file is left

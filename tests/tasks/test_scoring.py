"""Each number of `pv.score` against its definition, written a second time; weights, segments, parts, bad input."""

import dataclasses
import json
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import DATA
from models import linear_gaussian, seen, untrained
from scipy.stats import wasserstein_distance

import polyvae as pv
from polyvae.features import continuity
from polyvae.measures import kinetics, noise_floor
from polyvae.tasks.verdict import far_off
from polyvae.vae.bound import importance_weighted_bound
from polyvae.vae.network import Dense
from polyvae.vae.splits import validation_blocks

IN_ORDER = {"n_frames", "n_steps", "n_jumps", "n_costly", "vamp2", "timescale", "autocorrelation_time"}


@pytest.fixture(scope="module")
def slow() -> pv.Trajectory:
    """500 frames of 6 beads in 2-D that change slowly, in nm, 0.5 ps apart, in two segments."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(500, 6, 2))
    for t in range(1, 500):
        steps[t] = 0.9 * steps[t - 1] + np.sqrt(1 - 0.9**2) * steps[t]
    return pv.Trajectory(steps.cumsum(axis=1), length_unit="nm", time=0.5 * np.arange(500), segments=(300, 200))


@pytest.fixture(scope="module")
def cv(slow):
    return untrained(slow)


def with_spread(cv: pv.LatentCV, log_std: float) -> pv.LatentCV:
    """The CV with one standard deviation for all of its encoder."""
    last = cv.vae.encoder.layers[-1]
    rows = np.arange(len(last.bias)) >= cv.latent_dim
    new = (jnp.where(rows[:, None], 0, last.weight), jnp.where(rows, log_std, last.bias))
    vae = eqx.tree_at(lambda v: (v.encoder.layers[-1].weight, v.encoder.layers[-1].bias), cv.vae, new)
    return dataclasses.replace(cv, scaled=dataclasses.replace(cv.scaled, vae=vae))


def bounds(vae, x, k: int, seed: int = 0) -> np.ndarray:
    keys = jax.random.split(jax.random.key(seed), len(x))
    estimate = jax.jit(jax.vmap(lambda x, key: importance_weighted_bound(vae, x, k=k, key=key)))
    return np.asarray(estimate(jnp.asarray(x), keys), np.float64)


@pytest.mark.parametrize("k", [1, 7])
def test_with_the_exact_posterior_every_draw_gives_the_log_likelihood(k):
    vae, log_likelihood, draw = linear_gaussian(10, 3)
    x = draw(200)
    np.testing.assert_allclose(bounds(vae, x, k), log_likelihood(x), rtol=1e-5, atol=1e-4)


def test_the_bound_rises_from_the_elbo_to_the_log_likelihood():
    """An encoder that is too broad and off: exact - KL(q, posterior) at k = 1, and closer with every k."""
    spread, shift = 1.6, 0.7
    vae, log_likelihood, draw = linear_gaussian(10, 2, spread=spread, shift=shift)
    x = draw(4000)
    exact = log_likelihood(x)
    gaps, errors = [], []
    for k in (1, 4, 16, 64, 256):
        gap = exact - bounds(vae, x, k)
        gaps.append(gap.mean())
        errors.append(gap.std() / np.sqrt(len(x)))
    print(f"\nbelow the exact log-likelihood by {np.round(gaps, 4)} nats, standard errors {np.round(errors, 4)}")
    kl = 2 * (0.5 * (spread**2 + shift**2 - 1) - np.log(spread))
    assert gaps[0] == pytest.approx(kl, abs=5 * errors[0])
    assert (np.diff(gaps) < 0).all()  # each by far more than its error
    assert (np.array(gaps) > -5 * np.array(errors)).all()
    assert 0 < gaps[-1] < 0.01


@pytest.mark.long
def test_bound_of_a_cv_against_quadrature(slow):
    """One latent: log p(x) in the data's unit is an integral over a line."""
    from scipy.special import logsumexp

    cv = untrained(slow, latent_dim=1)
    grid = np.linspace(-8, 8, 2001)
    decoded = np.asarray(jax.vmap(cv.scaled.decode)(jnp.asarray(grid, jnp.float32)[:, None]), np.float64)
    aligned = cv.align(slow).reshape(len(slow), -1).astype(np.float64)
    width = float(cv.vae.likelihood.width) * float(cv.scale)
    apart = ((aligned[:, None] - decoded[None]) ** 2).sum(axis=2) / (2 * width**2)
    size = aligned.shape[1]
    log_joint = (
        -apart - size * np.log(width) - 0.5 * size * np.log(2 * np.pi) - 0.5 * grid**2 - 0.5 * np.log(2 * np.pi)
    )
    exact = logsumexp(log_joint, axis=1).mean() + np.log(grid[1] - grid[0])
    found = pv.score(cv, slow, k=500)["frames"]["all"]
    assert found["elbo"] < exact - 0.01
    assert exact - 0.03 < found["iw_bound"] < exact + 0.01
    assert found["iw_bound"] > pv.score(cv, slow, k=2)["frames"]["all"]["iw_bound"]
    assert (found["iw_k"], found["n_costly"]) == (500, 500)


def test_few_frames_stand_for_all(slow, cv, monkeypatch):
    """The costly numbers on every fifth frame; the bound is moved to all frames by the elbo of all.

    The model's posterior is exact, so that every frame's bound is its log-likelihood, whatever is drawn.
    """
    vae, log_likelihood, _ = linear_gaussian(12, 2)
    cv = dataclasses.replace(cv, scaled=dataclasses.replace(cv.scaled, vae=vae))
    log_p = log_likelihood(np.asarray(jax.jit(jax.vmap(cv.standardize))(slow.positions)))
    chosen = np.arange(500) % 5 == 0
    whole = pv.score(cv, slow, k=2)["frames"]["all"]
    of_chosen = pv.score(cv, dataclasses.replace(slow, weights=chosen), k=2)["frames"]["all"]
    monkeypatch.setattr(sys.modules["polyvae.tasks.scoring"], "MAX_COSTLY", 100)
    few = pv.score(cv, slow, k=2)["frames"]["all"]
    assert (whole["n_costly"], few["n_costly"]) == (500, 100)
    gap = log_p[chosen].mean() - 12 * np.log(float(cv.scale)) - of_chosen["elbo"]
    assert few["iw_bound"] == pytest.approx(whole["elbo"] + gap, rel=1e-5)
    assert abs(few["iw_bound"] - whole["iw_bound"]) > 1e-3
    np.testing.assert_allclose(few["gradient_max"], of_chosen["gradient_max"], rtol=1e-5)


def test_aggregated_posterior(slow, cv):
    found = pv.score(cv, slow)["frames"]["all"]
    mean, std = cv.transform_posterior(slow)
    draws = mean[:, None] + std[:, None] * np.random.default_rng(0).normal(size=(len(slow), 400, 2))
    np.testing.assert_allclose(found["aggregated_covariance"], np.cov(draws.reshape(-1, 2).T), atol=0.01)
    expected = np.cov(mean.T, bias=True) + np.diag((std.astype(float) ** 2).mean(0))
    np.testing.assert_allclose(found["aggregated_covariance"], expected, rtol=1e-4)
    np.testing.assert_allclose(found["aggregated_std"], np.sqrt(np.diag(expected)), rtol=1e-4)


def test_gradients_against_finite_differences(slow, cv):
    found = pv.score(cv, slow[::10])["frames"]["all"]
    step = 5e-3
    x = slow.positions[::10].astype(np.float64)
    slopes = np.empty((len(x), 2, 12))
    for k in range(12):
        moved = np.zeros(12)
        moved[k] = step
        moved = moved.reshape(6, 2)
        slopes[:, :, k] = (cv.transform(x + moved).astype(float) - cv.transform(x - moved)) / (2 * step)
    norms = np.linalg.norm(slopes, axis=2)
    np.testing.assert_allclose(found["gradient_mean"], norms.mean(axis=0), rtol=0.01)
    np.testing.assert_allclose(found["gradient_max"], norms.max(axis=0), rtol=0.03)


def test_units(slow, cv):
    """The same model in Å: densities are per Å, gradients per Å."""
    scaled = dataclasses.replace(cv.scaled, mean=10 * cv.mean, scale=10 * cv.scale)
    in_angstrom = dataclasses.replace(cv, scaled=scaled, template=cv.template.to_unit("angstrom"))
    nm, angstrom = (pv.score(model, slow)["frames"]["all"] for model in (cv, in_angstrom))
    for key in ("elbo", "iw_bound"):
        assert angstrom[key] == pytest.approx(nm[key] - 12 * np.log(10), abs=1e-3)
    for key in ("gradient_mean", "gradient_max"):
        np.testing.assert_allclose(angstrom[key], np.array(nm[key]) / 10, rtol=1e-3)
    assert angstrom["vamp2"] == pytest.approx(nm["vamp2"], rel=1e-4)


@pytest.mark.parametrize("lag", [1, 4])
def test_kinetics_of_all_train_and_validation(slow, cv, lag):
    cv = seen(cv, slow)
    scores = pv.score(cv, slow, lag=lag)
    assert scores.kinetics.to_dict() == {"lag": lag, "time_step": 0.5, "time_unit": "ps"}
    z, held_out = cv.transform(slow).astype(np.float64), validation_blocks(500, 0.1)
    for name, mask in (("all", np.ones(500, bool)), ("train", ~held_out), ("validation", held_out)):
        # Pairs whose every frame, from first to last, is in the part and in one segment.
        together = [t for t in range(500 - lag) if mask[t : t + lag + 1].all() and (t < 300) == (t + lag < 300)]
        a, b = z[together], z[np.array(together) + lag]
        a, b = (np.linalg.qr(x - x.mean(axis=0))[0] for x in (a, b))
        values = np.linalg.svd(a.T @ b, compute_uv=False)
        part = scores["frames"][name]
        assert part["vamp2"] == pytest.approx(1 + (values**2).sum(), rel=1e-6)
        timescale = -lag / np.log(values[0])
        held = 4 * timescale <= mask.sum()  # so often that it is no noise
        assert part["timescale"] == (pytest.approx(0.5 * timescale, rel=1e-5) if held else None)
    times = 0.5 * kinetics.autocorrelation_time(z, (300, 200))
    np.testing.assert_allclose(scores["frames"]["all"]["autocorrelation_time"], times, rtol=1e-5)


def test_lag_and_unit_of_time(slow, cv):
    settings = dataclasses.replace(cv.record.settings, lag=7)
    trained = dataclasses.replace(cv, record=dataclasses.replace(cv.record, settings=settings))
    assert pv.score(trained, slow)["kinetics"]["lag"] == 7
    assert pv.score(trained, slow, lag=2)["kinetics"]["lag"] == 2
    timeless = dataclasses.replace(slow, time=None)
    scores, timed = pv.score(cv, timeless), pv.score(cv, slow)
    assert scores.kinetics.to_dict() == {"lag": 1, "time_step": None, "time_unit": "frames"}
    assert scores["frames"]["all"]["timescale"] == pytest.approx(2 * timed["frames"]["all"]["timescale"])
    reduced = dataclasses.replace(cv, template=dataclasses.replace(cv.template, length_unit="sigma"))
    assert pv.score(reduced, dataclasses.replace(slow, length_unit="sigma"))["kinetics"]["time_unit"] == "tau"


def test_jumps_of_train_and_validation():
    traj = pv.read(DATA / "chain2d.npz")[:1000]
    cv = seen(untrained(traj), traj)
    parts = pv.score(cv, traj, alternatives=False)["frames"]
    to, held_out = continuity.jumps(traj, cv.featurizer).frames, validation_blocks(1000, 0.1)
    assert parts["all"]["n_jumps"] == len(to)
    assert parts["validation"]["n_jumps"] == (held_out[to] & held_out[to - 1]).sum() > 0
    assert parts["train"]["n_jumps"] == (~held_out[to] & ~held_out[to - 1]).sum() > 0
    assert [parts[name]["n_steps"] for name in ("all", "train", "validation")] == [999, 894, 95]


def test_integer_weights_are_duplicated_frames(slow, cv):
    cv, generated = with_spread(cv, -12), pv.sample(cv, 200)  # so narrow that draws are the mean
    weights = np.random.default_rng(0).integers(0, 4, size=500)
    repeated = pv.score(cv, slow[np.repeat(np.arange(500), weights)], generated=generated)
    for factor in (1.0, 0.01):
        weighted = pv.score(cv, dataclasses.replace(slow, weights=factor * weights), generated=generated)
        for key, value in repeated.frames.all.to_dict().items():
            if key not in {*IN_ORDER, "iw_bound"}:
                np.testing.assert_allclose(weighted["frames"]["all"][key], value, rtol=1e-6, err_msg=key)
        for key in ("bond", "rg", "end_to_end", "pairs"):
            assert weighted["generated"][key] == pytest.approx(repeated["generated"][key], rel=1e-5)
            # No frame lies in both halves, so that they are as far apart as frames of unequal weight.
            floors = [s["generated"]["noise_floor"][key] for s in (weighted, repeated)]
            assert floors[0] == pytest.approx(floors[1], rel=1e-5)
        assert weighted["alignment"]["margins"] == repeated["alignment"]["margins"]
    plain = pv.score(cv, slow, generated=generated)
    for key in ("fve", "elbo", "kl_per_latent", "aggregated_covariance", "correlation_rg", "gradient_mean"):
        assert not np.allclose(plain["frames"]["all"][key], repeated["frames"]["all"][key], rtol=1e-5)
    assert plain["frames"]["all"]["vamp2"] == weighted["frames"]["all"]["vamp2"]


def test_integer_weights_in_the_bound(slow, cv):
    """A linear model whose posterior is exact, so that the bound has no noise."""
    vae, log_likelihood, _ = linear_gaussian(12, 2)
    cv = dataclasses.replace(cv, scaled=dataclasses.replace(cv.scaled, vae=vae))
    weights = np.random.default_rng(0).integers(0, 4, size=500)
    found = pv.score(cv, dataclasses.replace(slow, weights=weights), k=2)["frames"]["all"]["iw_bound"]
    x = np.asarray(jax.jit(jax.vmap(cv.standardize))(slow.positions))
    expected = np.average(log_likelihood(x), weights=weights) - 12 * np.log(float(cv.scale))
    assert found == pytest.approx(expected, rel=1e-5)
    assert abs(found - (log_likelihood(x).mean() - 12 * np.log(float(cv.scale)))) > 0.01


def test_frames_of_no_weight_are_not_there(slow, cv):
    """Also in the largest gradient: without the frame that has it, it is the next one's."""
    slopes = np.linalg.norm(jax.vmap(jax.jacrev(cv))(slow.positions)[:, 0].reshape(500, -1), axis=1)
    order = np.argsort(slopes)
    weights = np.where(np.arange(500) == order[-1], 0.0, 2.0)
    found = pv.score(cv, dataclasses.replace(slow, weights=weights))["frames"]["all"]["gradient_max"][0]
    assert found == pytest.approx(slopes[order[-2]], rel=1e-4)
    assert slopes[order[-2]] < 0.999 * slopes[order[-1]]


def test_weights_that_cannot_be(slow, cv):
    for weights, text in (
        (np.where(np.arange(500) == 3, -1.0, 1.0), "frame 3 .*-1"),
        (np.zeros(500), "not all be 0"),
    ):
        with pytest.raises(pv.InputError, match=text):
            pv.score(cv, dataclasses.replace(slow, weights=weights))


def test_lags_that_cannot_be(slow, cv):
    with pytest.raises(pv.InputError, match="lag of 300 .*300"):
        pv.score(cv, slow, lag=300)
    for options in ({"lag": 0}, {"k": 0}):
        with pytest.raises(pv.InputError, match="at least 1"):
            pv.score(cv, slow, **options)


def test_the_noise_floor_is_the_mean_of_many_halvings():
    """Against independent normal samples as large as a half, and less scattered than one halving."""
    x = np.zeros((4000, 2, 3), np.float32)
    x[:, 1, 0] = 100 + np.random.default_rng(0).normal(size=4000)
    traj = pv.Trajectory(x)
    rng = np.random.default_rng(1)
    expected = np.mean([wasserstein_distance(*rng.normal(size=(2, 2000))) for _ in range(200)])
    many = noise_floor(traj, n_splits=200)
    assert many["bond"] == pytest.approx(expected, rel=0.1)
    assert many["end_to_end"] == pytest.approx(many["pairs"], rel=1e-6)
    eight = [noise_floor(traj, seed=seed)["bond"] for seed in range(10)]
    assert np.std(eight) < 0.6 * np.std([noise_floor(traj, n_splits=1, seed=seed)["bond"] for seed in range(40)])
    assert set(noise_floor(traj[:1]).values()) == {0.0}


def test_scores_are_a_record_that_a_file_gives_back(slow, cv):
    scores = pv.score(seen(cv, slow), slow, generated=pv.sample(cv, 50), alternatives=False)
    assert scores.frames.all.fve == scores["frames"]["all"]["fve"]
    assert list(scores.frames.parts()) == ["all", "train", "validation"]
    assert scores.frames.parts()["train"] is scores.frames.train
    plain = scores.to_dict()
    assert list(plain) == ["length_unit", "frames", "kinetics", "alignment", "generated"]
    floor = plain["generated"]["noise_floor"]
    assert list(floor) == ["bond", "angle", "rg", "end_to_end", "pairs"]
    assert scores.generated.noise_floor.bond == floor["bond"]
    assert not hasattr(scores.generated.noise_floor, "noise_floor")
    again = json.loads(json.dumps(plain))
    assert again == plain
    assert type(scores).from_dict(again) == scores
    with pytest.raises(dataclasses.FrozenInstanceError):
        scores.frames.all.fve = 1.0
    plain["frames"]["another run"] = {}
    assert "another run" not in scores.to_dict()["frames"]


def test_what_a_stream_does_not_have_is_none_and_no_key(slow, cv):
    scores = pv.score(cv, pv.Stream(lambda: iter([slow[:250], slow[250:]]), 500))
    assert scores.alignment is scores.generated is scores.frames.train is scores.frames.all.n_jumps is None
    assert list(scores.to_dict()) == ["length_unit", "frames", "kinetics"]
    assert not {"n_steps", "n_jumps"} & set(scores.frames.all.to_dict())
    # A number that cannot be had keeps its key.
    few = pv.score(cv, slow[:2], alternatives=False)
    assert few.frames.all.vamp2 is few["frames"]["all"]["vamp2"] is None


@pytest.mark.parametrize("n", [1, 2])
def test_few_frames_give_plain_numbers(slow, cv, n):
    scores = pv.score(cv, slow[:n], alternatives=False)
    json.dumps(scores.to_dict(), allow_nan=False)
    assert scores["frames"]["all"]["vamp2"] is None
    assert scores["frames"]["all"]["autocorrelation_time"][0] is None


def test_a_part_without_weight_is_left_out(slow, cv):
    weights = np.where(validation_blocks(500, 0.1), 0.0, 1.0)
    scores = pv.score(seen(cv, slow), dataclasses.replace(slow, weights=weights))
    assert set(scores.frames.parts()) == {"all", "train"}


def test_models_of_one_shape_share_what_is_compiled(slow, monkeypatch):
    pv.score(untrained(slow, seed=1), slow)
    traced = []
    call = Dense.__call__
    monkeypatch.setattr(Dense, "__call__", lambda self, x: traced.append(1) or call(self, x))
    pv.score(untrained(slow, seed=2), slow)
    assert not traced
    pv.score(untrained(slow, latent_dim=3), slow)
    assert traced


def test_rings_have_no_end_to_end_distance(slow):
    """Neither in the scores nor in their words; all else is there as for a chain."""
    n = slow.n_beads
    ring = dataclasses.replace(slow, bonds=np.stack([np.arange(n), (np.arange(n) + 1) % n], axis=1))
    scores = pv.score(untrained(ring), ring, generated=ring[::2])
    assert scores.frames.all.correlation_end_to_end == [None] * 2
    assert None not in scores.frames.all.correlation_rg
    assert scores.generated.end_to_end is None is scores.generated.noise_floor.end_to_end
    assert scores.generated.rg >= 0
    assert not [row for row in scores.table() if "end-to-end" in row[0]]
    assert "end_to_end" not in scores.about_generated()
    assert far_off(scores.generated) == [name for name in far_off(scores.generated) if "end" not in name]

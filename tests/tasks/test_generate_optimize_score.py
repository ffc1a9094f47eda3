"""What is made from a model: conformations, optima, numbers."""

import dataclasses
import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import in_3d
from scipy import stats

import polyvae as pv
import polyvae.geometry
from polyvae.app.console import print_optimum
from polyvae.measures import penalties
from polyvae.measures.density import log_density
from polyvae.measures.ensembles import ensemble_distances
from polyvae.measures.limits import limits_of
from polyvae.tasks import optimization


def test_samples_are_the_prior_pushed_through_the_decoder(cv):
    drawn = pv.sample(cv, 4000, seed=1)
    assert drawn.positions.shape == (4000, 8, cv.n_dims)
    assert drawn.segments == (1,) * 4000
    # The noise is white, of the model's own width, about conformations that the decoder gives.
    quiet = pv.sample(cv, 4000, seed=1, noise=False)
    noise = (drawn.positions - quiet.positions) / float(cv.vae.likelihood.width * cv.scale)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-4
    np.testing.assert_array_equal(pv.sample(cv, 10, seed=1).positions, pv.sample(cv, 10, seed=1).positions)
    assert not np.array_equal(pv.sample(cv, 10, seed=2).positions, drawn.positions[:10])
    with pytest.raises(pv.InputError, match="at least 1"):
        pv.sample(cv, 0)


@pytest.fixture(scope="module")
def optimum(cv, traj):
    return pv.optimize(cv, start=traj, n_starts=6, steps=100, refine_steps=800)


def rg(positions):
    return np.sqrt(((positions - positions.mean(0)) ** 2).sum(1).mean())


def test_the_optimum_is_beyond_the_data_and_within_their_limits(optimum, traj):
    """Checked with numpy alone, from the data."""
    x = optimum.structure.positions[0]
    assert optimum.valid
    assert optimum.better
    assert rg(x) < min(rg(frame) for frame in traj.positions)
    assert optimum.value == pytest.approx(rg(x), rel=1e-4)
    pairs = list(itertools.combinations(range(8), 2))
    r = np.linalg.norm(traj.positions[:, [i for i, _ in pairs]] - traj.positions[:, [j for _, j in pairs]], axis=2)
    mine = np.array([np.linalg.norm(x[i] - x[j]) for i, j in pairs])
    bonded = np.array([j - i == 1 for i, j in pairs])
    assert mine[bonded].min() >= np.quantile(r[:, bonded], 0.001)
    assert mine[bonded].max() <= np.quantile(r[:, bonded], 0.999)
    assert mine.min() >= np.quantile(r, 0.001)
    assert optimum.extreme_value == pytest.approx(min(rg(frame) for frame in traj.positions), rel=1e-4)


@in_3d
def test_the_table_allows_what_is_checked(optimum, traj, capsys):
    """Data, some narrowed or widened by a little: valid are those that are within what each printed row allows."""
    frames = dataclasses.replace(
        traj[:60], positions=traj.positions[:60] * np.linspace(0.7, 1.4, 60)[:, None, None]
    )
    inside = []
    for k in range(60):
        print_optimum(dataclasses.replace(optimum, structure=frames[k]).summary(), "rg", "sigma")
        rows = re.findall(
            r"  ([\d.]+) +[\d.]+ +(at least|at most|[\d.]+ to) ([\d.]+)$", capsys.readouterr().out, re.M
        )
        assert len(rows) == 9
        slack = []
        for value, word, bound in rows:
            value, bound = float(value), float(bound)
            slack.append(value / bound - 1 if word == "at least" else 1 - value / bound)
            if word.endswith("to"):
                slack.append(value / float(word.split()[0]) - 1)
        inside.append(min(slack))
    inside = np.array(inside)
    clear = np.abs(inside) > 1e-3  # what four digits tell
    np.testing.assert_array_equal(optimum.limits.accept(frames.positions)[clear], inside[clear] > 0)
    assert 3 < (inside[clear] > 0).sum() < 57
    loose = dataclasses.replace(
        optimum.limits, closest_pair=0.9, closest_free_pair=0.7, closest_apart=(0.8, 0.95, 0.7)
    )
    assert loose.least_apart() == [max(0.9, loose.shortest_bond), 0.9, 0.95, 0.9]
    limits = dataclasses.replace(optimum, limits=loose).summary()["limits"]
    assert (limits["closest_apart"], limits["closest_free_pair"]) == ([0.9, 0.95, 0.9], 0.9)


def test_the_path_starts_at_data_and_goes_down(optimum, cv, traj):
    assert optimum.path.shape == (100, 6)
    assert optimum.z_path.shape == (100, 6, cv.latent_dim)
    assert optimum.candidate_values.shape == (12,)
    assert len(optimum.decoded) == 6
    sound = optimum.limits.accept(optimum.candidates.positions)
    np.testing.assert_array_equal(sound, optimum.candidate_valid)
    assert optimum.value == optimum.candidate_values[sound].min()
    z = cv.transform(traj)
    assert all((np.abs(z - start).max(axis=1) < 1e-4).any() for start in optimum.z_path[0])
    assert optimum.path[-1].mean() < optimum.path[0].mean()
    # It ends where data are: within the data's own range of each latent.
    end = optimum.z_path[-1]
    assert (end >= z.min(0) - 0.5).all()
    assert (end <= z.max(0) + 0.5).all()


@in_3d
def test_maximising_and_other_objectives(cv, traj):
    def height(positions):
        return jnp.sum(jnp.abs(positions[0] - positions[4]))

    small = {"n_starts": 3, "steps": 30, "refine_steps": 300}
    large = pv.optimize(cv, objective=height, start=traj, minimize=False, **small)
    data = np.abs(traj.positions[:, 0] - traj.positions[:, 4]).sum(axis=1)
    assert large.extreme_value == pytest.approx(data.max(), rel=1e-5)
    assert large.better == (large.value > data.max())
    for options, text in (
        ({"objective": lambda x: x}, "one number"),
        ({"objective": lambda x: (x[0, 0], x[0, 1])}, "one number"),
        ({"objective": "volume"}, "rg, end_to_end.*'volume'"),
        ({"objective": 3}, "or its name"),
        (
            {"objective": lambda x: jnp.log(x[0, 0] - 1e6)},
            "finite.*frame 0 .*nan",
        ),
        ({"n_starts": 0}, "n_starts"),
        ({"steps": 0}, "^steps"),
        ({"refine_steps": 0}, "refine_steps"),
        ({"target": np.nan}, "target .*finite"),
        ({"bond_weight": -1}, "bond_weight"),
        ({"prior_weight": np.inf}, "prior_weight"),
    ):
        with pytest.raises(pv.InputError, match=text):
            pv.optimize(cv, start=traj, **options)


@in_3d
def test_an_extreme_frame_that_no_gradient_improves_is_a_candidate(cv, traj):
    """The objective has no slope, so that what moves does so along the penalties alone."""

    def flat(positions):
        return jnp.round(1e3 * polyvae.geometry.radius_of_gyration(positions)) / 1e3

    found = pv.optimize(cv, flat, start=traj, minimize=False, n_starts=20, steps=5, refine_steps=50)
    extremes = sorted(traj.positions, key=rg)[-10:]
    sound = limits_of(traj).accept(np.array(extremes))
    assert sound.any()
    assert found.valid
    assert found.value >= max(rg(x) for x in np.array(extremes)[sound]) - 1e-3
    assert not found.better or found.value > found.extreme_value


@in_3d
def test_of_very_many_beads_nothing_is_refined_and_frames_of_the_data_are_candidates(
    cv, traj, monkeypatch, caplog
):
    """Whose pairs are never listed: all of 12,000 beads would be 72 million, for each of the starts."""
    monkeypatch.setattr(optimization, "MAX_BEADS", cv.n_beads - 1)
    monkeypatch.setattr(penalties, "separations", lambda *_: pytest.fail("pairs are listed"))
    with caplog.at_level("INFO", logger="polyvae"):
        found = pv.optimize(cv, start=traj, n_starts=20, steps=5)
    assert "stay as they are" in caplog.text
    extremes = np.array(sorted(traj.positions, key=rg)[:10])
    sound = [rg(x) for x in extremes[limits_of(traj).accept(extremes)]]
    assert found.valid
    assert found.value <= min(sound) + 1e-4
    assert found.summary()["optimized"]["closest_pair"] > 0
    assert len(found.candidates) == 40


@in_3d
def test_starts_are_worked_on_in_groups_that_memory_holds(cv, traj, optimum, monkeypatch):
    """Which changes nothing: of 6 starts, each refined from two conformations, two at a time."""
    monkeypatch.setattr(optimization, "_HELD", 2 * 28)
    grouped = pv.optimize(cv, start=traj, n_starts=6, steps=100, refine_steps=800)
    assert grouped.value == pytest.approx(optimum.value, rel=1e-3)


def test_the_density_against_scipy():
    z = np.random.default_rng(0).normal(size=(600, 2)) @ [[1.0, 0.5], [0.0, 0.3]] + [3.0, 1.0]
    density, floor = log_density(z.astype(np.float32), np.random.default_rng(1))
    expected = stats.gaussian_kde(z.T, 0.5 * 600 ** (-1 / 6)).logpdf(z.T)
    np.testing.assert_allclose([density(jnp.asarray(x, jnp.float32)) for x in z[:20]], expected[:20], atol=1e-3)
    assert floor == pytest.approx(np.quantile(expected, 0.01), abs=1e-3)


@pytest.mark.parametrize(
    "z",
    [np.ones((1, 2)), np.eye(2), np.random.default_rng(0).normal(size=(300, 1)) * [1.0, 0.0] + [0.0, 0.5]],
    ids=["one frame", "two frames", "unused latent"],
)
def test_the_density_of_any_data_is_finite_and_falls(z):
    density, floor = log_density(z.astype(np.float32), np.random.default_rng(0))
    assert np.isfinite(floor)
    assert density(jnp.asarray(z[0], jnp.float32)) >= floor > density(jnp.array([1.0, 9.0]))


@pytest.mark.long
def test_a_target_is_met_or_refused_with_the_range(cv, traj):
    small = {"n_starts": 3, "steps": 30, "refine_steps": 300}
    data = np.array([rg(x) for x in traj.positions])
    for target in np.quantile(data, [0.05, 0.5, 0.95]):
        found = pv.optimize(cv, "rg", start=traj, target=target, **small)
        assert rg(found.structure.positions[0]) == pytest.approx(target, rel=0.01)
        assert found.valid
        assert found.better
        assert abs(found.extreme_value - target) == pytest.approx(np.abs(data - target).min(), abs=1e-4)
    with pytest.raises(pv.InputError, match=f"target 50 .*{data.min():.4g} to"):
        pv.optimize(cv, "rg", start=traj, target=50.0, **small)


def test_the_route_leads_from_the_data_to_the_structure(optimum, cv):
    assert len(optimum.route.segments) == 2
    np.testing.assert_allclose(optimum.route.positions[-1], optimum.structure.positions[0], atol=1e-5)
    best = int(np.where(optimum.candidate_valid, optimum.candidate_values, np.inf).argmin())
    first = cv.decode(optimum.z_path[:1, best % 6])
    np.testing.assert_allclose(optimum.route.positions[:1], first, atol=1e-5)


@in_3d
def test_what_cannot_be_had_is_said(cv, traj):
    """The data's shortest bond lies below its own 0.1 % quantile, so nothing sound can go beyond it."""

    def first_bond(positions):
        return pv.geometry.distances(positions, [[0, 1]])[0]

    result = pv.optimize(cv, objective=first_bond, start=traj, n_starts=4, steps=30, refine_steps=500)
    assert result.valid
    assert not result.better
    assert "no conformation was found whose objective is smaller" in result.message
    # Without refinement the decoder's means have their bonds wrong: nothing sound is found, and it is said.
    raw = pv.optimize(cv, start=traj[:3], n_starts=2, steps=2, refine_steps=1)
    assert raw.valid == raw.candidate_valid.any()
    assert raw.valid == ("; bonds are between" in raw.message)


def test_scores_against_numpy(cv, traj):
    scores = pv.score(cv, traj, generated=pv.sample(cv, 300))
    json.dumps(scores.to_dict(), allow_nan=False)
    everything = scores["frames"]["all"]
    aligned = cv.align(traj).reshape(len(traj), -1)
    decoded = cv.decode(cv.transform(traj)).reshape(len(traj), -1)
    squared = ((aligned - decoded) ** 2).sum(axis=1).mean()
    assert everything["squared_error"] == pytest.approx(squared, rel=1e-4)
    assert everything["rmsd"] == pytest.approx(np.sqrt(squared / 8), rel=1e-4)
    assert everything["fve"] == pytest.approx(1 - squared / aligned.var(axis=0).sum(), rel=1e-3)
    mean, std = cv.transform_posterior(traj)
    kl = 0.5 * (mean**2 + std**2 - 1) - np.log(std)
    np.testing.assert_allclose(everything["kl_per_latent"], kl.mean(0), rtol=1e-4)
    assert everything["elbo"] == pytest.approx(-everything["reconstruction"] - everything["kl"])
    np.testing.assert_allclose(everything["aggregated_std"], np.sqrt(mean.var(0) + (std**2).mean(0)), rtol=1e-4)
    radii = np.array([rg(x) for x in traj.positions])
    expected = [np.corrcoef(z, radii)[0, 1] for z in mean.T]
    np.testing.assert_allclose(everything["correlation_rg"], expected, atol=1e-4)


@in_3d
def test_train_and_validation_are_told_apart_on_the_training_data_only(cv, traj):
    parts = pv.score(cv, traj).frames.parts()
    assert set(parts) == {"all", "train", "validation"}
    assert parts["train"]["n_frames"] == cv.record["data"]["n_train"]
    # The terms agree with what training saw in its best epoch, up to the noise of one draw a frame.
    best = cv.record["best_epoch"]
    assert parts["validation"]["kl"] == pytest.approx(cv.record["history"]["val_kl"][best], rel=1e-3)
    assert parts["validation"]["reconstruction"] == pytest.approx(
        cv.record["history"]["val_reconstruction"][best], abs=1.0
    )
    assert set(pv.score(cv, traj[:100]).frames.parts()) == {"all"}


def test_ensemble_distances_know_same_from_different(traj):
    a, b = traj[::2], traj[1::2]
    near = ensemble_distances(a, b)
    far = ensemble_distances(a, dataclasses.replace(b, positions=1.2 * b.positions))
    assert set(near) == {"bond", "angle", "rg", "end_to_end", "pairs"}
    assert all(far[k] > 2 * near[k] for k in near if k != "angle")
    assert far["angle"] == pytest.approx(near["angle"], rel=1e-3)  # no size changes it
    bonds = [np.linalg.norm(np.diff(t.positions, axis=1), axis=2).ravel() for t in (a, b)]
    assert near["bond"] == pytest.approx(stats.wasserstein_distance(*bonds), rel=1e-4)

    def angles(x):
        u, v = x[:, :-2] - x[:, 1:-1], x[:, 2:] - x[:, 1:-1]
        cosine = (u * v).sum(axis=2) / np.linalg.norm(u, axis=2) / np.linalg.norm(v, axis=2)
        return np.arccos(cosine).ravel()

    expected = stats.wasserstein_distance(*(angles(t.positions.astype(float)) for t in (a, b)))
    assert near["angle"] == pytest.approx(expected, rel=1e-3)
    assert ensemble_distances(pv.Trajectory(a.positions[:, :2]), pv.Trajectory(b.positions[:, :2]))["angle"] == 0


@in_3d
def test_frames_of_no_weight_are_no_part_of_the_search(cv, traj):
    """Neither the most extreme frame nor the limits come from them."""
    rg = np.asarray(jax.vmap(pv.radius_of_gyration)(traj.positions))
    order = np.argsort(rg)
    weights = np.where(rg <= rg[order[5]], 0.0, 1.0)
    effort = {"n_starts": 4, "steps": 3, "refine_steps": 3}
    found = pv.optimize(cv, start=dataclasses.replace(traj, weights=weights), **effort)
    assert found.extreme_value == pytest.approx(rg[order[6]])
    counts = np.random.default_rng(0).integers(0, 5, size=len(rg))
    of_weights = optimization._make_cost(rg, counts, False, None)
    assert of_weights(2.0) == pytest.approx(optimization._make_cost(np.repeat(rg, counts), None, False, None)(2.0))
    one, two = (limits.record() | {"shape": None} for limits in (found.limits, limits_of(traj[weights > 0])))
    assert one == two

"""A grid of models is the models that `fit` gives, one by one or together."""

import csv
import dataclasses
import json
import sys

import jax
import numpy as np
import pytest
from clusters import small_cluster
from conftest import ideal_chains

import polyvae as pv
from polyvae import plot
from polyvae.app import cli

SMALL = {"encoder": (8,), "decoder": (8,), "batch_size": 64, "epochs": 12, "patience": 3, "learning_rate": 1e-2}
SMALL |= {"featurizer": pv.PrincipalAxes(), "validation": 0.1}


@pytest.fixture(scope="module")
def traj():
    return pv.Trajectory(ideal_chains(320, 5, 2), time=np.arange(320.0))


@pytest.fixture(scope="module")
def result(traj):
    return pv.sweep(traj, latent_dim=[1, 2], beta=[0.5, 4.0], seeds=2, together=False, **SMALL)


def test_a_model_of_the_grid_is_the_one_that_fit_gives(traj, result):
    assert [(r["latent_dim"], r["beta"], r["seed"]) for r in result.rows] == [
        (d, b, s) for d in (1, 2) for b in (0.5, 4.0) for s in (0, 1)
    ]
    alone = pv.fit(traj, latent_dim=2, beta=4.0, seed=1, **SMALL)
    model = result.models[-1]
    np.testing.assert_array_equal(model.transform(traj), alone.transform(traj))
    assert model.record == alone.record
    found = pv.score(model, traj, alternatives=False)["frames"]["validation"]
    for name, key in (("bound", "iw_bound"), ("fve", "fve"), ("active_units", "active_units"), ("vamp2", "vamp2")):
        assert result.rows[-1][name] == found[key]


def test_together_they_are_the_same_models_and_stop_where_they_would_alone(traj, result):
    """Vectorised products round differently; what is kept, when training ends and why do not change."""
    together = pv.sweep(traj, latent_dim=2, beta=[0.5, 4.0], seeds=2, together=True, **SMALL)
    ends = set()
    for one, other in zip(result.models[4:], together.models, strict=True):
        np.testing.assert_allclose(one.transform(traj), other.transform(traj), atol=2e-3)
        assert one.record["best_epoch"] == other.record["best_epoch"]
        ends.add(one.record["stopped"])
        n = len(other.record["history"]["kl"])
        assert n == min(12, other.record["best_epoch"] + 4)
        np.testing.assert_allclose(one.record["history"]["kl"][:n], other.record["history"]["kl"], atol=5e-3)
    assert {row["epochs"] for row in together.rows} != {12}  # one of them did stop early


def test_a_cluster_gives_the_same_models(traj, result):
    with small_cluster() as client:
        told = []
        grid = {"latent_dim": [1, 2], "beta": [0.5, 4.0], "seeds": 2}
        there = pv.sweep(traj, **grid, client=client, progress=lambda *n: told.append(n), **SMALL)
        with pytest.raises(pv.InputError, match="together must not be True with a client"):
            pv.sweep(traj, client=client, together=True, **SMALL)
        with pytest.raises(pv.InputError, match="at least one batch"):
            pv.sweep(traj, client=client, seeds=1, **SMALL | {"batch_size": 1000})
    assert told == [(k, 8) for k in range(1, 9)]
    assert there.rows == result.rows
    for one, other in zip(result.models, there.models, strict=True):
        np.testing.assert_array_equal(one.transform(traj), other.transform(traj))
        assert one.record == other.record


def test_summary_is_mean_and_spread_over_seeds(result):
    first = result.summary()[0]
    values = [row["bound"] for row in result.rows[:2]]
    assert first["n_seeds"] == 2
    assert first["bound"] == pytest.approx(np.mean(values))
    assert first["bound_std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    best = max(result.rows, key=lambda row: row["bound"])
    settings = result.best().record["settings"]
    assert all(settings[name] == best[name] for name in ("latent_dim", "beta", "seed"))


def test_a_grid_without_values_is_refused(traj):
    with pytest.raises(pv.InputError, match="value of beta"):
        pv.sweep(traj, beta=[])
    with pytest.raises(pv.InputError, match="measure"):
        pv.Sweep([], []).best("charm")
    with pytest.raises(TypeError, match="learning"):
        pv.sweep(traj, learning=1)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"beta": [1, -1]}, "beta .*-1"),
        ({"latent_dim": [1, 99]}, "latent_dim .*10 features.*99"),
        ({"latent_dim": [1.9]}, "latent dim .*whole"),
        ({"seeds": [0, -1]}, "seed"),
    ],
)
def test_every_cell_is_checked_before_the_first_is_trained(grid, words, traj):
    with pytest.raises(pv.InputError, match=words):
        pv.sweep(traj, **grid, progress=lambda *_: pytest.fail("trained"), **SMALL)
    with pytest.raises(TypeError, match="checkpoint, seed"):
        pv.sweep(traj, seed=1, checkpoint="x")


def test_weights_count_in_what_is_measured_too(traj):
    weights = np.linspace(0.1, 3, len(traj))
    given = pv.sweep(traj, seeds=1, weights=weights, **SMALL)
    own = pv.sweep(dataclasses.replace(traj, weights=weights), seeds=1, **SMALL)
    assert given.rows == own.rows
    assert given.rows[0]["fve"] != pv.sweep(traj, seeds=1, **SMALL).rows[0]["fve"]


def test_picture_shows_every_model(result):
    axes = plot.sweep(result)
    assert len(axes) == 4
    for ax, name in zip(axes, plot.choosing.LABELS, strict=True):
        dots = np.concatenate([line.get_ydata() for line in ax.lines if line.get_linestyle() == "None"])
        assert sorted(dots) == sorted(row[name] for row in result.rows)


def test_verb(tmp_path, traj):
    pv.write(tmp_path / "run.npz", traj)
    words = ["sweep", tmp_path / "run.npz", "--latent-dim", "1,2", "--beta", "1", "--seeds", 1, "--out"]
    words += [tmp_path / "out", "--epochs", 3, "--batch-size", 64, "--encoder", "8", "--decoder", "8"]
    with pytest.raises(SystemExit) as exit_:
        cli.main(list(map(str, words)))
    assert exit_.value.code == 0
    with (tmp_path / "out" / "models.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["latent_dim"] for row in rows] == ["1", "2"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [entry["latent_dim"] for entry in summary["settings"]] == [1, 2]
    best = max(rows, key=lambda row: float(row["bound"]))
    assert pv.load(tmp_path / "out" / "best.safetensors").latent_dim == int(best["latent_dim"])
    assert (tmp_path / "out" / "sweep.png").stat().st_size > 10_000
    for bad in ("1,x", "0", ""):
        with pytest.raises(SystemExit) as exit_:
            cli.main([*map(str, words[:2]), "--latent-dim", bad, "--out", str(tmp_path / "more")])
        assert exit_.value.code in (1, 2)
        assert not (tmp_path / "more").exists()


def test_the_default_trains_together_only_where_that_helps(traj, monkeypatch):
    called = []
    together = lambda runs: called.append(1) or [run.train() for run in runs]  # noqa: E731
    monkeypatch.setattr(sys.modules["polyvae.tasks.sweeps"], "train_together", together)
    pv.sweep(traj, seeds=1, **SMALL | {"epochs": 1})
    assert bool(called) == (jax.default_backend() != "cpu")

"""Weights: whole numbers are frames taken as often, in limits, densities and pictures; their scale is nothing."""

import dataclasses

import numpy as np
import pytest
from conftest import ideal_chains
from models import untrained

import polyvae as pv
from polyvae.features import continuity
from polyvae.measures.density import log_density
from polyvae.measures.limits import check_conformations, limits_of
from polyvae.measures.weights import counted, drawn_evenly, effective_size, merged, quantile
from polyvae.plot.curves import smooth_density
from polyvae.plot.latent import density_levels
from polyvae.tasks.paths import find_dense_path
from polyvae.trajectory import stream as streams

OFTEN = np.random.default_rng(0).integers(0, 4, 200)
TWICE = np.repeat(np.arange(200), OFTEN)


@pytest.fixture(scope="module")
def chains() -> pv.Trajectory:
    return pv.Trajectory(ideal_chains(200, 7, 3))


@pytest.fixture(scope="module", params=[1.0, 0.37])
def weighted(request, chains) -> pv.Trajectory:
    return dataclasses.replace(chains, weights=request.param * OFTEN)


@pytest.mark.parametrize("q", [0.001, 0.01, 0.25, 0.5, 0.999])
def test_quantiles_by_weight(q):
    rng = np.random.default_rng(1)
    values = rng.normal(size=(200, 3)).astype(np.float32)
    assert quantile(values, q, OFTEN) == quantile(values[TWICE], q)
    share = np.average((values <= quantile(values, q, OFTEN)).mean(axis=1), weights=OFTEN)
    below = np.average((values < quantile(values, q, OFTEN)).mean(axis=1), weights=OFTEN)
    assert below < q <= share


@pytest.mark.parametrize("of_frames", [True, False])
def test_limits_of_weighted_frames(chains, weighted, of_frames):
    found, expected = (limits_of(t, of_frames=of_frames).record() for t in (weighted, chains[TWICE]))
    moments, others = found.pop("shape"), expected.pop("shape")
    for name, measure in moments.items():
        for key in ("low", "high"):
            assert measure[key] == others[name][key]
        assert (measure["mean"], measure["std"]) == pytest.approx((others[name]["mean"], others[name]["std"]))
    if weighted.weights.max() == 3:
        assert found == expected
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6, err_msg=name)
    assert moments["rg"]["mean"] != pytest.approx(limits_of(chains).shape["rg"]["mean"], rel=1e-4)


def test_frames_of_no_weight_set_no_limit(chains):
    x = chains.positions.copy()
    x[5] *= 9
    x[6] *= 0.01
    weights = np.where(np.isin(np.arange(200), [5, 6]), 0.0, 1.0)
    good = np.flatnonzero(weights)
    spoilt = dataclasses.replace(chains, positions=x, weights=weights)
    assert limits_of(spoilt, of_frames=True).record() == limits_of(chains[good], of_frames=True).record()
    valid = check_conformations(spoilt, spoilt).valid
    assert not valid[5]
    assert not valid[6]
    assert valid[good].all()


def test_densities_of_weighted_points(chains, weighted):
    z = chains.positions[:, 3, :2]
    of_weighted = log_density(z, np.random.default_rng(0), weighted.weights)
    of_repeated = log_density(z[TWICE], np.random.default_rng(0))
    at = np.array([[0.0, 0.0], [1.0, -2.0], [4.0, 4.0]], np.float32)
    for point in at:
        assert float(of_weighted[0](point)) == pytest.approx(float(of_repeated[0](point)), rel=1e-5)
    assert of_weighted[1] == pytest.approx(of_repeated[1], rel=1e-5)
    assert of_weighted[1] != pytest.approx(log_density(z, np.random.default_rng(0))[1], rel=1e-3)


def test_densities_of_many_weighted_points():
    """More than a density holds: those that count are drawn by weight."""
    z = np.random.default_rng(0).normal(size=(5000, 1)).astype(np.float32)
    density, _ = log_density(z, np.random.default_rng(0), np.exp(z[:, 0]))  # of N(1, 1)
    for x in (0.0, 1.0, 2.0):
        exact = -0.5 * (x - 1) ** 2 - 0.5 * np.log(2 * np.pi)
        assert float(density(np.array([x], np.float32))) == pytest.approx(exact, abs=0.25)


def test_what_pictures_show_of_weighted_frames(chains, weighted):
    r = np.linalg.norm(chains.positions[:, 6] - chains.positions[:, 0], axis=1)
    size = effective_size(chains.positions, weighted.weights)
    assert size == pytest.approx(effective_size(chains.positions[TWICE]))
    assert size == pytest.approx(OFTEN.sum() ** 2 / (OFTEN**2).sum())
    for found, expected in zip(
        smooth_density(r, weighted.weights, size), smooth_density(r[TWICE], size=size), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)
    z = chains.positions[:, 6, :2]
    found, expected = density_levels(z, weighted.weights), density_levels(z[TWICE])
    for k in (0, 1):
        np.testing.assert_allclose(found[k], expected[k], rtol=1e-6)
    scale = weighted.weights.sum() / OFTEN.sum()
    np.testing.assert_allclose(found[2], scale * expected[2], rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(found[3], scale * np.array(expected[3]), rtol=1e-5)


def test_jumps_and_grids_of_weighted_frames(chains, weighted):
    cv = untrained(chains)
    floors = [continuity.jumps(t, cv.featurizer).floor for t in (weighted, chains[TWICE], chains)]
    assert floors[0] == pytest.approx(floors[1])
    assert floors[0] != pytest.approx(floors[2], rel=1e-4)
    grids = [pv.latent_grid(cv, 3, data=t).z for t in (weighted, chains[TWICE])]
    np.testing.assert_array_equal(*grids)
    points = np.random.default_rng(0).uniform(-1, 1, size=(500, 2))
    ends = np.array([[-1.0, 0.0], [1.0, 0.0]])
    above = find_dense_path(points, *ends, 30, weights=(points[:, 1] > 0.5) * 1.0)
    assert above[10:20, 1].min() > 0.4


def test_frames_are_drawn_as_often_as_they_weigh():
    np.testing.assert_array_equal(drawn_evenly(np.array([0.0, 2.0, 1.0, 0.0, 3.0]), 6), [1, 1, 2, 4, 4, 4])


def test_equal_frames_are_one(chains):
    rows, weights = merged(chains.positions[TWICE])
    np.testing.assert_array_equal(TWICE[rows], np.unique(TWICE))
    np.testing.assert_array_equal(weights, OFTEN[OFTEN > 0])
    assert len(counted(dataclasses.replace(chains, weights=OFTEN))) == (OFTEN > 0).sum()
    none = counted(dataclasses.replace(chains, weights=OFTEN)[np.flatnonzero(OFTEN == 0)])
    assert len(none) == (OFTEN == 0).sum()
    assert none.weights is None


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_weights_that_cannot_be_are_refused_before_anything_is_done(bad, tmp_path):
    """By the number of the frame in the whole run, however it is read."""
    traj = pv.Trajectory(np.random.default_rng(0).normal(size=(90, 4, 2)))
    pv.write(tmp_path / "run.npz", traj)
    weights = np.where(np.arange(90) == 70, bad, 1.0)
    stream = pv.stream(tmp_path / "run.npz", chunk_bytes=4 * 2 * 4 * 20)
    assert len(list(stream)) > 3
    for give in (
        lambda: dataclasses.replace(traj, weights=weights),
        lambda: streams.weighted(stream, weights),
        lambda: pv.fit(stream, weights=weights),
        lambda: pv.fit_vae(traj.positions.reshape(90, -1), weights=weights),
    ):
        with pytest.raises(pv.InputError, match="frame 70"):
            give()

"""Slopes of latents: exact where z is a known function of a distance, by finite differences elsewhere."""

import dataclasses
import json

import equinox as eqx
import jax
import models
import numpy as np
import pytest

import polyvae as pv
from polyvae.cv.steepness import find_slopes, slopes_at
from polyvae.vae.settings import ModelRecord, Slopes

SCALE = 0.1  # of the distance


def pairs(distances, seed: int = 0) -> np.ndarray:
    """Two beads at distances (n,), in random directions and places."""
    rng = np.random.default_rng(seed)
    along = rng.normal(size=(len(distances), 3))
    along *= np.asarray(distances)[:, None] / np.linalg.norm(along, axis=1, keepdims=True)
    first = rng.normal(size=(len(distances), 3))
    return np.stack([first, first + along], axis=1).astype(np.float32)


@pytest.mark.parametrize("weight", [1.0, 0.3, -7.0])
def test_a_linear_latent_has_one_slope_everywhere(weight):
    """dr/dx is a unit vector for each of the two beads, so that |grad_x z| = sqrt(2) w / scale."""
    cv, x = models.of_distance(weight), pairs(np.linspace(0.8, 1.3, 60))
    exact = np.sqrt(2) * abs(weight) / SCALE
    for frame in x[:3]:
        np.testing.assert_allclose(slopes_at(cv.function(), frame), exact, rtol=1e-4)
    found = find_slopes(cv, x)
    np.testing.assert_allclose([found.steep, found.steepest], exact, rtol=5e-3)


def test_a_latent_times_ten_leaves_a_tenth_of_the_way():
    x = pairs(np.linspace(0.8, 1.3, 60))
    one, ten = (np.array(find_slopes(models.of_distance(w, step=2.0), x).steep) for w in (1.0, 10.0))
    np.testing.assert_allclose(0.05 / ten, 0.1 * (0.05 / one), rtol=1e-4)


@pytest.mark.parametrize("step", [1.0, 5.0, 20.0])
def test_the_steepest_place_is_found_where_no_frame_is(step):
    """No frame is within 0.8 to 1.2; tanh(step (r - 1) / scale) has the slope step / scale at r = 1."""
    x = pairs([*np.linspace(0.7, 0.8, 200), *np.linspace(1.2, 1.3, 10)])
    found = find_slopes(models.of_distance(1.0, step=step), x)
    np.testing.assert_allclose(found.steepest, np.sqrt(2) * step / SCALE, rtol=0.02)
    assert np.sqrt(2) * step / SCALE * 0.9 < found.steep[0] <= found.steepest[0]


def test_a_step_between_two_points_of_a_line_is_steep():
    """The latent changes by 2 between neighbouring points, 63 steps on a way of at least 0.4 / sqrt(2)."""
    x = pairs([*np.linspace(0.7, 0.8, 200), *np.linspace(1.2, 1.3, 10)])
    found = find_slopes(models.of_distance(1.0, step=1e5), x)
    assert found.steepest[0] > 2 / (0.6 / np.sqrt(2) / 63) * 0.999


@pytest.mark.long
@pytest.mark.parametrize(
    ("featurizer", "dims"),
    [(pv.PrincipalAxes(), 2), (pv.PrincipalAxes(), 3), (pv.Reference(), 3), (pv.PairDistances(), 3)],
)
def test_slopes_are_those_of_finite_differences(featurizer, dims):
    """In float64, with everything that the CV does to the positions, and masses that differ."""
    x = np.random.default_rng(1).normal(size=(40, 5, dims)).astype(np.float32)
    traj = pv.Trajectory(x, length_unit="nm", masses=[12, 1, 16, 12, 14])
    cv = models.untrained(traj, featurizer=featurizer)
    latents = eqx.filter_jit(lambda function, x: function.posterior(x)[0])
    with jax.enable_x64(True):
        frame, h = np.asarray(x[0], np.float64), 1e-5
        gradient = np.zeros((2, *frame.shape))
        for place in np.ndindex(frame.shape):
            step = np.zeros_like(frame)
            step[place] = h
            there, here = (latents(cv.function(), frame + sign * step) for sign in (1, -1))
            gradient[(slice(None), *place)] = (there - here) / (2 * h)
    expected = np.sqrt((gradient**2).sum(axis=(1, 2)))
    aligned = cv.turn(x[:1])[0]
    np.testing.assert_allclose(slopes_at(cv.function(), aligned), expected, rtol=2e-3)


@pytest.mark.parametrize("featurizer", [pv.Reference(), pv.PairDistances()])
def test_slopes_do_not_depend_on_how_frames_are_turned(featurizer):
    rng = np.random.default_rng(2)
    x = np.arange(6)[:, None] * [1.0, 0.3, 0.1] + rng.normal(scale=0.4, size=(50, 6, 3))
    cv = models.untrained(pv.Trajectory(x, length_unit="nm"), featurizer=featurizer)
    turns = np.linalg.qr(rng.normal(size=(50, 3, 3)))[0]
    turns[..., 0] *= np.linalg.det(turns)[:, None]
    turned = (x @ turns + rng.normal(size=(50, 1, 3))).astype(np.float32)
    found, there = find_slopes(cv, x.astype(np.float32)), find_slopes(cv, turned)
    # Where steps of a line are alike, rounding decides on which the slope is taken.
    np.testing.assert_allclose(there.steep, found.steep, rtol=0.05)


@pytest.fixture(scope="module")
def fitted():
    """A model of two epochs, and its data."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4, 3)) * 0.05 + np.arange(4)[:, None] * [0.15, 0.02, 0]
    return pv.fit(pv.Trajectory(x, length_unit="nm"), epochs=2, lag=0, encoder=(8,), decoder=(8,)), x


def test_a_fit_keeps_its_slopes_and_so_does_its_file(fitted, tmp_path):
    cv, x = fitted
    now = find_slopes(cv, x.astype(np.float32))
    np.testing.assert_allclose(cv.record.slopes.steep, now.steep, rtol=1e-6)
    cv.save(tmp_path / "model.safetensors")
    assert pv.load(tmp_path / "model.safetensors").record.slopes == cv.record.slopes
    turned = cv.keep([1, 0]).record.slopes
    assert turned == Slopes(cv.record.slopes.steep[::-1], cv.record.slopes.steepest[::-1])
    assert cv.keep([1]).record.slopes == Slopes(cv.record.slopes.steep[1:], cv.record.slopes.steepest[1:])


def test_a_record_without_slopes_is_still_read(fitted):
    values = json.loads(json.dumps(fitted[0].record.to_dict()))
    del values["slopes"]
    old = ModelRecord.from_dict(values)
    assert old.slopes is None
    assert dataclasses.replace(fitted[0], record=old).keep([0]).record.slopes is None

"""The three lines of `run`: what makes a CV good, fair or poor."""

import dataclasses

import numpy as np
from conftest import DATA

import polyvae as pv
from polyvae.tasks.verdict import far_off, verdict

TINY = {"epochs": 1, "encoder": (4,), "decoder": (4,), "batch_size": 50, "featurizer": pv.Reference()}


def told(traj, z=None, **options):
    cv = pv.fit(traj, **{**TINY, "lag": 5} | options)
    scores = pv.score(cv, traj, alternatives=False)
    return verdict(cv, scores, traj, cv.transform(traj) if z is None else z), cv, scores


def test_states_that_the_run_never_goes_between_ask_for_a_bias():
    traj = pv.read(DATA / "chain2d_dense.npz")
    traj = dataclasses.replace(traj, segments=(1000, 1000))
    z = np.random.default_rng(0).normal(scale=0.02, size=(2000, 2)) + np.repeat([[-1, 0], [1, 0]], 1000, axis=0)
    (first, second, third), *_ = told(traj, z)
    assert first == "verdict: fair: the run never goes between the 2 states that z0 tells apart"
    assert "100 spreads" in second or "99 spreads" in second or "101 spreads" in second, second
    assert "biased on z0" in third


def test_jumps_and_few_frames_are_poor():
    traj = pv.read(DATA / "chain2d_dense.npz")
    (first, _, third), *_ = told(traj, featurizer=pv.PrincipalAxes())
    assert "jumps at 27 of 1999 steps" in first
    assert "--align" in third
    (first, *_), *_ = told(traj[:200], lag=0)
    assert first.startswith("verdict: poor: 200 frames are too few")


def test_an_idle_model_is_poor():
    traj = pv.read(DATA / "chain2d_dense.npz")
    _, cv, scores = told(traj)
    record = dataclasses.replace(cv.record, collapsed=[0, 1])
    first, *_ = verdict(dataclasses.replace(cv, record=record), scores, traj, cv.transform(traj))
    assert first.startswith("verdict: poor: no latent carries anything")


def test_what_lies_beyond_two_floors_is_named():
    traj = pv.read(DATA / "chain2d.npz")[:1000]
    cv = pv.fit(traj, **TINY, lag=0)
    apart = pv.score(cv, traj, generated=dataclasses.replace(traj, positions=1.5 * traj.positions)).generated
    assert far_off(apart) == ["bond lengths", "radii of gyration", "end-to-end distances"]
    assert far_off(pv.score(cv, traj, generated=traj).generated) == []


def test_few_frames_and_a_poor_generator_ask_for_more_frames_once():
    traj = pv.read(DATA / "chain2d.npz")[:200]
    cv = pv.fit(traj, **TINY, lag=0)
    far = dataclasses.replace(traj, positions=1.5 * traj.positions)
    scores = pv.score(cv, traj, generated=far, alternatives=False)
    first, _, third = verdict(cv, scores, traj, cv.transform(traj))
    assert "too few" in first
    assert "noise floors" in first
    assert "500 frames or more" in third
    assert "more frames" not in third


def test_rigid_bonds_need_not_agree_to_the_last_digit():
    """Their floor is no rounding, next to which every ensemble would be far off."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(600, 7, 3))
    chains = np.cumsum(steps / np.linalg.norm(steps, axis=2, keepdims=True), axis=1)
    traj = pv.Trajectory(chains.astype(np.float32))
    near = dataclasses.replace(traj, positions=1.0005 * traj.positions)
    far = dataclasses.replace(traj, positions=1.005 * traj.positions)
    cv = pv.fit(traj, **TINY, lag=0)
    named = [far_off(pv.score(cv, traj, generated=g, alternatives=False).generated) for g in (near, far)]
    assert named == [[], ["bond lengths"]]

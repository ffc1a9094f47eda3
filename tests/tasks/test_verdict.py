"""The three lines of `run`: what makes a CV good, fair or poor."""

import dataclasses

import numpy as np
import pytest
from conftest import DATA

import polyvae as pv
from polyvae.measures import ensemble_distances, noise_floor
from polyvae.measures.basins import Basin, clear_states
from polyvae.tasks.verdict import QUESTIONS, Answer, far_off, verdict

TINY = {"epochs": 1, "encoder": (4,), "decoder": (4,), "batch_size": 50, "featurizer": pv.Reference()}


def told(traj, z=None, **options):
    cv = pv.fit(traj, **{**TINY, "lag": 5} | options)
    scores = pv.score(cv, traj, alternatives=False)
    return verdict(cv, scores, traj, cv.transform(traj) if z is None else z).lines(), cv, scores


def test_states_that_the_run_never_goes_between_ask_for_a_bias():
    traj = pv.read(DATA / "chain2d_dense.npz")
    traj = dataclasses.replace(traj, segments=(1000, 1000))
    z = np.random.default_rng(0).normal(scale=0.02, size=2000) + np.repeat([-1, 1], 1000)
    first, second, third = judged(traj, z)
    assert "the run never goes between the 2 states that z0 tells apart" in first
    assert "holds only 2 independent frames" in first  # one a piece
    assert "z0 tells 2 states apart (A 50%, B 50%)" in second
    assert "biased on z0" in third


def test_jumps_and_few_frames_are_poor():
    traj = pv.read(DATA / "chain2d_dense.npz")
    (first, _, third), *_ = told(traj, featurizer=pv.PrincipalAxes())
    assert "jumps at 27 of 1999 steps" in first
    assert "--align" in third
    (first, *_), *_ = told(traj[:200], lag=0)
    assert first.startswith("verdict: poor: ")
    assert "200 frames are too few" in first


def test_an_idle_model_is_poor():
    traj = pv.read(DATA / "chain2d_dense.npz")
    _, cv, scores = told(traj)
    record = dataclasses.replace(cv.record, collapsed=[0, 1])
    first, *_ = verdict(dataclasses.replace(cv, record=record), scores, traj, cv.transform(traj)).lines()
    assert first.startswith("verdict: poor: all latents are inactive")


def judged(traj, z) -> list[str]:
    """The verdict on a CV of one latent `z`, with the scores of a well-trained model."""
    cv = pv.fit(traj, **{**TINY, "lag": 5, "latent_dim": 1})
    scores = pv.score(cv, traj, alternatives=False)
    every = dataclasses.replace(scores.frames.all, autocorrelation_time=[20.0], fve=0.9)
    frames = dataclasses.replace(scores.frames, all=every, validation=every)
    return verdict(cv, dataclasses.replace(scores, frames=frames), traj, z[:, None]).lines()


def test_every_question_is_answered_once_and_the_worst_decides():
    """Faults of one question stand together, without what is right beside them; the worst stand first."""
    traj = pv.read(DATA / "chain2d_dense.npz")[:300]
    cv = pv.fit(traj, **TINY, lag=0, seed=1)
    scores = pv.score(cv, traj, generated=traj, alternatives=False)
    alignment = dataclasses.replace(scores.alignment, n_jumps=1, n_steps=299, jump_fraction=1 / 299)
    z = np.random.default_rng(0).normal(size=(300, 2))
    said = verdict(cv, dataclasses.replace(scores, alignment=alignment), traj, z)
    assert [answer.question for answer in said.answers] == list(QUESTIONS)
    marks = {answer.question: answer.mark for answer in said.answers}
    marks.pop("shape")  # one epoch may explain anything
    assert marks == {"slow": "fair", "smooth": "fair", "states": "open", "ensemble": "good", "data": "poor"}
    assert said.mark == "poor"
    assert said["answers"][0]["help"] in said["advice"]
    first, second, third = said.lines()
    assert first.index("too few") < first.index("trained on shapes") < first.index("jumps at 1 of 299")
    assert "one state" not in first + second
    assert third == f"to do: {said.advice}"


def test_what_speaks_against_nothing_is_good(monkeypatch):
    answers = [Answer("slow", "good", "slow"), Answer("states", "open", "one state")]
    monkeypatch.setattr("polyvae.tasks.verdict._slowness", lambda *_: answers[0])
    monkeypatch.setattr("polyvae.tasks.verdict._about_states", lambda *_: answers[1:])
    traj = pv.read(DATA / "chain2d.npz")[:1000]
    cv = pv.fit(traj, **TINY, lag=2)
    said = verdict(cv, pv.score(cv, traj, generated=traj, alternatives=False), traj, cv.transform(traj))
    assert said.mark == "good"
    assert said.lines()[0] == "verdict: good: nothing speaks against it"
    assert "polyvae export" in said.advice


def test_a_crossing_is_from_core_to_core():
    """A run that lingers on the border between two states, to and fro, has been there once."""
    traj = pv.Trajectory(pv.read(DATA / "chain2d_dense.npz").positions)
    rng = np.random.default_rng(0)
    once = np.concatenate([rng.normal(-1, 0.1, 985), rng.normal(0, 0.4, 30), rng.normal(1, 0.1, 985)])
    assert "goes only 1 time between the 2 states that z0 tells apart" in judged(traj, once)[0]
    often = np.where(np.arange(2000) // 100 % 2, 1, -1) + rng.normal(0, 0.1, 2000)
    first, second, _ = judged(traj, often)
    assert "between" not in first
    assert "z0 tells 2 states apart (A 50%, B 50%)" in second
    assert "goes 19 times between the states" in second
    # Two runs that stay where they are have not crossed at their seam.
    apart = dataclasses.replace(traj, segments=(1000, 1000))
    assert "never goes" in judged(apart, np.repeat([-1.0, 1], 1000) + rng.normal(0, 0.1, 2000))[0]


def test_humps_that_overlap_are_one_state():
    """Of maxima within three spreads of each other the heaviest stands for all."""
    basins = [Basin(0.2, -1.0, 0.1, -9, -0.8), Basin(0.5, -0.75, 0.1, -0.8, 0), Basin(0.3, 1.0, 0.1, 0, 9)]
    assert clear_states(tuple(basins)) == basins[1:]
    assert clear_states(tuple(basins[:2])) == basins[1:2]
    assert clear_states(tuple(basins[1:])) == basins[1:]


def test_weighted_runs_are_told_what_can_help():
    traj = pv.read(DATA / "chain2d.npz")[:1000]
    traj = dataclasses.replace(traj, weights=np.ones(1000))
    (first, _, third), *_ = told(traj, np.random.default_rng(0).normal(size=(1000, 2)), lag=None)
    assert "trained on shapes" in first
    assert "unbiased run" in third
    assert "closer in time" not in third


def test_what_lies_beyond_two_floors_is_named():
    traj = pv.read(DATA / "chain2d.npz")[:1000]
    cv = pv.fit(traj, **TINY, lag=0)
    apart = pv.score(cv, traj, generated=dataclasses.replace(traj, positions=1.5 * traj.positions)).generated
    assert far_off(apart) == ["bond lengths", "radii of gyration", "end-to-end distances", "distances of pairs"]
    assert far_off(pv.score(cv, traj, generated=traj).generated) == []


def test_few_frames_and_a_poor_generator_ask_for_more_frames_once():
    traj = pv.read(DATA / "chain2d.npz")[:200]
    cv = pv.fit(traj, **TINY, lag=0)
    far = dataclasses.replace(traj, positions=1.5 * traj.positions)
    scores = pv.score(cv, traj, generated=far, alternatives=False)
    first, _, third = verdict(cv, scores, traj, cv.transform(traj)).lines()
    assert "too few" in first
    assert "noise floors" in first
    assert "500 frames or more" in third
    assert "more frames" not in third


@pytest.mark.parametrize("digits", [7, 3])
def test_rigid_bonds_need_not_agree_to_the_last_digit(digits):
    """Their floor is no rounding, next to which every ensemble would be far off, be it of float32 or of an XTC."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(5000, 7, 3))
    chains = np.cumsum(0.4 * steps / np.linalg.norm(steps, axis=2, keepdims=True), axis=1)
    traj = pv.Trajectory(chains.round(digits).astype(np.float32))
    scaled = (dataclasses.replace(traj, positions=by * traj.positions) for by in (1.0005, 1.005))
    floor = noise_floor(traj)
    near, far = (ensemble_distances(other, traj)["bond"] / floor["bond"] for other in scaled)
    assert near < 2 < far


@pytest.mark.parametrize(
    ("lag", "marks"), [(0, ("good", "fair", "poor")), (5, ("good", "open", "fair"))], ids=["shapes", "slow"]
)
def test_what_is_explained_of_the_shape_by_what_was_asked(lag, marks):
    traj = pv.read(DATA / "chain2d_dense.npz")
    cv = pv.fit(traj, **{**TINY, "lag": lag, "latent_dim": 1})
    scores = pv.score(cv, traj, alternatives=False)
    for fve, mark in zip((0.9, 0.3, -0.1), marks, strict=True):
        every = dataclasses.replace(scores.frames.all, fve=fve)
        frames = dataclasses.replace(scores.frames, all=every, validation=every)
        found = verdict(cv, dataclasses.replace(scores, frames=frames), traj, cv.transform(traj))
        (answer,) = [one for one in found.answers if one.question == "shape"]
        assert (answer.mark, f"{fve:.0%}" in answer.text) == (mark, True)

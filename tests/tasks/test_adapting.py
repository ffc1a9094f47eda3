"""Rounds of bias and learning, on a system of our own that costs nothing: a chain with a hinge of two states."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import polyvae as pv
from polyvae.engines import runs
from polyvae.engines.command import CommandEngine
from polyvae.engines.runs import Bias, Run, Snapshots, as_engine, kept_frames
from polyvae.errors import InputError
from polyvae.tasks import adapting, rounds
from polyvae.tasks.roundstore import Store, require_finished, run_once

TRAINING = {"epochs": 40, "encoder": (16,), "decoder": (32,), "featurizer": pv.Reference()}
GIVEN = {"steps": 60_000, "stride": 20, "rounds": 3, "free_runs": 6, "seed": 1, "training": TRAINING}
POINTS = 4001  # of the hinge
BARRIER = 8.0  # kT between the two states of the hinge, at -1 and 1


def conformations(hinge, rng=None):
    """Chains of six beads (n, 6, 3) with a hinge in the middle; noisy where there is a generator."""
    hinge = np.asarray(hinge, float)
    x = np.zeros((len(hinge), 6, 3))
    x[:, :3, 0] = [-2, -1, 0]
    x[:, :3, 1] = [0.2, 0, 0]
    turn = 0.8 + 0.9 * hinge[:, None]
    arm = np.array([1.0, 2.0, 3.0])
    x[:, 3:, 0], x[:, 3:, 1] = arm * np.cos(turn), arm * np.sin(turn)
    x[:, 3:, 2] = 0.4 * arm
    return x if rng is None else x + 0.05 * rng.normal(size=x.shape)


def hinge_engine(cv, *, bias, start, steps, stride, seed, folder=None):
    """Metropolis steps of the hinge in a double well, with hills on the latents."""
    rng = np.random.default_rng(seed)
    grid = np.linspace(-2, 2, POINTS)
    z = cv.transform(pv.Trajectory(conformations(grid))).astype(float)
    energy, v = BARRIER * (grid**2 - 1) ** 2, np.zeros(POINTS)
    at = POINTS // 4 if start is None else int(np.argmin(np.abs(grid - start.positions[0, 0, 0])))
    hinge, biases = np.zeros(steps // stride, int), np.zeros(steps // stride)
    moves, draws = rng.integers(-120, 121, steps), np.log(rng.random(steps))
    for step in range(steps):
        to = at + moves[step]
        if 0 <= to < POINTS and draws[step] < energy[at] + v[at] - energy[to] - v[to]:
            at = to
        if bias is not None and step % 200 == 0:
            away = ((z - z[at]) / bias.width) ** 2
            v += 0.2 * np.exp(-v[at] / (bias.barrier - 1)) * np.exp(-0.5 * away.sum(axis=1))
        if step % stride == stride - 1:
            hinge[step // stride] = at
    if bias is not None:
        biases = v[hinge] - v.max()
    traj = pv.Trajectory(conformations(grid[hinge], rng), time=stride * (1.0 + np.arange(len(hinge))))
    kept = kept_frames(len(hinge), 1)
    return Run(traj, biases, Snapshots(np.repeat(grid[hinge[kept]][:, None, None], 3, axis=2), kept))


def one_basin():
    """A run that never leaves the state at -1."""
    run = hinge_engine(flat(), bias=None, start=None, steps=60_000, stride=20, seed=5)
    hinge = hinge_of(run.traj)
    assert hinge.max() < 0
    return run.traj


class flat:
    """In place of a CV where there is no bias."""

    def transform(self, traj):
        return np.zeros((len(traj), 1))


def hinge_of(traj):
    x = traj.positions
    return (np.arctan2(x[:, 5, 1] - x[:, 2, 1], x[:, 5, 0] - x[:, 2, 0]) - 0.8) / 0.9


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    folder, said = tmp_path_factory.mktemp("adapt") / "rounds", []
    return pv.adapt(one_basin(), hinge_engine, folder, progress=said.append, **GIVEN), folder, said


@pytest.mark.long
def test_from_one_basin_it_finds_the_other_and_goes_to_and_fro(adapted):
    found, _, said = adapted
    first, *_, last = found.rounds
    assert last.crossings > 10 + first.crossings
    assert 0 in last.latents
    assert found.cv.record.settings.lag > 0
    states = np.sign(hinge_of(found.biased))
    assert 0.2 < (states > 0).mean() < 0.8
    z = found.cv.transform(pv.Trajectory(conformations(np.linspace(-1.2, 1.2, 50))))[:, 0]
    assert abs(np.corrcoef(z, np.tanh(3 * np.linspace(-1.2, 1.2, 50)))[0, 1]) > 0.9
    assert any("nothing slow" in line or "from the basins" in line for line in said)


@pytest.mark.long
def test_the_weights_give_the_free_energy_of_the_hinge(adapted):
    """Both states are alike, by symmetry."""
    found, *_ = adapted
    hinge, weights = hinge_of(found.biased), found.biased.weights
    difference = -np.log(weights[hinge > 0].sum() / weights[hinge < 0].sum())
    assert abs(difference) < 1.0
    assert len(found.free_energy.states) == 2
    error = found.free_energy.states[1].error
    assert found.free_energy.states[1].energy < 3 * max(error, 0.3)


class Identity:
    """In place of a CV, of frames that are one number."""

    def transform(self, traj):
        return traj.positions[:, 0, :1]


def run_of(values):
    positions = np.zeros((len(values), 2, 2))
    positions[:, 0, 0] = values
    none = Snapshots(np.zeros((1, 2, 3)), np.array([len(values) - 1]))
    # A constant of its own, which a bias has no less.
    return Run(pv.Trajectory(positions), np.full(len(values), values[0] * 1e3), none)


def two_states(share, stay, n, rng, start=None):
    """Frames at -1 and 1, `share` of them at 1, which stay where they are for about `stay` frames."""
    anew = rng.random(n) < 1 / stay
    drawn = np.where(rng.random(n) < share, 1.0, -1.0)
    at = np.maximum.accumulate(np.where(anew, np.arange(n), 0))
    if start is not None:
        drawn[0] = start
    return drawn[at] + 0.1 * rng.normal(size=n)


def test_a_run_counts_by_how_often_it_came_into_each_state():
    rng = np.random.default_rng(0)
    known = [run_of(two_states(0.5, 20, 4000, rng)).traj]
    often, hardly = two_states(0.2, 20, 8000, rng), two_states(0.8, 400, 8000, rng)
    never = two_states(0.2, 1e9, 20_000, rng, start=1)
    assert never.min() > 0
    rounds_of = [[run_of(x)] for x in (never, often, hardly)]
    used, found = rounds.combine_rounds(Identity(), rounds_of, known)
    assert [len(run.traj) for run in used] == [8000, 8000]  # the one that never left counts for nothing
    weights, z = rounds.assign_weights(used, found), np.concatenate([often, hardly])
    times = [int((np.diff(np.sign(x)) != 0).sum()) for x in (often, hardly)]
    assert times[0] > 10 * times[1] > 0
    np.testing.assert_allclose(weights[:8000].sum() / weights[8000:].sum(), times[0] / times[1], rtol=0.05)
    share = np.average([(often > 0).mean(), (hardly > 0).mean()], weights=times)
    assert weights[z > 0].sum() / weights.sum() == pytest.approx(share, abs=0.03)  # the first tenth is left out
    used, _ = rounds.combine_rounds(Identity(), [[run_of(never)], [run_of(-never)]], known)
    assert [run.traj.positions[0, 0, 0] < 0 for run in used] == [True]  # nothing is known but the last


def test_short_runs_start_evenly_from_where_a_bias_has_been():
    run = hinge_engine(flat(), bias=None, start=None, steps=4000, stride=20, seed=3)
    kept = run.snapshots.frames
    chosen = rounds.evenly_spaced_snapshots([run, run], 20)
    frames = [int(at.frames[0]) for at, _ in chosen]
    assert len(frames) == 20
    assert frames[:10] == sorted(frames[:10])
    assert frames[10:] == sorted(frames[10:])
    assert min(frames) >= len(run.traj) // 10 > 0
    assert 15 < np.diff(frames[:10]).min() <= np.diff(frames[:10]).max() < 22
    assert frames[-1] == kept[-1]
    for at, frame in chosen:
        np.testing.assert_array_equal(frame.positions, run.traj.positions[at.frames])
    joined = rounds.with_starting_frame(chosen[3][1], run)
    np.testing.assert_array_equal(joined.positions[0], run.traj.positions[frames[3]])
    np.testing.assert_array_equal(joined.positions[1:], run.traj.positions)
    assert joined.segments == (201,)
    assert rounds.keep_last_snapshot(run).snapshots.frames.tolist() == [199]
    assert len(rounds.evenly_spaced_snapshots([run], 500)) == 500  # from some of them more than one
    boxed = dataclasses.replace(run, traj=dataclasses.replace(run.traj, box=np.tile(50 * np.eye(3), (200, 1, 1))))
    frame = boxed.traj[3:4]
    np.testing.assert_array_equal(rounds.with_starting_frame(frame, boxed).positions[1:], run.traj.positions)


def test_a_search_looks_at_what_is_least_like_what_is_known():
    """A bias that was in the known state but for one frame in fifty, in two others, and went evenly."""
    rng = np.random.default_rng(0)
    known = pv.Trajectory(conformations(-1 + 0.1 * rng.normal(size=600), rng))
    went = -1 + 0.1 * rng.normal(size=400)
    went[[90, 250, 251]], went[[130, 333, 380]] = 1.0, 2.0
    went[:40] = 3.0  # as the run began, which is left out
    kept = Snapshots(np.repeat(went[:, None, None], 3, axis=2), np.arange(400))
    run = Run(pv.Trajectory(conformations(went, rng)), np.zeros(400), kept)
    cv = rounds.train_cv([known], [], training=TRAINING | {"epochs": 1}, seed=1)
    assert all(at.positions[0, 0, 0] < 0 for at, _ in rounds.evenly_spaced_snapshots([run], 8))
    found = [float(at.positions[0, 0, 0]) for at, _ in rounds.farthest_snapshots(cv, [known], [run], 8)]
    assert found[0] == 2.0  # the farthest
    assert set(found[:6]) >= {1.0, 2.0}
    assert max(found) == 2.0
    more = [int(at.frames[0]) for at, _ in rounds.farthest_snapshots(cv, [known], [run], 400)]
    assert sorted(np.bincount(more)[40:]) == [1] * 320 + [2] * 40  # from some of them more than one
    for at, frame in rounds.farthest_snapshots(cv, [known], [run], 3):
        np.testing.assert_array_equal(frame.positions, run.traj.positions[at.frames])
    again = pv.Trajectory(conformations(np.r_[-1.0, 2.0, 2.0], rng))  # where one of them is known
    assert rounds.farthest_snapshots(cv, [known, again], [run], 1)[0][0].positions[0, 0, 0] == 1.0


def test_short_runs_teach_to_which_state_a_conformation_belongs():
    """Halfway between two states, all fall into the first; from the states alone no CV can know."""
    rng = np.random.default_rng(0)
    at = np.repeat(np.tile([-1.0, 1.0], 10), 200)
    known = pv.Trajectory(conformations(at + 0.05 * rng.normal(size=len(at)), rng))
    lag = 8
    shots = []
    for _ in range(40):
        fallen = -1 + 0.05 * rng.normal(size=lag + rounds.PAIRS)
        run = run_of(np.zeros(len(fallen)))
        run = dataclasses.replace(run, traj=pv.Trajectory(conformations(fallen, rng)))
        shots.append(rounds.with_starting_frame(pv.Trajectory(conformations(0.1 * rng.normal(size=1), rng)), run))
    places = pv.Trajectory(conformations([-1.0, 0.0, 1.0]))

    def halfway(known):
        cv = rounds.train_cv(known, [], training=TRAINING | {"lag": lag, "epochs": 80}, seed=1)
        first, middle, second = cv.transform(places)[:, 0]
        return (middle - first) / (second - first)

    assert halfway([known, *shots]) < 0.25
    assert 0.3 < halfway([known]) < 0.7


@pytest.mark.long
def test_short_runs_reach_as_far_as_the_time_lag(adapted):
    found, folder, said = adapted
    lags = [pv.load(folder / f"round_{record.number:02d}" / "model.safetensors").record.settings.lag
            for record in found.rounds]  # fmt: skip
    assert len({lag for lag in lags if lag}) == 1
    slow = [record.number for record in found.rounds if record.slow]
    assert slow
    for number in slow[:-1]:
        shots = sorted((folder / f"round_{number:02d}").glob("shot_*"))
        assert 50 < len(shots) <= 6 * 556 // (lags[-1] + rounds.PAIRS)
        assert {len(pv.read(shot / "frames.npz")) for shot in shots} == {lags[-1] + rounds.PAIRS}
        assert any(f"{len(shots)} short ones" in line for line in said)
    first, later = (found.rounds[number - 1] for number in slow[:2])
    ran = [*(folder / f"round_{first.number:02d}").glob("shot_*"),
           *(folder / f"round_{first.number:02d}").glob("free_*")]  # fmt: skip
    assert later.free_steps == 20 * sum(len(pv.read(run / "frames.npz")) for run in ran)


def test_two_cvs_are_alike_where_only_what_is_within_states_differs():
    class Affine(Identity):
        def __init__(self, noise, sign):
            self.noise, self.sign = noise, sign

        def transform(self, traj):
            return self.sign * (super().transform(traj) + self.noise[:, None])

    rng = np.random.default_rng(0)
    states = run_of(two_states(0.5, 20, 4000, rng)).traj
    one, two = Affine(0.1 * rng.normal(size=4000), 1), Affine(0.1 * rng.normal(size=4000), -2)
    assert rounds.cv_similarity(one, two, [states]) > 0.95
    other = Affine(3 * two_states(0.5, 20, 4000, rng), 1)
    assert rounds.cv_similarity(one, other, [states]) < 0.2
    still = Affine(-states.positions[:, 0, 0], 1)
    assert rounds.cv_similarity(one, still, [states]) == 0.0


def test_a_state_beyond_the_walls_of_a_bias_is_noticed():
    bias = Bias(np.array([-2.0]), np.array([2.0]), np.array([0.1]), 16.0, 500, np.array([[-1.5], [0.5]]))
    rng = np.random.default_rng(0)
    states = run_of(two_states(0.25, 20, 4000, rng)).traj
    outside = (states.positions[:, 0, 0] > 0.6).mean()
    assert outside > 0.2
    assert rounds.within_walls(bias, Identity(), [states]) == pytest.approx(1 - outside, abs=0.01)
    free = dataclasses.replace(bias, walls=None)
    assert rounds.within_walls(free, Identity(), [states]) == 1


@pytest.mark.long
def test_each_round_is_a_folder_to_read(adapted):
    found, folder, _ = adapted
    for record in found.rounds:
        place = folder / f"round_{record.number:02d}"
        assert json.loads((place / "round.json").read_text()) == json.loads(json.dumps(record.to_dict()))
        pv.load(place / "model.safetensors")
        table = pv.read_colvar(place / "walker_00" / "COLVAR")
        assert len(table["bias"]) == 3000
        assert len(pv.read(place / "walker_00" / "frames.npz")) == 3000
    assert len(list((folder / "round_01").glob("scout_*"))) == 6
    first, later, *_ = found.rounds
    assert set(first.seconds) == {"training", "biased"}
    assert set(later.seconds) == {"training", "biased", "unbiased"}
    whole = pv.load(folder / "model.safetensors")
    np.testing.assert_array_equal(whole.transform(found.biased), found.cv.transform(found.biased))
    np.testing.assert_allclose(pv.read(folder / "biased.npz").weights, found.biased.weights, rtol=1e-6)


@pytest.mark.long
def test_a_call_of_finished_rounds_gives_them_again(adapted):
    found, folder, _ = adapted

    def engine(*args, **kwargs):
        raise AssertionError("all runs are there")

    again = pv.adapt(one_basin(), engine, folder, **GIVEN)
    assert again.rounds == found.rounds
    np.testing.assert_array_equal(again.free_energy.energy, found.free_energy.energy)
    with pytest.raises(pv.InputError, match="holds rounds with steps 60000; this call has 50000"):
        pv.adapt(one_basin(), engine, folder, **GIVEN | {"steps": 50_000})
    with pytest.raises(pv.InputError, match="holds rounds with data"):
        pv.adapt(one_basin()[:100], engine, folder, **GIVEN)


def test_rounds_of_another_temperature_are_not_gone_on_with(tmp_path):
    def engine(cv, **given):
        return hinge_engine(cv, **given)

    engine.temperature = 300.0
    given = GIVEN | {"rounds": 1, "steps": 4000, "training": TRAINING | {"epochs": 2}}
    pv.adapt(one_basin(), engine, tmp_path / "a", **given)
    engine.temperature = 310.0
    with pytest.raises(pv.InputError, match=r"holds rounds with temperature 300.0; this call has 310.0"):
        pv.adapt(one_basin(), engine, tmp_path / "a", **given)


def standing(cv, **given):
    raise InputError("the engine was called")


BRIEF = GIVEN | {"rounds": 1, "steps": 4000, "free_steps": 400, "training": TRAINING | {"epochs": 1}}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Rounds that stopped at their first run, of data that say all they can."""
    folder = tmp_path_factory.mktemp("begun") / "rounds"
    data = dataclasses.replace(one_basin(), length_unit="nm", names="ABCDEF", bonds=[[0, 1], [1, 2]])
    with pytest.raises(pv.InputError, match="the engine was called"):
        pv.adapt(data, standing, folder, **BRIEF)
    return data, folder


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("length_unit", {"length_unit": "angstrom"}),
        ("names", {"names": "ABCDEG"}),
        ("names", {"names": None}),
        ("bonds", {"bonds": [[0, 1], [1, 3]]}),
        ("bonds", {"bonds": None}),
    ],
)
def test_rounds_of_other_data_are_not_continued(begun, name, change):
    data, folder = begun
    with pytest.raises(pv.InputError, match=f"holds rounds with {name} "):
        pv.adapt(dataclasses.replace(data, **change), standing, folder, **BRIEF)


def test_rounds_of_another_command_or_topology_are_not_continued(tmp_path):
    (tmp_path / "top.pdb").write_text("END\n")

    class Own(CommandEngine):
        def run(self, cv, **given):
            if self.command.startswith("rnu"):
                raise InputError("no such program")
            return hinge_engine(cv, **given)

    def engine(command="run {plumed}", **more):
        return Own(command, frames="*.xtc", topology=tmp_path / "top.pdb", temperature=300, **more)

    folder = tmp_path / "rounds"
    with pytest.raises(pv.InputError, match="no such program"):
        pv.adapt(one_basin(), engine("rnu {plumed}"), folder, **BRIEF)
    pv.adapt(one_basin(), engine(), folder, **BRIEF)  # a command that never ran may be mended
    for name, other in (("command", engine("run -x {plumed}")), ("reading", engine(reading={"format": "XTC"}))):
        with pytest.raises(pv.InputError, match=f"holds rounds with {name} "):
            pv.adapt(one_basin(), other, folder, **BRIEF)
    (tmp_path / "top.pdb").write_text("REMARK another\nEND\n")
    with pytest.raises(pv.InputError, match="holds rounds with topology "):
        pv.adapt(one_basin(), engine(), folder, **BRIEF)


def test_a_folder_in_use_is_refused(tmp_path):
    refused = []

    def engine(cv, *, folder, **given):
        with ThreadPoolExecutor(1) as other:
            second = other.submit(pv.adapt, one_basin(), standing, tmp_path / "rounds", **BRIEF)
            refused.append(str(second.exception()))
        return hinge_engine(cv, **given)

    pv.adapt(one_basin(), engine, tmp_path / "rounds", **BRIEF)
    assert "rounds is in use: another job writes there (process " in refused[0]
    pv.adapt(one_basin(), standing, tmp_path / "rounds", **BRIEF)  # and afterwards it is free


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:900]), "cannot be read as npz"),
        (lambda path: path.write_bytes(b""), "cannot be read as npz"),
        (lambda path: np.savez(path, bias=np.zeros(60)), "it holds no array 'positions'"),
        (lambda path: np.savez(path, bias=np.array([{}], object), positions=0, frames=0), "holds Python objects"),
        (lambda path: np.savez(path, bias=np.zeros(9), positions=np.zeros((1, 3, 3)), frames=[19]), "bias"),
        (lambda path: np.savez(path, bias=np.zeros(20), positions=np.zeros((2, 3, 3)), frames=[19]), "do not fit"),
        (lambda path: np.savez(path, bias=np.zeros(20), positions=np.zeros((1, 3, 3)), frames=[20]), "do not fit"),
        (lambda path: path.with_name("frames.npz").write_bytes(b"PK"), "frames.npz"),
        (lambda path: path.with_name("frames.npz").unlink(), "frames.npz"),
    ],
)
def test_a_damaged_run_is_named(tmp_path, damage, reason):
    run = hinge_engine(flat(), bias=None, start=None, steps=400, stride=20, seed=3)
    runs.save_run(tmp_path / "walker_00", run, flat())
    np.testing.assert_array_equal(runs.saved_run(tmp_path / "walker_00").bias, run.bias)
    damage(tmp_path / "walker_00" / "run.npz")
    with pytest.raises(pv.InputError, match=r"run.npz is no whole run .*remove the folder") as error:
        runs.saved_run(tmp_path / "walker_00")
    assert reason in str(error.value)
    assert "allow_pickle" not in str(error.value)


@pytest.fixture(scope="module")
def brief(tmp_path_factory):
    folder = tmp_path_factory.mktemp("brief") / "rounds"
    return pv.adapt(one_basin(), hinge_engine, folder, **BRIEF), folder


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, ""])
@pytest.mark.parametrize("name", ["adapt.json", "round_01/round.json"])
def test_damaged_records_of_rounds_are_named(brief, name, text, tmp_path):
    shutil.copytree(brief[1], tmp_path / "rounds")
    (tmp_path / "rounds" / name).write_text(text)
    with pytest.raises(pv.InputError, match=f"{Path(name).name} must hold a JSON object"):
        pv.adapt(one_basin(), standing, tmp_path / "rounds", **BRIEF)


def test_a_script_may_run_the_steps_itself(brief, tmp_path):
    """And gets what `adapt` gets."""
    found, _ = brief
    with Store(tmp_path / "b").opened({}, {}) as store:
        lab = adapting.Lab(as_engine(hinge_engine), store, adapting.RoundOptions(**BRIEF))
        start = adapting.RoundState((one_basin(),))
        state = adapting.bias(adapting.learn(start, lab), lab)
        assert start.cv is None
        np.testing.assert_array_equal(state.runs[0].traj.positions, found.biased.positions)
        later = adapting.scout(state, lab)
        assert later.searching
        assert len(later.pieces) == BRIEF["free_runs"]
        assert later.free_steps == sum(len(run.traj) for run in later.pieces) * BRIEF["stride"]


def test_files_of_ones_own_are_not_written_over(tmp_path):
    (tmp_path / "model.safetensors").write_text("mine")
    with pytest.raises(pv.InputError, match=r"must hold rounds with their adapt.json, or nothing; it has model"):
        pv.adapt(one_basin(), hinge_engine, tmp_path, **GIVEN)
    assert (tmp_path / "model.safetensors").read_text() == "mine"


def test_too_few_frames_are_told_before_anything_runs(tmp_path):
    with pytest.raises(pv.InputError, match=r"100 frames, with a stride of 20 in 2,000 steps; got 1,999 steps"):
        pv.adapt(one_basin(), hinge_engine, tmp_path / "a", **GIVEN | {"steps": 1999})
    assert not (tmp_path / "a").exists()


def test_a_run_that_fails_is_told_and_repeated_with_another_seed(tmp_path):
    seeds = []

    def engine(cv, **given):
        seeds.append(given["seed"])
        if len(seeds) == 1:
            raise InputError("the run blew up")
        return hinge_engine(cv, **given)

    given = GIVEN | {"rounds": 1, "steps": 4000}
    with pytest.raises(pv.InputError, match=r"round_01/walker_00: the run blew up \(the same call repeats"):
        pv.adapt(one_basin(), engine, tmp_path / "a", **given)
    assert (tmp_path / "a" / "round_01" / "walker_00" / "failed_1.txt").read_text() == "the run blew up\n"
    pv.adapt(one_basin(), engine, tmp_path / "a", **given)
    assert len(seeds) == 2
    assert seeds[0] != seeds[1]


def test_a_short_run_that_fails_again_and_again_is_left_out(tmp_path):
    """One of many, whose start may be where no run from comes to its end."""
    cv = flat()
    given = {"bias": None, "start": None, "steps": 400, "stride": 20}
    seeds = []

    def engine(cv, *, seed, **given):
        seeds.append(seed)
        raise InputError("the run blew up")

    for _ in range(2):  # the second call finds what the first did
        assert run_once(as_engine(engine), tmp_path / "shot_03", cv, 7, given, many=True) is None
        assert len(set(seeds)) == len(seeds) == 3
    assert len(list((tmp_path / "shot_03").glob("failed_*.txt"))) == 3
    with pytest.raises(pv.InputError, match="blew up"):
        run_once(as_engine(engine), tmp_path / "walker_00", cv, 7, given)
    with pytest.raises(pv.InputError, match=r"none of the 2 unbiased runs .* failed_1.txt say why"):
        require_finished([None, None], tmp_path)
    whole = run_once(as_engine(hinge_engine), tmp_path / "walker_01", cv, 7, given)
    short = run_once(as_engine(hinge_engine), tmp_path / "shot_04", cv, 7, given, many=True)
    np.testing.assert_array_equal(short.traj.positions, whole.traj.positions)
    assert short.snapshots.frames.tolist() == [19]
    assert len(whole.snapshots) == 20


def test_a_full_disk_is_told_and_loses_nothing(tmp_path, monkeypatch):
    given = GIVEN | {"rounds": 1, "steps": 4000, "training": TRAINING | {"epochs": 2}}
    folder = tmp_path / "rounds"

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(runs.np, "savez", full)
        with pytest.raises(OSError, match="No space left"):
            pv.adapt(one_basin(), hinge_engine, folder, **given)
    model = (folder / "round_01" / "model.safetensors").read_bytes()
    assert not [path for path in folder.rglob(".*") if path.is_file()]
    found = pv.adapt(one_basin(), hinge_engine, folder, **given)
    assert (folder / "round_01" / "model.safetensors").read_bytes() == model
    whole = pv.adapt(one_basin(), hinge_engine, tmp_path / "whole", **given)
    np.testing.assert_array_equal(found.biased.positions, whole.biased.positions)
    np.testing.assert_array_equal(found.free_energy.energy, whole.free_energy.energy)


def test_frames_with_weights_are_no_unbiased_ones(tmp_path):
    run = one_basin()[:200]
    weighted = dataclasses.replace(run, weights=np.linspace(1, 2, 200))
    with pytest.raises(pv.InputError, match="must be unbiased, all of one weight"):
        pv.adapt(weighted, hinge_engine, tmp_path / "a", **GIVEN)
    assert not (tmp_path / "a").exists()


def test_steps_may_be_replaced(tmp_path):
    """A CV of one's own, and a bias of one's own, and one of six unbiased runs that fails."""
    called = []

    def train(known, biased, *, training, seed):
        called.append((len(known), len(biased), seed))
        return rounds.train_cv(known, biased, training=training | {"latent_dim": 1, "lag": 0}, seed=seed)

    def choose(cv, known, biased, barrier, pace):
        z = cv.transform(known[0])
        return Bias(z.min(axis=0) - 1, z.max(axis=0) + 1, np.full(cv.latent_dim, 0.5), barrier, pace)

    def engine(cv, *, folder, **given):
        if folder.name == "scout_01":  # from where no run comes to its end
            raise InputError("the run blew up")
        return hinge_engine(cv, **given)

    found = pv.adapt(one_basin(), engine, tmp_path / "a", train=train, choose=choose,
                     **GIVEN | {"rounds": 2, "steps": 4000, "free_steps": 400})  # fmt: skip
    assert found.cv.latent_dim == 1
    assert [(known, biased) for known, biased, _ in called] == [(1, 0), (5, 1), (6, 1)]
    assert len(list((tmp_path / "a" / "round_01" / "scout_01").glob("failed_*.txt"))) == 3
    assert len({seed for *_, seed in called}) == 3


@pytest.mark.parametrize(("rounds_given", "another"), [(4, False), (4, True), (2, False), (2, True)])
def test_it_ends_where_the_unbiased_runs_teach_the_same_cv(tmp_path, monkeypatch, rounds_given, another):
    """What the last biased run came into is first in the unbiased runs from there: a CV of these knows it."""
    cv = rounds.train_cv([one_basin()], [], training=TRAINING | {"lag": 0}, seed=1)
    trainings = []

    def train(known, biased, *, training, seed):
        trainings.append(len(biased))
        return cv.keep([1, 0]) if another and len(biased) == 2 else cv

    compared = []

    def alike(new, old, frames):
        compared.append([len(piece) for piece in frames])
        return similarity(new, old, frames)

    similarity = rounds.cv_similarity
    monkeypatch.setattr(rounds, "cv_similarity", alike)
    monkeypatch.setattr(rounds, "has_settled", lambda record: record.number == 2)
    given = GIVEN | {"rounds": rounds_given, "steps": 4000, "free_steps": 400}
    said = []
    found = pv.adapt(one_basin(), hinge_engine, tmp_path, train=train, progress=said.append, **given)
    assert found.converged == (not another)
    assert len(found.rounds) == (rounds_given if another else 2)
    checks = [line for line in said if "unbiased runs lead to" in line]
    assert len(checks) == 1
    assert ("another" in checks[0]) == another
    check = json.loads((tmp_path / "round_02" / "check.json").read_text())
    assert (check["same_cv"] > 0.99) != another
    assert check["within_walls"] == 1.0
    assert compared.count([18] * 6) == 1  # the six unbiased runs of this round, without all frames before
    assert 2 in trainings  # with the frames of the second round, and those of its unbiased runs
    if not another or rounds_given == 2:
        assert not (tmp_path / "round_03" / "walker_00").exists()
        np.testing.assert_array_equal(found.cv.transform(one_basin()), cv.transform(one_basin()))


KILLED = """
import os, signal, sys
sys.path[:0] = [{tests!r}]
import test_adapting as t
from polyvae.engines import runs
from polyvae.tasks import adapting, rounds, roundstore

left = int(os.environ["LEFT"])

def counted(function, name):
    def call(*args, **kwargs):
        global left
        if name == os.environ["WHERE"]:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

class Half:
    def __init__(self, target): self.target = target
    def write(self, data):
        self.target.write(data[: len(data) // 2])
        self.target.flush()
        os.kill(os.getpid(), signal.SIGKILL)

rounds.fit = counted(rounds.fit, "fit")
roundstore.write_json = counted(roundstore.write_json, "summary")
runs.np.savez = counted(runs.np.savez, "save")
runs.write_colvar = counted(runs.write_colvar, "table")
engine = counted(t.hinge_engine, "engine")
brief = dict(rounds=2, steps=4000, free_steps=12000, training=t.TRAINING | dict(epochs=5))
adapting.adapt(t.one_basin(), engine, sys.argv[1], **t.GIVEN | brief)
"""


def in_a_process(folder, where="nowhere", left=0):
    """Rounds in a process of their own, which kills itself at a place; its exit code."""
    script = folder.parent / "run.py"
    script.write_text(KILLED.format(tests=str(Path(__file__).parent)))
    environment = os.environ | {"WHERE": where, "LEFT": str(left)}
    return subprocess.run([sys.executable, script, folder], env=environment, check=False).returncode


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "rounds"
    assert in_a_process(folder) == 0
    return folder


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


AT = [("fit", 2), ("summary", 2), ("engine", 4), ("save", 1)]


@pytest.mark.long
@pytest.mark.parametrize(
    ("where", "left"), [pytest.param(*at, marks=[pytest.mark.slow] if k != 2 else []) for k, at in enumerate(AT)]
)
def test_killed_anywhere_it_goes_on_to_the_same_end(whole, tmp_path, where, left):
    assert in_a_process(tmp_path / "rounds", where, left) == -9
    assert in_a_process(tmp_path / "rounds") == 0
    found, expected = files_of(tmp_path / "rounds"), files_of(whole)
    assert sorted(found) == sorted(expected)
    for name, there in expected.items():
        if name.name != "round.json":  # which tells how long it took
            assert found[name] == there, name

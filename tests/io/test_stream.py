"""Chunks of bounded size give what the whole trajectory gives; tables and scores grow with it, memory does not."""

import dataclasses
import sys

import numpy as np
import pytest
from models import untrained

import polyvae as pv


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run of 12 beads in two pieces, in three formats, and the whole of it."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=(700, 12, 3)) * 0.1, axis=1)
    traj = pv.Trajectory(x, length_unit="nm", time=2.0 * np.arange(700))
    for suffix in ("npz", "xtc", "dcd"):
        pv.write(folder / f"part1.{suffix}", traj[:300])
        pv.write(folder / f"part2.{suffix}", traj[300:])
    return folder, traj


@pytest.fixture(scope="module")
def cv(run):
    return untrained(run[1])


@pytest.mark.parametrize("suffix", ["npz", "xtc", "dcd"])
@pytest.mark.parametrize("options", [{}, {"start": 3, "stop": 290, "step": 7}, {"step": 1000}, {"start": 299}])
def test_chunks_add_up(run, suffix, options):
    files = [run[0] / f"part{k}.{suffix}" for k in (1, 2)]
    whole = pv.read(files, **options)
    stream = pv.stream(files, chunk_bytes=12 * 12 * 64, **options)
    for _ in range(2):  # a stream starts again
        chunks = list(stream)
        assert sum(map(len, chunks)) == len(stream) == len(whole)
        assert max(map(len, chunks)) <= 64
        np.testing.assert_array_equal(np.concatenate([c.positions for c in chunks]), whole.positions)
        np.testing.assert_array_equal(np.concatenate([c.time for c in chunks]), whole.time)
        assert {c.length_unit for c in chunks} == {whole.length_unit}


def test_a_stream_says_what_it_is(run):
    stream = pv.stream(run[0] / "part*.xtc")
    assert repr(stream) == "<Stream: 700 frames from 2 files>"
    with pytest.raises(TypeError, match="colour"):
        pv.stream(run[0] / "part1.xtc", colour="red")


def test_transform_and_as_trajectory(run, cv):
    stream = pv.stream(run[0] / "part*.npz", chunk_bytes=12 * 12 * 100)
    np.testing.assert_array_equal(cv.transform(stream), cv.transform(run[1]))
    np.testing.assert_array_equal(pv.as_trajectory(stream).positions, run[1].positions)


def test_project_of_no_frames(cv, tmp_path):
    with pytest.raises(pv.InputError, match="the stream holds no frames"):
        pv.project(cv, pv.Stream(lambda: iter(()), 0), tmp_path / "COLVAR")
    assert not (tmp_path / "COLVAR").exists()


@pytest.mark.parametrize("name", ["COLVAR", "z.csv", "z.npz"])
def test_project(run, cv, name, tmp_path):
    stream = pv.stream(run[0] / "part*.npz", chunk_bytes=12 * 12 * 100)
    counted = []
    columns = {"rg": pv.radius_of_gyration}
    assert pv.project(cv, stream, tmp_path / name, columns=columns, progress=counted.append) == 700
    assert sum(counted) == 700
    assert len(counted) > 2
    rg = np.sqrt(((run[1].positions - run[1].positions.mean(1, keepdims=True)) ** 2).sum(2).mean(1))
    if name == "z.npz":
        with np.load(tmp_path / name) as file:
            z, time, found = file["z"], file["time"], file["rg"]
    else:
        skip, delimiter = (1, ",") if name == "z.csv" else (0, None)
        table = np.loadtxt(tmp_path / name, delimiter=delimiter, skiprows=skip)
        time, z, found = table[:, 0], table[:, 1:3].astype(np.float32), table[:, 3]
    np.testing.assert_array_equal(z, cv.transform(run[1]))
    np.testing.assert_array_equal(time, run[1].time)
    np.testing.assert_allclose(found, rg, rtol=1e-5)


def test_project_molecules_frame_by_frame(tmp_path):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 8, 3)).astype(np.float32)
    bonds = np.array([[0, 2], [2, 4], [4, 6], [1, 3], [3, 5], [5, 7]])
    np.savez(tmp_path / "a.npz", positions=x, bonds=bonds, time=np.arange(50.0))
    cv = untrained(pv.read(tmp_path / "a.npz", per_molecule=True))
    stream = pv.stream(tmp_path / "a.npz", per_molecule=True, chunk_bytes=12 * 8 * 7)
    pv.project(cv, stream, tmp_path / "COLVAR")
    assert (tmp_path / "COLVAR").read_text().startswith("#! FIELDS time z0 z1 molecule\n")
    table = np.loadtxt(tmp_path / "COLVAR")
    np.testing.assert_array_equal(table[:, 0], np.repeat(np.arange(50), 2))
    np.testing.assert_array_equal(table[:, 3], np.tile([0, 1], 50))
    np.testing.assert_array_equal(table[1::2, 1:3].astype(np.float32), cv.transform(x[:, 1::2]))


def test_a_failed_projection_leaves_the_old_file(run, cv, tmp_path):
    (tmp_path / "COLVAR").write_text("old")
    bad = run[1].positions.copy()
    bad[500, 3] = np.nan
    np.savez(tmp_path / "bad.npz", positions=bad)
    with pytest.raises(pv.InputError, match="frame 500, bead 3"):
        pv.project(
            cv, pv.stream(tmp_path / "bad.npz", chunk_bytes=12 * 12 * 100, length_unit="nm"), tmp_path / "COLVAR"
        )
    assert (tmp_path / "COLVAR").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["COLVAR", "bad.npz"]


@pytest.mark.long
def test_score_in_chunks(run, cv, monkeypatch):
    generated = pv.sample(cv, 100)
    stream = pv.stream(run[0] / "part*.npz", chunk_bytes=12 * 12 * 90)
    # The same frames in memory, broken where the stream is.
    traj = dataclasses.replace(run[1], segments=pv.as_trajectory(stream).segments)
    whole = pv.score(cv, traj, generated=generated).to_dict()
    chunked = pv.score(cv, stream, generated=generated).to_dict()

    def close(a, b):
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            for key in a:
                close(a[key], b[key])
        elif isinstance(a, (float, list)):
            np.testing.assert_allclose(np.array(a, float), np.array(b, float), rtol=1e-9, atol=1e-12)
        else:
            assert a == b

    everything = whole["frames"]["all"]
    # Jumps need neighbouring frames: not of a stream.
    assert whole.pop("alignment")["n_steps"] == everything.pop("n_steps") == 700 - len(traj.segments)
    everything.pop("n_jumps")
    close(chunked, whole)
    monkeypatch.setattr(sys.modules["polyvae.tasks.scoring"], "MAX_SAMPLED", 100)
    sampled = pv.score(cv, stream, generated=generated).to_dict()
    sampling = {"iw_bound", "gradient_mean", "gradient_max", "n_costly"}
    assert sampled["frames"]["all"]["n_costly"] == 88  # 700 / 8, one frame in 2^3
    for key in everything.keys() - sampling:
        close(sampled["frames"]["all"][key], everything[key])
    assert sampled["generated"] != whole["generated"]
    # The frames that stand for all are the same in memory.
    monkeypatch.setattr(sys.modules["polyvae.tasks.scoring"], "MAX_COSTLY", 88)
    few = pv.score(cv, traj, alternatives=False)["frames"]["all"]
    for key in sampling:
        close(sampled["frames"]["all"][key], few[key])


def test_scores_are_what_they_say(run, cv):
    found = pv.score(cv, run[1])["frames"]["all"]
    z, std = cv.transform_posterior(run[1])
    np.testing.assert_allclose(found["latent_mean"], z.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["latent_std"], z.std(0), rtol=1e-4)
    np.testing.assert_allclose(found["aggregated_std"], np.sqrt(z.var(0) + (std**2).mean(0)), rtol=1e-4)
    rg = np.sqrt(((run[1].positions - run[1].positions.mean(1, keepdims=True)) ** 2).sum(2).mean(1))
    np.testing.assert_allclose(
        found["correlation_rg"], [np.corrcoef(a, rg)[0, 1] for a in z.T], rtol=1e-3, atol=1e-5
    )

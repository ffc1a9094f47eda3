"""Tables of many files are those of each, whoever makes them; what fails stops nothing, what is done stays."""

import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from clusters import small_cluster
from conftest import arrays, ideal_chains
from models import untrained

import polyvae as pv
from polyvae import cluster
from polyvae.app import cli
from polyvae.app.project import print_tables
from polyvae.errors import FrameError
from polyvae.files import locked
from polyvae.tasks.tables import DONE, Tables, identity

COLUMNS = {"rg": pv.radius_of_gyration}


@pytest.fixture(scope="module")
def client():
    with small_cluster() as client:
        yield client


@pytest.fixture(scope="module")
def cv():
    return untrained(pv.Trajectory(ideal_chains(100, 10, 3), length_unit="nm"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs of one name in two folders, a long one in two formats, and three that cannot be used."""
    folder = tmp_path_factory.mktemp("runs")
    x = ideal_chains(9000, 10, 3)
    traj = pv.Trajectory(x, length_unit="nm", time=0.5 * np.arange(9000))
    for k, name in enumerate(("a", "b")):
        (folder / name).mkdir()
        for n in (3, 7):
            pv.write(folder / name / f"run{n}.xtc", traj[100 * k + n : 100 * k + 100])
    pv.write(folder / "long.xtc", traj)
    pv.write(folder / "long.npz", traj)
    (folder / "a" / "cut.xtc").write_bytes((folder / "a" / "run3.xtc").read_bytes()[:-40])
    pv.write(folder / "b" / "other.xtc", traj[:5].positions[:, :6])
    return folder


GOOD = ["a/run3.xtc", "a/run7.xtc", "b/run3.xtc", "b/run7.xtc", "long.npz", "long.xtc"]


def files(folder):
    return [folder / "[ab]" / "*.xtc", folder / "long.npz", folder / "long.xtc", folder / "none.xtc"]


def made(out):
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["COLVAR", "npz"])
def test_a_cluster_makes_the_tables_of_each(folder, cv, client, tmp_path, kind):
    options = {"columns": COLUMNS, "kind": kind, "task_bytes": 300_000}
    here = pv.transform_many(files(folder), cv, tmp_path / "here", **options)
    there = pv.transform_many(files(folder), cv, tmp_path / "there", client=client, **options)
    for result, out in ((here, "here"), (there, "there")):
        assert made(tmp_path / out) == sorted([DONE, *(f"{name}.{kind}" for name in GOOD)])
        assert result.n_frames == 2 * (97 + 93) + 18000
        assert result.tables == {str(folder / n): str(tmp_path / out / f"{n}.{kind}") for n in GOOD}
        assert not result.skipped
    assert here.failed == there.failed
    assert list(here.failed) == [str(folder / name) for name in ("a/cut.xtc", "b/other.xtc", "none.xtc")]
    words = ("damaged in frame 96", "takes 10 beads", "no such file")
    for word, why in zip(words, here.failed.values(), strict=True):
        assert word in why
        assert "\n" not in why
    for name in GOOD:
        alone = tmp_path / f"alone.{kind}"
        pv.project(cv, pv.stream(folder / name, length_unit="nm"), alone, columns=COLUMNS)
        for out in ("here", "there"):
            assert (tmp_path / out / f"{name}.{kind}").read_bytes() == alone.read_bytes()


def test_what_is_whole_is_not_done_again(folder, cv, client, tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    runs.mkdir()
    for name in ("a/run3.xtc", "b/run3.xtc", "a/run7.xtc"):
        (runs / name.replace("/", "")).write_bytes((folder / name).read_bytes())
    names = [runs / "*.xtc"]
    out = tmp_path / "out"
    first = pv.transform_many(names, cv, out)
    stamps = {name: (out / name).stat().st_mtime_ns for name in made(out)}
    again = pv.transform_many(names, cv, out, client=client)
    assert (again.tables, again.n_frames, len(again.skipped)) == (first.tables, first.n_frames, 3)
    assert {name: (out / name).stat().st_mtime_ns for name in made(out)} == stamps

    (runs / "arun3.xtc").write_bytes((folder / "b" / "run7.xtc").read_bytes())  # another run
    (out / "brun3.xtc.COLVAR").unlink()
    with (out / "arun7.xtc.COLVAR").open("r+b") as file:
        file.truncate(100)
    with (out / DONE).open("a") as file:
        file.write('{"table": "arun7.xtc.COLV')  # the job was killed here
    third = pv.transform_many(names, cv, out, client=client)
    assert not third.skipped
    assert (out / "arun7.xtc.COLVAR").stat().st_mtime_ns > stamps["arun7.xtc.COLVAR"]
    assert third.n_frames == 93 + 97 + 93
    assert len(pv.transform_many(names, cv, out).skipped) == 3


def test_tables_of_another_model_are_not_mixed_with_these(folder, cv, tmp_path):
    other = untrained(pv.Trajectory(ideal_chains(100, 10, 3), length_unit="nm"), seed=1)
    assert identity(cv) != identity(other)
    names = folder / "a" / "run3.xtc"
    pv.transform_many(names, cv, tmp_path / "out")
    for model, options in ((other, {}), (cv, {"step": 2}), (cv, {"columns": COLUMNS})):
        with pytest.raises(pv.InputError, match="tables of another model.*--force"):
            pv.transform_many(names, model, tmp_path / "out", **options)
    pv.transform_many(names, other, tmp_path / "out", force=True)
    assert len(pv.transform_many(names, other, tmp_path / "out").skipped) == 1
    with pytest.raises(pv.InputError, match="holds files already"):
        pv.transform_many(names, cv, folder)
    cv.save(tmp_path / "m.safetensors")
    assert identity(pv.load(tmp_path / "m.safetensors")) == identity(cv)


def test_a_stream_read_by_others_is_the_one_read_here(folder, cv, client, tmp_path):
    paths = [folder / "long.xtc", folder / "a" / "run3.xtc"]
    there, here = (pv.stream(paths, chunk_bytes=4096 * 120, client=c) for c in (client, None))
    for _ in range(2):
        for one, other in zip(there, here, strict=True):
            for field in ("positions", "time"):
                np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
            assert (one.segments, one.continues) == (other.segments, other.continues)
    for name, stream in (("there", there), ("here", here)):
        assert pv.project(cv, stream, tmp_path / name, columns=COLUMNS) == 9097
    assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()
    with pytest.raises(pv.InputError, match="takes 10 beads"):
        pv.project(cv, pv.stream(folder / "b" / "other.xtc", client=client), tmp_path / "bad")


def test_what_kills_its_workers_is_told(client):
    """As a file does that the decoder cannot stand; here the error that Dask gives then."""
    from distributed.scheduler import KilledWorker

    def fail(k):
        raise [FrameError("frame 3", 3), OSError(28, "No space left on device", "z"), ZeroDivisionError("no")][k]

    told = dict(cluster.outcomes(client, lambda call, k: call(fail, k), range(3)))
    assert {k: str(why) for k, why in told.items()} == {
        0: "frame 3",
        1: "z: No space left on device",
        2: "ZeroDivisionError: no",
    }
    assert str(cluster._describe(KilledWorker("x", None, 3))).startswith("4 workers died at it one after another")


def test_on_the_command_line(folder, cv, tmp_path, capfd, monkeypatch):
    cv.save(tmp_path / "m.safetensors")
    monkeypatch.setattr(sys, "argv", ["polyvae"])

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main(["project", str(tmp_path / "m.safetensors"), *map(str, words)])
        return ended.value.code, *capfd.readouterr()

    out = tmp_path / "out"
    code, text, errors = run(folder / "a" / "*.xtc", "--each", "--kind", "npz", "--add", "rg", "--out", out)
    assert (code, text) == (1, f"2 latents of 190 frames in 2 tables in {out}\n")
    bad, last = errors.splitlines()
    assert bad.startswith(f"polyvae: error: {folder}/a/cut.xtc is cut off or damaged")
    assert last == "polyvae: error: 1 of 3 files have no table; mend them, and do the same again"
    assert sorted(arrays(out / "run3.xtc.npz")) == ["rg", "time", "z"]
    code, text, _ = run(folder / "a" / "run*.xtc", "--each", "--kind", "npz", "--add", "rg", "--out", out)
    assert (code, text) == (0, f"2 latents of 190 frames in 2 tables in {out}, 2 of them there before\n")
    code, _, errors = run("x.xtc", "--scheduler", "tcp://here:1", "--workers", "2")
    assert (code, "a scheduler has workers of its own; give one of the two, not both" in errors) == (2, True)
    code, _, errors = run(folder / "a" / "run3.xtc", "--kind", "npz", "--out", tmp_path / "no")
    assert (code, "end --out in .csv or .npz" in errors, (tmp_path / "no").exists()) == (2, True, False)
    monkeypatch.setattr(cluster, "_CONNECTING", 0.3)
    code, _, errors = run(folder / "long.xtc", "--scheduler", "tcp://127.0.0.1:9", "--out", tmp_path / "z")
    assert code == 1
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in errors
    assert "Traceback" not in errors


@pytest.mark.long
def test_a_worker_is_killed_half_way(cv, tmp_path):
    """Four workers, 200 files, one of them cut off: all others are what one process makes of them."""
    x = ideal_chains(4000, 10, 3)
    runs = tmp_path / "runs"
    for k in range(200):
        (runs / f"{k % 10}").mkdir(parents=True, exist_ok=True)
        traj = pv.Trajectory(x[10 * k : 10 * k + 2000], length_unit="nm")
        pv.write(runs / f"{k % 10}" / f"run{k // 10}.xtc", traj)
    bad = runs / "7" / "run11.xtc"
    bad.write_bytes(bad.read_bytes()[:-40])
    here = pv.transform_many(runs / "*" / "*.xtc", cv, tmp_path / "here")
    killed = []
    with cluster.connected(workers=4) as client:
        pids = client.run(os.getpid)

        def kill(done, total):
            if done > 80 and not killed:
                killed.append(next(iter(pids.values())))
                os.kill(killed[0], signal.SIGKILL)

        there = pv.transform_many(runs / "*" / "*.xtc", cv, tmp_path / "there", client=client, progress=kill)
        assert killed[0] not in client.run(os.getpid).values()
    assert here.failed == there.failed
    assert list(there.failed) == [str(bad)]
    assert len(there.tables) == 199
    assert made(tmp_path / "here") == made(tmp_path / "there")  # and nothing half-written
    for name in made(tmp_path / "here"):
        if name != DONE:
            assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    entries = [json.loads(line) for line in (tmp_path / "there" / DONE).read_text().splitlines()[1:]]
    assert len({entry["table"] for entry in entries}) == 199


def test_a_file_keeps_its_table_and_no_other_takes_it(folder, cv, tmp_path):
    """Called again with fewer files, with more, and with another one of the same name."""
    out = tmp_path / "out"
    first = pv.transform_many([folder / "[ab]" / "run*.xtc"], cv, out)
    fewer = pv.transform_many([folder / "a" / "run3.xtc"], cv, out)
    assert fewer.skipped == (str(folder / "a" / "run3.xtc"),)
    assert fewer.tables[str(folder / "a" / "run3.xtc")] == first.tables[str(folder / "a" / "run3.xtc")]
    more = pv.transform_many([folder / "[ab]" / "run*.xtc", folder / "long.xtc"], cv, out)
    assert len(more.skipped) == 4
    assert sorted(more.tables) == sorted(str(folder / name) for name in GOOD if name != "long.npz")
    assert len(made(out)) == 1 + 5

    alone = tmp_path / "alone"
    pv.transform_many(folder / "a" / "run3.xtc", cv, alone)
    before = (alone / "run3.xtc.COLVAR").read_bytes()
    with pytest.raises(pv.InputError, match="is the table of .*a/run3.xtc, and would be that of .*b/run3.xtc"):
        pv.transform_many(folder / "b" / "run3.xtc", cv, alone)
    assert (alone / "run3.xtc.COLVAR").read_bytes() == before
    both = pv.transform_many(
        [folder / "a" / "run3.xtc", folder / "b" / "run7.xtc"], cv, alone
    )  # of a wider folder
    assert both.skipped == (str(folder / "a" / "run3.xtc"),)
    assert made(alone) == ["b/run7.xtc.COLVAR", "run3.xtc.COLVAR", DONE]


def test_columns_of_one_name_and_other_code_are_not_mixed(folder, cv, tmp_path):
    def one(value):
        return {"q": lambda x: value * x[0, 0]} if value == 1 else {"q": lambda x: x[0, 0] + x[1, 0]}

    name = folder / "a" / "run3.xtc"
    pv.transform_many(name, cv, tmp_path / "out", columns=one(1))
    assert len(pv.transform_many(name, cv, tmp_path / "out", columns=one(1)).skipped) == 1
    with pytest.raises(pv.InputError, match="--force"):
        pv.transform_many(name, cv, tmp_path / "out", columns=one(2))


def test_two_jobs_in_one_folder(folder, cv, tmp_path):
    """The second one is refused while the first one writes, and what is there stays listed."""
    name, out = folder / "a" / "run3.xtc", tmp_path / "out"
    pv.transform_many(name, cv, out)
    refused = pytest.raises(pv.InputError, match="another job writes there")
    with locked(out), ThreadPoolExecutor(1) as other, refused:
        other.submit(pv.transform_many, name, cv, out, force=True).result()
    assert len(pv.transform_many(name, cv, out).skipped) == 1


@pytest.mark.parametrize("lost_at", [(1,), (3, 20), (1, 2, 3)])
def test_a_lost_connection_is_made_again_and_nothing_is_done_by_halves(lost_at):
    """Also where the value that all tasks share went with it; few items are under way at a time."""
    distributed = pytest.importorskip("distributed", reason="pip install 'polyvae[dask]'")
    given = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "protocol": "tcp://"}
    taken, done = [], {}

    def items():
        for k in range(30):
            taken.append(k)
            yield k

    with distributed.LocalCluster(dashboard_address=":0", **given) as own, distributed.Client(own) as client:
        value = cluster.shared(client, 100)

        def work(call, k):
            return call(sum, [call(_slowly, k), call(_slowly, k)]) if k % 7 == 0 else call(_added, k, value)

        for k, result in cluster.outcomes(client, work, items()):
            assert k not in done
            done[k] = result
            assert len(taken) - len(done) <= 6
            if len(done) in lost_at:
                client.loop.add_callback(client.scheduler_comm.comm.abort)
        assert done == {k: 2 * k if k % 7 == 0 else 100 + k for k in range(30)}
        client.loop.add_callback(client.scheduler_comm.comm.abort)
        assert list(cluster.in_order(client, _added, range(20), value)) == list(range(100, 120))


def _slowly(k):
    time.sleep(0.02)
    return k


def _added(k, value):
    return _slowly(k) + value


def test_a_scheduler_that_is_gone_is_one_line(monkeypatch):
    distributed = pytest.importorskip("distributed", reason="pip install 'polyvae[dask]'")
    monkeypatch.setattr(cluster, "_CONNECTING", 1.0)
    given = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "protocol": "tcp://"}
    with distributed.LocalCluster(dashboard_address=":0", **given) as own:
        client = distributed.Client(own.scheduler_address, timeout=1)
        found = cluster.outcomes(client, lambda call, k: call(_slowly, k), range(1000))
        next(found)
        own.close()
        with pytest.raises(pv.InputError, match="the connection to the Dask scheduler was lost"):
            list(found)
        client.close()


def test_many_files_that_fail_are_ten_lines_and_a_list(tmp_path, capsys):
    failed = {f"run{k}.xtc": f"run{k}.xtc is cut off" for k in range(2000)}
    with pytest.raises(pv.InputError, match="2000 of 2001 files have no table"):
        print_tables(Tables({"a.xtc": "a.xtc.COLVAR"}, 9, (), failed), 2, tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[-1] == f"polyvae: error: and 1,990 more; all are in {tmp_path / 'failed.txt'}"
    assert (tmp_path / "failed.txt").read_text().splitlines() == list(failed.values())
    print_tables(Tables({"a.xtc": "a.xtc.COLVAR"}, 9, (), {}), 2, tmp_path)
    assert not (tmp_path / "failed.txt").exists()


def test_what_is_wrong_for_all_files_is_told_once(folder, cv, tmp_path):
    pv.transform_many(folder / "a" / "run3.xtc", cv, tmp_path / "out")
    listed = (tmp_path / "out" / DONE).read_text()
    with pytest.raises(FileNotFoundError, match="none.pdb"):
        pv.transform_many(folder / "a" / "run3.xtc", cv, tmp_path / "out", topology="none.pdb", force=True)
    assert (tmp_path / "out" / DONE).read_text() == listed

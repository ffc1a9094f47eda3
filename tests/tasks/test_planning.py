"""A plan counts what there is, and says seconds that add up."""

import json

import numpy as np
import pytest
from conftest import ideal_chains

import polyvae as pv
from polyvae.app import cli
from polyvae.tasks import planning

WORK = {"encode": 4.0, "write": 3.0, "prepare": 2.0, "train": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    x = ideal_chains(900, 14, 3)
    names = ["W"] * 4 + ["B"] * 10
    for k in range(3):
        pv.write(folder / f"{k}.xtc", pv.Trajectory(x[: 300 * (k + 1)], length_unit="nm", names=names))
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Nothing is trained."""
    monkeypatch.setattr(planning, "_work", lambda sample, n_frames: dict(WORK))
    monkeypatch.setattr(planning, "cores", lambda: 4)


def test_it_counts(folder, quick):
    options = {"topology": folder / "0.pdb", "select": "name B", "length_unit": "nm", "step": 2}
    found = pv.plan(folder / "*.xtc", **options)
    assert (found.n_files, found.n_frames, found.counted) == (3, 900, True)
    assert (found.n_atoms, found.n_beads, found.n_dims, found.length_unit) == (14, 10, 3, "nm")
    assert found.memory == pv.read(sorted(folder.glob("*.xtc")), **options).positions.nbytes
    assert found.file_bytes == sum(path.stat().st_size for path in folder.glob("*.xtc"))
    assert found.n_tasks == 3
    assert found.sample == 150
    assert "3 files" in found.lines()[0]
    assert "900 frames of 10 beads of 14 atoms in 3-D (nm)" in found.lines()[0]
    assert {name: found.seconds[name] for name in WORK} == WORK
    own = found.seconds
    assert found.project_seconds == pytest.approx(own["open"] + own["read"] + 7)
    assert found.fit_seconds == pytest.approx(own["open"] + own["read"] + 3)


def test_of_very_many_files_some_are_opened(folder, quick, monkeypatch):
    """Frames of the others follow from their sizes."""
    monkeypatch.setattr(planning, "_OPENED", (folder / "0.xtc").stat().st_size + 1)
    found = pv.plan(sorted(folder.glob("*.xtc")), length_unit="nm")
    assert not found.counted
    assert found.n_frames == pytest.approx(1800, rel=0.01)
    assert f"about {found.n_frames:,} frames" in found.lines()[0]


def test_files_that_cannot_be_opened_are_left_out_and_told(folder, quick, tmp_path):
    whole = (folder / "0.xtc").read_bytes()
    for name, content in {"a": whole[:-40], "b": b"", "c": whole, "e": whole}.items():
        (tmp_path / f"{name}.xtc").write_bytes(content)
    pv.write(tmp_path / "d.xtc", pv.Trajectory(ideal_chains(5, 6, 3), length_unit="nm"))
    found = pv.plan([tmp_path / "none.xtc", tmp_path / "*.xtc"], length_unit="nm")
    assert (found.n_files, found.n_frames, found.file_bytes) == (2, 600, 2 * len(whole))
    assert [path.rpartition("/")[2] for path in found.left_out] == ["none.xtc", "b.xtc", "a.xtc", "d.xtc"]
    assert found.lines()[-1].startswith("without  4 files that cannot be opened, such as: ")
    assert "none.xtc: no such file" in found.lines()[-1]
    with pytest.raises(pv.InputError, match=r"b\.xtc is empty"):
        pv.plan([tmp_path / "b.xtc", tmp_path / "none.xtc"])
    with pytest.raises(pv.InputError, match=r"a\.xtc is cut off"):
        pv.plan(tmp_path / "a.xtc", length_unit="nm")


def test_memory_of_fit_is_about_what_was_measured():
    """1.25 GB of 10^6 frames of 36 numbers (docs/howto/devices.md); of more, a file takes over."""
    assert planning._fit_memory(4 * 36 * 10**6) == pytest.approx(1.25e9, rel=0.05)
    assert planning._fit_memory(10**12) < planning._fit_memory(planning.IN_MEMORY)


def test_workers_share_tasks_and_start_first():
    took = {"open": 1.0, "read": 70.0, "write": 9.0, "encode": 5.0}
    start = planning.STARTING
    cores = planning.cores()
    assert planning._shared(took, 10, 1000) == pytest.approx(start + (80 + 5 * cores) / 10)
    assert planning._shared(took, 3, 4) == pytest.approx(
        start + (80 + 5 * cores) / 2
    )  # two rounds, the second of one
    assert planning._numbers_of_workers(1) == []
    assert all(1 < n <= 64 for n in planning._numbers_of_workers(64))


def test_on_the_command_line(folder, quick, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan", str(folder / "*.xtc"), "--unit", "nm", "--out", str(tmp_path / "plan.json")])
    assert ended.value.code == 0
    said = capsys.readouterr().out.splitlines()
    values = json.loads((tmp_path / "plan.json").read_text())
    assert said[0].startswith("3 files")
    assert [line.split()[0] for line in said[1:]] == ["memory", "project", "fit", "workers", "measured"]
    assert values["n_frames"] == 1800
    assert values["seconds"]["train"] == WORK["train"]


def test_too_few_frames_need_no_plan(folder, quick):
    with pytest.raises(pv.InputError, match="at least 50 frames to measure; got 10"):
        pv.plan(folder / "0.xtc", stop=10, length_unit="nm")
    with pytest.raises(TypeError, match="colour"):
        pv.plan(folder / "0.xtc", colour="red")


@pytest.mark.long
def test_what_it_measures_is_there():
    sample = pv.Trajectory(ideal_chains(2000, 6, 2))
    took = planning._work(sample, 20_000)
    assert set(took) == set(WORK)
    assert all(np.isfinite(value) and value > 0 for value in took.values())

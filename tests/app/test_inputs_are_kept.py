"""No verb writes over a file that it reads, with --force neither, whichever option names the file."""

import contextlib
import shutil
import threading

import numpy as np
import pytest
from models import untrained

import polyvae as pv
from polyvae import files
from polyvae.app import cli
from polyvae.app.options import files_named
from polyvae.export import export_files


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A model, a run, its topology, weights and a table, to copy."""
    folder = tmp_path_factory.mktemp("inputs")
    x = np.random.default_rng(0).normal(size=(60, 4, 3))
    traj = pv.Trajectory(x, length_unit="nm", names="ABCD")
    untrained(traj, featurizer=pv.Reference()).save(folder / "model.safetensors")
    pv.write(folder / "run.xtc", traj)  # and run.pdb
    np.savetxt(folder / "w.txt", np.ones(60))
    pv.write_colvar(folder / "COLVAR", x[:, 0, :1], time=np.arange(60.0))
    return folder


@pytest.fixture
def place(there, tmp_path, monkeypatch):
    for file in there.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ends(*words) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(words))
    return ended.value.code


RUN = ["run.xtc", "--top", "run.pdb"]


@pytest.mark.parametrize(
    ("words", "lost"),
    [
        (["score", "model.safetensors", *RUN, "--weights", "w.txt", "--out", "w.txt"], "w.txt"),
        (["score", "model.safetensors", *RUN, "--out", "run.pdb"], "run.pdb"),
        (["score", "model.safetensors", *RUN, "--out", "model.safetensors"], "model.safetensors"),
        (["optimize", "model.safetensors", *RUN, "--weights", "w.pdb", "--out", "w.pdb"], "w.pdb"),
        (["project", "model.safetensors", "run", "--format", "XTC", "--out", "run"], "run"),
        (["generate", "model.safetensors", "--data", "run.xtc", "--top", "run.pdb", "--out", "run.xtc"],
         "run.xtc"),
        (["movie", "model.safetensors", *RUN, "--weights", "w.gif", "--out", "w.gif"], "w.gif"),
        (["fit", *RUN, "--weights", "w.safetensors", "--out", "w.safetensors"], "w.safetensors"),
        (["fit", *RUN, "--weights", "m.safetensors.unfinished", "--out", "m.safetensors"],
         "m.safetensors.unfinished"),
        (["run", "latent.npz", "--observable", "scores.json:z", "--out", "."], "latent.npz"),
        (["sweep", *RUN, "--weights", "models.csv", "--out", "."], "models.csv"),
        (["fes", "fes.csv", "--cv", "z0", "--temperature", "300", "--out", "."], "fes.csv"),
        (["export", "model.safetensors", "--to", "openmm", "--latents", "0", "--out", "."], "model.safetensors"),
        (["export", "model.safetensors", "--to", "lammps", "--out", "."], "model.safetensors"),
    ],
)  # fmt: skip
def test_an_input_is_never_written_over(words, lost, place, capfd):
    if not (place / lost).exists():  # named as a result, and what the verb reads under that name
        kind = {"fes.csv": "COLVAR", "latent.npz": "run.xtc", "run": "run.xtc"}.get(lost, "w.txt")
        shutil.copy(place / kind, place / lost)
    before = (place / lost).read_bytes()
    assert ends(*words, "--force") in (1, 2)
    error = capfd.readouterr().err
    assert "is an input here" in error, error
    assert "would be lost" in error
    assert (place / lost).read_bytes() == before


def test_also_through_a_link_and_by_a_pattern(place, capfd):
    (place / "link.json").symlink_to("w.txt")
    assert ends("score", "model.safetensors", *RUN, "--weights", "w.txt", "--out", "link.json", "--force") == 1
    assert ends("score", "model.safetensors", "r*.xtc", "--top", "run.pdb", "--out", "run.xtc", "--force") == 1
    assert capfd.readouterr().err.count("would be lost") == 2


def test_tables_of_each_file_are_written_over_no_file(place, capfd):
    """The table of `run` is `run.npz`, which is the next file."""
    x = np.random.default_rng(1).normal(size=(9, 4, 3))
    np.savez(place / "run.npz", positions=x, length_unit="nm")
    shutil.copy(place / "run.npz", place / "run")
    before = (place / "run.npz").read_bytes()
    words = [
        "project",
        "model.safetensors",
        "run",
        "run.npz",
        "--format",
        "NPZ",
        "--each",
        "--kind",
        "npz",
        "--out",
    ]
    assert ends(*words, ".", "--force") == 1
    assert "would be lost" in capfd.readouterr().err
    assert (place / "run.npz").read_bytes() == before


def test_files_are_found_in_every_kind_of_option(place):
    values = [
        place / "w.txt",
        [place / "run.xtc", "none"],
        "model.safetensors",
        "w.txt:z",
        "z=w.txt",
        3,
        None,
        "x" * 5000,
    ]
    names = {str(name).rpartition("/")[2] for name in files_named(values)}
    assert names == {"w.txt", "run.xtc", "model.safetensors"}


def test_the_model_itself_is_kept_by_an_export_of_a_part_of_it(place):
    given = {"atoms": "1-4", "data": None, "check": None, "reading": {"topology": None, "select": None}}
    whole = (place / "model.safetensors").read_bytes()
    for to in ("openmm", "lammps"):
        with pytest.raises(pv.InputError, match="an input here, the whole model, and would be lost"):
            export_files(pv.load(place / "model.safetensors"), place, to=to, latents="1", force=True, **given)
    assert (place / "model.safetensors").read_bytes() == whole
    export_files(pv.load("model.safetensors"), place / "out", to="lammps", latents="1", force=True, **given)
    export_files(pv.load("model.safetensors"), place / "out", to="lammps", latents="0", force=True, **given)


@pytest.mark.parametrize("missing", ["run.xtc", "run.pdb", "w.txt"])
def test_an_unfinished_run_is_kept_where_an_input_is_missing(missing, place, capfd):
    (place / "new.safetensors.unfinished").write_text("an hour of work")
    (place / missing).unlink()
    assert ends("fit", *RUN, "--weights", "w.txt", "--out", "new.safetensors", "--force") in (1, 2)
    assert missing in capfd.readouterr().err
    assert (place / "new.safetensors.unfinished").read_text() == "an hour of work"


@pytest.mark.parametrize("name", ["table", "folder"])
def test_a_lock_keeps_others_away_and_says_who_holds_it(tmp_path, name):
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    said, done = [], threading.Event()

    def other():
        with contextlib.suppress(pv.InputError), files.locked(path):
            said.append("entered")

    with files.locked(path), files.locked(path):  # one thread may lock twice
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert not said
        with pytest.raises(
            pv.InputError, match=r"another job writes there \(process \d+ on .*If that process is dead"
        ):
            in_a_thread(lambda: files.locked(path).__enter__())
    other()
    assert said == ["entered"]
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    done.set()


def in_a_thread(work):
    """The result of work in another thread, or its error."""
    found = []

    def run():
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


@pytest.mark.parametrize("left", ["", "elsewhere 1", "{here} 999999999", "{here} {me}"])
def test_a_lock_of_a_dead_process_is_taken_over(tmp_path, monkeypatch, left):
    """By the system's lock; where the file system has none, by what the file says."""
    import fcntl
    import os
    import socket

    said = left.format(here=socket.gethostname(), me=os.getpid())
    (tmp_path / ".lock").write_text(said)
    with files.locked(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{socket.gethostname()} {os.getpid()}\n"
    (tmp_path / ".lock").write_text(said)

    def none(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    if left in ("elsewhere 1", "{here} {me}"):  # which may be alive
        with (
            pytest.raises(pv.InputError, match=r"If that process is dead, remove .*\.lock"),
            files.locked(tmp_path),
        ):
            pass
    else:
        with files.locked(tmp_path):
            pass


def test_two_jobs_of_one_output(place, capfd):
    """The second is refused while the first holds the place, and nothing is half written."""
    for words, out in (
        (["project", "model.safetensors", *RUN, "--out", "TABLE"], "TABLE"),
        (["fit", *RUN, "--out", "new.safetensors"], "new.safetensors"),
        (["sweep", *RUN, "--out", "swept"], "swept"),
        (["export", "model.safetensors", "--to", "plumed", "--out", "plumed"], "plumed"),
    ):
        with files.locked(place / out):
            code = in_a_thread(lambda words=words: ends(*words))
        assert code == 1, words
        assert "another job writes there" in capfd.readouterr().err
        assert not (place / out).exists()

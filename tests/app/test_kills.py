"""Processes that are killed: inputs stay, results are whole or absent, and the same call works afterwards."""

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from engines import lammps_input, require

import polyvae as pv
from polyvae import files
from polyvae.io import processes

N = 5
SMALL = ["--epochs", "4", "--encoder", "8", "--decoder", "8"]
VERBS = {
    "fit": ["fit", "run.npz", "--out", "m.safetensors", *SMALL],
    "run": ["run", "run.npz", "--quick", "--no-generator", "--out", "out", *SMALL],
    "project": ["project", "model.safetensors", "run.npz", "--out", "z.csv"],
    "each": ["project", "model.safetensors", "part*.npz", "--each", "--out", "tables"],
    "fes": ["fes", "COLVAR", "--cv", "z0", "--out", "fes"],
    "sweep": ["sweep", "run.npz", "--latent-dim", "1", "--beta", "1", "--seeds", "2", "--out", "sweep", *SMALL],
    "export": ["export", "model.safetensors", "--to", "plumed", "--out", "plumed"],
    "generate": ["generate", "model.safetensors", "-n", "500", "--out", "gen.xtc"],
    "adapt": ["adapt", "run.npz", "--lammps", "in.lammps", "--steps", "2000", "--stride", "20", "--free-runs", "2",
              "--free-steps", "2000", "--temperature", "1.0", "--rounds", "1", "--out", "rounds", *SMALL],
}  # fmt: skip
STEPWISE = ("fit", "each", "adapt")  # what is there of them is continued


def start(words, folder):
    path = os.pathsep.join([str(Path(pv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = [sys.executable, "-m", "polyvae", *words]
    return subprocess.Popen(
        words, cwd=folder, env=os.environ | {"PYTHONPATH": path}, start_new_session=True, **quiet
    )


def visible(folder):
    """The files in a folder that are no hidden ones, by name, with their bytes."""
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {str(k): path.read_bytes() for k, path in found.items() if not any(p[0] == "." for p in k.parts)}


def left_of(folder):
    """Processes that work in a folder, or below it."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if place.readlink().is_relative_to(folder):
                found.append(place.parent.name)
        except OSError:  # it has ended
            continue
    return found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with what the verbs read."""
    inputs = tmp_path_factory.mktemp("inputs")
    steps = np.random.default_rng(0).normal(size=(600, N, 3))
    steps /= np.linalg.norm(steps, axis=2, keepdims=True)
    bonds = np.stack([np.arange(N - 1), np.arange(1, N)], axis=1)
    traj = pv.Trajectory(np.cumsum(steps, axis=1), length_unit="sigma", bonds=bonds)
    pv.write(inputs / "run.npz", traj)
    for k in range(12):
        pv.write(inputs / f"part{k}.npz", traj[50 * k : 50 * k + 50])
    (inputs / "in.lammps").write_text(lammps_input(N))
    cv = pv.fit(traj, latent_dim=1, epochs=2, encoder=(8,), decoder=(8,))
    cv.save(inputs / "model.safetensors")
    pv.project(cv, traj, inputs / "COLVAR")
    return inputs


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    """The inputs; and the results of a verb that nobody disturbs, with the seconds that it takes."""
    done: dict = {}

    def result_of(verb):
        if verb not in done:
            for _ in range(2):  # programs are compiled by the first
                place = tmp_path_factory.mktemp(verb)
                shutil.copytree(inputs, place, dirs_exist_ok=True)
                began = time.monotonic()
                assert start(VERBS[verb], place).wait(600) == 0
                done[verb] = visible(place), time.monotonic() - began
        return done[verb]

    return inputs, result_of


def disturb(verb, number, share, undisturbed, place):
    """Kill a verb after a share of its time, and call it again."""
    inputs, result_of = undisturbed
    wanted, seconds = result_of(verb)
    shutil.copytree(inputs, place)
    given = visible(place)
    child = start(VERBS[verb], place)
    time.sleep(share * seconds)
    child.send_signal(number)
    began = time.monotonic()
    code = child.wait(30)
    assert time.monotonic() - began < 5  # two seconds, on a machine that does nothing else
    assert code in (0, 128 + number, -number)
    while (left := left_of(place)) and time.monotonic() - began < 10:
        time.sleep(0.1)
    assert not left
    found = visible(place)
    assert {name: found[name] for name in given} == given
    if verb not in STEPWISE:
        assert found in (given, wanted)
    else:
        assert {name for name in found if name in wanted and found[name] != wanted[name]} <= PARTS
    if found == wanted:
        return
    unfinished = (place / "m.safetensors.unfinished").exists()
    assert start([*VERBS[verb], *(["--resume"] if unfinished else [])], place).wait(600) == 0
    found = visible(place)
    assert found.keys() == wanted.keys()
    assert {name for name in found if without_times(name, found) != without_times(name, wanted)} <= PARTS
    assert not list(place.rglob(".*"))


def without_times(name, found):
    """A file of results, without the seconds that a round took."""
    if name.endswith("round.json"):
        return json.loads(found[name]) | {"seconds": None}
    if name.endswith("rounds.csv"):
        rows = csv.DictReader(found[name].decode().splitlines())
        return [row | {"seconds": None} for row in rows]
    return found[name]


PARTS = {"tables/tables.jsonl"}  # written line by line


def kills(n):
    rng = np.random.default_rng(38)
    for k in range(n):
        yield (
            list(VERBS)[k % len(VERBS)],
            [signal.SIGKILL, signal.SIGTERM][k // len(VERBS) % 2],
            rng.uniform(0.1, 1),
        )


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "number", "share"), list(kills(45)))
def test_a_verb_that_is_killed(verb, number, share, undisturbed, tmp_path):
    if verb == "adapt":
        require("lammps")
    disturb(verb, number, share, undisturbed, tmp_path / "place")


@pytest.mark.long
@pytest.mark.parametrize(
    ("verb", "number", "share"), [("export", signal.SIGKILL, 0.8), ("fit", signal.SIGTERM, 0.7)]
)
def test_short_form(verb, number, share, undisturbed, tmp_path):
    disturb(verb, number, share, undisturbed, tmp_path / "place")


FULL = VERBS | {
    "score": ["score", "model.safetensors", "run.npz", "--out", "scores.json"],
    "optimize": ["optimize", "model.safetensors", "run.npz", "--starts", "2", "--out", "best.pdb"],
    "movie": ["movie", "model.safetensors", "run.npz", "--out", "a.gif", "--frames", "3"],
    "npz": ["generate", "model.safetensors", "-n", "500", "--out", "gen.npz"],
    "dcd": ["generate", "model.safetensors", "-n", "500", "--out", "gen.dcd"],
    "gro": ["generate", "model.safetensors", "-n", "500", "--out", "gen.gro"],
}
LIMITED = """
import resource, sys
from polyvae.app import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
cli.main(sys.argv[2:])
"""


@pytest.mark.long
@pytest.mark.parametrize("verb", [verb for verb in FULL if verb != "adapt"])  # LAMMPS ends the process itself
def test_a_disk_that_is_full(verb, inputs, tmp_path):
    """One line that names the file, and nothing that is half written; no file may be larger than 300 bytes."""
    shutil.copytree(inputs, tmp_path / "place")
    given = visible(tmp_path / "place")
    path = os.pathsep.join([str(Path(pv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-c", LIMITED, "300", *FULL[verb]]
    # Compiled programs are cut off, too, and others may read them.
    alone = {"PYTHONPATH": path, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    own = {"cwd": tmp_path / "place", "env": os.environ | alone}
    done = subprocess.run(words, **own, capture_output=True, text=True, timeout=600)
    said = [line for line in done.stderr.splitlines() if line.startswith("polyvae: error")]
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "File too large" in said[-1] or "is the disk full?" in said[-1]
    found = visible(tmp_path / "place")
    assert {name for name in found if name not in given} <= PARTS
    assert not list((tmp_path / "place").rglob(".*"))


KILLED = """
import os, sys
from pathlib import Path
from polyvae import files
move, left = os.replace, [int(sys.argv[2])]

def replace(*paths):
    if left[0] == 0:
        os.kill(os.getpid(), 9)
    left[0] -= 1
    move(*paths)

with files.replacing_folder(Path(sys.argv[1]), force=True) as folder:
    for name in ("a", "b/c", "b/d"):
        (folder / name).parent.mkdir(exist_ok=True)
        with files.replacing(folder / name) as temporary:
            temporary.write_text("new")
    os.replace = replace
"""


def killed(*words):
    path = os.pathsep.join([str(Path(pv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, words)], env=os.environ | {"PYTHONPATH": path})
    return done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_files_that_were_on_their_way_into_a_folder(moved, tmp_path):
    """One that is new appears at once; into one that exists the next call moves the rest."""
    assert not killed(tmp_path / "new", moved)
    assert visible(tmp_path / "new") == dict.fromkeys(["a", "b/c", "b/d"], b"new")
    out = tmp_path / "out"
    (out / "b").mkdir(parents=True)
    for name in ("a", "b/c", "other"):
        (out / name).write_text("old")
    assert killed(out, moved)
    assert list(visible(out).values()).count(b"new") == moved
    with pytest.raises(pv.InputError, match="holds files already"), files.replacing_folder(out):
        pass
    assert visible(out) == dict.fromkeys(["a", "b/c", "b/d"], b"new") | {"other": b"old"}
    assert not [path for path in tmp_path.iterdir() if path.name[0] == "."]


def test_a_signal_while_files_move(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    move, calls = os.replace, []

    def replace(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise SystemExit(143)
        move(*paths)

    monkeypatch.setattr(os, "replace", replace)
    with contextlib.suppress(SystemExit), files.replacing_folder(tmp_path / "out") as folder:
        for name in "abc":
            (folder / name).write_text(name)
    assert len(calls) > 3
    assert visible(tmp_path) == {f"out/{name}": name.encode() for name in "abc"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_left_is_removed(tmp_path, monkeypatch):
    """Its own temporary files and folders, and no others."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead = f"{files._machine()}-{child.pid}-0123abcd"
    living = f"{files._machine()}-{os.getpid()}-0123abcd"
    elsewhere = "00000000-1-0123abcd"
    (tmp_path / f".out.{dead}").mkdir()
    others = {f".a.{living}.npz", f".a.{elsewhere}.npz", f"a.{dead}.npz", ".a"}
    for name in (f".out.{dead}/a", f".a.{dead}.npz", *others):
        (tmp_path / name).touch()
    monkeypatch.setattr(files, "_SWEPT", set())
    files.write_json(tmp_path / "a.json", {})
    kept = others | {"a.json"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    os.utime(tmp_path / f".a.{elsewhere}.npz", (0, 0))
    files.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept - {f".a.{elsewhere}.npz"}


RUNS = """
import sys
from polyvae.app import cli
from polyvae.io import processes

def verb(*_, **__):
    processes.run(["sh", "-c", "echo $$ > pid; sleep 60; touch ended"])

cli.app = verb
cli.main(["verb"])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_program_ends_with_the_process_that_runs_it(number, tmp_path):
    path = os.pathsep.join([str(Path(pv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-c", RUNS]
    child = subprocess.Popen(words, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, start_new_session=True)
    while child.poll() is None and not (tmp_path / "pid").exists():
        time.sleep(0.05)
    time.sleep(0.2)
    child.send_signal(number)
    child.wait(20)
    began = time.monotonic()
    while left_of(tmp_path) and time.monotonic() - began < 5:
        time.sleep(0.05)
    assert not left_of(tmp_path)


def test_a_program_gives_its_output_and_code():
    done = processes.run(["sh", "-c", "echo out; echo no >&2; exit 3"], stdout=-1, stderr=-1, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "no\n", 3)
    with pytest.raises(FileNotFoundError):
        processes.run(["no-such-program-here"])

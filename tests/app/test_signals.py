"""SIGTERM ends a verb within two seconds, with its children and without what is half written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import polyvae as pv
from polyvae import files

CHILD = """
import sys, time, multiprocessing
import numpy as np
from pathlib import Path
from polyvae import files
from polyvae.app import cli
place = Path(sys.argv[1])

def deaf():
    x = np.random.default_rng(0).normal(size=(6000, 6000))
    (place / "begun").touch()
    np.linalg.svd(x)  # works on for minutes, and looks at no signal

def verb(*_, **__):
    with files.locked(place / "out"), files.replacing(place / "out") as temporary:
        temporary.write_text("half")
        child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,), daemon=True)
        child.start()
        (place / "pid").write_text(str(child.pid))
        if sys.argv[2] == "deaf":
            deaf()
        (place / "begun").touch()
        time.sleep(600)

cli.app = verb
cli.main(["verb"])
"""


@pytest.mark.parametrize("kind", ["python", "deaf"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_verb_promptly(tmp_path, kind, number):
    path = os.pathsep.join([str(Path(pv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = [sys.executable, "-c", CHILD, str(tmp_path), kind]
    child = subprocess.Popen(words, env=os.environ | {"PYTHONPATH": path}, start_new_session=True, **quiet)
    while child.poll() is None and not (tmp_path / "begun").exists():
        time.sleep(0.05)
    time.sleep(0.3)
    child.send_signal(number)
    began = time.monotonic()
    assert child.wait(20) == 128 + number
    assert time.monotonic() - began < 4  # two seconds, on a machine that does nothing else
    assert {file.name for file in tmp_path.iterdir()} == {"begun", "pid"}
    time.sleep(0.2)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_what_cannot_be_removed_keeps_nothing_else(tmp_path, monkeypatch):
    """A path below a file cannot be removed, and which path comes first is not known."""
    (tmp_path / "file").touch()
    halves = [tmp_path / str(k) for k in range(20)]
    for half in halves:
        half.touch()
    monkeypatch.setattr(files, "_TEMPORARY", {tmp_path / "file" / "below", *halves})
    files.remove_temporaries()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_error_while_cleaning_up_does_not_keep_the_process(tmp_path):
    code = (
        "from polyvae import files\n"
        "from polyvae.app import signals\n"
        "files.remove_temporaries = lambda: 1 / 0\n"
        "signals._end(143)\n"
    )
    path = os.pathsep.join([str(Path(pv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, timeout=60)
    assert done.returncode == 143


def test_a_signal_while_modules_are_imported(tmp_path):
    """The process ends at once: an error within the import of NumPy or JAX would end in a traceback or a crash."""
    (tmp_path / "slow.py").write_text(
        "import os, signal, sys\ntry:\n    os.kill(os.getpid(), signal.SIGTERM)\n    sum(range(10**6))\n"
        "finally:\n    print('went on', file=sys.stderr)\n"
    )
    code = "from polyvae.app.signals import ending_promptly\nwith ending_promptly():\n    import slow\n"
    path = os.pathsep.join([str(Path(pv.__file__).parents[1]), str(tmp_path)])
    own = {"env": os.environ | {"PYTHONPATH": path}, "capture_output": True, "timeout": 60}
    done = subprocess.run([sys.executable, "-c", code], **own)
    assert (done.returncode, done.stderr) == (143, b"")

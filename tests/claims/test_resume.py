"""Claim: training that is killed at any moment and resumed ends with the same bytes as training that was not.

`polyvae fit` on data/chain2d.npz, 1,500 epochs, SIGKILL at ten moments drawn with seed 0, then `--resume`; the
generator, on a sixth of these frames, twice. The short form kills one of 300 epochs once.
"""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import DATA

import polyvae as pv

pytestmark = pytest.mark.long


def kill_and_resume(folder, delays, *words, data=DATA / "chain2d.npz", ending="unfinished") -> int:
    """Kill `polyvae fit` so many seconds after a checkpoint, again and again, then let it end.

    Asserts that the bytes are those of an uninterrupted run; returns how many times there was one to kill.
    """
    out = folder / "cut.safetensors"
    unfinished = folder / f"cut.safetensors.{ending}"

    def start(target, *more):
        command = [sys.executable, "-m", "polyvae", "fit", data, "--out", target, *words, *more]
        return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start(folder / "whole.safetensors").wait() == 0
    killed = 0
    for delay in delays:
        stamp = unfinished.stat().st_mtime_ns if unfinished.exists() else None
        process = start(out, "--resume")
        while process.poll() is None and (not unfinished.exists() or unfinished.stat().st_mtime_ns == stamp):
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert start(out, "--resume").wait() == 0
    assert out.read_bytes() == (folder / "whole.safetensors").read_bytes()
    assert sorted(file.suffix for file in folder.glob("*saf*")) == [".safetensors"] * 2
    return killed


def test_one_kill(tmp_path):
    assert kill_and_resume(tmp_path, [0.5], "--epochs", 300, "--patience", 300) == 1


@pytest.mark.slow
def test_a_kill_in_the_generator(tmp_path):
    pv.write(tmp_path / "run.npz", pv.read(DATA / "chain2d.npz")[:600])
    words, ending = ("--epochs", 3, "--generator"), "generator.unfinished"
    assert kill_and_resume(tmp_path, [0.5], *words, data=tmp_path / "run.npz", ending=ending) == 1


@pytest.mark.slow
def test_ten_kills(tmp_path):
    delays = np.random.default_rng(0).uniform(0, 2.5, 10)
    killed = kill_and_resume(tmp_path, delays, "--epochs", 1500, "--patience", 1500)
    print(f"\nkilled {killed} times; the bytes are the same")
    assert killed == 10

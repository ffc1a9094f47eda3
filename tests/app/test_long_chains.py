"""Memory of runs of few frames and many beads, each in a process of its own, as users have them.

The kernel's figure for a child that has ended counts the parent's memory at the fork too; its own does not.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ideal_chains

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak is read from Linux's /proc"),
]
CHILD = """
import atexit, re, sys
from polyvae.app.cli import main
atexit.register(lambda: print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]))
main(sys.argv[1:])
"""


def peak(*words) -> float:
    """Peak resident size of a polyvae command that ends well, in GiB."""
    command = [sys.executable, "-c", CHILD, *map(str, words)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr[-2000:]
    used = int(child.stdout.split()[-1]) / 2**20
    print(f"polyvae {words[0]}: {used:.2f} GiB")
    return used


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """98 frames of 12,000 beads."""
    path = tmp_path_factory.mktemp("long") / "many.npz"
    np.savez(path, positions=0.3 * ideal_chains(98, 12_000, 3) + ideal_chains(1, 12_000, 3, seed=1))
    return path


def test_98_frames_of_12000_beads_are_trained_on_in_two_and_a_half_gib(many, tmp_path):
    assert peak("fit", many, "--epochs", 2, "--out", tmp_path / "model.safetensors") < 2.5


@pytest.mark.slow
def test_and_all_the_rest_of_a_run_too(many, tmp_path):
    out = tmp_path / "out"
    assert peak("run", many, "--quick", "--epochs", 2, "--no-generator", "--out", out) < 2.5
    for name in ("scores.json", "report.html", "optimized.pdb", "COLVAR"):
        assert (out / name).stat().st_size > 0


def test_distances_of_2000_beads_are_trained_on_in_one_and_a_half_gib(tmp_path):
    np.savez(tmp_path / "run.npz", positions=ideal_chains(200, 2000, 3))
    words = ["fit", tmp_path / "run.npz", "--align", "distances", "--epochs", 2]
    assert peak(*words, "--out", tmp_path / "model.safetensors") < 1.5

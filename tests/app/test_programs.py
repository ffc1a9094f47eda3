"""Compiled programs are kept between calls, and change no number."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import polyvae as pv
from polyvae.app import programs


@pytest.fixture
def data(tmp_path):
    x = np.random.default_rng(0).normal(size=(600, 4, 2)).cumsum(axis=1).astype(np.float32)
    pv.write(tmp_path / "run.npz", pv.Trajectory(x))
    return tmp_path / "run.npz"


def fit(data: Path, out: str, cache: Path | None, **more: str) -> tuple[bytes, str]:
    """The bytes of a model that a process of its own trains, and all that the process wrote to stderr."""
    surroundings = os.environ | {"PYTHONPATH": str(Path(pv.__file__).parents[1])} | more
    del surroundings["JAX_COMPILATION_CACHE_DIR"]
    surroundings["XDG_CACHE_HOME"] = str(cache or "/dev/null")
    words = [sys.executable, "-m", "polyvae", "fit", str(data), "--epochs", "2", "--lag", "0"]
    done = subprocess.run(
        [*words, "--out", out], env=surroundings, cwd=data.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return (data.parent / out).read_bytes(), done.stderr


@pytest.mark.long
def test_a_second_call_reads_programs_and_gives_the_same_model(data, tmp_path):
    cache = tmp_path / "cache"
    plain, _ = fit(data, "plain.safetensors", None)  # where no folder can be made
    first, _ = fit(data, "first.safetensors", cache)
    (folder,) = (cache / "polyvae").iterdir()
    kept = list(folder.iterdir())
    assert len(kept) > 3
    second, words = fit(data, "second.safetensors", cache, JAX_DEBUG_LOG_MODULES="jax._src.lru_cache")
    assert "Cache hit for key: 'jit_epochs" in words  # the training
    assert plain == first == second
    for path in kept:
        path.write_bytes(path.read_bytes()[:50])  # as a killed process leaves it
    cut, words = fit(data, "cut.safetensors", cache)
    assert cut == plain
    assert "arning" not in words
    assert "rror" not in words


def test_a_folder_of_the_user_stays_and_old_programs_go(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    programs.keep_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "mine"
    for k in range(5):
        (tmp_path / str(k)).write_bytes(b"x" * 10)
        os.utime(tmp_path / str(k), (100 - k, 100 - k))
    monkeypatch.setattr(programs, "_MOST", 50)
    programs._remove_oldest(tmp_path)
    assert len(list(tmp_path.iterdir())) == 5
    monkeypatch.setattr(programs, "_MOST", 49)
    programs._remove_oldest(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}

"""Two processes that meet on this machine train the model that one process trains of all files."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ideal_chains

import polyvae as pv

# The command line, with a record of the files that it opens and of the model that `fit` gives here.
CHILD = """
import sys
out, folder = sys.argv[1:3]
opened = set()
sys.addaudithook(lambda event, a: event == "open" and str(a[0]).startswith(folder) and opened.add(str(a[0])))
import polyvae as pv
from polyvae.app.cli import main
fit = pv.fit
def kept(*args, **options):
    cv = fit(*args, **options)
    cv.save(out + ".safetensors")
    return cv
pv.fit = kept
try:
    main(sys.argv[3:])
finally:
    with open(out + ".opened", "w") as file:
        file.write("\\n".join(sorted(opened)))
"""


def start(out: Path, folder: Path, *words: str) -> subprocess.Popen:
    paths = os.pathsep.join([str(Path(pv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", CHILD, str(out), str(folder), *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, **pipes)


def two(folder: Path, *words: str) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of two processes with the same command."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    try:
        for k in range(2):
            meet = ["--coordinator", f"127.0.0.1:{port}", "--process", f"{k}/2"]
            children.append(start(folder / f"of{k}", folder, *words, *meet))
        said = [child.communicate(timeout=300) for child in children]
    finally:
        for child in children:
            child.kill()
    return [(child.returncode, *texts) for child, texts in zip(children, said, strict=True)]


@pytest.fixture
def files(tmp_path) -> list[str]:
    """Two pieces of a chain that remembers, of 700 and of 330 frames."""
    x = ideal_chains(1030, 5, 3)
    for k in range(1, len(x)):
        x[k] = 0.9 * x[k - 1] + 0.4 * x[k]
    for name, piece in (("a", x[:700]), ("b", x[700:])):
        pv.write(tmp_path / f"{name}.npz", pv.Trajectory(piece))
    return [str(tmp_path / f"{name}.npz") for name in "ab"]


OPTIONS = {"encoder": (8,), "decoder": (8,), "epochs": 3, "batch_size": 64, "seed": 3}


@pytest.mark.long
def test_two_processes_train_the_model_of_one(files, tmp_path):
    out = tmp_path / "model.safetensors"
    words = ["--encoder", "8", "--decoder", "8", "--epochs", "3", "--batch-size", "64", "--seed", "3"]
    ended = two(tmp_path, "fit", *files, *words, "--align", "reference", "--out", str(out))
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert "2 processes with 2 devices train together\ntraining on 1030 frames" in ended[0][2]
    assert "note" not in ended[1][2]

    # Each read its own file, and both have one model, which the first alone wrote.
    for k, name in enumerate("ab"):
        opened = (tmp_path / f"of{k}.opened").read_text()
        assert [other for other in "ab" if f"{other}.npz" in opened] == [name]
        assert (f"in {out}; all 3 epochs done" in ended[k][1]) == (k == 0)
    assert (tmp_path / "of0.safetensors").read_bytes() == (tmp_path / "of1.safetensors").read_bytes()
    assert out.read_bytes() == (tmp_path / "of0.safetensors").read_bytes()

    together, alone = pv.load(out), pv.fit(pv.read(files), featurizer=pv.Reference(), **OPTIONS)
    for name, curve in alone.record.history.items():
        np.testing.assert_allclose(together.record.history[name], curve, rtol=1e-5, err_msg=name)
    x = pv.read(files)
    np.testing.assert_allclose(together.transform(x), alone.transform(x), atol=1e-4)
    for name in ("settings", "versions", "best_epoch", "stopped", "choices", "collapsed"):
        assert together.record[name] == alone.record[name], name
    assert together.record.data.n_frames == 1030
    for name in ("n_train", "n_validation"):
        assert getattr(together.record.data, name) == getattr(alone.record.data, name)


@pytest.mark.long
def test_a_file_that_one_process_cannot_use_ends_both_in_one_line(files, tmp_path):
    (tmp_path / "b.npz").write_bytes(b"no zip file")
    ended = two(tmp_path, "fit", *files, "--out", str(tmp_path / "model.safetensors"))
    assert [code for code, _, _ in ended] == [1, 1], ended
    for _, _, stderr in ended:
        assert [line for line in stderr.splitlines() if "error: " in line and "b.npz" in line], stderr
        assert "Traceback" not in stderr
    assert not (tmp_path / "model.safetensors").exists()

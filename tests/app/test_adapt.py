"""`polyvae adapt`: rounds in LAMMPS from the shell, their results, and bad use."""

import json

import numpy as np
import pytest
from engines import lammps_input, require

import polyvae as pv
from polyvae.app import cli

N = 5


def call(*words, code=0):
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(word) for word in words])
    assert exit_.value.code == code


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A chain of five beads: a script for LAMMPS, and a run of it by the engine itself."""
    folder = tmp_path_factory.mktemp("adapt")
    (folder / "in.lammps").write_text(lammps_input(N))
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(600, N, 3))
    steps /= np.linalg.norm(steps, axis=2, keepdims=True)
    bonded = np.stack([np.arange(N - 1), np.arange(1, N)], axis=1)
    pv.write(folder / "run.npz", pv.Trajectory(np.cumsum(steps, axis=1), length_unit="sigma", bonds=bonded))
    return folder


SHORT = ["--steps", 2000, "--stride", 20, "--free-runs", 2, "--free-steps", 2000, "--temperature", 1.0,
         "--epochs", 2, "--encoder", "8", "--decoder", "8", "--rounds", 2]  # fmt: skip


@pytest.mark.long
def test_rounds_from_the_shell(place, capsys):
    require("lammps")
    words = ["adapt", place / "run.npz", "--lammps", place / "in.lammps", *SHORT, "--out", place / "out"]
    call(*words)
    said = capsys.readouterr()
    assert "round 1: biased along z0" in said.err
    assert "2 rounds, " in said.out
    assert {path.name for path in (place / "out").iterdir()} == {
        "adapt.json", "biased.npz", "checks.png", "fes.csv", "fes.npz", "fes.png", "model.safetensors", "round_01",
        "round_02", "rounds.csv", "summary.json",
    }  # fmt: skip
    header, *rows = (place / "out" / "rounds.csv").read_text().splitlines()
    assert header.startswith("number,steps,free_steps,latents")
    assert len(rows) == 2
    assert json.loads((place / "out" / "summary.json").read_text())["rounds"] == 2
    model = (place / "out" / "model.safetensors").read_bytes()
    call(*words)  # all is there
    assert (place / "out" / "model.safetensors").read_bytes() == model
    of_one = place / "out" / "round_01" / "walker_00" / "COLVAR"
    call("fes", of_one, "--cv", "z0", "--bias", "bias", "--energy-unit", "kT", "--out", place / "fes")
    call("fes", "--traj", place / "out" / "biased.npz", "--over", "rg", "--out", place / "rg")
    call(*words[:-2], "--out", place / "out", "--pace", 50, code=1)
    assert "holds rounds with pace 500; this call has 50" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "name one engine: --openmm, --lammps or --command"),
        (["--lammps", "in.lammps", "--command", "x {plumed}"], 2, "name one engine"),
        (["--command", "x {plumed}"], 2, "the frames of a command need a topology"),
        (["--openmm", "system.xml"], 2, "a system.xml needs a PDB of its particles"),
        (["--lammps", "in.lammps", "--barrier", "0.5"], 1, "barrier must be a finite number greater than 1"),
        (["--lammps", "in.lammps", "--weights", "w.txt"], 2, "the frames to begin with are unbiased"),
        (["--lammps", "none.lammps"], 1, "none.lammps: no such file"),
    ],
)
def test_bad_use_is_one_line_and_leaves_nothing(place, tmp_path, monkeypatch, capsys, words, code, said):
    if "in.lammps" in words or "none.lammps" in words:
        require("lammps")
    if "system.xml" in words:
        require("openmm_opes")
    monkeypatch.chdir(place)
    np.savetxt("w.txt", np.ones(600))
    call("adapt", "run.npz", *words, *SHORT, "--out", tmp_path / "out", code=code)
    error = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(error) == 1
    assert said in error[0]
    assert not list(tmp_path.iterdir())

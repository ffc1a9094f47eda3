"""Claims on the whole command, run as a user runs it: what it writes, that it repeats, that the optimum holds.

Run with `-s` to see the figures; the full-size runs are marked slow (`pytest -m slow -n 0 -s`).
"""

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA, arrays, chapter, random_rotations

import polyvae as pv

pytestmark = pytest.mark.long

FIGURES = 11
CASES = {
    "chain2d": lambda: [DATA / "chain2d.npz"],
    "chain3d": lambda: [DATA / "chain3d.xtc", "--top", DATA / "chain3d.pdb", "--unit", "sigma"],
    "long_paths": lambda: [chapter("long_paths.npz")],
}


def polyvae(*words) -> float:
    """Run the command in a process of its own; returns the seconds it took."""
    began = time.perf_counter()
    words = [sys.executable, "-m", "polyvae", *map(str, words)]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return time.perf_counter() - began


def read_case(case: str) -> pv.Trajectory:
    file, *rest = CASES[case]()
    return pv.read(file, topology=rest[1] if rest else None, length_unit="sigma")


def check_folder(out: Path, case: str) -> None:
    suffix = CASES[case]()[0].suffix
    names = {"model.safetensors", "COLVAR", "latent.npz", f"generated{suffix}", "optimized.pdb", "scores.json",
             "explorer.json", "figures", "report.html"}  # fmt: skip
    if suffix == ".xtc":
        names.add("generated.pdb")
    states = json.loads((out / "scores.json").read_text())["states"]
    if states["states"]:
        names.add("states")
        medoids = {f"{state['name']}.pdb" for state in states["states"]}
        assert {path.name for path in (out / "states").iterdir()} == medoids
    n_figures = FIGURES - (states["withheld"] is not None)  # that of the free energy
    assert {path.name for path in out.iterdir()} == names
    assert len(list((out / "figures").glob("*.png"))) == n_figures
    traj, cv = read_case(case), pv.load(out / "model.safetensors")
    assert cv.generator is not None
    settings = cv.record.generator.settings.to_dict()
    assert json.loads((out / "scores.json").read_text())["model"]["generator"] == settings
    lines = (out / "COLVAR").read_text().splitlines()
    assert lines[0] == "#! FIELDS time z0 z1"
    table = np.loadtxt(lines)
    z = cv.transform(traj)
    np.testing.assert_array_equal(table[:, 1:].astype(np.float32), z)  # nine digits give float32 back
    np.testing.assert_array_equal(arrays(out / "latent.npz")["z"], z)
    generated = pv.read(out / f"generated{suffix}", length_unit="sigma")
    assert generated.n_beads == traj.n_beads
    rg = np.array([pv.radius_of_gyration(x) for x in generated.positions[:200]])
    assert 0.7 < rg.mean() / np.mean([pv.radius_of_gyration(x) for x in traj.positions[:200]]) < 1.3
    check_invariance(cv, traj)
    check_optimum(
        json.loads((out / "scores.json").read_text())["optimized"], read_pdb(out / "optimized.pdb"), traj
    )
    check_report((out / "report.html").read_text(), n_figures)


def check_invariance(cv: pv.LatentCV, traj: pv.Trajectory) -> None:
    """Every frame turned and shifted at random: z moves by less than 1e-4 of its standard deviation."""
    rng, x = np.random.default_rng(0), traj.positions.astype(np.float64)
    turned = np.einsum("fij,fbj->fbi", random_rotations(len(traj), traj.n_dims, rng), x)
    moved = turned + rng.uniform(-10, 10, (len(traj), 1, traj.n_dims))
    z = cv.transform(traj)
    change = (np.abs(cv.transform(moved.astype(np.float32)) - z) / z.std(axis=0)).max()
    print(f"\nrotated and shifted: z changes by {change:.1e} of its std at most")
    assert change < 1e-4


def check_optimum(summary: dict, x: np.ndarray, traj: pv.Trajectory) -> None:
    """Against the data by numpy alone: more compact than every frame, bonds and pairs within the quantiles."""
    pairs = np.array(list(itertools.combinations(range(traj.n_beads), 2)))
    bonded = np.diff(pairs, axis=1)[:, 0] == 1
    data = np.linalg.norm(traj.positions[:, pairs[:, 0]] - traj.positions[:, pairs[:, 1]], axis=2)
    found = np.linalg.norm(x[pairs[:, 0]] - x[pairs[:, 1]], axis=1)
    local = traj.positions - traj.positions.mean(axis=1, keepdims=True)
    smallest = np.sqrt((local**2).sum(axis=2).mean(axis=1)).min()
    rg = np.sqrt(((x - x.mean(axis=0)) ** 2).sum(axis=1).mean())
    print(
        f"Rg {rg:.3f} (data {smallest:.3f}), bonds {found[bonded].min():.3f} to {found[bonded].max():.3f} "
        f"(data {np.quantile(data[:, bonded], 0.001):.3f} to {np.quantile(data[:, bonded], 0.999):.3f}), "
        f"closest pair {found.min():.3f} (data {np.quantile(data, 0.001):.3f})"
    )
    assert rg == pytest.approx(summary["optimized"]["rg"], abs=1e-3)
    if not (summary["valid"] and summary["better"]):
        pytest.fail(f"not both compact and sound: {summary['message']}")
    rounding = 3e-4  # a PDB keeps three decimals of an angstrom, 1e-4 sigma a coordinate
    assert rg < smallest
    assert found[bonded].min() >= np.quantile(data[:, bonded], 0.001) - rounding
    assert found[bonded].max() <= np.quantile(data[:, bonded], 0.999) + rounding
    assert found.min() >= np.quantile(data, 0.001) - rounding


def read_pdb(path: Path) -> np.ndarray:
    """Positions in sigma (10 Å each) by mdtraj; the bonds must be there too."""
    import mdtraj

    frame = mdtraj.load(str(path))
    assert frame.topology.n_bonds == frame.n_atoms - 1
    return frame.xyz[0].astype(np.float64)


def check_report(html: str, n_figures: int) -> None:
    assert html.count(' src="data:image/') == n_figures
    assert 'src="http' not in html


@pytest.mark.parametrize(
    "case", ["chain2d", *(pytest.param(name, marks=pytest.mark.slow) for name in ("chain3d", "long_paths"))]
)
def test_quick_run(case, tmp_path):
    seconds = polyvae("run", *CASES[case](), "--out", tmp_path / "out", "--quick")
    print(f"\n{case} --quick: {seconds:.1f} s")
    check_folder(tmp_path / "out", case)


def test_one_seed_one_result(tmp_path):
    """In two processes each, as the steps do it; the whole command twice is slow."""
    for name in "ab":
        folder = tmp_path / name
        folder.mkdir()
        polyvae("fit", *CASES["chain2d"](), "--out", folder / "model.safetensors", "--epochs", 20)
        polyvae("project", folder / "model.safetensors", *CASES["chain2d"](), "--out", folder / "COLVAR")
    for file in ("COLVAR", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


@pytest.mark.slow
def test_one_seed_one_folder(tmp_path):
    for name in "ab":
        polyvae("run", *CASES["chain2d"](), "--out", tmp_path / name, "--quick")
    for file in ("COLVAR", "model.safetensors", "latent.npz", "generated.npz", "optimized.pdb"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_full_run(case, tmp_path):
    seconds = polyvae("run", *CASES[case](), "--out", tmp_path / "out")
    print(f"\n{case}: {seconds:.1f} s")
    check_folder(tmp_path / "out", case)

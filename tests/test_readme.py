"""The README's words are run, and its test command is the one that CI runs."""

import ast
import re

import pytest
from conftest import DATA, ROOT
from pages import blocks, in_short

README = (ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else ""


def test_ci_runs_exactly_the_readmes_test_command():
    run, test = (block.strip() for _, block in blocks(README, "sh"))
    assert "polyvae run data/chain2d.npz" in run
    assert "pytest" in test
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert lines[-1] == test
    assert any("ruff check" in line for line in lines[:-1])


@pytest.mark.long
def test_the_api_example_runs(tmp_path, monkeypatch):
    ((_, code),) = blocks(README, "python")
    code = code.replace('"data/', f'"{DATA}/')
    assert 10 <= len([line for line in ast.unparse(ast.parse(code)).splitlines() if line]) <= 15
    monkeypatch.chdir(tmp_path)
    with in_short():
        exec(compile(code, "README.md", "exec"), {})
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"COLVAR", "generated.xtc", "generated.pdb", "model.safetensors"}


def test_every_verb_is_in_the_table_and_has_an_example():
    from typer.main import get_command

    from polyvae.app.cli import app

    verbs = get_command(app).commands
    assert set(re.findall(r"^\| `polyvae (\w+)", README, flags=re.MULTILINE)) == set(verbs)
    for name, verb in verbs.items():
        assert f"Example: polyvae {name}" in verb.help


def test_it_takes_two_minutes_to_read():
    assert len(README.split()) <= 800


def test_links_point_to_files():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target

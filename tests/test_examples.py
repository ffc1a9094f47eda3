"""Every example explains itself, runs in its short form, and writes what it says."""

import ast
import re
import runpy
import sys
import warnings

import matplotlib
import pytest
from conftest import ROOT

EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.stem != "common")


def test_they_are_ten_in_order():
    numbers = [re.fullmatch(r"(\d\d)_[a-z0-9_]+", path.stem) for path in EXAMPLES]
    assert [found and int(found[1]) for found in numbers] == list(range(1, 11))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_says_what_one_learns(example):
    """A paragraph first, then cells that editors and notebooks show, of code or words; its figure beside it."""
    text = example.read_text()
    code = compile(text, example.name, "exec", flags=ast.PyCF_ONLY_AST)
    first, *_ = ast.get_docstring(code).split("\n\n")
    assert first.startswith("You learn ")
    assert len(first.split()) > 20
    assert f"python {example.name} [--quick] [--out FOLDER]" in text
    assert len(re.findall(r"^# %%$", text, re.MULTILINE)) >= 4
    assert len(re.findall(r"^# %% \[markdown\]\n# \S", text, re.MULTILINE)) >= 2
    assert f'save(figure, "{example.stem}")' in text
    assert 10_000 < example.with_suffix(".png").stat().st_size < 200_000


@pytest.mark.long
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(example, tmp_path, monkeypatch, capfd):
    """As `python NAME.py --quick` with warnings as errors, but in this process, which has imported JAX."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(example), "--quick"])
    monkeypatch.syspath_prepend(str(example.parent))
    monkeypatch.delitem(sys.modules, "common", raising=False)  # reads sys.argv, and benchmarks have one, too
    with matplotlib.rc_context({"backend": "agg"}), warnings.catch_warnings():
        try:
            runpy.run_path(str(example), run_name="__main__")
        finally:
            matplotlib.pyplot.close("all")
            sys.modules.pop("common", None)
    written = capfd.readouterr().out.splitlines()[-1]
    assert written == f"{example.stem}.png"
    assert (tmp_path / written).stat().st_size > 10_000

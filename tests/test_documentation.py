"""The documentation is true: its code runs, its commands parse, its links lead somewhere, the site builds.

The Python blocks of a page run in order in one namespace, in a folder with `data/`, and with data/chain3d as
run.xtc and chain.pdb; training is short. A block under `<!-- needs: ENGINE -->` needs that engine.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest
from conftest import DATA, ROOT
from engines import require
from pages import blocks, in_short
from typer.main import get_command

import polyvae as pv
from polyvae.app import cli
from polyvae.app.options import spread

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
pytestmark = pytest.mark.skipif(not PAGES, reason="not a checkout")

SHORT = ["--epochs", "1", "--encoder", "16", "--decoder", "16", "--batch-size", "32", "--step", "10"]


def commands(page) -> list[list[str]]:
    """The words of every line of a page that begins with `polyvae`."""
    lines = "".join(text for _, text in blocks(page.read_text(), "sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("polyvae ")]


def named(page):
    return str(page.relative_to(DOCS).with_suffix(""))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that a reader of the documentation works in."""
    (tmp_path / "data").symlink_to(DATA)
    shutil.copy(DATA / "chain3d.xtc", tmp_path / "run.xtc")
    shutil.copy(DATA / "chain3d.pdb", tmp_path / "chain.pdb")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning:MDAnalysis.*")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page.read_text(), "python")], ids=named)
def test_the_code_of_a_page_runs(page, folder):
    namespace = {"__name__": "__main__"}
    with in_short():
        for needs, text in blocks(page.read_text(), "python"):
            if needs:
                require(needs)
            exec(compile(text, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=named)
def test_the_commands_of_a_page_parse(page):
    verbs = get_command(cli.app).commands
    for words in commands(page):
        verb, *rest = spread(words)
        verbs[verb].make_context(verb, rest)  # raises for options that are not there, or are missing


def test_a_command_that_does_not_parse_is_seen():
    with pytest.raises(Exception, match="No such option"):
        get_command(cli.app).commands["info"].make_context("info", ["run.xtc", "--topology", "chain.pdb"])


@pytest.mark.long
def test_the_commands_of_the_tutorial_run(folder, capsys):
    """All but `run`, in whose place a short `fit` stands, and `fes`, which needs the files of a biased run."""
    cli_words = [words for words in commands(DOCS / "tutorial.md") if words[0] != "fes"]
    done = []
    for words in cli_words:
        if words[0] == "run":
            (folder / "out").mkdir()
            words = ["fit", *words[1:-1], "out/model.safetensors"]
        with in_short(), pytest.raises(SystemExit) as ended:
            cli.main([*words, *(SHORT if words[0] == "fit" else [])])
        assert ended.value.code == 0, capsys.readouterr().err
        done.append(words[0])
    assert done == ["info", "fit", "project", "fit", "export"]
    assert (folder / "COLVAR").read_text().startswith("#! FIELDS time z0 z1 rg\n")
    assert (folder / "biased" / "biased_run.py").exists()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_links_of_the_documentation_point_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_contents():
    listed = set()
    for page in PAGES:
        for contents in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL):
            names = [line for line in contents.splitlines() if line and not line.startswith(":")]
            listed |= {(page.parent / f"{name}.md").resolve() for name in names}
    assert listed == set(PAGES) - {DOCS / "index.md"}


def test_what_the_build_writes_is_whole(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import generate

    verbs = generate.verbs()
    for name, verb in get_command(cli.app).commands.items():
        part = verbs.split(f"## polyvae {name}\n")[1].split("\n## ")[0]
        assert f"```sh\npolyvae {name} " in part
        for parameter in verb.params:
            words = parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]
            assert all(f"`{word}" in part for word in words), (name, parameter.opts)
    lines = generate.examples().splitlines()
    assert lines
    assert all(re.fullmatch(r"- \[`(\S+\.py)`\]\(\.\./examples/\1\): \S.*", line) for line in lines)
    for page in PAGES:
        assert "<!-- polyvae:" not in generate.filled_in(page.read_text()), page


@pytest.mark.long
def test_the_site_builds_without_a_warning(tmp_path):
    require("sphinx")
    words = [sys.executable, "-m", "sphinx", "-W", "-q", "-d", tmp_path / "doctrees", DOCS, tmp_path / "site"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    built = {str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site").rglob("*.html")}
    assert {str(page.relative_to(DOCS).with_suffix(".html")) for page in PAGES} <= built
    reference = (tmp_path / "site" / "reference" / "python.html").read_text()
    assert all(f'id="polyvae.{name}"' in reference for name in pv.__all__)


def test_the_citation_is_that_of_this_version():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert {"message", "title", "authors"} <= set(citation)  # what the format requires
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert citation["authors"] == project["authors"]


def test_the_entry_for_the_registry_of_mdakits_is_complete():
    yaml = pytest.importorskip("yaml")
    entry = yaml.safe_load((DOCS / "mdakit" / "metadata.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = {"project_name", "description", "license", "project_home", "documentation_home", "documentation_type"}
    texts |= {
        "import_name",
        "python_requires",
        "mdanalysis_requires",
        "project_org",
        "development_status",
        "changelog",
    }
    lists = {"authors", "maintainers", "keywords", "install", "src_install", "run_tests", "test_dependencies"}
    assert set(entry) == texts | lists
    assert all(isinstance(entry[name], str) and entry[name] for name in texts)
    assert all(isinstance(entry[name], list) and entry[name] for name in lists)
    assert (entry["project_name"], entry["license"]) == (project["name"], project["license"])
    assert entry["python_requires"] == project["requires-python"]
    assert f"MDAnalysis{entry['mdanalysis_requires']}" in project["dependencies"]

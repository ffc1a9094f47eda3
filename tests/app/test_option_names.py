"""The words that options take are the names of the tables that they are looked up in."""

import os
import subprocess
import sys

import pytest

import polyvae as pv
from polyvae.app import choices
from polyvae.export import TARGETS
from polyvae.io.writing import WRITERS
from polyvae.plot.style import FORMATS
from polyvae.tasks.optimization import OBJECTIVES
from polyvae.tasks.paths import WAYS
from polyvae.tasks.sampling import PRIORS
from polyvae.tasks.tables import KINDS
from polyvae.vae.settings import BETA_SCHEDULES, LR_SCHEDULES


@pytest.mark.parametrize(
    ("words", "table"),
    [
        (choices.OBJECTIVES, OBJECTIVES),
        (choices.TARGETS, TARGETS),
        (choices.FIGURES, FORMATS),
        (choices.TRAJECTORIES, WRITERS),
        (choices.PATHS, WAYS),
        (choices.PRIORS, PRIORS),
        (choices.BETA_SCHEDULES, BETA_SCHEDULES),
        (choices.LR_SCHEDULES, LR_SCHEDULES),
        (choices.TABLES, KINDS),
    ],
)
def test_words_are_the_names_of_the_table(words, table):
    assert set(words) == set(table)


def test_featurizers_are_public_names():
    for name in filter(None, choices.FEATURIZERS.values()):
        assert getattr(pv, name).__name__ == name


@pytest.mark.parametrize(
    "words", [["--version"], ["--help"], ["run", "-h"], ["fes", "--help"], ["adapt", "--help"]]
)
def test_help_answers_without_the_libraries_that_take_seconds(words):
    code = (
        "import sys\nfrom polyvae.app.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        "loaded = {'jax', 'numpy', 'scipy', 'MDAnalysis', 'mdtraj', 'matplotlib'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_the_shell_completes_verbs_and_options():
    """The protocol of bash: the words of the line, and which of them is being typed."""
    for typed, number, expected in (("polyvae pro", 1, "project"), ("polyvae fes --tem", 2, "--temperature")):
        surroundings = {"_POLYVAE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(number)}
        command = [sys.executable, "-m", "polyvae"]
        result = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | surroundings, check=False
        )
        assert expected in result.stdout.split(), (typed, result)

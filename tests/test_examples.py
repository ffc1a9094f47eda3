"""Every example runs, in its short form, and writes what it says.

`free_energy.py`, which needs LAMMPS, does so in `claims/test_free_energy.py`.
"""

import subprocess
import sys

import pytest
from conftest import ROOT

pytestmark = pytest.mark.long

EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.stem != "free_energy")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example, tmp_path):
    words = [sys.executable, "-W", "error", str(example), "--quick"]
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    written = result.stdout.splitlines()[-1]
    assert (tmp_path / written).stat().st_size > 10_000

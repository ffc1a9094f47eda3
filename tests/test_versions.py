"""The lowest versions that pyproject.toml takes are those that are tried."""

import tomllib

import pytest
from conftest import ROOT


def test_every_dependency_has_a_lowest_version_that_is_tried():
    if not (ROOT / ".ci").exists():
        pytest.skip("not a checkout")
    with (ROOT / "pyproject.toml").open("rb") as file:
        taken = tomllib.load(file)["project"]["dependencies"]
    lines = (ROOT / ".ci" / "lowest.txt").read_text().splitlines()
    tried = {line.replace("==", ">=") for line in lines if "==" in line}
    assert set(taken) == tried
    assert len(taken) == len(tried)

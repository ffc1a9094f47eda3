"""Damaged files of every kind that is read: a result, or one clear line; no crash, no hang, bounded memory."""

import json

import damage
import pytest
from valid import make_valid

NAMES = [
    "npz", "xtc", "dcd", "gro", "pdb", "xtc of few beads", "packed npz", "big-endian dcd", "dump",
    "packed dump", "xyz", "packed gro", "tinker", "history", "inpcrd", "mdcrd", "trr", "h5md", "netcdf",
    "netcdf 4", "gsd", "psf", "lammps data", "mol2", "gro as topology", "pdb as topology", "COLVAR", "HILLS",
    "KERNELS", "STATE", "colvars.traj", "hills.traj", "xvg", "csv", "averages.txt",
    "npz of a table", "packed COLVAR", "weights", "model reference_3d", "model distances_2d",
    "model gaussian", "model categorical", "unfinished run",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("valid")
    valid = make_valid(folder)
    (folder / "valid.json").write_text(json.dumps(valid))
    assert list(valid) == NAMES
    return folder


@pytest.mark.long
def test_some_mutants_of_every_kind(folder):
    assert not damage.campaign(folder, NAMES, 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_mutants(name, folder):
    assert not damage.kinds_of(damage.campaign(folder, [name], 1000))

"""Damaged files of every kind that is read: a result, or one clear line; no crash, no hang, bounded memory."""

import json

import damage
import numpy as np
import pytest
from valid import make_valid, tables

import polyvae as pv

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


@pytest.mark.parametrize(
    ("kind", "old", "new", "said"),
    [
        ("COLVAR", "-pi\n#! SET max_phi pi", "0\n#! SET max_phi 1e-300", "period of phi must be two"),
        ("STATE", " 0.300000 ", " 0.0 ", "widths, heights, sums and epsilon, all greater than 0"),
        ("STATE", "zed 0.5", "zed 0", "widths, heights, sums and epsilon, all greater than 0"),
        ("KERNELS", " 1.000000\n", " 1e5\n", "widths, heights, sums and epsilon, all greater than 0"),
        ("HILLS", " 10.000000\n", " -1e300\n", "'biasf' must hold finite numbers"),
    ],
)  # fmt: skip
def test_numbers_of_tables_that_cannot_be_used(kind, old, new, said, tmp_path):
    text = tables()[kind]
    assert old in text
    (tmp_path / kind).write_text(text.replace(old, new, 1))
    with pytest.raises(pv.InputError, match=said):
        damage.use_table(pv.read_colvar(tmp_path / kind))


def test_a_bias_that_leaves_one_frame():
    angle, bias = np.linspace(-1, 1, 100), np.zeros(100)
    bias[40] = 1e20
    with pytest.raises(pv.InputError, match="leave variable 0 no spread"):
        pv.free_energy(angle, bias=bias, kT=1.0, transient=0, periods=[(-np.pi, np.pi)])

"""The CV in Colvars is the CV in JAX: values, and gradients read from the forces in LAMMPS."""

import dataclasses

import numpy as np
import pytest
from engines import chain, errors, ideal, random_model, require

import polyvae as pv
from polyvae.errors import InputError
from polyvae.export import colvars

LENGTH = 10.0  # of a periodic box: twice a bond fits into it, a stretched chain does not
CASES = {
    ("chain2d", "reference, planar 3d"): pv.Reference(planar="3d"),
    ("chain2d", "distances"): pv.PairDistances(),
    ("chain3d", "reference"): pv.Reference(),
    ("chain3d", "reference on the PDB grid"): pv.Reference(pdb_grid=True),
    ("chain3d", "distances"): pv.PairDistances(every=2),
}


@pytest.mark.parametrize(("name", "featurizer"), CASES)
def test_lammps(name, featurizer, tmp_path):
    require("lammps")
    traj = chain(name)
    cv = random_model(traj, CASES[name, featurizer], encoder=(16, 16))
    colvars.export(cv, tmp_path, data=traj)
    for box, how in ((None, ""), (LENGTH, ", wrapped")):
        found = colvars.evaluate(tmp_path, cv, traj.positions, box=box)
        value, gradient = errors(cv, traj.positions, found, f"Colvars in LAMMPS, {name}, {featurizer}{how}")
        assert max(value, gradient) <= 1e-8

#!/usr/bin/env bash
# ASE writes GRO files with boxes that GROMACS does not allow, and that two readers turn in silence.
#
# The last line of a GRO holds nine numbers, of which three must be 0: the first vector lies along x, the second in the
# plane of x and y (GROMACS' reference manual, file formats, gro). ASE writes a cell in any direction into the nine
# columns. For PDB it turns cell and atoms together; one expects the same here, or an error. mdtraj and MDAnalysis take
# lengths and angles from the nine numbers and leave the atoms: a pair that is 1 angstrom apart through a face is 8.5
# angstrom apart for both. Written as PDB by the same ASE, the three libraries agree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0 mdtraj==1.11.1.post2 MDAnalysis==2.11.0
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import ase
import ase.io
import MDAnalysis
import mdtraj
from MDAnalysis.lib.distances import calc_bonds

for package in ("ase", "mdtraj", "MDAnalysis"):
    print(package, importlib.metadata.version(package))
cell = [[0, 30, 0], [0, 6, 35], [40, 0, 0]]
atoms = ase.Atoms("C2", positions=[[0, 0, 0], [0, 29, 0]], cell=cell, pbc=True)
found = {}
for name in ("box.pdb", "box.gro"):
    ase.io.write(name, atoms)
    universe = MDAnalysis.Universe(name)
    found[name] = [
        float(ase.io.read(name).get_distance(0, 1, mic=True)),
        10 * float(mdtraj.compute_distances(mdtraj.load(name), [[0, 1]])[0, 0]),
        float(calc_bonds(*universe.atoms.positions, box=universe.dimensions)),
    ]
print("last line of the GRO:", open("box.gro").read().splitlines()[-1])
print("distance through a face, right: 1 angstrom")
for name, values in found.items():
    print(name, dict(zip(("ASE", "mdtraj", "MDAnalysis"), [round(value, 3) for value in values])))
same = all(abs(value - 1) < 1e-3 for value in [*found["box.pdb"], found["box.gro"][0]])
sys.exit(not (same and all(abs(value - 8.485) < 0.01 for value in found["box.gro"][1:])))
PYTHON

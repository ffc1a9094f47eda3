#!/usr/bin/env bash
# The default coordinates of a LAMMPS dump, read by three libraries: three answers, none of them right.
#
# `dump atom` writes scaled coordinates (xs ys zs) unless told otherwise: x = xlo + xs (xhi - xlo), as the manual of
# LAMMPS has it (command dump). Where xlo is 0 it does not matter what a reader does with it. Here the box reaches from
# -5 to 5, as is common, and atoms stand at x = -4, -3, -2:
# - mdtraj takes the numbers between 0 and 1 for ångström: 0.1, 0.2, 0.3, a system that is smaller by the box;
# - ASE multiplies by the box and leaves out xlo: 1, 2, 3;
# - MDAnalysis multiplies, and subtracts xlo in place of adding it: 6, 7, 8.
# Nothing is logged. Those of mdtraj and MDAnalysis are on their trackers (mdtraj issue 1814, MDAnalysis issue 4788,
# both open); that no two of the three agree is what makes results of one analysis differ by the library that reads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mdtraj==1.11.1.post2 MDAnalysis==2.11.0 ase==3.29.0
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import ase.io
import MDAnalysis
import mdtraj
import numpy as np

for package in ("mdtraj", "MDAnalysis", "ase"):
    print(package, importlib.metadata.version(package))
with open("run.lammpstrj", "w") as file:
    file.write("ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n3\nITEM: BOX BOUNDS pp pp pp\n" + "-5 5\n" * 3)
    file.write("ITEM: ATOMS id type xs ys zs\n1 1 0.1 0.5 0.5\n2 1 0.2 0.5 0.5\n3 1 0.3 0.5 0.5\n")
topology = mdtraj.Topology()
chain = topology.add_chain()
for _ in range(3):
    topology.add_atom("C", mdtraj.element.carbon, topology.add_residue("MOL", chain))
found = {
    "mdtraj": 10 * mdtraj.load("run.lammpstrj", top=topology).xyz[0, :, 0],
    "ASE": ase.io.read("run.lammpstrj", format="lammps-dump-text").positions[:, 0],
    "MDAnalysis": MDAnalysis.Universe("run.lammpstrj", format="LAMMPSDUMP").atoms.positions[:, 0],
}
print("right      [-4.0, -3.0, -2.0]")
for name, x in found.items():
    print(f"{name:10s}", np.round(x, 3).tolist())
wrong = {"mdtraj": [0.1, 0.2, 0.3], "ASE": [1, 2, 3], "MDAnalysis": [6, 7, 8]}
sys.exit(not all(np.allclose(found[name], x, atol=1e-4) for name, x in wrong.items()))
PYTHON

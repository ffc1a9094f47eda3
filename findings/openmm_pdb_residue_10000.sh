#!/usr/bin/env bash
# Residues from the ten thousandth on, as OpenMM writes them into a PDB: no reader of four has their numbers.
#
# The column of a PDB for the residue number has four characters. From 10,000 on, OpenMM's PDBFile continues in
# hexadecimal digits from A000; ten thousand water molecules are a small box. mdtraj and chemfiles find the residues, but
# read digits of base 36, so that the numbers leap behind A009: number 12001 is 19541. MDAnalysis takes what is not
# decimal for a missing number and gives each of them number 1 (with a warning of missing numbers), whereby all
# neighbours of one name become one residue: 2002 molecules of water are one residue of 2002 atoms, in sums by residue,
# in wrapping whole residues, and in selections. Its documentation says that numbers above 9999 are not read correctly;
# that residues are merged it does not say. ASE refuses the file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openmm==8.6.1 mdtraj==1.11.1.post2 MDAnalysis==2.11.0 ase==3.29.0 chemfiles==0.10.4
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import ase.io
import chemfiles
import MDAnalysis
import mdtraj
import numpy as np
from openmm import app, unit

for package in ("openmm", "mdtraj", "MDAnalysis", "ase", "chemfiles"):
    print(package, importlib.metadata.version(package))
n_residues = 12001
topology = app.Topology()
chain = topology.addChain("A")
for _ in range(n_residues):
    topology.addAtom("O", app.Element.getBySymbol("O"), topology.addResidue("HOH", chain))
x = np.random.default_rng(0).uniform(0, 9, (n_residues, 3))
with open("box.pdb", "w") as file:
    app.PDBFile.writeFile(topology, x * unit.nanometer, file)
read = mdtraj.load("box.pdb").topology
universe = MDAnalysis.Universe("box.pdb")
frame = chemfiles.Trajectory("box.pdb").read()
largest = max(len(residue.atoms) for residue in universe.residues)
print("residues written:  ", n_residues)
print("mdtraj:            ", read.n_residues, "; number of the last:", read.residue(n_residues - 1).resSeq)
print("chemfiles:         ", len(frame.topology.residues), "; number of the last:", frame.topology.residues[n_residues - 1].id)
print("MDAnalysis:        ", len(universe.residues), "; number of the last:", universe.residues.resids[-1], "; its atoms:", largest)
try:
    ase.io.read("box.pdb")
    refused = ""
except ValueError as error:
    refused = str(error)
print("ASE:               ", refused or "reads it")
last = read.residue(n_residues - 1).resSeq, frame.topology.residues[n_residues - 1].id
right = read.n_residues == len(frame.topology.residues) == n_residues and last == (19541, 19541)
sys.exit(not (right and len(universe.residues) == 10000 and largest == 2002 and refused))
PYTHON

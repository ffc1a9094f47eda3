#!/usr/bin/env bash
# A PDB whose atom has two alternate locations has four atoms in MDAnalysis and ASE and three in mdtraj and OpenMM,
# and these two keep location A even where it is the rarer one.
#
# Column 17 of an ATOM record names the alternate location, and the occupancy says how often each is there (wwPDB format
# 3.3, ATOM). One would expect one reading in all four, or the location with the higher occupancy where one is dropped.
# MDAnalysis and ASE keep A and B as two atoms, 1 Å apart. mdtraj and OpenMM drop B, here with an occupancy of 0.7, for
# A with 0.3. Nothing is logged. A topology read by one and a trajectory written by another then differ in their number
# of atoms; where both locations stay, a bead is counted twice in Rg and in distances.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check MDAnalysis==2.11.0 mdtraj==1.11.1.post2 ase==3.29.0 openmm==8.6.1
cd "$folder"
cat > chain.pdb <<'PDB'
ATOM      1  CA  ALA A   1       0.000   0.000   0.000  1.00  0.00           C
ATOM      2  CA AALA A   2       3.800   0.000   0.000  0.30  0.00           C
ATOM      3  CA BALA A   2       3.800   1.000   0.000  0.70  0.00           C
ATOM      4  CA  ALA A   3       7.600   0.000   0.000  1.00  0.00           C
END
PDB
venv/bin/python -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import ase.io
import MDAnalysis
import mdtraj
import numpy as np
from openmm import app, unit

for package in ("MDAnalysis", "mdtraj", "ase", "openmm"):
    print(package, importlib.metadata.version(package))
found = {
    "MDAnalysis": MDAnalysis.Universe("chain.pdb").atoms.positions,
    "ASE": ase.io.read("chain.pdb").positions,
    "mdtraj": 10 * mdtraj.load("chain.pdb").xyz[0],
    "OpenMM": app.PDBFile("chain.pdb").getPositions(asNumpy=True).value_in_unit(unit.angstrom),
}
for reader, positions in found.items():
    print(f"{reader:10s} {len(positions)} atoms, y of the second and third", np.round(positions[1:3, 1], 3).tolist())
same = [len(positions) for positions in found.values()] == [4, 4, 3, 3]
sys.exit(not (same and all(np.allclose(found[reader][1, 1], 0) for reader in ("mdtraj", "OpenMM"))))
PYTHON

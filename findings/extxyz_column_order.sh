#!/usr/bin/env bash
# MDAnalysis and mdtraj take the forces of an extended XYZ for the positions where the forces come first.
#
# The comment line of extended XYZ names the columns: `Properties=species:S:1:forces:R:3:pos:R:3` puts the positions
# behind the forces, which the format allows (https://github.com/libAtoms/extxyz#extended-xyz-specification). ASE reads
# them by name. MDAnalysis and mdtraj pass over the line and take the three columns behind the element, without a
# warning; mdtraj divides them by ten besides, from Å to nm. One would expect the columns to be honoured, or the file to be
# refused, as both do where a column of ids comes first. Distances, Rg and every CV are then those of the forces.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check MDAnalysis==2.11.0 mdtraj==1.11.1.post2 ase==3.29.0
cd "$folder"
cat > run.xyz <<'XYZ'
3
Properties=species:S:1:forces:R:3:pos:R:3 pbc="F F F"
C  0.1  0.1  0.1  0.0 0.0 0.0
N -0.2 -0.2 -0.2  1.5 0.0 0.0
O  0.1  0.1  0.1  2.5 1.0 0.0
XYZ
venv/bin/python -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import ase.io
import MDAnalysis
import mdtraj
import numpy as np

for package in ("MDAnalysis", "mdtraj", "ase"):
    print(package, importlib.metadata.version(package))
topology = mdtraj.Topology()
chain = topology.add_chain()
for symbol in "CNO":
    element = mdtraj.element.get_by_symbol(symbol)
    topology.add_atom(symbol, element, topology.add_residue("X", chain))
found = {
    "ASE": ase.io.read("run.xyz").positions,
    "MDAnalysis": MDAnalysis.Universe("run.xyz").atoms.positions,
    "mdtraj": 10 * mdtraj.load("run.xyz", top=topology).xyz[0],
}
print("right, the second atom in Å: [1.5, 0.0, 0.0]")
for reader, positions in found.items():
    print(f"{reader:10s}", np.round(positions[1], 4).tolist())
wrong = all(np.allclose(found[reader][1], -0.2, atol=1e-6) for reader in ("MDAnalysis", "mdtraj"))
sys.exit(not (wrong and np.allclose(found["ASE"][1], [1.5, 0, 0])))
PYTHON

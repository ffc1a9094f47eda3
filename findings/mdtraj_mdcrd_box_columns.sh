#!/usr/bin/env bash
# mdtraj writes AMBER's MDCRD with box lines that are wider than the format: MDAnalysis refuses the file.
#
# Numbers of an AMBER coordinate file (mdcrd, crd) stand in columns of eight characters, F8.3, ten on a line; the three
# box lengths after each frame, too (AMBER's documentation of file formats, section trajectory). mdtraj writes the box
# with a blank after each column, so that the third length begins a character late, and is cut for a reader that keeps
# to the columns. One expects a file that one library saves to be read by the other; what happens is an error of column
# 16 to 24 as soon as the lengths have two digits before the point. Boxes of less than 10 angstrom shift in silence.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mdtraj==1.11.1.post2 MDAnalysis==2.11.0
cd "$folder"
venv/bin/python - <<'PYTHON'
import importlib.metadata
import sys

import mdtraj
import MDAnalysis
import numpy as np

for package in ("mdtraj", "MDAnalysis"):
    print(package, importlib.metadata.version(package))
topology = mdtraj.Topology()
chain = topology.add_chain()
for _ in range(5):
    topology.add_atom("C", mdtraj.element.carbon, topology.add_residue("MOL", chain))
x = np.random.default_rng(0).uniform(0, 2, size=(3, 5, 3))
traj = mdtraj.Trajectory(x, topology)
traj.unitcell_vectors = np.tile(np.diag([2.1, 2.2, 2.3]), (3, 1, 1))
traj.save("run.mdcrd")
line = open("run.mdcrd").read().splitlines()[3]
print(f"box line: {line!r}, {len(line)} characters; of F8.3 it would be {''.join(f'{v:8.3f}' for v in (21, 22, 23))!r}")
print("mdtraj reads the box", mdtraj.load("run.mdcrd", top=topology).unitcell_lengths[0].tolist(), "nm")
universe = MDAnalysis.Universe.empty(5)
try:
    universe.load_new("run.mdcrd")
    refused = ""
except (OSError, TypeError, ValueError) as error:
    refused = f"{type(error).__name__}: {error}; cause: {error.__context__}"
print("MDAnalysis:", refused or "reads it")
sys.exit(not (len(line) == 26 and "16,24" in refused))
PYTHON

#!/usr/bin/env bash
# mdtraj cannot read an XYZ file that MDAnalysis writes.
#
# MDAnalysis ends an XYZ with a blank line. mdtraj takes it for the head of another frame and stops with "invalid literal
# for int()", for a file of one frame as for one of many; without the last character of the file it reads all. Other
# readers (ASE, MDAnalysis itself) pass over the line. One expects two libraries of the same field to exchange their
# simplest format, and an error to name the file's line.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mdtraj==1.11.1.post2 MDAnalysis==2.11.0
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import MDAnalysis
import mdtraj
import numpy as np

for package in ("MDAnalysis", "mdtraj"):
    print(package, importlib.metadata.version(package))
topology = mdtraj.Topology()
chain = topology.add_chain()
for _ in range(2):
    topology.add_atom("C", mdtraj.element.carbon, topology.add_residue("MOL", chain))


def read(name):
    try:
        return f"{mdtraj.load(name, top=topology).n_frames} frames"
    except ValueError as error:
        return f"refused: {error}"


found = []
for n_frames in (1, 3):
    universe = MDAnalysis.Universe.empty(2, trajectory=True)
    universe.add_TopologyAttr("names", ["C", "C"])
    universe.load_new(np.ones((n_frames, 2, 3), "f4"))
    universe.atoms.write("run.xyz", frames="all")
    text = open("run.xyz").read()
    with open("cut.xyz", "w") as file:
        file.write(text[:-1])
    found += [read("run.xyz"), read("cut.xyz")]
    print(f"written: {n_frames}; the end: {text[-9:]!r}; mdtraj: {found[-2]}; less the last character: {found[-1]}")
sys.exit(not ("refused" in found[0] and "refused" in found[2] and found[1::2] == ["1 frames", "3 frames"]))
PYTHON

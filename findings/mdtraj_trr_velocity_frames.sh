#!/usr/bin/env bash
# mdtraj: frames of a TRR that hold velocities alone come as frames of coordinates.
#
# GROMACS writes such frames whenever nstvout is smaller than nstxout: each frame of a TRR says which of positions,
# velocities and forces it holds. One expects a reader of coordinates to skip a frame without them, or to say so.
# mdtraj.load gives a frame for each, with its time, and as coordinates whatever the memory of the array held before:
# often zeros or numbers such as 1e-41, and other ones at each call. Nothing is logged. A mean over such a trajectory,
# or a model trained on it, is wrong in silence; here half of the frames are. MDAnalysis raises NoDataError where the
# positions of such a frame are asked for.
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
from MDAnalysis.exceptions import NoDataError
from MDAnalysis.lib.formats.libmdaxdr import TRRFile

for package in ("mdtraj", "MDAnalysis", "numpy"):
    print(package, importlib.metadata.version(package))

n_atoms, stored = 4, []
with TRRFile("run.trr", "w") as file:
    for k in range(6):
        positions = np.full((n_atoms, 3), 1.0 + k, "f4") if k % 2 == 0 else None
        velocities = np.full((n_atoms, 3), 0.1, "f4")
        box = 10 * np.eye(3, dtype="f4")
        file.write(positions, velocities, None, box, k, float(k), 0.0, n_atoms)
        if positions is not None:
            stored.append(float(positions[0, 0]))

topology = mdtraj.Topology()
chain = topology.add_chain()
for _ in range(n_atoms):
    topology.add_atom("C", mdtraj.element.carbon, topology.add_residue("MOL", chain))
traj = mdtraj.load("run.trr", top=topology)
print("frames with positions in the file:", len(stored), "of 6; x of their first atom:", stored)
print("frames that mdtraj gives:", traj.n_frames, "; x of their first atom:", traj.xyz[:, 0, 0].tolist())

universe = MDAnalysis.Universe.empty(n_atoms)
try:
    universe.load_new("run.trr")
    refused = "no"
    for ts in universe.trajectory:
        ts.positions
except NoDataError as error:
    refused = str(error)
print("MDAnalysis refuses:", refused)
sys.exit(not (traj.n_frames == 6 and refused != "no"))
PYTHON

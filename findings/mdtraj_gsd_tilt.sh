#!/usr/bin/env bash
# mdtraj does not read back the tilted box, nor the times, that it saves as GSD.
#
# Tilts in HOOMD's schema are without unit: the second vector is (xy Ly, Ly, 0) (documentation of gsd,
# configuration/box). mdtraj writes LAMMPS' tilts, which are lengths: 0.5 nm for 5 / 22. Its own reader keeps to the
# schema, so that save and load give another box, of which lengths and angles differ, with the same volume. Every frame
# is written with step 0, too, and the step is what comes back as time: all times are 0. Nothing is logged. One expects
# a round trip within one library to keep both. The tilts of a file made by gsd itself are read correctly.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mdtraj==1.11.1.post2 gsd==5.0.1
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import gsd.hoomd
import mdtraj
import numpy as np

for package in ("mdtraj", "gsd"):
    print(package, importlib.metadata.version(package))
topology = mdtraj.Topology()
chain = topology.add_chain()
for _ in range(3):
    topology.add_atom("C", mdtraj.element.carbon, topology.add_residue("MOL", chain))
traj = mdtraj.Trajectory(np.ones((3, 3, 3)), topology, time=[0.0, 2.0, 4.0])
traj.unitcell_vectors = np.array([[[2.0, 0, 0], [0.5, 2.2, 0], [-0.3, 0.4, 2.4]]] * 3)
traj.save("run.gsd")
with gsd.hoomd.open("run.gsd") as file:
    stored = file[1].configuration.box
    steps = [int(frame.configuration.step) for frame in file]
again = mdtraj.load("run.gsd", top=topology)
right = np.round([0.5 / 2.2, -0.3 / 2.4, 0.4 / 2.4], 4).tolist()
print("tilts of the box:", right, "; saved:", np.round(stored[3:].astype(float), 4).tolist())
for name, t in (("saved ", traj), ("loaded", again)):
    lengths, angles = t.unitcell_lengths[1], t.unitcell_angles[1]
    print(name, "lengths", np.round(lengths, 3).tolist(), "angles", np.round(angles, 2).tolist(), "times", t.time.tolist())
wrong = np.allclose(stored[3:], [0.5, -0.3, 0.4], atol=1e-4)
wrong = wrong and not np.allclose(again.unitcell_angles, traj.unitcell_angles, atol=1)
sys.exit(not (wrong and steps == [0, 0, 0] and again.time.tolist() == [0, 0, 0]))
PYTHON

#!/usr/bin/env bash
# chemfiles gives the times of a DCD in CHARMM's own unit, and those of an XTC in ps, under one name.
#
# A DCD holds its time step in the unit of CHARMM, 48.888 fs (AKMA). MDAnalysis writes and reads it as ps with this
# factor. chemfiles keeps the time of a frame as its property "time"; for XTC it is in ps. For DCD it is the number of
# the header, not converted: frames that are 0.5 ps apart are 10.23 apart. One expects one unit for one property. The
# same run, stored in two formats, has relaxation times that differ by a factor of 20. Nothing is logged.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check chemfiles==0.10.4 MDAnalysis==2.11.0
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import chemfiles
import MDAnalysis
import numpy as np

for package in ("chemfiles", "MDAnalysis"):
    print(package, importlib.metadata.version(package))
universe = MDAnalysis.Universe.empty(4, trajectory=True)
universe.load_new(np.ones((3, 4, 3), "f4"), dt=0.5, dimensions=np.array([[20, 20, 20, 90, 90, 90]] * 3))
found = {}
for name in ("run.xtc", "run.dcd"):
    with MDAnalysis.Writer(name, 4, dt=0.5) as file:
        for _ in universe.trajectory:
            file.write(universe.atoms)
    again = MDAnalysis.Universe.empty(4)
    again.load_new(name)
    with chemfiles.Trajectory(name) as file:
        found[name] = [frame["time"] for frame in file]
    print(name, "chemfiles:", np.round(found[name], 3).tolist(), "; MDAnalysis: dt", round(again.trajectory.dt, 4), "ps")
akma = 0.04888821  # ps
right = np.allclose(found["run.xtc"], [0, 0.5, 1])
sys.exit(not (right and np.allclose(found["run.dcd"], np.array([0, 0.5, 1]) / akma, rtol=1e-4)))
PYTHON

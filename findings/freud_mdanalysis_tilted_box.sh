#!/usr/bin/env bash
# freud transposes the box of an MDAnalysis time step: every tilted box comes out as another one.
#
# freud takes data of other libraries by `NeighborQuery.from_system`, and lists MDAnalysis among them. It hands the 3x3
# matrix of MDAnalysis, whose rows are the box vectors, to a constructor whose columns are. Nothing is logged. For a
# box with right angles the two agree; for a tilted one lengths and tilts are wrong, and with them all neighbours across
# a face. One expects the box of the file. Here two atoms that are neighbours through a face are 1 angstrom apart.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check freud-analysis==3.4.0 MDAnalysis==2.11.0
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import freud
import MDAnalysis
import numpy as np
from MDAnalysis.lib.mdamath import triclinic_box

for package in ("freud-analysis", "MDAnalysis"):
    print(package, importlib.metadata.version(package))
vectors = np.array([[20.0, 0, 0], [5, 22, 0], [-3, 4, 24]])
positions = np.array([[2.0, 2, 2], [2, 2, 2] + vectors.sum(0) - [1, 0, 0]], "f4")
universe = MDAnalysis.Universe.empty(2, trajectory=True)
universe.load_new(positions[None], dimensions=triclinic_box(*vectors)[None])
found = freud.locality.AABBQuery.from_system(universe.trajectory.ts).box
right = freud.box.Box(20, 22, 24, 5 / 22, -3 / 24, 4 / 24)
transposed = freud.box.Box.from_matrix(vectors)
pair = positions[:1], positions[1:]
for name, box in (("right", right), ("from_system", found), ("rows taken for columns", transposed)):
    numbers = np.round([box.Lx, box.Ly, box.Lz, box.xy, box.xz, box.yz], 4).tolist()
    print(f"{name:23s}", numbers, "distance", round(float(box.compute_distances(*pair)[0]), 3))
same = np.allclose(found.to_matrix(), transposed.to_matrix(), atol=1e-4)
sys.exit(not (same and not np.allclose(found.to_matrix(), right.to_matrix(), atol=0.1)))
PYTHON

#!/usr/bin/env bash
# MDAnalysis takes the tilt factors of a GSD box for cosines of its angles.
#
# The schema of HOOMD-blue's GSD files has six numbers for a box: Lx, Ly, Lz and the tilt factors xy, xz, yz. Its
# vectors are (Lx, 0, 0), (xy Ly, Ly, 0) and (xz Lz, yz Lz, Lz), so that |b| = Ly sqrt(1 + xy^2) and cos(gamma) =
# xy / sqrt(1 + xy^2) (documentation of gsd, HOOMD schema, configuration/box). MDAnalysis takes Lx, Ly, Lz for the
# lengths of the vectors, and the arc cosines of xy, xz, yz, in this order, for alpha, beta, gamma. Lengths and angles
# are wrong for every tilted box, and the angles stand in reverse order, too. The volume comes out wrong, distances
# under periodic boundaries as well, and for a tilt above 1 the angles are not a number.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check MDAnalysis==2.11.0 gsd==5.0.1
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import gsd.hoomd
import MDAnalysis
import numpy as np

for package in ("MDAnalysis", "gsd"):
    print(package, importlib.metadata.version(package))
frame = gsd.hoomd.Frame()
frame.particles.N, frame.particles.types = 2, ["A"]
frame.particles.position = [[0, 0, 0], [1, 1, 1]]
frame.configuration.box = [10, 12, 14, 0.5, 0.2, -0.3]
with gsd.hoomd.open("run.gsd", "w") as file:
    file.append(frame)
vectors = np.array([[10, 0, 0], [0.5 * 12, 12, 0], [0.2 * 14, -0.3 * 14, 14]])
lengths = np.linalg.norm(vectors, axis=1)
pairs = ((1, 2), (0, 2), (0, 1))
angles = [np.degrees(np.arccos(vectors[a] @ vectors[b] / lengths[a] / lengths[b])) for a, b in pairs]
universe = MDAnalysis.Universe("run.gsd")
found = universe.dimensions
print("right:     ", np.round([*lengths, *angles], 3).tolist(), "volume", 10 * 12 * 14)
print("MDAnalysis:", np.round(found, 3).tolist(), "volume", round(float(universe.trajectory.ts.volume), 1))
as_cosines = np.degrees(np.arccos([0.5, 0.2, -0.3]))
same = np.allclose(found, [10, 12, 14, *as_cosines], atol=1e-3)
print("lengths Lx, Ly, Lz, and angles that are arc cosines of the tilts:", same)
sys.exit(not same)
PYTHON

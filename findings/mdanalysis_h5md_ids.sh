#!/usr/bin/env bash
# MDAnalysis gives the particles of an H5MD file in the order of each frame, whatever ids the file holds.
#
# H5MD lets a program store particles in another order in every frame, as parallel codes like to, with an element `id`
# beside `position` that says which is which (H5MD 1.1, particles group). One expects a reader to put them in the order
# of their ids, as MDAnalysis does for LAMMPS dumps, or to say that it does not. MDAnalysis reads positions in the
# order of the rows, drops the ids (neither an attribute nor `ts.data` has them) and logs nothing: atom 1 of one frame
# is another particle in the next, and every trajectory of a particle, bond length and RMSD is of a mixture.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check MDAnalysis==2.11.0 h5py==3.16.0
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import h5py
import MDAnalysis
import numpy as np

for package in ("MDAnalysis", "h5py"):
    print(package, importlib.metadata.version(package))


def element(group, name, values):
    item = group.create_group(name)
    item["value"], item["step"], item["time"] = values, np.arange(len(values)), np.arange(len(values), dtype=float)
    item["time"].attrs["unit"] = "ps"
    return item


order = np.array([[0, 1, 2], [2, 0, 1], [1, 2, 0]])
x = np.arange(3)[:, None] * np.array([1.0, 0.0, 0.0])  # particle k stands at x = k nm in all frames
with h5py.File("run.h5md", "w") as file:
    head = file.create_group("h5md")
    head.attrs["version"] = [1, 1]
    head.create_group("author").attrs["name"] = "a"
    creator = head.create_group("creator")
    creator.attrs["name"], creator.attrs["version"] = "a", "1"
    group = file.create_group("particles/all")
    element(group, "position", np.array([x[o] for o in order]))["value"].attrs["unit"] = "nm"
    element(group, "id", order + 1)
    box = group.create_group("box")
    box.attrs["dimension"], box.attrs["boundary"] = 3, np.array(["none"] * 3, "S8")
universe = MDAnalysis.Universe.empty(3)
universe.load_new("run.h5md")
found = [(ts.positions[:, 0] / 10).round(3).tolist() for ts in universe.trajectory]
print("right: x of particles 1, 2, 3 in nm is 0, 1, 2 in every frame")
print("MDAnalysis:", found, "; kept beside them:", sorted(universe.trajectory.ts.data))
sys.exit(not (found == order.tolist() and "id" not in universe.trajectory.ts.data))
PYTHON

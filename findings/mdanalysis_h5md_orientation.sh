#!/usr/bin/env bash
# MDAnalysis turns the box of an H5MD file, and leaves its atoms where they are.
#
# `edges` of H5MD are three vectors in any direction (H5MD 1.1, simulation box). MDAnalysis keeps a box as three lengths
# and three angles, and makes vectors of them with the first along x. A file whose first vector lies elsewhere, as those
# of crystals in a general cell, then has a turned box around atoms that were not turned. One expects the atoms to be
# turned as well, as ASE does where it writes PDB, or a refusal. Distances across a face are wrong: two atoms that are
# 1 angstrom apart are 8.5 angstrom apart here. Nothing is logged.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check MDAnalysis==2.11.0 h5py==3.16.0
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import importlib.metadata
import itertools
import sys

import h5py
import MDAnalysis
import numpy as np
from MDAnalysis.lib.distances import calc_bonds

for package in ("MDAnalysis", "h5py"):
    print(package, importlib.metadata.version(package))


def element(group, name, values):
    item = group.create_group(name)
    item["value"], item["step"], item["time"] = values, np.arange(len(values)), np.arange(len(values), dtype=float)
    item["value"].attrs["unit"], item["time"].attrs["unit"] = "nm", "ps"


vectors = np.array([[0, 3.0, 0], [0, 0.6, 3.5], [4.0, 0, 0]])
x = np.array([[0, 0, 0], [0, 2.9, 0]])
with h5py.File("run.h5md", "w") as file:
    head = file.create_group("h5md")
    head.attrs["version"] = [1, 1]
    head.create_group("author").attrs["name"] = "a"
    creator = head.create_group("creator")
    creator.attrs["name"], creator.attrs["version"] = "a", "1"
    group = file.create_group("particles/all")
    element(group, "position", x[None])
    box = group.create_group("box")
    box.attrs["dimension"], box.attrs["boundary"] = 3, np.array(["periodic"] * 3, "S8")
    element(box, "edges", vectors[None])
universe = MDAnalysis.Universe.empty(2)
universe.load_new("run.h5md")
first, second = universe.atoms.positions
found = float(calc_bonds(first, second, box=universe.dimensions))
images = np.array(list(itertools.product((-1, 0, 1), repeat=3))) @ vectors
right = 10 * np.linalg.norm(x[1] - x[0] + images, axis=1).min()
print("edges in angstrom: ", (10 * vectors).tolist())
print("MDAnalysis' vectors:", np.round(universe.trajectory.ts.triclinic_dimensions, 3).tolist())
print(f"distance of the atoms: right {right:.3f}, MDAnalysis {found:.3f} angstrom")
sys.exit(not (abs(right - 1) < 1e-6 and abs(found - 8.485) < 0.01 and np.allclose(second, [0, 29, 0])))
PYTHON

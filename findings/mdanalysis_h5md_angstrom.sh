#!/usr/bin/env bash
# MDAnalysis does not know "Ang", the ångström of H5MD's own module of units, and takes "A", its ampere, for one.
#
# The module `units` of H5MD (version 1.0) gives the symbols that the attribute `unit` may hold: "nm" is a nanometre by
# prefix, an ångström is "Ang", and "A" is the ampere. MDAnalysis knows "Angstrom", "angstrom", "A" and "nm" alone. A
# file that keeps to the module is refused ("length unit 'Ang' is not recognized"), and MDAnalysis' own writer puts
# "Angstrom" into files, which no reader that keeps to the module knows. One expects the two to meet in the spelling
# that the module defines.
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
found = {}
for unit in ("nm", "Ang", "A", "Angstrom"):
    with h5py.File(f"{unit}.h5md", "w") as file:
        head = file.create_group("h5md")
        head.attrs["version"] = [1, 1]
        head.create_group("author").attrs["name"] = "a"
        creator = head.create_group("creator")
        creator.attrs["name"], creator.attrs["version"] = "a", "1"
        modules = head.create_group("modules/units")
        modules.attrs["version"], modules.attrs["system"] = [1, 0], "SI"
        position = file.create_group("particles/all/position")
        position["value"], position["step"], position["time"] = np.ones((2, 3, 3)), [0, 1], [0.0, 1.0]
        position["value"].attrs["unit"], position["time"].attrs["unit"] = unit, "ps"
        box = file.create_group("particles/all/box")
        box.attrs["dimension"], box.attrs["boundary"] = 3, np.array(["none"] * 3, "S8")
    try:
        universe = MDAnalysis.Universe.empty(3)
        universe.load_new(f"{unit}.h5md")
        found[unit] = f"{universe.atoms.positions[0, 0]:g} A"
    except (RuntimeError, OSError, ValueError) as error:
        found[unit] = f"refused: {error}"
    print(f"1 {unit:8s} -> {found[unit]}")
right = found["nm"] == "10 A" and found["A"] == found["Angstrom"] == "1 A" and "not recognized" in found["Ang"]
sys.exit(not right)
PYTHON

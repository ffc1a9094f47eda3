#!/usr/bin/env bash
# OpenMM's quantities lose their unit in functions of numpy, without an error.
#
# The package openmm.unit is there so that 3 angstrom are never taken for 3 nm. An array times a unit is a Quantity, and
# its operators and methods (mean, sum, max) keep the unit. Functions of numpy that have no such method to call make a
# plain array of its bare numbers instead: concatenate, stack, sqrt, linalg.norm. OpenMM takes bare numbers for nm, so
# that positions put together from two parts in angstrom are ten times too large in the context, and a distance is a
# number in whatever unit the array had. One expects a Quantity or an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openmm==8.6.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import numpy as np
import openmm
from openmm import unit

for package in ("openmm", "numpy"):
    print(package, importlib.metadata.version(package))
part = np.array([[1.0, 2.0, 2.0]]) * unit.angstrom
both = np.concatenate([part, 2 * part])
system = openmm.System()
for _ in range(2):
    system.addParticle(1.0)
context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
context.setPositions(both)
x = context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
print("two parts at x = 1 and 2 angstrom: in the context", x[:, 0].tolist(), "nm")
results = {
    "np.concatenate": both,
    "np.stack": np.stack([part, part]),
    "np.sqrt": np.sqrt(part),
    "np.linalg.norm": np.linalg.norm(part),
    "np.mean": np.mean(part),
    "np.sum": np.sum(part),
}
kept = {name: unit.is_quantity(value) for name, value in results.items()}
for name, value in results.items():
    print(f"{name:15s} unit kept: {kept[name]}, {np.asarray(value).ravel().tolist()}")
lost = [name for name, keeps in kept.items() if not keeps]
sys.exit(not (lost == list(results)[:4] and x[:, 0].tolist() == [1.0, 2.0]))
PYTHON

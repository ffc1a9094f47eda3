#!/usr/bin/env bash
# One CRYST1 before all models of a PDB, as OpenMM's PDBReporter writes it: three readers, three boxes.
#
# The PDB format has CRYST1 once in a file (wwPDB format 3.3, crystallographic section), and OpenMM's PDBReporter
# writes trajectories so: CRYST1, then MODEL after MODEL. One expects the box to hold for every model. mdtraj gives it
# to all frames; ASE to the first alone, with a cell of zeros for the others (and gives an image without atoms for the
# line END); MDAnalysis to none, not even to the first: its dimensions are None. Distances under periodic boundaries
# differ accordingly, with nothing logged.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    openmm==8.6.1 MDAnalysis==2.11.0 mdtraj==1.11.1.post2 ase==3.29.0
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import ase.io
import MDAnalysis
import mdtraj
import numpy as np
import openmm
from openmm import app, unit

for package in ("openmm", "MDAnalysis", "mdtraj", "ase"):
    print(package, importlib.metadata.version(package))
system, topology = openmm.System(), app.Topology()
residue = topology.addResidue("MOL", topology.addChain())
for _ in range(3):
    system.addParticle(12.0)
    topology.addAtom("C", app.Element.getBySymbol("C"), residue)
system.setDefaultPeriodicBoxVectors(*(3 * np.eye(3)))
topology.setPeriodicBoxVectors(3 * np.eye(3) * unit.nanometer)
platform = openmm.Platform.getPlatformByName("Reference")
simulation = app.Simulation(topology, system, openmm.VerletIntegrator(0.001), platform)
simulation.context.setPositions(np.eye(3))
simulation.reporters = [app.PDBReporter("run.pdb", 1)]
simulation.step(3)
del simulation
heads = [line[:6].strip() for line in open("run.pdb") if line.startswith(("CRYST1", "MODEL"))]
found = {
    "mdtraj": [box.tolist() for box in mdtraj.load("run.pdb").unitcell_lengths * 10],
    "ASE": [atoms.cell.lengths().tolist() for atoms in ase.io.read("run.pdb", index=":") if len(atoms)],
    "MDAnalysis": [ts.dimensions for ts in MDAnalysis.Universe("run.pdb").trajectory],
}
print("records:", " ".join(heads))
for name, boxes in found.items():
    print(f"{name:11s} box lengths in A:", boxes)
box, none = [30.0] * 3, [0.0] * 3
right = found["ASE"] == [box, none, none] and found["MDAnalysis"] == [None] * 3
sys.exit(not (right and np.allclose(found["mdtraj"], [box] * 3)))
PYTHON

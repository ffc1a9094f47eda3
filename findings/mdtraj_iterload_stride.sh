#!/usr/bin/env bash
# mdtraj.iterload with chunk=0 forgets the stride of an XTC.
#
# `chunk` is the number of frames of a fragment, and 0 means all at once (docstring of iterload). One expects `stride` to
# hold there, too, as it does in `load`. All frames come, each with its right time, so that lags counted in frames are
# shorter by the stride, and memory is larger by it. Nothing is logged. `skip` is heeded.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mdtraj==1.11.1.post2
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import mdtraj
import numpy as np

print("mdtraj", importlib.metadata.version("mdtraj"))
topology = mdtraj.Topology()
chain = topology.add_chain()
for _ in range(4):
    topology.add_atom("C", mdtraj.element.carbon, topology.add_residue("MOL", chain))
times = np.arange(10.0)
mdtraj.Trajectory(np.ones((10, 4, 3)), topology, time=times).save("run.xtc")
loaded = mdtraj.load("run.xtc", top=topology, stride=2).time.tolist()
found = [part.time.tolist() for part in mdtraj.iterload("run.xtc", top=topology, chunk=0, stride=2, skip=1)]
print("load, stride=2:                     ", loaded)
print("iterload, chunk=0, stride=2, skip=1:", *found)
sys.exit(not (loaded == times[::2].tolist() and found == [times[1:].tolist()]))
PYTHON

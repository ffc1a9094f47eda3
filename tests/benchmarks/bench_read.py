"""Reading a 12-bead XTC takes at most 1.15 times `mdtraj.load`, a DCD at most 0.15 times; a text dump of LAMMPS an
eighth of MDAnalysis.

Random walks, seed 0, in one process, functions taking turns; medians of the ratios of each round.
Run: python tests/benchmarks/bench_read.py [frames] [rounds]
"""

import pathlib
import sys
import tempfile
import warnings

import MDAnalysis
import mdtraj
from common import print_ratios, side_by_side, write_files

import polyvae as pv


def main(n_frames: int = 200_000, rounds: int = 7) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_files(folder, n_frames)
        top = mdtraj.load(str(folder / "run.pdb")).topology
        for suffix, claim in (("xtc", "at most 1.15"), ("dcd", "at most 0.15")):
            path = folder / f"run.{suffix}"

            def iterate(path=path):
                for ts in MDAnalysis.Universe(str(folder / "run.pdb"), str(path)).trajectory:
                    ts.positions.copy()

            functions = {
                "mdtraj.load": lambda path=path: mdtraj.load(str(path), top=top),
                "pv.read": lambda path=path: pv.read(path, length_unit="nm"),
            }
            seconds = side_by_side(functions, rounds)
            print_ratios(f"{suffix}, {n_frames} frames", seconds, "mdtraj.load", claim)
            seconds = side_by_side({"pv.read": functions["pv.read"], "MDAnalysis, frame by frame": iterate}, 1)
            print_ratios("", seconds, "pv.read", "one round")
        print_dump(folder, min(n_frames, 50_000))


def print_dump(folder: pathlib.Path, n_frames: int) -> None:
    """A dump of text beside MDAnalysis, frame by frame."""
    path = folder / "run.lammpstrj"
    frames = pv.read(folder / "run.dcd", length_unit="nm", stop=n_frames).positions
    head = (
        "ITEM: NUMBER OF ATOMS\n12\nITEM: BOX BOUNDS ff ff ff\n" + 3 * "-99 99\n" + "ITEM: ATOMS id type x y z\n"
    )
    with path.open("w") as file:
        for k, frame in enumerate(frames):
            rows = "".join(f"{i + 1} 1 {x:g} {y:g} {z:g} \n" for i, (x, y, z) in enumerate(frame))
            file.write(f"ITEM: TIMESTEP\n{k}\n{head}{rows}")

    def iterate() -> None:
        universe = MDAnalysis.Universe(str(folder / "run.pdb"), str(path), format="LAMMPSDUMP")
        for ts in universe.trajectory:
            ts.positions.copy()

    functions = {"pv.read": lambda: pv.read(path), "MDAnalysis, frame by frame": iterate}
    print_ratios(f"dump, {n_frames} frames", side_by_side(functions, 3), "pv.read", "at least 8")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

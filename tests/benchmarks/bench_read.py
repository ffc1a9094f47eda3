"""Reading a 12-bead XTC takes at most 1.25 times `mdtraj.load`, a DCD at most 1.0 times.

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
        for suffix, claim in (("xtc", "at most 1.25"), ("dcd", "at most 1.0")):
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


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""`polyvae project` of a 12-bead XTC reaches at least a third of the bare read's frames per second.

Read, featurize, encode and write COLVAR in chunks, against `pv.read` alone; random walks, seed 0, the default
encoder, untrained (its speed does not depend on the weights). Compilation is done once before.
Run: python tests/benchmarks/bench_project.py [frames] [rounds]
"""

import pathlib
import sys
import tempfile

from common import print_ratios, side_by_side, write_files

import polyvae as pv


def main(n_frames: int = 200_000, rounds: int = 7) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_files(folder, n_frames)
        path = folder / "run.xtc"
        cv = pv.fit(pv.read(path, stop=2000, length_unit="nm"), epochs=1)
        traj = pv.read(path, length_unit="nm")
        z = cv.transform(traj)

        def project() -> None:
            pv.project(cv, pv.stream(path, length_unit="nm"), folder / "COLVAR")

        project()
        functions = {
            "pv.read": lambda: pv.read(path, length_unit="nm"),
            "project": project,
            "  of which encoding": lambda: cv.transform(traj),
            "  of which text": lambda: pv.write_colvar(folder / "z", z, time=traj.time),
        }
        seconds = side_by_side(functions, rounds)
        print_ratios(f"xtc, {n_frames} frames", seconds, "pv.read", "project at most 3.0")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

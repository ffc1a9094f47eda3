"""Wall time of the whole command from a cold start, full and --quick, on the three systems.

    python tests/benchmarks/bench_run.py [--runs 3]

Each run is a process of its own, imports and compilation included. The table gives the median and the range of
the runs, and the ratio to reading and projecting alone, which another machine can be held against.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CASES = {
    "chain2d.npz": [ROOT / "data" / "chain2d.npz"],
    "chain3d.xtc": [ROOT / "data" / "chain3d.xtc", "--top", ROOT / "data" / "chain3d.pdb", "--unit", "sigma"],
    "long_paths.npz": [ROOT.parent / "shared" / "seed" / "long_paths.npz"],
}


def seconds(*words) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "polyvae", *map(str, words)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    print(f"{'system':16s}{'command':12s}{'median s':>10s}{'min':>8s}{'max':>8s}{'x project':>11s}")
    for name, words in CASES.items():
        if not words[0].exists():
            print(f"{name:16s}not here")
            continue
        times = {"run": [], "run --quick": [], "project": []}
        with tempfile.TemporaryDirectory() as folder:
            for k in range(runs):
                full = Path(folder) / f"full{k}"
                times["run"].append(seconds("run", *words, "--out", full))
                times["run --quick"].append(seconds("run", *words, "--out", Path(folder) / f"quick{k}", "--quick"))
                model = full / "model.safetensors"
                times["project"].append(seconds("project", model, *words, "--out", Path(folder) / f"COLVAR{k}"))
        base = statistics.median(times["project"])
        for command, values in times.items():
            middle = statistics.median(values)
            print(
                f"{name:16s}{command:12s}{middle:10.1f}{min(values):8.1f}{max(values):8.1f}{middle / base:11.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

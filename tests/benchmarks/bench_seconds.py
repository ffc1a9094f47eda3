"""Seconds and memory of what people wait for, this checkout against an older one.

Each command runs in a process of its own, the two checkouts in turns. The table holds medians: CPU seconds of the
process and its children, wall seconds, peak memory of the process, and their ratios, new to old.

    python tests/benchmarks/bench_seconds.py --old ../old             rows of a few seconds
    python tests/benchmarks/bench_seconds.py --old ../old --all       also the commands of README, minutes each
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
XTC = ["data/chain3d.xtc", "--top", "data/chain3d.pdb", "--unit", "sigma"]


class Row(NamedTuple):
    """Words for Python; where `without` is given, the cost of these is taken off."""

    name: str
    words: list[str]
    without: list[str] | None = None


ROWS = [
    Row("polyvae --version", ["-m", "polyvae", "--version"]),
    Row("polyvae --help", ["-m", "polyvae", "--help"]),
    Row("polyvae run --help", ["-m", "polyvae", "run", "--help"]),
    Row("polyvae info of an XTC", ["-m", "polyvae", "info", *XTC]),
    Row("import polyvae, beyond jax", ["-c", "import jax, polyvae"], ["-c", "import jax"]),
    Row("pv.fit and pv.read, beyond jax", ["-c", "import jax, polyvae as p; p.fit, p.read"], ["-c", "import jax"]),
]
LONG = [
    Row("run chain2d --quick", ["-m", "polyvae", "run", "data/chain2d.npz", "--quick", "--out"]),
    Row("run chain2d", ["-m", "polyvae", "run", "data/chain2d.npz", "--out"]),
]


class Cost(NamedTuple):
    """CPU seconds, wall seconds and peak MB of a process."""

    cpu: float
    wall: float
    memory: float


def cost(words: list[str], checkout: Path) -> Cost:
    """Run Python on the words, with the package of a checkout and a new folder for results and caches."""
    with tempfile.TemporaryDirectory() as folder:
        if words[-1] == "--out":
            words = [*words, f"{folder}/out"]
        surroundings = os.environ | {"PYTHONPATH": str(checkout), "XDG_CACHE_HOME": folder}
        surroundings.pop("JAX_COMPILATION_CACHE_DIR", None)
        start = time.perf_counter()
        # -P: the folder of the data must not come before the checkout on the path of modules.
        child = subprocess.Popen(
            [sys.executable, "-P", *words], cwd=ROOT, env=surroundings, stdout=subprocess.DEVNULL
        )
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{words} failed with {checkout}")
    return Cost(used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024)


def medians(costs: list[Cost]) -> Cost:
    return Cost(*map(statistics.median, zip(*costs, strict=True)))


def measure(row: Row, checkouts: list[Path], repeats: int) -> list[Cost]:
    """Median cost with each checkout, less that of `without`."""
    found: dict[Path, list[Cost]] = {checkout: [] for checkout in checkouts}
    for _ in range(repeats):
        for checkout in checkouts:  # in turns, so that other work on the machine slows both
            spent = cost(row.words, checkout)
            if row.without:
                base = cost(row.without, checkout)
                spent = Cost(spent.cpu - base.cpu, spent.wall - base.wall, spent.memory)
            found[checkout].append(spent)
    return [medians(found[checkout]) for checkout in checkouts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="Folder of the older checkout.")
    parser.add_argument("--repeats", type=int, default=5, help="Runs of each row and checkout.")
    parser.add_argument("--all", action="store_true", help="Measure the commands of minutes, too.")
    chosen = parser.parse_args()
    print(f"{'':32s} {'CPU s':>15s} {'ratio':>6s} {'wall s':>15s} {'ratio':>6s} {'peak MB':>13s} {'ratio':>6s}")
    for row in ROWS + LONG * chosen.all:
        old, new = measure(row, [chosen.old.resolve(), ROOT], chosen.repeats)
        cells = [f"{a:6.2f} -> {b:5.2f} {b / a:6.2f}" for a, b in zip(old[:2], new[:2], strict=True)]
        memory = f"{old.memory:5.0f} -> {new.memory:4.0f} {new.memory / old.memory:6.2f}"
        print(f"{row.name:32s} {' '.join(cells)} {memory}", flush=True)


if __name__ == "__main__":
    main()

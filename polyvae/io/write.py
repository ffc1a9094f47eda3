"""Writing trajectories: npz by NumPy, XTC, DCD and PDB by MDAnalysis, GRO by mdtraj. Files appear whole or not."""

import dataclasses
import logging
import os
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np

from polyvae.errors import InputError
from polyvae.files import check_output, replacing
from polyvae.io.dcd import AKMA_PS, DcdFile
from polyvae.io.frames import DamagedError
from polyvae.io.xtc import XtcFile
from polyvae.molecules import lengths_and_angles
from polyvae.sources import as_trajectory
from polyvae.trajectory import Trajectory, chain_bonds

log = logging.getLogger(__name__)

# One sigma stands for one nm, hence 10 Å, in formats that know physical units only; DCD, which reduced-unit
# engines write too, holds the bare number.
_TO_NM = {"nm": 1.0, "angstrom": 0.1, "sigma": 1.0}
_TO_DCD = {"nm": 10.0, "angstrom": 1.0, "sigma": 1.0}
_XTC_PRECISION, _XTC_LARGEST = 1e5, 2**31 - 1024  # coordinates are stored as 32-bit integers


def write(path: str | os.PathLike, traj: Trajectory, *, topology: bool = True) -> list[Path]:
    """Write a trajectory in the format of the file's suffix, and return the files written.

    .npz keeps everything. .xtc holds nm with 5 decimals, .dcd Å, .gro nm and .pdb Å with 3 decimals, .pdb one
    MODEL a frame. All keep the periodic box; .xtc and .gro the times, .dcd those that are evenly spaced.
    2-D frames get z = 0. Reduced units: 1 sigma is written as 1 nm in XTC and GRO, 10 Å in PDB, and as the
    bare number in DCD; where XTC could not keep 5 decimals of sigma, a DCD is written in its place, which is
    said. Beside an XTC or DCD goes a PDB of its first frame with names and bonds (consecutive beads where
    the trajectory holds no bonds), which viewers load first.

    Args:
        traj: a `Trajectory`, or what `as_trajectory` takes.

    Raises:
        InputError: another suffix, or coordinates that the format cannot hold.
    """
    path, traj = Path(path), as_trajectory(traj)
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise InputError(
            f"{path}: trajectories are written as {', '.join(WRITERS)}; got {path.suffix or 'no suffix'}"
        )
    if suffix == ".xtc" and traj.length_unit == "sigma" and _xtc_precision(traj) < _XTC_PRECISION:
        path, suffix = path.with_suffix(".dcd"), ".dcd"
        log.warning("coordinates are too large for 5 decimals of sigma in XTC; writing %s in its place", path)
    written = [path]
    with replacing(path) as temporary:
        WRITERS[suffix](temporary, traj)
        if suffix in _READ_BACK:
            _check_whole(path, temporary, traj.n_frames)
    if topology and suffix in (".xtc", ".dcd"):
        written.append(path.with_suffix(".pdb"))
        with replacing(written[-1]) as temporary:
            _write_pdb(temporary, _near_origin(traj[0]))
    return written


def check_trajectory_output(path: str | os.PathLike, *, force: bool = False) -> None:
    """`files.check_output` for `write`: also for the topology that goes beside an XTC or DCD, and for the DCD
    that can stand in for an XTC."""
    path = Path(path)
    check_output(path, force=force, suffixes=WRITERS)
    beside = {".xtc": (".pdb", ".dcd"), ".dcd": (".pdb",)}
    for suffix in beside.get(path.suffix.lower(), ()):
        check_output(path.with_suffix(suffix), force=force)


def _check_whole(path: Path, temporary: Path, n_frames: int) -> None:
    """The XTC and DCD writers say nothing where the disk is full: count the frames that are there."""
    try:
        found = _READ_BACK[temporary.suffix.lower()](temporary).n_frames
    except (InputError, DamagedError):
        found = 0
    if found != n_frames:
        raise OSError(f"{path}: not all frames could be written; is the disk full?")


def _near_origin(frame: Trajectory) -> Trajectory:
    """The frame, moved where PDB's few digits could not hold it; as a topology it need not stand in its place."""
    if np.abs(frame.positions).max() * 10 * _TO_NM[frame.length_unit] < 999:
        return frame
    return dataclasses.replace(frame, positions=frame.positions - frame.positions.mean(axis=(0, 1)))


def _spatial(traj: Trajectory, factor: float) -> np.ndarray:
    flat = np.zeros((traj.n_frames, traj.n_beads, 3), np.float32)
    flat[..., : traj.n_dims] = traj.positions * np.float32(factor)
    return flat


def _box(traj: Trajectory, factor: float) -> np.ndarray:
    """Box vectors (n_frames, 3, 3), zeros for none, as the formats have it."""
    if traj.box is None:
        return np.zeros((traj.n_frames, 3, 3), np.float32)
    return traj.box * np.float32(factor)


def _dimensions(traj: Trajectory, factor: float) -> np.ndarray:
    """Lengths and angles (n_frames, 6) of the box; zeros and right angles for none."""
    none = np.tile([0.0, 0, 0, 90, 90, 90], (traj.n_frames, 1))
    return none if traj.box is None else np.concatenate(lengths_and_angles(_box(traj, factor)), axis=1)


def _write_npz(path: Path, traj: Trajectory) -> None:
    arrays = {
        "positions": traj.positions,
        "length_unit": np.array(traj.length_unit),
        "masses": traj.masses,
        "segments": np.array(traj.segments),
    }
    for name in ("time", "bonds", "box", "weights", "origin"):
        if getattr(traj, name) is not None:
            arrays[name] = getattr(traj, name)
    if traj.names is not None:
        arrays["names"] = np.array(traj.names)
    np.savez_compressed(path, **arrays)


def _xtc_precision(traj: Trajectory) -> float:
    largest = float(np.abs(traj.positions).max()) * _TO_NM[traj.length_unit]
    precision = _XTC_PRECISION
    while largest * precision >= _XTC_LARGEST:
        precision /= 10
    return precision


def _write_xtc(path: Path, traj: Trajectory) -> None:
    from MDAnalysis.lib.formats.libmdaxdr import XTCFile

    factor, precision = _TO_NM[traj.length_unit], _xtc_precision(traj)
    time = np.arange(traj.n_frames, dtype=float) if traj.time is None else traj.time
    rows = zip(_spatial(traj, factor), _box(traj, factor), time, strict=True)
    with XTCFile(str(path), "w") as file:
        for k, (frame, box, t) in enumerate(rows):
            file.write(frame, box, k, t, precision)


def _write_dcd(path: Path, traj: Trajectory) -> None:
    from MDAnalysis.lib.formats.libdcd import DCDFile

    delta, every, first = 1.0, 1, 0
    if traj.time is not None and traj.n_frames > 1 and traj.time[1] > traj.time[0]:
        spacing = float(traj.time[1] - traj.time[0])
        # The header holds step numbers and the length of a step; the first frame need not be at a multiple.
        fraction = Fraction(float(traj.time[0]) / spacing).limit_denominator(1000)
        first, every = (fraction.numerator, fraction.denominator) if abs(fraction) < 1e6 else (0, 1)
        delta = spacing / every / (1.0 if traj.length_unit == "sigma" else AKMA_PS)
        if (delta, every) == (1, 1):  # what files say that know no time
            first, every, delta = 2 * first, 2, 0.5
    factor = _TO_DCD[traj.length_unit]
    cells = _dimensions(traj, factor)[:, [0, 5, 1, 4, 3, 2]]  # CHARMM's order
    with DCDFile(str(path), "w") as file:
        file.write_header(
            remarks="polyvae", natoms=traj.n_beads, istart=first, nsavc=every, delta=delta, is_periodic=1
        )
        for frame, cell in zip(_spatial(traj, factor), cells, strict=True):
            file.write(frame, cell)


def _write_gro(path: Path, traj: Trajectory) -> None:
    import mdtraj
    from mdtraj.formats import GroTrajectoryFile

    topology = mdtraj.Topology()
    residue = topology.add_residue("BEA", topology.add_chain())
    for name in traj.names if traj.names is not None else ["B"] * traj.n_beads:
        topology.add_atom(name[:5], mdtraj.element.virtual, residue)
    factor = _TO_NM[traj.length_unit]
    positions = _spatial(traj, factor)
    if not (positions.max() < 9999 and positions.min() > -999):
        raise InputError("GRO cannot hold coordinates below -999 nm or above 9999 nm; write XTC or DCD")
    box = _box(traj, factor)
    if not (box.max() < 999 and box.min() > -99):
        raise InputError("GRO cannot hold a box of 999 nm or more, or tilted by 99 nm or more; write XTC or DCD")
    time = np.arange(traj.n_frames, dtype=float) if traj.time is None else traj.time
    with GroTrajectoryFile(str(path), "w") as file:
        file.write(positions, topology, time=time, unitcell_vectors=box)


def _write_pdb(path: Path, traj: Trajectory) -> None:
    import MDAnalysis
    from MDAnalysis.coordinates.memory import MemoryReader

    n, factor = traj.n_beads, 10 * _TO_NM[traj.length_unit]
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
    dimensions = None if traj.box is None else _dimensions(traj, factor).astype(np.float32)
    universe.load_new(_spatial(traj, factor), format=MemoryReader, dimensions=dimensions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the unit cell, where there is none
        try:
            universe.atoms.write(str(path), frames="all" if traj.n_frames > 1 else None, bonds="conect")
        except ValueError as error:
            raise InputError(f"PDB cannot hold these coordinates ({error}); write XTC or DCD") from None
    if traj.box is None:
        # MDAnalysis makes up a unit cell of 1 Å where there is none, which other readers stumble over.
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not line.startswith(("CRYST1", "REMARK 285"))))


_READ_BACK = {".xtc": XtcFile, ".dcd": DcdFile}
WRITERS = {".npz": _write_npz, ".xtc": _write_xtc, ".dcd": _write_dcd, ".gro": _write_gro, ".pdb": _write_pdb}

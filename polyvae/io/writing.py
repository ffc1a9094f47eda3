"""Writing trajectories: npz by NumPy, XTC, DCD and PDB by MDAnalysis, GRO by mdtraj. Files appear whole or not."""

import contextlib
import dataclasses
import logging
import os
import re
import warnings
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from polyvae import arguments
from polyvae.core.units import AKMA_PS, LENGTHS
from polyvae.errors import InputError
from polyvae.files import check_output, replacing
from polyvae.io.dcd import DcdFile
from polyvae.io.frames import DamagedError
from polyvae.io.heads import scale_note
from polyvae.io.xtc import XtcFile
from polyvae.trajectory.box import is_lower, lengths_and_angles
from polyvae.trajectory.convert import as_trajectory
from polyvae.trajectory.record import Trajectory, chain_bonds

log = logging.getLogger(__name__)

_TO_PDB = {name: 10 * unit.nm for name, unit in LENGTHS.items()}
_TO_DCD = _TO_PDB | {"sigma": 1.0}  # the bare number, as reduced-unit engines write it
_XTC_PRECISION, _XTC_LARGEST = 1e5, 2**31 - 1024  # coordinates are stored as 32-bit integers
_XTC_APART = 2**21  # for the nearest two neighbours of a frame, as a sum over three coordinates
_XTC_BARE = 9  # an XTC of at most 9 beads holds bare floats
_PDB_LOW, _PDB_HIGH, _PDB_BOX = -999.999, 9999.999, 99999.0  # Å that fit into the columns of a PDB
_PDB_BONDED = 99_999  # beads that its bonds can number
# How the PDB beside a file, and the DCD in an XTC's place, are known again.
_TOPOLOGY_TITLE, _STAND_IN_TITLE = "polyvae topology", "polyvae in place of XTC"
_SINGLE = 2.0**-22  # rounding of single precision, with some room


def write(
    path: str | os.PathLike, traj: Trajectory, *, topology: bool = True, replace: bool = False
) -> list[Path]:
    """Write a trajectory in the format of the file's suffix, and return the files written.

    | suffix | lengths | times | names | bonds, masses, segments |
    |---|---|---|---|---|
    | .npz | as they are | all | all | all |
    | .xtc | nm, 5 decimals | rising ones, single precision; else 0, 1, 2, ... | beside | bonds beside |
    | .dcd | Å | evenly spaced ones, single precision | beside | bonds beside |
    | .gro | nm, 3 decimals | rising ones | 5 letters | - |
    | .pdb | Å, 3 decimals, a MODEL for each frame | - | 4 letters | bonds |

    All keep a box that is periodic along all its vectors; npz keeps any. 2-D frames get z = 0. A log line
    reports what a format should hold and cannot: times that it has no place for, such as those that begin anew
    in each segment, which only an npz keeps apart; coordinates so large that an XTC keeps fewer decimals.

    Beside an XTC or DCD goes a PDB of its first frame with names and bonds (consecutive beads where the
    trajectory holds no bonds), which viewers load first. Both files appear or none. Its purpose is the topology: a
    frame that does not fit into PDB's columns is moved, and scaled by tens if need be, which is logged.

    A file at `path` is replaced. Another PDB of that name beside it, such as the topology of the whole system,
    is left as it is, which is logged; one that an earlier `write` put there is replaced.

    Reduced units: 1 sigma is written as 1 nm in XTC and GRO and as 10 Å in PDB, and as the bare number in
    DCD and in the PDB beside a DCD, so that the two agree in a viewer. The PDB's title states it
    ("1 SIGMA = 10 ANGSTROM") for `read`. Where XTC could not keep 5 decimals of sigma, a DCD is
    written in its place, which is logged; only one that was written so is replaced there.

    Args:
        traj: a `Trajectory`, or what `as_trajectory` takes.
        topology: write the PDB beside an XTC or DCD.
        replace: replace any PDB beside it, and a DCD in an XTC's place.

    Raises:
        InputError: another suffix, coordinates that the format cannot hold, or a DCD that would be lost.
    """
    arguments.flag("topology", topology)
    arguments.flag("replace", replace)
    path, traj = Path(arguments.file_name("path", path)), as_trajectory(traj)
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise InputError(
            f"{path}: trajectories are written as {', '.join(WRITERS)}; got {path.suffix or 'no suffix'}"
        )
    writer = WRITERS[suffix]
    if suffix == ".xtc" and traj.length_unit == "sigma" and _xtc_precision(traj) < _XTC_PRECISION:
        path, suffix = path.with_suffix(".dcd"), ".dcd"
        if path.exists() and not (replace or _says(path, _STAND_IN_TITLE)):
            raise InputError(
                f"coordinates are too far apart for 5 decimals of sigma in XTC, and {path} exists already; write "
                f"that file, or another one, as DCD"
            )
        writer = partial(_write_dcd, title=_STAND_IN_TITLE)
        log.warning("coordinates are too far apart for 5 decimals of sigma in XTC; writing %s in its place", path)
    traj, lost = _with_box_for(suffix, traj)
    written = [path]
    # Files take their places once all of them are whole.
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(replacing(path))
        notes = [(path, lost), (path, writer(temporary, traj))]
        if suffix in _READ_BACK:
            _check_whole(path, temporary, traj.n_frames)
        beside = path.with_suffix(".pdb")
        if topology and suffix in _BESIDE and beside.is_file() and not (replace or _says(beside, _TOPOLOGY_TITLE)):
            notes.append(
                (beside, f"exists and is no topology that polyvae wrote, so it stays; none beside {path}")
            )
        elif topology and suffix in _BESIDE:
            written.append(beside)
            temporary = stack.enter_context(replacing(written[-1]))
            notes.append((written[-1], _write_topology(temporary, traj[0], _BESIDE[suffix][traj.length_unit])))
    for name, note in notes:
        if note is not None:
            log.warning("%s: %s", name, note)
    return written


def _says(path: Path, title: str) -> bool:
    """Whether the head of a PDB or DCD has the title."""
    with path.open("rb") as file:
        return title.encode() in file.read(200)


def check_trajectory_output(path: str | os.PathLike, *, force: bool = False) -> None:
    """`files.check_output` for `write`, also for the PDB beside an XTC or DCD, and a DCD in an XTC's place."""
    path = Path(path)
    check_output(path, force=force, suffixes=WRITERS)
    beside = {".xtc": (".pdb", ".dcd"), ".dcd": (".pdb",)}
    for suffix in beside.get(path.suffix.lower(), ()):
        check_output(path.with_suffix(suffix), force=force)


def _check_whole(path: Path, temporary: Path, n_frames: int) -> None:
    """The XTC and DCD writers say nothing where the disk is full: count the frames that are there."""
    try:
        file = _READ_BACK[temporary.suffix.lower()](temporary)
        found = 0 if file.is_cut else file.n_frames
    except (InputError, DamagedError):
        found = 0
    if found != n_frames:
        raise OSError(f"{path}: not all frames could be written; is the disk full?")


def _with_box_for(suffix: str, traj: Trajectory) -> tuple[Trajectory, str | None]:
    """The trajectory without a box that the format would misstate, and a note about it."""
    if suffix == ".npz" or traj.box is None:
        return traj, None
    name, without = suffix[1:].upper(), dataclasses.replace(traj, box=None)
    if traj.periodic is not None and not all(traj.periodic):
        note = (
            f"{name} cannot state that a box is not periodic along a vector, so the box is left out; npz keeps it"
        )
        return without, note
    if suffix in (".dcd", ".pdb") and not is_lower(traj.box):
        return without, f"{name} cannot state how a box is oriented, so the box is left out; XTC and npz keep it"
    return traj, None


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
    cells = np.tile([0.0, 0, 0, 90, 90, 90], (traj.n_frames, 1))
    if traj.box is not None:
        there = np.any(traj.box, axis=2).all(axis=1)
        cells[there] = np.concatenate(lengths_and_angles(_box(traj, factor)[there]), axis=1)
    return cells


def _write_npz(path: Path, traj: Trajectory) -> None:
    arrays: dict[str, Any] = {
        "positions": traj.positions,
        "length_unit": np.array(traj.length_unit),
        "masses": traj.masses,
        "segments": np.array(traj.segments),
    }
    for name in ("time", "bonds", "box", "weights", "origin", "ids", "periodic"):
        if getattr(traj, name) is not None:
            arrays[name] = getattr(traj, name)
    if traj.names is not None:
        arrays["names"] = np.array(traj.names)
    np.savez_compressed(path, **arrays)


def _xtc_precision(traj: Trajectory) -> float:
    """Steps a nm, a power of ten: what the format's integers and the library's table of step sizes can hold."""
    if traj.n_beads <= _XTC_BARE:
        return _XTC_PRECISION
    factor, x = LENGTHS[traj.length_unit].nm, traj.positions
    extent = (x.max(axis=1) - x.min(axis=1)).max()
    largest = factor * max(float(np.abs(x).max()), float(extent))
    # Beyond the table's end, the library writes frames that nothing can read.
    apart = factor * float(np.abs(np.diff(x, axis=1)).sum(axis=2).min(axis=1).max())
    precision = _XTC_PRECISION
    while largest * precision >= _XTC_LARGEST or apart * precision >= _XTC_APART:
        precision /= 10
    return precision


def _write_xtc(path: Path, traj: Trajectory) -> str | None:
    from MDAnalysis.lib.formats.libmdaxdr import XTCFile

    factor, precision = LENGTHS[traj.length_unit].nm, _xtc_precision(traj)
    rising = traj.time is not None and bool((np.diff(traj.time) > 0).all())
    time = traj.time if traj.time is not None and rising else np.arange(traj.n_frames, dtype=float)
    rows = zip(_spatial(traj, factor), _box(traj, factor), time, strict=True)
    with XTCFile(str(path), "w") as file:
        for k, (frame, box, t) in enumerate(rows):
            file.write(frame, box, k, t, precision)
    notes = []
    if traj.time is not None and not rising:
        notes.append("XTC needs times that rise from frame to frame, so frames are numbered; npz keeps the times")
    if precision < _XTC_PRECISION:
        kept, usual = (f"{1 / p:g} nm" for p in (precision, _XTC_PRECISION))
        notes.append(f"coordinates so large or so far apart are kept to {kept}, not {usual}; DCD keeps more")
    return "; ".join(notes) or None


def _write_dcd(path: Path, traj: Trajectory, title: str = "polyvae") -> str | None:
    from MDAnalysis.lib.formats.libdcd import DCDFile

    clock = None if traj.time is None else _dcd_clock(traj.time, 1.0 if traj.length_unit == "sigma" else AKMA_PS)
    first, every, delta = clock or (0, 1, 1.0)  # the latter is what files say that know no time
    factor = _TO_DCD[traj.length_unit]
    cells = _dimensions(traj, factor)[:, [0, 5, 1, 4, 3, 2]]  # CHARMM's order
    with DCDFile(str(path), "w") as file:
        file.write_header(
            remarks=title, natoms=traj.n_beads, istart=first, nsavc=every, delta=delta, is_periodic=1
        )
        for frame, cell in zip(_spatial(traj, factor), cells, strict=True):
            file.write(frame, cell)
    if traj.time is not None and clock is None:
        return "DCD holds rising, evenly spaced times only, so these are left out; npz keeps them"
    return None


def _dcd_clock(time: np.ndarray, unit: float) -> tuple[int, int, float] | None:
    """First step, steps between frames and length of a step in `unit`, as a DCD's header holds them.

    Steps are whole numbers of 32 bits, their length is in single precision. None for times that are not
    evenly spaced and rising, to single precision and to a tenth of the spacing, or start too far off.
    """
    start, stop = float(time[0]), float(time[-1])
    spacing = (stop - start) / (len(time) - 1) if len(time) > 1 else abs(start) or 1.0
    if not 0 < spacing < np.inf:
        return None
    uneven = np.abs(time - (start + spacing * np.arange(len(time)))).max()
    if not uneven <= min(_SINGLE * max(abs(start), abs(stop)), 0.1 * spacing):
        return None
    offset = start / spacing
    for largest in (1, 1000, 1_000_000):  # the first frame need not be at a multiple of the spacing
        fraction = Fraction(offset).limit_denominator(largest)
        if abs(float(fraction) - offset) > min(_SINGLE * max(abs(offset), 1.0), 0.01):
            continue
        first, every = fraction.numerator, fraction.denominator
        with np.errstate(over="ignore", under="ignore"):
            delta = float(np.float32(spacing / every / unit))
        if (delta, every) == (1, 1):  # what files say that know no time
            first, every, delta = 2 * first, 2, 0.5
        if abs(first) < 2**31 and 1e-37 < delta < np.inf:
            return first, every, delta
    return None


def _names_in_columns(traj: Trajectory, width: int, path: Path) -> list[str]:
    """Names of the beads for columns of `width` letters. A line break, or no name, would shift what follows."""
    given = ["B"] * traj.n_beads if traj.names is None else [name.strip() for name in traj.names]
    names = [re.sub("[^!-~]", "_", name) or "X" for name in given]
    if changed := [one for one, name in zip(given, names, strict=True) if one != name]:
        log.info("%s: names hold letters or blanks that its columns cannot, such as %r", path.suffix, changed[0])
    return [name[:width] for name in names]


def _write_gro(path: Path, traj: Trajectory) -> str | None:
    import mdtraj
    from mdtraj.formats import GroTrajectoryFile

    topology = mdtraj.Topology()
    residue = topology.add_residue("BEA", topology.add_chain())
    for name in _names_in_columns(traj, 5, path):
        topology.add_atom(name, mdtraj.element.virtual, residue)
    factor = LENGTHS[traj.length_unit].nm
    positions = _spatial(traj, factor)
    if not (positions.max() < 9999 and positions.min() > -999):
        raise InputError("GRO cannot hold coordinates below -999 nm or above 9999 nm; write XTC or DCD")
    box = _box(traj, factor)
    if not (box.max() < 999 and box.min() > -99):
        raise InputError("GRO cannot hold a box of 999 nm or more, or tilted by 99 nm or more; write XTC or DCD")
    # mdtraj reads plain decimals without a sign alone.
    plain = traj.time is None or (
        all(re.fullmatch(r"\d+\.\d+", str(t)) for t in traj.time.tolist()) and (np.diff(traj.time) > 0).all()
    )
    with GroTrajectoryFile(str(path), "w") as file:
        file.write(positions, topology, time=traj.time if plain else None, unitcell_vectors=box)
    return None if plain else "GRO cannot hold such times, so they are left out; npz keeps them"


def _write_topology(path: Path, frame: Trajectory, factor: float) -> str | None:
    """A PDB of one frame that is a topology first: moved, and scaled by tens, where its columns ask for it."""
    scale = factor
    notes: list[str | None] = []
    if not _fits_pdb(frame, scale):
        frame = dataclasses.replace(frame, positions=frame.positions - frame.positions.min(axis=(0, 1)))
        while not _fits_pdb(frame, scale):
            scale /= 10
        smaller = f" and {factor / scale:g} times smaller" if scale < factor else ""
        notes = [f"the frame does not fit into PDB's columns; as a topology it is written moved{smaller}"]
    notes.append(_write_pdb(path, frame, scale, _TOPOLOGY_TITLE))
    return "; ".join(filter(None, notes)) or None


def _fits_pdb(traj: Trajectory, factor: float) -> bool:
    low, high = (factor * float(extreme) for extreme in (traj.positions.min(), traj.positions.max()))
    longest = 0.0 if traj.box is None else factor * float(np.linalg.norm(traj.box, axis=2).max())
    return low > _PDB_LOW and high < _PDB_HIGH and not longest >= _PDB_BOX


def _write_pdb(path: Path, traj: Trajectory, factor: float | None = None, title: str = "polyvae") -> str | None:
    """`factor`: Å for a unit of length, where it is not the usual one."""
    import MDAnalysis
    from MDAnalysis.coordinates.memory import MemoryReader

    n, unit = traj.n_beads, traj.length_unit
    factor = _TO_PDB[unit] if factor is None else factor
    if not _fits_pdb(traj, factor):
        raise InputError(
            f"PDB holds coordinates from {_PDB_LOW:.0f} to {_PDB_HIGH:.0f} Å and a box below {_PDB_BOX:.0f} Å; "
            f"these do not fit, write XTC or DCD"
        )
    if unit == "sigma" or factor != _TO_PDB[unit]:
        title += f", {scale_note(unit, factor)}"
    # Each bead is a residue: readers drop a second atom of one name within a residue.
    universe = MDAnalysis.Universe.empty(n, n_residues=n, atom_resindex=np.arange(n), trajectory=True)
    for name, values in (
        ("names", _names_in_columns(traj, 4, path)),
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
        universe.atoms.write(str(path), frames="all" if traj.n_frames > 1 else None, bonds="conect", remarks=title)
    lines = path.read_text().splitlines(keepends=True)
    if traj.box is None:
        # MDAnalysis makes up a unit cell of 1 Å where there is none, which other readers stumble over.
        lines = [line for line in lines if not line.startswith(("CRYST1", "REMARK 285"))]
    elif (traj.box != traj.box[0]).any():  # it writes the box of the first frame alone
        cell = "CRYST1{:9.3f}{:9.3f}{:9.3f}{:7.2f}{:7.2f}{:7.2f} P 1           1\n"
        assert dimensions is not None
        rows = iter(dimensions)
        lines = [line + (cell.format(*next(rows)) if line.startswith("MODEL") else "") for line in lines]
    path.write_text("".join(lines))
    if n > _PDB_BONDED:
        return f"PDB cannot number more than {_PDB_BONDED} beads in bonds and holds none; npz keeps them"
    return None


# The PDB beside a file has the lengths that a viewer takes from that file.
_BESIDE = {".xtc": _TO_PDB, ".dcd": _TO_DCD}
_READ_BACK: dict[str, type[XtcFile] | type[DcdFile]] = {".xtc": XtcFile, ".dcd": DcdFile}
WRITERS = {".npz": _write_npz, ".xtc": _write_xtc, ".dcd": _write_dcd, ".gro": _write_gro, ".pdb": _write_pdb}

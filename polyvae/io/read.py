"""Reading trajectories: npz by NumPy, XTC and DCD by mdtraj's file classes, topologies by MDAnalysis."""

import contextlib
import ctypes
import logging
import os
import struct
import sys
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from polyvae.errors import InputError
from polyvae.trajectory import LENGTH_UNITS, Trajectory

log = logging.getLogger(__name__)

AKMA_PS = 0.04888821  # the time unit of CHARMM's DCD header
_FORMATS = {".npz": "sigma", ".xtc": "nm", ".dcd": "angstrom"}  # and the unit each holds by convention


class _Frames(NamedTuple):
    positions: np.ndarray
    time: np.ndarray | None = None
    length_unit: str | None = None
    extras: dict = {}  # noqa: RUF012 masses, names, bonds where the file holds them


def read(
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    topology: str | os.PathLike | None = None,
    select: str | None = None,
    length_unit: str | None = None,
    start: int = 0,
    stop: int | None = None,
    step: int = 1,
) -> Trajectory:
    """Read one trajectory, in one file or in several pieces.

    Args:
        paths: .npz, .xtc or .dcd files of the same beads; the end of each file ends a segment.
            An npz holds one array of positions (n_frames, n_beads, n_dims) under any name, or under
            "arr" or "positions" beside others ("time", "masses", "bonds", "names", "length_unit").
        topology: any topology that MDAnalysis reads; gives names, bonds and masses.
        select: which atoms, in MDAnalysis' selection language; needs a topology.
        length_unit: unit of the numbers in the files: "nm", "angstrom" or "sigma" (reduced). By default
            what the file states, else the format's convention: nm in XTC, Å in DCD, sigma in npz.
        start, stop, step: which frames, counted in each file.

    Raises:
        FileNotFoundError: for a file that is not there.
        InputError: for a file that cannot be used; the message names it and says what to do.
    """
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not paths:
        raise InputError("no trajectory file was given")
    if length_unit is not None and length_unit not in LENGTH_UNITS:
        raise InputError(f"length_unit must be one of {', '.join(LENGTH_UNITS)}; got {length_unit!r}")
    if select is not None and topology is None:
        raise InputError(f"the selection {select!r} needs a topology; give one (--top, topology=)")
    if step < 1 or start < 0:
        raise InputError(f"start must be at least 0 and step at least 1; got start {start}, step {step}")
    paths = [_existing(path) for path in paths]
    atoms = None if topology is None else _read_topology(_existing(topology), select)

    pieces = []
    for path in paths:
        frames = _READERS[_suffix(path)](path)
        if atoms is not None:
            if frames.positions.shape[1:2] != (atoms.n_total,):
                raise InputError(
                    f"{path} holds {frames.positions.shape[1]} atoms a frame, the topology {topology} "
                    f"{atoms.n_total}; give the topology of this run"
                )
            frames = frames._replace(
                positions=frames.positions[:, atoms.indices], extras={**frames.extras, **atoms.extras}
            )
        n_read = len(frames.positions)
        chosen = slice(start, stop, step)
        if not len(range(n_read)[chosen]):
            raise InputError(f"{path} holds {n_read} frames; start {start}, stop {stop}, step {step} leave none")
        unit = length_unit or frames.length_unit or _FORMATS[_suffix(path)]
        if length_unit is None and frames.length_unit is None:
            log.info(
                "%s: lengths taken to be in %s (%s); say otherwise with the unit option", path, unit, _WHY[unit]
            )
        time = frames.time
        if time is not None and _suffix(path) == ".dcd" and unit != "sigma":
            time = time * AKMA_PS
        try:
            pieces.append(
                Trajectory(
                    frames.positions[chosen],
                    time=None if time is None else time[chosen],
                    length_unit=unit,
                    **frames.extras,
                )
            )
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    return _join(pieces, paths)


_WHY = {"sigma": "reduced units", "nm": "the format's convention", "angstrom": "the format's convention"}


def _join(pieces: list[Trajectory], paths: list[Path]) -> Trajectory:
    first = pieces[0]
    for piece, path in zip(pieces, paths, strict=True):
        if piece.positions.shape[1:] != first.positions.shape[1:]:
            raise InputError(
                f"{path} holds {piece.n_beads} beads in {piece.n_dims}-D, {paths[0]} {first.n_beads} in "
                f"{first.n_dims}-D; the pieces of one trajectory need the same beads"
            )
    if len(pieces) == 1:
        return first
    pieces = [piece.to_unit(first.length_unit) for piece in pieces]
    timed = all(piece.time is not None for piece in pieces)
    return Trajectory(
        np.concatenate([piece.positions for piece in pieces]),
        time=np.concatenate([piece.time for piece in pieces]) if timed else None,
        length_unit=first.length_unit,
        masses=first.masses,
        names=first.names,
        bonds=first.bonds,
        segments=tuple(piece.n_frames for piece in pieces),
    )


def _existing(path: str | os.PathLike) -> Path:
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; check the name")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; was the run that wrote it cut off at once?")
    return path


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise InputError(f"{path}: trajectories are read from {', '.join(_READERS)}; got {suffix or 'no suffix'}")
    return suffix


class _Atoms(NamedTuple):
    indices: np.ndarray
    n_total: int
    extras: dict


def _read_topology(path: Path, select: str | None) -> _Atoms:
    import MDAnalysis
    from MDAnalysis.exceptions import NoDataError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what the file does not hold, which nothing here needs
            # Masses that are guessed from names would make a coarse bead "B" boron: take only what is there.
            universe = MDAnalysis.Universe(str(path), to_guess=())
    except Exception as error:  # the parsers raise whatever their format calls for
        raise InputError(f"{path} cannot be read as a topology ({_short(error)})") from None
    atoms = universe.atoms
    if select is not None:
        try:
            atoms = atoms.select_atoms(select)
        except Exception as error:
            raise InputError(f"the selection {select!r} does not work on {path} ({_short(error)})") from None
        if len(atoms) == 0:
            raise InputError(f"the selection {select!r} matches none of the {len(universe.atoms)} atoms of {path}")
    extras: dict = {}
    if hasattr(atoms, "names"):
        extras["names"] = tuple(atoms.names)
    if hasattr(atoms, "masses") and (atoms.masses > 0).all():
        extras["masses"] = atoms.masses
    try:
        position = {index: k for k, index in enumerate(atoms.indices)}
        pairs = [
            [position[i] for i in bond] for bond in universe.bonds.indices if all(i in position for i in bond)
        ]
        extras["bonds"] = np.array(pairs, dtype=int).reshape(-1, 2)
    except (NoDataError, AttributeError):
        pass
    return _Atoms(atoms.indices, len(universe.atoms), extras)


def _read_npz(path: Path) -> _Frames:
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it is a bare .npy array")
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as npz ({_short(error)}); write it with numpy.savez") from None
    names = [next(iter(arrays))] if len(arrays) == 1 else [name for name in ("arr", "positions") if name in arrays]
    if len(names) != 1:
        raise InputError(
            f'{path} holds the arrays {", ".join(arrays) or "(none)"}; name the positions "arr" or "positions"'
        )
    positions = arrays[names[0]]
    if positions.ndim != 3 or positions.shape[2] not in (2, 3):
        raise InputError(
            f"{path}: array {names[0]!r} has shape {positions.shape}; "
            f"positions need (n_frames, n_beads, 2 or 3). Reshape it and save it again"
        )
    extras = {name: arrays[name] for name in ("masses", "bonds", "names") if name in arrays}
    unit = str(arrays["length_unit"]) if "length_unit" in arrays else None
    return _Frames(positions, arrays.get("time"), unit, extras)


def _read_xtc(path: Path) -> _Frames:
    from mdtraj.formats import XTCTrajectoryFile

    try:
        with _quiet_c_library(), XTCTrajectoryFile(str(path)) as file:
            positions, time, _, _ = file.read()
    except OSError as error:
        raise InputError(f"{path} is not an XTC file ({_short(error)})") from None
    except RuntimeError:
        raise InputError(_truncated(path, _good_xtc_frames(path))) from None
    if len(positions) == 0 or not _xtc_ends_whole(path, positions.shape[1]):
        raise InputError(_truncated(path, len(positions)))
    return _Frames(positions, time.astype(np.float64))


def _truncated(path: Path, n_good: int) -> str:
    whole = f"the {n_good} frames before it are whole" if n_good else "no frame is whole"
    return f"{path} is cut off or damaged in frame {n_good} ({whole}); copy the file again or repair it"


def _good_xtc_frames(path: Path) -> int:
    from mdtraj.formats import XTCTrajectoryFile

    good = 0
    with _quiet_c_library(), XTCTrajectoryFile(str(path)) as file:
        try:
            while len(file.read(n_frames=1)[0]):
                good += 1
        except RuntimeError:
            pass
    return good


def _xtc_ends_whole(path: Path, n_atoms: int) -> bool:
    """Whether the last XTC frame ends where the file does; mdtraj passes over a cut in a frame's header.

    A frame is: magic number, atom count, step, time, box (9 floats), atom count again; then bare floats
    for up to 9 atoms, else precision, 6 integer bounds, a table index, the byte count, and that many bytes
    padded to 4; all big-endian. The newer magic number has a byte count of 8 bytes.
    """
    size = path.stat().st_size
    if n_atoms <= 9:
        return size % (56 + 12 * n_atoms) == 0
    with path.open("rb") as file:
        file.seek(max(0, size - (200 + 24 * n_atoms)))  # a compressed frame stays well below 24 bytes an atom
        tail = file.read()
    for magic, count_format, header in ((1995, ">i", 92), (2023, ">q", 96)):
        start = tail.rfind(struct.pack(">ii", magic, n_atoms))
        while start >= 0:
            at = start + 88
            if at + struct.calcsize(count_format) <= len(tail):
                (n_bytes,) = struct.unpack_from(count_format, tail, at)
                if start + header + -(-n_bytes // 4) * 4 == len(tail):
                    return True
            start = tail.rfind(struct.pack(">ii", magic, n_atoms), 0, start)
    return False


def _read_dcd(path: Path) -> _Frames:
    from mdtraj.formats import DCDTrajectoryFile

    # The header is checked here first: the C reader prints its complaints and passes over a cut.
    header = _dcd_header(path)
    whole, rest = divmod(path.stat().st_size - header.first_frame, header.frame_size)
    if rest or whole < header.n_frames or whole == 0:
        raise InputError(_truncated(path, whole))
    with _quiet_c_library(), DCDTrajectoryFile(str(path)) as file:
        positions = file.read()[0]
    if len(positions) != whole:
        raise InputError(_truncated(path, len(positions)))
    return _Frames(positions, header.time(whole))


class _DcdHeader(NamedTuple):
    n_frames: int
    first_step: int
    stride: int
    delta: float
    first_frame: int
    frame_size: int

    def time(self, n_frames: int) -> np.ndarray | None:
        """Times in the engine's own unit, or None where the header holds no real time step.

        A step of exactly 1 at stride 1 is what writers put that know none.
        """
        if self.delta <= 0 or self.stride <= 0 or (self.delta == 1 and self.stride == 1):
            return None
        return (self.first_step + self.stride * np.arange(n_frames)) * self.delta


def _dcd_header(path: Path) -> _DcdHeader:
    """Layout of a CHARMM/NAMD/LAMMPS DCD file: 84-byte block, title block, atom count, frames."""
    with path.open("rb") as file:
        block = file.read(92)
        for order in "<>":
            if len(block) == 92 and struct.unpack_from(f"{order}i4s", block) == (84, b"CORD"):
                break
        else:
            raise InputError(f"{path} is not a DCD file (it does not begin with a CORD header)")
        integers = struct.unpack_from(f"{order}20i", block, 8)
        delta = struct.unpack_from(f"{order}f" if integers[19] else f"{order}d", block, 8 + 36)[0]
        try:
            (title,) = struct.unpack(f"{order}i", file.read(4))
            file.seek(title + 4, os.SEEK_CUR)
            _, n_atoms, _ = struct.unpack(f"{order}3i", file.read(12))
        except struct.error:
            raise InputError(f"{path} is a DCD file that is cut off in its header; copy it again") from None
        fixed, cell, four_dims = integers[8], integers[10], integers[11]
        if fixed:
            raise InputError(f"{path} keeps {fixed} fixed atoms in its first frame only, which is not read here")
        if not integers[19]:  # X-PLOR's variant knows neither; its time step is a double that overlaps them
            cell = four_dims = 0
        frame = (3 + bool(four_dims)) * (4 * n_atoms + 8) + (56 if cell else 0)
        return _DcdHeader(integers[0], integers[1], integers[2], delta, file.tell(), frame)


@contextlib.contextmanager
def _quiet_c_library() -> Iterator[None]:
    """Keep what the C readers print about a file off the user's screen; the checks here say it better."""
    flush = ctypes.CDLL(None).fflush
    sys.stdout.flush()
    sys.stderr.flush()
    saved = {fd: os.dup(fd) for fd in (1, 2)}
    try:
        with open(os.devnull, "w") as nowhere:
            for fd in saved:
                os.dup2(nowhere.fileno(), fd)
        yield
    finally:
        flush(None)
        for fd, copy in saved.items():
            os.dup2(copy, fd)
            os.close(copy)


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


_READERS = {".npz": _read_npz, ".xtc": _read_xtc, ".dcd": _read_dcd}

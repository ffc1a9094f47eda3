"""Reading trajectories: whole, or in chunks of bounded size."""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.arguments import file_name, flag, if_given, one_of, text, whole_number
from polyvae.errors import FrameError, InputError
from polyvae.io.dcd import AKMA_PS, DcdFile
from polyvae.io.dump import DumpFile
from polyvae.io.formats import check_format, format_of, is_packed
from polyvae.io.frames import DamagedError, Frames, TrajectoryFile, existing, warn_of_damage
from polyvae.io.gsd import GsdFile
from polyvae.io.npz import NpzFile
from polyvae.io.other import GroFile, UniverseFile
from polyvae.io.patterns import Paths, expanded, own_files
from polyvae.io.pieces import check_all_weighted, check_weights, holds, left_out, tell_units
from polyvae.io.times import Times
from polyvae.io.topology import own_topology, read_topology, stated_atoms
from polyvae.io.xtc import XtcFile
from polyvae.trajectory.assembly import Assembler, check_how, has_box
from polyvae.trajectory.molecules import Atoms
from polyvae.trajectory.record import LENGTH_UNITS, Trajectory
from polyvae.trajectory.share import alone, among_processes
from polyvae.trajectory.stream import Stream, concatenate

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 26  # of decoded coordinates held at once while frames are picked or streamed

_READERS: dict[str, Callable[[Path], TrajectoryFile]] = {
    "NPZ": NpzFile,
    "XTC": XtcFile,
    "DCD": DcdFile,
    "GRO": GroFile,
    "LAMMPSDUMP": DumpFile,
    "GSD": GsdFile,
}


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How a run is read: the options of `read`, which says what they mean, checked where the record is made.

    Raises:
        InputError: an unknown unit or format, or frames that cannot be counted.
    """

    topology: str | os.PathLike | None = None
    select: str | None = None
    length_unit: str | None = None
    start: int = 0
    stop: int | None = None
    step: int = 1
    unwrap: bool | str = "auto"
    per_molecule: bool = False
    dims: int | None = None
    keep_good: bool = False
    ignore_times: bool = False
    format: str | None = None
    topology_format: str | None = None

    def __post_init__(self):
        for name in ("format", "topology_format"):
            check_format(name, getattr(self, name))
        one_of("length_unit", self.length_unit, (*LENGTH_UNITS, None))
        object.__setattr__(self, "start", whole_number("start", self.start, 0))
        object.__setattr__(self, "stop", if_given(whole_number, "stop", self.stop))
        object.__setattr__(self, "step", whole_number("step", self.step, 1))
        if_given(text, "select", self.select)
        if_given(file_name, "topology", self.topology)
        flag("keep_good", self.keep_good)
        flag("ignore_times", self.ignore_times)
        check_how(self.unwrap, self.per_molecule, self.dims)


def read(
    paths: Paths,
    *,
    topology: str | os.PathLike | None = None,
    select: str | None = None,
    length_unit: str | None = None,
    start: int = 0,
    stop: int | None = None,
    step: int = 1,
    unwrap: bool | str = "auto",
    per_molecule: bool = False,
    dims: int | None = None,
    keep_good: bool = False,
    ignore_times: bool = False,
    format: str | None = None,
    topology_format: str | None = None,
) -> Trajectory:
    """Read one trajectory, in one file or in several pieces.

    Args:
        paths: files of the same beads, or patterns such as "run*.xtc" (in natural order: run2 before
            run10); the end of each file ends a segment. npz, XTC, DCD, GRO and LAMMPS dumps are read fast,
            everything else that MDAnalysis reads at its pace. An npz holds one array of positions
            (n_frames, n_beads, n_dims) under any name, or under "arr" or "positions" beside others
            ("time", "box", "weights", "origin", "masses", "bonds", "names", "segments", "length_unit").
        topology: any topology that MDAnalysis reads; gives names, bonds, and the masses that it states. None
            are guessed from names or elements: a coarse bead named "B" is no boron. All are 1 then.
        select: which atoms, in MDAnalysis' selection language; needs a topology.
        length_unit: unit of the numbers in the files: "nm", "angstrom" or "sigma" (reduced). By default
            what the file states (npz; PDB in a line "1 SIGMA = 10 ANGSTROM"), else the format's convention:
            nm in XTC, Å in DCD, sigma in npz and in LAMMPS dumps that state no units.
        start, stop, step: which frames, counted in each file. Frames of one segment stay one.
        unwrap: "auto" makes molecules whole along their bonds where the file holds a periodic box
            (orthorhombic or triclinic). What counts is each bond, which must be shorter than half the box,
            so that a chain of any length is put together exactly, through as many images as it takes.
            Where no bonds are known, the beads are taken as one chain in file order, and this is said; if
            they are none, the distance of two neighbours that are not bonded sooner or later comes near
            half the box, and is refused. Chosen beads of several molecules stay in the images that they
            are in, with a warning; a bead whose bonds must be missing is refused. Unwrapped coordinates of a
            LAMMPS dump stay as they are where no bonds are known. False leaves all coordinates as they are;
            True refuses files without a box.
        per_molecule: each of many like molecules (by bonds, else residues) becomes frames of its own, one
            molecule after another in each segment; `Trajectory.origin` maps back to (frame, molecule).
        dims: 2 or 3. By default data of three coordinates whose z never varies are 2-D, which is said.
        keep_good: take the whole frames of a damaged XTC, DCD or LAMMPS dump, up to the damage, in place of
            refusing it; other formats are refused. No format has a checksum. Most damage to a compressed XTC
            shows, but in a DCD only that to a frame's length and absurd coordinates do; other wrong numbers are
            read as they are. A `stop` at or before the damage leaves it out as well.
        ignore_times: leave out the times of the frames, which must otherwise increase in each segment.
        format, topology_format: what the files and the topology are, where their names do not tell: MDAnalysis'
            name of a format, such as "LAMMPSDUMP" or "GRO", or "NPZ".

    Raises:
        FileNotFoundError: for a file that is not there.
        InputError: for a file that cannot be used, and for weights in only some files; the message names
            the file, and the frame where one is at fault, and says what to do. A bond of about half the box
            or more is refused, for its molecule cannot be made whole; a chain as a whole may be longer.
    """
    options = ReadOptions(
        topology, select, length_unit, start, stop, step, unwrap, per_molecule, dims,
        keep_good, ignore_times, format, topology_format,
    )  # fmt: skip
    run = _Run(paths, options)
    pieces: list[Trajectory] = []
    for k in range(len(run.paths)):
        blocks = list(run.blocks(k, whole=True))
        pieces.append(run.record(k, blocks, sum(p.n_frames // run.n_molecules for p in pieces)))
    return concatenate(pieces)


def stream(paths: Paths, *, chunk_bytes: int = CHUNK_BYTES, shared: bool = False, **options) -> Stream:
    """A trajectory in chunks of bounded size: for files longer than memory.

    The files are checked, and their frames counted, before this returns. A chunk ends where a file ends;
    with `per_molecule` it holds a few frames of all molecules, one molecule after another. Together the
    chunks are what `read` gives, whatever their size: `Trajectory.continues` tells which goes on where the
    one before it ended, and what holds for a file as a whole is told before its first chunk, for which a
    file that may be planar is read twice (unless `dims` is given).

    Args:
        paths: as for `read`.
        chunk_bytes: coordinates (of all atoms in the file) held at once; the peak is a few times that.
        shared: whether several processes of `jax.distributed` share the files: this one reads its own alone, a
            run of them in their order that holds about as many bytes as any other's. All processes must call this
            with the same files, and then `fit`.
        **options: those of `read`.

    Returns:
        A `Stream` of `Trajectory` chunks, which can be iterated over again and again.

    Raises:
        As `read`; for a fault within the frames, once the chunk with that frame is reached.
    """
    known = [field.name for field in dataclasses.fields(ReadOptions)]
    if unknown := set(options) - set(known):
        raise TypeError(f"stream() takes the options of read(), which {', '.join(sorted(unknown))} is not")
    chunk_bytes, checked = whole_number("chunk_bytes", chunk_bytes, 1), ReadOptions(**options)
    share = among_processes(0) if flag("shared", shared) else alone(0)
    run = share.together(lambda: _Run(own_files(paths, share), checked))

    def chunks() -> Iterator[Trajectory]:
        n_before = 0
        for k in range(len(run.paths)):
            last = None
            for block in run.blocks(k, chunk_bytes=chunk_bytes):
                segment = run.segments(k, block[0])
                yield run.record(k, [block], n_before, continues=segment[0] == last)
                last = segment[-1]
                n_before += len(block[0])

    return Stream(chunks, run.n_frames, f" from {len(run.paths)} file{'s' * (len(run.paths) > 1)}", shared=shared)


class _Run:
    """The files of one trajectory and all that applies to them."""

    def __init__(self, paths, options: ReadOptions):
        self._options = options
        self.paths = [existing(path) for path in expanded(paths)]
        places = [path.resolve() for path in self.paths]
        if twice := [str(path) for k, path in enumerate(self.paths) if places[k] in places[:k]]:
            log.warning("%s: named more than once, and its frames count as often", twice[0])
        first, self._unit = self.paths[0], ""
        atoms = first_file = None
        name = format_of(first, options.format)
        if options.topology is not None:
            atoms = read_topology(options.topology, options.select, options.topology_format)
        elif name not in ("NPZ", "XTC", "DCD"):
            first_file = self._opened(first, None)  # what is no trajectory is told as that
            atoms = own_topology(first, options.select, name)
        if options.select is not None and atoms is None:
            raise InputError(f"the selection {options.select!r} needs a topology; give one (--top, topology=)")

        self._of_usual_unit: dict[str, list[Path]] = {}
        self._files: list[TrajectoryFile] = []
        self._times: list[Times] = []
        self._frames: list[range] = []
        self._assemblers: list[Assembler] = []
        for path in self.paths:
            file = first_file or self._opened(path, None if atoms is None else atoms.n_total)
            first_file = None
            self._add(path, file, atoms)
        tell_units(self._of_usual_unit)
        self.n_molecules = self._assemblers[0].n_molecules
        self.n_frames = sum(map(len, self._frames)) * self.n_molecules
        check_all_weighted(self.paths, self._files)
        self._left_out: set[str] | None = None if len(self.paths) > 1 else set()
        self._n_dims: int | None = None

    def _opened(self, path: Path, n_atoms: int | None) -> TrajectoryFile:
        name = format_of(path, self._options.format)
        if path.suffix.lower() == ".npy" and not self._options.format:
            raise InputError(
                f'{path} is a bare array; save it as npz (numpy.savez, array "positions"), or give the array '
                f"itself in Python (pv.fit(numpy.load(...)))"
            )
        try:
            if name in _READERS and (name == "LAMMPSDUMP" or not is_packed(path)):
                return _READERS[name](path)
            return UniverseFile(path, name, n_atoms, self._options.length_unit)
        except DamagedError as damage:
            raise InputError(str(damage)) from None

    def _add(self, path: Path, file: TrajectoryFile, atoms: Atoms | None) -> None:
        """Take one more file into the run; refuse one that does not belong to it."""
        options, first = self._options, self.paths[0]
        if atoms is not None and file.n_atoms != atoms.n_total:
            raise InputError(
                f"{path} holds {file.n_atoms} atoms a frame, the topology {options.topology or first} "
                f"{atoms.n_total}; give the topology of this run"
            )
        if self._files and file.n_atoms != (n_atoms := self._files[0].n_atoms):
            raise InputError(
                f"{path} holds {file.n_atoms} beads a frame, {first} {n_atoms}; "
                f"the pieces of one trajectory need the same beads"
            )
        stop = options.stop
        if file.is_cut and not (stop is not None and 0 <= stop <= file.n_frames):
            if not options.keep_good:
                raise InputError(str(DamagedError(path, file.n_frames)))
            warn_of_damage(path, file.n_frames)
        frames = range(file.n_frames)[options.start : options.stop : options.step]
        if not len(frames):
            raise InputError(
                f"{path} holds {file.n_frames} frames; start {options.start}, stop {options.stop}, "
                f"step {options.step} leave none"
            )
        unit = options.length_unit or file.stated_unit or file.usual_unit
        if options.length_unit is None and file.stated_unit is None:
            self._of_usual_unit.setdefault(unit, []).append(path)
        self._unit = self._unit or unit
        if unit != self._unit and "sigma" in (unit, self._unit):
            raise InputError(
                f"{path} is in {unit}, {first} in {self._unit}, and a reduced unit relates "
                f"to no other; convert one, or state the one unit of the numbers in all (--unit, length_unit=)"
            )
        # Along bonds, what is whole stays; without any, bead order is no reason to move what is unwrapped.
        as_it_is = options.unwrap == "auto" and file.unwrapped and (atoms is None or atoms.bonds is None)
        self._files.append(file)
        self._frames.append(frames)
        self._times.append(Times(path, options.ignore_times))
        self._assemblers.append(
            Assembler(
                stated_atoms(file, path) if atoms is None else atoms,
                unit,
                unwrap=False if as_it_is else options.unwrap,
                per_molecule=options.per_molecule,
                dims=options.dims,
                always_3d=file.always_3d,
                where=str(path),
                note=lambda text: log.info("%s: %s", path, text),
            )
        )

    def blocks(
        self, k: int, *, whole: bool = False, chunk_bytes: int = CHUNK_BYTES
    ) -> Iterator[tuple[range, Frames]]:
        """Assembled coordinates of file k, with the numbers of the frames, in blocks of bounded size or, where
        that costs nothing, in one."""
        file, frames, assembler = self._files[k], self._frames[k], self._assemblers[k]
        per_block = max(1, chunk_bytes // (12 * file.n_atoms * frames.step))
        if per_block > 4096:
            per_block -= per_block % 4096  # the batch of compiled functions
        atoms = assembler.atoms
        if whole and frames.step == 1 and (atoms is None or len(atoms.chosen) == atoms.n_total):
            per_block = len(frames)
        if self._left_out is None:
            self._left_out = self._settle_fields()
        self._times[k].begin()
        try:
            for part, block in self._raw(k, frames, per_block):
                self._survey(k, part, block, per_block)
                part, block = self._assembled(k, part, block)
                if not len(part):
                    break
                time = self._times[k].checked(part, block.time, block.step, self.segments(k, part))
                check_weights(self.paths[k], part, block.weights)
                n_dims = block.positions.shape[2]
                if n_dims != (self._n_dims or n_dims):
                    raise InputError(
                        f"{self.paths[k]} holds positions in {n_dims}-D, {self.paths[0]} in {self._n_dims}-D; "
                        f"the pieces of one trajectory need the same; say which with --dims (dims=)"
                    )
                self._n_dims = n_dims
                dropped: dict[str, Any] = dict.fromkeys(self._left_out)
                yield part, block._replace(time=time, step=None, **dropped)
        finally:
            file.close()

    def _settle_fields(self) -> set[str]:
        """What only some files hold of times, boxes and origins, which is left out; from their first frames."""
        boxed: list[bool] = []
        for k, (file, frames, times) in enumerate(zip(self._files, self._frames, self._times, strict=True)):
            many = max(2, CHUNK_BYTES // (12 * file.n_atoms * frames.step))
            for rows, per_block in ((frames[:2], 2), (frames[2:], many)):
                if len(boxed) > k and times.settled:
                    break
                for part, block in self._raw(k, rows, per_block):
                    if part[0] == frames[0]:
                        boxed.append(block.box is not None and has_box(block.box[0]))
                    times.look(block.time)
                    if times.settled:
                        break
            self._settle_times(k)
            file.close()
        # Of several molecules, all files get an origin.
        origins = [self._assemblers[0].table is not None or holds(file, "origin") for file in self._files]
        return left_out(self.paths, self._times, boxed, origins)

    def _settle_times(self, k: int) -> None:
        self._times[k].settle(len(np.unique(self.segments(k, self._frames[k]))))

    def _assembled(self, k: int, part: range, block: Frames) -> tuple[range, Frames]:
        """A block of file k with the coordinates and boxes that are wanted; cut where `keep_good` cuts it."""
        while len(part):
            try:
                positions, box = self._assemblers[k].coordinates(block.positions, block.box, _numbers(part))
                return part, block._replace(positions=positions, box=box)
            except FrameError as fault:
                first, step = self._frames[k].start, part.step
                if fault.frame <= first:
                    raise
                if not self._options.keep_good:
                    raise InputError(
                        f"{fault}, or take the frames before it (--keep-good, keep_good=True)"
                    ) from None
                warn_of_damage(self.paths[k], fault.frame)
                self._frames[k] = range(first, fault.frame, step)
                part = range(part.start, fault.frame, step)
                block = Frames._make(None if a is None else a[: len(part)] for a in block)
        return part, block

    def _raw(self, k: int, frames: range, per_block: int) -> Iterator[tuple[range, Frames]]:
        """Frames of file k as they stand in it, with their numbers, in blocks."""
        file, first, step = self._files[k], self._frames[k][0], frames.step
        while len(frames := range(frames.start, min(frames.stop, self._frames[k].stop), step)):
            part, frames = frames[:per_block], frames[per_block:]
            try:
                block = file.read(part[0], part[-1] + 1)
            except DamagedError as damage:
                if not self._options.keep_good or damage.n_good <= first:
                    raise InputError(str(damage)) from None
                warn_of_damage(self.paths[k], damage.n_good)
                self._frames[k] = range(first, damage.n_good, step)  # the damage is met, and told, once
                part = range(part[0], damage.n_good, step)
                if not len(part):
                    return
                block = file.read(part[0], part[-1] + 1)
            block = Frames._make(None if a is None else a[::step] for a in block)
            if block.time is not None:
                akma = file.akma_time and self._assemblers[k].length_unit != "sigma"
                block = block._replace(time=np.asarray(block.time, np.float64) * (AKMA_PS if akma else 1.0))
            yield part, block

    def _survey(self, k: int, part: range, block: Frames, per_block: int) -> None:
        """Settle what holds for all of file k, from its first block and as much after it as that takes."""
        assembler, times = self._assemblers[k], self._times[k]
        if assembler.settled and times.settled:
            return
        rest = self._raw(k, self._frames[k][len(part) :], per_block)
        ahead: Frames | None = block
        while ahead is not None and not (assembler.settled and times.settled):
            assembler.survey(ahead.positions, ahead.box, part[0])
            times.look(ahead.time)
            if not (assembler.settled and times.settled):
                part, ahead = next(rest, (part, None))
        assembler.settle()
        self._settle_times(k)

    def segments(self, k: int, frames: range) -> np.ndarray:
        """The segment of file k that each frame is of."""
        lengths = self._files[k].extras.get("segments")
        if lengths is None:
            return np.zeros(len(frames), int)
        return np.searchsorted(np.cumsum(lengths), _numbers(frames), side="right")

    def record(
        self, k: int, blocks: list[tuple[range, Frames]], first_frame: int, *, continues: bool = False
    ) -> Trajectory:
        """Blocks of file k as a trajectory, in the unit of the first file."""
        parts, pieces = [part for part, _ in blocks], [block for _, block in blocks]
        joined = (
            pieces[0]
            if len(pieces) == 1
            else Frames._make(None if a[0] is None else np.concatenate(a) for a in zip(*pieces, strict=True))
        )
        segment = np.concatenate([self.segments(k, part) for part in parts])
        try:
            traj = self._assemblers[k].trajectory(
                joined.positions,
                joined.time,
                joined.box,
                weights=joined.weights,
                origin=joined.origin,
                first_frame=first_frame,
                segments=np.unique(segment, return_counts=True)[1],
                continues=bool(continues),
            )
        except InputError as error:
            raise InputError(f"{self.paths[k]}: {error}") from None
        return traj.to_unit(self._unit)


def _numbers(frames: range) -> np.ndarray:
    return np.arange(frames.start, frames.stop, frames.step)

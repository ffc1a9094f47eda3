"""The files of one run, opened, and what holds for all their frames: what `read` and `stream` read by."""

import collections
import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.batches import BATCH
from polyvae.errors import FrameError, InputError
from polyvae.io.conversion import conversion_of
from polyvae.io.formats import format_of
from polyvae.io.frames import DamagedError, Frames, TrajectoryFile, existing, reading, warn_of_damage
from polyvae.io.options import ReadOptions
from polyvae.io.patterns import expanded
from polyvae.io.pieces import check_all_weighted, check_weights, holds, left_out, report_units
from polyvae.io.readers import opened_trajectory
from polyvae.io.times import Times, pieces_in_time
from polyvae.io.topology import atoms_of_file, known_topology, own_topology
from polyvae.trajectory.assembly import Assembler, has_box
from polyvae.trajectory.facts import report_facts
from polyvae.trajectory.molecules import Atoms
from polyvae.trajectory.record import Trajectory

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 26  # of decoded coordinates held at once while frames are picked or streamed


class RunFile:
    """One file of a run: which of its frames are wanted, and how they become those of a trajectory.

    Attributes:
        frames: numbers of the wanted frames; fewer once damage was met that `keep_good` passes over.
        segments: lengths of the pieces of the file that are continuous in time.
    """

    def __init__(self, path: Path, file: TrajectoryFile, atoms: Atoms | None, options: ReadOptions):
        self.path, self.file, self.keep_good = path, file, options.keep_good
        if file.is_cut and not (options.stop is not None and 0 <= options.stop <= file.n_frames):
            if not self.keep_good:
                raise InputError(str(DamagedError(path, file.n_frames)))
            warn_of_damage(path, file.n_frames)
        self.frames = range(file.n_frames)[options.start : options.stop : options.step]
        if not len(self.frames):
            raise InputError(
                f"{path} holds {file.n_frames} frames; start {options.start}, stop {options.stop}, "
                f"step {options.step} leave none"
            )
        report_facts(path, file.facts)
        self.conversion = conversion_of(path, file, options)
        self.times = Times(path, not self.conversion.has_times or options.ignore_times)
        clock = None
        if not options.ignore_times and options.dt is None:
            clock = file.clock()
        self.segments = pieces_in_time(path, clock, file.facts.value("segments"), file.n_frames)
        unwrap = options.unwrap
        # Along bonds, what is whole stays. The order of beads alone does not justify a move of unwrapped ones.
        if unwrap == "auto" and file.facts.stated("images") and (atoms is None or atoms.bonds is None):
            unwrap = False
        self.assembler = Assembler(
            atoms,
            self.conversion.length_unit,
            unwrap=unwrap,
            per_molecule=options.per_molecule,
            dims=options.dims,
            always_3d=file.always_3d,
            periodic=file.facts.value("periodic"),
            where=str(path),
        )

    def copy(self) -> "RunFile":
        other = copy.copy(self)
        other.file, other.times = copy.copy(self.file), copy.copy(self.times)
        return other

    def per_block(self, chunk_bytes: int) -> int:
        """Frames in blocks of this many bytes in the file."""
        n = max(1, chunk_bytes // (12 * self.file.n_atoms * self.frames.step))
        return n if n < BATCH else n - n % BATCH

    def segments_of(self, frames: range) -> np.ndarray:
        """The segment of the file that each frame is of."""
        if len(self.segments) == 1:
            return np.zeros(len(frames), int)
        return np.searchsorted(np.cumsum(self.segments), _numbers(frames), side="right")

    def raw(self, frames: range, per_block: int) -> Iterator[tuple[range, Frames]]:
        """Frames in blocks, in the trajectory's units, with their numbers."""
        step = frames.step
        while len(frames := range(frames.start, min(frames.stop, self.frames.stop), step)):
            with reading(self.path, "a trajectory"):
                part, block = self._undamaged(frames[:per_block])
                if block is None:
                    return
                frames = frames[per_block:]
                block = Frames._make(None if a is None else a[::step] for a in block)
                block = self.conversion.applied(block, _numbers(part))
            yield part, block

    def _undamaged(self, part: range) -> tuple[range, Frames | None]:
        """Some frames as they are in the file; with `keep_good` those before the first damage.

        Damage further on may be met before damage that comes earlier.
        """
        while len(part):
            try:
                return part, self.file.read(part[0], part[-1] + 1)
            except DamagedError as damage:
                if not self.keep_good or damage.n_good <= self.frames[0]:
                    raise InputError(str(damage)) from None
                part = self._end_at(damage.n_good, part)
        return part, None

    def _end_at(self, damaged: int, part: range) -> range:
        """End the file before a damaged frame, so that it is reported once; returns what is left of a part."""
        warn_of_damage(self.path, damaged)
        self.frames = range(self.frames[0], damaged, self.frames.step)
        return range(part.start, damaged, part.step)

    def assembled(self, part: range, block: Frames) -> tuple[range, Frames]:
        """A block with the coordinates and boxes that are wanted; cut where `keep_good` cuts it."""
        while len(part):
            try:
                positions, box = self.assembler.coordinates(block.positions, block.box, _numbers(part))
                return part, block._replace(positions=positions, box=box)
            except FrameError as fault:
                if fault.frame <= self.frames.start:
                    raise
                if not self.keep_good:
                    raise InputError(
                        f"{fault}, or take the frames before it (--keep-good, keep_good=True)"
                    ) from None
                part = self._end_at(fault.frame, part)
                block = Frames._make(None if a is None else a[: len(part)] for a in block)
        return part, block

    def survey(self, part: range, block: Frames, per_block: int) -> None:
        """Settle what holds for all of the file, from its first block and as much after it as that takes."""
        assembler, times = self.assembler, self.times
        if assembler.settled and times.settled:
            return
        rest = self.raw(self.frames[len(part) :], per_block)
        ahead: Frames | None = block
        while ahead is not None and not (assembler.settled and times.settled):
            assembler.survey(ahead.positions, ahead.box, part[0])
            times.look(ahead.time)
            if not (assembler.settled and times.settled):
                part, ahead = next(rest, (part, None))
        assembler.settle()
        self.settle_times()

    def settle_times(self) -> None:
        self.times.settle(len(_lengths(self.segments_of(self.frames))))

    def look_ahead(self) -> bool:
        """Settle whether the file has times, and return whether its first frame has a box."""
        boxed = False
        many = max(2, CHUNK_BYTES // (12 * self.file.n_atoms * self.frames.step))
        for rows, per_block in ((self.frames[:2], 2), (self.frames[2:], many)):
            for part, block in self.raw(rows, per_block):
                if part[0] == self.frames[0]:
                    boxed = block.box is not None and has_box(block.box[0])
                self.times.look(block.time)
                if self.times.settled:
                    break
            if self.times.settled:
                break
        self.settle_times()
        self.file.close()
        return boxed


class RunFiles:
    """The files of one trajectory and all that applies to them.

    Where its files seek (`seeks`), a copy that was pickled reads any part of them in another process.
    """

    def __init__(self, paths, options: ReadOptions):
        self._options = options
        self.paths = [existing(path) for path in expanded(paths)]
        places = [path.resolve() for path in self.paths]
        n_named = collections.Counter(places)
        if twice := [path for path, place in zip(self.paths, places, strict=True) if n_named[place] > 1]:
            log.warning("%s: named more than once, and its frames count as often", twice[0])
        first = self.paths[0]
        atoms = first_file = None
        name = format_of(first, options.format)
        if options.topology is not None:
            atoms = known_topology(options.topology, options.select, options.topology_format)
        elif name not in ("NPZ", "XTC", "DCD"):
            first_file = opened_trajectory(first, options)  # other files are not read as topologies
            atoms = own_topology(first, options.select, name)
        if options.select is not None and atoms is None:
            raise InputError(f"the selection {options.select!r} needs a topology; give one (--top, topology=)")

        self._files: list[RunFile] = []
        by_convention: dict[str, list[Path]] = {}
        for path in self.paths:
            file = first_file or opened_trajectory(path, options, None if atoms is None else atoms.n_total)
            first_file = None
            with reading(path, "a trajectory"):
                one = self._added(path, file, atoms)
            if one.conversion.by_convention:
                by_convention.setdefault(one.conversion.length_unit, []).append(path)
        report_units(by_convention)
        self.n_molecules = self._files[0].assembler.n_molecules
        self.n_frames = self.n_molecules * self._n_before(len(self._files))
        check_all_weighted(self.paths, [one.file for one in self._files])
        self._left_out: set[str] | None = None
        if len(self.paths) == 1:
            self._left_out = set()
        self._n_dims: int | None = None

    def _added(self, path: Path, file: TrajectoryFile, atoms: Atoms | None) -> RunFile:
        """Take one more file into the run; refuse one that does not belong to it."""
        first = self.paths[0]
        atoms = atoms_of_file(file.facts, file.n_atoms, path, atoms)
        if atoms is not None and file.n_atoms != atoms.n_total:
            raise InputError(
                f"{path} holds {file.n_atoms} atoms a frame, the topology {self._options.topology or first} "
                f"{atoms.n_total}; give the topology of this run"
            )
        if self._files and file.n_atoms != self.n_atoms:
            raise InputError(
                f"{path} holds {file.n_atoms} beads a frame, {first} {self.n_atoms}; "
                f"the pieces of one trajectory need the same beads"
            )
        one = RunFile(path, file, atoms, self._options)
        self._files.append(one)
        unit = one.conversion.length_unit
        if unit != self._unit and "sigma" in (unit, self._unit):
            raise InputError(
                f"{path} is in {unit}, {first} in {self._unit}, and a reduced unit relates "
                f"to no other; convert one, or state the one unit of the numbers in all (--unit, length_unit=)"
            )
        return one

    def copy(self) -> "RunFiles":
        """The same run, to be read beside this one by another thread."""
        other = copy.copy(self)
        other._files = [one.copy() for one in self._files]
        return other

    n_atoms = property(lambda self: self._files[0].file.n_atoms)
    keep_good = property(lambda self: self._options.keep_good)
    _unit = property(lambda self: self._files[0].conversion.length_unit)

    @property
    def seeks(self) -> bool:
        """Whether parts of the files can be read without what comes before them."""
        return all(one.file.seeks for one in self._files)

    def _n_before(self, k: int) -> int:
        """Frames of the files before file k."""
        return sum(len(one.frames) for one in self._files[:k])

    def settle(self) -> None:
        """Find out now what holds for all frames of each file, as reading from the first frame on does."""
        self._settle_fields()
        for one in self._files:
            for part, block in one.raw(one.frames[:2], 2):
                one.survey(part, block, one.per_block(CHUNK_BYTES))
            one.file.close()

    def _settle_fields(self) -> set[str]:
        """Find the fields that are left out, since only some files hold them, as their first frames show."""
        if self._left_out is None:
            boxed = [one.look_ahead() for one in self._files]
            # All files get an origin where there are several molecules.
            several = self._files[0].assembler.table is not None
            origins = [several or holds(one.file, "origin") for one in self._files]
            self._left_out = left_out(self.paths, [one.times for one in self._files], boxed, origins)
        return self._left_out

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Trajectory]:
        """All frames, file by file, in chunks of bounded size."""
        for k in range(len(self.paths)):
            yield from self.read(k, chunk_bytes=chunk_bytes)

    def pieces(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, range]]:
        """The file, and which of its frames, that each of the `chunks` holds."""
        for k, one in enumerate(self._files):
            size, n = one.per_block(chunk_bytes), len(one.frames)
            for start in range(0, n, size):
                yield k, range(n)[start : start + size]

    def read(self, k: int, rows: range | None = None, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Trajectory]:
        """Frames of file k in chunks; some `rows` of them alone once the run is settled."""
        n_before, last, one = self._n_before(k), None, self._files[k]
        if rows is not None and rows.start:
            last = one.segments_of(one.frames[rows.start - 1 : rows.start])[0]
            n_before += rows.start
        for block in self.blocks(k, chunk_bytes=chunk_bytes, rows=rows) if rows != range(0) else ():
            segment = one.segments_of(block[0])
            yield self.record(k, [block], n_before, continues=segment[0] == last)
            last = segment[-1]
            n_before += len(block[0])

    def rows(self, k: int, part: int, n_parts: int) -> range:
        """Which of the frames of file k are a part of them."""
        size = n = len(self._files[k].frames)
        if n_parts > 1:
            size = -(-n // (n_parts * BATCH)) * BATCH
        return range(n)[part * size : (part + 1) * size]

    def first_frame(self, k: int, rows: range) -> int:
        """The number, in the run, of the first frame of the record of these rows."""
        return (self._n_before(k) + rows.start) * self.n_molecules

    def blocks(
        self, k: int, *, whole: bool = False, chunk_bytes: int = CHUNK_BYTES, rows: range | None = None
    ) -> Iterator[tuple[range, Frames]]:
        """Assembled coordinates of file k, with the numbers of the frames, in blocks of bounded size or, where
        that costs nothing, in one; of some `rows` of its frames alone once the run is settled."""
        one, atoms = self._files[k], self._files[k].assembler.atoms
        frames, per_block = one.frames, one.per_block(chunk_bytes)
        if whole and frames.step == 1 and (atoms is None or len(atoms.chosen) == atoms.n_total):
            per_block = len(frames)
        dropped: dict[str, Any] = dict.fromkeys(self._settle_fields())
        one.times.begin()
        try:
            if rows is not None:
                frames = frames[rows.start : rows.stop]
                for part, block in one.raw(one.frames[max(0, rows.start - 1) : rows.start], 1):  # the time before
                    one.times.checked(part, block.time, block.step, one.segments_of(part))
            for part, block in one.raw(frames, per_block):
                with reading(one.path, "a trajectory"):
                    one.survey(part, block, per_block)
                    part, block = one.assembled(part, block)
                    if not len(part):
                        break
                    time = one.times.checked(part, block.time, block.step, one.segments_of(part))
                    check_weights(one.path, part, block.weights)
                self._check_dims(one.path, block.positions.shape[2])
                yield part, block._replace(time=time, step=None, **dropped)
        finally:
            one.file.close()

    def _check_dims(self, path: Path, n_dims: int) -> None:
        if n_dims != (self._n_dims or n_dims):
            raise InputError(
                f"{path} holds positions in {n_dims}-D, {self.paths[0]} in {self._n_dims}-D; "
                f"the pieces of one trajectory need the same; say which with --dims (dims=)"
            )
        self._n_dims = n_dims

    def record(
        self, k: int, blocks: list[tuple[range, Frames]], first_frame: int, *, continues: bool = False
    ) -> Trajectory:
        """Blocks of file k as a trajectory, in the unit of the first file."""
        parts, pieces = zip(*blocks, strict=True)
        joined = pieces[0]
        if len(pieces) > 1:
            joined = Frames._make(None if a[0] is None else np.concatenate(a) for a in zip(*pieces, strict=True))
        segment = np.concatenate([self._files[k].segments_of(part) for part in parts])
        fields = joined._asdict()
        del fields["step"]
        try:
            traj = self._files[k].assembler.trajectory(
                **fields, first_frame=first_frame, segments=_lengths(segment), continues=bool(continues)
            )
        except InputError as error:
            raise InputError(f"{self.paths[k]}: {error}") from None
        return traj.to_unit(self._unit)


def _lengths(segment: np.ndarray) -> np.ndarray:
    """Frames of each segment, from the number of the segment of each frame, which never falls."""
    starts = np.flatnonzero(segment[1:] != segment[:-1]) + 1
    return np.diff(starts, prepend=0, append=len(segment))


def _numbers(frames: range) -> np.ndarray:
    return np.arange(frames.start, frames.stop, frames.step)

"""The files of one run, opened, and what holds for all their frames: what `read` and `stream` read by."""

import collections
import copy
import functools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.batches import BATCH
from polyvae.errors import FrameError, InputError
from polyvae.io.conversion import Conversion, conversion_of
from polyvae.io.formats import format_of
from polyvae.io.frames import DamagedError, Frames, TrajectoryFile, existing, reading, warn_of_damage
from polyvae.io.options import ReadOptions
from polyvae.io.patterns import expanded
from polyvae.io.pieces import check_all_weighted, check_weights, holds, left_out, tell_units
from polyvae.io.readers import opened_trajectory
from polyvae.io.times import Times, pieces_in_time
from polyvae.io.topology import atoms_of_file, known_topology, own_topology
from polyvae.trajectory import facts as file_facts
from polyvae.trajectory.assembly import Assembler, has_box
from polyvae.trajectory.molecules import Atoms
from polyvae.trajectory.record import Trajectory

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 26  # of decoded coordinates held at once while frames are picked or streamed


class Run:
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
        first, self._unit = self.paths[0], ""
        atoms = first_file = None
        name = format_of(first, options.format)
        if options.topology is not None:
            atoms = known_topology(options.topology, options.select, options.topology_format)
        elif name not in ("NPZ", "XTC", "DCD"):
            first_file = opened_trajectory(first, options)  # what is no trajectory is told as that
            atoms = own_topology(first, options.select, name)
        if options.select is not None and atoms is None:
            raise InputError(f"the selection {options.select!r} needs a topology; give one (--top, topology=)")

        self._of_usual_unit: dict[str, list[Path]] = {}
        self._files: list[TrajectoryFile] = []
        self._times: list[Times] = []
        self._frames: list[range] = []
        self._assemblers: list[Assembler] = []
        self._conversions: list[Conversion] = []
        self._segments: list[np.ndarray] = []  # lengths of the pieces of each file that are continuous in time
        for path in self.paths:
            file = first_file or opened_trajectory(path, options, None if atoms is None else atoms.n_total)
            first_file = None
            with reading(path, "a trajectory"):
                self._add(path, file, atoms)
        tell_units(self._of_usual_unit)
        self.n_molecules = self._assemblers[0].n_molecules
        self.n_frames = sum(map(len, self._frames)) * self.n_molecules
        check_all_weighted(self.paths, self._files)
        self._left_out: set[str] | None = None if len(self.paths) > 1 else set()
        self._n_dims: int | None = None

    def _add(self, path: Path, file: TrajectoryFile, atoms: Atoms | None) -> None:
        """Take one more file into the run; refuse one that does not belong to it."""
        options, first = self._options, self.paths[0]
        atoms = atoms_of_file(file.facts, file.n_atoms, path, atoms)
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
        file_facts.report(path, file.facts)
        conversion = conversion_of(path, file, options)
        unit = conversion.length_unit
        if conversion.by_convention:
            self._of_usual_unit.setdefault(unit, []).append(path)
        self._unit = self._unit or unit
        if unit != self._unit and "sigma" in (unit, self._unit):
            raise InputError(
                f"{path} is in {unit}, {first} in {self._unit}, and a reduced unit relates "
                f"to no other; convert one, or state the one unit of the numbers in all (--unit, length_unit=)"
            )
        unwrapped = file.facts.stated("images")
        # Along bonds, what is whole stays; without any, bead order is no reason to move what is unwrapped.
        as_it_is = options.unwrap == "auto" and unwrapped and (atoms is None or atoms.bonds is None)
        clock = None if options.ignore_times or options.dt is not None else file.clock()
        self._conversions.append(conversion)
        self._segments.append(pieces_in_time(path, clock, file.facts.value("segments"), file.n_frames))
        self._files.append(file)
        self._frames.append(frames)
        self._times.append(Times(path, not conversion.has_times or options.ignore_times))
        self._assemblers.append(
            Assembler(
                atoms,
                unit,
                unwrap=False if as_it_is else options.unwrap,
                per_molecule=options.per_molecule,
                dims=options.dims,
                always_3d=file.always_3d,
                periodic=file.facts.value("periodic"),
                where=str(path),
                note=functools.partial(log.info, "%s: %s", path),
            )
        )

    def copy(self) -> "Run":
        """The same run, to be read beside this one by another thread."""
        other = copy.copy(self)
        other._files, other._times = [*map(copy.copy, self._files)], [*map(copy.copy, self._times)]
        other._frames = list(self._frames)
        return other

    n_atoms = property(lambda self: self._files[0].n_atoms)
    keep_good = property(lambda self: self._options.keep_good)

    @property
    def seeks(self) -> bool:
        """Whether parts of the files can be read without what comes before them."""
        return all(file.seeks for file in self._files)

    def settle(self) -> None:
        """Find out now what holds for all frames of each file, as reading from the first frame on does."""
        if self._left_out is None:
            self._left_out = self._settle_fields()
        for k, frames in enumerate(self._frames):
            for part, block in self._raw(k, frames[:2], 2):
                self._survey(k, part, block, self._per_block(k, CHUNK_BYTES))
            self._files[k].close()

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Trajectory]:
        """All frames, file by file, in chunks of bounded size."""
        for k in range(len(self.paths)):
            yield from self.read(k, chunk_bytes=chunk_bytes)

    def pieces(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, range]]:
        """The file, and which of its frames, that each of the `chunks` holds."""
        for k, frames in enumerate(self._frames):
            size = self._per_block(k, chunk_bytes)
            for start in range(0, len(frames), size):
                yield k, range(len(frames))[start : start + size]

    def read(self, k: int, rows: range | None = None, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Trajectory]:
        """Frames of file k in chunks; some `rows` of them alone once the run is settled."""
        n_before, last = sum(map(len, self._frames[:k])), None
        if rows is not None and rows.start:
            last = self.segments(k, self._frames[k][rows.start - 1 : rows.start])[0]
            n_before += rows.start
        for block in self.blocks(k, chunk_bytes=chunk_bytes, rows=rows) if rows != range(0) else ():
            segment = self.segments(k, block[0])
            yield self.record(k, [block], n_before, continues=segment[0] == last)
            last = segment[-1]
            n_before += len(block[0])

    def rows(self, k: int, part: int, n_parts: int) -> range:
        """Which of the frames of file k are a part of them."""
        n = len(self._frames[k])
        size = n if n_parts == 1 else -(-n // (n_parts * BATCH)) * BATCH
        return range(n)[part * size : (part + 1) * size]

    def first_frame(self, k: int, rows: range) -> int:
        """The number, in the run, of the first frame of the record of these rows."""
        return (sum(map(len, self._frames[:k])) + rows.start) * self.n_molecules

    def blocks(
        self, k: int, *, whole: bool = False, chunk_bytes: int = CHUNK_BYTES, rows: range | None = None
    ) -> Iterator[tuple[range, Frames]]:
        """Assembled coordinates of file k, with the numbers of the frames, in blocks of bounded size or, where
        that costs nothing, in one; of some `rows` of its frames alone once the run is settled."""
        file, frames, assembler = self._files[k], self._frames[k], self._assemblers[k]
        per_block = self._per_block(k, chunk_bytes)
        atoms = assembler.atoms
        if whole and frames.step == 1 and (atoms is None or len(atoms.chosen) == atoms.n_total):
            per_block = len(frames)
        if self._left_out is None:
            self._left_out = self._settle_fields()
        self._times[k].begin()
        try:
            if rows is not None and rows.start:  # the time before the first of them
                for part, block in self._raw(k, frames[rows.start - 1 : rows.start], 1):
                    self._times[k].checked(part, block.time, block.step, self.segments(k, part))
            for part, block in self._raw(k, frames if rows is None else frames[rows.start : rows.stop], per_block):
                with reading(self.paths[k], "a trajectory"):
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

    def _per_block(self, k: int, chunk_bytes: int) -> int:
        """Frames of file k in blocks of so many bytes, as they stand in it."""
        n = max(1, chunk_bytes // (12 * self._files[k].n_atoms * self._frames[k].step))
        return n if n < BATCH else n - n % BATCH

    def _settle_fields(self) -> set[str]:
        """The fields that are left out, since only some files hold them, as their first frames show."""
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
        # All files get an origin where there are several molecules.
        origins = [self._assemblers[0].table is not None or holds(file, "origin") for file in self._files]
        return left_out(self.paths, self._times, boxed, origins)

    def _settle_times(self, k: int) -> None:
        self._times[k].settle(len(_lengths(self.segments(k, self._frames[k]))))

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
        step = frames.step
        while len(frames := range(frames.start, min(frames.stop, self._frames[k].stop), step)):
            with reading(self.paths[k], "a trajectory"):
                part, block = self._undamaged(k, frames[:per_block])
                if block is None:
                    return
                frames = frames[per_block:]
                block = Frames._make(None if a is None else a[::step] for a in block)
                block = self._conversions[k].applied(block, _numbers(part))
            yield part, block

    def _undamaged(self, k: int, part: range) -> tuple[range, Frames | None]:
        """Some frames of file k as they are in it; with `keep_good` those before the first damage.

        Damage further on may be met before damage that comes earlier.
        """
        first = self._frames[k][0]
        while len(part):
            try:
                return part, self._files[k].read(part[0], part[-1] + 1)
            except DamagedError as damage:
                if not self._options.keep_good or damage.n_good <= first:
                    raise InputError(str(damage)) from None
                warn_of_damage(self.paths[k], damage.n_good)
                # The damage is met, and reported, once.
                self._frames[k] = range(first, damage.n_good, self._frames[k].step)
                part = range(part[0], damage.n_good, part.step)
        return part, None

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
        if len(self._segments[k]) == 1:
            return np.zeros(len(frames), int)
        return np.searchsorted(np.cumsum(self._segments[k]), _numbers(frames), side="right")

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
                segments=_lengths(segment),
                continues=bool(continues),
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

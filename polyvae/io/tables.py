"""Tables of collective variables that engines write, read by the names of their columns."""

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from polyvae import arguments
from polyvae.core.units import picoseconds
from polyvae.errors import InputError
from polyvae.io.patterns import expanded
from polyvae.io.table_files import TableFile, read_table
from polyvae.io.text_rows import TIME
from polyvae.records import html_of

log = logging.getLogger(__name__)

_GROUPS = ("molecule", "walker", "replica", "run")  # columns that distinguish rows of one time
_TURNS = {"deg": 360.0, "degree": 360.0, "degrees": 360.0, "°": 360.0, "rad": 2 * np.pi, "radians": 2 * np.pi}
_KERNEL = ("kerneltype", "multivariate")  # settings of hills
_KINDS = {"HILLS": "a list of hills", "KERNELS": "kernels of OPES", "STATE": "a state of OPES"}

_LARGEST = 1e100  # squares and sums of these are finite


@dataclasses.dataclass(frozen=True)
class Colvar(Mapping):
    """Columns of numbers by name, of one run or of several.

    Args:
        columns: name to values (n_rows,), as the files hold them.
        segments: number of rows of each run, which follow on each other; each molecule or walker that a column
            tells apart is a run of its own.
        periods: name of a periodic column to the ends of its period, as PLUMED's `#! SET min_phi` states them.
        settings: further words that PLUMED's `#! SET` gives, such as the kind of kernel.
        units: name of a column to its unit, where a file states one.
        kind: "rows" of a run, "HILLS" of metadynamics, or "KERNELS" or "STATE" of OPES.
        notes: which rows or columns were left out, and why.
        faults: name of a column that cannot be used to the reason.
    """

    columns: Mapping[str, np.ndarray]
    segments: tuple[int, ...]
    periods: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    units: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kind: str = "rows"
    notes: tuple[str, ...] = ()
    faults: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __getitem__(self, name: str) -> np.ndarray:
        """A column (n_rows,) of finite numbers; `InputError` where it is none."""
        if name in self.faults:
            raise InputError(self.faults[name])
        if name not in self.columns:
            raise InputError(f"no column {name!r}; there are {', '.join(self.columns)}")
        values = self.columns[name]
        if not (good := np.abs(values) < _LARGEST).all():
            row = int(np.argmin(good))
            raise InputError(
                f"column {name!r} must hold finite numbers, below {_LARGEST:g}; row {row + 1} of {len(good)} "
                f"holds {values[row]}. Leave such rows out of the file"
            )
        return values

    def __iter__(self):
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __contains__(self, name) -> bool:
        return name in self.columns

    def _repr_html_(self) -> str:
        with np.errstate(all="ignore"):  # of numbers that are refused where they are taken
            rows = [
                [name, *(f"{number(values):.4g}" for number in (np.min, np.mean, np.max))]
                for name, values in self.columns.items()
            ]
        return html_of("Colvar", [["column", "lowest", "mean", "highest"], *rows], f"{sum(self.segments)} rows")

    def __repr__(self) -> str:
        n = len(self.segments)
        rows = " + ".join(map(str, self.segments)) if n < 7 else str(sum(self.segments))
        return f"Colvar({', '.join(self.columns)}; {rows} rows{f' in {n} runs' if n > 6 else ''})"

    @property
    def time(self) -> np.ndarray | None:
        """Times (n_rows,), in ps where the file states a unit of time, or else steps; None where there are
        neither."""
        name = _clock(self.columns)
        if name is None:
            return None
        return self.columns[name] * (picoseconds(self.units.get(name, "")) or 1.0)

    def rows_at(self, time: np.ndarray | None, segments: Sequence[int]) -> np.ndarray:
        """The row (n_frames,) of each frame of the same runs: by its time in its run, or by its number where
        times are not known.

        Args:
            time: (n_frames,) times of the frames, if they are known.
            segments: frames of each run.

        Raises:
            InputError: other numbers of runs or of frames, a frame whose time has no row.
        """
        n, n_frames, own, of_rows = sum(self.segments), sum(segments), self.time, self.segments
        of_frames = tuple(segments)
        if own is not None and time is not None and _rises(own) and _rises(time):
            of_rows, of_frames = (n,), (n_frames,)  # parts of one run
        one = len(of_rows) == 1 or len(of_frames) == 1
        counted = own is None or time is None
        unlike = n != n_frames or (of_rows != of_frames and not one) if counted else len(of_rows) != len(of_frames)
        if unlike:
            raise InputError(
                f"the frames must be those of the COLVAR, run by run; got {n_frames} frames in {len(segments)} "
                f"runs and {n} rows in {len(self.segments)}. Give one trajectory for each COLVAR, in their order"
            )
        if own is None or time is None:
            return np.arange(n)
        steps = "step" in str(_clock(self.columns)).lower()
        row, frame, found = 0, 0, []
        for rows, frames in zip(of_rows, of_frames, strict=True):
            there, wanted = own[row : row + rows], time[frame : frame + frames]
            found.append(row + _matched(there, wanted, steps, frame))
            row, frame = row + rows, frame + frames
        return np.concatenate(found)


def _rises(time: np.ndarray) -> bool:
    return bool((np.diff(time) > 0).all())


def _matched(there: np.ndarray, wanted: np.ndarray, steps: bool, first: int) -> np.ndarray:
    """The row of each frame of one run, by the times of both; `first` is the number of its first frame."""
    as_many = np.arange(len(wanted))
    spread = np.unique(np.diff(there))
    if len(there) == len(wanted) and len(there) > 1:
        if there[0] == there[-1]:
            log.warning("all rows have one time, so frames and rows are matched by their numbers")
            return as_many
        if spread[0] == 0 and (np.abs(there - wanted) <= 0.51 * spread[1]).all():
            return as_many  # times that were rounded
        ratio = there[wanted != 0] / wanted[wanted != 0]
        if steps and np.ptp(ratio) <= 1e-4 * abs(ratio[-1]) and (there[wanted == 0] == 0).all():
            return as_many  # steps of one length
    hint = "Print the COLVAR with every frame, or leave out the times of the frames (--ignore-times)"
    if len(spread) and spread[0] <= 0:
        raise InputError(
            f"times of rows must increase to find frames by them; {int((np.diff(there) <= 0).sum())} of "
            f"{len(there)} do not. Print them with more digits, and a row for each frame"
        )
    step = float(np.median(np.diff(there))) if len(there) > 1 else 1.0
    near = np.searchsorted(there, wanted).clip(1, max(1, len(there) - 1))
    near -= wanted - there[near - 1] < there[near.clip(max=len(there) - 1)] - wanted
    near = near.clip(max=len(there) - 1)
    off = np.abs(there[near] - wanted)
    each = float(np.median(np.diff(wanted))) if len(wanted) > 1 else step
    finest = min(step, each)
    if (off > np.minimum(0.01 * finest + 1e-5 * np.abs(wanted), 0.3 * finest)).any():
        at = int(np.argmax(off))
        raise InputError(
            f"the COLVAR must have a row at the {'step' if steps else 'time'} of every frame; frame {first + at} "
            f"is at {wanted[at]:g}, the nearest row at {there[near[at]]:g}. {hint}"
        )
    if steps and abs(there[-1] - wanted[-1]) > max(step, each):
        raise InputError(
            f"the rows have steps up to {there[-1]:g}, the frames times up to {wanted[-1]:g}, which are not the "
            f"same. {hint}"
        )
    return near


def _clock(names) -> str | None:
    """The column of times, or of steps where there are no times."""
    found = [name for name in names if TIME.fullmatch(name)]
    return next((name for name in found if "step" not in name.lower()), found[0] if found else None)


@dataclasses.dataclass
class _Piece:
    """Rows that follow on each other: some of the columns of a file."""

    columns: dict[str, np.ndarray]
    rows: np.ndarray

    def __getitem__(self, name: str) -> np.ndarray:
        values, n = self.columns[name], len(self.rows)
        if n and self.rows[-1] - self.rows[0] == n - 1:  # no copy
            return values[self.rows[0] : self.rows[-1] + 1]
        return values[self.rows]


def read_colvar(files: str | os.PathLike | Sequence[str | os.PathLike]) -> Colvar:
    """Read what runs wrote of their collective variables: one file, several, or patterns such as `"run*/COLVAR"`,
    whose files come in natural order.

    PLUMED's COLVAR, HILLS, and KERNELS and STATE of OPES, Colvars' `.colvars.traj`, LAMMPS' `fix ave/time`,
    GROMACS' `.xvg`, OpenMM's `.csv`, the `.npz` of `write_colvar`, and any table under a line `# name name ...`;
    packed by gzip, bzip2 or xz, too. Where step or time goes back within a file, the run was restarted, and rows
    that it did again count as it did them last; where it goes back to the beginning, another run starts. So does
    every file, unless its first time follows on the last of the file before by one step between rows. A column
    "molecule", "walker", "replica" or "run" distinguishes the runs in one file.

    Returns:
        The columns that all files have. What was left out stands in `notes`, and is logged.

    Raises:
        InputError: no file, no names of columns, a row that does not fit them, files of different kinds or
            periods. A last row that was cut off is left out.
        OSError: a file cannot be read.
    """
    if not arguments.file_names("files", files):
        raise InputError("a COLVAR is needed; got no file")
    runs: list[list[_Piece]] = []
    last: dict[tuple, list[_Piece]] = {}
    periods: dict[str, tuple[float, float]] = {}
    settings: dict[str, str] = {}
    units: dict[str, str] = {}
    faults: dict[str, str] = {}
    notes: list[str] = []
    of_kind: dict[str, Path] = {}
    for path in map(Path, expanded(files)):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file")
        file = read_table(path)
        _agree(path, "period", periods, file.periods)
        _agree(path, "unit", units, file.units)
        _agree(path, "setting", settings, {k: v for k, v in file.settings.items() if k in _KERNEL})
        settings |= file.settings
        of_kind.setdefault(file.kind, path)
        pieces = [section.take_columns() for section in file.sections]
        for k, (section, columns) in enumerate(zip(file.sections, pieces, strict=True)):
            faults |= section.faults
            if file.kind != "rows":  # a sum, whatever order they come in, and those of walkers at one time
                runs.append([_Piece(columns, np.arange(section.n))])
            else:
                _append(runs, last, columns, section.starts, k == 0, file)
        notes += file.notes
    if len(of_kind) > 1:
        (one, first), (other, second) = sorted(of_kind.items(), key=lambda item: item[0] == "rows")[:2]
        raise InputError(f"{first} is {_KINDS[one]} and {second} is {_KINDS.get(other, 'not')}; read them apart")
    pieces_of_all = [piece.columns for run in runs for piece in run]
    names = [name for name in pieces_of_all[0] if all(name in columns for columns in pieces_of_all)]
    if others := sorted({name for columns in pieces_of_all for name in columns} - set(names)):
        notes.append(f"left out, since only a part of the rows has them: the columns {', '.join(others)}")
    for note in notes:
        log.warning(note)
    if not names:
        raise InputError(f"{', '.join(map(str, expanded(files)))}: these files have no column in common")
    if all(name in faults or TIME.fullmatch(name) for name in names) and faults:
        raise InputError(next(iter(faults.values())))
    columns = {name: _joined([piece[name] for run in runs for piece in run]) for name in names}
    segments = tuple(sum(len(piece.rows) for piece in run) for run in runs)
    periods = {name: ends for name, ends in periods.items() if name in names} | _turns(columns, units, periods)
    return Colvar(columns, segments, periods, settings, units, next(iter(of_kind)), tuple(notes), faults)


def _turns(columns: dict, units: dict, known: dict) -> dict[str, tuple[float, float]]:
    """Periods of columns in degrees or radians that take more than the half turn of an angle between bonds."""
    found = {}
    for name in columns:
        turn = _TURNS.get(units.get(name, "").lower())
        if turn is not None and name not in known:
            low, high = columns[name].min(), columns[name].max()
            if (low < 0 or high > turn / 2) and high - low <= turn * 1.000001:
                found[name] = (-turn / 2, turn / 2)
                log.info("%s is an angle in %s, with a period of %g", name, units[name], turn)
    return found


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _agree(path: Path, what: str, known: dict, found: Mapping) -> None:
    """Add to what is known of columns; a file that says otherwise is refused."""
    for name, value in found.items():
        if known.setdefault(name, value) != value:
            raise InputError(
                f"{path}: the {what} of {name} is {value}, that in the files before {known[name]}. Read them apart"
            )


def _append(runs, last, columns: dict, starts: list[int], first: bool, file: TableFile) -> None:
    """Add rows to the runs that they continue, or as runs of their own."""
    when = _clock(columns)
    steps = next((name for name in columns if TIME.fullmatch(name) and "step" in name.lower()), None)
    if when is not None and steps is not None and np.ptp(columns[when]) == 0:
        when = steps  # all times are equal
    clock = None if when is None else columns[when]
    if clock is not None and not np.isfinite(clock).all():
        raise InputError(f"{file.path}: every row must have a time; column {when!r} holds one that is no number")
    n = len(next(iter(columns.values())))
    if when is not None and clock is not None and "step" in when.lower() and clock[0] != clock[-1]:
        # LAMMPS begins each `run` with the row that ended the one before it.
        same = np.r_[np.diff(clock) == 0, False]
        for values in columns.values():
            same[:-1] &= np.equal(values[:-1], values[1:])
        if same.any():
            file.notes.append(f"{file.path}: {same.sum()} rows that repeat the row of their step are left out")
            columns = {name: values[~same] for name, values in columns.items()}
            clock, starts = columns[when], [int((~same[:start]).sum()) for start in starts]
            n = len(clock)
    groups: dict[tuple, np.ndarray] = {(): np.arange(n)}
    if keys := [name for name in _GROUPS if name in columns]:
        labels, kind = np.unique(np.stack([columns[key] for key in keys], 1), axis=0, return_inverse=True)
        order = np.argsort(kind.ravel(), kind="stable")
        rows = np.split(order, np.cumsum(np.bincount(kind.ravel()))[:-1])
        groups = dict(zip(map(tuple, labels.tolist()), rows, strict=True))
    parts = {key: _parts(rows, clock, starts) for key, rows in groups.items()}
    for turn in range(max(map(len, parts.values()))):
        for key in [key for key in parts if turn < len(parts[key])]:
            piece = _Piece(columns, parts[key][turn])
            run = last.get(key)
            if run is None or not _continues(run, piece, when, first and turn == 0, file):
                runs.append(run := [])
                last[key] = run
            run.append(piece)


def _parts(rows: np.ndarray, clock: np.ndarray | None, starts: list[int]) -> list[np.ndarray]:
    """Rows cut where time goes back, or where a header comes and the time before it comes again."""
    if clock is None:
        return [rows]
    step = np.diff(clock[rows])
    headed = np.isin(np.arange(1, len(rows)), np.searchsorted(rows, starts))
    moves = clock[rows[0]] != clock[rows[-1]]
    return np.split(rows, np.flatnonzero((step < 0) | ((step == 0) & headed & moves)) + 1)


def _continues(run: list[_Piece], piece: _Piece, when: str | None, next_file: bool, file: TableFile) -> bool:
    """Whether a piece continues a run. The rows that it did again are removed from the run."""
    if when is None or any(when not in part.columns for part in run):
        return False
    time, start = run[-1][when], piece[when][0]
    begin, end = run[0][when][0], time[-1]
    step = float(np.median(np.diff(time))) if len(time) > 1 else 0.0
    # In one file a restart may go back; in the next it may do the last step again, and no more.
    if not (end <= start if next_file else begin < start) or start > end + 1.5 * step or begin == end:
        return False
    gone = 0
    for part in run:
        kept = np.searchsorted(part[when], start)
        gone += len(part.rows) - kept
        part.rows = part.rows[:kept]
    run[:] = [part for part in run if len(part.rows)]
    if gone:
        file.notes.append(f"{file.path}: a restart at {start:g}; {gone} rows before it count as done again")
    return True

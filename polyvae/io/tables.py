"""Tables of collective variables that engines write, read by the names of their columns."""

import contextlib
import csv
import dataclasses
import glob
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from polyvae import arguments
from polyvae.errors import InputError
from polyvae.records import html_of

log = logging.getLogger(__name__)

_TIMES = ("time", "step", "Time", "Step", "Time (ps)")  # names of the column that tells when


@dataclasses.dataclass(frozen=True)
class Colvar(Mapping):
    """Columns of numbers by name, of one run or of several.

    Args:
        columns: name to values (n_rows,).
        segments: number of rows of each run, which follow on each other.
        periods: name of a periodic column to the ends of its period, as PLUMED's `#! SET min_phi` states them.
        settings: further words that PLUMED's `#! SET` gives, such as the kind of kernel.
    """

    columns: Mapping[str, np.ndarray]
    segments: tuple[int, ...]
    periods: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.columns:
            raise InputError(f"no column {name!r}; there are {', '.join(self.columns)}")
        return self.columns[name]

    def __iter__(self):
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __contains__(self, name) -> bool:
        return name in self.columns

    def _repr_html_(self) -> str:
        rows = [
            [name, *(f"{number(values):.4g}" for number in (np.min, np.mean, np.max))]
            for name, values in self.items()
        ]
        return html_of("Colvar", [["column", "lowest", "mean", "highest"], *rows], f"{sum(self.segments)} rows")

    def __repr__(self) -> str:
        return f"Colvar({', '.join(self.columns)}; {' + '.join(map(str, self.segments))} rows)"

    @property
    def time(self) -> np.ndarray | None:
        """Times or steps of the rows (n_rows,), if there is such a column."""
        name = next((name for name in _TIMES if name in self.columns), None)
        return None if name is None else self.columns[name]

    def rows_at(self, time: np.ndarray | None, segments: Sequence[int]) -> np.ndarray:
        """The row (n_frames,) of each frame of the same runs: by its time in its run, or by its number where there
        are no times.

        Args:
            time: (n_frames,) times of the frames, if they are known.
            segments: frames of each run.

        Raises:
            InputError: other numbers of runs or of frames, a frame whose time has no row.
        """
        n, n_frames, own = sum(self.segments), sum(segments), self.time
        if len(segments) != len(self.segments) or (n != n_frames and (own is None or time is None)):
            raise InputError(
                f"the frames must be those of the COLVAR, run by run; got {n_frames} frames in {len(segments)} "
                f"runs and {n} rows in {len(self.segments)}. Give one trajectory for each COLVAR, in their order"
            )
        if own is None or time is None:
            return np.arange(n)
        rows, of_row, of_frame = [], 0, 0
        for length, frames in zip(self.segments, segments, strict=True):
            there, wanted = own[of_row : of_row + length], time[of_frame : of_frame + frames]
            step = _step(there) or 1.0
            near = np.searchsorted(there, wanted - 0.5 * step).clip(max=length - 1)
            off = np.abs(there[near] - wanted)
            if (off > 0.01 * step + 1e-5 * np.abs(wanted)).any():
                at = int(np.argmax(off))
                raise InputError(
                    f"the COLVAR must have a row at the time of every frame; frame {of_frame + at} is at "
                    f"{wanted[at]:g}, the nearest row at {there[near[at]]:g}. Print the COLVAR with every frame"
                )
            rows.append(of_row + near)
            of_row, of_frame = of_row + length, of_frame + frames
        return np.concatenate(rows)


def read_colvar(files: str | os.PathLike | Sequence[str | os.PathLike]) -> Colvar:
    """Read what runs wrote of their collective variables: one file, several, or patterns such as `"run*/COLVAR"`.

    PLUMED's COLVAR and HILLS, Colvars' `.colvars.traj`, GROMACS' `.xvg`, `.csv`, the `.npz` of `write_colvar`, and
    any table under a line `# name name ...`. Where a run was restarted, rows that it did again count as it did
    them last. In one file a time that goes back to the beginning starts another run, and so does every file,
    unless its first time follows on the last of the file before by one step between rows.

    Returns:
        The columns that all files have.

    Raises:
        InputError: no file, no names of columns, a row that does not fit them or is no number. A last row that
            was cut off is left out, which is logged.
        OSError: a file cannot be read.
    """
    paths: list[Path] = []
    for given in arguments.file_names("files", files):
        found = [os.fspath(given)] if os.path.exists(given) else sorted(glob.glob(os.fspath(given)))
        if not found:
            raise FileNotFoundError(f"{given}: no such file")
        paths += map(Path, found)
    if not paths:
        raise InputError("a COLVAR is needed; got no file")
    runs: list[dict[str, np.ndarray]] = []
    periods: dict[str, tuple[float, float]] = {}
    settings: dict[str, str] = {}
    kinds: dict[bool, Path] = {}
    for path in paths:
        pieces, said = _pieces(path)
        settings |= said
        for k, piece in enumerate(pieces):
            kinds.setdefault(hills := "height" in piece and any(name.startswith("sigma_") for name in piece), path)
            if hills:
                runs.append(piece)  # a sum, whatever order they come in, and those of walkers at one time
            else:
                _add(runs, piece, path, first=k == 0)
    if len(kinds) > 1:
        raise InputError(f"{kinds[True]} is a list of hills and {kinds[False]} is not; read them apart")
    names = [name for name in runs[0] if all(name in run for run in runs)]
    if not names:
        raise InputError(f"{', '.join(map(str, paths))}: these files have no column in common")
    columns = {name: np.concatenate([run[name] for run in runs]) for name in names}
    for name in names:
        ends = [_period_end(settings[key]) for key in (f"min_{name}", f"max_{name}") if key in settings]
        if len(ends) == 2 and ends[0] < ends[1]:
            periods[name] = (ends[0], ends[1])
    return Colvar(columns, tuple(len(run[names[0]]) for run in runs), periods, settings)


def _add(runs: list[dict], piece: dict[str, np.ndarray], path: Path, first: bool) -> None:
    """Append a piece to the last run where it goes on with that, or else as a run of its own."""
    when = next((name for name in _TIMES if name in piece), None)
    for part in _in_order(piece, when):
        last = runs[-1] if runs else None
        if last is None or when is None or when not in last:
            runs.append(part)
        else:
            end, step, start = last[when][-1], _step(last[when]), part[when][0]
            # In one file a restart may go back; in the next it may do the last step again, and no more.
            goes_on = last[when][0] < start <= end + 1.5 * step if not first else end <= start <= end + 1.5 * step
            common = [name for name in last if name in part]
            if goes_on and common:
                kept = last[when] < start
                if not kept.all():
                    log.info(
                        "%s: a restart at %g; %d rows before it count as done again", path, start, (~kept).sum()
                    )
                runs[-1] = {name: np.concatenate([last[name][kept], part[name]]) for name in common}
            else:
                runs.append(part)
        first = False


def _in_order(piece: dict[str, np.ndarray], when: str | None) -> list[dict[str, np.ndarray]]:
    """A piece cut where its time goes back; rows that repeat the time before them are left out."""
    if when is None:
        return [piece]
    time = piece[when]
    cuts = np.flatnonzero(np.diff(time) < 0) + 1
    parts = [
        dict(zip(piece, values, strict=True))
        for values in zip(*(np.split(v, cuts) for v in piece.values()), strict=True)
    ]
    for part in parts:
        new = np.diff(part[when], append=np.inf) > 0  # of equal times the last
        if not new.all():
            log.info("%d rows have the time of the row after them, and are left out", (~new).sum())
        part.update({name: values[new] for name, values in part.items()})
    return parts


def _step(time: np.ndarray) -> float:
    return float(np.median(np.diff(time))) if len(time) > 1 else 0.0


def _pieces(path: Path) -> tuple[list[dict[str, np.ndarray]], dict[str, str]]:
    """The tables of one file, each with the names above it, and what PLUMED's SET lines say."""
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return [_npz(path)], {}
    names: list[str] = ["time"] if suffix == ".xvg" else []
    blocks: list[tuple[list[str], list[str], int]] = []  # names, rows, the line above them
    settings: dict[str, str] = {}
    comments: list[str] = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            words = line.split()
            if not words:
                continue
            if words[0] == "#!" and len(words) > 1:
                if words[1] == "FIELDS":
                    names = words[2:]
                    blocks.append((names, [], number))
                elif words[1] == "SET" and len(words) > 3:
                    settings[words[2]] = words[3]
            elif words[0][0] in "@&":
                if (legend := re.match(r'@\s+s\d+\s+legend\s+"(.*)"', line)) is not None:
                    names = [*names, legend[1]]
            elif words[0][0] == "#" or (not blocks and not comments and suffix == ".csv"):
                comments.append(line.lstrip("#").strip())
            else:
                if not blocks:
                    blocks.append((names, [], number - 1))
                blocks[-1][1].append(line)
    blocks = [block for block in blocks if block[1]]
    if not blocks:
        raise InputError(f"{path}: a COLVAR must hold rows of numbers under `#! FIELDS time z0 ...`; got no row")
    return [_parsed(path, *block, comments, last=block is blocks[-1]) for block in blocks], settings


def _cells(row: str, comma: bool) -> list[str]:
    """The columns of a row; a vector, as Colvars writes it, is one."""
    if comma:
        return [cell.strip() for cell in next(csv.reader([row]))]
    return re.findall(r"\([^)]*\)|\S+", row) if "(" in row else row.split()


def _named(names: list[str], comments: list[str], row: str, comma: bool, path: Path) -> list[str]:
    """A name for each number of a row, and of a vector one for each component: the names that were stated, else
    the
    first comment of as many words."""
    cells = _cells(row, comma)
    if path.suffix.lower() == ".xvg" and len(names) == 1:  # no legends
        names = names + [f"y{k}" for k in range(len(cells) - 1)]
    elif not names:
        lines = [_cells(line, comma) for line in comments]
        names = next((line for line in lines if len(line) == len(cells)), lines[-1] if lines else [])
    if len(names) != len(cells):
        raise InputError(
            f"{path}: the columns must have as many names as numbers, {len(cells)}; got {len(names)}: "
            f"{' '.join(names) or 'none'}. A first line `#! FIELDS time z0 ...` names them"
        )
    found = []
    for name, cell in zip(names, cells, strict=True):
        n = len(cell.strip("()").split(",")) if cell.startswith("(") else 0
        found += [f"{name}_{k}" for k in range(n)] if n else [name]
    return found


def _parsed(
    path: Path, names: list[str], rows: list[str], number: int, comments: list[str], last: bool
) -> dict[str, np.ndarray]:
    comma = "," in rows[0] and "(" not in rows[0]
    names = _named(names, comments, rows[0], comma, path)
    if "(" in rows[0]:
        rows = [row.translate(str.maketrans("(),", "   ")) for row in rows]

    def numbers(row: str) -> list[str]:
        return [cell.strip() for cell in (row.split(",") if comma else row.split())]

    if last and len(rows) > 1 and (len(numbers(rows[-1])) < len(names) or not (comma or rows[-1].endswith("\n"))):
        log.info("%s: the last row is cut off, and left out", path)
        rows = rows[:-1]
    try:
        table = np.loadtxt(rows, ndmin=2, delimiter="," if comma else None, comments=None)
        bad = ~np.isfinite(table).all(axis=1)
    except ValueError:
        table, width = None, len(names)
        bad = np.array([len(numbers(row)) != width or not all(map(_is_number, numbers(row))) for row in rows])
    if table is None or bad.any():
        at = int(np.argmax(bad))
        raise InputError(
            f"{path}: every row must hold {len(names)} finite numbers ({', '.join(names)}); row {at + 1} below "
            f"line {number} is {arguments.shown(rows[at].strip())}. Cut the file there, or mend that row"
        )
    return dict(zip(names, table.T.copy(), strict=True))


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: no npz of numbers ({error})") from None
    found = {}
    for name, array in arrays.items():
        if array.dtype.kind in "iuf" and array.ndim == 1:
            found[name] = array.astype(np.float64)
        elif array.dtype.kind in "iuf" and array.ndim == 2 and name == "z":
            found |= {f"z{k}": column.astype(np.float64) for k, column in enumerate(array.T)}
    if not found or len({len(values) for values in found.values()}) > 1:
        raise InputError(f"{path}: an npz of collective variables holds rows (n_frames,) of one length by name")
    return found


def _is_number(word: str) -> bool:
    with contextlib.suppress(ValueError):
        float(word)
        return True
    return False


def _period_end(word: str) -> float:
    """A number, or PLUMED's multiple of pi."""
    match = re.fullmatch(r"([+-]?)([\d.]*)\*?pi", word)
    if match:
        return float(f"{match[1]}{match[2] or 1}") * math.pi
    return float(word) if _is_number(word) else math.nan

"""Collective variables of many trajectory files: a table of each, here or on a Dask cluster."""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import os
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from polyvae.arguments import file_name, flag, functions, one_of, whole_number
from polyvae.cluster import Call, check_client, outcomes, shared
from polyvae.cv.latent import LatentCV, check_cv
from polyvae.errors import InputError
from polyvae.files import locked, refuse_overwriting, sweep
from polyvae.io.frames import existing
from polyvae.io.options import ReadOptions, refuse_unknown
from polyvae.io.patterns import Paths, expanded
from polyvae.io.runs import RunFiles
from polyvae.progress import quiet, reports
from polyvae.records import Record
from polyvae.tasks.projection import Projector, TableRows, project_chunk
from polyvae.trajectory.record import Trajectory
from polyvae.vae.checkpoint import digest

KINDS = {"COLVAR": ".COLVAR", "csv": ".csv", "npz": ".npz"}
DONE = "tables.jsonl"
TASK_BYTES = 1 << 26  # bytes of a file that one task reads
_ENDS = 1 << 16  # bytes at either end of a file that its fingerprint covers


@dataclasses.dataclass(frozen=True)
class Tables(Record):
    """Result of the projection of many files.

    Args:
        tables: names of the whole tables, by the names of their files.
        n_frames: number of frames in these tables together.
        skipped: files that already had a whole table, of the same model and the same file.
        failed: reason, in one line, for each file that could not be projected.
    """

    tables: Mapping[str, str]
    n_frames: int
    skipped: tuple[str, ...]
    failed: Mapping[str, str]

    def table(self) -> list[list[str]]:
        """A row for each file: its table, or why there is none."""
        rows = [[file, name] for file, name in self.tables.items()]
        return [["file", "table"], *rows, *([file, f"failed: {why}"] for file, why in self.failed.items())]

    def __repr__(self) -> str:
        return (
            f"<Tables: {self.n_frames} frames of {len(self.tables)} files, {len(self.skipped)} of them done "
            f"before; {len(self.failed)} failed>"
        )


@reports("projecting", "file")
def transform_many(
    files: Paths,
    cv: LatentCV,
    out: str | os.PathLike,
    *,
    client: Any = None,
    columns: Mapping[str, Callable] | None = None,
    kind: str = "COLVAR",
    force: bool = False,
    task_bytes: int = TASK_BYTES,
    progress: Callable[[int, int], None] | bool | None = None,
    **options,
) -> Tables:
    """Write a table of the latent coordinates of each of thousands of trajectory files, each a run of its own.

    Each table is the same, byte for byte, as that of `project`, and appears whole or not at all. The folder has a
    list of them (tables.jsonl). A further call projects only files that have changed or have no table. A file that
    cannot be read does not stop the others.

    On a cluster each file is a task, and a long XTC, DCD, GSD or dump (without gzip) is several. Another worker
    repeats the tasks of a lost one, as often as Dask's setting `distributed.scheduler.allowed-failures` allows.
    Files and folder must have the same names for all workers. One thread for each worker is best (`dask worker
    --nworkers auto --nthreads 1`).

    Args:
        files: files, or patterns such as "runs/run*.xtc".
        cv: the collective variable, as `fit` and `load` give it.
        out: folder, made if it does not exist. Tables have the places in it that the files have in their common
            folder, so that files of one name in several folders stay apart. Their names end in `kind`. A file
            keeps its table when the folder is used again with other files.
        client: a `distributed.Client`; without it, all is done in this process.
        columns: as for `project`; workers of a cluster must know the functions. Tables of other columns are not
            mixed with these: names, order and code of the functions are compared, not other values that they use.
        kind: "COLVAR", "csv" or "npz", as for `write_colvar`.
        force: start over, and replace tables of another model.
        task_bytes: bytes of a file that one task reads.
        progress: True for a bar, or a function of files done and files in all.
        **options: options of `read` for each file; `dims` are the model's by default.

    Raises:
        InputError: unusable arguments; a folder that holds something else or that another job writes to; a table
            of another file. Errors of single files are in `Tables.failed`.
        FileNotFoundError: a pattern that no file matches.
    """
    client, columns = check_client(client), functions("columns", columns)
    ending = KINDS[one_of("kind", kind, KINDS)]
    whole_number("task_bytes", task_bytes, 1)
    refuse_unknown("transform_many", options)
    cv = dataclasses.replace(check_cv(cv), generator=None)  # a generator takes no part in encoding
    if options.get("topology") is not None:
        options["topology"] = os.path.abspath(existing(file_name("topology", options["topology"])))
    reading = ReadOptions(**{"dims": cv.n_dims} | options)
    places = list(dict.fromkeys(Path(os.path.abspath(path)) for path in expanded(files)))
    folder = Path(os.path.abspath(file_name("out", out)))
    measured = {name: _code(measure) for name, measure in columns.items()}
    about = {"model": identity(cv), "columns": list(measured.items()), **_plain(reading)}
    with _Done(folder, about, places, force=flag("force", force)) as done:
        tables = [done.name(place, ending) for place in places]
        if lost := {folder / name for name in tables} & set(places):
            raise InputError(f"{min(lost)} is an input here and would be lost; name another folder for the tables")
        jobs, skipped = [], {}
        for place, name in zip(places, tables, strict=True):
            job = _Job(place, folder / name, _fingerprint(place), reading)
            if (n := done.frames(job)) is None:
                jobs.append(job)
            else:
                skipped[place] = n
        for parent in {job.table.parent for job in jobs}:
            parent.mkdir(parents=True, exist_ok=True)
        found, failed = dict(skipped), {}
        model = shared(client, Projector(cv, columns))
        work = functools.partial(_projected, model=model, task_bytes=task_bytes if client else None)
        try:
            for job, n in outcomes(client, work, jobs):
                if isinstance(n, InputError):
                    failed[job.file] = str(n) if str(job.file) in str(n) else f"{job.file}: {n}"
                else:
                    found[job.file] = n
                    done.add(job, n)
                if callable(progress):
                    progress(len(found) + len(failed), len(places))
        finally:
            for place in {job.table.parent for job in jobs}:  # of workers that were killed
                sweep(place, age=0)
    own = {str(place): str(folder / name) for place, name in zip(places, tables, strict=True) if place in found}
    why = {str(place): failed[place] for place in places if place in failed}
    return Tables(own, sum(found.values()), tuple(map(str, skipped)), why)


class _Job(NamedTuple):
    """One file, its table, its state, and how it is read."""

    file: Path
    table: Path
    state: str
    reading: ReadOptions


def _projected(call: Call, job: _Job, *, model, task_bytes: int | None):
    """Submit the tasks of one file; the last one returns the number of its frames."""
    size = job.file.stat().st_size if task_bytes is not None and job.file.is_file() else 0
    n_parts = -(-size // (task_bytes or 1))
    if n_parts <= 1 or job.reading.keep_good:  # frames after damage can only be counted from the beginning
        return call(_write_file, model, job)
    run = call(_opened, job)
    rows = [call(_rows_of_part, model, job, run, part, n_parts) for part in range(n_parts)]
    return call(_write_parts, model, job, rows)


def _write_file(model: Projector, job: _Job) -> int:
    with quiet():
        run = RunFiles(job.file, job.reading)
        return model.write(job.table, _rows(model, run.chunks()))


def _opened(job: _Job) -> RunFiles | None:
    """The file, known well enough to read any part of it; None where it can only be read from the beginning."""
    with quiet():
        run = RunFiles(job.file, job.reading)
        if not run.seeks:
            return None
        run.settle()
        return run


def _rows_of_part(model: Projector, job: _Job, run: RunFiles | None, part: int, n_parts: int) -> list[TableRows]:
    with quiet():
        if run is None:
            run = RunFiles(job.file, job.reading)
            return list(_rows(model, run.chunks())) if part == 0 else []
        rows = run.rows(0, part, n_parts)
        return list(_rows(model, run.copy().read(0, rows), run.first_frame(0, rows)))


def _rows(model: Projector, chunks: Iterator[Trajectory], first: int = 0) -> Iterator[TableRows]:
    for chunk in chunks:
        yield project_chunk(chunk, first, model)
        first += len(chunk)


def _write_parts(model: Projector, job: _Job, parts: list[list[TableRows]]) -> int:
    return model.write(job.table, (rows for part in parts for rows in part))


class _Done:
    """The list of tables in a folder, with a line for each.

    `about` is what all tables have in common: model, columns and options. `places` are the files of this call.
    `InputError` if the folder holds tables of something else, or other files, or if another job writes there.
    """

    def __init__(self, folder: Path, about: dict, places: list[Path], *, force: bool):
        path = folder / DONE
        if not path.is_file():
            refuse_overwriting(folder, force=force)
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._open = folder, contextlib.ExitStack()
        try:
            self._open.enter_context(locked(folder))
            self._file = self._open.enter_context(path.open("a+"))
            self._file.seek(0)
            text = "" if force else self._file.read()
            head = {"about": json.loads(json.dumps(about, default=int)), "top": _top(places)}
            self._known, lines = {}, text.splitlines()
            if lines:
                with contextlib.suppress(ValueError, TypeError, KeyError):  # a line of something else
                    head["top"] = json.loads(lines[0])["top"]
                if lines[0] != json.dumps(head, sort_keys=True):
                    raise InputError(
                        f"{folder} holds tables of another model, or of files that were read otherwise; name "
                        f"another folder, or replace them (--force, force=True)"
                    )
            else:
                self._file.truncate(0)
            for line in lines[1:]:
                with contextlib.suppress(ValueError, TypeError, KeyError):  # the last one may be cut off
                    entry = json.loads(line)
                    self._known[entry["file"]] = entry
            if not text.endswith("\n"):
                self._file.write("\n" if lines else json.dumps(head, sort_keys=True) + "\n")
                self._file.flush()
        except BaseException:
            self._open.close()
            raise
        # Named within the folder of the earlier files, if that holds all files.
        own = all(place.is_relative_to(head["top"]) for place in places)
        self._top = head["top"] if own else _top(places)
        self._taken = {entry["table"]: file for file, entry in self._known.items()}

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._open.close()

    def name(self, place: Path, ending: str) -> str:
        """The table of a file: the one that it has, or a new one at the file's place within the common folder."""
        if (entry := self._known.get(str(place))) is not None and entry["table"].endswith(ending):
            return entry["table"]
        name = os.path.relpath(place, self._top) + ending
        if (other := self._taken.setdefault(name, str(place))) != str(place):
            raise InputError(
                f"{self._folder / name} is the table of {other}, and would be that of {place}; name another "
                f"folder for the latter, or all files at once"
            )
        return name

    def frames(self, job: _Job) -> int | None:
        """The frames of a table that is whole and of the same file; None where there is none."""
        entry = self._known.get(str(job.file))
        if entry is None or entry["state"] != job.state or not job.table.is_file():
            return None
        return entry["frames"] if job.table.stat().st_size == entry["bytes"] else None

    def add(self, job: _Job, n_frames: int) -> None:
        """Add a table that is whole."""
        entry = {
            "table": os.path.relpath(job.table, self._folder),
            "file": str(job.file),
            "state": job.state,
            "frames": n_frames,
            "bytes": job.table.stat().st_size,
        }
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()


def identity(cv: LatentCV) -> str:
    """A digest of everything that decides the values of a CV."""
    leaves, _ = jax.tree.flatten(eqx.filter(cv.function(), eqx.is_array))
    named = {
        "featurizer": type(cv.featurizer).__name__,
        "options": {
            field.name: value
            for field in dataclasses.fields(cv.featurizer)
            if not eqx.is_array(value := getattr(cv.featurizer, field.name))
        },
        "shapes": [leaf.shape for leaf in leaves],
        "unit": cv.length_unit,
        "beads": [cv.n_beads, cv.n_dims],
    }
    text = json.dumps(named, sort_keys=True, default=str)
    return digest(*(np.atleast_1d(leaf) for leaf in leaves), np.frombuffer(text.encode(), np.uint8))


def _top(places: list[Path]) -> str:
    """The folder that holds all files."""
    return os.path.commonpath([place.parent for place in places])


def _code(measure: Callable) -> str:
    """Identity of a function: its name and a fingerprint of its code."""
    code = getattr(inspect.unwrap(measure), "__code__", None)
    name = f"{getattr(measure, '__module__', '')}.{getattr(measure, '__qualname__', type(measure).__name__)}"
    if code is None:
        return name
    plain = [one for one in code.co_consts if not isinstance(one, types.CodeType)]
    return f"{name} {hashlib.sha256(repr((code.co_code, code.co_names, plain)).encode()).hexdigest()[:16]}"


def _plain(reading: ReadOptions) -> dict:
    """The options as words, and the state of the topology."""
    found = dict(vars(reading))
    if reading.topology is not None:
        found["topology"] = _fingerprint(Path(reading.topology))
    return found


def _fingerprint(path: Path) -> str:
    """The state of a file: its size, the time of its last change, and the bytes at its two ends.

    A digest of the whole file would take as long as reading it.
    """
    try:
        stat = path.stat()
        with path.open("rb") as file:
            head = file.read(_ENDS)
            file.seek(max(0, stat.st_size - _ENDS))
            return f"{stat.st_size} {stat.st_mtime_ns} {hashlib.sha256(head + file.read(_ENDS)).hexdigest()[:16]}"
    except OSError:  # reading it will report the error
        return ""

"""What a run will cost on this machine, measured on a sample of it, and what more workers would bring."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.arguments import real_number
from polyvae.cluster import cores
from polyvae.cv.fitting import IN_MEMORY, latent_cv, prepared_data
from polyvae.errors import InputError, one_line
from polyvae.io.colvar import write_colvar
from polyvae.io.frames import existing
from polyvae.io.patterns import Paths, expanded
from polyvae.io.runs import CHUNK_BYTES, ReadOptions, Run
from polyvae.progress import quiet
from polyvae.records import Record
from polyvae.tasks.tables import TASK_BYTES
from polyvae.trajectory.record import Trajectory
from polyvae.trajectory.stream import concatenate
from polyvae.vae.fitting import default_epochs
from polyvae.vae.settings import LEAST_FRAMES, Settings, sized

STARTING = 5.0  # seconds until workers have started and compiled, about
_OPENED = 1 << 31  # bytes of files that are opened to count their frames; those of others follow from their size
_CHUNK = 1 << 20  # bytes of coordinates read at a time, in as much time as is given
_TRAINED_ON = 16_384  # frames of the sample, at most
_STEPS = 800  # of training, timed
_BASE = 400 << 20  # bytes of a process that has loaded JAX and compiled a model, about
_IN_FIT = 6  # times the coordinates, with features and what training makes of them; measured at 10^6 frames


@dataclasses.dataclass(frozen=True, eq=False)
class Plan(Record):
    """What a run holds, and seconds of work on it.

    Args:
        n_files, file_bytes: files, and their size together.
        n_frames: frames in them; estimated from sizes where not `counted`.
        n_atoms: atoms in a frame of the file; n_beads, n_dims, length_unit: of what is chosen.
        memory: bytes of all coordinates, as `read` holds them, and for a moment twice as many; `project` takes
            about `chunk_memory` whatever the length, `fit` `fit_memory` and `fit_disk` of temporary files.
        seconds: of "open", "read", "encode", "write" (a COLVAR), "prepare" and "train" (`fit`, with its defaults),
            for all frames in one process on this machine.
        sample: frames that were measured; cores: that this process may use.
        n_tasks: pieces that workers can share.
        workers: seconds of `project` by the number of workers, on as many cores of this kind; estimated.
        left_out: files that cannot be opened with the others, and why; nothing else counts them.
    """

    n_files: int
    file_bytes: int
    n_frames: int
    counted: bool
    n_atoms: int
    n_beads: int
    n_dims: int
    length_unit: str
    memory: int
    chunk_memory: int
    fit_memory: int
    fit_disk: int
    seconds: dict[str, float]
    sample: int
    cores: int
    n_tasks: int
    workers: dict[str, float]
    left_out: dict[str, str]

    @property
    def project_seconds(self) -> float:
        """Of `project` in one process."""
        return sum(self.seconds[name] for name in ("open", "read", "encode", "write"))

    @property
    def fit_seconds(self) -> float:
        """Of `fit` in one process."""
        return sum(self.seconds[name] for name in ("open", "read", "prepare", "train"))

    def lines(self) -> list[str]:
        """The plan in words."""
        about = "" if self.counted else "about "
        files = f"{self.n_files:,} file{'s' * (self.n_files > 1)}"
        of = "" if self.n_atoms == self.n_beads else f" of {self.n_atoms:,} atoms"
        parts = {name: _span(value) for name, value in self.seconds.items()}
        more = ", ".join(f"{n}: {_span(value)}" for n, value in self.workers.items())
        disk = f" and {_size(self.fit_disk)} of temporary files" if self.fit_disk else ""
        n_out = len(self.left_out)
        without = [
            f"without  {n_out:,} file{'s' * (n_out > 1)} that cannot be opened, such as: {why}"
            for why in list(self.left_out.values())[:1]
        ]
        return [
            f"{files}, {_size(self.file_bytes)}: {about}{self.n_frames:,} frames of {self.n_beads:,} beads{of} in "
            f"{self.n_dims}-D ({self.length_unit})",
            f"memory   {_size(self.memory)} would hold all; project takes {_size(self.chunk_memory)} whatever the "
            f"length, fit {_size(self.fit_memory)}{disk}",
            f"project  {_span(self.project_seconds)}: open {parts['open']}, read {parts['read']}, encode "
            f"{parts['encode']}, write {parts['write']}",
            f"fit      {_span(self.fit_seconds)}: open and read as above, prepare {parts['prepare']}, train "
            f"{parts['train']}",
            f"workers  project --each by as many, a core each, estimated: {more}"
            if more
            else "workers  bring nothing: so little is not shared",
            f"measured on {self.sample:,} frames, with {self.cores} core{'s' * (self.cores > 1)} as they are now",
            *without,
        ]

    def table(self) -> list[list[str]]:
        """A row a line."""
        return [["", "plan"], *(line.split(maxsplit=1) for line in self.lines())]

    def __repr__(self) -> str:
        project, fit = _span(self.project_seconds), _span(self.fit_seconds)
        return f"<Plan: {self.n_frames:,} frames, project {project}, fit {fit}>"


def plan(files: Paths, *, seconds: float = 2.0, **options) -> Plan:
    """Say what reading, encoding and fitting a run will take on this machine, measured on a sample of it.

    Args:
        files: files of one run, or patterns, as for `read`.
        seconds: to spend on reading the sample; all takes some ten seconds more, for what JAX compiles and for a
            short training.
        **options: those of `read`.

    Raises:
        InputError: as `read` where no file can be opened, and for a sample of fewer than 50 frames.
    """
    real_number("seconds", seconds, above=0)
    if unknown := set(options) - {field.name for field in dataclasses.fields(ReadOptions)}:
        raise TypeError(f"plan() takes the options of read(), which {', '.join(sorted(unknown))} is not")
    reading = ReadOptions(**options)
    paths, left_out = _openable([Path(path) for path in expanded(files)], lambda *paths: existing(paths[-1]))
    while True:
        sizes = [path.stat().st_size for path in paths]
        n_opened = max(1, int(np.searchsorted(np.cumsum(sizes), _OPENED)))
        start = time.perf_counter()
        try:
            run = Run(paths[:n_opened], reading)
            break
        except (InputError, OSError):
            good, bad = _openable(paths[:n_opened], lambda *paths: Run(paths, reading), rest=paths[n_opened:])
            if not bad:  # nothing that one of them alone is to blame for
                raise
            paths, left_out = good, left_out | bad
    opened = time.perf_counter() - start
    larger = sum(sizes) / sum(sizes[:n_opened])
    n_frames = round(run.n_frames * larger)
    sample, per_frame = _sample(run, seconds)
    if len(sample) < LEAST_FRAMES:
        raise InputError(f"a plan needs at least {LEAST_FRAMES} frames to measure; got {len(sample)}. Just run it")
    took = {"open": opened * larger, "read": per_frame * n_frames, **_work(sample, n_frames)}
    coordinates = 4 * sample.positions[0].size * n_frames
    n_tasks = sum(-(-size // TASK_BYTES) for size in sizes) if run.seeks else len(sizes)
    return Plan(
        n_files=len(paths),
        file_bytes=sum(sizes),
        n_frames=n_frames,
        counted=n_opened == len(paths),
        n_atoms=run.n_atoms,
        n_beads=sample.n_beads,
        n_dims=sample.n_dims,
        length_unit=sample.length_unit,
        memory=coordinates,
        chunk_memory=_BASE + 3 * min(CHUNK_BYTES, 12 * run.n_atoms * n_frames),
        fit_memory=_fit_memory(coordinates),
        fit_disk=2 * coordinates if coordinates > IN_MEMORY else 0,  # and features, of about as many numbers
        seconds={name: float(f"{value:.3g}") for name, value in took.items()},
        sample=len(sample),
        cores=cores(),
        n_tasks=n_tasks,
        workers={str(n): float(f"{_shared(took, n, n_tasks):.3g}") for n in _numbers_of_workers(n_tasks)},
        left_out={str(path): why for path, why in left_out.items()},
    )


def _openable(
    paths: list[Path], opened: Callable, rest: Sequence[Path] = ()
) -> tuple[list[Path], dict[Path, str]]:
    """Which of the paths can be opened beside the first that can, and the rest; and why others cannot.

    Raises:
        InputError: none can be, and there is no rest.
    """
    good: list[Path] = []
    bad: dict[Path, str] = {}
    with quiet():
        for path in paths:
            try:
                opened(*good[:1], path)
                good.append(path)
            except (InputError, OSError) as error:
                bad[path] = one_line(error)
    if not (good or rest):
        raise InputError(next(iter(bad.values())))
    return [*good, *rest], bad


def _fit_memory(coordinates: int) -> int:
    """Bytes that `fit` takes in all, of so many of coordinates; from a file, where they are more than it holds."""
    return _BASE + (_IN_FIT * coordinates if coordinates <= IN_MEMORY else 2 * IN_MEMORY)


def _sample(run: Run, seconds: float) -> tuple[Trajectory, float]:
    """Frames from the beginning, as many as the time lets be read, and seconds a frame of all but the first piece,
    which opens the file."""
    pieces: list[Trajectory] = []
    starts = [time.perf_counter()]
    for chunk in run.read(0, chunk_bytes=_CHUNK):
        pieces.append(chunk)
        starts.append(time.perf_counter())
        if starts[-1] - starts[0] > seconds or sum(piece.positions.nbytes for piece in pieces) > CHUNK_BYTES:
            break
    begun = 1 if len(pieces) > 1 else 0
    per_frame = (starts[-1] - starts[begun]) / sum(map(len, pieces[begun:]))
    return concatenate(pieces), per_frame


def _work(sample: Trajectory, n_frames: int) -> dict[str, float]:
    """Seconds of all frames by what is done with them, from those of the sample."""
    few = sample[:_TRAINED_ON]
    told = Settings(batch_size=None, validation=None, encoder=None, width="learned")
    full = sized(told, n_frames, few.positions[0].size)
    assert full.batch_size is not None
    assert full.validation is not None
    batch = min(full.batch_size, len(few) // 4)
    steps = int(len(few) * (1 - full.validation)) // batch
    epochs = max(2, round(_STEPS / steps))
    brief = dataclasses.replace(full, batch_size=batch, epochs=epochs, patience=epochs)
    with quiet():
        # Choosing an alignment takes as long for any long run; the rest grows with it. The first time compiles.
        rows = [few, few, few[: len(few) // 4]]
        _, many, fewer = (_timed(lambda part=part: _prepared(part, brief))[0] for part in rows)
        with prepared_data(few, None, brief) as (featurizer, template, prepared):
            stamps: list[tuple[float, int]] = []
            model = prepared.train(progress=lambda done, *_: stamps.append((time.perf_counter(), done)))
    growth = max(0.0, many - fewer) / (len(few) - len(few) // 4)
    (first, n_first), (last, n_last) = stamps[0], stamps[-1]
    n_train = int(n_frames * (1 - full.validation))
    all_steps = default_epochs(full, n_train, model.scaled.mean.size) * (n_train // full.batch_size)
    cv = latent_cv(model, featurizer, template)
    cv.encode(few.positions)
    encode, z = _timed(lambda: cv.encode(sample.positions))
    with tempfile.TemporaryDirectory() as folder:
        write, _ = _timed(lambda: write_colvar(Path(folder) / "COLVAR", z, time=sample.time))
    return {
        "encode": encode * n_frames / len(sample),
        "write": write * n_frames / len(sample),
        "prepare": many + growth * (n_frames - len(few)),
        "train": all_steps * (last - first) / max(1, (n_last - n_first) * steps),
    }


def _prepared(part: Trajectory, settings: Settings) -> None:
    with prepared_data(part, None, settings):
        pass


def _timed(work: Callable) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def _numbers_of_workers(n_tasks: int) -> list[int]:
    """Numbers to tell of: of this machine's cores, and of some more machines."""
    return [n for n in sorted({2, cores(), 4 * cores(), 16 * cores(), 64 * cores()}) if 1 < n <= n_tasks]


def _shared(took: dict[str, float], n: int, n_tasks: int) -> float:
    """Seconds of `project` by n workers of one core each; the last round of tasks may keep only some of them busy.

    Encoding in one process has all cores already.
    """
    own = took["open"] + took["read"] + took["write"] + took["encode"] * cores()
    return STARTING + own * -(-n_tasks // n) / n_tasks


def _span(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 60:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(n_bytes: float) -> str:
    """Bytes in words."""
    unit = next((k for k in range(4) if n_bytes < 999.5 * 1000**k), 4)
    return f"{n_bytes / 1000**unit:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"

"""Rounds of bias and learning: a CV from what is known, runs with a bias on it, a better CV from what they saw.

What one round does stands here as functions, `trained`, `bias_for`, `evenly`, `from_each_basin` and `judged`, for
scripts that do some of it otherwise.
"""

import dataclasses
import functools
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.arguments import file_name, function, if_given, real_number, refusal, seed_number, whole_number
from polyvae.cv.choices import LEAST_NEIGHBOURS
from polyvae.cv.fitting import fit
from polyvae.cv.latent import LatentCV, load_cv
from polyvae.engines.runs import Bias, Engine, Run, Snapshots, save_run, saved_run
from polyvae.errors import InputError
from polyvae.files import write_json
from polyvae.io.writing import write
from polyvae.measures.basins import clear_states, crossings, find_basins
from polyvae.measures.free_energy import FreeEnergy, free_energy
from polyvae.measures.hills import LIMIT
from polyvae.measures.kinetics import timescales
from polyvae.records import Record
from polyvae.trajectory.convert import as_trajectory
from polyvae.trajectory.record import Trajectory
from polyvae.trajectory.stream import Stream, concatenate
from polyvae.vae.checkpoint import digest

log = logging.getLogger(__name__)

MODEL, SORTING, SUMMARY, SETTINGS = "model.safetensors", "sorting.safetensors", "round.json", "adapt.json"
MARGIN = 0.5  # of the range that frames have, more on each side
WALLS = 0.1  # of the range that unbiased frames have, more on each side
SAME_CV = 0.9  # squared rank correlation of the slowest latent with that of the round before
SAME_ENERGY = 0.5  # kT, between the free energies of two rounds
RARE = 0.01  # of all frames: motions that last longer are slow
MOST_LATENTS = 3  # that are biased together
LEFT_OUT = 0.1  # of each unbiased run, which starts from where a bias had driven it


@dataclasses.dataclass(frozen=True, eq=False)
class Round(Record):
    """What one round did, as `round.json` holds it.

    Args:
        number: from 1.
        steps: with a bias and, `free_steps`, without, before this round's biased runs.
        latents: that were biased.
        n_frames: that the CV was trained on.
        states: basins along the slowest latent, in the biased runs.
        crossings: between those basins.
        n_effective: independent frames that the biased runs are worth.
        same_cv: squared rank correlation of the slowest latent with that of the round before.
        same_energy: root mean square difference, in kT below 6 kT, from the free energy over this latent that the
            round before gives; None where one of them misses a place.
        seconds: that training and the runs took.
    """

    number: int
    steps: int
    free_steps: int
    latents: tuple[int, ...]
    n_frames: int
    states: tuple[float, ...]
    crossings: int
    n_effective: float
    same_cv: float | None
    same_energy: float | None
    seconds: Mapping[str, float]

    def __post_init__(self) -> None:
        for name in ("latents", "states"):  # which files hold as lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()


@dataclasses.dataclass(frozen=True)
class Adapted:
    """What rounds of bias and learning gave.

    Args:
        cv: of the last round; `cv.keep(latents)` of its record is what was biased.
        rounds: one record each.
        biased: frames of the runs that the free energy is of, with weights that take the bias off.
        free_energy: over the slowest latent.
        converged: whether CV and free energy had stopped to change.
    """

    cv: LatentCV
    rounds: tuple[Round, ...]
    biased: Trajectory
    free_energy: FreeEnergy
    converged: bool


def adapt(
    data,
    engine: Engine,
    folder: str | os.PathLike,
    *,
    steps: int,
    stride: int,
    rounds: int = 8,
    walkers: int = 1,
    free_runs: int = 16,
    free_steps: int | None = None,
    barrier: float = 16.0,
    pace: int = 500,
    seed: int = 0,
    training: Mapping[str, Any] | None = None,
    train: Callable | None = None,
    choose: Callable | None = None,
    progress: Callable[[str], None] | None = None,
) -> Adapted:
    """Bias, learn again, and in the end give a free energy: rounds in folders, each of which can be read.

    A round trains a CV on unbiased frames (`trained`) and runs with a bias on it. From where that went unbiased
    runs start, `free_runs` evenly in time; with a CV of these as many again from each basin that they show, on
    which the next round trains. So a CV learns what is slow between basins that no unbiased run would have
    reached, and of each as much. It ends when neither the CV nor the free energy changes any more, or after
    `rounds`.

    Killed at any point it goes on from the folder. A run that fails raises, and is repeated with another seed by
    the next call.

    Args:
        data: unbiased frames to begin with, of one basin or more, as far apart in time as `stride` steps: what
            `as_trajectory` takes, or a `Stream`.
        engine: see `polyvae.engines`.
        folder: for the rounds; made where it is not there.
        steps: of each biased run.
        stride: steps between frames.
        rounds: at most.
        walkers: biased runs of each round, each with a bias and a start of its own.
        free_runs, free_steps: unbiased runs of each round and the steps of each, by default for the 500 frames
            that a time lag can be told from.
        barrier: in kT, the highest that the runs should cross.
        pace: steps between kernels or hills.
        seed: of all rounds.
        training: options of `polyvae.fit`.
        train: in place of `trained`, with its arguments.
        choose: in place of `bias_for`, with its arguments.
        progress: called with a line when something is done.

    Raises:
        InputError: a folder with rounds of other settings; what the engine raises, with the run that it was.
    """
    start, folder = _gathered(data), Path(file_name("folder", folder))
    function("engine", engine)
    steps, stride = whole_number("steps", steps, 1), whole_number("stride", stride, 1)
    rounds, walkers = whole_number("rounds", rounds, 1), whole_number("walkers", walkers, 1)
    free_runs, seed = whole_number("free_runs", free_runs, 0), seed_number(seed)
    free_steps = (
        if_given(whole_number, "free_steps", free_steps, 1)
        or math.ceil(LEAST_NEIGHBOURS / (1 - LEFT_OUT)) * stride
    )
    barrier, pace = real_number("barrier", barrier, above=1), whole_number("pace", pace, 1)
    if training is not None and not isinstance(training, Mapping):
        raise refusal("training", "options of fit by name", training)
    train, choose, tell = train or trained, choose or bias_for, progress or log.info
    _same_settings(
        folder,
        {"data": digest(start.positions), "steps": steps, "stride": stride, "walkers": walkers,
         "free_runs": free_runs, "free_steps": free_steps, "barrier": barrier, "pace": pace, "seed": seed,
         "training": {name: repr(value) for name, value in (training or {}).items()}},
    )  # fmt: skip
    known, done = [start], []
    biased: list[Run] = []
    pieces: list[Run] = []  # unbiased runs, from which walkers start
    cv, before, converged = None, None, False
    for number in range(1, rounds + 1):
        place = folder / f"round_{number:02d}"
        fitted = functools.partial(train, training=dict(training or {}))
        clock = _Clock()
        cv = _model(place / MODEL, lambda: fitted(known, biased, seed=_seed(seed, number, 0)))  # noqa: B023
        clock.tick("training")
        latents = _active(cv)
        along = cv.keep(latents)
        bias = choose(along, known, biased, barrier, pace)
        tell(f"round {number}: {_described(cv, latents)}")

        def run_from(starts, name: str, length: int, bias: Bias | None, kind: int) -> list[Run]:
            found = []
            for k, at in enumerate(starts):
                there, own = place / f"{name}_{k:02d}", _seed(seed, number, kind, k)  # noqa: B023
                given = {"bias": bias, "start": at, "steps": length, "stride": stride}
                found.append(_run(engine, there, along, own, given))  # noqa: B023
            return found

        runs = run_from([_start_of_walker(pieces, number, k) for k in range(walkers)], "walker", steps, bias, 1)
        clock.tick("biased")
        free_before = stride * sum(len(piece.traj) for piece in pieces)
        n_frames = sum(map(len, known))
        record = judged(number, along, latents, runs, before, n_frames, free_before, stride, clock.seconds)
        record = _written(place / SUMMARY, record)
        done.append(record)
        tell(_line(record))
        biased += runs
        before = (cv, runs)
        if (converged := _converged(record)) or number == rounds:
            break

        # Unbiased runs: from where the bias has been and, with a CV of these, as many from each basin.
        scouts = run_from(evenly(runs, free_runs), "scout", free_steps, None, 2)
        seen = [*(known if cv.record.settings.lag else []), *map(_relaxed, scouts)]
        sorting = _model(place / SORTING, lambda: fitted(seen, biased, seed=_seed(seed, number, 3)))  # noqa: B023
        if sorting.record.settings.lag:
            starts = from_each_basin(sorting, seen, [*pieces, *scouts], free_runs)
            pieces = run_from(starts, "free", free_steps, None, 4)
            known = [*(known if cv.record.settings.lag else []), *map(_relaxed, pieces)]
            tell(f"round {number}: {len(pieces)} unbiased runs from the basins that {len(scouts)} others showed")
        else:
            pieces, known = scouts, [*known, *map(_relaxed, scouts)]
            tell(f"round {number}: nothing slow in {len(scouts)} unbiased runs; the search goes on")
    assert cv is not None
    last = biased[-walkers:]
    found = energy_of(cv, last)
    weighted = concatenate([run.traj for run in last])
    weighted = dataclasses.replace(weighted, weights=_weights(last, found.dropped))
    write(folder / "biased.npz", weighted)
    cv.save(folder / MODEL)
    return Adapted(cv, tuple(done), weighted, found, converged)


def trained(
    known: Sequence[Trajectory], biased: Sequence[Run], *, training: Mapping[str, Any], seed: int
) -> LatentCV:
    """A CV of the unbiased frames: what is slow between all conformations that the rounds have found.

    Where nothing in them is slow, since they are of one basin, a time lag would leave those latents idle that lead
    out of it; then the latents hold the shapes, without a lag. Biased frames are not trained on: with their
    weights few of them count, and without they are in places where the system is not.
    """
    frames = concatenate([dataclasses.replace(piece, time=None) for piece in known])
    cv = fit(frames, **{"seed": seed} | dict(training))
    if "lag" in training or not cv.record.settings.lag:
        return cv
    slowest = float(timescales(cv.transform(frames)[:, :1], cv.record.settings.lag, frames.segments)[0])
    if slowest > RARE * len(frames):
        return cv
    log.info("nothing slow is known: %.3g of %d frames; no time lag", slowest, len(frames))
    return fit(frames, **{"seed": seed, "lag": 0} | dict(training))


def bias_for(cv: LatentCV, known: Sequence[Trajectory], biased: Sequence[Run], barrier: float, pace: int) -> Bias:
    """Kernels by `export.common.bias_width` from the unbiased frames, on the range of all frames and more.

    A CV that knows what is slow is kept by walls to where the unbiased frames are: beyond it nothing has been
    learnt, and a strong bias breaks what it should not. One that knows nothing slow has none, since the way out
    of the only basin leads there.
    """
    from polyvae.export.common import bias_width, statistics

    stats = statistics(cv, concatenate([dataclasses.replace(traj, time=None) for traj in known]))
    assert stats is not None
    every = [stats["min"], stats["max"]] + [cv.transform(run.traj) for run in biased]
    low, high = np.vstack(every).min(axis=0), np.vstack(every).max(axis=0)
    walls = None
    if cv.record.settings.lag:
        margin = WALLS * (stats["max"] - stats["min"])
        walls = np.stack([stats["min"] - margin, stats["max"] + margin])
        low, high = walls
    margin = MARGIN * (high - low)
    return Bias(low - margin, high + margin, bias_width(stats), barrier, pace, walls)


def evenly(runs: Sequence[Run], n: int) -> list[Snapshots]:
    """Snapshots of runs, evenly in time, without the first tenth."""
    snapshots = [run.snapshots[k] for run in runs for k in range(len(run.snapshots) // 10, len(run.snapshots))]
    chosen = np.linspace(0, len(snapshots) - 1, min(n, len(snapshots))).astype(int).tolist()
    return [snapshots[k] for k in chosen]


def from_each_basin(cv: LatentCV, known: Sequence[Trajectory], runs: Sequence[Run], n: int) -> list[Snapshots]:
    """Snapshots of unbiased runs, as many from each basin along the slowest latent, evenly in time."""
    snapshots = [run.snapshots[k] for run in runs for k in range(len(run.snapshots))]
    along = np.concatenate([cv.transform(traj)[:, 0] for traj in known]).astype(np.float64)
    z = np.concatenate([cv.transform(run.traj)[run.snapshots.frames, 0] for run in runs])
    basin = np.searchsorted([found.low for found in find_basins(along)][1:], z)
    members = [np.flatnonzero(basin == b) for b in np.unique(basin)]
    chosen: list[int] = []
    for k, rows in enumerate(members):
        share = (n - len(chosen)) // (len(members) - k)
        chosen += rows[np.linspace(0, len(rows) - 1, min(share, len(rows))).astype(int)].tolist()
    return [snapshots[k] for k in chosen]


def _relaxed(run: Run) -> Trajectory:
    """An unbiased run without its beginning, where it still knows of the bias that it came from."""
    return run.traj[int(LEFT_OUT * len(run.traj)) :]


def energy_of(cv: LatentCV, runs: Sequence[Run]) -> FreeEnergy:
    """The free energy over the slowest latent of a CV, from biased runs, in kT."""
    z = np.concatenate([cv.transform(run.traj)[:, 0] for run in runs]).astype(np.float64)
    bias = np.concatenate([run.bias for run in runs])
    return free_energy(z, bias=bias, kT=1.0, segments=[len(run.traj) for run in runs])


def judged(
    number: int,
    cv: LatentCV,
    latents: Sequence[int],
    runs: Sequence[Run],
    before: tuple[LatentCV, Sequence[Run]] | None,
    n_frames: int,
    free_steps: int,
    stride: int,
    seconds: Mapping[str, float],
) -> Round:
    """What a round gave, beside what the one before did."""
    from scipy.stats import spearmanr

    found = energy_of(cv, runs)
    z = np.concatenate([cv.transform(run.traj)[:, 0] for run in runs])
    states = clear_states(find_basins(z, np.concatenate([np.exp(run.bias - run.bias.max()) for run in runs])))
    same_cv = same_energy = None
    if before is not None:
        old, earlier = before
        rank = spearmanr(z, np.concatenate([old.transform(run.traj)[:, 0] for run in runs])).statistic
        same_cv = float(rank**2) if np.isfinite(rank) else 0.0
        then = energy_of(cv, earlier)
        known = found.energy < LIMIT
        other = np.interp(found.grid[0], then.grid[0], then.energy, left=np.inf, right=np.inf)[known]
        if np.isfinite(other).all():
            same_energy = float(np.std(found.energy[known] - other))
    return Round(
        number=number,
        steps=stride * sum(len(run.traj) for run in runs),
        free_steps=free_steps,
        latents=tuple(latents),
        n_frames=n_frames,
        states=tuple(state.centre for state in states),
        crossings=crossings(z, states, [len(run.traj) for run in runs]),
        n_effective=found.n_effective,
        same_cv=same_cv,
        same_energy=same_energy,
        seconds=dict(seconds),
    )


def _converged(record: Round) -> bool:
    same = record.same_cv is not None and record.same_cv >= SAME_CV
    return same and record.same_energy is not None and record.same_energy <= SAME_ENERGY


def _gathered(data) -> Trajectory:
    if isinstance(data, Stream):
        data = concatenate(list(data))
    traj = as_trajectory(data)
    return dataclasses.replace(traj, weights=None)


def _seed(seed: int, *place: int) -> int:
    """A seed for what is done at a place of a round, the same whenever it is done again."""
    return int(np.random.SeedSequence([seed, *place]).generate_state(1)[0] >> 1)


def _same_settings(folder: Path, settings: dict) -> None:
    """Write the settings of these rounds, or refuse to go on with rounds of others."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SETTINGS
    if not path.exists():
        if any(folder.glob("round_*")):
            raise InputError(f"{folder} holds rounds, and no {SETTINGS} that says of what; name another folder")
        write_json(path, settings)
        return
    there = json.loads(path.read_text())
    for name, value in settings.items():
        if there.get(name) != value:
            raise InputError(
                f"{folder} holds rounds with {name} {there.get(name)}; this call has {value}. Call it as before "
                f"to go on, or name another folder"
            )
    for left in folder.glob("round_*/**/.*"):  # of a run that was killed as it wrote
        if left.is_file():
            left.unlink()


def _model(path: Path, make: Callable[[], LatentCV]) -> LatentCV:
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        make().save(path)
    return load_cv(path)


def _written(path: Path, record: Round) -> Round:
    """The record of a round, as it was when the round was done."""
    if not path.exists():
        write_json(path, record.to_dict())
    return Round.from_dict(json.loads(path.read_text()))


class _Clock:
    """Seconds since the last tick, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def tick(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now


def _active(cv: LatentCV) -> list[int]:
    idle = set(cv.record.collapsed or ())
    return [k for k in range(cv.latent_dim) if k not in idle][:MOST_LATENTS] or [0]


def _start_of_walker(pieces: Sequence[Run], number: int, k: int) -> Snapshots | None:
    """The end of an unbiased run of the round before, another one for each walker and round; None, the engine's
    own start, where there is none yet. The end of a biased run may lie far outside of the next walls."""
    if not pieces:
        return None
    snapshots = pieces[(7 * number + k) % len(pieces)].snapshots
    return snapshots[len(snapshots) - 1]


def _run(engine: Engine, place: Path, cv: LatentCV, seed: int, given: dict) -> Run:
    if (done := saved_run(place)) is not None:
        return done
    place.mkdir(parents=True, exist_ok=True)
    failed = len(list(place.glob("failed_*.txt")))
    try:
        run = engine(cv, seed=seed if not failed else _seed(seed, failed), folder=place, **given)
    except InputError as error:
        (place / f"failed_{failed + 1}.txt").write_text(f"{error}\n")
        raise InputError(f"{place}: {error} (the same call repeats this run with another seed)") from error
    save_run(place, run, cv)
    done = saved_run(place)  # as what is read again has fewer digits
    assert done is not None
    return done


def _weights(runs: Sequence[Run], dropped: float) -> np.ndarray:
    """exp(bias) of frames, 1 on average in each run; 0 in the part that is left out."""
    found = []
    for run in runs:
        weights = np.exp(run.bias - run.bias.max())
        weights[np.arange(len(weights)) / len(weights) < dropped] = 0
        found.append(weights / weights.mean())
    return np.concatenate(found)


def _described(cv: LatentCV, latents: Sequence[int]) -> str:
    named = ", ".join(f"z{k}" for k in latents)
    lag = cv.record.settings.lag
    return f"biased along {named} of a CV {f'with a lag of {lag} frames' if lag else 'without a lag'}"


def _line(record: Round) -> str:
    states = f"{len(record.states)} state{'s' * (len(record.states) != 1)} along z0"
    said = f"round {record.number}: {states}, {record.crossings} crossings in {record.steps:,} steps"
    if record.same_cv is not None:
        energy = "not comparable" if record.same_energy is None else f"{record.same_energy:.2f} kT"
        said += f"; to the round before: CV {record.same_cv:.2f}, free energy {energy}"
    return said

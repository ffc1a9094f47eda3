"""Rounds of bias and learning: a CV from what is known, runs with a bias on it, a better CV from what they saw.

What one round does stands in `tasks.rounds`, for scripts that do some of it otherwise.
"""

import dataclasses
import inspect
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
from polyvae.engines.runs import SNAPSHOTS, Bias, Engine, Run, Snapshots, save_run, saved_run
from polyvae.errors import InputError
from polyvae.files import write_json
from polyvae.io.writing import write
from polyvae.measures.free_energy import FreeEnergy
from polyvae.records import html_of, in_words, json_object
from polyvae.tasks.rounds import (
    LEFT_OUT,
    PAIRS,
    REACHED,
    SAME_CV,
    Round,
    active,
    after,
    alike,
    all_together,
    bias_for,
    ended,
    evenly,
    from_each_basin,
    has_settled,
    judged,
    relaxed,
    thinned,
    trained,
    unlike,
    weights_of,
    within_walls,
)
from polyvae.trajectory.convert import as_trajectory
from polyvae.trajectory.record import Trajectory
from polyvae.trajectory.stream import Stream, concatenate
from polyvae.vae.checkpoint import digest
from polyvae.vae.settings import Settings, Training

log = logging.getLogger(__name__)

FEWEST = 100  # frames of a biased run
TRIES = 3  # of a short unbiased run, before the others must do
MODEL, SUMMARY, SETTINGS = "model.safetensors", "round.json", "adapt.json"
CHECK = "check.json"  # what the unbiased runs of a round teach, where this may end
LOOKING, SORTING = "looking.safetensors", "sorting.safetensors"  # whether something is slow, and for the basins


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

    def _repr_html_(self) -> str:
        names = ("number", "n_frames", "slow", "crossings", "n_effective", "same_cv", "same_energy")
        rows = [[in_words(getattr(record, name)) for name in names] for record in self.rounds]
        end = "CV and free energy have stopped to change" if self.converged else "not converged"
        return html_of("Adapted", [[name.replace("_", " ") for name in names], *rows], end)


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

    A round trains a CV on unbiased frames (`trained`) and runs with a bias on it. As long as nothing slow is
    known, `free_runs` unbiased runs start from where that went, least like what was known, and are long enough to
    tell what is. Then many short ones do, a time lag long: what becomes of a conformation says to which state it
    belongs, as the committor does (Geissler, Dellago & Chandler, 10.1021/jp984837g); frames within the states
    cannot tell, nor those that a bias holds between them. With a CV of these start `free_runs` more, as many from
    each basin that shows. On all of them the next round trains. It ends when neither the CV nor the free energy
    changes any more and the unbiased runs of the last round, too, teach the same CV; or after `rounds`.

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
            that a time lag can be told from; the short ones take about half as many steps in all.
        barrier: in kT, the highest that the runs should cross.
        pace: steps between kernels or hills.
        seed: of all rounds.
        training: options of `polyvae.fit`.
        train: in place of `trained`, with its arguments; `training` also has the lag once one is known.
        choose: in place of `bias_for`, with its arguments.
        progress: called with a line when something is done.

    Raises:
        InputError: a folder with rounds of other settings; what the engine raises, with the run that it was.
    """
    start, folder = _gathered(data), Path(file_name("folder", folder))
    function("engine", engine)
    steps, stride = whole_number("steps", steps, 1), whole_number("stride", stride, 1)
    rounds, walkers = whole_number("rounds", rounds, 1), whole_number("walkers", walkers, 1)
    free_runs, seed = whole_number("free_runs", free_runs, 1), seed_number(seed)
    free_steps = (
        if_given(whole_number, "free_steps", free_steps, 1)
        or math.ceil(LEAST_NEIGHBOURS / (1 - LEFT_OUT)) * stride
    )
    barrier, pace = real_number("barrier", barrier, above=1), whole_number("pace", pace, 1)
    known_options = {*inspect.signature(fit).parameters, *(field.name for field in dataclasses.fields(Training))}
    if training is not None and not (isinstance(training, Mapping) and set(training) <= known_options):
        raise refusal("training", "options of fit by name", training)
    of_settings = {field.name for field in dataclasses.fields(Settings)}
    Settings(**{name: value for name, value in (training or {}).items() if name in of_settings})
    for name, given in {"train": train, "choose": choose, "progress": progress}.items():
        if_given(function, name, given)
    train, choose, tell = train or trained, choose or bias_for, progress or log.info
    if steps < FEWEST * stride:
        raise InputError(
            f"a biased run must have {FEWEST} frames, with a stride of {stride:,} in {FEWEST * stride:,} steps; "
            f"got {steps:,} steps. Give more of them, or a smaller stride"
        )
    _same_settings(
        folder,
        {"data": digest(start.positions), "steps": steps, "stride": stride, "walkers": walkers,
         "free_runs": free_runs, "free_steps": free_steps, "barrier": barrier, "pace": pace, "seed": seed,
         "temperature": getattr(engine, "temperature", None),
         "training": {name: repr(value) for name, value in (training or {}).items()}},
    )  # fmt: skip
    known, done = [start], []
    biased: list[Run] = []
    pieces: list[Run] = []  # unbiased runs, from which walkers start
    shots: list[Trajectory] = []  # short ones, from where the bias had been
    looked: list[Trajectory] = []  # frames that a search has started from
    options = {name: value for name, value in (training or {}).items() if value is not None}
    cv, bias, before, converged, clock, unbiased = None, None, None, False, _Clock(), 0
    for number in range(1, rounds + 2):  # the last only looks whether the CV stays the same
        place = folder / f"round_{number:02d}"

        def model(name: str, frames: Sequence[Trajectory], kind: int) -> LatentCV:
            own = _seed(seed, number, kind)  # noqa: B023
            return _model(place / name, lambda: train(frames, biased, training=dict(options), seed=own))  # noqa: B023

        def run_from(starts, name: str, length: int, bias: Bias | None, kind: int, many: bool = False) -> list:
            found = []
            for k, at in enumerate(starts):
                there, own = place / f"{name}_{k:02d}", _seed(seed, number, kind, k)  # noqa: B023
                given = {"bias": bias, "start": at, "steps": length, "stride": stride}
                found.append(_run(engine, there, along, own, given, many))  # noqa: B023
            return found

        new = model(MODEL, [*known, *shots], 0)
        clock.tick("training")
        if cv is not None and has_settled(done[-1]):
            shown = [relaxed(run) for run in pieces]  # of all frames a new basin would be few
            assert bias is not None
            same, reached = alike(new, cv, shown), within_walls(bias, cv.keep(active(cv)), shown)
            converged = same >= SAME_CV and reached >= REACHED
            write_json(folder / f"round_{number - 1:02d}" / CHECK, {"same_cv": same, "within_walls": reached})
            tell(f"round {number - 1}: {_of_the_check(same, reached)}")
            if converged or number > rounds:
                break
        cv = new
        latents = active(cv)
        along = cv.keep(latents)
        bias = choose(along, known, biased, barrier, pace)
        tell(f"round {number}: {_described(cv, latents)}")

        runs = run_from([_start_of_walker(pieces, number, k) for k in range(walkers)], "walker", steps, bias, 1)
        clock.tick("biased")
        record = judged(number, along, latents, runs, before, known, unbiased, stride, clock.taken())
        record = _written(place / SUMMARY, record)
        done.append(record)
        tell(_line(record))
        biased += map(ended, runs)
        before = (cv, runs)
        if number == rounds and not has_settled(record):
            break

        # Unbiased runs from where the bias has been: while nothing slow is known long enough to tell what is, then
        # many that show where one comes from there within the time lag.
        lag, scouts = cv.record.settings.lag, []
        if not lag:
            chosen = unlike(along, [*known, *looked], runs, free_runs)
            looked += [frame for _, frame in chosen]
            scouts = _some(run_from([at for at, _ in chosen], "scout", free_steps, None, 2, many=True), place)
            clock.tick("unbiased")
            shown = [relaxed(run) for run in scouts]
            lag = model(LOOKING, shown, 6).record.settings.lag
            clock.tick("training")
            if not lag:
                pieces, known = scouts, [*known, *shown]
                unbiased = _steps(scouts, stride)
                tell(f"round {number}: nothing slow in {len(scouts)} unbiased runs; the search goes on")
                continue
            known = []
        options["lag"] = lag
        length = (lag + PAIRS) * stride
        wanted = min(SNAPSHOTS, max(free_runs, free_runs * free_steps // (2 * length)))
        origins = evenly(runs, wanted)
        went = run_from([at for at, _ in origins], "shot", length, None, 5, many=True)
        clock.tick("unbiased")
        shots += [after(frame, run) for (_, frame), run in zip(origins, went, strict=True) if run is not None]
        shot = [ended(run) for run in _some(went, place)]
        learnt = [*known, *map(relaxed, scouts)]
        sorting = model(SORTING, [*learnt, *shots], 3)
        clock.tick("training")
        fallen = [run.traj[PAIRS:] for run in shot]
        among = [*fallen, *thinned(learnt, sum(map(len, fallen)))]
        starts = from_each_basin(sorting, among, [*map(ended, (*pieces, *scouts)), *shot], free_runs)
        long_enough = math.ceil(2 * lag / (1 - LEFT_OUT)) * stride  # for pairs of frames a lag apart
        pieces = run_from(starts, "free", max(free_steps, long_enough), None, 4)
        clock.tick("unbiased")
        known += map(relaxed, pieces)
        unbiased = _steps([*scouts, *shot, *pieces], stride)
        tell(f"round {number}: {len(pieces)} unbiased runs from the basins that {len(shot)} short ones showed")
    assert cv is not None
    # A search before anything slow was known has no walls, and goes where the system does not.
    slow = [biased[k * walkers : (k + 1) * walkers] for k, one in enumerate(done) if one.slow]
    used, found = all_together(cv, slow if done[-1].slow else [biased[-walkers:]], known)
    weighted = concatenate([run.traj for run in used])
    weighted = dataclasses.replace(weighted, weights=weights_of(used, found))
    write(folder / "biased.npz", weighted)
    cv.save(folder / MODEL)
    return Adapted(cv, tuple(done), weighted, found, converged)


def _gathered(data) -> Trajectory:
    if isinstance(data, Stream):
        data = concatenate(list(data))
    traj = as_trajectory(data)
    if traj.weights is not None and np.ptp(traj.weights) > 0:
        raise InputError(
            "the frames to begin with must be unbiased, all of one weight; these have weights of their own. Give "
            "those of an unbiased run"
        )
    return dataclasses.replace(traj, weights=None)


def _seed(seed: int, *place: int) -> int:
    """A seed for what is done at a place of a round, the same when it is done again; LAMMPS takes none larger."""
    return 1 + int(np.random.SeedSequence([seed, *place]).generate_state(1)[0]) % 899_999_999


def _same_settings(folder: Path, settings: dict) -> None:
    """Write the settings of these rounds, or refuse to go on with rounds of others."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SETTINGS
    if not path.exists():
        if there := sorted(path.name for path in folder.iterdir() if path.name[0] != "."):
            raise InputError(f"{folder} must hold rounds with their {SETTINGS}, or nothing; it has {there[0]}")
        write_json(path, settings)
        return
    earlier = json_object(path.read_bytes(), path, f"name another folder than {folder}")
    for name, value in settings.items():
        if earlier.get(name) != value:
            raise InputError(
                f"{folder} holds rounds with {name} {earlier.get(name)}; this call has {value}. Call it as before "
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
    values = json_object(path.read_bytes(), path, "name another folder")
    try:
        return Round.from_dict(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: no round of this version of polyvae ({error}); name another folder") from None


class _Clock:
    """Seconds between ticks, added up by name until they are taken."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def tick(self, name: str) -> None:
        now = time.perf_counter()
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._last
        self._last = now

    def taken(self) -> dict[str, float]:
        seconds, self._seconds = self._seconds, {}
        return seconds


def _start_of_walker(pieces: Sequence[Run], number: int, k: int) -> Snapshots | None:
    """The end of an unbiased run of the round before, another one for each walker and round; None, the engine's
    own start, where there is none yet. The end of a biased run may lie far outside of the next walls."""
    if not pieces:
        return None
    snapshots = pieces[(7 * number + k) % len(pieces)].snapshots
    return snapshots[len(snapshots) - 1]


def _some(runs: Sequence[Run | None], place: Path) -> list[Run]:
    """Those that came to their end."""
    if not (found := [run for run in runs if run is not None]):
        raise InputError(
            f"{place}: none of the {len(runs)} unbiased runs from the biased one came to its end; their folders' "
            f"failed_1.txt say why. Mend that and remove {place} to do this round again"
        )
    return found


def _run(engine: Engine, place: Path, cv: LatentCV, seed: int, given: dict, many: bool = False) -> Run | None:
    """A run, or what it was where it is done. One of many may fail, since no run may come to its end from where it
    starts: None after `TRIES`; and of these only the end is kept to start others from."""
    if (done := saved_run(place)) is not None:
        return done
    place.mkdir(parents=True, exist_ok=True)
    failed = len(list(place.glob("failed_*.txt")))
    if many and failed == TRIES:
        return None
    try:
        run = engine(cv, seed=seed if not failed else _seed(seed, failed), folder=place, **given)
    except InputError as error:
        (place / f"failed_{failed + 1}.txt").write_text(f"{error}\n")
        if many:
            return _run(engine, place, cv, seed, given, many)
        raise InputError(f"{place}: {error} (the same call repeats this run with another seed)") from error
    save_run(place, ended(run) if many else run, cv)
    done = saved_run(place)  # as what is read again has fewer digits
    assert done is not None
    return done


def _steps(runs: Sequence[Run], stride: int) -> int:
    return stride * sum(len(run.traj) for run in runs)


def _described(cv: LatentCV, latents: Sequence[int]) -> str:
    named = ", ".join(f"z{k}" for k in latents)
    lag = cv.record.settings.lag
    return f"biased along {named} of a CV {f'with a lag of {lag} frames' if lag else 'without a lag'}"


def _of_the_check(same: float, reached: float) -> str:
    told = f"its unbiased runs teach {'the same' if same >= SAME_CV else 'another'} CV ({same:.2f})"
    return told if reached >= REACHED else f"{told}, but {1 - reached:.0%} lie beyond the walls of its bias"


def _line(record: Round) -> str:
    states = f"{len(record.states)} state{'s' * (len(record.states) != 1)} along z0"
    said = f"round {record.number}: {states}, {record.crossings} crossings in {record.steps:,} steps"
    if record.same_cv is not None:
        energy = "not comparable" if record.same_energy is None else f"{record.same_energy:.2f} kT"
        said += f"; to the round before: CV {record.same_cv:.2f}, free energy {energy}"
    return said

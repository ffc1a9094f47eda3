"""Rounds of bias and training: a CV from the known frames, runs with a bias on it, and a better CV from these.

`RoundState` is what the rounds know. The steps `learn`, `bias`, `scout`, `shoot` and `settle` take a state and
return the next one; a script may run them itself. The arithmetic of the steps is in `tasks.rounds`, the folder in
`tasks.roundstore`.
"""

import dataclasses
import json
import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.arguments import file_name, function, if_given
from polyvae.cv.latent import LatentCV
from polyvae.engines.runs import SNAPSHOTS, Engine, Run, Snapshots, as_engine
from polyvae.errors import InputError
from polyvae.io.writing import write
from polyvae.measures.free_energy import FreeEnergy
from polyvae.records import html_of, in_words
from polyvae.tasks import rounds
from polyvae.tasks.rounds import Round
from polyvae.tasks.roundstate import Lab, RoundOptions, RoundState, Work, required
from polyvae.tasks.roundstore import MODEL, Store, require_finished
from polyvae.trajectory.convert import as_trajectory
from polyvae.trajectory.record import Trajectory
from polyvae.trajectory.stream import Stream, concatenate
from polyvae.vae.checkpoint import digest

log = logging.getLogger(__name__)

LOOKING, SORTING = "looking.safetensors", "sorting.safetensors"  # models to look for slow motions, and for basins


def learn(state: RoundState, lab: Lab) -> RoundState:
    """Train the CV of the round. If the last round had settled, compare the new CV with the old one."""
    new = lab.model(state, MODEL, [*state.known, *state.shots], Work.TRAIN)
    if state.cv is not None and rounds.has_settled(state.done[-1]):
        shown = [rounds.drop_transient(run) for run in state.pieces]  # a new basin would be few of all frames
        assert state.bias is not None
        same = rounds.cv_similarity(new, state.cv, shown)
        reached = rounds.within_walls(state.bias, required(state.along), shown)
        converged = same >= rounds.SAME_CV and reached >= rounds.REACHED
        lab.store.check(state.number - 1, {"same_cv": same, "within_walls": reached})
        lab.tell(f"round {state.number - 1}: {_of_the_check(same, reached)}")
        if converged or state.number > lab.options.rounds:
            return dataclasses.replace(state, converged=converged)
    return dataclasses.replace(state, cv=new)


def bias(state: RoundState, lab: Lab) -> RoundState:
    """Choose a bias on the CV, run with it, and summarise the round."""
    cv, options, number = required(state.cv), lab.options, state.number
    latents = rounds.choose_latents(cv)
    along = cv.keep(latents)
    chosen = lab.choose(along, list(state.known), list(state.biased), options.barrier, options.pace)
    lab.tell(f"round {number}: {_describe(cv, latents)}")
    state = dataclasses.replace(state, along=along, bias=chosen)
    starts = [_start_of_walker(state.pieces, number, k) for k in range(options.walkers)]
    runs = [run for run in lab.run_from(state, starts, "walker", options.steps, Work.WALKER) if run is not None]
    seconds = dict(lab.seconds)
    lab.seconds.clear()
    record = lab.store.record(
        rounds.summarise_round(
            number, along, latents, runs, state.before, state.known,
            free_steps=state.free_steps, stride=options.stride, seconds=seconds,
        )
    )  # fmt: skip
    lab.tell(_line(record))
    return dataclasses.replace(
        state,
        runs=tuple(runs),
        before=(cv, runs),
        done=(*state.done, record),
        biased=(*state.biased, *map(rounds.keep_last_snapshot, runs)),
    )


def scout(state: RoundState, lab: Lab) -> RoundState:
    """While nothing slow is known, run from where the bias went, long enough for slow motions to show."""
    if lag := required(state.cv).record.settings.lag:
        return dataclasses.replace(state, lag=lag, scouts=(), searching=False)
    options, number = lab.options, state.number
    chosen = rounds.farthest_snapshots(
        required(state.along), [*state.known, *state.looked], state.runs, options.free_runs
    )
    found = lab.run_from(state, [at for at, _ in chosen], "scout", required(options.free_steps), Work.SCOUT)
    scouts = tuple(require_finished(found, lab.store.place(number)))
    shown = tuple(map(rounds.drop_transient, scouts))
    state = dataclasses.replace(
        state, scouts=scouts, looked=(*state.looked, *(frame for _, frame in chosen)), searching=True
    )
    if lag := lab.model(state, LOOKING, shown, Work.LOOK).record.settings.lag:
        return dataclasses.replace(state, lag=lag, known=(), searching=False)
    lab.tell(f"round {number}: nothing slow in {len(scouts)} unbiased runs; the search continues")
    steps = _steps(scouts, options.stride)
    return dataclasses.replace(state, pieces=scouts, known=(*state.known, *shown), free_steps=steps)


def shoot(state: RoundState, lab: Lab) -> RoundState:
    """Make many short unbiased runs from where the bias has been, a time lag long.

    They show to which state a conformation belongs.
    """
    options = lab.options
    length = (required(state.lag) + rounds.PAIRS) * options.stride
    most = options.free_runs * required(options.free_steps) // (2 * length)
    origins = rounds.evenly_spaced_snapshots(state.runs, min(SNAPSHOTS, max(options.free_runs, most)))
    went = lab.run_from(state, [at for at, _ in origins], "shot", length, Work.SHOT)
    pairs = zip(origins, went, strict=True)
    shots = [rounds.with_starting_frame(frame, run) for (_, frame), run in pairs if run is not None]
    fallen = tuple(map(rounds.keep_last_snapshot, require_finished(went, lab.store.place(state.number))))
    return dataclasses.replace(state, shots=(*state.shots, *shots), fallen=fallen)


def settle(state: RoundState, lab: Lab) -> RoundState:
    """Make unbiased runs from each basin that the short ones show, as many from each."""
    options = lab.options
    known = [*state.known, *map(rounds.drop_transient, state.scouts)]
    sorting = lab.model(state, SORTING, [*known, *state.shots], Work.SORT)
    fallen = [run.traj[rounds.PAIRS :] for run in state.fallen]
    among = [*fallen, *rounds.subsample(known, sum(map(len, fallen)))]
    ends = [*map(rounds.keep_last_snapshot, (*state.pieces, *state.scouts)), *state.fallen]
    starts = rounds.snapshots_of_each_basin(sorting, among, ends, options.free_runs)
    # Long enough for pairs a lag apart.
    long_enough = math.ceil(2 * required(state.lag) / (1 - rounds.LEFT_OUT)) * options.stride
    found = lab.run_from(state, starts, "free", max(required(options.free_steps), long_enough), Work.FREE)
    pieces = tuple(run for run in found if run is not None)
    counts = f"{len(pieces)} unbiased runs from the basins that {len(state.fallen)} short ones showed"
    lab.tell(f"round {state.number}: {counts}")
    return dataclasses.replace(
        state,
        pieces=pieces,
        known=(*state.known, *map(rounds.drop_transient, pieces)),
        free_steps=_steps([*state.scouts, *state.fallen, *pieces], options.stride),
    )


@dataclasses.dataclass(frozen=True)
class Adapted:
    """The result of rounds of bias and training.

    Args:
        cv: CV of the last round. `cv.keep(latents)` with the latents of its record was biased.
        rounds: one record each.
        biased: frames of the runs for the free energy, with weights that remove the bias.
        free_energy: free energy over the slowest latent.
        converged: whether CV and free energy had stopped changing.
    """

    cv: LatentCV
    rounds: tuple[Round, ...]
    biased: Trajectory
    free_energy: FreeEnergy
    converged: bool

    def _repr_html_(self) -> str:
        names = ("number", "n_frames", "slow", "crossings", "n_effective", "same_cv", "same_energy")
        rows = [[in_words(getattr(record, name)) for name in names] for record in self.rounds]
        end = "CV and free energy have stopped changing" if self.converged else "not converged"
        return html_of("Adapted", [[name.replace("_", " ") for name in names], *rows], end)


def adapt(
    data,
    engine: Engine | Callable,
    folder: str | os.PathLike,
    *,
    train: Callable | None = None,
    choose: Callable | None = None,
    progress: Callable[[str], None] | None = None,
    **options,
) -> Adapted:
    """Train a CV, bias it, train again, and estimate a free energy, in rounds with a folder each.

    A round trains a CV on unbiased frames (`learn`) and runs with a bias on it (`bias`). As long as nothing slow
    is known, unbiased runs start from frames of the biased run that are least like the known ones, and are long
    enough for slow motions to show (`scout`). Then many short runs start, a time lag long (`shoot`). The state
    that a run goes to is the state of its first conformation, as with the committor (Geissler, Dellago & Chandler,
    10.1021/jp984837g). Frames within the states cannot show this, nor can those that a bias holds between them. A
    CV of these runs finds the basins, and more runs start, as many from each basin (`settle`). The next round
    trains on all of them. The rounds end when neither CV nor free energy changes and the unbiased runs of the last
    round lead to the same CV, or when all rounds are done.

    The same call continues from the folder if it was killed at any point. A run that fails raises, and the next
    call repeats it with another seed.

    Args:
        data: unbiased frames to begin with, in one basin or more, `stride` steps apart in time: a `Stream`, or
            what `as_trajectory` takes.
        engine: see `polyvae.engines`; a function with the arguments of `Engine.run` is accepted, too.
        folder: folder for the rounds, made if it does not exist. One call at a time uses it.
        train: function instead of `rounds.train_cv`, with its arguments; `training` holds the lag once one is
            known.
        choose: function instead of `rounds.choose_bias`, with its arguments.
        progress: called with a line when something is done.
        **options: options of `RoundOptions`; `steps`, the length of each biased run, and `stride`, the steps
            between frames, are required.

    Raises:
        InputError: a folder with rounds of other settings, data or engine, or that another call uses; an error of
            the engine, with its run.
    """
    start, place = _gathered(data), Path(file_name("folder", folder))
    machine, checked = as_engine(engine), RoundOptions(**options)
    for name, given in {"train": train, "choose": choose, "progress": progress}.items():
        if_given(function, name, given)
    with Store(place).opened(*_identity(start, machine, checked)) as store:
        own = train or rounds.train_cv, choose or rounds.choose_bias
        lab = Lab(machine, store, checked, *own, progress or log.info)
        state = RoundState((start,))
        for number in range(1, checked.rounds + 2):  # the last only looks whether the CV stays the same
            state = learn(dataclasses.replace(state, number=number), lab)
            if state.converged or number > checked.rounds:
                break
            state = bias(state, lab)
            if number == checked.rounds and not rounds.has_settled(state.done[-1]):
                break
            state = scout(state, lab)
            if not state.searching:
                state = settle(shoot(state, lab), lab)
        return _result(state, lab)


def _result(state: RoundState, lab: Lab) -> Adapted:
    """The free energy of the rounds that knew something slow, and its frames."""
    cv, walkers = required(state.cv), lab.options.walkers
    # A search before anything slow was known has no walls, and goes where the system does not.
    slow = [state.biased[k * walkers : (k + 1) * walkers] for k, one in enumerate(state.done) if one.slow]
    if not state.done[-1].slow:
        slow = [state.biased[-walkers:]]
    used, found = rounds.combine_rounds(cv, slow, state.known)
    weighted = concatenate([run.traj for run in used])
    weighted = dataclasses.replace(weighted, weights=rounds.assign_weights(used, found))
    write(lab.store.folder / "biased.npz", weighted)
    cv.save(lab.store.folder / MODEL)
    return Adapted(cv, state.done, weighted, found, state.converged)


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


def _identity(start: Trajectory, engine: Any, options: RoundOptions) -> tuple[dict, dict]:
    """Facts of data and options that decide the results, and facts of the engine that decide its runs."""
    about = {
        "data": digest(start.positions),
        "length_unit": start.length_unit,
        "names": None if start.names is None else _digest_of(list(start.names)),
        "bonds": None if start.bonds is None else _digest_of(np.asarray(start.bonds).tolist()),
        "temperature": getattr(engine, "temperature", None),
    }
    return about | options.facts(), getattr(engine, "facts", dict)()


def _digest_of(value: list) -> str:
    return digest(np.frombuffer(json.dumps(value).encode(), np.uint8))[:16]


def _start_of_walker(pieces: Sequence[Run], number: int, k: int) -> Snapshots | None:
    """The end of an unbiased run of the round before, another one for each walker and round.

    It is None, for the engine's own start, before the first such run. The end of a biased run may be far outside
    of the next walls.
    """
    if not pieces:
        return None
    snapshots = pieces[(7 * number + k) % len(pieces)].snapshots
    return snapshots[len(snapshots) - 1]


def _steps(runs: Sequence[Run], stride: int) -> int:
    return stride * sum(len(run.traj) for run in runs)


def _describe(cv: LatentCV, latents: Sequence[int]) -> str:
    lag = "without a lag"
    if cv.record.settings.lag:
        lag = f"with a lag of {cv.record.settings.lag} frames"
    return f"biased along {', '.join(f'z{k}' for k in latents)} of a CV {lag}"


def _of_the_check(same: float, reached: float) -> str:
    which = "the same" if same >= rounds.SAME_CV else "another"
    text = f"its unbiased runs lead to {which} CV ({same:.2f})"
    if reached < rounds.REACHED:
        text += f", but {1 - reached:.0%} are beyond the walls of its bias"
    return text


def _line(record: Round) -> str:
    states = f"{len(record.states)} state{'s' * (len(record.states) != 1)} along z0"
    text = f"round {record.number}: {states}, {record.crossings} crossings in {record.steps:,} steps"
    if record.same_cv is not None:
        energy = "not comparable"
        if record.same_energy is not None:
            energy = f"{record.same_energy:.2f} kT"
        text += f"; to the round before: CV {record.same_cv:.2f}, free energy {energy}"
    return text

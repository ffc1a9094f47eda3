"""Options and state of rounds of bias and training, and the lab that their steps work in."""

import contextlib
import dataclasses
import enum
import inspect
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from polyvae.arguments import if_given, real_number, refusal, seed_number, whole_number
from polyvae.cv.choices import LEAST_NEIGHBOURS
from polyvae.cv.fitting import fit
from polyvae.cv.latent import LatentCV
from polyvae.engines.runs import Bias, Run, Snapshots
from polyvae.errors import InputError
from polyvae.tasks.rounds import LEFT_OUT, Round, choose_bias, train_cv
from polyvae.tasks.roundstore import Store, derive_seed, run_once
from polyvae.trajectory.record import Trajectory
from polyvae.vae.settings import Settings, Training

log = logging.getLogger(__name__)

FEWEST = 100  # frames of a biased run
# Kinds of work in a round, each with seeds of its own.
Work = enum.IntEnum("Work", ["TRAIN", "WALKER", "SCOUT", "SORT", "FREE", "SHOT", "LOOK"], start=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundOptions:
    """The options of `adapt`, checked where the record is made; `InputError` names one of another kind or range.

    Args:
        steps: length of each biased run.
        stride: steps between frames.
        rounds: most rounds.
        walkers: biased runs of each round, each with a bias and a start of its own.
        free_runs: unbiased runs of each round.
        free_steps: length of each unbiased run. By default 500 frames, from which a time lag can be found. The
            short runs take about half as many steps in all.
        barrier: in kT, the highest that the runs should cross.
        pace: steps between kernels or hills.
        seed: seed of all rounds.
        training: options of `polyvae.fit`.
    """

    steps: int
    stride: int
    rounds: int = 8
    walkers: int = 1
    free_runs: int = 16
    free_steps: int | None = None
    barrier: float = 16.0
    pace: int = 500
    seed: int = 0
    training: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("steps", "stride", "rounds", "walkers", "free_runs", "pace"):
            put(self, name, whole_number(name, getattr(self, name), 1))
        put(self, "seed", seed_number(self.seed))
        free_steps = if_given(whole_number, "free_steps", self.free_steps, 1)
        put(self, "free_steps", free_steps or math.ceil(LEAST_NEIGHBOURS / (1 - LEFT_OUT)) * self.stride)
        put(self, "barrier", real_number("barrier", self.barrier, above=1))
        known = {*inspect.signature(fit).parameters, *(field.name for field in dataclasses.fields(Training))}
        given = self.training
        if given is not None and not (isinstance(given, Mapping) and set(given) <= known):
            raise refusal("training", "options of fit by name", given)
        of_settings = {field.name for field in dataclasses.fields(Settings)}
        Settings(**{name: value for name, value in (given or {}).items() if name in of_settings})
        if self.steps < FEWEST * self.stride:
            raise InputError(
                f"a biased run must have {FEWEST} frames, with a stride of {self.stride:,} in "
                f"{FEWEST * self.stride:,} steps; got {self.steps:,} steps. Give more of them, or a smaller stride"
            )

    def facts(self) -> dict[str, Any]:
        """Facts that decide the results, as plain values; the number of rounds may grow."""
        found = {**vars(self), "training": {name: repr(v) for name, v in (self.training or {}).items()}}
        del found["rounds"]
        return found


@dataclasses.dataclass(frozen=True)
class RoundState:
    """Knowledge of the rounds so far."""

    known: tuple[Trajectory, ...]  # unbiased frames in the states that are known
    number: int = 1  # of the round, from 1
    shots: tuple[Trajectory, ...] = ()  # short unbiased runs, each with the frame that it started from
    looked: tuple[Trajectory, ...] = ()  # frames that a search has started from
    biased: tuple[Run, ...] = ()  # biased runs of all rounds, with their last snapshot
    pieces: tuple[Run, ...] = ()  # unbiased runs, from which walkers start
    scouts: tuple[Run, ...] = ()  # unbiased runs of this round's search
    fallen: tuple[Run, ...] = ()  # short runs of this round, which show where conformations belong
    searching: bool = False  # whether nothing slow was found in this round
    lag: int | None = None  # time lag in frames, once one is known
    cv: LatentCV | None = None  # cv, along: CV of the round, and its latents that are biased
    along: LatentCV | None = None
    bias: Bias | None = None  # bias, runs: bias of the round, and its runs
    runs: tuple[Run, ...] = ()
    before: tuple[LatentCV, Sequence[Run]] | None = None  # `along` and runs of the round before
    done: tuple[Round, ...] = ()  # records of the rounds
    free_steps: int = 0  # steps of unbiased runs since the last biased ones
    converged: bool = False  # whether CV and free energy have stopped to change


@dataclasses.dataclass(frozen=True)
class Lab:
    """Engine, folder and options that the steps work with."""

    engine: Any  # with a method `run`, see `polyvae.engines`
    store: Store  # folder of the rounds
    options: RoundOptions  # options of all rounds
    train: Callable = train_cv  # function instead of `rounds.train_cv`, with its arguments
    choose: Callable = choose_bias  # function instead of `rounds.choose_bias`, with its arguments
    tell: Callable[[str], None] = log.info  # called with a line when something is done
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds of a block to those of its kind."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def model(self, state: RoundState, name: str, frames: Sequence[Trajectory], kind: int) -> LatentCV:
        """Train a CV on frames, with the time lag once one is known."""
        training = {key: value for key, value in (self.options.training or {}).items() if value is not None}
        if state.lag:
            training["lag"] = state.lag
        seed = derive_seed(self.options.seed, state.number, kind)
        with self.timed("training"):
            return self.store.model(
                state.number, name, lambda: self.train(frames, list(state.biased), training=training, seed=seed)
            )

    def run_from(
        self, state: RoundState, starts: Sequence[Snapshots | None], name: str, steps: int, kind: int
    ) -> list[Run | None]:
        """Run from each start: walkers with the bias of the round, others without. Scouts and shots may fail."""
        biased, many = kind == Work.WALKER, kind in (Work.SCOUT, Work.SHOT)
        found = []
        with self.timed("biased" if biased else "unbiased"):
            for k, at in enumerate(starts):
                place = self.store.place(state.number) / f"{name}_{k:02d}"
                given = {"bias": state.bias if biased else None, "start": at, "steps": steps}
                seed = derive_seed(self.options.seed, state.number, kind, k)
                given["stride"] = self.options.stride
                found.append(run_once(self.engine, place, required(state.along), seed, given, many))
        return found


def required(value):
    """A value that an earlier step has set."""
    assert value is not None
    return value

"""The steps of a round of bias and learning, each of which a script may replace: a CV, a bias on it, the starts of
unbiased runs, and what came of it."""

import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from polyvae.batches import map_frames
from polyvae.cv.fitting import fit
from polyvae.cv.latent import LatentCV
from polyvae.engines.runs import Bias, Run, Snapshots
from polyvae.measures.basins import Basin, arrivals, clear_states, crossings, find_basins
from polyvae.measures.free_energy import FreeEnergy, free_energy
from polyvae.measures.kinetics import timescales
from polyvae.records import Record
from polyvae.trajectory.record import Trajectory
from polyvae.trajectory.stream import concatenate

log = logging.getLogger(__name__)

MARGIN = 0.5  # of the range that frames have, more on each side
BEYOND = 0.2  # of the range between walls, which there are 40 kT high
WALLS = 0.1  # of the range that unbiased frames have, more on each side
SAME_CV = 0.9  # squared correlation of the slowest latent with that of the round before
SAME_ENERGY = 0.5  # kT, between the free energies of two rounds
REACHED = 0.98  # of the frames of unbiased runs, which the last bias must not have kept out
COVERED = 0.9  # of the points below 6 kT, for two free energies to be compared
ENOUGH = 20.0  # independent frames that a free energy must be worth
SEARCH = 1.5  # times the barrier, while nothing slow is known
SMOOTHNESS = 1.0  # of the CV, see `fit`
RARE = 0.01  # of all frames: motions that last longer are slow
LEFT_OUT = 0.1  # of each unbiased run, which starts from where a bias had driven it
PAIRS = 3  # frames, by which a short run is longer than the time lag
MOST_LATENTS = 3  # that are biased together
MOST_SEEN = 2000  # known frames that others are held against


@dataclasses.dataclass(frozen=True)
class Round(Record):
    """Record of one round, as `round.json` holds it.

    Args:
        number: from 1.
        steps: with a bias and, `free_steps`, without, before this round's biased runs.
        latents: that were biased.
        n_frames: unbiased, in the states that are known; the CV was trained on these and the short runs.
        slow: whether the CV knows something slow, and has a time lag; otherwise the round was a search.
        states: basins along the slowest latent, of the unbiased frames.
        crossings: of the biased runs between these.
        n_effective: independent frames that the biased runs are worth.
        same_cv: squared correlation of the slowest latent with that of the round before.
        same_energy: root mean square difference, in kT, from the free energy over this latent that the round
            before gives, where this one is known; None where the other misses a place.
        seconds: that training and runs took, since the biased runs of the round before.
    """

    number: int
    steps: int
    free_steps: int
    latents: tuple[int, ...]
    n_frames: int
    slow: bool
    states: tuple[float, ...]
    crossings: int
    n_effective: float
    same_cv: float | None
    same_energy: float | None
    seconds: Mapping[str, float]

    def __post_init__(self) -> None:
        for name in ("latents", "states"):  # which files hold as lists
            object.__setattr__(self, name, tuple(getattr(self, name)))


def train_cv(
    known: Sequence[Trajectory], biased: Sequence[Run], *, training: Mapping[str, Any], seed: int
) -> LatentCV:
    """A CV of the unbiased frames: what is slow between all conformations that the rounds have found.

    Where nothing in them is slow, since they are of one basin, a time lag would leave those latents idle that lead
    out of it; then the latents hold the shapes, without a lag. Biased frames are not trained on: with their
    weights few of them count, and without they are in places where the system is not.
    """
    frames = concatenate([dataclasses.replace(piece, time=None) for piece in known])
    training = {"seed": seed, "smoothness": SMOOTHNESS} | dict(training)
    cv = fit(frames, **training)
    if "lag" in training or not cv.record.settings.lag:
        return cv
    slowest = float(timescales(cv.transform(frames)[:, :1], cv.record.settings.lag, frames.segments)[0])
    if slowest > RARE * len(frames):
        return cv
    log.info("nothing slow is known: %.3g of %d frames; no time lag", slowest, len(frames))
    return fit(frames, **training | {"lag": 0})


def bias_for(cv: LatentCV, known: Sequence[Trajectory], biased: Sequence[Run], barrier: float, pace: int) -> Bias:
    """Kernels by `export.grid_bias.bias_width` from the unbiased frames, on the range of all frames and more.

    A CV that knows what is slow is kept by walls to where the unbiased frames are: beyond it nothing has been
    learnt, and a strong bias breaks what it should not. One that knows nothing slow has none, since the way out
    of the only basin leads there; its barrier is `SEARCH` times as high.
    """
    from polyvae.export.grid_bias import bias_width, statistics

    stats = statistics(cv, concatenate([dataclasses.replace(traj, time=None) for traj in known]))
    assert stats is not None
    every = [stats["min"], stats["max"]] + [cv.transform(run.traj) for run in biased]
    low, high = np.vstack(every).min(axis=0), np.vstack(every).max(axis=0)
    walls = None
    if not cv.record.settings.lag:
        barrier *= SEARCH
    else:
        margin = WALLS * (stats["max"] - stats["min"])
        walls = np.stack([stats["min"] - margin, stats["max"] + margin])
        low, high = walls
    margin = (MARGIN if walls is None else BEYOND) * (high - low)
    return Bias(low - margin, high + margin, bias_width(stats), barrier, pace, walls)


def latents_of(cv: LatentCV, pieces: Sequence[Trajectory]) -> np.ndarray:
    """Latents (n_frames, latent_dim) of all frames of some pieces, in double precision. In one go, since each call
    takes as long as thousands of frames do."""
    whole = joined_frames([piece.to_unit(pieces[0].length_unit) for piece in pieces])
    return cv.transform(whole).astype(np.float64)


def joined_frames(pieces: Sequence[Trajectory]) -> Trajectory:
    """The frames of some pieces as one, in their order, without times and boxes."""
    several = len(pieces) > 1
    positions = np.concatenate([piece.positions for piece in pieces]) if several else pieces[0].positions
    return dataclasses.replace(
        pieces[-1], positions=positions, segments=(len(positions),), time=None, weights=None, box=None, origin=None
    )


def evenly_spaced_snapshots(runs: Sequence[Run], n: int) -> list[tuple[Snapshots, Trajectory]]:
    """Snapshots of runs, evenly in time, without the first tenth; each with its frame of the beads. Where fewer
    were kept, some are taken more than once."""
    every = _snapshots(runs)
    return [every[k] for k in np.linspace(0, len(every) - 1, n).astype(int).tolist()]


def _snapshots(runs: Sequence[Run]) -> list[tuple[Snapshots, Trajectory]]:
    return [
        (run.snapshots[k], run.traj[run.snapshots.frames[k] : run.snapshots.frames[k] + 1])
        for run in runs
        for k in range(len(run.snapshots) // 10, len(run.snapshots))
    ]


def farthest_snapshots(
    cv: LatentCV, known: Sequence[Trajectory], runs: Sequence[Run], n: int
) -> list[tuple[Snapshots, Trajectory]]:
    """Snapshots of runs, each the one whose features are farthest from those of the known frames and of what was
    taken before it (k-centres: Gonzalez, 10.1016/0304-3975(85)90224-5), since a bias that searches is mostly
    where it began. Otherwise as `evenly_spaced_snapshots`."""
    from scipy.spatial.distance import cdist

    features = functools.partial(map_frames, jax.jit(jax.vmap(cv.standardize)), width=cv.mean.size)
    every = _snapshots(runs)
    x = features(np.concatenate([cv.frames(frame) for _, frame in every]))
    seen = features(np.concatenate([cv.frames(piece) for piece in subsample(known, MOST_SEEN)]))
    away, chosen = cdist(x, seen).min(axis=1), []
    for _ in range(min(n, len(every))):
        chosen.append(int(away.argmax()))
        away = np.minimum(away, cdist(x, x[chosen[-1:]])[:, 0])
        away[chosen] = -1  # also where two frames are the same
    return [every[chosen[k % len(chosen)]] for k in range(n)]


def with_starting_frame(frame: Trajectory, run: Run) -> Trajectory:
    """The frames of a run with the one that it started from, in one piece."""
    return joined_frames([frame, run.traj])


def keep_last_snapshot(run: Run) -> Run:
    """A run of whose snapshots only the last is left, those of large systems being large."""
    last = run.snapshots[len(run.snapshots) - 1]
    box = None if last.box is None else last.box.copy()
    return dataclasses.replace(run, snapshots=Snapshots(last.positions.copy(), last.frames.copy(), box))


def subsample(pieces: Sequence[Trajectory], n: int) -> list[Trajectory]:
    """About n frames of all, evenly."""
    step = max(1, sum(map(len, pieces)) // n)
    return [piece[::step] for piece in pieces]


def from_each_basin(cv: LatentCV, known: Sequence[Trajectory], runs: Sequence[Run], n: int) -> list[Snapshots]:
    """Snapshots of unbiased runs, as many from each basin along the slowest latent, evenly in time."""
    snapshots = [run.snapshots[k] for run in runs for k in range(len(run.snapshots))]
    along = latents_of(cv, known)[:, 0]
    z = latents_of(cv, [run.traj[run.snapshots.frames] for run in runs])[:, 0]
    basin = np.searchsorted([found.low for found in find_basins(along)][1:], z)
    members = [np.flatnonzero(basin == b) for b in np.unique(basin)]
    chosen: list[int] = []
    for k, rows in enumerate(members):
        share = (n - len(chosen)) // (len(members) - k)
        chosen += rows[np.linspace(0, len(rows) - 1, min(share, len(rows))).astype(int)].tolist()
    return [snapshots[k] for k in chosen]


def drop_transient(run: Run) -> Trajectory:
    """An unbiased run without its beginning, where it still knows of the bias that it came from."""
    return run.traj[int(LEFT_OUT * len(run.traj)) :]


def energy_of(cv: LatentCV, runs: Sequence[Run], worth: Sequence[float] | None = None) -> FreeEnergy:
    """The free energy over the slowest latent of a CV, from biased runs, in kT; what each run counts, by default
    its number of frames."""
    z = latents_of(cv, [run.traj for run in runs])[:, 0]
    worth = [len(run.traj) for run in runs] if worth is None else worth
    # The constant of its bias is each run's own: it is set so that the weights of a run add up to its worth.
    bias = [run.bias - np.logaddexp.reduce(run.bias) + np.log(n) for run, n in zip(runs, worth, strict=True)]
    lengths = [len(run.traj) for run in runs]
    return free_energy(z, bias=np.concatenate(bias), kT=1.0, segments=lengths, walkers=True)


def states_of(cv: LatentCV, known: Sequence[Trajectory]) -> list[Basin]:
    """The states that the unbiased frames have along the slowest latent."""
    return clear_states(find_basins(latents_of(cv, known)[:, 0]))


def all_together(
    cv: LatentCV, rounds: Sequence[Sequence[Run]], known: Sequence[Trajectory]
) -> tuple[list[Run], FreeEnergy]:
    """The biased runs of several rounds that say something of the free energy over the slowest latent, and this.

    What is hard to know is how much a state weighs beside the others, and a run knows it by how often it came
    into it: so a run counts by how often it came into the state where it did so least. One that never left the
    state in which it began says nothing, however long it was. Where all did, the last round is all there is.
    """
    runs, states = [run for one in rounds for run in one], states_of(cv, known)
    z = [cv.transform(run.traj)[:, 0] for run in runs]
    worth = [int(arrivals(along, states, [len(along)]).min()) for along in z]
    if not any(worth):
        return list(rounds[-1]), energy_of(cv, rounds[-1])
    counted = [k for k, n in enumerate(worth) if n]
    runs, worth = [runs[k] for k in counted], [worth[k] for k in counted]
    return runs, energy_of(cv, runs, worth)


def summarise_round(
    number: int,
    cv: LatentCV,
    latents: Sequence[int],
    runs: Sequence[Run],
    before: tuple[LatentCV, Sequence[Run]] | None,
    known: Sequence[Trajectory],
    **facts,
) -> Round:
    """The record of a round, compared with the one before.

    Args:
        number: of the round, from 1.
        cv: the latents that were biased.
        latents: their numbers in the CV of the round.
        runs: the biased runs.
        before: CV and biased runs of the round before.
        known: unbiased frames in the states that are known.
        facts: `free_steps` and `seconds` of the record, and `stride`.
    """
    stride = facts.pop("stride")
    found = energy_of(cv, runs)
    z = latents_of(cv, [run.traj for run in runs])[:, 0]
    states = states_of(cv, known)
    same_cv = same_energy = None
    if before is not None:
        old, earlier = before
        same_cv = cv_similarity(cv, old, [run.traj for run in runs])
        then = energy_of(cv, earlier)
        deep = found.known
        other = np.interp(found.grid[0], then.grid[0], then.energy, left=np.inf, right=np.inf)
        both = deep & np.isfinite(other)
        if both.sum() >= COVERED * deep.sum():
            same_energy = float(np.std((found.energy - other)[both]))
    return Round(
        number=number,
        steps=stride * sum(len(run.traj) for run in runs),
        latents=tuple(latents),
        n_frames=sum(map(len, known)),
        slow=bool(cv.record.settings.lag),
        states=tuple(state.centre for state in states),
        crossings=crossings(z, states, [len(run.traj) for run in runs]),
        n_effective=found.n_effective,
        same_cv=same_cv,
        same_energy=same_energy,
        **facts,
    )


def cv_similarity(cv: LatentCV, other: LatentCV, pieces: Sequence[Trajectory]) -> float:
    """Squared correlation of the slowest latents of two CVs; 0 where one is the same in all frames. Of ranks it
    would be that of the noise within states, where a good CV hardly varies."""
    one, two = (latents_of(each, pieces)[:, 0] for each in (cv, other))
    if not (np.ptp(one) and np.ptp(two)):
        return 0.0
    return float(np.corrcoef(one, two)[0, 1] ** 2)


def within_walls(bias: Bias, cv: LatentCV, pieces: Sequence[Trajectory]) -> float:
    """Share of the frames that the walls of a bias push by less than 1 kT; 1 without walls."""
    return float(np.mean(bias.of_walls(latents_of(cv, pieces))[0] < 1))


def has_settled(record: Round) -> bool:
    """Whether CV and free energy are those of the round before, and the free energy is worth something."""
    known = record.slow and record.n_effective >= ENOUGH
    same = known and record.same_cv is not None and record.same_cv >= SAME_CV
    return same and record.same_energy is not None and record.same_energy <= SAME_ENERGY


def active(cv: LatentCV) -> list[int]:
    idle = set(cv.record.collapsed or ())
    return [k for k in range(cv.latent_dim) if k not in idle][:MOST_LATENTS] or [0]


def weights_of(runs: Sequence[Run], found: FreeEnergy) -> np.ndarray:
    """Weights (n_frames,) of all frames of the runs, as their free energy has them; 0 where that left them out."""
    kept = np.concatenate([np.arange(len(run.traj)) >= int(found.dropped * len(run.traj)) for run in runs])
    weights = np.zeros(len(kept))
    weights[kept] = found.weights
    return weights

"""The arithmetic of a round of bias and training: a CV, a bias on it, starts of unbiased runs, and a summary."""

import copy
import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from polyvae.batches import map_frames
from polyvae.cv.fitting import SMOOTHNESS, fit
from polyvae.cv.latent import LatentCV
from polyvae.engines.runs import Bias, Run, Snapshots
from polyvae.measures.basins import Basin, arrivals, clear_states, crossings, find_basins
from polyvae.measures.free_energy import FreeEnergy, free_energy
from polyvae.measures.kinetics import timescales
from polyvae.records import Record
from polyvae.trajectory.record import Trajectory
from polyvae.trajectory.stream import concatenate

log = logging.getLogger(__name__)

MARGIN = 0.5  # share of the range of the frames, added on each side
BEYOND = 0.2  # share of the range between walls, added on each side; the walls are 40 kT high there
WALLS = 0.1  # share of the range of the unbiased frames, added on each side
SAME_CV = 0.9  # squared correlation of the slowest latent with that of the round before
SAME_ENERGY = 0.5  # kT, between the free energies of two rounds
REACHED = 0.98  # share of the frames of unbiased runs that must be within the walls of the last bias
COVERED = 0.9  # share of the points below 6 kT that two free energies must have in common to be compared
ENOUGH = 20.0  # independent frames that a free energy must be worth
SEARCH = 1.5  # factor of the barrier while nothing slow is known
RARE = 0.01  # share of all frames; motions that last longer are slow
LEFT_OUT = 0.1  # share of each unbiased run that is dropped, since a bias had driven the system to its start
PAIRS = 3  # frames by which a short run is longer than the time lag
MOST_LATENTS = 3  # most latents that are biased together
MOST_SEEN = 2000  # most known frames that others are compared with


@dataclasses.dataclass(frozen=True)
class Round(Record):
    """Record of one round, as `round.json` holds it."""

    number: int  # from 1
    steps: int  # steps with a bias
    free_steps: int  # unbiased steps before the biased runs of this round
    latents: tuple[int, ...]  # numbers of the biased latents
    n_frames: int  # unbiased frames in the known states; the CV was trained on these and the short runs
    slow: bool  # whether the CV knows something slow, and has a time lag; otherwise the round was a search
    states: tuple[float, ...]  # basins of the unbiased frames along the slowest latent
    crossings: int  # crossings of the biased runs between these
    n_effective: float  # effective number of independent frames in the biased runs
    same_cv: float | None  # squared correlation of the slowest latent with that of the round before
    # root mean square difference, in kT, from the free energy of the round before over this latent, where the
    # present one is known; None where the other one does not cover this range
    same_energy: float | None
    seconds: Mapping[str, float]  # time of training and runs since the biased runs of the round before

    def __post_init__(self) -> None:
        for name in ("latents", "states"):  # which files hold as lists
            object.__setattr__(self, name, tuple(getattr(self, name)))


def train_cv(
    known: Sequence[Trajectory], biased: Sequence[Run], *, training: Mapping[str, Any], seed: int
) -> LatentCV:
    """Train a CV on the unbiased frames, for slow motions between all conformations that the rounds have found.

    If all frames are of one basin, nothing in them is slow. With a time lag the latents that lead out of the basin
    would be inactive, so that the CV is trained on shapes, without a lag. Biased frames are not trained on: with
    their weights few of them count, and without weights they are in places where the system is not.
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


def choose_bias(
    cv: LatentCV, known: Sequence[Trajectory], biased: Sequence[Run], barrier: float, pace: int
) -> Bias:
    """Choose a bias on the range of all frames and more, with kernels of `export.grid_bias.bias_width`.

    Walls keep a CV that knows something slow where the unbiased frames are: the model knows nothing beyond them,
    and a strong bias breaks bonds there. A CV that knows nothing slow has no walls, since the way out of the only
    basin leads there, and its barrier is `SEARCH` times as high.
    """
    from polyvae.export.grid_bias import bias_width, statistics
    from polyvae.export.steepness import check_steepness

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
    width = bias_width(stats)
    check_steepness(cv, width, stats["slopes"], refuse=False)
    return Bias(low - margin, high + margin, width, barrier, pace, walls)


def encode_pieces(cv: LatentCV, pieces: Sequence[Trajectory]) -> np.ndarray:
    """Latents (n_frames, latent_dim) of all frames of some pieces, in double precision.

    All frames are encoded in one call, since each call takes as long as thousands of frames.
    """
    whole = join_frames([piece.to_unit(pieces[0].length_unit) for piece in pieces])
    return cv.transform(whole).astype(np.float64)


def join_frames(pieces: Sequence[Trajectory]) -> Trajectory:
    """The frames of some pieces as one, in their order, without times and boxes."""
    positions = pieces[0].positions
    if len(pieces) > 1:
        positions = np.concatenate([piece.positions for piece in pieces])
    return dataclasses.replace(
        pieces[-1], positions=positions, segments=(len(positions),), time=None, weights=None, box=None, origin=None
    )


def evenly_spaced_snapshots(runs: Sequence[Run], n: int) -> list[tuple[Snapshots, Trajectory]]:
    """Snapshots of runs, evenly in time, without the first tenth; each with its frame of the beads.

    Where fewer were kept, some are taken more than once.
    """
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
    """Snapshots of runs, each with the features farthest from the known frames and from the snapshots before it.

    A bias that searches is mostly where it began, so that evenly spaced snapshots would be of known places. The
    order is that of k-centres (Gonzalez, 10.1016/0304-3975(85)90224-5).
    """
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
    """The frames of a run after the frame that it started from, in one piece."""
    return join_frames([frame, run.traj])


def keep_last_snapshot(run: Run) -> Run:
    """Drop all snapshots of a run but the last, since those of large systems are large."""
    last = run.snapshots[len(run.snapshots) - 1]
    # Copies, since a view would keep the memory of all.
    return dataclasses.replace(run, snapshots=copy.deepcopy(last))


def subsample(pieces: Sequence[Trajectory], n: int) -> list[Trajectory]:
    """Take about n of all frames, evenly spaced."""
    step = max(1, sum(map(len, pieces)) // n)
    return [piece[::step] for piece in pieces]


def snapshots_of_each_basin(
    cv: LatentCV, known: Sequence[Trajectory], runs: Sequence[Run], n: int
) -> list[Snapshots]:
    """Snapshots of unbiased runs, as many from each basin along the slowest latent, evenly in time."""
    snapshots = [run.snapshots[k] for run in runs for k in range(len(run.snapshots))]
    along = encode_pieces(cv, known)[:, 0]
    z = encode_pieces(cv, [run.traj[run.snapshots.frames] for run in runs])[:, 0]
    basin = np.searchsorted([found.low for found in find_basins(along)][1:], z)
    members = [np.flatnonzero(basin == b) for b in np.unique(basin)]
    chosen: list[int] = []
    for k, rows in enumerate(members):
        share = (n - len(chosen)) // (len(members) - k)
        chosen += rows[np.linspace(0, len(rows) - 1, min(share, len(rows))).astype(int)].tolist()
    return [snapshots[k] for k in chosen]


def drop_transient(run: Run) -> Trajectory:
    """Drop the beginning of an unbiased run, which depends on the bias that drove the system to its start."""
    return run.traj[int(LEFT_OUT * len(run.traj)) :]


def estimate_free_energy(cv: LatentCV, runs: Sequence[Run], worth: Sequence[float] | None = None) -> FreeEnergy:
    """Free energy in kT over the slowest latent of a CV, from biased runs.

    `worth` is the weight of each run, by default its number of frames.
    """
    z = encode_pieces(cv, [run.traj for run in runs])[:, 0]
    lengths = [len(run.traj) for run in runs]
    if worth is None:
        worth = lengths
    # Each bias has a constant of its own, which is set so that the weights of a run add up to its worth.
    bias = [run.bias - np.logaddexp.reduce(run.bias) + np.log(n) for run, n in zip(runs, worth, strict=True)]
    return free_energy(z, bias=np.concatenate(bias), kT=1.0, segments=lengths, walkers=True)


def find_clear_states(cv: LatentCV, known: Sequence[Trajectory]) -> list[Basin]:
    """Find the states of the unbiased frames along the slowest latent."""
    return clear_states(find_basins(encode_pieces(cv, known)[:, 0]))


def combine_rounds(
    cv: LatentCV, rounds: Sequence[Sequence[Run]], known: Sequence[Trajectory]
) -> tuple[list[Run], FreeEnergy]:
    """Combine the biased runs of several rounds to one free energy over the slowest latent.

    The relative weights of the states are hard to estimate, and a run estimates them by its arrivals in each
    state. So a run counts by its arrivals in the state where these are fewest. A run that never left its first
    state does not count, however long it was. If no run left it, the last round is used alone.

    Returns the runs that count, and the free energy.
    """
    runs, states = [run for one in rounds for run in one], find_clear_states(cv, known)
    z = [cv.transform(run.traj)[:, 0] for run in runs]
    worth = [int(arrivals(along, states, [len(along)]).min()) for along in z]
    if not any(worth):
        return list(rounds[-1]), estimate_free_energy(cv, rounds[-1])
    counted = [k for k, n in enumerate(worth) if n]
    runs, worth = [runs[k] for k in counted], [worth[k] for k in counted]
    return runs, estimate_free_energy(cv, runs, worth)


def summarise_round(
    number: int,
    cv: LatentCV,
    latents: Sequence[int],
    runs: Sequence[Run],
    before: tuple[LatentCV, Sequence[Run]] | None,
    known: Sequence[Trajectory],
    **facts,
) -> Round:
    """Make the record of a round: of its biased runs along `latents` of the CV, and of the known unbiased frames.

    It is compared with CV and biased runs of the round before. `facts` are `free_steps` and `seconds` of the
    record, and `stride`.
    """
    stride = facts.pop("stride")
    found = estimate_free_energy(cv, runs)
    z = encode_pieces(cv, [run.traj for run in runs])[:, 0]
    states = find_clear_states(cv, known)
    same_cv = same_energy = None
    if before is not None:
        old, earlier = before
        same_cv = cv_similarity(cv, old, [run.traj for run in runs])
        then = estimate_free_energy(cv, earlier)
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
    """Squared correlation of the slowest latents of two CVs; 0 where one is the same in all frames.

    Ranks are not correlated: they would show the noise within states, where a good CV hardly varies.
    """
    one, two = (encode_pieces(each, pieces)[:, 0] for each in (cv, other))
    if not (np.ptp(one) and np.ptp(two)):
        return 0.0
    return float(np.corrcoef(one, two)[0, 1] ** 2)


def within_walls(bias: Bias, cv: LatentCV, pieces: Sequence[Trajectory]) -> float:
    """Share of the frames that the walls of a bias push by less than 1 kT; 1 without walls."""
    return float(np.mean(bias.of_walls(encode_pieces(cv, pieces))[0] < 1))


def has_settled(record: Round) -> bool:
    """Whether CV and free energy are those of the round before, and the free energy is from enough frames."""
    known = record.slow and record.n_effective >= ENOUGH
    same = known and record.same_cv is not None and record.same_cv >= SAME_CV
    return same and record.same_energy is not None and record.same_energy <= SAME_ENERGY


def choose_latents(cv: LatentCV) -> list[int]:
    """Numbers of the latents to bias: at most `MOST_LATENTS`, and the first if all are inactive."""
    return cv.active_latents[:MOST_LATENTS] or [0]


def assign_weights(runs: Sequence[Run], found: FreeEnergy) -> np.ndarray:
    """Weights (n_frames,) of all frames of the runs in their free energy; 0 for frames that it leaves out."""
    kept = np.concatenate([np.arange(len(run.traj)) >= int(found.dropped * len(run.traj)) for run in runs])
    weights = np.zeros(len(kept))
    weights[kept] = found.weights
    return weights

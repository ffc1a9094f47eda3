"""Settings that `fit` chooses from the data by default: the alignment, the beads of distances, and the time lag.

All are decided before training, from the frames alone, and logged with the reason.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from polyvae.features.continuity import describe, jumps
from polyvae.features.featurizers import PairDistances, PrincipalAxes, Reference
from polyvae.measures.kinetics import timescales
from polyvae.trajectory.record import Trajectory
from polyvae.trajectory.stream import concatenate

MAX_STEPS = 20_000  # most frames for counting jumps, in runs of neighbours
MAX_COMPONENTS = 10  # principal components of the features, for relaxation times
MAX_FOR_COMPONENTS, LEAST_FOR_COMPONENTS = 4000, 500  # frames for these components, fewer if features are many
SEEN = 3.0  # relaxation times after which a motion has decayed to 5 %
BORNE = 1e-3  # share of steps at which a superposition may jump; with more, distances are used
LEAST_LAG = 1.0  # frames; a shorter lag is taken as 0
LEAST_NEIGHBOURS = 500  # frames in a row; timescales of fewer are noise
_RUNS = 20
_HELD = 1 << 24  # features at a time, in double precision

Featurizer = PrincipalAxes | Reference | PairDistances


@dataclasses.dataclass(frozen=True)
class Choice:
    """A chosen value, and a sentence with the reason."""

    value: Any
    reason: str


NO_LAG_OF_WEIGHTS = Choice(0, "no time lag: frames with weights come from a bias, which speeds motions up")


def choose_alignment(traj: Trajectory) -> Choice:
    """Choose the alignment that jumps least on this run (`continuity.jumps`).

    `PrincipalAxes()` is taken if it never jumps, since it needs no reference structure. `Reference()` is next, if
    it jumps at no more than one step in a thousand. Otherwise the one of these and `PairDistances()` that jumps
    least is taken. Distances alone are continuous for a chain that turns itself inside out, but they give no
    coordinates and are equal for mirror images. A long run is sampled: evenly spaced runs of neighbouring frames.
    """
    sample = _sample_neighbours(traj)
    found: list[tuple[float, str, Featurizer]] = []
    candidates: list[tuple[Featurizer, float]] = [(PrincipalAxes(), 0.0), (Reference(), BORNE)]
    if traj.n_beads > 1:
        candidates.append((PairDistances(), 0.0))
    for candidate, borne in candidates:
        counted = jumps(sample, candidate.fit(sample))
        words = f"{describe(candidate)} jumps at {counted.count} of {counted.n_steps} steps"
        found.append((counted.fraction, words, candidate))
        if counted.fraction <= borne:
            return Choice(candidate, _why(candidate, found))
    best = min(found, key=lambda one: one[0])
    return Choice(best[2], _why(best[2], found))


def describe_pairs(fitted: PairDistances) -> Choice:
    """The choice of `PairDistances().fit` for a long chain: distances among every k-th bead."""
    assert fitted.n_beads is not None
    n, every = fitted.n_beads, fitted.every
    return Choice(
        every,
        f"distances among one bead in {every}, {fitted.n_joined} of {n:,}, since {n * (n - 1) // 2:,} pairs are "
        f"too many; --every (PairDistances(every=...)) takes others",
    )


def _why(featurizer: Featurizer, found: list[tuple[float, str, Featurizer]]) -> str:
    return f"alignment {describe(featurizer)}: " + ", ".join(words for _, words, _ in found)


def _sample_neighbours(traj: Trajectory) -> Trajectory:
    """Evenly spaced runs of neighbouring frames."""
    if len(traj) <= MAX_STEPS:
        return traj
    length = MAX_STEPS // _RUNS
    starts = np.linspace(0, len(traj) - length, _RUNS).astype(int)
    return concatenate([traj[start : start + length] for start in starts])


def choose_lag(x: Float[np.ndarray, "frames features"], segments: tuple[int, ...], most: int) -> Choice:
    """Choose the time lag, in frames, at which all but the slowest motion has relaxed.

    Let t_1 >= t_2 >= ... be the implied timescales of the features' leading principal components. The lag is 3
    t_2, when the second slowest motion has decayed to 5 %. It is at most t_1 / 3, so that the slowest motion
    remains, at most a tenth of the longest segment, and at most `most`. It is 0 where no motion is seen to
    last for three frames, where all segments are too short to decide, and where frames have no order.

    The timescales are those at a third of the lag, which is found in three rounds from 1 frame on: at a shorter
    lag they are too short (Prinz et al., 10.1063/1.3565032).
    """
    longest = max(segments)
    if longest < LEAST_NEIGHBOURS:
        return Choice(0, f"no time lag: {longest} frames in a row are too few to tell what is slow")
    projected = _project_on_components(x)
    at, lag, slowest, second = 1, 0.0, 0.0, 0.0
    for _ in range(3):
        slowest, second = [*timescales(projected, at, segments).tolist(), 0.0][:2]
        lag = min(SEEN * max(second, 1.0), slowest / SEEN, longest / 10, most)
        at = max(1, int(lag / SEEN))
    if lag < LEAST_LAG:
        seen = f"the slowest motion found from one frame to the next lasts {slowest:.2g} frames"
        return Choice(0, f"no time lag: {seen}, and a lag takes {SEEN:g}")
    chosen = round(lag)
    slow = "longer than the run"
    if slowest < longest:
        slow = f"{slowest:,.0f} frames"
    return Choice(
        chosen,
        f"time lag {chosen} frame{'s' * (chosen > 1)}: the slowest motion lasts {slow}, "
        f"the next {max(second, 1):,.0f}",
    )


def _project_on_components(x: np.ndarray) -> Float[np.ndarray, "frames components"]:
    """The leading principal components of the features, without those that hardly vary."""
    most = max(LEAST_FOR_COMPONENTS, min(MAX_FOR_COMPONENTS, _HELD // x.shape[1]))
    few = np.asarray(x[:: -(-len(x) // most)], np.float64)
    mean = few.mean(axis=0)
    _, spread, axes = np.linalg.svd(few - mean, full_matrices=False)
    kept = axes[:MAX_COMPONENTS][spread[:MAX_COMPONENTS] > 1e-3 * spread[0]]
    n = max(1, _HELD // x.shape[1])
    pieces = [(np.asarray(x[k : k + n]) - mean) @ kept.T for k in range(0, len(x), n)]
    return np.concatenate(pieces)

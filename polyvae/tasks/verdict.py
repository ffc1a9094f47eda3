"""Three lines on a latent CV for a person: is it good, why, and what would help."""

import itertools

import numpy as np

from polyvae.cv.latent import LatentCV
from polyvae.measures.basins import clear_states, crossings, find_basins, spreads_apart
from polyvae.measures.weights import effective_size
from polyvae.tasks.scorecard import Generated, Scores
from polyvae.trajectory.record import Trajectory

FEW_FRAMES = 500  # as good as independent or not, that a CV can hardly be judged on
VISITS = 10  # relaxations of the slowest motion that a run should hold
FLOORS = 2.0  # noise floors within which a generated ensemble is that of the data


def verdict(cv: LatentCV, scores: Scores, traj: Trajectory, z: np.ndarray) -> list[str]:
    """Is the CV good, why, and what would help, a line each.

    "Good" is a slow latent that does not jump and holds up on enough frames; "fair" what falls short of one of
    these; "poor" what should not be biased.

    Args:
        scores: of `score`, of these frames.
        z: (n_frames, latent_dim), the latents of the trajectory.
    """
    faults: list[tuple[str, str]] = []  # what is wrong, and what would help
    why: list[str] = []
    poor = False
    everything, held = scores.frames.all, scores.frames.validation or scores.frames.all
    lag = cv.record.settings.lag
    n_active = cv.latent_dim - len(cv.record.collapsed or [])
    if n_active == 0:
        poor = True
        faults.append(("no latent carries anything", "a lower beta, or --lag 0"))
    elif n_active < cv.latent_dim:
        why.append(f"{n_active} of {cv.latent_dim} latents vary, and z0 is the slowest")
    if len(traj) < FEW_FRAMES:
        poor = True
        faults.append((f"{len(traj)} frames are too few to judge by", f"{FEW_FRAMES} frames or more"))
    if scores.alignment is not None and scores.alignment.n_jumps:
        poor = poor or scores.alignment.jump_fraction > 0.01
        share = f"{scores.alignment.n_jumps} of {scores.alignment.n_steps}"
        faults.append((f"the CV jumps at {share} steps", "--align distances, which do not"))
    elif scores.alignment is not None:
        why.append("it does not jump on this run")
    if n_active:
        _slowness(cv, scores, traj, z[:, 0], why, faults)
    cure = "more frames" if len(traj) >= FEW_FRAMES else ""  # where this has not been said
    if lag == 0 and held.fve is not None:
        told = f"it explains {held.fve:.0%} of the variance of the coordinates held out"
        if held.fve > 0:
            why.append(told)
        else:
            poor = True
            faults.append((told, cure))
    if scores.generated is not None and (off := far_off(scores.generated)):
        faults.append((f"generated {' and '.join(off)} lie beyond {FLOORS:g} noise floors", cure))
    if everything.n_frames and traj.weights is not None:
        n = effective_size(traj.positions, traj.weights)
        if n < FEW_FRAMES:
            faults.append((f"the weights leave {n:.0f} frames' worth", "a longer biased run"))
    word = "poor" if poor else "fair" if faults else "good"
    told = "; ".join([wrong for wrong, _ in faults] or ["nothing speaks against it"])
    help_ = (
        "; ".join(dict.fromkeys(cure for _, cure in faults if cure)) or "nothing more; bias it (polyvae export)"
    )
    return [f"verdict: {word}: {told}", f"because: {'; '.join(why) or 'see above'}", f"to do: {help_}"]


def _slowness(cv: LatentCV, scores: Scores, traj: Trajectory, z: np.ndarray, why: list, faults: list) -> None:
    """What the slowest latent tells: its states, how often the run goes between them, its time."""
    states = clear_states(find_basins(z, traj.weights))
    if len(states) > 1:
        gap = min(spreads_apart(one, two) for one, two in itertools.pairwise(states))
        why.append(f"z0 tells {len(states)} states apart, {gap:.0f} spreads or more from each other")
        if (n := crossings(z, states, traj.segments)) < VISITS:  # fewer say little of how often it does
            times = "never goes" if n == 0 else f"goes only {n} time{'s' * (n > 1)}"
            between = f"between the {len(states)} states that z0 tells apart"
            faults.append((f"the run {times} {between}", "a run biased on z0, and to learn from that again"))
        return
    slowest = scores.frames.all.autocorrelation_time[0]
    if cv.record.settings.lag == 0:
        cure = "frames closer in time, so that a time lag can be chosen"
        if traj.weights is not None:
            cure = "an unbiased run from what the biased one found, for a time lag"
        faults.append(("it was trained on shapes, not on what is slow", cure))
    elif slowest is None:
        faults.append(("the run is too short to tell how slow it is", "a longer run"))
    else:
        length = len(traj) * (scores.kinetics.time_step or 1.0)
        why.append(f"z0 relaxes within {slowest:.3g} {scores.kinetics.time_unit}")
        if length / slowest < VISITS:
            faults.append((f"the run is only {length / slowest:.0f} times that long", "a longer run"))


def far_off(generated: Generated) -> list[str]:
    """Which of bond lengths, Rg, end-to-end distance and distances of pairs are beyond two noise floors of the
    data's."""
    names = {
        "bond": "bond lengths",
        "rg": "radii of gyration",
        "end_to_end": "end-to-end distances",
        "pairs": "distances of pairs",
    }
    floor = generated.noise_floor
    return [
        words for name, words in names.items() if getattr(generated, name) > FLOORS * getattr(floor, name) + 1e-12
    ]

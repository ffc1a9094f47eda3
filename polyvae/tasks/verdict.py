"""Verdict on a latent CV in words: is it good, why, and what would help."""

import dataclasses
import itertools

import numpy as np

from polyvae.cv.latent import LatentCV
from polyvae.measures.basins import clear_states, crossings, find_basins, spreads_apart
from polyvae.measures.weights import effective_size
from polyvae.records import Record
from polyvae.tasks.scorecard import Generated, Scores
from polyvae.trajectory.record import Trajectory

FEW_FRAMES = 500  # as good as independent or not, that a CV can hardly be judged on
VISITS = 10  # relaxations of the slowest motion that a run should hold
JUMPS = 0.01  # of all steps, above which jumps of the alignment are poor
FLOORS = 2.0  # noise floors within which a generated ensemble is that of the data
JUDGED = {  # of a generated ensemble; not angles, since nearly straight ones can hardly be settled
    "bond": "bond lengths",
    "rg": "radii of gyration",
    "end_to_end": "end-to-end distances",
    "pairs": "distances of pairs",
}
MARKS = ("open", "good", "fair", "poor")  # "open" means undecided; the last is the worst
QUESTIONS = {
    "slow": "Is it slow?",
    "smooth": "Is it smooth?",
    "states": "Does it tell states apart?",
    "shape": "Does it hold the shape?",
    "ensemble": "Do generated chains match?",
    "data": "Are the data enough?",
}


@dataclasses.dataclass(frozen=True)
class Answer(Record):
    """One answer on a CV.

    Args:
        question: one of `QUESTIONS`.
        mark: one of `MARKS`.
        text: what was found; help: what would make it better, or nothing.
    """

    question: str
    mark: str
    text: str
    help: str = ""


@dataclasses.dataclass(frozen=True)
class Verdict(Record):
    """Is the CV good, why, and what would help.

    Args:
        mark: "good", "fair" or "poor": the worst of the answers.
        answers: one a question that could be put, in the order of `QUESTIONS`.
        advice: what would help.
    """

    mark: str
    answers: list[Answer]
    advice: str

    def lines(self) -> list[str]:
        """The verdict for a terminal: what is wrong, what is right, what to do."""
        wrong = [answer.text for mark in ("poor", "fair") for answer in self.answers if answer.mark == mark]
        right = [answer.text for answer in self.answers if answer.mark == "good"]
        return [
            f"verdict: {self.mark}: {'; '.join(wrong) or 'nothing speaks against it'}",
            f"because: {'; '.join(right) or 'see above'}",
            f"to do: {self.advice}",
        ]


def verdict(cv: LatentCV, scores: Scores, traj: Trajectory, z: np.ndarray) -> Verdict:
    """Answer every question that can be put to a CV.

    "Good" is a slow latent that does not jump and holds up on enough frames; "fair" what falls short of one of
    these; "poor" what should not be biased.

    Args:
        scores: of `score`, of these frames.
        z: (n_frames, latent_dim), the latents of the trajectory.
    """
    found: list[Answer] = []
    n_active = cv.latent_dim - len(cv.record.collapsed or [])
    if n_active:
        found += _slowness(cv, scores, traj, z[:, 0])
    if scores.alignment is not None:
        if n_jumps := scores.alignment.n_jumps:
            text = f"the CV jumps at {n_jumps} of {scores.alignment.n_steps} steps"
            mark = "poor" if scores.alignment.jump_fraction > JUMPS else "fair"
            found.append(Answer("smooth", mark, text, "--align distances, which do not"))
        else:
            found.append(Answer("smooth", "good", "it does not jump on this run"))
    if n_active == 0:
        found.append(Answer("shape", "poor", "no latent carries anything", "a lower beta, or --lag 0"))
    elif n_active < cv.latent_dim:
        text = f"{n_active} of {cv.latent_dim} latents vary, and z0 is the slowest"
        found.append(Answer("shape", "good", text))
    more = "more frames" if len(traj) >= FEW_FRAMES else ""  # else it is asked for below
    held = scores.frames.validation or scores.frames.all
    if held.fve is not None and n_active == cv.latent_dim:
        text = f"it explains {held.fve:.0%} of the variance of the coordinates held out"
        if cv.record.settings.lag:  # which asks for no more than what lasts
            mark = "good" if held.fve > 0.5 else "open" if held.fve > 0 else "fair"
            text += ", trained for what is slow"
            found.append(Answer("shape", mark, text, more if mark == "fair" else ""))
        else:
            mark = "good" if held.fve > 0.5 else "fair" if held.fve > 0 else "poor"
            found.append(Answer("shape", mark, text, "" if mark == "good" else more))
    if scores.generated is not None:
        if off := far_off(scores.generated):
            text = f"generated {' and '.join(off)} lie beyond {FLOORS:g} noise floors"
            found.append(Answer("ensemble", "fair", text, more))
        else:
            text = f"generated bonds, sizes and distances lie within {FLOORS:g} noise floors"
            found.append(Answer("ensemble", "good", text))
    found += _amount(traj)
    answers = [_joined(key, same) for key in QUESTIONS if (same := [a for a in found if a.question == key])]
    advice = dict.fromkeys(answer.help for answer in found if answer.help)
    return Verdict(
        mark=max((a.mark for a in answers if a.mark != "open"), key=MARKS.index, default="good"),
        answers=answers,
        advice="; ".join(advice) or _to_bias(cv),
    )


def _to_bias(cv: LatentCV) -> str:
    again = "" if cv.record.settings.smoothness else ", after training with --smoothness 1"
    return f"nothing more; bias it (polyvae export){again}"


def _joined(question: str, answers: list[Answer]) -> Answer:
    """Combine several answers to a question: all that is wrong, or, if nothing is, all that is right."""
    mark = max((answer.mark for answer in answers), key=MARKS.index)
    told = [answer for answer in answers if answer.mark == mark or (answer.mark == "fair" and mark == "poor")]
    help_ = "; ".join(dict.fromkeys(answer.help for answer in told if answer.help))
    return Answer(question, mark, "; ".join(answer.text for answer in told), help_)


def _slowness(cv: LatentCV, scores: Scores, traj: Trajectory, z: np.ndarray) -> list[Answer]:
    """Answers from the slowest latent: its states, the number of crossings between them, its time."""
    slowest, unit = scores.frames.all.autocorrelation_time[0], scores.kinetics.time_unit
    relaxes = None
    if slowest is not None:
        relaxes = Answer("slow", "good", f"z0 relaxes within {float(f'{slowest:.3g}'):,.6g} {unit}")
    states = clear_states(find_basins(z, traj.weights))
    if len(states) > 1:
        gap = min(spreads_apart(one, two) for one, two in itertools.pairwise(states))
        text = f"z0 tells {len(states)} states apart, {gap:.0f} spreads or more from each other"
        found = [Answer("states", "good", text)]
        n = crossings(z, states, traj.segments)
        if n < VISITS:  # fewer say little of how often it does
            times = "never goes" if n == 0 else f"goes only {n} time{'s' * (n > 1)}"
            text = f"the run {times} between the {len(states)} states that z0 tells apart"
            help_ = "polyvae adapt: a run biased on z0, and a CV of what it finds"
            found.append(Answer("data", "fair", text, help_))
        else:
            found.append(Answer("data", "good", f"the run goes {n} times between them"))
        return [*found, relaxes or Answer("slow", "open", "the run is too short to tell")]
    found = [Answer("states", "open", "the run shows one state along z0")]
    if cv.record.settings.lag == 0:
        help_ = "frames closer in time, so that a time lag can be chosen"
        if traj.weights is not None:
            help_ = "an unbiased run from what the biased one found, for a time lag"
        return [*found, Answer("slow", "fair", "it was trained on shapes, not on what is slow", help_)]
    if slowest is None or relaxes is None:
        return [*found, Answer("slow", "fair", "the run is too short to tell how slow it is", "a longer run")]
    relaxations = len(traj) * (scores.kinetics.time_step or 1.0) / slowest
    if relaxations < VISITS:
        text = f"the run is only {relaxations:.0f} times as long as z0 relaxes"
        found.append(Answer("data", "fair", text, "a longer run"))
    return [*found, relaxes]


def _amount(traj: Trajectory) -> list[Answer]:
    """Whether the frames are enough to judge by."""
    if len(traj) < FEW_FRAMES:
        text = f"{len(traj)} frames are too few to judge by"
        return [Answer("data", "poor", text, f"{FEW_FRAMES} frames or more")]
    if traj.weights is not None and (n := effective_size(traj.positions, traj.weights)) < FEW_FRAMES:
        return [Answer("data", "fair", f"the weights leave {n:.0f} frames' worth", "a longer biased run")]
    return [Answer("data", "good", f"{len(traj)} frames to judge by")]


def far_off(generated: Generated) -> list[str]:
    """Which of bond lengths, Rg, end-to-end distance and distances of pairs are beyond two noise floors of the
    data's."""
    floor = generated.noise_floor
    known = [name for name in JUDGED if getattr(generated, name) is not None]
    return [JUDGED[name] for name in known if getattr(generated, name) > FLOORS * getattr(floor, name) + 1e-12]

"""Verdict on a latent CV in words: is it good, why, and what would help."""

import dataclasses

import numpy as np

from polyvae.cv.choices import LEAST_NEIGHBOURS
from polyvae.cv.latent import LatentCV
from polyvae.export.grid_bias import bias_width, spread_of
from polyvae.export.steepness import BONDS, TOO_STEEP, mean_bond
from polyvae.measures.weights import counting, effective_size
from polyvae.records import Record
from polyvae.tasks.scorecard import Generated, Scores
from polyvae.tasks.states import ENOUGH, VISITS, States, find_states, plane_of
from polyvae.trajectory.record import Trajectory

FEW_FRAMES = 500  # with fewer, a CV can hardly be judged, even if they are independent
JUMPS = 0.01  # of all steps, above which jumps of the alignment are poor
FLOORS = 2.0  # noise floors within which a generated ensemble is that of the data
JUDGED = {  # measures of a generated ensemble; not angles, since nearly straight ones can hardly be corrected
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
    """One answer on a CV."""

    question: str  # one of `QUESTIONS`
    mark: str  # one of `MARKS`
    text: str  # the finding
    help: str = ""  # advice that would make it better, or nothing


@dataclasses.dataclass(frozen=True)
class Verdict(Record):
    """Judgement of a CV, with reasons and advice."""

    mark: str  # "good", "fair" or "poor": the worst of the answers
    answers: list[Answer]  # one for each question that could be put, in the order of `QUESTIONS`
    advice: str  # steps that would help

    def lines(self) -> list[str]:
        """The verdict for a terminal: faults, merits and advice, a line each."""
        wrong = [answer.text for mark in ("poor", "fair") for answer in self.answers if answer.mark == mark]
        right = [answer.text for answer in self.answers if answer.mark == "good"]
        return [
            f"verdict: {self.mark}: {'; '.join(wrong) or 'nothing speaks against it'}",
            f"because: {'; '.join(right) or 'see above'}",
            f"to do: {self.advice}",
        ]


def verdict(
    cv: LatentCV, scores: Scores, traj: Trajectory, z: np.ndarray, states: States | None = None
) -> Verdict:
    """Answer every question that can be put to a CV, from its scores, latents z (n_frames, latent_dim) and states.

    A CV is "good" if its slowest latent is slow, does not jump, and was tried on enough frames. It is "fair" if
    one of these fails, and "poor" if it should not be biased.
    """
    if states is None:
        states, _ = find_states(cv, traj, z, plane_of(scores.frames.all.kl_per_latent))
    more = "more frames" * (len(traj) >= FEW_FRAMES)  # otherwise `_amount` asks for them
    found = [
        *_smoothness(scores),
        *_steepness(cv, traj, z),
        *_shape(cv, scores, more),
        *_ensemble(scores, more),
        *_amount(traj),
    ]
    if cv.active_latents:
        found += [_slowness(cv, scores, traj), *_about_states(states), *_worth(states)]
    answers = [_joined(key, same) for key in QUESTIONS if (same := [a for a in found if a.question == key])]
    advice = dict.fromkeys(answer.help for answer in found if answer.help)
    return Verdict(
        mark=max((a.mark for a in answers if a.mark != "open"), key=MARKS.index, default="good"),
        answers=answers,
        advice="; ".join(advice) or _to_bias(cv),
    )


def _to_bias(cv: LatentCV) -> str:
    text = "nothing more; bias it (polyvae export)"
    if cv.record.slopes is None and not cv.record.settings.smoothness:
        text += ", after training with --smoothness 1"
    return text


def _smoothness(scores: Scores) -> list[Answer]:
    alignment = scores.alignment
    if alignment is None:
        return []
    if alignment.n_jumps == 0:
        return [Answer("smooth", "good", "it does not jump on this run")]
    text = f"the CV jumps at {alignment.n_jumps} of {alignment.n_steps} steps"
    mark = "poor" if alignment.jump_fraction > JUMPS else "fair"
    return [Answer("smooth", mark, text, "--align distances, which do not")]


def _steepness(cv: LatentCV, traj: Trajectory, z: np.ndarray) -> list[Answer]:
    """Whether an engine can follow a bias on the active latents, by the one that is steepest for its width."""
    slopes, active, bond = cv.record.slopes, cv.active_latents, mean_bond(cv)
    rows, weights = counting(traj)
    moving = [k for k in active if np.ptp(z[rows, k]) > 0]
    if slopes is None or not moving or not bond:
        return []
    stats = spread_of(z[rows][:, moving].astype(np.float64), np.ones(len(rows)) if weights is None else weights)
    move = bias_width(stats) / np.maximum(np.array(slopes.steep)[moving], 1e-30)
    least = float(move.min())
    text = f"the atoms move {least:.2g} {cv.length_unit} for a width of a bias on z{moving[int(move.argmin())]}"
    if least * BONDS >= bond:
        return [Answer("smooth", "good", text)]
    mark = "poor" if least * TOO_STEEP < bond else "fair"
    return [Answer("smooth", mark, f"{text}, and a time step needs {bond / BONDS:.2g}", "--smoothness 1")]


def _shape(cv: LatentCV, scores: Scores, more: str) -> list[Answer]:
    """Answer by the inactive latents, or by the variance that the latents explain."""
    n_active = len(cv.active_latents)
    if n_active == 0:
        return [Answer("shape", "poor", "all latents are inactive", "a lower beta, or --lag 0")]
    if n_active < cv.latent_dim:
        return [Answer("shape", "good", f"{n_active} of {cv.latent_dim} latents vary, and z0 is the slowest")]
    explained = (scores.frames.validation or scores.frames.all).fve
    if explained is None:
        return []
    text = f"it explains {explained:.0%} of the variance of the coordinates held out"
    below_half, below_zero = "fair", "poor"
    if cv.record.settings.lag:  # such a model is only asked to hold what is slow
        below_half, below_zero = "open", "fair"
        text += ", trained for what is slow"
    if explained > 0.5:
        return [Answer("shape", "good", text)]
    mark = below_half if explained > 0 else below_zero
    return [Answer("shape", mark, text, more * (mark != "open"))]


def _ensemble(scores: Scores, more: str) -> list[Answer]:
    if scores.generated is None:
        return []
    if off := far_off(scores.generated):
        text = f"generated {' and '.join(off)} are beyond {FLOORS:g} noise floors"
        return [Answer("ensemble", "fair", text, more)]
    text = f"generated bonds, sizes and distances are within {FLOORS:g} noise floors"
    return [Answer("ensemble", "good", text)]


def _joined(question: str, answers: list[Answer]) -> Answer:
    """Combine several answers to a question: all faults, or all merits without a fault."""
    mark = max((answer.mark for answer in answers), key=MARKS.index)
    same = {mark, "fair"} if mark == "poor" else {mark}
    used = [answer for answer in answers if answer.mark in same]
    advice = "; ".join(dict.fromkeys(answer.help for answer in used if answer.help))
    return Answer(question, mark, "; ".join(answer.text for answer in used), advice)


def _slowness(cv: LatentCV, scores: Scores, traj: Trajectory) -> Answer:
    """Whether z0 is slow: what it was trained for, and its autocorrelation time."""
    time, unit = scores.frames.all.autocorrelation_time[0], scores.kinetics.time_unit
    lasts = "" if time is None else f"z0 has an autocorrelation time of {float(f'{time:.3g}'):,.6g} {unit}"
    if cv.record.settings.lag:
        if lasts:
            return Answer("slow", "good", lasts)
        return Answer("slow", "fair", "the run is too short to tell how slow it is", _longer(traj))
    text = "it was trained on shapes, not on what is slow"
    return Answer("slow", "fair", f"{text}; {lasts}" if lasts else text, _for_a_lag(cv, traj))


def _for_a_lag(cv: LatentCV, traj: Trajectory) -> str:
    """Advice that lets a time lag be chosen, which was not."""
    if traj.weights is not None:
        return "an unbiased run from what the biased one found, for a time lag"
    if max(traj.segments) < LEAST_NEIGHBOURS:
        return f"{LEAST_NEIGHBOURS} frames or more in a row (now {max(traj.segments)}), for a time lag"
    if "lag" in (cv.record.choices or {}):
        return "frames closer in time, so that a time lag can be chosen"
    return "training with a time lag, which is chosen without --lag"


def _about_states(states: States) -> list[Answer]:
    """Answers from the states of the latent plane and the crossings between them."""
    names = " and ".join(f"z{k}" for k in states.latents)
    n = len(states.states)
    if n < 2:
        if states.withheld:
            return [Answer("states", "open", f"too little to tell states along {names}")]
        return [Answer("states", "open", f"the run shows one state along {names}")]
    shares = ", ".join(f"{state.name} {state.share:.0%}" for state in states.states)
    apart = f"{names} tell{'s' * (len(states.latents) == 1)} {n} states apart ({shares})"
    found = [Answer("states", "good", apart)]
    if states.crossings >= VISITS:
        return [*found, Answer("data", "good", f"the run goes {states.crossings} times between the states")]
    times = "never goes" if states.crossings == 0 else f"goes only {states.crossings} time"
    text = f"the run {times}{'s' * (states.crossings > 1)} between the {n} states that {names} tell apart"
    help_ = "polyvae adapt: a run biased on z0, and a CV of what it finds"
    return [*found, Answer("data", "fair", text.replace("z0 tell ", "z0 tells "), help_)]


def _worth(states: States) -> list[Answer]:
    """How many independent frames there are."""
    worth = states.n_independent
    if worth is None:
        return [Answer("data", "fair", "the run is too short to hold independent frames", "a longer run")]
    if worth < ENOUGH:
        return [Answer("data", "fair", f"the run holds only {worth:.0f} independent frames", "a longer run")]
    return [Answer("data", "good", f"the run holds {worth:,.0f} independent frames")]


def _longer(traj: Trajectory) -> str:
    return "longer pieces" if len(traj.segments) > 1 else "a longer run"


def _amount(traj: Trajectory) -> list[Answer]:
    """Whether the frames are enough to judge by."""
    if len(traj) < FEW_FRAMES:
        text = f"{len(traj)} frames are too few to judge by"
        return [Answer("data", "poor", text, f"{FEW_FRAMES} frames or more")]
    if traj.weights is not None and (n := effective_size(traj.positions, traj.weights)) < FEW_FRAMES:
        return [Answer("data", "fair", f"the weights leave {n:.0f} frames' worth", "a longer biased run")]
    return [Answer("data", "good", f"{len(traj):,} frames to judge by")]


def far_off(generated: Generated) -> list[str]:
    """The measures, among `JUDGED`, that are more than two noise floors from those of the data."""
    floor = generated.noise_floor
    known = [name for name in JUDGED if getattr(generated, name) is not None]
    return [JUDGED[name] for name in known if getattr(generated, name) > FLOORS * getattr(floor, name) + 1e-12]

"""States of a run in the latent plane: the one source of basins, crossings and independent frames.

The verdict, the tables, the report and the picture of the free energy all take these numbers.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.measures.basins import count_entries
from polyvae.measures.free_energy import FreeEnergy, free_energy, state_name
from polyvae.measures.kinetics import autocorrelation_time, time_step
from polyvae.measures.weights import counting, effective_size
from polyvae.records import Record
from polyvae.trajectory.record import Trajectory
from polyvae.vae.order import ACTIVE

ENOUGH = 30  # independent frames that a free energy takes
VISITS = 10  # crossings between states, below which their rates are not known
FEW_CROSSINGS = 4  # below which the shares of states are those of a single passage
FEW_FRAMES = 200  # of equal weight, too few for basins
_CLEAR = 3.0  # spreads between states that are believed from few independent frames
_LEAST = 0.02  # share of such a state
_CORE = 1.0  # kT above its bottom that a state's core reaches
_MEDOID = 400  # frames of a core that its medoid is looked for among


@dataclasses.dataclass(frozen=True)
class LatentState(Record):
    """A state: a basin of the free energy over the latent plane."""

    name: str  # its letter in pictures and tables
    share: float  # of the weight of all frames
    energy: float | None  # in kT above the state with the largest share, and
    error: float | None  # of it, 68 %; both None where the run cannot hold them
    centre: list[float]  # where the free energy is lowest, one number a latent of the plane
    entries: int  # how often the run comes into its core from that of another state
    # mean time until the run comes into its core, over the frames that are in those of others; None with fewer
    # than `VISITS` entries, and for weighted frames, since a bias has changed their dynamics
    first_passage: float | None
    medoid: int  # number of the frame of its core that is closest to the others there


@dataclasses.dataclass(frozen=True)
class States(Record):
    """States of a run, and what it can hold."""

    latents: list[int]  # numbers of the one or two latents of the plane
    # the longest autocorrelation time of a latent, in frames; None where the run, or each of its pieces, is too
    # short to tell
    autocorrelation_frames: float | None
    # independent frames: all of them, by their weights, divided by that time; without one, the number of pieces,
    # where there are several
    n_independent: float | None
    crossings: int  # between the cores of states
    spreads_apart: float | None  # least distance between two states, in spreads; None with fewer than two
    withheld: str | None  # the reason for withholding the free energy; None where it is given
    states: list[LatentState]  # the one with the largest share first; empty where basins are not distinct

    def to_frame(self):
        """The states as a pandas table, one a row."""
        import pandas as pd

        columns = [field.name for field in dataclasses.fields(LatentState)]
        rows = [state.to_dict() for state in self.states]
        return pd.DataFrame(rows, columns=columns).set_index("name")


def plane_of(spread: Sequence[float] | np.ndarray) -> list[int]:
    """Numbers of the one or two latents of the plane, in order: those with the largest KL, or variance."""
    return sorted(np.argsort(np.asarray(spread), kind="stable")[::-1][:2].tolist())


def find_states(
    cv: LatentCV, traj: Trajectory, z: np.ndarray, latents: Sequence[int] | None = None
) -> tuple[States, FreeEnergy | None]:
    """Find the states of a run in the latent plane, and the free energy that they are the basins of.

    The free energy is withheld (None) where the frames are worth fewer than `ENOUGH` independent ones, or where
    the run goes fewer than `FEW_CROSSINGS` times between its states. States are then named only if they are three
    spreads or more apart. Frames of weight 0 are left out.

    Args:
        z: (n_frames, latent_dim), the latents of the trajectory.
        latents: numbers of one or two of them; by default those that vary most.
    """
    rows, weights = counting(traj)
    chosen, z = traj[rows], np.asarray(z, np.float64)[rows]
    if latents is None:
        latents = plane_of(z.var(axis=0))
    plane = z[:, list(latents)]
    slowest, worth = independent_frames(chosen, z)
    found = States(list(latents), slowest, worth, 0, None, None, [])
    if worth is None or worth < ENOUGH:
        found = dataclasses.replace(found, withheld=_too_few(worth))
    if effective_size(plane, weights) < FEW_FRAMES:
        reason = found.withheld or f"no free energy: it takes {FEW_FRAMES} frames, and these are fewer"
        return dataclasses.replace(found, withheld=reason), None
    try:
        energy = free_energy(plane, weights=weights, segments=chosen.segments, transient=0.0)
    except InputError:  # latents that do not vary
        return dataclasses.replace(found, withheld="no free energy: the latents hardly vary"), None
    found = _with_states(found, energy, plane, (cv, chosen, rows))
    return found, None if found.withheld else energy


def _with_states(found: States, energy: FreeEnergy, plane: np.ndarray, run: tuple) -> States:
    """The states of a free energy; none where they cannot be believed."""
    cv, traj, rows = run
    core, member = _assign(energy, plane)
    n_states = len(energy.states)
    if found.withheld:  # a few frames in transit look like a basin
        n_states = sum(state.weight >= _LEAST for state in energy.states)
    core[core >= n_states] = -1
    entries = count_entries(core, traj.segments, n_states)
    crossings, gap = int(entries.sum()), _spreads_apart(plane, member, n_states)
    if found.withheld and (gap is None or gap < _CLEAR):
        return found
    # Molecules and runs that never cross still sample the states, if they are many.
    if n_states > 1 and crossings < FEW_CROSSINGS and len(traj.segments) < ENOUGH and not found.withheld:
        times = f"{crossings} time{'s' * (crossings != 1)}"
        reason = f"no free energy: the run goes only {times} between the {n_states} states"
        found = dataclasses.replace(found, withheld=reason)
    passages = _first_passages(core, traj, entries)
    states = []
    for k, state in enumerate(energy.states[:n_states]):
        sure = found.withheld is None and math.isfinite(state.energy) and math.isfinite(state.error)
        height, error = (state.energy, state.error) if sure else (None, None)
        medoid = _medoid(cv, traj, np.flatnonzero(core == k), np.flatnonzero(member == k))
        states.append(
            LatentState(
                name=state_name(k),
                share=state.weight,
                energy=height,
                error=error,
                centre=list(state.centre),
                entries=int(entries[k]),
                first_passage=passages[k],
                medoid=int(rows[medoid]),
            )
        )
    return dataclasses.replace(found, crossings=crossings, spreads_apart=gap, states=states)


def independent_frames(traj: Trajectory, z: np.ndarray) -> tuple[float | None, float | None]:
    """The longest autocorrelation time of a latent in frames, and how many independent frames there are.

    Pieces in which no autocorrelation time can be had (molecules of a short run) count as one each.
    """
    active = z.var(axis=0) > ACTIVE
    times = autocorrelation_time(z, traj.segments)[active]
    if len(times) and np.isfinite(times).all():
        slowest = max(1.0, float(times.max()))
        return slowest, float(effective_size(traj.positions, traj.weights)) / slowest
    pieces = len(traj.segments)
    return None, float(pieces) if pieces > 1 else None


def _too_few(worth: float | None) -> str:
    if worth is None:
        return "no free energy: the run is too short to hold independent frames"
    return f"no free energy: the frames are worth {worth:.0f} independent ones, and it takes {ENOUGH}"


def _assign(
    energy: FreeEnergy, plane: Float[np.ndarray, "frames latents"]
) -> tuple[Int[np.ndarray, " frames"], Int[np.ndarray, " frames"]]:
    """The state in whose core each frame is, and the state that it belongs to, -1 for none."""
    index = []
    for points, values in zip(energy.grid, plane.T, strict=True):
        nearest = np.rint((values - points[0]) / (points[1] - points[0]))
        index.append(np.clip(nearest, 0, len(points) - 1).astype(int))
    member, height = energy.cells[tuple(index)], energy.energy[tuple(index)]
    bottom = np.full(len(energy.states) + 1, np.inf)
    np.minimum.at(bottom, energy.cells, energy.energy)
    core = np.where(height <= bottom[member] + _CORE * energy.kT, member, -1)
    return core, member


def _spreads_apart(plane: np.ndarray, member: np.ndarray, n_states: int) -> float | None:
    """Least distance between the means of two states, in the larger spread along the line between them."""
    least = None
    for one in range(n_states):
        for other in range(one):
            a, b = plane[member == one], plane[member == other]
            between = a.mean(axis=0) - b.mean(axis=0)
            spread = max((a @ between).std(), (b @ between).std(), 1e-12)
            apart = float(between @ between / spread)
            least = apart if least is None else min(least, apart)
    return least


def _first_passages(core: np.ndarray, traj: Trajectory, entries: np.ndarray) -> list[float | None]:
    """Mean time until the core of each state, over the frames in those of others that see it reached."""
    unit = time_step(traj.time, traj.segments) or 1.0
    ends = np.repeat(np.cumsum(traj.segments), traj.segments)
    frames = np.arange(len(core))
    found: list[float | None] = []
    for k, n in enumerate(entries):
        if n < VISITS or traj.weights is not None:
            found.append(None)
            continue
        inside = np.append(np.flatnonzero(core == k), len(core))
        reached = inside[np.searchsorted(inside, frames)]
        waits = (core >= 0) & (core != k) & (reached < ends)
        found.append(float((reached - frames)[waits].mean()) * unit)
    return found


def _medoid(cv: LatentCV, traj: Trajectory, core: np.ndarray, member: np.ndarray) -> int:
    """The frame of a core, or of the state where that is empty, with the least mean distance to the others."""
    frames = core if len(core) else member
    few = frames[np.linspace(0, len(frames) - 1, min(len(frames), _MEDOID)).astype(int)]
    flat = np.asarray(cv.turn(traj.positions[few]), np.float64).reshape(len(few), -1)
    squares = (flat**2).sum(axis=1)
    apart = np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0)
    return int(few[np.argmin(np.sqrt(apart).sum(axis=1))])

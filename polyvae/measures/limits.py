"""Which conformations the data allow: limits on bonds and pairs of beads, and checks against them."""

import dataclasses
from collections.abc import Callable

import numpy as np

from polyvae import geometry
from polyvae.arguments import flag
from polyvae.errors import InputError
from polyvae.measures.pairs import (
    FAR,
    MANY,
    FrameMeasures,
    close_pairs,
    frame_measures,
    over_frames,
    pair_lengths,
    pairs_apart,
    separations,
)
from polyvae.measures.weights import counting, quantile
from polyvae.trajectory.convert import as_trajectory
from polyvae.trajectory.record import Trajectory, bonds_of

QUANTILE = 0.001
_ROUNDING = 1e-4  # share of a limit: it is the value of one frame, and its positions may come back rounded
_DISTANCES = 1 << 26  # of all pairs in all frames, that limits are read from
_SEARCHED = 1 << 21  # beads in all frames that a neighbour search is done for where all pairs are too many
_HELD = 1 << 22  # distances that are in memory together


@dataclasses.dataclass(frozen=True, eq=False)
class Limits:
    """Limits from the 0.1 % and 99.9 % quantiles of data, weighted where the data are. Lengths in their unit.

    Args:
        bonds: (n_bonds, 2), the pairs that are bonded.
        shortest_bond, longest_bond: of bond lengths.
        shortest_mean_bond, longest_mean_bond: of a frame's mean bond length, since no frame has all its bonds
            at the end of their range.
        closest_pair, closest_free_pair: of pair distances, and of those between beads that are not bonded.
        closest_apart: the same for pairs two, three, and four or more bonds apart.
        closest_mean_apart: of a frame's mean distance between beads two and three bonds apart, since no frame
            has all its angles at their sharpest.
        closest_contacts: of the mean over a frame's closest pairs without a bond, as many as it has beads,
            since no frame has all its contacts at their closest either.
        shape: of "bond", "closest_pair" (without a bond), "rg" and "end_to_end" the "mean" and the standard
            deviation "std" and the quantiles "low" and "high"; all beads count alike in "rg", whatever their
            masses.
    """

    bonds: np.ndarray
    shortest_bond: float
    longest_bond: float
    shortest_mean_bond: float
    longest_mean_bond: float
    closest_pair: float
    closest_free_pair: float
    closest_apart: tuple[float, ...]
    closest_mean_apart: tuple[float, ...]
    closest_contacts: float
    shape: dict[str, dict[str, float]]

    def record(self) -> dict:
        """All but the bonds, as plain numbers and lists of them, which a file gives back as they are."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[1:]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def pairs(self, n_beads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """All pairs (n_pairs, 2) of `n_beads` beads, which are bonds, and the range of each distance."""
        pairs, apart = separations(n_beads, self.bonds)
        is_bond = apart == 1
        low = np.array([0.0, *self.least_apart()])[apart]
        return pairs, is_bond, low, np.where(is_bond, self.longest_bond, np.inf)

    def least_apart(self) -> list[float]:
        """The least distance of pairs one, two, three, and four or more bonds apart, by all limits together."""
        free = max(self.closest_pair, self.closest_free_pair)
        return [max(self.shortest_bond, self.closest_pair), *(max(free, d) for d in self.closest_apart)]

    def broken(self, positions: np.ndarray) -> dict[str, np.ndarray]:
        """For conformations (n_frames, n_beads, n_dims) which limits each of them breaks, (n_frames,) for each
        of "bond", "mean bond", "pair", "bend" and "contacts".

        Args:
            positions: in the unit of the limits.
        """
        return _broken(self, frame_measures(positions, self.bonds))

    def accept(self, positions: np.ndarray) -> np.ndarray:
        """Which conformations (n_frames, n_beads, n_dims) keep within the limits, (n_frames,).

        Args:
            positions: in the unit of the limits.
        """
        return ~np.any(list(self.broken(positions).values()), axis=0)


@np.errstate(over="ignore")  # a limit beyond single precision is infinite
def _broken(limits: Limits, found: FrameMeasures) -> dict[str, np.ndarray]:
    def below(values, limit):
        return values < np.float32(1 - _ROUNDING) * np.asarray(limit, np.float32)

    def above(values, limit):
        return values > np.float32(1 + _ROUNDING) * np.float32(limit)

    bond, *least = limits.least_apart()
    mean_bond = found.bonds.mean(axis=1)
    return {
        "bond": (below(found.bonds, bond) | above(found.bonds, limits.longest_bond)).any(axis=1),
        "mean bond": below(mean_bond, limits.shortest_mean_bond) | above(mean_bond, limits.longest_mean_bond),
        "pair": below(found.closest_apart, least).any(axis=1),
        "bend": below(found.mean_apart, limits.closest_mean_apart).any(axis=1),
        "contacts": below(found.contacts, limits.closest_contacts),
    }


def limits_of(traj: Trajectory, *, of_frames: bool = False) -> Limits:
    """The limits that a trajectory sets; of a long one, evenly spaced frames are taken.

    Quantiles are over all bonds, or pairs, of all frames: what a conformation may have whose bonds are not
    left to chance. With `of_frames` they are over each frame's shortest and longest bond and closest pairs,
    so that 99.9 % of the frames keep within each limit. Frames count by their weights, those of weight 0 not
    at all.
    """
    traj, of_frames = as_trajectory(traj), flag("of_frames", of_frames)
    if traj.n_beads < 2:
        raise InputError("limits on bonds and pairs need at least two beads; got one. Select more beads")
    bonds = bonds_of(traj)
    positions, weights = _frames_for(traj)
    found = frame_measures(positions, bonds)

    def least(values, weights=weights):
        return quantile(values, QUANTILE, weights) if np.isfinite(values).any() else 0.0

    def largest(values):
        return -least(-values)

    mean_bond = found.bonds.mean(axis=1)
    if of_frames:
        shortest, longest, apart = found.bonds.min(axis=1), found.bonds.max(axis=1), found.closest_apart.T
        closest_free = found.closest_apart.min(axis=1)
        closest_pair, closest_free_pair = least(np.minimum(shortest, closest_free)), least(closest_free)
        closest_apart = list(map(least, apart))
    else:
        shortest = longest = found.bonds
        closest_pair, closest_free_pair, *closest_apart = _pooled(positions, bonds, weights)
    return Limits(
        bonds=np.asarray(bonds),
        shortest_bond=least(shortest),
        longest_bond=largest(longest),
        shortest_mean_bond=least(mean_bond),
        longest_mean_bond=largest(mean_bond),
        closest_pair=closest_pair,
        closest_free_pair=closest_free_pair,
        closest_apart=tuple(closest_apart),
        closest_mean_apart=tuple(map(least, found.mean_apart.T)),
        closest_contacts=least(found.contacts),
        shape=_shape(positions, found, weights),
    )


def _frames_for(traj: Trajectory) -> tuple[np.ndarray, np.ndarray | None]:
    """The positions that limits are read from, and their weights: frames that count, as many as is quick."""
    n, (rows, weights) = traj.n_beads, counting(traj)
    cost, most = (n * (n - 1) // 2, _DISTANCES) if n <= MANY else (n, _SEARCHED)
    step = -(-len(rows) * cost // most) or 1
    return traj.positions[rows[::step]], None if weights is None else weights[::step]


def _pooled(positions: np.ndarray, bonds: np.ndarray, weights: np.ndarray | None) -> list[float]:
    """The quantile of the distances of all pairs in all frames, of those without a bond, and of those two, three,
    and four or more bonds apart; 0 where there are none."""
    n = positions.shape[1]
    n_pairs = n * (n - 1) // 2
    # For many beads only the closest pairs are held.
    held = n_pairs if n <= MANY else 8 * n + int(4 * QUANTILE * n_pairs)
    step = -(-len(positions) * held // _HELD) or 1
    positions = positions[::step]
    weights = None if weights is None else weights[::step]
    if n <= MANY:
        pairs, apart = separations(n, bonds)
        r = over_frames(lambda x: geometry.distances(x, pairs), positions)
        kinds = [apart > 0, apart > 1, *(apart == k for k in range(2, FAR + 1))]
        return [quantile(r[:, kind], QUANTILE, weights) if kind.any() else 0.0 for kind in kinds]
    near = pairs_apart(n, bonds)
    shares = np.ones(len(positions)) if weights is None else weights
    r, apart, frame = close_pairs(positions, near, QUANTILE, shares)

    def least(kind, count):
        """Quantile of `count` pairs per frame. Only the closest are listed; the others have the missing weight."""
        listed = shares[frame[kind]]
        rest = max(count * shares.sum() - listed.sum(), 0.0)
        return quantile(np.append(r[kind], np.inf), QUANTILE, np.append(listed, rest)) if count else 0.0

    among = [quantile(pair_lengths(positions, p), QUANTILE, weights) if len(p) else 0.0 for p in near[1:]]
    return [
        least(apart > 0, n_pairs),
        least(apart > 1, n_pairs - len(near[0])),
        *among,
        least(apart == FAR, n_pairs - sum(map(len, near))),
    ]


def _shape(
    positions: np.ndarray, found: FrameMeasures, weights: np.ndarray | None = None
) -> dict[str, dict[str, float]]:
    """`Limits.shape` over frames by their weights (n_frames,)."""

    def moments(values):
        means = values.reshape(len(values), -1).mean(axis=1, dtype=np.float64)
        mean = float(np.average(means, weights=weights))
        squares = ((values - mean) ** 2).reshape(len(values), -1).mean(axis=1, dtype=np.float64)
        return {
            "mean": mean,
            "std": float(np.sqrt(np.average(squares, weights=weights))),
            "low": quantile(values, QUANTILE, weights),
            "high": -quantile(-values, QUANTILE, weights),
        }

    def size(x):
        return {"rg": geometry.radius_of_gyration(x), "end_to_end": geometry.end_to_end(x)}

    values = {"bond": found.bonds, "closest_pair": found.closest_apart.min(axis=1)} | over_frames(size, positions)
    return {name: moments(v) for name, v in values.items() if v.size and np.isfinite(v).all()}


def data_or_model(data):
    """Source of limits: a `LatentCV` as it is, and all other data as a `Trajectory`."""
    return data if hasattr(data, "record") and hasattr(data, "template") else as_trajectory(data)


def known_limits(data) -> Limits:
    """The limits of the frames of a `Trajectory`, or `LatentCV.limits`."""
    if isinstance(data, Limits):
        return data
    if isinstance(data, Trajectory):
        return limits_of(data, of_frames=True)
    return data.limits


@dataclasses.dataclass(frozen=True, eq=False)
class Check:
    """Result of `check_conformations`.

    Args:
        valid: (n_frames,), which conformations keep within the limits.
        broken: how many do not, by "bond", "mean bond", "pair", "bend" and "contacts".
        shape: bonds, closest pairs, Rg and end-to-end distances of the conformations, as `Limits.shape`.
        limits: of the data, with their shape.
    """

    valid: np.ndarray
    broken: dict[str, int]
    shape: dict[str, dict[str, float]]
    limits: Limits


def check_conformations(traj: Trajectory, data) -> Check:
    """Compare conformations with what the data allow: bonds, closest pairs, Rg and end-to-end distances.

    A conformation is valid where its shortest and longest bond, its mean bond, its closest pairs, its mean
    distances two and three bonds apart, and the mean over its closest contacts are within the 0.1 % and
    99.9 % quantiles of the same over the frames of the data. `check_conformations(data, data)` counts the
    few frames of the data themselves that are not.

    Args:
        traj: conformations, a `Trajectory` or what `as_trajectory` takes.
        data: the trajectory to compare with, or a `LatentCV`, which keeps the limits of its training data.

    Raises:
        InputError: another number of beads or unit than the data, a model that keeps no limits.
    """
    data = data_or_model(data)
    return check_against(known_limits(data), as_the_data(traj, data).positions)


def as_the_data(traj, data) -> Trajectory:
    """Conformations in the unit of the `Trajectory`, or the `LatentCV`, that they are measured by.

    Raises:
        InputError: another number of beads, of dimensions, or a unit that does not convert.
    """
    home = data if isinstance(data, Trajectory) else data.template
    traj = as_trajectory(traj, array_unit=home.length_unit).to_unit(home.length_unit)
    if (traj.n_beads, traj.n_dims) != (home.n_beads, home.n_dims):
        raise InputError(
            f"the conformations must have {home.n_beads} beads in {home.n_dims}-D, as the data have; got "
            f"{traj.n_beads} in {traj.n_dims}-D"
        )
    return traj


def check_against(limits: Limits, positions: np.ndarray) -> Check:
    """`check_conformations` for positions (n_frames, n_beads, n_dims) in the unit of the limits."""
    found = frame_measures(positions, limits.bonds)
    broken = _broken(limits, found)
    valid = ~np.any(list(broken.values()), axis=0)
    counts = {name: int(which.sum()) for name, which in broken.items()}
    return Check(valid, counts, _shape(positions, found), limits)


def draw_valid(
    draw: Callable[[int, int], Trajectory], n: int, limits: Limits, *, seed: int = 0, most: int | None = None
) -> tuple[Trajectory, int]:
    """`n` valid conformations by rejection, and how many were drawn up to the last of them.

    Args:
        draw: gives conformations from how many and a seed, such as `lambda n, seed: sample(cv, n, seed=seed)`.
        limits: what is valid.
        most: draws in all, 20 n by default.

    Raises:
        InputError: fewer than `n` among `most` draws are valid.
    """
    most = 20 * n if most is None else most
    kept, n_kept, n_drawn, size, k = [], 0, 0, n, 0
    while n_kept < n and n_drawn < most:
        size = min(size, most - n_drawn)
        new = draw(size, seed if k == 0 else int(np.random.SeedSequence([seed, k]).generate_state(1)[0]))
        good = np.flatnonzero(limits.accept(new.positions))[: n - n_kept]
        if len(good):
            kept.append(new.positions[good])
        n_kept, k = n_kept + len(good), k + 1
        n_drawn += size if n_kept < n else int(good[-1]) + 1
        size = max(n, int(1.2 * (n - n_kept) * n_drawn / max(n_kept, 1)))
    if n_kept < n:
        raise InputError(
            f"{n} valid conformations were asked for; {n_kept} of {n_drawn} drawn are valid. Take more draws "
            f"(--max-draws), relax them (--relax), or train a model with more latents"
        )
    bare = dataclasses.replace(new[0], time=None, weights=None, box=None, origin=None)
    return dataclasses.replace(bare, positions=np.concatenate(kept), segments=(1,) * n), n_drawn

"""Which conformations the data allow: limits on bonds and pairs of beads, and checks against them."""

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from polyvae import geometry
from polyvae.errors import InputError
from polyvae.measures.ensembles import frame_weights
from polyvae.trajectory.convert import as_trajectory
from polyvae.trajectory.record import Trajectory, chain_bonds

QUANTILE = 0.001
_FAR = 4  # bonds apart, from which on all pairs have one closest approach
_DISTANCES = 1 << 26  # of pairs, that the limits are read from
_AT_ONCE = 1 << 22  # distances that a compiled program holds


@dataclasses.dataclass(frozen=True, eq=False)
class Limits:
    """What data allow, by their 0.1 % and 99.9 % quantiles. Lengths in the unit of the data.

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
            deviation "std", by the weights of the frames, and the quantiles "low" and "high", of all frames alike.
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
        """All pairs of beads (n_pairs, 2), which of them are bonds, and the least and largest distance of each."""
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
        of "bond", "mean bond", "pair", "bend" and "contacts"."""
        n = positions.shape[1]
        pairs, is_bond, low, high = self.pairs(n)
        apart = separations(n, self.bonds)[1]

        def one(x):
            r = geometry.distances(x, pairs)
            outside, bond = (r < low) | (r > high), mean_apart(r, apart, 1)
            bends = [mean_apart(r, apart, k) < least for k, least in enumerate(self.closest_mean_apart, start=2)]
            return (
                (outside & is_bond).any(),
                (bond < self.shortest_mean_bond) | (bond > self.longest_mean_bond),
                (outside & ~is_bond).any(),
                jnp.array(bends).any(),
                mean_contact(r, apart, n) < self.closest_contacts,
            )

        return dict(
            zip(("bond", "mean bond", "pair", "bend", "contacts"), over_frames(one, positions), strict=True)
        )

    def accept(self, positions: np.ndarray) -> np.ndarray:
        """Which conformations (n_frames, n_beads, n_dims) keep within the limits, (n_frames,)."""
        return ~np.any(list(self.broken(positions).values()), axis=0)


def over_frames(one: Callable, positions: np.ndarray):
    """A function of one frame over many, compiled once, in pieces that hold a bounded number of distances."""
    size = max(1, _AT_ONCE // positions.shape[1] ** 2)
    run = jax.jit(lambda rows: jax.lax.map(one, rows, batch_size=min(size, len(rows))))
    return jax.tree.map(np.asarray, run(jnp.asarray(positions, jnp.float32)))


def mean_apart(r, apart: np.ndarray, k: int):
    """Mean distance of the pairs that are k bonds apart, from those of all pairs; 0 where there are none."""
    chosen = np.flatnonzero(apart == k)
    return jnp.sum(r[chosen]) / max(len(chosen), 1)


def mean_contact(r, apart: np.ndarray, n_beads: int):
    """Mean of the `n_beads` smallest distances of pairs without a bond; 0 where there are none."""
    free = r[np.flatnonzero(apart > 1)]
    n = min(n_beads, len(free))
    return -jnp.sum(jax.lax.top_k(-free, n)[0]) / max(n, 1)


def bonds_of(traj: Trajectory) -> np.ndarray:
    """Bonds (n_bonds, 2); consecutive beads where none are known."""
    return traj.bonds if traj.bonds is not None and len(traj.bonds) else chain_bonds(traj.n_beads)


def separations(n_beads: int, bonds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of beads (n_pairs, 2), and how many bonds apart they are, at most 4, which is also for none."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import shortest_path

    pairs = np.array(list(itertools.combinations(range(n_beads), 2)), dtype=int).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(bonds)), np.asarray(bonds).T), shape=(n_beads, n_beads))
    apart = shortest_path(graph.tocsr(), directed=False, unweighted=True)[pairs[:, 0], pairs[:, 1]]
    return pairs, np.minimum(apart, _FAR).astype(int)


def limits_of(traj: Trajectory, *, of_frames: bool = False) -> Limits:
    """The limits that a trajectory sets; of a long one, evenly spaced frames are taken.

    Quantiles are over all bonds, or pairs, of all frames: what a conformation may have whose bonds are not
    left to chance. With `of_frames` they are over each frame's shortest and longest bond and closest pairs,
    so that 99.9 % of the frames keep within each limit.
    """
    if traj.n_beads < 2:
        raise InputError("limits on bonds and pairs need at least two beads; got one. Select more beads")
    bonds = bonds_of(traj)
    pairs, apart = separations(traj.n_beads, bonds)
    step = -(-traj.n_frames * len(pairs) // _DISTANCES) or 1
    positions = traj.positions[::step]

    def one(x):
        r = geometry.distances(x, pairs)
        return r, [mean_apart(r, apart, k) for k in (1, 2, 3)], mean_contact(r, apart, traj.n_beads)

    r, means, contacts = over_frames(one, positions)

    def least(values):
        if not values.size:
            return 0.0
        return float(np.quantile(values.min(axis=1) if of_frames and values.ndim == 2 else values, QUANTILE))

    def largest(values):
        return -least(-values)

    bonded = r[:, apart == 1]
    return Limits(
        bonds=np.asarray(bonds),
        shortest_bond=least(bonded),
        longest_bond=largest(bonded),
        shortest_mean_bond=least(means[0]),
        longest_mean_bond=largest(means[0]),
        closest_pair=least(r),
        closest_free_pair=least(r[:, apart > 1]),
        closest_apart=tuple(least(r[:, apart == k]) for k in range(2, _FAR + 1)),
        closest_mean_apart=tuple(map(least, means[1:])),
        closest_contacts=least(contacts),
        shape=_shape(positions, bonds, frame_weights(traj)[::step]),
    )


def _shape(
    positions: np.ndarray, bonds: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, dict[str, float]]:
    """`Limits.shape`; means and standard deviations are over frames by their weights (n_frames,)."""

    weights = weights if weights is not None and weights.any() else None

    def moments(values):
        means = values.reshape(len(values), -1).mean(axis=1, dtype=np.float64)
        mean = float(np.average(means, weights=weights))
        squares = ((values - mean) ** 2).reshape(len(values), -1).mean(axis=1, dtype=np.float64)
        return {"mean": mean, "std": float(np.sqrt(np.average(squares, weights=weights)))}

    pairs, apart = separations(positions.shape[1], bonds)
    free = pairs[apart > 1]

    def one(x):
        found = {
            "bond": geometry.distances(x, bonds),
            "closest_pair": jnp.min(geometry.distances(x, free), initial=jnp.inf),
        }
        return found | {"rg": geometry.radius_of_gyration(x), "end_to_end": geometry.end_to_end(x)}

    return {
        name: moments(values)
        | {
            "low": float(np.quantile(values, QUANTILE)),
            "high": float(np.quantile(values, 1 - QUANTILE)),
        }
        for name, values in over_frames(one, positions).items()
        if values.size and np.isfinite(values).all()
    }


def data_or_model(data):
    """What limits are read off: a `LatentCV` as it is, and anything else as a `Trajectory`."""
    return data if hasattr(data, "record") else as_trajectory(data)


def known_limits(data) -> Limits:
    """The limits of the frames of a `Trajectory`, or those that a `LatentCV` keeps of the data it was trained on.

    Raises:
        InputError: a model that keeps none, since an older version trained it.
    """
    if isinstance(data, Limits):
        return data
    if isinstance(data, Trajectory):
        return limits_of(data, of_frames=True)
    kept = data.record.data.limits
    if kept is None:
        raise InputError(
            "this model keeps no limits of its data, since an older version trained it; train it again, or give "
            "the data: --data TRAJ, or data=traj"
        )
    return Limits(bonds_of(data.template), **kept)


@dataclasses.dataclass(frozen=True, eq=False)
class Check:
    """What `check_conformations` found.

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
    broken = limits.broken(positions)
    valid = ~np.any(list(broken.values()), axis=0)
    counts = {name: int(which.sum()) for name, which in broken.items()}
    return Check(valid, counts, _shape(positions, limits.bonds), limits)


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

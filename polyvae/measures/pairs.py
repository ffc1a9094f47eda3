"""Pairs of beads: how many bonds apart they are, and what their distances are in each frame.

Up to `MANY` beads all pairs are measured, in one compiled program; of more, those near along the bonds, and those
that a search in space finds close, which are the same numbers at a cost that grows as the beads do.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from polyvae import geometry
from polyvae.batches import single_precision

MANY = 250
FAR = 4  # bonds apart, from which on all pairs are of one kind
_AT_ONCE = 1 << 22  # distances that a compiled program holds


class FrameMeasures(NamedTuple):
    """Measures of each frame: lengths in the unit of the positions.

    Args:
        bonds: (n_frames, n_bonds) lengths.
        closest_apart: (n_frames, 3), the closest pairs two, three, and four or more bonds apart; infinite where
            there are none.
        mean_apart: (n_frames, 2), mean distances of the pairs two and three bonds apart; 0 where there are none.
        contacts: (n_frames,), mean distance of the closest pairs without a bond, as many as there are beads.
    """

    bonds: np.ndarray
    closest_apart: np.ndarray
    mean_apart: np.ndarray
    contacts: np.ndarray


@single_precision
def over_frames(one: Callable, positions: np.ndarray):
    """A function of one frame over many, compiled once, in pieces that hold a bounded number of distances."""
    size = max(1, _AT_ONCE // positions.shape[1] ** 2)
    run = jax.jit(lambda rows: jax.lax.map(one, rows, batch_size=min(size, len(rows))))
    return jax.tree.map(np.asarray, run(jnp.asarray(positions, jnp.float32)))


def pairs_apart(n_beads: int, bonds: np.ndarray) -> list[np.ndarray]:
    """The pairs (n_pairs, 2) of beads one, two and three bonds apart, the lower number first, in order."""
    from scipy.sparse import coo_matrix, eye

    joined = coo_matrix((np.ones(len(bonds), bool), np.asarray(bonds).T), shape=(n_beads, n_beads)).tocsr()
    step = joined + joined.T + eye(n_beads, dtype=bool, format="csr")
    within, known, found = eye(n_beads, dtype=bool, format="csr"), np.empty(0, int), []
    for _ in range(1, FAR):
        within = within @ step
        first, second = within.nonzero()
        new = np.setdiff1d((first * n_beads + second)[first < second], known)
        found.append(np.stack(np.divmod(new, n_beads), axis=1))
        known = np.concatenate([known, new])
    return found


def separations(n_beads: int, bonds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of beads (n_pairs, 2), and how many bonds apart they are, at most 4, which is also for none."""
    pairs = np.stack(np.triu_indices(n_beads, 1), axis=1)
    apart = np.full(len(pairs), FAR)
    for k, near in enumerate(pairs_apart(n_beads, bonds), start=1):
        i, j = near.T
        apart[i * n_beads - i * (i + 1) // 2 + j - i - 1] = k
    return pairs, apart


def even_pairs(n_beads: int, at_most: int) -> np.ndarray:
    """All pairs of beads (n_pairs, 2), or evenly chosen ones where these are more than `at_most`."""
    n_pairs = n_beads * (n_beads - 1) // 2
    return geometry.pairs_at(n_beads, np.arange(0, n_pairs, -(-n_pairs // at_most) or 1))


def mean_apart(r, apart: np.ndarray, k: int):
    """Mean distance of the pairs that are k bonds apart, from those of all pairs; 0 where there are none."""
    chosen = np.flatnonzero(apart == k)
    return jnp.sum(r[chosen]) / max(len(chosen), 1)


def mean_contact(free, n: int):
    """Mean of the n smallest distances, of as many pairs without a bond as there are beads; 0 of none."""
    return -jnp.sum(jax.lax.top_k(-free, n)[0]) / max(n, 1)


def frame_measures(positions: np.ndarray, bonds: np.ndarray) -> FrameMeasures:
    """`FrameMeasures` of positions (n_frames, n_beads, n_dims) of beads with bonds (n_bonds, 2)."""
    measure = _of_all_pairs if positions.shape[1] <= MANY else _of_near_pairs
    return measure(positions, bonds)


def _of_all_pairs(positions: np.ndarray, bonds: np.ndarray) -> FrameMeasures:
    n = positions.shape[1]
    pairs, apart = separations(n, bonds)
    kinds = [np.flatnonzero(apart == k) for k in range(1, FAR + 1)]
    free = np.flatnonzero(apart > 1)

    def one(x):
        r = geometry.distances(x, pairs)
        closest = [jnp.min(r[kind], initial=jnp.inf) for kind in kinds[1:]]
        means = [mean_apart(r, apart, k) for k in (2, 3)]
        return r[kinds[0]], jnp.stack(closest), jnp.stack(means), mean_contact(r[free], min(n, len(free)))

    return FrameMeasures(*over_frames(one, positions))


def _of_near_pairs(positions: np.ndarray, bonds: np.ndarray) -> FrameMeasures:
    near = pairs_apart(positions.shape[1], bonds)
    lengths = [pair_lengths(positions, pairs) for pairs in near]
    contacts, farther = _closest(positions, near)
    closest = [*(r.min(axis=1, initial=np.inf) for r in lengths[1:]), farther]
    means = [r.sum(axis=1, dtype=np.float64) / max(len(r.T), 1) for r in lengths[1:]]
    return FrameMeasures(
        lengths[0], np.stack(closest, axis=1), np.stack(means, axis=1).astype(np.float32), contacts
    )


def pair_lengths(positions: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Distances (n_frames, n_pairs) of pairs (n_pairs, 2), without a program to compile."""
    found = np.empty((len(positions), len(pairs)), np.float32)
    for k, x in enumerate(positions):
        found[k] = np.linalg.norm(x[pairs[:, 0]] - x[pairs[:, 1]], axis=1)
    return found


def _closest(positions: np.ndarray, near: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean distance of the closest pairs without a bond, as many as beads, and distance of the closest pair
    four or more bonds apart, for each frame; from pairs up to a distance that is raised until both are found."""
    n = positions.shape[1]
    n_free = n * (n - 1) // 2 - len(near[0])
    wanted, any_far = min(n, n_free), n_free > sum(map(len, near[1:]))
    kinds = _Kinds(n, near)
    contacts, farther = np.zeros(len(positions), np.float32), np.full(len(positions), np.inf, np.float32)
    reach = _spacing(positions[0])
    for k, x in enumerate(positions):
        tree = _tree(x)
        while True:
            r, apart = kinds.within(tree, x, reach)
            free, far = r[apart > 1], r[apart == FAR]
            if len(free) >= wanted and (len(far) or not any_far):
                break
            reach *= 1.15
        least = np.partition(free, wanted - 1)[:wanted] if wanted else np.zeros(1)
        contacts[k], farther[k] = least.mean(dtype=np.float64), far.min(initial=np.inf)
        if wanted:  # frames that follow on each other hardly differ
            reach = 1.03 * float(max(least.max(), farther[k] if any_far else 0.0)) or reach
    return contacts, farther


class _Kinds:
    """How many bonds apart any pairs of `n` beads are, from those `near` along the bonds."""

    def __init__(self, n: int, near: list[np.ndarray]):
        numbers = np.concatenate([pairs @ [n, 1] for pairs in near])
        order = np.argsort(numbers)
        self._n = n
        self._numbers = np.append(numbers[order], n * n)
        self._apart = np.append(np.repeat(np.arange(1, FAR), [len(p) for p in near])[order], FAR).astype(np.int8)

    def within(self, tree, x: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
        """Distances, and bonds apart, of all pairs up to a distance."""
        pairs = tree.query_pairs(reach, output_type="ndarray")
        numbers = pairs @ [self._n, 1]
        place = np.searchsorted(self._numbers, numbers)
        apart = np.where(self._numbers[place] == numbers, self._apart[place], np.int8(FAR))
        return np.linalg.norm(x[pairs[:, 0]] - x[pairs[:, 1]], axis=1), apart


def _tree(x: np.ndarray):
    from scipy.spatial import cKDTree

    return cKDTree(x)


def _spacing(x: np.ndarray) -> float:
    """Median distance of a frame's beads to their nearest: a search that begins there finds few at first."""
    return float(np.median(_tree(x).query(x, k=2)[0][:, 1])) or float(np.ptp(x)) / len(x) or 1.0


def close_pairs(
    positions: np.ndarray, near: list[np.ndarray], share: float, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances of the closest pairs of all frames, how many bonds apart each is, and the number of its frame.

    Among them are, by the weights (n_frames,) of the frames, a `share` of all pairs that are four or more bonds
    apart, and hence of all without a bond, and of all.
    """
    n = positions.shape[1]
    trees = [_tree(x) for x in positions]
    n_near, n_pairs = sum(map(len, near)), n * (n - 1) // 2
    reach = _spacing(positions[0])
    wanted = share * n_pairs * weights.sum()
    while True:
        counts = np.array([(tree.count_neighbors(tree, reach) - n) // 2 for tree in trees])
        if weights @ (counts - n_near) >= wanted or counts.min() == n_pairs:
            break
        reach *= 1.1
    kinds = _Kinds(n, near)
    found = [kinds.within(tree, x, reach) for tree, x in zip(trees, positions, strict=True)]
    r, apart = map(np.concatenate, zip(*found, strict=True))
    return r, apart, np.repeat(np.arange(len(positions)), [len(r) for r, _ in found])

"""Making molecules whole that a periodic box has cut: along a spanning tree of their bonds. NumPy only."""

from typing import NamedTuple

import numpy as np

from polyvae.errors import InputError
from polyvae.trajectory.box import lower_triangular

# A bond vector whose component comes this near to half a box length could as well be its other image.
NEAR_HALF = 0.45
_BLOCK = 1 << 18  # coordinates treated at once, so that the temporaries stay in the processor's cache


class Tree(NamedTuple):
    """A spanning forest of the bond graph."""

    parent: np.ndarray  # (n_beads,) the bead that each hangs on; a root hangs on itself
    molecule: np.ndarray  # (n_beads,) number of the molecule, counted by first bead
    loose: np.ndarray  # (n_loose, 2) the bonds that close rings
    assumed: bool  # whether the bonds are bead order in place of bonds that were given

    @property
    def n_molecules(self) -> int:
        return int(self.molecule.max()) + 1


def spanning_tree(n_beads: int, bonds: np.ndarray | None) -> Tree:
    """The forest along which molecules are made whole; bead order, as of one linear chain, without bonds."""
    if bonds is None:
        parent = np.maximum(np.arange(n_beads) - 1, 0)
        return Tree(parent, np.zeros(n_beads, int), np.empty((0, 2), int), True)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    bonds = np.unique(np.sort(np.asarray(bonds, int).reshape(-1, 2), axis=1), axis=0)
    bonds = bonds[bonds[:, 0] != bonds[:, 1]]
    # One node more, joined to the first bead of each molecule, lets a single search reach all of them.
    ones = np.ones(len(bonds))
    _, label = connected_components(coo_array((ones, bonds.T), shape=(n_beads, n_beads)), directed=False)
    _, roots, molecule = np.unique(label, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(roots))
    pairs = np.concatenate([bonds, np.stack([roots, np.full(len(roots), n_beads)], axis=1)])
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(n_beads + 1, n_beads + 1)).tocsr()
    _, parent = breadth_first_order(graph, n_beads, directed=False)
    parent = np.where(parent[:-1] == n_beads, np.arange(n_beads), parent[:-1]).astype(int)
    i, j = bonds.T
    loose = bonds[(parent[i] != j) & (parent[j] != i)]
    return Tree(parent, rank[molecule], loose, False)


def make_whole(
    positions: np.ndarray,
    box: np.ndarray,
    tree: Tree,
    names=None,
    frames=None,
    periodic: tuple[bool, ...] = (True, True, True),
):
    """Positions (n_frames, n_beads, n_dims) with every molecule in one piece, by the bonds of a `spanning_tree`.

    The first bead of a molecule stays where it is. A chain may be longer than the box, as long as each of its
    bonds is shorter than half of it. `box` holds vectors (n_frames, n_dims, n_dims) as rows, in any orientation.
    No bead moves along a vector along which the box is not `periodic`. `names` and `frames` are for messages.

    Raises:
        InputError: a bond that is about half the box or longer, or a molecule that is bonded to its own
            image, so that no whole form of it exists; frame and beads are named.
    """
    child = np.flatnonzero(tree.parent != np.arange(len(tree.parent)))
    if not len(child):
        return positions
    step = max(1, _BLOCK // max(1, positions[0].size))
    labels = np.arange(len(positions)) if frames is None else frames
    result = None
    for start in range(0, len(positions), step):
        part, cell = positions[start : start + step], box[start : start + step]
        lattice = _Lattice(cell, np.asarray(periodic[: cell.shape[2]], bool))
        whole = _make_whole(part, lattice, tree, child, names, labels[start:])
        if whole is not part:
            if result is None:
                result = positions.copy()
            result[start : start + step] = whole
    return positions if result is None else result


class _Lattice:
    """Boxes (n, d, d) of frames, ready for the search of nearest images.

    Attributes:
        length: (n, 1, d) diagonals of the boxes, turned to be lower triangular.
    """

    def __init__(self, box: np.ndarray, periodic: np.ndarray):
        self.box, self.periodic = box, periodic
        self.constant = box.strides[0] == 0
        lower, self._turn = lower_triangular(box[:1] if self.constant else box)
        self._lower = np.broadcast_to(lower, box.shape).astype(np.float64)
        # Along a direction that is not periodic no distance is long.
        self.length = np.where(periodic, np.diagonal(self._lower, axis1=1, axis2=2)[:, None, :], np.inf)

    is_turned = property(lambda self: self._turn is not None)

    def turned(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (n, k, d) in the frame in which the boxes are lower triangular."""
        return vectors if self._turn is None else np.matmul(vectors, self._turn)

    def nearest(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turned vectors with each component within half the box, and the whole boxes added to get there.

        The search goes row by row from the last box vector, which is exact for every lower triangular box as
        long as the vector sought is itself within half the diagonal elements.
        """
        vectors = self.turned(vectors)
        shifts = np.round(vectors / self.length)
        if not shifts.any():
            return vectors, shifts
        vectors = vectors.astype(np.float64)
        for axis in np.flatnonzero(self.periodic)[::-1]:
            count = -np.round(vectors[..., axis] / self.length[..., axis])
            vectors += count[..., None] * self._lower[:, None, axis]
            shifts[..., axis] = count
        return vectors, shifts

    def moved(self, positions: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        """Positions moved by whole boxes."""
        box = np.where(self.periodic[:, None], self.box, 0).astype(np.float64)
        return (positions + np.einsum("fbi,fij->fbj", shifts, box)).astype(np.float32)


def _make_whole(positions, lattice: _Lattice, tree: Tree, child, names, frames):
    parent = tree.parent[child]
    if not len(tree.loose) and _all_short(positions, lattice, child, parent):
        return positions
    near, shifts = lattice.nearest(positions[:, child] - positions[:, parent])
    far = np.abs(near) > NEAR_HALF * lattice.length
    if far.any():
        frame, edge, axis = np.argwhere(far)[0]
        bond = parent[edge], child[edge]
        length = np.broadcast_to(lattice.length, (len(near), 1, near.shape[2]))[frame, 0]
        _refuse_bond(tree, names, frames[frame], bond, axis, near[frame, edge], length)
    whole = positions if not shifts.any() else lattice.moved(positions, _summed(shifts, tree, child))
    if len(tree.loose):
        closing = lattice.turned(whole[:, tree.loose[:, 1]] - whole[:, tree.loose[:, 0]])
        open_ends = (np.abs(closing) > 0.5 * lattice.length).any(axis=2)
        if open_ends.any():
            frame, edge = np.argwhere(open_ends)[0]
            i, j = map(int, tree.loose[edge])
            raise InputError(
                f"frame {frames[frame]}: molecule {tree.molecule[i]} is bonded to its own periodic image "
                f"(through beads {i} and {j}) and has no whole form; read it as it is (unwrap=False, --no-unwrap)"
            )
    return whole


def _summed(shifts: np.ndarray, tree: Tree, child: np.ndarray) -> np.ndarray:
    """Shifts of all beads (n, n_beads, d): those of the bonds, summed from the root to each bead."""
    n_beads = len(tree.parent)
    total = np.zeros((len(shifts), n_beads, shifts.shape[2]), np.float32)
    total[:, child] = shifts
    jump = np.where(tree.parent == np.arange(n_beads), -1, tree.parent)
    # Each pass doubles the number of bonds that are summed.
    while len(moving := np.flatnonzero(jump >= 0)):
        total[:, moving] += total[:, jump[moving]]
        jump[moving] = jump[jump[moving]]
    return total


def _refuse_bond(tree: Tree, names, frame: int, bond, axis: int, vector: np.ndarray, length: np.ndarray):
    """Raise `InputError` for a bond of about half the box."""
    i, j = sorted(map(int, bond))
    beads = f"beads {i} and {j}" + ("" if names is None else f" ({names[i]} and {names[j]})")
    if tree.assumed:
        remedy = (
            "no bonds are known and the beads were taken as one chain in file order: give a topology with bonds"
        )
    else:
        remedy = "check that box, bonds and coordinates belong together"
    raise InputError(
        f"frame {frame}: {beads} of molecule {tree.molecule[i]} are bonded but "
        f"{abs(vector[axis]):.4g} apart along {'xyz'[axis]}, about half the box "
        f"({length[axis]:.4g}) or more, so that their molecule cannot be made whole; {remedy}, "
        f"or pass over it (unwrap=False, --no-unwrap)"
    )


def _all_short(positions, lattice: _Lattice, child, parent) -> bool:
    """Whether no bond crosses a face of the box; quick where the box is one and the same in all frames."""
    if not lattice.constant or lattice.is_turned:
        return False
    n, n_beads, n_dims = positions.shape
    if len(child) == n_beads - 1 and (child - parent == 1).all():
        rows = np.ascontiguousarray(positions).reshape(n, -1)
        vectors = rows[:, n_dims:] - rows[:, :-n_dims]
    else:
        vectors = (positions[:, child] - positions[:, parent]).reshape(n, -1)
    np.abs(vectors, out=vectors)
    return bool((vectors <= np.tile(NEAR_HALF * lattice.length[0, 0], len(child)).astype(np.float32)).all())

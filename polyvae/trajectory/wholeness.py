"""Making molecules whole that a periodic box has cut: along a spanning tree of their bonds. NumPy only."""

from typing import NamedTuple

import numpy as np

from polyvae.errors import InputError

# A bond vector whose component comes this near to half a box length could as well be its other image.
NEAR_HALF = 0.45
_BLOCK = 1 << 18  # coordinates treated at once, so that the temporaries stay in the processor's cache


class Tree(NamedTuple):
    """A spanning forest of the bond graph.

    Args:
        parent: (n_beads,) the bead that each hangs on; a root hangs on itself.
        molecule: (n_beads,) number of the molecule, counted by first bead.
        loose: (n_loose, 2) the bonds that close rings.
        assumed: whether the bonds are bead order in place of bonds that were given.
    """

    parent: np.ndarray
    molecule: np.ndarray
    loose: np.ndarray
    assumed: bool

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


def make_whole(positions: np.ndarray, box: np.ndarray, tree: Tree, names=None, frames=None):
    """Positions with every molecule in one piece: each bead next to the bead that it hangs on.

    The first bead of a molecule stays where it is. A chain may be longer than the box, as long as each of
    its bonds is shorter than half of it.

    Args:
        positions: (n_frames, n_beads, n_dims) float32.
        box: (n_frames, n_dims, n_dims) box vectors as rows, lower triangular (a along x, b in the xy plane).
        tree: from `spanning_tree`.
        names, frames: bead names and frame numbers for messages.

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
        whole = _make_whole(part, cell, tree, child, names, labels[start:])
        if whole is not part:
            if result is None:
                result = positions.copy()
            result[start : start + step] = whole
    return positions if result is None else result


def _make_whole(positions, box, tree, child, names, frames):
    parent = tree.parent[child]
    if not len(tree.loose) and _all_short(positions, box, child, parent):
        return positions
    box = box.astype(np.float64)
    length = np.diagonal(box, axis1=1, axis2=2)[:, None, :]
    near, shifts = _nearest_image(positions[:, child] - positions[:, parent], box, length)
    far = np.abs(near) > NEAR_HALF * length
    if far.any():
        frame, edge, axis = np.argwhere(far)[0]
        i, j = sorted((int(parent[edge]), int(child[edge])))
        beads = f"beads {i} and {j}" + ("" if names is None else f" ({names[i]} and {names[j]})")
        remedy = (
            "no bonds are known and the beads were taken as one chain in file order: give a topology with bonds"
            if tree.assumed
            else "check that box, bonds and coordinates belong together"
        )
        raise InputError(
            f"frame {frames[frame]}: {beads} of molecule {tree.molecule[i]} are bonded but "
            f"{abs(near[frame, edge, axis]):.4g} apart along {'xyz'[axis]}, about half the box "
            f"({length[frame, 0, axis]:.4g}) or more, so that their molecule cannot be made whole; {remedy}, "
            f"or pass over it (unwrap=False, --no-unwrap)"
        )
    if not shifts.any():
        whole = positions
    else:
        # Sum the shifts from the root to each bead, in steps of 1, 2, 4, ... bonds.
        total = np.zeros(positions.shape, np.float32)
        total[:, child] = shifts
        jump = np.where(tree.parent == np.arange(len(tree.parent)), -1, tree.parent)
        while len(moving := np.flatnonzero(jump >= 0)):
            total[:, moving] += total[:, jump[moving]]
            jump[moving] = jump[jump[moving]]
        whole = (positions + np.einsum("fbi,fij->fbj", total, box)).astype(np.float32)
    if len(tree.loose):
        closing = whole[:, tree.loose[:, 1]] - whole[:, tree.loose[:, 0]]
        if (np.abs(closing) > 0.5 * length).any():
            frame, edge = np.argwhere((np.abs(closing) > 0.5 * length).any(axis=2))[0]
            i, j = map(int, tree.loose[edge])
            raise InputError(
                f"frame {frames[frame]}: molecule {tree.molecule[i]} is bonded to its own periodic image "
                f"(through beads {i} and {j}) and has no whole form; read it as it is (unwrap=False, --no-unwrap)"
            )
    return whole


def _all_short(positions, box, child, parent) -> bool:
    """Whether no bond crosses a face of the box; quick where the box is one and the same in all frames."""
    if box.strides[0]:
        return False
    n, n_beads, n_dims = positions.shape
    if len(child) == n_beads - 1 and (child - parent == 1).all():
        rows = np.ascontiguousarray(positions).reshape(n, -1)
        vectors = rows[:, n_dims:] - rows[:, :-n_dims]
    else:
        vectors = (positions[:, child] - positions[:, parent]).reshape(n, -1)
    np.abs(vectors, out=vectors)
    return bool((vectors <= np.tile(NEAR_HALF * np.diagonal(box[0]), len(child)).astype(np.float32)).all())


def _nearest_image(vectors, box, length):
    """Vectors with each component within half the box, and the whole boxes added to get there.

    Row by row from the last box vector, which is exact for every lower triangular box as long as the
    vector sought is itself within half the diagonal elements.
    """
    shifts = np.round(vectors / length)
    if not shifts.any():
        return vectors, shifts
    vectors = vectors.astype(np.float64)
    for axis in reversed(range(vectors.shape[2])):
        count = -np.round(vectors[..., axis] / length[..., axis])
        vectors += count[..., None] * box[:, None, axis]
        shifts[..., axis] = count
    return vectors, shifts

"""From all atoms of a system, as they stand in a file or in memory, to the frames that are wanted."""

from collections.abc import Callable

import numpy as np

from polyvae.errors import InputError
from polyvae.molecules import Atoms, Tree, make_whole, spanning_tree, usable_box
from polyvae.trajectory import Trajectory, all_finite, chain_bonds


class Assembler:
    """Takes the chosen atoms, recognises planar data, makes molecules whole, turns molecules into frames.

    Args:
        atoms: the system, or None: all atoms, of which nothing is known.
        length_unit: of the coordinates and boxes that come.
        unwrap: "auto" and True make molecules whole where there is a box; True refuses data without one.
        per_molecule: whether each of many like molecules becomes a frame of its own.
        dims: 2 or 3; None takes three coordinates for 2-D where z never varies and `always_3d` is set.
        where: what the data are, for messages.
        note: called with what was assumed or recognised, once for each note.
    """

    def __init__(
        self,
        atoms: Atoms | None,
        length_unit: str,
        *,
        unwrap: bool | str = "auto",
        per_molecule: bool = False,
        dims: int | None = None,
        always_3d: bool = True,
        where: str = "the data",
        note: Callable[[str], None] = lambda text: None,
    ):
        if unwrap not in (True, False, "auto"):
            raise InputError(f'unwrap must be "auto", True or False; got {unwrap!r}')
        if dims not in (None, 2, 3):
            raise InputError(f"dims must be 2 or 3; got {dims!r}")
        self.atoms, self.length_unit, self.unwrap, self.dims = atoms, length_unit, unwrap, dims
        self.always_3d, self.where, self._note, self._said = always_3d, where, note, set()
        self._planar: bool | None = None
        self._shrink_wrapped: bool | None = None
        self._plan: tuple | None = None
        self.table = None
        if per_molecule:
            if atoms is None:
                raise InputError(f"{where}: molecules are told apart by a topology with bonds; give one (--top)")
            self.table, text = atoms.molecules(where)
            if text:
                self._say(text)

    n_molecules = property(lambda self: 1 if self.table is None else len(self.table))

    def record(self, positions, time=None, box=None) -> Trajectory:
        """All frames of a system at once: `coordinates`, then `trajectory`."""
        positions, box = self.coordinates(positions, box, np.arange(len(positions)))
        return self.trajectory(positions, time, box)

    def coordinates(self, positions: np.ndarray, box: np.ndarray | None, frames: np.ndarray):
        """Positions (n, n_chosen, 2 or 3) of the chosen atoms, with molecules whole, and the boxes.

        Args:
            positions: (n, n_atoms, 2 or 3).
            box: (n, 3, 3), or None.
            frames: (n,) numbers of the frames in their file, for messages.
        """
        n_dims = self._n_dims(positions, frames)
        cell = self._cell(positions, box, n_dims, frames)
        if cell is None:
            take, inner = (
                (None if self.atoms is None else _unless_all(self.atoms.chosen, positions.shape[1])),
                None,
            )
        else:
            take, inner, tree = self._unwrapping(positions.shape[1])
        if take is not None:
            positions = positions[:, take]
        positions = np.asarray(positions[..., :n_dims], np.float32)
        self._check_finite(positions, frames)
        if cell is not None:
            try:
                positions = make_whole(positions, cell, tree, self._names(take, inner), frames)
            except InputError as error:
                raise InputError(f"{self.where}: {error}") from None
            if inner is not None:
                positions = positions[:, inner]
        return positions, (None if box is None or not _is_sound(box) else np.asarray(box, np.float32))

    def trajectory(self, positions, time, box, *, first_frame: int = 0, segments=None) -> Trajectory:
        """The record of assembled coordinates; with many molecules, molecule after molecule.

        Each molecule's frames are segments of their own, and `origin` holds (frame, molecule), frames
        counted from `first_frame`.
        """
        known = {} if self.atoms is None else {"names": self.atoms.names, "masses": self.atoms.masses}
        bonds = None if self.atoms is None else self.atoms.bonds_of_chosen()
        n = len(positions)
        segments = (n,) if segments is None else tuple(segments)
        if self.table is not None:
            m, size = self.table.shape
            positions = positions[:, self.table].swapaxes(0, 1).reshape(m * n, size, -1)
            time = None if time is None else np.tile(time, m)
            box = None if box is None else np.tile(box, (m, 1, 1))
            frames, molecules = np.tile(first_frame + np.arange(n), m), np.repeat(np.arange(m), n)
            first = self.table[0]
            known = {
                "names": known["names"] and tuple(known["names"][k] for k in first),
                "masses": None if known["masses"] is None else known["masses"][first],
                "origin": np.stack([frames, molecules], axis=1),
            }
            segments = segments * m
            if bonds is not None:
                bonds = bonds[np.isin(bonds, first).all(axis=1)]
                order = np.argsort(first)
                bonds = order[np.searchsorted(first, bonds, sorter=order)]
        return Trajectory(
            positions, time=time, box=box, length_unit=self.length_unit, bonds=bonds, segments=segments, **known
        )

    def _n_dims(self, positions, frames) -> int:
        if positions.shape[2] == 2:
            if self.dims == 3:
                raise InputError(f"{self.where} holds two coordinates a bead, not 3")
            return 2
        if self.dims == 3 or (self.dims is None and (not self.always_3d or self._planar is False)):
            return 3
        wanted = slice(None) if self.atoms is None else self.atoms.chosen
        z = positions[:1, wanted, 2]
        flat = bool((z == z[0, 0]).all())
        if flat:
            z = positions[:, wanted, 2]
            same = (z == z[0, 0]).all(axis=1)
            flat = bool(same.all())
        if self.dims is None and self._planar is None:
            moving = not (positions[:, wanted, :2] == positions[0, wanted, :2][:1]).all() if flat else False
            self._planar = flat and moving
            if self._planar:
                self._say("z never varies, so the data are taken as 2-D; say otherwise with --dims 3 (dims=3)")
            return 2 if self._planar else 3
        if not flat:
            frame = frames[int(np.argmin(same))] if len(z) > 1 else frames[0]
            raise InputError(
                f"{self.where}: z varies in frame {frame}, so the data are not 2-D; use --dims 3 (dims=3)"
            )
        return 2

    def _cell(self, positions, box, n_dims, frames) -> np.ndarray | None:
        if box is None or not np.asarray(box).any():
            if self.unwrap is True:
                raise InputError(f"{self.where} holds no box, so molecules cannot be made whole (unwrap=True)")
            return None
        if self.unwrap is False:
            return None
        try:
            cell = usable_box(box, n_dims, frames)
        except InputError as error:
            raise InputError(f"{self.where}: {error}") from None
        if self._shrink_wrapped is None:
            self._shrink_wrapped = cell is not None and _follows_atoms(positions[..., :n_dims], cell)
            if self._shrink_wrapped:
                self._say("the box follows the outermost atoms, so it is not periodic; molecules stay as they are")
        return None if self._shrink_wrapped else cell

    def _unwrapping(self, n_atoms: int) -> tuple[np.ndarray | None, np.ndarray | None, Tree]:
        """Atoms to take, places of the chosen ones among them, and the bonds to go along."""
        if self._plan is not None:
            return self._plan
        atoms = self.atoms
        if atoms is not None and atoms.bonds is not None:
            needed = atoms.needed()
            bonds = atoms.bonds[np.isin(atoms.bonds[:, 0], needed)]
            tree = spanning_tree(len(needed), np.searchsorted(needed, bonds))
            take, inner = (
                _unless_all(needed, n_atoms),
                _unless_all(np.searchsorted(needed, atoms.chosen), len(needed)),
            )
        else:
            take, inner = (None if atoms is None else _unless_all(atoms.chosen, n_atoms)), None
            tree = spanning_tree(n_atoms if atoms is None else len(atoms.chosen), None)
            if self.table is not None:
                rows = self.table[:, chain_bonds(self.table.shape[1])].reshape(-1, 2)
                tree = spanning_tree(self.table.size, rows)._replace(assumed=True)
            self._say("no bonds are known: in the periodic box, beads are taken as one chain in file order")
        self._plan = take, inner, tree
        return self._plan

    def _names(self, take, inner) -> tuple[str, ...] | None:
        """Names of the atoms taken, where they are the chosen ones."""
        return self.atoms.names if self.atoms is not None and inner is None else None

    def _check_finite(self, positions, frames) -> None:
        if all_finite(positions):
            return
        frame, bead, _ = np.argwhere(~np.isfinite(positions))[0]
        raise InputError(
            f"{self.where}: positions must be finite; frame {frames[frame]}, bead {bead} holds "
            f"{positions[frame, bead].tolist()}. Remove that frame first"
        )

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._note(text)


def _unless_all(index: np.ndarray, n: int) -> np.ndarray | None:
    return None if len(index) == n and (index == np.arange(n)).all() else index


def _is_sound(box: np.ndarray) -> bool:
    return bool(box.any()) and bool(np.isfinite(box).all())


def _follows_atoms(positions: np.ndarray, box: np.ndarray) -> bool:
    """Whether a box is shrink-wrapped: it varies, and the atoms fill it to a thousandth in every frame.

    Engines write such a box for runs that are not periodic; a large periodic system fills its box too.
    """
    if len(box) < 3 or positions.shape[1] > 1000:
        return False
    lengths = np.diagonal(box, axis1=1, axis2=2)
    if (lengths == lengths[0]).all():
        return False
    positions, lengths = positions[:1000], lengths[:1000]
    extent = positions.max(axis=1) - positions.min(axis=1)
    return bool((np.abs(lengths - extent) <= 1e-3 * lengths).all())

"""From all atoms of a system, as they are in a file or in memory, to the frames that are wanted."""

import logging

import numpy as np

from polyvae.arguments import flag, one_of
from polyvae.errors import FrameError, InputError
from polyvae.trajectory.box import usable_box
from polyvae.trajectory.molecules import Atoms
from polyvae.trajectory.precision import in_single_precision, warn_of_blur
from polyvae.trajectory.record import LARGEST, Selection, Trajectory, all_usable, chain_bonds
from polyvae.trajectory.survey import Survey
from polyvae.trajectory.wholeness import Tree, make_whole, spanning_tree

log = logging.getLogger(__name__)


class Assembler:
    """Takes the chosen atoms, recognises planar data, makes molecules whole, turns molecules into frames.

    What holds for all frames (2-D or 3-D, a box or none) is settled by `survey` before the first of them is
    assembled, so that it does not depend on how many come at once.

    Args:
        atoms: the system; None for all atoms, without anything known of them.
        length_unit: of the coordinates and boxes that come.
        unwrap: "auto" and True make molecules whole where there is a box; True refuses data without one.
        per_molecule: whether each of many like molecules becomes a frame of its own.
        dims: 2 or 3; None takes three coordinates for 2-D where z never varies and `always_3d` is set.
        periodic: along which box vectors the source says that it is periodic; None where it does not say.
        where: what the data are, for messages. What was assumed or recognised is logged, once each.
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
        periodic: tuple[bool, bool, bool] | None = None,
        where: str = "the data",
    ):
        check_how(unwrap, per_molecule, dims)
        self.atoms, self.length_unit, self.unwrap, self.dims = atoms, length_unit, unwrap, dims
        self.where = where
        self._logged: set[str] = set()
        self._survey = Survey(
            slice(None) if atoms is None else atoms.chosen,
            dims=dims,
            always_3d=always_3d,
            stated=periodic,
            unwrap=unwrap is not False,
        )
        self._stated = periodic
        self._plan: tuple | None = None
        self._blurred = False
        self.table = None
        if per_molecule:
            if atoms is None:
                raise InputError(f"{where}: molecules are told apart by a topology with bonds; give one (--top)")
            self.table, text = atoms.molecules(where)
            if text:
                self._log(text)

    n_molecules = property(lambda self: 1 if self.table is None else len(self.table))

    def record(self, positions, time=None, box=None, segments=None) -> Trajectory:
        """All frames of a system at once: `survey`, `coordinates`, then `trajectory`."""
        self.survey(positions, box)
        self.settle()
        positions, box = self.coordinates(positions, box, np.arange(len(positions)))
        return self.trajectory(positions, time, box, segments=segments)

    settled = property(lambda self: self._survey.settled)

    def survey(self, positions: np.ndarray, box: np.ndarray | None, first_frame: int = 0) -> None:
        """Look at the next frames, from the first, until `settled`; `first_frame` is the number of theirs."""
        if self.dims == 3 and positions.shape[2] == 2:
            raise InputError(f"{self.where} holds two coordinates a bead, not 3")
        self._survey.look(positions, _zeros(len(positions)) if box is None else box, first_frame)

    def settle(self) -> None:
        """No frame is left to look at."""
        self._survey.settle()
        if self._survey.planar:
            self._log("z never varies, so the data are taken as 2-D; say otherwise with --dims 3 (dims=3)")

    def coordinates(self, positions: np.ndarray, box: np.ndarray | None, frames: np.ndarray):
        """Positions (n, n_chosen, 2 or 3) of the chosen atoms, with molecules whole, and the boxes.

        They are made of positions (n, n_atoms, 2 or 3) and box (n, 3, 3), if any; `frames` (n,) are for messages.
        """
        n_dims = self._survey.n_dims
        if self.dims == 2 and positions.shape[2] == 3 and not (flat := self._survey.flat(positions)).all():
            raise InputError(
                f"{self.where}: z varies in frame {frames[int(np.argmin(flat))]}, so the data are not 2-D; "
                f"use --dims 3 (dims=3)"
            )
        box = _zeros(len(positions)) if box is None else np.asarray(box)
        cell = self._cell(positions, box, n_dims, frames)
        if cell is None:
            take, inner = self._chosen(positions.shape[1]), None
        else:
            take, inner, tree = self._unwrapping(positions.shape[1])
        if take is not None:
            positions = positions[:, take]
        positions = in_single_precision(positions[..., :n_dims])
        self._check_finite(positions, frames)
        if cell is not None:
            try:
                names, periodic = self._names(take, inner), tuple(self._survey.periodic)
                positions = make_whole(positions, cell, tree, names, frames, periodic)
            except InputError as error:
                raise InputError(f"{self.where}: {error}") from None
            if inner is not None:
                positions = positions[:, inner]
        return positions, self._kept(box)

    def trajectory(
        self, positions, time, box, weights=None, origin=None, *, first_frame=0, segments=None, continues=False
    ) -> Trajectory:
        """The record of assembled coordinates; with many molecules, molecule after molecule in each segment.

        Each molecule's frames are segments of their own, and `origin` holds (frame, molecule), frames
        counted from `first_frame`. `continues` means that the first segment of a chunk began before it.
        """
        known = {}
        if self.atoms is not None:
            known = {name: getattr(self.atoms, name) for name in ("names", "masses", "selection", "ids")}
        bonds = None if self.atoms is None else self.atoms.bonds_of_chosen()
        n = len(positions)
        segments = (n,) if segments is None else tuple(segments)
        if self.table is not None:
            m, size = self.table.shape
            pieces = [slice(end - length, end) for end, length in zip(np.cumsum(segments), segments, strict=True)]
            positions = _joined(
                [positions[p][:, self.table].swapaxes(0, 1).reshape(-1, size, positions.shape[2]) for p in pieces]
            )
            frames = _joined([np.tile(np.arange(n)[p], m) for p in pieces])
            molecules = _joined([np.repeat(np.arange(m), p.stop - p.start) for p in pieces])
            time, box, weights = (None if a is None else a[frames] for a in (time, box, weights))
            first = self.table[0]
            if origin is None or m > 1:
                origin = np.stack([first_frame + frames, molecules], axis=1)
            selection = Selection(first, m * size)
            if (chosen := known.pop("selection")) is not None:
                selection = chosen._replace(atoms=chosen.atoms[first])
            known = {name: None if values is None else np.asarray(values)[first] for name, values in known.items()}
            known["selection"] = selection
            segments = tuple(np.repeat(segments, m))
            if bonds is not None:
                bonds = bonds[np.isin(bonds, first).all(axis=1)]
                order = np.argsort(first)
                bonds = order[np.searchsorted(first, bonds, sorter=order)]
        self._blurred = self._blurred or warn_of_blur(positions, self.where)
        return Trajectory(
            positions,
            time=time,
            length_unit=self.length_unit,
            bonds=bonds,
            segments=segments,
            weights=weights,
            box=box,
            origin=origin,
            periodic=self._periodic(box),
            continues=self.n_molecules * continues,
            part=True,
            **known,
        )

    def _cell(self, positions, box, n_dims, frames) -> np.ndarray | None:
        """Boxes to make molecules whole in, or None where the first frame has none."""
        if self.unwrap is False:
            return None
        if not self._survey.boxed:
            if self.unwrap is True:
                raise InputError(f"{self.where} holds no box, so molecules cannot be made whole (unwrap=True)")
            there = box[:, :n_dims, :n_dims].any(axis=(1, 2))
            if not there.any():
                return None
            number = frames[int(np.argmax(there))]
            raise FrameError(
                f"{self.where}: frame {number} has a box, the frames before it have none. Mend the box, or read "
                f"the coordinates as they are (unwrap=False, --no-unwrap)",
                number,
            )
        periodic = self._survey.periodic
        self._report_directions(periodic[:n_dims])
        if not periodic[:n_dims].any():
            return None
        if not box[:, :n_dims, :n_dims].any():
            # With the first frame before them, the one at fault has the same number however many come at once.
            box, frames = np.concatenate([self._survey.first_box[None], box]), [self._survey.first_frame, *frames]
        try:
            return usable_box(box, n_dims, frames, tuple(periodic))
        except FrameError as error:
            raise FrameError(f"{self.where}: {error}", error.frame) from None
        except InputError as error:
            raise InputError(f"{self.where}: {error}") from None

    def _report_directions(self, periodic: np.ndarray) -> None:
        """Report along which box vectors the run is not periodic, and from where that is known."""
        if periodic.all():
            return
        along = "".join(axis for axis, there in zip("xyz", periodic, strict=False) if not there)
        why = "the file says" if self._stated is not None else "the box follows the outermost atoms"
        if periodic.any():
            self._log(f"not periodic along {along} ({why}); molecules are made whole along the other directions")
        else:
            self._log(f"the box is not periodic ({why}); molecules stay as they are")

    def _kept(self, box: np.ndarray) -> np.ndarray | None:
        """Boxes for the record, where the first frame has one; zeros in frames whose box is not finite."""
        if not has_box(self._survey.first_box):
            return None
        box = np.asarray(box, np.float32)
        bad = ~np.isfinite(box).all(axis=(1, 2))
        return np.where(bad[:, None, None], np.float32(0), box) if bad.any() else box

    def _periodic(self, box: np.ndarray | None) -> tuple[bool, bool, bool] | None:
        """Along which box vectors the run is periodic, where that is known."""
        found = self._survey.periodic
        if self._stated is None and (box is None or found.all()):
            return None
        return bool(found[0]), bool(found[1]), bool(found[2])

    def _unwrapping(self, n_atoms: int) -> tuple[np.ndarray | None, np.ndarray | None, Tree]:
        """Atoms to take, places of the chosen ones among them, and the bonds to go along."""
        if self._plan is not None:
            return self._plan
        atoms = self.atoms
        if atoms is not None and atoms.bonds is not None:
            self._check_pieces()
            needed = atoms.needed()
            bonds = atoms.bonds[np.isin(atoms.bonds[:, 0], needed)]
            tree = spanning_tree(len(needed), np.searchsorted(needed, bonds))
            take = _unless_all(needed, n_atoms)
            inner = _unless_all(np.searchsorted(needed, atoms.chosen), len(needed))
        else:
            take, inner = self._chosen(n_atoms), None
            tree = spanning_tree(n_atoms if atoms is None else len(atoms.chosen), None)
            chains = None if atoms is None else atoms.chains()
            text = "no bonds are known: in the periodic box, beads are taken as one chain in file order"
            if self.table is not None:
                rows = self.table[:, chain_bonds(self.table.shape[1])].reshape(-1, 2)
                tree = spanning_tree(self.table.size, rows)._replace(assumed=True)
            elif chains is not None:
                tree = spanning_tree(len(tree.parent), chains)._replace(assumed=True)
                text = text.replace("beads are", "the beads of each molecule are")
            if self.table is None and atoms is not None and atoms.residues is not None:
                n = len(np.unique(atoms.residues))
                if 1 < n <= len(atoms.chosen) / 2:
                    what = "molecules" if atoms.in_molecules else "residues"
                    text += f" (--per-molecule takes each of the {n} {what})"
            self._log(text)
        self._plan = take, inner, tree
        return self._plan

    def _chosen(self, n_atoms: int) -> np.ndarray | None:
        """The atoms to take where molecules stay as they are; None for all."""
        return None if self.atoms is None else _unless_all(self.atoms.chosen, n_atoms)

    def _check_pieces(self) -> None:
        """Refuse a bead whose bonds are missing; say where chosen beads are of several molecules."""
        assert self.atoms is not None
        n_pieces, n_single, stray = self.atoms.pieces()
        if self.table is not None or n_pieces == 1:
            return
        if stray is not None:
            kinds = self.atoms.names or self.atoms.kinds
            raise InputError(
                f"{self.where}: bead {stray}{f' ({kinds[stray]})' if kinds else ''} has no bond, though beads of "
                f"its kind or residue belong together, so its place in the periodic box is not known; give all "
                f"bonds, choose other beads, or read coordinates as they are (unwrap=False, --no-unwrap)"
            )
        log.warning(
            "%s: %d molecules are chosen%s: each is made whole, but how they lie to one another is as it came, in "
            "whichever periodic image; choose one, or take each as frames of its own (--per-molecule)",
            self.where,
            n_pieces,
            f" ({n_single} of them single beads)" if n_single else "",
        )

    def _names(self, take, inner) -> tuple[str, ...] | None:
        """Names of the atoms taken, where they are the chosen ones."""
        return self.atoms.names if self.atoms is not None and inner is None else None

    def _check_finite(self, positions, frames) -> None:
        if all_usable(positions):
            return
        frame, bead, _ = np.argwhere(~(np.abs(positions) < LARGEST))[0]
        raise FrameError(
            f"{self.where}: positions must be finite, and below {LARGEST:g}; frame {frames[frame]}, bead {bead} "
            f"holds {positions[frame, bead].tolist()}. Remove that frame first",
            frames[frame],
        )

    def _log(self, text: str) -> None:
        if text not in self._logged:
            self._logged.add(text)
            log.info("%s: %s", self.where, text)


def check_how(unwrap, per_molecule, dims) -> None:
    """Refuse unknown ways to read coordinates; the arguments are those of `Assembler`."""
    one_of("unwrap", unwrap, ("auto", True, False))
    flag("per_molecule", per_molecule)
    one_of("dims", dims, (2, 3, None))


def has_box(first: np.ndarray) -> bool:
    """Whether a run has a box, by that of its first frame, (3, 3)."""
    return bool(first.any() and np.isfinite(first).all())


def _unless_all(index: np.ndarray, n: int) -> np.ndarray | None:
    return None if len(index) == n and (index == np.arange(n)).all() else index


def _zeros(n: int) -> np.ndarray:
    """No box, in n frames."""
    return np.broadcast_to(np.zeros((3, 3), np.float32), (n, 3, 3))


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)

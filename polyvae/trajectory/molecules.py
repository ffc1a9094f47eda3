"""Atoms of a system, those that are wanted of them, and which of those form a molecule. NumPy only."""

from typing import NamedTuple

import numpy as np

from polyvae.errors import InputError
from polyvae.trajectory.record import Selection
from polyvae.trajectory.wholeness import spanning_tree


class Atoms(NamedTuple):
    """Atoms of one system, what is known of them, and which of them are wanted."""

    chosen: np.ndarray  # (n_chosen,) the atoms that are wanted, in the order wanted
    n_total: int  # atoms in the system
    bonds: np.ndarray | None = None  # (n_bonds, 2) over all atoms, or None where not known
    names: tuple[str, ...] | None = None  # names, masses: of the chosen ones, or None
    masses: np.ndarray | None = None
    residues: np.ndarray | None = None  # (n_chosen,) residue number of the chosen ones, or None
    # kinds of the chosen ones by other words than names, such as types, or None
    kinds: tuple[str, ...] | None = None
    # (n_chosen,) atoms in the residue of each, where residues are known to be real, or None
    residue_sizes: np.ndarray | None = None
    # how the chosen ones are numbered in the system as it came, or None where they are all of it
    selection: Selection | None = None
    # whether residues are whole molecules; LAMMPS gives number 0 to atoms that are of none
    in_molecules: bool = False
    ids: np.ndarray | None = None  # (n_chosen,) numbers of the chosen ones in their engine, or None
    all_ids: np.ndarray | None = None  # (n_total,) the same of all atoms, in increasing order, or None
    chain_ids: np.ndarray | None = None  # (n_chosen,) chain of the chosen ones, or None

    def bonds_of_chosen(self) -> np.ndarray | None:
        """Bonds between chosen atoms, by position among them; None where no bond is known."""
        if self.bonds is None:
            return None
        place = np.full(self.n_total, -1)
        place[self.chosen] = np.arange(len(self.chosen))
        pairs = place[self.bonds]
        return pairs[(pairs >= 0).all(axis=1)]

    def needed(self) -> np.ndarray:
        """The chosen atoms and all that they are bonded with: enough to make the molecules whole."""
        if self.bonds is None:
            return np.sort(self.chosen)
        molecule = spanning_tree(self.n_total, self.bonds).molecule
        return np.flatnonzero(np.isin(molecule, molecule[self.chosen]))

    def chosen_alone(self, left: np.ndarray) -> "Atoms":
        """The same, where only some of the chosen ones, (n_chosen,) bools, are chosen."""
        rows = np.flatnonzero(left)
        arrays = ("residues", "residue_sizes", "masses", "ids", "chain_ids")
        some: dict = {name: None if (a := getattr(self, name)) is None else a[rows] for name in arrays}
        for name in ("names", "kinds"):
            values = getattr(self, name)
            some[name] = None if values is None else tuple(values[k] for k in rows)
        return self._replace(chosen=self.chosen[rows], **some)

    def among(self, kept: np.ndarray) -> "Atoms":
        """The same, where only the atoms `kept` (sorted; all that are chosen, molecules entire) are there.

        Bonds that are known stay known where none is left.
        """
        bonds = None if self.bonds is None else self.bonds[np.isin(self.bonds, kept).all(axis=1)]
        return self._replace(
            chosen=np.searchsorted(kept, self.chosen),
            n_total=len(kept),
            bonds=None if bonds is None else np.searchsorted(kept, bonds),
        )

    def chains(self) -> np.ndarray | None:
        """Pairs of chosen atoms that follow one another in a chain or molecule, where there are several."""
        label = self.residues if self.in_molecules else self.chain_ids
        if label is None or len(np.unique(label)) == 1:
            return None
        order = np.argsort(label, kind="stable")
        label = label[order]
        apart = (label[1:] != label[:-1]) | (self.in_molecules & (label[1:] == 0))
        return np.stack([order[:-1], order[1:]], axis=1)[~apart]

    def pieces(self) -> tuple[int, int, int | None]:
        """Molecules among the chosen atoms, by bonds; how many of them are single atoms; and a stray one.

        A stray one is a single atom whose bonds must be missing from the list: bonded ones have its name (or
        all atoms are without names), or its residue holds other atoms. Its place among the chosen ones is given,
        or None. Ions and atoms of a solvent are molecules of their own.
        """
        label = spanning_tree(self.n_total, self.bonds).molecule
        single = (np.bincount(label)[label] == 1)[self.chosen]
        kinds = np.asarray(self.names or self.kinds or [""] * len(self.chosen))
        stray = single & np.isin(kinds, kinds[~single])
        if self.residue_sizes is not None:
            stray |= single & (self.residue_sizes > 1)
        return (
            len(np.unique(label[self.chosen])),
            int(single.sum()),
            int(np.argmax(stray)) if stray.any() else None,
        )

    def molecules(self, where: str) -> tuple[np.ndarray, str | None]:
        """Places among the chosen atoms, (n_molecules, n_beads), of like molecules; and a note, if any.

        Molecules are found by bonds; where none are known, by chains; where there is one chain, by residues.

        Raises:
            InputError: neither is known, or the molecules differ in beads, names, masses or bonds.
        """
        note = None
        if self.bonds is not None and len(self.bonds):
            label = spanning_tree(self.n_total, self.bonds).molecule[self.chosen]
        elif self.chain_ids is not None and not self.in_molecules:
            label, note = self.chain_ids, "no bonds are known: each chain is taken as one molecule"
        elif self.residues is not None and len(np.unique(self.residues)) > 1:
            label, note = self.residues, "no bonds are known: each residue is taken as one molecule"
        else:
            raise InputError(
                f"{where}: molecules cannot be told apart without bonds or residues; give a topology with bonds"
            )
        _, label, sizes = np.unique(label, return_inverse=True, return_counts=True)
        if (sizes != sizes[0]).any():
            odd = int(np.argmax(sizes != sizes[0]))
            raise InputError(
                f"{where}: molecule {odd} has {sizes[odd]} beads and molecule 0 {sizes[0]}; select like molecules"
            )
        if sizes[0] == 1 and note:
            raise InputError(
                f"{where}: no bonds or chains are known and each residue holds one bead, so molecules cannot be "
                f"told apart; give a topology with bonds or chain ids"
            )
        table = np.argsort(label, kind="stable").reshape(len(sizes), sizes[0])
        for what, values in (("names", self.names), ("masses", self.masses)):
            if values is not None:
                rows = np.asarray(values)[table]
                if (rows != rows[0]).any():
                    odd = int(np.argmax((rows != rows[0]).any(axis=1)))
                    raise InputError(
                        f"{where}: {what} of molecule {odd} are not those of molecule 0; select like ones"
                    )
        bonds = self.bonds_of_chosen()
        if bonds is not None:
            place = np.empty(len(self.chosen), int)
            place[table] = np.arange(sizes[0])
            keys = np.sort(place[bonds], axis=1) @ [sizes[0], 1] + label[bonds[:, 0]] * sizes[0] ** 2
            keys = np.sort(keys)
            per = [
                np.sort(k)
                for k in np.split(
                    keys % sizes[0] ** 2, np.searchsorted(keys, np.arange(1, len(sizes)) * sizes[0] ** 2)
                )
            ]
            unlike = next((k for k, row in enumerate(per) if not np.array_equal(row, per[0])), None)
            if unlike is not None:
                raise InputError(
                    f"{where}: the bonds of molecule {unlike} are not those of molecule 0; select like ones"
                )
        return table, note

"""Chains of a topology: which atoms form one where no bonds say so, and bonds of consecutive CA atoms."""

import logging
from pathlib import Path

import numpy as np

from polyvae.errors import InputError
from polyvae.trajectory.molecules import Atoms
from polyvae.trajectory.record import Selection

log = logging.getLogger(__name__)

_CA_APART = (2.6, 4.3)  # Å between CA of neighbours: 2.9 beside a cis bond, 3.8 elsewhere


def with_chains(atoms: Atoms, group, places: tuple[np.ndarray, np.ndarray | None] | None, path: Path) -> Atoms:
    """The atoms with the chain of each, and bonds of consecutive CA where only CA are chosen and none is bonded.

    `group` is the atom group of the chosen atoms, `places` are their positions (n_chosen, 3) in the topology, in
    Å, and its box, if it has them.
    """
    labels = [np.asarray(getattr(group, name)) for name in ("chainIDs", "segids") if hasattr(group, name)]
    chain = np.zeros(len(group), int)
    for label in labels:
        codes = np.unique(label.astype(str), return_inverse=True)[1]
        if codes.any():
            chain = codes
            atoms = atoms._replace(chain_ids=codes)
            break
    bonds = atoms.bonds_of_chosen()
    if atoms.names is None or set(atoms.names) != {"CA"} or (bonds is not None and len(bonds)):
        return atoms
    pairs = _consecutive(chain, np.asarray(group.resids), np.asarray(group.resindices))
    if places is not None:
        from MDAnalysis.lib.distances import calc_bonds

        positions, box = places  # atoms may be wrapped one by one, so that the nearest image counts
        apart = calc_bonds(positions[pairs[:, 0]], positions[pairs[:, 1]], box=box)
        pairs = pairs[(apart > _CA_APART[0]) & (apart < _CA_APART[1])]
    if not len(pairs):
        return atoms
    text = "%s: no bond joins the chosen CA, so consecutive ones of a chain are taken as bonded (%d bonds)"
    log.info(text, path, len(pairs))
    return atoms._replace(bonds=atoms.chosen[pairs])


def _consecutive(chain: np.ndarray, numbers: np.ndarray, residues: np.ndarray) -> np.ndarray:
    """Pairs (n, 2) of atoms that follow one another in a chain; a gap in the numbers of residues ends a chain."""
    order = np.lexsort((np.arange(len(chain)), chain))
    first, second = order[:-1], order[1:]
    inserted = (numbers[second] == numbers[first]) & (residues[second] != residues[first])  # 52 and 52A
    together = (chain[first] == chain[second]) & ((numbers[second] - numbers[first] == 1) | inserted)
    return np.stack([first, second], axis=1)[together]


def of_those_ids(atoms: Atoms, ids: np.ndarray | None, path: Path) -> Atoms:
    """The atoms of a topology whose ids a trajectory file holds: a dump of a group holds some of them alone.

    `InputError` if the file holds an id that the topology lacks, or lacks one that is selected.
    """
    known = atoms.all_ids
    if ids is None or known is None or np.array_equal(ids, known):
        return atoms
    if not (there := np.isin(ids, known)).all():
        raise InputError(
            f"{path} holds the id {ids[~there][0]}, which the topology lacks; give the topology of this run"
        )
    kept = np.searchsorted(known, ids)
    left = np.isin(atoms.chosen, kept)
    text = None if atoms.selection is None else atoms.selection.text
    if not left.any() or (text is not None and not left.all()):
        gone = known[atoms.chosen[~left][0]]
        raise InputError(f"{path} lacks the id {gone}, which is selected; select among the atoms of the file")
    log.info("%s: holds %d of the %d atoms of the topology, found by their ids", path, len(ids), len(known))
    cut = atoms.chosen_alone(left).among(kept)
    all_of_them = len(cut.chosen) == len(kept)
    return cut._replace(all_ids=ids, selection=None if all_of_them else Selection(cut.chosen, len(kept), text))

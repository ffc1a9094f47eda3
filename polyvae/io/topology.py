"""Topologies and the selection language, by MDAnalysis."""

import warnings
from pathlib import Path

import numpy as np

from polyvae.errors import InputError
from polyvae.io.frames import short
from polyvae.molecules import Atoms
from polyvae.sources import atoms_of


def read_topology(path: Path, select: str | None) -> Atoms:
    """The atoms of a topology file that `select` names, all of them by default.

    Raises:
        InputError: a file that no parser of MDAnalysis takes, a selection that does not work or matches
            nothing, bonds that name atoms that are not there.
    """
    import MDAnalysis

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what the file does not hold, which nothing here needs
            # Masses that are guessed from names would make a coarse bead "B" boron: take only what is there.
            universe = MDAnalysis.Universe(str(path), to_guess=())
    except Exception as error:  # the parsers raise whatever their format calls for
        raise InputError(f"{path} cannot be read as a topology ({short(error)})") from None
    group = universe.atoms
    if select is not None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                group = group.select_atoms(select)
        except Exception as error:
            raise InputError(f"the selection {select!r} does not work on {path} ({short(error)})") from None
        if len(group) == 0:
            raise InputError(f"the selection {select!r} matches none of the {len(universe.atoms)} atoms of {path}")
    atoms = atoms_of(group)
    check_bonds(atoms.bonds, atoms.n_total, path)
    return atoms


def check_bonds(bonds: np.ndarray | None, n_atoms: int, path: Path) -> None:
    """Raise `InputError` where a bond names an atom that is not there."""
    if bonds is None or not len(bonds):
        return
    bad = ((bonds < 0) | (bonds >= n_atoms)).any(axis=1)
    if bad.any():
        k = int(np.argmax(bad))
        raise InputError(
            f"{path}: bonds must join beads 0 to {n_atoms - 1}; bond {k} joins {bonds[k].tolist()}. "
            f"Mend the bonds or give the topology of this run"
        )

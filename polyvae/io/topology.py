"""Topologies and the selection language, by MDAnalysis."""

import contextlib
import functools
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from polyvae.errors import InputError
from polyvae.io.atom_styles import atom_columns
from polyvae.io.chains import of_those_ids, with_chains
from polyvae.io.dump_index import first_frame
from polyvae.io.formats import Unpacked, check_installed, format_of, is_packed
from polyvae.io.frames import existing, reading, short
from polyvae.io.other import check_pdb, reader_of
from polyvae.io.xyz import XyzFile
from polyvae.trajectory.convert import atoms_of, usable_masses
from polyvae.trajectory.facts import Facts
from polyvae.trajectory.molecules import Atoms

# Words of the selection language that look at where atoms are.
_OF_PLACE = ("around", "sphlayer", "sphzone", "isolayer", "cylayer", "cyzone", "point")


@contextlib.contextmanager
def reported_as(path: Path, name: Path):
    """Let errors name a file by another name."""
    try:
        yield
    except InputError as error:
        raise type(error)(str(error).replace(str(path), str(name))) from None


class _UnreadError(InputError):
    """No parser takes the file."""


def known_topology(path: str | os.PathLike, select: str | None, format: str | None = None) -> Atoms:
    """`read_topology`, once for the many files of one system."""
    stat = existing(path).stat()
    with reading(Path(path), "a topology"):
        return _read_once(os.fspath(path), select, format, (stat.st_size, stat.st_mtime_ns))


@functools.lru_cache(maxsize=2)
def _read_once(path: str, select: str | None, format: str | None, state: tuple[int, int]) -> Atoms:
    return read_topology(path, select, format)


def read_topology(path: str | os.PathLike, select: str | None, format: str | None = None) -> Atoms:
    """The atoms of a topology file that `select` names, all of them by default.

    `format` is MDAnalysis' name of the format, if the name of the file does not show it. `InputError` for a file
    that no parser takes, a selection that does not work, matches nothing or depends on coordinates, and bonds of
    missing atoms.
    """
    if select is not None:
        _refuse_places(select)
    path = existing(path)
    name = format_of(path, format)
    if is_packed(path) and name != "LAMMPSDUMP":
        plain = Unpacked(path)
        with reported_as(plain.path, path):
            return read_topology(plain.path, select, name or None)
    check_pdb(path, name)
    check_installed(path, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what the file does not hold, which nothing here needs
            universe = _universe(path, name)
    except Exception as error:  # the parsers raise whatever their format calls for
        raise _UnreadError(f"{path} cannot be read as a topology ({short(error)})") from None
    _check_records(path, name, universe)
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
    _check_locations(path, group)
    try:
        atoms = atoms_of(group)
    except IndexError as error:
        raise InputError(
            f"{path}: its bonds name atoms beyond the {len(universe.atoms)} that it holds ({short(error)}); mend "
            f"the bonds or give the topology of this run"
        ) from None
    check_bonds(atoms.bonds, atoms.n_total, path)
    named = atoms.selection and atoms.selection._replace(text=select)
    if name in ("DATA", "LAMMPSDUMP"):
        atoms = atoms._replace(residues=np.asarray(group.resids), in_molecules=True)
    if name in ("DATA", "LAMMPSDUMP", "XYZ") and hasattr(universe.atoms, "ids"):
        ids = np.asarray(universe.atoms.ids)
        atoms = atoms._replace(ids=ids[atoms.chosen], all_ids=ids)
    atoms = with_chains(atoms, group, _places(path, name, atoms), path)
    return atoms._replace(selection=named)


def _universe(path: Path, name: str):
    """The facts of a topology file on its atoms, and no coordinates, which may take long to be read.

    Masses that are guessed from names would make a coarse bead "B" boron: only what is there is taken.
    """
    import MDAnalysis
    from MDAnalysis.topology.core import get_parser_for

    if name == "LAMMPSDUMP":  # its parser knows neither units and times that are stated nor lines without ids
        return _universe_of_dump(path)
    if name == "XYZ":  # nor the columns and ids of extended XYZ
        return _universe_of_xyz(path)
    parser = get_parser_for(str(path), format=name or None)
    with parser(str(path)) as file:
        columns = {"atom_style": atom_columns(path)} if name == "DATA" else {}
        return MDAnalysis.Universe(file.parse(**columns), to_guess=())


def _places(path: Path, name: str, atoms: Atoms) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Where the chosen atoms are in a PDB or GRO, (n_chosen, 3) in Å, and its box; None for other formats."""
    if name not in ("PDB", "ENT", "GRO") or set(atoms.names or ()) != {"CA"}:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with reader_of(path, name) as file:
                return np.array(file.ts.positions[atoms.chosen]), file.ts.dimensions
        except Exception:  # a topology without usable coordinates
            return None


def _universe_of_dump(path: Path):
    import MDAnalysis

    columns = first_frame(path)
    n_atoms = len(next(iter(columns.values())))
    molecules, of_atoms = np.unique(columns.get("mol", np.ones(n_atoms)).astype(int), return_inverse=True)
    universe = MDAnalysis.Universe.empty(n_atoms, len(molecules), atom_resindex=of_atoms)
    universe.add_TopologyAttr("resids", molecules)
    for name, column, kind in (("ids", "id", int), ("types", "type", object), ("masses", "mass", float)):
        if column in columns:
            universe.add_TopologyAttr(name, columns[column].astype(kind))
    return universe


def _universe_of_xyz(path: Path):
    import MDAnalysis

    file = XyzFile(path, n_frames=1)
    universe = MDAnalysis.Universe.empty(file.n_atoms)
    for name in ("names", "ids", "masses"):
        if (values := file.facts.value(name)) is not None:
            universe.add_TopologyAttr(name, values)
    return universe


def _check_locations(path: Path, group) -> None:
    """Raise `InputError` where one atom is there more than once, at alternate locations."""
    locations = getattr(group, "altLocs", None)
    if locations is None or not (doubtful := np.char.strip(np.asarray(locations, str)) != "").any():
        return
    known: dict[tuple, str] = {}
    for atom in group[doubtful]:
        key = atom.segid, atom.resindex, atom.name
        if key in known:
            raise InputError(
                f"{path}: the atom {atom.name} of residue {atom.resid} is at the alternate locations "
                f"{known[key]} and {atom.altLoc}, and would be two beads; select one, such as by "
                f"'name CA and not altloc {atom.altLoc}'"
            )
        known[key] = atom.altLoc


def own_topology(path: Path, select: str | None, name: str) -> Atoms | None:
    """The facts of a PDB, GRO and the like on their atoms; None where the format, `name`, says nothing of them."""
    import MDAnalysis

    if name == "TRR":  # MDAnalysis would number the atoms, and leave an index of frames beside the file
        return None
    try:
        with reading(path, "a topology"):
            return read_topology(path, select, name or None)
    except _UnreadError:
        if name in MDAnalysis._PARSERS:
            raise
        return None


def _refuse_places(select: str) -> None:
    """Raise `InputError` for a selection that can hold other atoms in every frame."""
    words = select.replace("(", " ( ").replace(")", " ) ").split()
    for k, word in enumerate(words):
        found = word if word in _OF_PLACE else None
        if word == "prop":  # such as "prop x > 1", "prop abs z<=2", "prop 1 < y"
            ends = [n for n, after in enumerate(words) if n > k and after in ("and", "or", "(", ")")]
            condition = " ".join(words[k : ends[0] if ends else None])
            found = condition if re.search(r"(?<![A-Za-z_])[xyz](?![A-Za-z_])", condition) else None
        elif word == "same" and words[k + 1 : k + 2] and words[k + 1] in ("x", "y", "z"):
            found = f"same {words[k + 1]}"
        if found:
            raise InputError(
                f"the selection {select!r} depends on coordinates ({found!r}), which change, and a CV needs "
                f"the same atoms in all frames; select by names, numbers or residues"
            )


def _check_records(path: Path, kind: str, universe) -> None:
    """Raise `InputError` for a bond record that names an atom that is not there, which the parsers pass over.

    MDAnalysis leaves out such CONECT records of a PDB, and all bonds of a LAMMPS data file that holds one.
    """
    atoms: set[str] = set()
    bonds: Sequence[tuple[str, ...]] = []
    if kind in ("PDB", "ENT"):
        atoms, bonds = _pdb_records(path)
    elif kind == "DATA" and not len(universe.bonds):
        from MDAnalysis.topology.LAMMPSParser import DATAParser

        sections = DATAParser(str(path)).grab_datafile()[1]
        atoms = {line.split()[0] for line in sections["Atoms"]}
        bonds = [tuple(line.split()[2:4]) for line in sections.get("Bonds", [])]
    missing = next((bond for bond in bonds if not atoms.issuperset(bond)), None)
    if missing is not None:
        absent = next(number for number in missing if number not in atoms)
        raise InputError(
            f"{path}: a bond joins the atoms {' and '.join(missing)}, but there is no atom {absent}; mend the "
            f"bonds or give the topology of this run"
        )


def _pdb_records(path: Path) -> tuple[set[str], list[tuple[str, str]]]:
    """Numbers of the atoms of a PDB, and pairs that its CONECT records join.

    None are given of a file so large that numbers come again, where records have no meaning.
    """
    from MDAnalysis.lib.util import openany

    atoms, bonds, n_atoms, n_models = set(), [], 0, 0
    with openany(str(path), "rt") as file:
        for line in file:
            if line.startswith(("ATOM", "HETATM", "TER")):
                if n_models < 2 and not line.startswith("TER"):
                    n_atoms += 1
                atoms.add(line[6:11].strip())
            elif line.startswith("MODEL"):
                n_models += 1
            elif line.startswith("CONECT"):
                numbers = [line[k : k + 5].strip() for k in range(6, len(line.rstrip()), 5)]
                bonds += [(numbers[0], other) for other in numbers[1:] if other]
    return atoms, bonds if n_atoms < 100_000 else []


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


def atoms_of_file(facts: Facts, n_atoms: int, path: Path, known: Atoms | None) -> Atoms | None:
    """The atoms of a trajectory file: those of its topology, if known, with what the file itself states of them.

    `InputError` for bonds, names or masses that do not fit the atoms, and ids that the topology does not hold.
    """
    stated = {
        name: facts.value(name) for name in ("ids", "bonds", "names", "masses", "types", "chains", "residues")
    }
    if known is None and all(value is None for value in stated.values()):
        return None
    bonds = stated["bonds"]
    if bonds is not None:
        bonds = np.asarray(bonds)
        if bonds.size and (bonds.ndim != 2 or bonds.shape[1] != 2 or not np.issubdtype(bonds.dtype, np.integer)):
            raise InputError(f"{path}: bonds must be pairs of bead numbers, shape (n_bonds, 2); got {bonds.shape}")
        check_bonds(bonds, n_atoms, path)
        bonds = bonds if bonds.size else None
    for name in ("names", "masses", "ids", "types"):
        if stated[name] is not None and np.shape(stated[name]) != (n_atoms,):
            raise InputError(
                f"{path}: {name} must hold one entry a bead, {n_atoms}; got shape {np.shape(stated[name])}"
            )
    masses = usable_masses(stated["masses"], str(path))
    if known is None:
        residues = stated["residues"]
        known = Atoms(np.arange(n_atoms), n_atoms, residues=residues, in_molecules=residues is not None)
    else:
        known = of_those_ids(known, stated["ids"], path)
        if known.n_total != n_atoms:
            return known  # the caller refuses it
    chosen, names, types = known.chosen, stated["names"], stated["types"]
    own = {
        "bonds": bonds,
        "ids": stated["ids"] if stated["ids"] is None else stated["ids"][chosen],
        "names": None if names is None else tuple(map(str, np.asarray(names)[chosen])),
        "kinds": None if types is None else tuple(map(str, np.asarray(types)[chosen])),
        "masses": None if masses is None else np.asarray(masses)[chosen],
    }
    return known._replace(**{name: value for name, value in own.items() if getattr(known, name) is None})

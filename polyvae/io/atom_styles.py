"""Columns of the atoms in a LAMMPS data file, by the style that it names behind "Atoms #".

Source: https://docs.lammps.org/read_data.html, section "Atoms".
"""

import logging
from pathlib import Path

from polyvae.errors import InputError

log = logging.getLogger(__name__)

_STYLES = {
    "amoeba": "id resid type charge x y z",
    "angle": "id resid type x y z",
    "atomic": "id type x y z",
    "body": "id type bodyflag mass x y z",
    "bond": "id resid type x y z",
    "bpm/sphere": "id resid type diameter density x y z",
    "charge": "id type charge x y z",
    "dielectric": "id type charge x y z mux muy muz area ed em epsilon curvature",
    "dipole": "id type charge x y z mux muy muz",
    "dpd": "id type theta x y z",
    "edpd": "id type edpd_temp edpd_cv x y z",
    "electron": "id type charge spin eradius x y z",
    "ellipsoid": "id type ellipsoidflag density x y z",
    "full": "id resid type charge x y z",
    "line": "id resid type lineflag density x y z",
    "mdpd": "id type rho x y z",
    "molecular": "id resid type x y z",
    "oxdna": "id type x y z",
    "peri": "id type volume density x y z",
    "rheo": "id type status rho x y z",
    "rheo/thermal": "id type status rho energy x y z",
    "smd": "id type resid volume mass kradius cradius x0 y0 z0 x y z",
    "sph": "id type rho esph cv x y z",
    "sphere": "id type diameter density x y z",
    "spin": "id type x y z spx spy spz sp",
    "tdpd": "id type x y z",
    "template": "id type resid template-index template-atom x y z",
    "tri": "id resid type triangleflag density x y z",
    "wavepacket": "id type charge spin eradius etag cs_re cs_im x y z",
}
_COMMON = ("id", "type", "x", "y", "z")


def atom_columns(path: Path) -> str:
    """Names of the columns of a data file's atoms, as MDAnalysis takes them.

    `InputError` for an unknown style, and without a style if the number of columns fits several.
    """
    style, first, has_bonds = _stated(path)
    columns = _of_style(path, style) if style else _guessed(path, len(first.split()), has_bonds)
    if own := {"density", "mass"} & set(columns.split()):
        text = "%s: its atoms state a %s each, which is not used; masses are those of its section Masses, or 1"
        log.info(text, path, " and a ".join(sorted(own)))
    return columns


def _of_style(path: Path, style: str) -> str:
    parts = style.split()
    if parts[0] != "hybrid":
        if parts[0] not in _STYLES:
            raise InputError(
                f"{path}: its atom style {style!r} is not known here; the known ones are "
                f"{', '.join(sorted(_STYLES))} and hybrid. Write it in one of these (write_data of LAMMPS)"
            )
        return _STYLES[parts[0]]
    unknown = [part for part in parts[1:] if part not in _STYLES]
    if unknown or len(parts) == 1:
        raise InputError(
            f"{path}: its atom style {style!r} needs known sub-styles behind hybrid; "
            f"{', '.join(unknown) or 'there are none'}. Name them behind 'Atoms #'"
        )
    columns = list(_COMMON)
    for part in parts[1:]:  # what two styles have in common is written once
        columns += [name for name in _STYLES[part].split() if name not in columns]
    return " ".join(columns)


def _stated(path: Path) -> tuple[str, str, bool]:
    """The style that a data file names, the first line of its atoms, and whether it holds bonds."""
    style, first, has_bonds = "", "", False
    in_atoms = False
    with path.open(errors="replace") as file:
        for line in file:
            word = line.split("#")[0].strip()
            if word == "Atoms":
                style, in_atoms = line.partition("#")[2].strip(), True
            elif word == "Bonds":
                has_bonds = True
            elif in_atoms and word and not first:
                first = word
    return style, first, has_bonds


def _guessed(path: Path, n_columns: int, has_bonds: bool) -> str:
    """Columns of atoms whose style is not stated; three image flags may follow."""
    if n_columns in (5, 8) and not has_bonds:
        style = "atomic"
    elif n_columns in (6, 9) and has_bonds:
        style = "molecular"
    elif n_columns in (7, 10) and has_bonds:
        style = "full"
    else:
        raise InputError(
            f"{path}: its atoms have {n_columns} columns and no style, and several styles fit; name the style "
            f"behind 'Atoms #', as write_data of LAMMPS does"
        )
    log.info("%s: names no atom style; its %d columns are taken as those of %r", path, n_columns, style)
    return _STYLES[style]

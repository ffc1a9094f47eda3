"""Facts in the comment line of an XYZ frame: the pairs of extended XYZ, and the forms of i-PI and CP2K.

Extended XYZ: https://github.com/libAtoms/extxyz#extended-xyz-specification. i-PI: its manual, output files,
https://docs.ipi-code.org. CP2K: its manual, MOTION/PRINT/TRAJECTORY, https://manual.cp2k.org.
"""

import re

import numpy as np

from polyvae.core.units import nanometres
from polyvae.trajectory.box import box_vectors

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_VALUE = rf"{_QUOTED}|'[^']*'|\{{[^}}]*\}}|\[(?:[^\[\]]|\[[^\[\]]*\])*\]|\S+"
_PAIR = re.compile(rf"({_QUOTED}(?=[\s=]|$)|[\w-]+)(?:\s*=\s*({_VALUE}))?")  # a word without a value is a flag
_IPI_CELL = re.compile(r"CELL\W*abcABC\W*:((?:\s+[-+\d.eE]+){6})")
_IPI_UNIT = re.compile(r"\b(\w+)\{(\w+)\}")


def pairs_of(comment: str) -> dict[str, str]:
    """Facts that a comment states, by name in lower letters.

    Further names are "lattice" for the cell of i-PI, in the unit of the positions, "length_unit" for that unit,
    and "time_unit" for CP2K, which writes times in fs.
    """
    if cell := _IPI_CELL.search(comment):
        return _of_ipi(comment, np.array(cell[1].split(), float))
    pairs = {_plain(key).lower(): _plain(value) for key, value in _PAIR.findall(comment) if value}
    if {"i", "time", "e"} <= set(pairs):
        pairs["time_unit"] = "fs"
    return pairs


def _plain(word: str) -> str:
    """A word without its quotes; the entries of an array, parted by blanks."""
    if word[0] in "[{":
        return " ".join(re.sub(r"[\[\]{},]", " ", word).split())
    if word[0] in "\"'":
        return word[1:-1].replace("\\", "")
    return word.rstrip(",")


def _of_ipi(comment: str, cell: np.ndarray) -> dict[str, str]:
    """Lengths and angles of the cell, and units, which are atomic where i-PI names none."""
    units = {name: "bohr" if unit == "atomic_unit" else unit for name, unit in _IPI_UNIT.findall(comment)}
    of_cell = units.pop("cell", "bohr")
    of_places = next(iter(units.values()), "bohr")
    per_cell, per_place = nanometres(of_cell), nanometres(of_places)
    if per_cell is None or per_place is None:
        return {"length_unit": of_cell if per_cell is None else of_places}
    (box,) = box_vectors(cell[None, :3] * per_cell / per_place, cell[None, 3:])
    return {"length_unit": of_places, "lattice": " ".join(f"{value:.8g}" for value in box.ravel())}

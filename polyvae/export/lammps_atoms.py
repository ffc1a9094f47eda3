"""Atoms, box and units of a LAMMPS instance.

Source: the LAMMPS manual, https://docs.lammps.org (units; triclinic boxes; C library interface).
"""

import ctypes

import numpy as np

from polyvae.arguments import real_number
from polyvae.core.units import LAMMPS, length_of
from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.export.particles import length_factor

_UNBOUNDED = 1e300  # extent of the box in a direction that is not periodic: nothing is ever a whole box away


class Box:
    """LAMMPS' box, seen in its own memory, as it may change in every step.

    Args:
        periodic: (3,) of bool, as it is now.
    """

    def __init__(self, engine):
        def view(name: str, n: int, kind) -> np.ndarray:
            function = engine.lib.lammps_extract_global
            function.restype = ctypes.POINTER(kind)
            return np.ctypeslib.as_array(function(engine.lmp, name.encode()), (n,))

        self._low, self._high = view("boxlo", 3, ctypes.c_double), view("boxhi", 3, ctypes.c_double)
        self._tilts = [view(name, 1, ctypes.c_double) for name in ("xy", "xz", "yz")]
        self.periodic = view("periodicity", 3, ctypes.c_int32) != 0

    def vectors(self) -> np.ndarray:
        """Vectors (3, 3) as rows, lower triangular; endless where it is not periodic."""
        (xy,), (xz,), (yz,) = self._tilts
        box = np.array([[0.0, 0.0, 0.0], [xy, 0.0, 0.0], [xz, yz, 0.0]])
        np.fill_diagonal(box, np.where(self.periodic, self._high - self._low, _UNBOUNDED))
        return box


def rows_of(tags: np.ndarray, atoms: np.ndarray, had_all: bool = False) -> np.ndarray:
    """Return the rows of the atoms in `tags` (n,), unsorted atom IDs; `had_all` if all were there once."""
    rows, lost = np.zeros_like(atoms), atoms
    if len(tags):
        order = np.argsort(tags)
        rows = order[np.minimum(np.searchsorted(tags, atoms, sorter=order), len(tags) - 1)]
        lost = atoms[tags[rows] != atoms]
    if len(lost) and had_all:
        raise InputError(
            f"LAMMPS has lost atom {lost[0]}, which is a bead: it left the box, or the run blew up. Shorten the "
            f"step, or look at the structure that it starts from"
        )
    if len(lost):
        raise InputError(
            f"LAMMPS has no atom with ID {lost[0]}, which is a bead; give atoms= as its input numbers them"
        )
    return rows


def tags_of(engine) -> np.ndarray:
    """IDs (n_atoms,) of the atoms in the order of LAMMPS' memory, without its periodic copies."""
    tags = engine.numpy.extract_atom("id")
    return np.zeros(0, int) if tags is None else tags[: engine.extract_setting("nlocal")]


def length_in_model(cv: LatentCV, style: str, sigma: float | None) -> float:
    """Return the factor from LAMMPS' lengths in a style of `units` to the model's; see `attach` for `sigma`."""
    if style not in LAMMPS:
        raise InputError(f"polyvae knows LAMMPS' units {', '.join(LAMMPS)}; this run has units {style}")
    known = length_of(LAMMPS[style][0])
    assert known is not None
    unit, factor = known
    if sigma is not None:
        sigma = factor * real_number("sigma", sigma)
    return factor * length_factor(cv, unit, sigma)

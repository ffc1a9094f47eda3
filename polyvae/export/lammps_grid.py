"""A bias on a grid inside LAMMPS, without Python in the steps: `fix external` calls the compiled kernel itself.

Source: the LAMMPS manual, https://docs.lammps.org (fix external; C library interface).
"""

import ctypes
from collections.abc import Sequence

import numpy as np

from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.export.grid_bias import GridBias
from polyvae.export.lammps import LatentBias

_ADDRESS = ctypes.c_void_p


class _Fix(ctypes.Structure):
    """`LatentFix` of c_files/in_process.c."""

    _fields_ = (
        ("lammps", _ADDRESS), ("fix", ctypes.c_char_p), ("set_energy", _ADDRESS), ("set_virial", _ADDRESS),
        ("box_low", _ADDRESS), ("box_high", _ADDRESS), ("tilt", 3 * _ADDRESS), ("periodic", _ADDRESS),
        ("atoms", _ADDRESS), ("rows", _ADDRESS), ("id_size", ctypes.c_int64), ("factor", ctypes.c_double),
        ("values", _ADDRESS), ("axes", _ADDRESS), ("z", _ADDRESS), ("energies", _ADDRESS), ("whole", _ADDRESS),
        ("failed", ctypes.c_int64),
    )  # fmt: skip


class GridFix(LatentBias):
    """A `LatentBias` of a bias on a grid, which takes a tenth of the time in each step.

    Without a compiler the fix calls Python. `check` reports an error of a step; until then the run continues
    without a bias.

    Args:
        engine, cv, atoms, sigma: as for `attach`.
        bias: in LAMMPS' unit of energy; its `values` may be written to between runs.
    """

    def __init__(
        self,
        engine,
        cv: LatentCV,
        bias: GridBias,
        *,
        atoms: str | Sequence[int] | None = None,
        sigma: float | None = None,
    ):
        super().__init__(engine, cv, lambda z, step: bias(z), atoms, None, sigma, "latent", 1)
        self._given: _Fix | None = None
        code, knows_box = self._at.code, self._known is None or self._at.knows_box(self._box.vectors())
        if code is None or not knows_box or engine.extract_setting("bigint") != 8:
            return
        box, library = self._box, engine.lib
        self._kept = {
            "atoms": self._atoms.astype(np.int64), "rows": np.zeros(cv.n_beads, np.int64),
            "values": bias.values, "axes": bias.axes, "z": np.full(cv.latent_dim, np.nan), "energies": np.zeros(2),
            "whole": np.full((cv.n_beads, cv.n_dims), np.nan), "box_low": box._low, "box_high": box._high,
        }  # fmt: skip
        if self._known is not None:
            self._kept["periodic"] = box.periodic.astype(np.int32)
        self._given = _Fix(
            lammps=ctypes.cast(engine.lmp, _ADDRESS), fix=self._fix.encode(), factor=self._factor,
            set_energy=ctypes.cast(library.lammps_fix_external_set_energy_global, _ADDRESS),
            set_virial=ctypes.cast(library.lammps_fix_external_set_virial_global, _ADDRESS),
            tilt=(3 * _ADDRESS)(*(tilt.ctypes.data for tilt in box._tilts)),
            id_size=engine.extract_setting("tagint"),
            **{name: array.ctypes.data for name, array in self._kept.items()},
        )  # fmt: skip
        # By a prototype of our own: LAMMPS' module takes Python functions alone.
        kind = ctypes.CFUNCTYPE(None, _ADDRESS, ctypes.c_char_p, _ADDRESS, _ADDRESS)
        given = ctypes.addressof(self._given)
        kind(("lammps_set_fix_external_callback", library))(engine.lmp, self._fix.encode(), code.fix_call, given)
        self._code = code  # whose library must stay

    def check(self) -> None:
        """Take over what the last step saw, into `z`, `positions` and `energy`.

        Raises:
            InputError: what went wrong in a step.
        """
        if self._given is None:
            return
        if self._given.failed:
            raise InputError(
                (
                    "an atom that is a bead is not in the box any more; shorten the timestep",
                    "a bond spans about half the periodic box or more, so that the molecule cannot be made whole; "
                    "check that box, bonds and atoms belong together",
                    "the latents are not finite, as a position is not; shorten the timestep",
                )[self._given.failed - 1]
            )
        self.z, self.positions = self._kept["z"].copy(), self._kept["whole"].copy()
        self.energy = float(self._kept["energies"].sum())

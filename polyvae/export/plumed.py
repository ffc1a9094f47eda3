"""The CV as PLUMED input: nothing but text, for every engine that PLUMED is patched into or linked with.

Source: the PLUMED manual, https://www.plumed.org/doc (action WHOLEMOLECULES); Tribello et al.,
10.1016/j.cpc.2013.09.018.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from polyvae.arguments import one_of
from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.export import kernel, plumed_native, plumed_vectors
from polyvae.export.common import atom_numbers, pieces_note, ranges, walk
from polyvae.export.grid_bias import bias_grid, bias_width, check_bias, statistics
from polyvae.export.readme import Readme
from polyvae.files import replacing_folder

CHECKED = "PLUMED 2.11 (the kernel in the hillclimber 0.1.8 wheel)"
UNITS = {"nm": "UNITS LENGTH=nm", "angstrom": "UNITS LENGTH=A", "sigma": "UNITS NATURAL"}
_DRIVER_UNITS = {"nm": "nm", "angstrom": "A", "sigma": "1"}  # `--length-units` of the driver
_FILES = {
    "plumed.dat": "units, output and biases; edit this one",
    "latent.dat": "computes the latents; leave it as it is",
    plumed_native.LIBRARY: "the action that it loads, compiled",
    plumed_native.SCRIPT: "compiles it",
    plumed_native.SOURCE: "the action's source, around the three files of latent_cv",
    "latent_cv.c": "the arithmetic",
    "latent_cv.h": "what calls it includes",
    "latent_cv_weights.h": "the numbers: weights, scaling, reference",
}


def export(
    cv: LatentCV,
    folder: str | os.PathLike,
    *,
    atoms: str | Sequence[int] | None = None,
    data=None,
    dialect: str = "vector",
    force: bool = False,
) -> None:
    """Write `plumed.dat`, which is to be edited, `latent.dat`, which computes z0, z1, ..., and a README.

    Values and gradients are those of the model in float64, to rounding: in text, superposition and principal axes
    are done by actions on numbers in 17 digits, and WHOLEMOLECULES makes the molecule whole first.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        folder: where to write; made if need be.
        atoms: see `common.atom_numbers`.
        data: see `grid_bias.statistics`; widths and bounds of the METAD and OPES_METAD lines.
        dialect: "vector", text for PLUMED 2.10 and newer; or "native", an action in C++ that is compiled for a
            PLUMED and makes the molecule whole by itself, many times faster than text, with every featurizer.
        force: write into a folder that holds files.

    Raises:
        InputError: atom numbers that do not fit; `PrincipalAxes(sign="none")`; what a dialect has not; a folder
            that holds files.
    """
    one_of("dialect", dialect, DIALECTS)
    numbers = atom_numbers(cv, atoms)
    with replacing_folder(folder, force=force) as place:
        text, notes = DIALECTS[dialect](cv, numbers, place)
        stats = statistics(cv, data)
        width = check_bias(cv, stats)
        (place / "latent.dat").write_text("\n".join(text) + "\n")
        label = f"{plumed_native.LABEL}." if dialect == "native" else ""
        (place / "plumed.dat").write_text(main_input(cv, stats, "INCLUDE FILE=latent.dat", label))
        readme = Readme(
            engine="PLUMED",
            kind="plumed" if dialect == "vector" else f"plumed --dialect {dialect}",
            atoms=numbers,
            files={name: text for name, text in _FILES.items() if (place / name).exists()},
            use="Copy all files to the folder of the run and give `plumed.dat` to the engine, or, on frames in "
            f"{cv.length_unit}:\n\n```sh\nplumed driver --plumed plumed.dat --ixyz frames.xyz --length-units "
            f"{_DRIVER_UNITS[cv.length_unit]} --box 0,0,0\n```\n\n"
            "`--box 0,0,0` is for frames without a periodic box. For others give the edges of the box, or leave\n"
            "`--box` out where the second line of each frame holds them. PRINT writes every 100th step or frame:\n"
            "change its STRIDE. A run that goes on with the bias of an earlier one needs the line RESTART at the\n"
            "top of `plumed.dat`.",
            notes=notes,
            checked=CHECKED,
            stats=stats,
            width=width,
        )
        readme.write(place, cv)
        compiled = (place / plumed_native.LIBRARY).exists()
    if dialect == "native" and not compiled:  # that of an earlier model must not stay beside the new sources
        (Path(folder) / plumed_native.LIBRARY).unlink(missing_ok=True)


def whole_molecule(cv: LatentCV, numbers: list[int]) -> str:
    """The line that makes the molecule whole along its bonds."""
    return f"WHOLEMOLECULES ENTITY0={ranges([numbers[bead] for bead in walk(cv)])}"


def whole_note(cv: LatentCV) -> str:
    """Return the README's note on the line of `whole_molecule`."""
    edit = " Edit it where they are no chain." if cv.template.bonds is None else ""
    return (
        "WHOLEMOLECULES makes the molecule whole along its bonds before the CV sees it; without that line a chain "
        f"that a periodic boundary cuts has wrong latents.{pieces_note(cv)}{edit}"
    )


def main_input(cv: LatentCV, stats: dict | None, cv_lines: str, label: str = "") -> str:
    """The text of `plumed.dat`: units, the lines that define the latents, PRINT, and biases to uncomment.

    Args:
        label: prefix of z0, z1, ... where they are components of an action.
    """
    latents = ",".join(f"{label}z{k}" for k in range(cv.latent_dim))
    bias = "# Biases: give --data TRAJ to `polyvae export` for METAD and OPES_METAD lines with widths and bounds."
    if stats is not None:
        bias = "\n".join(f"# {line}" for line in _bias_lines(cv, stats, latents))
    return (
        f"# Latents {latents} of a polyvae model; README.md says what they are.\n"
        f"{UNITS[cv.length_unit]}\n{cv_lines}\nPRINT ARG={latents} STRIDE=100 FILE=COLVAR\n{bias}\n"
    )


def _bias_lines(cv: LatentCV, stats: dict, latents: str) -> list[str]:
    """Lines of METAD, of the walls that keep it on its grid, and of OPES_METAD, with a text that explains them."""

    def joined(values) -> str:
        return ",".join(f"{value:.6g}" for value in values)

    reduced, grid = cv.length_unit == "sigma", bias_grid(stats)
    kT, temperature = (1.0, "TEMP=1.0") if reduced else (2.5, "TEMP=300")
    low, high = grid["low"], grid["high"]
    walls = 0.5 * (stats["min"] + low), 0.5 * (stats["max"] + high)
    lines = [
        "Biases, METAD with its two walls or OPES_METAD: take the # away, and set TEMP and heights to your",
        f"system. SIGMA is the spread inside the narrowest basin of the {int(stats['n_frames'])} frames given, or",
        "a fifth of that over all if less; the grid is their range and half of it more on each side. PLUMED stops",
        "when a latent leaves the grid: the walls begin halfway to its edge, and rise to 100 kT there.",
        f"METAD ARG={latents} SIGMA={joined(grid['sigma'])} {temperature} HEIGHT={0.5 if reduced else 1.0} "
        f"BIASFACTOR=10 PACE=500 GRID_MIN={joined(low)} GRID_MAX={joined(high)} GRID_BIN={joined(grid['bins'])} "
        f"FILE=HILLS",
    ]
    for side, wall, edge in (("LOWER", walls[0], low), ("UPPER", walls[1], high)):
        stiffness = 100 * kT / (edge - wall) ** 2  # PLUMED has no factor 1/2
        lines.append(f"{side}_WALLS ARG={latents} AT={joined(wall)} KAPPA={joined(stiffness)}")
    kernel = ",".join(f"{value:.2g}" for value in bias_width(stats))
    barrier = 10 if reduced else 30
    return [
        *lines,
        f"OPES_METAD ARG={latents} SIGMA={kernel} BARRIER={barrier} {temperature} PACE=500 FILE=KERNELS",
    ]


def _vector_dialect(cv: LatentCV, numbers: list[int], folder: Path) -> tuple[list[str], list[str]]:
    """Lines that compute z0, z1, ..., and notes for the README."""
    notes = [whole_note(cv), "This text needs PLUMED 2.10 or newer; for older ones there is `--dialect native`."]
    return [whole_molecule(cv, numbers), *plumed_vectors.latent_lines(cv, numbers)], notes


DIALECTS = {"vector": _vector_dialect, "native": plumed_native.write_action}


def evaluate(
    folder: str | os.PathLike, cv: LatentCV, frames: np.ndarray, *, atoms=None, boxes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Latents (n_frames, latent_dim) and gradients (n_frames, latent_dim, n_beads, n_dims) that PLUMED finds.

    Every other atom of the engine is at the origin. The gradient is read from the forces of a bias z_k.

    Args:
        folder: what `export` wrote.
        frames: (n_frames, n_beads, n_dims) in the model's unit.
        boxes: (n_frames, 3, 3) periodic boxes, or None for none.

    Raises:
        InputError: PLUMED's Python module is not there.
    """
    try:
        import plumed
    except ImportError:
        raise InputError(
            "PLUMED is needed, and its Python module is not there; install one: conda install -c conda-forge "
            "py-plumed, or pip install --no-deps hillclimber==0.1.8, whose wheel holds PLUMED 2.11"
        ) from None
    with kernel.workshop() as temporary:
        lines = _evaluated_lines(Path(folder), temporary)
        return _run_steps(plumed, lines, cv, frames, np.array(atom_numbers(cv, atoms)) - 1, boxes)


def _run_steps(plumed, lines: list[str], cv: LatentCV, frames, rows, boxes) -> tuple[np.ndarray, np.ndarray]:
    """`evaluate` with PLUMED's module, the lines of its input, and the rows of the engine that are the beads."""
    n, n_atoms = len(frames), rows.max() + 1
    values = np.zeros((n, cv.latent_dim))
    gradients = np.zeros((n, cv.latent_dim, cv.n_beads, cv.n_dims))
    label = f"{plumed_native.LABEL}." if any("LATENT_CV" in line for line in lines) else ""
    for k in range(cv.latent_dim):
        engine = plumed.Plumed()
        if cv.length_unit == "sigma":
            engine.cmd("setNaturalUnits")
        else:
            engine.cmd("setMDLengthUnits", {"nm": 1.0, "angstrom": 0.1}[cv.length_unit])
        engine.cmd("setNatoms", int(n_atoms))
        engine.cmd("setMDEngine", "polyvae")
        engine.cmd("setTimestep", 1.0)
        engine.cmd("setLogFile", os.devnull)
        engine.cmd("init")
        for line in [*lines, f"BIASVALUE ARG={label}z{k}"]:
            engine.cmd("readInputLine", line)
        for step in range(n):
            positions, forces = np.zeros((n_atoms, 3)), np.zeros((n_atoms, 3))
            positions[rows, : cv.n_dims] = frames[step]
            bias, box, virial = np.zeros(1), np.zeros((3, 3)), np.zeros((3, 3))
            engine.cmd("setStep", step)
            if boxes is not None:
                box[:] = boxes[step]
                engine.cmd("setBox", box)
            masses, charges = np.ones(n_atoms), np.zeros(n_atoms)
            engine.cmd("setMasses", masses)
            engine.cmd("setCharges", charges)
            engine.cmd("setPositions", positions)
            engine.cmd("setForces", forces)
            engine.cmd("setVirial", virial)
            engine.cmd("calc")
            engine.cmd("getBias", bias)
            values[step, k], gradients[step, k] = bias[0], -forces[rows, : cv.n_dims]
        engine.finalize()
    return values, gradients


def _evaluated_lines(folder: Path, temporary: Path) -> list[str]:
    """Return the lines of `plumed.dat` without its output and biases. An action that is not compiled yet is
    compiled in a temporary folder."""
    lines = []
    for line in (folder / "plumed.dat").read_text().splitlines():
        if line.startswith("INCLUDE FILE="):
            lines += (folder / line.removeprefix("INCLUDE FILE=")).read_text().splitlines()
        elif not line.startswith(("#", "PRINT")):
            lines.append(line)
    load = f"LOAD FILE=./{plumed_native.LIBRARY}"
    if load in lines:
        place = folder.absolute()
        if not (place / plumed_native.LIBRARY).exists():
            place = temporary
            plumed_native.build(folder, place)
        # Blanks in a path would end the word, and PLUMED takes one in braces as it is.
        lines[lines.index(load)] = f"LOAD FILE={{{place / plumed_native.LIBRARY}}}"
    return lines

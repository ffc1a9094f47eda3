"""The CV as PLUMED input: nothing but text, for every engine that PLUMED is patched into or linked with.

Source: the PLUMED manual, https://www.plumed.org/doc (action WHOLEMOLECULES); Tribello et al.,
10.1016/j.cpc.2013.09.018.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.core.units import LENGTHS
from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.export import kernel, plumed_native, plumed_vectors
from polyvae.export.common import atom_numbers, pieces_note, ranges, walk
from polyvae.export.exporter import Export, fill_template
from polyvae.export.grid_bias import bias_grid, bias_width, check_bias, report_no_data
from polyvae.export.readme import write_readme

# The name of the unit in UNITS, and for `--length-units` of the driver; reduced units have none.
_UNITS = {"nm": "nm", "angstrom": "A"}
FIRST_ATOM = 1
# Energies and temperature of the biases, to be edited by the user.
_IN_KT: dict[str, Any] = {"kT": 1.0, "temperature": "TEMP=1.0", "height": 0.5, "barrier": 10}
_IN_KJ: dict[str, Any] = {"kT": 2.5, "temperature": "TEMP=300", "height": 1.0, "barrier": 30}
OPTIONS = {"dialect": ("vector", "native")}


def write_files(export: Export, place: Path) -> None:
    """Write `plumed.dat`, which is to be edited, `latent.dat`, which computes z0, z1, ..., and a README.

    Values and gradients are those of the model in float64, to rounding. The dialect "vector" is text for PLUMED
    2.10 and newer: superposition and principal axes are done by actions on numbers in 17 digits. The dialect
    "native" is an action in C++ that is compiled for a PLUMED, many times faster, with every featurizer.

    Raises:
        InputError: `PrincipalAxes(sign="none")` as text.
    """
    cv, label = export.cv, ""
    width = check_bias(cv, export.stats)
    words = {"driver_unit": _UNITS.get(cv.length_unit, "1")}
    if export.dialect == "native":
        label = f"{plumed_native.LABEL}."
        text, notes = plumed_native.write_action(cv, export.atoms, place)
    else:
        text = [whole_molecule(cv, export.atoms), *plumed_vectors.latent_lines(cv, export.atoms)]
        dialect = "This text needs PLUMED 2.10 or newer; for older ones there is `--dialect native`."
        notes = {"whole": whole_note(cv), "dialect": dialect}
    (place / "latent.dat").write_text("\n".join(text) + "\n")
    (place / "plumed.dat").write_text(main_input(cv, export.stats, "INCLUDE FILE=latent.dat", label))
    write_readme(place, "plumed", export, words | notes, width=width)
    if export.dialect == "native" and not (place / plumed_native.LIBRARY).exists():
        # The library of an earlier model must not stay beside the new sources.
        (export.folder / plumed_native.LIBRARY).unlink(missing_ok=True)


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


def units_line(cv: LatentCV) -> str:
    """Return the line that sets PLUMED's units to the model's."""
    unit = _UNITS.get(cv.length_unit)
    return "UNITS NATURAL" if unit is None else f"UNITS LENGTH={unit}"


def main_input(cv: LatentCV, stats: dict | None, cv_lines: str, label: str = "") -> str:
    """Return the text of `plumed.dat`: units, the lines that define the latents, PRINT, and biases to uncomment.

    Args:
        label: prefix of z0, z1, ... where they are components of an action.
    """
    latents = ",".join(f"{label}z{k}" for k in range(cv.latent_dim))
    bias = "# Biases: give --data TRAJ to `polyvae export` for METAD and OPES_METAD lines with widths and bounds."
    if stats is None:
        report_no_data()
    else:
        bias = fill_template("plumed_bias.dat.in", _bias_words(cv, stats, latents)).rstrip()
    return (
        f"# Latents {latents} of a polyvae model; README.md says what they are.\n"
        f"{units_line(cv)}\n{cv_lines}\nPRINT ARG={latents} STRIDE=100 FILE=COLVAR\n{bias}\n"
    )


def _bias_words(cv: LatentCV, stats: dict, latents: str) -> dict[str, object]:
    """Return the numbers of METAD, of the walls that keep it on its grid, and of OPES_METAD."""

    def joined(values) -> str:
        return ",".join(f"{value:.6g}" for value in values)

    grid, energies = bias_grid(stats), _IN_KT if cv.length_unit == "sigma" else _IN_KJ
    words: dict[str, object] = {
        "frames": int(stats["n_frames"]),
        "latents": latents,
        "kernel": ",".join(f"{value:.2g}" for value in bias_width(stats)),
    }
    words |= energies | {name: joined(values) for name, values in grid.items()}
    for side, edge, reached in (("lower", grid["low"], stats["min"]), ("upper", grid["high"], stats["max"])):
        wall = 0.5 * (reached + edge)
        words[f"{side}_wall"] = joined(wall)
        words[f"{side}_stiffness"] = joined(100 * energies["kT"] / (edge - wall) ** 2)  # PLUMED has no factor 1/2
    return words


def evaluate(
    folder: str | os.PathLike, cv: LatentCV, frames: np.ndarray, *, atoms=None, boxes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return latents and gradients that PLUMED finds; see `exporter.Exporter.evaluate`.

    Every other atom of the engine is at the origin. The gradient is read from the forces of a bias z_k.

    Args:
        boxes: (n_frames, 3, 3) periodic boxes, or None for none.
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
            engine.cmd("setMDLengthUnits", LENGTHS[cv.length_unit].nm)
        settings = {"Natoms": int(n_atoms), "MDEngine": "polyvae", "Timestep": 1.0, "LogFile": os.devnull}
        for name, value in settings.items():
            engine.cmd(f"set{name}", value)
        engine.cmd("init")
        for line in [*lines, f"BIASVALUE ARG={label}z{k}"]:
            engine.cmd("readInputLine", line)
        for step in range(n):
            positions, forces, bias = np.zeros((n_atoms, 3)), np.zeros((n_atoms, 3)), np.zeros(1)
            positions[rows, : cv.n_dims] = frames[step]
            arrays = {"Masses": np.ones(n_atoms), "Charges": np.zeros(n_atoms), "Virial": np.zeros((3, 3))}
            arrays |= {"Positions": positions, "Forces": forces}
            if boxes is not None:
                arrays["Box"] = np.array(boxes[step], np.float64)
            engine.cmd("setStep", step)
            for name, array in arrays.items():
                engine.cmd(f"set{name}", array)
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

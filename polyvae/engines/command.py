"""Runs by any command whose engine has PLUMED: OPES_METAD on the exported CV, frames and COLVAR read from files.

Source: the PLUMED manual, https://www.plumed.org/doc (action OPES_METAD); Invernizzi & Parrinello,
10.1021/acs.jpclett.0c00497.
"""

import contextlib
import os
import shlex
import shutil
import string
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import scipy.constants

from polyvae.arguments import real_number, text
from polyvae.cv.latent import LatentCV
from polyvae.engines.runs import Bias, Engine, Run, Snapshots, kept_frames
from polyvae.errors import InputError
from polyvae.export import plumed, plumed_native
from polyvae.files import replacing
from polyvae.io.reading import read
from polyvae.io.tables import read_colvar

PLACES = ("plumed", "folder", "start", "seed", "steps", "stride")
_BOLTZMANN = scipy.constants.R / 1000  # kJ/mol/K
_TOLD = 300  # letters of what a command said that failed


def command_engine(
    command: str,
    *,
    frames: str,
    topology: str | os.PathLike,
    temperature: float,
    start: str | os.PathLike | None = None,
    atoms: str | Sequence[int] | None = None,
    dialect: str | None = None,
    reading: dict | None = None,
) -> Engine:
    """An engine that is a command of the shell, run in a folder of its own.

    Args:
        command: with the places {plumed}, the input for PLUMED; {start}, a structure to start from; {seed};
            {steps}; {stride}, steps between frames; {folder}. Each path is absolute, and quoted for the shell
            where it has to be. Such as `sh run.sh {plumed} {start} {seed} {steps}`.
        frames: pattern of the trajectory that it writes into its folder, such as "traj.xtc".
        topology: of all atoms, for `frames`; also the first start.
        temperature: K; of a model in reduced units kT.
        start: structure of the first start, where `topology` is none.
        atoms: PLUMED's numbers of the beads, see `export.common.atom_numbers`.
        dialect: of `export.plumed`; by default "native" where it can be compiled here, else "vector".
        reading: further options of `polyvae.read` for `frames`, such as `select`.

    Raises:
        InputError: a command without {plumed}; when it runs, a command that fails, and files that it should have
            written and has not.
    """
    named = {name for _, name, _, _ in string.Formatter().parse(text("command", command)) if name is not None}
    if "plumed" not in named or not named <= set(PLACES):
        raise InputError(
            f"the command must name {{plumed}}, and may name {', '.join(f'{{{p}}}' for p in PLACES[1:])}; got "
            f"{command!r}"
        )
    temperature = real_number("temperature", temperature, above=0)
    topology = Path(topology).absolute()
    first = topology if start is None else Path(start).absolute()
    for path in (topology, first):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
    options = {"topology": topology} | (reading or {})

    def run(
        cv: LatentCV,
        *,
        bias: Bias | None,
        start: Snapshots | None,
        steps: int,
        stride: int,
        seed: int,
        folder: Path,
    ) -> Run:
        place = Path(folder).absolute()
        place.mkdir(parents=True, exist_ok=True)
        for left in place.glob(frames):  # of a try that failed
            left.unlink()
        _write_input(place, cv, bias, temperature, stride, atoms, dialect)
        begin = first if start is None else _structure(place / "start.pdb", topology, start)
        places = {"plumed": place / "plumed.dat", "folder": place, "start": begin}
        quoted = {name: shlex.quote(os.fspath(path)) for name, path in places.items()}
        line = command.format(**quoted, seed=seed, steps=steps, stride=stride)
        with (place / "command.log").open("w") as log:
            log.write(f"$ {line}\n")
            log.flush()
            done = subprocess.run(line, shell=True, cwd=place, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            said = (place / "command.log").read_text(errors="replace").strip()[-_TOLD:]
            raise InputError(
                f"the command ended with {done.returncode}; its words are in {place / 'command.log'}: ... {said}"
            )
        return _read(place, cv, frames, options, bias, temperature, topology)

    run.temperature = temperature  # type: ignore[attr-defined]
    return run


def _kT(cv: LatentCV, temperature: float) -> float:
    return temperature if cv.length_unit == "sigma" else _BOLTZMANN * temperature


def _write_input(
    place: Path, cv: LatentCV, bias: Bias | None, temperature: float, stride: int, atoms, dialect
) -> None:
    """plumed.dat and what it includes, with absolute paths, since engines run where they like."""
    for name in ("COLVAR", "KERNELS"):
        (place / name).unlink(missing_ok=True)
    native = dialect or ("native" if plumed_native.installed() else "vector")
    exported = place / "cv"
    shutil.rmtree(exported, ignore_errors=True)
    plumed.export(cv, exported, atoms=atoms, data=None, dialect=native)
    label = f"{plumed_native.LABEL}." if native == "native" else ""
    latents = ",".join(f"{label}z{k}" for k in range(cv.latent_dim))
    lines = (exported / "latent.dat").read_text()
    for name in (plumed_native.LIBRARY, "reference.pdb"):
        lines = lines.replace(f"FILE=./{name}", f"FILE={{{exported / name}}}")
        lines = lines.replace(f"REFERENCE={name}", f"REFERENCE={{{exported / name}}}")
    printed = latents
    if bias is not None:
        width = ",".join(f"{w:.6g}" for w in bias.width)
        barrier = bias.barrier * _kT(cv, temperature)
        lines += (
            f"opes: OPES_METAD ARG={latents} SIGMA={width} BARRIER={barrier:.10g} TEMP={temperature:.10g} "
            f"PACE={bias.pace} FILE={{{place / 'KERNELS'}}}\n"
        )
        printed += ",opes.bias"
        if bias.walls is not None:
            kappa = ",".join(f"{0.5 * k * _kT(cv, temperature):.10g}" for k in bias.stiffness())
            for kind, at in zip(("LOWER", "UPPER"), bias.walls, strict=True):
                at = ",".join(f"{value:.10g}" for value in at)
                lines += f"{kind.lower()}: {kind}_WALLS ARG={latents} AT={at} KAPPA={kappa}\n"
            printed += ",lower.bias,upper.bias"
    lines += f"PRINT ARG={printed} STRIDE={stride} FILE={{{place / 'COLVAR'}}} FMT=%.9g\n"
    with replacing(place / "plumed.dat") as temporary:
        temporary.write_text(f"{plumed.UNITS[cv.length_unit]}\n{lines}")


def _structure(path: Path, topology: Path, start: Snapshots) -> Path:
    """All atoms of a snapshot as a PDB."""
    import MDAnalysis

    with _quiet():
        universe = MDAnalysis.Universe(os.fspath(topology))
        universe.atoms.positions = start.positions[0]
        if start.box is not None:
            universe.dimensions = MDAnalysis.lib.mdamath.triclinic_box(*start.box[0])
        universe.atoms.write(os.fspath(path))
    return path


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what MDAnalysis says of elements and boxes that a structure does not hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _read(place: Path, cv: LatentCV, frames: str, options: dict, bias, temperature: float, topology: Path) -> Run:
    import MDAnalysis

    found = sorted(place.glob(frames))
    if not found:
        raise InputError(f"the command must write {frames} into {place}; there is no such file")
    traj = cv.as_trajectory(read(found, **options))
    table = read_colvar(place / "COLVAR")
    energies = np.zeros(len(traj))
    rows = table.rows_at(traj.time, traj.segments)
    if bias is not None:
        names = [name for name in ("opes.bias", "lower.bias", "upper.bias") if name in table]
        energies = np.sum([table[name][rows] for name in names], axis=0) / _kT(cv, temperature)
    with _quiet():
        universe = MDAnalysis.Universe(os.fspath(topology), [os.fspath(path) for path in found])
    kept = kept_frames(len(traj), len(universe.atoms))
    positions, boxes = [], []
    for frame in kept:
        state = universe.trajectory[int(frame)]
        positions.append(state.positions.copy())
        boxes.append(None if state.dimensions is None else state.triclinic_dimensions.copy())
    periodic = all(box is not None for box in boxes)
    return Run(traj, energies, Snapshots(np.array(positions), kept, np.array(boxes) if periodic else None))

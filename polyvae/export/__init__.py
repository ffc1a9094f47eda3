"""A latent CV inside MD engines: the same number, and the same force, as in an analysis script.

Each engine is a module here that fulfils the protocol `exporter.Exporter`: it writes the files that the engine
reads, and has the engine compute them. No engine is needed to export, but for PyTorch, which writes its own files.
"""

import contextlib
import importlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import equinox as eqx
import numpy as np

from polyvae.arguments import file_name, if_given, numbers_array, one_of, shown, whole_number
from polyvae.cv.latent import LatentCV, check_cv, load_cv
from polyvae.errors import InputError
from polyvae.export.common import atom_numbers, exact, particle_numbers, ranges
from polyvae.export.exporter import Export, Exporter
from polyvae.export.grid_bias import statistics
from polyvae.files import replacing_folder
from polyvae.io.options import ReadOptions
from polyvae.io.reading import read, stream
from polyvae.io.topology import read_topology

log = logging.getLogger(__name__)

# Names on the command line; each is a module here.
TARGETS = ("plumed", "colvars", "lammps", "openmm", "pysages", "c", "torchscript")
_CHECKED_FRAMES = 50


def write(
    cv: LatentCV,
    to: str,
    folder: str | os.PathLike,
    *,
    atoms: str | Sequence[int] | None = None,
    n_atoms: int | None = None,
    data=None,
    latents: Sequence[int] | None = None,
    force: bool = False,
    **options,
) -> LatentCV:
    """Export to an engine by its name in `TARGETS`, and return the CV that was: that of the chosen latents.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        to: name of the engine, such as "plumed".
        folder: where to write; made if need be.
        atoms: the engine's atoms, from 1, that are the model's beads, as numbers or as text such as "1-12,20"; by
            default those of the training data, by their ids or, in engines that count from 0, by their places.
        n_atoms: how many atoms there are, where that is known.
        data: a trajectory for widths and bounds of metadynamics.
        latents: numbers, from 0, of the latents to export; by default `cv.active_latents`,
            since a bias on an inactive latent drives nothing.
        options: options of this exporter alone; those that are None are left out. For "plumed" `dialect`, "vector"
            (text, the default) or "native" (compiled C++); for "colvars" `dialect`, "lammps", "namd" or "gromacs",
            by default the model's unit; for "openmm" `bias`, "metad" (the default) or "opes", and `sigma`, nm per
            sigma of a model in reduced units.
        force: write into a folder that holds files.

    Raises:
        InputError: a name or an option that is not known; what the exporter refuses.
    """
    exporter = _exporter(to)
    whole, n_atoms = cv, if_given(whole_number, "n_atoms", n_atoms, 1)
    cv = _chosen(cv, latents)
    if force is True and cv is not whole:
        _check_not_there(whole, Path(file_name("folder", folder)) / "model.safetensors")
    options = {name: value for name, value in options.items() if value is not None}
    for name, value in options.items():
        if name not in exporter.OPTIONS:
            raise InputError(f"{to} has no {name}; leave out --{name}")
        if (known := exporter.OPTIONS[name]) is not None:
            one_of(name, value, known)
    numbers = _numbers(cv, atoms, n_atoms, exporter.FIRST_ATOM)
    with replacing_folder(folder, force=force) as place:
        stats = None if data is None else statistics(cv, data)
        exporter.write_files(Export(cv, numbers, stats, Path(folder), **options), place)
    return cv


def _numbers(cv: LatentCV, atoms, n_atoms: int | None, first: int) -> list[int]:
    """Return the engine's numbers of the beads for atoms that are given from 1, or None."""
    if first == 1:
        return atom_numbers(cv, atoms, n_atoms)
    if atoms is not None:
        atoms = [number - 1 for number in atom_numbers(cv, atoms, n_atoms)]
    return particle_numbers(cv, atoms, n_atoms)


def _chosen(cv: LatentCV, latents: Sequence[int] | None) -> LatentCV:
    if not isinstance(cv, LatentCV):
        return cv  # `atom_numbers` says what is wrong
    if latents is not None:
        return cv.keep(latents)
    active = cv.active_latents
    if len(active) in (0, cv.latent_dim):
        return cv
    log.info(
        "%s is inactive, so that a bias on it would drive nothing, and is not exported; choose it by --latents",
        ", ".join(f"z{k}" for k in range(cv.latent_dim) if k not in active),
    )
    return cv.keep(active)


def _check_not_there(cv: LatentCV, path: Path) -> None:
    """Refuse to write a part of the latents over the file of the model that has all."""
    there = None
    with contextlib.suppress(InputError, OSError):  # something else, which --force replaces
        there = load_cv(path)
    if there is not None and eqx.tree_equal(there.function(), cv.function()):
        raise InputError(f"{path} is an input here, the whole model, and would be lost; name another folder")


def compare(
    cv: LatentCV,
    to: str,
    folder: str | os.PathLike,
    frames: np.ndarray,
    *,
    atoms: str | Sequence[int] | None = None,
) -> tuple[int, float, float]:
    """Evaluate what was exported in its engine and compare with the model in float64.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        to: name of the engine.
        folder: what `write` wrote.
        frames: (n_frames, n_beads, n_dims) in the model's unit; at most 50, evenly spaced, are used.
        atoms: as for `write`.

    Returns:
        The number of frames, and the largest differences of a latent and of an entry of its gradient.

    Raises:
        InputError: the engine is not installed, or polyvae cannot evaluate in it.
    """
    exporter, cv, folder = _exporter(to), check_cv(cv), file_name("folder", folder)
    frames = numbers_array("frames", frames, f"positions (n_frames, {cv.n_beads}, {cv.n_dims})", None)
    if frames.shape[1:] != (cv.n_beads, cv.n_dims):
        raise InputError(f"frames must have shape (n_frames, {cv.n_beads}, {cv.n_dims}); got {frames.shape}")
    frames = frames[np.unique(np.linspace(0, len(frames) - 1, _CHECKED_FRAMES).astype(int))].astype(np.float64)
    numbers = _numbers(cv, atoms, None, exporter.FIRST_ATOM)
    values, gradients = exporter.evaluate(folder, cv, frames, atoms=numbers)
    model = exact(cv)
    expected, slopes = (np.array(part) for part in zip(*map(model, frames), strict=True))
    return len(frames), float(np.abs(values - expected).max()), float(np.abs(gradients - slopes).max())


def export_files(
    cv: LatentCV,
    folder: str | os.PathLike,
    *,
    to: str,
    atoms: str | None,
    data: Sequence[Path] | None,
    check: Sequence[Path] | None,
    latents: str | None = None,
    reading: dict,
    **options,
) -> str:
    """Write an export with trajectories from files, compare it where asked, and return a report for the user.

    Args:
        reading: options of `polyvae.read`; with a selection and no atom numbers the selected atoms are the beads.
        options: as for `write`.
    """
    atoms, n_atoms = _atoms_of_topology(to, atoms, ReadOptions(**reading))
    frames = None if check is None else cv.frames(read(check, **reading))
    trajectory = None if data is None else stream(data, **reading)
    numbers = None if latents is None else _latents_of(latents)
    cv = write(cv, to, folder, atoms=atoms, n_atoms=n_atoms, data=trajectory, latents=numbers, **options)
    done = f"{cv} for {to} in {folder}; {Path(folder) / 'README.md'} says how to use it"
    if frames is None:
        return done
    try:
        n, value, gradient = compare(cv, to, folder, frames, atoms=atoms)
    except InputError as error:
        raise InputError(f"{os.fspath(folder)} is written, but not checked: {error}") from None
    return (
        f"{done}\nevaluated in the engine on {n} frames: latents differ by at most {value:.1e}, gradients by "
        f"{gradient:.1e} per {cv.length_unit}"
    )


def _atoms_of_topology(to: str, atoms: str | None, reading: ReadOptions) -> tuple[str | None, int | None]:
    """Atom numbers from 1, where they or a selection are given, and the highest number where it is known."""
    select = reading.select if atoms is None else None
    if reading.topology is None:
        if select is None:
            return atoms, None
        raise InputError("a selection needs the topology that it selects from; give --top, or atoms by --atoms")
    known = read_topology(reading.topology, select, reading.topology_format)
    numbers, highest = known.chosen + 1, int(known.n_total)
    if known.ids is None or _exporter(to).FIRST_ATOM == 0:
        return atoms if select is None else ranges(numbers.tolist()), highest
    return atoms if select is None else ranges(known.ids.tolist()), None  # ids may have gaps


def _latents_of(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"latents must be whole numbers from 0, such as 0,1; got {text!r}") from None


def _exporter(to: str) -> Exporter:
    if not isinstance(to, str) or to not in TARGETS:
        raise InputError(f"a CV can be exported to {', '.join(TARGETS)}; got {shown(to)}")
    return cast(Exporter, importlib.import_module(f"polyvae.export.{to}"))

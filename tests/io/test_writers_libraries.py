"""Files that libraries write (gsd, mdtraj, MDAnalysis, h5py, ASE), against the arrays that they were given."""

import dataclasses
import functools
import importlib.util
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from writers import Case, Truth, chains, faults, wrapped, write_pdb

pytestmark = pytest.mark.long

WRITERS: dict[str, Callable[[Path], Case]] = {}


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="polyvae-writers-"))


@pytest.fixture(scope="module", autouse=True)
def _tally():
    cells: list[bool] = []
    _tally.cells = cells
    yield
    print(f"\nlibraries: {len(cells)} cells, {sum(cells)} right")
    shutil.rmtree(_folder(), ignore_errors=True)


def writer(*names: str):
    """Let a function, called with a folder and each of the names, write one file of the matrix."""

    def add(function):
        for name in names:
            WRITERS[f"{function.__name__} {name}"] = functools.partial(function, name)
        return function

    return add


def _scaled(truth: Truth, factor: float, unit: str) -> Truth:
    box = None if truth.box is None else factor * truth.box
    return dataclasses.replace(truth, positions=factor * truth.positions, box=box, unit=unit)


def _with_box(truth: Truth, periodic: tuple[bool, bool, bool], wall: float = 0.0) -> Truth:
    """The same chains in a box whose vectors are `wall` long where it is not periodic."""
    box, keep = truth.box.copy(), np.array(periodic)
    box[:, ~keep] = 0
    box[:, :, ~keep] = 0
    box[:, ~keep, ~keep] = wall
    return dataclasses.replace(truth, box=box, periodic=periodic)


def _flat(truth: Truth) -> Truth:
    """Chains in a plane, with unit vectors for bonds as long as before."""
    x, box = truth.positions.copy(), truth.box.copy()
    x[..., 2] = 0
    box[:, 2], box[:, :, 2] = 0, 0
    return dataclasses.replace(truth, positions=x, box=box, periodic=(True, True, False))


@writer("tilted", "fixed box", "flat", "flat of thickness 1", "slab", "no box")
def gsd(kind: str, folder: Path) -> Case:
    """GSD, whose box is centred at the origin; a length of 0 says that a direction is not periodic."""
    import gsd.hoomd

    truth = dataclasses.replace(_scaled(chains(), 1 / 0.3, "sigma"), time=None, ids=None)
    if kind == "fixed box":
        truth = dataclasses.replace(truth, box=np.repeat(truth.box[:1], len(truth.box), axis=0))
    elif kind.startswith("flat"):
        truth = _flat(truth)
    elif kind == "slab":
        truth = _with_box(truth, (True, True, False))
    elif kind == "no box":
        truth = _with_box(truth, (False,) * 3)
    solid = truth.box + np.diag([not side for side in truth.periodic])
    x, images = wrapped(truth.positions + solid.sum(axis=1)[:, None] / 2, solid, truth.periodic)
    x = x - solid.sum(axis=1)[:, None] / 2
    path = folder / "run.gsd"
    with gsd.hoomd.open(str(path), "w") as file:
        for k, box in enumerate(truth.box):
            frame = gsd.hoomd.Frame()
            frame.configuration.step = 100 * k
            frame.configuration.dimensions = 2 if kind.startswith("flat") else 3
            (lx, ly, lz), xy, xz, yz = np.diag(box), box[1, 0], box[2, 0], box[2, 1]
            lz = 1 if kind.endswith("1") else lz
            tilts = [a / b if b else 0 for a, b in ((xy, ly), (xz, lz), (yz, lz))]
            frame.configuration.box = [lx, ly, lz, *tilts]
            frame.particles.N, frame.particles.position, frame.particles.image = len(x[k]), x[k], images[k]
            frame.particles.types, frame.particles.mass = ["B"], truth.masses
            frame.bonds.N, frame.bonds.group, frame.bonds.types = len(truth.bonds), truth.bonds, ["b"]
            file.append(frame)
    return Case(kind, path, truth, "box periodic masses", {"topology": path}, 1e-4)


@writer("xtc", "dcd", "trr", "nc", "mdcrd", "gro", "lammpstrj", "xyz", "h5")
def mdtraj(kind: str, folder: Path) -> Case:
    """All that mdtraj saves, of chains that cross the faces of a tilted box; MDCRD knows right angles alone."""
    import mdtraj

    truth, states = chains(), {"xtc": "length box time", "trr": "length box time", "nc": "length box time"}
    if kind in ("mdcrd", "xyz"):
        truth = dataclasses.replace(truth, box=truth.box * np.eye(3))
    topology = mdtraj.load(write_pdb(folder / "top.pdb", truth)).topology
    x, _ = wrapped(truth.positions, truth.box)
    data = mdtraj.Trajectory(x, topology, time=truth.time)
    data.unitcell_vectors = truth.box
    path = folder / f"run.{kind}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.save(str(path))
    states |= {"dcd": "length box", "mdcrd": "length box", "gro": "length box time", "h5": "length box time"}
    states |= {"lammpstrj": "box ids periodic", "xyz": "length"}
    options = {"topology": folder / "top.pdb"}
    if kind == "lammpstrj":
        options["length_unit"] = "angstrom"
    if kind == "xyz":  # no box, so that nothing can be made whole
        truth = dataclasses.replace(truth, positions=x, box=None, periodic=(False,) * 3)
    # Its lines of the box are wider than the format's, which MDAnalysis' reader keeps to.
    refused = "Fixedcolumn.*Failed to read" if kind == "mdcrd" else ""
    return Case(kind, path, truth, states[kind], options, 2e-3, refused)


@writer("xtc", "trr", "dcd", "ncdf", "pdb", "gro", "xyz", "h5md")
def mdanalysis(kind: str, folder: Path) -> Case:
    """All that MDAnalysis writes of many frames, and GRO of one."""
    import MDAnalysis

    truth = chains(n_frames=1 if kind == "gro" else 5)
    if kind == "pdb":  # one box for all models
        truth = dataclasses.replace(truth, box=np.repeat(truth.box[:1], len(truth.box), axis=0))
    lengths = np.linalg.norm(truth.box, axis=2)
    a, b, c = (10 * truth.box / (10 * lengths[..., None])).swapaxes(0, 1)
    angles = [np.degrees(np.arccos((u * v).sum(axis=1))) for u, v in ((b, c), (a, c), (a, b))]
    dimensions = np.concatenate([10 * lengths, np.stack(angles, axis=1)], axis=1)
    x, _ = wrapped(truth.positions, truth.box)
    path, n = folder / f"run.{kind}", x.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe(str(write_pdb(folder / "top.pdb", truth)), to_guess=())
        universe.load_new(10 * x, dimensions=dimensions, dt=0.5)
        told = {"convert_units": False, "lengthunit": "Angstrom", "timeunit": "ps"} if kind == "h5md" else {}
        told |= {"dt": 0.5} if kind == "dcd" else {}
        with MDAnalysis.Writer(str(path), n_atoms=n, multiframe=kind != "gro", **told) as file:
            for _ in universe.trajectory:
                file.write(universe.atoms)
    truth = dataclasses.replace(truth, time=0.5 * np.arange(len(x)))
    states = {"dcd": "length box", "pdb": "length box", "gro": "length box", "xyz": "length"}
    if kind == "xyz":
        truth = dataclasses.replace(truth, positions=x, box=None, periodic=(False,) * 3)
    if kind in ("gro", "pdb", "xyz"):
        truth = dataclasses.replace(truth, time=None)
    return Case(kind, path, truth, states.get(kind, "length box time"), {"topology": folder / "top.pdb"}, 2e-3)


def _element(group, name: str, values: np.ndarray, times: str, unit: str | None, time_unit: str | None) -> None:
    """A time-dependent element of H5MD, its steps and times listed or fixed."""
    element = group.create_group(name)
    element["value"] = values
    if unit:
        element["value"].attrs["unit"] = unit
    n = len(values)
    if times == "fixed":
        element["step"], element["time"] = 5, 0.5
        element["time"].attrs["offset"], element["step"].attrs["offset"] = 10.0, 100
    else:
        element["step"], element["time"] = 100 + 5 * np.arange(n), 10 + 0.5 * np.arange(n)
    if time_unit:
        element["time"].attrs["unit"] = time_unit


H5MD = {  # ids permuted, box fixed or not, boundary, units of length and time, step and time
    "plain": (False, "varies", "ppp", "nm", "ps", "listed"),
    "permuted": (True, "varies", "ppp", "nm", "ps", "listed"),
    "fixed box": (False, "fixed", "ppp", "nm", "ps", "listed"),
    "box of lengths": (False, "lengths", "ppp", "nm", "ps", "listed"),
    "fixed time": (False, "varies", "ppp", "nm", "ps", "fixed"),
    "no boundary": (False, "none", "nnn", "nm", "ps", "listed"),
    "slab": (True, "lengths", "ppn", "nm", "ps", "listed"),
    "angstrom": (False, "varies", "ppp", "Angstrom", "fs", "listed"),
    "Ang of the units module": (True, "fixed", "ppp", "Ang", "ns", "fixed"),
    "bytes": (False, "varies", "ppp", np.bytes_("nm"), np.bytes_("ps"), "listed"),
    "reduced": (True, "varies", "ppp", None, None, "listed"),
}


@writer(*H5MD)
def h5md(kind: str, folder: Path) -> Case:
    """H5MD by h5py, with images, masses and ids; ids in another order in each frame where they are permuted."""
    import h5py

    permuted, boxes, boundary, unit, time_unit, times = H5MD[kind]
    truth, rng = chains(), np.random.default_rng(3)
    n_frames, n = truth.positions.shape[:2]
    if boxes in ("fixed", "lengths"):
        truth = dataclasses.replace(truth, box=np.repeat(truth.box[:1], n_frames, axis=0))
    if boxes == "lengths":
        truth = dataclasses.replace(truth, box=truth.box * np.eye(3))
    if boundary != "ppp":
        truth = _with_box(truth, tuple(word == "p" for word in boundary), wall=0.5)
    x, _ = wrapped(truth.positions, truth.box, truth.periodic)
    order = np.array([rng.permutation(n) if permuted else np.arange(n) for _ in range(n_frames)])
    length = {"nm": 1.0, b"nm": 1.0, "Angstrom": 10.0, "Ang": 10.0, None: 1 / 0.3}[unit]
    per_time = {"ps": 1.0, b"ps": 1.0, "fs": 1e-3, "ns": 1e3, None: 1.0}[time_unit]
    path = folder / "run.h5md"
    with h5py.File(path, "w") as file:
        head = file.create_group("h5md")
        head.attrs["version"] = [1, 1]
        head.create_group("author").attrs["name"] = "a"
        creator = head.create_group("creator")
        creator.attrs["name"], creator.attrs["version"] = "a", "1"
        group = file.create_group("particles/all")
        taken = np.take_along_axis(x, order[..., None], axis=1)
        _element(group, "position", length * taken, times, unit, time_unit)
        if permuted:
            _element(group, "id", 1 + order, times, None, time_unit)
            _element(group, "mass", truth.masses[order], times, None, time_unit)
        else:
            group["id"], group["mass"] = 1 + np.arange(n), truth.masses
        box = group.create_group("box")
        words = ["periodic" if word == "p" else "none" for word in boundary]
        box.attrs["dimension"], box.attrs["boundary"] = 3, np.array(words, "S8")
        if boxes == "varies":
            _element(box, "edges", length * truth.box, times, unit, time_unit)
        elif boxes != "none":
            edges = length * truth.box[0]
            box["edges"] = np.diag(edges) if boxes == "lengths" else edges
    truth = dataclasses.replace(truth, time=per_time * truth.time)
    if unit is None:
        truth = _scaled(truth, length, "sigma")
    elif length == 10:
        truth = _scaled(truth, length, "angstrom")
    if boxes == "none":
        truth = dataclasses.replace(truth, box=None)
    options = {"topology": write_pdb(folder / "top.pdb", truth)}
    return Case(kind, path, truth, "length box periodic time ids masses", options, 1e-4)


@writer("tilted", "slab", "no box", "mixed", "xyz name")
def ase(kind: str, folder: Path) -> Case:
    """Extended XYZ by ASE."""
    from ase import Atoms
    from ase.io import write

    truth = dataclasses.replace(_scaled(chains(), 10, "angstrom"), time=None, ids=None, masses=None)
    if kind == "slab":
        truth = _with_box(truth, (True, True, False), wall=4.0)
    elif kind == "mixed":
        truth = _with_box(truth, (False, True, False), wall=4.0)
    elif kind == "no box":
        truth = dataclasses.replace(truth, box=None, periodic=(False,) * 3)
    box = np.zeros((len(truth.positions), 3, 3)) if truth.box is None else truth.box
    x = truth.positions if truth.box is None else wrapped(truth.positions, box, truth.periodic)[0]
    frames = [
        Atoms(["C"] * len(y), positions=y, cell=cell, pbc=truth.periodic) for y, cell in zip(x, box, strict=True)
    ]
    path = folder / ("run.xyz" if kind == "xyz name" else "run.extxyz")
    write(str(path), frames, format="extxyz")
    options = {"topology": write_pdb(folder / "top.pdb", truth)}
    return Case(kind, path, truth, "length box periodic", options, 1e-4)


@functools.cache
def case(name: str) -> Case:
    """One file of one library."""
    folder = _folder() / name.replace(" ", "_")
    folder.mkdir(exist_ok=True)
    return WRITERS[name](folder)


def all_cases() -> list[tuple[str]]:
    """Files by name."""
    return [(name,) for name in WRITERS if name != "mdtraj h5" or importlib.util.find_spec("tables")]


@pytest.mark.parametrize("name", [name for (name,) in all_cases()])
def test_library(name):
    package = name.split()[0]
    module = {"h5md": "h5py", "mdanalysis": "MDAnalysis"}.get(package, package)
    pytest.importorskip(module)
    found = faults(case(name))
    _tally.cells += [not text for text in found.values()]
    assert not any(found.values()), {fact: text for fact, text in found.items() if text}

"""Small files made by hand, of formats whose facts stand where MDAnalysis does not look."""

import dataclasses
import gzip

import numpy as np
import pytest
from writers import Case, chains, faults, wrapped, write_pdb

import polyvae as pv
from polyvae.errors import InputError

CHAINS = dataclasses.replace(chains(), ids=None)
ANGSTROM = dataclasses.replace(CHAINS, positions=10 * CHAINS.positions, box=10 * CHAINS.box, unit="angstrom")


def columns(values, width: int, digits: int) -> str:
    """Numbers in columns, as Fortran writes them."""
    return "".join(f"{value:{width}.{digits}f}" for value in np.ravel(values)) + "\n"


def check(case: Case) -> None:
    found = faults(case)
    assert not any(found.values()), {fact: text for fact, text in found.items() if text}


def dl_poly(truth, imcon: int, *, frames: bool, times: bool = True) -> str:
    """A HISTORY, or a CONFIG of the first frame; with times of their own or only steps and a time step."""
    x = truth.positions if imcon == 0 else wrapped(truth.positions, truth.box, truth.periodic)[0]
    n = x.shape[1]
    text = "chains\n" + f"{0:10d}{imcon:10d}{n:10d}\n"
    for k, frame in enumerate(x if frames else x[:1]):
        if frames:
            time = f"{truth.time[k]:20.6f}" if times else ""
            text += f"timestep{20000 + 1000 * k:10d}{n:10d}{0:10d}{imcon:10d}{0.0005:20.6f}{time}\n"
        if imcon:
            text += "".join(columns(row, 20, 10) for row in truth.box[k])
        for i, place in enumerate(frame):
            text += f"{'B':8s}{i + 1:10d}{1.0:12.6f}{0.0:12.6f}{0.0:12.6f}\n" + columns(place, 20, 10)
    return text


def flat_in_z(truth):
    """The chains as a zigzag in z, which walls hold that stand closer than two of its steps."""
    x, box = truth.positions.copy(), truth.box.copy()
    x[..., 2] = 0.1 + 1.5 * (np.arange(x.shape[1]) % 2)
    box[:, 2] = 0, 0, 1.8
    return dataclasses.replace(truth, positions=x, box=box, periodic=(True, True, False))


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("imcon", [0, 3, 6])
def test_history_of_dl_poly(tmp_path, imcon, times):
    """Keys of the boundary: none, a parallelepiped, a slab."""
    truth = flat_in_z(ANGSTROM) if imcon == 6 else ANGSTROM
    if imcon == 0:
        truth = dataclasses.replace(truth, box=None, periodic=(False,) * 3)
    (tmp_path / "HISTORY").write_text(dl_poly(truth, imcon, frames=True, times=times))
    options = {"topology": write_pdb(tmp_path / "top.pdb", truth), "format": "HISTORY"}
    check(Case("HISTORY", tmp_path / "HISTORY", truth, "length box periodic time", options, 1e-4))


def test_config_of_dl_poly(tmp_path):
    slab = flat_in_z(ANGSTROM)
    (tmp_path / "CONFIG").write_text(dl_poly(slab, 6, frames=False))
    first = dataclasses.replace(slab, positions=slab.positions[:1], box=slab.box[:1], time=None)
    options = {"topology": write_pdb(tmp_path / "top.pdb", first), "format": "CONFIG"}
    check(Case("CONFIG", tmp_path / "CONFIG", first, "length box periodic", options, 1e-4))


@pytest.mark.parametrize("velocities", [False, True])
@pytest.mark.parametrize("angles", [False, True])
def test_box_of_an_amber_restart(tmp_path, velocities, angles):
    box = ANGSTROM.box[:1] * np.eye(3)
    first = dataclasses.replace(ANGSTROM, positions=ANGSTROM.positions[:1], box=box, time=np.array([12.5]))
    (x,), _ = wrapped(first.positions, box)
    arrays = [x, 0.1 * x] if velocities else [x]
    text = f"chains\n{len(x):5d}{12.5:15.7e}\n"
    for array in arrays:
        text += "".join(columns(array.ravel()[k : k + 6], 12, 7) for k in range(0, array.size, 6))
    numbers = [*np.diag(box[0]), 90, 90, 90]
    (tmp_path / "run.inpcrd").write_text(text + columns(numbers if angles else numbers[:3], 12, 7))
    options = {"topology": write_pdb(tmp_path / "top.pdb", first)}
    check(Case("inpcrd", tmp_path / "run.inpcrd", first, "length box", options, 1e-4))


@pytest.mark.parametrize("times", [False, True])
def test_box_and_times_of_a_packed_pdb(tmp_path, times):
    """CRYST1 stands once, before all models; GROMACS writes a title with the time before each."""
    box = np.repeat(ANGSTROM.box[:1] * np.eye(3), 5, axis=0)
    truth = dataclasses.replace(ANGSTROM, box=box, time=ANGSTROM.time if times else None)
    text = "CRYST1" + columns(np.diag(box[0]), 9, 3)[:-1] + "  90.00  90.00  90.00 P 1           1\n"
    for k, frame in enumerate(wrapped(truth.positions, box)[0]):
        text += f"TITLE     chains t= {truth.time[k]:9.5f} step= {k}\n" if times else ""
        text += f"MODEL     {k + 1:4d}\n"
        for i, place in enumerate(frame):
            text += f"ATOM  {i + 1:5d}  B   MOL A   1    {columns(place, 8, 3)[:-1]}  1.00  0.00\n"
        text += "ENDMDL\n"
    text += "".join(f"CONECT{a + 1:5d}{b + 1:5d}\n" for a, b in truth.bonds) + "END\n"
    (tmp_path / "run.pdb.gz").write_bytes(gzip.compress(text.encode()))
    check(Case("pdb", tmp_path / "run.pdb.gz", truth, "length box time", {}, 2e-3))


def xyz(truth, comment, factor: float = 1.0) -> str:
    """Frames under a comment each; positions in another unit by a factor."""
    text = ""
    for k, frame in enumerate(truth.positions if truth.box is None else wrapped(truth.positions, truth.box)[0]):
        text += f"{len(frame)}\n{comment(k)}\n"
        text += "".join("C " + columns(factor * place, 15, 8) for place in frame)
    return text


@pytest.mark.parametrize("unit", ["atomic_unit", "angstrom", "nanometer", None, "furlong"])
def test_cells_and_units_of_i_pi(tmp_path, unit):
    """The cell is in atomic units; positions in the unit that the comment names, else in atomic units, too."""
    bohr = 0.529177210544
    factor = {"angstrom": 1.0, "nanometer": 0.1}.get(unit, 1 / bohr)
    truth = dataclasses.replace(ANGSTROM, time=None)
    lengths = np.linalg.norm(truth.box, axis=2)
    a, b, c = (truth.box / lengths[..., None]).swapaxes(0, 1)
    angles = np.degrees(np.arccos([(b * c).sum(axis=1), (a * c).sum(axis=1), (a * b).sum(axis=1)]))

    def comment(k):
        cell = columns([*(lengths[k] / bohr), *angles[:, k]], 13, 6)[:-1]
        words = f"positions{{{unit}}} cell{{atomic_unit}}" if unit else ""
        return f"# CELL(abcABC): {cell}  Step: {10 * k:11d}  Bead:       0 {words}"

    (tmp_path / "run.xyz").write_text(xyz(truth, comment, factor))
    options = {"topology": write_pdb(tmp_path / "top.pdb", truth)}
    refused = "furlong" if unit == "furlong" else ""
    check(Case("i-PI", tmp_path / "run.xyz", truth, "length box periodic", options, 1e-4, refused))


def test_times_of_cp2k(tmp_path):
    truth = dataclasses.replace(ANGSTROM, box=None, periodic=(False,) * 3)
    text = xyz(truth, lambda k: f" i = {k:8d}, time = {1000 * truth.time[k]:12.3f}, E =       -17.16")
    (tmp_path / "run.xyz").write_text(text)
    options = {"topology": write_pdb(tmp_path / "top.pdb", truth)}
    check(Case("CP2K", tmp_path / "run.xyz", truth, "length time", options, 1e-4))


@pytest.mark.parametrize("lost", [1, 3, 15])
@pytest.mark.parametrize("boxed", [False, True])
def test_tinker_archive_that_ends_early(tmp_path, boxed, lost):
    """The first frame that is not whole is named; the others are read where that is asked for."""
    x, lines = ANGSTROM.positions, []
    for frame in x:
        lines += [f"{len(frame):6d} chains", *(["20.0 20.0 20.0 90.0 90.0 90.0"] if boxed else [])]
        lines += [f"{i + 1:6d} C {columns(place, 12, 6)[:-1]}     1" for i, place in enumerate(frame)]
    path = tmp_path / "run.arc"
    path.write_text("\n".join(lines[:-lost]) + "\n")
    with pytest.raises(InputError, match="in frame 4"):
        pv.read(path, unwrap=False)
    np.testing.assert_allclose(pv.read(path, unwrap=False, keep_good=True).positions, x[:4], atol=1e-5)
    path.write_text("\n".join(lines) + "\n\n")
    assert len(pv.read(path, unwrap=False)) == 5


@pytest.mark.parametrize("style", ["sphere", "hybrid bond sphere", "body"])
def test_masses_that_atoms_state_each(tmp_path, caplog, style):
    """Masses follow from the density of each sphere; they are not read, and that is logged."""
    head = "spheres\n\n2 atoms\n1 atom types\n\n0 9 xlo xhi\n0 9 ylo yhi\n0 9 zlo zhi\n\n"
    row = {"sphere": "1 1.0 0.5 0 0 0", "hybrid bond sphere": "1 0 0 0 1 1.0 0.5", "body": "1 1 2.5 0 0 0"}[style]
    path = tmp_path / "chain.data"
    path.write_text(f"{head}Atoms # {style}\n\n1 {row}\n2 {row}\n")
    dump = "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS ff ff ff\n" + 3 * "0 9\n"
    (tmp_path / "run.dump").write_text(f"{dump}ITEM: ATOMS id x y z\n1 1 1 1\n2 2 2 2\n")
    with caplog.at_level("INFO", logger="polyvae"):
        traj = pv.read(tmp_path / "run.dump", topology=path)
    assert (traj.masses == 1).all()
    assert "which is not used; masses are" in caplog.text

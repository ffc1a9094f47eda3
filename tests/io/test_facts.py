"""A fact that a file states is used, or reported; a fact that it does not state is not made up."""

import bz2
import gzip
import logging
import lzma
import struct

import h5py
import MDAnalysis
import mdtraj
import numpy as np
import pytest
from mdtraj.formats import DCDTrajectoryFile, XTCTrajectoryFile

import polyvae as pv
from polyvae.core.units import length_of, picoseconds
from polyvae.io.readers import READERS
from polyvae.trajectory.facts import FACTS, FATES, Facts


def walk(n_frames=12, n_beads=10, bond=1.0, seed=0):
    """Chains of bonds of one length, (n_frames, n_beads, 3)."""
    steps = np.random.default_rng(seed).normal(size=(n_frames, n_beads - 1, 3))
    steps *= bond / np.linalg.norm(steps, axis=2, keepdims=True)
    return np.concatenate([np.zeros((n_frames, 1, 3)), np.cumsum(steps, axis=1)], axis=1)


def bonds_of(x):
    return np.linalg.norm(np.diff(np.asarray(x, float), axis=1), axis=2)


def same_shape(found, x, atol=1e-3):
    """Vectors from the first bead agree."""
    np.testing.assert_allclose(found - found[:, :1], x - x[:, :1], atol=atol)


def pdb(path, n, names=None, chains=None, resids=None, conect=True, places=None):
    """A PDB topology whose beads are bonded in order."""
    places = np.zeros((n, 3)) if places is None else places
    lines = []
    for i in range(n):
        name, chain = (names or ["B"] * n)[i], (chains or "A" * n)[i]
        resid = (resids or [1] * n)[i]
        x, y, z = places[i]
        lines.append(
            f"ATOM  {i + 1:5d} {name:^4s} MOL {chain}{resid:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00\n"
        )
    if conect:
        lines += [f"CONECT{i + 1:5d}{i + 2:5d}\n" for i in range(n - 1)]
    path.write_text("".join(lines))
    return path


def dump(path, frames, bounds, flags="pp pp pp", columns="id type x y z", ids=None, head="", time=None):
    """A dump of LAMMPS; `bounds` are three lines of one frame, or of each."""
    ids = range(1, len(frames[0]) + 1) if ids is None else ids
    with path.open("w") as file:
        for k, frame in enumerate(frames):
            if time is not None:
                file.write(f"ITEM: TIME\n{time[k]}\n")
            lines = bounds[k] if isinstance(bounds, list) else bounds
            file.write(f"{head}ITEM: TIMESTEP\n{10 * k}\nITEM: NUMBER OF ATOMS\n{len(frame)}\n")
            file.write(f"ITEM: BOX BOUNDS {flags}\n{lines}ITEM: ATOMS {columns}\n")
            file.writelines(f"{i} 1 {a:.6f} {b:.6f} {c:.6f}\n" for i, (a, b, c) in zip(ids, frame, strict=True))
    return path


def heard(caplog):
    return " | ".join(record.getMessage() for record in caplog.records)


# Facts as a mechanism.


def test_every_reader_has_a_place_or_none_for_every_fact():
    assert set(FATES) == set(FACTS)
    for reader in READERS.values():
        assert set(reader.NO_PLACE_FOR) <= set(FACTS)
    with pytest.raises(TypeError, match="weights"):
        Facts(**dict.fromkeys(set(FACTS) - {"weights"}))  # a fact cannot be forgotten


@pytest.mark.parametrize(("name", "nm"), [("Angstrom", 0.1), ("nm", 1), ("bohr", 0.0529177210544), ("um", 1000)])
def test_units_of_length(name, nm):
    unit, factor = length_of(name)
    assert factor * {"nm": 1, "angstrom": 0.1}[unit] == pytest.approx(nm)


def test_units_of_time():
    assert picoseconds("fs") == 1e-3
    assert picoseconds("ns") == 1e3
    # Å sqrt(g/mol / (kcal/mol)): 1e-10 m sqrt(1e-3 kg / 4184 J) = 48.888 fs
    assert picoseconds("akma") == pytest.approx(1e-10 * np.sqrt(1e-3 / 4184) * 1e12, rel=1e-5)
    assert picoseconds("fortnight") is None


# Periodic directions.


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("flag", ["ff", "ss", "mm", "fs", "sm"])
def test_a_direction_that_is_not_periodic_is_left_alone(tmp_path, axis, flag):
    """A zigzag of 0.6 in a box of 0.7 along one axis, and wrapped along the others."""
    x = np.zeros((8, 9, 3))
    x[..., (axis + 1) % 3] = 0.8 * np.arange(9) + np.linspace(0, 11, 8)[:, None]
    x[..., (axis + 2) % 3] = 0.3
    x[..., axis] = 0.6 * (np.arange(9) % 2)
    wrapped = x.copy()
    for other in {0, 1, 2} - {axis}:
        wrapped[..., other] %= 5.0
    lines = ["0 5\n"] * 3
    lines[axis] = "-0.05 0.65\n"
    flags = ["pp"] * 3
    flags[axis] = flag
    traj = pv.read(dump(tmp_path / "a.dump", wrapped, "".join(lines), " ".join(flags)), dims=3)
    same_shape(traj.positions, x)
    assert traj.periodic == tuple(k != axis for k in range(3))


def test_periodic_directions_of_h5md_and_extended_xyz(tmp_path):
    x = walk(seed=4)
    wrapped = x.copy()
    wrapped[..., :2] %= 4.0
    with h5py.File(tmp_path / "a.h5md", "w") as file:
        group = file.create_group("particles/all/position")
        group["value"], group["step"] = wrapped, np.arange(12)
        box = file.create_group("particles/all/box")
        box.attrs["boundary"] = np.array(["periodic", "periodic", "none"], dtype="S8")
        box["edges"] = [4.0, 4.0, 1.5]
    with (tmp_path / "a.xyz").open("w") as file:
        for frame in wrapped:
            file.write('10\nLattice="4 0 0 0 4 0 0 0 1.5" Properties=species:S:1:pos:R:3 pbc="T T F"\n')
            file.writelines(f"B {a} {b} {c}\n" for a, b, c in frame)
    for name in ("a.h5md", "a.xyz"):
        traj = pv.read(tmp_path / name, length_unit="sigma")
        same_shape(traj.positions, x)
        assert traj.periodic == (True, True, False)


def test_axes_of_no_length_in_gsd(tmp_path):
    gsd = pytest.importorskip("gsd.hoomd")
    x = walk(seed=5)
    x -= x.mean(axis=1, keepdims=True)
    wrapped = x.copy()
    wrapped[..., 0] -= 4 * np.round(wrapped[..., 0] / 4)
    with gsd.open(tmp_path / "a.gsd", "w") as file:
        for k, places in enumerate(wrapped):
            frame = gsd.Frame()
            frame.configuration.step, frame.configuration.box = k, [4, 0, 0, 0, 0, 0]
            frame.particles.N, frame.particles.position = 10, places
            file.append(frame)
    traj = pv.read(tmp_path / "a.gsd")
    same_shape(traj.positions, x)
    assert traj.periodic == (True, False, False)


def shrink_wrapped(n_frames, margin, seed=2):
    """A chain that wanders, bonds of 1, flat along z; and the lengths of the box that encloses it."""
    rng = np.random.default_rng(seed)
    x = walk(n_frames, 12, seed=seed)
    x[..., 2] = 0.6 * (np.arange(12) % 2) + 0.02 * rng.normal(size=(n_frames, 12))
    x += np.cumsum(rng.normal(size=(n_frames, 1, 3)), axis=0)
    low, high = x.min(axis=1), x.max(axis=1)
    slack = margin * (high - low) * rng.uniform(-1, 1, size=low.shape) if margin > 1e-3 else margin * (high - low)
    return x, high - low + slack


@pytest.mark.parametrize("margin", [1e-4, 0.02])
@pytest.mark.parametrize("suffix", ["dcd", "xtc"])
def test_a_box_that_follows_the_atoms_is_not_periodic(tmp_path, caplog, suffix, margin):
    """LAMMPS sets such a box when it builds neighbour lists, so that it fits to a few percent in between."""
    caplog.set_level(logging.INFO, logger="polyvae")
    x, lengths = shrink_wrapped(60, margin)
    path, n = tmp_path / f"a.{suffix}", len(x)
    if suffix == "dcd":
        with DCDTrajectoryFile(str(path), "w") as file:
            file.write(x.astype("f4"), lengths.astype("f4"), np.full((n, 3), 90, "f4"))
    else:
        with XTCTrajectoryFile(str(path), "w") as file:
            box = np.zeros((n, 3, 3), np.float32)
            box[:, range(3), range(3)] = lengths
            file.write(x.astype("f4"), box=box, time=np.arange(n).astype("f4"), step=np.arange(n))
    traj = pv.read(path, topology=pdb(tmp_path / "a.pdb", 12), length_unit="sigma", dims=3)
    same_shape(traj.positions, x, atol=2e-3)
    assert traj.periodic == (False, False, False)
    assert "follows the outermost atoms" in heard(caplog)


def test_a_periodic_box_that_varies_stays_one(tmp_path):
    """60 beads that fill a box of 4, which varies by a few percent from frame to frame, in GROMACS' corner."""
    rng = np.random.default_rng(3)
    n = 80
    lengths = 4 * (1 + 0.03 * rng.normal(size=(n, 1))) * np.ones(3)
    x = walk(n, 60, bond=0.9, seed=3) + rng.uniform(0, 4, size=(n, 1, 3))
    with DCDTrajectoryFile(str(tmp_path / "a.dcd"), "w") as file:
        file.write((x % lengths[:, None]).astype("f4"), lengths.astype("f4"), np.full((n, 3), 90, "f4"))
    traj = pv.read(tmp_path / "a.dcd", topology=pdb(tmp_path / "a.pdb", 60), length_unit="sigma")
    np.testing.assert_allclose(bonds_of(traj.positions), 0.9, atol=1e-4)
    assert traj.periodic is None


def test_a_box_without_flags_is_taken_for_periodic_where_it_does_not_follow(tmp_path):
    x = walk(seed=6)
    traj = pv.read(dump(tmp_path / "a.dump", x % 5.0, "0 5\n" * 3, flags=""))
    np.testing.assert_allclose(bonds_of(traj.positions), 1, atol=1e-5)
    assert traj.periodic is None


# Boxes in their own orientation.


def symmetric(metric):
    """The symmetric matrix whose rows have the scalar products `metric`."""
    values, axes = np.linalg.eigh(metric)
    return axes @ np.diag(np.sqrt(values)) @ axes.T


def charmm_dcd(path, x, matrices, version=46, marker="i", order="<", fixed=None):
    """A DCD with the cells of CHARMM; `fixed`: atoms that only the first frame holds."""

    def record(data):
        size = struct.pack(order + marker, len(data))
        return size + data + size

    n = x.shape[1]
    free = np.setdiff1d(np.arange(n), fixed if fixed is not None else [])
    integers = [len(x), 10, 10, 10 * len(x), 0, 0, 0, 0, n - len(free)]
    head = b"CORD" + struct.pack(f"{order}9if", *integers, 0.05) + struct.pack(f"{order}10i", 1, *[0] * 8, version)
    with path.open("wb") as file:
        file.write(
            record(head) + record(struct.pack(order + "i", 1) + b" " * 80) + record(struct.pack(order + "i", n))
        )
        if len(free) < n:
            file.write(record(np.asarray(free + 1, order + "i4").tobytes()))
        for k, (frame, m) in enumerate(zip(x, matrices, strict=True)):
            places = [m[0][0], m[1][0], m[1][1], m[2][0], m[2][1], m[2][2]]
            file.write(record(np.array(places, order + "f8").tobytes()))
            rows = frame if k == 0 else frame[free]
            for axis in range(3):
                file.write(record(rows[:, axis].astype(order + "f4").tobytes()))
    return path


SHAPES = {
    "nearly right": [1, 0.02, 0.01, 1, 0.005, 1],
    "octahedron": [1, -1 / 3, -1 / 3, 1, -1 / 3, 1],
    "hexagonal": [1, 0.5, 0, 1, 0, 1.7**2],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_cells_of_charmm(tmp_path, shape):
    a, b, c, d, e, f = SHAPES[shape]
    scale = np.linspace(10, 11, 12)
    matrices = [s * symmetric(np.array([[a, b, c], [b, d, e], [c, e, f]])) for s in scale]
    x = walk(bond=1.5, seed=7)
    inside = np.einsum("fbi,fij->fbj", x, np.linalg.inv(matrices))
    wrapped = np.einsum("fbi,fij->fbj", inside - np.floor(inside), matrices)
    path = charmm_dcd(tmp_path / "a.dcd", wrapped, matrices)
    traj = pv.read(path, topology=pdb(tmp_path / "a.pdb", 10))
    same_shape(traj.positions, x)
    np.testing.assert_allclose(traj.box, matrices, rtol=1e-6)
    np.testing.assert_allclose(np.diff(traj.time), 10 * 0.05 * 0.04888821, rtol=1e-5)
    pv.write(tmp_path / "b.npz", traj)  # the box keeps its orientation
    np.testing.assert_array_equal(pv.read(tmp_path / "b.npz").box, traj.box)


@pytest.mark.parametrize("cell", [[50, 90, 60, 90, 90, 70], [50, 0, 60, 0, 0, 70]])
def test_cells_of_other_writers_are_lengths_and_angles(tmp_path, cell):
    """Whatever version they state."""
    x = walk(3)
    m = np.zeros((3, 3))
    m[0, 0], m[1, 0], m[1, 1], m[2, 0], m[2, 1], m[2, 2] = cell
    traj = pv.read(charmm_dcd(tmp_path / "a.dcd", x, [m] * 3), unwrap=False)
    np.testing.assert_allclose(traj.box[0], np.diag([50, 60, 70]), atol=1e-4)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("marker", "iq")
@pytest.mark.parametrize("fixed", [None, [0, 3, 4]])
def test_variants_of_dcd(tmp_path, order, marker, fixed):
    """Byte orders, record markers of 8 bytes, fixed atoms."""
    x = walk(9, seed=8).astype(np.float32)
    if fixed is not None:
        x[:, fixed] = x[:1, fixed]
    cells = [20 * np.eye(3)] * 9
    path = charmm_dcd(tmp_path / "a.dcd", x, cells, order=order, marker=marker, fixed=fixed)
    np.testing.assert_array_equal(pv.read(path, unwrap=False).positions, x)
    np.testing.assert_array_equal(pv.read(path, unwrap=False, start=4, step=2).positions, x[4::2])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(pv.InputError, match="frame 8"):
        pv.read(path)


@pytest.mark.filterwarnings("ignore:Element information is missing")
def test_a_universe_whose_box_has_lost_its_orientation_is_refused(tmp_path):
    m = 12 * symmetric(np.array([[1, -1 / 3, -1 / 3], [-1 / 3, 1, -1 / 3], [-1 / 3, -1 / 3, 1]]))
    path = charmm_dcd(tmp_path / "a.dcd", walk(4), [m] * 4)
    universe = MDAnalysis.Universe(str(pdb(tmp_path / "a.pdb", 10)), str(path))
    with pytest.raises(pv.InputError, match="orientation.*pv.read"):
        pv.as_trajectory(universe)
    assert len(pv.as_trajectory(universe, unwrap=False)) == 4


def test_a_tilted_gsd_of_a_universe(tmp_path):
    """MDAnalysis takes tilts for cosines; they are taken back."""
    gsd = pytest.importorskip("gsd.hoomd")
    box = np.array([[5, 0, 0], [0.4 * 6, 6, 0], [-0.3 * 7, 0.2 * 7, 7]])
    x = walk(seed=9)
    inside = x @ np.linalg.inv(box)
    wrapped = (inside - np.round(inside)) @ box
    with gsd.open(tmp_path / "a.gsd", "w") as file:
        for k, places in enumerate(wrapped):
            frame = gsd.Frame()
            frame.configuration.step, frame.configuration.box = k, [5, 6, 7, 0.4, -0.3, 0.2]
            frame.particles.N, frame.particles.position = 10, places
            frame.bonds.N, frame.bonds.group = 9, [[i, i + 1] for i in range(9)]
            file.append(frame)
    for traj in (
        pv.as_trajectory(MDAnalysis.Universe(str(tmp_path / "a.gsd")), length_unit="sigma"),
        pv.read(tmp_path / "a.gsd"),
    ):
        same_shape(traj.positions, x, atol=1e-4)
        np.testing.assert_allclose(traj.box[0], box, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Element information is missing", "ignore:Reader has no dt")
def test_a_dump_of_a_universe_keeps_its_periodic_directions(tmp_path):
    x = np.zeros((6, 8, 3))
    x[..., 0], x[..., 2] = 0.8 * np.arange(8), 0.6 * (np.arange(8) % 2)
    path = dump(tmp_path / "a.lammpstrj", x % [4, 4, 9], "0 4\n0 4\n-0.05 0.65\n", "pp pp ff")
    universe = MDAnalysis.Universe(str(pdb(tmp_path / "a.pdb", 8)), str(path), format="LAMMPSDUMP")
    same_shape(pv.as_trajectory(universe, length_unit="sigma").positions, x, atol=1e-4)


# Identity of beads.


@pytest.mark.parametrize("suffix", ["h5md", "xyz", "dump", "nc"])
def test_beads_that_change_places_are_sorted_by_id(tmp_path, suffix):
    rng = np.random.default_rng(1)
    ids = np.array([107, 103, 120, 101, 115])
    x = walk(7, 5)
    order = np.array([rng.permutation(5) for _ in range(7)])
    mixed, numbers = np.take_along_axis(x, order[..., None], axis=1), ids[order]
    path = tmp_path / f"a.{suffix}"
    if suffix == "h5md":
        with h5py.File(path, "w") as file:
            for name, value in (("position", mixed), ("id", numbers)):
                group = file.create_group(f"particles/all/{name}")
                group["value"], group["step"] = value, np.arange(7)
    elif suffix == "xyz":
        with path.open("w") as file:
            for frame, row in zip(mixed, numbers, strict=True):
                file.write("5\nProperties=id:I:1:species:S:1:pos:R:3\n")
                file.writelines(f"{i} B {a} {b} {c}\n" for i, (a, b, c) in zip(row, frame, strict=True))
    elif suffix == "nc":
        netcdf(path, mixed, ids=numbers)
    else:
        with path.open("w") as file:
            for k, (frame, row) in enumerate(zip(mixed, numbers, strict=True)):
                dump(tmp_path / "one", frame[None], "-50 50\n" * 3, ids=row)
                file.write((tmp_path / "one").read_text().replace("TIMESTEP\n0", f"TIMESTEP\n{k}"))
    traj = pv.read(path, length_unit="sigma", unwrap=False)
    np.testing.assert_allclose(traj.positions, x[:, np.argsort(ids)], atol=1e-5)
    assert traj.ids.tolist() == sorted(ids)


def lammps_data(path, ids, bonds, style="bond", rows=None, masses=(1.0,)):
    rows = rows or [f"{i} 1 1 0 0 0" for i in ids]
    path.write_text(
        f"made by a test\n\n{len(ids)} atoms\n{len(bonds)} bonds\n{len(masses)} atom types\n1 bond types\n\n"
        + "".join(f"-9 9 {axis}lo {axis}hi\n" for axis in "xyz")
        + "\nMasses\n\n"
        + "".join(f"{k + 1} {mass}\n" for k, mass in enumerate(masses))
        + f"\nAtoms{' # ' + style if style else ''}\n\n"
        + "".join(row + "\n" for row in rows)
        + ("\nBonds\n\n" + "".join(f"{k + 1} 1 {i} {j}\n" for k, (i, j) in enumerate(bonds)) if bonds else "")
    )
    return path


def test_a_dump_of_a_group_finds_its_atoms_in_the_topology(tmp_path):
    """Ids 1, 2 of a wall, and a chain 11, 15, 19 with bonds."""
    top = lammps_data(tmp_path / "a.data", [1, 2, 11, 15, 19], [(11, 15), (15, 19)])
    x = walk(6, 3)
    path = dump(tmp_path / "a.dump", x % 3.0, "0 3\n" * 3, ids=[11, 15, 19])
    traj = pv.read(path, topology=top)
    np.testing.assert_allclose(bonds_of(traj.positions), 1, atol=1e-5)
    assert traj.ids.tolist() == [11, 15, 19]
    assert traj.bonds.tolist() == [[0, 1], [1, 2]]
    with pytest.raises(pv.InputError, match="id 12.*lacks"):
        pv.read(dump(path, x, "0 3\n" * 3, ids=[11, 12, 19]), topology=top)
    with pytest.raises(pv.InputError, match="lacks the id 1,"):
        pv.read(dump(path, x, "0 3\n" * 3, ids=[11, 15, 19]), topology=top, select="id 1 11 15")


def test_ids_go_with_the_model(tmp_path):
    x = walk(60, 4)
    traj = pv.read(dump(tmp_path / "a.dump", x, "-9 9\n" * 3, "ff ff ff", ids=[7, 8, 12, 13]))
    cv = pv.fit(traj, epochs=1, encoder=(4,), decoder=(4,), lag=0)
    cv.save(tmp_path / "m.safetensors")
    assert pv.load(tmp_path / "m.safetensors").template.ids.tolist() == [7, 8, 12, 13]


def test_beads_in_another_order_than_the_model(caplog):
    rng = np.random.default_rng(0)
    x = walk(120, 5, seed=3) + 0.1 * rng.normal(size=(120, 5, 3))
    options = {"epochs": 1, "encoder": (4,), "decoder": (4,), "lag": 0}
    cv = pv.fit(pv.Trajectory(x, names="ABCDE"), **options)
    order = [3, 0, 4, 1, 2]
    moved = pv.Trajectory(x[:, order], names=[*"ABCDE"[3], "A", "E", "B", "C"])
    np.testing.assert_array_equal(cv.transform(moved), cv.transform(x))
    assert "order" in heard(caplog)

    ends = pv.fit(pv.Trajectory(x, names="HBBBT"), **options)
    np.testing.assert_array_equal(ends.transform(pv.Trajectory(x[:, ::-1], names="TBBBH")), ends.transform(x))
    with pytest.raises(pv.InputError, match="another order"):
        ends.transform(pv.Trajectory(x, names="BHBBT"))
    caplog.clear()
    ends.transform(pv.Trajectory(x, names="VWXYZ"))
    assert "not those of the model" in heard(caplog)

    numbered = pv.fit(pv.Trajectory(x, ids=[9, 4, 5, 6, 7]), **options)
    sorted_ids = pv.Trajectory(x[:, [1, 2, 3, 4, 0]], ids=[4, 5, 6, 7, 9])
    np.testing.assert_array_equal(numbered.transform(sorted_ids), numbered.transform(x))


# Frames.


def xyz_text(x, comment="step"):
    return [
        f"{len(frame)}\n{comment}\n" + "".join(f"B {a:.6f} {b:.6f} {c:.6f}\n" for a, b, c in frame) for frame in x
    ]


def test_frames_that_a_file_does_not_hold_are_not_given(tmp_path):
    x = walk(6, 4)
    frames = xyz_text(x)
    path = tmp_path / "a.xyz"
    for text in ("\n".join(frames), "\n\n".join(frames) + "\n\n\n", "".join(frames)):
        path.write_text(text)
        np.testing.assert_allclose(pv.read(path).positions, x, atol=1e-6)
    path.write_text("".join(frames)[:-20])
    with pytest.raises(pv.InputError, match="frame 5"):
        pv.read(path)
    np.testing.assert_allclose(pv.read(path, keep_good=True).positions, x[:5], atol=1e-6)
    path.write_text("".join(frames[:3]) + xyz_text(walk(1, 5))[0] + "".join(frames[3:]))
    with pytest.raises(pv.InputError, match="frame 3 holds 5"):
        pv.read(path)
    path.write_text("".join(frames[:2]) + frames[2].replace("B ", "C ", 1) + frames[3])
    with pytest.raises(pv.InputError, match="names of frame 2"):
        pv.read(path)
    path.write_text("".join(frames[:2]) + frames[2].replace(" ", " x", 2) + frames[3])
    with pytest.raises(pv.InputError, match="frame 2"):
        pv.read(path)


def test_tinker_frames_are_counted(tmp_path):
    x = walk(4, 3)
    text = "".join(
        "     3  made by a test\n"
        + "".join(f"{i + 1:6d}  B {a:12.6f}{b:12.6f}{c:12.6f}     1\n" for i, (a, b, c) in enumerate(frame))
        for frame in x
    )
    path = tmp_path / "a.arc"
    path.write_text(text)
    np.testing.assert_allclose(pv.read(path).positions, x, atol=1e-5)
    path.write_text(text[: -len(text) // 8])
    with pytest.raises(pv.InputError):
        pv.read(path)


@pytest.mark.parametrize("every", [2, 3])
def test_frames_of_trr_without_positions(tmp_path, caplog, every):
    from MDAnalysis.lib.formats.libmdaxdr import TRRFile

    caplog.set_level(logging.INFO, logger="polyvae")
    x = walk(12, 5).astype(np.float32)
    with TRRFile(str(tmp_path / "a.trr"), "w") as file:
        for k in range(12):
            place = None if k % every else x[k]
            file.write(place, x[k], None, 5 * np.eye(3, dtype="f4"), 10 * k, 0.5 * k, 0.0, 5)
    traj = pv.read(tmp_path / "a.trr", unwrap=False)
    np.testing.assert_allclose(traj.positions, x[::every])
    np.testing.assert_allclose(traj.time, 0.5 * np.arange(0, 12, every))
    assert f"{12 - len(x[::every])} of 12 frames hold no positions" in heard(caplog)
    some = pv.read(tmp_path / "a.trr", unwrap=False, start=1, step=2)
    np.testing.assert_allclose(some.positions, x[::every][1::2])


@pytest.mark.parametrize("kind", [">f4", ">f8"])
def test_trr_of_either_precision(tmp_path, kind):
    """Box, positions and velocities, in single and double precision as GROMACS writes them; and cut."""
    x, real, frames = walk(3, 5), int(kind[-1]), []
    for k, frame in enumerate(x):
        box = (5 + k) * np.eye(3)
        sizes = [0, 0, 9 * real, 0, 0, 0, 0, 15 * real, 15 * real, 0]
        head = struct.pack(">3i12s13i", 1993, 13, 12, b"GMX_trn_file", *sizes, 5, 10 * k, 0)
        numbers = [0.5 * k, 0.0, *box.ravel(), *frame.ravel(), *(7 * frame).ravel()]
        frames.append(head + np.array(numbers, kind).tobytes())
    path = tmp_path / "a.trr"
    path.write_bytes(b"".join(frames))
    traj = pv.read(path, unwrap=False)
    np.testing.assert_allclose(traj.positions, x, rtol=1e-6)
    np.testing.assert_allclose(traj.time, [0, 0.5, 1])
    np.testing.assert_allclose(traj.box, [(5 + k) * np.eye(3) for k in range(3)])
    for end in range(len(frames[0]) + 1, 2 * len(frames[0]), 7):
        path.write_bytes(b"".join(frames)[:end])
        with pytest.raises(pv.InputError, match=r"in frame 1 \(the 1 frames before it are whole\)"):
            pv.read(path)
        assert len(pv.read(path, keep_good=True)) == 1


# Time.


def lammps_dcd(path, x, dt, stride):
    integers = [len(x), 0, stride, stride * len(x), 0, 0, 0, 0, 0]
    head = b"CORD" + struct.pack("<9if", *integers, dt) + struct.pack("<10i", 1, *[0] * 8, 24)
    title = struct.pack("<i", 2) + b"Written by LAMMPS".ljust(80, b"\0") + b"REMARKS".ljust(80, b"\0")
    with path.open("wb") as file:
        for data in (head, title, struct.pack("<i", x.shape[1])):
            file.write(struct.pack("<i", len(data)) + data + struct.pack("<i", len(data)))
        for frame in x:
            cell = struct.pack("<6d", 30, 0, 30, 0, 0, 30)
            for data in (cell, *(frame[:, k].astype("<f4").tobytes() for k in range(3))):
                file.write(struct.pack("<i", len(data)) + data + struct.pack("<i", len(data)))
    return path


@pytest.mark.parametrize(
    ("dt", "unit", "spacing"),
    [(2.0, None, 0.2), (1.0, "angstrom", 0.1), (0.001, "angstrom", 0.1), (0.005, "sigma", 0.5)],
)
def test_times_of_a_dcd_of_lammps(tmp_path, caplog, dt, unit, spacing):
    """Styles real, metal, and lj; a frame every 100 steps."""
    caplog.set_level(logging.INFO, logger="polyvae")
    traj = pv.read(lammps_dcd(tmp_path / "a.dcd", walk(5), dt, 100), length_unit=unit, unwrap=False)
    np.testing.assert_allclose(np.diff(traj.time), spacing, rtol=1e-5)
    assert "LAMMPS" in heard(caplog)
    given = pv.read(tmp_path / "a.dcd", length_unit=unit, unwrap=False, dt=7.0)
    np.testing.assert_allclose(given.time, 7.0 * np.arange(5))


@pytest.mark.parametrize(
    ("style", "unit", "factor", "ps"),
    [("real", "angstrom", 1, 1e-3), ("metal", "angstrom", 1, 1), ("nano", "nm", 1, 1e3), ("lj", "sigma", 1, 1),
     ("electron", "nm", 0.0529177210544, 1e-3), ("micro", "nm", 1e3, 1e6), ("si", "nm", 1e9, 1e12)],
)  # fmt: skip
def test_units_of_a_dump(tmp_path, style, unit, factor, ps):
    x = walk(4)
    path = tmp_path / "a.dump"
    dump(path, x, "-50 50\n" * 3, "ff ff ff", time=2.0 * np.arange(4))
    path.write_text(f"ITEM: UNITS\n{style}\n" + path.read_text())
    traj = pv.read(path)
    assert traj.length_unit == unit
    np.testing.assert_allclose(traj.positions, factor * x, rtol=1e-4, atol=1e-5 * factor)
    np.testing.assert_allclose(traj.time, 2.0 * np.arange(4) * ps)


def test_times_without_a_unit_are_left_out_and_reported(tmp_path, caplog):
    path = dump(tmp_path / "a.dump", walk(4), "-50 50\n" * 3, "ff ff ff", time=1000.0 * np.arange(4))
    assert pv.read(path, length_unit="angstrom").time is None
    assert "do not state their unit" in heard(caplog) or "does not state their unit" in heard(caplog)
    np.testing.assert_allclose(pv.read(path).time, 1000.0 * np.arange(4))  # tau, in reduced units
    np.testing.assert_allclose(pv.read(path, length_unit="angstrom", dt=1.0).time, np.arange(4.0))


def test_an_unknown_unit_of_length_is_refused_by_name(tmp_path):
    path = dump(tmp_path / "a.dump", walk(4), "-50 50\n" * 3, "ff ff ff")
    path.write_text("ITEM: UNITS\nfurlongs\n" + path.read_text())
    with pytest.raises(pv.InputError, match="furlongs"):
        pv.read(path)
    assert pv.read(path, length_unit="nm").length_unit == "nm"


@pytest.mark.parametrize("kind", ["npz", "xtc", "dump", "gsd"])
def test_frames_whose_times_leap_begin_a_segment(tmp_path, caplog, kind):
    """Pieces of 5, 3 and 4 frames; times in npz and XTC, steps in a dump and GSD."""
    x = walk(12)
    time = np.concatenate([np.arange(5), 100 + np.arange(3), 500 + np.arange(4)]).astype(float)
    path = tmp_path / f"a.{kind}"
    if kind == "npz":
        np.savez(path, positions=x, time=time)
    elif kind == "xtc":
        with XTCTrajectoryFile(str(path), "w") as file:
            file.write(x.astype("f4"), time=time.astype("f4"), step=np.arange(12), box=np.zeros((12, 3, 3), "f4"))
    elif kind == "dump":
        dump(path, x, "-50 50\n" * 3, "ff ff ff")
        text = path.read_text()
        for k in reversed(range(12)):
            text = text.replace(f"TIMESTEP\n{10 * k}\n", f"TIMESTEP\n{int(10 * time[k])}\n")
        path.write_text(text)
    else:
        gsd = pytest.importorskip("gsd.hoomd")
        with gsd.open(path, "w") as file:
            for k, places in enumerate(x):
                frame = gsd.Frame()
                frame.configuration.step, frame.configuration.box = int(time[k]), [90, 90, 90, 0, 0, 0]
                frame.particles.N, frame.particles.position = 10, places
                file.append(frame)
    assert pv.read(path).segments == (5, 3, 4)
    assert "begins a segment" in heard(caplog)
    assert pv.read(path, ignore_times=True).segments == (12,)
    assert pv.read(path, start=1, step=2).segments == (2, 2, 2)
    chunks = list(pv.stream(path, chunk_bytes=1))
    assert [chunk.continues for chunk in chunks] == [0, 1, 1, 1, 1, 0, 1, 1, 0, 1, 1, 1]


def test_rounded_times_are_no_leaps(tmp_path):
    """Single precision late in a run: steps of 0.1 near 10^6 come out as 0.0625 and 0.125."""
    time = (1e6 + 0.1 * np.arange(50)).astype(np.float32)
    time = time[np.concatenate([[True], np.diff(time) > 0])]
    x = walk(len(time))
    np.savez(tmp_path / "a.npz", positions=x, time=time.astype(float))
    assert len(pv.read(tmp_path / "a.npz").segments) == 1


def test_uneven_times_are_reported_and_not_cut(tmp_path, caplog):
    np.savez(tmp_path / "a.npz", positions=walk(12), time=2.0 ** np.arange(12))
    assert len(pv.read(tmp_path / "a.npz").segments) == 1
    assert "count frames and not time" in heard(caplog)


# Topology.


@pytest.mark.parametrize("source", ["pdb", "mdtraj"])
def test_chains_tell_molecules_apart(tmp_path, source):
    """Three chains of six residues of one bead each, without bonds."""
    x = np.concatenate([walk(8, 6, seed=k) + 9 * k for k in range(3)], axis=1)
    chains = "".join(letter * 6 for letter in "ABC")
    top = pdb(tmp_path / "a.pdb", 18, chains=chains, resids=[*range(1, 7)] * 3, conect=False)
    if source == "pdb":
        np.savez(tmp_path / "a.npz", positions=x, length_unit="nm")
        traj = pv.read(tmp_path / "a.npz", topology=top, per_molecule=True)
    else:
        topology = mdtraj.Topology()
        for _ in range(3):
            chain = topology.add_chain()
            for _ in range(6):
                topology.add_atom("B", mdtraj.element.virtual, topology.add_residue("X", chain))
        traj = pv.as_trajectory(mdtraj.Trajectory(x, topology), per_molecule=True)
    assert traj.positions.shape == (24, 6, 3)
    np.testing.assert_allclose(bonds_of(traj.positions), 1, atol=1e-5)


def test_single_beads_are_no_molecules(tmp_path):
    top = pdb(tmp_path / "a.pdb", 6, resids=[*range(1, 7)], conect=False)
    np.savez(tmp_path / "a.npz", positions=walk(5, 6), length_unit="nm")
    with pytest.raises(pv.InputError, match="one bead"):
        pv.read(tmp_path / "a.npz", topology=top, per_molecule=True)


def test_consecutive_alpha_carbons_are_bonded(tmp_path, caplog):
    """Two chains; residues 4 and 5 are missing in the second; one distance is too long for neighbours."""
    caplog.set_level(logging.INFO, logger="polyvae")
    places = np.zeros((10, 3))
    places[:, 0] = 3.8 * np.arange(10)
    places[3:, 1] = 4.0  # residues 3 and 4 of the first chain are 5.5 apart
    resids, chains = [1, 2, 3, 4, 5, 1, 2, 3, 6, 7], "A" * 5 + "B" * 5
    top = pdb(tmp_path / "a.pdb", 10, ["CA"] * 10, chains, resids, conect=False, places=places)
    np.savez(tmp_path / "a.npz", positions=walk(4, 10), length_unit="angstrom")
    traj = pv.read(tmp_path / "a.npz", topology=top, select="name CA")
    assert traj.bonds.tolist() == [[0, 1], [1, 2], [3, 4], [5, 6], [6, 7], [8, 9]]
    assert "consecutive ones" in heard(caplog)


@pytest.mark.parametrize("angle", [90.0, 60.0])
def test_alpha_carbons_that_are_wrapped_one_by_one_are_bonded(tmp_path, caplog, angle):
    """A chain that leaves its box through a side, with a true break of 9.5 Å; and the same without the box."""
    caplog.set_level(logging.INFO, logger="polyvae")
    tilt = np.cos(np.radians(angle))
    box = 20.0 * np.array([[1, 0, 0], [tilt, np.sqrt(1 - tilt**2), 0], [0, 0, 1]])
    whole = np.full((9, 3), [9.0, 5.0, 5.0])
    whole[:, 0] += np.cumsum([0, 3.8, 3.8, 3.8, 3.8, 9.5, 3.8, 3.8, 3.8])
    wrapped = (whole @ np.linalg.inv(box) % 1.0) @ box
    top = pdb(tmp_path / "a.pdb", 9, ["CA"] * 9, "A" * 9, list(range(1, 10)), conect=False, places=wrapped)
    cell = f"CRYST1{20:9.3f}{20:9.3f}{20:9.3f}{90:7.2f}{90:7.2f}{angle:7.2f} P 1           1\n"
    atoms = top.read_text()
    np.savez(tmp_path / "a.npz", positions=walk(4, 9), length_unit="angstrom")
    in_chain = [[0, 1], [1, 2], [2, 3], [3, 4], [5, 6], [6, 7], [7, 8]]
    top.write_text(cell + atoms)
    assert pv.read(tmp_path / "a.npz", topology=top, select="name CA").bonds.tolist() == in_chain
    top.write_text(atoms)
    apart = np.linalg.norm(np.diff(wrapped, axis=0), axis=1)
    near = [pair for pair in in_chain if apart[pair[0]] < 4.0]
    assert len(near) < len(in_chain)
    assert pv.read(tmp_path / "a.npz", topology=top, select="name CA").bonds.tolist() == near


def test_virtual_sites_go_with_their_molecule(tmp_path):
    """Three beads and a site of no mass and no bonds, in a periodic box."""
    rows = ["1 1 1 0 0 0", "2 1 1 0 0 0", "3 1 1 0 0 0", "4 1 2 0 0 0"]
    top = lammps_data(tmp_path / "a.data", [1, 2, 3, 4], [(1, 2), (2, 3)], rows=rows, masses=(12.0, 0.0))
    x = walk(9, 4, bond=0.8, seed=2)
    x[:, 3] = x[:, 0] + 0.2
    traj = pv.read(dump(tmp_path / "a.dump", x % 4.0, "0 4\n" * 3), topology=top)
    same_shape(traj.positions, x, atol=1e-4)
    assert traj.masses.tolist() == [12, 12, 12, 0]
    weighted = pv.radius_of_gyration(traj.positions[0], traj.masses)
    assert float(weighted) == pytest.approx(float(pv.radius_of_gyration(traj.positions[0, :3])), rel=1e-5)


STYLES = {
    "sphere": "{i} {t} 1.0 2.0 0 0 0",
    "ellipsoid": "{i} {t} 1 2.0 0 0 0",
    "dipole": "{i} {t} 0.5 0 0 0 1 0 0",
    "dpd": "{i} {t} 1.0 0 0 0",
    "charge": "{i} {t} 0.5 0 0 0",
    "full": "{i} 1 {t} 0.5 0 0 0 0 0 0",
    "hybrid sphere bond": "{i} {t} 0 0 0 1.0 2.0 1",
    "hybrid bond charge": "{i} {t} 0 0 0 1 0.5",
    "smd": "{i} {t} 1 1.0 2.0 1.0 1.0 0 0 0 0 0 0",
}


@pytest.mark.parametrize("style", STYLES)
def test_styles_of_lammps_data(tmp_path, style):
    """Types, by which masses go, come from the column that the style says."""
    rows = [STYLES[style].format(i=i, t=1 + i % 2) for i in (1, 2, 3)]
    top = lammps_data(tmp_path / "a.data", [1, 2, 3], [], style=style, rows=rows, masses=(10.0, 20.0))
    traj = pv.read(dump(tmp_path / "a.dump", walk(3, 3), "-9 9\n" * 3, "ff ff ff"), topology=top)
    assert traj.masses.tolist() == [20, 10, 20]


@pytest.mark.parametrize(("style", "words"), [("gas", "'gas'.*not known"), ("hybrid gas", "gas"), ("", "columns")])
def test_styles_that_are_not_known_are_refused(tmp_path, style, words):
    top = lammps_data(tmp_path / "a.data", [1], [], style=style, rows=["1 1 0.5 0 0 0"])
    with pytest.raises(pv.InputError, match=words):
        pv.read(dump(tmp_path / "a.dump", walk(3, 1), "-9 9\n" * 3), topology=top)


# Valid files that were refused.


@pytest.mark.parametrize("pack", [gzip, bz2, lzma])
def test_packed_text(tmp_path, pack):
    suffix = {gzip: "gz", bz2: "bz2", lzma: "xz"}[pack]
    x = walk(5, 4)
    dump(tmp_path / "a.dump", x, "-9 9\n" * 3, "ff ff ff")
    (tmp_path / "a.xyz").write_text("".join(xyz_text(x)))
    pv.write(tmp_path / "a.gro", pv.Trajectory(x, length_unit="nm"))
    pdb(tmp_path / "a.pdb", 4)
    for name in ("a.dump", "a.xyz", "a.gro", "a.pdb"):
        (tmp_path / f"{name}.{suffix}").write_bytes(pack.compress((tmp_path / name).read_bytes()))
    top = tmp_path / f"a.pdb.{suffix}"
    for name in ("a.dump", "a.xyz", "a.gro"):
        traj = pv.read(tmp_path / f"{name}.{suffix}", topology=top, unwrap=False)
        np.testing.assert_allclose(traj.positions, x, atol=6e-4)
        assert len(traj.bonds) == 3
    assert pv.read(top, dims=3).n_beads == 4
    with pytest.raises(pv.InputError, match="unpack"):
        pv.read(tmp_path / f"a.xtc.{suffix}") if (tmp_path / f"a.xtc.{suffix}").write_bytes(b"x") else None


@pytest.mark.parametrize("decimals", [3, 6])
def test_gro_columns_that_run_together(tmp_path, decimals):
    """Coordinates that fill their columns, and times below zero."""
    width = decimals + 5
    x = np.array([[[1000.123, -999.456, 0.5], [1, 2, 3]], [[-100.5, 1234.5, -0.25], [3, 2, 1]]])
    with (tmp_path / "a.gro").open("w") as file:
        for k, frame in enumerate(x):
            file.write(f"made by a test, t= {-5.5 + 2 * k}\n    2\n")
            for i, place in enumerate(frame):
                numbers = "".join(f"{a:{width}.{decimals}f}" for a in place)
                file.write(f"{1:5d}{'MOL':<5s}{'B':>5s}{i + 1:5d}{numbers}\n")
            file.write(
                "   9.00000   9.00000   9.00000   0.00000   0.00000   1.00000   0.00000   2.00000   3.00000\n"
            )
    traj = pv.read(tmp_path / "a.gro", unwrap=False)
    np.testing.assert_allclose(traj.positions, x, atol=1e-4)
    np.testing.assert_allclose(traj.time, [-5.5, -3.5])
    np.testing.assert_allclose(traj.box[0], [[9, 0, 0], [1, 9, 0], [2, 3, 9]])


def test_h5md_with_fixed_step_time_and_box(tmp_path):
    x = walk(6, 5)
    with h5py.File(tmp_path / "a.h5md", "w") as file:
        group = file.create_group("particles/all/position")
        group["value"], group["step"], group["time"] = x % 5.0, 10, 0.5
        group["value"].attrs["unit"], group["time"].attrs["unit"], group["time"].attrs["offset"] = "nm", "ns", 3.0
        file.create_group("particles/all/box").attrs["boundary"] = np.array(["periodic"] * 3, dtype="S8")
        file["particles/all/box/edges"] = np.diag([5.0] * 3)
        file["particles/all/mass"] = np.arange(1.0, 6.0)
        file["connectivity/bonds"] = [[i, i + 1] for i in range(4)]
    traj = pv.read(tmp_path / "a.h5md")
    same_shape(traj.positions, x, atol=1e-5)
    np.testing.assert_allclose(traj.time, 1000 * (3 + 0.5 * np.arange(6)))
    np.testing.assert_allclose(traj.box, np.tile(np.diag([5.0] * 3), (6, 1, 1)))
    assert (traj.length_unit, traj.masses.tolist()) == ("nm", [1, 2, 3, 4, 5])


def netcdf(path, x, ids=None, kind="NETCDF3_64BIT_OFFSET", scale=None, units="angstrom", time_units="picosecond"):
    import netCDF4

    with netCDF4.Dataset(path, "w", format=kind) as file:
        for name, size in (("frame", None), ("spatial", 3), ("atom", x.shape[1])):
            file.createDimension(name, size)
        places = file.createVariable("coordinates", "f4", ("frame", "atom", "spatial"))
        time = file.createVariable("time", "f4", ("frame",))
        places.units, time.units = units, time_units
        if scale is not None:
            places.scale_factor = time.scale_factor = scale
        places[:], time[:] = x, 2.0 * np.arange(len(x))
        if ids is not None:
            file.createVariable("id", "i4", ("frame", "atom"))[:] = ids
    return path


@pytest.mark.parametrize("kind", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA", "NETCDF4"])
def test_netcdf(tmp_path, kind):
    """CDF-1, CDF-2, CDF-5 and HDF5; factors by which the stored numbers are scaled."""
    pytest.importorskip("netCDF4")
    x = walk(5, 4)
    traj = pv.read(netcdf(tmp_path / "a.nc", x, kind=kind, scale=0.25))
    np.testing.assert_allclose(traj.positions, x, atol=1e-5)
    np.testing.assert_allclose(traj.time, 2.0 * np.arange(5))
    traj = pv.read(netcdf(tmp_path / "b.nc", x, kind=kind, units="nm", time_units="femtosecond"))
    assert traj.length_unit == "nm"
    np.testing.assert_allclose(traj.time, 2e-3 * np.arange(5))


def test_bonds_of_gsd_that_begin_later(tmp_path):
    gsd = pytest.importorskip("gsd.hoomd")
    x = walk(5, 4)
    with gsd.open(tmp_path / "a.gsd", "w") as file:
        for k, places in enumerate(x):
            frame = gsd.Frame()
            frame.configuration.step, frame.configuration.box = k, [90, 90, 90, 0, 0, 0]
            frame.particles.N, frame.particles.position, frame.particles.mass = 4, places, [1, 2, 3, 4]
            if k >= 2:
                frame.bonds.N, frame.bonds.group = 3, [[0, 2], [2, 1], [1, 3]]
            file.append(frame)
    traj = pv.read(tmp_path / "a.gsd")
    assert traj.bonds.tolist() == [[0, 2], [2, 1], [1, 3]]
    assert traj.masses.tolist() == [1, 2, 3, 4]


def test_image_flags_of_gsd_unwrap(tmp_path):
    gsd = pytest.importorskip("gsd.hoomd")
    x = np.cumsum(np.random.default_rng(0).normal(size=(6, 4, 3)), axis=0)
    image = np.round(x / 5).astype(int)
    with gsd.open(tmp_path / "a.gsd", "w") as file:
        for k in range(6):
            frame = gsd.Frame()
            frame.configuration.step, frame.configuration.box = k, [5, 5, 5, 0, 0, 0]
            frame.particles.N, frame.particles.position = 4, x[k] - 5 * image[k]
            frame.particles.image = image[k]
            file.append(frame)
    np.testing.assert_allclose(pv.read(tmp_path / "a.gsd").positions, x, atol=1e-5)


def test_a_format_that_cannot_state_the_box_leaves_it_out(tmp_path, caplog):
    x = walk(4)
    box = np.tile(np.diag([9.0, 9, 1]), (4, 1, 1))
    traj = pv.Trajectory(x, box=box, periodic=(True, True, False), length_unit="nm")
    for suffix in ("xtc", "dcd", "gro", "pdb"):
        caplog.clear()
        pv.write(tmp_path / f"a.{suffix}", traj)
        assert "left out" in heard(caplog)
        assert pv.read(tmp_path / f"a.{suffix}", length_unit=None).box is None or suffix == "gro"
    pv.write(tmp_path / "a.npz", traj)
    assert pv.read(tmp_path / "a.npz").periodic == (True, True, False)

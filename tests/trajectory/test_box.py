"""Periodic boxes, molecules and planar runs: a trajectory cut by its box gives the frames of the whole one."""

import logging

import MDAnalysis
import numpy as np
import pytest
from conftest import DATA
from hypothesis import given, settings
from hypothesis import strategies as st
from models import untrained

import polyvae as pv
from polyvae.trajectory.assembly import Assembler
from polyvae.trajectory.box import box_vectors, lengths_and_angles, usable_box
from polyvae.trajectory.molecules import Atoms
from polyvae.trajectory.wholeness import make_whole, spanning_tree

ANGLES = {"orthorhombic": [90, 90, 90], "triclinic": [70, 100, 60], "truncated octahedron": [70.53, 109.47, 70.53]}
TREES = {
    "chain": [[k, k + 1] for k in range(9)],
    "star": [[0, k] for k in range(1, 10)],
    "comb, unsorted": [[5, 4], [4, 3], [3, 2], [2, 1], [1, 0], [4, 9], [3, 8], [2, 7], [1, 6]],
    "ring": [[k, (k + 1) % 10] for k in range(10)],
}


def grown(bonds, rng, n_frames=20, n_dims=3, length=1.0):
    """Positions (n_frames, 10, n_dims) in which bonded beads are `length` apart, ring closures aside."""
    steps = rng.normal(size=(n_frames, 10, n_dims))
    steps *= length / np.linalg.norm(steps, axis=2, keepdims=True)
    if [9, 0] in bonds:
        angle = 2 * np.pi * np.arange(10) / 10
        circle = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)[:, :n_dims]
        return circle * length * 1.6 + 0.1 * steps + rng.normal(size=(n_frames, 1, n_dims))
    tree = spanning_tree(10, np.array(bonds))
    x = np.zeros((n_frames, 10, n_dims))
    done = {0}
    while len(done) < 10:
        for k in range(10):
            if k not in done and tree.parent[k] in done:
                x[:, k] = x[:, tree.parent[k]] + steps[:, k]
                done.add(k)
    return x


def shuffled_images(x, box, rng):
    """Each bead moved by whole box vectors of its own."""
    shifts = rng.integers(-3, 4, size=x.shape)
    return (x + np.einsum("fbi,fij->fbj", shifts, box[:, : x.shape[2], : x.shape[2]])).astype(np.float32)


def internal(x):
    return x - x[:, :1]


@pytest.mark.parametrize("shape", ANGLES)
@pytest.mark.parametrize("tree", TREES)
def test_made_whole_along_bonds(shape, tree):
    rng = np.random.default_rng(1)
    x = grown(TREES[tree], rng)
    box = box_vectors(rng.uniform(4, 6, (20, 3)), np.tile(ANGLES[shape], (20, 1)))
    whole = make_whole(shuffled_images(x, box, rng), box, spanning_tree(10, np.array(TREES[tree])))
    np.testing.assert_allclose(internal(whole), internal(x), atol=2e-5)


def test_a_chain_longer_than_its_box():
    rng = np.random.default_rng(2)
    x = np.zeros((5, 60, 3))
    x[..., 0] = 1.0 * np.arange(60)  # a rod through 12 boxes
    box = box_vectors(np.full((5, 3), 5.0), np.full((5, 3), 90.0))
    whole = make_whole(shuffled_images(x, box, rng), box, spanning_tree(60, None))
    np.testing.assert_allclose(internal(whole), x, atol=2e-4)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(2, 3), st.floats(3, 50), st.floats(60, 120))
def test_wrapping_again_changes_nothing(seed, n_dims, length, angle):
    rng = np.random.default_rng(seed)
    x = grown(TREES["chain"], rng, n_frames=4, n_dims=n_dims)
    box = box_vectors(np.full((4, 3), length), np.tile([90, 90, angle], (4, 1)))
    # The second diagonal element is the shorter one; bonds of length 1 must stay below 0.45 of it.
    cell = box[:, :n_dims, :n_dims]
    tree = spanning_tree(10, None)
    if length * np.sin(np.radians(angle)) * 0.45 < 1:
        return
    once = make_whole(shuffled_images(x, box, rng), cell, tree)
    again = make_whole(shuffled_images(once, box, rng), cell, tree)
    np.testing.assert_allclose(internal(again), internal(x), atol=1e-5 * length)
    assert make_whole(once, cell, tree) is once  # whole already: the very same numbers


def test_box_vectors_and_back():
    lengths, angles = np.array([[3.0, 4.0, 5.0]]), np.array([[70.0, 80.0, 100.0]])
    for given_, found in zip((lengths, angles), lengths_and_angles(box_vectors(lengths, angles)), strict=True):
        np.testing.assert_allclose(given_, found, rtol=1e-6)
    none = lengths_and_angles(np.zeros((2, 3, 3)))
    np.testing.assert_array_equal(none, [np.zeros((2, 3)), np.full((2, 3), 90.0)])


def test_bonds_of_half_the_box_are_refused_by_name():
    x = np.zeros((3, 4, 3), np.float32)
    x[..., 0] = np.arange(4) * 1.0
    x[1, 3, 0] = 2 + 2.4
    box = box_vectors(np.full((3, 3), 5.0), np.full((3, 3), 90.0))
    with pytest.raises(pv.InputError, match=r"frame 1: .*2 and 3 \(B2 and B3\)"):
        make_whole(x, box, spanning_tree(4, np.array([[0, 1], [1, 2], [2, 3]])), ("B0", "B1", "B2", "B3"))


def test_a_molecule_bonded_to_its_own_image_is_refused():
    x = np.zeros((1, 5, 3), np.float32)
    x[..., 0] = np.arange(5)
    bonds = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 0]])  # closes through the face of the box
    box = box_vectors(np.full((1, 3), 5.0), np.full((1, 3), 90.0))
    with pytest.raises(pv.InputError, match="own periodic image"):
        make_whole(x, box, spanning_tree(5, bonds))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_unusable_box_lengths(bad):
    box = np.tile(np.eye(3, dtype=np.float32) * 5, (4, 1, 1))
    box[2, 1, 1] = bad
    with pytest.raises(pv.InputError, match="frame 2 .*box lengths"):
        usable_box(box, 3)
    assert usable_box(np.zeros((4, 3, 3)), 3) is None


def test_spanning_tree_of_many_molecules():
    tree = spanning_tree(7, np.array([[4, 0], [0, 2], [2, 4], [5, 3]]))
    assert tree.molecule.tolist() == [0, 1, 0, 2, 0, 2, 3]
    assert len(tree.loose) == 1
    assert tree.n_molecules == 4
    assert (tree.parent[[1, 6]] == [1, 6]).all()


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def cubes(n, length):
    return np.tile(np.eye(3, dtype=np.float32) * length, (n, 1, 1))


@pytest.fixture
def melt(tmp_path):
    """Three chains of four beads in a box, wrapped, beads of the chains interleaved; and the whole chains."""
    rng = np.random.default_rng(3)
    chains = np.cumsum(rng.normal(size=(6, 3, 4, 3)) * 0.4, axis=2) + 10 * rng.uniform(size=(6, 3, 1, 3))
    order = np.array([[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]])
    x = np.empty((6, 12, 3))
    x[:, order] = chains
    bonds = np.concatenate([order[:, [k, k + 1]] for k in range(3)])
    names = np.array(list("AAABBBCCCDDD"))
    box = cubes(6, 10.0)
    path = saved(
        tmp_path / "melt.npz",
        positions=shuffled_images(x, box, rng),
        box=box,
        bonds=bonds,
        names=names,
        time=2.0 * np.arange(6),
    )
    return path, chains


def test_one_frame_for_each_molecule(melt):
    path, chains = melt
    traj = pv.read(path, per_molecule=True)
    assert (traj.n_frames, traj.n_beads, traj.segments) == (18, 4, (6, 6, 6))
    assert traj.names == ("A", "B", "C", "D")
    assert traj.bonds.tolist() == [[0, 1], [1, 2], [2, 3]]
    for frame, molecule in ((0, 0), (5, 1), (3, 2)):
        row = np.flatnonzero((traj.origin == [frame, molecule]).all(axis=1))
        assert len(row) == 1
        assert traj.time[row[0]] == 2.0 * frame
        np.testing.assert_allclose(
            internal(traj.positions[row]), internal(chains[frame, molecule][None]), atol=1e-5
        )
    assert traj[6:8].origin.tolist() == [[0, 1], [1, 1]]


def test_origin_counts_frames_over_files(melt):
    path, _ = melt
    traj = pv.read([path, path], per_molecule=True, stop=2)
    assert traj.segments == (2,) * 6
    assert sorted(map(tuple, traj.origin.tolist())) == [(f, m) for f in range(4) for m in range(3)]


def test_molecules_made_whole_each_on_its_own(melt):
    path, chains = melt
    traj = pv.read(path)
    for k in range(3):
        np.testing.assert_allclose(internal(traj.positions[:, k::3]), internal(chains[:, k]), atol=1e-5)
    raw = pv.read(path, unwrap=False)
    assert np.abs(np.diff(raw.positions[:, ::3], axis=1)).max() > 5


def test_unlike_molecules_are_refused():
    bonds = np.array([[0, 1], [2, 3], [3, 4]])
    with pytest.raises(pv.InputError, match="molecule 1 .*3 beads"):
        Atoms(np.arange(5), 5, bonds).molecules("x")
    with pytest.raises(pv.InputError, match="bonds of molecule 1"):
        Atoms(np.arange(6), 6, np.array([[0, 1], [1, 2], [3, 4], [3, 5]])).molecules("x")
    with pytest.raises(pv.InputError, match="names of molecule 1"):
        Atoms(np.arange(4), 4, np.array([[0, 1], [2, 3]]), names=("A", "B", "A", "C")).molecules("x")
    with pytest.raises(pv.InputError, match="without bonds or residues"):
        Atoms(np.arange(4), 4).molecules("x")


def test_a_bead_whose_bonds_are_missing_is_refused(tmp_path):
    x, box = np.random.default_rng(0).normal(size=(4, 12, 3)), cubes(4, 20.0)
    few = saved(tmp_path / "few.npz", positions=x, box=box, bonds=[[0, 1]])
    with pytest.raises(pv.InputError, match=r"few\.npz: bead 2 .*no bond"):
        pv.read(few)
    assert pv.read(few, unwrap=False).n_frames == 4
    assert pv.read(saved(tmp_path / "open.npz", positions=x, bonds=[[0, 1]])).n_frames == 4  # no box, no images
    bonds = [[k, k + 1] for k in range(10)]
    named = saved(tmp_path / "named.npz", positions=x, box=box, bonds=bonds, names=["B"] * 12)
    with pytest.raises(pv.InputError, match=r"bead 11 \(B\) .*no bond"):
        pv.read(named)


def test_a_protein_whose_file_bonds_its_ligand_alone_is_refused():
    """Two residues of three atoms, and a ligand, to which all CONECT records belong."""
    universe = MDAnalysis.Universe.empty(8, n_residues=3, atom_resindex=[0, 0, 0, 1, 1, 1, 2, 2], trajectory=True)
    universe.add_TopologyAttr("names", ["N", "CA", "C"] * 2 + ["C1", "C2"])
    universe.add_TopologyAttr("bonds", [[6, 7]])
    universe.dimensions = [50, 50, 50, 90, 90, 90]
    with pytest.raises(pv.InputError, match=r"bead 0 \(CA\) .*no bond"):
        pv.as_trajectory(universe.select_atoms("name CA"))
    assert pv.as_trajectory(universe.select_atoms("name C1 C2")).n_beads == 2


def test_molecules_side_by_side_are_said_to_be(tmp_path, caplog, melt):
    with caplog.at_level(logging.WARNING, logger="polyvae"):
        pv.read(melt[0])
    assert "melt.npz: 3 molecules are chosen: each is made whole, but how they lie" in caplog.text
    caplog.clear()
    x, names = np.random.default_rng(0).normal(size=(4, 5, 3)), ["B", "B", "B", "NA", "CL"]
    ions = saved(tmp_path / "ions.npz", positions=x, box=cubes(4, 20.0), bonds=[[0, 1], [1, 2]], names=names)
    with caplog.at_level(logging.WARNING, logger="polyvae"):
        list(pv.stream(ions, chunk_bytes=1))
    assert caplog.text.count("3 molecules are chosen (2 of them single beads)") == 1
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="polyvae"):
        pv.read(melt[0], per_molecule=True)
        pv.read(melt[0], unwrap=False)
    assert not caplog.text


@pytest.mark.parametrize(("n_residues", "hint"), [(2, True), (6, False), (1, False)])
def test_residues_that_may_be_molecules_are_pointed_out(n_residues, hint, caplog):
    """Of a melt, but not where each bead of one chain is a residue."""
    atoms = Atoms(np.arange(6), 6, residues=np.arange(6) * n_residues // 6)
    options = {"unwrap": "auto", "per_molecule": False, "dims": None, "always_3d": True, "where": "x"}
    assembler, x, box = Assembler(atoms, "nm", **options), np.zeros((1, 6, 3)), cubes(1, 9.0)
    with caplog.at_level(logging.INFO, logger="polyvae"):
        assembler.survey(x, box, 0)
        assembler.settle()
        assembler.coordinates(x, box, np.arange(1))
    (logged,) = caplog.messages
    assert "taken as one chain in file order" in logged
    assert ("--per-molecule takes each of the 2 residues" in logged) == hint


def test_residues_stand_for_molecules_without_bonds():
    table, note = Atoms(np.arange(6), 6, residues=np.array([0, 0, 1, 1, 2, 2])).molecules("x")
    assert table.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert "residue" in note


def test_bead_order_stands_for_bonds_and_is_said(tmp_path, caplog):
    rng = np.random.default_rng(4)
    x = grown(TREES["chain"], rng)
    path = saved(tmp_path / "a.npz", positions=shuffled_images(x, cubes(20, 6.0), rng), box=cubes(20, 6.0))
    with caplog.at_level(logging.INFO, logger="polyvae"):
        traj = pv.read(path)
    np.testing.assert_allclose(internal(traj.positions), internal(x), atol=1e-5)
    assert "file order" in caplog.text
    path = saved(tmp_path / "gas.npz", positions=rng.uniform(0, 6, (20, 10, 3)), box=cubes(20, 6.0))
    with pytest.raises(pv.InputError, match="topology with bonds"):
        pv.read(path)
    assert pv.read(path, unwrap=False).n_frames == 20


def test_a_box_that_follows_the_atoms_is_no_box(tmp_path, caplog):
    rng = np.random.default_rng(5)
    x = grown(TREES["chain"], rng).astype(np.float32)
    box = np.zeros((20, 3, 3), np.float32)
    box[:, range(3), range(3)] = x.max(axis=1) - x.min(axis=1) + 2e-4
    with caplog.at_level(logging.INFO, logger="polyvae"):
        traj = pv.read(saved(tmp_path / "a.npz", positions=x, box=box))
    np.testing.assert_array_equal(traj.positions, x)
    assert "not periodic" in caplog.text


def test_a_long_chain_is_put_together_bond_by_bond(tmp_path):
    """200 beads, several box lengths long: only a bond, not the chain, must be shorter than half the box."""
    rng = np.random.default_rng(8)
    steps = rng.normal(size=(10, 200, 3)) * 0.3 + [0.5, 0.2, 0.0]
    x = np.cumsum(steps, axis=1)
    box = cubes(10, 8.0)
    assert (np.ptp(x[..., 0], axis=1) > 8 * 10).all()
    bonds = [[k, k + 1] for k in range(199)]
    path = saved(tmp_path / "a.npz", positions=shuffled_images(x, box, rng), box=box, bonds=bonds)
    np.testing.assert_allclose(internal(pv.read(path).positions), internal(x), atol=1e-4)
    x[3, 120:, 1] += 4 - steps[3, 120, 1]  # one bond of half the box
    path = saved(tmp_path / "b.npz", positions=shuffled_images(x, box, rng), box=box, bonds=bonds)
    with pytest.raises(pv.InputError, match="frame 3: .*119 and 120 .*4 apart"):
        pv.read(path)


def test_an_assumed_chain_that_is_none_is_refused(tmp_path):
    """Two chains one after another in the file: the link between them is no bond, and is seen to be none."""
    rng = np.random.default_rng(9)
    one, two = (grown(TREES["chain"], rng, n_frames=100, length=0.5) for _ in range(2))
    two += np.cumsum(rng.normal(size=(100, 1, 3)), axis=0)  # they drift apart
    x, box = np.concatenate([one, two], axis=1), cubes(100, 10.0)
    path = saved(tmp_path / "a.npz", positions=shuffled_images(x, box, rng), box=box)
    with pytest.raises(pv.InputError, match="9 and 10 .*one chain"):
        pv.read(path)


def test_unwrap_true_needs_a_box(tmp_path):
    path = saved(tmp_path / "a.npz", positions=np.random.default_rng(0).normal(size=(4, 3, 3)))
    with pytest.raises(pv.InputError, match="holds no box"):
        pv.read(path, unwrap=True)
    with pytest.raises(pv.InputError, match="unwrap must be"):
        pv.read(path, unwrap="maybe")


def test_bonds_that_name_missing_beads(tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 3, 3))
    with pytest.raises(pv.InputError, match=r"bond 1 .*\[1, 3\]"):
        pv.read(saved(tmp_path / "a.npz", positions=x, bonds=[[0, 1], [1, 3]]))


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "gro", "pdb"])
def test_planar_runs(tmp_path, caplog, suffix):
    rng = np.random.default_rng(6)
    flat = pv.Trajectory(rng.normal(size=(5, 12, 2)), length_unit="nm")
    path = pv.write(tmp_path / f"flat.{suffix}", flat)[0]
    with caplog.at_level(logging.INFO, logger="polyvae"):
        back = pv.read(path)
    assert back.n_dims == 2
    assert "taken as 2-D" in caplog.text
    np.testing.assert_allclose(back.to_unit("nm").positions, flat.positions, atol=1e-3)
    solid = pv.read(path, dims=3)
    assert solid.n_dims == 3
    assert (solid.positions[..., 2] == 0).all()


def test_dims_2_on_data_in_space(tmp_path):
    x = np.zeros((4, 12, 3), np.float32)
    x[..., :2] = np.random.default_rng(0).normal(size=(4, 12, 2))
    x[2, 3, 2] = 0.1
    path = pv.write(tmp_path / "a.dcd", pv.Trajectory(x))[0]
    assert pv.read(path).n_dims == 3
    with pytest.raises(pv.InputError, match="z varies.*frame 2"):
        pv.read(path, dims=2)
    with pytest.raises(pv.InputError, match="dims must be"):
        pv.read(path, dims=4)
    with pytest.raises(pv.InputError, match="two coordinates"):
        pv.read(saved(tmp_path / "b.npz", positions=x[..., :2]), dims=3)
    # In an npz three coordinates are meant.
    assert pv.read(saved(tmp_path / "c.npz", positions=x[:2])).n_dims == 3
    assert pv.read(tmp_path / "c.npz", dims=2).n_dims == 2


def test_wrapped_copy_gives_the_same_cv(tmp_path):
    rng = np.random.default_rng(7)
    x = grown(TREES["chain"], rng, n_frames=400)
    cv = untrained(pv.Trajectory(x))
    for name, angles in ANGLES.items():
        box = box_vectors(np.full((400, 3), 5.0), np.tile(angles, (400, 1)))
        path = saved(tmp_path / f"{name}.npz", positions=shuffled_images(x, box, rng), box=box)
        np.testing.assert_allclose(cv.transform(pv.read(path)), cv.transform(x), atol=1e-5)


@pytest.mark.parametrize("shape", ANGLES)
def test_wrapped_copy_of_chain3d_gives_the_same_cv(tmp_path, shape):
    """The simulated chain, in a box that it is longer than: wrapped, in shuffled images, split into two files."""
    whole = pv.read(DATA / "chain3d.xtc", topology=DATA / "chain3d.pdb", length_unit="sigma")
    n = len(whole)
    assert np.ptp(whole.positions, axis=1).max() > 4
    rng = np.random.default_rng(10)
    box = box_vectors(np.full((n, 3), 4.0), np.tile(ANGLES[shape], (n, 1)))
    x = shuffled_images(whole.positions + rng.normal(size=(n, 1, 3)), box, rng)
    for k, part in enumerate((slice(0, 1000), slice(1000, n))):
        saved(tmp_path / f"{k}.npz", positions=x[part], box=box[part], bonds=whole.bonds)
    cv = untrained(whole)
    np.testing.assert_allclose(cv.transform(pv.read(tmp_path / "*.npz")), cv.transform(whole), atol=1e-5)

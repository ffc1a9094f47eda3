"""Which bead is which: names, ids and residues in text formats, whatever the order of columns and lines."""

import itertools

import h5py
import numpy as np
import pytest

import polyvae as pv

PLACES = np.array([[0.0, 0.0, 0.5], [1.0, 0.0, 0.0], [2.0, 0.5, 0.0]])
NAMES, IDS = ("Aa", "Bb", "Cc"), (3, 5, 9)


def extended_xyz(path, order_of_columns, orders_of_lines):
    """Frames of the same beads; in each the lines come in another order."""
    kinds = {"species": "species:S:1", "pos": "pos:R:3", "id": "id:I:1", "Z": "Z:I:1"}
    words = {"species": NAMES, "pos": [f"{x} {y} {z}" for x, y, z in PLACES], "id": IDS, "Z": (6, 6, 6)}
    text = ""
    for order in orders_of_lines:
        text += f"3\nProperties={':'.join(kinds[name] for name in order_of_columns)}\n"
        text += "".join(" ".join(str(words[name][k]) for name in order_of_columns) + "\n" for k in order)
    path.write_text(text)
    return path


@pytest.mark.parametrize("columns", list(itertools.permutations(["species", "pos", "id", "Z"]))[::3])
def test_columns_of_extended_xyz_are_what_the_file_says(tmp_path, columns):
    path = extended_xyz(tmp_path / "a.xyz", columns, [(2, 0, 1), (1, 2, 0)])
    traj = pv.read(path)
    assert traj.names == NAMES
    assert tuple(traj.ids) == IDS
    np.testing.assert_allclose(traj.positions, [PLACES, PLACES])
    for options in ({}, {"topology": path}):
        chosen = pv.read(path, select="name Aa Cc", **options)
        assert chosen.names == ("Aa", "Cc")
        assert tuple(chosen.ids) == (3, 9)
        np.testing.assert_allclose(
            chosen.positions[:, 1] - chosen.positions[:, 0], [[2, 0.5, -0.5][: chosen.n_dims]] * 2
        )


@pytest.mark.parametrize(
    "comment",
    [
        'Lattice="9 0 0 0 9 0 0 0 9" pbc="T F T"',
        "Lattice=[[9,0,0],[0,9,0],[0,0,9]] pbc=[T, F, T]",
        '"Lattice" = "9 0 0 0 9 0 0 0 9" "pbc" = "T F T"',
        r'Lattice="9 0 0 0 9 0 0 0 9" note="was \" Lattice=[5,0,0,0,5,0,0,0,5] \" before" pbc="T F T"',
        'title="pbc=F Lattice=5" Lattice={9 0 0 0 9 0 0 0 9} pbc={T F T} done',
    ],
)
def test_ways_to_write_the_box_in_extended_xyz(tmp_path, comment):
    (tmp_path / "a.xyz").write_text(f"2\n{comment}\nA 0 0 0.5\nB 1 0 0\n")
    traj = pv.read(tmp_path / "a.xyz")
    np.testing.assert_allclose(traj.box, [9 * np.eye(3)])
    assert traj.periodic == (True, False, True)


def test_a_box_in_some_frames_alone_is_refused(tmp_path):
    frame = "2\n{}\nA 0 0 0.5\nB 1 0 0\n"
    (tmp_path / "a.xyz").write_text(frame.format('Lattice="9 0 0 0 9 0 0 0 9"') + frame.format("none"))
    with pytest.raises(pv.InputError, match="frame 1 states no box"):
        pv.read(tmp_path / "a.xyz")


def alpha_carbons(path, rows, box=""):
    """A PDB of CA: alternate location, residue, insertion code and place of each."""
    line = "ATOM  {:5d}  CA {}ALA A{:4d}{}   {:8.3f}{:8.3f}{:8.3f}  1.00  0.00           C\n"
    path.write_text(box + "".join(line.format(k, *row) for k, row in enumerate(rows, 1)) + "END\n")
    return path


@pytest.mark.parametrize("box", ["", "CRYST1   50.000   50.000   50.000  90.00  90.00  90.00 P 1           1\n"])
def test_inserted_residues_are_of_the_chain(tmp_path, box):
    rows = [
        (" ", 52, " ", 0, 0, 0),
        (" ", 52, "A", 3.8, 0, 0),
        (" ", 52, "B", 7.6, 0.5, 0),
        (" ", 53, " ", 11.4, 0, 1),
    ]
    traj = pv.read(alpha_carbons(tmp_path / "a.pdb", rows, box))
    assert traj.bonds.tolist() == [[0, 1], [1, 2], [2, 3]]


def test_alternate_locations_are_refused_until_one_is_chosen(tmp_path):
    rows = [(" ", 1, " ", 0, 0, 0), ("A", 2, " ", 3.8, 0, 0), ("B", 2, " ", 3.7, 0.5, 0), (" ", 3, " ", 7.4, 0, 1)]
    path = alpha_carbons(tmp_path / "a.pdb", rows)
    with pytest.raises(pv.InputError, match="alternate locations A and B.*altloc B"):
        pv.read(path)
    for location, x in (("B", 3.8), ("A", 3.7)):
        traj = pv.read(path, select=f"name CA and not altloc {location}")
        assert traj.n_beads == 3
        assert traj.bonds.tolist() == [[0, 1], [1, 2]]
        assert traj.positions[0, 1, 0] - traj.positions[0, 0, 0] == pytest.approx(x, abs=1e-5)


def test_a_dump_without_ids_has_none(tmp_path):
    head = "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS ff ff ff\n0 9\n0 9\n0 9\n"
    (tmp_path / "a.lammpstrj").write_text(head + "ITEM: ATOMS type x y z\n1 0 0 0.5\n1 1 0 0\n")
    assert pv.read(tmp_path / "a.lammpstrj").ids is None


@pytest.mark.parametrize(("ids", "fill"), [([1, 2, 3, -1], -1), ([1, 2, 3, 4], -1), ([0, 1, 2, 3], None)])
def test_particles_of_h5md_that_do_not_exist_are_no_beads(tmp_path, ids, fill):
    with h5py.File(tmp_path / "a.h5md", "w") as file:
        group = file.create_group("particles/all")
        group["position/value"] = np.random.default_rng(0).normal(size=(2, 4, 3))
        group["position/step"] = group["id/step"] = np.arange(2)
        group["id"].create_dataset("value", data=np.array([ids, ids]), fillvalue=fill)
    if fill in ids:
        with pytest.raises(pv.InputError, match="missing in some frames"):
            pv.read(tmp_path / "a.h5md")
    else:
        assert pv.read(tmp_path / "a.h5md").ids.tolist() == ids

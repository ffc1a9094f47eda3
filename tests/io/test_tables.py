"""COLVAR files of any code: columns by name, restarts, several runs, periods; what is wrong is told by its row."""

import logging

import numpy as np
import pytest

import polyvae as pv


def plumed(path, time, *columns, names=("z0",), header=""):
    rows = "\n".join(" " + " ".join(f"{v:.6f}" for v in row) for row in zip(time, *columns, strict=True))
    path.write_text(f"#! FIELDS time {' '.join(names)}\n{header}{rows}\n")
    return path


def test_plumed_periods_and_settings(tmp_path):
    header = "#! SET min_phi -pi\n#! SET max_phi pi\n#! SET min_psi -2*pi\n#! SET max_psi 0.5\n"
    time = np.arange(5.0)
    table = pv.read_colvar(plumed(tmp_path / "COLVAR", time, time, 2 * time, names=("phi", "psi"), header=header))
    np.testing.assert_array_equal(table["psi"], 2 * time)
    assert table.periods == {"phi": (-np.pi, np.pi), "psi": (-2 * np.pi, 0.5)}
    assert table.segments == (5,)
    assert list(table) == ["time", "phi", "psi"]
    np.testing.assert_array_equal(table.time, time)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.colvars.traj", "# step z0 v\n 0 1.0 2.0\n 1 2.0 4.0\n# step z0 v\n 2 3.0 6.0\n"),
        ("a.csv", "step,z0,v\n0,1.0,2.0\n1,2.0,4.0\n2,3.0,6.0\n"),
        ("b.csv", '#"step","z0","v"\n0,1.0,2.0\n1,2.0,4.0\n2,3.0,6.0\n'),
        ("a.dat", "# step z0 v\n# made by hand\n0 1 2\n1 2 4\n2 3 6\n"),
    ],
)
def test_other_codes(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    table = pv.read_colvar(tmp_path / name)
    assert list(table) == ["step", "z0", "v"]
    np.testing.assert_array_equal(table["z0"], [1, 2, 3])
    np.testing.assert_array_equal(table["v"], [2, 4, 6])
    np.testing.assert_array_equal(table.time, [0, 1, 2])


def test_gromacs_xvg(tmp_path):
    text = '# made by\n@    title "x"\n@ s0 legend "d1"\n@ s1 legend "rbias"\n0.0 1 2\n0.5 3 4\n&\n'
    (tmp_path / "a.xvg").write_text(text)
    table = pv.read_colvar(tmp_path / "a.xvg")
    assert list(table) == ["time", "d1", "rbias"]
    np.testing.assert_array_equal(table["rbias"], [2, 4])


@pytest.mark.parametrize("name", ["COLVAR", "z.csv", "z.npz"])
def test_what_write_colvar_writes(tmp_path, name):
    z = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    pv.write_colvar(tmp_path / name, z, time=0.5 * np.arange(50), columns={"weight": z[:, 0] ** 2})
    table = pv.read_colvar(tmp_path / name)
    np.testing.assert_array_equal(np.stack([table["z0"], table["z1"]], 1).astype(np.float32), z)
    np.testing.assert_allclose(table.time, 0.5 * np.arange(50))
    assert "weight" in table


def test_a_restart_counts_as_it_went_the_last_time(tmp_path, caplog):
    """PLUMED appends: the rows after the checkpoint come a second time, under a header of their own."""
    first, again = np.arange(0, 10.0), np.arange(7, 15.0)
    a, b = (plumed(tmp_path / n, t, t + k) for k, (n, t) in enumerate([("a", first), ("b", again)]))
    (tmp_path / "COLVAR").write_text(a.read_text() + b.read_text())
    with caplog.at_level(logging.INFO, logger="polyvae"):
        table = pv.read_colvar(tmp_path / "COLVAR")
    assert table.segments == (15,)
    np.testing.assert_array_equal(table["z0"], np.r_[np.arange(7), np.arange(7, 15) + 1])
    assert "restart at 7; 3 rows" in caplog.text


def test_equal_times_count_once(tmp_path):
    table = pv.read_colvar(plumed(tmp_path / "COLVAR", [0, 1, 1, 2], [0, 1, 10, 2]))
    np.testing.assert_array_equal(table["z0"], [0, 10, 2])


def test_which_files_are_runs_of_their_own(tmp_path):
    time = np.arange(4.0)
    plumed(tmp_path / "a0", time, time)
    plumed(tmp_path / "a1", time + 4, time)  # goes on
    plumed(tmp_path / "a2", time, time)  # begins anew
    assert pv.read_colvar([tmp_path / "a0", tmp_path / "a1", tmp_path / "a2"]).segments == (8, 4)
    assert pv.read_colvar(tmp_path / "a?").segments == (8, 4)
    both = (tmp_path / "a0").read_text() + (tmp_path / "a2").read_text()
    (tmp_path / "both").write_text(both)
    assert pv.read_colvar(tmp_path / "both").segments == (4, 4)


def test_columns_that_only_some_files_have_are_left_out(tmp_path):
    time = np.arange(4.0)
    plumed(tmp_path / "a", time, time, time, names=("z0", "more"))
    plumed(tmp_path / "b", time, 2 * time)
    table = pv.read_colvar([tmp_path / "a", tmp_path / "b"])
    assert list(table) == ["time", "z0"]
    assert table.segments == (4, 4)


def test_a_cut_last_row_is_left_out(tmp_path, caplog):
    path = plumed(tmp_path / "COLVAR", np.arange(5.0), np.arange(5.0))
    path.write_text(path.read_text()[:-12])
    with caplog.at_level(logging.INFO, logger="polyvae"):
        assert pv.read_colvar(path).segments == (4,)
    assert "cut off" in caplog.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must hold rows of numbers.*got no row"),
        ("#! FIELDS time z0\n", "must hold rows of numbers"),
        ("0 1\n1 2\n", "as many names as numbers, 2; got 0: none"),
        ("#! FIELDS time z0 z1\n0 1\n1 2\n", "as many names as numbers, 2; got 3"),
        ("#! FIELDS time z0\n0 1\n1 x\n2 3\n", "2 finite numbers.*row 2 below line 1 is '1 x'"),
        ("#! FIELDS time z0\n0 1\n1 nan\n2 3\n", "row 2 below line 1 is '1 nan'"),
        ("#! FIELDS time z0\n0 1\n1\n2 3\n", "row 2 below line 1 is '1'"),
    ],
)
def test_bad_tables_are_refused_by_their_row(tmp_path, text, said):
    path = tmp_path / "COLVAR"
    path.write_text(text)
    with pytest.raises(pv.InputError, match=f"COLVAR: .*{said}"):
        pv.read_colvar(path)


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="none: no such file"):
        pv.read_colvar(tmp_path / "none")
    table = pv.read_colvar(plumed(tmp_path / "COLVAR", [0.0, 1.0], [0.0, 1.0]))
    with pytest.raises(pv.InputError, match="no column 'z7'; there are time, z0"):
        table["z7"]


def test_rows_of_frames_by_their_times(tmp_path):
    time = 0.2 * np.arange(30)
    for name in "ab":
        plumed(tmp_path / name, time, time)
    table = pv.read_colvar([tmp_path / "a", tmp_path / "b"])
    frames = np.tile(time[::5].astype(np.float32), 2)
    np.testing.assert_array_equal(table.rows_at(frames, (6, 6)), np.r_[0:30:5, 30:60:5])
    np.testing.assert_array_equal(table.rows_at(None, (30, 30)), np.arange(60))
    with pytest.raises(pv.InputError, match="frame 7 is at 1.1"):
        table.rows_at(frames + np.where(np.arange(12) == 7, 0.1, 0), (6, 6))
    with pytest.raises(pv.InputError, match="12 frames in 1 runs and 60 rows in 2"):
        table.rows_at(frames, (12,))


def test_hills_are_a_sum_whatever_their_times(tmp_path):
    """Walkers add hills at one time, and a restart those that it had read."""
    head = "#! FIELDS time z0 sigma_z0 height biasf\n"
    (tmp_path / "HILLS").write_text(head + "1 0 1 1 5\n1 1 1 1 5\n2 0 1 1 5\n" + head + "1 3 1 1 5\n")
    (tmp_path / "HILLS.1").write_text(head + "1 7 1 1 5\n")
    table = pv.read_colvar([tmp_path / "HILLS", tmp_path / "HILLS.1"])
    np.testing.assert_array_equal(table["z0"], [0, 1, 0, 3, 7])
    plumed(tmp_path / "COLVAR", np.arange(3.0), np.arange(3.0))
    with pytest.raises(pv.InputError, match="HILLS is a list of hills and .*COLVAR is not; read them apart"):
        pv.read_colvar([tmp_path / "COLVAR", tmp_path / "HILLS"])


def test_what_gromacs_really_writes(tmp_path):
    head = "# This file was created Wed\n# Created by:\n#     :-) GROMACS - gmx gyrate, 2020.1 (-:\n"
    (tmp_path / "g.xvg").write_text(head + '@ s0 legend "Rg"\n0 1.5\n1 1.6\n')
    assert list(pv.read_colvar(tmp_path / "g.xvg")) == ["time", "Rg"]
    (tmp_path / "rms.xvg").write_text(head + '@    yaxis  label "RMSD (nm)"\n0 1.5\n1 1.6\n')
    assert list(pv.read_colvar(tmp_path / "rms.xvg")) == ["time", "y0"]


def test_vectors_of_colvars(tmp_path):
    (tmp_path / "a.colvars.traj").write_text("# step d v\n0 1.5 ( 1 , 2 , 3 )\n1 2.5 ( 4 , 5 , 6 )\n")
    table = pv.read_colvar(tmp_path / "a.colvars.traj")
    assert list(table) == ["step", "d", "v_0", "v_1", "v_2"]
    np.testing.assert_array_equal(table["v_1"], [2, 5])


def test_a_number_that_is_cut_is_not_taken_for_another(tmp_path):
    (tmp_path / "COLVAR").write_text("#! FIELDS time bias\n0 12.5\n1 12.6\n2 1")
    np.testing.assert_array_equal(pv.read_colvar(tmp_path / "COLVAR")["bias"], [12.5, 12.6])

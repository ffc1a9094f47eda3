"""COLVAR files of any code: columns by name, restarts, several runs, periods; what is wrong is told by its row."""

import bz2
import gzip
import logging
import lzma

import numpy as np
import pytest

import polyvae as pv
from polyvae.io.patterns import in_pairs


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
        ("c.csv", "step;z0;v\n0;1.0;2.0\n1;2.0;4.0\n2;3.0;6.0\n"),
        ("d.csv", "step;z0;v\n0;1,0;2,0\n1;2,0;4,0\n2;3,0;6,0\n"),
        ("put_together.csv", "step,z0,v\n0,1.0,2.0\nstep,z0,v\n1,2.0,4.0\n2,3.0,6.0\n"),
        ("quoted.csv", '"step";"z0";"v"\n0;1;2\n1;2;4\n"step";"z0";"v"\n2;3;6\n'),
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
    assert "restart at 7; 3 rows" in table.notes[0]


@pytest.mark.parametrize("time", [np.zeros(9), 0.001 * (np.arange(9) // 3), [0, 1, 1, 2, 2, 2, 3, 4, 5]])
def test_rows_of_one_time_stay(tmp_path, time):
    """An engine that gives PLUMED no steps, and times that FMT rounds."""
    table = pv.read_colvar(plumed(tmp_path / "COLVAR", time, np.arange(9.0)))
    np.testing.assert_array_equal(table["z0"], np.arange(9.0))
    assert table.segments == (9,)
    assert table.notes == ()


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
    assert "columns more" in " ".join(table.notes)


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


def test_molecules_of_one_time_are_runs_of_their_own(tmp_path):
    """Rows of a melt: all molecules of a frame together; a restart goes back in each."""
    rows = [(t, m, 10 * t + m) for t in range(6) for m in range(3)]
    again = [(t, m, 100 + 10 * t + m) for t in range(4, 8) for m in range(3)]
    text = "#! FIELDS time z0 molecule\n"
    (tmp_path / "COLVAR").write_text(text + "".join(f" {t} {z} {m}\n" for t, m, z in rows + again))
    table = pv.read_colvar(tmp_path / "COLVAR")
    assert table.segments == (8, 8, 8)
    for m, values in enumerate(np.split(table["z0"], 3)):
        np.testing.assert_array_equal(values, [10 * t + m + 100 * (t > 3) for t in range(8)])
    np.testing.assert_array_equal(table["molecule"], np.repeat([0, 1, 2], 8))
    np.testing.assert_array_equal(table.rows_at(np.tile([1.0, 5.0], 3), (2, 2, 2)), [1, 5, 9, 13, 17, 21])


@pytest.mark.parametrize("column", ["molecule", "walker", "replica", "run"])
def test_two_files_of_molecules_come_file_by_file(tmp_path, column):
    for k in range(2):
        text = f"time,z0,{column}\n" + "".join(f"{t},{100 * k + m},{m}\n" for t in range(3) for m in range(2))
        (tmp_path / f"{k}.csv").write_text(text)
    table = pv.read_colvar(tmp_path / "?.csv")
    assert table.segments == (3, 3, 3, 3)
    np.testing.assert_array_equal(table["z0"][::3], [0, 1, 100, 101])


@pytest.mark.parametrize(
    ("tables", "frames", "order"),
    [
        (["r1/C", "r2/C", "r10/C"], ["r1/a.xtc", "r2/a.xtc", "r10/a.xtc"], [0, 1, 2]),
        (["r1/C", "r2/C", "r10/C"], ["r10/a.xtc", "r2/a.xtc", "r1/a.xtc"], [2, 1, 0]),
        (["C.01", "C.02"], ["run2.xtc", "run1.xtc"], [1, 0]),
        (["apo/C", "holo/C"], ["holo.xtc", "apo.xtc"], [1, 0]),
        (["w0/C.1", "w0/C.2", "w1/C.1"], ["w0/t1.xtc", "w0/t2.xtc", "w1/t1.xtc"], [0, 1, 2]),
        (["a/C", "b/C"], ["x1.xtc", "x2.xtc"], [0, 1]),
        (["C"], ["x9.xtc"], [0]),
    ],
)
def test_tables_and_trajectories_are_paired_by_name(tables, frames, order):
    assert in_pairs(tables, frames) == [tables[k] for k in order]


@pytest.mark.parametrize(
    ("tables", "frames"),
    [
        (["r1/C", "r3/C"], ["r1/a", "r2/a"]),
        (["C.0", "C.1"], ["a.1", "a.2"]),
        (["apo/C", "holo/C"], ["apo/a", "x/a"]),
    ],
)
def test_other_names_are_refused_with_both_lists(tables, frames):
    with pytest.raises(pv.InputError, match=f"{tables[0]}, {tables[1]} for {frames[0]}, {frames[1]}"):
        in_pairs(tables, frames)


def test_parts_of_a_run_come_in_natural_order(tmp_path):
    for k in range(1, 13):
        plumed(tmp_path / f"COLVAR.{k}", 5.0 * k + np.arange(5), np.full(5, float(k)))
    table = pv.read_colvar(tmp_path / "COLVAR.*")
    assert table.segments == (60,)
    np.testing.assert_array_equal(table["z0"], np.repeat(np.arange(1.0, 13), 5))
    # Frames in parts of other lengths are found by their times.
    np.testing.assert_array_equal(table.rows_at(5.0 + 2 * np.arange(30), (7, 23)), np.arange(0, 60, 2))


@pytest.mark.parametrize("pack", [gzip.open, bz2.open, lzma.open])
def test_packed_tables(tmp_path, pack):
    with pack(tmp_path / "COLVAR.packed", "wt") as file:
        file.write("#! FIELDS time z0\n" + "".join(f" {k} {0.1 * k}\n" for k in range(50)))
    assert len(pv.read_colvar(tmp_path / "COLVAR.packed")["z0"]) == 50
    data = (tmp_path / "COLVAR.packed").read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    with pytest.raises(pv.InputError, match="cut off or damaged"):
        pv.read_colvar(tmp_path / "cut")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "text", ["time,z0\n0,1\n1,2\n", "#! FIELDS time z0\n0 1\n1 2\n", "# step z0\r\n0 1\r\n1 2\r\n"]
)
def test_byte_order_marks(tmp_path, encoding, text):
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    table = pv.read_colvar(tmp_path / "a.csv")
    np.testing.assert_array_equal(table["z0"], [1, 2])
    np.testing.assert_array_equal(table.time, [0, 1])


def test_columns_that_cannot_be_used_are_refused_when_asked_for(tmp_path):
    """OpenMM's reporter writes percents and, in its first row, a speed of --."""
    head = '#"Progress (%)","Step","Time (ps)","E (kJ/mole)","Speed (ns/day)","E2"\n'
    (tmp_path / "md.csv").write_text(head + "10.0%,5,0.01,1.5,--,nan\n20.0%,10,0.02,2.5,33,1\n")
    table = pv.read_colvar(tmp_path / "md.csv")
    np.testing.assert_array_equal(table["E (kJ/mole)"], [1.5, 2.5])
    np.testing.assert_array_equal(table.time, [0.01, 0.02])
    assert table.units["E (kJ/mole)"] == "kJ/mole"
    for name, said in [("Speed (ns/day)", "row 1 below line 1"), ("Progress (%)", "words"), ("E2", "row 1")]:
        with pytest.raises(pv.InputError, match=said):
            table[name]


def test_two_columns_of_one_name(tmp_path):
    (tmp_path / "a.dat").write_text("# step z0 v z0 v\n0 1 2 9 2\n1 3 4 9 4\n")
    table = pv.read_colvar(tmp_path / "a.dat")
    np.testing.assert_array_equal(table["v"], [2, 4])  # the same numbers
    with pytest.raises(pv.InputError, match="two columns are called 'z0'"):
        table["z0"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("#! FIELDS time z0\n 0 1\n 1 2\n 2 3\n 3 4#! FIELDS time z0\n 2 5\n 3 6\n", "COLVAR"),
        ("#! FIELDS time z0\n 0 1\n 1 2\n 2 3\n 3\n#! FIELDS time z0\n 2 5\n 3 6\n", "COLVAR"),
        ("# step z0\n0 1\n1 2\n2 3\n3 4. 2 4\n2 5\n3 6\n", "a.colvars.traj"),
        ("step,z0\n0,1\n1,2\n2,3\n3,\n2,5\n3,6\n", "a.csv"),
        ("step,z0\n0,1\n1,2\n2,3\n3,4.12,5.5\n2,5\n3,6\n", "a.csv"),
    ],
)
def test_a_row_cut_by_a_kill_and_done_again(tmp_path, caplog, text, name):
    (tmp_path / name).write_text(text)
    table = pv.read_colvar(tmp_path / name)
    np.testing.assert_array_equal(table["z0"], [1, 2, 5, 6])
    assert "cut off" in caplog.text
    assert any("cut off" in note for note in table.notes)
    assert any("1 rows before it" in note for note in table.notes)


def test_steps_of_lammps_count(tmp_path):
    text = "# Time-averaged data for fix a\n# TimeStep c_rg v_x\n"
    rows = "0 1 5\n100 2 5\n200 3 5\n100 7 5\n200 8 5\n300 9 5\n"
    (tmp_path / "rg.dat").write_text(text + rows)
    table = pv.read_colvar(tmp_path / "rg.dat")
    np.testing.assert_array_equal(table["c_rg"], [1, 7, 8, 9])
    np.testing.assert_array_equal(table.time, [0, 100, 200, 300])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# 1\n# -3.0e+00 1.0e-01 60 0\n\n -2.9 5.0\n", "a grid of Colvars"),
        (
            "#! FIELDS z0 file.free der_z0\n#! SET min_z0 -1\n#! SET max_z0 1\n#! SET nbins_z0 9\n 0 1 2\n",
            "a grid",
        ),
        ("configuration {\n  step 5000\n}\n", "a state of Colvars"),
        ("LAMMPS (22 Jul 2025)\nunits lj\n   Step  Temp\n  0  1.0\n 10 1.1\nLoop time of 1\n", "a log of LAMMPS"),
        ("# Time-averaged\n# TimeStep Number-of-rows\n# Row c_x\n0 2\n1 5\n2 6\n", "mode vector"),
        ('@ s0 legend "a"\n0 1\n1 2\n&\n0 3\n1 4\n', "several sets of data"),
        ("\0\1\2binary", "binary"),
    ],
)
def test_what_holds_no_rows_of_a_run_is_refused_by_name(tmp_path, text, said):
    (tmp_path / "file").write_text(text)
    with pytest.raises(pv.InputError, match=said):
        pv.read_colvar(tmp_path / "file")


@pytest.mark.parametrize(("unit", "factor"), [("ps", 1), ("ns", 1000), ("fs", 0.001), ("us", 1e6)])
def test_times_of_gromacs_in_any_unit(tmp_path, unit, factor):
    text = f'@    xaxis  label "Time ({unit})"\n@    yaxis  label "(nm)"\n@ s0 legend "Rg"\n'
    (tmp_path / "g.xvg").write_text(text + "".join(f"{k / 4 / factor:.9f} {k}\n" for k in range(9)))
    table = pv.read_colvar(tmp_path / "g.xvg")
    np.testing.assert_allclose(table.time, np.arange(9) / 4, rtol=1e-9, atol=1e-9 * factor)
    np.testing.assert_array_equal(table.rows_at(np.array([0.5, 2.0]), (2,)), [2, 8])
    assert table.units == {"time": unit, "Rg": "nm"}


@pytest.mark.parametrize(
    ("values", "unit", "period"),
    [
        ([-170, 175, 10], "degrees", (-180, 180)),
        ([10, 350, 20], "deg", (-180, 180)),
        ([10, 170, 20], "degrees", None),
        ([-3, 3, 0.5], "rad", (-np.pi, np.pi)),
        ([-170, 475, 10], "degrees", None),
        ([-170, 175, 10], "nm", None),
    ],
)
def test_angles_that_go_around(tmp_path, values, unit, period):
    text = f'@    xaxis  label "Time (ps)"\n@    yaxis  label "Angle ({unit})"\n@ s0 legend "phi"\n'
    (tmp_path / "g.xvg").write_text(text + "".join(f"{k} {v}\n" for k, v in enumerate(values)))
    assert pv.read_colvar(tmp_path / "g.xvg").periods.get("phi") == period


def test_files_of_other_periods_or_kernels_are_read_apart(tmp_path):
    time = np.arange(4.0)
    for name, ends in (("a", ("-pi", "pi")), ("b", ("0", "2*pi")), ("c", ("-3.14159265358979312", "pi"))):
        header = f"#! SET min_phi {ends[0]}\n#! SET max_phi {ends[1]}\n"
        plumed(tmp_path / name, time, time, names=("phi",), header=header)
    with pytest.raises(pv.InputError, match="b: the period of phi is .*Read them apart"):
        pv.read_colvar([tmp_path / "a", tmp_path / "b"])
    assert pv.read_colvar([tmp_path / "a", tmp_path / "c"]).periods["phi"] == pytest.approx((-np.pi, np.pi))
    head = "#! FIELDS time z0 sigma_z0 height biasf\n#! SET kerneltype {}\n1 0 1 1 5\n"
    for kind in ("gaussian", "stretched-gaussian"):
        (tmp_path / kind).write_text(head.format(kind))
    with pytest.raises(pv.InputError, match="kerneltype"):
        pv.read_colvar([tmp_path / "gaussian", tmp_path / "stretched-gaussian"])


@pytest.mark.parametrize("end", ["-.*pi", "x", "inf", "nan", "--1", "1"])
def test_ends_of_a_period_that_are_no_numbers(tmp_path, end):
    plumed(tmp_path / "COLVAR", [0, 1], [0, 1], names=("phi",), header=f"#! SET min_phi {end}\n#! SET max_phi 1\n")
    with pytest.raises(pv.InputError, match="the period of phi must be two numbers"):
        pv.read_colvar(tmp_path / "COLVAR")


@pytest.mark.parametrize("damage", ["cut", "flipped", "objects", "no zip", "lengths", "words"])
def test_damaged_npz(tmp_path, damage):
    path = tmp_path / "z.npz"
    np.savez(path, time=np.arange(60.0), z=np.zeros((60, 2)))
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:900])
    elif damage == "flipped":
        data[900] ^= 255
        path.write_bytes(data)
    elif damage == "no zip":
        path.write_bytes(b"PK" + b"\0" * 99)
    else:
        z = {"objects": np.array([{}, {}], object), "lengths": np.zeros((3, 2)), "words": np.array(["a", "b"])}
        np.savez(path, z=z[damage], **({"time": np.arange(60.0)} if damage == "lengths" else {}))
    with pytest.raises(pv.InputError, match=r"z\.npz") as error:
        pv.read_colvar(path)
    assert "pickle" not in str(error.value)


@pytest.mark.parametrize(
    ("time", "frames", "rows"),
    [
        (np.zeros(5), np.arange(5.0), np.arange(5)),  # a clock that stands
        (np.round(0.0005 * np.arange(6), 3), 0.0005 * np.arange(6), np.arange(6)),
        (np.arange(0, 500, 100), 0.2 * np.arange(5), None),  # named time, so no steps
        (np.arange(5.0), np.arange(1, 6.0), None),
        (np.zeros(5), np.arange(4.0), None),
    ],
)
def test_frames_are_found_by_times_that_tell_something(tmp_path, time, frames, rows):
    table = pv.read_colvar(plumed(tmp_path / "COLVAR", time, np.arange(len(time))))
    if rows is None:
        with pytest.raises(
            pv.InputError, match="COLVAR must have a row|frames must be|times of rows must increase"
        ):
            table.rows_at(frames, (len(frames),))
    else:
        np.testing.assert_array_equal(table.rows_at(frames, (len(frames),)), rows)


@pytest.mark.parametrize(
    ("steps", "times", "found"),
    [
        (np.arange(0, 600, 100), 0.2 * np.arange(6), np.arange(6)),  # steps of 2 fs
        (np.arange(0, 600, 100), np.arange(0, 600, 200.0), np.arange(0, 6, 2)),  # frames whose times are steps
        (np.arange(0, 600, 100), 0.2 * np.arange(1, 7), None),  # off by one
        (np.arange(0, 60_000, 100), np.arange(0, 600, 100.0), None),  # 2 fs a step, so not these rows
    ],
)
def test_steps_beside_times(tmp_path, steps, times, found):
    (tmp_path / "a.colvars.traj").write_text("# step z0\n" + "".join(f"{s} 1.5\n" for s in steps))
    table = pv.read_colvar(tmp_path / "a.colvars.traj")
    if found is None:
        with pytest.raises(pv.InputError, match="--ignore-times"):
            table.rows_at(times, (len(times),))
    else:
        np.testing.assert_array_equal(table.rows_at(times, (len(times),)), found)


def test_blocks_of_a_long_file_join(tmp_path, monkeypatch):
    """Wherever a block ends, within a row, at a header or at a restart."""
    rows = [f" {k} {k * k}\n" for k in range(40)]
    text = "# step z0\n" + "".join(rows[:25]) + "# step z0\n" + "".join(rows[20:])
    (tmp_path / "a.colvars.traj").write_text(text)
    for size in (3, 17, 64, 250):
        monkeypatch.setattr("polyvae.io.table_files._BLOCK", size)
        table = pv.read_colvar(tmp_path / "a.colvars.traj")
        np.testing.assert_array_equal(table["z0"], np.arange(40) ** 2)


@pytest.mark.parametrize("blank", ["\n", "  \n", "\r\n"])
def test_empty_lines_are_no_rows(tmp_path, blank):
    rows = [f" {k} {k * k}\n" for k in range(9)]
    text = (
        "# step z0\n" + blank + "".join(rows[:6]) + blank + "# step z0\n" + blank + "".join(rows[5:]) + 2 * blank
    )
    (tmp_path / "a.colvars.traj").write_bytes(text.encode())
    table = pv.read_colvar(tmp_path / "a.colvars.traj")
    np.testing.assert_array_equal(table["z0"], np.arange(9) ** 2)
    assert not any("cut" in note for note in table.notes)


def test_the_row_between_two_runs_of_lammps_is_one(tmp_path):
    text = "# step d\n0 1.5\n10 2.5\n20 3.5\n20 3.5\n30 4.5\n"
    (tmp_path / "a.colvars.traj").write_text(text)
    table = pv.read_colvar(tmp_path / "a.colvars.traj")
    np.testing.assert_array_equal(table["d"], [1.5, 2.5, 3.5, 4.5])
    assert "1 rows that repeat the row of their step" in table.notes[0]
    assert table.segments == (4,)


@pytest.mark.parametrize(
    ("name", "ps"),
    [("Time/ps", 1), ("time_ns", 1000), ("Time / fs", 1e-3), ("time_us", 1e6), ("t (ns)", 1000), ("t/ps", 1)],
)
def test_a_unit_of_time_without_brackets(tmp_path, name, ps):
    (tmp_path / "t.csv").write_text(f"{name},z0\n0,1\n2,3\n1,4\n")
    table = pv.read_colvar(tmp_path / "t.csv")
    np.testing.assert_allclose(table.time, [0, ps])  # time goes back, so the run was restarted
    np.testing.assert_array_equal(table["z0"], [1, 4])


def test_a_csv_of_two_runs_put_together(tmp_path):
    one, two = "0,1\n1,2\n2,3\n", "2,4\n3,5\n"
    (tmp_path / "a.csv").write_text(f"time,z0\n{one}time,z0\n{two}")
    table = pv.read_colvar(tmp_path / "a.csv")  # the second went on from time 2, which it did again
    np.testing.assert_array_equal(table["z0"], [1, 2, 4, 5])


def test_decimal_commas_have_all_their_digits(tmp_path):
    values = np.random.default_rng(0).normal(size=300)
    rows = "".join(f"{k};{v:.12f}\n" for k, v in enumerate(values)).replace(".", ",")
    (tmp_path / "a.csv").write_text("step;z0\n" + rows)
    np.testing.assert_allclose(pv.read_colvar(tmp_path / "a.csv")["z0"], values, atol=1e-12)


def test_a_restart_with_one_more_column_is_noted(tmp_path):
    (tmp_path / "COLVAR").write_text("#! FIELDS time z0\n0 1\n1 2\n#! FIELDS time z0 z1\n2 3 9\n3 4 9\n")
    table = pv.read_colvar(tmp_path / "COLVAR")
    np.testing.assert_array_equal(table["z0"], [1, 2, 3, 4])
    assert "columns z1" in " ".join(table.notes)


@pytest.mark.parametrize("name", ["c_com[1]", "v_x(2)", "f_1[10]"])
def test_the_index_of_a_component_is_no_unit(tmp_path, name):
    (tmp_path / "ave.dat").write_text(f"# Time-averaged data for fix av\n# TimeStep {name}\n100 2.5\n200 2.6\n")
    table = pv.read_colvar(tmp_path / "ave.dat")
    np.testing.assert_array_equal(table[name], [2.5, 2.6])
    assert not table.units


def test_errors_in_an_xvg_are_named_so(tmp_path):
    text = '@ xaxis label "Time (ns)"\n@ yaxis label "Angle (degrees)"\n@TYPE xydy\n'
    text += '@ s0 legend "a"\n@ s1 legend "b"\n'
    (tmp_path / "a.xvg").write_text(text + "0 1 .1 2 .2\n1 3 .3 4 .4\n")
    table = pv.read_colvar(tmp_path / "a.xvg")
    assert list(table) == ["time", "a", "a_error", "b", "b_error"]
    np.testing.assert_array_equal([table["a"], table["b"], table["b_error"]], [[1, 3], [2, 4], [0.2, 0.4]])
    np.testing.assert_array_equal(table.time, [0, 1000])


@pytest.mark.parametrize(("low", "high", "ends"), [("-pi/2", "pi/2", (-0.5, 0.5)), ("0", "3*pi/4", (0, 0.75))])
def test_periods_as_fractions_of_pi(tmp_path, low, high, ends):
    header = f"#! SET min_z0 {low}\n#! SET max_z0 {high}\n"
    table = pv.read_colvar(plumed(tmp_path / "COLVAR", np.arange(3.0), np.ones(3), header=header))
    np.testing.assert_allclose(table.periods["z0"], np.pi * np.array(ends))

"""Broken files: one clear line that names the file and, where it can, the frame; exit 1; nothing written."""

import dataclasses
import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ideal_chains, in_3d

import polyvae as pv
from polyvae.app import cli


def good(n_frames=40, n_beads=12):
    return pv.Trajectory(ideal_chains(n_frames, n_beads, 3), length_unit="nm")


def test_missing_empty_and_wrong_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.xtc: no such file"):
        pv.read(tmp_path / "none.xtc")
    for suffix in (".npz", ".xtc", ".dcd"):
        path = tmp_path / f"empty{suffix}"
        path.touch()
        with pytest.raises(pv.InputError, match=f"{path.name} is empty"):
            pv.read(path)
        path.write_bytes(b"this is no trajectory at all\n" * 20)
        with pytest.raises(pv.InputError, match=path.name):
            pv.read(path)
    with pytest.raises(pv.InputError, match="is a folder"):
        pv.read(tmp_path)
    np.save(tmp_path / "a.npy", good().positions)
    for read in (pv.read, pv.stream):
        with pytest.raises(pv.InputError, match=r"a\.npy is a bare array; save it as npz \(numpy\.savez"):
            read(tmp_path / "a.npy")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(pv.InputError, match="a.txt: trajectories are read from npz, XTC, DCD"):
        pv.read(tmp_path / "a.txt")


@pytest.mark.parametrize("suffix", [".xtc", ".dcd"])
@pytest.mark.parametrize("n_beads", [12, 5], ids=["compressed", "few beads"])
def test_a_cut_anywhere_is_seen(tmp_path, suffix, n_beads):
    """Cut at every byte of the last two frames: whole frames are read, all else is refused or left out."""
    whole = tmp_path / f"whole{suffix}"
    lengths = []
    for n in (3, 4, 5):
        pv.write(whole, good(5, n_beads)[:n], topology=False)
        lengths.append(len(whole.read_bytes()))
    data = whole.read_bytes()
    assert len(pv.read(whole)) == 5
    path = tmp_path / f"cut{suffix}"
    for end in range(lengths[0], len(data)):
        path.write_bytes(data[:end])
        if end in lengths:  # between frames: a shorter run
            assert len(pv.read(path)) == 3 + lengths.index(end)
            continue
        with pytest.raises(
            pv.InputError, match=rf"{path.name} is cut off or damaged in frame [34] \(the [34] frames"
        ):
            pv.read(path)
    for make in (pv.read, pv.stream):
        assert len(make(path, stop=4)) == 4
        for stop in (5, -1):
            with pytest.raises(pv.InputError, match="damaged in frame 4"):
                make(path, stop=stop)


def test_a_dcd_of_fewer_frames_than_its_header_says(tmp_path, caplog):
    """What a run leaves that was killed: every frame is whole, and the count in the header is that of the plan."""
    path = tmp_path / "run.dcd"
    pv.write(path, good(), topology=False)
    whole = pv.read(path).positions
    data = bytearray(path.read_bytes())
    data[8:12] = (500).to_bytes(4, "little")
    path.write_bytes(data)
    for make in (pv.read, lambda path: pv.as_trajectory(pv.stream(path, chunk_bytes=12 * 12 * 7))):
        caplog.clear()
        np.testing.assert_array_equal(make(path).positions, whole)
        assert [r.levelname for r in caplog.records if "states 500 frames, but it holds 40" in r.message] == [
            "WARNING"
        ]
    path.write_bytes(data[:-20])  # killed while it wrote: the last frame is left out only where that is told
    with pytest.raises(pv.InputError, match="damaged in frame 39"):
        pv.read(path)
    np.testing.assert_array_equal(pv.read(path, stop=39).positions, whole[:39])


def test_damage_in_the_middle_of_an_xtc_names_the_frame(tmp_path):
    path = tmp_path / "run.xtc"
    pv.write(path, good(3), topology=False)
    start_of_3 = path.stat().st_size
    pv.write(path, good(10), topology=False)
    data = bytearray(path.read_bytes())
    data[start_of_3 : start_of_3 + 8] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(pv.InputError, match="damaged in frame 3"):
        pv.read(path)


def test_the_c_readers_are_silent(tmp_path, capfd):
    path = tmp_path / "run.xtc"
    pv.write(path, good(), topology=False)
    pv.read(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(pv.InputError):
        pv.read(path)
    print("still here")
    captured = capfd.readouterr()
    assert captured.out == "still here\n"
    assert captured.err == ""


@pytest.mark.parametrize("suffix", [".npz", ".xtc", ".dcd"])
@pytest.mark.parametrize("value", [np.nan, 1e38, -2e15])
def test_coordinates_that_are_not_finite(tmp_path, suffix, value):
    path = tmp_path / f"run{suffix}"
    positions = ideal_chains(20, 5, 3)
    positions[7, 3] = value
    if suffix == ".npz":
        np.savez(path, arr=positions)
    elif suffix == ".dcd":
        from mdtraj.formats import DCDTrajectoryFile

        with DCDTrajectoryFile(str(path), "w") as file:
            file.write(positions)
    else:
        from MDAnalysis.lib.formats.libmdaxdr import XTCFile

        with XTCFile(str(path), "w") as file:  # up to 9 atoms are stored as plain floats
            for k, frame in enumerate(positions):
                file.write(frame, np.zeros((3, 3)), k, k, 1000)
    with pytest.raises(
        pv.InputError, match=f"{path.name}: positions must be finite.* frame 7, bead 3 .*keep_good"
    ):
        pv.read(path)
    np.testing.assert_array_equal(pv.read(path, keep_good=True).positions, pv.read(path, stop=7).positions)
    np.testing.assert_array_equal(
        pv.read(path, keep_good=True, start=1, step=3).positions, pv.read(path, start=1, stop=7, step=3).positions
    )
    stream = pv.stream(path, keep_good=True, chunk_bytes=12 * 5 * 7)
    assert [sum(map(len, stream)) for _ in range(2)] == [7, 7]
    with pytest.raises(pv.InputError, match="frame 7, bead 3"):
        pv.read(path, start=7, keep_good=True)
    with pytest.raises(pv.InputError, match="frame 7, bead 3"):
        pv.Trajectory(positions)


def test_a_box_that_appears_in_the_middle_is_named_there(tmp_path):
    box = np.zeros((20, 3, 3))
    box[15, 0, 0] = 1e-20
    np.savez(tmp_path / "a.npz", positions=ideal_chains(20, 5, 3), box=box)
    for make in (pv.read, lambda path: list(pv.stream(path, chunk_bytes=12 * 5 * 4))):
        with pytest.raises(pv.InputError, match="frame 15 has a box, the frames before it have none.*keep_good"):
            make(tmp_path / "a.npz")
    assert len(pv.read(tmp_path / "a.npz", keep_good=True)) == 15
    assert len(pv.read(tmp_path / "a.npz", unwrap=False)) == 20


@in_3d
def test_latents_that_are_not_finite_are_refused_by_frame(tmp_path, cv, traj):
    scaled = dataclasses.replace(cv.scaled, mean=cv.mean.at[0].set(np.nan))
    broken = dataclasses.replace(cv, scaled=scaled)
    with pytest.raises(pv.InputError, match="the latent coordinates of frame 0 are"):
        broken.transform(traj)
    pv.write(tmp_path / "a.npz", traj)
    with pytest.raises(pv.InputError, match="the latent coordinates of frame 0 are"):
        pv.project(broken, pv.stream(tmp_path / "a.npz"), tmp_path / "COLVAR")
    assert not (tmp_path / "COLVAR").exists()


class TestNpz:
    def test_any_key_when_alone_else_arr_or_positions(self, tmp_path):
        path, x = tmp_path / "a.npz", ideal_chains(4, 3, 2)
        np.savez(path, whatever=x)
        np.testing.assert_array_equal(pv.read(path).positions, x)
        for key in ("arr", "positions"):
            np.savez(path, **{key: x}, time=np.arange(4) * 2.0, length_unit="nm")
            traj = pv.read(path)
            assert traj.time.tolist() == [0, 2, 4, 6]
            assert traj.length_unit == "nm"
        np.savez(path, a=x, b=x)
        with pytest.raises(pv.InputError, match=r'a.npz holds the arrays a, b; name the positions "arr"'):
            pv.read(path)

    def test_wrong_rank_and_objects(self, tmp_path):
        path = tmp_path / "a.npz"
        np.savez(path, arr=np.zeros((10, 24)))
        with pytest.raises(pv.InputError, match=r"a.npz: array 'arr' has shape \(10, 24\)"):
            pv.read(path)
        np.savez(path, arr=np.array([{"code": "runs"}], dtype=object))
        with pytest.raises(pv.InputError, match="cannot be read as npz"):
            pv.read(path)

    @pytest.mark.parametrize(
        ("arrays", "words"),
        [
            ({"arr": np.zeros((300, 0, 3))}, "at least one bead"),
            ({"arr": np.zeros((30, 4, 3), complex)}, "real numbers"),
            ({"arr": np.zeros((30, 4, 3), str)}, "real numbers"),
            ({"box": np.zeros((30, 2))}, r"array 'box' needs one entry a frame, shape \(30, 3, 3\)"),
            ({"segments": np.array(["a"])}, "segments must be whole numbers"),
            ({"segments": np.array([15.0, 15.0])}, "segments must be whole numbers"),
            ({"segments": np.array([10, 19])}, "add up to the 30 frames; got 10, 19, in all 29"),
            ({"segments": np.array([31, -1])}, "at least 1"),
            ({"segments": np.array([], int)}, "got none"),
            ({"time": np.array(["a"] * 30)}, "'time' must hold real numbers"),
            ({"weights": np.ones(29)}, r"'weights' needs one entry a frame, shape \(30,\); got shape \(29,\)"),
            ({"weights": np.ones((30, 1))}, r"shape \(30, 1\)"),
            ({"weights": np.array(["a"] * 30)}, "'weights' must hold real numbers"),
            ({"weights": np.r_[np.ones(20), -1.0, np.ones(9)]}, "that of frame 20 is -1"),
            ({"weights": np.r_[np.ones(20), np.nan, np.ones(9)]}, "that of frame 20 is nan"),
            ({"origin": np.zeros((30, 2))}, "'origin' must hold whole numbers"),
            ({"origin": np.zeros(30, int)}, "'origin' needs one entry a frame"),
            ({"length_unit": "furlong"}, "furlong"),
        ],
    )
    def test_odd_arrays_are_refused_by_name(self, tmp_path, arrays, words):
        np.savez(tmp_path / "a.npz", **{"arr": ideal_chains(30, 4, 3)} | arrays)
        with pytest.raises(pv.InputError, match=f"a.npz: .*{words}"):
            pv.read(tmp_path / "a.npz")

    def test_truncated(self, tmp_path):
        path = tmp_path / "a.npz"
        np.savez(path, arr=ideal_chains(50, 4, 2))
        data = path.read_bytes()
        for end in (1, 100, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:end])
            with pytest.raises(pv.InputError, match="cannot be read as npz"):
                pv.read(path)


class TestTopology:
    @pytest.fixture
    def run(self, tmp_path):
        pv.write(tmp_path / "run.xtc", good())
        return tmp_path

    def test_gives_names_and_bonds_and_a_selection(self, run):
        traj = pv.read(run / "run.xtc", topology=run / "run.pdb", select="index 2:5")
        assert traj.n_beads == 4
        assert traj.names == ("B",) * 4
        assert traj.bonds.tolist() == [[0, 1], [1, 2], [2, 3]]
        np.testing.assert_allclose(traj.positions, good().positions[:, 2:6], atol=1e-4)

    def test_refusals(self, run, tmp_path):
        pv.write(tmp_path / "other.xtc", good(3, 7))
        with pytest.raises(pv.InputError, match=r"run.xtc holds 12 atoms a frame, the topology .*other.pdb 7"):
            pv.read(run / "run.xtc", topology=tmp_path / "other.pdb")
        with pytest.raises(pv.InputError, match="matches none of the 12 atoms"):
            pv.read(run / "run.xtc", topology=run / "run.pdb", select="name XYZ")
        with pytest.raises(pv.InputError, match="does not work"):
            pv.read(run / "run.xtc", topology=run / "run.pdb", select="bogus words")
        with pytest.raises(pv.InputError, match="needs a topology"):
            pv.read(run / "run.xtc", select="name B")
        (run / "bad.pdb").write_text("nonsense\n")
        with pytest.raises(pv.InputError, match="bad.pdb"):
            pv.read(run / "run.xtc", topology=run / "bad.pdb")
        with pytest.raises(pv.InputError, match="run.xtc holds 12 beads a frame, .*other.xtc 7"):
            pv.read([tmp_path / "other.xtc", run / "run.xtc"])
        with pytest.raises(pv.InputError, match="leave none"):
            pv.read(run / "run.xtc", start=100)


def command(capfd, *words):
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(word) for word in words])
    captured = capfd.readouterr()
    return exit_.value.code, captured.out, captured.err


@pytest.mark.parametrize("case", ["missing", "empty", "cut", "nan", "rank", "few", "constant", "unit"])
def test_the_command_line_says_one_line_and_leaves_nothing(tmp_path, capfd, case):
    path, out = tmp_path / "in" / "run.npz", tmp_path / "out"
    path.parent.mkdir()
    x, words = ideal_chains(400, 5, 2), []
    if case == "nan":
        x[11, 2] = np.inf
    if case == "rank":
        x = x.reshape(400, 10)
    if case == "few":
        x = x[:40]
    if case == "constant":
        x[:] = x[0]
    if case == "unit":
        words = ["--unit", "furlong"]
    if case == "empty":
        path.touch()
    elif case != "missing":
        np.savez(path, arr=x)
    if case == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    code, _, err = command(capfd, "run", path, "--out", out, *words)
    assert code == (2 if case == "unit" else 1)
    last = err.strip().splitlines()[-1]
    assert last.startswith("polyvae: error: ")
    assert "Traceback" not in err
    assert {"unit": "furlong", "few": "at least 50 frames", "constant": "all the same"}.get(
        case, "run.npz"
    ) in last
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_a_file_that_is_no_model(tmp_path, capfd):
    path = tmp_path / "run.npz"
    np.savez(path, arr=ideal_chains(10, 5, 2))
    code, _, err = command(capfd, "project", path, path, "--out", tmp_path / "COLVAR")
    assert code == 1
    assert "run.npz is not a polyvae model" in err
    assert not (tmp_path / "COLVAR").exists()


def test_bad_use_is_2(tmp_path, capfd):
    for words in (["run", "x.npz", "--latent-dim", "0"], ["run"], ["frobnicate"], ["run", "x.npz", "--bogus"],
                  ["fit", "x.npz"], ["run", "x.npz", "--observable", "energy"],
                  ["run", "x.npz", "--seed", "-1"], ["run", "x.npz", "--align", "sideways"]):  # fmt: skip
        if words[-1] == "sideways":
            np.savez(tmp_path / "x.npz", arr=ideal_chains(300, 5, 2))
            words[1] = tmp_path / "x.npz"
            words += ["--out", tmp_path / "out"]
        code, _, err = command(capfd, *words)
        assert code == 2, words
        assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", [".xtc", ".dcd", ".npz", ".pdb", ".gro"])
def test_a_full_disk_leaves_the_old_file(tmp_path, suffix):
    """A limit on the size of files makes every write beyond it fail, as a full disk does."""
    path = tmp_path / f"run{suffix}"
    pv.write(path, good(), topology=False)
    before = path.read_bytes()
    code = (
        "import resource, signal, sys, numpy as np, polyvae as pv\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "traj = pv.read(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "try:\n    pv.write(sys.argv[1], traj, topology=False)\n"
        "except OSError as error:\n    print(error)\nelse:\n    sys.exit('no error')\n"
    )
    words = [sys.executable, "-c", code, str(path), str(len(before) // 2)]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_messages_name_the_file_and_what_it_lacks(tmp_path, capfd):
    x = ideal_chains(5, 4, 3)
    np.savez(tmp_path / "a.npz", arr=x)
    xtc = pv.write(tmp_path / "b.xtc", pv.Trajectory(x, length_unit="nm"), topology=False)[0]
    with pytest.raises(pv.InputError, match=r"b\.xtc is in nm, .*a\.npz in sigma"):
        pv.read([tmp_path / "a.npz", xtc])
    for name, text in (("text.pdb", "needs ATOM or HETATM records"), ("text.npz", r"\(it is no zip file\)")):
        (tmp_path / name).write_text("hello\nworld\n")
        with pytest.raises(pv.InputError, match=f"{name}.*{text}"):
            pv.read(tmp_path / name)
    with pytest.raises(pv.InputError, match=r"text\.pdb: a PDB needs ATOM"):
        pv.read(xtc, topology=tmp_path / "text.pdb")
    np.savez(tmp_path / "o.npz", arr=x, names=np.array(["B", None, 1, 2], dtype=object))
    with pytest.raises(pv.InputError, match=r"array 'names' holds Python objects") as error:
        pv.read(tmp_path / "o.npz")
    assert "pickle" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_a_full_disk_is_said_with_the_file(tmp_path, cv):
    """Of models, unfinished runs, tables and what lies in a folder of results."""
    cv.save(tmp_path / "model.safetensors")
    code = (
        "import resource, signal, sys, pathlib, numpy as np, polyvae as pv\n"
        "from polyvae.vae.checkpoint import Checkpoint\n"
        "from polyvae.files import replacing_folder\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "cv = pv.load(folder / 'model.safetensors')\n"
        "def results():\n"
        "    with replacing_folder(folder / 'out') as out:\n        cv.save(out / 'a.safetensors')\n"
        "many = np.ones((2000, 2), np.float32)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "for act in (\n"
        "    lambda: cv.save(folder / 'new.safetensors'),\n"
        "    lambda: Checkpoint(folder / 'run.unfinished', {}, resume=False).save([many], many, True),\n"
        "    lambda: pv.write_colvar(folder / 'COLVAR', many),\n"
        "    lambda: pv.write_colvar(folder / 'z.npz', many),\n"
        "    results,\n"
        "):\n"
        "    try:\n        act()\n"
        "    except OSError as error:\n        print(error.errno, error.filename, error.filename2)\n"
        "    else:\n        sys.exit('no error')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    names = ("new.safetensors", "run.unfinished", "COLVAR", "z.npz", "out/a.safetensors")
    assert result.stdout.splitlines() == [f"{errno.EFBIG} {tmp_path / name} None" for name in names]
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(
    "select",
    [
        "prop x > 10",
        "name B and (prop abs z<=2.5)",
        "prop 3 < y",
        "around 5 name B",
        "sphzone 6.0 (index 0)",
        "sphlayer 2 4 index 0",
        "isolayer 2 4 index 0",
        "cyzone 15 4 -8 index 0",
        "cylayer 5 10 10 -8 index 0",
        "name B and point 5 5 5 3.5",
        "same x as index 0",
    ],
)
def test_a_selection_by_place_is_refused(tmp_path, select):
    """It would be taken in the topology's frame and hold for no other."""
    path, top = pv.write(tmp_path / "run.xtc", good())
    with pytest.raises(pv.InputError, match="depends on coordinates") as error:
        pv.read(path, topology=top, select=select)
    assert "same atoms in all frames" in str(error.value)


@pytest.mark.parametrize("select", ["same residue as index 0", "not name x y z"])
def test_other_selections_work(tmp_path, select):
    path, top = pv.write(tmp_path / "run.xtc", good())
    assert pv.read(path, topology=top, select=select, unwrap=False).n_beads >= 1


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(FileNotFoundError):
        cli.main(["info", str(tmp_path / "none.npz"), "--debug"])


def test_a_folder_with_results_is_safe(tmp_path, capfd):
    np.savez(tmp_path / "run.npz", arr=ideal_chains(300, 5, 2))
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    code, _, err = command(capfd, "run", tmp_path / "run.npz", "--out", out)
    assert code == 1
    assert "holds files already" in err
    assert "--force" in err
    assert (out / "notes.txt").read_text() == "mine"
    model = tmp_path / "m.safetensors"
    model.write_text("old")
    code, _, err = command(capfd, "fit", tmp_path / "run.npz", "--out", model)
    assert code == 1
    assert model.read_text() == "old"


def test_lammps_files_that_are_no_trajectories_say_what_to_do(tmp_path):
    (tmp_path / "chain.data").write_text("LAMMPS data file\n\n1 atoms\n\nAtoms # bond\n\n1 1 1 0.0 0.0 0.0\n")
    with pytest.raises(pv.InputError, match="a LAMMPS data file is a topology: name the dump"):
        pv.read(tmp_path / "chain.data")


def test_a_file_named_twice_and_a_first_frame_without_a_time_are_noted(tmp_path, caplog):
    caplog.set_level("INFO", "polyvae")
    path = tmp_path / "run.npz"
    np.savez(path, positions=good().positions, time=[np.nan, *range(39)])
    traj = pv.read([path, tmp_path / "run*.npz"])
    assert (len(traj), traj.time) == (80, None)
    assert caplog.text.count("run.npz: named more than once, and its frames count as often") == 1
    assert caplog.text.count("run.npz: the first frame has no time (nan), so times are left out") == 2


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are listed by Linux")
def test_a_refused_npz_is_not_left_open(tmp_path):
    def opened():
        links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
        return [os.readlink(link) for link in links if os.path.islink(link) and str(tmp_path) in os.readlink(link)]

    flat, one, other = (tmp_path / f"{name}.npz" for name in ("flat", "one", "other"))
    np.savez(flat, arr=np.zeros((10, 24)))
    np.savez(one, arr=good().positions, time=np.zeros(40) + np.r_[np.zeros(39), -1])
    np.savez(other, arr=good(n_beads=5).positions)
    for paths in ([flat], [one, other], [one]):
        with pytest.raises(pv.InputError) as refused:
            pv.read(paths)
        assert opened() == [], refused  # whose traceback holds all that was opened

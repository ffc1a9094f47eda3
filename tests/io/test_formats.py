"""Formats by name, and those that packages of their own read."""

import importlib.util
import logging
import warnings

import MDAnalysis
import numpy as np
import pytest
from conftest import ideal_chains

import polyvae as pv
from polyvae.app import cli


def chains(n_frames=6, n_beads=5):
    return 20 + 0.5 * ideal_chains(n_frames, n_beads, 3)


def test_names_that_tell_nothing(tmp_path):
    traj = pv.Trajectory(chains(), length_unit="nm", names=["A", "B", "C", "D", "E"])
    for suffix, top in (("npz", None), ("xtc", "pdb"), ("dcd", "pdb"), ("gro", "gro"), ("pdb", None)):
        written = pv.write(tmp_path / f"a.{suffix}", traj)
        plain = written[0].rename(tmp_path / f"run_{suffix}.out")
        with pytest.raises(pv.InputError, match=r"run_.*\.out: trajectories are read from .*--format"):
            pv.read(plain)
        options = {}
        if top is not None:
            pv.write(tmp_path / f"top.{top}", traj[:1])
            options = {"topology": (tmp_path / f"top.{top}").rename(tmp_path / "conf"), "topology_format": top}
        for make in (pv.read, lambda *args, **options: pv.as_trajectory(pv.stream(*args, **options))):
            found = make(plain, format=suffix, **options).to_unit("nm")
            np.testing.assert_allclose(found.positions, traj.positions, atol=6e-4)
            assert found.names == traj.names


def test_unknown_names_are_refused_with_the_list(tmp_path):
    pv.write(tmp_path / "a.npz", pv.Trajectory(chains()))
    for option, word in (("format", "LAMMPSDUMP, .*NPZ, .*XTC"), ("topology_format", "DATA, .*GRO, .*PSF")):
        for make in (pv.read, pv.stream):
            with pytest.raises(pv.InputError, match=rf"{option} must be one of .*{word}.*; got 'exe'"):
                make(tmp_path / "a.npz", **{option: "exe"})


def test_the_command_line_takes_them(tmp_path, capsys):
    traj = pv.Trajectory(chains(), length_unit="nm")
    pv.write(tmp_path / "a.xtc", traj)[0].rename(tmp_path / "run.out")
    (tmp_path / "a.pdb").rename(tmp_path / "conf")
    words = ["--format", "XTC", "--top", tmp_path / "conf", "--topology-format", "PDB"]
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in ("info", tmp_path / "run.out", *words)])
    assert ended.value.code == 0
    assert "6 frames of 5 beads" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(("suffix", "package"), [("gsd", "gsd"), ("h5md", "h5py")])
def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, suffix, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == package else find(name))
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"x" * 300)
    with pytest.raises(
        pv.InputError, match=rf"is read with {package}, .* pip install 'polyvae\[formats\]'"
    ) as error:
        pv.read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("tilt", [(0, 0, 0), (0.3, -0.2, 0.4)])
def test_gsd(tmp_path, tilt):
    """Tilted boxes too, whose tilts MDAnalysis takes for cosines; bonds, masses and types stand in the file."""
    hoomd = pytest.importorskip("gsd.hoomd", reason="pip install 'polyvae[formats]'")
    x, sizes = chains(), (8.0, 9.0, 7.0)
    box = np.diag(sizes) + np.array([[0, 0, 0], [tilt[0] * 9, 0, 0], [tilt[1] * 7, tilt[2] * 7, 0]])
    wrapped = (np.mod(x @ np.linalg.inv(box), 1) - 0.5) @ box
    path = tmp_path / "a.gsd"
    with hoomd.open(str(path), "w") as file:
        for k, positions in enumerate(wrapped):
            frame = hoomd.Frame()
            frame.configuration.step, frame.configuration.box = 100 * k, [*sizes, *tilt]
            frame.particles.N, frame.particles.position = 5, positions
            frame.particles.types, frame.particles.typeid = ["A", "B"], [0, 1, 0, 1, 0]
            frame.particles.mass = [1, 2, 1, 2, 1]
            frame.bonds.N, frame.bonds.types = 4, ["b"]
            frame.bonds.typeid, frame.bonds.group = [0] * 4, [[0, 1], [1, 2], [2, 3], [3, 4]]
            file.append(frame)
    traj = pv.read(path)
    assert traj.length_unit == "sigma"
    assert traj.time is None
    assert traj.masses.tolist() == [1, 2, 1, 2, 1]
    assert len(traj.bonds) == 4
    np.testing.assert_allclose(traj.box, np.tile(box, (6, 1, 1)), atol=1e-5)
    np.testing.assert_allclose(traj.positions - traj.positions[:, :1], x - x[:, :1], atol=1e-4)
    stream = pv.stream(path, chunk_bytes=12 * 5 * 2, start=1, step=2)
    np.testing.assert_array_equal(pv.as_trajectory(stream).positions, traj.positions[1::2])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(pv.InputError, match=r"a\.gsd cannot be read"):
        pv.read(path)


@pytest.mark.parametrize("unit", ["angstrom", None])
def test_h5md(tmp_path, unit, caplog):
    pytest.importorskip("h5py", reason="pip install 'polyvae[formats]'")
    x = chains()
    path = tmp_path / "a.h5md"
    universe = MDAnalysis.Universe.empty(5, trajectory=True).load_new(x, dimensions=[50, 50, 50, 90, 90, 90])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        units = {"lengthunit": "Angstrom", "timeunit": "ps"} if unit else {"convert_units": False}
        with MDAnalysis.Writer(str(path), n_atoms=5, velocities=False, forces=False, **units) as file:
            for _ in universe.trajectory:
                file.write(universe)
    with caplog.at_level(logging.INFO, logger="polyvae"):
        traj = pv.read(path)
    np.testing.assert_allclose(traj.positions, x, rtol=1e-6)
    assert traj.length_unit == (unit or "sigma")
    assert ("taken to be in sigma" in caplog.text) == (unit is None)
    broken = tmp_path / "b.h5md"
    broken.write_bytes(path.read_bytes()[:400])
    with pytest.raises(pv.InputError, match=r"b\.h5md cannot be read as H5MD"):
        pv.read(broken)

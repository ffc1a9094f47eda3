"""Round trips through every writer and reader."""

import logging
import os
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from models import untrained

import polyvae as pv
from polyvae.io.write import WRITERS
from polyvae.molecules import box_vectors

# Absolute error in the unit written, relative error of single precision, largest coordinate that fits.
ROUNDING = {
    ".npz": {"nm": 0, "angstrom": 0, "sigma": 0},
    ".dcd": {"nm": 0, "angstrom": 0, "sigma": 0},
    ".xtc": {"nm": 0.5e-5, "angstrom": 0.5e-4, "sigma": 0.5e-5},
    ".gro": {"nm": 0.5e-3, "angstrom": 0.5e-2, "sigma": 0.5e-3},
    ".pdb": {"nm": 0.5e-4, "angstrom": 0.5e-3, "sigma": 0.5e-4},
}
# What to tell the reader about reduced units, and the factor on the numbers: 1 sigma = 1 nm = 10 Å.
AS_READ = {".npz": 1, ".dcd": 1, ".xtc": 1, ".gro": 1, ".pdb": 10}


@st.composite
def trajectories(draw):
    n_frames, n_beads, dims = draw(st.integers(1, 4)), draw(st.integers(2, 15)), draw(st.sampled_from([2, 3]))
    positions = draw(hnp.arrays(np.float32, (n_frames, n_beads, dims), elements=st.floats(-90, 90, width=32)))
    # XTC's compression, which is not ours, fails on some frames in which many beads coincide.
    positions += np.linspace(0, 1, n_beads, dtype=np.float32)[:, None]
    boxed = draw(st.booleans())
    lengths = np.full((n_frames, 3), draw(st.floats(50, 90)))
    angles = np.tile(draw(st.sampled_from([[90, 90, 90], [70, 100, 60]])), (n_frames, 1))
    timed = draw(st.booleans())
    return pv.Trajectory(
        positions,
        time=draw(st.integers(0, 5)) + draw(st.sampled_from([0.5, 1, 2.0])) * np.arange(n_frames)
        if timed
        else None,
        length_unit=draw(st.sampled_from(["nm", "angstrom", "sigma"])),
        box=box_vectors(lengths, angles) if boxed else None,
        names=[f"B{k}" for k in range(n_beads)],
    )


@pytest.mark.parametrize("suffix", WRITERS)
@settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(traj=trajectories())
def test_round_trip(tmp_path, suffix, traj):
    path = pv.write(tmp_path / f"a{suffix}", traj, topology=False)[0]
    unit = traj.length_unit
    back = pv.read(path, dims=traj.n_dims, unwrap=False, length_unit="sigma" if unit == "sigma" else None)
    factor = AS_READ[suffix] if unit == "sigma" else 1
    back = back.to_unit(unit)
    assert back.positions.shape == traj.positions.shape
    atol = 1.05 * ROUNDING[suffix][unit] * factor + 1e-30
    np.testing.assert_allclose(back.positions, traj.positions * factor, atol=atol, rtol=3e-7)
    if traj.box is None:
        assert back.box is None
    else:
        np.testing.assert_allclose(back.box, traj.box * factor, rtol=1e-4, atol=0.02 * factor)
    if suffix in (".npz", ".xtc", ".gro") and traj.time is not None:
        np.testing.assert_allclose(back.time, traj.time, atol=1e-4)
    if suffix == ".dcd" and traj.time is not None and traj.n_frames > 1:
        np.testing.assert_allclose(back.time, traj.time, rtol=1e-5, atol=1e-5)


def test_npz_keeps_everything(tmp_path):
    rng = np.random.default_rng(0)
    traj = pv.Trajectory(
        rng.normal(size=(7, 3, 2)),
        time=np.arange(7.0),
        length_unit="angstrom",
        masses=[1, 2, 3],
        names="ABC",
        bonds=[[0, 2]],
        segments=(3, 4),
        box=np.tile(np.eye(3) * 50, (7, 1, 1)),
        weights=np.arange(7) / 4,
        origin=np.stack([np.arange(7) // 2, np.arange(7) % 2], axis=1),
    )
    pv.write(tmp_path / "a.npz", traj)
    for options in ({}, {"start": 1, "stop": 6, "step": 2}):
        back, kept = (
            pv.read(tmp_path / "a.npz", unwrap=False, **options),
            traj[slice(*options.values())] if options else traj,
        )
        for name in ("positions", "time", "masses", "bonds", "box", "weights", "origin"):
            np.testing.assert_array_equal(getattr(back, name), getattr(kept, name), err_msg=name)
        assert (back.length_unit, back.names, back.segments) == ("angstrom", tuple("ABC"), kept.segments)


def test_one_run_in_three_formats_gives_one_cv(tmp_path):
    rng = np.random.default_rng(1)
    x = np.cumsum(rng.normal(size=(600, 12, 3)) * 0.1, axis=1)
    traj = pv.Trajectory(x, length_unit="nm", time=np.arange(600.0))
    cv = untrained(traj)
    z = cv.transform(traj)
    for suffix, tolerance in ((".npz", 0), (".dcd", 2e-5), (".xtc", 5e-4)):
        path = pv.write(tmp_path / f"a{suffix}", traj)[0]
        np.testing.assert_allclose(cv.transform(pv.read(path)), z, atol=tolerance, err_msg=suffix)


def test_reduced_units_too_large_for_xtc_become_dcd(tmp_path, caplog):
    traj = pv.Trajectory(np.random.default_rng(0).normal(size=(3, 12, 3)) + 30_000)
    with caplog.at_level(logging.WARNING, logger="polyvae"):
        written = pv.write(tmp_path / "a.xtc", traj)
    assert [path.name for path in written] == ["a.dcd", "a.pdb"]
    assert "5 decimals of sigma" in caplog.text
    np.testing.assert_allclose(pv.read(written[0], length_unit="sigma").positions, traj.positions)


def test_topology_beside_the_trajectory_reads_back(tmp_path):
    traj = pv.Trajectory(
        np.random.default_rng(0).normal(size=(3, 4, 3)), names=["A", "B", "B", "C"], bonds=[[0, 1], [1, 2], [1, 3]]
    )
    xtc, pdb = pv.write(tmp_path / "a.xtc", traj)
    back = pv.read(xtc, topology=pdb, length_unit="sigma")
    assert back.names == traj.names
    assert sorted(map(tuple, back.bonds.tolist())) == [(0, 1), (1, 2), (1, 3)]
    picked = pv.read(xtc, topology=pdb, select="name B", length_unit="sigma")
    np.testing.assert_allclose(picked.positions, traj.positions[:, 1:3], atol=1e-5)


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, suffix):
    traj = pv.Trajectory(np.random.default_rng(0).normal(size=(3, 4, 3)))
    path = pv.write(tmp_path / f"a{suffix}", traj, topology=False)[0]
    before = path.read_bytes()

    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        pv.write(path, traj[:1], topology=False)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def colvar(path):
    names = path.read_text().splitlines()[0].split()
    return names, np.loadtxt(path, ndmin=2)


floats = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1e-45, 9.9999999e9, 1.0]),
)


@settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(z=hnp.arrays(np.float32, st.tuples(st.integers(0, 20), st.integers(1, 4)), elements=floats))
def test_colvar_gives_back_every_float32(tmp_path, z):
    pv.write_colvar(tmp_path / "COLVAR", z)
    if len(z):
        names, table = colvar(tmp_path / "COLVAR")
        assert names == ["#!", "FIELDS", "time", *(f"z{k}" for k in range(z.shape[1]))]
        np.testing.assert_array_equal(table[:, 1:].astype(np.float32), z)
        np.testing.assert_array_equal(table[:, 0], np.arange(len(z)))


@settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    first=st.floats(-1e6, 1e6),
    spacing=st.sampled_from([1e-3, 0.002, 0.1, 1.0, 2.5, 1 / 3, 1000.0]),
    n=st.integers(1, 30),
)
def test_colvar_keeps_times(tmp_path, first, spacing, n):
    time = first + spacing * np.arange(n)
    pv.write_colvar(tmp_path / "c.csv", np.zeros((n, 1)), time=time)
    back = np.loadtxt(tmp_path / "c.csv", delimiter=",", skiprows=1, ndmin=2)
    np.testing.assert_allclose(back[:, 0], time, rtol=1e-9, atol=1e-9)


def test_values_that_are_no_numbers(tmp_path):
    z = np.array([[np.nan, 1], [np.inf, -np.inf], [1e300, -1e-300]])
    pv.write_colvar(tmp_path / "COLVAR", z)
    np.testing.assert_allclose(colvar(tmp_path / "COLVAR")[1][:, 1:], z, rtol=1e-8)


def test_more_columns(tmp_path):
    z, rg = np.zeros((5, 2)), np.arange(5) / 7
    pv.write_colvar(tmp_path / "COLVAR", z, columns={"rg": rg})
    names, table = colvar(tmp_path / "COLVAR")
    assert names[2:] == ["time", "z0", "z1", "rg"]
    np.testing.assert_allclose(table[:, 3], rg, rtol=1e-8)
    pv.write_colvar(tmp_path / "z.npz", z, columns={"rg": rg})
    with np.load(tmp_path / "z.npz") as file:
        assert set(file.files) == {"time", "z", "rg"}
        np.testing.assert_array_equal(file["rg"], rg)
    with pytest.raises(pv.InputError, match="one number a frame"):
        pv.write_colvar(tmp_path / "COLVAR", z, columns={"rg": rg[:3]})
    with pytest.raises(pv.InputError, match="may not hold blanks"):
        pv.write_colvar(tmp_path / "COLVAR", z, columns={"r g": rg})


def test_plumed_sees_a_blank_free_table(tmp_path):
    pv.write_colvar(tmp_path / "COLVAR", np.array([[1.5, -2.25e-7]]), time=[0.25])
    lines = (tmp_path / "COLVAR").read_text().splitlines()
    assert lines[0] == "#! FIELDS time z0 z1"
    assert [float(word) for word in lines[1].split()] == [0.25, 1.5, -2.25e-7]
    warnings.simplefilter("error")

"""Round trips through every writer and reader."""

import logging
import os
import re
import subprocess
import sys
import warnings

import jax
import mdtraj
import numpy as np
import pytest
from conftest import DATA
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import polyvae as pv
from polyvae.io.colvar import colvar_writer
from polyvae.io.writing import WRITERS
from polyvae.trajectory.box import box_vectors
from polyvae.trajectory.record import chain_bonds

# Absolute error in nm of the numbers written.
ROUNDING_NM = {".npz": 0, ".dcd": 0, ".xtc": 0.5e-5, ".gro": 0.5e-3, ".pdb": 0.5e-4}
NM = {"nm": 1.0, "angstrom": 0.1, "sigma": 1.0}
SINGLE = 2.0**-23
PROPERTY = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}


@st.composite
def clocks(draw, n):
    """None, evenly spaced times, or times that only rise."""
    kind = draw(st.sampled_from(["none", "even", "uneven"]))
    first = draw(st.sampled_from([0.0, 0.25, -7.0, 100.5, 3e6]))
    steps = np.full(n, draw(st.sampled_from([0.5, 1.0, 2.0, 0.002 if first < 1e6 else 20.0])))
    if kind == "uneven":
        steps = steps * draw(hnp.arrays(int, n, elements=st.integers(1, 9)))
    return None if kind == "none" else first + np.cumsum(steps)


@st.composite
def trajectories(draw):
    n_frames, n_beads, dims = draw(st.integers(1, 4)), draw(st.integers(2, 15)), draw(st.sampled_from([2, 3]))
    positions = draw(hnp.arrays(np.float32, (n_frames, n_beads, dims), elements=st.floats(-90, 90, width=32)))
    # XTC's compression, which is not ours, fails on some frames in which many beads coincide.
    positions += np.linspace(0, 1, n_beads, dtype=np.float32)[:, None]
    lengths = np.array(draw(st.lists(st.floats(50, 90), min_size=3, max_size=3)))
    # A box that breathes, or one and the same.
    lengths = lengths * (1 + draw(st.sampled_from([0, 0.01])) * np.arange(n_frames)[:, None])
    angles = np.tile(draw(st.sampled_from([[90, 90, 90], [70, 100, 60], [90, 90, 120]])), (n_frames, 1))
    name = st.text("ABCXZabcz0189'*+", min_size=1, max_size=4)
    pair = st.lists(st.integers(0, n_beads - 1), min_size=2, max_size=2, unique=True).map(sorted)
    cut = draw(st.integers(0, n_frames - 1))
    time = draw(clocks(n_frames))
    if time is not None and cut and draw(st.booleans()):
        time[cut:] += time[0] - time[cut]  # the second segment begins at the time of the first
    return pv.Trajectory(
        positions,
        time=time,
        length_unit=draw(st.sampled_from(["nm", "angstrom", "sigma"])),
        box=box_vectors(lengths, angles) if draw(st.booleans()) else None,
        names=draw(st.none() | st.lists(name, min_size=n_beads, max_size=n_beads)),
        masses=draw(st.none() | hnp.arrays(float, n_beads, elements=st.floats(0.5, 200))),
        bonds=draw(st.none() | st.lists(pair, min_size=1, max_size=n_beads, unique_by=tuple)),
        segments=(cut, n_frames - cut) if cut else None,
    )


def as_pairs(bonds):
    return None if bonds is None else sorted(map(tuple, bonds.tolist()))


@pytest.mark.parametrize("suffix", WRITERS)
@settings(max_examples=40, **PROPERTY)
@given(traj=trajectories())
def test_round_trip(tmp_path, suffix, traj):
    """Every format gives back what the table in the docstring of `write` says, and None for the rest."""
    written = pv.write(tmp_path / f"a{suffix}", traj)
    path, unit = written[0], traj.length_unit
    assert path.suffix == suffix
    # GRO and PDB are topologies themselves, npz needs none.
    topology = {"topology": written[1]} if len(written) > 1 else {}
    back = pv.read(
        path, dims=traj.n_dims, unwrap=False, length_unit="sigma" if unit == "sigma" else None, **topology
    ).to_unit(unit)
    assert back.positions.shape == traj.positions.shape
    atol = 1.05 * ROUNDING_NM[suffix] / NM[unit]
    np.testing.assert_allclose(back.positions, traj.positions, atol=atol + 1e-30, rtol=3e-7)
    if traj.box is None:
        assert back.box is None
    else:
        np.testing.assert_allclose(back.box, traj.box, rtol=1e-4, atol=0.02)
    names = traj.names or (("B",) * traj.n_beads if suffix != ".npz" else None)
    assert back.names == names
    if suffix == ".npz":
        np.testing.assert_array_equal(back.masses, traj.masses)
        assert back.segments == traj.segments
    bonds = chain_bonds(traj.n_beads) if traj.bonds is None and suffix != ".npz" else traj.bonds
    assert as_pairs(back.bonds) == (None if suffix == ".gro" else as_pairs(bonds))
    check_times(suffix, traj.time, back.time)


def check_times(suffix, time, back):
    rising = time is not None and (np.diff(time) > 0).all()
    none = time is None or (suffix == ".gro" and not (rising and time[0] >= 0))
    if suffix == ".pdb" or (none and suffix != ".xtc"):
        assert back is None
    elif suffix == ".xtc":
        np.testing.assert_allclose(back, time if rising else np.arange(len(back)), rtol=SINGLE)
    elif suffix == ".dcd":
        even = rising and (len(time) < 3 or np.ptp(np.diff(time)) < 1e-6)
        assert (back is not None) == even
        if even:
            np.testing.assert_allclose(back, time, rtol=4 * SINGLE, atol=1e-6)
    else:
        np.testing.assert_array_equal(back, time)


@pytest.mark.parametrize("suffix", [".npz", ".xtc", ".gro", ".dcd"])
@pytest.mark.parametrize("n_frames", [1, 2, 5])
def test_segments_and_molecules_that_begin_anew_in_time(tmp_path, caplog, suffix, n_frames):
    """What several files, or many molecules, give can be written, and read back."""
    x = np.random.default_rng(0).normal(size=(n_frames, 4, 3))
    np.savez(tmp_path / "run.npz", positions=x, time=5 + np.arange(n_frames), bonds=[[0, 1], [2, 3]])
    for files, per_molecule in (([tmp_path / "run.npz"] * 2, False), (tmp_path / "run.npz", True)):
        traj = pv.read(files, per_molecule=per_molecule, length_unit="nm")
        assert traj.segments == (n_frames, n_frames)
        caplog.clear()
        path = pv.write(tmp_path / f"a{suffix}", traj)[0]
        assert suffix == ".npz" or sum("npz keeps" in record.message for record in caplog.records) == 1
        back = pv.read(path).to_unit("nm")
        np.testing.assert_allclose(back.positions, traj.positions, atol=1e-3)
        if suffix == ".npz":
            assert back.segments == traj.segments
            np.testing.assert_array_equal(back.time, traj.time)
        elif suffix == ".xtc":
            np.testing.assert_array_equal(back.time, np.arange(2 * n_frames))
        else:
            assert back.time is None


@st.composite
def long_clocks(draw):
    """Times of up to 60 frames with the spacing and the start of real runs, some with a fault."""
    n = draw(st.integers(1, 60))
    spacing = draw(st.sampled_from([1.0, 0.5, 0.002, 1 / 3, 10.0, 1e4, 0.04888821, 1e-3]))
    start = draw(st.integers(-(2**31) // 2000, 2**31 // 2000) | st.sampled_from([0, 1, 0.5, 0.123456, 1_000_000]))
    time = spacing * (start + np.arange(n))
    fault = draw(st.sampled_from(["none", "none", "gap", "jitter", "back", "same", "single precision"]))
    if fault == "gap":
        time[n // 2 :] += 3 * spacing
    elif fault == "jitter":
        time += spacing * draw(hnp.arrays(float, n, elements=st.sampled_from([0.0, 0.2, 0.35])))
    elif fault == "back":
        time[n // 2 :] = time[: n - n // 2]
    elif fault == "same":
        time[:] = time[0]
    elif fault == "single precision":
        time = time.astype(np.float32).astype(float)
    return time, spacing, fault == "none"


@settings(max_examples=300, **PROPERTY)
@given(clock=long_clocks(), unit=st.sampled_from(["nm", "angstrom", "sigma"]))
def test_dcd_gives_the_times_back_or_none(tmp_path, clock, unit):
    time, spacing, even = clock
    rng = np.random.default_rng(0)
    path = tmp_path / "a.dcd"
    pv.write(path, pv.Trajectory(rng.normal(size=(len(time), 2, 3)), time=time, length_unit=unit), topology=False)
    back = pv.read(path, length_unit="sigma" if unit == "sigma" else None).time
    assert back is not None or not even
    if back is not None:
        # The length of a step, and times that came from an XTC, are in single precision.
        assert np.abs(back - time).max() <= 8 * SINGLE * max(np.abs(time).max(), spacing)
        assert np.abs(np.diff(back) - np.diff(time)).max(initial=0) <= 0.25 * spacing


def test_times_that_dcd_cannot_hold_are_left_out_and_it_says_so(tmp_path, caplog):
    frames = np.random.default_rng(0).normal(size=(4, 2, 3))
    with caplog.at_level(logging.WARNING, logger="polyvae"):
        pv.write(tmp_path / "a.dcd", pv.Trajectory(frames, time=[5, 6, 7, 20]))
    assert caplog.messages == [
        f"{tmp_path / 'a.dcd'}: DCD holds rising, evenly spaced times only, so these are left out; npz keeps them"
    ]
    assert pv.read(tmp_path / "a.dcd", length_unit="sigma").time is None
    late = 1e9 + np.arange(4.0)
    pv.write(tmp_path / "a.dcd", pv.Trajectory(frames, time=late))
    np.testing.assert_array_equal(pv.read(tmp_path / "a.dcd", length_unit="sigma").time, late)


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


@pytest.mark.long
def test_one_run_in_three_formats_gives_one_cv(tmp_path):
    """A trained CV differs by no more than its own gradient makes of the format's rounding of coordinates."""
    traj = pv.read(DATA / "chain3d.xtc", length_unit="nm", stop=600)
    cv = pv.fit(traj, epochs=10, batch_size=64, encoder=(8,), decoder=(8,))
    z = cv.transform(traj)
    # To first order, the largest change of z when no coordinate changes by more than 1.
    slope = np.abs(jax.vmap(jax.jacobian(cv))(traj.positions)).sum((2, 3))
    size = np.abs(traj.positions).max((1, 2))[:, None]
    noise = 8 * 2.0**-24  # of single precision: a few operations on the way from the file to z
    for suffix in (".npz", ".dcd", ".xtc"):
        path = pv.write(tmp_path / f"a{suffix}", traj)[0]
        back = cv.transform(pv.read(path))
        if suffix == ".npz":
            np.testing.assert_array_equal(back, z)
            continue
        tolerance = slope * (ROUNDING_NM[suffix] + noise * size) + noise * np.abs(z).max()
        assert np.median(tolerance) < 1e-3 * z.std()
        assert (np.abs(back - z) <= tolerance).all(), suffix


def test_reduced_units_too_large_for_xtc_become_dcd(tmp_path, caplog):
    traj = pv.Trajectory(np.float32(np.random.default_rng(0).normal(size=(3, 12, 3)) + 30_000))
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


@pytest.mark.parametrize("unit", ["nm", "angstrom", "sigma"])
@pytest.mark.parametrize("suffix", [".xtc", ".dcd"])
def test_a_viewer_sees_no_jump_from_topology_to_trajectory(tmp_path, suffix, unit):
    traj = pv.Trajectory(np.random.default_rng(0).normal(size=(3, 12, 3)), length_unit=unit)
    path, pdb = pv.write(tmp_path / f"a{suffix}", traj)
    first = mdtraj.load(str(path), top=str(pdb)).xyz[0]  # nm, by the conventions of each format
    np.testing.assert_allclose(mdtraj.load(str(pdb)).xyz[0], first, atol=6e-5)
    # As a structure, the PDB says itself how long a sigma is.
    for said in (None, unit) if unit != "nm" else (None,):
        structure = pv.read(pdb, length_unit=said).to_unit(unit)
        np.testing.assert_allclose(structure.positions, traj[0].positions, atol=6e-4)


def test_a_pdb_of_reduced_units_reads_back_as_such(tmp_path, caplog):
    traj = pv.Trajectory(np.random.default_rng(0).normal(size=(2, 5, 3)), box=np.tile(np.eye(3) * 20, (2, 1, 1)))
    (path,) = pv.write(tmp_path / "a.pdb", traj)
    assert "1 SIGMA = 10 ANGSTROM" in path.read_text().splitlines()[0]
    back = pv.read(path)
    assert back.length_unit == "sigma"
    np.testing.assert_allclose(back.positions, traj.positions, atol=5.1e-5)
    np.testing.assert_allclose(back.box, traj.box, rtol=1e-5)
    chain = pv.read(DATA / "chain3d.pdb")  # written by other means, with the same words
    assert chain.length_unit == "sigma"
    assert np.allclose(np.linalg.norm(np.diff(chain.positions, axis=1), axis=2), 1, atol=0.2)
    # Who calls the numbers in the file Å gets them as they stand.
    raw = pv.read(path, length_unit="angstrom")
    np.testing.assert_allclose(raw.positions, 10 * traj.positions, atol=5.1e-4)


@pytest.mark.parametrize(
    ("suffix", "unit", "scale", "smaller"),
    [(".xtc", "angstrom", 4000, ""), (".xtc", "nm", 400, ""), (".dcd", "sigma", 4000, ""),
     (".dcd", "angstrom", 7000, " and 10 times smaller"), (".dcd", "nm", 1e5, " and 1000 times smaller"),
     (".dcd", "sigma", 9000, " and 10 times smaller"), (".xtc", "sigma", 600, " and 10 times smaller")],
)  # fmt: skip
def test_a_chain_too_long_for_pdb_still_gets_its_topology(tmp_path, caplog, suffix, unit, scale, smaller):
    x = scale * np.linspace(-1, 1, 100)[:, None] * [1, 0.5, 0.1] + 2 * scale
    traj = pv.Trajectory(x[None], length_unit=unit, names=[f"B{k}" for k in range(100)], bonds=[[0, 99], [3, 4]])
    with caplog.at_level(logging.WARNING, logger="polyvae"):
        path, pdb = pv.write(tmp_path / f"a{suffix}", traj)
    assert caplog.messages == [
        f"{pdb}: the frame does not fit into PDB's columns; as a topology it is written moved{smaller}"
    ]
    back = pv.read(path, topology=pdb, length_unit="sigma" if unit == "sigma" else None).to_unit(unit)
    assert (back.names, as_pairs(back.bonds)) == (traj.names, [(0, 99), (3, 4)])
    np.testing.assert_allclose(back.positions, traj.positions, rtol=1e-6, atol=1e-4)
    shape = pv.read(pdb, dims=3).to_unit(unit).positions[0]
    moved = shape - shape[0] - (x - x[0])
    assert np.abs(moved).max() <= 1e-6 * scale


def test_what_pdb_has_no_columns_for(tmp_path, caplog, monkeypatch):
    far = np.zeros((3, 4, 3)) + np.arange(4)[:, None]
    far[2, 1, 0] = -1234
    wide = pv.Trajectory(far[:1], length_unit="angstrom", box=np.eye(3)[None] * 2e5)
    for traj in (pv.Trajectory(far, length_unit="angstrom"), wide):
        with pytest.raises(pv.InputError, match="write XTC or DCD"):
            pv.write(tmp_path / "a.pdb", traj)
    assert os.listdir(tmp_path) == []
    path, pdb = pv.write(tmp_path / "a.xtc", wide)
    assert pv.read(path, topology=pdb, unwrap=False).n_beads == 4
    monkeypatch.setattr("polyvae.io.writing._PDB_BONDED", 3)
    caplog.clear()
    pv.write(tmp_path / "b.pdb", pv.Trajectory(far[:1], length_unit="angstrom"))
    assert "cannot number more than 3 beads in bonds" in caplog.text


@settings(max_examples=200, **PROPERTY)
@given(
    size=st.floats(0, 7).map(lambda x: 10**x),
    steps=hnp.arrays(float, (2, 12, 3), elements=st.floats(-1, 1)),
    step=st.floats(-2, 7).map(lambda x: 10**x),
    n_beads=st.sampled_from([9, 10, 12]),
)
def test_xtc_of_fewer_decimals_says_so(tmp_path, size, steps, step, n_beads):
    """However large the coordinates, or far apart the beads, XTC gives them back to what it says."""
    # No two beads of a frame at one place: XTC's compression, which is not ours, can fail there.
    x = size + step * (steps + np.arange(12)[:, None] / 6).cumsum(1)
    traj = pv.Trajectory(x[:, :n_beads], length_unit="nm")
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polyvae.io.writing.log.warning", lambda text, *words: said.append(text % words))
        (path,) = pv.write(tmp_path / "a.xtc", traj, topology=False)
    kept = 1e-5 if n_beads > 9 else 0
    if said:
        assert n_beads > 9
        kept = float(re.fullmatch(r".*a\.xtc: coordinates .* are kept to (\S+) nm, not 1e-05 nm; .*", said[0])[1])
    largest = np.abs(traj.positions).max()
    np.testing.assert_allclose(
        pv.read(path).positions, traj.positions, rtol=3e-7, atol=0.51 * kept + 2e-7 * largest
    )


def test_gro_leaves_out_times_that_it_cannot_hold(tmp_path, caplog):
    frames = np.random.default_rng(0).normal(size=(2, 3, 3))
    for time in ([-2.0, 0.0], [1e-5, 2e-5]):
        caplog.clear()
        pv.write(tmp_path / "a.gro", pv.Trajectory(frames, time=time))
        assert "a.gro: GRO cannot hold such times, so they are left out" in caplog.text
        assert pv.read(tmp_path / "a.gro").time is None


@pytest.mark.parametrize("suffix", [".xtc", ".dcd"])
def test_trajectory_and_topology_appear_together_or_not_at_all(tmp_path, suffix):
    """The disk is full once the trajectory stands and its topology is written."""
    traj = pv.Trajectory(np.random.default_rng(0).normal(size=(3, 40, 3)), length_unit="nm")
    path, pdb = pv.write(tmp_path / f"a{suffix}", traj)
    before = [path.read_bytes(), pdb.read_bytes()]
    limit = (len(before[0]) + len(before[1])) // 2
    assert len(before[0]) < limit < len(before[1])
    code = (
        "import resource, signal, sys, pathlib, numpy as np, polyvae as pv\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "traj = pv.read(path)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "for name in (path, path.with_stem('new')):\n"
        "    try:\n        pv.write(name, traj)\n"
        "    except OSError as error:\n        print(error)\n    else:\n        sys.exit('no error')\n"
    )
    words = [sys.executable, "-c", code, str(path), str(limit)]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert [path.read_bytes(), pdb.read_bytes()] == before
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, pdb.name])


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


@pytest.mark.parametrize("suffix", [".xtc", ".dcd"])
def test_nothing_is_written_where_the_topology_cannot_stand(tmp_path, suffix):
    traj = pv.Trajectory(np.random.default_rng(0).normal(size=(3, 4, 3)))
    (tmp_path / "a.pdb").mkdir()
    with pytest.raises(IsADirectoryError, match=r"a\.pdb is a folder"):
        pv.write(tmp_path / f"a{suffix}", traj)
    with pytest.raises(FileNotFoundError, match="create it first"):
        pv.write(tmp_path / "none" / f"a{suffix}", traj)
    assert os.listdir(tmp_path) == ["a.pdb"]


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
    with pytest.raises(pv.InputError, match="blanks"):
        pv.write_colvar(tmp_path / "COLVAR", z, columns={"r g": rg})


def test_plumed_sees_a_blank_free_table(tmp_path):
    pv.write_colvar(tmp_path / "COLVAR", np.array([[1.5, -2.25e-7]]), time=[0.25])
    lines = (tmp_path / "COLVAR").read_text().splitlines()
    assert lines[0] == "#! FIELDS time z0 z1"
    assert [float(word) for word in lines[1].split()] == [0.25, 1.5, -2.25e-7]
    warnings.simplefilter("error")


@pytest.mark.parametrize("suffix", [".xtc", ".dcd"])
@pytest.mark.parametrize("unit", ["sigma", "nm"])
def test_a_topology_of_the_user_stays(tmp_path, caplog, suffix, unit):
    """Beside a new file, only a topology that an earlier one left there is replaced."""
    path, pdb = tmp_path / f"mine{suffix}", tmp_path / "mine.pdb"
    traj = pv.Trajectory(np.random.default_rng(0).normal(size=(3, 4, 3)), length_unit=unit)
    pv.write(pdb, traj)  # a trajectory, though polyvae wrote it
    for theirs in (pdb.read_bytes(), b"HEADER    ALL OF IT\n", b""):
        pdb.write_bytes(theirs)
        caplog.clear()
        assert pv.write(path, traj) == [path]
        assert pdb.read_bytes() == theirs
        assert caplog.messages == [
            f"{pdb}: exists and is no topology that polyvae wrote, so it stays; none beside {path}"
        ]
    assert pv.write(path, traj, replace=True) == [path, pdb]
    before = pdb.read_bytes()
    caplog.clear()
    assert pv.write(path, traj[1:]) == [path, pdb]
    assert pdb.read_bytes() != before
    assert not caplog.messages


def test_a_dcd_in_place_of_an_xtc_replaces_none(tmp_path):
    far = pv.Trajectory(np.random.default_rng(0).normal(size=(2, 12, 3)) * 1e5)
    (tmp_path / "mine.dcd").write_text("precious")
    with pytest.raises(pv.InputError, match=r"mine\.dcd exists already"):
        pv.write(tmp_path / "mine.xtc", far)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("mine.dcd", "precious")]
    pv.write(tmp_path / "mine.dcd", far)
    with pytest.raises(pv.InputError, match=r"mine\.dcd exists already"):
        pv.write(tmp_path / "mine.xtc", far)
    assert pv.write(tmp_path / "mine.xtc", far, replace=True)[0] == tmp_path / "mine.dcd"
    assert pv.write(tmp_path / "mine.xtc", far)[0] == tmp_path / "mine.dcd"  # a second run of a script


@pytest.mark.parametrize(("name", "delimiter"), [("COLVAR", None), ("z.csv", ",")])
def test_the_last_digit_of_a_table_is_rounded(tmp_path, name, delimiter):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 1)) * 10.0 ** rng.integers(-20, 20, (20_000, 1))
    x[7], x[8] = np.nan, -np.inf
    pv.write_colvar(tmp_path / name, x, time=1e6 + 0.1 * np.arange(20_000))
    rows = [line.split(delimiter) for line in (tmp_path / name).read_text().splitlines()[1:]]
    assert [row[1] for row in rows] == [f"{value:.9g}" for value in x[:, 0]]
    assert rows[3][0] == "1000000.3"


def test_frames_without_times_are_numbered_through_all_chunks(tmp_path):
    with colvar_writer(tmp_path / "COLVAR", 1) as write:
        write(np.zeros((3, 1)))
        write(np.zeros((2, 1)))
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "COLVAR")[:, 0], np.arange(5))


@pytest.mark.parametrize("suffix", [".gro", ".pdb", ".xtc"])
@pytest.mark.parametrize(
    "name", ["A\nB", "", " ", "A\r", "\x00", "A B", "Cα", "\x1b[2J", "END\nATOM", "\ud800", "\u2028"]
)
def test_names_that_would_break_a_line(suffix, name, tmp_path):
    """Beads, coordinates and the other names come back, and no file holds the letters that end a line."""
    x = np.round(np.random.default_rng(0).normal(size=(2, 3, 3)), 2)
    traj = pv.Trajectory(x, length_unit="nm", names=["N1", name, "N3"])
    written = pv.write(tmp_path / f"run{suffix}", traj)
    topology = None if suffix != ".xtc" else tmp_path / "run.pdb"
    back = pv.read(tmp_path / f"run{suffix}", topology=topology, unwrap=False)
    np.testing.assert_allclose(back.to_unit("nm").positions, x, atol=0.002)
    assert (back.names[0], back.names[2]) == ("N1", "N3")
    for path in written:
        if path.suffix != ".xtc":
            assert all(32 <= byte < 127 or byte == 10 for byte in path.read_bytes())


@pytest.mark.parametrize("name", ["", "a b", "a,b", "a\nb", "a\x00", "\x1b[2J", "a\u2028"])
def test_a_column_whose_name_would_break_the_header_is_refused(name, tmp_path):
    for path in ("COLVAR", "z.csv", "z.npz"):
        with pytest.raises(pv.InputError, match="name of a column"):
            pv.write_colvar(tmp_path / path, np.zeros((3, 1)), columns={name: np.zeros(3)})

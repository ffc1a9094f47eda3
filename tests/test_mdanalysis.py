"""Universes, atom groups and mdtraj trajectories as data, and the MDAnalysis plug-in."""

import subprocess
import sys
import warnings

import MDAnalysis
import mdtraj
import numpy as np
import pytest
from clusters import small_cluster
from MDAnalysis.coordinates.memory import MemoryReader
from models import untrained

import polyvae as pv
from polyvae.mdanalysis import LatentAnalysis

N_FRAMES, BOX = 40, 60.0


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """Files of a wrapped chain of 12 beads, named B, among 5 solvent atoms; and the whole chain in Å."""
    rng = np.random.default_rng(0)
    chain = np.cumsum(rng.normal(size=(N_FRAMES, 12, 3)) * 2.0, axis=1)
    everything = np.concatenate([rng.uniform(0, BOX, (N_FRAMES, 5, 3)), chain], axis=1)
    traj = pv.Trajectory(
        everything % BOX,
        length_unit="angstrom",
        time=10 + 2.0 * np.arange(N_FRAMES),
        box=np.tile(np.eye(3) * BOX, (N_FRAMES, 1, 1)),
        names=["W"] * 5 + ["B"] * 12,
        bonds=[[k, k + 1] for k in range(5, 16)],
    )
    xtc, pdb = pv.write(tmp_path_factory.mktemp("system") / "a.xtc", traj)
    return xtc, pdb, pv.Trajectory(chain, length_unit="angstrom")


@pytest.fixture(scope="module")
def cv(system):
    return untrained(system[2])


@pytest.fixture
def universe(system):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MDAnalysis.Universe(str(system[1]), str(system[0]))


def test_atom_group_universe_file_and_mdtraj_agree(system, cv, universe):
    xtc, pdb, whole = system
    z = cv.transform(whole)
    group = universe.select_atoms("name B")
    universe.trajectory[7]
    np.testing.assert_allclose(cv.transform(group), z, atol=1e-4)
    assert universe.trajectory.frame == 7
    from_file = cv.transform(pv.read(xtc, topology=pdb, select="name B"))
    np.testing.assert_allclose(from_file, z, atol=1e-4)
    frames = mdtraj.load(str(xtc), top=str(pdb))
    picked = frames.atom_slice(frames.topology.select("name B"))
    np.testing.assert_allclose(cv.transform(picked), from_file, atol=1e-5)
    alone = MDAnalysis.Universe.empty(12, trajectory=True)
    alone.load_new(whole.positions, format=MemoryReader)
    np.testing.assert_array_equal(cv.transform(alone), z)


def test_what_a_record_of_them_holds(system, universe):
    traj = pv.as_trajectory(universe.select_atoms("name B"))
    assert (traj.length_unit, traj.n_beads, set(traj.names)) == ("angstrom", 12, {"B"})
    assert traj.bonds.tolist() == [[k, k + 1] for k in range(11)]
    np.testing.assert_allclose(traj.time, 10 + 2.0 * np.arange(N_FRAMES))
    np.testing.assert_allclose(traj.box[:, 0, 0], BOX, rtol=1e-5)
    assert pv.as_trajectory(universe.select_atoms("name B"), length_unit="sigma").length_unit == "sigma"
    frames = pv.as_trajectory(mdtraj.load(str(system[0]), top=str(system[1])), unwrap=False)
    assert (frames.length_unit, frames.n_beads) == ("nm", 17)


def test_score_and_fit_take_them(cv, universe, monkeypatch):
    group = universe.select_atoms("name B")
    assert pv.score(cv, group)["frames"]["all"]["n_frames"] == N_FRAMES
    seen = []
    monkeypatch.setattr("polyvae.cv.fitting.validation_blocks", lambda n, _: seen.append(n) or np.zeros(n, bool))
    with pytest.raises(pv.InputError, match="at least one batch"):
        pv.fit(group, batch_size=1000)
    assert seen == [N_FRAMES]


def test_updating_and_unfit_groups_are_refused(cv, universe):
    updating = universe.select_atoms("prop x < 30", updating=True)
    for take in (pv.as_trajectory, cv.transform, lambda data: LatentAnalysis(data, cv)):
        with pytest.raises(pv.InputError, match="without updating=True"):
            take(updating)
    with pytest.raises(pv.InputError, match="takes 12 beads"):
        LatentAnalysis(universe, cv)
    group = universe.select_atoms("name B")
    with pytest.raises(pv.InputError, match=r"group\.unique"):
        cv.transform(group + group)
    with pytest.raises(pv.InputError, match="read it first"):
        cv.transform("run.xtc")


def test_what_holds_no_beads_is_refused(cv, universe):
    for data, text in (
        (universe.atoms[:0], "no atoms"),
        (universe.residues, "group of residues"),
        (universe.segments, "group of segments"),
        ([[[0, 0, 0], [1, 1, 1]], [[0, 0, 0]]], "rows of unequal lengths"),
    ):
        with pytest.raises(pv.InputError, match=text):
            pv.as_trajectory(data)
    for model, unit, text in (
        ("m.safetensors", "angstrom", "LatentCV.*got str"),
        (cv, "furlong", "length unit must"),
        (cv, "sigma", "reduced unit"),
    ):
        with pytest.raises(pv.InputError, match=text):
            LatentAnalysis(universe.select_atoms("name B"), model, length_unit=unit)
    with pytest.raises(pv.InputError, match="no atoms"):
        LatentAnalysis(universe.atoms[:0], cv)


def test_files_of_a_universe_are_segments(system, tmp_path):
    """As for `read`; MDAnalysis' continuous chain leaves frames out, and is one piece."""
    xtc, pdb, _ = system
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe(pdb, [xtc, xtc])
    found, read = pv.as_trajectory(universe), pv.read([xtc, xtc], topology=pdb)
    assert found.segments == read.segments == (N_FRAMES, N_FRAMES)
    np.testing.assert_allclose(found.time, read.time)
    np.testing.assert_allclose(found.positions, read.to_unit("angstrom").positions, atol=1e-3)
    first, second = tmp_path / "1.xtc", tmp_path / "2.xtc"
    pv.write(first, read[:25])
    pv.write(second, read[20:N_FRAMES])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chain = pv.as_trajectory(MDAnalysis.Universe(pdb, [first, second], continuous=True))
    assert chain.segments == (N_FRAMES,)
    np.testing.assert_allclose(chain.time, read.time[:N_FRAMES])


def test_times_that_do_not_increase_are_said_to_be_left_out(system, caplog):
    xtc, pdb, _ = system
    run = mdtraj.load(str(xtc), top=str(pdb))
    run.time[10:] = run.time[9]
    with caplog.at_level("INFO", logger="polyvae"):
        assert pv.as_trajectory(run).time is None
    assert (
        "the mdtraj trajectory: times are left out, for that of frame 10 is not after the one before"
        in caplog.text
    )


def test_units_that_cannot_be_related_are_refused(system, universe):
    reduced = untrained(pv.Trajectory(system[2].positions))
    group = universe.select_atoms("name B")
    for take in (reduced.transform, lambda data: pv.score(reduced, data)):
        with pytest.raises(pv.InputError, match=r"pv\.as_trajectory\(data, length_unit='sigma'\) for"):
            take(group)
    frames = pv.as_trajectory(group)
    with pytest.raises(pv.InputError, match="in angstrom, not sigma"):
        pv.as_trajectory(frames, length_unit="sigma")
    assert pv.as_trajectory(frames, length_unit="angstrom") is frames
    z = reduced.transform(pv.as_trajectory(group, length_unit="sigma"))
    np.testing.assert_allclose(LatentAnalysis(group, reduced, length_unit="sigma").run().results.latent, z)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"backend": "multiprocessing", "n_workers": 2},
        pytest.param({"backend": "dask", "n_workers": 2}, marks=pytest.mark.long),
    ],
    ids=["serial", "multiprocessing", "dask"],
)
def test_plug_in_gives_the_numbers_of_transform(cv, universe, options):
    if options.get("backend") == "dask":
        pytest.importorskip("dask")
    group = universe.select_atoms("name B")
    z = cv.transform(group)
    analysis = LatentAnalysis(group, cv).run(**options)
    np.testing.assert_array_equal(analysis.results.latent, z)
    np.testing.assert_allclose(analysis.results.times, 10 + 2.0 * np.arange(N_FRAMES))
    part = LatentAnalysis(group, cv).run(start=3, stop=30, step=4, **options)
    np.testing.assert_array_equal(part.results.latent, z[3:30:4])
    assert analysis.cv is cv


def test_plug_in_on_a_cluster_of_dask(cv, universe, monkeypatch):
    """Not in processes that MDAnalysis starts."""
    group = universe.select_atoms("name B")
    with small_cluster():
        monkeypatch.setattr("dask.compute", None)
        analysis = LatentAnalysis(group, cv).run(backend="dask", n_workers=3)
    np.testing.assert_array_equal(analysis.results.latent, cv.transform(group))


def test_plug_in_of_no_frames(cv, universe):
    analysis = LatentAnalysis(universe.select_atoms("name B"), cv).run(stop=0)
    assert analysis.results.latent.shape == (0, 2)


def test_importing_polyvae_loads_neither_library():
    names = ("mdtraj", "MDAnalysis", "matplotlib", "dask")
    code = f"import sys, polyvae; print([name for name in {names} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"

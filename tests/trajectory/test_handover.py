"""Trajectories given to MDAnalysis and mdtraj, and taken back: the same frames, in the units of each."""

import dataclasses

import mdtraj
import numpy as np
import pytest

import polyvae as pv

ANGSTROM = {"nm": 10.0, "angstrom": 1.0, "sigma": 1.0}
NM = {"nm": 1.0, "angstrom": 0.1, "sigma": 1.0}


def made(unit: str, n_dims: int = 3) -> pv.Trajectory:
    rng = np.random.default_rng(0)
    box = np.tile(np.array([[9.0, 0, 0], [1.5, 8, 0], [-1, 2, 7]]), (5, 1, 1))
    return pv.Trajectory(
        rng.normal(size=(5, 4, n_dims)),
        time=30 + 2.5 * np.arange(5),
        length_unit=unit,
        names=("CA", "CB", "N", "X1"),
        bonds=[[0, 1], [1, 2], [2, 3]],
        box=box if n_dims == 3 else None,
    )


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("unit", ["nm", "angstrom", "sigma"])
@pytest.mark.parametrize("library", ["mdanalysis", "mdtraj"])
def test_there_and_back(library, unit, n_dims):
    traj = made(unit, n_dims)
    if library == "mdtraj":
        other, factor, own = traj.to_mdtraj(), NM[unit], "nm"
        x, lengths, times = other.xyz, other.unitcell_lengths, other.time
        pairs = [(a.index, b.index) for a, b in other.topology.bonds]
    else:
        other, factor, own = traj.to_mdanalysis(), ANGSTROM[unit], "angstrom"
        x = np.array([ts.positions.copy() for ts in other.trajectory])
        lengths = np.array([ts.dimensions[:3] for ts in other.trajectory]) if n_dims == 3 else None
        times = [ts.time for ts in other.trajectory]
        pairs = other.bonds.indices.tolist()
    np.testing.assert_allclose(x[..., :n_dims], traj.positions * factor, rtol=1e-6)
    if n_dims == 3:
        sides = np.array([9, np.sqrt(1.5**2 + 64), np.sqrt(1 + 4 + 49)])
        np.testing.assert_allclose(lengths, np.tile(sides * factor, (5, 1)), rtol=1e-6)
    else:
        assert lengths is None
        assert not x[..., 2].any()
    np.testing.assert_allclose(times, [30, 32.5, 35, 37.5, 40])
    assert [tuple(pair) for pair in pairs] == [(0, 1), (1, 2), (2, 3)]
    back = pv.as_trajectory(other, length_unit="sigma" if unit == "sigma" else own, unwrap=False)
    back = back.to_unit(unit)
    np.testing.assert_allclose(back.positions, traj.positions, rtol=2e-6)
    np.testing.assert_allclose(back.time, traj.time)
    np.testing.assert_array_equal(back.bonds, traj.bonds)
    assert (back.names, back.n_dims, back.length_unit) == (traj.names, n_dims, unit)
    if n_dims == 3:
        np.testing.assert_allclose(back.box, traj.box, atol=1e-5)


def test_masses_and_ids_go_to_mdanalysis():
    traj = dataclasses.replace(made("nm"), masses=np.array([1.0, 2, 3, 4]), ids=np.array([7, 9, 11, 2]))
    universe = traj.to_mdanalysis()
    np.testing.assert_array_equal(universe.atoms.masses, [1, 2, 3, 4])
    np.testing.assert_array_equal(universe.atoms.ids, [7, 9, 11, 2])
    np.testing.assert_array_equal(pv.as_trajectory(universe, unwrap=False).masses, [1, 2, 3, 4])


@pytest.mark.parametrize("library", ["to_mdanalysis", "to_mdtraj"])
def test_least_and_turned(library):
    bare = pv.Trajectory(np.arange(6.0).reshape(1, 2, 3))
    assert len(getattr(bare, library)().atoms if library == "to_mdanalysis" else bare.to_mdtraj().xyz[0]) == 2
    turned = dataclasses.replace(made("nm"), box=np.tile(np.eye(3)[[1, 0, 2]] * 5, (5, 1, 1)))
    with pytest.raises(pv.InputError, match="along x"):
        getattr(turned, library)()


def test_uneven_times_are_counted_in_a_universe_and_kept_in_mdtraj(caplog):
    traj = dataclasses.replace(made("nm"), time=np.array([0.0, 1, 2, 4, 5]))
    with caplog.at_level("INFO"):
        universe = traj.to_mdanalysis()
    assert "counts these frames by 1 ps" in caplog.text
    assert [ts.time for ts in universe.trajectory] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(traj.to_mdtraj().time, traj.time)
    assert isinstance(traj.to_mdtraj(), mdtraj.Trajectory)

"""Close pairs that a search in space finds are those that a table of all pairs holds, and cost less."""

import dataclasses
import itertools

import numpy as np
import pytest
from conftest import ideal_chains

import polyvae as pv
from polyvae.measures import limits, pairs
from polyvae.measures.ensembles import ensemble_distances
from polyvae.measures.limits import check_against, limits_of

RING = np.stack([np.arange(60), (np.arange(60) + 1) % 60], axis=1)
STAR = np.array([[0 if k % 20 == 1 else k - 1, k] for k in range(1, 60)])
TWO = np.concatenate([np.stack([np.arange(29), np.arange(1, 30)], axis=1) + shift for shift in (0, 30)])


def by_search(monkeypatch, search: bool) -> None:
    for module in (pairs, limits):
        monkeypatch.setattr(module, "MANY", 0 if search else 10**6)


@pytest.mark.parametrize("bonds", [None, RING, STAR, TWO], ids=["chain", "ring", "star", "two molecules"])
@pytest.mark.parametrize("of_frames", [True, False])
def test_a_search_gives_the_limits_of_all_pairs(monkeypatch, bonds, of_frames):
    weights = np.random.default_rng(0).uniform(0, 2, 40) * (np.arange(40) % 5 > 0)
    traj = pv.Trajectory(ideal_chains(40, 60, 3), bonds=bonds, weights=weights)
    found = []
    for search in (False, True):
        by_search(monkeypatch, search)
        found.append(limits_of(traj, of_frames=of_frames))
    one, two = (f.record() for f in found)
    for name, measure in one.pop("shape").items():
        np.testing.assert_allclose(list(two["shape"][name].values()), list(measure.values()), rtol=1e-5)
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_a_search_among_few_beads(monkeypatch, n):
    traj = pv.Trajectory(ideal_chains(20, n, 2))
    found = []
    for search in (False, True):
        by_search(monkeypatch, search)
        found.append(limits_of(traj, of_frames=True).record())
    for name, value in found[0].items():
        if name != "shape":
            np.testing.assert_allclose(found[1][name], value, rtol=1e-5, err_msg=name)


def test_a_search_finds_what_is_broken(monkeypatch):
    data = pv.Trajectory(ideal_chains(200, 40, 3))
    x = ideal_chains(60, 40, 3, seed=1)
    x[:10] *= 1.6
    x[10:20] *= 0.6
    x[20:30, 30] = x[20:30, 3] + 1e-4
    checks = []
    for search in (False, True):
        by_search(monkeypatch, search)
        checks.append(check_against(limits_of(data, of_frames=True), x))
    assert checks[0].broken == checks[1].broken
    assert min(checks[0].broken.values()) > 0
    np.testing.assert_array_equal(checks[0].valid, checks[1].valid)


def test_large_chains_take_no_table_of_pairs(monkeypatch):
    """3,000 beads, whose 4.5 million pairs nothing lists."""

    def refused(*_):
        raise AssertionError("all pairs were listed")

    monkeypatch.setattr(pairs, "separations", refused)
    monkeypatch.setattr(limits, "separations", refused)
    traj = pv.Trajectory(ideal_chains(4, 3000, 3))
    found = limits_of(traj, of_frames=True)
    assert check_against(found, traj.positions).valid.all()
    assert 0 < found.closest_pair < found.closest_contacts < 2
    moved = dataclasses.replace(traj, positions=1.1 * traj.positions)
    assert ensemble_distances(traj, moved)["bond"] > 0.1


@pytest.mark.parametrize("n", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("at_most", [5, 10**6])
def test_even_pairs_are_every_so_many_of_all(n, at_most):
    every = np.array(list(itertools.combinations(range(n), 2)), int).reshape(-1, 2)
    every = every[:: -(-len(every) // at_most) or 1]
    np.testing.assert_array_equal(pairs.even_pairs(n, at_most), every)

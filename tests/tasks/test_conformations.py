"""Paths, checks and relaxing: what becomes of conformations between the model and a file."""

import dataclasses
import functools
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ideal_chains, random_rotations

import polyvae as pv
from polyvae.measures.limits import draw_valid, limits_of, separations
from polyvae.tasks.paths import find_dense_path
from polyvae.trajectory.record import bonds_of
from polyvae.vae.settings import ModelRecord


def arc(n: int, rng, spread=0.05) -> np.ndarray:
    """Points on three quarters of a circle of radius 1."""
    angle = rng.uniform(0, 1.5 * np.pi, n)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) + rng.normal(scale=spread, size=(n, 2))


def test_a_path_along_the_data_follows_a_ring_that_the_straight_one_cuts():
    points = arc(1500, np.random.default_rng(0))
    a, b = np.array([1.0, 0.0]), np.array([0.0, -1.0])
    path = find_dense_path(points, a, b, 50)
    np.testing.assert_allclose(path[[0, -1]], [a, b], atol=1e-12)
    assert np.abs(np.linalg.norm(path, axis=1) - 1).max() < 0.12
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert steps.max() < 1.1 * steps.min()
    # Three quarters of a circle, and no ragged way from point to point.
    assert steps.sum() == pytest.approx(1.5 * np.pi, rel=0.06)


def test_a_path_along_the_data_does_not_depend_on_their_scale():
    points = arc(300, np.random.default_rng(1))
    path = find_dense_path(points, points[0], points[1], 20)
    np.testing.assert_allclose(find_dense_path(1e4 * points, *(1e4 * points[:2]), 20), 1e4 * path, rtol=1e-6)


def test_interpolate_between_points_and_frames(cv, traj):
    a, b = np.array([-1.0, 0.5]), np.array([1.0, 1.5])
    frames, z = pv.interpolate(cv, a, b, 5)
    np.testing.assert_allclose(z, a + np.linspace(0, 1, 5)[:, None] * (b - a), atol=1e-6)
    np.testing.assert_array_equal(frames.positions, cv.decode(z))
    assert frames.segments == (5,)
    assert frames.names == cv.template.names
    ends = cv.transform(traj[:2])
    np.testing.assert_allclose(pv.interpolate(cv, traj[0], traj.positions[1], 3).z[[0, 2]], ends, atol=1e-6)
    along = pv.interpolate(cv, traj[0], traj[1], 9, along="data", data=traj)
    np.testing.assert_allclose(along.z[[0, -1]], ends, atol=1e-6)


def test_a_grid_spans_the_prior_or_the_data(cv, traj):
    frames, z = pv.latent_grid(cv, 3)
    np.testing.assert_allclose(z, list(itertools.product([-2, 0, 2], repeat=2)))
    np.testing.assert_array_equal(frames.positions, cv.decode(z))
    of_data = pv.latent_grid(cv, 3, data=traj).z
    expected = np.quantile(cv.transform(traj), [0.01, 0.99], axis=0, method="inverted_cdf")
    np.testing.assert_allclose(of_data[[0, -1]], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda cv, traj: pv.interpolate(cv, np.zeros(3), np.zeros(2), 5), r"\ba must.*\(2,\).*\(3,\)"),
        (lambda cv, traj: pv.interpolate(cv, np.zeros(2), "x", 5), r"\bb must.*finite"),
        (lambda cv, traj: pv.interpolate(cv, np.zeros(2), [np.nan, 0], 5), r"\bb must.*finite"),
        (lambda cv, traj: pv.interpolate(cv, traj[:2], np.zeros(2), 5), r"\ba must.*one frame.*2"),
        (lambda cv, traj: pv.interpolate(cv, np.zeros(2), np.ones(2), 1), "at least 2"),
        (lambda cv, traj: pv.interpolate(cv, np.zeros(2), np.ones(2), 3, along="x"), "one of straight, data"),
        (lambda cv, traj: pv.interpolate(cv, np.zeros(2), np.ones(2), 3, along="data"), "needs the trajectory"),
        (lambda cv, traj: pv.latent_grid(cv, 1000), "100000 in all"),
        (lambda cv, traj: pv.relax(traj), "either data"),
        (lambda cv, traj: pv.check_conformations(traj.positions[:, :1], traj.positions[:, :1]), "two beads"),
        (lambda cv, traj: pv.relax(traj, energy=lambda x: x), "one number"),
        (lambda cv, traj: pv.relax(traj[:2], energy=lambda x: -jnp.sum(jnp.exp(x**2))), "relaxing frame 0"),
        (lambda cv, traj: pv.check_conformations(traj.positions[:, :4], traj), "must have 8 beads"),
        (lambda cv, traj: pv.relax(traj.positions[:, :4], traj), "must have 8 beads"),
        (lambda cv, traj: pv.relax(traj.positions, traj.positions[:, :4]), "must have 4 beads"),
        (
            lambda cv, traj: pv.check_conformations(traj, dataclasses.replace(cv, record=ModelRecord())),
            "keeps no limits",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(cv, traj, call, text):
    with pytest.raises(pv.InputError, match=text) as error:
        call(cv, traj)
    assert "\n" not in str(error.value)


def test_bonds_apart_by_counting():
    """A star of three arms of two beads about bead 0, and a molecule of its own."""
    bonds = [[0, 1], [1, 2], [0, 3], [3, 4], [0, 5], [5, 6], [7, 8]]
    pairs, apart = separations(9, np.array(bonds))
    found = dict(zip(map(tuple, pairs.tolist()), apart.tolist(), strict=True))
    assert (found[0, 1], found[0, 2], found[1, 3], found[1, 4], found[2, 4]) == (1, 2, 2, 3, 4)
    assert (found[2, 7], found[7, 8]) == (4, 1)  # nothing joins them: as far as can be


def numpy_limits(x: np.ndarray) -> dict:
    """What `limits_of` gives for linear chains, frame by frame with numpy."""
    n, quantile = x.shape[1], functools.partial(np.quantile, method="inverted_cdf")
    pairs = np.array(list(itertools.combinations(range(n), 2)))
    apart = np.minimum(pairs[:, 1] - pairs[:, 0], 4)
    r = np.linalg.norm(x[:, pairs[:, 0]] - x[:, pairs[:, 1]], axis=2)
    low = {k: quantile(r[:, apart == k], 0.001) for k in (1, 2, 3, 4)}
    return {
        "shortest_bond": low[1],
        "longest_bond": -quantile(-r[:, apart == 1], 0.001),
        "longest_mean_bond": -quantile(-r[:, apart == 1].mean(axis=1), 0.001),
        "closest_pair": quantile(r, 0.001),
        "closest_free_pair": quantile(r[:, apart > 1], 0.001),
        "closest_apart": [low[k] for k in (2, 3, 4)],
        "closest_mean_apart": [quantile(r[:, apart == k].mean(axis=1), 0.001) for k in (2, 3)],
        "closest_contacts": quantile(np.sort(r[:, apart > 1], axis=1)[:, :n].mean(axis=1), 0.001),
    }


def test_limits_against_numpy(traj):
    limits = limits_of(traj)
    for name, value in numpy_limits(traj.positions.astype(float)).items():
        np.testing.assert_allclose(getattr(limits, name), value, rtol=1e-4, err_msg=name)
    rg = np.array([float(pv.radius_of_gyration(x)) for x in traj.positions[:50]])
    shape = limits_of(traj[:50]).shape["rg"]
    assert (shape["mean"], shape["std"]) == pytest.approx((rg.mean(), rg.std()), rel=1e-4)


def test_the_shape_of_weighted_data_is_that_of_frames_taken_as_often(traj):
    often = np.arange(100) % 4
    weighted = limits_of(dataclasses.replace(traj[:100], weights=often.astype(float))).shape
    repeated = limits_of(traj[np.repeat(np.arange(100), often)]).shape
    none = limits_of(dataclasses.replace(traj[:100], weights=np.zeros(100))).shape
    assert none == limits_of(traj[:100]).shape
    for name, measure in weighted.items():
        assert (measure["mean"], measure["std"]) == pytest.approx(
            (repeated[name]["mean"], repeated[name]["std"]), rel=1e-5
        )


def test_nearly_all_data_are_valid_and_broken_chains_are_not(traj):
    """Each of five limits holds for 99.9 % of the frames."""
    check = pv.check_conformations(traj, traj)
    assert check.valid.mean() > 0.98
    turned = np.einsum(
        "fij,fbj->fbi", random_rotations(len(traj), traj.n_dims, np.random.default_rng(0)), traj.positions
    )
    moved = dataclasses.replace(traj, positions=turned + 5, length_unit="sigma")
    assert (pv.check_conformations(moved, traj).valid != check.valid).sum() <= 1
    overlapping = traj.positions[:20].copy()
    overlapping[:, 6] = overlapping[:, 1] + 1e-3
    found = pv.check_conformations(overlapping, traj)
    assert not found.valid.any()
    assert found.broken["pair"] == 20
    stretched = pv.check_conformations(dataclasses.replace(traj, positions=3 * traj.positions), traj)
    assert stretched.broken["bond"] > 300
    assert stretched.broken["pair"] < check.broken["pair"] + 1


def test_a_model_keeps_the_limits_of_its_data(cv, traj, tmp_path):
    cv.save(tmp_path / "m.safetensors")
    kept = pv.check_conformations(traj, pv.load(tmp_path / "m.safetensors"))
    np.testing.assert_array_equal(kept.valid, pv.check_conformations(traj, traj).valid)


def test_drawing_until_valid_counts_what_it_drew(traj):
    limits = limits_of(traj, of_frames=True)
    good = traj[np.flatnonzero(limits.accept(traj.positions))]
    draws = []

    def draw(n, seed):  # every third conformation is sound
        draws.append(seed)
        positions = good.positions[:n].copy()
        positions[np.arange(n) % 3 != 2] *= 5
        return dataclasses.replace(good[:n], positions=positions, segments=(1,) * n)

    kept, n_drawn = draw_valid(draw, 30, limits, seed=7)
    assert len(kept) == 30
    assert limits.accept(kept.positions).all()
    assert 85 <= n_drawn <= 95
    assert draws[0] == 7
    assert len(set(draws)) == len(draws) > 1
    with pytest.raises(pv.InputError, match="30 .*20 of 60"):
        draw_valid(draw, 30, limits, most=60)


@pytest.mark.long
def test_relaxed_chains_are_sound_and_near(traj):
    rng = np.random.default_rng(0)
    rough = dataclasses.replace(
        traj[:40], positions=traj.positions[:40] + 0.5 * rng.normal(size=traj[:40].positions.shape)
    )
    relaxed = pv.relax(rough, traj)
    bonds = np.linalg.norm(np.diff(relaxed.conformations.positions, axis=1), axis=2)
    np.testing.assert_allclose(bonds, limits_of(traj).shape["bond"]["mean"], rtol=0.01)
    check = pv.check_conformations(relaxed.conformations, traj)
    assert check.broken["bond"] == check.broken["pair"] == check.broken["bend"] == 0
    assert (relaxed.energy < 0.01 * relaxed.energy_before + 0.01).all()
    superposed = [pv.rmsd(x, y) for x, y in zip(relaxed.conformations.positions, rough.positions, strict=True)]
    np.testing.assert_allclose(relaxed.moved, superposed, atol=1e-3)
    assert relaxed.moved.max() < 2.0


def test_relaxing_does_not_depend_on_the_unit(traj):
    """Conformations in Angstrom, by a potential of data in nm, end where those in nm end."""
    data = dataclasses.replace(traj, length_unit="nm")
    rough = dataclasses.replace(data[:5], positions=1.2 * data.positions[:5])
    one, two = (pv.relax(t, data).conformations for t in (rough, rough.to_unit("angstrom")))
    assert two.length_unit == "nm"
    np.testing.assert_allclose(one.positions, two.positions, atol=2e-3)


def test_the_chain_potential_in_closed_form(traj):
    """A stretched straight chain has energy in its bonds alone; two beads on each other have the wall's."""
    limits = limits_of(traj, of_frames=True)
    energy = pv.chain_energy(traj)
    mean, var = limits.shape["bond"]["mean"], limits.shape["bond"]["std"] ** 2
    straight = np.zeros((8, traj.n_dims), np.float32)
    straight[:, 0] = 1.5 * mean * np.arange(8)
    assert float(energy(straight)) == pytest.approx(7 * (0.5 * mean) ** 2 / (2 * var), rel=1e-4)
    folded = straight / 1.5
    folded[7] = folded[0]  # its bond is five mean bonds too long
    wall = 1.02 * limits.pairs(8)[2][6]
    assert wall < mean  # no other pair is that close
    assert float(energy(folded)) == pytest.approx(((5 * mean) ** 2 + wall**2) / (2 * var), rel=1e-4)


def test_an_energy_of_ones_own_is_minimised():
    """A harmonic well about a triangle: its minimum is known."""
    goal = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], np.float32)
    frames = goal + np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)
    relaxed = pv.relax(frames, energy=lambda x: 3.0 * jnp.sum((x - goal) ** 2))
    np.testing.assert_allclose(relaxed.conformations.positions, np.broadcast_to(goal, (5, 3, 2)), atol=1e-3)


def test_consecutive_beads_are_bonded_where_no_bonds_are_known():
    traj = pv.Trajectory(ideal_chains(3, 5, 3))
    np.testing.assert_array_equal(bonds_of(traj), [[0, 1], [1, 2], [2, 3], [3, 4]])

"""OPES by hand, in the place of an engine's own."""

import numpy as np
import pytest

import polyvae as pv
from polyvae.export.opes import Opes


def test_the_first_kernel_levels_its_place_and_leaves_the_barrier_elsewhere():
    opes = Opes([0.2, 0.5], barrier=20.0, kT=2.0, stride=1)
    assert opes(np.array([0.3, 0.0]), 0)[0] == pytest.approx(-20.0)
    opes.add(np.array([0.3, 0.0]), -20.0)
    share, away = 1 - 2 / 20, np.array([0.1, 0.6])
    kernel = np.exp(-0.5 * ((away / [0.2, 0.5]) ** 2).sum())
    energy, slope = opes(np.array([0.4, 0.6]), 0)
    assert energy == pytest.approx(share * 2 * np.log(kernel + np.exp(-10 / share)), rel=1e-3)
    np.testing.assert_allclose(slope, -share * 2 * away / np.square([0.2, 0.5]), rtol=1e-3)  # up to e
    assert opes(np.array([9.0, 0.0]), 0)[0] == pytest.approx(-20.0)


def test_the_slope_is_that_of_the_energy():
    rng = np.random.default_rng(0)
    opes = Opes([0.3, 0.2], barrier=8.0, kT=1.0, stride=1)
    for z in rng.normal(size=(60, 2)):
        opes.add(z, opes(z, 0)[0])
    for z in rng.normal(size=(5, 2)):
        slope = opes(z, 0)[1]
        steps = 1e-6 * np.eye(2)
        found = [(opes(z + h, 0)[0] - opes(z - h, 0)[0]) / 2e-6 for h in steps]
        np.testing.assert_allclose(slope, found, rtol=1e-5, atol=1e-7)


def test_kernels_that_lie_together_become_one_and_keep_weight_mean_and_spread():
    opes = Opes([0.5], barrier=8.0, kT=1.0, stride=1)
    rng = np.random.default_rng(1)
    for z in rng.normal(size=(300, 1)):
        opes.add(z, 0.0)
    assert len(opes.heights) < 20
    z = np.linspace(-9, 9, 2001)
    density = sum(h * np.exp(-0.5 * ((z - c) / w) ** 2) for h, c, w in zip(
        opes.heights, opes.centres[:, 0], opes.widths[:, 0], strict=True))  # fmt: skip
    density /= density.sum()
    drawn = np.random.default_rng(1).normal(size=300)
    assert density @ z == pytest.approx(drawn.mean(), abs=0.02)
    assert np.sqrt(density @ (z - density @ z) ** 2) == pytest.approx(drawn.std(), rel=0.15)
    everywhere = [
        sum(opes.heights * np.exp(-0.5 * ((c - opes.centres) / opes.widths)[:, 0] ** 2)) for c in opes.centres
    ]
    np.testing.assert_allclose(opes._at, everywhere, rtol=1e-9)  # as it is kept from kernel to kernel


def test_it_crosses_a_barrier_and_its_weights_give_the_free_energy():
    """A double well of 7 kT, one side 1 kT higher, by Metropolis steps."""
    rng = np.random.default_rng(2)
    opes = Opes([0.15], barrier=10.0, kT=1.0, stride=50)

    def potential(z):
        return 7 * (z**2 - 1) ** 2 + 0.5 * z

    n = 40_000
    moves, draws = 0.3 * rng.normal(size=n), np.log(rng.random(n))
    z, z_bias, seen, bias = -1.0, -10.0, [], []
    for step in range(n):
        to = z + moves[step]
        to_bias = opes(np.array([to]), 1)[0]  # only looks
        if draws[step] < potential(z) + z_bias - potential(to) - to_bias:
            z = to
        z_bias = opes(np.array([z]), step)[0]
        if step % 10 == 0:
            seen.append(z)
            bias.append(z_bias)
    seen, weights = np.array(seen[400:]), np.exp(np.array(bias[400:]))
    assert (np.diff(np.sign(seen)) != 0).sum() > 30
    edges = np.linspace(-1.3, 1.3, 14)
    found = -np.log(np.histogram(seen, edges, weights=weights)[0])
    fine = np.linspace(-1.3, 1.3, 1301)
    truth = -np.log(np.exp(-potential(fine[:-1])).reshape(13, 100).sum(axis=1))
    assert np.std(found - truth) < 0.5


def test_what_it_refuses():
    with pytest.raises(pv.InputError, match="sigma"):
        Opes([0.1, -1.0], barrier=5.0, kT=1.0, stride=1)
    with pytest.raises(pv.InputError, match="barrier"):
        Opes([0.1], barrier=1.0, kT=1.0, stride=1)
    with pytest.raises(pv.InputError, match="stride"):
        Opes([0.1], barrier=5.0, kT=1.0, stride=0)

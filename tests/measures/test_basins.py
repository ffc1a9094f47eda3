"""Basins of one latent coordinate, against mixtures that are known."""

import numpy as np
import pytest
from scipy import signal

import polyvae as pv
from polyvae.measures.basins import _peaks, find_basins


@pytest.mark.parametrize("n", [300, 20_000])
def test_two_spikes_far_apart(n):
    rng = np.random.default_rng(0)
    z = np.concatenate([rng.normal(-1, 0.02, n), rng.normal(1, 0.03, n // 3)])
    found = find_basins(z)
    assert [round(basin.centre, 1) for basin in found] == [-1.0, 1.0]
    np.testing.assert_allclose([basin.spread for basin in found], [0.02, 0.03], rtol=0.2)
    np.testing.assert_allclose([basin.weight for basin in found], [0.75, 0.25], atol=0.01)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("draw", ["normal", "skewed", "flat"])
def test_one_hump_is_one_basin(seed, draw):
    rng = np.random.default_rng(seed)
    z = {"normal": rng.normal, "skewed": lambda size: rng.gamma(3.0, size=size), "flat": rng.random}[draw](
        size=2000
    )
    (basin,) = find_basins(z)
    assert basin.weight == pytest.approx(1)
    if draw == "normal":
        assert basin.spread == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("draw", ["random", "exponential", "standard_normal"])
def test_noise_is_no_barrier(draw):
    """With 30 frames in a window one run in five of a flat density had a basin too many, and hills too narrow."""
    runs = [getattr(np.random.default_rng([n, k]), draw)(size=n) for n in (300, 1000, 2500) for k in range(100)]
    assert sum(len(find_basins(z)) > 1 for z in runs) <= 1


def test_a_barrier_below_kt_is_none_and_few_frames_are_no_basin():
    rng = np.random.default_rng(1)
    assert len(find_basins(np.concatenate([rng.normal(-1, 1, 20_000), rng.normal(1, 1, 20_000)]))) == 1
    stray = np.concatenate([rng.normal(0, 1, 10_000), rng.normal(30, 0.1, 50)])
    assert [round(basin.centre) for basin in find_basins(stray)] == [0]


def test_weights_count():
    rng = np.random.default_rng(2)
    z = np.concatenate([rng.normal(-1, 0.1, 2000), rng.normal(2, 0.2, 2000)])
    found = find_basins(z, np.repeat([1.0, 3.0], 2000))
    np.testing.assert_allclose([basin.weight for basin in found], [0.25, 0.75], atol=0.01)
    np.testing.assert_allclose([basin.spread for basin in found], [0.1, 0.2], rtol=0.1)
    assert [round(basin.centre) for basin in find_basins(z, np.repeat([0.0, 1.0], 2000))] == [2]


def test_a_latent_that_never_varies_is_one_basin_without_width():
    (basin,) = find_basins(np.zeros(10))
    assert basin.spread == 0
    with pytest.raises(pv.InputError, match="finite"):
        find_basins(np.array([1.0, np.nan]))


@pytest.mark.parametrize("seed", range(20))
def test_peaks_are_those_of_scipy(seed):
    """Of rough and of flat heights, with maxima at the ends."""
    rng = np.random.default_rng(seed)
    heights = np.cumsum(rng.normal(size=200)) if seed % 2 else rng.integers(0, 5, 200).astype(float)
    for prominence in (0.5, 1.0, 3.0):
        by_scipy = signal.find_peaks(np.r_[-np.inf, heights, -np.inf], prominence=prominence)[0] - 1
        assert _peaks(heights, prominence) == by_scipy.tolist()

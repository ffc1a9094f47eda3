"""VAMP-2, timescales and autocorrelation times against closed forms, definitions and deeptime."""

import jaxtyping
import numpy as np
import pytest
from scipy.signal import lfilter

from polyvae.errors import InputError
from polyvae.measures import kinetics

N = 400_000


def processes(*rhos: float, n: int = N, seed: int = 0) -> np.ndarray:
    """Stationary AR(1) processes z(t) = rho z(t-1) + noise of variance 1, (n, len(rhos)): corr(t) = rho^t."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, len(rhos))) * np.sqrt(1 - np.square(rhos))
    noise[0] = rng.normal(size=len(rhos))
    return np.stack([lfilter([1], [1, -rho], e) for rho, e in zip(rhos, noise.T, strict=True)], axis=1)


def bartlett(rho: float, lag: int, n: int = N) -> float:
    """Standard error of the correlation at a lag of an AR(1) process (Bartlett's formula)."""
    r2 = rho**2
    return np.sqrt(((1 + r2) * (1 - r2**lag) / (1 - r2) - 2 * lag * r2**lag) / n)


@pytest.mark.parametrize("lag", [1, 5])
def test_vamp2_and_timescale_of_ar1(lag):
    rho, z = 0.9, processes(0.9)
    error = 5 * bartlett(rho, lag)
    [s] = kinetics.singular_values(z, lag)
    assert s == pytest.approx(rho**lag, abs=error)
    assert kinetics.vamp2(z, lag) == pytest.approx(1 + rho ** (2 * lag), abs=2 * error)
    [timescale] = kinetics.timescales(z, lag)
    assert timescale == pytest.approx(-1 / np.log(rho), abs=lag / np.log(rho**lag) ** 2 / rho**lag * error)


def test_vamp2_of_several_processes_under_an_invertible_map():
    rhos = np.array([0.95, 0.8, 0.3])
    z = processes(*rhos)
    mixed = z @ np.array([[1, 2, 0], [0, 1e-3, 1], [3, 0, 50]]) + [10, -3, 0]
    assert kinetics.vamp2(mixed, 2) == pytest.approx(kinetics.vamp2(z, 2), abs=1e-9)
    assert kinetics.vamp2(mixed, 2) == pytest.approx(1 + (rhos**4).sum(), abs=0.01)
    np.testing.assert_allclose(kinetics.timescales(mixed, 2), -1 / np.log(rhos), rtol=0.05)


def test_vamp2_is_its_definition():
    """Inverse square roots by scipy, of covariances written out."""
    from scipy.linalg import fractional_matrix_power

    z = processes(0.9, 0.5, n=500) @ np.array([[1, 0.5], [0, 1]])
    a, b = z[:-3] - z[:-3].mean(0), z[3:] - z[3:].mean(0)
    root = [fractional_matrix_power(x.T @ x, -0.5) for x in (a, b)]
    assert kinetics.vamp2(z, 3) == pytest.approx(1 + np.sum((root[0] @ a.T @ b @ root[1]) ** 2), rel=1e-10)


def test_no_pair_crosses_a_segment():
    """Pieces of a process in shuffled order: the numbers are those of the pairs within pieces alone."""
    z = processes(0.9, n=2000).reshape(100, 20)[np.random.default_rng(1).permutation(100)].reshape(-1, 1)
    segments = (20,) * 100
    pieces = z.reshape(100, 20)
    a, b = pieces[:, :-4].ravel(), pieces[:, 4:].ravel()
    assert kinetics.vamp2(z, 4, segments) == pytest.approx(1 + np.corrcoef(a, b)[0, 1] ** 2, rel=1e-9)
    assert kinetics.vamp2(z, 4, segments) > 1.05 * kinetics.vamp2(z, 4)
    rho = kinetics.autocorrelation(z, segments)
    assert rho.shape == (20, 1)
    apart = pieces - z.mean()
    expected = [(apart[:, : 20 - t] * apart[:, t:]).mean() / apart.var() for t in range(20)]
    np.testing.assert_allclose(rho[:, 0], expected, atol=1e-10)


def test_segments_of_unequal_lengths():
    z, segments = processes(0.8, 0.4, n=60), (1, 30, 7, 1, 14, 7)
    assert kinetics.lagged((3, 1, 4), 2).tolist() == [0, 4, 5]
    apart = z - z.mean(0)
    for t, found in enumerate(kinetics.autocorrelation(z, segments)):
        starts = kinetics.lagged(segments, t)
        np.testing.assert_allclose(found, (apart[starts] * apart[starts + t]).mean(0) / z.var(0), atol=1e-12)


@pytest.mark.parametrize("segments", [None, (1000,) * (N // 1000)])
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_autocorrelation_time_of_ar1(rho, segments):
    expected = (1 + rho) / (1 - rho)
    # Error of a windowed sum (Madras & Sokal 1988, doi:10.1007/BF01022990), and the tail beyond the window.
    error = 5 * expected * np.sqrt(2 * (2 * kinetics.WINDOW * expected + 1) / N) + 1e-3 * expected
    [found] = kinetics.autocorrelation_time(processes(rho), segments)
    assert found == pytest.approx(expected, abs=error)


def test_what_cannot_be_told_is_nan():
    slow = np.linspace(0, 1, 50)[:, None]
    constant = np.full((50, 1), 0.3)
    fast = np.random.default_rng(0).normal(size=(50, 1))
    times = kinetics.autocorrelation_time(np.hstack([slow, constant, fast]), (25, 25))
    assert np.isnan(times).tolist() == [True, True, False]
    assert np.isnan(kinetics.autocorrelation_time(fast, (1,) * 50)).all()
    assert np.isnan(kinetics.autocorrelation_time(fast[:2])).all()  # one step: rho = -1, and a sum below 0


def test_latents_that_do_not_vary_or_repeat_count_nothing():
    z = processes(0.9, n=500)
    constant = np.full((500, 1), 0.3, np.float32)
    for more in (constant, z.astype(np.float32) * 3):
        assert kinetics.vamp2(np.hstack([z, more]), 1) == pytest.approx(kinetics.vamp2(z, 1), abs=1e-6)
    assert kinetics.vamp2(constant, 1) == 1
    assert kinetics.timescales(constant, 1).tolist() == [0]


def test_segments_within_a_mask():
    mask = np.array([1, 1, 0, 1, 1, 1, 1, 0, 0, 1], bool)
    assert kinetics.segments_within(mask, (5, 5)) == (2, 2, 2, 1)
    assert kinetics.segments_within(np.ones(10, bool), (5, 5)) == (5, 5)
    assert kinetics.segments_within(np.zeros(10, bool), (5, 5)) == ()


def test_time_step():
    assert kinetics.time_step(np.array([0, 2, 4, 0, 2.0]), (3, 2)) == 2
    assert kinetics.time_step(np.array([0, 2, 4, 0, 2.0]), (5,)) is None
    assert kinetics.time_step(np.array([0, 2, 5.0]), (3,)) is None
    assert kinetics.time_step(np.arange(3.0), (1, 1, 1)) is None
    assert kinetics.time_step(None, (3,)) is None
    single = (1e6 + 0.2 * np.arange(1000)).astype(np.float32)
    assert kinetics.time_step(single.astype(float), (1000,)) == pytest.approx(0.2, rel=1e-3)


def test_bad_input():
    z = np.zeros((10, 2))
    for arguments, text in (
        ((z, 0), "lag .*at least 1"),
        ((z, 7), "more than 3 pairs"),
        ((z, 5, (5, 5)), "segment .*5 frames"),
        ((z, 1, (5, 4)), "add up to 10 frames"),
    ):
        with pytest.raises(InputError, match=text):
            kinetics.vamp2(*arguments)
    with pytest.raises((InputError, jaxtyping.TypeCheckError), match="shape|vamp2"):
        kinetics.vamp2(z[:, 0], 1)


def test_against_deeptime():
    deeptime = pytest.importorskip("deeptime")
    vamp = deeptime.decomposition.VAMP
    mix = np.array([[1, 0.5, 0], [0.3, 2, 0], [0, 0.1, 1]])
    train, test = (processes(0.95, 0.8, 0.3, n=3000, seed=seed) @ mix for seed in (1, 2))
    segments = (1000, 500, 1500)
    pieces = np.split(train, np.cumsum(segments)[:-1])
    for lag in (1, 10):
        model = vamp(lagtime=lag).fit_fetch(pieces)
        assert kinetics.vamp2(train, lag, segments) == pytest.approx(model.score(2), rel=1e-6)
        np.testing.assert_allclose(
            kinetics.timescales(train, lag, segments), model.timescales(lagtime=lag), rtol=1e-5
        )
        # The cross-validated score of all singular functions is the plain score of the test data.
        held_out = vamp(lagtime=lag).fit_fetch(test)
        cross = model.score(2, test_model=held_out)
        assert kinetics.vamp2(test, lag) == pytest.approx(cross, rel=1e-6)


def test_what_never_changes_lasts_for_ever():
    """Two pieces in a state of its own each: the timescale is infinite, not minus that."""
    z = np.repeat([[1.0], [-1.0]], 50, axis=0)
    assert kinetics.timescales(z, 1, (50, 50))[0] > 1e6

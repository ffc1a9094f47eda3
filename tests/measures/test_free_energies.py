"""Free energies: closed forms, reweighting by hand, error bars that hold, basins, transients."""

import numpy as np
import pytest

import polyvae as pv
from polyvae.measures.basins import watershed
from polyvae.measures.blocks import (
    BlockSums,
    Deviations,
    block_size,
    deviations_of,
    error_of_ratio,
    finest_blocks,
    thirds_of,
    together,
)
from polyvae.measures.hills import Hills


def two_states(n_runs, n_frames, *, barrier=3.0, tilt=0.5, bias=None, seed=0, every=20, dt=2e-3):
    """Runs (n_frames, n_runs), overdamped, in barrier (x^2 - 1)^2 + tilt x, kT = 1; `bias` takes a share off."""
    rng = np.random.default_rng(seed)
    scale = 1.0 if bias is None else 1 - bias
    x, found = rng.choice([-1.0, 1.0], n_runs, p=[0.73, 0.27]), np.empty((n_frames, n_runs))
    for step in range(n_frames * every):
        force = -scale * (4 * barrier * x * (x * x - 1) + tilt)
        x = x + force * dt + np.sqrt(2 * dt) * rng.normal(size=n_runs)
        found[step // every] = x
    return found


def potential(x, barrier=3.0, tilt=0.5):
    return barrier * (x * x - 1) ** 2 + tilt * x


def truth(barrier=3.0, tilt=0.5):
    """A fine grid, its -log p, and the free energy of x > 0 above that of x < 0."""
    x = np.linspace(-3, 3, 20_001)
    p = np.exp(-potential(x, barrier, tilt))
    p /= np.trapezoid(p, x)
    return x, -np.log(p), float(-np.log(p[x > 0].sum() / p[x < 0].sum()))


def test_gaussian_in_closed_form():
    s = np.random.default_rng(0).normal(2.0, 0.5, 200_000)
    found = pv.free_energy(s, kT=2.5)
    near = np.abs(found.grid[0] - 2) < 1
    expected = 2.5 * 0.5 * ((found.grid[0] - 2) / 0.5) ** 2
    off = (found.energy - expected)[near]
    assert np.abs(off - off.mean()).max() < 0.1
    assert len(found.states) == 1
    assert found.states[0].weight == 1
    assert found.kish == len(s)
    assert 0 < found.halves < 0.1 * 2.5
    few = pv.free_energy(s[:3000])
    assert few.halves < 1.0  # for all that hardly a frame lies at the ends


@pytest.mark.parametrize("dims", [1, 2])
def test_histogram_is_numpys(dims):
    rng = np.random.default_rng(1)
    s, bias = rng.normal(size=(3000, dims)), rng.normal(size=3000)
    bins, ranges = (17, 11)[:dims], [(-1.5, 1.2), (-1.0, 2.0)][:dims]
    found = pv.free_energy(s, bias=bias, kT=2.0, method="histogram", bins=bins, range=ranges, transient=0.0)
    counts = np.histogramdd(s, bins, ranges, weights=np.exp(bias / 2.0))[0]
    with np.errstate(divide="ignore"):
        by_hand = -2.0 * np.log(counts)
    np.testing.assert_allclose(found.energy, by_hand - by_hand.min(), rtol=1e-9)


@pytest.mark.parametrize("dims", [1, 2])
def test_kernels_are_a_plain_sum(dims):
    rng = np.random.default_rng(2)
    s, weights = rng.normal(size=(500, dims)), rng.uniform(size=500)
    found = pv.free_energy(s, weights=weights, bandwidth=0.2, bins=15, transient=0.0)
    points = np.stack(np.meshgrid(*found.grid, indexing="ij"), -1).reshape(-1, dims)
    away = ((points[:, None] - s) ** 2).sum(-1)
    by_hand = -np.log((weights * np.exp(-away / (2 * 0.2**2))).sum(1)).reshape(found.energy.shape)
    np.testing.assert_allclose(found.energy, by_hand - by_hand.min(), rtol=1e-9, atol=1e-12)


def test_a_period_has_no_ends():
    angle = np.random.default_rng(3).vonmises(np.pi, 2.0, 20_000)
    ends = (-np.pi, np.pi)
    found = pv.free_energy(angle, periods=ends)
    turned = pv.free_energy((angle + 2.0 + np.pi) % (2 * np.pi) - np.pi, periods=ends, bandwidth=found.bandwidth)
    n = len(found.grid[0])
    assert np.diff(found.grid[0])[0] * n == pytest.approx(2 * np.pi)  # no point twice
    assert len(found.states) == 1
    assert np.ptp(found.energy) == pytest.approx(4, abs=0.3)
    shift = np.interp(found.grid[0] + 2.0, turned.grid[0], turned.energy, period=2 * np.pi)
    near = found.energy < 3
    assert np.abs(shift - found.energy)[near].max() < 0.1


def test_reweighting_takes_the_bias_off():
    x = two_states(1, 60_000, barrier=6.0, bias=0.7)[:, 0]
    found = pv.free_energy(x, bias=-0.7 * potential(x, 6.0), kT=1.0)
    grid, exact, difference = truth(6.0)
    near = found.energy < 6
    off = found.energy - np.interp(found.grid[0], grid, exact)
    assert np.std(off[near]) < 0.2
    value, error = found.difference(0, 1)
    assert value == pytest.approx(difference, abs=3 * error)
    assert 0.02 < error < 0.5
    plain = pv.free_energy(x)
    assert np.std((plain.energy - np.interp(plain.grid[0], grid, exact))[plain.energy < 6]) > 1


def test_error_bars_hold():
    """60 to 76 % of the 68 % intervals of 40 short runs hold the truth: of the basins, and over the profile."""
    runs, grid_truth = two_states(40, 8000, seed=5), truth()
    at = np.array([-1.3, -1.0, -0.6, 0.0, 0.6, 1.0, 1.3])
    held, of_profile = [], []
    for x in runs.T:
        found = pv.free_energy(x, transient=0.0, states=[(-9, 0), (0, 9)], range=(-2, 2), bins=100)
        value, error = found.difference(*np.argsort([state.centre[0] for state in found.states]))
        held.append(abs(value - grid_truth[2]) < error)
        log_p = found.energy + np.log(np.trapezoid(np.exp(-found.energy), found.grid[0]))
        exact = np.interp(at, *grid_truth[:2])
        of_profile.append(
            np.abs(np.interp(at, found.grid[0], log_p) - exact) < np.interp(at, found.grid[0], found.error)
        )
    assert 0.60 <= np.mean(held) <= 0.76
    assert 0.60 <= np.mean(of_profile) <= 0.76


def test_the_error_is_that_of_many_runs():
    runs = two_states(60, 4000, barrier=2.0, seed=7)
    found = [pv.free_energy(x, transient=0.0, states=[(-9, 0), (0, 9)]) for x in runs.T]
    order = [np.argsort([state.centre[0] for state in f.states]) for f in found]
    values, errors = np.transpose([f.difference(*o) for f, o in zip(found, order, strict=True)])
    assert np.median(errors) == pytest.approx(values.std(), rel=0.3)
    alone = np.sqrt(2 / 4000) / np.sqrt(0.73 * 0.27)  # as if frames were independent
    assert np.median(errors) > 3 * alone


def test_deviations_of_kinds_are_those_of_frames():
    rng = np.random.default_rng(3)
    n, n_blocks = 5000, 7
    labels, block = rng.integers(-1, 3, n), np.sort(rng.integers(0, n_blocks, n))
    columns, weights = rng.normal(size=(2, n)), rng.random(n)
    found = deviations_of(labels, thirds_of(columns, weights), 2, weights, block, n_blocks)
    values = [labels == k for k in range(3)]
    for column in columns:
        order = np.argsort(column)
        below = np.cumsum(weights[order]) - weights[order]  # weight of the frames that are lower
        for q in (1 / 3, 2 / 3):
            above = np.zeros(n, bool)
            above[order] = below > q * weights.sum()
            values.append(above)
    off = weights * (np.array(values) - np.average(values, axis=1, weights=weights)[:, None])
    sums = [np.bincount(block, row, n_blocks) for row in off]
    got = sorted(map(tuple, np.column_stack([found.sums.T, found.alone]).round(9)))
    assert got == sorted(map(tuple, np.column_stack([sums, np.sqrt((off**2).sum(axis=1))]).round(9)))
    np.testing.assert_allclose(found.weights, np.bincount(block, weights))


def test_blocks_of_a_known_correlation():
    """An autoregressive series of coefficient a is worth n (1 - a) / (1 + a) independent values."""
    from scipy.signal import lfilter

    a, n = 0.98, 200_000
    s = lfilter([1], [1, -a], np.random.default_rng(0).normal(size=n))
    block, segment = finest_blocks((n,))
    off = s - s.mean()
    sums = np.add.reduceat(off, np.flatnonzero(np.diff(block, prepend=-1)))[:, None]
    found = block_size(Deviations(sums, np.array([np.sqrt(off @ off)]), np.bincount(block) * 1.0, n), segment)
    assert found.enough
    inefficiency = (1 + a) / (1 - a)
    assert found.size > 2 * inefficiency
    sums = together(np.bincount(block, s), segment, found.merged)
    counts = together(np.bincount(block).astype(float), segment, found.merged)
    exact = np.std(s) * np.sqrt(inefficiency / n)
    assert error_of_ratio(sums, counts) == pytest.approx(exact, rel=0.25)


def test_a_run_too_short_says_so():
    once = np.repeat([-1.0, 1.0], 1000) + np.random.default_rng(0).normal(0, 0.1, 2000)
    assert not pv.free_energy(once, transient=0.0).blocks.enough
    assert pv.free_energy(np.random.default_rng(0).normal(size=2000), transient=0.0).blocks.enough


def test_a_transient_is_cut_off():
    rng = np.random.default_rng(0)
    s = np.r_[rng.normal(8, 0.1, 900), rng.normal(0, 1, 5000)]
    found = pv.free_energy(s)
    assert found.dropped == pytest.approx(0.2)
    assert len(found.states) == 1
    assert pv.free_energy(rng.normal(size=5000)).dropped == 0
    biased = pv.free_energy(rng.normal(size=5000), bias=np.zeros(5000), kT=1.0)
    assert biased.dropped == pytest.approx(0.1)  # a bias grows from nothing
    assert pv.free_energy(s, transient=0.5).dropped == 0.5


def test_runs_count_by_their_frames_and_walkers_by_their_weights():
    """The constant of a bias is each run's own; of walkers it is one."""
    rng = np.random.default_rng(0)
    s, offset = rng.normal(size=8000), np.repeat([0.0, 3000.0], 4000)
    one = pv.free_energy(s, bias=np.zeros(8000), kT=1.0, transient=0.0, bandwidth=0.2, bins=50)
    options = {"kT": 1.0, "transient": 0.0, "segments": (4000, 4000), "bandwidth": 0.2, "bins": 50}
    runs = pv.free_energy(s, bias=offset, **options)
    np.testing.assert_allclose(runs.energy, one.energy, atol=1e-9)
    walkers = pv.free_energy(s, bias=offset, walkers=True, **options)
    assert walkers.kish == pytest.approx(4000)


def test_basins_on_a_grid():
    x = np.linspace(-2, 2, 60)
    energy = 5 * (x**2 - 1) ** 2 + 0.5 * x
    flat = np.ones(60)
    labels = watershed(energy, 1.0, flat)
    assert set(labels) == {0, 1}
    np.testing.assert_array_equal((labels == 0)[np.abs(x) > 0.1], (x < 0)[np.abs(x) > 0.1])
    assert set(watershed(energy, 6.0, flat)) == {0}
    assert set(watershed(energy, 1.0, flat, noise=np.full(60, 4.0))) == {0}
    few = np.where(x > 0, 1e-4, 1.0)
    assert set(watershed(energy, 1.0, few)) == {0}  # too few frames to be a basin
    two = energy[:, None] + 5 * (x**2 - 1) ** 2
    assert len(set(watershed(two, 1.0, np.ones((60, 60))).ravel())) == 4
    ring = np.cos(np.linspace(0, 2 * np.pi, 60, endpoint=False))
    assert set(watershed(-3 * ring, 1.0, flat)) == {0, 1}  # the end of the grid cuts a basin
    assert set(watershed(-3 * ring, 1.0, flat, periodic=[True])) == {0}
    hole = np.where(np.abs(x) < 0.1, np.inf, 0 * x)
    assert set(watershed(hole, 1.0, flat)) == {-1, 0, 1}


def test_states_may_be_named():
    x = two_states(1, 20_000, barrier=2.0)[:, 0]
    found = pv.free_energy(x, states=[(-5, 0), (0, 5)], transient=0.0)
    assert found.states[1].energy == pytest.approx(-np.log((x > 0).sum() / (x < 0).sum()))
    assert sum(state.weight for state in found.states) == pytest.approx(1)
    with pytest.raises(pv.InputError, match="no frame lies in the state 7 to 8"):
        pv.free_energy(x, states=[(-5, 0), (7, 8)])


def test_the_course_ends_at_the_end():
    x = two_states(1, 20_000, barrier=2.0)[:, 0]
    found = pv.free_energy(x)
    assert found.apart[-1] == pytest.approx(0, abs=1e-9)
    assert found.apart[2] > found.apart[-5]
    assert found.course[-1, 1] == pytest.approx(found.states[1].energy)


def test_hills_by_hand():
    hills = Hills([[0.0], [1.0]], [[0.5], [0.25]], [2.0, 1.0], bias_factor=5.0)
    s = np.array([[0.3], [0.9]])
    by_hand = 2 * np.exp(-0.5 * (s[:, 0] / 0.5) ** 2) + np.exp(-0.5 * ((s[:, 0] - 1) / 0.25) ** 2)
    np.testing.assert_allclose(hills.total(s), by_hand)
    np.testing.assert_allclose(hills.bias(s), 0.8 * by_hand)
    around = Hills([[3.1]], [[0.5]], [2.0], periods=(-np.pi, np.pi))
    assert around.total(np.array([[-3.1]])) == pytest.approx(2 * np.exp(-0.5 * ((2 * np.pi - 6.2) / 0.5) ** 2))
    energy = around.free_energy(1.0, range=(-np.pi, np.pi), bins=64)
    assert energy.energy.min() == 0
    assert np.cos(energy.grid[0][np.argmin(energy.energy)] - 3.1) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bias": np.zeros(12)}, "kT, which a bias needs"),
        ({"bias": np.zeros(12), "weights": np.ones(12), "kT": 1.0}, "got both"),
        ({"bias": np.zeros(3), "kT": 1.0}, "bias must be one number a frame"),
        ({"weights": np.zeros(12)}, "weights must not all be 0"),
        ({"weights": -np.ones(12)}, "that of frame 0 is -1"),
        ({"range": (5, 4)}, "range must be"),
        ({"range": (50, 60)}, "no frame lies in the range 50 to 60"),
        ({"transient": 1.0}, "transient must be a share"),
        ({"segments": (4, 4)}, "segments"),
        ({"method": "spline"}, "method must be one of kde, histogram"),
    ],
)
def test_what_cannot_be_is_refused(options, said):
    with pytest.raises(pv.InputError, match=said):
        pv.free_energy(np.arange(12.0), **options)


def test_variables_that_cannot_be_are_refused():
    with pytest.raises(pv.InputError, match=r"one or two variables.*got shape \(5, 3\)"):
        pv.free_energy(np.zeros((5, 3)))
    with pytest.raises(pv.InputError, match="variable 0 is 1 in all frames"):
        pv.free_energy(np.ones(50))
    with pytest.raises(pv.InputError, match="finite"):
        pv.free_energy(np.r_[np.arange(15.0), np.nan])


def test_error_bars_hold_of_a_biased_run_with_all_defaults():
    """Of stationary series with a bias that makes some frames worth many others; nothing is told."""
    from scipy.signal import lfilter

    a, held, rng = 0.95, [], np.random.default_rng(2)
    for _ in range(60):
        x = lfilter([np.sqrt(1 - a * a)], [1, -a], rng.normal(size=5000))
        found = pv.free_energy(x, bias=x, kT=1.0, states=[(-9, 1), (1, 9)])
        value, error = found.difference(*np.argsort([state.centre[0] for state in found.states]))
        held.append(abs(value) < error)  # weighed by exp(x), a standard normal is one about 1
    assert 0.55 <= np.mean(held) <= 0.80


def test_the_heaviest_frame_is_no_transient():
    s, bias = np.random.default_rng(0).normal(size=5000), np.zeros(5000)
    bias[2000] = 6.0
    assert pv.free_energy(s, bias=bias, kT=1.0).dropped == pytest.approx(0.1)


def test_kernels_reach_over_the_ends_of_a_range():
    s = np.random.default_rng(0).normal(size=100_000)
    whole, part = pv.free_energy(s, bandwidth=0.2), pv.free_energy(s, bandwidth=0.2, range=(-1, 1))
    there = np.interp(part.grid[0], whole.grid[0], whole.energy)
    np.testing.assert_allclose(part.energy - part.energy.min(), there - there.min(), atol=0.01)


def test_one_frame_that_has_all_the_weight_has_no_error():
    s, bias = np.random.default_rng(0).normal(size=2000), np.zeros(2000)
    bias[700] = 60.0
    found = pv.free_energy(s, bias=bias, kT=1.0)
    assert not found.blocks.enough
    assert np.isinf(found.error).all()


def test_states_go_around_the_end_of_a_period():
    angle = np.random.default_rng(3).vonmises(np.pi, 4.0, 20_000)
    found = pv.free_energy(angle, periods=(-np.pi, np.pi), states=[(2.0, 4.28), (-1.0, 1.0)])
    assert found.states[0].weight == pytest.approx(np.mean(np.cos(angle - 3.14) > np.cos(1.14)), abs=1e-3)
    turned = pv.free_energy(angle % (2 * np.pi), periods=(0, 2 * np.pi))
    cut = pv.free_energy(angle, periods=(-np.pi, np.pi))
    assert turned.bandwidth == pytest.approx(cut.bandwidth)
    assert turned.blocks.size == cut.blocks.size
    assert turned.n_effective == pytest.approx(cut.n_effective)
    with pytest.raises(pv.InputError, match="range of variable 0 must be no longer than its period"):
        pv.free_energy(angle, periods=(-np.pi, np.pi), range=(-4, 4))


def test_islands_of_few_frames_are_no_basins():
    s = np.r_[np.random.default_rng(0).normal(size=(500, 2)), [[30.0, 30.0]]]
    assert len(pv.free_energy(s, method="histogram", bins=60).states) == 1


def test_few_frames_are_refused_or_counted():
    with pytest.raises(pv.InputError, match="needs 10 frames at the very least; got 3"):
        pv.free_energy(np.array([1.0, 2.0, 3.0]))
    rng = np.random.default_rng(0)
    assert pv.free_energy(rng.normal(size=40), segments=[1] * 40, transient=0.5).n_frames == 40


@pytest.mark.parametrize("name", ["s", "bias", "weights"])
def test_masked_entries_are_no_numbers(name):
    values = {"s": np.arange(40.0), name: np.ma.array(np.arange(40.0), mask=np.arange(40) == 7)}
    with pytest.raises(pv.InputError, match="masked"):
        pv.free_energy(**values, kT=1.0)


@pytest.mark.parametrize("bins", [10**9, (100_000, 100_000), (1000, 1000)])
def test_grids_that_memory_would_not_hold(bins):
    dims = np.size(bins)
    with pytest.raises(pv.InputError, match="a grid must have at most"):
        pv.free_energy(np.random.default_rng(0).normal(size=(50, dims)), bins=bins)
    with pytest.raises(pv.InputError, match="a grid must have at most"):
        Hills(np.zeros((2, dims)), np.ones((2, dims)), [1.0, 1.0]).free_energy(1.0, bins=bins)


@pytest.mark.parametrize("runs", [(40,), (7, 12, 30), (1,) * 20])
def test_errors_of_sums_that_are_not_kept(runs):
    """The same as from all blocks, for each length, by numpy."""
    rng, segment = np.random.default_rng(0), np.repeat(np.arange(len(runs)), runs)
    sums, weights = rng.gamma(2.0, size=(len(segment), 3, 4)), rng.gamma(2.0, size=len(segment))
    weights[0], sums[0] = 0, 0
    found = BlockSums(weights, segment, (3, 4))
    for values in sums:
        found.add(values)
    np.testing.assert_allclose(found.total, sums.sum(axis=0), rtol=1e-13)
    for m in (1, 2, 3) if len(runs) < 20 else (1, 2):
        merged, whole = together(sums, segment, m), together(weights, segment, m)
        np.testing.assert_allclose(found.error(m), error_of_ratio(merged, whole), rtol=1e-10)


def test_blocks_join_their_neighbours_by_hand():
    segment = np.repeat([0, 1, 2], [5, 1, 4])
    sums = 2.0 ** np.arange(10)
    by_hand = [3, 4 + 8 + 16, 32, 64 + 128, 256 + 512]
    np.testing.assert_array_equal(together(sums, segment, 2), by_hand)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_thirds_of_the_weight_by_sorting(scale):
    rng = np.random.default_rng(3)
    values, weights = (
        scale * np.concatenate([rng.normal(size=5000), rng.normal(size=50) ** 9]),
        rng.gamma(0.3, size=5050),
    )
    order = np.argsort(values)
    below = np.cumsum(weights[order]) / weights.sum()
    ends = values[order][[np.flatnonzero(below >= share)[0] for share in (1 / 3, 2 / 3)]]
    expected = (values > ends[0]).astype(int) + (values > ends[1])
    np.testing.assert_array_equal(thirds_of([values], weights), expected)


def test_memory_of_a_free_energy_is_small_beside_the_table():
    import tracemalloc

    rng = np.random.default_rng(0)
    s, bias = rng.normal(size=(200_000, 2)), rng.normal(size=200_000)
    pv.free_energy(s[:1000], bias=bias[:1000], kT=1.0)
    tracemalloc.start()
    pv.free_energy(s, bias=bias, kT=1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * bias.nbytes + 25e6  # parts of the frames, whose number does not grow

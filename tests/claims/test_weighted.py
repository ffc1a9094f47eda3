"""Claim: a weighted run gives the limits, scores and pictures of the run that its weights stand for.

Ideal chains of 6 beads in 2-D, 60,000 of them, weighted by exp(-1.2 Rg^2), beside those that are accepted with
that probability from another 60,000: one distribution, drawn in two ways. Numbers agree within five standard
errors; without the weights they are farther apart than twice that.
"""

import dataclasses

import numpy as np
import pytest
from conftest import ideal_chains
from models import untrained

import polyvae as pv
from polyvae.measures.density import log_density
from polyvae.measures.ensembles import ensemble_distances
from polyvae.measures.limits import limits_of
from polyvae.measures.pairs import frame_measures
from polyvae.measures.weights import effective_size
from polyvae.plot.curves import smooth_density
from polyvae.plot.latent import density_levels
from polyvae.trajectory.record import bonds_of

N = 60_000


def radius2(x: np.ndarray) -> np.ndarray:
    return ((x - x.mean(axis=1, keepdims=True)) ** 2).sum(axis=2).mean(axis=1)


@pytest.fixture(scope="module")
def drawn() -> pv.Trajectory:
    x = ideal_chains(N, 6, 2, seed=1)
    return pv.Trajectory(x[np.random.default_rng(2).random(N) < np.exp(-1.2 * radius2(x))])


@pytest.fixture(scope="module")
def weighted() -> pv.Trajectory:
    x = ideal_chains(N, 6, 2, seed=3)
    return pv.Trajectory(x, weights=7.0 * np.exp(-1.2 * radius2(x)))


@pytest.fixture(scope="module")
def cv(drawn) -> pv.LatentCV:
    return untrained(drawn)


def bare(traj: pv.Trajectory) -> pv.Trajectory:
    return dataclasses.replace(traj, weights=None)


def mean_and_error(values: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    shares = np.full(len(values), 1 / len(values)) if weights is None else weights / weights.sum()
    mean = shares @ values
    return mean, float(np.sqrt((shares**2) @ (values - mean) ** 2))


def agree(name: str, one: float, two: float, unweighted: float, error: float) -> None:
    off, without = (two - one) / error, (unweighted - one) / error
    print(f"{name}: {off:+.1f} standard errors, without the weights {without:+.1f}")
    assert abs(off) < 5, name
    assert abs(without) > 10, name


def test_limits_are_those_of_the_weighted_distribution(drawn, weighted):
    """How much of the drawn run lies beyond a limit of the weighted one: a thousandth, as the ranks tell."""
    worth = effective_size(weighted.positions, weighted.weights)
    error = np.sqrt(0.001 * 0.999 * (1 / len(drawn) + 1 / worth))
    found, plain = (limits_of(t, of_frames=True) for t in (weighted, bare(weighted)))
    of_drawn = frame_measures(drawn.positions, bonds_of(drawn))
    bonds = of_drawn.bonds
    inward = {
        "longest_bond": -bonds.max(axis=1),
        "longest_mean_bond": -bonds.mean(axis=1),
        "shortest_mean_bond": bonds.mean(axis=1),
        "closest_contacts": of_drawn.contacts,
    }
    beyond, without = {}, {}
    for name, values in inward.items():
        sign = -1 if name.startswith("longest") else 1
        beyond[name], without[name] = ((values < sign * getattr(f, name)).mean() for f in (found, plain))
        assert abs(beyond[name] - 0.001) < 5 * error, name
    print(f"beyond the limits {beyond}, without the weights {without}, standard error {error:.1e}")
    assert without["shortest_mean_bond"] - 0.001 > 10 * error
    assert found.longest_mean_bond < 0.9 * plain.longest_mean_bond
    pooled, of_all = limits_of(weighted), limits_of(bare(weighted))
    assert pooled.longest_bond == pytest.approx(limits_of(drawn).longest_bond, rel=0.03)
    assert of_all.longest_bond > 1.1 * pooled.longest_bond


def test_the_shape_is_that_of_the_weighted_distribution(drawn, weighted):
    one, two, three = (limits_of(t).shape for t in (drawn, weighted, bare(weighted)))
    rg = [np.sqrt(radius2(t.positions)) for t in (drawn, weighted)]
    error = np.hypot(mean_and_error(rg[0])[1], mean_and_error(rg[1], weighted.weights)[1])
    agree("mean Rg", *(shape["rg"]["mean"] for shape in (one, two, three)), error)


def test_scores_are_those_of_the_weighted_distribution(cv, drawn, weighted):
    scores = [pv.score(cv, t, k=1, alternatives=False).frames.all for t in (drawn, weighted, bare(weighted))]
    (mean, std), (other, spread) = (cv.transform_posterior(t) for t in (drawn, weighted))
    kl = [(0.5 * (m**2 + s**2 - 1) - np.log(s)).sum(axis=1) for m, s in ((mean, std), (other, spread))]
    error = np.hypot(mean_and_error(kl[0])[1], mean_and_error(kl[1], weighted.weights)[1])
    agree("KL", *(s.kl for s in scores), error)
    error = np.hypot(mean_and_error(mean[:, 1])[1], mean_and_error(other[:, 1], weighted.weights)[1])
    agree("z1", *(s.latent_mean[1] for s in scores), error)


def test_pictures_are_those_of_the_weighted_distribution(cv, drawn, weighted):
    ends = [np.linalg.norm(t.positions[:, 5] - t.positions[:, 0], axis=1) for t in (drawn, weighted)]
    worth = effective_size(weighted.positions, weighted.weights)
    curves = [
        smooth_density(ends[0]),
        smooth_density(ends[1], weighted.weights, worth),
        smooth_density(ends[1]),
    ]
    at = np.linspace(0, 5, 60)
    below = [np.interp(at, x, np.cumsum(y) * (x[-1] - x[-2])) for x, y in curves]
    error = 0.5 * np.sqrt(1 / len(drawn) + 1 / worth)
    agree("distance", 0.0, *(np.abs(b - below[0]).max() for b in below[1:]), error)

    z, other = cv.transform(drawn), cv.transform(weighted)
    grids = [density_levels(z), density_levels(other, weighted.weights), density_levels(other)]
    means = [float(y @ d.sum(axis=0) / d.sum()) for _, y, d, _ in grids]
    agree(
        "latent plane",
        *means,
        np.hypot(mean_and_error(z[:, 1])[1], mean_and_error(other[:, 1], weighted.weights)[1]),
    )


def test_the_latent_density_is_that_of_the_weighted_distribution(cv, drawn, weighted):
    """The drawn frames are more probable by the density of the weighted ones than by that without weights."""
    import jax

    z, other = cv.transform(drawn)[:2000], cv.transform(weighted)
    of_drawn, of_weighted, plain = (
        np.asarray(jax.lax.map(log_density(points, np.random.default_rng(0), w)[0], z), np.float64)
        for points, w in ((cv.transform(drawn)[2000:], None), (other, weighted.weights), (other, None))
    )
    gain, error = mean_and_error(of_weighted - plain)
    left = (of_drawn - of_weighted).mean()
    print(f"more probable by {gain:.3f} nats, standard error {error:.3f}; {left:.3f} to go")
    assert gain > 10 * error
    assert abs(left) < 0.25 * gain


def test_the_noise_floor_is_that_of_the_weighted_frames(drawn, weighted):
    """Halves that take their weights along are as far apart as samples of the size that the frames are worth."""
    rng = np.random.default_rng(0)
    worth = effective_size(weighted.positions, weighted.weights)

    def floor(traj: pv.Trajectory) -> float:
        halves = np.array_split(rng.permutation(len(traj)), 2)
        return ensemble_distances(*(traj[np.sort(half)] for half in halves))["pairs"]

    few = weighted[:3000]
    n = int(worth / N * 3000)
    floors = [np.mean([floor(t) for _ in range(6)]) for t in (few, drawn[:n])]
    print(f"floors {floors[0]:.4f} of {len(few)} weighted frames, {floors[1]:.4f} of {n} drawn")
    assert floors[0] == pytest.approx(floors[1], rel=0.3)
    apart = ensemble_distances(drawn, weighted)["pairs"]
    assert apart < 0.1 * ensemble_distances(drawn, bare(weighted))["pairs"]

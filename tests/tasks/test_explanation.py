"""Plain variables that explain a latent: the one that it was made of is named first."""

import dataclasses

import numpy as np
import pytest
from conftest import ideal_chains
from models import untrained

import polyvae as pv
from polyvae.errors import InputError
from polyvae.tasks.explanation import find_variables


def made_of(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Chains, values with 5 % of noise, and what these were made of."""
    rng = np.random.default_rng(seed)
    x = ideal_chains(800, 9, 3, seed=seed).astype(np.float64)
    if kind == "size":
        values, name = x.var(axis=1).sum(axis=1) ** 0.5, "radius of gyration"
    elif kind == "distance":
        one, other = sorted(rng.choice(9, 2, replace=False).tolist())
        values, name = np.linalg.norm(x[:, one] - x[:, other], axis=1), f"distance {one}-{other}"
    else:
        k = int(rng.integers(6))
        bonds = np.diff(x[:, k : k + 4], axis=1)
        left, right = np.cross(bonds[:, 0], bonds[:, 1]), np.cross(bonds[:, 1], bonds[:, 2])
        cosine = (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
        values, name = cosine, f"torsion {k}-{k + 1}-{k + 2}-{k + 3}"
    return x, values + 0.05 * values.std() * rng.normal(size=len(values)), name


@pytest.mark.parametrize("kind", ["distance", "torsion", "size"])
def test_what_the_values_were_made_of_is_named_first(kind):
    for seed in range(10):
        x, values, name = made_of(kind, seed)
        first, *_ = find_variables(x, values)
        assert (first.name, first.r2) == (name, pytest.approx(1 / (1 + 0.05**2), abs=3e-3)), seed


def test_two_variables_one_after_the_other():
    """With a share of the variance each, and R² as least squares has it."""
    x, rg, _ = made_of("size", 0)
    bonds = np.diff(x[:, 2:6], axis=1)
    left, right = np.cross(bonds[:, 0], bonds[:, 1]), np.cross(bonds[:, 1], bonds[:, 2])
    cosine = (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
    values = 2 * rg / rg.std() + cosine / cosine.std()
    weights = np.random.default_rng(1).uniform(0.5, 2, len(values))
    found = find_variables(x, values, weights=weights, most=2)
    assert [one.name for one in found] == ["radius of gyration", "torsion 2-3-4-5"]
    exact = x.var(axis=1).sum(axis=1) ** 0.5
    root = np.sqrt(weights)[:, None]
    columns = root * np.stack([np.ones_like(exact), exact, exact**2], axis=1)
    left_over = root[:, 0] * values - columns @ np.linalg.lstsq(columns, root[:, 0] * values)[0]
    spread = weights @ (values - np.average(values, weights=weights)) ** 2
    assert found[0].r2 == pytest.approx(1 - left_over @ left_over / spread, abs=1e-6)
    assert found[0].r2 < found[1].r2 <= 1
    assert found[0].alone == found[0].r2


def test_a_model_and_its_beads():
    traj = pv.Trajectory(ideal_chains(300, 6, 3), length_unit="nm")
    cv = untrained(traj, featurizer=pv.Reference())  # without jumps, so that differences have a limit
    found = pv.explain(cv, traj, latent=1)
    expected = find_variables(traj.positions, cv.transform(traj)[:, 1].astype(np.float64))
    assert [one.to_dict() for one in found.variables] == [pytest.approx(one.to_dict()) for one in expected]
    assert sum(found.beads) == pytest.approx(1)
    # The third bead's share by finite differences along each axis.
    step, spread = 1e-2, cv.align(traj).var(axis=0).sum(axis=1) ** 0.5
    norms = np.zeros(6)
    for bead in range(6):
        slopes = []
        for axis in range(3):
            moved = np.repeat(traj.positions[None].astype(np.float64), 2, axis=0)
            moved[0, :, bead, axis] -= step
            moved[1, :, bead, axis] += step
            low, high = (cv.transform(dataclasses.replace(traj, positions=x))[:, 1] for x in moved)
            slopes.append((high - low) / (2 * step))
        norms[bead] = np.linalg.norm(slopes, axis=0).mean()
    np.testing.assert_allclose(found.beads, norms * spread / (norms @ spread), rtol=0.05)
    assert str(found).startswith(f"z1 is explained by {found.variables[0].name} (R² ")
    assert list(found.to_frame().index) == [one.name for one in found.variables]


def test_what_cannot_be_explained():
    traj = pv.Trajectory(ideal_chains(300, 6, 3), length_unit="nm")
    with pytest.raises(InputError, match="latents 0 to 1; got latent 2"):
        pv.explain(untrained(traj), traj, latent=2)
    with pytest.raises(InputError, match="does not vary"):
        find_variables(traj.positions, np.ones(300))

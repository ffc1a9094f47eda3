"""Exports of steep CVs: the README has the distance that the atoms move; steep ones are reported or refused."""

import dataclasses
import logging
import re

import models
import numpy as np
import pytest

import polyvae as pv
from polyvae.export import write
from polyvae.export.grid_bias import bias_width, statistics
from polyvae.export.steepness import BONDS, TOO_STEEP, check_steepness, describe_steepness, mean_bond
from polyvae.vae.settings import Slopes

SCALE = 0.1


def two_basins(spread: float) -> pv.Trajectory:
    """Two beads, 0.7 or 1.3 nm apart, with this spread in each basin."""
    r = np.random.default_rng(0).normal(scale=spread, size=1000) + np.repeat([0.7, 1.3], 500)
    x = np.zeros((1000, 2, 3), np.float32)
    x[:, 1, 0] = r
    return pv.Trajectory(x, length_unit="nm")


def texts(caplog) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)


@pytest.mark.parametrize("to", ["plumed", "colvars", "lammps", "pysages", "openmm", "torchscript"])
@pytest.mark.parametrize(
    ("spread", "said"), [(0.03, ""), (0.01, "z0 is steep"), (0.002, "refused")], ids=["flat", "steep", "step"]
)
def test_every_export_that_sets_a_width_compares_it(to, spread, said, tmp_path, caplog):
    """z = (r - 1) / scale, so that the atoms move width * scale / sqrt(2); the bond is 1 nm."""
    if to == "openmm":
        pytest.importorskip("openmm")
    if to == "torchscript":
        pytest.importorskip("torch")
    cv, traj = models.of_distance(1.0), two_basins(spread)
    move = bias_width(statistics(cv, traj))[0] * SCALE / np.sqrt(2)
    assert {"": move > 1 / 90, "z0 is steep": 1 / 90 > move > 1 / 300, "refused": move < 1 / 300}[said]
    if said == "refused":
        with pytest.raises(pv.InputError, match=f"z0 is steep.*move {move:.2g} nm.*0.011 or more.*--smoothness 1"):
            write(cv, to, tmp_path / "out", data=traj, n_atoms=2)
        assert not (tmp_path / "out").exists()
        return
    write(cv, to, tmp_path / "out", data=traj, n_atoms=2)
    assert said in texts(caplog)
    assert ("is steep" in texts(caplog)) == bool(said)
    readme = " ".join((tmp_path / "out" / "README.md").read_text().split())
    width, way = re.search(r"by a width of (\S+) while the atoms move (\S+) nm", readme).groups()
    assert float(width) == pytest.approx(move * np.sqrt(2) / SCALE, rel=0.05)  # of grids, with two digits
    assert float(way) == pytest.approx(move, rel=0.05)


@pytest.mark.parametrize(("step", "said"), [(0.1, ""), (0.7, "z0 is steep"), (30.0, "refused")])
def test_a_width_that_is_given_is_compared_too(step, said, caplog):
    """tanh(step (r - 1) / scale) has its slope sqrt(2) step / scale in the gap."""
    engine = pytest.importorskip("polyvae.export.openmm")
    pytest.importorskip("openmm")
    cv, given = models.of_distance(1.0, step=step), {"minimum": -1.5, "maximum": 1.5, "width": 0.07}
    assert engine.bias_variables(cv, [0, 1], periodic=False, **given)  # an old model; nothing is known
    assert "is steep" not in texts(caplog)
    options = given | {"data": two_basins(0.03), "periodic": False}
    if said == "refused":
        with pytest.raises(pv.InputError, match="wrong by several kT"):
            engine.bias_variables(cv, [0, 1], **options)
        wide = np.sqrt(2) * step / SCALE / 90
        assert engine.bias_variables(cv, [0, 1], **options | {"width": wide * 1.05})
        return
    engine.bias_variables(cv, [0, 1], **options)
    assert said in texts(caplog)
    assert ("is steep" in texts(caplog)) == bool(said)


def test_bounds_are_shares_of_a_bond():
    """Bonds of 0.3 and 0.4 nm: the root mean square is sqrt(0.125)."""
    x = np.zeros((1, 3, 3), np.float32)
    x[0, 1:, 0] = 0.3, 0.7
    cv = models.untrained(pv.Trajectory(np.repeat(x, 20, axis=0), length_unit="nm"), latent_dim=1)
    bond = np.sqrt((0.3**2 + 0.4**2) / 2)
    assert mean_bond(cv) == pytest.approx(bond)
    slopes = Slopes([10.0], [20.0])
    check_steepness(cv, np.array([10 * bond / TOO_STEEP * 1.001]), slopes)
    steep = np.array([10 * bond / TOO_STEEP * 0.999])
    with pytest.raises(pv.InputError, match=f"{bond / BONDS:.2g} or more"):
        check_steepness(cv, steep, slopes)
    check_steepness(cv, steep, slopes, refuse=False)


def test_without_data_the_slopes_of_the_training_are_compared(tmp_path, caplog):
    """The script for LAMMPS then has a width of 0.2."""
    cv = models.of_distance(1.0)
    steep = dataclasses.replace(cv.record, slopes=Slopes([0.2 * 200], [0.2 * 200]))
    write(dataclasses.replace(cv, record=steep), "lammps", tmp_path / "steep", n_atoms=2)
    assert "the atoms move 0.005 nm" in texts(caplog)
    assert "not known" in describe_steepness(cv, None, None)
    write(cv, "plumed", tmp_path / "old", n_atoms=2)
    assert "How steep the latents are is not known" in " ".join(
        (tmp_path / "old" / "README.md").read_text().split()
    )

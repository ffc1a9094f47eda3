"""Shapes far from the origin: sharp where the data are in double precision, told where they are not."""

import logging

import numpy as np
import pytest
from conftest import ideal_chains
from mdtraj.formats import DCDTrajectoryFile

import polyvae as pv


def far(distance, n_beads=8):
    """Chains that drift away, float64; and their shapes."""
    x = ideal_chains(30, n_beads, 3).astype(np.float64)
    return x + distance * np.linspace(0.5, 1, 30)[:, None, None] * [1, -1, 0.5], x - x.mean(axis=1, keepdims=True)


def shape(x):
    return x - x.mean(axis=1, keepdims=True)


def test_double_precision_keeps_shapes(tmp_path, caplog):
    x, expected = far(1e6)
    np.savez(tmp_path / "a.npz", positions=x)
    for make in (
        pv.Trajectory,
        pv.as_trajectory,
        lambda _: pv.read(tmp_path / "a.npz"),
        lambda _: pv.as_trajectory(pv.stream(tmp_path / "a.npz", chunk_bytes=12 * 8 * 7)),
    ):
        np.testing.assert_allclose(make(x).positions, expected, atol=1e-5)
    assert "tells" not in caplog.text
    near = far(30.0)[0]  # where single precision serves, nothing moves
    np.testing.assert_array_equal(pv.Trajectory(near).positions, near.astype(np.float32))
    whole = np.round(x * 1e3).astype(np.int64)
    np.testing.assert_allclose(pv.Trajectory(whole).positions, shape(whole), rtol=1e-4, atol=0.1)


def test_single_precision_that_blurs_is_told_once(tmp_path, caplog):
    x = far(1e6)[0].astype(np.float32)
    np.savez(tmp_path / "a.npz", positions=x)
    with DCDTrajectoryFile(str(tmp_path / "a.dcd"), "w") as file:
        file.write(x)
    makes = {
        "the array": lambda: pv.as_trajectory(x),
        "a.npz": lambda: pv.read(tmp_path / "a.npz"),
        "a.dcd": lambda: list(pv.stream(tmp_path / "a.dcd", chunk_bytes=12 * 8 * 4)),
    }
    for name, make in makes.items():
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="polyvae"):
            make()
        (said,) = [record.message for record in caplog.records]
        assert f"{name}: coordinates reach" in said
        assert "tells 0.062 apart" in said
        assert "centre the molecule" in said


@pytest.mark.parametrize(("distance", "n_beads"), [(1e4, 8), (1e6, 1), (0, 8)])
def test_what_is_sharp_is_not_told(distance, n_beads, caplog):
    """A bead on its own has no shape."""
    pv.as_trajectory(far(distance, n_beads)[0].astype(np.float32))
    assert caplog.text == ""
    x = far(distance, 1)[0]
    np.testing.assert_array_equal(pv.Trajectory(x).positions, x.astype(np.float32))

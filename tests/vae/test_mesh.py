"""Training on several devices gives what training on one gives."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import devices
import jax
import numpy as np
import pytest
from conftest import arrays
from jax.sharding import Mesh

import polyvae as pv
from polyvae.batches import map_frames
from polyvae.vae import mesh
from polyvae.vae.mesh import Layout, layout_for


@pytest.mark.long
def test_eight_devices_give_the_loss_curve_and_the_gradient_of_one(tmp_path):
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    command = [sys.executable, devices.__file__, str(tmp_path / "eight.npz")]
    path = os.pathsep.join([str(Path(pv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    child = subprocess.Popen(command, env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": path})
    one = devices.found()
    assert child.wait(timeout=300) == 0
    eight = arrays(tmp_path / "eight.npz")
    assert eight.pop("n_devices") == 8
    assert eight.keys() == one.keys()
    for name, values in one.items():
        scale = 0 if name != "gradient" else 1e-6 * np.abs(values).max()
        np.testing.assert_allclose(eight[name], values, rtol=1e-5, atol=scale, err_msg=name)
        assert not np.array_equal(eight[name], values), (
            f"{name}: not even the rounding differs; was it one device?"
        )


def test_one_device_needs_no_mesh():
    assert layout_for(64, 100) == (None, 100)


class TestWithManyDevices:
    @pytest.fixture(autouse=True)
    def _devices(self, monkeypatch):
        monkeypatch.setattr(jax, "local_devices", lambda: list("abcdefgh"))
        monkeypatch.setattr(mesh, "Mesh", lambda devices, axes: list(devices))

    @pytest.mark.parametrize(
        ("batch", "used"), [(64, "abcdefgh"), (50, "abcde"), (6, "abcdef"), (60, "abcdef"), (14, "abcdefg")]
    )
    def test_as_many_share_a_batch_as_divide_it(self, batch, used, caplog):
        caplog.set_level(logging.INFO, "polyvae")
        assert "".join(layout_for(batch, 100).mesh) == used
        assert f"training on {len(used)} devices, with {batch // len(used)} frames of each batch" in caplog.text
        assert ("8 are here" in caplog.text) == (len(used) < 8)


def test_rows_are_found_by_their_number():
    layout = Layout(Mesh(np.array(jax.devices()[:1]), (mesh.ROWS,)), 10)
    x = np.arange(10.0, dtype=np.float32)
    order = np.array([9, 0, 3, 6, 2, 7])
    np.testing.assert_array_equal(jax.jit(layout.take)(layout.shared(x), order), x[order])


@pytest.mark.parametrize(("backend", "rows"), [("cpu", 4096), ("gpu", 65_536)])
def test_chunks_follow_the_device(backend, rows, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    seen = []
    x = np.arange(140_000, dtype=np.float32)[:, None]
    found = map_frames(lambda part: seen.append(len(part)) or 2 * part, x)
    np.testing.assert_array_equal(found, 2 * x)
    assert set(seen) == {rows}

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
    assert layout_for(64, (100,)) is None


class TestWithManyDevices:
    @pytest.fixture(autouse=True)
    def _devices(self, monkeypatch):
        monkeypatch.setattr(jax, "local_devices", lambda: list("abcdefgh"))
        monkeypatch.setattr(jax, "devices", lambda: list("abcdefgh"))
        monkeypatch.setattr(mesh, "Mesh", lambda devices, axes: list(devices))

    @pytest.mark.parametrize(
        ("batch", "counts", "used"),
        [(64, (100,), "abcdefgh"), (50, (100,), "abcde"), (6, (90, 10), "abcefg"), (60, (9, 9, 9, 9), "aceg")],
    )
    def test_as_many_share_a_batch_as_divide_it(self, batch, counts, used, caplog):
        caplog.set_level(logging.INFO, "polyvae")
        assert "".join(layout_for(batch, counts).mesh) == used
        assert f"training on {len(used)} devices, with {batch // len(used)} frames of each batch" in caplog.text
        assert ("8 are here" in caplog.text) == (len(used) < 8)

    def test_processes_that_do_not_divide_a_batch_are_refused(self):
        with pytest.raises(
            pv.InputError, match=r"a batch of 9 frames cannot be shared by 2 processes; .*multiple of 2"
        ):
            layout_for(9, (50, 50))


@pytest.mark.parametrize("counts", [(10,), (3, 7), (7, 0, 3)])
def test_rows_are_found_by_their_number_among_all(counts):
    """Two and three processes as their arrays would lie on one device."""
    one = Mesh(np.array(jax.devices()[:1]), (mesh.ROWS,))
    layout = Layout(one, (10,))
    x = np.arange(10.0, dtype=np.float32)
    filled = np.full((len(counts), max(counts)), -1, np.float32)
    for k, part in enumerate(np.split(x, np.cumsum(counts)[:-1])):
        filled[k, : len(part)] = part
    order = np.array([9, 0, 3, 6, 2, 7])
    places = mesh.places(jax.numpy.asarray(order), counts, max(counts))
    found = jax.jit(layout.take)(layout._replace(counts=(filled.size,)).shared(filled.ravel()), places)
    np.testing.assert_array_equal(found, x[order])


@pytest.mark.parametrize(("backend", "rows"), [("cpu", 4096), ("gpu", 65_536)])
def test_chunks_follow_the_device(backend, rows, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    seen = []
    x = np.arange(140_000, dtype=np.float32)[:, None]
    found = map_frames(lambda part: seen.append(len(part)) or 2 * part, x)
    np.testing.assert_array_equal(found, 2 * x)
    assert set(seen) == {rows}

"""What a model file holds, read without the library that writes it."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import polyvae as pv
from polyvae.files import save_tensors
from polyvae.vae.modelfile import tensors_of

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
LAYOUTS = {
    "rows": ROWS,
    "columns": np.asfortranarray(ROWS),
    "transposed": ROWS.T,
    "every second": ROWS[:, ::2],
    "backwards": ROWS[::-1],
    "broadcast": np.broadcast_to(ROWS[0], (5, 4)),
    "swapped axes": np.arange(24.0).reshape(2, 3, 4).swapaxes(0, 2),
    "other bytes": ROWS.astype(">f4"),
    "one number": np.float32(3),
    "nothing": np.zeros((0, 3), np.float32),
    "whole numbers": np.arange(6).reshape(2, 3).T,
    "of JAX": jnp.asarray(ROWS).T,
}
TYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4"}


def held(path):
    """Arrays of a safetensors file: eight bytes of a length, so many of JSON, and rows one after another."""
    data = path.read_bytes()
    n = int.from_bytes(data[:8], "little")
    found = {}
    for name, about in json.loads(data[8 : 8 + n]).items():
        if name != "__metadata__":
            start, stop = (8 + n + offset for offset in about["data_offsets"])
            found[name] = np.frombuffer(data[start:stop], TYPES[about["dtype"]]).reshape(about["shape"])
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_holds_what_an_array_does_whatever_its_layout(layout, tmp_path):
    save_tensors(tmp_path / "a.safetensors", {"a": LAYOUTS[layout], "b": ROWS}, {"about": "layouts"})
    found = held(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(found["a"], np.asarray(LAYOUTS[layout]))
    np.testing.assert_array_equal(found["b"], ROWS)


def test_a_model_is_held_row_by_row(cv, tmp_path):
    cv.save(tmp_path / "m.safetensors")
    found = held(tmp_path / "m.safetensors")
    for name, value in tensors_of(cv.scaled).items():
        np.testing.assert_array_equal(found[name], value)
    np.testing.assert_array_equal(found["template.positions"], cv.template.positions)


def test_latents_that_were_chosen_are_held_as_they_are(cv, tmp_path):
    """Their weights are made of parts of others, which need not lie in memory row by row."""
    kept = cv.keep([1, 0])
    kept.save(tmp_path / "m.safetensors")
    z = pv.load(tmp_path / "m.safetensors").transform(cv.template)
    np.testing.assert_allclose(z, cv.transform(cv.template)[:, ::-1], atol=1e-6)

"""Model files whose header or tensors were changed: each is refused in one line, or is a model that works."""

import copy
import json

import numpy as np
import pytest
import safetensors.numpy
from conftest import ROOT
from safetensors import safe_open

import polyvae as pv

SAVED = ROOT / "tests" / "saved"
ODD = ["", "z\n", [1], 7, -1, True, None, {}, 1e308, {"a": {"b": []}}, 10**12]


def parts(path):
    """Tensors and header of a model file."""
    with safe_open(path, "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["polyvae"])


def places(tree, so_far=()):
    """The keys that lead to each value, those of lists to the first alone."""
    for key, value in tree.items() if isinstance(tree, dict) else list(enumerate(tree))[:1]:
        yield (*so_far, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*so_far, key))


def changed(tree, keys, value):
    tree = copy.deepcopy(tree)
    inner = tree
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return tree


def fault(path, tensors, text):
    """What is wrong with how the file is taken, or None."""
    safetensors.numpy.save_file(tensors, path, metadata={"polyvae": text})
    try:
        model = pv.load(path)
        model.record.rows(), model._repr_html_()
        if isinstance(model, pv.LatentCV):
            z = model.transform(model.template)
            model.decode(z)
            pv.check_conformations(model.template, model)
            if model.generator is not None:
                pv.sample(model, 2)
    except pv.InputError as error:
        return None if "\n" not in str(error) and len(str(error)) < 2000 else f"{str(error)[:200]!r}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None


def header_changes(n=None):
    """Each value of the header of a model in 3-D, and an odd one in its place; some of them."""
    header = parts(SAVED / "reference_3d.safetensors")[1]
    found = [(keys, odd) for keys in places(header) for odd in ODD]
    chosen = np.random.default_rng(0).permutation(len(found))[:n]
    return header, [found[k] for k in chosen]


def all_faults(tmp_path, n):
    tensors, _ = parts(SAVED / "reference_3d.safetensors")
    header, changes = header_changes(n)
    faults = []
    for keys, odd in changes:
        text = json.dumps(changed(header, keys, odd))
        if (said := fault(tmp_path / "m.safetensors", tensors, text)) is not None:
            faults.append(f"{'.'.join(map(str, keys))} = {odd!r}: {said}")
    return faults


def test_a_header_with_another_value(tmp_path):
    assert not all_faults(tmp_path, 30)


@pytest.mark.slow
def test_a_header_with_another_value_in_every_place(tmp_path):
    assert not all_faults(tmp_path, None)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "[" * 60 + "]" * 60, "7", "[]", "{", "", '{"format": 2}', '"\\ud800"',
     '{"format": 2, "x": "\\udfff"}', "1" * 5000],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_a_header_that_is_none(text, tmp_path):
    tensors, _ = parts(SAVED / "gaussian.safetensors")
    path = tmp_path / "m.safetensors"
    safetensors.numpy.save_file(tensors, path, metadata={"polyvae": text})
    with pytest.raises(pv.InputError, match=r"m\.safetensors"):
        pv.load(path)


def other_tensors(tensors):
    """Each tensor, and others in its place."""
    for name, tensor in tensors.items():
        others = [tensor[..., None], tensor.ravel()[:1], np.zeros((0, 3), np.float32)]
        others += [np.full_like(tensor, -1), np.full_like(tensor, 10**6)] if tensor.dtype.kind == "i" else []
        for value in (np.nan, np.inf, -np.inf) if tensor.dtype.kind == "f" else ():
            bad = tensor.copy()
            bad.flat[-1] = value
            others.append(bad)
        for other in others:
            yield name, other
        yield name, None


@pytest.mark.parametrize(
    "name", [pytest.param("principal_2d", marks=pytest.mark.long), "distances_3d", "categorical"]
)
def test_other_tensors(name, tmp_path):
    tensors, header = parts(SAVED / f"{name}.safetensors")
    faults, text = [], json.dumps(header)
    for key, other in other_tensors(tensors):
        given = {k: v for k, v in tensors.items() if k != key} | ({} if other is None else {key: other})
        if (said := fault(tmp_path / "m.safetensors", given, text)) is not None:
            faults.append(f"{key}: {None if other is None else (other.dtype, other.shape)}: {said}")
        if other is not None and other.dtype.kind == "f" and not np.isfinite(other).all():
            with pytest.raises(pv.InputError, match="holds NaN or infinity"):
                pv.load(tmp_path / "m.safetensors")
    assert not faults


@pytest.mark.parametrize("claimed", [10**4, 10**9, 10**18])
def test_a_header_that_claims_much_costs_no_memory(claimed, tmp_path):
    """The size of the file bounds what can be there."""
    tensors, header = parts(SAVED / "gaussian.safetensors")
    text = json.dumps(header | {"latent_dim": claimed})
    safetensors.numpy.save_file(tensors, tmp_path / "m.safetensors", metadata={"polyvae": text})
    with pytest.raises(pv.InputError, match="damaged"):
        pv.load(tmp_path / "m.safetensors")

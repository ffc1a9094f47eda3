"""npz files that are damaged or state what they cannot hold: one line, and no more memory than they could fill."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

import polyvae as pv
from polyvae.engines.runs import saved_run
from polyvae.io.archives import arrays_of

X = np.random.default_rng(0).normal(size=(30, 5, 3)).astype(np.float32)


def written(path, compressed=False, **arrays):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return bytearray(path.read_bytes())


def with_header(path, **stated):
    """An npz with one array of ten numbers, whose header states something else."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (10, 1, 3)} | stated
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, header)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("positions.npy", array.getvalue() + bytes(40))


def readers(path, run):
    """All that read npz: a trajectory, a table, the rest of a round's run."""
    yield lambda: pv.read(path)
    yield lambda: list(pv.stream(path))
    yield lambda: pv.read_colvar(path)
    run.mkdir(exist_ok=True)
    np.savez(run / "frames.npz", positions=X)
    (run / "run.npz").write_bytes(path.read_bytes())
    yield lambda: saved_run(run)


def faults_of(path, run):
    faults = []
    for read in readers(path, run):
        try:
            read()
        except pv.InputError as error:
            if "\n" in str(error) or ".npz" not in str(error):
                faults.append(str(error))
        except Exception as error:
            faults.append(f"{type(error).__name__}: {error}")
    return faults


@pytest.mark.parametrize("stated", [(10**9, 1, 3), (10**18, 10**9, 3), (-1, 1, 3), (2**62, 4, 3), (11, 1, 3)])
def test_a_header_that_states_what_the_file_cannot_hold(stated, tmp_path):
    with_header(tmp_path / "a.npz", shape=stated)
    tracemalloc.start()
    assert not faults_of(tmp_path / "a.npz", tmp_path / "run")
    with pytest.raises(pv.InputError, match="states"):
        pv.read(tmp_path / "a.npz")
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["<f16", "<M8[s]", "<U3", "|O", ">f4", "<c8", "|b1", "|V4"])
def test_a_header_of_another_type(kind, tmp_path):
    with_header(tmp_path / "a.npz", descr=kind)
    assert not faults_of(tmp_path / "a.npz", tmp_path / "run")


@pytest.mark.parametrize(("at", "value"), [(6, 255), (10, 99), (8, 1), (27, 127)])
def test_an_entry_of_the_zip_that_says_otherwise(at, value, tmp_path):
    """Version, method, encryption and the two sizes."""
    data = written(tmp_path / "a.npz", positions=X)
    data[data.rindex(b"PK\x01\x02") + at] = value
    (tmp_path / "a.npz").write_bytes(data)
    assert not faults_of(tmp_path / "a.npz", tmp_path / "run")
    with pytest.raises(pv.InputError, match="cannot be read as npz"):
        pv.read(tmp_path / "a.npz")


def changes(data, n, seed=0):
    """The bytes cut, with some others in their place, left out or said twice."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        at, length = int(rng.integers(len(data))), int(rng.integers(1, 9))
        other = [b"", rng.bytes(length), data[at : at + length] * 2, b"\xff" * length][rng.integers(4)]
        yield data[:at] if rng.random() < 0.1 else data[:at] + other + data[at + length :]


@pytest.mark.parametrize("n", [40, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("compressed", [False, True])
def test_bytes_that_are_changed(compressed, n, tmp_path):
    path = tmp_path / "a.npz"
    data = bytes(
        written(path, compressed, positions=X[:4], time=np.arange(4.0), bias=np.zeros(4), names=["B"] * 5)
    )
    faults = []
    for changed in changes(data, n):
        path.write_bytes(changed)
        faults += faults_of(path, tmp_path / "run")
    assert not faults


def test_what_is_there_comes_back(tmp_path):
    written(tmp_path / "a.npz", True, positions=X, zeros=np.zeros(10**6), none=np.zeros((0, 3)), one=np.float64(3))
    found = arrays_of(tmp_path / "a.npz")
    np.testing.assert_array_equal(found["positions"], X)
    assert found["zeros"].shape == (10**6,)
    assert found["none"].shape == (0, 3)
    assert found["one"] == 3
    assert set(arrays_of(tmp_path / "a.npz", ("one", "two"))) == {"one"}

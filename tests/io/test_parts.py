"""A part of a file, read by a copy of the opened run, is what the whole run holds there."""

import pickle

import numpy as np
import pytest
from mdtraj.formats import XTCTrajectoryFile

import polyvae as pv
from polyvae.io.options import ReadOptions
from polyvae.io.runs import RunFiles
from polyvae.trajectory.stream import concatenate

N = 9000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A chain of 12 beads, and one of 4, whose XTC is not compressed, in a box from which it sticks out."""
    folder = tmp_path_factory.mktemp("parts")
    x = np.cumsum(np.random.default_rng(0).normal(size=(N, 12, 3)) * 0.1, axis=1)
    box = np.broadcast_to(4 * np.eye(3), (N, 3, 3))
    for n in (4, 12):
        traj = pv.Trajectory(x[:, :n] % 4, length_unit="nm", time=2.0 * np.arange(N), box=box)
        for suffix in ("xtc", "dcd"):
            pv.write(folder / f"{n}.{suffix}", traj)
    head = "ITEM: TIMESTEP\n{}\nITEM: NUMBER OF ATOMS\n4\nITEM: BOX BOUNDS pp pp pp\n" + "0 4\n" * 3
    rows = "ITEM: ATOMS id x y z\n" + "".join(f"{k} {{:.4f}} {{:.4f}} {{:.4f}}\n" for k in range(1, 5))
    numbers = (x[:, :4] % 4).reshape(N, 12)
    text = [head.format(k) + rows.format(*row) for k, row in enumerate(numbers)]
    (folder / "4.lammpstrj").write_text("".join(text))
    return folder


def parts(path, n_parts, **options):
    run = RunFiles([path], ReadOptions(**options))
    run.settle()
    assert run.seeks
    found = []
    for k in reversed(range(n_parts)):
        found[:0] = pickle.loads(pickle.dumps(run)).read(0, run.rows(0, k, n_parts))
    return found


@pytest.mark.parametrize("name", ["4.xtc", "12.xtc", "12.dcd", "4.lammpstrj"])
@pytest.mark.parametrize("options", [{}, {"start": 7, "step": 2}], ids=["all", "some"])
def test_parts_add_up(folder, name, options):
    whole = pv.read(folder / name, **options)
    found = parts(folder / name, 3, **options)
    assert len(found) == (3 if not options else 2)
    joined = concatenate(found)
    for field in ("positions", "time", "box"):
        np.testing.assert_array_equal(getattr(joined, field), getattr(whole, field))


@pytest.mark.parametrize(("damaged", "of_part"), [(4096, 1), (5000, 1), (8999, 2)])
def test_damage_is_named_as_in_the_whole(folder, tmp_path, damaged, of_part):
    """Absurd lengths of a frame in a DCD."""
    raw = bytearray((folder / "12.dcd").read_bytes())
    size = 3 * (8 + 4 * 12) + 56
    at = len(raw) - (N - damaged) * size
    raw[at : at + 4] = b"\xff" * 4
    path = tmp_path / "bad.dcd"
    path.write_bytes(raw)
    run = RunFiles([path], ReadOptions())
    run.settle()
    for k in range(3):
        if k != of_part:
            list(run.read(0, run.rows(0, k, 3)))
    with pytest.raises(pv.InputError) as of_whole:
        pv.read(path)
    with pytest.raises(pv.InputError) as found:
        list(pickle.loads(pickle.dumps(run)).read(0, run.rows(0, of_part, 3)))
    assert str(found.value) == str(of_whole.value)
    assert f"frame {damaged}" in str(found.value)


def test_times_must_increase_from_part_to_part(folder, tmp_path):
    """The last frame of the first part, and those before it, tell nothing of that in the second."""
    time = 2.0 * np.arange(N, dtype=np.float32)
    time[4096:] -= 10
    path = tmp_path / "a.xtc"
    with XTCTrajectoryFile(str(path), "w") as file:
        step = np.zeros(N, np.int32)
        file.write(pv.read(folder / "12.xtc").positions, time, step, np.zeros((N, 3, 3), np.float32))
    with pytest.raises(pv.InputError, match="the time of frame 4096 is 8182, that of the frame before it 8190"):
        parts(path, 3)


def test_far_into_a_file_nothing_is_decoded_before(folder, monkeypatch):
    run = RunFiles([folder / "12.xtc"], ReadOptions())
    run.settle()
    decoded = []
    own = type(run._files[0].file)._decode
    monkeypatch.setattr(type(run._files[0].file), "_decode", lambda self, n: decoded.append(n) or own(self, n))
    list(run.read(0, run.rows(0, 2, 3)))
    assert sum(decoded) <= 2 * 4096  # the last of the second part, to which frames are gone through, and the third

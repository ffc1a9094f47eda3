"""A stream's chunks, put together, are what `read` gives, or both refuse the file in the same words."""

import logging

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mdtraj.formats import XTCTrajectoryFile

import polyvae as pv

FIELDS = ("positions", "time", "masses", "names", "bonds", "segments", "weights", "box", "origin", "length_unit")
property_test = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def outcome(make):
    """A trajectory's fields, or the error."""
    try:
        traj = make()
    except pv.InputError as error:
        return str(error)
    return {name: getattr(traj, name) for name in FIELDS}


def same(path, chunk_frames, n_beads, **options):
    """Compare `read` with a stream of some frames a chunk, iterated over twice; what `read` gives."""
    whole = outcome(lambda: pv.read(path, **options))
    chunk_bytes = 12 * n_beads * chunk_frames * options.get("step", 1)

    def chunks():
        stream = pv.stream(path, chunk_bytes=chunk_bytes, **options)
        list(stream)
        return pv.as_trajectory(stream)

    found = outcome(chunks)
    if isinstance(whole, str) or isinstance(found, str):
        assert found == whole
    else:
        for name in FIELDS:
            np.testing.assert_array_equal(found[name], whole[name], err_msg=name)
    return whole


def write_xtc(path, x, box, time, step):
    with XTCTrajectoryFile(str(path), "w") as file:
        file.write(x, time=time.astype(np.float32), step=step, box=box.astype(np.float32))
    return path


@st.composite
def odd_files(draw):
    """Arrays of an XTC with at most one oddity, which begins at any frame."""
    n, at = draw(st.integers(1, 9)), draw(st.integers(0, 9))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.normal(size=(n, 4, 3)).astype(np.float32)
    box = np.tile(np.eye(3) * draw(st.sampled_from([0.0, 30.0])), (n, 1, 1))
    time, step = np.arange(n) * 1.0, np.arange(n)
    odd = draw(
        st.sampled_from(
            ["none", "planar before", "planar after", "planar, elsewhere", "no box", "no box before", "NaN box",
             "box of the atoms", "box of the atoms before", "one time", "one time before", "time falls",
             "one time, no steps", "one time before, no steps", "a point"]
        )
    )  # fmt: skip
    if odd == "planar before":
        x[:at, :, 2] = 0.5
    elif odd == "planar after":
        x[at:, :, 2] = 0.5
    elif odd == "planar, elsewhere":
        x[..., 2] = 0.5
        x[at:, :, 2] = 0.25
    elif odd == "a point":
        x[:at] = 0.5
    elif odd == "no box":
        box[at : at + 1] = 0
    elif odd == "no box before":
        box[at:] = np.eye(3) * 30
        box[:at] = 0
    elif odd == "NaN box":
        box[at : at + 1, 1, 1] = np.nan
    elif odd.startswith("box of the atoms"):
        until = n if odd == "box of the atoms" else at
        box[:until] = np.eye(3) * (x.max(axis=1) - x.min(axis=1))[:until, None]
    elif odd == "time falls":
        time[at:] -= 3
    elif odd.startswith("one time"):
        time[: at if "before" in odd else n] = 0
        step = 0 * step if "no steps" in odd else step
    return x, box, time, step


@property_test
@given(
    arrays=odd_files(),
    chunk_frames=st.integers(1, 4),
    options=st.fixed_dictionaries(
        {},
        optional={
            "unwrap": st.sampled_from([True, False]),
            "dims": st.sampled_from([2, 3]),
            "start": st.integers(0, 2),
            "step": st.integers(1, 3),
            "ignore_times": st.just(True),
        },
    ),
)
def test_odd_files(tmp_path, arrays, chunk_frames, options):
    same(write_xtc(tmp_path / "a.xtc", *arrays), chunk_frames, 4, **options)


@property_test
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    chunk_frames=st.integers(1, 5),
    per_molecule=st.booleans(),
    again=st.booleans(),
    stop=st.integers(1, 12) | st.none(),
    options=st.fixed_dictionaries({"start": st.integers(0, 3), "step": st.integers(1, 4)}),
)
def test_segments_weights_and_molecules(tmp_path, lengths, chunk_frames, per_molecule, again, stop, options):
    n = sum(lengths)
    rng = np.random.default_rng(n)
    np.savez(
        tmp_path / "a.npz",
        positions=rng.normal(size=(n, 6, 3)),
        bonds=[[0, 2], [2, 4], [1, 3], [3, 5]],
        segments=lengths,
        weights=np.arange(n) / 2,
        time=np.concatenate([np.arange(length) for length in lengths]) if again else np.arange(n),
    )
    options = options | {"stop": stop, "per_molecule": per_molecule}
    files = [tmp_path / "a.npz"] * 2
    whole = same(files, chunk_frames, 6, **options)
    if isinstance(whole, str):
        assert "leave none" in whole or "weights must not all be 0" in whole
        return
    # A second implementation: frame by frame, the piece that it is of.
    frames = np.arange(n)[options["start"] : stop : options["step"]]
    piece = np.repeat(np.arange(len(lengths)), lengths)[frames]
    expected = [int((piece == k).sum()) for k in np.unique(piece)] * 2
    np.testing.assert_array_equal(whole["segments"], np.repeat(expected, 1 + per_molecule))
    ends = np.cumsum(whole["segments"])
    for end, length in zip(ends, whole["segments"], strict=True):
        assert (np.diff(whole["time"][end - length : end]) == options["step"]).all()
    if not again:
        np.testing.assert_array_equal(whole["weights"], whole["time"] / 2)


@pytest.mark.parametrize("lacking", ["time", "box", "weights", "origin"])
@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("how", ["none", "same"])
def test_what_only_some_files_hold(tmp_path, caplog, lacking, at, how):
    """Weights are refused; the rest is left out, as one line says, whichever file lacks it."""
    rng, n = np.random.default_rng(0), 7
    paths = [tmp_path / f"{k}.npz" for k in range(3)]
    for k, path in enumerate(paths):
        fields = {
            "time": 1.0 + np.arange(n),
            "box": np.tile(np.eye(3) * 90, (n, 1, 1)),
            "weights": rng.random(n),
            "origin": np.stack([np.arange(n), np.zeros(n, int)], axis=1),
        }
        if k == at and how == "none":
            del fields[lacking]
        elif k == at and lacking in ("time", "box"):
            fields[lacking] = 0 * fields[lacking]
        np.savez(path, positions=rng.normal(size=(n, 4, 3)), **fields)
    with caplog.at_level(logging.INFO, logger="polyvae"):
        whole = same(paths, 3, 4)
    said = [r.message for r in caplog.records if f"{at}.npz holds no" in r.message]
    if how == "same" and lacking in ("weights", "origin"):
        assert whole[lacking] is not None
        assert not said
    elif lacking == "weights":
        assert f"{at}.npz holds no weights, " in whole
    else:
        assert whole[lacking] is None
        assert all(whole[name] is not None for name in {"time", "box", "weights", "origin"} - {lacking})
        assert len(said) == 2  # once for `read`, once for the stream


def test_chunks_tell_what_they_go_on_from(tmp_path):
    x = np.random.default_rng(0).normal(size=(10, 4, 3))
    np.savez(tmp_path / "a.npz", positions=x, segments=[4, 6], bonds=[[0, 1], [2, 3]])
    found = [c.continues for c in pv.stream([tmp_path / "a.npz"] * 2, chunk_bytes=12 * 4 * 2)]
    assert found == [0, 1, 0, 1, 1] * 2
    per_molecule = pv.stream(tmp_path / "a.npz", chunk_bytes=12 * 4 * 3, per_molecule=True)
    assert [(c.continues, c.segments) for c in per_molecule] == [
        (0, (3, 3)), (2, (1, 1, 2, 2)), (2, (3, 3)), (2, (1, 1))
    ]  # fmt: skip
    second = list(pv.stream(tmp_path / "a.npz", chunk_bytes=12 * 4 * 3))[1]
    assert [second[k:].continues for k in (0, 1)] == [1, 0]  # its first frame is the last of a segment


def test_a_planar_run_that_is_damaged_is_told_so_once(tmp_path, caplog):
    x = np.random.default_rng(0).normal(size=(40, 12, 3)).astype(np.float32)
    x[..., 2] = 0
    path = write_xtc(tmp_path / "a.xtc", x, np.zeros((40, 3, 3)), np.arange(40.0), np.arange(40))
    path.write_bytes(path.read_bytes()[:-30])
    stream = pv.stream(path, chunk_bytes=12 * 12 * 3, keep_good=True)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="polyvae"):
        chunks = list(stream)
    assert {c.n_dims for c in chunks} == {2}
    assert sum(map(len, chunks)) == 39
    assert sum("taken as 2-D" in record.message for record in caplog.records) == 1
    with pytest.raises(pv.InputError, match="frame 39"):
        pv.stream(path)

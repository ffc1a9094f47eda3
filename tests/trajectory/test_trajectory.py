"""The record: what it takes, what it refuses, how it slices."""

import numpy as np
import pytest

import polyvae as pv
from polyvae.trajectory.record import is_linear, unit_factor


def make(n=10, **kwargs):
    return pv.Trajectory(np.arange(n * 4 * 2, dtype=float).reshape(n, 4, 2), **kwargs)


def test_holds_float32_and_fills_in_masses_and_segments():
    traj = make(time=range(10), length_unit="nm")
    assert traj.positions.dtype == np.float32
    assert (traj.masses == 1).all()
    assert traj.segments == (10,)
    assert repr(traj) == "<Trajectory: 10 frames of 4 beads in 2-D, nm, time 0 to 9>"


def test_slices_like_an_array_and_keeps_what_belongs_to_frames():
    traj = make(time=range(10), weights=np.arange(10) + 1.0)
    part = traj[2:8:2]
    assert part.time.tolist() == [2, 4, 6]
    assert part.weights.tolist() == [3, 5, 7]
    np.testing.assert_array_equal(part.positions, traj.positions[2:8:2])
    assert len(traj[3]) == 1
    assert len(traj[-1]) == 1
    assert len(traj[np.arange(10) % 2 == 0]) == 5
    with pytest.raises(pv.InputError, match="selects no frame"):
        traj[20:]


@pytest.mark.parametrize(
    ("index", "segments"),
    [
        (slice(None), (4, 6)),
        (slice(2, 7), (2, 3)),
        (slice(4, None), (6,)),
        (slice(None, None, 3), (2, 2)),
        ([0, 1, 5, 6], (2, 2)),
        ([3, 2, 1], (1, 1, 1)),  # not in order: no two are neighbours in time
    ],
)
def test_segments_never_join_across_a_file(index, segments):
    assert make(segments=(4, 6))[index].segments == segments


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"positions": np.zeros((3, 4))}, r"\(n_frames, n_beads, 2 or 3\).*got \(3, 4\)"),
        ({"positions": np.zeros((3, 4, 4))}, "2 or 3"),
        ({"positions": np.zeros((0, 4, 2))}, "at least one frame"),
        ({"positions": np.zeros((2, 4, 2), complex)}, "real numbers"),
        ({"length_unit": "m"}, "nm, angstrom, sigma"),
        ({"masses": np.ones(3)}, r"masses.*\(4,\).*\(3,\)"),
        ({"masses": [1, 1, -1, 1]}, "bead 2"),
        ({"masses": [0, 0, 0, 0]}, "masses must be positive"),
        ({"time": np.ones(9)}, "time"),
        ({"time": [*range(9), np.nan]}, "entry 9"),
        ({"names": ["A"]}, "4 beads, 1 names"),
        ({"bonds": [[0, 4]]}, "beads 0 to 3"),
        ({"segments": (4, 5)}, "add up to 10"),
        ({"weights": [*range(9), -1]}, "frame 9 is -1"),
        ({"continues": 2}, "continues .*0 to 1"),
    ],
)
def test_refuses_by_name(change, words):
    with pytest.raises(pv.InputError, match=words):
        make(**change) if "positions" not in change else pv.Trajectory(**change)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_names_the_frame_and_bead_that_are_not_finite(bad):
    positions = np.zeros((5, 4, 2))
    positions[3, 2, 1] = bad
    with pytest.raises(pv.InputError, match="frame 3, bead 2"):
        pv.Trajectory(positions)


def test_units_convert_only_where_they_can():
    traj = make(length_unit="nm")
    np.testing.assert_allclose(traj.to_unit("angstrom").positions, 10 * traj.positions)
    assert traj.to_unit("nm") is traj
    assert unit_factor("angstrom", "nm") == pytest.approx(0.1)
    with pytest.raises(pv.InputError, match="reduced unit"):
        traj.to_unit("sigma")


@pytest.mark.parametrize(
    ("bonds", "linear"),
    [
        ([[0, 1], [1, 2], [2, 3], [3, 4]], True),
        ([[0, 2], [2, 1], [1, 3], [4, 3], [3, 4]], True),  # in any order; a bond may be there twice
        ([[0, 1], [1, 2], [2, 3], [3, 4], [4, 0]], False),  # a ring
        ([[0, 1], [1, 2], [2, 3], [2, 4]], False),  # a branch
        ([[0, 1], [1, 4], [2, 3]], False),  # two chains
        ([[0, 4], [4, 1], [1, 2], [2, 3]], False),  # a chain that ends elsewhere
        ([[0, 1], [1, 2], [2, 4], [4, 3]], False),
        ([], False),
    ],
)
def test_ends_of_a_linear_chain(bonds, linear):
    assert is_linear(np.array(bonds).reshape(-1, 2), 5) == linear
    assert is_linear(np.empty((0, 2)), 1)

"""Several processes, each with its share of the frames, prepare what one prepares of all.

They stand side by side as threads here; `test_processes.py` starts real ones.
"""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import ideal_chains

import polyvae as pv
from polyvae.cv import choices
from polyvae.cv.fitting import prepared_data
from polyvae.trajectory.share import Share, alone, divided
from polyvae.vae import order
from polyvae.vae.settings import Settings


@dataclasses.dataclass(frozen=True)
class Thread(Share):
    """A share that is gathered between threads."""

    meeting: tuple = ()

    def gathered(self, value):
        places, barrier = self.meeting
        places[self.process] = value
        barrier.wait(timeout=60)
        found = np.stack(places)
        barrier.wait(timeout=60)
        return found


def among(n: int, work) -> list:
    """What `work` gives in each of n threads, called with the share of each."""
    meeting = [None] * n, threading.Barrier(n)
    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(lambda k: work(Thread((0,) * n, k, meeting)), range(n)))


def run(weights=None) -> pv.Trajectory:
    """Three pieces of a chain that remembers, 1,200 frames, of which the last piece has 120."""
    x = ideal_chains(1200, 5, 3)
    for k in range(1, 1200):
        x[k] = 0.9 * x[k - 1] + 0.4 * x[k]
    return pv.Trajectory(x, segments=(600, 480, 120), weights=weights)


PIECES = [slice(0, 600), slice(600, 1080), slice(1080, 1200)]
BIAS = np.where(np.arange(1200) < 1080, np.linspace(0, 2, 1200), 0)  # none of the last process' frames counts
SETTINGS = Settings(
    encoder=(8,), decoder=(8,), epochs=2, batch_size=96, validation=None, lag=None, width="learned"
)


def prepared(data, featurizer, weights) -> dict:
    """What is known before training, of all frames, by name."""
    with prepared_data(data, featurizer, SETTINGS, weights) as (fitted, template, ready):
        share, scaled = ready.share, ready.initial()[0]
        parts = {"rows": ready.rows, "val_rows": ready.val_rows, "pairs": ready.pairs}
        ordered, collapsed = order.ordered_by_slowness(scaled.vae, ready.x, ready.rows, ready.pairs, 1, share)
        return {name: share.joined(rows + share.start) for name, rows in parts.items()} | {
            "x": share.joined(ready.x),
            "mean": ready.mean,
            "scale": ready.scale,
            "structure": getattr(fitted, "structure", np.zeros(0)),
            "template": template.positions,
            "order": ordered.decoder.layers[0].weight,
            "facts": [ready.settings.to_dict(), ready.choices, collapsed, ready.data.n_frames],
            "limits": ready.data.limits,
        }


@pytest.mark.parametrize(
    ("featurizer", "weights"),
    [
        pytest.param(None, None, marks=pytest.mark.long, id="chosen"),
        pytest.param(pv.Reference(), BIAS, id="weighted"),
        pytest.param(pv.PairDistances(), None, id="distances"),
    ],
)
def test_all_that_is_known_before_training_is_what_one_process_finds(featurizer, weights, monkeypatch):
    for module, name, value in (
        (choices, "MAX_STEPS", 400), (choices, "MAX_FOR_COMPONENTS", 500), (order, "MAX_PAIRS", 300),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr("polyvae.measures.limits._DISTANCES", 5_000)
    traj = run()
    expected = prepared(traj, featurizer, weights)

    def of_one(share):
        stream = pv.Stream(lambda: iter([traj[PIECES[share.process]]]), 0)
        stream.share = lambda: share
        return prepared(stream, featurizer, weights)

    for found in among(3, of_one):
        assert found["facts"] == expected["facts"]
        for name, value in expected.items():
            if name == "limits":
                flat = [
                    np.concatenate([np.ravel(v) for k, v in d.items() if k != "shape"])
                    for d in (found[name], value)
                ]
                np.testing.assert_array_equal(*flat)
                for kind, numbers in value["shape"].items():
                    np.testing.assert_allclose(list(found[name]["shape"][kind].values()), list(numbers.values()))
            elif name != "facts":
                atol = 2e-5 if name in ("x", "structure", "mean") else 1e-6
                np.testing.assert_allclose(found[name], value, atol=atol, err_msg=name)


def test_what_the_processes_do_not_share_is_refused_by_all_of_them():
    def of_one(share):
        chains = ideal_chains(100, 4 + share.process, 3)
        stream = pv.Stream(lambda: iter([pv.Trajectory(chains)]), 100)
        stream.share = lambda: share
        with pytest.raises(pv.InputError) as error:
            prepared(stream, None, None)
        return str(error.value)

    words = "the number of beads must be the same on all processes; process 0 has 4, process 1 5"
    assert among(2, of_one) == [words] * 2


def test_what_one_process_cannot_do_all_hear_of():
    def of_one(share):
        def work():
            if share.process == 1:
                raise pv.InputError("b.npz is empty")

        with pytest.raises(pv.InputError) as error:
            share.together(work)
        return str(error.value)

    assert among(3, of_one) == ["process 1: b.npz is empty", "b.npz is empty", "process 1: b.npz is empty"]


def test_sums_keep_double_precision_and_rows_their_order():
    def of_one(share):
        own = np.arange(share.process + 1.0) + 10 * share.process
        part = share.of(len(own))
        return part.total(1 + 1e-12 * share.process), part.joined(own), part.joined(own[part.every(2)]), part.start

    for k, (total, joined, every, start) in enumerate(among(3, of_one)):
        assert total == 1 + (1 + 1e-12) + (1 + 2e-12)
        assert joined.tolist() == [0, 10, 11, 20, 21, 22]
        assert every.tolist() == [0, 11, 21]
        assert start == [0, 1, 3][k]
    assert alone(5).total(3.0) == 3.0


def test_files_are_shared_out_by_their_size():
    assert [list(part) for part in divided([10, 10, 10, 10], 2)] == [[0, 1], [2, 3]]
    assert [list(part) for part in divided([90, 1, 1], 3)] == [[0], [1], [2]]
    assert [list(part) for part in divided([1, 1, 1, 90], 2)] == [[0, 1, 2], [3]]
    with pytest.raises(pv.InputError, match="3 processes need a file each, at least; got 2"):
        divided([5, 5], 3)

"""What a notebook shows of data, models and results: well-formed, escaped, and the numbers that they hold."""

import dataclasses
import io
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import ideal_chains
from models import untrained

import polyvae as pv
from polyvae.records import html_of
from polyvae.tasks.scorecard import Distances, FrameScores, Generated, Kinetics, ScoredFrames, Scores
from polyvae.trajectory.record import chain_bonds


class Cells(HTMLParser):
    """The rows of words of a page; every tag must close in its turn."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.rows, self.words = [], [], []
        self.feed(html)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def traj() -> pv.Trajectory:
    return pv.Trajectory(ideal_chains(300, 6, 3), time=0.5 * np.arange(300), length_unit="nm")


@pytest.fixture(scope="module")
def cv(traj) -> pv.LatentCV:
    return untrained(traj)


def shown(value) -> tuple[dict, str]:
    found = Cells(value._repr_html_())
    assert len({len(row) for row in found.rows}) == 1
    return {row[0]: row[1:] for row in found.rows}, " ".join(found.words)


def test_a_trajectory_and_a_model(traj, cv):
    rows, _ = shown(traj)
    assert rows["frames"] == ["300"]
    assert rows["lengths"] == ["nm"]
    assert rows["time"] == ["0 to 149.5 ps"]
    assert rows["weights"] == ["none"]
    rows, words = shown(cv)
    assert rows["latent_dim"] == ["2"]
    assert rows["trained on"][0].startswith("90 frames")
    assert "6 beads in 3-D (nm)" in words


def test_scores_are_the_table_of_the_command_line(capsys):
    from polyvae.app.console import print_scores

    numbers = {f.name: 0.125 * k for k, f in enumerate(dataclasses.fields(FrameScores))}
    some = FrameScores(**numbers | {"kl_per_latent": [1.0, 2.0], "correlation_rg": [None, 0.5], "vamp2": None})
    apart = Distances(bond=0.1, angle=0.2, rg=0.3, end_to_end=0.4, pairs=0.5)
    generated = Generated(bond=1.1, angle=1.2, rg=1.3, end_to_end=1.4, pairs=1.5, noise_floor=apart)
    scores = Scores("nm", ScoredFrames(some, train=some), Kinetics(3, 1.0, "ps"), generated=generated)
    rows, words = shown(scores)
    print_scores(scores)
    printed = capsys.readouterr().out
    assert rows["variance explained"] == [f"{some.fve:.3f}"] * 2
    assert rows["VAMP-2 at lag 3"] == ["-", "-"]
    for name, cells in rows.items():
        assert " ".join([name, *cells]).strip() in " ".join(printed.split())
    assert "rg 1.300 (0.300)" in words
    table = scores.to_frame()
    assert list(table.columns) == ["all", "train"]
    assert table.loc["fve", "train"] == some.fve
    assert table.loc["kl_per_latent z1", "all"] == 2
    assert np.isnan(table.loc["correlation_rg z0", "all"])
    assert np.isnan(table.loc["vamp2", "all"])


def test_results(traj, cv):
    result = pv.free_energy(np.where(np.arange(2000) // 50 % 3, 8, 0) + np.random.default_rng(0).normal(size=2000))
    rows, words = shown(result)
    assert list(rows) == ["basin", "A", "B"]
    assert rows["B"][2] == f"{result.states[1].energy:.2f} ± {result.states[1].error:.2f}"
    assert "2000 frames" in words
    frames, basins, errors = str(result).split("\n")
    assert frames.startswith(f"free energy of 2000 frames, worth {result.n_effective:.0f} ")
    assert basins.startswith(f"basins: A {result.states[0].weight:.1%}, B {result.states[1].weight:.1%} at ")
    assert errors.endswith(f"{result.blocks.n_blocks} blocks of {result.blocks.size} frames")
    assert result.to_frame().loc["B", "energy"] == result.states[1].energy
    row = {"latent_dim": 2, "beta": 0.5, "seed": 0, "bound": -1.0, "fve": 0.5, "active_units": 2, "vamp2": None}
    rows, _ = shown(pv.Sweep([row, row | {"seed": 1, "bound": -3.0}], [cv, cv]))
    assert rows["2"] == ["0.5", "-2.000 (1.414)", "0.500 (0.000)", "2.000 (0.000)", "-"]
    limits = pv.Limits(chain_bonds(6), 0.1, 3.0, 0.5, 2.0, 0.1, 0.1, (0.1, 0.1, 0.1), (0.1, 0.1), 0.1, {})
    free = np.zeros(0)
    best = pv.Optimum(traj[0], 0.5, np.zeros(2), True, True, "a < b & c", traj[1], 0.75, limits, free, free,
                      traj[:1], traj[:1], free, free, traj[:1])  # fmt: skip
    rows, words = shown(best)
    assert rows["objective"] == ["0.500", "0.750"]
    assert "a < b & c" in words
    assert "a &lt; b &amp; c" in best._repr_html_()
    rows, words = shown(pv.Adapted(cv, (), traj, result, False))
    assert "not converged" in words
    rows, _ = shown(pv.Colvar({"z<0>": np.arange(3.0)}, (3,)))
    assert rows["z<0>"] == ["0", "1", "2"]
    shown(cv.record.settings)


def test_what_others_wrote_is_escaped(cv):
    bad = "<script>alert(1)</script>"
    record = dataclasses.replace(cv.record, choices={"lag": bad}, stopped=bad)
    html = dataclasses.replace(cv, record=record)._repr_html_()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 2
    assert "<b" not in html_of("t", [["", "<b>"], ["<i>", '"']], "<b>").replace("<b>t</b>", "")
    assert len(html_of("t", [["a"], ["x" * 10_000]])) < 1000


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_takes_what_every_function_tells(monkeypatch):
    """Frames since the last call; steps done and in all; the terms of the loss beside them."""
    calls = {"frames": [(3,), (4,)], "models": [(1, 7), (7, 7)], "epochs": [(7, 7, {"kl": 1.5, "loss": 2.0})]}
    for what, told in calls.items():
        monkeypatch.setattr("sys.stderr", shown := Terminal())
        with pv.progress_bar(what, total=7 if what == "frames" else None, unit=what) as bar:
            for one in told:
                bar(*one)
            bar(0) if what == "frames" else bar(*told[-1])
        assert f"{what}: " in shown.getvalue()
    monkeypatch.setattr("sys.stderr", pipe := io.StringIO())
    with pv.progress_bar("training") as bar:
        bar(1, 2, {"kl": 1.0})
    assert pipe.getvalue() == ""
    monkeypatch.setitem(sys.modules, "ipykernel", sys)  # a notebook, whose stderr is no terminal
    with pv.progress_bar("training") as bar:
        bar(1, 2, {"kl": 1.0})
    assert "training" in pipe.getvalue()


def test_progress_true_is_a_bar(monkeypatch, tmp_path):
    """`progress=True` counts what the call works on, and leaves the result as it is."""
    x = np.random.default_rng(0).normal(size=(80, 4, 2)).astype(np.float32)
    brief = {
        "epochs": 2,
        "batch_size": 32,
        "encoder": (4,),
        "decoder": (4,),
        "featurizer": pv.Reference(),
        "lag": 0,
    }
    plain = pv.fit(x, **brief, progress=False)
    monkeypatch.setattr("sys.stderr", shown := Terminal())
    cv = pv.fit(x, **brief, progress=True)
    assert "training" in shown.getvalue()
    assert "epoch" in shown.getvalue()
    np.testing.assert_array_equal(cv.transform(x), plain.transform(x))
    monkeypatch.setattr("sys.stderr", shown := Terminal())
    pv.project(cv, x, tmp_path / "z.csv", progress=True)
    assert "projecting" in shown.getvalue()
    with pytest.raises(pv.InputError, match="progress"):
        pv.project(cv, x, tmp_path / "z.csv", progress="yes")

"""The report: the numbers of scores.json, in one file that stands alone; nothing invented."""

import base64
import json
import re
from html.parser import HTMLParser

import pytest

from polyvae.app.report import _number, write_report
from polyvae.errors import InputError

# The smallest PNG: one pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def part(**changes) -> dict:
    return {
        "n_frames": 4321,
        "squared_error": 4.3919,
        "rmsd": 0.60497,
        "fve": 0.49055,
        "reconstruction": 14.717,
        "kl": 2.5109,
        "elbo": -17.2279,
        "kl_per_latent": [1.3666, 0.0012],
        "active_units": 1,
        "latent_mean": [-0.034, 0.025],
        "latent_std": [0.9708, 0.0031],
        "aggregated_std": [1.0058, 0.9884],
        "correlation_rg": [-0.7317, None],
        "correlation_end_to_end": [-0.6610, None],
        "aggregated_covariance": [[1.0116, -0.0731], [-0.0731, 0.97693]],
        "iw_bound": -16.4152,
        "iw_k": 64,
        "n_costly": 4000,
        "gradient_mean": [2.4178, 0.00612],
        "gradient_max": [9.5523, 0.0871],
        "vamp2": 1.8437,
        "timescale": 71.513,
        "autocorrelation_time": [33.891, None],
        "n_steps": 4316,
        "n_jumps": 29,
    } | changes


@pytest.fixture
def scores() -> dict:
    structure = {"objective": 0.2299, "rg": 0.22991, "end_to_end": 0.16664, "shortest_bond": 0.33211}
    structure |= {"mean_bond": 0.44524, "longest_bond": 0.54757, "closest_pair": 0.16661, "z": [1.2, 0.9]}
    return {
        "length_unit": "nm",
        "frames": {
            "all": part(),
            "train": part(elbo=-17.91),
            "validation": part(elbo=-18.66, fve=0.4821, iw_bound=-17.733, gradient_max=[7.214, 0.0522]),
        },
        "kinetics": {"lag": 5, "time_step": 0.5, "time_unit": "ps"},
        "generated": {
            "bond": 0.11915,
            "rg": 0.021631,
            "end_to_end": 0.11949,
            "pairs": 0.084243,
            "noise_floor": {"bond": 0.0072161, "rg": 0.017014, "end_to_end": 0.061527, "pairs": 0.035839},
        },
        "optimized": {
            "optimized": structure,
            "data_extreme": structure | {"rg": 0.45584, "closest_pair": 0.14665},
            "limits": {
                "shortest_bond": 0.03341,
                "longest_bond": 1.97352,
                "shortest_mean_bond": 0.43941,
                "longest_mean_bond": 1.03193,
                "closest_pair": 0.07582,
                "closest_free_pair": 0.14725,
            },
            "valid": True,
            "better": True,
            "message": "the objective is smaller than in every frame of the data",
        },
        "data": {
            "files": ["some/where/run.xtc"],
            "n_frames": 4321,
            "n_beads": 24,
            "n_dims": 3,
            "length_unit": "nm",
            "unit_note": "XTC holds nm.",
        },
        "model": {
            "settings": {"latent_dim": 2, "encoder": [64, 48], "beta": 1.0},
            "versions": {"polyvae": "0.1.0", "jax": "0.9.9"},
            "best_epoch": 125,
            "stopped": "no better validation objective in 40 epochs",
        },
        "command": "polyvae run some/where/run.xtc --seed 7",
    }


class Page(HTMLParser):
    """Checks that tags nest, and gathers text, links and images."""

    VOID = ("meta", "img", "br", "link", "input", "hr")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.words, self.links, self.tags = [], [], [], []
        self.feed(text)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


@pytest.fixture
def report(tmp_path):
    def make(content) -> Page:
        (tmp_path / "scores.json").write_text(json.dumps(content))
        path = write_report(tmp_path)
        assert path == tmp_path / "report.html"
        return Page(path.read_text(encoding="utf-8"))

    return make


def test_the_numbers_of_the_scores_are_there(scores, report):
    text = report(scores).text
    for number in (
        "4,321 frames of 24 beads in 3-D → 2 latent coordinates",
        "48.2 %",  # FVE of the validation frames
        "0.605 nm",
        "−18.7 nats",
        "1 of 2",
        "−0.73",
        "correlation of z0 with Rg",
        "1.01, 0.988 standard deviations",
        "0.0842 nm",
        "0.0358 nm",
        "16.5×",
        "0.230",
        "0.456",
        "0.0334 to 1.97",
        "at least 0.0758",
        "64 × 48",
        "125 (counted from 0)",
        "0.9.9",
        "run.xtc",
        "XTC holds nm.",
        "Lengths in nanometres",
        "polyvae run some/where/run.xtc --seed 7",
        "no better validation objective in 40 epochs",
        "z1 (idle) train",
        "importance-weighted bound, k = 64 (nats) −16.4 −17.7 −16.4",  # train, validation, all
        "VAMP-2 at a lag of 5 frames 1.84",
        "slowest implied timescale (ps) 71.5",
        "jumps of the alignment 29 29 29",
        "autocorrelation time (ps) 33.9 33.9",
        "gradient, mean (1/nm) 2.42 2.42 0.00612",
        "gradient, largest (1/nm) 9.55 7.21 0.0871 0.0522",  # z0 in train and validation, z1
        "covariance with z0 −0.0731",
    ):
        assert number in text, number
    assert "The objective is smaller than in every frame of the data." in text
    assert "None" not in text


def test_without_validation_the_cards_tell_of_all_frames(scores, report):
    del scores["frames"]["validation"], scores["frames"]["train"]
    text = report(scores).text
    assert "49.1 %" in text
    assert "on all frames" in text
    assert "validation frames" not in text


def test_a_weighted_run_says_what_its_frames_are_worth(scores, report):
    assert "worth" not in report(scores).text
    scores["data"]["n_effective"] = 412.34
    assert "the frames are worth 412 of equal weight" in report(scores).text


def test_the_page_stands_alone(scores, report, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "01_frames.png").write_bytes(PNG)
    (tmp_path / "figures" / "99_of_my_own.png").write_bytes(PNG)
    page = report(scores)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"https?:|url\(|@import|<script|<link", html) == []
    assert len(page.links) == page.tags.count("img") == 2
    assert all(base64.b64decode(link.removeprefix("data:image/png;base64,")) == PNG for link in page.links)
    assert 'width="1" height="1"' in html
    assert "The data. Frames of the data" in page.text.replace(" .", ".")
    assert "99 of my own" in page.text
    for needed in ("prefers-color-scheme: dark", "@media print", 'name="viewport"', 'lang="en"', "charset"):
        assert needed in html


def test_text_is_escaped(scores, report, tmp_path):
    evil = "<script>alert('x')</script>&amp;\""
    scores["command"] = scores["optimized"]["message"] = scores["data"]["unit_note"] = evil
    scores["data"]["files"] = [evil.replace("/", "")]
    scores["length_unit"] = evil
    scores["model"] = {"settings": {evil: evil}, "versions": {evil: [evil]}, "stopped": evil, "best_epoch": evil}
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a&b<i>.png").write_bytes(PNG)
    (tmp_path / "<b>mine").write_text("")
    page = report(scores)
    assert set(page.tags) <= {
        *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "pre", "code", "div", "b"),
        *("small", "span", "ul", "li", "table", "tr", "th", "td", "figure", "img", "figcaption"),
    }
    assert page.text.count(evil) >= 6
    assert "<b>mine" in page.text


@pytest.mark.parametrize(
    "missing", ["length_unit", "frames", "kinetics", "generated", "optimized", "data", "model", "command"]
)
def test_a_missing_part_is_left_out(scores, report, missing):
    del scores[missing]
    text = report(scores).text
    assert "None" not in text
    assert ("Generated ensemble" in text) is (missing != "generated")
    assert ("Optimised conformation" in text) is (missing != "optimized")
    assert ("Scores by frames" in text) is (missing != "frames")
    assert ("Settings and versions" in text) is (missing != "model")
    assert "Figures" not in text


def keys(tree, path=()):
    for key, value in tree.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from keys(value, (*path, key))


def test_any_value_may_be_of_another_kind(scores, report):
    blank = json.dumps(scores)
    for path in keys(scores):
        for other in (None, "a", True, float("nan"), [None, "b"]):
            changed = json.loads(blank)
            at = changed
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = other
            text = report(changed).text
            if path[:2] not in (("model", "settings"), ("model", "versions")):  # shown as they are
                assert "nan" not in text.replace("nanometres", ""), path


def test_nothing_but_a_title_and_the_files_of_an_empty_object(report):
    page = report({})
    assert page.text.startswith("polyvae report polyvae report Files in this folder")
    assert "figure" not in page.tags
    assert not re.search(r"FVE|RMSD|ELBO", page.text)


def test_files_are_listed_with_their_purpose(scores, report, tmp_path):
    for name in ("model.safetensors", "COLVAR", "generated.xtc", "notes.txt", ".hidden"):
        (tmp_path / name).write_text("")
    text = report(scores).text
    assert "generated.xtc conformations drawn from the model" in text
    assert "report.html this page" in text
    assert "notes.txt –" in text
    assert ".hidden" not in text
    assert "latent.npz" not in text
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == [".hidden"]


def test_the_report_is_the_same_twice(scores, report, tmp_path):
    report(scores)
    first = (tmp_path / "report.html").read_bytes()
    report(scores)
    assert (tmp_path / "report.html").read_bytes() == first


def test_no_scores(tmp_path):
    with pytest.raises(InputError, match=r"scores\.json.*not exist.*`polyvae run`"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b'"text"'])
def test_broken_scores_leave_the_old_report(tmp_path, content):
    (tmp_path / "report.html").write_text("old")
    (tmp_path / "scores.json").write_bytes(content)
    with pytest.raises(InputError, match="JSON object") as error:
        write_report(tmp_path)
    assert "\n" not in str(error.value)
    assert (tmp_path / "report.html").read_text() == "old"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.99965, "1.00"),
        (-0.0123456, "−0.0123"),
        (4321, "4,321"),
        (12345.6, "12,346"),
        (5.04e-5, "5.04e−05"),
        (0.0, "0"),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        ("1", None),
        (None, None),
    ],
)
def test_number(value, text):
    assert _number(value) == text

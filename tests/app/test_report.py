"""The report, of one model or several side by side: what scores.json holds, in one file that stands alone."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image, ImageFilter

from polyvae.app import markup
from polyvae.app.cli import main
from polyvae.app.comparing import names_of, sections_of
from polyvae.app.markup import number, sentence
from polyvae.app.report import write_comparison, write_report
from polyvae.errors import InputError
from polyvae.tasks.verdict import MARKS, QUESTIONS

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
            "n_segments": 3,
            "sha256": "0123456789abcdef" * 4,
        },
        "model": {
            "settings": {"latent_dim": 2, "encoder": [64, 48], "beta": 1.0},
            "versions": {"polyvae": "0.1.0", "jax": "0.9.9"},
            "best_epoch": 125,
            "stopped": "no better validation objective in 40 epochs",
            "choices": {"lag": "a time lag of 5 frames"},
            "generator": {"steps": 4000},
        },
        "verdict": {
            "mark": "fair",
            "advice": "a longer run",
            "answers": [
                {"question": "slow", "mark": "good", "text": "z0 relaxes within 34 ps", "help": ""},
                {"question": "smooth", "mark": "poor", "text": "the CV jumps at 29 of 4316 steps", "help": ""},
                {"question": "states", "mark": "open", "text": "the run shows one state along z0", "help": ""},
                {"question": "data", "mark": "fair", "text": "the run is short", "help": "a longer run"},
            ],
        },
        "command": "polyvae run some/where/run.xtc --seed 7",
    }


TAGS = {
    *("html", "head", "meta", "title", "style", "script", "body", "main", "header", "section", "h1", "h2", "h3"),
    *(
        "p",
        "pre",
        "code",
        "div",
        "b",
        "small",
        "span",
        "dl",
        "dt",
        "dd",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    ),
    *("figure", "button", "img", "figcaption", "dialog", "form", "svg", "path", "circle", "rect"),
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
        if self.open and self.open[-1] not in ("style", "script"):
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
    for words in (
        "4,321 frames of 24 beads in 3\u2011D → 2 latent coordinates",
        "training n = 4,321 held out n = 4,321",
        "variance explained 0.491 0.482 near 1, less with a time lag",
        "RMSD per bead, decoded (nm) 0.605 0.605 well below a bond length",
        "ELBO (nats a frame) −17.9 −18.7 held out as in training",
        "importance-weighted bound, k = 64 (nats a frame) −16.4 −17.7 high",
        "VAMP-2, lag 5 frames 1.84 1.84 near 3",
        "slowest implied timescale, lag 5 frames (ps) 71.5 71.5 long",
        "jumps of the alignment 29 of 4,316 29 of 4,316 0",
        "z0 z1 inactive good",
        "KL: the information in it (nats) 1.37 0.00120 above 0",
        "spread 1.01 0.988 0.8 to 1.2",
        "correlation with Rg −0.732 any",
        "autocorrelation time (ps) 33.9 long",
        "slope, mean and steepest (1/nm) 2.42, 9.55 0.00612, 0.0871 near each other",
        "covariance with z0 −0.0731 0",
        "bead distances (nm, mean over pairs) 0.0842 0.0358 2.35× below 2; 1 is the data's own noise",
        "bond lengths (nm) 0.119 0.00722 16.5× below 2; 1 is the data's own noise",
        "radius of gyration (nm) 0.230 0.456 beyond the data's",
        "shortest bond (nm) 0.332 0.332 0.0334 to 1.97",
        "good The objective is smaller than in every frame of the data.",
        "From run.xtc",
        "data some/where/run.xtc",
        "length unit nanometres",
        "pieces continuous in time 3",
        "frames, SHA-256 0123456789abcdef lag chosen",
        "A time lag of 5 frames.",
        "No better validation objective in 40 epochs.",
        "125 (counted from 0)",
        "polyvae 0.1.0, jax 0.9.9",
        "polyvae run some/where/run.xtc --seed 7",
        "encoder 64 × 48",
        "generator steps 4000",
    ):
        assert words in text.replace("\u00a0", " "), words
    assert "None" not in text


def test_the_verdict_is_first_with_a_mark_and_its_word_for_each_question(scores, report, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "01_frames.png").write_bytes(PNG)
    text = report(scores).text
    assert "From run.xtc Is this collective variable good? fair Is it slow? good z0 relaxes within 34 ps." in text
    assert "Is it smooth? poor The CV jumps at 29 of 4316 steps." in text
    assert "Does it tell states apart? not judged The run shows one state along z0." in text
    assert QUESTIONS["ensemble"] not in text  # which was not asked
    assert "What to do A longer run. How well" in text
    order = [
        "What to do",
        "variance explained",
        "Latent coordinates",
        "Figures",
        "Where this comes from",
        "Files in",
    ]
    assert [text.index(words) for words in order] == sorted(text.index(words) for words in order)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    shapes = {name: re.search(rf'class="mark {name}">(<svg.*?</svg>)', html)[1] for name in MARKS}
    assert len(set(shapes.values())) == len(MARKS)  # not by colour alone


def test_no_number_is_told_twice(scores, report):
    """But for those that two columns share."""
    values = [scores["frames"]["validation"][key] for key in ("fve", "elbo", "iw_bound")]
    values += [scores["generated"]["pairs"], scores["frames"]["all"]["gradient_max"][0]]
    text = report(scores).text
    assert [text.count(number(value)) for value in values] == [1] * len(values)


def test_the_fingerprint_of_the_model_is_that_of_its_file(scores, report, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    assert "model, SHA-256 ba7816bf8f01cfea lag" in report(scores).text  # of FIPS 180-2


def test_without_validation_there_is_one_column(scores, report):
    del scores["frames"]["validation"], scores["frames"]["train"]
    text = report(scores).text.replace("\u00a0", " ")
    assert "all frames n = 4,321 good variance explained 0.491 near 1" in text
    assert "n = 4,321 held out" not in text


def test_a_weighted_run_says_what_its_frames_are_worth(scores, report):
    assert "worth" not in report(scores).text
    scores["data"]["n_effective"] = 412.34
    assert "frames of equal weight that these are worth 412 500 or more" in report(scores).text


def test_the_page_stands_alone(scores, report, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "01_frames.png").write_bytes(PNG)
    (tmp_path / "figures" / "99_of_my_own.png").write_bytes(PNG)
    page = report(scores)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"https?:|url\(|@import|<script .*src|<link|fetch\(|XMLHttpRequest", html) == []
    assert len(page.links) == 2
    assert page.tags.count("img") == 3  # and the one of the dialog, without a source
    assert page.tags.count("dialog") == 1
    assert all(base64.b64decode(link.removeprefix("data:image/png;base64,")) == PNG for link in page.links)
    assert 'width="1" height="1"' in html
    assert "The data Frames of the data" in page.text
    assert "99 of my own" in page.text
    for needed in ("prefers-color-scheme: dark", "@media print", 'name="viewport"', 'lang="en"', "charset"):
        assert needed in html


def test_text_is_escaped(scores, report, tmp_path):
    evil = "<script>alert('x')</script>&amp;\""
    scores["command"] = scores["optimized"]["message"] = scores["data"]["selection"] = evil
    scores["verdict"]["advice"] = scores["verdict"]["answers"][0]["text"] = scores["data"]["sha256"] = evil
    scores["kinetics"]["time_unit"] = evil
    scores["data"]["files"] = [evil.replace("/", "")]
    scores["length_unit"] = evil
    scores["model"] = {"settings": {evil: evil}, "versions": {evil: [evil]}, "stopped": evil, "best_epoch": evil}
    scores["model"] |= {"choices": {evil: evil}, "generator": {evil: evil}}
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a&b<i>.png").write_bytes(PNG)
    (tmp_path / "<b>mine").write_text("")
    page = report(scores)
    assert set(page.tags) <= TAGS
    assert page.tags.count("script") == 1
    assert page.text.count(evil) >= 6
    assert "<b>mine" in page.text


@pytest.mark.parametrize(
    "missing",
    ["length_unit", "frames", "kinetics", "generated", "optimized", "data", "model", "command", "verdict"],
)
def test_a_missing_part_is_left_out(scores, report, missing):
    del scores[missing]
    text = report(scores).text
    assert "None" not in text
    assert ("noise floor" in text) is (missing != "generated")
    assert ("Optimised conformation" in text) is (missing != "optimized")
    assert ("How well it describes the run" in text) is (missing != "frames")
    assert ("Settings" in text) is (missing != "model")
    assert ("What to do" in text) is (missing != "verdict")
    assert "Figures" not in text


def keys(tree, path=()):
    for key, value in tree.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from keys(value, (*path, key))


def test_any_value_may_be_of_another_kind(scores, report):
    blank = json.dumps(scores)
    for path in keys(scores):
        for other in (None, "a", float("nan"), [None, "b"]):
            changed = json.loads(blank)
            at = changed
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = other
            text = report(changed).text
            if path[:2] not in (
                ("model", "settings"),
                ("model", "versions"),
                ("model", "generator"),
            ):  # shown as they are
                assert "nan" not in text.replace("nanometres", ""), path


def test_nothing_but_a_title_and_the_files_of_an_empty_object(report):
    page = report({})
    assert re.match(r"polyvae: \S+ polyvae report Files in this folder", page.text)
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
    with pytest.raises(InputError, match=r"a folder that `polyvae run` wrote; .*nowhere does not exist"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(InputError, match=r"a folder that `polyvae run` wrote; .*model.safetensors is a file"):
        write_report(tmp_path / "model.safetensors")


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
    assert number(value) == text


def test_a_sentence_leaves_names_as_they_are():
    assert sentence("z0 <tells>") == "z0 &lt;tells&gt;."
    assert sentence("it moves.") == "It moves."
    assert sentence(" ") == ""


@pytest.fixture
def compare(tmp_path):
    """A page of several models, from their scores by name; each has a figure of its own, and one that all have."""

    def make(**models) -> Page:
        folders = [tmp_path / name for name in models]
        for folder, content in zip(folders, models.values(), strict=True):
            (folder / "figures").mkdir(parents=True, exist_ok=True)
            (folder / "figures" / "01_frames.png").write_bytes(PNG)
            (folder / "figures" / "10_latent_rg.png").write_bytes(PNG + folder.name.encode())
            (folder / "scores.json").write_text(json.dumps(content))
        out = tmp_path / "compare.html"
        assert write_comparison(folders, out) == out
        return Page(out.read_text(encoding="utf-8"))

    return make


def copied(scores, *path, value) -> dict:
    """A copy of the scores with one value changed."""
    changed = json.loads(json.dumps(scores))
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return changed


def test_models_of_the_same_data_stand_side_by_side_with_the_better_marked(scores, compare):
    other = copied(scores, "frames", "validation", value=part(elbo=-15.2, fve=0.4824, rmsd=0.7))
    other["model"]["settings"]["beta"] = 0.5
    other["verdict"]["mark"] = "good"
    page = compare(first=scores, second=other)
    text = page.text.replace("\u00a0", " ")
    assert "2 models side by side Of the same data: run.xtc Verdicts first" in text
    assert "Is it good? fair good Is it slow? good z0 relaxes within 34 ps. good z0" in text
    assert "Settings that differ first second beta 1.0 0.5 The other 3 settings are the same." in text
    assert "variance explained 0.482 0.482 near 1" in text  # alike as far as is shown
    assert "RMSD per bead, decoded (nm) 0.605 better 0.700 well" in text
    assert "ELBO (nats a frame) −18.7 −15.2 better held out" in text
    assert text.count("better") == 3  # and the bound of more than one draw
    assert "slower" not in text
    assert page.tags.count("figure") == 3
    assert "The data Frames of the data" in text
    assert "all models What the latents mean" in text
    assert len(page.links) == 3
    assert set(page.tags) <= TAGS


def test_what_depends_on_another_setting_is_not_compared(scores, compare):
    other = copied(scores, "frames", "validation", value=part(elbo=-15.2, vamp2=1.9, timescale=90.0))
    other["model"]["settings"]["lag"] = 5
    scores["model"]["settings"]["lag"] = 0
    text = compare(first=scores, second=other).text
    assert "ELBO (nats a frame) −18.7 −15.2 not to be compared: another lag" in text
    assert "1.84 1.90 better near 3" in text
    assert "71.5 90.0 better" in text
    other["kinetics"]["lag"] = 50
    text = compare(first=scores, second=other).text
    assert "VAMP-2 1.84 (lag 5 frames) 1.90 (lag 50 frames) not to be compared: another lag of the scores" in text


def test_an_ensemble_within_its_own_noise_is_no_better_for_being_nearer(scores, compare):
    floor = scores["generated"]["noise_floor"]
    near, nearer = (
        {"bond": by * floor["bond"], "rg": 3 * by * floor["rg"], "noise_floor": floor} for by in (0.9, 0.5)
    )
    text = compare(first=scores | {"generated": near}, second=scores | {"generated": nearer}).text
    assert "generated bond lengths (noise floors) 0.900 0.500 below 2" in text
    assert "generated radii of gyration (noise floors) 2.70 1.50 better below 2" in text


@pytest.mark.parametrize("other", ["f" * 64, None])
def test_models_of_other_data_are_not_called_better(scores, compare, other):
    second = copied(scores, "frames", "validation", value=part(elbo=-15.2))
    second = copied(second, "data", "sha256", value=other)
    text = compare(first=scores, second=second).text
    assert "take care These models are of " + ("different data" if other else "data that they do not name") in text
    assert "−18.7 −15.2 held out" in text
    assert text.count("better") == 1  # "none is marked as better"


def test_lengths_in_other_units_bear_them(scores, compare):
    text = compare(first=scores, second=copied(scores, "length_unit", value="angstrom")).text
    assert "RMSD per bead, decoded 0.605 (nm) 0.605 (Å) well below" in text


def test_side_by_side_any_value_may_be_of_another_kind(scores, tmp_path):
    for path in keys(scores):
        changed = [copied(scores, *path, value=other) for other in (None, "a", True, float("nan"), [None, "b"])]
        models = {f"m{k}": one for k, one in enumerate([*changed, {}])}
        html = "".join(sections_of(models, dict.fromkeys(models, tmp_path)))
        if path[:2] not in (("model", "settings"), ("model", "generator")):
            assert "nan" not in html, path


def test_names_are_as_long_as_it_takes(tmp_path):
    assert names_of([tmp_path / "x" / "a", tmp_path / "b"]) == ["a", "b"]
    assert names_of([tmp_path / "x" / "out", tmp_path / "y" / "out"]) == ["x/out", "y/out"]


def test_a_folder_is_named_once(scores, compare, tmp_path):
    compare(first=scores)
    with pytest.raises(InputError, match="the same folder as .*; name each model once"):
        write_comparison([tmp_path / "first", tmp_path / "first" / ".." / "first"], tmp_path / "again.html")
    assert not (tmp_path / "again.html").exists()


def test_the_verb_writes_one_page_or_several_models_side_by_side(scores, compare, tmp_path, monkeypatch, capsys):
    def call(*words, code=0):
        with pytest.raises(SystemExit) as exit_:
            main(["report", *map(str, words)])
        assert exit_.value.code == code
        return capsys.readouterr()

    compare(first=scores, second=scores)
    (tmp_path / "compare.html").unlink()
    monkeypatch.chdir(tmp_path)
    assert call("first").out == "first/report.html\n"
    call("first")  # its own page is written again
    assert call("first", "second").out == "compare.html\n"
    before = (tmp_path / "compare.html").read_bytes()
    assert "compare.html exists already" in call("first", "second", code=1).err
    assert call("first", "second", "--force").out == "compare.html\n"
    assert (tmp_path / "compare.html").read_bytes() == before
    assert "must end in .html" in call("first", "second", "--out", "c.txt", code=1).err
    assert "second/none does not exist" in call("first", "second/none", "--out", "c.html", code=1).err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compare.html", "first", "second"]


def test_large_pictures_take_a_fraction_of_their_bytes_and_look_the_same(tmp_path):
    rng = np.random.default_rng(0)
    lines = np.full((300, 400, 3), 255, np.uint8)
    lines[rng.integers(0, 300, 3000), rng.integers(0, 400, 3000)] = rng.integers(0, 255, (3000, 3))
    blurred = Image.fromarray(lines).filter(ImageFilter.GaussianBlur(2))
    blurred.save(tmp_path / "01_frames.png")
    size = (tmp_path / "01_frames.png").stat().st_size
    assert size > markup.LARGE
    html = markup.figure(tmp_path / "01_frames.png")
    assert 'width="400" height="300"' in html
    data = re.search(r"data:image/webp;base64,([^\"]+)", html).group(1)
    assert len(data) < size / 3
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    apart = np.asarray(shown, float) - np.asarray(blurred, float)
    assert np.sqrt((apart**2).mean()) < 4

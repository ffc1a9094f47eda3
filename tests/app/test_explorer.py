"""The latent explorer: what the page carries is what the model is, and a browser does with it what Python does."""

import base64
import dataclasses
import functools
import json
import os
import re
import shutil
import time

import equinox as eqx
import jax
import numpy as np
import pytest
from conftest import ideal_chains
from engines import random_model
from models import untrained

import polyvae as pv
from polyvae.app import explorer
from polyvae.app.explorer import LIMIT, explorer_data, explorer_section, save_explorer
from polyvae.app.observables import observables_of
from polyvae.errors import InputError
from polyvae.measures.limits import known_limits, limits_of
from polyvae.vae.network import VAE

KINDS = {"u4": np.uint32, "f4": np.float32, "f8": np.float64, "i2": np.int16}
FEATURIZERS = {"principal": pv.PrincipalAxes(), "reference": pv.Reference(), "distances": pv.PairDistances()}


def unpacked(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), KINDS[kind])


def chains(n_frames=400, n_beads=9, n_dims=3, **options) -> pv.Trajectory:
    """Chains of freely jointed bonds, whose segments, times and weights are not those that one would guess."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(n_frames, n_beads, n_dims))
    steps *= rng.uniform(0.95, 1.05, (n_frames, n_beads, 1)) / np.linalg.norm(steps, axis=2, keepdims=True)
    given = {"time": 5.0 + 2.0 * np.arange(n_frames), "segments": (n_frames // 4, n_frames - n_frames // 4)}
    given["weights"] = np.random.default_rng(1).uniform(0, 2, n_frames)
    return pv.Trajectory(steps.cumsum(axis=1), **given | options)


@functools.cache
def limits(n_dims: int) -> dict:
    return limits_of(chains(100, n_dims=n_dims), of_frames=True).record()


def model(traj: pv.Trajectory, **options) -> pv.LatentCV:
    """An untrained model that keeps limits, as a trained one does: those of a short chain, quickly found."""
    cv = untrained(traj, **options)
    data = dataclasses.replace(cv.record.data, limits=limits(traj.n_dims))
    return dataclasses.replace(cv, record=dataclasses.replace(cv.record, data=data))


@pytest.mark.parametrize(("name", "n_dims"), [("reference", 2), ("distances", 3)])
def test_the_page_carries_the_model_and_the_run(name, n_dims):
    traj = chains(n_dims=n_dims)
    cv = model(traj, featurizer=FEATURIZERS[name])
    data = explorer_data(cv, traj, {"energy": np.arange(400.0)})
    for layer, own in zip(data["model"]["layers"], cv.vae.decoder.layers, strict=True):
        weight = unpacked(layer["weight"], "f4").reshape(layer["n_out"], layer["n_in"])
        np.testing.assert_array_equal(weight, own.weight)
        np.testing.assert_array_equal(unpacked(layer["bias"], "f4"), own.bias)
    np.testing.assert_array_equal(unpacked(data["model"]["scale"], "f4"), np.ravel(cv.scale))
    np.testing.assert_array_equal(unpacked(data["z"], "f4").reshape(400, -1), cv.transform(traj))
    np.testing.assert_allclose(unpacked(data["weights"], "f4"), traj.weights / traj.weights.max(), rtol=1e-6)
    assert data["starts"] == [0, 100]
    values = {one["name"]: unpacked(one["data"], "f8") for one in data["values"]}
    assert list(values) == ["Rg", "end-to-end", "time", "energy"]
    np.testing.assert_array_equal(values["time"], traj.time)
    np.testing.assert_allclose(
        values["end-to-end"], np.linalg.norm(traj.positions[:, -1] - traj.positions[:, 0], axis=1), rtol=1e-5
    )
    x = unpacked(data["carried"]["x"], "i2").reshape(traj.positions.shape) * data["carried"]["step"]
    if cv.featurizer.coordinates:
        np.testing.assert_allclose(x, cv.align(traj), atol=0.51 * data["carried"]["step"])
    else:  # up to a mirror image
        pairs = np.stack(np.triu_indices(9, 1), axis=1)
        apart = [np.linalg.norm(y[:, pairs[:, 0]] - y[:, pairs[:, 1]], axis=2) for y in (x, traj.positions)]
        np.testing.assert_allclose(*apart, atol=4 * data["carried"]["step"])


def test_ten_thousand_frames_of_a_hundred_beads_take_three_megabytes(tmp_path):
    traj = chains(10_000, 100)
    cv = model(traj)
    usual = VAE(300, key=jax.random.key(0))  # of the size that a fit makes by default
    cv = dataclasses.replace(cv, scaled=eqx.tree_at(lambda scaled: scaled.vae, cv.scaled, usual))
    save_explorer(tmp_path / "explorer.json", cv, traj)
    page = explorer_section(tmp_path)
    assert 1_000_000 < len(page.encode()) <= LIMIT
    data = json.loads((tmp_path / "explorer.json").read_text())
    points = unpacked(data["carried"]["points"], "u4")
    assert len(unpacked(data["frames"], "u4")) == 10_000
    assert 1000 < len(points) < 10_000
    assert points[0] == 0
    assert points[-1] == 9999


def test_long_runs_and_large_decoders_are_shown_in_part(monkeypatch):
    traj = chains()
    cv = model(traj)
    monkeypatch.setattr(explorer, "_MOST_POINTS", 100)
    monkeypatch.setattr(explorer, "_WEIGHTS", 100)
    data = explorer_data(cv, traj)
    rows = unpacked(data["frames"], "u4")
    assert len(rows) == 100
    np.testing.assert_array_equal(unpacked(data["z"], "f4").reshape(100, -1), cv.transform(traj)[rows])
    assert data["starts"] == [0, 100]
    assert "more than this page carries" in data["model"]["missing"]


def test_distances_that_do_not_join_all_beads_leave_frames_alone():
    traj = chains()
    cv = model(traj, featurizer=pv.PairDistances(pairs=[[0, 1], [1, 2]]), latent_dim=1)
    assert "do not join" in explorer_data(cv, traj)["model"]["missing"]


def test_a_folder_without_or_with_another_file(tmp_path):
    assert explorer_section(tmp_path) == ""
    damaged = {"{": "a JSON object", "[]": "a JSON object", '{"format": 99}': "the data of an explorer"}
    for text, what in damaged.items():
        (tmp_path / "explorer.json").write_text(text)
        with pytest.raises(InputError, match=f"explorer.json must hold {what}"):
            explorer_section(tmp_path)


def test_what_a_file_calls_a_bead_or_an_observable_ends_no_script():
    traj = chains(names=["</sc", "<!--", *["B"] * 7])
    page = pv.explore(model(traj), traj, observables={"</script><b>": np.zeros(400)}).page
    assert page.count("</script>") == 3
    assert "<!--" not in page


def test_observables_are_one_number_a_frame(tmp_path):
    traj = chains()
    cv = model(traj)
    for given, said in [
        ({"e": np.zeros(3)}, "observables['e'] must have one number a frame, 400 in all; got shape (3,)"),
        ({"Rg": np.zeros(400)}, "observables['Rg'] is there already"),
        ([1, 2], "observables must be a dictionary"),
    ]:
        with pytest.raises(InputError, match=re.escape(said)):
            pv.explore(cv, traj, observables=given)

    table = tmp_path / "e.csv"
    table.write_text(
        "time,energy\n" + "".join(f"{t},{2 * t}\n" for t in np.arange(5, 805))
    )  # more often than frames
    traj = dataclasses.replace(traj, segments=(400,))
    found = observables_of(["shape_anisotropy", f"{table}:energy"], traj)
    np.testing.assert_allclose(found["energy"], 2 * traj.time)
    np.testing.assert_allclose(found["shape_anisotropy"][7], pv.shape_anisotropy(traj.positions[7]), rtol=1e-5)
    with pytest.raises(InputError, match=r"--observable .*e.csv:nothing: no column 'nothing'"):
        observables_of([f"{table}:nothing"], traj)


def test_a_notebook_shows_the_page_in_a_frame_of_its_own(tmp_path):
    traj = chains()
    shown = pv.explore(model(traj), traj)
    assert "<script" not in shown._repr_html_()  # escaped, within the frame
    assert shown.save(tmp_path / "explorer.html").read_text() == shown.page
    assert not re.search(r"""(src|href)=["']|https?://|@import|fetch\(""", shown.page), (
        "something would be fetched"
    )


# In a browser.


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium without a window, which saves files to `browser.folder`."""
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        webdriver = None
    programs = [
        next(filter(None, map(shutil.which, names)), None)
        for names in (("chromium", "google-chrome"), ("chromedriver",))
    ]
    if webdriver is None or None in programs:
        text = "no browser to try the page in: pip install selenium, apt-get install chromium chromium-driver"
        if os.environ.get("POLYVAE_REQUIRE_ENGINES") == "1":
            pytest.fail(text)
        pytest.skip(text)
    folder = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
                 "disable-background-networking", "disable-component-update", "hide-scrollbars",
                 "window-size=1280,1300", f"user-data-dir={folder / 'profile'}"):  # fmt: skip
        options.add_argument(f"--{word}")
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(programs[1]))
    found.folder = folder
    yield found
    found.quit()


def emulate(browser, width=1280, **features):
    names = {"scheme": "prefers-color-scheme", "motion": "prefers-reduced-motion"}
    media = [{"name": names[name], "value": value} for name, value in features.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    size = {"width": width, "height": 1300, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def errors(browser) -> list:
    return [entry for entry in browser.get_log("browser") if entry["source"] != "rendering"]  # advice on speed


def until(condition, what: str):
    for _ in range(100):
        if found := condition():
            return found
        time.sleep(0.05)
    pytest.fail(f"waited five seconds in vain for {what}")


@pytest.mark.long
def test_a_browser_decodes_as_python_does(browser, tmp_path):
    """Every kind of model on one page, each an explorer of its own."""
    models, sections = [], []
    for n_dims in (2, 3):
        traj = chains(n_dims=n_dims)
        more = {"every": pv.PairDistances(every=3), "some": pv.PairDistances(max_pairs=25)}
        kinds = FEATURIZERS | (more if n_dims == 3 else {})
        for name, featurizer in kinds.items():
            cv = model(traj, featurizer=featurizer, latent_dim=3)
            folder = tmp_path / f"{name}{n_dims}"
            folder.mkdir()
            save_explorer(folder / "explorer.json", cv, traj)
            models.append((f"{name} {n_dims}-D", cv))
            sections.append(explorer_section(folder))
    page = tmp_path / "all.html"
    page.write_text("<!DOCTYPE html><meta charset='utf-8'>" + "".join(sections))
    emulate(browser)
    browser.get(page.as_uri())
    z = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    found = browser.execute_script(
        """return Array.from(document.querySelectorAll(".explorer"), ({ explorer: { decode, limitsBroken } }) =>
          arguments[0].map((z) => {
            const x = decode(z);
            const features = Array.from(decode.features(z));
            return { x: Array.from(x), features, broken: [...limitsBroken(x).kinds] };
          }));""",
        z.astype(float).tolist(),
    )
    assert len(found) == len(models)
    for rows, (name, cv) in zip(found, models, strict=True):
        x = np.array([row["x"] for row in rows]).reshape(50, 9, -1)
        features = np.array([row["features"] for row in rows])
        expected = cv.decode(z)
        if cv.featurizer.coordinates:
            worst = {"coordinates": np.abs(x - expected).max()}
        else:
            worst = {"distances": np.abs(np.maximum(features, 0) - expected).max()}
            worst |= {"coordinates": np.abs(x - cv.decode(z, coordinates=True)).max()}
        print(name, {key: f"{value:.1e}" for key, value in worst.items()})
        assert max(worst.values()) < 1e-5, (name, worst)
        broken = known_limits(cv).broken(x.astype(np.float32))
        assert [set(row["broken"]) for row in rows] == [{k for k in broken if broken[k][i]} for i in range(50)]
        assert any(row["broken"] for row in rows)
    assert not errors(browser)


@pytest.mark.long
def test_every_control_does_what_it_says(browser, tmp_path):
    """A walk through the page with mouse and keys, in both schemes and widths, without an error in the console."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    traj = chains()
    cv = model(traj, latent_dim=3)
    energy = np.random.default_rng(3).normal(size=400)
    shown = pv.explore(cv, traj, observables={"energy": energy})
    emulate(browser)
    browser.get(shown.save(tmp_path / "explorer.html").as_uri())
    browser.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    root = browser.find_element(By.CSS_SELECTOR, ".explorer")

    def control(name):
        return root.find_element(By.CSS_SELECTOR, f"[data-do={name}]")

    def part(name):
        return root.find_element(By.CSS_SELECTOR, f"[data-see={name}]")

    def ask(expression):
        code = f"const e = arguments[0].explorer; e.drawNow(); return {expression}"
        return browser.execute_script(code, root)

    def actions():
        return ActionChains(browser, duration=20)

    def now():
        return np.array(ask("Array.from(e.state.z)"))

    def saved(name) -> str:
        path = browser.folder / name
        until(path.exists, name)
        text = path.read_text()
        path.unlink()
        return text

    # The pointer, and what is shown of it.
    plane = part("plane")
    until(lambda: ask("e.plane.box && e.plane.box.width"), "the plane")
    actions().move_to_element_with_offset(plane, 40, -60).perform()
    z, place = now(), ask("e.plane.pixelOf(e.state)")
    assert np.hypot(*(np.array(place) - [plane.size["width"] / 2 + 40, plane.size["height"] / 2 - 60])) < 2
    np.testing.assert_allclose(
        ask("Array.from(e.now().decoded)"), cv.decode(z[None].astype("f4")).ravel(), atol=1e-5
    )
    cells = [row.text.split() for row in root.find_elements(By.CSS_SELECTOR, "tbody tr")]
    decoded = cv.decode(z[None].astype("f4"))[0]
    assert float(cells[0][2]) == pytest.approx(float(pv.radius_of_gyration(decoded)), abs=0.006)
    assert "outside the data’s limits" in part("verdict").text
    carried = cv.transform(traj)
    nearest = int(np.argmin((((carried - z) / carried.std(axis=0)) ** 2).sum(axis=1)))
    assert part("real-name").text == f"nearest frame {nearest}"
    actions().move_by_offset(-70, 30).perform()
    assert (now()[:2] != z[:2]).any()

    # Held by a click, let go by another, moved by keys.
    actions().click().perform()
    z = now()
    actions().move_by_offset(50, 50).perform()
    np.testing.assert_array_equal(now(), z)
    plane.send_keys(Keys.ARROW_RIGHT)
    assert ask("e.plane.pixelOf(e.state)[0]") > ask(f"e.plane.pixelOf({{z: {z.tolist()}}})[0]") + 5
    until(lambda: part("said").get_attribute("textContent").startswith("z0 "), "what a screen reader says")
    plane.send_keys(Keys.ENTER)
    actions().move_by_offset(-20, -80).perform()
    assert (now() != z).all()
    actions().click().perform()

    # Buttons: z, the structure.
    control("copy").click()
    until(lambda: control("copy").text == "Copied", "z on the clipboard")
    text = browser.execute_async_script("navigator.clipboard.readText().then(arguments[0], arguments[0])")
    np.testing.assert_allclose([float(word) for word in text.split(",")], now(), rtol=1e-6)
    control("save-structure").click()
    (tmp_path / "one.pdb").write_text(saved("structure.pdb"))
    back = pv.read(tmp_path / "one.pdb")
    assert back.length_unit == "sigma"
    np.testing.assert_allclose(back.positions, cv.decode(now()[None].astype("f4")), atol=1e-4)
    np.testing.assert_array_equal(back.bonds, [[i, i + 1] for i in range(8)])

    # A path: drawn, walked, saved, cleared.
    middle = actions().move_to_element_with_offset(plane, -100, 40).key_down(Keys.SHIFT).click_and_hold()
    middle.move_by_offset(60, -60).move_by_offset(80, 20).release().key_up(Keys.SHIFT).perform()
    assert ask("e.state.path.length") >= 3
    assert control("walk-path").get_attribute("aria-pressed") == "true"
    control("save-path").click()
    (tmp_path / "path.pdb").write_text(saved("path.pdb"))
    models = pv.read(tmp_path / "path.pdb")
    ends = np.array(ask("[e.state.path[0], e.state.path.at(-1)].map(({ z }) => Array.from(z))"))
    assert len(models) == 50
    np.testing.assert_allclose(models.positions[[0, -1]], cv.decode(ends.astype("f4")), atol=1e-4)
    control("slider").send_keys(Keys.HOME)
    np.testing.assert_allclose(now(), ends[0])
    Select(control("speed")).select_by_visible_text("fast")
    control("play").click()
    until(lambda: not ask("e.state.playing"), "the end of the path")
    np.testing.assert_allclose(now(), ends[1])
    control("clear-path").click()
    assert not control("walk").is_displayed()
    control("draw").click()
    actions().move_to_element_with_offset(plane, 0, 0).click_and_hold().move_by_offset(40, 40).release().perform()
    assert ask("e.state.path.length") >= 2
    plane.send_keys(Keys.ESCAPE)
    assert ask("e.state.path.length") == 0
    actions().click(plane).key_down(Keys.SHIFT).send_keys(Keys.ARROW_UP * 4).key_up(Keys.SHIFT).perform()
    assert ask("e.state.path.length") == 5
    control("walk-run").click()
    assert control("slider").get_attribute("max") == "399"
    control("clear-path").click()

    # The trajectory, played and by the slider.
    control("slider").send_keys(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert part("place").text == "frame 2 · 9 τ"
    assert part("real-name").text == "frame 2"
    np.testing.assert_allclose(now(), carried[2], rtol=1e-6)
    control("play").click()
    until(lambda: ask("e.state.frame") > 20, "the trajectory to walk")
    control("play").click()
    assert control("play").get_attribute("aria-label") == "Play"
    assert len(ask("e.state.trail")) > 5

    # Strips: frames between two values, and between two times.
    strip, course = part("histogram"), part("course")
    half = strip.size["width"] // 2
    actions().move_to_element_with_offset(strip, -half // 2, 0).click_and_hold().move_by_offset(
        half, 0
    ).release().perform()
    actions().move_to_element_with_offset(course, 0, 0).click_and_hold().move_by_offset(120, 0).release().perform()
    low, high = ask("e.histogram.range")
    first, last = ask("e.course.range")
    rg = np.array([pv.radius_of_gyration(x) for x in traj.positions])
    chosen = np.flatnonzero((rg >= low) & (rg <= high) & (traj.time >= first) & (traj.time <= last))
    assert 0 < len(chosen) < 400
    assert part("count").text == f"{len(chosen)} of 400 frames selected"
    control("save-selection").click()
    (tmp_path / "frames.txt").write_text(saved("frames.txt"))
    own = np.stack([chosen, chosen >= 100, chosen - np.where(chosen >= 100, 100, 0)], axis=1)
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "frames.txt", dtype=int), own)
    course.send_keys(Keys.ARROW_LEFT)
    assert ask("e.course.range")[0] < first
    course.send_keys(Keys.ESCAPE)
    assert ask("e.course.range") is None
    control("clear-selection").click()
    assert ask("e.state.selected") is None

    # Axes, colours, what is beneath, what is drawn.
    Select(control("colour")).select_by_visible_text("energy")
    assert part("histogram-name").text == "energy"
    np.testing.assert_allclose(ask("e.state.measure.values[7]"), energy[7], rtol=1e-6)
    x, y = (Select(control(name)).first_selected_option.text for name in "xy")
    Select(control("x")).select_by_visible_text(y)
    assert Select(control("y")).first_selected_option.text == x
    Select(control("x")).select_by_visible_text("time (τ)")
    actions().move_to_element(plane).perform()
    middle = "e.plane.pointAt(e.plane.layers.width / 2, e.plane.layers.height / 2).when"
    assert ask("e.state.held") or ask("e.state.when") == pytest.approx(ask(middle), abs=10)
    assert part("bands").text.startswith("frames held")  # over time there is no free energy
    Select(control("x")).select_by_visible_text(y)
    for name, words in (("density", "frames held (%)"), ("nothing", ""), ("free energy", "free energy (kT)")):
        Select(control("beneath")).select_by_visible_text(name)
        assert part("bands").text.startswith(words)
        assert part("bands").is_displayed() == bool(words)
    Select(control("colour")).select_by_visible_text("time (τ)")
    np.testing.assert_allclose(ask("Array.from(e.state.course.values)"), rg, rtol=1e-5)
    for name in ("show-decoded", "show-real"):
        control(name).click()
        assert control(name).get_attribute("aria-pressed") == "false"
        control(name).click()

    # The chain, turned and turned back.
    turn = ask("Array.from(e.chain.turn)")
    actions().move_to_element(part("chain")).click_and_hold().move_by_offset(60, 30).release().perform()
    turned = np.array(ask("Array.from(e.chain.turn)")).reshape(3, 3)
    assert np.abs(turned.ravel() - turn).max() > 0.1
    np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turned) == pytest.approx(1)
    part("chain").send_keys(Keys.ARROW_LEFT, "0")
    assert ask("Array.from(e.chain.turn)") == turn

    # Paper, the dark, less motion, a telephone.
    browser.execute_cdp_cmd("Page.printToPDF", {})
    corner = "dispatchEvent(new Event('{}')), Array.from(e.plane.layers.live.getImageData(3, 3, 1, 1).data)"
    assert ask(f"({corner.format('beforeprint')})") == [255] * 4  # of two canvases paper shows the upper one
    assert ask(f"({corner.format('afterprint')})") == [0] * 4
    for width, scheme in ((1280, "dark"), (400, "dark"), (400, "light")):
        emulate(browser, width, scheme=scheme, motion="reduce")
        until(lambda width=width: ask("document.documentElement.clientWidth") == width, "the width")
        assert ask("document.documentElement.scrollWidth") <= width
    control("play").click()
    control("play").click()
    assert not errors(browser)


@pytest.mark.long
def test_a_selection_says_what_it_is_of(browser, tmp_path, monkeypatch):
    """Of rings, several molecules of one run, of which not all frames are shown: no distance between ends, and the
    frame of the run and the molecule beside each number."""
    ring = np.stack([np.arange(9), (np.arange(9) + 1) % 9], axis=1)
    origin = np.stack([np.tile(np.arange(100), 4), np.repeat(np.arange(4), 100)], axis=1)
    traj = chains(bonds=ring, segments=(100,) * 4, time=None, origin=origin)
    monkeypatch.setattr(explorer, "_MOST_POINTS", 150)
    browser.get(pv.explore(model(traj), traj).save(tmp_path / "rings.html").as_uri())
    assert "end-to-end" not in browser.find_element("tag name", "body").text
    script = """const root = document.querySelector(".explorer"), e = root.explorer;
      e.course.set([90, 220]);
      root.querySelector("[data-do=save-selection]").click();
      return root.querySelector("[data-see=count]").textContent;"""
    count = browser.execute_script(script)
    path = browser.folder / "frames.txt"
    until(path.exists, "frames.txt")
    shown = explorer.evenly(400, 150)
    chosen = shown[(shown >= 90) & (shown <= 220)]
    assert count == f"{len(chosen)} of 150 frames shown selected"
    np.testing.assert_array_equal(
        np.loadtxt(path, dtype=int), np.concatenate([chosen[:, None], origin[chosen]], axis=1)
    )
    assert "# of the 150 frames that the page shows, evenly spaced, of 400" in path.read_text()
    path.unlink()
    assert not errors(browser)


@pytest.mark.long
def test_the_free_energy_beneath_is_that_of_python_at_every_width(browser, tmp_path, monkeypatch):
    """Two wells in a narrow latent beside a broad one, in a narrow window and a wide one."""
    rng, n = np.random.default_rng(3), 20_000
    z = np.stack([rng.normal(size=n), rng.normal(rng.choice([-0.3, 0.3], n), 0.1)], axis=1).astype(np.float32)
    traj = dataclasses.replace(chains(n, 4), weights=rng.uniform(0.5, 1.5, n))
    cv = model(traj)
    monkeypatch.setattr(pv.LatentCV, "transform", lambda self, data: z)
    path = pv.explore(cv, traj).save(tmp_path / "explorer.html")
    expected = pv.free_energy(z, weights=traj.weights, transient=0.0)
    places = [(a, b) for a in expected.grid[0][::4].tolist() for b in expected.grid[1][::4].tolist()]
    energies = expected.energy[::4, ::4].ravel()
    deep = energies < 5
    assert deep.sum() > 100
    script = """const { plane } = document.querySelector(".explorer").explorer;
      const most = plane.density().values.reduce((a, b) => Math.max(a, b), 0);
      return arguments[0].map((place) => -Math.log(plane.valueAt(place) / most));"""
    for width in (400, 1280):
        emulate(browser, width)
        browser.get(path.as_uri())
        found = np.array(browser.execute_script(script, places), float)
        print(f"{width} pixels: {np.abs(found - energies)[deep].max():.3f} kT apart at most")
        np.testing.assert_allclose(found[deep], energies[deep], atol=0.2)
    emulate(browser)


def test_a_run_without_a_clock_is_packed_as_it_is_read():
    """The page reads every column in double precision; an odd number of frames shows where it does not."""
    traj = pv.Trajectory(ideal_chains(41, 6, 2))
    shown = explorer_data(random_model(traj, pv.PrincipalAxes(), (4,), 2, 0), traj)
    columns = {one["name"]: np.frombuffer(base64.b64decode(one["data"]), "<f8") for one in shown["values"]}
    np.testing.assert_array_equal(columns["frame"], np.arange(41))
    np.testing.assert_allclose(columns["Rg"], [pv.radius_of_gyration(x) for x in traj.positions], rtol=1e-5)

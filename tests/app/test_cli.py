"""Every verb, on small data, as the shell calls it."""

import dataclasses
import functools
import importlib.metadata
import json
import logging
import re
import warnings

import jax
import numpy as np
import pytest
from conftest import arrays, ideal_chains

import polyvae as pv
from polyvae.app import cli
from polyvae.app.console import notes
from polyvae.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run in XTC with a topology, held-out frames in npz, and a model trained by `polyvae fit`."""
    folder = tmp_path_factory.mktemp("cli")
    x = ideal_chains(700, 6, 3)
    pv.write(
        folder / "run.xtc", pv.Trajectory(x[:600], time=0.2 * np.arange(600), length_unit="nm", names=["B"] * 6)
    )
    pv.write(folder / "more.npz", pv.Trajectory(10 * x[600:], length_unit="angstrom"))
    call("fit", folder / "run.xtc", "--top", folder / "run.pdb", "--out", folder / "model.safetensors",
         "--epochs", 4, "--batch-size", 100, "--seed", 3)  # fmt: skip
    return folder


def call(*words) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(word) for word in words])
    assert exit_.value.code == 0


def test_fit_is_the_api(folder):
    traj = pv.read(folder / "run.xtc", topology=folder / "run.pdb")
    same = pv.fit(traj, epochs=4, batch_size=100, seed=3)
    same.save(folder / "same.safetensors")
    assert (folder / "same.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["COLVAR", "z.csv", "z.npz"])
def test_project(folder, tmp_path, name):
    call("project", folder / "model.safetensors", folder / "run.xtc", "--out", tmp_path / name)
    traj = pv.read(folder / "run.xtc")
    z = pv.load(folder / "model.safetensors").transform(traj)
    if name == "z.npz":
        found = arrays(tmp_path / name)
        table = np.column_stack([found["time"], found["z"]])
    else:
        header, *lines = (tmp_path / name).read_text().splitlines()
        assert header == {"COLVAR": "#! FIELDS time z0 z1", "z.csv": "time,z0,z1"}[name]
        table = np.loadtxt(lines, delimiter="," if name == "z.csv" else None)
    np.testing.assert_allclose(table[:, 0], 0.2 * np.arange(600), rtol=1e-6)
    np.testing.assert_array_equal(table[:, 1:].astype(np.float32), z)


def test_project_converts_the_unit(folder, tmp_path):
    """The model is in nm, these frames in Å: the file says so."""
    call("project", folder / "model.safetensors", folder / "more.npz", "--out", tmp_path / "z.npz")
    in_nm = pv.read(folder / "more.npz").to_unit("nm")
    expected = pv.load(folder / "model.safetensors").transform(in_nm)
    np.testing.assert_allclose(arrays(tmp_path / "z.npz")["z"], expected, atol=1e-5)


@pytest.mark.parametrize("suffix", [".xtc", ".dcd", ".npz", ".pdb"])
def test_generate_writes_what_viewers_open(folder, tmp_path, suffix):
    import MDAnalysis

    out = tmp_path / f"gen{suffix}"
    call("generate", folder / "model.safetensors", "-n", 20, "--out", out, "--seed", 5)
    expected = pv.sample(pv.load(folder / "model.safetensors"), 20, seed=5).positions
    if suffix == ".npz":
        np.testing.assert_array_equal(pv.read(out).positions, expected)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MDAnalysis, about elements that beads have not
        universe = MDAnalysis.Universe(str(tmp_path / "gen.pdb"), *([] if suffix == ".pdb" else [str(out)]))
        angstrom = np.stack([universe.atoms.positions.copy() for _ in universe.trajectory])
    assert universe.bonds.indices.tolist() == [[i, i + 1] for i in range(5)]
    np.testing.assert_allclose(angstrom / 10, expected, atol=1e-4)


def test_optimize_prints_the_table_and_writes_the_structure(folder, tmp_path, capfd):
    call(
        "optimize", folder / "model.safetensors", folder / "run.xtc", "--starts", 4, "--out", tmp_path / "best.pdb"
    )
    out = capfd.readouterr().out
    for word in (
        "Rg (nm)",
        "shortest bond",
        "closest pair two bonds apart",
        "data extreme",
        "allowed",
        "quantile",
    ):
        assert word in out
    assert (tmp_path / "best.pdb").read_text().count("ATOM") == 6
    starts = np.loadtxt(tmp_path / "best-starts.COLVAR")
    assert len(pv.read(tmp_path / "best-starts.pdb")) == len(starts) == 8
    found = [float(pv.radius_of_gyration(x)) for x in pv.read(tmp_path / "best-path.pdb").to_unit("nm").positions]
    fields = (tmp_path / "best-path.COLVAR").read_text().splitlines()[0]
    assert fields == "#! FIELDS time z0 z1 rg"
    np.testing.assert_allclose(np.loadtxt(tmp_path / "best-path.COLVAR")[:, 3], found, atol=1e-3)
    sound = starts[starts[:, 4] == 1, 3]
    assert found[-1] == pytest.approx(sound.min() if len(sound) else starts[:, 3].min(), abs=1e-3)


def test_generate_writes_the_z_of_each_frame(folder, tmp_path, capfd):
    """Drawn, on a path and on a grid: what `project` gives for the file, and what was asked for."""
    cv = pv.load(folder / "model.safetensors")
    for name, words, n in (
        ("drawn", ["-n", 12], 12),
        ("path", ["--path", "-1,0.5:1,0", "-n", 7], 7),
        ("dense", ["--path", "-1,0.5:1,0", "--along", "data", "--data", folder / "more.npz", "-n", 7], 7),
        ("grid", ["--grid", 3], 9),
    ):
        call("generate", folder / "model.safetensors", *words, "--out", tmp_path / f"{name}.npz")
        frames = pv.read(tmp_path / f"{name}.npz")
        assert len(frames) == n
        assert frames.length_unit == "nm"
        header, *lines = (tmp_path / f"{name}.COLVAR").read_text().splitlines()
        table = np.loadtxt(lines)
        np.testing.assert_array_equal(table[:, 1:3].astype(np.float32), cv.transform(frames))
        np.testing.assert_array_equal(table[:, -1] == 1, pv.check_conformations(frames, cv if name != "dense" else
                                      pv.read(folder / "more.npz").to_unit("nm")).valid)  # fmt: skip
        if name == "drawn":
            assert header == "#! FIELDS time z0 z1 valid"
            continue
        assert header == "#! FIELDS time z0 z1 asked0 asked1 valid"
        np.testing.assert_allclose(cv.decode(table[:, 3:5]), frames.positions, atol=1e-4)
        if name != "grid":
            np.testing.assert_allclose(table[[0, -1], 3:5], [[-1, 0.5], [1, 0]], atol=1e-6)
    assert "within the data's 0.1 % and 99.9 % quantiles" in capfd.readouterr().out


def test_generate_keeps_valid_ones_and_relaxes(folder, tmp_path, capfd):
    model = folder / "model.safetensors"
    call("generate", model, "-n", 20, "--valid-only", "--out", tmp_path / "valid.npz")
    captured = capfd.readouterr()
    assert re.search(r"kept 20 of \d+ drawn", captured.out)
    assert pv.check_conformations(pv.read(tmp_path / "valid.npz"), pv.load(model)).valid.all()
    call("generate", model, "--grid", 2, "--relax", "--out", tmp_path / "relaxed.npz")
    assert re.search(r"relaxed 4: moved by [\d.]+ nm", capfd.readouterr().err)
    bonds = np.linalg.norm(np.diff(pv.read(tmp_path / "relaxed.npz").positions, axis=1), axis=2)
    assert bonds.std() < 0.01 * bonds.mean()


def test_generate_and_optimize_refuse_what_does_not_go(folder, tmp_path, capfd):
    cv = pv.load(folder / "model.safetensors")
    old = tmp_path / "old.safetensors"
    record = dataclasses.replace(cv.record, data=dataclasses.replace(cv.record.data, limits=None))
    dataclasses.replace(cv, record=record).save(old)
    model, run = folder / "model.safetensors", folder / "run.xtc"
    for words, code, text in (
        (["generate", model, "--path", "1,0"], 2, "'1,0' is no pair of latent points, such as -1,0:2,1"),
        (["generate", model, "--path", "a,0:1,2"], 2, "no pair of latent points"),
        (["generate", model, "--path", "1,0,2:1,2"], 1, "a must be a finite latent point of shape (2,)"),
        (["generate", model, "--path", "1,0:1,2", "--grid", 3], 2, "not both"),
        (["generate", model, "--along", "data"], 2, "must be straight or data, of a --path"),
        (["generate", model, "--path", "1,0:1,2", "--along", "data"], 1, "needs the trajectory"),
        (["generate", model, "--grid", 3, "--valid-only"], 2, "cannot be drawn again"),
        (["generate", model, "--grid", 3, "-n", 10], 2, "a grid says itself how many"),
        (["generate", model, "--max-draws", 10], 2, "--max-draws: is for --valid-only"),
        (["generate", old, "--valid-only"], 1, "keeps no limits of its data"),
        (["generate", model, "--valid-only", "--max-draws", 5, "-n", 100], 1, "of 5 drawn are valid"),
        (["optimize", model, run, "--target", 99, "--starts", 2], 1, "the target 99 was not met to 1 %"),
        (["optimize", model, run, "--target", 1, "--maximize"], 2, "takes no --maximize"),
    ):
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(word) for word in [*words, "--out", tmp_path / "x.npz"]])
        assert exit_.value.code == code
        err = capfd.readouterr().err
        assert text in err
        assert err.splitlines()[-1].startswith("polyvae: error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["old.safetensors"]


@pytest.mark.long
def test_score_and_info(folder, tmp_path, capfd):
    call("score", folder / "model.safetensors", folder / "run.xtc", "--out", tmp_path / "s.json")
    scores = json.loads((tmp_path / "s.json").read_text())
    assert set(scores["frames"]) == {"all", "train", "validation"}
    model = pv.load(folder / "model.safetensors")
    traj = pv.read(folder / "run.xtc")
    assert scores == pv.score(model, traj, generated=pv.sample(model, 600)).to_dict()
    out = capfd.readouterr().out
    assert re.search(r"alignment jumps +0 of 599 +0 of 474 +0 of 115\n", out)
    part = scores["frames"]["validation"]
    for label, value in (("bound, k = 64", part["iw_bound"]), ("VAMP-2 at lag 1", part["vamp2"])):
        assert re.search(rf"{label} .*{re.escape(f'{value:.3f}')}\n", out)
    assert "autocorrelation time (ps)" in out
    call("score", folder / "model.safetensors", folder / "run.xtc", "--out", tmp_path / "lag.json", "--lag", 3)
    expected = pv.score(model, traj, generated=pv.sample(model, 600), lag=3)
    assert json.loads((tmp_path / "lag.json").read_text()) == expected.to_dict()
    capfd.readouterr()
    call("info", folder / "model.safetensors")
    assert "6 beads in 3-D (nm)" in capfd.readouterr().out
    call("info", folder / "more.npz")
    assert "100 frames of 6 beads in 3-D, angstrom" in capfd.readouterr().out


def test_outputs_are_checked_before_the_work(folder, tmp_path, capfd):
    """A folder that is not there, another suffix, and the topology that would be written beside an XTC."""
    (tmp_path / "gen.pdb").write_text("precious")
    model = folder / "model.safetensors"
    for words, text in (
        (["fit", folder / "run.xtc", "--out", tmp_path / "no" / "m.safetensors"], "does not exist"),
        (["fit", folder / "run.xtc", "--out", tmp_path / "m.npz"], "must end in .safetensors"),
        (["generate", model, "--out", tmp_path / "gen.xtc"], "gen.pdb exists already"),
        (["optimize", model, folder / "run.xtc", "--out", tmp_path / "best.foo"], "must end in .npz"),
        (["run", folder / "run.xtc", "--out", tmp_path / "gen.pdb", "--force"], "is a file"),
    ):
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(word) for word in words])
        assert exit_.value.code == 1
        assert text in capfd.readouterr().err
    assert (tmp_path / "gen.pdb").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["gen.pdb"]


@pytest.mark.long
def test_run_force_replaces_its_own_files_and_keeps_others(folder, tmp_path, capfd):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "COLVAR").write_text("old")
    more = ("--observable", "shape_anisotropy", "--observable", f"{folder / 'energies.csv'}:E")
    (folder / "energies.csv").write_text(
        "E\n" + "".join(f"{k}\n" for k in range(len(pv.read(folder / "run.xtc"))))
    )
    call("run", folder / "run.xtc", "--out", out, "--epochs", 2, "--quick", "--no-generator", "--force", *more)
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "COLVAR").read_text().startswith("#! FIELDS")
    model, scores = pv.load(out / "model.safetensors"), json.loads((out / "scores.json").read_text())
    assert scores["data"]["sha256"] == model.record.data.sha256
    assert scores["data"]["n_segments"] == 1
    assert scores["verdict"]["mark"] in ("good", "fair", "poor")
    assert scores["verdict"]["advice"] in capfd.readouterr().out
    shown = json.loads((out / "explorer.json").read_text())
    assert [one["name"] for one in shown["values"]][-2:] == ["shape_anisotropy", "E"]
    (out / "report.html").unlink()
    call("report", out)
    assert 'class="explorer"' in (out / "report.html").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert "epoch" not in capfd.readouterr().err  # no progress bar in a pipe


@pytest.mark.long
def test_run_maps_each_row_back_to_its_molecule(tmp_path):
    """With many molecules, what `run` writes is what `project` writes: in order of time, with the molecule."""
    x = ideal_chains(200, 15, 3).reshape(200, 3, 5, 3) + 20 * np.arange(3)[:, None, None]
    bonds = [[5 * m + k, 5 * m + k + 1] for m in range(3) for k in range(4)]
    data = tmp_path / "run.npz"
    pv.write(data, pv.Trajectory(x.reshape(200, 15, 3), time=0.5 * np.arange(200), bonds=np.array(bonds)))
    out = tmp_path / "out"
    call("run", data, "--per-molecule", "--out", out, "--epochs", 1, "--quick", "--no-generator")
    for name in ("COLVAR", "latent.npz"):
        again = tmp_path / name
        call("project", out / "model.safetensors", data, "--per-molecule", "--out", again)
        assert (out / name).read_bytes() == again.read_bytes()
    assert (out / "COLVAR").read_text().startswith("#! FIELDS time z0 z1 molecule\n")
    found = arrays(out / "latent.npz")
    np.testing.assert_array_equal(found["molecule"], np.tile(np.arange(3), 200))
    np.testing.assert_allclose(found["time"], np.repeat(0.5 * np.arange(200), 3))


def test_an_input_is_never_replaced(folder, tmp_path, capfd):
    """Not with --force either, nor under another name, nor beside the result, nor in the folder of results."""
    copy = tmp_path / "out"
    copy.mkdir()
    model, run, top, held = (
        copy / name for name in ("model.safetensors", "generated.xtc", "best.pdb", "more.npz")
    )
    for source, target in (
        ("model.safetensors", model),
        ("run.xtc", run),
        ("run.pdb", top),
        ("more.npz", held),
    ):
        target.write_bytes((folder / source).read_bytes())
    (tmp_path / "link").symlink_to(top)
    (tmp_path / "weights").write_text("1\n" * 600)
    before = {path: path.read_bytes() for path in (model, run, top, held, tmp_path / "weights")}
    for words, text in (
        (["project", model, run, "--out", run], "no .xtc file"),
        (["project", model, run, "--out", tmp_path / "new.trr"], "no .trr file"),
        (["project", model, held, "--out", held], "is an input"),
        (["project", model, f"{copy}/m*.npz", "--out", held], "is an input"),
        (["project", model, run, "--top", top, "--out", tmp_path / "link"], "is an input"),
        (["score", model, run, "--top", top, "--out", tmp_path / "link"], "is an input"),
        (["optimize", model, run, "--top", top, "--out", top.with_suffix(".xtc")], "best.pdb is an input"),
        (["fit", run, "--top", model, "--out", model], "is an input"),
        (["run", run, "--top", top, "--out", copy], "generated.xtc is an input"),
        (["sweep", run, "--top", top, "--weights", tmp_path / "weights", "--out", tmp_path / "s"], None),
    ):
        if text is None:
            (tmp_path / "s").mkdir()
            (tmp_path / "s" / "models.csv").symlink_to(tmp_path / "weights")
            text = "is an input"
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(word) for word in [*words, "--force"]])
        assert exit_.value.code == 1
        err = capfd.readouterr().err
        assert text in err
        assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(InputError, match=r"\.csv or \.npz"):
        pv.write_colvar(tmp_path / "z.dcd", np.zeros((3, 2)))


def test_resuming_what_is_finished_is_refused(folder, capsys):
    """Nothing is said of a model that may have been made with other settings."""
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(SystemExit) as exit_:
        cli.main(
            ["fit", str(folder / "run.xtc"), "--beta", "7", "--out", str(folder / "model.safetensors"), "--resume"]
        )
    assert exit_.value.code == 1
    assert "there is no unfinished run to continue" in capsys.readouterr().err
    assert (folder / "model.safetensors").read_bytes() == before


def test_score_takes_weights(folder, tmp_path):
    weights = np.linspace(0.1, 3, 600)
    np.savetxt(tmp_path / "w.txt", weights)
    call("score", folder / "model.safetensors", folder / "run.xtc", "--weights", tmp_path / "w.txt", "--out",
         tmp_path / "s.json")  # fmt: skip
    found = json.loads((tmp_path / "s.json").read_text())["frames"]["all"]["squared_error"]
    cv, traj = pv.load(folder / "model.safetensors"), pv.read(folder / "run.xtc")
    x = cv.align(traj).reshape(600, -1)
    squared = ((cv.decode(cv.transform(traj)).reshape(600, -1) - x) ** 2).sum(axis=1)
    assert found == pytest.approx(np.average(squared, weights=weights), rel=1e-4)
    assert found != pytest.approx(squared.mean(), rel=1e-3)


@pytest.mark.long
def test_fit_weighs_the_generator_too(folder, tmp_path, monkeypatch):
    """Frames of no weight are neither trained on nor drawn."""
    monkeypatch.setattr(pv, "fit_generator", functools.partial(pv.fit_generator, steps=5, width=8, depth=0))
    np.savetxt(tmp_path / "w.txt", np.arange(600) < 300)
    words = ["--generator", "--latent-dim", "1", "--epochs", "1", "--lag", "0"]
    out = tmp_path / "m.safetensors"
    call("fit", folder / "run.xtc", "--weights", tmp_path / "w.txt", *words, "--out", out)
    cv = pv.load(out)
    assert cv.record.generator.n_train == 270
    z = cv.transform(pv.read(folder / "run.xtc"))
    assert np.isin(cv.generator.z, z[:300]).all()


@pytest.mark.long
def test_optimize_takes_weights(folder, tmp_path):
    """The most compact frames, of no weight, set no limit."""
    traj = pv.read(folder / "run.xtc")
    rg = np.asarray(jax.vmap(pv.radius_of_gyration)(traj.positions))
    np.savetxt(tmp_path / "w.txt", rg > np.median(rg))
    words = ["optimize", folder / "model.safetensors", folder / "run.xtc", "--starts", "4", "--out"]
    call(*words, tmp_path / "free.npz")
    call(*words, tmp_path / "bound.npz", "--weights", tmp_path / "w.txt")
    found = (pv.read(tmp_path / f"{name}.npz").positions[0] for name in ("free", "bound"))
    free, bound = map(pv.radius_of_gyration, found)
    assert bound > 1.2 * free


@pytest.mark.parametrize("verb", ["fit", "run", "sweep", "project", "generate", "optimize", "score", "export"])
def test_the_unit_of_files_that_state_none_is_said_once(verb, folder, tmp_path, monkeypatch, capfd):
    """For all files together, however often they are read: scores of what fits in memory read them twice."""
    several = [tmp_path / f"piece{k}.npz" for k in (1, 2, 3)]
    for path in several:
        np.savez(path, positions=ideal_chains(60, 6, 3, seed=int(path.stem[-1])))
    model = tmp_path / "model.safetensors"
    pv.fit(pv.read(several), epochs=1, batch_size=50).save(model)
    small = ["--epochs", 1, "--batch-size", 50]
    words = {
        "fit": [*several, *small, "--out", tmp_path / "m.safetensors"],
        "run": [*several, *small, "--quick", "--no-generator", "--out", tmp_path / "out"],
        "sweep": [*several, *small, "--latent-dim", 1, "--beta", 1, "--seeds", 1, "--out", tmp_path / "out"],
        "project": [model, *several, "--out", tmp_path / "COLVAR"],
        "generate": [model, "-n", 2, "--data", *several, "--out", tmp_path / "gen.npz"],
        "optimize": [model, *several, "--starts", 1, "--out", tmp_path / "best.pdb"],
        "score": [model, *several, "--out", tmp_path / "scores.json"],
        "export": [model, "--to", "c", "--data", *several, "--check", *several, "--out", tmp_path / "c"],
    }[verb]
    if verb in ("run", "sweep", "optimize"):  # all is read, and what follows takes seconds

        def end(*_, **__):
            raise SystemExit(0)

        monkeypatch.setattr(pv, {"run": "fit"}.get(verb, verb), end)
    call(verb, *words)
    said = [line for line in capfd.readouterr().err.splitlines() if "lengths taken" in line]
    assert len(said) == 1, said
    assert said[0].startswith(f"note: {several[0]} and 2 more: lengths taken to be in sigma (reduced units); say")


@pytest.mark.long
def test_distances_of_a_long_chain_are_of_one_bead_in_so_many(tmp_path, capfd):
    np.savez(tmp_path / "run.npz", positions=ideal_chains(60, 120, 2))
    words = ["fit", tmp_path / "run.npz", "--epochs", 1, "--batch-size", 20, "--out", tmp_path / "m.safetensors"]
    call(*words, "--align", "distances")
    assert "note: distances among one bead in 2, 60 of 120," in capfd.readouterr().err
    call(*words, "--align", "distances", "--every", 12, "--force")
    assert "note: distances" not in capfd.readouterr().err
    assert pv.load(tmp_path / "m.safetensors").mean.shape == (45,)
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(word) for word in [*words, "--every", 12]])
    assert exit_.value.code == 2
    assert "is for --align distances" in capfd.readouterr().err


def test_a_note_is_said_once_though_a_library_logs_too(capfd):
    """Some give the root of all logs a handler of its own as soon as they are loaded."""
    logger, other = logging.getLogger("polyvae.io"), logging.StreamHandler()
    logging.getLogger().addHandler(other)
    try:
        with notes():
            for text in ("first", "second", "first"):
                logger.info("the %s", text)
    finally:
        logging.getLogger().removeHandler(other)
    assert capfd.readouterr().err == "note: the first\nnote: the second\n"


@pytest.mark.parametrize(
    ("name", "unit"), [("Å", "angstrom"), ("A", "angstrom"), ("nm", "nm"), ("Nanometer", "nm")]
)
def test_units_by_their_other_names(folder, capfd, name, unit):
    call("info", folder / "run.xtc", "--top", folder / "run.pdb", "--unit", name)
    assert f"3-D, {unit}" in capfd.readouterr().out


def test_a_unit_that_is_none(folder, capfd):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["info", str(folder / "run.xtc"), "--unit", "furlong"])
    assert exit_.value.code == 2
    assert "Invalid value for --unit: 'furlong' is not one of nm, angstrom, sigma" in capfd.readouterr().err


def test_the_version_is_that_of_the_package(capfd):
    call("--version")
    assert capfd.readouterr().out.strip() == pv.__version__ == importlib.metadata.version("polyvae")

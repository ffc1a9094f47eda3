"""The CV in PLUMED is the CV in JAX: values, and gradients read from the engine's forces."""

import dataclasses
import itertools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engines import chain, chain_simulation, cube, errors, float64_values, ideal, random_model, require, wrapped

import polyvae as pv
from polyvae import geometry
from polyvae.errors import InputError
from polyvae.export import plumed, write
from polyvae.export.common import walk

LENGTH = 10.0  # of a periodic box: twice a bond fits into it, a stretched chain does not
FEATURIZERS = {
    "principal": pv.PrincipalAxes(),
    "reference": pv.Reference(),
    "distances": pv.PairDistances(),
}
SYMMETRIC = {
    "principal, mirror and reversal": pv.PrincipalAxes(mirror=True, reversal=True),
    "reference on the PDB grid, reversal": pv.Reference(pdb_grid=True, reversal=True),
    "reference, mirror": pv.Reference(mirror=True),
    "reference, planar 3d": pv.Reference(planar="3d"),
    "distances, reversal": pv.PairDistances(reversal=True),
}


def compare(cv, folder, frames, what, *, tolerance=1e-10, length=None, atoms=None, module=plumed):
    """Values and gradients of the exported files in PLUMED, free and cut by a box of that length."""
    value, gradient = errors(cv, frames, module.evaluate(folder, cv, frames, atoms=atoms), what)
    assert max(value, gradient) <= tolerance
    if length is not None:
        boxes = np.stack([cube(length)] * len(frames))
        found = module.evaluate(folder, cv, wrapped(frames, length), atoms=atoms, boxes=boxes)
        value, gradient = errors(cv, frames, found, f"{what}, wrapped")
        assert max(value, gradient) <= tolerance


@pytest.mark.long
@pytest.mark.parametrize("featurizer", FEATURIZERS)
@pytest.mark.parametrize("name", ["chain2d", "chain3d"])
def test_vector_actions(name, featurizer, tmp_path):
    require("plumed")
    traj = chain(name)
    cv = random_model(traj, FEATURIZERS[featurizer])
    write(cv, "plumed", tmp_path)
    compare(cv, tmp_path, traj.positions, f"PLUMED text, {name}, {featurizer}", length=LENGTH)


@pytest.mark.parametrize("n_dims", [2, 3], ids=["2-D", "3-D"])
@pytest.mark.parametrize("featurizer", SYMMETRIC)
def test_symmetries(n_dims, featurizer, tmp_path):
    require("plumed")
    traj = ideal(n_dims)
    cv = random_model(traj, SYMMETRIC[featurizer], encoder=(8,))
    write(cv, "plumed", tmp_path)
    compare(cv, tmp_path, traj.positions, f"PLUMED text, ideal {n_dims}-D, {featurizer}")


@pytest.mark.parametrize("featurizer", ["principal", "reference"])
@pytest.mark.parametrize("unit", ["nm", "angstrom"])
def test_masses_units_atom_numbers_and_odd_networks(unit, featurizer, tmp_path):
    require("plumed")
    traj = dataclasses.replace(ideal(3), masses=[12.011, 1.008, 15.999, 3, 7, 1, 2], length_unit=unit)
    cv = random_model(traj, FEATURIZERS[featurizer], encoder=(5, 1) if unit == "nm" else (), latent_dim=1)
    atoms = "30-33,4,8,5"
    write(cv, "plumed", tmp_path, atoms=atoms)
    compare(cv, tmp_path, traj.positions, f"PLUMED text, masses, {unit}, {featurizer}", atoms=atoms)


@pytest.mark.parametrize("featurizer", FEATURIZERS)
@pytest.mark.parametrize("what", ["flat in 3-D", "a bead and the centre at the origin"])
def test_numbers_that_are_exactly_zero_keep_their_derivative(what, featurizer, tmp_path):
    require("plumed")
    frames = ideal(3).positions.copy()
    if "flat" in what:
        frames[:, :, 2] = 0
    else:
        frames = np.round(frames * 64)
        frames[:, 6] = -frames[:, :6].sum(axis=1)
        frames[:, 3], frames[:, 2] = 0, frames[:, 2] + frames[:, 3]
        frames /= 64
        assert not frames.sum(axis=1).any()
    cv = random_model(ideal(3), FEATURIZERS[featurizer], encoder=(8,))
    write(cv, "plumed", tmp_path)
    compare(cv, tmp_path, frames, f"PLUMED text, {what}, {featurizer}")


def test_a_branched_molecule_is_made_whole_along_its_bonds(tmp_path):
    require("plumed")
    bonds = [[0, 1], [1, 2], [2, 3], [1, 4], [4, 5], [1, 6]]
    rng = np.random.default_rng(0)
    x = np.zeros((20, 7, 3), np.float32)
    for i, j in bonds:
        x[:, j] = x[:, i] + rng.normal(size=(20, 3))
    traj = pv.Trajectory(x, bonds=bonds)
    cv = random_model(traj, pv.Reference(), encoder=(8,))
    path = walk(cv)
    assert set(path) == set(range(7))
    assert all(sorted(step) in bonds for step in itertools.pairwise(path))
    length = 2 * np.abs(x[:, [0, 1, 2, 1, 4, 1]] - x[:, 1:]).max()
    for dialect in ("vector", "native"):
        write(cv, "plumed", tmp_path / dialect, dialect=dialect)
        compare(cv, tmp_path / dialect, x, f"PLUMED {dialect}, branched", length=length)


def test_what_plumed_cannot_do_is_refused(tmp_path):
    cv = random_model(ideal(3), pv.PrincipalAxes(sign="none"), encoder=(8,))
    with pytest.raises(InputError, match=r'sign="none".*sign="chain".*native'):
        write(cv, "plumed", tmp_path)
    cv = random_model(ideal(3), pv.PrincipalAxes(), encoder=(8,))
    with pytest.raises(InputError, match="vector, native.*'lepton'"):
        write(cv, "plumed", tmp_path, dialect="lepton")
    with pytest.raises(InputError, match="vector, native.*'ann'"):
        write(cv, "plumed", tmp_path, dialect="ann")
    for atoms, text in (
        ("1-6", r"7 beads.*6 .*\(1-6\).*--atoms 1-7"),
        ("0-6", "from 1 .*got 0"),
        ("1-6,3", "got 3 twice"),
        ("1-6,x", "1-12,20.*'x'"),
        ([1, 2, 3, 4, 5, 6, -7], "got -7"),
    ):
        with pytest.raises(InputError, match=text):
            write(cv, "plumed", tmp_path, atoms=atoms)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("bias", "unit", "dialect"),
    [("METAD", "sigma", "vector"), ("OPES_METAD", "angstrom", "vector"), ("METAD", "nm", "native")],
)
def test_the_input_runs_in_the_driver_and_its_biases_work(bias, unit, dialect, tmp_path):
    """The README's own `plumed driver` in the folder, after taking one "#" away."""
    require("plumed")
    traj = dataclasses.replace(chain("chain3d"), length_unit=unit)
    cv = random_model(traj, pv.Reference())
    write(cv, "plumed", tmp_path, data=traj, dialect=dialect)
    text = (tmp_path / "plumed.dat").read_text().replace(f"# {bias} ", f"{bias} ")
    text = text.replace("STRIDE=100", "STRIDE=1 FMT=%.12f").replace("PACE=500", "PACE=5")
    (tmp_path / "plumed.dat").write_text(text)
    with (tmp_path / "frames.xyz").open("w") as file:
        for frame in traj.positions.astype(float):
            file.write(f"{len(frame)}\n0 0 0\n")
            np.savetxt(file, frame, fmt="X %.17g %.17g %.17g")
    readme = (tmp_path / "README.md").read_text().splitlines()
    (command,) = [line.split() for line in readme if line.startswith("plumed driver ")]
    command[0] = Path(sys.executable).parent / "plumed"
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    printed = np.loadtxt(tmp_path / "COLVAR")
    np.testing.assert_allclose(printed[:, 1:3], float64_values(cv, traj.positions)[0], atol=1e-8)
    deposited = np.loadtxt(tmp_path / {"METAD": "HILLS", "OPES_METAD": "KERNELS"}[bias])
    assert len(deposited) >= 9
    grid = np.array(
        [[float(v) for v in word.split("=")[1].split(",")] for word in text.split() if "GRID_M" in word]
    )
    z = cv.transform(traj)
    assert (grid[0] < z.min(axis=0)).all()
    assert (grid[1] > z.max(axis=0)).all()


def metadynamics(cv, traj, force_field, folder, n_steps, monkeypatch, **options) -> tuple[np.ndarray, ...]:
    """Langevin dynamics of a chain from the first frame, biased by the exported input: every tenth frame, the
    latents that PLUMED printed of them, and the hills."""
    write(cv, "plumed", folder, data=traj, **options)
    text = (folder / "plumed.dat").read_text().replace("# METAD", "METAD").replace("PACE=500", "PACE=20")
    text = text.replace("FILE=HILLS", "FILE=HILLS FMT={ %.14g}")
    (folder / "plumed.dat").write_text(text.replace("STRIDE=100", "STRIDE=10 FMT=%.12f"))
    monkeypatch.chdir(folder)
    dt = chain_simulation().DT
    engine = _engine(12, dt)
    bond_k = chain_simulation().BOND_K

    def energy(x):
        d = geometry.distances(x, np.stack(np.triu_indices(12, 2), axis=1)) ** -6
        b = x[1:] - x[:-1]
        bonds = jnp.sqrt(jnp.sum(b**2, axis=1))
        cosine = jnp.sum(b[1:] * b[:-1], axis=1) / (bonds[1:] * bonds[:-1])
        lj = 4 * force_field.epsilon * jnp.sum(d**2 - d)
        return lj + jnp.sum(bond_k * (bonds - 1) ** 2) + force_field.angle_k * jnp.sum(2 * (1 - cosine))

    gradient = jax.jit(jax.grad(energy))
    rng = np.random.default_rng(1)
    x, v, frames = traj.positions[0].astype(float), rng.normal(size=(12, 2)), []
    keep = np.exp(-dt)
    for step in range(n_steps):
        if step % 10 == 0:
            frames.append(x)
        with jax.enable_x64(True):
            force = -np.asarray(gradient(x)) + _biasing_force(engine, step, x)
        v = keep * (v + dt * force) + np.sqrt(1 - keep**2) * rng.normal(size=v.shape)
        x = x + dt * v
    engine.finalize()
    return np.array(frames), np.loadtxt("COLVAR")[:, 1:3], np.loadtxt("HILLS")


def test_metadynamics_of_the_chain_driven_from_python(tmp_path, monkeypatch):
    require("plumed")
    traj = chain("chain2d")
    cv = random_model(traj, pv.PrincipalAxes())
    frames, printed, hills = metadynamics(cv, traj, chain_simulation().FLAT, tmp_path, 400, monkeypatch)
    difference = np.abs(printed - float64_values(cv, frames)[0]).max()
    print(f"\nPLUMED, metadynamics: printed latents differ by {difference:.1e}; {len(hills)} hills")
    assert difference <= 1e-8
    assert len(hills) >= 19
    np.testing.assert_allclose(printed, cv.transform(frames), atol=1e-5)


@pytest.mark.long
def test_metadynamics_on_the_action_and_on_text_have_the_same_hills(tmp_path, monkeypatch):
    """Of the globule of the free-energy example, 1,000 steps. Rounding grows along a trajectory, so hills late in
    it differ by more than their last digits."""
    require("plumed")
    traj = chain("chain2d")
    globule = dataclasses.replace(chain_simulation().FLAT, epsilon=3.0)
    cv = random_model(traj, pv.PairDistances(every=2), encoder=(16, 16))
    found = {}
    for dialect in ("vector", "native"):
        place = tmp_path / dialect
        found[dialect] = metadynamics(cv, traj, globule, place, 1000, monkeypatch, dialect=dialect)[2]
    size = np.abs(found["vector"]).max(axis=0)
    difference = np.abs(found["native"] - found["vector"]) / size
    print(f"\n{len(difference)} hills differ by {difference.max():.1e}, the first ten {difference[:10].max():.1e}")
    assert len(difference) >= 49
    assert difference[:10].max() < 1e-12
    assert difference.max() < 1e-8


@pytest.mark.parametrize(
    ("name", "featurizer"),
    [
        ("chain2d", pv.PrincipalAxes(mirror=True, reversal=True)),
        ("chain3d", pv.Reference()),
        pytest.param("chain3d", pv.PairDistances(reversal=True), marks=pytest.mark.long),
    ],
    ids=["principal, all", "reference", "distances"],
)
def test_native_action(name, featurizer, tmp_path):
    require("plumed")
    traj = chain(name)
    cv = random_model(traj, featurizer)
    atoms = f"3-9,60,11-{cv.n_beads + 2}"
    write(cv, "plumed", tmp_path, dialect="native", atoms=atoms)
    what = f"PLUMED native, {name}, {type(featurizer).__name__}"
    compare(cv, tmp_path, traj.positions, what, length=LENGTH, atoms=atoms)


def test_an_action_that_is_not_compiled(tmp_path, monkeypatch, caplog):
    """Without a compiler the sources are written, with a script that compiles them, and the log says so."""
    require("plumed")
    cv = random_model(ideal(3), pv.Reference(), encoder=(4,))
    monkeypatch.setenv("CXX", "no-such-compiler")
    write(cv, "plumed", tmp_path, dialect="native")
    assert "CXX names no-such-compiler" in caplog.text
    assert not (tmp_path / "LatentCV.so").exists()
    with pytest.raises(InputError, match="CXX names no-such-compiler"):
        plumed.evaluate(tmp_path, cv, ideal(3).positions)
    monkeypatch.delenv("CXX")
    subprocess.run(["sh", tmp_path / "compile.sh"], check=True)
    assert (tmp_path / "LatentCV.so").exists()
    compare(cv, tmp_path, ideal(3).positions, "PLUMED native, by compile.sh")

    # The library of an earlier model must not stay beside the sources of another.
    monkeypatch.setenv("CXX", "no-such-compiler")
    write(
        random_model(ideal(3), pv.Reference(), encoder=(4,), seed=1),
        "plumed",
        tmp_path,
        dialect="native",
        force=True,
    )
    assert not (tmp_path / "LatentCV.so").exists()


def test_the_virial_is_that_of_the_forces(tmp_path, monkeypatch):
    """For constant pressure: -sum_i r_i f_i, once, whichever way the CV is computed."""
    require("plumed")
    traj = ideal(2)
    cv = random_model(traj, pv.PrincipalAxes(), encoder=(4,))
    for dialect, z0 in (("vector", "z0"), ("native", "latent.z0")):
        folder = tmp_path / dialect
        write(cv, "plumed", folder, dialect=dialect)
        (folder / "plumed.dat").write_text((folder / "plumed.dat").read_text() + f"BIASVALUE ARG={z0}\n")
        monkeypatch.chdir(folder)
        x, virial = traj.positions[0].astype(float) + 5, np.zeros((3, 3))
        forces = _biasing_force(_engine(7, 1.0), 0, x, virial)
        assert np.abs(forces).max() > 0.01
        np.testing.assert_allclose(virial[:2, :2], -x.T @ forces, atol=1e-12)


def _engine(n_atoms: int, dt: float):
    import plumed as engine

    engine = engine.Plumed()
    engine.cmd("setNaturalUnits")
    engine.cmd("setNatoms", n_atoms)
    engine.cmd("setMDEngine", "python")
    engine.cmd("setTimestep", dt)
    engine.cmd("setKbT", 1.0)
    engine.cmd("setPlumedDat", "plumed.dat")
    engine.cmd("setLogFile", os.devnull)
    engine.cmd("init")
    return engine


def _biasing_force(engine, step: int, x: np.ndarray, virial: np.ndarray | None = None) -> np.ndarray:
    n = len(x)
    positions, forces = np.zeros((n, 3)), np.zeros((n, 3))
    positions[:, :2] = x
    arrays = {
        "Masses": np.ones(n),
        "Charges": np.zeros(n),
        "Virial": np.zeros((3, 3)) if virial is None else virial,
    }
    arrays |= {"Positions": positions, "Forces": forces}
    engine.cmd("setStep", step)
    for name, array in arrays.items():
        engine.cmd(f"set{name}", array)
    engine.cmd("calc")
    return forces[:, :2]

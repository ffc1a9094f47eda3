"""The CV in PySAGES, where it is installed; and as a pure function in a metadynamics of one's own in JAX."""

import dataclasses
import importlib.util
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ideal_chains, simulated
from models import untrained

import polyvae as pv
from polyvae.export import write
from polyvae.export.pysages import latent_cvs

HERE = importlib.util.find_spec("pysages") is not None
ABSENT = "PySAGES is not on the package index: pip install git+https://github.com/SSAGESLabs/PySAGES.git ase"

# In a process of its own: importing PySAGES turns on double precision and sets environment variables.
COMPARE = """
import sys
import jax, numpy as np, pysages
from pysages.colvars.core import build
from collections import namedtuple
import polyvae as pv
from polyvae.export.pysages import latent_cvs

cv, frames = pv.load(sys.argv[1]), np.load(sys.argv[2])
particles = [*range(cv.n_beads + 1, 1, -1)]
Snapshot = namedtuple("Snapshot", "positions indices")
evaluate = build(*latent_cvs(cv, particles, length_unit="nm", sigma=0.47, n_particles=cv.n_beads + 2))
value, slope_of, worst = jax.jit(cv), jax.jit(jax.jacrev(cv)), np.zeros(2)
for frame in frames:
    positions = np.zeros((cv.n_beads + 2, 3))
    positions[particles, : cv.n_dims] = 0.47 * frame
    xi, slope = evaluate(Snapshot(positions, np.arange(len(positions))))
    exact, expected = value(frame), np.zeros((cv.latent_dim, *positions.shape))
    expected[:, particles, : cv.n_dims] = slope_of(frame) / 0.47
    error = [abs(xi.ravel() - exact).max(), abs(slope.reshape(expected.shape) - expected).max()]
    worst = np.maximum(worst, error)
print(*worst)
"""

BIASED = """
import sys
import ase, ase.md, ase.units, jax, numpy as np, pysages
from ase.calculators.calculator import Calculator, all_changes
from pysages.methods import Metadynamics
import polyvae as pv
from polyvae.export.pysages import latent_cvs

cv = pv.load(sys.argv[1])


class Chain(Calculator):
    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        x = atoms.get_positions()
        bond = np.diff(x, axis=0)
        length = np.linalg.norm(bond, axis=1)[:, None]
        pull = 10 * (length - 1) * bond / length
        forces = np.zeros_like(x)
        forces[:-1] += pull
        forces[1:] -= pull
        self.results = {"energy": 5 * ((length - 1) ** 2).sum(), "forces": forces}


def simulation():
    start = np.zeros((cv.n_beads, 3))
    start[:, : cv.n_dims] = cv.template.positions[0]
    atoms = ase.Atoms(f"Ar{cv.n_beads}", positions=start)
    atoms.calc = Chain()
    rng = np.random.default_rng(0)
    return ase.md.Langevin(atoms, ase.units.fs, temperature_K=300, friction=0.01, rng=rng)


seen = []


def watch(snapshot, state, step):
    seen.append((np.array(snapshot.positions), np.array(state.xi).ravel()))


cvs = latent_cvs(cv, range(cv.n_beads), length_unit="angstrom", sigma=1.0)
method = Metadynamics(cvs, 0.05, [0.1, 0.1], 10, 11)
run = pysages.run(method, simulation, 100, callback=watch)
print(np.count_nonzero(run.states[0].heights), max(abs(cv(x[:, : cv.n_dims]) - xi).max() for x, xi in seen))
"""


def in_another_process(code: str, *arguments) -> list[float]:
    words = [sys.executable, "-c", code, *map(str, arguments)]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    return [float(word) for word in said.stdout.split()]


@pytest.mark.skipif(not HERE, reason=ABSENT)
@pytest.mark.parametrize("name", ["chain2d", "chain3d"])
@pytest.mark.parametrize("kind", [pv.PrincipalAxes, pv.Reference, pv.PairDistances])
def test_value_and_gradient_in_pysages(tmp_path, name, kind):
    traj, featurizer = simulated(name), kind()
    untrained(traj, featurizer=featurizer).save(tmp_path / "model.safetensors")
    np.save(tmp_path / "frames.npy", traj.positions[:: len(traj) // 50][:50].astype(float))
    value, gradient = in_another_process(COMPARE, tmp_path / "model.safetensors", tmp_path / "frames.npy")
    print(f"\n{name} {kind.__name__:14s} value {value:.1e}, gradient {gradient:.1e} per nm", end="")
    assert max(value, gradient) <= 1e-10


@pytest.mark.skipif(not (HERE and importlib.util.find_spec("ase")), reason=ABSENT)
def test_a_biased_run_in_pysages_with_ase(tmp_path):
    untrained(simulated("chain3d"), featurizer=pv.Reference()).save(tmp_path / "model.safetensors")
    n_hills, error = in_another_process(BIASED, tmp_path / "model.safetensors")
    assert n_hills >= 9
    assert error <= 1e-10


@pytest.mark.skipif(not (HERE and importlib.util.find_spec("ase")), reason=ABSENT)
@pytest.mark.parametrize(("name", "unit"), [("chain2d", "sigma"), ("chain3d", "nm")])
def test_the_exported_script_runs_as_it_is(tmp_path, name, unit):
    """On beads in another order among other particles; `--check` agrees too."""
    out, model = tmp_path / "out", tmp_path / "model.safetensors"
    traj = dataclasses.replace(simulated(name), length_unit=unit)
    cv = untrained(traj)
    cv.save(model)
    atoms = list(range(cv.n_beads + 1, 1, -1))
    write(cv, "pysages", out, atoms=[number + 1 for number in atoms], data=traj)
    words = [sys.executable, "-W", "error::UserWarning", str(out / "biased_run.py"), "300"]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert float(said.stdout.split()[-1]) < 1e-4
    biased, z = pv.read(out / "biased.npz"), np.loadtxt(out / "COLVAR")[:, 1:]
    np.testing.assert_allclose(cv.transform(biased), z, atol=1e-4)
    bonds = np.linalg.norm(np.diff(biased.positions, axis=1), axis=2)
    assert abs(bonds.mean() / np.linalg.norm(np.diff(cv.template.positions[0], axis=0), axis=1).mean() - 1) < 0.1

    numbers = ",".join(str(number + 1) for number in atoms)
    words = [sys.executable, "-m", "polyvae", "export", model, "--to", "pysages", "--atoms", numbers]
    files = [tmp_path / "frames.npz", "--out", tmp_path / "checked"]
    pv.write(files[0], traj[:50])
    said = subprocess.run([*words, "--check", *files], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert max(map(float, re.findall(r"\d\.\de[-+]\d+", said.stdout))) <= 1e-10
    assert f"PARTICLES = {atoms}" in (tmp_path / "checked" / "biased_run.py").read_text()


@pytest.mark.skipif(HERE, reason="PySAGES is installed")
def test_without_pysages_it_says_what_to_install():
    cv = untrained(pv.Trajectory(ideal_chains(20, 8, 3)))
    with pytest.raises(pv.InputError, match=r"pip install git\+https"):
        latent_cvs(cv, range(8), length_unit="sigma")


def test_the_exported_script_is_one(tmp_path):
    """Without PySAGES: widths and bounds from the data, or of a standard normal."""
    traj = pv.Trajectory(ideal_chains(200, 8, 3), length_unit="nm")
    cv = untrained(traj)
    for given, spread in ((traj, cv.transform(traj).std(axis=0)), (None, np.ones(2))):
        write(cv, "pysages", tmp_path, data=given, force=True)
        text = (tmp_path / "biased_run.py").read_text()
        compile(text, "biased_run.py", "exec")
        (grid,) = re.findall(r"MINIMUM, MAXIMUM, WIDTH, BINS = (.*)", text)
        low, high, width, bins = map(np.array, eval(grid))
        np.testing.assert_allclose(width, 0.2 * spread, rtol=0.06)
        np.testing.assert_allclose((high - low) / bins, width / 5, rtol=1e-3)
        assert "SIGMA = None" in text


def test_metadynamics_of_ones_own_in_jax():
    """Langevin dynamics of many chains, a hill every 20 steps: the CV under jit, grad, vmap and scan."""
    cv = untrained(pv.Trajectory(ideal_chains(200, 8, 3)), featurizer=pv.PairDistances())
    width, height, step, n_hills = 0.1, 0.5, 0.002, 20

    def bias(x, centers, present):
        far = jnp.sum((cv(x)[None, :] - centers) ** 2, axis=1) / (2 * width**2)
        return height * jnp.sum(present * jnp.exp(-far))

    def energy(x, *hills):
        bonds = jnp.sqrt(jnp.sum(jnp.diff(x, axis=0) ** 2, axis=1))
        return 50 * jnp.sum((bonds - 1) ** 2) + bias(x, *hills)

    def metadynamics(x, key, height_on):
        def deposit(carry, k):
            x, centers, present, key = carry

            def move(x, key):  # Brownian dynamics at kT = 1
                force = -jax.grad(energy)(x, centers, present)
                return x + step * force + jnp.sqrt(2 * step) * jax.random.normal(key, x.shape), None

            key, sub = jax.random.split(key)
            x, _ = jax.lax.scan(move, x, jax.random.split(sub, 20))
            z = cv(x)
            return (x, centers.at[k].set(z), present.at[k].set(height_on), key), (x, z)

        start = (x, jnp.zeros((n_hills, cv.latent_dim)), jnp.zeros(n_hills), key)
        (_, centers, present, _), (frames, z) = jax.lax.scan(deposit, start, jnp.arange(n_hills))
        return centers, present, frames, z

    start = jnp.asarray(np.cumsum(np.eye(3)[[0, 1, 2, 0, 1, 2, 0, 1]], axis=0), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 32)
    run = jax.jit(jax.vmap(metadynamics, in_axes=(None, 0, None)))
    centers, present, frames, z = run(start, keys, 1.0)
    assert float(present.sum()) == n_hills * len(keys)
    np.testing.assert_array_equal(centers, z)
    np.testing.assert_allclose(cv.transform(np.asarray(frames).reshape(-1, 8, 3)), z.reshape(-1, 2), atol=2e-5)
    free = run(start, keys, 0.0)[3]
    spread, free_spread = (np.ptp(np.asarray(a), axis=1).mean() for a in (z, free))
    print(f"\nrange of the CV within a run, 32 runs: {spread:.3f} with hills, {free_spread:.3f} without", end="")
    assert spread > free_spread  # same noise, so hills alone make the difference

    x, hills = frames[0, -1], (centers[0], present[0])
    slope, direction = jax.grad(bias)(x, *hills), jax.random.normal(jax.random.key(1), x.shape)
    with jax.enable_x64(True):
        wide = [jnp.asarray(a, jnp.float64) for a in (x, direction, *hills)]
        h = 1e-5
        difference = (bias(wide[0] + h * wide[1], *wide[2:]) - bias(wide[0] - h * wide[1], *wide[2:])) / (2 * h)
    assert float(jnp.sum(slope * direction)) == pytest.approx(float(difference), rel=1e-3, abs=1e-4)

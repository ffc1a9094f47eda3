"""The CV in OpenMM: the engine's own values and forces against JAX in double precision, and a biased run."""

import dataclasses
import functools
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import simulated
from engines import require
from models import untrained

import polyvae as pv
from polyvae.export import kernel, openmm_state, write
from polyvae.export import openmm as engine
from polyvae.trajectory.record import chain_bonds

try:
    import openmm
    from openmm import app
except ImportError:
    if os.environ.get("POLYVAE_REQUIRE_ENGINES") == "1":
        raise
    pytest.skip("OpenMM is not installed: pip install 'polyvae[openmm]'", allow_module_level=True)

SIGMA = 0.47  # nm, as in a coarse-grained model
TOLERANCE = 1e-10
N_FRAMES = 50
# Lower triangular and reduced, as OpenMM wants it, and smaller than the chains; in sigma.
BOXES = {
    "free": None,
    "rectangular": np.diag([3.5, 4.0, 4.5]),
    "triclinic": np.array([[4.0, 0, 0], [1.3, 4.2, 0], [-1.1, 0.9, 4.5]]),
}
MODELS = {
    ("chain2d", "principal axes"): pv.PrincipalAxes(),
    ("chain2d", "reference, in-plane"): pv.Reference(),
    ("chain2d", "pair distances"): pv.PairDistances(),
    ("chain3d", "principal axes"): pv.PrincipalAxes(),
    ("chain3d", "reference"): pv.Reference(),
    ("chain3d", "pair distances"): pv.PairDistances(),
}


@functools.cache
def model(name: str, kind: str = "principal axes") -> pv.LatentCV:
    return untrained(simulated(name), featurizer=MODELS[name, kind])


@functools.cache
def reference(name: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    return by_jax(model(name, kind), every(N_FRAMES, simulated(name)))


def by_jax(cv, frames) -> tuple[np.ndarray, np.ndarray]:
    """Values (n, latent) and gradients (n, latent, beads, dims) in double precision."""
    with jax.enable_x64(True):
        frames = jnp.asarray(frames, jnp.float64)
        slope, value = jax.jit(jax.vmap(jax.jacrev(lambda x: (cv(x),) * 2, has_aux=True)))(frames)
        return np.asarray(value), np.asarray(slope)


def in_space(frames: np.ndarray) -> np.ndarray:
    """Frames as float64 with a z; of 2-D frames one that the model must not see."""
    frames = np.asarray(frames, float)
    if frames.shape[2] == 2:
        height = 0.1 * np.random.default_rng(0).normal(size=(*frames.shape[:2], 1))
        frames = np.concatenate([frames, height], axis=2)
    return frames


def every(n: int, traj: pv.Trajectory) -> np.ndarray:
    return traj.positions[np.linspace(0, len(traj) - 1, n).astype(int)]


@pytest.mark.long
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize(("name", "kind"), MODELS)
def test_value_and_gradient_are_those_of_jax(name, kind, box):
    cv, frames = model(name, kind), every(N_FRAMES, simulated(name))
    rng = np.random.default_rng(1)
    particles = rng.permutation(cv.n_beads + 4)[: cv.n_beads]  # other particles, and another order
    positions = rng.normal(size=(N_FRAMES, cv.n_beads + 4, 3))
    positions[:, particles] = in_space(frames)
    if BOXES[box] is not None:  # every particle in an image of its own
        positions += rng.integers(-2, 3, size=positions.shape) @ BOXES[box]
    forces = engine.latent_forces(
        cv, particles, periodic=box != "free", bonds=chain_bonds(cv.n_beads), sigma=SIGMA
    )
    values, gradients = engine.evaluate_forces(
        forces, SIGMA * positions, None if box == "free" else SIGMA * BOXES[box]
    )
    assert values.dtype == gradients.dtype == np.float64

    exact, slope = reference(name, kind)
    expected = np.zeros_like(gradients)
    expected[:, :, particles, : cv.n_dims] = slope / SIGMA
    value_error, gradient_error = np.abs(values - exact).max(), np.abs(gradients - expected).max()
    print(
        f"\n{name:8s} {kind:32s} {box:12s} value {value_error:.1e}  gradient {gradient_error:.1e} per nm", end=""
    )
    assert value_error <= TOLERANCE
    assert gradient_error <= TOLERANCE


@pytest.mark.long
def test_units_and_masses():
    """The model in Å, the engine in nm; masses and a reference on a grid go with the model."""
    frames = simulated("chain3d").positions[:200]
    traj = pv.Trajectory(10 * frames, masses=np.linspace(1, 5, 24), length_unit="angstrom")
    cv = untrained(traj, featurizer=pv.Reference(traj[0], pdb_grid=True))
    values, gradients = engine.evaluate_forces(
        engine.latent_forces(cv, range(24), periodic=False), frames[:9] * 1.0
    )
    exact, slope = by_jax(cv, 10.0 * frames[:9].astype(float))
    assert np.abs(values - exact).max() <= TOLERANCE
    assert np.abs(gradients - 10 * slope).max() <= TOLERANCE


def chain_system(n: int = 12, flat: bool = True) -> openmm.System:
    """A bead-spring chain like that of data/: bonds, angles, Lennard-Jones; kT = 1 kJ/mol, sigma = SIGMA."""
    system = openmm.System()
    for _ in range(n):
        system.addParticle(1.0)
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    for i in range(n - 1):
        bonds.addBond(i, i + 1, SIGMA, 200 / SIGMA**2)
    for i in range(n - 2):
        angles.addAngle(i, i + 1, i + 2, np.pi, 4.0)
    pairs = openmm.CustomNonbondedForce(f"8 * ((s / r)^12 - (s / r)^6); s = {SIGMA}")
    pairs.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffNonPeriodic)
    pairs.setCutoffDistance(2.5 * SIGMA)
    for _ in range(n):
        pairs.addParticle([])
    pairs.createExclusionsFromBonds([(i, i + 1) for i in range(n - 1)], 1)
    for force in (bonds, angles, pairs):
        system.addForce(force)
    if flat:
        plane = openmm.CustomExternalForce(f"100 * (z / {SIGMA})^2")
        for i in range(n):
            plane.addParticle(i)
        system.addForce(plane)
    return system


def metadynamics(cv, system, temperature=1 / 0.00831446, **options):
    """Metadynamics at kT = 1 kJ/mol on both latents, a hill of 1 kT every 50 steps."""
    variables = engine.bias_variables(cv, range(12), system=system, sigma=SIGMA, **options)
    return app.Metadynamics(system, variables, temperature, 10, 1.0, 50)


def simulation_of(system, start) -> app.Simulation:
    topology = app.Topology()
    residue = topology.addResidue("CHA", topology.addChain())
    for k in range(system.getNumParticles()):
        topology.addAtom(f"B{k}", None, residue)
    tau = SIGMA  # mass 1 Da, kT = 1 kJ/mol
    integrator = openmm.LangevinMiddleIntegrator(1 / 0.00831446, 1 / tau, 0.005 * tau)
    integrator.setRandomNumberSeed(1)
    platform = openmm.Platform.getPlatformByName("CPU")
    simulation = app.Simulation(topology, system, integrator, platform, {"Threads": "1"})
    simulation.context.setPositions(start)
    simulation.context.setVelocitiesToTemperature(1 / 0.00831446, 1)
    return simulation


def test_a_biased_run_deposits_hills_on_the_cv_of_the_frames_that_it_writes(tmp_path):
    cv, system = model("chain2d", "reference, in-plane"), chain_system()
    run = metadynamics(cv, system, data=simulated("chain2d"))
    start = SIGMA * in_space(simulated("chain2d").positions[:1])[0] * [1, 1, 0]
    simulation = simulation_of(system, start)
    simulation.reporters.append(app.DCDReporter(str(tmp_path / "run.dcd"), 50))
    n_hills = 40
    z, biases = [], []
    for _ in range(n_hills):
        run.step(simulation, 50)
        z.append(run.getCollectiveVariables(simulation))
        biases.append(-run.getFreeEnergy()._value.min() * 0.9)  # the bias, where it is highest
    del simulation.reporters[:]
    z = np.array(z)

    assert biases[0] == pytest.approx(1, rel=0.2)  # on a grid of a fifth of the width
    assert np.all(np.diff(biases) >= 0)
    assert 1 < biases[-1] <= n_hills
    angstroms = pv.read(tmp_path / "run.dcd", length_unit="angstrom", dims=3).positions
    assert len(angstroms) == n_hills
    frames = angstroms.astype(float)[:, :, :2] / (10 * SIGMA)
    exact, slope = by_jax(cv, frames)
    # The file holds single precision: half a unit in the last place of every coordinate, along the gradient.
    rounding = 0.5 * np.spacing(np.abs(angstroms[:, :, :2])) / (10 * SIGMA)
    bound = np.einsum("nkbd,nbd->nk", np.abs(slope), rounding)
    assert np.all(np.abs(z - exact) <= 1.5 * bound + 1e-9)
    print(f"\n{n_hills} hills; CV against that of the DCD's frames: {np.abs(z - exact).max():.1e}", end="")


@pytest.mark.parametrize("name", ["chain2d", pytest.param("chain3d", marks=pytest.mark.long)])
def test_without_a_compiler_the_cv_runs_in_jax(name, monkeypatch):
    cv = model(name, "reference, in-plane" if name == "chain2d" else "reference")
    frames = SIGMA * in_space(every(8, simulated(name)))
    found = {}
    for words in ("C", "JAX"):
        monkeypatch.setattr(kernel, "compiler", lambda words=words: ("cc",) if words == "C" else None)
        assert words in kernel.where()
        openmm_state.joint_of.cache_clear()
        forces = engine.latent_forces(cv, range(cv.n_beads), periodic=False, sigma=SIGMA)
        found[words] = engine.evaluate_forces(forces, frames)
    openmm_state.joint_of.cache_clear()
    for by_c, by_jax in zip(found["C"], found["JAX"], strict=True):
        np.testing.assert_allclose(by_c, by_jax, atol=1e-12 * np.abs(by_jax).max())


def test_positions_of_a_state_are_those_that_openmm_gives():
    """By the quick way and, where an OpenMM has it no more, by the public one; a copy in either case."""
    system = openmm.System()
    for _ in range(5):
        system.addParticle(1.0)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    frame = np.random.default_rng(0).normal(size=(5, 3))
    context.setPositions(frame)
    state = context.getState(positions=True)
    public = SimpleNamespace(getPositions=state.getPositions)
    for found in (openmm_state.positions_of(state, 5), openmm_state.positions_of(public, 5)):
        np.testing.assert_array_equal(found, frame)
        found[:] = 0
    np.testing.assert_array_equal(openmm_state.positions_of(public, 5), frame)


def test_all_latents_are_evaluated_together(monkeypatch):
    cv = model("chain2d", "pair distances")
    evaluated, at = [], openmm_state.Joint.at

    def counted(joint, state):
        before = joint.last
        result = at(joint, state)
        evaluated.extend([0] * (joint.last is not before))
        return result

    monkeypatch.setattr(openmm_state.Joint, "at", counted)
    openmm_state.joint_of.cache_clear()
    forces = engine.latent_forces(cv, range(12), periodic=False, sigma=SIGMA)
    frames = SIGMA * in_space(every(4, simulated("chain2d")))
    values, _ = engine.evaluate_forces(forces, frames)
    assert openmm_state.joint_of.cache_info().currsize == 1  # all copies find each other
    assert len(evaluated) == len(frames)
    again, _ = engine.evaluate_forces(forces, frames[[0, 1, 0, 1]])
    np.testing.assert_array_equal(again, values[[0, 1, 0, 1]])


def bowl(z: np.ndarray) -> tuple[float, np.ndarray]:
    """An energy that knows how its latents are ordered, and its slope."""
    by = np.array([3.0, -2.0])
    return float(by @ z**2), 2 * by * z


def flat(z: np.ndarray) -> tuple[float, None]:
    return 7.0, None


def test_a_bias_force_is_a_function_of_all_latents():
    cv, frames = model("chain2d", "pair distances"), SIGMA * in_space(every(6, simulated("chain2d")))
    z, gradients = engine.evaluate_forces(engine.latent_forces(cv, range(12), periodic=False, sigma=SIGMA), frames)
    for function, energies, slopes in (
        (bowl, [bowl(one)[0] for one in z], [bowl(one)[1] for one in z]),
        (flat, [7.0] * 6, np.zeros((6, 2))),
    ):
        system = openmm.System()
        for _ in range(12):
            system.addParticle(1.0)
        system.addForce(engine.bias_force(cv, range(12), function, system=system, sigma=SIGMA))
        system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
        context = openmm.Context(
            system, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatformByName("Reference")
        )
        for frame, energy, slope, gradient in zip(frames, energies, slopes, gradients, strict=True):
            context.setPositions(frame)
            state = context.getState(energy=True, forces=True)
            assert state.getPotentialEnergy()._value == pytest.approx(energy, rel=1e-12)
            expected = -np.tensordot(slope, gradient, 1)
            np.testing.assert_allclose(state.getForces(asNumpy=True)._value, expected, atol=1e-9)


def test_a_bias_with_too_few_derivatives_is_named():
    cv, system = model("chain2d", "pair distances"), openmm.System()
    for _ in range(12):
        system.addParticle(1.0)
    system.addForce(engine.bias_force(cv, range(12), lambda z: (0.0, [1.0]), system=system, sigma=SIGMA))
    context = openmm.Context(system, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(SIGMA * in_space(every(1, simulated("chain2d")))[0])
    with pytest.raises(Exception, match="a derivative for each of 2 latents; got 1"):
        context.getState(energy=True)


def test_a_system_with_its_bias_goes_through_xml_and_another_process(tmp_path):
    cv, system = model("chain2d"), chain_system()
    metadynamics(cv, system, data=simulated("chain2d"))
    frame = in_space(simulated("chain2d").positions[:1])[0]
    bias = system.getForce(system.getNumForces() - 1)
    linear = openmm.CustomCVForce("cv0 - 2 * cv1")
    for k in range(2):
        linear.addCollectiveVariable(f"cv{k}", pickle.loads(pickle.dumps(bias.getCollectiveVariable(k))))
    system.addForce(linear)
    text = openmm.XmlSerializer.serialize(system)
    (tmp_path / "system.xml").write_text(text)
    np.save(tmp_path / "frame.npy", SIGMA * frame)

    code = f"from polyvae.export import kernel\nkernel.FLAGS = {kernel.FLAGS}\n"  # for the very same numbers
    code += """
import sys, numpy as np, openmm
folder = sys.argv[1]
system = openmm.XmlSerializer.deserialize(open(folder + "/system.xml").read())
context = openmm.Context(system, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatformByName("Reference"))
context.setPositions(np.load(folder + "/frame.npy"))
state = context.getState(energy=True, forces=True)
print(repr(state.getPotentialEnergy()._value))
np.save(folder + "/forces.npy", state.getForces(asNumpy=True)._value)
"""
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    context = openmm.Context(system, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(SIGMA * frame)
    state = context.getState(energy=True, forces=True)
    assert float(said.stdout) == state.getPotentialEnergy()._value
    np.testing.assert_array_equal(np.load(tmp_path / "forces.npy"), state.getForces(asNumpy=True)._value)


def test_a_periodic_system_is_seen_and_a_barostat_may_change_its_box():
    cv, frames = model("chain3d", "pair distances"), every(N_FRAMES, simulated("chain3d")).astype(float)
    system = openmm.System()
    for _ in range(24):
        system.addParticle(1.0)
    pairs = openmm.NonbondedForce()
    pairs.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    for _ in range(24):
        pairs.addParticle(0, 1, 0)
    system.addForce(pairs)
    forces = engine.latent_forces(cv, range(24), system=system, sigma=1.0)  # the bonds are those of the PDB
    assert all(force.usesPeriodicBoundaryConditions() for force in forces)
    system.removeForce(0)
    assert not engine.latent_forces(cv, range(24), system=system, sigma=1.0)[0].usesPeriodicBoundaryConditions()

    cvs = openmm.CustomCVForce("z")
    cvs.addCollectiveVariable("z", forces[0])
    system.addForce(cvs)
    context = openmm.Context(system, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatformByName("Reference"))
    for length in (4.0, 4.5):
        context.setPeriodicBoxVectors(*(length * np.eye(3)))
        context.setPositions(frames[0] % length)
        (z,) = cvs.getCollectiveVariableValues(context)
        assert z == pytest.approx(reference("chain3d", "pair distances")[0][0, 0], abs=TOLERANCE)
    context.setPeriodicBoxVectors(*(2.0 * np.eye(3)))
    with pytest.raises(Exception, match=r"beads \d+ and \d+ .*periodic box"):
        cvs.getCollectiveVariableValues(context)


def test_nothing_global_changes():
    cv = model("chain2d")
    forces = engine.latent_forces(cv, range(12), periodic=False, sigma=SIGMA)
    engine.evaluate_forces(forces, SIGMA * in_space(simulated("chain2d").positions[:1]))
    assert not jax.config.jax_enable_x64
    assert jnp.ones(1).dtype == np.float32
    assert cv(simulated("chain2d").positions[0]).dtype == np.float32


def test_a_2d_model_says_that_it_ignores_z(caplog):
    engine.latent_forces(model("chain2d"), range(12), periodic=False, sigma=SIGMA)
    assert "z of the particles is ignored" in caplog.text


def test_bias_variables_take_data_or_numbers():
    cv, data = model("chain2d"), simulated("chain2d")
    z = cv.transform(data)
    variables = engine.bias_variables(cv, range(12), data=data, width=[0.1, 0.2], periodic=False, sigma=SIGMA)
    for k, variable in enumerate(variables):
        assert variable.minValue < z[:, k].min() < z[:, k].max() < variable.maxValue
        assert variable.biasWidth == [0.1, 0.2][k]
    (first, _) = engine.bias_variables(
        cv, range(12), minimum=-1, maximum=[2, 3], width=0.5, periodic=False, sigma=SIGMA
    )
    assert (first.minValue, first.maxValue, first.biasWidth) == (-1, 2, 0.5)


def test_the_bias_from_data_counts_weights_and_needs_a_latent_that_moves():
    cv, data = model("chain2d"), simulated("chain2d")
    weights = np.r_[np.ones(20), np.zeros(len(data) - 20)]
    found = engine.range_and_width(cv, dataclasses.replace(data, weights=weights))
    np.testing.assert_allclose(found[2], 0.2 * cv.transform(data[:20]).std(axis=0), rtol=1e-5)
    assert abs(found[2] / (0.2 * cv.transform(data).std(axis=0)) - 1).max() > 0.02, "the weights change nothing"
    with pytest.raises(pv.InputError, match="latent 0 .*5 frames"):
        engine.range_and_width(cv, data[[0] * 5])


def test_three_latents_get_a_grid_that_openmm_can_hold_and_four_are_refused(tmp_path):
    """A hill costs a spline over the whole grid: with five points a width it took 40 s in three dimensions."""
    data = simulated("chain2d")
    three, four = (untrained(data, latent_dim=n) for n in (3, 4))
    variables = engine.bias_variables(three, range(12), data=data, periodic=False, sigma=SIGMA)
    for variable in variables:
        spacing = (variable.maxValue - variable.minValue) / variable.gridWidth
        assert 0.4 * variable.biasWidth < spacing <= 0.5 * variable.biasWidth
    assert np.prod([float(variable.gridWidth) for variable in variables]) < 2e6
    with pytest.raises(pv.InputError, match="three variables.*4 latents"):
        write(four, "openmm", tmp_path / "four")
    assert not (tmp_path / "four").exists()


def small_system(n: int) -> openmm.System:
    system = openmm.System()
    for _ in range(n):
        system.addParticle(1.0)
    return system


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"particles": range(11)}, "12 beads.*11 particles"),
        ({"particles": [*range(11), 3]}, "got 3 twice, for beads 3 and 11"),
        ({"particles": range(-1, 11)}, "got -1 for bead 0"),
        ({"particles": range(1, 13), "system": small_system(12)}, "0 to 11; got 12 for bead 11"),
        ({"particles": np.arange(12.0)}, "whole numbers"),
        ({"sigma": None}, "nm one sigma"),
        ({"sigma": -1.0}, "greater than 0"),
        ({"periodic": None}, "system=, or periodic="),
        ({"periodic": True}, "model knows none"),
        ({"periodic": True, "bonds": chain_bonds(11)}, "bead 11 .*not joined"),
        ({"periodic": True, "bonds": chain_bonds(13)}, "join beads 0 to 11"),
    ],
)
def test_bad_use_is_named(arguments, message):
    arguments = {"particles": range(12), "periodic": False, "sigma": SIGMA} | arguments
    with pytest.raises(pv.InputError, match=message):
        engine.latent_forces(model("chain2d"), **arguments)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({}, "give them, or data="),
        ({"minimum": 0, "maximum": 0, "width": 1}, "minimum < maximum"),
        ({"minimum": 0, "maximum": 1, "width": 0}, "width > 0"),
        ({"minimum": [0, 0, 0], "maximum": 1, "width": 1}, "one number, or 2"),
    ],
)
def test_a_bias_without_a_range_is_refused(numbers, message):
    with pytest.raises(pv.InputError, match=message):
        engine.bias_variables(model("chain2d"), range(12), periodic=False, sigma=SIGMA, **numbers)


def test_models_that_no_engine_can_run(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    fitted = pv.fit_vae(vectors, epochs=1, batch_size=64, encoder=(4,), decoder=(4,))
    with pytest.raises(pv.InputError, match="CV of positions.*<FittedVAE"):
        engine.latent_forces(fitted, range(5), periodic=False)
    with pytest.raises(pv.InputError, match="CV of positions"):
        write(fitted, "openmm", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    cv = untrained(pv.Trajectory(simulated("chain3d").positions[:9], length_unit="nm"))
    with pytest.raises(pv.InputError, match="in nm; leave"):
        engine.latent_forces(cv, range(24), periodic=False, sigma=1.0)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "atoms", "bias"),
    [("chain2d", None, "metad"), ("chain3d", list(range(26, 2, -1)), "metad"), ("chain3d", None, "opes")],
)
def test_the_exported_script_runs_as_it_is(tmp_path, name, atoms, bias):
    if bias == "opes":
        require("openmm_opes")
    out = tmp_path / "out"
    write(model(name), "openmm", out, data=simulated(name), atoms=atoms, bias=bias)
    words = [sys.executable, "-W", "error::UserWarning", str(out / "biased_run.py"), "1500"]
    said = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert float(said.stdout.split()[-1]) < 1e-4
    biased = pv.read(out / "biased.npz")
    assert len(biased) == 3
    assert np.isfinite(np.load(out / "free_energy.npy")).any()
    assert (biased.weights > 0).all()
    assert biased.weights.max() == 1
    assert "the CV runs as C" in said.stdout
    readme = (out / "README.md").read_text()
    assert "1 sigma taken as 1 nm" in readme
    assert ("z is ignored" in readme) == (name == "chain2d")
    with pytest.raises(pv.InputError, match="holds files already"):
        write(model(name), "openmm", out)
    assert "goes on with the bias" not in said.stdout
    earlier = bias_left(out)
    words[-1] = "500"
    assert "goes on with the bias" in subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert bias_left(out) > earlier, "the second run did not keep its bias beside the first one's"
    with pytest.raises(pv.InputError, match="bias .*earlier export"):
        write(model(name), "openmm", out, force=True)


def bias_left(out) -> float:
    """The bias that all runs in a folder left: summed over the grids of metadynamics, or samples of OPES."""
    grids = sum(float(np.load(path).sum()) for path in (out / "bias").glob("bias_*.npy"))
    return grids + sum(float(np.load(path)["kdeRW_numSamples"].sum()) for path in (out / "bias").glob("kde_*.npz"))

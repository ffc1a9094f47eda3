"""The bias of OPES from its files: PLUMED's own bias after a restart from them, closed forms, what is refused."""

import shutil

import numpy as np
import pytest
from engines import require

import polyvae as pv
from polyvae.measures.hills import hills_of
from polyvae.measures.kernels import kernels_of

KT = 0.00831446261815324 * 300


def engine(*lines):
    """PLUMED for one particle, and a function that gives it positions step by step: bias and force."""
    require("plumed")
    import plumed

    found = plumed.Plumed()
    for key, value in (
        ("setNatoms", 1), ("setMDEngine", "test"), ("setTimestep", 0.005), ("setKbT", KT),
        ("setLogFile", "/dev/null"), ("init", None),
    ):  # fmt: skip
        found.cmd(key, *[] if value is None else [value])
    for line in lines:
        found.cmd("readInputLine", line)

    def at(step, x):
        force, bias = np.zeros((1, 3)), np.zeros(1)
        for key, value in (
            ("setStep", step), ("setPositions", x), ("setMasses", np.ones(1)), ("setCharges", np.zeros(1)),
            ("setForces", force), ("setVirial", np.zeros((3, 3))), ("setBox", np.zeros((3, 3))), ("calc", None),
        ):  # fmt: skip
            found.cmd(key, *[] if value is None else [value])
        found.cmd("getBias", bias)
        return bias[0], force

    return found, at


VARIABLES = {
    1: ("d: POSITION ATOM=1", "ARG=d.x SIGMA=0.1"),
    2: ("d: POSITION ATOM=1", "ARG=d.x,d.y SIGMA=0.1,0.2"),
    "around": ("d: POSITION ATOM=1\nc: CUSTOM ARG=d.x FUNC=2*x PERIODIC=-pi,pi", "ARG=c SIGMA=0.2"),
}


@pytest.fixture(scope="module", params=[(k, a) for k in VARIABLES for a in ("OPES_METAD", "OPES_METAD_EXPLORE")])
def opes(request, tmp_path_factory):
    """The files of a run of OPES in a double well along x, and how to ask PLUMED for its bias after a restart."""
    key, action = request.param
    folder, rng, x = tmp_path_factory.mktemp("opes"), np.random.default_rng(0), np.array([[-1.0, 0.0, 0.0]])
    before, arguments = VARIABLES[key]
    options = f"{arguments} BARRIER=20"
    run, at = engine(
        *before.split("\n"),
        f"o: {action} {options} PACE=50 FILE={folder}/KERNELS STATE_WFILE={folder}/STATE STATE_WSTRIDE=10000",
    )
    for step in range(10_001):
        _, force = at(step, x)
        own = [-40 * x[0, 0] * (x[0, 0] ** 2 - 1), -20 * x[0, 1], -20 * x[0, 2]]
        x = x + (force + own) * 1e-3 + np.sqrt(2 * KT * 1e-3) * rng.normal(size=(1, 3))
    run.finalize()

    def bias_after(file, points):
        shutil.copy(folder / "KERNELS", folder / "again")  # PLUMED goes on with it
        read = f"FILE={folder}/again" + (f" STATE_RFILE={folder}/STATE" if file == "STATE" else "")
        again, at = engine(*before.split("\n"), f"o: {action} {options} PACE=1000000 RESTART=YES {read}")
        found = np.array([at(step, point[None])[0] for step, point in enumerate(points)])
        again.finalize()
        return found

    return folder, key, bias_after


@pytest.mark.parametrize("file", ["STATE", "KERNELS"])
def test_the_bias_is_plumeds(opes, file):
    folder, key, bias_after = opes
    points = np.random.default_rng(1).uniform(-1.9, 1.9, size=(200, 3))
    table = pv.read_colvar(folder / file)
    assert table.kind == file
    kernels, names = kernels_of(table)
    s = {"around": (2 * points[:, :1] + np.pi) % (2 * np.pi) - np.pi}.get(key, points[:, : len(names)])
    found = kernels.bias(s, KT)
    np.testing.assert_allclose(found, bias_after(file, points), rtol=0, atol=1e-8)
    assert np.ptp(found) > 5  # kJ/mol
    assert len(kernels.heights) < 150  # of 200 that were added


def test_one_kernel_by_hand(tmp_path):
    head = "#! FIELDS time z0 sigma_z0 height\n"
    sets = {"action": "OPES_METAD_state", "biasfactor": 5, "epsilon": 1e-3, "kernel_cutoff": 4, "zed": 0.5,
            "compression_threshold": 1, "sum_weights": 2.0, "counter": 3}  # fmt: skip
    (tmp_path / "STATE").write_text(
        head + "".join(f"#! SET {k} {v}\n" for k, v in sets.items()) + " 9 0.3 0.2 1.5\n"
    )
    kernels, names = kernels_of(pv.read_colvar(tmp_path / "STATE"))
    s = np.array([[0.3], [0.6], [2.0]])
    hill = np.where(np.abs(s[:, 0] - 0.3) < 0.8, np.exp(-(((s[:, 0] - 0.3) / 0.2) ** 2) / 2) - np.exp(-8), 0)
    by_hand = 2.0 * 0.8 * np.log(1.5 * hill / 2.0 / 0.5 + 1e-3)
    assert names == ["z0"]
    np.testing.assert_allclose(kernels.bias(s, 2.0), by_hand, rtol=1e-12)
    energy = kernels.free_energy(2.0, range=(-2, 2), bins=81)
    assert energy.grid[0][np.argmin(energy.energy)] == pytest.approx(0.3)
    assert energy.energy.max() == pytest.approx(2.0 * np.log((1.5 * (1 - np.exp(-8)) + 1e-3) / 1e-3), rel=1e-9)
    assert np.isnan(energy.error).all()


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ({}, "a line `#! SET zed"),
        ({"zed": "x"}, "zed of STATE must be a number; got 'x'"),
        ({"zed": 1, "biasfactor": 1}, "bias factor of OPES must be greater than 1"),
        ({"zed": 1, "biasfactor": "inf", "action": "OPES_METAD_EXPLORE_state"}, "bias factor of OPES"),
    ],
)
def test_states_that_say_too_little(tmp_path, sets, said):
    sets = {"biasfactor": 5, "epsilon": 1e-3, "kernel_cutoff": 4, "sum_weights": 2, "counter": 3} | sets
    text = "#! FIELDS time z0 sigma_z0 height\n" + "".join(f"#! SET {k} {v}\n" for k, v in sets.items())
    (tmp_path / "STATE").write_text(text + " 9 0.3 0.2 1.5\n")
    with pytest.raises(pv.InputError, match=said):
        kernels_of(pv.read_colvar(tmp_path / "STATE"))


def test_the_last_of_several_states_counts(tmp_path):
    """STORE_STATES."""

    def state(n):
        words = f"biasfactor 5,epsilon 0.1,kernel_cutoff 4,zed {n},sum_weights 1".split(",")
        sets = "".join(f"#! SET {word}\n" for word in words)
        return "#! FIELDS time z0 sigma_z0 height\n" + sets + "".join(f" {n} {k} 0.2 1\n" for k in range(n))

    (tmp_path / "STATE").write_text(state(1) + state(2) + state(3))
    kernels, _ = kernels_of(pv.read_colvar(tmp_path / "STATE"))
    np.testing.assert_array_equal(kernels.centres[:, 0], [0, 1, 2])
    assert kernels.zed == 3


@pytest.mark.parametrize("n_variables", [1, 2])
@pytest.mark.parametrize("falls", [1.0, 0.9])
def test_hills_of_colvars_have_no_names(tmp_path, n_variables, falls):
    """Step, centres, widths, height: their sum by hand, under the names that are given, in their order."""
    rng, names = np.random.default_rng(0), ["b", "a"][:n_variables]
    centres, widths = rng.normal(size=(20, n_variables)), rng.uniform(0.2, 0.3, size=(20, n_variables))
    heights = 0.5 * falls ** np.arange(20)
    path = tmp_path / "run.colvars.m.hills.traj"
    np.savetxt(path, np.column_stack([10 * np.arange(20), centres, widths, heights]))
    table = pv.read_colvar(path)
    assert table.kind == "HILLS"
    hills, found = hills_of(table, names)
    assert found == names
    s = rng.normal(size=(7, n_variables))
    away = (((s[:, None] - centres) / widths) ** 2).sum(axis=2)
    np.testing.assert_allclose(hills.bias(s), np.exp(-0.5 * away) @ heights, rtol=1e-12)
    if falls < 1:
        with pytest.raises(pv.InputError, match="well-tempered"):
            hills.free_energy(1.0)
    else:
        assert np.isfinite(hills.free_energy(1.0).energy).all()


@pytest.mark.parametrize("argument", ["s", "time", "others"])
def test_pictures_of_free_energies_refuse_what_is_masked(argument):
    s = np.random.default_rng(0).normal(size=500)
    found = pv.free_energy(s)
    hidden = np.ma.masked_greater(found.energy if argument == "others" else s, 0.5)
    draw, given = pv.plot.free_energy_checks, {"s": s} | {argument: hidden}
    if argument == "others":
        draw, given = pv.plot.free_energy, {"others": {"hills": hidden}}
    with pytest.raises(pv.InputError, match="masked"):
        draw(found, **given)

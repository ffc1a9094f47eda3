"""`polyvae fes`: what PLUMED itself finds, reweighting by hand, observables of frames, units, bad use."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import arrays, ideal_chains
from engines import require

import polyvae as pv
from polyvae.app import cli
from polyvae.measures.hills import hills_of

KT = 0.00831446261815324 * 300


def call(*words, code=0):
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(word) for word in words])
    assert exit_.value.code == code


def table_of(folder):
    """fes.csv by its columns."""
    header, *rows = (folder / "fes.csv").read_text().splitlines()
    return dict(zip(header.split(","), np.loadtxt(rows, delimiter=",").T, strict=True))


@pytest.fixture(scope="module")
def biased(tmp_path_factory):
    """COLVAR and HILLS of well-tempered metadynamics on one variable and on two, by PLUMED: a particle in a double
    well along x and a parabola along y."""
    require("plumed")
    import plumed

    folder = tmp_path_factory.mktemp("plumed")
    for n, arguments in ((1, "d.x SIGMA=0.1"), (2, "d.x,d.y SIGMA=0.1,0.2")):
        engine, rng, x = plumed.Plumed(), np.random.default_rng(n), np.array([[-1.0, 0.0, 0.0]])
        for key, value in (
            ("setNatoms", 1), ("setMDEngine", "test"), ("setTimestep", 0.005), ("setKbT", KT),
            ("setLogFile", "/dev/null"), ("init", None),
        ):  # fmt: skip
            engine.cmd(key, *[] if value is None else [value])
        name = arguments.split()[0]
        for line in (
            "d: POSITION ATOM=1",
            f"m: METAD ARG={arguments} HEIGHT=1.0 PACE=100 BIASFACTOR=6 TEMP=300 FILE={{{folder}/HILLS{n}}} "
            f"CALC_RCT RCT_USTRIDE=1 GRID_MIN={','.join(['-3'] * n)} GRID_MAX={','.join(['3'] * n)} "
            f"GRID_BIN={','.join(['300'] * n)}",
            f"PRINT ARG={name},m.bias,m.rbias FILE={{{folder}/COLVAR{n}}} STRIDE=10 FMT=%14.9f",
        ):
            engine.cmd("readInputLine", line)
        for step in range(15_000):
            force = np.zeros((1, 3))
            engine.cmd("setStep", step)
            engine.cmd("setPositions", x)
            engine.cmd("setMasses", np.ones(1))
            engine.cmd("setCharges", np.zeros(1))
            engine.cmd("setForces", force)
            engine.cmd("setVirial", np.zeros((3, 3)))
            engine.cmd("setBox", np.zeros((3, 3)))
            engine.cmd("calc")
            own = [-40 * x[0, 0] * (x[0, 0] ** 2 - 1) - KT / 2, -20 * x[0, 1], -20 * x[0, 2]]
            x = x + (force + own) * 1e-3 + np.sqrt(2 * KT * 1e-3) * rng.normal(size=(1, 3))
        engine.finalize()
    return folder


@pytest.mark.parametrize(("n", "bins"), [(1, "100"), (2, "50,60")])
def test_the_sum_of_hills_is_plumeds(biased, tmp_path, n, bins):
    ends = ",".join(["-2"] * n), ",".join(["2"] * n)
    plumed = Path(sys.prefix) / "bin" / "plumed"
    subprocess.run(
        [plumed, "sum_hills", "--hills", biased / f"HILLS{n}", "--min", ends[0], "--max", ends[1], "--bin", bins,
         "--outfile", tmp_path / "by_plumed", "--mintozero"],
        check=True, capture_output=True,
    )  # fmt: skip
    by_plumed = np.loadtxt(tmp_path / "by_plumed")
    points = ",".join(str(int(b) + 1) for b in bins.split(","))  # PLUMED counts the gaps
    call("fes", biased / f"HILLS{n}", *["--cv", "d.x", "--cv", "d.y"][: 2 * n], "--temperature", 300,
         *["--range=-2:2"] * n, "--bins", points, "--out", tmp_path / "out")  # fmt: skip
    found = table_of(tmp_path / "out")
    assert list(found) == ["d.x", "free_energy", "error", "d.y"][: n + 2]
    order = np.lexsort([by_plumed[:, k] for k in reversed(range(n))])  # PLUMED's first variable runs fastest
    np.testing.assert_allclose(found["free_energy"], by_plumed[order, n], atol=1e-6)
    np.testing.assert_allclose(found["d.x"], by_plumed[order, 0], atol=1e-9)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("column", ["m.rbias", "m.bias"])
def test_reweighting_is_that_by_hand(biased, tmp_path, n, column):
    data = np.loadtxt(biased / f"COLVAR{n}")
    names = (biased / f"COLVAR{n}").read_text().splitlines()[0].split()[2:]
    data = {
        name: column[np.arange(len(data)) >= 0.25 * len(data)] for name, column in zip(names, data.T, strict=True)
    }
    weights = np.exp(data[column] / KT)
    s = np.stack([data[name] for name in ("d.x", "d.y")[:n]], axis=1)
    counts = np.histogramdd(s, 40, [(-2, 2)] * n, weights=weights)[0]
    with np.errstate(divide="ignore"):
        by_hand = -KT * np.log(counts)
    call("fes", biased / f"COLVAR{n}", *["--cv", "d.x", "--cv", "d.y"][: 2 * n], "--bias", column, "--temperature",
         300, "--method", "histogram", *["--range=-2:2"] * n, "--bins", 40, "--transient", 0.25,
         "--out", tmp_path / "out")  # fmt: skip
    np.testing.assert_allclose(
        table_of(tmp_path / "out")["free_energy"], (by_hand - by_hand.min()).ravel(), atol=1e-6
    )
    found = arrays(tmp_path / "out" / "fes.npz")
    np.testing.assert_allclose(found["free_energy"], by_hand - by_hand.min(), atol=1e-9)


def test_reweighting_finds_the_potential(biased, tmp_path):
    call("fes", biased / "COLVAR1", "--cv", "d.x", "--bias", "m.rbias", "--hills", biased / "HILLS1",
         "--temperature", 300, "--out", tmp_path / "out")  # fmt: skip
    found = table_of(tmp_path / "out")
    x, known = found["d.x"], 10 * (found["d.x"] ** 2 - 1) ** 2 + KT / 2 * found["d.x"]
    deep = known - known.min() < 3 * KT
    off = (found["free_energy"] - known)[deep]
    assert np.sqrt(((off - off.mean()) ** 2).mean()) < 3 * np.median(found["error"][deep]) < 3 * KT
    hills = (found["hills"] - known)[deep]
    assert np.std(hills) < KT
    said = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert said["unit"] == "kJ/mol"
    assert len(said["states"]) == 2
    assert 0.1 <= said["transient"] < 0.5
    assert np.interp(0, x, found["free_energy"]) == pytest.approx(10, abs=3 * KT)


def test_hills_weigh_frames_where_no_bias_is_named(biased, tmp_path):
    call("fes", biased / "COLVAR1", "--cv", "d.x", "--hills", biased / "HILLS1", "--temperature", 300,
         "--transient", 0.2, "--out", tmp_path / "hills")  # fmt: skip
    rows = np.loadtxt(biased / "HILLS1")
    at = np.loadtxt(biased / "COLVAR1")[:, 1]
    away = 0.5 * ((at[:, None] - rows[:, 1]) / rows[:, 2]) ** 2
    bias = 5 / 6 * np.where(away < 6.25, (np.exp(-away) - np.exp(-6.25)) / (1 - np.exp(-6.25)), 0) @ rows[:, 3]
    np.savetxt(tmp_path / "weights", np.exp((bias - bias.max()) / KT))
    call("fes", biased / "COLVAR1", "--cv", "d.x", "--weights", tmp_path / "weights", "--temperature", 300,
         "--transient", 0.2, "--out", tmp_path / "weights_of")  # fmt: skip
    hills, weights = (table_of(tmp_path / name)["free_energy"] for name in ("hills", "weights_of"))
    np.testing.assert_allclose(hills, weights, atol=1e-6)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two runs of chains in XTC, with COLVARs of five rows a frame that hold a bias in kcal/mol and a weight."""
    folder = tmp_path_factory.mktemp("fes")
    for k in range(2):
        traj = pv.Trajectory(
            ideal_chains(300, 6, 3, seed=k), time=np.arange(300.0), length_unit="nm", names=["B"] * 6
        )
        pv.write(folder / f"run{k}.xtc", traj)
        bias = np.random.default_rng(k).normal(size=1500)
        pv.write_colvar(folder / f"COLVAR{k}", bias[:, None] ** 2, time=0.2 * np.arange(1500),
                        columns={"opes.bias": bias, "weight": np.exp(bias / (KT / 4.184))})  # fmt: skip
    return folder


def test_over_an_observable_of_frames_with_fewer_frames_than_rows(run, tmp_path):
    files = [run / f"COLVAR{k}" for k in range(2)]
    for name, option in (("bias", ["--bias", "opes.bias"]), ("weights", ["--weights", "weight"])):
        call("fes", *files, "--over", "rg", "--traj", run / "run0.xtc", "--traj", run / "run1.xtc", "--top",
             run / "run0.pdb", *option, "--temperature", 300, "--energy-unit", "kcal/mol", "--method", "histogram",
             "--bins", 12, "--range", "0.5:2.5", "--transient", 0, "--out", tmp_path / name)  # fmt: skip
    traj = pv.read([run / f"run{k}.xtc" for k in range(2)], topology=run / "run0.pdb")
    x = traj.positions - traj.positions.mean(axis=1, keepdims=True)
    rg = np.sqrt((x**2).sum(axis=2).mean(axis=1))
    kT = KT / 4.184
    weights = [np.exp(pv.read_colvar(file)["opes.bias"][::5] / kT) for file in files]
    weights = np.concatenate([w / w.mean() for w in weights])  # each run has a constant of its own
    with np.errstate(divide="ignore"):
        by_hand = -kT * np.log(np.histogram(rg, 12, (0.5, 2.5), weights=weights)[0])
    for name in ("bias", "weights"):
        found = table_of(tmp_path / name)
        assert next(iter(found)) == "rg"
        np.testing.assert_allclose(found["free_energy"], by_hand - by_hand.min(), atol=1e-4)


def test_what_openmm_exports_write_needs_no_other_file(tmp_path):
    """Frames that bear their weights, as biased.npz does."""
    traj = pv.Trajectory(ideal_chains(400, 6, 3), length_unit="nm", weights=np.linspace(0.1, 1, 400))
    pv.write(tmp_path / "biased.npz", traj)
    call(
        "fes", "--traj", tmp_path / "biased.npz", "--over", "rg", "--over", "end_to_end", "--out", tmp_path / "out"
    )
    assert list(table_of(tmp_path / "out")) == ["rg", "free_energy", "error", "end_to_end"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["unit"] == "kT"
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "fes.csv", "fes.npz", "fes.png", "checks.png", "summary.json",
    }  # fmt: skip


def test_units(run, tmp_path):
    """The same run in kcal/mol, in kJ/mol and in kT."""
    table = pv.read_colvar(run / "COLVAR0")
    kcal = KT / 4.184
    found = {}
    for unit, factor, option in (
        ("kcal/mol", 1.0, ["--temperature", 300]),
        ("kJ/mol", 4.184, ["--temperature", 300]),
        ("kT", 1 / kcal, []),
        ("kt", 1.0, ["--kt", kcal]),
    ):
        path = tmp_path / f"{unit.replace('/', '_')}.csv"
        np.savetxt(path, np.column_stack([table["z0"], factor * table["opes.bias"]]), delimiter=",",
                   header="z0,bias", comments="", fmt="%.14g")  # fmt: skip
        named = ["--energy-unit", unit] if unit != "kt" else []
        call("fes", path, "--cv", "z0", "--bias", "bias", *named, *option, "--out", tmp_path / f"{path.stem}_out")
        found[unit] = table_of(tmp_path / f"{path.stem}_out")["free_energy"]
    np.testing.assert_allclose(found["kJ/mol"], 4.184 * found["kcal/mol"], rtol=1e-6)
    np.testing.assert_allclose(kcal * found["kT"], found["kcal/mol"], rtol=1e-6)
    np.testing.assert_allclose(found["kt"], found["kcal/mol"], rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["COLVAR0", "--cv", "z0", "--bias", "opes.bias"], 2, "in kJ/mol, so the temperature is needed"),
        (["COLVAR0", "--cv", "z9"], 1, "no column 'z9'; there are time, z0, opes.bias, weight"),
        (["COLVAR0"], 2, "name one column or two"),
        (["--cv", "z0"], 2, "give the COLVAR files"),
        (["none", "--cv", "z0"], 1, "none: no such file"),
        (["COLVAR0", "--cv", "z0", "--over", "rg"], 2, "--traj; give both"),
        (["COLVAR0", "--cv", "z0", "--range", "3"], 2, "'3' is no LOW:HIGH"),
        (["COLVAR0", "--cv", "z0", "--range", "70:80"], 1, "no frame lies in the range 70 to 80"),
        (["COLVAR0", "--cv", "z0", "--temperature", "-3"], 2, "must be a number greater than 0"),
        (["COLVAR0", "--cv", "z0", "--energy-unit", "K"], 2, "'K' is not one of kJ/mol"),
        (["COLVAR0", "--cv", "z0", "--transient", "1.5"], 1, "transient must be a share"),
        (["COLVAR0", "--cv", "z0", "--hills", "COLVAR0", "--kt", "1"], 1, "hills are along nothing"),
    ],
)  # fmt: skip
def test_bad_use_is_one_line_and_leaves_nothing(run, tmp_path, monkeypatch, capsys, words, code, said):
    monkeypatch.chdir(run)
    before = set(run.iterdir())
    call("fes", *words, "--out", tmp_path / "out", code=code)
    error = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(error) == 1
    assert said in error[0]
    assert set(run.iterdir()) == before
    assert not list(tmp_path.iterdir())


def test_hills_weigh_frames_over_anything_and_need_a_temperature(run, tmp_path, capsys):
    """Hills along a column that is not drawn."""
    (tmp_path / "HILLS").write_text("#! FIELDS time z0 sigma_z0 height biasf\n1 0.5 1 2 5\n2 1.5 1 1 5\n")
    frames = ["--over", "rg", "--traj", run / "run0.xtc", "--top", run / "run0.pdb", "--transient", 0]
    call("fes", run / "COLVAR0", *frames, "--hills", tmp_path / "HILLS", "--temperature", 300, "--method",
         "histogram", "--bins", 9, "--range", "0.5:2.5", "--out", tmp_path / "out")  # fmt: skip
    z = pv.read_colvar(run / "COLVAR0")["z0"][::5]
    x = pv.read(run / "run0.xtc", topology=run / "run0.pdb").positions
    rg = np.sqrt(((x - x.mean(axis=1, keepdims=True)) ** 2).sum(axis=2).mean(axis=1))
    away = 0.5 * (z[:, None] - [0.5, 1.5]) ** 2
    v = 0.8 * np.where(away < 6.25, np.exp(-away), 0) @ [2.0, 1.0]
    with np.errstate(divide="ignore"):
        by_hand = -KT * np.log(np.histogram(rg, 9, (0.5, 2.5), weights=np.exp(v / KT))[0])
    np.testing.assert_allclose(table_of(tmp_path / "out")["free_energy"], by_hand - by_hand.min(), atol=1e-4)
    call("fes", tmp_path / "HILLS", "--cv", "z0", "--out", tmp_path / "more", code=2)
    assert "so the temperature is needed" in capsys.readouterr().err
    call("fes", tmp_path / "HILLS", "--cv", "z0", "--kt", 1, "--state", "0:1", "--out", tmp_path / "more", code=2)
    assert "HILLS alone holds no frames" in capsys.readouterr().err


def test_nothing_is_overwritten_unasked(run, tmp_path, capsys):
    words = ["fes", run / "COLVAR0", "--cv", "z0", "--out", tmp_path / "out"]
    call(*words)
    assert "if they should count by opes.bias, say --bias" in capsys.readouterr().err
    call(*words, code=1)
    assert "holds files already" in capsys.readouterr().err
    call(*words, "--force")


def test_a_dihedral_in_degrees_has_no_ends(tmp_path, capsys):
    phi = (np.random.default_rng(0).normal(180, 15, 5000) + 180) % 360 - 180
    path = tmp_path / "run.colvars.traj"
    path.write_text("# step phi\n" + "".join(f"{100 * k} {v:.6f}\n" for k, v in enumerate(phi)))
    call("fes", path, "--cv", "phi", "--out", tmp_path / "two")
    assert "of an angle say --period phi=360" in capsys.readouterr().err
    for k, period in enumerate(["phi=360", "phi=-180:180", "phi=0:360"]):
        call("fes", path, "--cv", "phi", "--period", period, "--out", tmp_path / str(k))
        states = json.loads((tmp_path / str(k) / "summary.json").read_text())["states"]
        assert len(states) == 1
        assert abs(abs(states[0]["centre"]["phi"]) - 180) < 6
    for k, (period, code, said) in enumerate(
        [("phi", 2, "is no period"), ("phi=x", 2, "is no period"), ("phi=1:2:3", 2, "is no period"),
         ("phi=2:1", 2, "is no period"), ("psi=360", 1, "--period: no column 'psi'")]
    ):  # fmt: skip
        call("fes", path, "--cv", "phi", "--period", period, "--out", tmp_path / f"no{k}", code=code)
        assert said in capsys.readouterr().err


def test_weights_of_a_run_go_with_its_frames(tmp_path):
    """Twelve runs, whose tables and trajectories patterns give in one order; and by name, whatever the order."""
    rng = np.random.default_rng(0)
    for k in range(12):
        folder = tmp_path / f"run{k}"
        folder.mkdir()
        x = np.arange(4.0)[None, :, None] * (1 + 0.1 * k + 0.01 * rng.normal(size=(50, 1, 1))) * [1.0, 0, 0.5]
        np.savez(folder / "run.npz", arr=x, time=np.arange(50.0))
        pv.write_colvar(folder / "COLVAR", np.full((50, 1), float(k)), time=np.arange(50.0),
                        columns={"w": np.full(50, float(k >= 10))})  # fmt: skip
    common = [
        "--over",
        "rg",
        "--weights",
        "w",
        "--walkers",
        "--transient",
        0,
        "--method",
        "histogram",
        "--range",
        "0:4",
    ]
    trajs = [f"--traj={tmp_path}/run{k}/run.npz" for k in reversed(range(12))]
    for name, traj in (("pattern", [f"--traj={tmp_path}/run*/run.npz"]), ("reversed", trajs)):
        call("fes", f"{tmp_path}/run*/COLVAR", *traj, *common, "--out", tmp_path / name)
        found = table_of(tmp_path / name)
        there = found["rg"][np.isfinite(found["free_energy"])]
        size = np.sqrt(1.25 * 1.25)  # of four beads in a row
        assert there.min() > 1.9 * size
        assert there.max() < 2.3 * size


def test_other_runs_are_refused_with_both_lists(run, tmp_path, capsys):
    (tmp_path / "COLVAR7").write_bytes((run / "COLVAR1").read_bytes())
    words = ["--over", "rg", "--traj", run / "run0.xtc", "--traj", run / "run1.xtc", "--top", run / "run0.pdb"]
    call("fes", run / "COLVAR0", tmp_path / "COLVAR7", *words, "--out", tmp_path / "out", code=1)
    said = capsys.readouterr().err
    assert "COLVAR7 for" in said
    assert "run1.xtc" in said


def test_hills_of_several_walkers_add_up(tmp_path):
    head, s = "#! FIELDS time z0 sigma_z0 height biasf\n", np.random.default_rng(0).normal(size=400)
    for k in range(2):
        (tmp_path / f"HILLS.{k}").write_text(head + f"1 {k} 0.5 {k + 1} 5\n")
    pv.write_colvar(tmp_path / "COLVAR", s[:, None])
    hills = [f"--hills={tmp_path}/HILLS.{k}" for k in range(2)]
    call("fes", tmp_path / "COLVAR", "--cv", "z0", *hills, "--kt", 1, "--transient", 0, "--method", "histogram",
         "--bins", 8, "--range=-2:2", "--out", tmp_path / "out")  # fmt: skip
    away = 0.5 * ((s[:, None] - [0, 1]) / 0.5) ** 2
    bias = 0.8 * np.where(away < 6.25, np.exp(-away), 0) @ [1.0, 2.0]
    counts = np.histogram(s, 8, (-2, 2), weights=np.exp(bias))[0]
    np.testing.assert_allclose(
        table_of(tmp_path / "out")["free_energy"], -np.log(counts) + np.log(counts.max()), atol=1e-6
    )


def test_hills_of_several_bias_factors(tmp_path, capsys):
    """Each counts by its own in the bias; their sum is no free energy."""
    (tmp_path / "HILLS").write_text("#! FIELDS time z0 sigma_z0 height biasf\n1 0 0.5 1 5\n2 1 0.5 2 2\n")
    hills, _ = hills_of(pv.read_colvar(tmp_path / "HILLS"))
    away = 0.5 * (np.array([0.4, 0.6]) / 0.5) ** 2
    assert hills.bias(np.array([[0.4]])) == pytest.approx(0.8 * np.exp(-away[0]) + 0.5 * 2 * np.exp(-away[1]))
    call("fes", tmp_path / "HILLS", "--cv", "z0", "--kt", 1, "--out", tmp_path / "out", code=1)
    assert "hills of one bias factor; these have 2 to 5" in capsys.readouterr().err


def test_opes_state_weighs_frames_and_shows_a_free_energy(tmp_path):
    sets = {"action": "OPES_METAD_state", "biasfactor": 5, "epsilon": 1e-3, "kernel_cutoff": 5, "zed": 0.5,
            "compression_threshold": 1, "sum_weights": 2.0, "counter": 3}  # fmt: skip
    head = "#! FIELDS time z0 sigma_z0 height\n" + "".join(f"#! SET {k} {v}\n" for k, v in sets.items())
    (tmp_path / "STATE").write_text(head + "9 0.3 0.5 1.5\n")
    s = np.random.default_rng(0).normal(size=400)
    pv.write_colvar(tmp_path / "COLVAR", s[:, None])

    def bias(s):
        hill = np.exp(-(((s - 0.3) / 0.5) ** 2) / 2) - np.exp(-12.5)
        return 0.8 * np.log(np.where(np.abs(s - 0.3) < 2.5, hill, 0) * 1.5 / 2 / 0.5 + 1e-3)

    call("fes", tmp_path / "COLVAR", "--cv", "z0", "--hills", tmp_path / "STATE", "--kt", 1, "--transient", 0,
         "--method", "histogram", "--bins", 8, "--range=-2:2", "--out", tmp_path / "frames")  # fmt: skip
    counts = np.histogram(s, 8, (-2, 2), weights=np.exp(bias(s)))[0]
    found = table_of(tmp_path / "frames")
    np.testing.assert_allclose(found["free_energy"], -np.log(counts / counts.max()), atol=1e-5)
    call("fes", tmp_path / "STATE", "--cv", "z0", "--kt", 1, "--range=-2:2", "--out", tmp_path / "alone")
    found = table_of(tmp_path / "alone")
    by_hand = -bias(found["z0"]) / 0.8
    np.testing.assert_allclose(found["free_energy"], by_hand - by_hand.min(), atol=1e-8)
    assert np.isnan(found["error"]).all()


@pytest.mark.parametrize("name", ["error", "free_energy", "z0"])
def test_columns_of_any_name_keep_the_grid(tmp_path, name):
    s = np.random.default_rng(0).normal(size=500)
    pv.write_colvar(tmp_path / "COLVAR", s[:, None], columns={} if name == "z0" else {name: s})
    call("fes", tmp_path / "COLVAR", "--cv", name, "--range=-2:2", "--out", tmp_path / "out")
    found = list(table_of(tmp_path / "out").values())
    assert len(found) == 3
    np.testing.assert_allclose(found[0][[0, -1]], [-2, 2])
    assert found[1].min() == 0


def test_sizes_are_those_of_masses(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = np.zeros((400, 2, 3))
    x[:, 1, 0] = 1 + 0.05 * rng.normal(size=400)
    for name, masses in (("two", [1.0, 100.0]), ("one", [3.0, 3.0])):
        np.savez(tmp_path / f"{name}.npz", arr=x, masses=masses)
        traj = tmp_path / f"{name}.npz"
        call("fes", "--over", "rg", "--traj", traj, "--method=histogram", "--bins=10", "--out", tmp_path / name)
        found = table_of(tmp_path / name)
        lowest = found["rg"][np.argmin(found["free_energy"])]
        m = np.array(masses) / np.sum(masses)
        assert lowest == pytest.approx(np.sqrt(m[0] * m[1]), rel=0.05)
        assert ("by the masses" in capsys.readouterr().err) == (name == "two")


def test_a_melt_is_read_whole(tmp_path):
    """A free energy of all molecules, each a run of its own: the errors are those of as many independent runs."""
    rng, n, m = np.random.default_rng(0), 200, 30
    z = 3 * rng.normal(size=m) + 0.1 * rng.normal(size=(n, m))  # molecules differ, and none forgets
    pv.write_colvar(tmp_path / "COLVAR", z.reshape(-1, 1), time=np.repeat(np.arange(n), m),
                    columns={"molecule": np.tile(np.arange(m), n)})  # fmt: skip
    call("fes", tmp_path / "COLVAR", "--cv", "z0", "--transient", 0, "--state=-99:0", "--state=0:99", "--out",
         tmp_path / "out")  # fmt: skip
    said = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert said["n_frames"] == n * m
    p = (z < 0).mean()
    error = np.sqrt((((z < 0).mean(axis=0) - p) ** 2).sum() / (m * (m - 1)))  # of the mean over molecules
    assert said["differences"][0]["error"] == pytest.approx(error / (p * (1 - p)), rel=0.05)

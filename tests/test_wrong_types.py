"""Every public function refuses an argument of another kind in one line that names it, and truncates no count.

`CALLS` holds a call of each that works, and of each argument the kind; `WRONG` what no argument of a kind may be.
"""

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import math
import os
import re
import types
import typing

import jaxtyping
import numpy as np
import pytest

import polyvae as pv
import polyvae.export
import polyvae.measures
from polyvae.app import cli
from polyvae.engines.runs import Run, Snapshots

OBJECTS = np.array([{}, None], dtype=object)
NOT_ONE_NUMBER = ("many", float("nan"), [1, 2], {"a": 1}, np.zeros((2, 2)), OBJECTS, True, 1 + 2j, b"3")
NOT_AN_ARRAY = ("many", {"a": 1}, OBJECTS, np.array(["a", "b"]), [[1.0], [1.0, 2.0]], np.zeros((2, 2, 2, 2)), 3.5)
WRONG = {
    "count": (*NOT_ONE_NUMBER, 1.5, -1, math.inf, np.float64(2.5)),
    "integer": (*NOT_ONE_NUMBER, 1.5, math.inf),
    "number": (*NOT_ONE_NUMBER, math.inf),
    "numbers": ("many", float("nan"), {"a": 1}, np.zeros((2, 2)), OBJECTS, True, 1 + 2j, b"3", [math.inf, 1]),
    "row": (
        "many",
        {"a": 1},
        OBJECTS,
        np.array(["a", "b"]),
        [[1.0], [1.0, 2.0]],
        np.zeros((2, 2)),
        -1.0,
        [1.0, 0],
    ),
    "factor": (*NOT_ONE_NUMBER, 1.0, -math.inf),
    "positive": (*NOT_ONE_NUMBER, math.inf, -1.0),
    "flag": ("no", 1.5, {"a": 1}, np.zeros(2), 2),
    "word": ("bogus", 7, {"a": 1}, ["auto"], np.zeros(2)),
    "text": (7, {"a": 1}, ["auto"], np.zeros(2)),
    "path": (7, 1.5, {"a": 1}, np.zeros(2)),
    "paths": (7, {"a": 1}, [1.5], np.zeros(2), None),
    "function": ("many", 7, {"a": 1}, np.zeros(2)),
    "functions": ("many", 7, {"a": 1}, np.zeros(2), [abs]),
    "array": NOT_AN_ARRAY,
    "finite array": (*NOT_AN_ARRAY, float("nan")),
    "counts": ("many", {"a": 1}, [1.5], 2.5, np.array([0.5, 1.5]), [True, False], OBJECTS, [-1]),
    "cv": ("model.safetensors", 7, {"a": 1}, np.zeros((3, 3)), None),
    "data": ("run.npz", 7, {"a": 1}, OBJECTS, np.zeros((2, 2)), [[1.0], [1.0, 2.0]], np.array(["a"])),
    "other": ("many", 7, {"a": 1}, np.zeros(2)),
    "free": (),
}


@dataclasses.dataclass
class Call:
    """A call that works.

    Args:
        given: the arguments, from what `known` holds.
        kinds: of every argument, by name; with a "?" None will do.
    """

    function: object
    given: object
    kinds: dict


@pytest.fixture(scope="module")
def known(traj, cv, tmp_path_factory):
    return known_in(tmp_path_factory.mktemp("wrong"), traj, cv)


def known_in(folder, traj, cv):
    """What the calls are of; files lie in the folder."""
    x = traj.positions.reshape(len(traj), -1)
    vae = pv.fit_vae(x, epochs=1, batch_size=64, encoder=(4,), decoder=(4,))
    run, model = folder / "run.npz", folder / "model.safetensors"
    pv.write(run, traj)
    pv.write(run.with_suffix(".xtc"), traj)
    cv.save(model)
    pv.write_colvar(folder / "table.csv", cv.transform(traj))
    options = {"epochs": 1, "batch_size": 64, "encoder": (4,), "decoder": (4,)}
    superposed = pv.fit(traj, featurizer=pv.Reference(), **options)  # Colvars has no principal axes
    given = {"traj": traj, "cv": cv, "superposed": superposed, "x": x, "vae": vae, "frame": traj.positions[0]}
    return types.SimpleNamespace(
        **given, run=run, model=model, table=folder / "table.csv", z=cv.transform(traj), out=folder / "out"
    )


TRAINING = {
    "latent_dim": "count", "encoder": "counts?", "decoder": "counts", "beta": "positive", "beta_schedule": "word",
    "free_bits": "positive", "smoothness": "positive", "weights": "array?", "epochs": "count?", "batch_size":
    "count?", "learning_rate": "positive", "lr_schedule": "word", "validation": "positive?", "patience":
    "count?", "seed": "count", "progress": "function?", "checkpoint": "path?", "resume": "flag",
    "training": "other?", "options": "free",
}  # fmt: skip
READING = {
    "topology": "path?", "select": "text?", "length_unit": "word?", "start": "count", "stop": "integer?",
    "step": "count", "unwrap": "word", "per_molecule": "flag", "dims": "word?", "keep_good": "flag",
    "ignore_times": "flag", "dt": "positive?", "format": "word?", "topology_format": "word?",
}  # fmt: skip
ONE_FRAME = {"positions": "array", "masses": "array?"}
FEATURES = {"mirror": "flag", "reversal": "flag"}
FORCES = {"system": "other?", "periodic": "flag?", "bonds": "array?", "sigma": "positive?"}
EXPORT = {"cv": "cv", "folder": "path", "atoms": "counts?", "data": "data?", "force": "flag"}


def one(*names, **more):
    """The arguments by the names they have in `known`, and further ones."""
    return lambda known: {name: getattr(known, name) for name in names} | more


def standing_still(known):
    """An engine whose runs are frames that are there."""

    def engine(cv, *, steps, stride, **given):
        n = steps // stride
        last = Snapshots(known.traj.positions[n - 1 : n], np.array([n - 1]))
        return Run(known.traj[:n], np.zeros(n), last)

    return engine


CALLS = {
    "explore": Call(
        pv.explore, one("cv", "traj"), {"cv": "cv", "traj": "data", "observables": "other?"}
    ),
    "fit": Call(
        pv.fit,
        lambda k: {"data": k.traj, "epochs": 1},
        TRAINING
        | {"data": "data", "featurizer": "other?", "lag": "count?", "width": "positive", "cache": "path?",
           "smoothness": "positive?"},
    ),
    "fit_vae": Call(
        pv.fit_vae,
        lambda k: {"x": k.x, "epochs": 1},
        TRAINING | {"x": "finite array", "likelihood": "other?", "lag": "count", "segments": "counts?",
                    "scaling": "word"},
    ),
    "Training": Call(
        pv.Training,
        lambda k: {},
        {"beta_schedule": "word", "free_bits": "positive", "epochs": "count?", "batch_size": "count?",
         "learning_rate": "positive", "lr_schedule": "word", "validation": "positive?", "patience": "count?",
         "progress": "function?", "checkpoint": "path?", "resume": "flag", "cache": "path?"},
    ),
    "fit_generator": Call(
        pv.fit_generator,
        lambda k: {"cv": k.cv, "data": k.traj, "steps": 1, "width": 8, "depth": 1},
        {"cv": "cv", "data": "data", "steps": "count?", "batch_size": "count?", "learning_rate": "positive",
         "width": "count", "depth": "count", "validation": "positive", "seed": "count", "progress": "function?",
         "checkpoint": "path?", "resume": "flag"},
    ),
    "load": Call(pv.load, lambda k: {"path": k.model}, {"path": "path"}),
    "sample": Call(
        pv.sample,
        one("cv", n=3),
        {"cv": "cv", "n": "count", "at": "array?", "prior": "word?", "seed": "count", "noise": "flag"},
    ),
    "interpolate": Call(
        pv.interpolate,
        lambda k: {"cv": k.cv, "a": k.z[0], "b": k.z[1], "n": 3, "along": "data", "data": k.traj},
        {"cv": "cv", "a": "finite array", "b": "finite array", "n": "count", "along": "word", "data": "data?",
         "seed": "count"},
    ),
    "latent_grid": Call(pv.latent_grid, one("cv", n=3), {"cv": "cv", "n": "count", "data": "data?"}),
    "explain": Call(pv.explain, lambda k: {"cv": k.cv, "data": k.traj},
                    {"cv": "cv", "data": "data", "latent": "count", "most": "count"}),
    "optimize": Call(
        pv.optimize,
        lambda k: {"cv": k.cv, "start": k.traj, "n_starts": 1, "steps": 1, "refine_steps": 1},
        {"cv": "cv", "objective": "function", "start": "data", "minimize": "flag", "target": "number?",
         "n_starts": "count?", "prior_weight": "positive", "bond_weight": "positive", "steps": "count",
         "refine_steps": "count", "seed": "count"},
    ),
    "project": Call(
        pv.project,
        lambda k: {"cv": k.cv, "data": k.traj, "path": k.out.with_name("COLVAR")},
        {"cv": "cv", "data": "data", "path": "path", "columns": "functions?", "progress": "function?"},
    ),
    "transform_many": Call(
        pv.transform_many,
        lambda k: {"files": k.run, "cv": k.cv, "out": k.out},
        {"files": "paths", "cv": "cv", "out": "path", "client": "other?", "columns": "functions?", "kind": "word",
         "force": "flag", "task_bytes": "count", "progress": "function?", "options": "free"} | READING,
    ),
    "movie": Call(
        pv.movie,
        lambda k: {"cv": k.cv, "data": k.traj[:2], "path": k.out.with_name("m.gif")},
        {"cv": "cv", "data": "data", "path": "path", "frames": "count", "fps": "positive",
         "progress": "function?"},
    ),
    "progress_bar": Call(
        pv.progress_bar, lambda k: {"what": "training"}, {"what": "text", "total": "count?", "unit": "text"}
    ),
    "relax": Call(
        pv.relax,
        lambda k: {"traj": k.traj[:2], "data": k.traj},
        {"traj": "data", "data": "data?", "energy": "function?", "steps": "count"},
    ),
    "chain_energy": Call(pv.chain_energy, lambda k: {"data": k.traj}, {"data": "data"}),
    "check_conformations": Call(
        pv.check_conformations, lambda k: {"traj": k.traj, "data": k.cv}, {"traj": "data", "data": "data"}
    ),
    "score": Call(
        pv.score,
        lambda k: {"cv": k.cv, "data": k.traj},
        {"cv": "cv", "data": "data", "generated": "data?", "lag": "count?", "k": "count", "alternatives": "flag",
         "seed": "count"},
    ),
    "sweep": Call(
        pv.sweep,
        lambda k: {"data": k.traj, "epochs": 1},
        {"data": "data", "latent_dim": "counts", "beta": "numbers", "seeds": "counts", "together": "flag?",
         "client": "other?", "score_lag": "count?", "progress": "function?", "options": "free", "epochs": "count?",
         "weights": "array?", "cache": "path?"},
    ),
    "free_energy": Call(
        pv.free_energy,
        lambda k: {"s": k.z[:, 0], "transient": 0.0},
        {"s": "finite array", "weights": "array?", "bias": "finite array?", "kT": "positive?",
         "segments": "counts?", "walkers": "flag", "method": "word", "bandwidth": "positive?",
         "bins": "count?", "range": "other?", "periods": "other?", "transient": "positive?", "states": "other?"},
    ),
    "adapt": Call(
        pv.adapt,
        lambda k: {"data": k.traj, "engine": standing_still(k), "folder": k.out / "rounds", "steps": 400,
                   "stride": 2, "rounds": 1,
                   "training": {"epochs": 1, "batch_size": 64, "encoder": (4,), "decoder": (4,)}},
        {"data": "data", "engine": "function", "folder": "path", "steps": "count", "stride": "count",
         "rounds": "count", "walkers": "count", "free_runs": "count", "free_steps": "count?",
         "barrier": "positive", "pace": "count", "seed": "count", "training": "other?",
         "train": "function?", "choose": "function?", "progress": "function?", "options": "free"},
    ),
    "read_colvar": Call(pv.read_colvar, lambda k: {"files": k.table}, {"files": "paths"}),
    "check_vae": Call(
        pv.check_vae,
        lambda k: {"model": k.vae, "x": k.x},
        {"model": "cv", "x": "finite array", "n_samples": "count?", "n_draws": "count", "seed": "count"},
    ),
    "as_trajectory": Call(
        pv.as_trajectory,
        lambda k: {"data": k.traj.positions},
        {"data": "data", "length_unit": "word?", "array_unit": "word", "unwrap": "word", "per_molecule": "flag",
         "dims": "word?"},
    ),
    "read": Call(pv.read, lambda k: {"paths": k.run}, {"paths": "paths", "options": "free"} | READING),
    "stream": Call(
        pv.stream,
        lambda k: {"paths": k.run},
        {"paths": "paths", "chunk_bytes": "count", "client": "other?", "options": "free"}
        | READING,
    ),
    "write": Call(
        pv.write,
        lambda k: {"path": k.out.with_suffix(".npz"), "traj": k.traj},
        {"path": "path", "traj": "data", "topology": "flag", "replace": "flag"},
    ),
    "write_colvar": Call(
        pv.write_colvar,
        lambda k: {"path": k.out.with_suffix(".csv"), "z": k.z},
        {"path": "path", "z": "array", "time": "array?", "columns": "functions?"},
    ),
    "Trajectory": Call(
        pv.Trajectory,
        lambda k: {"positions": k.traj.positions},
        {"positions": "data", "time": "finite array?", "length_unit": "word", "masses": "finite array?",
         "names": "other?", "bonds": "counts?", "segments": "counts?", "weights": "finite array?",
         "box": "array?", "origin": "counts?", "ids": "counts?", "periodic": "other?",
         "selection": "other?", "continues": "count", "part": "flag"},
    ),
    "Stream": Call(
        pv.Stream,
        lambda k: {"chunks": lambda: iter([k.traj]), "n_frames": len(k.traj)},
        {"chunks": "function", "n_frames": "count", "about": "text", "elsewhere": "function?"},
    ),
    "PrincipalAxes": Call(pv.PrincipalAxes, one(), {"sign": "word", "masses": "array?"} | FEATURES),
    "Reference": Call(
        pv.Reference,
        one(),
        {"structure": "array?", "planar": "word", "pdb_grid": "flag", "masses": "array?", "step": "positive?"}
        | FEATURES,
    ),
    "PairDistances": Call(
        pv.PairDistances,
        one(),
        {"pairs": "counts?", "every": "count?", "max_pairs": "count?", "reversal": "flag", "n_beads": "count?"},
    ),
    "Gaussian": Call(pv.Gaussian, one(), {"width": "positive"}),
    "Categorical": Call(pv.Categorical, one(), {"n_classes": "count?"}),
    "Bernoulli": Call(pv.Bernoulli, one(), {}),
    "contacts": Call(
        pv.contacts,
        lambda k: {"positions": k.frame, "cutoff": 1.0},
        {"positions": "array", "cutoff": "positive", "separation": "count"},
    ),
    "end_to_end": Call(pv.end_to_end, lambda k: {"positions": k.frame}, {"positions": "array"}),
    "rmsd": Call(
        pv.rmsd, lambda k: {"positions": k.frame, "reference": k.frame}, ONE_FRAME | {"reference": "array"}
    ),
}  # fmt: skip
CALLS |= {
    name: Call(getattr(pv, name), lambda k: {"positions": k.frame}, ONE_FRAME)
    for name in ("radius_of_gyration", "asphericity", "acylindricity", "shape_anisotropy")
}
# Records of what a function found: nobody makes them of arguments.
RECORDS = {
    "Adapted", "Check", "Colvar", "Explanation", "FittedVAE", "FreeEnergy", "InputError", "LatentCV", "LatentPath",
    "Limits", "Optimum", "Relaxed", "Sweep", "Tables",
}  # fmt: skip


def method(owner, name):
    """A method of something that `known` holds."""
    return lambda k, **given: getattr(getattr(k, owner), name)(**given)


METHODS = {
    "LatentCV.transform": Call(
        method("cv", "transform"),
        lambda k: {"data": k.traj},
        {"data": "data", "first_frame": "count"},
    ),
    "LatentCV.transform_posterior": Call(
        method("cv", "transform_posterior"), lambda k: {"data": k.traj}, {"data": "data"}
    ),
    "LatentCV.align": Call(method("cv", "align"), lambda k: {"data": k.traj}, {"data": "data"}),
    "LatentCV.decode": Call(
        method("cv", "decode"), lambda k: {"z": k.z}, {"z": "array", "coordinates": "flag"}
    ),
    "LatentCV.__call__": Call(
        method("cv", "__call__"), lambda k: {"positions": k.frame}, {"positions": "array"}
    ),
    "LatentCV.posterior": Call(
        method("cv", "posterior"), lambda k: {"positions": k.frame}, {"positions": "array"}
    ),
    "LatentCV.keep": Call(method("cv", "keep"), lambda k: {"latents": [1]}, {"latents": "counts"}),
    "LatentCV.save": Call(
        method("cv", "save"), lambda k: {"path": k.out.with_name("m.safetensors")}, {"path": "path"}
    ),
    "FittedVAE.transform": Call(
        method("vae", "transform"), lambda k: {"x": k.x}, {"x": "finite array"}
    ),
    "FittedVAE.decode": Call(
        method("vae", "decode"), lambda k: {"z": k.z}, {"z": "finite array"}
    ),
    "FittedVAE.sample": Call(
        method("vae", "sample"), lambda k: {"n": 3}, {"n": "count", "seed": "count"}
    ),
    "FittedVAE.save": Call(
        method("vae", "save"), lambda k: {"path": k.out.with_name("v.safetensors")}, {"path": "path"}
    ),
    "Sweep.best": Call(lambda k, **given: pv.Sweep([], []).best(**given), None, {"measure": "word"}),
    "Trajectory.to_unit": Call(
        method("traj", "to_unit"), lambda k: {"length_unit": "sigma"}, {"length_unit": "word"}
    ),
    "PrincipalAxes.fit": Call(
        lambda k, **given: pv.PrincipalAxes().fit(**given), lambda k: {"traj": k.traj}, {"traj": "data"}
    ),
    "Reference.fit": Call(
        lambda k, **given: pv.Reference().fit(**given), lambda k: {"traj": k.traj}, {"traj": "data"}
    ),
    "PairDistances.fit": Call(
        lambda k, **given: pv.PairDistances().fit(**given), lambda k: {"traj": k.traj}, {"traj": "data"}
    ),
}  # fmt: skip

measures = polyvae.measures
MEASURES = {
    "log_density": Call(
        measures.log_density,
        lambda k: {"z": k.z, "rng": np.random.default_rng(0)},
        {"z": "finite array", "rng": "other", "weights": "finite array?"},
    ),
    "ensemble_distances": Call(
        measures.ensemble_distances, lambda k: {"a": k.traj, "b": k.traj}, {"a": "data", "b": "data"}
    ),
    "noise_floor": Call(
        measures.noise_floor, lambda k: {"traj": k.traj}, {"traj": "data", "n_splits": "count", "seed": "count"}
    ),
    "frame_weights": Call(
        measures.frame_weights, lambda k: {"traj": k.traj}, {"traj": "data"}
    ),
    "limits_of": Call(
        measures.limits_of,
        lambda k: {"traj": k.traj},
        {"traj": "data", "of_frames": "flag"},
    ),
    "vamp2": Call(
        measures.vamp2, one("z", lag=1), {"z": "finite array", "lag": "count", "segments": "counts?"}
    ),
    "timescales": Call(
        measures.timescales,
        one("z", lag=1),
        {"z": "finite array", "lag": "count", "segments": "counts?"},
    ),
    "autocorrelation_time": Call(
        measures.autocorrelation_time, one("z"), {"z": "finite array", "segments": "counts?"}
    ),
}  # fmt: skip


def exporter(name):
    return importlib.import_module(f"polyvae.export.{name}")


def installed(name):
    return importlib.util.find_spec(name) is not None


def folder(name, **more):
    """An export into a folder."""

    def given(k):
        return {"cv": k.superposed, "folder": k.out / name, "data": k.traj}

    return Call(functools.partial(polyvae.export.write, to=name), given, EXPORT | more)


CHAIN = [(bead, bead + 1) for bead in range(7)]
IN_OPENMM = {"particles": range(8), "periodic": True, "bonds": CHAIN, "sigma": 1.0}
EXPORTS = {
    "write": Call(
        polyvae.export.write,
        lambda k: {"cv": k.cv, "to": "plumed", "folder": k.out / "write"},
        EXPORT | {"to": "word", "n_atoms": "count?", "latents": "counts?", "options": "free"},
    ),
    **{name: folder(name) for name in ("c", "lammps", "pysages")},
    "compare": Call(
        polyvae.export.compare,
        lambda k: {"cv": k.superposed, "to": "c", "folder": k.out / "c", "frames": k.traj.positions},
        {"cv": "cv", "to": "word", "folder": "path", "frames": "array", "atoms": "counts?"},
    ),
    "plumed": folder("plumed", dialect="word?"),
    "colvars": folder("colvars", dialect="word?"),
    "openmm": folder("openmm", sigma="positive?", bias="word?"),
    "Metadynamics": Call(
        exporter("metadynamics").Metadynamics,
        one(sigma=[0.1, 0.1], height=1.0, kT=1.0, bias_factor=5.0, stride=10),
        {"sigma": "row", "height": "positive", "kT": "positive", "bias_factor": "factor",
         "stride": "count"},
    ),
}  # fmt: skip
if installed("torch"):
    EXPORTS["torchscript"] = folder("torchscript")
if installed("openmm"):
    EXPORTS |= {
        "latent_forces": Call(
            exporter("openmm").latent_forces,
            lambda k: {"cv": k.cv} | IN_OPENMM,
            {"cv": "cv", "particles": "counts"} | FORCES,
        ),
        "bias_variables": Call(
            exporter("openmm").bias_variables,
            lambda k: {"cv": k.cv, "data": k.traj} | IN_OPENMM,
            {"cv": "cv", "particles": "counts", "data": "data?", "minimum": "numbers?", "maximum": "numbers?",
             "width": "numbers?"} | FORCES,
        ),
        "bias_force": Call(
            exporter("openmm").bias_force,
            lambda k: {"cv": k.cv, "bias": lambda z: (0.0, None)} | IN_OPENMM,
            {"cv": "cv", "particles": "counts", "bias": "function"} | FORCES,
        ),
        "range_and_width": Call(
            exporter("openmm").range_and_width,
            lambda k: {"cv": k.cv, "data": k.traj},
            {"cv": "cv", "data": "data"},
        ),
    }  # fmt: skip

# The words that a message may have for an argument in place of its name.
WORDS = {
    "data": "positions|trajectory|file|conformations",
    "traj": "data|positions|trajectory|file|conformations",
    "start": "data|positions|trajectory|file",
    "x": "data",
    "a": "data|positions|trajectory|file",
    "b": "data|positions|trajectory|file",
    "chunk": "data|positions|trajectory|file",
    "generated": "data|positions|trajectory|file|conformations",
    "at": "z",
    "cv": "CV",
    "positions": "frame",
    "reference": "frame",
    "frames": "positions",
    "folder": "file",
    "paths": "file",
    "path": "file",
    "files": "file",
    "atoms": "particles",
    "particles": "atom",
    "seeds": "seed",
    "columns": "a",  # the name of the one that is given
}
ALL = {
    f"{place}{name}": call
    for place, calls in (("", CALLS), ("", METHODS), ("measures.", MEASURES), ("export.", EXPORTS))
    for name, call in calls.items()
}

# Where the shapes of arrays are checked in every call, a wrong one ends in the checker's error, not in ours.
CHECKED = (jaxtyping.TypeCheckError,) if os.environ.get("POLYVAE_CHECK_SHAPES") == "1" else ()


def about(value):
    return repr(value)[:40]


@pytest.mark.parametrize("traj", [3], indirect=True, ids=["3-D"])  # what is refused is so in 2-D, too
@pytest.mark.parametrize("name", ALL)
def test_wrong_values_are_refused_in_one_line_that_names_the_argument(known, name):
    call = ALL[name]
    given = {} if call.given is None else call.given(known)
    function = call.function
    if name in METHODS:
        function, given = inspect.unwrap(call.function), {"k": known} | given
    faults = []
    for argument, kind in call.kinds.items():
        wrong = WRONG[kind.removesuffix("?")]
        if not (kind.endswith("?") or "free" in kind or any(value is None for value in wrong)):
            wrong += (None,)
        names = "|".join({argument, argument.replace("_", " "), WORDS.get(argument, argument)})
        for value in wrong:
            case = f"{argument}={about(value)}"
            try:
                function(**given | {argument: value})
            except pv.InputError as error:
                text = str(error)
                if "\n" in text:
                    faults.append(f"{case}: more than one line: {text!r}")
                if not re.search(rf"\b({names})\b", text):
                    faults.append(f"{case}: does not name {argument}: {text!r}")
            except CHECKED:
                pass
            except Exception as error:
                faults.append(f"{case}: {type(error).__name__}: {str(error)[:120]!r}")
            else:
                faults.append(f"{case}: taken")
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)


ARRAYS = ("array", "finite array", "data", "row", "numbers", "counts")


def masked(value, axis=0):
    """The same numbers, of which the first is masked."""
    value = np.asarray(getattr(value, "positions", value))
    hidden = np.zeros(value.shape, bool)
    hidden.flat[0] = True
    return np.ma.array(value, mask=hidden)


@pytest.mark.parametrize("traj", [3], indirect=True, ids=["3-D"])
def test_what_is_masked_is_refused(known):
    """Of every call the arrays that it is given, and those that it may be given beside them; in lists, too."""
    n, faults = len(known.traj), []
    beside = {
        "time": np.arange(n), "weights": np.ones(n), "bias": np.zeros(n), "masses": np.ones(8), "box":
        np.ones((n, 3, 3)), "origin": np.zeros((n, 2), int), "bonds": np.array(CHAIN), "structure": known.frame,
        "pairs": np.array(CHAIN), "segments": np.array([n]), "at": known.z[:3],
    }  # fmt: skip
    for name, call in ALL.items():
        told = {} if call.given is None else call.given(known)
        function = call.function
        if name in METHODS:
            function, told = inspect.unwrap(call.function), {"k": known} | told
        kinds = {a: kind.removesuffix("?") for a, kind in call.kinds.items()}
        for argument in [a for a, kind in kinds.items() if kind in ARRAYS and (a in told or a in beside)]:
            value = told.get(argument, beside.get(argument))
            if argument in ("latents", "atoms", "particles") or not np.ndim(getattr(value, "positions", value)):
                continue
            for hidden in (masked(value), list(masked(value))):
                try:
                    function(**told | ({"kT": 1.0} if argument == "bias" else {}) | {argument: hidden})
                    faults.append(f"{name}({argument}): taken")
                except pv.InputError as error:
                    if "masked" not in str(error):
                        faults.append(f"{name}({argument}): {error}")
                except CHECKED:
                    pass
                except Exception as error:
                    faults.append(f"{name}({argument}): {type(error).__name__}: {error}")
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)


@pytest.mark.parametrize("traj", [3], indirect=True, ids=["3-D"])
def test_an_array_with_a_mask_that_hides_nothing_is_an_array(known):
    plain = np.ma.array(known.traj.positions, mask=False)
    np.testing.assert_array_equal(pv.Trajectory(plain).positions, known.traj.positions)
    assert type(pv.Trajectory(plain).positions) is np.ndarray


@pytest.mark.parametrize("traj", [3], indirect=True, ids=["3-D"])
def test_weights_that_are_all_zero_are_refused_where_they_are_given(known, tmp_path):
    n = len(known.traj)
    nothing = np.zeros(n)
    np.savez(tmp_path / "run.npz", positions=known.traj.positions, weights=nothing)
    calls = {
        "Trajectory": lambda: pv.Trajectory(known.traj.positions, weights=nothing),
        "replace": lambda: dataclasses.replace(known.traj, weights=nothing),
        "read": lambda: pv.read(tmp_path / "run.npz"),
        "fit": lambda: pv.fit(known.traj, weights=nothing, epochs=1),
        "fit_vae": lambda: pv.fit_vae(known.x, weights=nothing, epochs=1),
        "sweep": lambda: pv.sweep(known.traj, weights=nothing, epochs=1),
        "free_energy": lambda: pv.free_energy(known.z[:, 0], weights=nothing),
    }
    for call in calls.values():
        with pytest.raises(pv.InputError, match="weights must not all be 0"):
            call()
    some = np.where(np.arange(n) < n // 2, 0.0, 1.0)  # a part of a run may have none
    assert not pv.Trajectory(known.traj.positions, weights=some)[: n // 2].weights.any()


def test_every_public_argument_is_in_the_table():
    for name in pv.__all__:
        if name in RECORDS:
            continue
        assert set(inspect.signature(getattr(pv, name)).parameters) <= set(CALLS[name].kinds), name
    for name in polyvae.measures.__all__:
        if name not in RECORDS and name not in CALLS:
            parameters = inspect.signature(getattr(polyvae.measures, name)).parameters
            assert set(parameters) <= set(MEASURES[name].kinds), name


@pytest.fixture(scope="module")
def words(known):
    """What each verb needs beside its options, and what lies in the folder then."""
    model, run = map(str, (known.model, known.run))
    out = ["--out", str(known.model.with_name("result.safetensors"))]
    pdb, engine = run.replace(".npz", ".pdb"), ["--command", "false {plumed}", "--temperature", "300"]
    return {
        "run": [run, *out],
        "fit": [run, *out],
        "sweep": [run, *out],
        "project": [model, run, "--out", str(known.model.with_name("COLVAR"))],
        "generate": [model, "--out", str(known.model.with_name("generated.xtc"))],
        "optimize": [model, run, "--out", str(known.model.with_name("optimum.xtc"))],
        "score": [model, run, "--out", str(known.model.with_name("scores.json"))],
        "export": [model, "--to", "plumed", *out],
        "info": [run],
        "movie": [model, run, "--out", str(known.model.with_name("m.gif"))],
        "fes": [str(known.table), "--cv", "z0", *out],
        "adapt": [run, *engine, "--steps", "9", "--stride", "1", "--top", pdb, *out],
    }


# Options that are text on the line and numbers later, and what they cannot be.
LISTS = [
    ("fit", "--encoder", "1.5"),
    ("fit", "--decoder", "many"),
    ("fit", "--width", "nan"),
    ("sweep", "--latent-dim", "1.5"),
    ("sweep", "--beta", "nan"),
    ("generate", "--at", "many"),
    ("generate", "--at", "nan,0"),
    ("generate", "--path", "0,0:nan,1"),
    ("export", "--latents", "1.5"),
    ("export", "--atoms", "1.5"),
    ("fes", "--bins", "1.5"),
    ("fes", "--bandwidth", "nan"),
    ("fes", "--range", "1:many"),
    ("fes", "--state", "2:1"),
    ("fes", "--transient", "nan"),
]
VERBS = {command.name: command.callback for command in cli.app.registered_commands}


def numeric_options():
    """Verb, option and a word that is no such number, for all options that are integers or floats."""
    for verb, callback in VERBS.items():
        for parameter in inspect.signature(callback).parameters.values():
            kind, *about = typing.get_args(parameter.annotation) or (parameter.annotation,)
            kinds = typing.get_args(kind) or (kind,)
            if int in kinds or float in kinds:
                names = (about[0].default, *about[0].param_decls)  # within Annotated the first one stands there
                option = next(name for name in names if str(name).startswith("--"))
                yield verb, option, "1.5" if int in kinds else "nan"


NUMERIC = list(numeric_options())


@pytest.mark.parametrize("traj", [3], indirect=True, ids=["3-D"])
@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"report"}))
def test_the_command_line_refuses_it_in_one_line_and_leaves_nothing(known, words, capfd, verb):
    before = sorted(known.run.parent.iterdir())
    cases = [case[1:] for case in NUMERIC + LISTS if case[0] == verb]
    assert cases
    for option, wrong in cases:
        with pytest.raises(SystemExit) as ended:
            cli.main([verb, *words[verb], option, wrong])
        lines = capfd.readouterr().err.strip().splitlines()
        errors = [line for line in lines if not line.startswith(("note: ", "read ", "training on "))]
        assert ended.value.code in (1, 2), option
        assert len(errors) == 1, (option, errors)
        assert errors[0].startswith("polyvae: error: ")
        name = option.strip("-").replace("-", "[ _-]")
        allowed = {"at": r"\b(at|z)\b", "path": r"\b(path|a|b)\b"}.get(name, name)
        assert re.search(allowed, errors[0]), (option, errors)
        assert sorted(known.run.parent.iterdir()) == before, option


@pytest.mark.parametrize("traj", [3], indirect=True, ids=["3-D"])
def test_numbers_of_numpy_count_as_python_s_do(known, tmp_path):
    """Integers of every width, and floats without a fraction."""
    drawn = pv.sample(known.cv, 3, seed=1).positions
    for three in (np.int8(3), np.uint64(3), np.array(3), 3.0, np.float32(3)):
        np.testing.assert_array_equal(pv.sample(known.cv, three, seed=np.int64(1)).positions, drawn)
    assert len(pv.read(known.run, start=np.int64(1), stop=np.int32(9), step=np.uint8(2))) == 4
    featurizer = pv.PairDistances(every=np.int64(2), max_pairs=np.int32(5), reversal=np.True_)
    cv = pv.fit(known.traj, featurizer=featurizer, width="learned", epochs=np.int16(1), batch_size=np.uint8(64))
    cv.save(tmp_path / "model.safetensors")  # whose header holds plain numbers alone
    assert pv.load(tmp_path / "model.safetensors").featurizer.every == 2
    assert pv.Categorical(np.int64(3)).n_classes == 3
    assert pv.Gaussian(np.float32(0.5)).log_width == pytest.approx(math.log(0.5))

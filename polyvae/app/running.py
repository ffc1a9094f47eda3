"""The verb `run`: train, project, generate, optimise, score, draw and report."""

import math
import re
from pathlib import Path
from typing import Any

import polyvae as pv
from polyvae.app.choices import FEATURIZERS
from polyvae.app.console import about_run, command_line, print_optimum, print_scores, say
from polyvae.app.explorer import FILE, save_explorer
from polyvae.app.observables import check_observables, observables_of
from polyvae.app.options import for_training
from polyvae.app.reading import read_files, with_weights
from polyvae.app.report import write_report
from polyvae.cv.generator import MAX_BEADS
from polyvae.files import replacing_folder, write_json
from polyvae.io.writing import WRITERS
from polyvae.tasks.states import States, find_states, plane_of
from polyvae.tasks.verdict import verdict
from polyvae.vae.settings import Settings, sized

_RESULTS = ("model.safetensors", "COLVAR", "latent.npz", "generated.*", "optimized.pdb", "scores.json",
            FILE, "report.html", "figures/*", "states/*")  # fmt: skip
_QUICK = {"steps": 1000, "n_starts": 8, "refine_steps": 700}


def run_all(files: list[Path], model: dict, training: dict, reading: dict, output: dict) -> None:
    """Fill a folder with the results of all verbs on one trajectory; the options are those of the verb `run`."""
    training, seed, out = for_training(training), model["seed"], output["out"]
    quick, generator, observable = (output[name] for name in ("quick", "generator", "observable"))
    check_observables(observable)
    with replacing_folder(out, force=output["force"], results=_RESULTS) as folder:
        traj = read_files(files, reading)
        traj = with_weights(traj, training.pop("weights"))  # for all that follows, and not for training alone
        observables = observables_of(observable, traj)
        if quick and training["epochs"] is None:
            training["epochs"] = _quick_epochs(traj, training, _QUICK["steps"])
        with pv.progress_bar("training", unit="epoch") as progress:
            cv = pv.fit(traj, **model, **training, progress=progress)
        if generator and traj.n_beads > MAX_BEADS:
            say(f"the decoder draws the conformations, roughly: a generator of over {MAX_BEADS} beads takes hours")
        elif generator:
            brief = {"steps": _QUICK["steps"]} if quick and traj.n_frames > _QUICK["steps"] else {}
            cv = with_generator(cv, traj, seed, **brief)
        else:
            say("the decoder draws the conformations, roughly; without --no-generator they are drawn well")
        cv.save(folder / "model.safetensors")

        for name in ("COLVAR", "latent.npz"):
            pv.project(cv, traj, folder / name)
        generated = pv.sample(cv, min(traj.n_frames, 10_000), seed=seed)
        suffix = files[0].suffix.lower()
        pv.write(folder / f"generated{suffix if suffix in WRITERS else '.xtc'}", generated)

        say("optimising Rg in the latent space")
        effort: dict[str, Any] = {k: v for k, v in _QUICK.items() if k != "steps"} if quick else {}
        optimum = pv.optimize(cv, start=traj, seed=seed, **effort)
        pv.write(folder / "optimized.pdb", optimum.structure)

        say("scoring and drawing")
        scores = pv.score(cv, traj, generated=generated, alternatives=not quick, seed=seed)
        if scores.alignment is not None and scores.alignment.message:
            options = {kind: f"--align {name}" for name, kind in FEATURIZERS.items()}
            text = re.sub(r"(\w+)\(\)", lambda m: options.get(m[1], m[0]), scores.alignment.message)
            say(f"note: the CV jumps where the conformation hardly changes: {text}")
        found, z = optimum.summary(), cv.transform(traj)
        states, energy = find_states(cv, traj, z, plane_of(scores.frames.all.kl_per_latent))
        said = verdict(cv, scores, traj, z, states)
        about = about_run(files, traj, cv) | {"command": command_line()}
        added = {"states": states.to_dict(), "verdict": said.to_dict(), "optimized": found}
        write_json(folder / "scores.json", scores.to_dict() | added | about)
        _write_medoids(folder / "states", states, traj)
        (folder / "figures").mkdir()
        formats = ["png", output["figures"]]  # the report shows the first
        drawn: dict[str, Any] = {"formats": formats, "states": (states, energy)}
        pv.plot.save_figures(folder / "figures", cv, traj, z, generated, optimum, **drawn)
        save_explorer(folder / FILE, cv, traj, observables, pieces=[path.name for path in files])
        write_report(folder)
    print_scores(scores)
    print_optimum(found, "rg", traj.length_unit)
    print("", *said.lines(), "", f"results in {out}; open {out / 'report.html'}", sep="\n")


def _write_medoids(folder: Path, states: States, traj: pv.Trajectory) -> None:
    """Write the medoid frame of each state as a PDB file."""
    if not states.states:
        return
    folder.mkdir()
    for state in states.states:
        pv.write(folder / f"{state.name}.pdb", traj[state.medoid : state.medoid + 1])


def _quick_epochs(traj: pv.Trajectory, training: dict, steps: int) -> int:
    """Number of epochs that take about `steps` steps."""
    chosen = Settings(batch_size=training["batch_size"], validation=training["validation"])
    chosen = sized(chosen, traj.n_frames, traj.n_beads * traj.n_dims)
    return math.ceil(steps / max(1, int(traj.n_frames * (1 - chosen.validation)) // chosen.batch_size))


def with_generator(cv: pv.LatentCV, data, seed: int, **options) -> pv.LatentCV:
    with pv.progress_bar("training the generator") as progress:
        return pv.fit_generator(cv, data, seed=seed, progress=progress, **options)

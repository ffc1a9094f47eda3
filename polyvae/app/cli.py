"""The command line: one verb a step, and `run` for all of them."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import polyvae as pv
from polyvae.app import console
from polyvae.app.adapt import adapt
from polyvae.app.choices import OBJECTIVES, TARGETS, TRAJECTORIES
from polyvae.app.fes import fes
from polyvae.app.movie import movie
from polyvae.app.observables import OBSERVABLE
from polyvae.app.options import (
    CLUSTER,
    EXPORTING,
    FIGURE_FORMAT,
    FORCE,
    GENERATOR,
    LAG,
    MAKING,
    ONE_MODEL,
    READING,
    SEARCHING,
    SEED,
    TRAINING,
    WEIGHTS,
    Files,
    Model,
    for_training,
    known,
    option,
    spread,
    takes,
)
from polyvae.app.programs import keep_programs
from polyvae.app.project import project
from polyvae.app.reading import as_the_model, for_reading, read_files, read_weights, with_weights
from polyvae.app.signals import ending_promptly
from polyvae.app.sweep import sweep
from polyvae.errors import InputError, one_line

app = typer.Typer(
    help="Collective variables from finished MD runs: train a VAE on a trajectory, project, generate, optimise.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_HELD_FRAMES = 200_000
_GENERATOR_NAMES = "--generator/--no-generator"
# By the name in `running.run_all`.
RUNNING = {
    "out": option(Path, "Folder for the results.", Path("polyvae-out")),
    "quick": option(bool, "Short training and search, to try things out.", False),
    "generator": option(bool, GENERATOR, True, _GENERATOR_NAMES),
    "figures": FIGURE_FORMAT,
    "observable": OBSERVABLE,
    "force": FORCE,
}
FITTING = {
    "out": option(Path, "Model file to write.", ...),
    "resume": option(bool, "Continue an unfinished run.", False),
    "generator": option(bool, GENERATOR, False, _GENERATOR_NAMES),
    "force": FORCE,
}
SCORING = {
    "out": option(Path, "JSON file to write.", Path("scores.json")),
    "lag": LAG,
    "weights": WEIGHTS,
    "seed": SEED,
    "force": FORCE,
}
_CONFORMATIONS = option(Path, f"File to write: {', '.join(TRAJECTORIES)}.", ...)
GENERATED = {
    "out": _CONFORMATIONS,
    "n": option(int, "How many conformations [default: 1000; path 100].", names="-n --number", min=1),
    "seed": SEED,
    "force": FORCE,
}
OPTIMUM = {"out": _CONFORMATIONS, "weights": WEIGHTS, "force": FORCE}


def _print_version(wanted: bool) -> None:
    if wanted:
        print(pv.__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; anywhere in the command.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
):
    pass


@app.command("run")
@takes(model=ONE_MODEL, training=TRAINING, reading=READING, output=RUNNING)
def run(files: Files, model: dict, training: dict, reading: dict, output: dict):
    """Do the whole job: train, project, generate, optimise Rg, score, draw and report.

    Example: polyvae run run.xtc --top chain.pdb --unit sigma --out out
    """
    from polyvae.app.running import run_all

    run_all(files, model, training, reading, output)


@app.command("fit")
@takes(model=ONE_MODEL, training=TRAINING, reading=READING, cluster=CLUSTER, output=FITTING)
def fit(files: Files, model: dict, training: dict, reading: dict, output: dict, client):
    """Train a model on a trajectory, of any length, on all devices of this machine.

    The state of the run is kept in a file beside the model, OUT.unfinished, until the model is there.

    Example: polyvae fit run.xtc --top chain.pdb --latent-dim 2 --out model.safetensors
    """
    from polyvae.app.running import with_generator
    from polyvae.files import check_output, locked, refuse_inputs

    out, resume, force = (output[name] for name in ("out", "resume", "force"))
    unfinished, unfinished_generator = states = [
        out.with_name(out.name + ending) for ending in (".unfinished", ".generator.unfinished")
    ]
    if resume and out.exists() and not unfinished.exists():
        raise InputError(f"{out} exists already, and there is no unfinished run to continue")
    training = for_training(training)
    check_output(out, force=force or resume, suffixes=[".safetensors"])
    for path in states:
        refuse_inputs(path)
    with locked(out):
        stream = pv.stream(files, client=client, **for_reading(reading))
        stream = with_weights(stream, training.pop("weights"))
        if force and not resume:  # once the inputs are known to be there
            for path in states:
                path.unlink(missing_ok=True)
        console.say(f"training on {len(stream)} frames")
        try:
            with pv.progress_bar("training", unit="epoch") as progress:
                own: dict[str, Any] = {"checkpoint": unfinished, "resume": resume, "cache": out.parent}
                cv = pv.fit(stream, **model, **training, progress=progress, **own)
            if output["generator"]:
                cv = with_generator(cv, stream, model["seed"], checkpoint=unfinished_generator, resume=resume)
        except (KeyboardInterrupt, SystemExit):
            if unfinished.exists():
                console.say(f"the run so far is in {unfinished}; --resume continues it")
            raise
        cv.save(out)
        for path in states:
            path.unlink(missing_ok=True)
    print(f"{cv} in {out}; {cv.record.stopped}, best epoch {cv.record.best_epoch}")


app.command("project")(project)


@app.command("generate")
@takes(making=MAKING, reading=READING, output=GENERATED)
def generate(model: Model, making: dict, reading: dict, output: dict):
    """Draw conformations from the model's generator or decoder, or decode a latent path or grid.

    The conformations are checked against the limits of the data. A table with the z of each is written beside OUT,
    with the suffix .COLVAR.

    Example: polyvae generate model.safetensors -n 1000 --out gen.xtc
    """
    from polyvae.app import conformations
    from polyvae.cv.latent import load_cv

    out, n, force = output["out"], output["n"], output["force"]
    making = conformations.check_making(making, n)
    conformations.check_outputs([out], force=force)
    cv = load_cv(model)
    data = cv.as_trajectory(read_files(making["data"], as_the_model(reading, cv))) if making["data"] else None
    made = conformations.make(cv, making, n, data=data, seed=output["seed"])
    conformations.write_generated(out, cv, *made, data, force=force)


@app.command("optimize")
@takes(searching=SEARCHING, reading=READING, output=OPTIMUM)
def optimize(model: Model, files: Files, searching: dict, reading: dict, output: dict):
    """Search the latent space for the structure with the smallest, largest or a given objective.

    Two more trajectories are written beside OUT: OUT-starts has the result of every start, and OUT-path the steps
    that led to the best. Each has a .COLVAR table of its z.

    Example: polyvae optimize model.safetensors run.xtc --top chain.pdb --objective rg --out best.pdb
    """
    from polyvae.app import conformations
    from polyvae.cv.latent import load_cv

    out, weights, force = (output[name] for name in ("out", "weights", "force"))
    objective, maximize, target = searching.pop("objective"), searching.pop("maximize"), searching["target"]
    known("objective", objective, OBJECTIVES)
    if maximize and target is not None:
        raise typer.BadParameter("a target takes no --maximize", param_hint="--target")
    conformations.check_outputs([*conformations.optimum_files(out), out], force=force)
    cv = load_cv(model)
    traj = with_weights(read_files(files, as_the_model(reading, cv)), read_weights(weights))
    console.say(f"read {console.name_files([model, *files, weights])}")
    optimum = pv.optimize(cv, objective, start=traj, minimize=not maximize, **searching)
    console.print_optimum(optimum.summary(), objective, cv.length_unit, target)
    conformations.write_optimum(out, cv, optimum, objective, force=force)


@app.command("score")
@takes(reading=READING, cluster=CLUSTER, output=SCORING)
def score(model: Model, files: Files, reading: dict, output: dict, client):
    """Measure a model on a trajectory: the training data or another run.

    Example: polyvae score model.safetensors heldout.npz --out scores.json
    """
    from polyvae.cv.latent import load_cv
    from polyvae.files import check_output, write_json

    out, weights, seed = (output[name] for name in ("out", "weights", "seed"))
    check_output(out, force=output["force"])
    cv = load_cv(model)
    stream = pv.stream(files, client=client, **for_reading(as_the_model(reading, cv)))
    # A run that fits in memory is held there, for what needs neighbouring frames.
    data = stream if len(stream) > _HELD_FRAMES else pv.as_trajectory(stream)
    console.say(f"read {data} from {console.name_files([model, *files, weights])}")
    data = with_weights(data, read_weights(weights))
    generated = pv.sample(cv, min(len(stream), 10_000), seed=seed)
    scores = pv.score(cv, data, generated=generated, lag=output["lag"], seed=seed)
    write_json(out, scores.to_dict())
    console.print_scores(scores)


@app.command("export")
@takes(exporting=EXPORTING, reading=READING, output={"out": option(Path, "Folder to write.", ...), "force": FORCE})
def export(model: Model, exporting: dict, reading: dict, output: dict):
    """Write the CV as input of an MD engine, with a README that says how to use it.

    Example: polyvae export model.safetensors --to plumed --data run*.xtc --top chain.pdb --out plumed
    """
    from polyvae.cv.latent import load_cv
    from polyvae.export import export_files

    known("to", exporting["to"], TARGETS)
    cv = load_cv(model)
    reading = for_reading(as_the_model(reading, cv))
    print(export_files(cv, output["out"], reading=reading, force=output["force"], **exporting))


for name, verb in {"sweep": sweep, "fes": fes, "adapt": adapt, "movie": movie}.items():
    app.command(name)(verb)


@app.command("report")
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders that `polyvae run` wrote.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File to write [default: DIR/report.html; of several compare.html]."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help=FORCE.text)] = False,
):
    """Write report.html of a results folder again; of several, a page that sets their models side by side.

    Example: polyvae report out1 out2 out3 --out compare.html
    """
    from polyvae.app.report import write_comparison, write_report
    from polyvae.files import check_output

    if len(folders) > 1 and out is None:
        out = Path("compare.html")
    if out is not None:
        check_output(out, force=force, suffixes=[".html"])
    if len(folders) == 1 or out is None:
        print(write_report(folders[0], out))
    else:
        print(write_comparison(folders, out))


@app.command("info")
@takes(reading={name: one for name, one in READING.items() if name not in ("start", "stop", "step")})
def info(file: Annotated[Path, typer.Argument(metavar="FILE", help="A model or a trajectory.")], reading: dict):
    """Say what a model or a trajectory file holds.

    Example: polyvae info model.safetensors
    """
    if file.suffix == ".safetensors":
        console.print_model(pv.load(file))
    else:
        console.print_trajectory(read_files([file], reading))


def main(argv: list[str] | None = None) -> None:
    """Entry point. Exits 0 on success, 2 on bad use, 1 on bad data, with one line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = spread([word for word in argv if word != "--debug"]) or ["--help"]
    keep_programs()
    try:
        with ending_promptly(), console.notes():
            code = app(argv, prog_name="polyvae", standalone_mode=False)
        if code == 130:
            console.fail("interrupted; no result was written", 130)
        sys.exit(code or 0)
    except (InputError, OSError) as error:
        if debug:
            raise
        console.fail(one_line(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        console.fail("interrupted; no result was written", 130)
    except Exception as error:
        # Errors of the parser about bad use carry their message and exit code.
        if debug or not hasattr(error, "format_message"):
            raise
        console.fail(f"{error.format_message()} (see `polyvae --help`)", error.exit_code)  # type: ignore[attr-defined]  # as above

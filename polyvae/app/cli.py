"""The command line: one verb a step, and `run` for all of them."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import polyvae as pv
from polyvae.app.adapt import adapt
from polyvae.app.choices import OBJECTIVES, TARGETS, TRAJECTORIES
from polyvae.app.cluster import CLUSTER, on_cluster
from polyvae.app.console import fail, named, notes, print_model, print_optimum, print_scores, print_trajectory, say
from polyvae.app.fes import fes
from polyvae.app.movie import movie
from polyvae.app.observables import Observable
from polyvae.app.options import (
    EXPORTING,
    MAKING,
    ONE_MODEL,
    READING,
    TRAINING,
    Figures,
    Files,
    Force,
    Generator,
    Lag,
    Model,
    Objective,
    Seed,
    Weights,
    for_training,
    known,
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


def _print_version(wanted: bool) -> None:
    if wanted:
        print(pv.__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; anywhere on the line.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
):
    pass


@app.command()
@takes(model=ONE_MODEL, training=TRAINING, reading=READING)
def run(
    files: Files,
    model: dict,
    training: dict,
    reading: dict,
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("polyvae-out"),
    quick: Annotated[bool, typer.Option("--quick", help="Short training and search, to try things out.")] = False,
    generator: Generator = True,
    figures: Figures = "png",
    observable: Observable = None,
    force: Force = False,
):
    """Do the whole job: train, project, generate, optimise Rg, score, draw and report.

    Example: polyvae run run.xtc --top chain.pdb --unit sigma --out out
    """
    from polyvae.app.running import run_all

    groups: dict[str, Any] = {"model": model, "training": training, "reading": reading}
    chosen: dict[str, Any] = {"quick": quick, "generator": generator, "figures": figures, "observable": observable}
    run_all(files, out, **groups, **chosen, force=force)


@app.command()
@takes(model=ONE_MODEL, training=TRAINING, reading=READING, cluster=CLUSTER)
@on_cluster
def fit(
    files: Files,
    model: dict,
    training: dict,
    reading: dict,
    client,
    out: Annotated[Path, typer.Option("--out", help="Model file to write.")],
    resume: Annotated[bool, typer.Option("--resume", help="Continue an unfinished run.")] = False,
    generator: Generator = False,
    force: Force = False,
):
    """Train a model on a trajectory, of any length, on all devices of this machine.

    The state of the run is kept in a file beside the model, OUT.unfinished, until the model is there.

    Example: polyvae fit run.xtc --top chain.pdb --latent-dim 2 --out model.safetensors
    """
    from polyvae.app.running import with_generator
    from polyvae.files import check_output, locked, refuse_inputs

    unfinished = out.with_name(out.name + ".unfinished")
    unfinished_generator = out.with_name(out.name + ".generator.unfinished")
    if resume and out.exists() and not unfinished.exists():
        raise InputError(f"{out} exists already, and there is no unfinished run to go on with")
    training = for_training(training)
    check_output(out, force=force or resume, suffixes=[".safetensors"])
    for path in (unfinished, unfinished_generator):
        refuse_inputs(path)
    with locked(out):
        stream = pv.stream(files, client=client, **for_reading(reading))
        stream = with_weights(stream, training.pop("weights"))
        if force and not resume:  # once the inputs are known to be there
            for path in (unfinished, unfinished_generator):
                path.unlink(missing_ok=True)
        say(f"training on {len(stream)} frames")
        try:
            with pv.progress_bar("training", unit="epoch") as progress:
                own: dict[str, Any] = {"checkpoint": unfinished, "resume": resume, "cache": out.parent}
                cv = pv.fit(stream, **model, **training, progress=progress, **own)
            if generator:
                cv = with_generator(cv, stream, model["seed"], checkpoint=unfinished_generator, resume=resume)
        except (KeyboardInterrupt, SystemExit):
            if unfinished.exists():
                say(f"the run so far is in {unfinished}; --resume continues it")
            raise
        cv.save(out)
        for path in (unfinished, unfinished_generator):
            path.unlink(missing_ok=True)
    print(f"{cv} in {out}; {cv.record.stopped}, best epoch {cv.record.best_epoch}")


app.command()(project)


@app.command()
@takes(making=MAKING, reading=READING)
def generate(
    model: Model,
    making: dict,
    reading: dict,
    out: Annotated[Path, typer.Option("--out", help=f"File to write: {', '.join(TRAJECTORIES)}.")],
    n: Annotated[
        int | None, typer.Option("-n", "--number", min=1, help="How many conformations [default: 1000; path 100].")
    ] = None,
    seed: Seed = 0,
    force: Force = False,
):
    """Draw conformations from the model's generator or decoder, or decode a latent path or grid.

    The conformations are checked against the limits of the data. A table with the z of each is written beside OUT,
    with the suffix .COLVAR.

    Example: polyvae generate model.safetensors -n 1000 --out gen.xtc
    """
    from polyvae.app import conformations
    from polyvae.cv.latent import load_cv

    making = conformations.checked(making, n)
    conformations.check_outputs([out], force=force)
    cv = load_cv(model)
    data = cv.as_trajectory(read_files(making["data"], as_the_model(reading, cv))) if making["data"] else None
    made = conformations.made(cv, making, n, data=data, seed=seed)
    conformations.write_generated(out, cv, *made, data, force=force)


@app.command()
@takes(reading=READING)
def optimize(
    model: Model,
    files: Files,
    reading: dict,
    out: Annotated[Path, typer.Option("--out", help=f"File to write: {', '.join(TRAJECTORIES)}.")],
    objective: Objective = "rg",
    maximize: Annotated[
        bool, typer.Option("--maximize", help="Search for the largest value instead of the smallest.")
    ] = False,
    target: Annotated[float | None, typer.Option("--target", help="Search for this value, to 1 %.")] = None,
    n_starts: Annotated[int | None, typer.Option("--starts", min=1, help="Number of starting points.")] = None,
    weights: Weights = None,
    seed: Seed = 0,
    force: Force = False,
):
    """Search the latent space for the structure with the smallest, largest or a given objective.

    Two more trajectories are written beside OUT: OUT-starts has the result of every start, and OUT-path the steps
    that led to the best. Each has a .COLVAR table of its z.

    Example: polyvae optimize model.safetensors run.xtc --top chain.pdb --objective rg --out best.pdb
    """
    from polyvae.app import conformations
    from polyvae.cv.latent import load_cv

    known("objective", objective, OBJECTIVES)
    if maximize and target is not None:
        raise typer.BadParameter("a target takes no --maximize", param_hint="--target")
    conformations.check_outputs([*conformations.optimum_files(out), out], force=force)
    cv = load_cv(model)
    traj = with_weights(read_files(files, as_the_model(reading, cv)), read_weights(weights))
    say(f"read {named([model, *files, weights])}")
    options: dict[str, Any] = {"minimize": not maximize, "target": target, "n_starts": n_starts, "seed": seed}
    optimum = pv.optimize(cv, objective, start=traj, **options)
    print_optimum(optimum.summary(), objective, cv.length_unit, target)
    conformations.write_optimum(out, cv, optimum, objective, force=force)


@app.command()
@takes(reading=READING, cluster=CLUSTER)
@on_cluster
def score(
    model: Model,
    files: Files,
    reading: dict,
    client,
    out: Annotated[Path, typer.Option("--out", help="JSON file to write.")] = Path("scores.json"),
    lag: Lag = None,
    weights: Weights = None,
    seed: Seed = 0,
    force: Force = False,
):
    """Measure a model on a trajectory: the training data or another run.

    Example: polyvae score model.safetensors heldout.npz --out scores.json
    """
    from polyvae.cv.latent import load_cv
    from polyvae.files import check_output, write_json

    check_output(out, force=force)
    cv = load_cv(model)
    reading = as_the_model(reading, cv)
    stream = pv.stream(files, client=client, **for_reading(reading))
    # A run that fits in memory is held there, for what needs neighbouring frames.
    data = stream if len(stream) > _HELD_FRAMES else pv.as_trajectory(stream)
    say(f"read {data} from {named([model, *files, weights])}")
    data = with_weights(data, read_weights(weights))
    generated = pv.sample(cv, min(len(stream), 10_000), seed=seed)
    scores = pv.score(cv, data, generated=generated, lag=lag, seed=seed)
    write_json(out, scores.to_dict())
    print_scores(scores)


@app.command()
@takes(exporting=EXPORTING, reading=READING)
def export(
    model: Model,
    exporting: dict,
    reading: dict,
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    force: Force = False,
):
    """Write the CV as input of an MD engine, with a README that says how to use it.

    Example: polyvae export model.safetensors --to plumed --data run*.xtc --top chain.pdb --out plumed
    """
    from polyvae.cv.latent import load_cv
    from polyvae.export import export_files

    known("to", exporting["to"], TARGETS)
    cv = load_cv(model)
    print(export_files(cv, out, reading=for_reading(as_the_model(reading, cv)), force=force, **exporting))


app.command()(sweep)
app.command()(fes)
app.command()(adapt)
app.command()(movie)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders that `polyvae run` wrote.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File to write [default: DIR/report.html; of several compare.html]."),
    ] = None,
    force: Force = False,
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


@app.command()
@takes(reading={name: option for name, option in READING.items() if name not in ("start", "stop", "step")})
def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A model or a trajectory.")],
    reading: dict,
):
    """Say what a model or a trajectory file holds.

    Example: polyvae info model.safetensors
    """
    if file.suffix == ".safetensors":
        print_model(pv.load(file))
    else:
        print_trajectory(read_files([file], reading))


def main(argv: list[str] | None = None) -> None:
    """Entry point. Exits 0 on success, 2 on bad use, 1 on bad data, with one line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = spread([word for word in argv if word != "--debug"]) or ["--help"]
    keep_programs()
    try:
        with ending_promptly(), notes():
            code = app(argv, prog_name="polyvae", standalone_mode=False)
        if code == 130:
            fail("interrupted; no result was written", 130)
        sys.exit(code or 0)
    except (InputError, OSError) as error:
        if debug:
            raise
        fail(one_line(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        fail("interrupted; no result was written", 130)
    except Exception as error:
        # Errors of the parser about bad use carry their message and exit code.
        if debug or not hasattr(error, "format_message"):
            raise
        fail(f"{error.format_message()} (see `polyvae --help`)", error.exit_code)  # type: ignore[attr-defined]  # as above

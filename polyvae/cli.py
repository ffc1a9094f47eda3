"""The command line: one verb a step, and `run` for all of them."""

import json
import math
import re
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated

import jax
import typer

import polyvae as pv
from polyvae.console import frame_bar, notes, print_optimum, print_scores, say, training_bar
from polyvae.cv import map_frames
from polyvae.errors import InputError
from polyvae.files import check_output, replacing, replacing_folder
from polyvae.io.write import WRITERS, check_trajectory_output

app = typer.Typer(
    help="Collective variables from finished MD runs: train a VAE on a trajectory, project, generate, optimise.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

OBJECTIVES = {
    "rg": pv.radius_of_gyration,
    "end_to_end": pv.end_to_end,
    "asphericity": pv.asphericity,
    "shape_anisotropy": pv.shape_anisotropy,
}
FEATURIZERS = {"principal": pv.PrincipalAxes, "reference": pv.Reference, "distances": pv.PairDistances}
_HELD_FRAMES = 200_000
_QUICK = {"steps": 1000, "n_starts": 8, "refine_steps": 700}

Files = Annotated[
    list[Path],
    typer.Argument(metavar="TRAJ...", help="Files or patterns: .npz, .xtc, .dcd, all MDAnalysis reads."),
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model.safetensors.")]
Top = Annotated[Path | None, typer.Option("--top", help="Topology that MDAnalysis reads.")]
Select = Annotated[str | None, typer.Option("--select", help='Atoms, as in MDAnalysis: "name B".')]
Unit = Annotated[str | None, typer.Option("--unit", help="Unit of the numbers in the file: nm, angstrom, sigma.")]
Start = Annotated[int, typer.Option("--start", min=0, help="First frame of each file.")]
Stop = Annotated[int | None, typer.Option("--stop", help="Frame to stop before.")]
Step = Annotated[int, typer.Option("--step", min=1, help="Take every STEP-th frame.")]
Unwrap = Annotated[
    bool | None,
    typer.Option("--unwrap/--no-unwrap", help="Make molecules whole [default: where there is a box]."),
]
PerMolecule = Annotated[bool, typer.Option("--per-molecule", help="Each of many like molecules is a frame.")]
Dims = Annotated[int | None, typer.Option("--dims", min=2, max=3, help="2 or 3 [default: 2 if z never varies].")]
KeepGood = Annotated[bool, typer.Option("--keep-good", help="Take the whole frames of a damaged file.")]
IgnoreTimes = Annotated[bool, typer.Option("--ignore-times", help="Leave out times, which must increase else.")]
Align = Annotated[str, typer.Option("--align", help=f"How frames are aligned: {', '.join(FEATURIZERS)}.")]
LatentDim = Annotated[int, typer.Option("--latent-dim", min=1, help="Number of collective variables.")]
Beta = Annotated[float, typer.Option("--beta", min=0.0, help="Weight of the KL term; 1 is the ELBO.")]
Epochs = Annotated[
    int | None, typer.Option("--epochs", min=1, help="Passes over the data [default: ~8,000 steps].")
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Frames in a batch.")]
Validation = Annotated[
    float, typer.Option("--validation", min=0.0, max=0.9, help="Fraction held out for early stopping; 0 for none.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of weights, batches and draws.")]
Lag = Annotated[int | None, typer.Option("--lag", min=1, help="Frames, for VAMP-2 [default: as trained, else 1].")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Objective = Annotated[str, typer.Option("--objective", help=f"One of {', '.join(OBJECTIVES)}.")]


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; anywhere on the line.")
    ] = False,
):
    pass


@app.command()
def run(
    files: Files,
    top: Top = None,
    select: Select = None,
    unit: Unit = None,
    start: Start = 0,
    stop: Stop = None,
    step: Step = 1,
    unwrap: Unwrap = None,
    per_molecule: PerMolecule = False,
    dims: Dims = None,
    keep_good: KeepGood = False,
    ignore_times: IgnoreTimes = False,
    align: Align = "principal",
    latent_dim: LatentDim = 2,
    beta: Beta = 1.0,
    epochs: Epochs = None,
    batch_size: BatchSize = 256,
    validation: Validation = 0.1,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("polyvae-out"),
    quick: Annotated[bool, typer.Option("--quick", help="Short training and search, to try things out.")] = False,
    force: Force = False,
):
    """The whole job: train, project, generate, optimise Rg, score, draw and report.

    Example: polyvae run run.xtc --top chain.pdb --unit sigma --out out
    """
    from polyvae.plot import save_figures
    from polyvae.report import write_report

    _known("align", align, FEATURIZERS)
    with replacing_folder(out, force=force) as folder:
        traj = _read(files, _reading(locals()))
        if quick and epochs is None:
            n_batches = max(1, int(traj.n_frames * (1 - validation)) // batch_size)
            epochs = math.ceil(_QUICK["steps"] / n_batches)
        cv = _fit(traj, align, latent_dim, beta, epochs, batch_size, validation, seed)
        cv.save(folder / "model.safetensors")

        z = cv.transform(traj)
        pv.write_colvar(folder / "COLVAR", z, time=traj.time)
        pv.write_colvar(folder / "latent.npz", z, time=traj.time)
        generated = pv.sample(cv, min(traj.n_frames, 10_000), seed=seed)
        suffix = files[0].suffix.lower()
        pv.write(folder / f"generated{suffix if suffix in WRITERS else '.xtc'}", generated)

        say("optimising Rg in the latent space")
        effort = {k: v for k, v in _QUICK.items() if k != "steps"} if quick else {}
        optimum = pv.optimize(cv, start=traj, seed=seed, **effort)
        pv.write(folder / "optimized.pdb", optimum.structure)

        say("scoring and drawing")
        scores = pv.score(cv, traj, generated=generated, alternatives=not quick, seed=seed)
        scores["optimized"] = optimum.summary()
        if scores["alignment"]["message"]:
            options = {kind.__name__: f"--align {name}" for name, kind in FEATURIZERS.items()}
            text = re.sub(r"(\w+)\(\)", lambda m: options.get(m[1], m[0]), scores["alignment"]["message"])
            say(f"note: the CV jumps where the conformation hardly changes: {text}")
        scores["data"] = {
            "files": [str(file) for file in files],
            "n_frames": traj.n_frames,
            "n_beads": traj.n_beads,
            "n_dims": traj.n_dims,
            "length_unit": traj.length_unit,
        }
        scores["model"] = {k: cv.record[k] for k in ("settings", "versions", "best_epoch", "stopped")}
        scores["command"] = shlex.join(["polyvae", *sys.argv[1:]])
        _write_json(folder / "scores.json", scores)
        (folder / "figures").mkdir()
        save_figures(folder / "figures", cv, traj, z, generated, optimum)
        write_report(folder)
    print_scores(scores)
    print_optimum(scores["optimized"], "rg", traj.length_unit, traj.length_unit)
    print(f"\nresults in {out}; open {out / 'report.html'}")


@app.command()
def fit(
    files: Files,
    out: Annotated[Path, typer.Option("--out", help="Model file to write.")],
    top: Top = None,
    select: Select = None,
    unit: Unit = None,
    start: Start = 0,
    stop: Stop = None,
    step: Step = 1,
    unwrap: Unwrap = None,
    per_molecule: PerMolecule = False,
    dims: Dims = None,
    keep_good: KeepGood = False,
    ignore_times: IgnoreTimes = False,
    align: Align = "principal",
    latent_dim: LatentDim = 2,
    beta: Beta = 1.0,
    epochs: Epochs = None,
    batch_size: BatchSize = 256,
    validation: Validation = 0.1,
    seed: Seed = 0,
    force: Force = False,
):
    """Train a model on a trajectory.

    Example: polyvae fit run.xtc --top chain.pdb --latent-dim 2 --out model.safetensors
    """
    _known("align", align, FEATURIZERS)
    check_output(out, force=force, suffixes=[".safetensors"])
    traj = _read(files, _reading(locals()))
    cv = _fit(traj, align, latent_dim, beta, epochs, batch_size, validation, seed)
    cv.save(out)
    print(f"{cv} in {out}; {cv.record['stopped']}, best epoch {cv.record['best_epoch']}")


@app.command()
def project(
    model: Model,
    files: Files,
    out: Annotated[Path, typer.Option("--out", help="COLVAR, or a name ending in .csv or .npz.")] = Path("COLVAR"),
    add: Annotated[
        list[str] | None, typer.Option("--add", help=f"A further column, repeatable: {', '.join(OBJECTIVES)}.")
    ] = None,
    top: Top = None,
    select: Select = None,
    unit: Unit = None,
    start: Start = 0,
    stop: Stop = None,
    step: Step = 1,
    unwrap: Unwrap = None,
    per_molecule: PerMolecule = False,
    dims: Dims = None,
    keep_good: KeepGood = False,
    ignore_times: IgnoreTimes = False,
    force: Force = False,
):
    """Write the collective variables of every frame, of files of any length.

    Example: polyvae project model.safetensors run.xtc --top chain.pdb --out COLVAR
    """
    for name in add or ():
        _known("add", name, OBJECTIVES)
    check_output(out, force=force)
    cv = pv.load(model)
    stream = pv.stream(files, **_reading(locals()) | {"dims": cv.n_dims if dims is None else dims})
    with frame_bar("projecting", len(stream)) as count:
        n = pv.project(cv, stream, out, columns={name: OBJECTIVES[name] for name in add or ()}, progress=count)
    print(f"{cv.latent_dim} latents of {n} frames in {out}")


@app.command()
def generate(
    model: Model,
    out: Annotated[Path, typer.Option("--out", help=f"File to write: {', '.join(WRITERS)}.")],
    n: Annotated[int, typer.Option("-n", "--number", min=1, help="How many conformations.")] = 1000,
    seed: Seed = 0,
    mean: Annotated[bool, typer.Option("--mean", help="The decoder's mean, without its noise.")] = False,
    force: Force = False,
):
    """Draw conformations from the model.

    Example: polyvae generate model.safetensors -n 1000 --out gen.xtc
    """
    check_trajectory_output(out, force=force)
    written = pv.write(out, pv.sample(pv.load(model), n, seed=seed, noise=not mean))
    print(f"{n} conformations in {' and '.join(map(str, written))}")


@app.command()
def optimize(
    model: Model,
    files: Files,
    out: Annotated[Path, typer.Option("--out", help=f"File to write: {', '.join(WRITERS)}.")],
    objective: Objective = "rg",
    maximize: Annotated[bool, typer.Option("--maximize", help="Largest in place of smallest.")] = False,
    n_starts: Annotated[int, typer.Option("--starts", min=1, help="Starting points.")] = 32,
    top: Top = None,
    select: Select = None,
    unit: Unit = None,
    start: Start = 0,
    stop: Stop = None,
    step: Step = 1,
    unwrap: Unwrap = None,
    per_molecule: PerMolecule = False,
    dims: Dims = None,
    keep_good: KeepGood = False,
    ignore_times: IgnoreTimes = False,
    seed: Seed = 0,
    force: Force = False,
):
    """Search the latent space for the structure with the smallest or largest objective.

    Example: polyvae optimize model.safetensors run.xtc --top chain.pdb --objective rg --out best.pdb
    """
    _known("objective", objective, OBJECTIVES)
    check_trajectory_output(out, force=force)
    cv = pv.load(model)
    traj = _read(files, _reading(locals()))
    optimum = pv.optimize(
        cv, objective=OBJECTIVES[objective], start=traj, minimize=not maximize, n_starts=n_starts, seed=seed
    )
    pv.write(out, optimum.structure)
    power = {"asphericity": f"{cv.length_unit}²", "shape_anisotropy": ""}.get(objective, cv.length_unit)
    print_optimum(optimum.summary(), objective, power, cv.length_unit)


@app.command()
def score(
    model: Model,
    files: Files,
    out: Annotated[Path, typer.Option("--out", help="JSON file to write.")] = Path("scores.json"),
    top: Top = None,
    select: Select = None,
    unit: Unit = None,
    start: Start = 0,
    stop: Stop = None,
    step: Step = 1,
    unwrap: Unwrap = None,
    per_molecule: PerMolecule = False,
    dims: Dims = None,
    keep_good: KeepGood = False,
    ignore_times: IgnoreTimes = False,
    lag: Lag = None,
    seed: Seed = 0,
    force: Force = False,
):
    """Measure a model on a trajectory, the training one or another.

    Example: polyvae score model.safetensors heldout.npz --out scores.json
    """
    check_output(out, force=force)
    cv = pv.load(model)
    stream = pv.stream(files, **_reading(locals()) | {"dims": cv.n_dims if dims is None else dims})
    # A run that fits in memory is held there, for what needs neighbouring frames.
    data = stream if len(stream) > _HELD_FRAMES else _read(files, _reading(locals()) | {"dims": cv.n_dims})
    generated = pv.sample(cv, min(len(stream), 10_000), seed=seed)
    scores = pv.score(cv, data, generated=generated, lag=lag, seed=seed)
    _write_json(out, scores)
    print_scores(scores)


@app.command()
def report(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `polyvae run` wrote.")]):
    """Write report.html of a results folder again, from the scores and figures in it.

    Example: polyvae report out
    """
    from polyvae.report import write_report

    print(write_report(folder))


@app.command()
def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A model or a trajectory.")],
    top: Top = None,
    select: Select = None,
    unit: Unit = None,
    unwrap: Unwrap = None,
    per_molecule: PerMolecule = False,
    dims: Dims = None,
    keep_good: KeepGood = False,
    ignore_times: IgnoreTimes = False,
):
    """Say what a model or a trajectory file holds.

    Example: polyvae info model.safetensors
    """
    if file.suffix == ".safetensors":
        cv = pv.load(file)
        print(cv)
        for name, value in cv.record["settings"].items():
            print(f"  {name:14s} {value}")
        print(
            f"  trained on     {cv.record['data']['n_train']} frames (sha256 {cv.record['data']['sha256'][:16]})"
        )
        print(f"  best epoch     {cv.record['best_epoch']} ({cv.record['stopped']})")
        print("  made with      " + ", ".join(f"{k} {v}" for k, v in cv.record["versions"].items()))
        return
    traj = _read([file], _reading(locals()))
    rg = map_frames(jax.jit(jax.vmap(pv.radius_of_gyration)), traj.positions)
    print(traj)
    print(f"  Rg  mean {rg.mean():.4g}, sd {rg.std():.4g}, {rg.min():.4g} to {rg.max():.4g} {traj.length_unit}")


def _reading(options: dict) -> dict:
    """The options of `pv.read` among a command's own."""
    names = {"top": "topology", "unit": "length_unit"}
    for name in ("select", "start", "stop", "step", "unwrap", "per_molecule", "dims", "keep_good", "ignore_times"):
        names[name] = name
    found = {names[name]: value for name, value in options.items() if name in names}
    return found | {"unwrap": "auto" if found["unwrap"] is None else found["unwrap"]}


def _read(files, options: dict) -> pv.Trajectory:
    traj = pv.read(files, **options)
    say(f"read {traj}")
    return traj


def _fit(traj, align, latent_dim, beta, epochs, batch_size, validation, seed) -> pv.LatentCV:
    with training_bar("training") as progress:
        return pv.fit(
            traj,
            featurizer=FEATURIZERS[align](),
            latent_dim=latent_dim,
            beta=beta,
            epochs=epochs,
            batch_size=batch_size,
            validation=validation,
            seed=seed,
            progress=progress,
        )


def _known(option: str, name: str, table: dict) -> None:
    if name not in table:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(table)}", param_hint=f"--{option}")


def _write_json(path: Path, values: dict) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")


def main(argv: list[str] | None = None) -> None:
    """Entry point. Exits 0 on success, 2 on bad use, 1 on bad data, with one line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"] or ["--help"]
    # So that temporary files go when a batch system ends the job.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP, and so does this
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        with notes():
            code = app(argv, prog_name="polyvae", standalone_mode=False)
        if code == 130:
            _fail("interrupted; nothing was written", 130)
        sys.exit(code or 0)
    except (InputError, OSError) as error:
        if debug:
            raise
        _fail(_one_line(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; nothing was written", 130)
    except Exception as error:
        # What the parser raises for bad use knows its message and exit code.
        if debug or not hasattr(error, "format_message"):
            raise
        _fail(f"{error.format_message()} (see `polyvae --help`)", error.exit_code)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _fail(message: str, code: int) -> None:
    print(f"polyvae: error: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()

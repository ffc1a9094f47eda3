"""The command line: one verb a step, and `run` for all of them."""

import contextlib
import json
import logging
import math
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import polyvae as pv
from polyvae.errors import InputError
from polyvae.files import refuse_overwriting, replacing, replacing_folder
from polyvae.io.write import WRITERS

app = typer.Typer(
    help="Collective variables from finished MD runs: train a VAE on a trajectory, project, generate, optimise.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

OBJECTIVES = {"rg": pv.radius_of_gyration, "end_to_end": pv.end_to_end}
FEATURIZERS = {"principal": pv.PrincipalAxes}
_QUICK = {"steps": 1500, "n_starts": 8, "refine_steps": 1000}

Files = Annotated[list[Path], typer.Argument(metavar="TRAJ...", help="Trajectory files: .npz, .xtc, .dcd.")]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model.safetensors.")]
Top = Annotated[Path | None, typer.Option("--top", help="Topology that MDAnalysis reads.")]
Select = Annotated[str | None, typer.Option("--select", help='Atoms, as in MDAnalysis: "name B".')]
Unit = Annotated[str | None, typer.Option("--unit", help="Unit of the numbers in the file: nm, angstrom, sigma.")]
Start = Annotated[int, typer.Option("--start", min=0, help="First frame of each file.")]
Stop = Annotated[int | None, typer.Option("--stop", help="Frame to stop before.")]
Step = Annotated[int, typer.Option("--step", min=1, help="Take every STEP-th frame.")]
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
Seed = Annotated[int, typer.Option("--seed", help="Of weights, batches and draws.")]
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

    with replacing_folder(out, force=force) as folder:
        traj = _read(files, top, select, unit, start, stop, step)
        if quick and epochs is None:
            n_batches = max(1, int(traj.n_frames * (1 - validation)) // batch_size)
            epochs = math.ceil(_QUICK["steps"] / n_batches)
        cv = _fit(traj, align, latent_dim, beta, epochs, batch_size, validation, seed)
        cv.save(folder / "model.safetensors")

        z = cv.transform(traj)
        pv.write_colvar(folder / "COLVAR", z, time=traj.time)
        pv.write_colvar(folder / "latent.npz", z, time=traj.time)
        generated = pv.sample(cv, min(traj.n_frames, 10_000), seed=seed)
        pv.write(folder / f"generated{files[0].suffix.lower()}", generated)

        _say("optimising Rg in the latent space")
        effort = {k: v for k, v in _QUICK.items() if k != "steps"} if quick else {}
        optimum = pv.optimize(cv, start=traj, seed=seed, **effort)
        pv.write(folder / "optimized.pdb", optimum.structure)

        _say("scoring and drawing")
        scores = pv.score(cv, traj, generated=generated, seed=seed)
        scores["optimized"] = optimum.summary()
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
    _print_scores(scores)
    _print_optimum(scores["optimized"], "Rg", traj.length_unit)
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
    refuse_overwriting(out, force=force)
    traj = _read(files, top, select, unit, start, stop, step)
    cv = _fit(traj, align, latent_dim, beta, epochs, batch_size, validation, seed)
    cv.save(out)
    print(f"{cv} in {out}; {cv.record['stopped']}, best epoch {cv.record['best_epoch']}")


@app.command()
def project(
    model: Model,
    files: Files,
    out: Annotated[Path, typer.Option("--out", help="COLVAR, or a name ending in .csv or .npz.")] = Path("COLVAR"),
    top: Top = None,
    select: Select = None,
    unit: Unit = None,
    start: Start = 0,
    stop: Stop = None,
    step: Step = 1,
    force: Force = False,
):
    """Write the collective variables of every frame.

    Example: polyvae project model.safetensors run.xtc --top chain.pdb --out COLVAR
    """
    refuse_overwriting(out, force=force)
    cv = pv.load(model)
    traj = _read(files, top, select, unit, start, stop, step)
    z = cv.transform(traj)
    pv.write_colvar(out, z, time=traj.time)
    print(f"{z.shape[1]} latents of {z.shape[0]} frames in {out}")


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
    refuse_overwriting(out, force=force)
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
    seed: Seed = 0,
    force: Force = False,
):
    """Search the latent space for the structure with the smallest or largest objective.

    Example: polyvae optimize model.safetensors run.xtc --top chain.pdb --objective rg --out best.pdb
    """
    _known("objective", objective, OBJECTIVES)
    refuse_overwriting(out, force=force)
    cv = pv.load(model)
    traj = _read(files, top, select, unit, start, stop, step)
    optimum = pv.optimize(
        cv, objective=OBJECTIVES[objective], start=traj, minimize=not maximize, n_starts=n_starts, seed=seed
    )
    pv.write(out, optimum.structure)
    _print_optimum(optimum.summary(), objective, cv.length_unit)


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
    seed: Seed = 0,
    force: Force = False,
):
    """Measure a model on a trajectory, the training one or another.

    Example: polyvae score model.safetensors heldout.npz --out scores.json
    """
    refuse_overwriting(out, force=force)
    cv = pv.load(model)
    traj = _read(files, top, select, unit, start, stop, step)
    generated = pv.sample(cv, min(traj.n_frames, 10_000), seed=seed)
    scores = pv.score(cv, traj, generated=generated, seed=seed)
    _write_json(out, scores)
    _print_scores(scores)


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
    traj = _read([file], top, select, unit, 0, None, 1)
    rg = np.array([np.sqrt(((x - x.mean(0)) ** 2).sum(1).mean()) for x in traj.positions])
    print(traj)
    print(f"  Rg  mean {rg.mean():.4g}, sd {rg.std():.4g}, {rg.min():.4g} to {rg.max():.4g} {traj.length_unit}")


def _read(files, top, select, unit, start, stop, step) -> pv.Trajectory:
    traj = pv.read(files, topology=top, select=select, length_unit=unit, start=start, stop=stop, step=step)
    _say(f"read {traj}")
    return traj


def _fit(traj, align, latent_dim, beta, epochs, batch_size, validation, seed) -> pv.LatentCV:
    _known("align", align, FEATURIZERS)
    with _progress("training") as progress:
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


@contextlib.contextmanager
def _progress(what: str) -> Iterator:
    """A callback for `pv.fit` that draws a bar with both loss terms on a terminal, and nothing in a pipe."""
    from tqdm import tqdm

    with tqdm(desc=what, unit="epoch", disable=None, file=sys.stderr, leave=False) as bar:

        def update(done: int, total: int, terms: dict[str, float]) -> None:
            bar.total = total
            bar.set_postfix_str(f"-log p {terms['reconstruction']:.2f}, KL {terms['kl']:.2f} nats", refresh=False)
            bar.update(done - bar.n)

        yield update


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _write_json(path: Path, values: dict) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")


def _print_scores(scores: dict) -> None:
    unit = scores["length_unit"]
    parts = scores["frames"]
    print(f"{'':26s}" + "".join(f"{name:>14s}" for name in parts))
    for label, key in (
        ("frames", "n_frames"),
        ("variance explained", "fve"),
        (f"RMSD ({unit})", "rmsd"),
        ("ELBO (nats a frame)", "elbo"),
        ("KL (nats a frame)", "kl"),
        ("active latents", "active_units"),
        ("aggregated std", "aggregated_std"),
        ("correlation with Rg", "correlation_rg"),
    ):
        print(f"{label:26s}" + "".join(f"{_number(part[key]):>14s}" for part in parts.values()))
    floor = scores["generated"]["noise_floor"]
    print(f"generated against data, Wasserstein-1 in {unit} (two halves of the data):")
    print("  " + ", ".join(f"{k} {v:.3f} ({floor[k]:.3f})" for k, v in scores["generated"].items() if k in floor))


def _number(value) -> str:
    if isinstance(value, list):
        return " ".join(_number(v) for v in value)
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _print_optimum(summary: dict, objective: str, unit: str) -> None:
    found, extreme, limits = summary["optimized"], summary["data_extreme"], summary["limits"]
    print(f"\n{f'optimised {objective} ({unit})':26s}{'found':>14s}{'data extreme':>14s}   allowed")
    for label, key, allowed in (
        ("objective", "objective", ""),
        ("Rg", "rg", ""),
        ("shortest bond", "shortest_bond", f"at least {limits['shortest_bond']:.3f}"),
        ("mean bond", "mean_bond", f"{limits['shortest_mean_bond']:.3f} to {limits['longest_mean_bond']:.3f}"),
        ("longest bond", "longest_bond", f"at most {limits['longest_bond']:.3f}"),
        ("closest pair", "closest_pair", f"at least {limits['closest_pair']:.3f}"),
    ):
        print(f"{label:26s}{found[key]:14.3f}{extreme[key]:14.3f}   {allowed}")
    print(summary["message"])


def main(argv: list[str] | None = None) -> None:
    """Entry point. Exits 0 on success, 2 on bad use, 1 on bad data, with one line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"] or ["--help"]
    # So that temporary files go when a batch system ends the job.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with _notes():
            code = app(argv, prog_name="polyvae", standalone_mode=False)
        sys.exit(code or 0)
    except (InputError, OSError) as error:
        if debug:
            raise
        _fail(_one_line(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", 130)
    except Exception as error:
        # What the parser raises for bad use knows its message and exit code.
        if debug or not hasattr(error, "format_message"):
            raise
        _fail(f"{error.format_message()} (see `polyvae --help`)", error.exit_code)


@contextlib.contextmanager
def _notes() -> Iterator[None]:
    """Show on stderr what the package tells its log."""
    logger, handler = logging.getLogger("polyvae"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _fail(message: str, code: int) -> None:
    print(f"polyvae: error: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()

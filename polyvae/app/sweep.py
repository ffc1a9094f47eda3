"""The verb `sweep`: a grid of models, and a picture of what each is worth."""

import csv
from pathlib import Path
from typing import Annotated, Any

import typer

import polyvae as pv
from polyvae.app.cluster import CLUSTER, on_cluster
from polyvae.app.console import command_line, print_sweep
from polyvae.app.options import READING, TRAINING, Figures, Files, Force, for_training, numbers, takes
from polyvae.app.reading import read_files

_RESULTS = ("models.csv", "summary.json", "sweep.*", "best.safetensors")


@takes(training=TRAINING, reading=READING, cluster=CLUSTER)
@on_cluster
def sweep(
    files: Files,
    training: dict,
    reading: dict,
    client,
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("polyvae-sweep"),
    latent_dim: Annotated[
        str, typer.Option("--latent-dim", help="Numbers of latents to try, separated by commas.")
    ] = "1,2,4",
    beta: Annotated[
        str, typer.Option("--beta", help="Weights of the KL term to try, separated by commas.")
    ] = "0.1,1,4",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Number of models of each setting.")] = 3,
    figures: Figures = "png",
    force: Force = False,
):
    """Train a grid of models and measure each on held-out frames: how many latents, which beta?

    Writes a table of all models, their summary, a picture, and the model with the best bound.

    Example: polyvae sweep run.xtc --top chain.pdb --latent-dim 1,2,4 --beta 0.1,1,4 --out sweep
    """
    from polyvae.files import replacing, replacing_folder, write_json

    training = for_training(training)
    sizes, betas = numbers("latent-dim", latent_dim, int, 1), numbers("beta", beta, float, 0)
    with replacing_folder(out, force=force, results=_RESULTS) as folder:
        traj = read_files(files, reading)
        with pv.progress_bar("training", unit="model") as progress:
            tried: dict[str, Any] = {"latent_dim": sizes, "beta": betas, "seeds": seeds}
            result = pv.sweep(traj, **tried, client=client, progress=progress, **training)
        with replacing(folder / "models.csv") as temporary, temporary.open("w", newline="") as file:
            table = csv.DictWriter(file, result.rows[0])
            table.writeheader()
            table.writerows(result.rows)
        write_json(
            folder / "summary.json",
            {"command": command_line(), "settings": result.summary()},
        )
        pv.plot.save(pv.plot.sweep(result), folder / f"sweep.{figures}")
        result.best().save(folder / "best.safetensors")
    print_sweep(result)
    print(f"\nresults in {out}; {result.best()} has the best bound, {out / 'best.safetensors'}")

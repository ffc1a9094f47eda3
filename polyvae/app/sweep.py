"""The verb `sweep`: a grid of models, and a picture of what each is worth."""

from pathlib import Path

import polyvae as pv
from polyvae.app.console import command_line, print_table, write_rows
from polyvae.app.options import (
    CLUSTER,
    FIGURE_FORMAT,
    FORCE,
    READING,
    TRAINING,
    Files,
    for_training,
    numbers,
    option,
    takes,
)
from polyvae.app.reading import read_files

_RESULTS = ("models.csv", "summary.json", "sweep.*", "best.safetensors")
GRID = {
    "latent_dim": option(str, "Numbers of latents to try, separated by commas.", "1,2,4"),
    "beta": option(str, "Weights of the KL term to try, separated by commas.", "0.1,1,4"),
    "seeds": option(int, "Number of models of each setting.", 3, min=1),
}
OUTPUT = {
    "out": option(Path, "Folder for the results.", Path("polyvae-sweep")),
    "figures": FIGURE_FORMAT,
    "force": FORCE,
}


@takes(training=TRAINING, reading=READING, cluster=CLUSTER, grid=GRID, output=OUTPUT)
def sweep(files: Files, training: dict, reading: dict, grid: dict, output: dict, client):
    """Train a grid of models and measure each on held-out frames: how many latents, which beta?

    Writes a table of all models, their summary, a picture, and the model with the best bound.

    Example: polyvae sweep run.xtc --top chain.pdb --latent-dim 1,2,4 --beta 0.1,1,4 --out sweep
    """
    from polyvae.files import replacing_folder, write_json

    training, out = for_training(training), output["out"]
    grid["latent_dim"] = numbers("latent-dim", grid["latent_dim"], int, 1)
    grid["beta"] = numbers("beta", grid["beta"], float, 0)
    with replacing_folder(out, force=output["force"], results=_RESULTS) as folder:
        traj = read_files(files, reading)
        with pv.progress_bar("training", unit="model") as progress:
            result = pv.sweep(traj, **grid, client=client, progress=progress, **training)
        write_rows(folder / "models.csv", result.rows)
        write_json(folder / "summary.json", {"command": command_line(), "settings": result.summary()})
        pv.plot.save(pv.plot.sweep(result), folder / f"sweep.{output['figures']}")
        result.best().save(folder / "best.safetensors")
    print_table(result.table())  # mean over the seeds of each setting, and their standard deviation in brackets
    print(f"\nresults in {out}; {result.best()} has the best bound, {out / 'best.safetensors'}")

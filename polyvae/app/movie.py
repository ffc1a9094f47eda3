"""The verb `movie`: a run as it moves, aligned, and in the latent space."""

from pathlib import Path
from typing import Annotated

import typer

import polyvae as pv
from polyvae.app.options import READING, Files, Force, Model, Weights, takes
from polyvae.app.reading import as_the_model, read_files, read_weights, with_weights


@takes(reading=READING)
def movie(
    model: Model,
    files: Files,
    reading: dict,
    out: Annotated[Path, typer.Option("--out", help="File to write: .gif, or .mp4 where ffmpeg is.")],
    frames: Annotated[
        int, typer.Option("--frames", min=1, help="Largest number of frames in the movie; they are evenly spaced.")
    ] = 200,
    fps: Annotated[float, typer.Option("--fps", help="Frames per second.")] = 10.0,
    weights: Weights = None,
    force: Force = False,
):
    """Show a run side by side as it moves, aligned, and as a point in the latent space.

    Example: polyvae movie model.safetensors run.xtc --top chain.pdb --stop 500 --out run.gif
    """
    from polyvae.cv.latent import load_cv
    from polyvae.plot.movie import check_movie_output

    check_movie_output(out, fps=fps, force=force)
    cv = load_cv(model)
    traj = with_weights(read_files(files, as_the_model(reading, cv)), read_weights(weights))
    with pv.progress_bar("drawing", total=min(frames, len(traj)), unit="frame") as count:
        n = pv.movie(cv, traj, out, frames=frames, fps=fps, progress=count)
    print(f"{n} frames, {n / fps:.3g} seconds, in {out}")

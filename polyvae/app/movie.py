"""The verb `movie`: a run as it moves, aligned, and in the latent space."""

from pathlib import Path

import polyvae as pv
from polyvae.app.options import FORCE, READING, WEIGHTS, Files, Model, option, takes
from polyvae.app.reading import as_the_model, read_files, read_weights, with_weights

MOVIE = {
    "out": option(Path, "File to write: .gif, or .mp4 where ffmpeg is.", ...),
    "frames": option(int, "Largest number of frames in the movie; they are evenly spaced.", 200, min=1),
    "fps": option(float, "Frames per second.", 10.0),
    "weights": WEIGHTS,
    "force": FORCE,
}


@takes(reading=READING, output=MOVIE)
def movie(model: Model, files: Files, reading: dict, output: dict):
    """Make a movie of three panels: the run as it is, the run aligned, and its point in the latent space.

    Example: polyvae movie model.safetensors run.xtc --top chain.pdb --stop 500 --out run.gif
    """
    from polyvae.cv.latent import load_cv
    from polyvae.plot.movie import check_movie_output

    out, frames, fps = (output[name] for name in ("out", "frames", "fps"))
    check_movie_output(out, fps=fps, force=output["force"])
    cv = load_cv(model)
    traj = with_weights(read_files(files, as_the_model(reading, cv)), read_weights(output["weights"]))
    with pv.progress_bar("drawing", total=min(frames, len(traj)), unit="frame") as count:
        n = pv.movie(cv, traj, out, frames=frames, fps=fps, progress=count)
    print(f"{n} frames, {n / fps:.3g} seconds, in {out}")

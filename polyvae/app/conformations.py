"""Results of the verbs `generate` and `optimize`: conformations, and a table of their z beside them."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

import numpy as np
import typer

import polyvae as pv
from polyvae.app.console import print_check, say
from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.files import check_output
from polyvae.io.colvar import write_colvar
from polyvae.io.writing import check_trajectory_output
from polyvae.measures.limits import check_against, draw_valid, known_limits
from polyvae.measures.objectives import values_of
from polyvae.tasks.paths import WAYS
from polyvae.tasks.sampling import prior_of


def table_beside(out: Path) -> Path:
    """The COLVAR file of a trajectory file."""
    return out.with_suffix(".COLVAR")


def check_outputs(outs: Collection[Path], *, force: bool) -> None:
    """Raise, before any work is done, where a trajectory or its table cannot or must not be written."""
    for out in outs:
        check_trajectory_output(out, force=force)
        check_output(table_beside(out), force=force)


def check_making(making: dict, n: int | None) -> dict:
    """The options of `generate`, asked for n conformations, with latent points as numbers; those that do not go
    together are refused."""
    path, along = making["path"], making["along"]
    drawn = path is None and making["grid"] is None
    if path is not None and making["grid"] is not None:
        raise typer.BadParameter("give a path or a grid, not both", param_hint="--grid")
    if along not in WAYS or (along != "straight" and path is None):
        raise typer.BadParameter(f"must be {' or '.join(WAYS)}, of a --path; got {along!r}", param_hint="--along")
    if making["valid_only"] and not drawn:
        text = "a path or a grid cannot be drawn again; mend it with --relax"
        raise typer.BadParameter(text, param_hint="--valid-only")
    if n is not None and making["grid"] is not None:
        raise typer.BadParameter("a grid says itself how many conformations it has", param_hint="--number")
    if making["max_draws"] is not None and not making["valid_only"]:
        raise typer.BadParameter("is for --valid-only", param_hint="--max-draws")
    for name in ("at", "prior"):
        if making[name] is not None and not drawn:
            raise typer.BadParameter("a path or a grid says itself where z is", param_hint=f"--{name}")
    ends = None if path is None else _points("path", path, 2, "no pair of latent points, such as -1,0:2,1")
    at = None if making["at"] is None else _points("at", making["at"], 1, "no point such as 0.5,-1")[0]
    return making | {"path": ends, "at": at}


def _points(option: str, text: str, n: int, otherwise: str) -> list[list[float]]:
    """Latent points from text such as "-1,0:2,1"."""
    try:
        points = [[float(word) for word in part.split(",")] for part in text.split(":")]
    except ValueError:
        points = []
    if len(points) != n:
        raise typer.BadParameter(f"{text!r} is {otherwise}", param_hint=f"--{option}")
    return points


def make(
    cv: LatentCV, making: dict, n: int | None, *, data: pv.Trajectory | None, seed: int
) -> tuple[pv.Trajectory, np.ndarray | None, str]:
    """Conformations as `generate` is asked for them, the z that they were to have, where it is asked for, and
    where they come from, in words."""

    def mended(traj: pv.Trajectory) -> pv.Trajectory:
        return relaxed(cv, traj, data) if making["relax"] else traj

    if making["path"] is not None:
        a, b = making["path"]
        traj, z = pv.interpolate(cv, a, b, n or 100, along=making["along"], data=data, seed=seed)
        return mended(traj), z, "decoder, along the path"
    if making["grid"] is not None:
        traj, z = pv.latent_grid(cv, making["grid"], data=data)
        return mended(traj), z, "decoder, on the grid"
    n, at, prior = n or 1000, making["at"], making["prior"]
    source = "decoder" if making["mean"] or cv.generator is None else "generator"
    origin = f"{source}, z " + (f"of prior {prior or prior_of(cv)}" if at is None else f"= {at}")
    asked = None if at is None else np.tile(np.float32(at), (n, 1))

    def draw(n: int, seed: int) -> pv.Trajectory:
        return mended(pv.sample(cv, n, at=at, prior=prior, noise=not making["mean"], seed=seed))

    if not making["valid_only"]:
        return draw(n, seed), asked, origin
    limits = known_limits(cv if data is None else data)
    traj, n_drawn = draw_valid(draw, n, limits, seed=seed, most=making["max_draws"])
    print(f"kept {n} of {n_drawn} drawn")
    return traj, asked, origin


def relaxed(cv: LatentCV, traj: pv.Trajectory, data) -> pv.Trajectory:
    """Relax conformations, print how far they moved, and return them in the model's frame."""
    result = pv.relax(traj, cv if data is None else data)
    far = np.quantile(result.moved, [0.5, 1.0])
    say(f"relaxed {len(traj)}: moved by {far[0]:.3g} {cv.length_unit} (median RMSD), {far[1]:.3g} at most")
    return dataclasses.replace(result.conformations, positions=cv.align(result.conformations))


def write_with_z(
    out: Path, cv: LatentCV, traj: pv.Trajectory, columns: dict, *, force: bool, topology: bool = True
) -> list[Path]:
    """Write conformations, and beside them the z that encoding each of them gives, with further columns."""
    z = cv.transform(traj)  # before a file is there: what cannot be encoded is refused
    written = pv.write(out, traj, replace=force, topology=topology)
    write_colvar(table_beside(out), z, columns=columns)
    return [*written, table_beside(out)]


def write_generated(
    out: Path, cv: LatentCV, traj: pv.Trajectory, asked: np.ndarray | None, origin: str, data, *, force: bool
) -> None:
    """Check, write, and print conformations of `make`; `asked` (n, latent_dim) is the z it was to have, if any."""
    columns = {} if asked is None else {f"asked{k}": column for k, column in enumerate(asked.T)}
    try:
        check = check_against(known_limits(cv if data is None else data), traj.positions)
    except InputError as error:
        say(f"note: not checked against the data: {error}")
        check = None
    if check is not None:
        columns["valid"] = check.valid
    written = write_with_z(out, cv, traj, columns, force=force)
    print(f"{len(traj)} conformations of the {origin}, in {' and '.join(map(str, written))}")
    if check is not None:
        print_check(check, cv.length_unit, cv.n_beads)


def optimum_files(out: Path) -> tuple[Path, Path]:
    """Where all starts, and the path to the best, go beside the best structure."""
    return out.with_stem(f"{out.stem}-starts"), out.with_stem(f"{out.stem}-path")


def write_optimum(out: Path, cv: LatentCV, optimum: pv.Optimum, objective: str, *, force: bool) -> None:
    """Write the best structure, every start after refinement, and how the best came about; print where."""
    starts, path = optimum_files(out)
    write_with_z(out, cv, optimum.structure, {objective: np.array([optimum.value])}, force=force)
    columns = {objective: optimum.candidate_values, "valid": optimum.candidate_valid}
    write_with_z(starts, cv, optimum.candidates, columns, force=force, topology=False)
    values = values_of(objective, optimum.route)
    write_with_z(path, cv, optimum.route, {objective: values}, force=force, topology=False)
    sound = optimum.candidate_values[optimum.candidate_valid]
    reached = f", {objective} {sound.min():.4g} to {sound.max():.4g}" if len(sound) else ""
    print(f"structure in {out}, how it came about in {path}")
    print(f"{len(optimum.candidates)} refined in {starts}: {len(sound)} within the data's limits{reached}")

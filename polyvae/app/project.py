"""The verb `project`: a table of one run, or of each of many."""

import sys
from pathlib import Path
from typing import Any

import typer

import polyvae as pv
from polyvae.app.choices import OBJECTIVES, TABLES
from polyvae.app.console import fail, say
from polyvae.app.options import CLUSTER, FORCE, READING, Files, Model, known, option, takes
from polyvae.app.reading import as_the_model, for_reading
from polyvae.errors import InputError

FAILED = "failed.txt"  # why files have no table, where these are too many to print
_SHOWN = 10


PROJECTION = {
    "out": option(Path, "COLVAR, or a name ending in .csv or .npz; with --each a folder.", Path("COLVAR")),
    "each": option(bool, "Write one table per file; files that already have one are skipped.", False),
    "kind": option(str, f"Format of the tables of --each: {', '.join(TABLES)} [default: COLVAR]."),
    "add": option(list[str], f"A further column, repeatable: {', '.join(OBJECTIVES)}."),
    "force": FORCE,
}


@takes(reading=READING, cluster=CLUSTER, output=PROJECTION)
def project(model: Model, files: Files, reading: dict, output: dict, client):
    """Write the collective variables of every frame, of files of any length.

    With --each, every file is a run of its own. There may be thousands, and files that have their table are
    skipped.

    Example: polyvae project model.safetensors run.xtc --top chain.pdb --out COLVAR
    """
    out, each, kind, add, force = (output[name] for name in PROJECTION)
    for name in add or ():
        known("add", name, OBJECTIVES)
    if kind is not None and not each:
        text = "it is for --each; without --each, end --out in .csv or .npz"
        raise typer.BadParameter(text, param_hint="--kind")
    kind = known("kind", kind or "COLVAR", TABLES)
    from polyvae.cv.latent import load_cv
    from polyvae.files import check_output, locked
    from polyvae.io.colvar import check_table_name
    from polyvae.measures.objectives import objective_of

    if not each:
        check_table_name(out)
        check_output(out, force=force)
    cv = load_cv(model)
    options, masses = for_reading(as_the_model(reading, cv)), cv.template.unequal_masses
    columns = {name: objective_of(name, masses) for name in add or ()}
    if set(columns) - {"end_to_end"} and masses is None and reading["topology"] is not None:
        say("the model knows no masses, so all beads count alike in " + ", ".join(columns))
    if each:
        own: dict[str, Any] = {"client": client, "columns": columns, "kind": kind, "force": force}
        try:
            with pv.progress_bar("projecting", unit="file") as bar:
                made = pv.transform_many(files, cv, out, progress=bar, **own, **options)
        except KeyboardInterrupt:
            fail(f"interrupted; the tables so far are in {out}, and the same command continues", 130)
        print_tables(made, cv.latent_dim, out)
        return
    with locked(out):
        check_output(out, force=force)
        stream = pv.stream(files, client=client, **options)
        with pv.progress_bar("projecting", total=len(stream), unit="frame") as count:
            n = pv.project(cv, stream, out, columns=columns, progress=count)
    print(f"{cv.latent_dim} latents of {n} frames in {out}")


def print_tables(made: "pv.Tables", latent_dim: int, out: Path) -> None:
    """Print the results of many files; raises `InputError` where some failed."""
    from polyvae.files import replacing

    n, n_failed = len(made.tables), len(made.failed)
    before = f", {len(made.skipped)} of them there before" if made.skipped else ""
    print(f"{latent_dim} latents of {made.n_frames} frames in {n} table{'s' * (n != 1)} in {out}{before}")
    for why in list(made.failed.values())[:_SHOWN]:
        print(f"polyvae: error: {why}", file=sys.stderr)
    complete = out / FAILED
    complete.unlink(missing_ok=True)
    if n_failed > _SHOWN:
        with replacing(complete) as temporary:
            temporary.write_text("".join(f"{why}\n" for why in made.failed.values()))
        print(f"polyvae: error: and {n_failed - _SHOWN:,} more; all are in {complete}", file=sys.stderr)
    if n_failed:
        raise InputError(f"{n_failed} of {n + n_failed} files have no table; mend them, and do the same again")

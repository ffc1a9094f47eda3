"""The verb `plan`: what a run will cost on this machine."""

from pathlib import Path
from typing import Annotated

import typer

import polyvae as pv
from polyvae.app.options import READING, Files, Force, takes
from polyvae.app.reading import for_reading
from polyvae.files import check_output, write_json


@takes(reading=READING)
def plan(
    files: Files,
    reading: dict,
    out: Annotated[Path | None, typer.Option("--out", help="JSON file to write, too.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="To spend on reading a sample.")] = 2.0,
    force: Force = False,
):
    """Say what reading, projecting and fitting a run will take here, and what more workers would bring.

    Measured on a sample of the run, in some ten seconds.

    Example: polyvae plan 'runs/*.xtc' --top chain.pdb
    """
    if out is not None:
        check_output(out, force=force, inputs=[*files, reading["topology"]])
    found = pv.plan(files, seconds=seconds, **for_reading(reading))
    if out is not None:
        write_json(out, found.to_dict())
    print(*found.lines(), sep="\n")

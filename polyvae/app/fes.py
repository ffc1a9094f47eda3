"""The verb `fes`: a free energy with its error from the COLVAR files of biased runs."""

import functools
import math
from pathlib import Path
from typing import Annotated, Any

import typer

import polyvae as pv
from polyvae.app.choices import ENERGY_UNITS, OBJECTIVES
from polyvae.app.console import print_free_energy, say
from polyvae.app.options import READING, Figures, Force, known, numbers, takes

_RESULTS = ("fes.*", "checks.*", "summary.json")


@takes(reading=READING)
def fes(
    reading: dict,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="COLVAR...", help="COLVAR or HILLS files, or patterns of their names."),
    ] = None,
    cv: Annotated[list[str] | None, typer.Option("--cv", help="Column to take; give it twice for two.")] = None,
    bias: Annotated[
        list[str] | None, typer.Option("--bias", help="Column with a bias, as opes.bias or rbias; several add up.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Weights in place of a bias: a column, or a text file.")
    ] = None,
    hills: Annotated[
        list[Path] | None,
        typer.Option(
            "--hills", help="HILLS, or STATE of OPES, repeatable: without --bias, frames count by their sum."
        ),
    ] = None,
    period: Annotated[
        list[str] | None,
        typer.Option(
            "--period", metavar="NAME=LENGTH", help="Period of a column, as phi=360 or phi=-pi:pi; repeatable."
        ),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Temperature of the run in kelvin.")
    ] = None,
    energy_unit: Annotated[
        str, typer.Option("--energy-unit", help=f"Energy unit of bias and result: {', '.join(ENERGY_UNITS)}.")
    ] = "kJ/mol",
    kt: Annotated[
        float | None, typer.Option("--kt", help="Thermal energy in units of the bias, as 1.0 of reduced units.")
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option("--over", help=f"Quantity of the frames in --traj: {', '.join(OBJECTIVES)}."),
    ] = None,
    traj: Annotated[
        list[Path] | None, typer.Option("--traj", help="Frames, found in the COLVAR by their times; repeatable.")
    ] = None,
    walkers: Annotated[bool, typer.Option("--walkers", help="The files are walkers of one bias.")] = False,
    method: Annotated[str, typer.Option("--method", help="Estimator of the density: kde or histogram.")] = "kde",
    bandwidth: Annotated[
        str | None,
        typer.Option("--bandwidth", help="Width of the kernels [default: a tenth of a basin's spread]."),
    ] = None,
    bins: Annotated[
        str | None, typer.Option("--bins", help="Number of grid points [default: by bandwidth].")
    ] = None,
    range_: Annotated[
        list[str] | None,
        typer.Option("--range", metavar="LOW:HIGH", help="Range of the grid; give it twice for two."),
    ] = None,
    transient: Annotated[
        str, typer.Option("--transient", help="Part of each run to leave out at its start, as 0.2, or auto.")
    ] = "auto",
    state: Annotated[
        list[str] | None,
        typer.Option("--state", metavar="LOW:HIGH", help="A basin, repeatable [default: found]."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("polyvae-fes"),
    figures: Figures = "png",
    force: Force = False,
):
    """The free energy over columns of COLVAR files, or over an observable of the frames, with its error.

    Example: polyvae fes COLVAR --cv z0 --bias opes.bias --temperature 300 --out fes
    """
    from polyvae.app import energies
    from polyvae.files import replacing_folder

    names = [*(cv or []), *(over or [])]
    if not 1 <= len(names) <= 2 or len(set(names)) < len(names):
        raise typer.BadParameter("name one column or two different ones, such as --cv z0", param_hint="--cv")
    for name in over or ():
        known("over", name, OBJECTIVES)
    if bool(over) != bool(traj):
        raise typer.BadParameter("an observable is one of the frames in --traj; give both", param_hint="--over")
    if not files and not traj:
        raise typer.BadParameter("give the COLVAR files of the run", param_hint="COLVAR...")
    known("method", method, ("kde", "histogram"))
    chosen: Any = {
        "walkers": walkers,
        "method": method,
        "bins": bins and numbers("bins", bins, int, 2),
        "bandwidth": bandwidth and numbers("bandwidth", bandwidth, float, 0),
        "range": _ranges("range", range_),
        "transient": None if transient == "auto" else _share(transient),
    }
    if state is not None:
        chosen["states"] = [_ranges("state", [text], len(names)) for text in state]
    turns = dict(map(_period, period or ()))
    with replacing_folder(out, force=force, results=_RESULTS) as folder:
        table = energies.read_tables(files, traj, turns) if files else None
        alone = table is not None and table.kind != "rows"
        kT, unit = _thermal_energy(temperature, energy_unit, kt, bool(bias or hills or alone))
        write = functools.partial(energies.write_energy, folder, unit=unit, figures=figures)
        if table is not None and alone:
            if bias or weights or hills or over or state or transient != "auto":
                text = (
                    f"of {table.kind} alone there are no frames; leave out --bias, --weights, --over, --state, "
                    f"--transient"
                )
                raise typer.BadParameter(text, param_hint="COLVAR...")
            found, names, about = energies.of_bias(table, names, kT, chosen)
            write(names, result=found, about=about)
            print(f"free energy over {' and '.join(names)} in {unit}, {about['from']}")
        else:
            run = energies.read_run(table, cv or [], over or [], traj or [], reading, bias, weights)
            sum_of = energies.read_tables(hills, None, turns) if hills else None
            if sum_of is not None and not run.log:
                run.log["bias"] = energies.bias_at(sum_of, table, kT)[run.rows]
            say(_said(table, run.log, bias, weights, hills))
            energies.ask_for_periods(run, names)
            result = pv.free_energy(run.s, **run.log, kT=kT, segments=run.segments, periods=run.periods, **chosen)
            others = {} if sum_of is None else energies.energy_of(sum_of, result, names)
            write(names, result=result, about=energies.summary_of(result, names), others=others)
            axes = pv.plot.free_energy_checks(
                result, run.s[:, 0], time=run.time, segments=run.segments, names=names, unit=unit
            )
            pv.plot.save(axes, folder / f"checks.{figures}")
            print_free_energy(result, names, unit)
    print(f"results in {out}: fes.csv, fes.npz, summary.json and pictures")


def _period(text: str) -> tuple[str, tuple[float, float]]:
    """The name and the ends of NAME=LENGTH or NAME=LOW:HIGH, also in multiples of pi."""
    from polyvae.io.table_files import period_end

    name, _, ends = text.rpartition("=")
    values = [period_end(word) for word in ends.split(":")]
    low, high = values if len(values) == 2 else (-0.5 * values[0], 0.5 * values[0])
    if not name or len(values) > 2 or not low < high:
        raise typer.BadParameter(f"{text!r} is no period, such as phi=360 or phi=-pi:pi", param_hint="--period")
    return name, (low, high)


def _share(text: str) -> float:
    found = numbers("transient", text, float, 0)
    if len(found) != 1:
        raise typer.BadParameter(f"{text!r} is no share of the run, such as 0.2", param_hint="--transient")
    return found[0]


def _thermal_energy(temperature, unit: str, kt, needed: bool) -> tuple[float, str]:
    """kT and the unit of energies."""
    known("energy-unit", unit, ENERGY_UNITS)
    if kt is not None and temperature is not None:
        raise typer.BadParameter("give the temperature or kT, not both", param_hint="--kt")
    if any(value is not None and not 0 < value < math.inf for value in (kt, temperature)):
        raise typer.BadParameter("must be a number greater than 0", param_hint="--kt" if kt else "--temperature")
    if kt is not None:
        return kt, "units of the bias"
    if unit == "kT":
        return 1.0, "kT"
    if temperature is None:
        if needed:
            raise typer.BadParameter(
                f"the bias is in {unit}, so the temperature is needed; or --energy-unit kT, or --kt",
                param_hint="--temperature",
            )
        return 1.0, "kT"
    return _boltzmann(unit) * temperature, unit


def _boltzmann(unit: str) -> float:
    """Thermal energy of one kelvin."""
    from scipy import constants

    joules = {
        "kJ/mol": 1000 / constants.N_A,
        "kcal/mol": 4184 / constants.N_A,
        "eV": constants.e,
        "Ha": constants.value("Hartree energy"),
    }
    return constants.k / joules[unit]


def _ranges(option: str, texts: list[str] | None, n: int | None = None):
    """(low, high) of LOW:HIGH for each variable; one text may hold both, as LOW:HIGH,LOW:HIGH."""
    if texts is None:
        return None
    words = [word for text in texts for word in text.split(",")]
    try:
        pairs = [tuple(float(number) for number in word.split(":")) for word in words]
    except ValueError:
        pairs = []
    good = pairs and all(len(pair) == 2 and pair[0] < pair[1] for pair in pairs)
    if not good or (n or len(pairs)) != len(pairs):
        raise typer.BadParameter(f"{','.join(texts)!r} is no LOW:HIGH, such as -1:2", param_hint=f"--{option}")
    return pairs if len(pairs) > 1 else pairs[0]


def _said(table, log: dict, bias, weights, hills) -> str:
    n = "" if table is None else f"read {table}; "
    if bias:
        return f"{n}frames count exp({' + '.join(bias)} / kT)"
    if hills is not None:
        return f"{n}frames count by the bias at the end, the sum of the hills"
    if "weights" in log:
        return f"{n}frames count by {'their weights' if weights is None else weights}"
    like = [] if table is None else [name for name in table if name.endswith("bias")]
    hint = f"; if they should count by {' or '.join(like)}, say --bias" if like else ""
    return f"{n}no bias, so all frames count alike{hint}"

"""The verb `fes`: a free energy with its error from the COLVAR files of biased runs."""

import functools
import math
from pathlib import Path
from typing import Annotated, Any

import typer

import polyvae as pv
from polyvae.app.choices import OBJECTIVES
from polyvae.app.console import print_free_energy, say
from polyvae.app.options import FIGURE_FORMAT, FORCE, READING, known, numbers, option, takes
from polyvae.core.units import ENERGY_UNITS, boltzmann

_RESULTS = ("fes.*", "checks.*", "summary.json")
VARIABLES = {
    "cv": option(list[str], "Column to take; give it twice for two."),
    "over": option(list[str], f"Quantity of the frames in --traj: {', '.join(OBJECTIVES)}."),
    "traj": option(list[Path], "Trajectory for --over, matched to rows of the COLVAR by time; repeatable."),
}
WEIGHING = {
    "bias": option(list[str], "Column with a bias, as opes.bias or rbias; several add up."),
    "weights": option(str, "Weights in place of a bias: a column, or a text file."),
    "hills": option(list[Path], "HILLS or STATE of OPES, repeatable: without --bias, the bias is their sum."),
    "walkers": option(bool, "The files are walkers of one bias.", False),
}
ENERGY = {
    "temperature": option(float, "Temperature of the run in kelvin."),
    "unit": option(str, f"Energy unit of bias and result: {', '.join(ENERGY_UNITS)}.", "kJ/mol", "--energy-unit"),
    "kt": option(float, "Thermal energy in units of the bias, as 1.0 of reduced units."),
}
ESTIMATE = {
    "method": option(str, "Estimator of the density: kde or histogram.", "kde"),
    "bandwidth": option(str, "Width of the kernels [default: a tenth of a basin's spread]."),
    "bins": option(str, "Number of grid points [default: by bandwidth]."),
    "range": option(list[str], "Range of the grid; give it twice for two.", metavar="LOW:HIGH"),
    "transient": option(str, "Part of each run to leave out at its start, as 0.2, or auto.", "auto"),
    "state": option(list[str], "A basin, repeatable [default: found].", metavar="LOW:HIGH"),
    "period": option(
        list[str], "Period of a column, as phi=360 or phi=-pi:pi; repeatable.", metavar="NAME=LENGTH"
    ),
}
OUTPUT = {
    "out": option(Path, "Folder for the results.", Path("polyvae-fes")),
    "figures": FIGURE_FORMAT,
    "force": FORCE,
}
Tables = Annotated[
    list[Path] | None,
    typer.Argument(metavar="COLVAR...", help="COLVAR or HILLS files, or patterns of their names."),
]


@takes(variables=VARIABLES, weighing=WEIGHING, energy=ENERGY, estimate=ESTIMATE, reading=READING, output=OUTPUT)
def fes(
    variables: dict,
    weighing: dict,
    energy: dict,
    estimate: dict,
    reading: dict,
    output: dict,
    files: Tables = None,
):
    """The free energy over columns of COLVAR files, or over an observable of the frames, with its error.

    Example: polyvae fes COLVAR --cv z0 --bias opes.bias --temperature 300 --out fes
    """
    from polyvae.app import energies
    from polyvae.files import replacing_folder

    cvs, over, traj = (variables[name] or [] for name in VARIABLES)
    out, figures, force = (output[name] for name in OUTPUT)
    names = [*cvs, *over]
    if not 1 <= len(names) <= 2 or len(set(names)) < len(names):
        raise typer.BadParameter("name one column or two different ones, such as --cv z0", param_hint="--cv")
    for name in over:
        known("over", name, OBJECTIVES)
    if bool(over) != bool(traj):
        raise typer.BadParameter("an observable is one of the frames in --traj; give both", param_hint="--over")
    if not files and not traj:
        raise typer.BadParameter("give the COLVAR files of the run", param_hint="COLVAR...")
    chosen = _chosen(estimate, weighing["walkers"], len(names))
    turns = dict(map(_period, estimate["period"] or ()))
    hills = weighing["hills"]
    with replacing_folder(out, force=force, results=_RESULTS) as folder:
        table = energies.read_tables(files, traj, turns, names) if files else None
        alone = table is not None and table.kind != "rows"
        kT, unit = _thermal_energy(energy, needed=bool(weighing["bias"] or hills or alone))
        write = functools.partial(energies.write_energy, folder, unit=unit, figures=figures)
        if table is not None and alone:
            _refuse_frames(table.kind, weighing, estimate, over)
            found, names, about = energies.of_bias(table, names, kT, chosen)
            write(names, result=found, about=about)
            print(f"free energy over {' and '.join(names)} in {unit}, {about['from']}")
        else:
            run = energies.read_run(table, cvs, over, traj, reading, weighing["bias"], weighing["weights"])
            sum_of = energies.read_tables(hills, None, turns, names) if hills else None
            if sum_of is not None and not run.log:
                run.log["bias"] = energies.bias_at(sum_of, table, kT)[run.rows]
            say(_how_frames_count(table, run.log, weighing))
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


def _chosen(estimate: dict, walkers: bool, n_variables: int) -> dict[str, Any]:
    """Arguments of `pv.free_energy` from the options of the estimate."""
    known("method", estimate["method"], ("kde", "histogram"))
    bins, bandwidth, transient = estimate["bins"], estimate["bandwidth"], estimate["transient"]
    chosen: dict[str, Any] = {
        "walkers": walkers,
        "method": estimate["method"],
        "bins": bins and numbers("bins", bins, int, 2),
        "bandwidth": bandwidth and numbers("bandwidth", bandwidth, float, 0),
        "range": _ranges("range", estimate["range"]),
        "transient": None if transient == "auto" else _share(transient),
    }
    if estimate["state"] is not None:
        chosen["states"] = [_ranges("state", [text], n_variables) for text in estimate["state"]]
    return chosen


def _refuse_frames(kind: str, weighing: dict, estimate: dict, over) -> None:
    """Refuse options of frames beside hills or kernels alone."""
    given = [*(weighing[name] for name in ("bias", "weights", "hills")), over, estimate["state"]]
    if any(given) or estimate["transient"] != "auto":
        raise typer.BadParameter(
            f"{kind} alone holds no frames; leave out --bias, --weights, --hills, --over, --state, --transient",
            param_hint="COLVAR...",
        )


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


def _thermal_energy(energy: dict, needed: bool) -> tuple[float, str]:
    """kT and the unit of energies."""
    temperature, unit, kt = energy["temperature"], energy["unit"], energy["kt"]
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
    return boltzmann(unit) * temperature, unit


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


def _how_frames_count(table, log: dict, weighing: dict) -> str:
    """A line on what was read, and on what weighs the frames."""
    bias, weights = weighing["bias"], weighing["weights"]
    read = "" if table is None else f"read {table}; "
    if bias:
        return f"{read}frames count exp({' + '.join(bias)} / kT)"
    if weighing["hills"]:
        return f"{read}frames count by the bias at the end, the sum of the hills"
    if "weights" in log:
        return f"{read}frames count by {weights or 'their weights'}"
    like = [name for name in table or () if name.endswith("bias")]
    hint = f"; if they should count by {' or '.join(like)}, say --bias" if like else ""
    return f"{read}no bias, so all frames count alike{hint}"

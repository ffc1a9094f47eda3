"""The verb `fes`: a free energy with its error from the COLVAR files of biased runs."""

import csv
import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

import polyvae as pv
from polyvae.app.choices import ENERGY_UNITS, OBJECTIVES
from polyvae.app.console import command_line, print_free_energy, say
from polyvae.app.options import READING, Figures, Force, known, numbers, takes
from polyvae.app.reading import for_reading, read_weights
from polyvae.errors import InputError

if TYPE_CHECKING:
    import numpy as np

_RESULTS = ("fes.*", "checks.*", "summary.json")


@takes(reading=READING)
def fes(
    reading: dict,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="COLVAR...", help="COLVAR or HILLS files, patterns too.")
    ] = None,
    cv: Annotated[list[str] | None, typer.Option("--cv", help="Column to take; twice for two.")] = None,
    bias: Annotated[
        list[str] | None, typer.Option("--bias", help="Column with a bias, as opes.bias or rbias; several add up.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Weights in place of a bias: a column, or a text file.")
    ] = None,
    hills: Annotated[
        Path | None, typer.Option("--hills", help="HILLS of the run: without --bias, frames count by their sum.")
    ] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="In kelvin.")] = None,
    energy_unit: Annotated[
        str, typer.Option("--energy-unit", help=f"Of bias and result: {', '.join(ENERGY_UNITS)}.")
    ] = "kJ/mol",
    kt: Annotated[
        float | None, typer.Option("--kt", help="Thermal energy in units of the bias, as 1.0 of reduced units.")
    ] = None,
    over: Annotated[
        list[str] | None, typer.Option("--over", help=f"Of the frames in --traj: {', '.join(OBJECTIVES)}.")
    ] = None,
    traj: Annotated[
        list[Path] | None, typer.Option("--traj", help="Frames, found in the COLVAR by their times; repeatable.")
    ] = None,
    walkers: Annotated[bool, typer.Option("--walkers", help="The files are walkers of one bias.")] = False,
    method: Annotated[str, typer.Option("--method", help="kde or histogram.")] = "kde",
    bandwidth: Annotated[
        str | None, typer.Option("--bandwidth", help="Of the kernels [default: a tenth of a basin's spread].")
    ] = None,
    bins: Annotated[str | None, typer.Option("--bins", help="Points of the grid [default: by bandwidth].")] = None,
    range_: Annotated[
        list[str] | None, typer.Option("--range", metavar="LOW:HIGH", help="Of the grid; twice for two.")
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
    import numpy as np

    from polyvae.files import replacing_folder
    from polyvae.measures.hills import hills_of

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
    inputs = [*(files or ()), hills, *(traj or ())]
    with replacing_folder(out, force=force, results=_RESULTS, inputs=inputs) as folder:
        table = pv.read_colvar(files) if files else None
        alone = table is not None and "height" in table and any(name.startswith("sigma_") for name in table)
        kT, unit = _thermal_energy(temperature, energy_unit, kt, bool(bias or hills or alone))
        if alone:
            if bias or weights or hills or over or state or transient != "auto":
                text = (
                    "of HILLS alone there are no frames; leave out --bias, --weights, --over, --state, --transient"
                )
                raise typer.BadParameter(text, param_hint="COLVAR...")
            of_run, names = hills_of(table, names)
            found = of_run.free_energy(kT, range=chosen["range"], bins=chosen["bins"])
            about = {"from": "the sum of the hills", "n_hills": len(of_run.heights)}
            write_energy(folder, names, unit, found, about, figures=figures)
            print(f"free energy over {' and '.join(names)} in {unit}, the sum of {len(of_run.heights)} hills")
        else:
            run = _read(table, cv or [], over or [], traj or [], reading, bias, weights)
            others = {}
            if hills is not None:
                of_run, along = hills_of(pv.read_colvar(hills))
                if not run.log:
                    if table is None:
                        raise InputError(
                            f"the hills are along {', '.join(along)}; give the COLVAR that holds these"
                        )
                    run.log["bias"] = of_run.bias(np.stack([table[name] for name in along], axis=1)[run.rows])
            say(_said(table, run.log, bias, weights, hills))
            result = pv.free_energy(run.s, **run.log, kT=kT, segments=run.segments, periods=run.periods, **chosen)
            if hills is not None and sorted(along) == sorted(names):
                of_run, _ = hills_of(pv.read_colvar(hills), names)
                points = np.stack(np.meshgrid(*result.grid, indexing="ij"), axis=-1).reshape(-1, len(names))
                sum_of = -of_run.total(points).reshape(result.energy.shape)
                others["hills"] = sum_of - sum_of.min()
            write_energy(folder, names, unit, result, summary_of(result, names), others, figures=figures)
            axes = pv.plot.free_energy_checks(
                result, run.s[:, 0], time=run.time, segments=run.segments, names=names, unit=unit
            )
            pv.plot.save(axes, folder / f"checks.{figures}")
            print_free_energy(result, names, unit)
    print(f"results in {out}: fes.csv, fes.npz, summary.json and pictures")


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


class _Run(NamedTuple):
    """Variables (n_frames, n) of the frames, what weighs them, and how they follow on each other."""

    s: "np.ndarray"
    log: dict[str, Any]
    segments: tuple[int, ...]
    time: "np.ndarray | None"
    periods: list | None
    rows: Any  # of the COLVAR


def _read(table, cvs, over, traj, reading, bias, weights) -> _Run:
    import jax
    import numpy as np

    from polyvae.batches import map_frames
    from polyvae.tasks import optimization

    names = [*cvs, *over]
    frames = pv.read(traj, **for_reading(reading)) if over else None
    log = {}
    if bias:
        if table is None:
            raise InputError(f"the bias {' + '.join(bias)} is a column of a COLVAR; give that file too")
        log["bias"] = np.sum([table[name] for name in bias], axis=0)
    if weights is not None:
        column = table is not None and weights in table and not Path(weights).exists()
        log["weights"] = table[weights] if column else read_weights(Path(weights))
    elif frames is not None and frames.weights is not None and not bias:
        log["weights"] = frames.weights
    known_periods = {} if table is None else table.periods
    periods = [known_periods.get(name) for name in names] if any(name in known_periods for name in cvs) else None
    if frames is None:
        s = np.stack([table[name] for name in cvs], axis=1)
        return _Run(s, log, table.segments, table.time, periods, slice(None))
    columns, rows = [], None
    if table is not None:
        rows = table.rows_at(frames.time, frames.segments)
        n = sum(table.segments)
        log = {name: value[rows] if len(value) == n else value for name, value in log.items()}
        columns = [table[name][rows] for name in cvs]
    measures = [jax.jit(jax.vmap(optimization.OBJECTIVES[name])) for name in over]
    columns += [np.asarray(map_frames(measure, frames.positions), np.float64) for measure in measures]
    return _Run(np.stack(columns, axis=1), log, frames.segments, frames.time, periods, rows)


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


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def summary_of(result: "pv.FreeEnergy", names: list[str]) -> dict:
    states = []
    for state in result.states:
        numbers_of = {"weight": state.weight, "energy": _finite(state.energy), "error": _finite(state.error)}
        states.append({"centre": dict(zip(names, state.centre, strict=True))} | numbers_of)
    differences = []
    for one, other in itertools.combinations(range(len(states)), 2):
        energy, error = map(_finite, result.difference(one, other))
        differences.append({"from": one, "to": other, "energy": energy, "error": error})
    blocks = result.blocks
    return {
        "from": "reweighted frames",
        "transient": result.dropped,
        "n_frames": result.n_frames,
        "n_effective": result.n_effective,
        "kish": result.kish,
        "blocks": {"frames": blocks.size, "n": blocks.n_blocks, "enough": blocks.enough},
        "bandwidth": result.bandwidth and list(result.bandwidth),
        "halves_apart": _finite(result.halves),
        "states": states,
        "differences": differences,
    }


def write_energy(
    folder: Path,
    names: list[str],
    unit: str,
    result,
    about: dict,
    others: dict | None = None,
    figures: str = "png",
) -> None:
    """fes.csv (the first variable, energy, error, then the second variable), fes.npz, summary.json and the picture
    fes."""
    import numpy as np

    from polyvae.files import replacing, write_json

    others = others or {}
    mesh = [m.ravel() for m in np.meshgrid(*result.grid, indexing="ij")]
    columns = {names[0]: mesh[0], "free_energy": result.energy.ravel(), "error": result.error.ravel()}
    columns |= dict(zip(names[1:], mesh[1:], strict=True)) | {k: v.ravel() for k, v in others.items()}
    with replacing(folder / "fes.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(np.char.mod("%.10g", column) for column in columns.values()), strict=True))
    arrays = {f"grid{k}": points for k, points in enumerate(result.grid)} | others
    np.savez(folder / "fes.npz", free_energy=result.energy, error=result.error, **arrays)
    said = {"command": command_line(), "unit": unit, "kT": result.kT, "variables": names}
    write_json(folder / "summary.json", said | about)
    if len(names) == 1:
        picture = pv.plot.free_energy(result, names=names, unit=unit, others=others or None)
    else:
        picture = pv.plot.free_energy_with_error(result, names=names, unit=unit)
    pv.plot.save(picture, folder / f"fes.{figures}")

"""Tables beside trajectories, biases of hills, and the files of a free energy, for the verb `fes`."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import polyvae as pv
from polyvae.app.console import command_line, say
from polyvae.app.reading import for_reading, read_weights
from polyvae.errors import InputError
from polyvae.files import replacing, write_json
from polyvae.io.patterns import expanded, in_pairs
from polyvae.measures.free_energy import FreeEnergy
from polyvae.measures.hills import Hills, HillsEnergy, name_hills
from polyvae.measures.kernels import bias_of


class RunColumns(NamedTuple):
    """Variables (n_frames, n) of the frames, what weighs them, and how they follow on each other."""

    s: np.ndarray
    log: dict[str, Any]
    segments: tuple[int, ...]
    time: np.ndarray | None
    periods: list
    rows: Any  # of the COLVAR


def read_tables(files, traj, turns: dict[str, tuple[float, float]], names: list[str]) -> pv.Colvar:
    """The tables, in the order of their trajectories, with the periods that were given.

    Args:
        names: of the variables, for hills whose file states none.
    """
    table = pv.read_colvar(in_pairs(expanded(files), expanded(traj)) if traj else files)
    table = name_hills(table, names)
    for name in turns:
        if name not in table:
            raise InputError(f"--period: no column {name!r}; there are {', '.join(table)}")
    return dataclasses.replace(table, periods={**table.periods, **turns})


def of_bias(table: pv.Colvar, names: list[str], kT: float, chosen: dict) -> tuple[HillsEnergy, list[str], dict]:
    """The free energy that hills or kernels show by themselves, its variables, and what it is from."""
    of_run, names = bias_of(table, names)
    found = of_run.free_energy(kT, range=chosen["range"], bins=chosen["bins"])
    word = "hills" if table.kind == "HILLS" else "kernels"
    n = len(of_run.heights)
    return found, names, {"from": f"the sum of {n} {word}", f"n_{word}": n}


def bias_at(sum_of, table, kT: float) -> np.ndarray:
    """The bias at the end of the run in each row of a COLVAR."""
    of_run, along = bias_of(sum_of)
    if table is None:
        raise InputError(f"the hills are along {', '.join(along)}; give the COLVAR that holds these")
    for name in along:
        if sum_of.periods.get(name) != table.periods.get(name):
            raise InputError(
                f"the hills have the period {sum_of.periods.get(name)} of {name}, the COLVAR "
                f"{table.periods.get(name)}; say which is right: --period {name}=LOW:HIGH"
            )
    return of_run.bias(np.stack([table[name] for name in along], axis=1), kT)


def energy_of(sum_of: pv.Colvar, result: FreeEnergy, names: list[str]) -> dict[str, np.ndarray]:
    """Free energy from the hills alone, on the same grid, if they are along the same variables."""
    if sorted(bias_of(sum_of)[1]) != sorted(names):
        return {}
    of_run, _ = bias_of(sum_of, names)
    if isinstance(of_run, Hills) and (of_run.bias_factor is None or np.ndim(of_run.bias_factor)):
        say("the hills have several bias factors or an unknown one, so their sum shows no free energy of its own")
        return {}
    points = np.stack(np.meshgrid(*result.grid, indexing="ij"), axis=-1).reshape(-1, len(names))
    energy = of_run.energy(points, result.kT).reshape(result.energy.shape)
    return {"hills": energy - energy.min()}


def ask_for_periods(run: RunColumns, names: list[str]) -> None:
    """Ask about variables that go around, as angles do."""
    for name, values, period in zip(names, run.s.T, run.periods, strict=True):
        for length, word in ((360.0, "360"), (2 * np.pi, "2*pi")):
            near = np.abs(values) > 0.45 * length
            if period is None and np.abs(values).max() <= 0.5 * length and {-1, 1} <= set(np.sign(values[near])):
                ends = f"{-length / 2:.4g} to {length / 2:.4g}"
                say(f"{name} reaches from {ends}; of an angle say --period {name}={word}")


def read_run(table, cvs, over, traj, reading, bias, weights) -> RunColumns:
    """Columns of a COLVAR and observables of frames, row by row, with their weights or bias."""
    names = [*cvs, *over]
    frames = pv.read(traj, **for_reading(reading)) if over else None
    if frames is not None and frames.unequal_masses is not None and set(over) - {"end_to_end"}:
        say("beads count by the masses that the files state")
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
    periods = [known_periods.get(name) if name in cvs else None for name in names]
    if frames is None:
        s = np.stack([table[name] for name in cvs], axis=1)
        return RunColumns(s, log, table.segments, table.time, periods, slice(None))
    columns, rows = [], None
    if table is not None:
        rows = table.rows_at(frames.time, frames.segments)
        n = sum(table.segments)
        log = {name: value[rows] if len(value) == n else value for name, value in log.items()}
        columns = [table[name][rows] for name in cvs]
    if over:
        from polyvae.measures.objectives import values_of  # loads JAX, for which tables alone need not wait

        columns += [np.asarray(values_of(name, frames), np.float64) for name in over]
    return RunColumns(np.stack(columns, axis=1), log, frames.segments, frames.time, periods, rows)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def summary_of(result: FreeEnergy, names: list[str]) -> dict:
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
    """Write fes.csv (the first variable, energy, error, then the second variable), fes.npz, summary.json and the
    picture fes. A variable called as another column of fes.csv has a _ after its name there."""
    others = others or {}
    of_result = {"free_energy": result.energy, "error": result.error, **others}
    first, *more = [f"{name}_" if name in of_result else name for name in names]
    mesh = np.meshgrid(*result.grid, indexing="ij")
    columns = {first: mesh[0], "free_energy": result.energy, "error": result.error}
    columns |= dict(zip(more, mesh[1:], strict=True)) | others
    with replacing(folder / "fes.csv") as temporary:
        pd.DataFrame({name: values.ravel() for name, values in columns.items()}).to_csv(
            temporary, index=False, float_format="%.10g", na_rep="nan"
        )
    arrays = {f"grid{k}": points for k, points in enumerate(result.grid)} | others
    np.savez(folder / "fes.npz", free_energy=result.energy, error=result.error, **arrays)
    said = {"command": command_line(), "unit": unit, "kT": result.kT, "variables": names}
    write_json(folder / "summary.json", said | about)
    if len(names) == 1 or not np.isfinite(result.error).any():
        picture = pv.plot.free_energy(result, names=names, unit=unit, others=others or None)
    else:
        picture = pv.plot.free_energy_with_error(result, names=names, unit=unit)
    pv.plot.save(picture, folder / f"fes.{figures}")

"""Output of the command line for people: notes and tables."""

import contextlib
import csv
import logging
import math
import platform
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polyvae.tasks.scorecard import Scores


@contextlib.contextmanager
def notes() -> Iterator[None]:
    """Show the package's log on stderr, and a message that repeats only once."""
    logger, handler = logging.getLogger("polyvae"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    said: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        known = (text := record.getMessage()) in said
        said.add(text)
        return not known

    handler.addFilter(is_new)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # to a handler that some library gives to the root, which would say all again
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def fail(message: str, code: int) -> None:
    print(f"polyvae: error: {message}", file=sys.stderr)
    sys.exit(code)


def name_files(files: list) -> str:
    """The names of files, of many the first three; None is left out."""
    given = [str(file) for file in files if file is not None]
    more = f" and {len(given) - 3:,} more" if len(given) > 4 else ""
    return ", ".join(given[:3] if more else given) + more


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write a csv file of rows that have the same names."""
    from polyvae.files import replacing

    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


def say(text: str) -> None:
    print(text, file=sys.stderr)


def command_line() -> str:
    """The command that is being run, as one would type it."""
    return shlex.join(["polyvae", *sys.argv[1:]])


def about_run(files: list, traj, cv) -> dict:
    """Data and model as scores.json describes them, so that the run can be identified and repeated."""
    from polyvae.measures.weights import effective_size

    data = {name: getattr(traj, name) for name in ("n_frames", "n_beads", "n_dims", "length_unit")}
    data |= {"n_segments": len(traj.segments)} | {
        k: v for k, v in cv.record.data.to_dict().items() if "sha256" in k
    }
    if traj.selection is not None:
        data["selection"] = str(traj.selection)
    if traj.weights is not None:
        data["n_effective"] = effective_size(traj.positions, traj.weights)
    model = {name: cv.record.to_dict()[name] for name in ("settings", "best_epoch", "stopped")}
    model |= {"choices": cv.record.choices or {}, "collapsed": cv.record.collapsed or []}
    if cv.record.generator is not None:
        model["generator"] = cv.record.generator.settings.to_dict()
    model["versions"] = cv.record.versions | {"python": platform.python_version()}
    return {"data": {"files": [str(file) for file in files], **data}, "model": model}


def print_model(cv) -> None:
    print(cv)
    if (selection := getattr(getattr(cv, "template", None), "selection", None)) is not None:
        print(f"  {'atoms':14s} {selection}")
    for name, text in cv.record.rows():
        print(f"  {name:14s} {text}")


def print_trajectory(traj) -> None:
    import numpy as np

    print(traj)
    weights = traj.weights
    if weights is None or not weights.any():
        weights = np.ones(len(traj))
    # NumPy gives what `geometry.radius_of_gyration` gives, without the second that loading JAX takes.
    shares = (traj.masses / traj.masses.sum())[:, None]
    squares = []
    for chunk in np.array_split(traj.positions, len(traj) // 4096 + 1):
        off = chunk - (shares * chunk).sum(axis=1, keepdims=True)
        squares.append((shares * off**2).sum(axis=(1, 2)))
    rg = np.sqrt(np.concatenate(squares))
    mean = np.average(rg, weights=weights)
    sd = np.sqrt(np.average((rg - mean) ** 2, weights=weights))
    rg = rg[weights > 0]
    print(f"  Rg  mean {mean:.4g}, sd {sd:.4g}, {rg.min():.4g} to {rg.max():.4g} {traj.length_unit}")


def print_scores(scores: "Scores") -> None:
    print_table(scores.table())
    if scores.generated is not None:
        print(scores.about_generated().replace(": ", ":\n  ", 1))


def print_table(rows: list[list[str]]) -> None:
    """Columns as wide as their widest cell: the first flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        print("   ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))]))


def print_check(check, unit: str, n_beads: int) -> None:
    """Conformations beside the data: mean and standard deviation of each measure, and how many are valid."""
    from polyvae.trajectory.record import is_linear

    rows = [[unit, "these", "the data"]]
    names = {"bond": "bond length", "closest_pair": "closest pair without a bond", "rg": "Rg"}
    for name, data in check.limits.shape.items():
        if name == "end_to_end" and not is_linear(check.limits.bonds, n_beads):
            continue
        cells = [f"{m['mean']:.3f} ± {m['std']:.3f}" for m in (check.shape[name], data)]
        rows.append([names.get(name, "end-to-end distance"), *cells])
    print_table(rows)
    broken = ", ".join(f"{name} {count}" for name, count in check.broken.items() if count)
    left = f"; outside: {broken}" if broken else ""
    print(f"{int(check.valid.sum())} of {len(check.valid)} within the data's 0.1 % and 99.9 % quantiles{left}")


def print_optimum(summary: dict, objective: str, unit: str, target: float | None = None) -> None:
    own = {"asphericity": f" ({unit}²)", "shape_anisotropy": ""}.get(objective, f" ({unit})")
    found, extreme, limits = summary["optimized"], summary["data_extreme"], summary["limits"]
    rows = [["", "found", "data extreme" if target is None else "data nearest", "allowed"]]
    asked = "" if target is None else f"{target:g} ± 1 %{'' if target else ' of the data spread'}"
    for label, key, allowed in (
        (objective + own, "objective", asked),
        (f"Rg ({unit})", "rg", asked if objective == "rg" else ""),
        ("shortest bond", "shortest_bond", f"at least {limits['shortest_bond']:.4g}"),
        ("mean bond", "mean_bond", f"{limits['shortest_mean_bond']:.4g} to {limits['longest_mean_bond']:.4g}"),
        ("longest bond", "longest_bond", f"at most {limits['longest_bond']:.4g}"),
        ("mean closest contact", "closest_contacts", f"at least {limits['closest_contacts']:.4g}"),
    ):
        if key == "objective" and objective == "rg":
            continue
        rows.append([label, *(f"{which[key]:.4g}" for which in (found, extreme)), allowed])
    apart = "two bonds apart", "three bonds apart", "four or more apart"
    for what, key in (("closest pair", "closest_apart"), ("mean distance", "closest_mean_apart")):
        for label, least, *both in zip(apart, limits[key], found[key], extreme[key], strict=False):
            if None not in both:
                rows.append([f"{what} {label}", *(f"{value:.4g}" for value in both), f"at least {least:.4g}"])
    print()
    print_table(rows)
    print(summary["message"])


def print_free_energy(result, names: list[str], unit: str) -> None:
    """The basins with their errors, and how far the result can be believed."""
    left_out = f", the first {result.dropped:.0%} of each run left out" if result.dropped else ""
    print(f"free energy over {' and '.join(names)} in {unit}, of {result.n_frames} frames{left_out}")
    print(f"  worth {result.n_effective:.0f} independent frames ({result.kish:.0f} by the weights alone)")
    head, *states = result.table(names)
    print_table([["  " + first, *cells] for first, *cells in [head, *states]])
    apart = f"{result.halves:.2f} apart (rms below 6 kT)" if math.isfinite(result.halves) else "one misses a place"
    print(f"  first and second half of the run: {apart}")
    if result.bandwidth is not None:
        print(f"  kernels {' and '.join(f'{width:.3g}' for width in result.bandwidth)} wide")
    blocks = result.blocks
    print(f"  errors (68 %) from {blocks.n_blocks} blocks of {blocks.size} frames", end="")
    print("" if blocks.enough else ": too few to be sure, the run is short for its slowest motion")

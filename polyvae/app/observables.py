"""The option `--observable`: what else than size and time the frames of an explorer are coloured by."""

from typing import TYPE_CHECKING

import polyvae as pv
from polyvae.app.choices import OBJECTIVES
from polyvae.app.options import known, option
from polyvae.errors import InputError

if TYPE_CHECKING:
    import numpy as np

OBSERVABLE = option(
    list[str],
    f"Quantity that colours the explorer, repeatable: {', '.join(OBJECTIVES)}, or FILE:COLUMN.",
    metavar="NAME",
)
TAKEN = ("Rg", "end-to-end", "time", "frame")  # by what the explorer shows of every run


def check_observables(names: list[str] | None) -> None:
    """Refuse, as bad use, what is neither an observable nor a table's column."""
    for name in names or ():
        file, _, column = name.rpartition(":")
        if not (file and column):
            known("observable", name, [*OBJECTIVES, "FILE:COLUMN"])


def observables_of(names: list[str] | None, traj: "pv.Trajectory") -> "dict[str, np.ndarray]":
    """Values (n_frames,) by name: of the frames, or a column of a table with a row for each, or at its time."""
    import numpy as np

    from polyvae.measures.objectives import values_of

    found: dict[str, np.ndarray] = {}
    for name in names or ():
        file, _, column = name.rpartition(":")
        if not file:
            found[name] = values_of(name, traj)
            continue
        table = pv.read_colvar(file)
        try:
            values, rows = table[column], table.rows_at(traj.time, traj.segments)
        except InputError as error:
            raise InputError(f"--observable {name}: {error}") from None
        found[name if column in {*found, *TAKEN} else column] = values[rows]
    return found

"""Facts that the files of one trajectory must hold alike: weights in all or in none; what else only some hold."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from polyvae.errors import InputError
from polyvae.io.frames import TrajectoryFile
from polyvae.io.times import Times

log = logging.getLogger(__name__)


def check_weights(path: Path, frames: range, weights: np.ndarray | None) -> None:
    """Refuse weights of frames, numbers `frames`, that are negative or not finite."""
    if weights is None or (good := (weights >= 0) & (weights < np.inf)).all():
        return
    k = int(np.argmin(good))
    raise InputError(
        f"{path}: weights must be finite and not negative; that of frame {frames[k]} is {weights[k]:g}. Mend the "
        f"weights, or leave them out of the file"
    )


def check_all_weighted(paths: Sequence[Path], files: Sequence[TrajectoryFile]) -> None:
    """Refuse weights in some files alone: every average would change in silence without them."""
    if (odd := _odd([holds(file, "weights") for file in files])) is not None:
        lacks, has = odd
        raise InputError(
            f"{paths[lacks]} holds no weights, {paths[has]} does; the pieces of one trajectory need them in all "
            f"files or in none. Add weights there (1 for each frame where all count alike), or leave them out"
        )


def left_out(paths: Sequence[Path], times: Sequence[Times], boxed: list[bool], origins: list[bool]) -> set[str]:
    """Fields of `Frames` that only some files hold, which is logged.

    Times are not among them: `times` themselves leave them out.
    """
    found = set()
    kept = [clock.kept for clock in times]
    fields = ("time", "times", kept), ("box", "periodic box", boxed), ("origin", "origin", origins)
    for name, word, held in fields:
        if (odd := _odd(held)) is not None:
            lacks, has = odd
            log.info("%s holds no %s, %s does; left out for all files", paths[lacks], word, paths[has])
            found.add(name)
    if "time" in found:
        found.remove("time")
        for clock in times:
            clock.leave_out()
    return found


def holds(file: TrajectoryFile, name: str) -> bool:
    """Whether a file holds an array of that name, with an entry for each frame."""
    return name in getattr(file, "columns", ())


def _odd(held: list[bool]) -> tuple[int, int] | None:
    """The first that is False and the first that is True, where there are both."""
    return (held.index(False), held.index(True)) if len(set(held)) > 1 else None


def report_units(taken: dict[str, list[Path]]) -> None:
    """Log, once for all files of a unit, that they state none and which is taken."""
    for unit, paths in taken.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        why = "reduced units" if unit == "sigma" else "the format's convention"
        log.info(
            "%s%s: lengths taken to be in %s (%s); say otherwise with the unit option", paths[0], more, unit, why
        )

"""From the numbers in a file to a trajectory's units, by what the file states and by options."""

import dataclasses
import logging
from pathlib import Path

import numpy as np

from polyvae.core.units import length_of, picoseconds
from polyvae.errors import InputError
from polyvae.io.frames import Frames, TrajectoryFile
from polyvae.io.options import ReadOptions
from polyvae.trajectory.facts import NotUnderstood

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Conversion:
    """How the numbers of a file become those of a trajectory."""

    length_unit: str  # of the trajectory
    per_length: float = 1.0  # factor from the numbers in the file to that unit
    by_convention: bool = False  # whether neither the file nor an option states the unit
    has_times: bool = True  # whether times can be used
    per_time: float = 1.0  # factor from the times in the file to ps, or to the engine's own unit in reduced units
    dt: float | None = None  # time between frames, in place of the file's times, or None

    def applied(self, block: Frames, numbers: np.ndarray) -> Frames:
        """Frames in the trajectory's units; `numbers` (n,) are their numbers in the file."""
        if self.dt is not None:
            block = block._replace(time=self.dt * numbers, step=None)
        elif block.time is not None:
            block = block._replace(time=np.asarray(block.time, np.float64) * self.per_time)
        if self.per_length == 1:
            return block
        box = None if block.box is None else block.box * np.float32(self.per_length)
        return block._replace(positions=np.asarray(block.positions, np.float64) * self.per_length, box=box)


def conversion_of(path: Path, file: TrajectoryFile, options: ReadOptions) -> Conversion:
    """The conversion of a file's numbers; facts that are passed over are logged.

    `InputError` for a unit of length that is not understood, where no option states it.
    """
    stated, factor = file.facts.value("length_unit"), 1.0
    by_convention = False
    if options.length_unit is not None:
        unit = options.length_unit
    elif stated is not None:
        known = length_of(stated)
        assert known is not None, f"a reader stated the unit {stated!r} as understood"
        unit, factor = known
    elif isinstance(file.facts.length_unit, NotUnderstood):
        raise InputError(f"{path} {file.facts.length_unit.text} (--unit, length_unit=)")
    else:
        unit, by_convention = file.usual_unit, True
    has_times, per_time = _times(path, file, options, unit)
    return Conversion(unit, factor, by_convention, has_times, per_time, options.dt)


def _times(path: Path, file: TrajectoryFile, options: ReadOptions, unit: str) -> tuple[bool, float]:
    """Whether times can be used, and the factor from the numbers in the file."""
    there = file.facts.stated("time")
    if options.dt is not None:
        if there:
            log.info("%s: states times, in place of which dt counts", path)
        return True, 1.0
    if unit == "sigma" or not there:
        return True, 1.0
    stated = file.facts.value("time_unit")
    if stated is None:
        log.warning(
            "%s: holds times and does not state their unit, so they are left out; give the time between frames in "
            "ps (--dt, dt=)",
            path,
        )
        return False, 1.0
    factor = picoseconds(stated)
    assert factor is not None, f"a reader stated the unit {stated!r} as understood"
    return True, factor

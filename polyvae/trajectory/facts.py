"""Facts: what a file states of its run beside the coordinates.

A reader gives one `Facts`. Its fields have no defaults, so that a new reader cannot leave a fact out by
forgetting it; `not_stated` names those that a format has no place for. Each fact is a value, `NOT_STATED`, or
`NotUnderstood` with the file's own words. `FATES` states the use of each fact; `report_facts` logs those that
nothing here uses.
"""

import dataclasses
import enum
import logging
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.core.units import length_of

log = logging.getLogger(__name__)


class _Absent(enum.Enum):
    NOT_STATED = "not stated"


class _Varying(enum.Enum):
    IN_FRAMES = "in each frame"


NOT_STATED = _Absent.NOT_STATED
IN_FRAMES = _Varying.IN_FRAMES  # the values come with the frames


@dataclasses.dataclass(frozen=True)
class NotUnderstood:
    """A fact that a file states in a way that is not understood."""

    text: str  # what the file states, and what that means for the reader


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Facts:
    """The facts that a file states."""

    length_unit: Any  # name of the unit of lengths
    time: Any  # `IN_FRAMES` where frames have times
    time_unit: Any  # name of the unit of time
    box: Any  # `IN_FRAMES` where frames have box vectors
    periodic: Any  # three bools, whether the box is periodic along each of its vectors
    ids: Any  # (n_atoms,) numbers of the atoms in their engine, in the order in which positions come
    images: Any  # `IN_FRAMES` where image flags, or unwrapped coordinates, show how far atoms have travelled
    masses: Any  # masses, charges, types, names: (n_atoms,)
    charges: Any
    types: Any
    names: Any
    chains: Any  # (n_atoms,) which chain each atom is of
    residues: Any  # (n_atoms,) which residue, or molecule, each atom is of
    bonds: Any  # (n_bonds, 2) numbers of atoms, from 0
    weights: Any  # `IN_FRAMES` where frames have statistical weights
    segments: Any  # lengths of the pieces that are continuous in time

    def value(self, name: str) -> Any:
        """The value of a fact, or None where it is not stated or not understood."""
        fact = getattr(self, name)
        return None if fact is NOT_STATED or isinstance(fact, NotUnderstood) else fact

    def stated(self, name: str) -> bool:
        """Whether the file states a fact in a way that is understood."""
        return self.value(name) is not None


FACTS = tuple(field.name for field in dataclasses.fields(Facts))
# Facts that a file of times, boxes and coordinates alone has no place for.
OF_ATOMS = (
    "length_unit", "periodic", "ids", "images", "masses", "charges", "types", "names", "chains", "residues",
    "bonds", "weights", "segments",
)  # fmt: skip
# The use of each fact.
FATES = dict.fromkeys(FACTS, "used") | {"charges": "reported", "types": "used where there are no names"}


def report_facts(path: Path, facts: Facts) -> None:
    """Log what a file states and nothing uses, and what is not understood."""
    unused = [name for name in FACTS if FATES[name] == "reported" and facts.stated(name)]
    if unused:
        log.info("%s: states %s, which no CV uses", path, " and ".join(unused))
    for name in FACTS:
        fact = getattr(facts, name)
        if isinstance(fact, NotUnderstood):
            log.warning("%s: %s", path, fact.text)


def not_stated(*names: str) -> dict[str, Any]:
    """Facts that are not stated, by name."""
    return dict.fromkeys(names, NOT_STATED)


def stated_if(there: Any, value: Any = IN_FRAMES) -> Any:
    """`value` as a fact where `there` holds, `NOT_STATED` otherwise."""
    return value if there else NOT_STATED


def understood_length(unit: str | None) -> Any:
    """A fact of the unit of lengths that a file names, if it names one."""
    if unit is None:
        return NOT_STATED
    if length_of(unit) is None:
        return NotUnderstood(f"states lengths in {unit!r}, a unit that is not known here; give the unit")
    return unit


def stated_array(values: Any) -> Any:
    """A fact of an array that may be None."""
    return NOT_STATED if values is None else np.asarray(values)

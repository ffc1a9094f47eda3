"""Units of length, time and energy: names, symbols and factors.

Physical constants come from `scipy.constants`, which is loaded when one is asked for: the command line takes names
from here and shows help without loading SciPy.
"""

import functools
import math
from typing import NamedTuple


class Length(NamedTuple):
    """A length unit of trajectories and models.

    Args:
        nm: one of it in nm. For sigma, a reduced unit, its length in files of physical units.
        symbol: of the unit.
        time: symbol of the unit of time that goes with it.
        name: for readers.
    """

    nm: float
    symbol: str
    time: str
    name: str


LENGTHS = {
    "nm": Length(1.0, "nm", "ps", "nanometres"),
    "angstrom": Length(0.1, "Å", "ps", "ångström"),
    "sigma": Length(1.0, "σ", "τ", "reduced units (σ)"),
}
LENGTH_UNITS = tuple(LENGTHS)
ENERGY_UNITS = ("kJ/mol", "kcal/mol", "eV", "Ha", "kT")
# CHARMM's own number for its unit of time, Å sqrt(g/mol / (kcal/mol)), in ps.
AKMA_PS = 0.04888821
# Spellings of units in files and options, in lower case, and one of each unit in nm or ps. A text is the name of a
# constant in SI units.
_IN_NM: dict[tuple[str, ...], float | str] = {
    ("nm", "nanometer", "nanometers", "nanometre"): 1.0,
    ("angstrom", "a", "å", "ang", "angstroms", "ångström"): 0.1,
    ("pm", "picometer", "picometers"): 1e-3,
    ("um", "µm", "micrometer", "micrometers", "micron"): 1e3,
    ("cm", "centimeter"): 1e7,
    ("m", "meter", "meters"): 1e9,
    ("bohr", "a0", "au"): "Bohr radius",
}
_IN_PS: dict[tuple[str, ...], float | str] = {
    ("ps", "picosecond", "picoseconds"): 1.0,
    ("fs", "femtosecond", "femtoseconds"): 1e-3,
    ("ns", "nanosecond", "nanoseconds"): 1e3,
    ("us", "µs", "μs", "microsecond", "microseconds"): 1e6,
    ("ms", "millisecond", "milliseconds"): 1e9,
    ("s", "second", "seconds"): 1e12,
    ("akma",): AKMA_PS,
    ("au", "atomic_time"): "atomic unit of time",
}
_REDUCED = ("sigma", "lj", "reduced")
# LAMMPS' styles of units: length, time (https://docs.lammps.org/units.html).
LAMMPS = {
    "lj": ("sigma", "tau"),
    "real": ("angstrom", "fs"),
    "metal": ("angstrom", "ps"),
    "nano": ("nm", "ns"),
    "micro": ("um", "us"),
    "si": ("m", "s"),
    "cgs": ("cm", "s"),
    "electron": ("bohr", "fs"),
}


def length_of(name: str) -> tuple[str, float] | None:
    """Return a trajectory's length unit for the unit `name`, and the factor from `name` to it; None if unknown.

    Å and reduced lengths stay as they are; all other units become nm.
    """
    if name.strip().lower() in _REDUCED:
        return "sigma", 1.0
    factor = _factor(_IN_NM, name, per_si=1e9)
    if factor is None:
        return None
    return ("angstrom", 1.0) if math.isclose(factor, 0.1) else ("nm", factor)


def nanometres(name: str) -> float | None:
    """Return the length of the unit `name` in nm: NaN for a reduced unit, None for an unknown one."""
    return math.nan if name.strip().lower() in _REDUCED else _factor(_IN_NM, name, per_si=1e9)


def picoseconds(name: str) -> float | None:
    """Return the factor from the unit of time `name` to ps, or None for an unknown unit."""
    return _factor(_IN_PS, name, per_si=1e12)


@functools.cache
def boltzmann(unit: str) -> float:
    """Return the thermal energy of one kelvin in an energy unit of `ENERGY_UNITS` other than kT."""
    from scipy import constants

    joules = {
        "kJ/mol": 1000 / constants.N_A,
        "kcal/mol": 1000 * constants.calorie / constants.N_A,
        "eV": constants.eV,
        "Ha": constants.value("Hartree energy"),
    }
    return constants.k / joules[unit]


def _factor(table: dict[tuple[str, ...], float | str], name: str, per_si: float) -> float | None:
    word = name.strip().lower()
    for names, factor in table.items():
        if word in names:
            return factor if isinstance(factor, float) else _constant(factor) * per_si
    return None


@functools.cache
def _constant(name: str) -> float:
    from scipy import constants

    return constants.value(name)

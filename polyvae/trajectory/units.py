"""Units of length and time that files name, and their factors to nm and ps."""

import math

# CODATA 2022: the Bohr radius in nm, the atomic unit of time in ps.
_BOHR, _ATOMIC_TIME = 0.0529177210544, 2.4188843265864e-5
# CHARMM's unit of time: Å sqrt(g/mol / (kcal/mol)), in ps.
AKMA_PS = 0.04888821

# The plain spelling comes first; other spellings are those that files use.
_LENGTHS_IN_NM = {
    ("nm", "nanometer", "nanometers", "nanometre"): 1.0,
    ("angstrom", "a", "å", "ang", "angstroms"): 0.1,
    ("pm", "picometer", "picometers"): 1e-3,
    ("um", "µm", "micrometer", "micrometers", "micron"): 1e3,
    ("cm", "centimeter"): 1e7,
    ("m", "meter", "meters"): 1e9,
    ("bohr", "a0", "au"): _BOHR,
}
_TIMES_IN_PS = {
    ("ps", "picosecond", "picoseconds"): 1.0,
    ("fs", "femtosecond", "femtoseconds"): 1e-3,
    ("ns", "nanosecond", "nanoseconds"): 1e3,
    ("us", "µs", "microsecond", "microseconds"): 1e6,
    ("ms", "millisecond", "milliseconds"): 1e9,
    ("s", "second", "seconds"): 1e12,
    ("akma",): AKMA_PS,
    ("au", "atomic_time"): _ATOMIC_TIME,
}
REDUCED = ("sigma", "lj", "reduced")
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


def _factor(table: dict[tuple[str, ...], float], name: str) -> float | None:
    """The factor of a unit that a file names, or None for an unknown one."""
    word = name.strip().lower()
    return next((factor for names, factor in table.items() if word in names), None)


def length_of(name: str) -> tuple[str, float] | None:
    """A trajectory's length unit for the unit `name`, and the factor from one to the other; None if unknown.

    Å and reduced lengths stay as they are; all other units become nm.
    """
    if name.strip().lower() in REDUCED:
        return "sigma", 1.0
    factor = _factor(_LENGTHS_IN_NM, name)
    if factor is None:
        return None
    return ("angstrom", 1.0) if math.isclose(factor, 0.1) else ("nm", factor)


def picoseconds(name: str) -> float | None:
    """The factor from the unit of time `name` to ps, or None for an unknown unit."""
    return _factor(_TIMES_IN_PS, name)

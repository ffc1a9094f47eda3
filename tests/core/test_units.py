"""Units: factors against arithmetic of the tests' own, and names that options and files use."""

import numpy as np
import pytest
import typer

from polyvae.app.options import _unit
from polyvae.core.units import ENERGY_UNITS, LAMMPS, LENGTHS, boltzmann, length_of, nanometres, picoseconds
from polyvae.errors import InputError
from polyvae.trajectory.record import unit_factor


@pytest.mark.parametrize(("source", "target", "factor"), [("nm", "angstrom", 10), ("angstrom", "nm", 0.1)])
def test_lengths_are_converted(source, target, factor):
    assert unit_factor(source, target) == factor
    assert unit_factor(source, source) == 1
    for pair in ((source, "sigma"), ("sigma", target)):
        with pytest.raises(InputError, match="reduced unit"):
            unit_factor(*pair)


# Joules of each unit by its definition: 1 cal = 4.184 J, 1 Ha = 27.211386 eV.
JOULES = {
    "kJ/mol": 1000 / 6.02214076e23,
    "kcal/mol": 4184 / 6.02214076e23,
    "eV": 1.602176634e-19,
    "Ha": 27.211386 * 1.602176634e-19,
}


@pytest.mark.parametrize("unit", ENERGY_UNITS[:-1])
def test_thermal_energy(unit):
    assert boltzmann(unit) == pytest.approx(1.380649e-23 / JOULES[unit], rel=1e-7)


# https://docs.lammps.org/units.html: metres and seconds of each style.
STYLES = {
    "real": (1e-10, 1e-15), "metal": (1e-10, 1e-12), "nano": (1e-9, 1e-9), "micro": (1e-6, 1e-6), "si": (1, 1),
    "cgs": (1e-2, 1), "electron": (5.29177210e-11, 1e-15),
}  # fmt: skip


@pytest.mark.parametrize("style", LAMMPS)
def test_styles_of_lammps(style):
    length, time = LAMMPS[style]
    unit, factor = length_of(length)
    if style == "lj":
        assert (unit, factor, picoseconds(time)) == ("sigma", 1, None)
        assert np.isnan(nanometres(length))
        return
    assert factor * LENGTHS[unit].nm == pytest.approx(1e9 * STYLES[style][0], rel=1e-8)
    assert nanometres(length) == pytest.approx(1e9 * STYLES[style][0], rel=1e-8)
    assert picoseconds(time) == pytest.approx(1e12 * STYLES[style][1], rel=1e-12)


@pytest.mark.parametrize("name", ["pm", "bohr", "m", "furlong", ""])
def test_an_option_takes_no_unit_of_another_size(name):
    with pytest.raises(typer.BadParameter, match=r"nm, angstrom, sigma"):
        _unit(name)

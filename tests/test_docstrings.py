"""Every public name says what it is and names its arguments; every verb and option has a help text.

Public is what the reference in `docs/reference` lists, and what `__all__` holds is listed there.
"""

import doctest
import importlib
import inspect
import pkgutil
import re

import numpy as np
import pytest
from conftest import ROOT
from engines import ideal, random_model
from typer.main import get_command

import polyvae as pv
import polyvae.engines
import polyvae.export
import polyvae.mdanalysis
import polyvae.plot
from polyvae.app.cli import app

PAGES = sorted((ROOT / "docs" / "reference").glob("python*.md"))
LISTED = [
    name
    for page in PAGES
    for name in re.findall(r"^\.\. auto(?:function|class|exception):: (\S+)", page.read_text(), re.MULTILINE)
]
MODULES = [
    module.name
    for package in (polyvae.export, polyvae.engines)
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + ".")
]


def found(name: str):
    module, _, own = name.rpartition(".")
    return getattr(importlib.import_module(module), own)


def unwrapped(value):
    """The function of a class or static method, of a property or a jitted one."""
    for name in ("__func__", "fget", "func"):
        value = getattr(value, name, None) or value
    return value


def members(kind: type) -> dict:
    """What a class itself defines for its users."""
    own = {name: value for name, value in vars(kind).items() if not name.startswith("_")}
    return {
        name: value for name, value in own.items() if callable(unwrapped(value)) and not isinstance(value, type)
    }  # fields with a default are no functions; those of a record are arguments of the class


def without_docstring(name: str, thing) -> list[str]:
    docstring = thing.__doc__ or ""
    bare = not docstring.strip() or docstring.startswith(f"{name.rpartition('.')[2]}(")  # a dataclass' own
    missing = [name] if bare else []
    if inspect.isclass(thing):
        for own, value in members(thing).items():
            missing += [] if (value.__doc__ or "").strip() else [f"{name}.{own}"]
    return missing


def arguments(function) -> list[str]:
    try:
        names = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [
        p.name for p in names if not p.name.startswith("_") and p.name not in ("self", "cls", "args", "kwargs")
    ]


def not_named(name: str, thing) -> list[str]:
    """Arguments that the docstring of a function, of a class or of one of its methods does not name."""
    parts = {name: thing}
    if inspect.isclass(thing):
        parts |= {f"{name}.{own}": unwrapped(value) for own, value in members(thing).items()}
        if inspect.isfunction(vars(thing).get("__call__")):
            parts[f"{name}.__call__"] = vars(thing)["__call__"]
    return [
        f"{part}({argument})"
        for part, function in parts.items()
        for argument in arguments(function)
        if not re.search(rf"\b{argument}\b", function.__doc__ or "")
    ]


@pytest.mark.skipif(not PAGES, reason="not a checkout")
def test_the_reference_lists_every_public_name_once():
    assert sorted(LISTED) == sorted(set(LISTED))
    assert {name for name in LISTED if name.count(".") == 1} == {f"polyvae.{name}" for name in pv.__all__}
    drawn = {f"polyvae.plot.{name}" for name in polyvae.plot.__all__ if callable(getattr(polyvae.plot, name))}
    assert {name for name in LISTED if name.startswith("polyvae.plot.")} == drawn
    exports = {name.rpartition(".")[2] for name in LISTED if name.rpartition(".")[0] == "polyvae.export"}
    assert exports == {"write", "compare"}
    engines = {name for name in LISTED if name.startswith("polyvae.engines.") and name.endswith("Engine")}
    engines.remove("polyvae.engines.runs.Engine")
    assert {name.split(".")[2] for name in engines} == {"openmm", "lammps", "command"}


def test_public_names_are_explained():
    things = {name: found(name) for name in LISTED}
    assert not [missing for name, thing in things.items() for missing in without_docstring(name, thing)]
    assert not [missing for name, thing in things.items() for missing in not_named(name, thing)]


def test_every_function_of_exports_and_engines_has_a_docstring():
    missing = []
    for name in MODULES:
        module = importlib.import_module(name)
        assert module.__doc__, name
        for own, thing in vars(module).items():
            here = getattr(thing, "__module__", None) == name and not own.startswith("_")
            if here and (inspect.isfunction(thing) or inspect.isclass(thing)):
                missing += without_docstring(f"{name}.{own}", thing)
    assert not missing


def test_every_verb_argument_and_option_has_a_help_text():
    for name, verb in get_command(app).commands.items():
        assert verb.help, name
        for parameter in verb.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.opts}"


def test_the_checks_see_what_is_missing():
    class Bare:
        """Takes a number."""

        def __init__(self, number, unnamed):
            pass

        def method(self):
            pass

        value = property(lambda self: 1)

    assert without_docstring("Bare", Bare) == ["Bare.method", "Bare.value"]
    assert not_named("Bare", Bare) == ["Bare(unnamed)"]


@pytest.mark.parametrize("name", [name for name in LISTED if ">>> " in (found(name).__doc__ or "")])
def test_examples_in_docstrings(name):
    traj = ideal(2)
    known = {"pv": pv, "np": np, "traj": traj, "cv": random_model(traj, pv.Reference(), (8,))}
    (example,) = doctest.DocTestFinder(recurse=False).find(found(name), name, globs=known)
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example).failed == 0

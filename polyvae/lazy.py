"""Public names that are listed once, in a stub, and loaded when they are first used."""

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def names_of_stub(package: Path) -> dict[str, str]:
    """The module that holds each name, from the stub (.pyi) beside a package's `__init__.py`."""
    stub = ast.parse(package.with_suffix(".pyi").read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for node in stub.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= dict.fromkeys([alias.name for alias in node.names], node.module)
    return found


def on_first_use(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package: it loads a name from its module, or a submodule."""

    def load(name: str):
        if name in modules:
            value = getattr(importlib.import_module(modules[name]), name)
        elif not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}"):
            return importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    return load

"""polyvae: collective variables from finished MD runs."""

import ast
import importlib
import importlib.util
from pathlib import Path

# The stub is read here too, so that each public name is listed once. Importing polyvae loads none of the modules
# behind the names: the command line answers `--help` without the seconds that JAX and MDAnalysis take.
_STUB = Path(__file__).with_suffix(".pyi")
_MODULES = {
    alias.name: node.module
    for node in ast.parse(_STUB.read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
}
__all__ = sorted(_MODULES.keys() - {"plot"})


def __getattr__(name: str):
    """A public name, or a submodule, loaded when it is first used."""
    if name in __all__:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    elif name == "__version__":
        value = importlib.import_module("importlib.metadata").version("polyvae")
    elif not name.startswith("_") and importlib.util.find_spec(f"polyvae.{name}"):
        return importlib.import_module(f"polyvae.{name}")
    else:
        raise AttributeError(f"module 'polyvae' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "plot", "__version__"]

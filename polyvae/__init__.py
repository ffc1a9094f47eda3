"""polyvae: collective variables from finished MD runs."""

import importlib
from pathlib import Path

from polyvae.lazy import names_of_stub, on_first_use

# Importing polyvae loads none of the modules behind its names: the command line answers `--help` without the
# seconds that JAX and MDAnalysis take.
_MODULES = names_of_stub(Path(__file__))
del _MODULES["plot"]  # a package
__all__ = sorted(_MODULES)
_load = on_first_use(__name__, _MODULES)


def __getattr__(name: str):
    """A public name, or a submodule, loaded when it is first used."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("polyvae")
    return _load(name)


def __dir__() -> list[str]:
    return [*__all__, "plot", "__version__"]

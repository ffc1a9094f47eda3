"""Measures of frames: distances of ensembles, limits of conformations, kinetics, density."""

from pathlib import Path

from polyvae.lazy import names_of_stub, on_first_use

_MODULES = names_of_stub(Path(__file__))  # a free energy needs none of JAX, which the others load
__all__ = sorted(_MODULES)
__getattr__ = on_first_use(__name__, _MODULES)

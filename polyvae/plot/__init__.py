"""Pictures of data, training, latent coordinates, generated and optimised conformations.

Each function takes computed results and returns matplotlib axes. Without `ax` it makes a figure of its own,
found as `ax.figure`: in a notebook one of pyplot's, which is shown below the cell and closed when it is saved,
elsewhere one that pyplot knows nothing of. With `ax` (or `axes`) it draws there and leaves the
caller's style alone. matplotlib is imported inside the functions, and its settings are left as they were.
"""

from pathlib import Path

from polyvae.lazy import names_of_stub, on_first_use

# Only the modules of the pictures that are drawn are loaded: that of a free energy needs no JAX.
_MODULES = names_of_stub(Path(__file__))
__all__ = sorted(_MODULES)
__getattr__ = on_first_use(__name__, _MODULES)


def __dir__() -> list[str]:
    return __all__

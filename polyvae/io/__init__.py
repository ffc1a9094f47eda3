"""Files to `Trajectory` and back. The numerical core never imports this package."""

from polyvae.io.colvar import write_colvar
from polyvae.io.reading import read, stream
from polyvae.io.writing import write

__all__ = ["read", "stream", "write", "write_colvar"]

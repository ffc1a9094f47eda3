"""The command line and the report, on top of everything else; `import polyvae` does not load them."""

from polyvae.app.cli import main
from polyvae.app.report import write_comparison, write_report

__all__ = ["main", "write_comparison", "write_report"]

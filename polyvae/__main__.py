"""`python -m polyvae`."""

from polyvae.cli import main

main()

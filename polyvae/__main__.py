"""`python -m polyvae`."""

from polyvae.app.cli import main

main()

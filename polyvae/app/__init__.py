"""The command line and the report, on top of everything else; `import polyvae` does not load them."""

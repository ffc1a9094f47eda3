"""The command line and the report, on top of everything else."""

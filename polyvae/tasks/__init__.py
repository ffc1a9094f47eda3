"""Uses of a collective variable, a module for each task."""

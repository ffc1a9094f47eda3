"""What is measured on frames: distances of ensembles, limits of conformations, kinetics, density."""

"""The variational autoencoder on vectors: network, likelihood, training, and its model file."""

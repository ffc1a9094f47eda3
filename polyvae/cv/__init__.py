"""The latent collective variable: featurizer and trained VAE in one artefact, and its generator."""

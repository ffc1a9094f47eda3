"""The latent collective variable inside simulation engines."""

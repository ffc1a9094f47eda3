"""A latent CV inside MD engines: files that compute the same number, and the same force."""

"""Models for tests that need a CV but no good one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import polyvae as pv
from polyvae.likelihood import Gaussian
from polyvae.vae import VAE


def untrained(traj: pv.Trajectory, latent_dim: int = 2, seed: int = 0) -> pv.LatentCV:
    """A CV with random weights on the features of a trajectory: made at once, and as smooth as a trained one."""
    n = traj.n_beads * traj.n_dims
    vae = VAE(
        n,
        latent_dim=latent_dim,
        encoder=(16,),
        decoder=(8,),
        likelihood=Gaussian("learned"),
        key=jax.random.key(seed),
    )
    template = dataclasses.replace(traj[0], time=None, weights=None, box=None, origin=None)
    scale = np.float32(traj.positions.std())
    record = {"settings": {"validation": 0.1}, "data": {"sha256": "", "n_frames": 100, "n_train": 90}}
    return pv.LatentCV(pv.PrincipalAxes(), jnp.zeros(n), jnp.asarray(scale), vae, template, record)

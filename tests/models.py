"""Models for tests that need a CV but no good one."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import polyvae as pv
from polyvae.vae.checkpoint import digest
from polyvae.vae.likelihood import Gaussian
from polyvae.vae.network import VAE
from polyvae.vae.scaled import ScaledVAE
from polyvae.vae.settings import DataRecord, ModelRecord


def features_of(featurizer, frames: np.ndarray) -> np.ndarray:
    """Features (n_frames, n_features) by one program, which all featurizers of a kind share."""
    return np.asarray(_features(featurizer, frames))


_features = eqx.filter_jit(lambda featurizer, frames: jax.vmap(featurizer)(frames))


def untrained(traj: pv.Trajectory, latent_dim: int = 2, seed: int = 0, featurizer=None) -> pv.LatentCV:
    """A CV with random weights on the features of a trajectory: made at once, and as smooth as a trained one."""
    featurizer = pv.PrincipalAxes() if featurizer is None else featurizer.fit(traj)
    rows = features_of(featurizer, traj.positions[:1000])
    n = rows.shape[1]
    vae = VAE(
        n,
        latent_dim=latent_dim,
        encoder=(16,),
        decoder=(8,),
        likelihood=Gaussian("learned"),
        key=jax.random.key(seed),
    )
    template = dataclasses.replace(traj[0], time=None, weights=None, box=None, origin=None)
    if featurizer.coordinates:
        mean, scale = jnp.zeros(n), jnp.asarray(np.float32(traj.positions.std()))
    else:
        mean, scale = jnp.asarray(rows.mean(axis=0)), jnp.asarray(rows.std(axis=0))
    record = ModelRecord(data=DataRecord(n_frames=100, n_train=90))
    return pv.LatentCV(featurizer, ScaledVAE(mean, scale, vae), template, record)


def seen(cv: pv.LatentCV, traj: pv.Trajectory) -> pv.LatentCV:
    """The same CV with a record that says it was trained on a trajectory, a tenth of it held out."""
    data = DataRecord(sha256=digest(traj.positions), n_frames=len(traj))
    return dataclasses.replace(cv, record=dataclasses.replace(cv.record, data=data))


def of_distance(weight: float, step: float | None = None) -> pv.LatentCV:
    """A CV of two beads at a distance r: weight (r - 1) / 0.1, or with a step weight tanh(step (r - 1) / 0.1)."""
    hidden = () if step is None else (1,)
    vae = VAE(1, latent_dim=1, encoder=hidden, decoder=(), likelihood=Gaussian("learned"), key=jax.random.key(0))
    layers = [(jnp.array([[weight], [0.0]]), jnp.zeros(2))]
    if step is not None:
        layers.insert(0, (jnp.full((1, 1), step), jnp.zeros(1)))
    new = [value for pair in layers for value in pair]
    vae = eqx.tree_at(lambda v: [x for layer in v.encoder.layers for x in (layer.weight, layer.bias)], vae, new)
    template = pv.Trajectory(np.float32([[[0, 0, 0], [1, 0, 0]]]), length_unit="nm")
    featurizer = pv.PairDistances().fit(template)
    return pv.LatentCV(featurizer, ScaledVAE(jnp.ones(1), jnp.full(1, 0.1), vae), template, ModelRecord())


def linear_gaussian(n: int, latent_dim: int, *, spread: float = 1.0, shift: float = 0.0, seed: int = 0):
    """A linear VAE on vectors of length n, the exact log p(x) of its decoder, and draws from it.

    The encoder is the exact posterior at spread 1 and shift 0; else its standard deviation is `spread` times
    that, and its mean off by `shift` standard deviations. Tipping & Bishop 1999, doi:10.1111/1467-9868.00196.
    """
    rng = np.random.default_rng(seed)
    width = 0.5
    w = np.linalg.qr(rng.normal(size=(n, latent_dim)))[0] * rng.uniform(1, 2, latent_dim)  # orthogonal columns
    b = 0.1 * rng.normal(size=n)
    precision = 1 + (w**2).sum(axis=0) / width**2
    gain, std = (w / width**2 / precision).T, precision**-0.5
    encoder = np.vstack([gain, np.zeros((latent_dim, n))]), np.r_[shift * std - gain @ b, np.log(spread * std)]
    vae = VAE(n, latent_dim=latent_dim, encoder=(), decoder=(), likelihood=Gaussian(width), key=jax.random.key(0))
    vae = eqx.tree_at(
        lambda v: [getattr(net.layers[0], name) for net in (v.encoder, v.decoder) for name in ("weight", "bias")],
        vae,
        [jnp.asarray(a, jnp.float32) for a in (*encoder, w, b)],
    )
    exact = stats.multivariate_normal(b, w @ w.T + width**2 * np.eye(n))
    return vae, exact.logpdf, lambda size: exact.rvs(size, random_state=rng).astype(np.float32)

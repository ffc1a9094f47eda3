"""Numbers that tell how good a latent CV is, as a plain dictionary that goes into scores.json."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from polyvae import geometry
from polyvae.cv import LatentCV, fingerprint, map_frames
from polyvae.train import validation_blocks
from polyvae.trajectory import Trajectory, chain_bonds
from polyvae.vae import kl_to_standard_normal

MAX_PAIRS = 2000
ACTIVE = 0.01  # variance of the mean above which a latent counts as active (Burda et al., arXiv:1509.00519)


def score(
    cv: LatentCV, data: Trajectory | np.ndarray, *, generated: Trajectory | None = None, seed: int = 0
) -> dict:
    """How well the model holds up on a trajectory.

    Returns:
        "frames": the numbers below for "all" frames and, where these are the very frames that the model
        was fitted to, for "train" and "validation" apart:

        - n_frames;
        - squared_error: squared distance between a frame's features and the decoded mean of its
          encoding, summed over features, in length^2; rmsd: its root, per bead; fve: the fraction of
          the features' variance that the decoded mean explains;
        - reconstruction, kl and elbo, in nats per frame, the density taken in the model's length unit
          and the expectation over one draw of z a frame; kl_per_latent;
        - latent_mean, latent_std: of the encoder's mean; aggregated_std: of the mean plus the encoder's
          own spread, 1 where the data fill the prior; active_units: latents whose mean varies by more
          than 0.01;
        - correlation_rg, correlation_end_to_end: per latent.

        "generated", where generated conformations are given: Wasserstein-1 distances between them and the
        data (`ensemble_distances`), and under "noise_floor" those between two random halves of the data.
    """
    traj = data if isinstance(data, Trajectory) else Trajectory(np.asarray(data), length_unit=cv.length_unit)
    traj = dataclasses.replace(traj.to_unit(cv.length_unit), positions=cv.frames(traj), length_unit=cv.length_unit)
    key = jax.random.key(seed)

    def one(positions, noise):
        x = cv.standardize(positions)
        mean, std = cv.vae.encode(x)
        log_prob = cv.vae.likelihood.log_prob(x, cv.vae.decode(mean + std * noise))
        decoded = cv.vae.decode(mean)
        return {
            "mean": mean,
            "std": std,
            "x": x * cv.scale,
            "residual": (x - decoded) * cv.scale,
            "log_prob": log_prob - jnp.sum(jnp.log(jnp.broadcast_to(cv.scale, x.shape))),
            "kl": kl_to_standard_normal(mean, std),
            "rg": geometry.radius_of_gyration(positions),
            "end_to_end": geometry.end_to_end(positions),
        }

    noise = np.asarray(jax.random.normal(key, (traj.n_frames, cv.latent_dim)))
    rows = np.concatenate([traj.positions.reshape(traj.n_frames, -1), noise], axis=1)
    split = cv.n_beads * cv.n_dims
    values = map_frames(
        jax.jit(jax.vmap(lambda row: one(row[:split].reshape(cv.n_beads, cv.n_dims), row[split:]))), rows
    )
    values = {name: np.asarray(value, np.float64) for name, value in values.items()}

    parts = {"all": np.ones(traj.n_frames, bool)}
    if cv.record["data"]["sha256"] == fingerprint(traj):
        held_out = validation_blocks(traj.n_frames, cv.record["settings"]["validation"])
        if held_out.any():
            parts |= {"train": ~held_out, "validation": held_out}
    frames = {name: _frame_scores({k: v[mask] for k, v in values.items()}, cv) for name, mask in parts.items()}

    result = {"length_unit": cv.length_unit, "frames": frames}
    if generated is not None:
        order = np.random.default_rng(seed).permutation(traj.n_frames)
        halves = [traj[np.sort(half)] for half in np.array_split(order, 2)] if traj.n_frames > 1 else [traj, traj]
        floor = ensemble_distances(*halves)
        result["generated"] = ensemble_distances(generated, traj) | {"noise_floor": floor}
    return result


def _frame_scores(v: dict[str, np.ndarray], cv: LatentCV) -> dict:
    n, mean = len(v["mean"]), v["mean"]
    squared = (v["residual"] ** 2).sum(axis=1).mean()
    variance = v["x"].var(axis=0).sum()
    kl = v["kl"].mean(axis=0)
    reconstruction = -v["log_prob"].mean()
    return {
        "n_frames": n,
        "squared_error": float(squared),
        "rmsd": float(math.sqrt(squared / cv.n_beads)),
        "fve": float(1 - squared / variance) if variance > 0 else None,
        "reconstruction": float(reconstruction),
        "kl": float(kl.sum()),
        "elbo": float(-reconstruction - kl.sum()),
        "kl_per_latent": kl.tolist(),
        "active_units": int((mean.var(axis=0) > ACTIVE).sum()),
        "latent_mean": mean.mean(axis=0).tolist(),
        "latent_std": mean.std(axis=0).tolist(),
        "aggregated_std": np.sqrt(mean.var(axis=0) + (v["std"] ** 2).mean(axis=0)).tolist(),
        "correlation_rg": _correlation(mean, v["rg"]),
        "correlation_end_to_end": _correlation(mean, v["end_to_end"]),
    }


def _correlation(latents: np.ndarray, other: np.ndarray) -> list[float | None]:
    """Pearson correlation of each column with `other`; None where either does not vary."""
    if len(other) < 2 or other.std() == 0:
        return [None] * latents.shape[1]
    return [float(np.corrcoef(z, other)[0, 1]) if z.std() > 0 else None for z in latents.T]


def ensemble_distances(a: Trajectory, b: Trajectory) -> dict[str, float]:
    """Wasserstein-1 distances between two ensembles of one chain, in their length unit.

    "bond" over all bond lengths pooled (consecutive beads where no bonds are known), "rg",
    "end_to_end", and "pairs", the mean over all pairs of beads of the distance for that pair (at most
    `MAX_PAIRS`, evenly chosen).
    """
    from scipy.stats import wasserstein_distance

    pairs = np.array(list(itertools.combinations(range(a.n_beads), 2))).reshape(-1, 2)
    pairs = pairs[:: -(-len(pairs) // MAX_PAIRS) or 1]
    bonds = a.bonds if a.bonds is not None and len(a.bonds) else chain_bonds(a.n_beads)
    shapes = [shape_measures(traj, bonds) for traj in (a, b)]
    apart = [pair_distances(traj, pairs) for traj in (a, b)]
    result = {name: float(wasserstein_distance(*(s[name].ravel() for s in shapes))) for name in shapes[0]}
    result["pairs"] = float(
        np.mean([wasserstein_distance(x, y) for x, y in zip(*(d.T for d in apart), strict=True)])
    )
    return result


def shape_measures(traj: Trajectory, bonds: np.ndarray) -> dict[str, np.ndarray]:
    """Per frame: "bond" (n_frames, n_bonds), "rg" and "end_to_end" (n_frames,)."""
    measure = jax.jit(
        jax.vmap(lambda x: (geometry.distances(x, bonds), geometry.radius_of_gyration(x), geometry.end_to_end(x)))
    )
    return dict(zip(("bond", "rg", "end_to_end"), map_frames(measure, traj.positions), strict=True))


def pair_distances(traj: Trajectory, pairs: np.ndarray) -> np.ndarray:
    """Distances (n_frames, n_pairs) between pairs of beads, pairs of shape (n_pairs, 2)."""
    return map_frames(jax.jit(jax.vmap(lambda x: geometry.distances(x, pairs))), traj.positions)

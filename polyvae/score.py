"""Numbers that tell how good a latent CV is, as a plain dictionary that goes into scores.json."""

import dataclasses
import hashlib
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from polyvae import alignment, geometry
from polyvae.batches import map_frames
from polyvae.cv import LatentCV
from polyvae.sources import Stream, chunks_of, concatenate
from polyvae.train import validation_blocks
from polyvae.trajectory import Trajectory, chain_bonds
from polyvae.vae import kl_to_standard_normal

MAX_PAIRS = 2000
MAX_SAMPLED = 20_000  # frames of a `Stream` that distances between ensembles are taken on
ACTIVE = 0.01  # variance of the mean above which a latent counts as active (Burda et al., arXiv:1509.00519)


def score(
    cv: LatentCV, data, *, generated: Trajectory | None = None, alternatives: bool = True, seed: int = 0
) -> dict:
    """How well the model holds up on a trajectory.

    Args:
        data: a `Trajectory`, what `as_trajectory` takes, or a `Stream` of any length.
        generated: conformations to compare with the data, in the model's unit.
        alternatives: where the alignment jumps, try the others, which takes some seconds.
        seed: of the draws.

    Returns:
        "frames": the numbers below for "all" frames and, where these are the very frames that the model
        was fitted to, for "train" and "validation" apart:

        - n_frames;
        - squared_error: squared distance between a frame's features and the decoded mean of its
          encoding, summed over features, in length^2; rmsd: its root, per bead (per pair
          with `PairDistances`); fve: the fraction of
          the features' variance that the decoded mean explains;
        - reconstruction, kl and elbo, in nats per frame, the density taken in the model's length unit
          and the expectation over one draw of z a frame; kl_per_latent;
        - latent_mean, latent_std: of the encoder's mean; aggregated_std: of the mean plus the encoder's
          own spread, 1 where the data fill the prior; active_units: latents whose mean varies by more
          than 0.01;
        - correlation_rg, correlation_end_to_end: per latent.

        "alignment", but for a `Stream`: steps between neighbouring frames, how many of them the features jump
        at and what fraction that is (`alignment.jumps`), the smallest and the 1 % quantile of each margin to
        an undefined frame (`alignment.margins`), and a message that names a featurizer that does not jump.

        "generated", where generated conformations are given: Wasserstein-1 distances between them and the
        data (`ensemble_distances`), and under "noise_floor" those between two random halves of the data.
        Of a `Stream` evenly spaced frames stand for all here, at most `MAX_SAMPLED`; memory is constant.
    """
    values_of = _frame_values(cv, seed)
    sums = {"all": _Sums(), "train": _Sums(), "validation": _Sums()}
    held_out = validation_blocks(cv.record["data"]["n_frames"], cv.record["settings"]["validation"])
    n_frames, digest, kept, every = 0, hashlib.sha256(), [], 1
    for chunk in chunks_of(data, array_unit=cv.length_unit, dims=cv.n_dims):
        positions = cv.frames(chunk)
        values = values_of(positions, n_frames)
        sums["all"].add(values)
        here = held_out[n_frames : n_frames + len(chunk)]
        if len(here) == len(chunk):
            sums["train"].add({name: v[~here] for name, v in values.items()})
            sums["validation"].add({name: v[here] for name, v in values.items()})
        digest.update(positions.tobytes())
        traj = dataclasses.replace(chunk, positions=positions, length_unit=cv.length_unit, box=None, origin=None)
        if not isinstance(data, Stream):
            kept = [traj]
        elif -n_frames % every < len(traj):
            kept.append(traj[-n_frames % every :: every])
            while sum(map(len, kept)) > MAX_SAMPLED:
                kept, every = [concatenate(kept)[::2]], 2 * every
        n_frames += len(chunk)

    parts = ["all"]
    if cv.record["data"]["sha256"] == digest.hexdigest() and held_out.any():
        parts += ["train", "validation"]
    result = {"length_unit": cv.length_unit, "frames": {name: sums[name].scores(cv) for name in parts}}
    traj = concatenate(kept)
    if not isinstance(data, Stream):
        result["alignment"] = _alignment(cv, traj, alternatives)
    if generated is not None:
        order = np.random.default_rng(seed).permutation(traj.n_frames)
        halves = [traj[np.sort(half)] for half in np.array_split(order, 2)] if traj.n_frames > 1 else [traj, traj]
        floor = ensemble_distances(*halves)
        result["generated"] = ensemble_distances(generated, traj) | {"noise_floor": floor}
    return result


def _alignment(cv: LatentCV, traj: Trajectory, alternatives: bool) -> dict:
    report = alignment.check_alignment(traj, cv.featurizer, None if alternatives else [])
    return {
        "featurizer": report.name,
        "n_steps": report.jumps.n_steps,
        "n_jumps": report.jumps.count,
        "jump_fraction": float(report.jumps.fraction),
        "margins": {
            name: {"smallest": float(values.min()), "one_percent": float(np.quantile(values, 0.01))}
            for name, values in alignment.margins(traj, cv.featurizer).items()
        },
        "message": report.message,
    }


def _frame_values(cv: LatentCV, seed: int):
    """A function of positions and the number of the first frame that gives per-frame quantities as float64."""
    key = jax.random.key(seed)
    # A key for each frame, so that its noise does not depend on the chunk that it comes in.
    draw = jax.jit(jax.vmap(lambda number: jax.random.normal(jax.random.fold_in(key, number), (cv.latent_dim,))))

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

    shape, split = (cv.n_beads, cv.n_dims), cv.n_beads * cv.n_dims
    batched = jax.jit(jax.vmap(lambda row: one(row[:split].reshape(shape), row[split:])))

    def values(positions: np.ndarray, first: int) -> dict[str, np.ndarray]:
        noise = map_frames(draw, np.arange(first, first + len(positions), dtype=np.uint32))
        rows = np.concatenate([positions.reshape(len(positions), -1), noise], axis=1)
        return {name: np.asarray(value, np.float64) for name, value in map_frames(batched, rows).items()}

    return values


class _Sums:
    """Sums over frames from which all frame scores follow, so that frames may come in chunks."""

    def __init__(self):
        self._n, self._sums, self._about = 0, {}, {}

    def add(self, v: dict[str, np.ndarray]) -> None:
        if not len(v["mean"]):
            return
        if not self._about:  # moments about a number near the mean lose no digits
            self._about = {name: v[name].mean(axis=0) for name in ("mean", "x", "rg", "end_to_end")}
        new = {
            "squared": (v["residual"] ** 2).sum(),
            "log_prob": v["log_prob"].sum(),
            "kl": v["kl"].sum(axis=0),
            "std2": (v["std"] ** 2).sum(axis=0),
        }
        apart = {name: v[name] - about for name, about in self._about.items()}
        for name, value in apart.items():
            new |= {name: value.sum(axis=0), f"{name}2": (value**2).sum(axis=0)}
        for name in ("rg", "end_to_end"):
            new[f"mean*{name}"] = (apart["mean"] * apart[name][:, None]).sum(axis=0)
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in new.items()}
        self._n += len(v["mean"])

    def scores(self, cv: LatentCV) -> dict:
        m = {name: value / self._n for name, value in self._sums.items()}
        variance = {name: np.maximum(m[f"{name}2"] - m[name] ** 2, 0) for name in self._about}
        spread, total = variance["mean"], float(variance["x"].sum())
        return {
            "n_frames": self._n,
            "squared_error": float(m["squared"]),
            "rmsd": math.sqrt(m["squared"] / (cv.n_beads if cv.featurizer.coordinates else cv.mean.size)),
            "fve": float(1 - m["squared"] / total) if total > 0 else None,
            "reconstruction": float(-m["log_prob"]),
            "kl": float(m["kl"].sum()),
            "elbo": float(m["log_prob"] - m["kl"].sum()),
            "kl_per_latent": m["kl"].tolist(),
            "active_units": int((spread > ACTIVE).sum()),
            "latent_mean": (self._about["mean"] + m["mean"]).tolist(),
            "latent_std": np.sqrt(spread).tolist(),
            "aggregated_std": np.sqrt(spread + m["std2"]).tolist(),
            **{
                f"correlation_{name}": _correlation(
                    m[f"mean*{name}"] - m["mean"] * m[name], spread, variance[name]
                )
                for name in ("rg", "end_to_end")
            },
        }


def _correlation(covariance: np.ndarray, spread: np.ndarray, variance: float) -> list[float | None]:
    """Pearson correlation of each latent with another quantity; None where either does not vary."""
    if not variance > 0:
        return [None] * len(spread)
    return [float(c / math.sqrt(s * variance)) if s > 0 else None for c, s in zip(covariance, spread, strict=True)]


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

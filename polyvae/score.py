"""Numbers that tell how good a latent CV is, as a plain dictionary that goes into scores.json."""

import dataclasses
import functools
import hashlib
import itertools
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from polyvae import alignment, geometry, kinetics
from polyvae.batches import map_frames
from polyvae.bound import importance_weighted_bound
from polyvae.cv import LatentCV
from polyvae.errors import InputError
from polyvae.sources import Stream, chunks_of, concatenate
from polyvae.train import validation_blocks
from polyvae.trajectory import Trajectory, chain_bonds
from polyvae.vae import kl_to_standard_normal

MAX_PAIRS = 2000
MAX_SAMPLED = 20_000  # frames of a `Stream` that distances between ensembles are taken on
MAX_COSTLY = 4000  # frames that the importance-weighted bound and the gradients are taken on
ACTIVE = 0.01  # variance of the mean above which a latent counts as active (Burda et al., arXiv:1509.00519)


def score(
    cv: LatentCV,
    data,
    *,
    generated: Trajectory | None = None,
    lag: int | None = None,
    k: int = 64,
    alternatives: bool = True,
    seed: int = 0,
) -> dict:
    """How well the model holds up on a trajectory.

    Averages are weighted where the trajectory has weights: frames of whole-number weights count as that many
    frames. What needs the order of the frames, and `n_frames`, is not weighted.

    Args:
        data: a `Trajectory`, what `as_trajectory` takes, or a `Stream` of any length.
        generated: conformations to compare with the data, in the model's unit.
        lag: in frames, of the kinetic numbers; by default the one that the model was trained with, else 1.
        k: draws of z a frame for the importance-weighted bound.
        alternatives: where the alignment jumps, try the others, which takes some seconds.
        seed: of the draws.

    Returns:
        "frames": the numbers below for "all" frames and, where these are the very frames that the model
        was fitted to, for "train" and "validation" apart; None where a number cannot be had:

        - n_frames;
        - squared_error: squared distance between a frame's features and the decoded mean of its
          encoding, summed over features, in length^2; rmsd: its root, per bead (per pair
          with `PairDistances`); fve: the fraction of
          the features' variance that the decoded mean explains;
        - reconstruction, kl and elbo, in nats per frame, the density taken in the model's length unit
          and the expectation over one draw of z a frame; kl_per_latent;
        - iw_bound: the importance-weighted bound of iw_k draws a frame (`importance_weighted_bound`), in the
          nats of elbo: elbo plus the mean difference of the two on n_costly evenly chosen frames;
        - latent_mean, latent_std: of the encoder's mean; active_units: latents whose mean varies by more
          than 0.01;
        - aggregated_std, aggregated_covariance: of the mean plus the encoder's own spread, about latent_mean;
          0 mean and unit covariance where the data fill the prior;
        - correlation_rg, correlation_end_to_end: per latent;
        - gradient_mean, gradient_max: norm of each latent's gradient in all positions of a frame, the
          alignment's part included, in 1 / length, on the n_costly frames;
        - vamp2, between 1 and 1 + latents, and timescale, the slowest, at the lag (`kinetics`);
          autocorrelation_time, per latent; of the encoder's mean, no pair of frames crossing from one
          segment, or one held-out block, to another;
        - n_jumps, of n_steps between neighbouring frames, but for a `Stream`.

        "kinetics": lag, in frames, and time_unit, "ps" ("tau" for reduced units) where the times are evenly
        spaced, time_step apart, else "frames"; the unit of timescale and autocorrelation_time.

        "alignment", but for a `Stream`: steps between neighbouring frames, how many of them the features jump
        at and what fraction that is (`alignment.jumps`), the smallest and the 1 % quantile of each margin to
        an undefined frame (`alignment.margins`), and a message that names a featurizer that does not jump.

        "generated", where generated conformations are given: Wasserstein-1 distances between them and the
        data (`ensemble_distances`), and under "noise_floor" those between two random halves of the data.
        Of a `Stream` evenly spaced frames stand for all here, at most `MAX_SAMPLED`. A stream's frames are
        never in memory together; the latents are.

    Raises:
        InputError: data that do not fit the model, a lag longer than every segment, weights that are
            negative or all zero.
    """
    if min(1 if lag is None else lag, k) < 1:
        raise InputError(f"the lag and k must be at least 1; got lag={lag} and k={k}")
    values_of = _frame_values(cv, seed)
    sums = {"all": _Sums(), "train": _Sums(), "validation": _Sums()}
    held_out = validation_blocks(cv.record["data"]["n_frames"], cv.record["settings"]["validation"])
    n_frames, digest, kept, every, chunks = 0, hashlib.sha256(), [], 1, []
    for chunk in chunks_of(data, array_unit=cv.length_unit, dims=cv.n_dims):
        positions, weights = cv.frames(chunk), _weights(chunk, n_frames)
        values = values_of(positions, n_frames)
        sums["all"].add(values, weights)
        here = held_out[n_frames : n_frames + len(chunk)]
        if len(here) == len(chunk):
            for name, mask in (("train", ~here), ("validation", here)):
                sums[name].add({key: v[mask] for key, v in values.items()}, weights[mask])
        digest.update(positions.tobytes())
        elbo = values["log_prob"] - values["kl"].sum(axis=1)
        chunks.append(_Series(values["mean"].astype(np.float32), elbo, weights, chunk.time, chunk.segments))
        traj = dataclasses.replace(chunk, positions=positions, length_unit=cv.length_unit, box=None, origin=None)
        if not isinstance(data, Stream):
            kept = [traj]
        elif -n_frames % every < len(traj):
            kept.append(traj[-n_frames % every :: every])
            while sum(map(len, kept)) > MAX_SAMPLED:
                kept, every = [concatenate(kept)[::2]], 2 * every
        n_frames += len(chunk)

    series, traj = _joined(chunks), concatenate(kept)
    if not series.weights.any():
        raise InputError("the weights of the frames are all zero; give positive ones, or none")
    clock = _clock(cv, series, lag)
    masks = {"all": np.ones(n_frames, bool)}
    if cv.record["data"]["sha256"] == digest.hexdigest() and held_out.any():
        masks |= {"train": ~held_out, "validation": held_out}
    masks = {name: mask for name, mask in masks.items() if series.weights[mask].any()}
    parts = {name: sums[name].scores(cv) for name in masks}

    stride = -(-len(traj) // MAX_COSTLY)
    keys = jax.random.split(jax.random.key(seed), len(traj.positions[::stride]))
    costly = [np.asarray(v, np.float64) for v in _costly(_model(cv), traj.positions[::stride], keys, k)]
    chosen = np.arange(len(keys)) * every * stride
    for name, mask in masks.items():
        here = mask[chosen]
        bound = parts[name]["elbo"], (costly[0] - series.elbo[chosen])[here]
        parts[name] |= _costly_scores(*bound, costly[1][here], series.weights[chosen][here]) | {"iw_k": k}
        parts[name] |= _kinetics(series.z[mask], kinetics.segments_within(mask, series.segments), clock)

    result = {"length_unit": cv.length_unit, "frames": parts, "kinetics": clock}
    if not isinstance(data, Stream):
        found = alignment.check_alignment(traj, cv.featurizer, None if alternatives else [])
        result["alignment"] = _alignment(cv, traj, found)
        steps = kinetics.lagged(traj.segments, 1)
        for name, mask in masks.items():
            n_steps, n_jumps = (int((mask[t] & mask[t + 1]).sum()) for t in (steps, found.jumps.frames - 1))
            parts[name] |= {"n_steps": n_steps, "n_jumps": n_jumps}
    if generated is not None:
        traj = traj if traj.weights is None else traj[traj.weights > 0]
        order = np.random.default_rng(seed).permutation(traj.n_frames)
        halves = [traj[np.sort(half)] for half in np.array_split(order, 2)] if traj.n_frames > 1 else [traj, traj]
        floor = ensemble_distances(*halves)
        result["generated"] = ensemble_distances(generated, traj) | {"noise_floor": floor}
    return result


def _weights(chunk: Trajectory, first: int = 0) -> np.ndarray:
    """Weights (n_frames,) of a chunk whose first frame has the number `first`."""
    if chunk.weights is None:
        return np.ones(len(chunk))
    if (chunk.weights < 0).any():
        bad = int(np.argmax(chunk.weights < 0))
        raise InputError(
            f"weights must not be negative; frame {first + bad} has {chunk.weights[bad]:g}. "
            f"Give exp(bias / kT), not the bias"
        )
    return chunk.weights


class _Series(NamedTuple):
    """What is held of every frame, in order."""

    z: np.ndarray
    elbo: np.ndarray
    weights: np.ndarray
    time: np.ndarray | None
    segments: tuple[int, ...]


def _joined(chunks: list[_Series]) -> _Series:
    """One series of several; a chunk's first frame starts a segment."""
    z, elbo, weights, times, segments = zip(*chunks, strict=True)
    time = None if any(t is None for t in times) else np.concatenate(times)
    return _Series(*map(np.concatenate, (z, elbo, weights)), time, tuple(itertools.chain(*segments)))


def _model(cv: LatentCV):
    """The arrays of a model, to be an argument of a compiled function and not constants inside it: models of
    one shape, as of several seeds, share what is compiled."""
    return cv.featurizer, cv.mean, cv.scale, cv.vae


def _frame_values(cv: LatentCV, seed: int):
    """A function of positions and the number of the first frame that gives per-frame quantities as float64."""
    key = jax.random.key(seed)
    # A key for each frame, so that its noise does not depend on the chunk that it comes in.
    draw = jax.jit(jax.vmap(lambda number: jax.random.normal(jax.random.fold_in(key, number), (cv.latent_dim,))))
    batched = functools.partial(_measure, _model(cv), (cv.n_beads, cv.n_dims))

    def values(positions: np.ndarray, first: int) -> dict[str, np.ndarray]:
        noise = map_frames(draw, np.arange(first, first + len(positions), dtype=np.uint32))
        rows = np.concatenate([positions.reshape(len(positions), -1), noise], axis=1)
        return {name: np.asarray(value, np.float64) for name, value in map_frames(batched, rows).items()}

    return values


@eqx.filter_jit
def _measure(model, shape: tuple[int, int], rows):
    """Per-frame quantities; a row is a frame's positions and then its noise."""
    featurizer, mean, scale, vae = model

    def one(row):
        positions, noise = row[: math.prod(shape)].reshape(shape), row[math.prod(shape) :]
        x = (featurizer(positions) - mean) / scale
        z, std = vae.encode(x)
        log_prob = vae.likelihood.log_prob(x, vae.decode(z + std * noise))
        return {
            "mean": z,
            "std": std,
            "x": x * scale,
            "residual": (x - vae.decode(z)) * scale,
            "log_prob": log_prob - _log_scale(scale, x),
            "kl": kl_to_standard_normal(z, std),
            "rg": geometry.radius_of_gyration(positions),
            "end_to_end": geometry.end_to_end(positions),
        }

    return jax.vmap(one)(rows)


@eqx.filter_jit
def _costly(model, positions, keys, k: int):
    """Per frame: the importance-weighted bound, and the norm of each latent's gradient."""
    featurizer, mean, scale, vae = model

    def one(positions, key):
        def scaled(positions):
            return (featurizer(positions) - mean) / scale

        x = scaled(positions)
        slopes = jax.jacrev(lambda positions: vae.encode(scaled(positions))[0])(positions)
        bound = importance_weighted_bound(vae, x, k=k, key=key) - _log_scale(scale, x)
        return bound, jnp.sqrt(jnp.sum(slopes**2, axis=(1, 2)))

    return jax.vmap(one)(positions, keys)


def _log_scale(scale, x):
    """What makes a log density of scaled features one of the features themselves."""
    return jnp.sum(jnp.log(jnp.broadcast_to(scale, x.shape)))


def _costly_scores(elbo: float, gap: np.ndarray, slopes: np.ndarray, weights: np.ndarray) -> dict:
    """The gap between the bounds varies less from frame to frame than either, hence their difference is
    averaged over the few frames and added to the elbo of all."""
    seen = weights > 0
    if not seen.any():
        return {"iw_bound": None, "gradient_mean": None, "gradient_max": None, "n_costly": 0}
    return {
        "iw_bound": elbo + float(np.average(gap, weights=weights)),
        "gradient_mean": np.average(slopes, axis=0, weights=weights).tolist(),
        "gradient_max": slopes[seen].max(axis=0).tolist(),
        "n_costly": len(gap),
    }


def _clock(cv: LatentCV, series: _Series, lag: int | None) -> dict:
    """The lag of the kinetic numbers, and their unit of time."""
    if lag is not None and lag >= max(series.segments):
        raise InputError(
            f"a lag of {lag} frames needs a segment of more frames than that; the longest has "
            f"{max(series.segments)}. Use a shorter lag"
        )
    lag = cv.record["settings"].get("lag") or 1 if lag is None else lag
    step = kinetics.time_step(series.time, series.segments)
    unit = "frames" if step is None else "tau" if cv.length_unit == "sigma" else "ps"
    return {"lag": int(lag), "time_step": step, "time_unit": unit}


def _kinetics(z: np.ndarray, segments: tuple[int, ...], clock: dict) -> dict:
    lag, unit = clock["lag"], clock["time_step"] or 1.0
    found = {"vamp2": None, "timescale": None}
    if len(kinetics.lagged(segments, lag)) > z.shape[1] + 1:
        longest = float(kinetics.timescales(z, lag, segments)[0])
        found = {"vamp2": kinetics.vamp2(z, lag, segments), "timescale": _finite(longest * unit)}
    times = kinetics.autocorrelation_time(z, segments) * unit
    return found | {"autocorrelation_time": list(map(_finite, times.tolist()))}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _alignment(cv: LatentCV, traj: Trajectory, report: alignment.AlignmentReport) -> dict:
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


class _Sums:
    """Weighted sums over frames from which the frame scores follow, so that frames may come in chunks."""

    def __init__(self):
        self._n, self._weight, self._sums, self._about = 0, 0.0, {}, {}

    def add(self, v: dict[str, np.ndarray], weights: np.ndarray) -> None:
        if not len(weights):
            return
        if not self._about:  # moments about a number near the mean lose no digits
            self._about = {name: v[name].mean(axis=0) for name in ("mean", "x", "rg", "end_to_end")}
        new = {
            "squared": weights @ (v["residual"] ** 2).sum(axis=1),
            "log_prob": weights @ v["log_prob"],
            "kl": weights @ v["kl"],
            "std2": weights @ v["std"] ** 2,
        }
        apart = {name: v[name] - about for name, about in self._about.items()}
        for name, value in apart.items():
            new |= {name: weights @ value, f"{name}2": weights @ value**2}
        for name in ("mean", "rg", "end_to_end"):
            new[f"mean*{name}"] = (apart["mean"] * weights[:, None]).T @ apart[name]
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in new.items()}
        self._weight += weights.sum()
        self._n += len(weights)

    def scores(self, cv: LatentCV) -> dict:
        m = {name: value / self._weight for name, value in self._sums.items()}
        variance = {name: np.maximum(m[f"{name}2"] - m[name] ** 2, 0) for name in self._about}
        spread, total = variance["mean"], float(variance["x"].sum())
        aggregated = m["mean*mean"] - np.outer(m["mean"], m["mean"])
        np.fill_diagonal(aggregated, spread + m["std2"])
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
            "aggregated_covariance": aggregated.tolist(),
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
    `MAX_PAIRS`, evenly chosen). Frames count by their weights.
    """
    from scipy.stats import wasserstein_distance

    pairs = np.array(list(itertools.combinations(range(a.n_beads), 2))).reshape(-1, 2)
    pairs = pairs[:: -(-len(pairs) // MAX_PAIRS) or 1]
    bonds = a.bonds if a.bonds is not None and len(a.bonds) else chain_bonds(a.n_beads)
    shapes = [shape_measures(traj, bonds) for traj in (a, b)]
    apart = [pair_distances(traj, pairs) for traj in (a, b)]

    def distance(x, y):  # (n_frames,) or, pooled, (n_frames, n)
        weights = [np.repeat(_weights(t), v[0].size) for t, v in ((a, x), (b, y))]
        return float(wasserstein_distance(x.ravel(), y.ravel(), *weights))

    result = {name: distance(*(s[name] for s in shapes)) for name in shapes[0]}
    result["pairs"] = float(np.mean([distance(x, y) for x, y in zip(*(d.T for d in apart), strict=True)]))
    return result


def shape_measures(traj: Trajectory, bonds: np.ndarray) -> dict[str, np.ndarray]:
    """Per frame: "bond" (n_frames, n_bonds), "rg" and "end_to_end" (n_frames,)."""
    measures = map_frames(functools.partial(_shape, bonds), traj.positions)
    return dict(zip(("bond", "rg", "end_to_end"), measures, strict=True))


@jax.jit
def _shape(bonds, frames):
    return jax.vmap(
        lambda x: (geometry.distances(x, bonds), geometry.radius_of_gyration(x), geometry.end_to_end(x))
    )(frames)


def pair_distances(traj: Trajectory, pairs: np.ndarray) -> np.ndarray:
    """Distances (n_frames, n_pairs) between pairs of beads, pairs of shape (n_pairs, 2)."""
    return map_frames(functools.partial(_distances, pairs), traj.positions)


@jax.jit
def _distances(pairs, frames):
    return jax.vmap(lambda x: geometry.distances(x, pairs))(frames)

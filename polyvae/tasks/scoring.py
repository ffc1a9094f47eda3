"""Numbers that tell how good a latent CV is, as a plain dictionary that goes into scores.json."""

import dataclasses
import functools
import hashlib
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from polyvae import geometry
from polyvae.batches import map_frames
from polyvae.cv.latent import CVFunction, LatentCV
from polyvae.errors import InputError
from polyvae.features import continuity
from polyvae.measures import kinetics
from polyvae.measures.ensembles import ensemble_distances, frame_weights
from polyvae.trajectory.record import Trajectory
from polyvae.trajectory.stream import Stream, chunks_of, concatenate, joined_segments
from polyvae.vae.splits import validation_blocks

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
          Of a model with a time lag the frame to be decoded is the later one, here and below, and frames
          without one in their segment (of a `Stream`, in its chunk) are left out;
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
        at and what fraction that is (`continuity.jumps`), the smallest and the 1 % quantile of each margin to
        an undefined frame (`continuity.margins`), and a message that names a featurizer that does not jump.

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
    decoded_lag = cv.record.settings.lag
    values_of = _frame_values(cv, decoded_lag, seed)
    sums = {"all": _Sums(), "train": _Sums(), "validation": _Sums()}
    held_out = validation_blocks(cv.record.data.n_frames, cv.record.settings.validation)
    n_frames, digest, kept, every, chunks = 0, hashlib.sha256(), [], 1, []
    for chunk in chunks_of(data, array_unit=cv.length_unit, dims=cv.n_dims):
        positions, weights = cv.frames(chunk), frame_weights(chunk, n_frames)
        starts = kinetics.lagged(chunk.segments, decoded_lag)
        values = values_of(positions, starts, n_frames)
        sums["all"].add(values, weights, np.isin(np.arange(len(chunk)), starts))
        here = held_out[n_frames : n_frames + len(chunk)]
        if len(here) == len(chunk):
            inside = starts[here[starts] == here[starts + decoded_lag]]
            paired = np.isin(np.arange(len(chunk)), inside)
            for name, mask in (("train", ~here), ("validation", here)):
                sums[name].add({key: v[mask] for key, v in values.items()}, weights[mask], paired[mask])
        digest.update(positions.tobytes())
        elbo = values["log_prob"] - values["kl"].sum(axis=1)
        z = values["mean"].astype(np.float32)
        chunks.append(_Series(z, elbo, weights, chunk.time, chunk.segments, chunk.continues))
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
    if cv.record.data.sha256 == digest.hexdigest() and held_out.any():
        masks |= {"train": ~held_out, "validation": held_out}
    masks = {name: mask for name, mask in masks.items() if series.weights[mask].any()}
    parts = {name: sums[name].scores(cv) for name in masks}

    stride = -(-len(traj) // MAX_COSTLY)
    rows = np.arange(0, len(traj), stride)
    # A lagged model's bound needs the later frame, which of a stream is not kept.
    bounded = decoded_lag == 0 or not isinstance(data, Stream)
    later = np.minimum(rows + decoded_lag, len(traj) - 1) if bounded else rows
    keys = jax.random.split(jax.random.key(seed), len(rows))
    costly = _costly(cv.function(), traj.positions[rows], traj.positions[later], keys, k)
    bounds, slopes = (np.asarray(v, np.float64) for v in costly)
    chosen = rows * every
    paired = np.isin(chosen, kinetics.lagged(series.segments, decoded_lag) if bounded else ())
    for name, mask in masks.items():
        here = mask[chosen]
        both = here & paired & mask[np.minimum(chosen + decoded_lag, n_frames - 1)]
        gap = (bounds - series.elbo[chosen])[both], series.weights[chosen][both]
        parts[name] |= {"iw_bound": _iw_bound(parts[name]["elbo"], *gap), "iw_k": k, "n_costly": int(here.sum())}
        parts[name] |= _slope_scores(slopes[here], series.weights[chosen][here])
        order = series.order
        segments = kinetics.segments_within(mask[order], series.segments)
        parts[name] |= _kinetics(series.z[order][mask[order]], segments, clock)

    result = {"length_unit": cv.length_unit, "frames": parts, "kinetics": clock}
    if not isinstance(data, Stream):
        found = continuity.check_alignment(traj, cv.featurizer, None if alternatives else [])
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


class _Series(NamedTuple):
    """What is held of every frame, in the order that frames come in."""

    z: np.ndarray
    elbo: np.ndarray
    weights: np.ndarray
    time: np.ndarray | None
    segments: tuple[int, ...]
    continues: int = 0
    order: np.ndarray | slice = slice(None)  # in which the segments are whole


def _joined(chunks: list[_Series]) -> _Series:
    """One series of several."""
    z, elbo, weights, times, *_ = zip(*chunks, strict=True)
    segments, order = joined_segments([(chunk.segments, chunk.continues) for chunk in chunks])
    time = None if any(t is None for t in times) else np.concatenate(times)[order]
    return _Series(*map(np.concatenate, (z, elbo, weights)), time, segments, order=order)


def _frame_values(cv: LatentCV, lag: int, seed: int):
    """A function of positions, the frames that have one `lag` frames later, and the number of the first frame,
    that gives per-frame quantities as float64."""
    key = jax.random.key(seed)
    # A key for each frame, so that its noise does not depend on the chunk that it comes in.
    draw = jax.jit(jax.vmap(lambda number: jax.random.normal(jax.random.fold_in(key, number), (cv.latent_dim,))))
    batched = functools.partial(_measure, cv.function(), (cv.n_beads, cv.n_dims), lag > 0)

    def values(positions: np.ndarray, starts: np.ndarray, first: int) -> dict[str, np.ndarray]:
        noise = map_frames(draw, np.arange(first, first + len(positions), dtype=np.uint32))
        flat = positions.reshape(len(positions), -1)
        columns = [noise, flat]
        if lag > 0:
            later = flat.copy()
            later[starts] = flat[starts + lag]
            columns.append(later)
        rows = np.concatenate(columns, axis=1)
        return {name: np.asarray(value, np.float64) for name, value in map_frames(batched, rows).items()}

    return values


@eqx.filter_jit
def _measure(cv: CVFunction, shape: tuple[int, int], lagged: bool, rows):
    """Per-frame quantities; a row is noise, a frame's positions and, if lagged, those of the frame to decode."""

    def one(row):
        n = cv.scaled.vae.latent_dim
        noise, frames = row[:n], row[n:].reshape(-1, *shape)
        x = cv.featurizer(frames[0])
        target = cv.featurizer(frames[1]) if lagged else x
        z, std = cv.scaled.encode(x)
        log_prob, kl = cv.scaled.elbo_terms(x, noise, target)
        return {
            "mean": z,
            "std": std,
            "x": target - cv.scaled.mean,
            "residual": target - cv.scaled.decode(z),
            "log_prob": log_prob,
            "kl": kl,
            "rg": geometry.radius_of_gyration(frames[0]),
            "end_to_end": geometry.end_to_end(frames[0]),
        }

    return jax.vmap(one)(rows)


@eqx.filter_jit
def _costly(cv: CVFunction, positions, later, keys, k: int):
    """Per frame: the importance-weighted bound, and the norm of each latent's gradient."""

    def one(positions, later, key):
        slopes = jax.jacrev(lambda positions: cv.posterior(positions)[0])(positions)
        x, target = cv.featurizer(positions), cv.featurizer(later)
        bound = cv.scaled.importance_weighted_bound(x, target, k=k, key=key)
        return bound, jnp.sqrt(jnp.sum(slopes**2, axis=(1, 2)))

    return jax.vmap(one)(positions, later, keys)


def _iw_bound(elbo: float | None, gap: np.ndarray, weights: np.ndarray) -> float | None:
    """The gap between the bounds varies less from frame to frame than either, hence their difference is
    averaged over the few frames and added to the elbo of all."""
    return elbo + float(np.average(gap, weights=weights)) if weights.any() and elbo is not None else None


def _slope_scores(slopes: np.ndarray, weights: np.ndarray) -> dict:
    seen = weights > 0
    if not seen.any():
        return {"gradient_mean": None, "gradient_max": None}
    mean = np.average(slopes, axis=0, weights=weights)
    return {"gradient_mean": mean.tolist(), "gradient_max": slopes[seen].max(axis=0).tolist()}


def _clock(cv: LatentCV, series: _Series, lag: int | None) -> dict:
    """The lag of the kinetic numbers, and their unit of time."""
    if lag is not None and lag >= max(series.segments):
        raise InputError(
            f"a lag of {lag} frames needs a segment of more frames than that; the longest has "
            f"{max(series.segments)}. Use a shorter lag"
        )
    lag = cv.record.settings.lag or 1 if lag is None else lag
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


def _alignment(cv: LatentCV, traj: Trajectory, report: continuity.AlignmentReport) -> dict:
    return {
        "featurizer": report.name,
        "n_steps": report.jumps.n_steps,
        "n_jumps": report.jumps.count,
        "jump_fraction": float(report.jumps.fraction),
        "margins": {
            name: {"smallest": float(values.min()), "one_percent": float(np.quantile(values, 0.01))}
            for name, values in continuity.margins(traj, cv.featurizer).items()
        },
        "message": report.message,
    }


class _Sums:
    """Weighted sums over frames from which the frame scores follow, so that frames may come in chunks."""

    def __init__(self):
        self._n, self._weight, self._paired, self._sums, self._about = 0, 0.0, 0.0, {}, {}

    def add(self, v: dict[str, np.ndarray], weights: np.ndarray, paired: np.ndarray) -> None:
        """Values, weights, and whether the frame to decode is there."""
        if not len(weights):
            return
        if not self._about:  # moments about a number near the mean lose no digits
            self._about = {name: v[name].mean(axis=0) for name in ("mean", "x", "rg", "end_to_end")}
        shares = weights * paired
        new = {
            "squared": shares @ (v["residual"] ** 2).sum(axis=1),
            "log_prob": shares @ v["log_prob"],
            "kl_paired": shares @ v["kl"].sum(axis=1),
            "kl": weights @ v["kl"],
            "std2": weights @ v["std"] ** 2,
        }
        apart = {name: v[name] - about for name, about in self._about.items()}
        for name, value in apart.items():
            each = shares if name == "x" else weights
            new |= {name: each @ value, f"{name}2": each @ value**2}
        for name in ("mean", "rg", "end_to_end"):
            new[f"mean*{name}"] = (apart["mean"] * weights[:, None]).T @ apart[name]
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in new.items()}
        self._weight += weights.sum()
        self._paired += shares.sum()
        self._n += len(weights)

    def scores(self, cv: LatentCV) -> dict:
        decoded = ("squared", "log_prob", "x", "x2")
        m = {
            name: v / (self._paired or np.inf if name in decoded else self._weight)
            for name, v in self._sums.items()
        }
        variance = {name: np.maximum(m[f"{name}2"] - m[name] ** 2, 0) for name in self._about}
        spread, total = variance["mean"], float(variance["x"].sum())
        aggregated = m["mean*mean"] - np.outer(m["mean"], m["mean"])
        np.fill_diagonal(aggregated, spread + m["std2"])
        reconstruction = {
            "squared_error": float(m["squared"]),
            "rmsd": math.sqrt(m["squared"] / (cv.n_beads if cv.featurizer.coordinates else cv.mean.size)),
            "fve": float(1 - m["squared"] / total) if total > 0 else None,
            "reconstruction": float(-m["log_prob"]),
            "elbo": float(m["log_prob"] - m["kl_paired"]),
        }
        return {
            "n_frames": self._n,
            **(reconstruction if self._paired else dict.fromkeys(reconstruction)),
            "kl": float(m["kl"].sum()),
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

"""Measures of the quality of a latent CV, as `Scores`, which go into scores.json."""

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
from polyvae.arguments import flag, if_given, seed_number, whole_number
from polyvae.batches import map_frames, single_precision
from polyvae.cv.latent import CVFunction, LatentCV, check_cv
from polyvae.errors import InputError
from polyvae.features import continuity
from polyvae.measures import kinetics
from polyvae.measures.ensembles import ensemble_distances, frame_weights, noise_floor
from polyvae.measures.weights import counting, merged, quantile
from polyvae.tasks.scorecard import Alignment, Distances, FrameScores, Generated, Kinetics, ScoredFrames, Scores
from polyvae.trajectory.convert import as_trajectory
from polyvae.trajectory.record import Trajectory, bonds_of, is_linear
from polyvae.trajectory.stream import Stream, concatenate, joined_segments
from polyvae.vae.order import ACTIVE
from polyvae.vae.splits import validation_blocks

MAX_SAMPLED = 20_000  # frames of a `Stream` that distances between ensembles are taken on
MAX_COSTLY = 4000  # frames that the importance-weighted bound and the gradients are taken on
FEWEST_TIMESCALES = 4  # in the run; a timescale that it holds fewer times is noise
_AT_ONCE = 1 << 24  # numbers that the draws of some frames decode to together


@single_precision
def score(
    cv: LatentCV,
    data,
    *,
    generated: Trajectory | None = None,
    lag: int | None = None,
    k: int = 64,
    alternatives: bool = True,
    seed: int = 0,
) -> Scores:
    """Measure a model on a trajectory.

    Averages are weighted where the trajectory has weights: frames of whole-number weights count as that many
    frames. For a `Stream`, at most `MAX_SAMPLED` evenly spaced frames are used in the distances between ensembles.
    Its frames are never in memory together; the latents are.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        data: a `Trajectory`, what `as_trajectory` takes, or a `Stream` of any length.
        generated: conformations to compare with the data, in the model's unit.
        lag: in frames, of the kinetic numbers; by default the one that the model was trained with, else 1.
        k: draws of z a frame for the importance-weighted bound.
        alternatives: where the alignment jumps, try the others, which takes some seconds.
        seed: of the draws.

    Returns:
        `Scores`: numbers of all frames (`FrameScores`) and, if the model was fitted to these very frames, also of
        training and validation frames apart.

    Raises:
        InputError: data that do not fit the model, a lag longer than every segment, weights that are
            negative or all zero.
    """
    lag, k, seed = if_given(whole_number, "lag", lag, 1), whole_number("k", k, 1), seed_number(seed)
    flag("alternatives", alternatives)
    if generated is not None:
        generated = as_trajectory(generated, array_unit=check_cv(cv).length_unit)
    run = _read(check_cv(cv), data, seed)
    if not run.series.weights.any():
        raise InputError("the weights of the frames are all zero; give positive ones, or none")
    clock = _clock(cv, run.series, lag)
    masks = {name: mask for name, mask in run.masks.items() if run.series.weights[mask].any()}
    linear = is_linear(bonds_of(cv.template), cv.n_beads)
    parts = {name: run.sums[name].scores(cv) for name in masks}
    if not linear:
        for part in parts.values():
            part["correlation_end_to_end"] = [None] * cv.latent_dim
    _add_costly_scores(parts, cv, run, masks, k, seed)
    for name, mask in masks.items():
        parts[name] |= _kinetic_scores(run.series, mask, clock)
    alignment = None
    if not run.streamed:
        found = continuity.check_alignment(run.kept, cv.featurizer, None if alternatives else [])
        alignment = _alignment(cv, run.kept, found)
        for name, mask in masks.items():
            parts[name] |= _jump_scores(run.kept, found.jumps, mask)
    frames = ScoredFrames(**{name: FrameScores(**part) for name, part in parts.items()})
    compared = None if generated is None else _generated(generated, run.kept, linear, seed)
    return Scores(cv.length_unit, frames, clock, alignment, compared)


class _Run(NamedTuple):
    """Values that are kept of a trajectory after all its frames were read."""

    # of "all" frames, and of "train" and "validation" frames if the model was fitted to these frames
    sums: dict[str, "_Sums"]
    # (n_frames,), by the same names: which frames these are, of those parts that there are
    masks: dict[str, np.ndarray]
    series: "_Series"  # the latents and a few numbers of every frame
    kept: Trajectory  # the frames themselves, or every `every`-th of a stream
    every: int
    streamed: bool
    decoded_lag: int  # number of frames from one to the later one that the model decodes


def _read(cv: LatentCV, data, seed: int) -> _Run:
    """Measure every frame, chunk by chunk."""
    streamed, decoded_lag = isinstance(data, Stream), cv.record.settings.lag
    values_of = _frame_values(cv, decoded_lag, seed)
    sums = {"all": _Sums(), "train": _Sums(), "validation": _Sums()}
    held_out = validation_blocks(cv.record.data.n_frames, cv.record.settings.validation)
    n_frames, digest, sample, chunks = 0, hashlib.sha256(), _EvenSample(), []
    for chunk in map(cv.as_trajectory, data if streamed else [data]):
        weights = frame_weights(chunk)
        traj = dataclasses.replace(chunk, box=None, origin=None)
        starts = kinetics.lagged(chunk.segments, decoded_lag)
        values = values_of(chunk.positions, starts, n_frames)
        sums["all"].add(values, weights, np.isin(np.arange(len(chunk)), starts))
        here = held_out[n_frames : n_frames + len(chunk)]
        if len(here) == len(chunk):
            inside = starts[here[starts] == here[starts + decoded_lag]]
            paired = np.isin(np.arange(len(chunk)), inside)
            for name, mask in (("train", ~here), ("validation", here)):
                sums[name].add({key: v[mask] for key, v in values.items()}, weights[mask], paired[mask])
        digest.update(chunk.positions.tobytes())
        elbo = values["log_prob"] - values["kl"].sum(axis=1)
        z = values["mean"].astype(np.float32)
        chunks.append(_Series(z, elbo, weights, chunk.time, chunk.segments, chunk.continues))
        if streamed:
            sample.add(traj, n_frames)
        n_frames += len(chunk)
    masks = {"all": np.ones(n_frames, bool)}
    if cv.record.data.sha256 == digest.hexdigest() and held_out.any():
        masks |= {"train": ~held_out, "validation": held_out}
    kept = concatenate(sample.pieces) if streamed else traj
    return _Run(sums, masks, _joined(chunks), kept, sample.every, streamed, decoded_lag)


class _EvenSample:
    """Evenly spaced frames of chunks: every one, then every second, every fourth, as `MAX_SAMPLED` asks for."""

    def __init__(self):
        self.pieces, self.every = [], 1

    def add(self, traj: Trajectory, first: int) -> None:
        """Take from a chunk whose first frame has the number `first`."""
        skipped = -first % self.every
        if skipped >= len(traj):
            return
        self.pieces.append(traj[skipped :: self.every])
        while sum(map(len, self.pieces)) > MAX_SAMPLED:
            self.pieces, self.every = [concatenate(self.pieces)[::2]], 2 * self.every


def _add_costly_scores(parts: dict[str, dict], cv: LatentCV, run: _Run, masks: dict, k: int, seed: int) -> None:
    """Add the importance-weighted bounds and the gradients, which are computed on evenly chosen frames alone.

    The gap between the bounds varies less from frame to frame than either. So it is averaged over these frames,
    and added to the elbo of all.
    """
    n_frames, n_kept = len(run.series.z), len(run.kept)
    rows = np.arange(0, n_kept, -(-n_kept // MAX_COSTLY))
    # A lagged model's bound needs the later frame, which of a stream is not kept.
    bounded = run.decoded_lag == 0 or not run.streamed
    later = np.minimum(rows + run.decoded_lag, n_kept - 1) if bounded else rows
    keys = jax.random.split(jax.random.key(seed), len(rows))
    positions = run.kept.positions
    values = _bound_and_slopes(cv.function(), positions[rows], positions[later], keys, k)
    bounds, slopes = (np.asarray(value, np.float64) for value in values)
    frames = rows * run.every
    paired = np.isin(frames, kinetics.lagged(run.series.segments, run.decoded_lag) if bounded else ())
    later = np.minimum(frames + run.decoded_lag, n_frames - 1)
    weights, gap = run.series.weights[frames], bounds - run.series.elbo[frames]
    for name, part in parts.items():
        here = masks[name][frames]
        both, seen = here & paired & masks[name][later], here & (weights > 0)
        part.update(iw_k=k, n_costly=int(here.sum()), iw_bound=None, gradient_mean=None, gradient_max=None)
        if part["elbo"] is not None and weights[both].any():
            part["iw_bound"] = part["elbo"] + float(np.average(gap[both], weights=weights[both]))
        if seen.any():
            part["gradient_mean"] = np.average(slopes[here], axis=0, weights=weights[here]).tolist()
            part["gradient_max"] = slopes[seen].max(axis=0).tolist()


def _jump_scores(traj: Trajectory, jumps: continuity.Jumps, mask: np.ndarray) -> dict[str, int]:
    """How many steps between frames of the mask there are, and how many of them are jumps."""
    steps = {"n_steps": kinetics.lagged(traj.segments, 1), "n_jumps": jumps.frames - 1}
    return {name: int((mask[t] & mask[t + 1]).sum()) for name, t in steps.items()}


def _generated(generated: Trajectory, traj: Trajectory, linear: bool, seed: int) -> Generated:
    """Between generated conformations and the data, and between random halves of the data."""
    # Equal frames must not be in both halves: these would be too similar.
    rows, weights = merged(traj.positions, traj.weights)
    traj = dataclasses.replace(traj[rows], weights=weights)
    floor = Distances(**noise_floor(traj, seed=seed))
    found = Generated(**ensemble_distances(generated, traj), noise_floor=floor)
    if linear:
        return found
    return dataclasses.replace(found, end_to_end=None, noise_floor=dataclasses.replace(floor, end_to_end=None))


class _Series(NamedTuple):
    """Values that are held of every frame, in the order of the frames."""

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
    return _Series(np.concatenate(z), np.concatenate(elbo), np.concatenate(weights), time, segments, order=order)


def _frame_values(cv: LatentCV, lag: int, seed: int):
    """A function of positions, the frames that have one `lag` frames later, and the number of the first frame,
    that gives per-frame quantities as float64."""
    key = jax.random.key(seed)
    # A key for each frame, so that its noise does not depend on the chunk that it comes in.
    draw = jax.jit(jax.vmap(lambda number: jax.random.normal(jax.random.fold_in(key, number), (cv.latent_dim,))))
    batched = functools.partial(
        _measure, cv.function(), cv.template.unequal_masses, (cv.n_beads, cv.n_dims), lag > 0
    )

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
def _measure(cv: CVFunction, masses: np.ndarray | None, shape: tuple[int, int], lagged: bool, rows):
    """Per-frame quantities; a row is noise, a frame's positions and, if lagged, those of the frame to decode."""

    def one(row):
        n = cv.scaled.vae.latent_dim
        noise, frames = row[:n], row[n:].reshape(-1, *shape)
        x = cv.featurizer(frames[0])
        target = cv.featurizer(frames[1]) if lagged else x
        z, std = cv.scaled.encode(x)
        log_prob, kl = cv.scaled.elbo_terms(x, noise, target)
        # Scaled features, so that a large mean costs no digits.
        y, decoded = cv.scaled.standardize(target), cv.scaled.vae.decode(z)
        return {
            "mean": z,
            "std": std,
            "x": y * cv.scaled.scale,
            "residual": (y - decoded) * cv.scaled.scale,
            "log_prob": log_prob,
            "kl": kl,
            "rg": geometry.radius_of_gyration(frames[0], masses),
            "end_to_end": geometry.end_to_end(frames[0]),
        }

    return jax.vmap(one)(rows)


@eqx.filter_jit
def _bound_and_slopes(cv: CVFunction, positions, later, keys, k: int):
    """Per frame: the importance-weighted bound, and the norm of each latent's gradient."""

    def one(columns):
        positions, later, key = columns
        slopes = jax.jacrev(lambda positions: cv.posterior(positions)[0])(positions)
        x, target = cv.featurizer(positions), cv.featurizer(later)
        bound = cv.scaled.importance_weighted_bound(x, target, k=k, key=key)
        return bound, jnp.sqrt(jnp.sum(slopes**2, axis=(1, 2)))

    size = max(1, _AT_ONCE // (k * positions[0].size))
    return jax.lax.map(one, (positions, later, keys), batch_size=min(size, len(positions)))


def _clock(cv: LatentCV, series: _Series, lag: int | None) -> Kinetics:
    """The lag of the kinetic numbers, and their unit of time."""
    if lag is not None and lag >= max(series.segments):
        raise InputError(
            f"a lag of {lag} frames needs a segment of more frames than that; the longest has "
            f"{max(series.segments)}. Use a shorter lag"
        )
    lag = cv.record.settings.lag or 1 if lag is None else lag
    step = kinetics.time_step(series.time, series.segments)
    unit = "frames" if step is None else "tau" if cv.length_unit == "sigma" else "ps"
    return Kinetics(lag=int(lag), time_step=step, time_unit=unit)


def _kinetic_scores(series: _Series, mask: np.ndarray, clock: Kinetics) -> dict:
    z = series.z[series.order][mask[series.order]]
    segments = kinetics.segments_within(mask[series.order], series.segments)
    unit = clock.time_step or 1.0
    vamp2 = timescale = None
    if len(kinetics.lagged(segments, clock.lag)) > z.shape[1] + 1:
        vamp2 = kinetics.vamp2(z, clock.lag, segments)
        slowest = float(kinetics.timescales(z, clock.lag, segments)[0])
        if FEWEST_TIMESCALES * slowest <= len(z):
            timescale = slowest * unit
    times = (kinetics.autocorrelation_time(z, segments) * unit).tolist()
    finite = [time if math.isfinite(time) else None for time in times]
    return {"vamp2": vamp2, "timescale": timescale, "autocorrelation_time": finite}


def _alignment(cv: LatentCV, traj: Trajectory, report: continuity.AlignmentReport) -> Alignment:
    rows, weights = counting(traj)
    margins = {
        name: {"smallest": float(values[rows].min()), "one_percent": quantile(values[rows], 0.01, weights)}
        for name, values in continuity.margins(traj, cv.featurizer).items()
    }
    jumps = report.jumps
    return Alignment(report.name, jumps.n_steps, jumps.count, float(jumps.fraction), margins, report.message)


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
        m = {name: value / self._weight for name, value in self._sums.items()}
        for name in ("squared", "log_prob", "x", "x2"):
            m[name] = self._sums[name] / (self._paired or np.inf)
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
        found = {
            "n_frames": self._n,
            **(reconstruction if self._paired else dict.fromkeys(reconstruction)),
            "kl": float(m["kl"].sum()),
            "kl_per_latent": m["kl"].tolist(),
            "active_units": int((spread > ACTIVE).sum()),
            "latent_mean": (self._about["mean"] + m["mean"]).tolist(),
            "latent_std": np.sqrt(spread).tolist(),
            "aggregated_std": np.sqrt(spread + m["std2"]).tolist(),
            "aggregated_covariance": aggregated.tolist(),
        }
        for name in ("rg", "end_to_end"):
            covariance = m[f"mean*{name}"] - m["mean"] * m[name]
            found[f"correlation_{name}"] = _correlation(covariance, spread, variance[name])
        return found


def _correlation(covariance: np.ndarray, spread: np.ndarray, variance: float) -> list[float | None]:
    """Pearson correlation of each latent with another quantity; None where either does not vary."""
    if not variance > 0:
        return [None] * len(spread)
    return [float(c / math.sqrt(s * variance)) if s > 0 else None for c, s in zip(covariance, spread, strict=True)]

"""Curves: distributions of distances, training, optimisation."""

from collections.abc import Mapping, Sequence

import numpy as np

from polyvae.core.units import LENGTHS
from polyvae.measures.ensembles import random_halves
from polyvae.measures.weights import effective_size, quantile
from polyvae.plot.style import DATA, MODEL, NEUTRAL, canvas, digits, label_length, styled
from polyvae.tasks.optimum import Optimum

_PARTNERS = (1, 3, 5, 7)


@styled
def marginals(
    ensembles: Mapping[str, np.ndarray],
    *,
    weights: Mapping[str, np.ndarray | None] | None = None,
    length_unit: str = "sigma",
    axes=None,
):
    """Distributions of the distances from bead 0 to beads 1, 3, 5 and 7, as far as the chain has them.

    A band about the first ensemble holds those of its random halves: smaller differences are not significant.
    With two ensembles each panel's title gives the Wasserstein-1 distance between them and, in brackets, the mean
    one between the halves.

    Args:
        ensembles: label to positions (n_frames, n_beads, n_dims); the first one is filled.
        weights: label to weights (n_frames,) of ensembles that have any.
        length_unit: of the lengths: "nm", "angstrom" or "sigma".
        axes: one for each distance; by default those of a new figure.

    Returns:
        Array of axes, one for each distance.
    """
    from scipy.stats import wasserstein_distance

    n_beads = min(p.shape[1] for p in ensembles.values())
    partners = [j for j in _PARTNERS if j < n_beads] or [0]
    rows, columns = (len(partners) + 1) // 2, min(2, len(partners))
    if axes is None:
        axes = canvas(None, rows, columns, (3.7 * columns + 0.4, 2.4 * rows + 0.5))
        for extra in axes[len(partners) :]:
            extra.remove()
    axes = canvas(axes[: len(partners)], 1, len(partners), (0, 0))
    shares = [(weights or {}).get(label) for label in ensembles]
    sizes = [effective_size(p, w) for p, w in zip(ensembles.values(), shares, strict=True)]
    for ax, j in zip(axes, partners, strict=True):
        distances = [np.linalg.norm(p[:, j] - p[:, 0], axis=1) for p in ensembles.values()]
        for k, label in enumerate(ensembles):
            _one_density(ax, k, label, distances[k], shares[k], sizes[k])
        ax.ticklabel_format(axis="x", useOffset=False)  # lengths of rigid bonds differ in the last digits
        ax.set(ylim=(0, None), xlabel=label_length(f"distance between beads 0 and {j}", length_unit))
        ax.set_ylabel(f"density (1/{LENGTHS[length_unit].symbol})")
        if len(distances) == 2:
            apart = wasserstein_distance(*distances, *shares)
            floor = halves_apart(distances[0], shares[0])
            ax.set_title(f"0–{j}: W₁ = {digits(apart)} ({digits(floor)}) {LENGTHS[length_unit].symbol}")
        else:
            ax.set_title(
                f"0–{j}: mean {digits(np.average(distances[0], weights=shares[0]))} {LENGTHS[length_unit].symbol}"
            )
    if len(ensembles) > 1:
        axes[0].legend()
    return axes


@styled
def latent_marginals(
    z: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    generated: np.ndarray | None = None,
    axes=None,
):
    """The distribution of each latent, of the first six, beside the prior.

    A band about that of the data holds those of its random halves: smaller differences are not significant.

    Args:
        z: (n_frames, latent_dim); weights: (n_frames,), if any.
        generated: (n, latent_dim), of generated conformations.

    Returns:
        Array of axes, one for each latent.
    """
    n = min(z.shape[1], 6)
    columns = min(n, 3)
    if axes is None:
        axes = canvas(None, -(-n // columns), columns, (2.9 * columns + 0.6, 2.5 * -(-n // columns) + 0.4))
        for extra in axes[n:]:
            extra.remove()
    axes = canvas(axes[:n], 1, n, (0, 0))
    size, grid = effective_size(z, weights), np.linspace(-4, 4, 200)
    for k, ax in enumerate(axes):
        ax.plot(
            grid, np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi), color=NEUTRAL, lw=1, ls=(0, (1, 2)), label="prior"
        )
        _one_density(ax, 0, "data", z[:, k], weights, size, lengths=False)
        if generated is not None:
            _one_density(ax, 1, "generated", generated[:, k], None, None, lengths=False)
        ax.set(xlabel=f"z{k}", ylabel="density" if k % columns == 0 else "", ylim=(0, 1.3 * ax.get_ylim()[1]))
    axes[0].legend(fontsize="small", loc="upper center", ncols=2, columnspacing=1.0, handlelength=1.4)
    return axes


def _one_density(ax, k: int, label: str, values, weights, size, *, lengths: bool = True) -> None:
    """The k-th distribution of a panel; the first with the band of its halves."""
    grid, density = smooth_density(values, weights, size, lengths=lengths)
    color = (DATA, MODEL, NEUTRAL)[k % 3]
    if k == 0 and len(values) > 3:
        band = halves_band(grid, values, weights, size, lengths=lengths)
        ax.fill_between(grid, *band, color=color, alpha=0.3, linewidth=0, label="its halves")
    ax.plot(grid, density, color=color, linewidth=1.4, label=label)


def halves_band(grid, values, weights=None, size=None, *, lengths: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest density at each point of a grid among the random halves of some values.

    The halves are those that `noise_floor` takes.
    """
    found = []
    for half in (half for halves in _halves(values, weights) for half in halves):
        shares = None if weights is None else weights[half]
        points, density = smooth_density(values[half], shares, size, lengths=lengths)
        found.append(np.interp(grid, points, density, left=0, right=0))
    return np.min(found, axis=0), np.max(found, axis=0)


def halves_apart(values: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean Wasserstein-1 distance between the random halves of some values, those that `noise_floor` takes."""
    from scipy.stats import wasserstein_distance

    halves = [
        wasserstein_distance(values[a], values[b], *(() if weights is None else (weights[a], weights[b])))
        for a, b in _halves(values, weights)
    ]
    return float(np.mean(halves)) if halves else 0.0


def _halves(values: np.ndarray, weights: np.ndarray | None):
    """Numbers of the values in either half; those of weight 0 are in none."""
    rows = np.arange(len(values)) if weights is None else np.flatnonzero(weights)
    return [(rows[a], rows[b]) for a, b in random_halves(len(rows))] if len(rows) > 1 else []


def smooth_density(
    values: np.ndarray,
    weights: np.ndarray | None = None,
    size: float | None = None,
    *,
    lengths: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian kernel density of values (n,), by weights if any, on a grid, from a fine histogram.

    Its width goes by `size`, how many independent values these are worth; n where it is not given.

    In two or three dimensions the density of a distance vanishes at 0, so that of lengths is continued there as an
    odd function; a plain kernel would show beads that sit on each other.
    """
    from scipy.ndimage import gaussian_filter1d

    values = np.asarray(values, float)
    if weights is not None:
        values, weights = values[weights > 0], weights[weights > 0]
    mean = np.average(values, weights=weights)
    std = float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))
    middle = quantile(values, 0.75, weights) - quantile(values, 0.25, weights)
    spread = min(std, middle / 1.349) or std
    # Rigid bonds differ in their last digits only, which no histogram parts.
    bandwidth = max(0.9 * spread * (size or len(values)) ** -0.2, 1e-4 * float(np.abs(values).max())) or 1e-3
    low, high = float(values.min()) - 4 * bandwidth, values.max() + 4 * bandwidth
    at_zero = lengths and low <= 0
    low = 0.0 if at_zero else low
    bins = int(np.clip(np.ceil((high - low) / bandwidth * 8), 200, 20_000))
    counts, edges = np.histogram(values, bins=bins, range=(low, high), weights=weights, density=True)
    if at_zero:
        counts = np.concatenate([-counts[::-1], counts])
    step = edges[1] - edges[0]
    density = gaussian_filter1d(counts, bandwidth / step, mode="constant", truncate=5)[-bins:]
    grid = (edges[1:] + edges[:-1]) / 2
    if at_zero:
        grid, density = np.concatenate([[0.0], grid]), np.concatenate([[0.0], density])
    return grid, density / (density.sum() * step)


@styled
def training(history: Mapping[str, Sequence[float]], *, best_epoch: int | None = None, axes=None):
    """Both loss terms over the epochs, counted from 0, on training and, where known, validation frames.

    The reconstruction panel is cut above what the later epochs need; the title says where the curve starts.

    Args:
        history: "reconstruction" and "kl", and "val_" of both if any; nats per frame (`cv.record.history`).
        best_epoch: the epoch whose weights were kept.
        axes: two of them; by default those of a new figure.

    Returns:
        Two axes: reconstruction, KL.
    """
    axes = canvas(axes, 1, 2, (8.4, 3.3))
    names = {"reconstruction": "Reconstruction, −E log p(x|z)", "kl": "KL(q(z|x) ‖ prior)"}
    for ax, (term, name) in zip(axes, names.items(), strict=True):
        curves = {"training": np.asarray(history[term])}
        if f"val_{term}" in history:
            curves["validation"] = np.asarray(history[f"val_{term}"])
        for (label, values), color in zip(curves.items(), (DATA, MODEL), strict=False):
            marker = "o" if len(values) == 1 else None
            ax.plot(np.arange(len(values)), values, color=color, linewidth=1.4, label=label, marker=marker)
        ax.set(xlabel="epoch", ylabel=f"{name}\n(nats per frame)")
        if best_epoch is not None:
            label = f"best epoch, {best_epoch}" if len(curves) == 2 else f"kept epoch, {best_epoch}"
            ax.axvline(best_epoch, color=NEUTRAL, linewidth=1, linestyle=(0, (4, 3)), label=label, zorder=1)
        _cut_transient(ax, list(curves.values()))
    axes[0].legend()
    return axes


def _cut_transient(ax, curves: list[np.ndarray]) -> None:
    """Limit y to what the last nine tenths of the epochs need and half as much above, if that cuts anything."""
    late = np.concatenate([c[len(c) // 10 :] for c in curves])
    late, every = late[np.isfinite(late)], np.concatenate(curves)
    every = every[np.isfinite(every)]
    if not late.size or not np.ptp(late) > 0:
        return
    low, high = late.min(), late.max() + 0.3 * np.ptp(late)
    if every.max() > high and len(curves[0]) >= 10:
        ax.set_ylim(low - 0.08 * (high - low), high)
        ax.set_title(f"cut above; the curve starts at {every.max():.4g}", fontsize="small", color=NEUTRAL)


@styled
def optimization(optimum: Optimum, *, label: str = "objective", ax=None):
    """The objective of the decoded conformation while z moves, for all starts; the data's extreme; the result.

    Args:
        optimum: of `polyvae.optimize`.
        label: of the objective, with its unit.
        ax: matplotlib axes to draw into; by default those of a new figure.

    Returns:
        The axes.
    """
    (ax,) = canvas(ax, 1, 1, (6.8, 3.8))
    n_steps, n_starts = optimum.path.shape
    lines = ax.plot(optimum.path, color=DATA, linewidth=1, alpha=max(0.35, min(0.8, 6 / n_starts)))
    lines[0].set_label(f"decoded conformation, {n_starts} start{'s' * (n_starts > 1)}")
    ax.axhline(optimum.extreme_value, color="#111827", linewidth=1.2, linestyle=(0, (5, 3)))
    ax.lines[-1].set_label(f"most extreme frame of the data, {digits(optimum.extreme_value)}")
    kind = "" if optimum.valid else ", outside the data's limits"
    ax.plot(
        [n_steps * 1.03],
        [optimum.value],
        "D",
        color=MODEL,
        markersize=7,
        markeredgecolor="white",
        clip_on=False,
        zorder=5,
        label=f"refined conformation, {digits(optimum.value)}{kind}",
    )
    ax.set(xlabel="step", ylabel=label, xlim=(0, n_steps * 1.06), title="Optimisation in latent space")
    ax.legend(loc="best")
    return ax

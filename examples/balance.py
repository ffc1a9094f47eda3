"""Reconstruction against KL: the 32 classes of `classes.py` at every beta, and the exact limits beside them.

python examples/balance.py [--quick] [--out FOLDER]

Of the KL at most all is information about the class, so that -E log p + KL >= H, the entropy of the data: no
model lies below that line, whose slope is -1. Minimising -E log p + beta KL therefore runs down the line for
beta < 1, and to KL = 0 for beta > 1, where the posterior has collapsed: q(z|x) is the prior for every x. At
beta = 1 all of the line would be as good, and Gaussian encoders come so close to its upper half that the bound
hardly decides. With one latent a beta above 1 has nothing to disentangle; what it costs shows all the same.
"""

import argparse
from pathlib import Path

import numpy as np
from classes import EPOCHS, checks, data_and_edges, draw_decoded, draw_encoder, entropy, fit, frequencies, tell
from matplotlib import rc_context
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy.optimize import minimize
from scipy.stats import norm

import polyvae as pv
from polyvae.plot.style import NEUTRAL, STYLE, VALUE

NAMED = {0.2: "rebalanced", 1.0: "the bound", 4.0: "disentangling"}
BETAS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0, 2.0, 4.0, 8.0)
SEEDS = 4


def best_gaussian_encoder(f: np.ndarray, beta: float, *, starts: int = 2) -> tuple[float, float]:
    """-E log p and KL at the best Gaussian encoder that is found, nats, without networks, draws or training.

    Each class has a mean and a standard deviation of its own, and the decoder is Bayes' rule, integrated on a
    grid. The order of the classes along z is a matter of the start, and the best of some starts is taken.

    Args:
        f: frequencies of the classes.
    """
    f = f[f > 0]
    z = np.linspace(-8, 8, 1601)

    def terms(point):
        mean, log_std = np.split(point, 2)
        u = (z - mean[:, None]) * np.exp(-log_std)[:, None]
        q = np.exp(-0.5 * u**2 - log_std[:, None]) * ((z[1] - z[0]) / np.sqrt(2 * np.pi))
        joint = f[:, None] * q
        surprise = np.log(joint.sum(axis=0) + 1e-300) - np.log(joint + 1e-300)
        variance = np.exp(2 * log_std)
        loss = np.sum(joint * surprise)
        kl = np.sum(f * (0.5 * (mean**2 + variance - 1) - log_std))
        # Bayes' rule is the best decoder of any encoder, so its own change does not count to first order.
        slope = (
            np.sum(joint * surprise * u, axis=1) * np.exp(-log_std),
            np.sum(joint * surprise * (u**2 - 1), axis=1),
        )
        return loss, kl, np.concatenate(slope), np.concatenate([f * mean, f * (variance - 1)])

    def objective(point):
        loss, kl, loss_slope, kl_slope = terms(point)
        return loss + beta * kl, loss_slope + beta * kl_slope

    best = None
    for seed in range(starts):
        order = np.random.default_rng(seed).permutation(len(f))
        middle = np.empty(len(f))
        middle[order] = f[order].cumsum() - f[order] / 2
        start = np.concatenate([norm.ppf(middle), np.full(len(f), np.log(0.15))])
        found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 300})
        best = found if best is None or found.fun < best.fun else best
    loss, kl, _, _ = terms(best.x)
    return float(loss), float(kl)


def sweep(x: np.ndarray, betas, *, seeds: int, epochs: int) -> tuple[list[dict], dict[float, pv.FittedVAE]]:
    """One row of numbers for each beta and seed; and the first model of each beta."""
    rows, models = [], {}
    for beta in betas:
        for seed in range(seeds):
            model = fit(x, beta, seed=seed, epochs=epochs)
            models.setdefault(beta, model)
            rows.append({"beta": beta, "seed": seed} | pv.check_vae(model, x, n_draws=64))
    return rows, models


def draw_curve(ax, rows: list[dict], limits: dict[float, tuple[float, float]], h: float) -> None:
    kl, loss, betas = (np.array([row[name] for row in rows]) for name in ("kl", "reconstruction", "beta"))
    dots = {
        "c": betas,
        "norm": LogNorm(0.05, 8),
        "cmap": VALUE,
        "linewidths": 0.4,
        "edgecolors": "white",
        "zorder": 3,
    }
    ax.fill_between([0, h], [h, 0], color=NEUTRAL, alpha=0.13, linewidth=0)
    ax.plot([0, h], [h, 0], color=NEUTRAL, linewidth=1)
    ax.text(0.12, 0.12, f"no model lies here:\n−E log p + KL ≥ H = {h:.3f} nats", color=NEUTRAL)
    shown = ax.scatter(kl, loss, s=30, **dots)
    ax.figure.colorbar(shown, ax=ax, label="beta", ticks=[0.05, 0.2, 1, 4], format="%g", shrink=0.8, pad=0.02)
    places = {0.2: (30, 42), 1.0: (34, -12), 4.0: (34, 6)}
    for beta, name in NAMED.items():
        here = betas == beta
        arrow = {"arrowstyle": "-", "color": "#1f2937", "linewidth": 0.8, "shrinkB": 3}
        point = kl[here].mean(), loss[here].mean()
        text = f"beta {beta:g}, {name}"
        ax.annotate(text, point, places[beta], textcoords="offset points", va="center", arrowprops=arrow)
    ax.set(xlabel="KL(q(z|x) ‖ prior) (nats per frame)", ylabel="reconstruction, −E log p(x|z) (nats per frame)")
    ax.set(xlim=(-0.08, 4.0), ylim=(-0.08, 1.06 * h))

    above = ax.inset_axes([0.56, 0.53, 0.43, 0.4])
    above.scatter(betas, loss + kl - h, s=14, **dots)
    if limits:
        best = np.array([(beta, sum(limits[beta]) - h) for beta in sorted(limits)])
        above.plot(*best.T, color="#111827", linewidth=1, zorder=2)
        above.text(0.36, 0.72, "line: best encoder found\nwithout networks", transform=above.transAxes, fontsize=8)
    above.set_xscale("log")
    above.set_xticks([0.05, 0.2, 1, 4], ["0.05", "0.2", "1", "4"])
    above.set(ylim=(-0.03, None))
    above.set_xlabel("beta", labelpad=1)
    above.set_title("distance from the line (nats)", fontsize=9)
    above.minorticks_off()


def draw(x, rows, models, limits) -> Figure:
    figure = Figure(figsize=(13.4, 5.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.1])
    ax = left.subplots()
    draw_curve(ax, rows, limits, entropy(x))
    ax.set_title("Reconstruction against KL, a dot for each training run")
    axes = right.subplots(2, len(NAMED))
    for (top, bottom), beta in zip(axes.T, NAMED, strict=True):
        image = draw_decoded(top, models[beta])
        draw_encoder(bottom, models[beta], x)
        top.set_title(f"beta {beta:g}, {NAMED[beta]}")
        if top is not axes[0, 0]:
            top.set_ylabel("")
            bottom.set_ylabel("")
    axes[1, 1].legend(loc="upper left", fontsize=8)
    ticks = [0, 0.05, 0.2, 0.5, 1]
    right.colorbar(image, ax=list(axes[0]), label="probability", ticks=ticks, shrink=0.75, pad=0.02)
    return figure


def main(argv=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the three named betas only, trained briefly")
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="for the figure")
    args = parser.parse_args(argv)

    x, edges = data_and_edges()
    h = entropy(x)
    betas, seeds, epochs = (tuple(NAMED), 1, 200) if args.quick else (BETAS, SEEDS, EPOCHS)
    rows, models = sweep(x, betas, seeds=seeds, epochs=epochs)
    limits = {b: best_gaussian_encoder(frequencies(x), b) for b in betas if b < 1 and not args.quick}
    if limits:
        limits[1.0] = (h, 0.0)

    print(f"entropy H = {h:.4f} nats; means over {seeds} seeds, ± their standard deviation")
    print("  beta   -E log p          KL       above H      best encoder found: -E log p, KL, above H")
    for beta in betas:
        here = [row for row in rows if row["beta"] == beta]
        loss, kl = (np.array([row[name] for row in here]) for name in ("reconstruction", "kl"))
        text = f"  {beta:4g}  {loss.mean():.3f} ±{loss.std():.3f}  {kl.mean():.3f} ±{kl.std():.3f}  "
        text += f"{(loss + kl - h).mean():+.4f}"
        if beta in limits:
            text += "      {:.3f}, {:.3f}, {:+.4f}".format(*limits[beta], sum(limits[beta]) - h)
        print(text)
    result = {"entropy": h, "rows": rows, "limits": limits, "named": {}}
    for beta, name in NAMED.items():
        result["named"][beta] = checks(models[beta], x, edges)
        print(f"beta {beta:g}, {name}, seed 0")
        tell(result["named"][beta])
    print("above beta = 1 the posterior has collapsed: q(z|x) is the prior for every x, and nothing comes back")

    args.out.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        draw(x, rows, models, limits).savefig(args.out / "balance.png", dpi=110)
    print(args.out / "balance.png")
    return result


if __name__ == "__main__":
    main()

"""A bead-spring chain: its latent trajectory, new conformations, and its most compact structure.

python examples/polymer.py [TRAJECTORY] [--dense FILE] [--heldout FILE] [--quick] [--out FOLDER]

Without a file the chain is that of data/: 4,000 frames far apart to train on, an independent run to test on, and
a run of frames close in time for the latent trajectory. Superposed on their mean structure (`pv.Reference`) none
of them jumps, as some do where two extents of the chain are equal and its principal axes change places.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.stats import wasserstein_distance

import polyvae as pv
from polyvae import plot
from polyvae.plot.style import DATA, MODEL, NEUTRAL, STYLE, TIME_SYMBOLS, UNIT_SYMBOLS

FOLDER = Path(__file__).resolve().parent.parent / "data"
PARTNERS = (1, 3, 5, 7)


def distances(positions: np.ndarray) -> dict[str, np.ndarray]:
    """Distances from bead 0 to beads 1, 3, 5 and 7."""
    return {
        f"0-{j}": np.linalg.norm(positions[:, j] - positions[:, 0], axis=1)
        for j in PARTNERS
        if j < positions.shape[1]
    }


def compare(generated: np.ndarray, data: np.ndarray) -> dict[str, dict[str, float]]:
    """Wasserstein-1 distance for each pair of beads, and that between two random halves of the data."""
    order = np.random.default_rng(0).permutation(len(data))
    first, second = (distances(data[half]) for half in np.array_split(order, 2))
    new, old = distances(generated), distances(data)
    return {
        pair: {
            "distance": float(wasserstein_distance(new[pair], old[pair])),
            "noise_floor": float(wasserstein_distance(first[pair], second[pair])),
        }
        for pair in old
    }


def gyration(traj: pv.Trajectory) -> np.ndarray:
    return np.asarray(jax.vmap(pv.radius_of_gyration)(traj.positions))


def latent_figure(z, z_dense, rg_dense, dense: pv.Trajectory) -> Figure:
    """The way of the dense run over the frames of the data, and its latents and Rg against time."""
    time = np.arange(len(dense)) if dense.time is None else dense.time
    clock = "frame" if dense.time is None else f"time ({TIME_SYMBOLS[dense.length_unit]})"
    figure = Figure(figsize=(12.6, 5.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.1])
    ax = left.subplots()
    plot.latent_trajectory(z_dense, time=dense.time, segments=dense.segments, length_unit=dense.length_unit, ax=ax)
    if z.shape[1] == 2:
        ax.scatter(*z.T, s=2, color=NEUTRAL, alpha=0.35, linewidths=0, zorder=0)
    rows = right.subplots(z.shape[1] + 1, 1, sharex=True)
    unit = UNIT_SYMBOLS[dense.length_unit]
    for k, ax in enumerate(rows[:-1]):
        ax.plot(time, z_dense[:, k], color=DATA, linewidth=0.9)
        ax.set_ylabel(f"z{k}")
    rows[-1].plot(time, rg_dense, color=MODEL, linewidth=0.9)
    rows[-1].set(ylabel=f"Rg ({unit})", xlabel=clock, xlim=(time[0], time[-1]))
    rows[0].set_title("The same run against time, with its radius of gyration")
    return figure


def distances_figure(data: np.ndarray, models: dict[int, dict], length_unit: str) -> Figure:
    ensembles = {"data": data} | {f"{k} latents": m["generated"].positions for k, m in models.items()}
    axes = plot.marginals(ensembles, length_unit=length_unit)
    for ax, pair in zip(axes, distances(data), strict=True):
        apart = ", ".join(f"{m['distances'][pair]['distance']:.3f}" for m in models.values())
        floor = next(iter(models.values()))["distances"][pair]["noise_floor"]
        ax.set_title(f"{pair}: W₁ {apart} {UNIT_SYMBOLS[length_unit]}; two halves {floor:.3f}", fontsize=9)
    return axes[0].figure


def tell(model: dict, unit: str) -> None:
    for part, s in model["score"]["frames"].items():
        print(
            f"  {part}: log p {-s['reconstruction']:.2f}, KL {s['kl']:.2f}, ELBO {s['elbo']:.2f} nats; "
            f"squared error {s['squared_error']:.3f} {unit}² (FVE {s['fve']:.3f}, RMSD {s['rmsd']:.3f} {unit})"
        )
    s = model["score"]["frames"]["all"]
    names = ("latent_mean", "aggregated_std", "kl_per_latent")
    listed = {name: ", ".join(f"{v:.2f}" for v in s[name]) for name in names}
    print(
        f"  encoder: mean {listed['latent_mean']}; aggregated std {listed['aggregated_std']}; "
        f"mean std {', '.join(f'{v:.3f}' for v in model['mean_std'])}; KL per latent {listed['kl_per_latent']}"
    )
    for pair, d in model["distances"].items():
        print(f"  generated {pair}: W1 {d['distance']:.3f} {unit}, two halves of the data {d['noise_floor']:.3f}")


def main(argv=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trajectory", nargs="?", type=Path, help="to train on; data/chain2d.npz by default")
    parser.add_argument("--dense", type=Path, help="frames close in time; by default those that were trained on")
    parser.add_argument("--heldout", type=Path, help="an independent run to test on")
    parser.add_argument(
        "--quick", action="store_true", help="a quarter of the frames, trained on briefly; two latents only"
    )
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="for the figures")
    args = parser.parse_args(argv)
    if args.trajectory is None:
        args.trajectory = FOLDER / "chain2d.npz"
        args.dense = args.dense or FOLDER / "chain2d_dense.npz"
        args.heldout = args.heldout or (None if args.quick else FOLDER / "chain2d_heldout.npz")

    traj = pv.read(args.trajectory)
    dense = traj if args.dense is None else pv.read(args.dense)
    if args.quick:
        traj = traj[::4]
    unit = UNIT_SYMBOLS[traj.length_unit]
    result, models = {}, {}
    for latent_dim in (2,) if args.quick else (2, 8):
        options = {"featurizer": pv.Reference(), "latent_dim": latent_dim, "seed": 0}
        if args.quick:
            options |= {"epochs": 5, "encoder": (16,), "decoder": (32,)}
        cv = pv.fit(traj, **options)
        brief = {"steps": 200, "width": 32, "depth": 2} if args.quick else {}
        cv = pv.fit_generator(cv, traj, seed=0, **brief)
        generated = pv.sample(cv, len(traj), seed=1)
        score = pv.score(cv, traj, generated=generated, alternatives=False)
        if args.heldout is not None:
            heldout = pv.score(cv, pv.read(args.heldout), alternatives=False)
            score["frames"]["held-out run"] = heldout["frames"]["all"]
        mean_std = cv.transform_posterior(traj)[1].mean(axis=0).tolist()
        apart = compare(generated.positions, traj.positions)
        models[latent_dim] = {"cv": cv, "generated": generated, "distances": apart}
        result[latent_dim] = {"score": score, "distances": apart, "mean_std": mean_std}
        print(f"{latent_dim} latents, {cv}")
        # Mean and std alone, averaged over frames, cannot tell: a latent that says much has a small std.
        tell(result[latent_dim], unit)

    cv = models[2]["cv"]
    z, z_dense, rg_dense = cv.transform(traj), cv.transform(dense), gyration(dense)
    steps = np.linalg.norm(np.diff(z_dense, axis=0), axis=1)
    jumps = pv.score(cv, dense, alternatives=False).alignment.n_jumps
    result["trajectory"] = {
        "median_step": float(np.median(steps)),
        "largest_step": float(steps.max()),
        "jumps": jumps,
    }
    print(
        f"latent trajectory: {len(dense)} frames, step {np.median(steps):.3f} in the median, {steps.max():.2f} at "
        f"most, {jumps} jumps of the alignment"
    )
    brief = {"n_starts": 2, "steps": 50, "refine_steps": 200} if args.quick else {}
    best = pv.optimize(cv, start=traj, **brief)
    result["optimized"] = best.summary()
    print(f"optimised: Rg {best.value:.3f} {unit}, most compact frame {best.extreme_value:.3f}: {best.message}")

    args.out.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        figures = {
            "latent": latent_figure(z, z_dense, rg_dense, dense),
            "generated": plot.side_by_side(
                cv.align(traj), models[2]["generated"].positions, length_unit=traj.length_unit, max_frames=200
            )[0].figure,
            "distances": distances_figure(traj.positions, models, traj.length_unit),
            "optimized": plot.optimum_structures(best)[0].figure,
        }
        for name, figure in figures.items():
            figure.savefig(args.out / f"polymer_{name}.png", dpi=90)
            print(args.out / f"polymer_{name}.png")
    return result


if __name__ == "__main__":
    main()

"""The free energy over Rg of a chain in its globule, from metadynamics on a latent CV inside LAMMPS.

    python tests/benchmarks/bench_free_energy.py [--quick] [--seeds 3] [--lag 20] [--steps 2000000] [--out FOLDER]
    python tests/benchmarks/bench_free_energy.py --reference  # the long unbiased runs once more: an hour, one core

At a Lennard-Jones depth of 3 kT the 12-bead chain of data/ stays in its globule. For each seed a CV is trained
on a short unbiased run, exported to Colvars with the metadynamics block that the export proposes, and biased in
LAMMPS. Every frame then counts exp(V(z) / kT), V the bias at the end (Branduardi, Bussi & Parrinello,
10.1021/ct3002464; well-tempered metadynamics: Barducci, Bussi & Parrinello, 10.1103/PhysRevLett.100.020603).
The free energy over Rg is held against that of eight unbiased runs of 10^8 steps (data/globule_rg.csv), and the
steps that it takes to come within 1 kT against those of unbiased runs from starts of their own.
"""

import argparse
import contextlib
import dataclasses
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

import polyvae as pv
from polyvae.export import write
from polyvae.plot.style import DATA, MODEL, NEUTRAL, STYLE

FOLDER = Path(__file__).resolve().parents[2] / "data"
sys.path.append(str(FOLDER))
import simulate  # noqa: E402

GLOBULE = dataclasses.replace(simulate.FLAT, epsilon=3.0, equilibration=100_000)
EDGES = np.arange(25, 71) / 20  # of the bins of Rg, sigma
TRAINING, STRIDE = 500, 100  # steps between frames to train on, and between all others
LIMITS = (6, 9)  # kT above the minimum, up to where two free energies are compared
HILL, BIAS_TEMPERATURE = 0.2, 4.0  # kT: lower hills and a lower bias than the exported block has by default


def rg_of(positions: np.ndarray) -> np.ndarray:
    """Radii of gyration (n_frames,) of positions about their centre of mass."""
    return np.sqrt((positions**2).sum(axis=2).mean(axis=1))


def free_energy(rg: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """-log of the histogram over `EDGES`, its smallest value 0; infinite where there are no frames. kT."""
    return of_counts(np.histogram(rg, EDGES, weights=weights)[0])


def of_counts(counts: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        energy = -np.log(counts)
    return energy - energy.min()


def apart(energy: np.ndarray, reference: np.ndarray, limit: float) -> float:
    """Root mean square difference over the bins where the reference is below the limit, in kT.

    Each is known up to a constant, so their mean difference is taken off; infinite while a bin is empty.
    """
    here = reference < limit
    if not np.isfinite(energy[here]).all():
        return np.inf
    return float(np.std(energy[here] - reference[here]))


def reference() -> tuple[np.ndarray, np.ndarray]:
    """Free energy (n_bins,) of the long unbiased runs together, and of each (n_runs, n_bins)."""
    counts = np.loadtxt(FOLDER / "globule_rg.csv", delimiter=",", skiprows=1)[:, 2:].T
    return of_counts(counts.sum(axis=0)), np.array([of_counts(run) for run in counts])


def write_reference(runs: int = 8, steps: int = 10**8) -> None:
    counts = []
    for seed in range(11, 11 + runs):
        data = simulate.DataSet(
            dataclasses.replace(GLOBULE, equilibration=10**6), seed, steps // TRAINING, TRAINING, ()
        )
        counts.append(np.histogram(rg_of(simulate.simulate(data, f"reference, seed {seed}")), EDGES)[0])
    table = np.column_stack([EDGES[:-1], EDGES[1:], np.transpose(counts)])
    names = ["rg_from", "rg_to", *(f"run{k}" for k in range(runs))]
    np.savetxt(FOLDER / "globule_rg.csv", table, "%.10g", ",", header=",".join(names), comments="")


def unbiased(seed: int, steps: int, stride: int) -> np.ndarray:
    """Positions (n_frames, n_beads, 2) of a run without bias."""
    return simulate.simulate(
        simulate.DataSet(GLOBULE, seed, steps // stride, stride, ()), f"unbiased, seed {seed}"
    )[..., :2]


def biased(cv: pv.LatentCV, trained_on: pv.Trajectory, seed: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n_frames, n_beads, 2) of a run with metadynamics on the latents, and its hills.

    The export's own block serves, with the signs taken away that make it a comment, and its two energies set. A
    hill is a row: step, centre and sigma of each latent, height in kT.
    """
    frames = np.empty((steps // STRIDE, GLOBULE.beads, 2), np.float32)
    with tempfile.TemporaryDirectory() as place:
        there = Path(place, "colvars")
        write(cv, "colvars", there, data=trained_on)
        text, block = (there / "colvars.in").read_text().split("# metadynamics {")
        block = block.replace("#", "").replace("wellTempered on", "wellTempered on\nwriteHillsTrajectory on")
        block = re.sub("(hillWeight) .*", rf"\1 {HILL}", block)
        block = re.sub("(biasTemperature) .*", rf"\1 {BIAS_TEMPERATURE}", block)
        (there / "colvars.in").write_text(f"{text}metadynamics {{{block}")
        with contextlib.chdir(there), simulate.started(GLOBULE, seed) as engine:
            engine.commands_list(
                # `enforce2d` must come last of all fixes
                ["unfix flat", "fix latent all colvars colvars.in output run", "fix flat all enforce2d", "run 0"]
            )
            for k in range(len(frames)):
                engine.command(f"run {STRIDE} pre no post no")
                frames[k] = simulate.positions_of(engine, GLOBULE)[:, :2]
        return frames, np.loadtxt(there / "run.colvars.metadynamics1.hills.traj", ndmin=2)


def bias(z: np.ndarray, hills: np.ndarray) -> np.ndarray:
    """Bias (n_frames,) in kT, the sum of all hills at the latents z (n_frames, n_latents)."""
    n = z.shape[1]
    total = np.zeros(len(z))
    for hill in hills:
        total += hill[-1] * np.exp(-0.5 * (((z - hill[1 : n + 1]) / hill[n + 1 : 2 * n + 1]) ** 2).sum(axis=1))
    return total


def course(rg: np.ndarray, at: np.ndarray, z: np.ndarray | None = None, hills: np.ndarray | None = None):
    """Free energies (n_times, n_bins) from the first `at` steps of a run; of a biased one all but the first fifth,
    while the bias still grows fast, reweighted with the bias at that time."""
    found, v, done = [], np.zeros(len(rg)), 0
    for steps in at:
        n = steps // STRIDE
        if hills is None:
            found.append(free_energy(rg[:n]))
            continue
        now = int(np.searchsorted(hills[:, 0], steps))
        v += bias(z, hills[done:now])
        done = now
        part = slice(n // 5, n)
        found.append(free_energy(rg[part], np.exp(v[part] - v[part].max())))
    return np.array(found)


def steps_until(differences: np.ndarray, at: np.ndarray, limit: float = 1.0) -> float:
    """The first of the times `at` from which on all differences are below the limit; infinite if there is none."""
    outside = np.flatnonzero(differences >= limit)
    first = 0 if not len(outside) else outside[-1] + 1
    return float(at[first]) if first < len(at) else np.inf


def one_seed(
    seed: int, steps: int, unbiased_steps: int, training_steps: int, lag: int, epochs: int | None
) -> dict:
    """Train, export, bias, reweight; and an unbiased run from a start of its own."""
    target, _ = reference()
    positions = unbiased(100 + seed, training_steps, TRAINING)
    traj = pv.Trajectory(positions, length_unit="sigma")
    cv = pv.fit(traj, featurizer=pv.PairDistances(every=2), encoder=(16, 16), lag=lag, epochs=epochs, seed=seed)
    frames, hills = biased(cv, traj, 200 + seed, steps)
    free = unbiased(300 + seed, unbiased_steps, STRIDE)
    z = cv.transform(frames)
    found = {"z": z, "z_training": cv.transform(traj), "hills": hills, "rg": rg_of(frames), "rg_free": rg_of(free)}
    for name, n, run in (
        ("biased", steps, (found["rg"], z, hills)),
        ("unbiased", unbiased_steps, (found["rg_free"],)),
    ):
        at = np.unique((np.geomspace(0.01 * steps, n, 60) / STRIDE).astype(int)) * STRIDE
        energies = course(run[0], at, *run[1:])
        differences = {limit: np.array([apart(e, target, limit) for e in energies]) for limit in LIMITS}
        found[name] = {
            "at": at,
            "energy": energies[-1],
            "differences": differences,
            "difference": {limit: float(d[-1]) for limit, d in differences.items()},
            "steps": {limit: steps_until(d, at) for limit, d in differences.items()},
        }
    found["uncorrected"] = apart(free_energy(found["rg"]), target, LIMITS[0])
    found["same_steps"] = free_energy(found["rg_free"][: steps // STRIDE])
    return found


def figure_of(runs: list[dict]) -> Figure:
    """Free energies; how fast they come; what the bias does to Rg; and the latent plane."""
    target, each = reference()
    middle = (EDGES[1:] + EDGES[:-1]) / 2
    figure = Figure(figsize=(11.5, 8.4), layout="constrained")
    ax, speed, series, plane = figure.subplots(2, 2).ravel()

    known = np.isfinite(each).all(axis=0)
    error = each[:, known].std(axis=0) / np.sqrt(len(each))
    ax.fill_between(middle[known], target[known] - 2 * error, target[known] + 2 * error, color="0.75", lw=0)
    ax.plot(middle, target, color="black", lw=1.6, label="reference: 8 unbiased runs, 10⁸ steps each")
    n = runs[0]["biased"]["at"][-1]
    for k, run in enumerate(runs):
        for energy, color, style, label in (
            (run["biased"]["energy"], MODEL, "-", "on the latent CV"),
            (run["same_steps"], DATA, "--", "unbiased"),
        ):
            here = np.isfinite(energy) & (target < LIMITS[0])
            shifted = energy - np.mean(energy[here] - target[here])
            ax.plot(middle, shifted, color=color, ls=style, lw=1, label=None if k else f"{label}, {n:,} steps")
    ax.axhline(LIMITS[0], color=NEUTRAL, lw=0.8, ls=":")
    ax.set(xlabel="radius of gyration (σ)", ylabel="free energy (kT)", ylim=(-0.4, 14.5), xlim=(1.25, 3.0))
    ax.set_title("Free energy of the globule")
    ax.legend(loc="upper left", bbox_to_anchor=(0.06, 1.0))

    for run in runs:
        for name, color in (("unbiased", DATA), ("biased", MODEL)):
            for limit, style in zip(LIMITS, ("-", ":"), strict=True):
                speed.plot(run[name]["at"], run[name]["differences"][limit], color=color, lw=1.1, ls=style)
    for name, color, style in (
        ("on the latent CV", MODEL, "-"),
        ("unbiased", DATA, "-"),
        (f"below {LIMITS[0]} kT", "black", "-"),
        (f"below {LIMITS[1]} kT", "black", ":"),
    ):
        speed.plot([], [], color=color, ls=style, label=name)
    speed.axhline(1, color=NEUTRAL, lw=0.8, ls=":")
    speed.set(xscale="log", yscale="log", xlabel="steps", ylabel="rms difference from the reference (kT)")
    speed.set(xlim=(0.025 * n, runs[0]["unbiased"]["at"][-1]), ylim=(0.07, 4))
    speed.set_title("How fast it comes: no point before every bin has been visited")
    speed.legend()

    run = runs[0]
    for rg, color, label in ((run["rg_free"], DATA, "unbiased"), (run["rg"], MODEL, "on the latent CV")):
        shown = rg[: len(run["rg"])][:: max(1, len(run["rg"]) // 4000)]
        series.plot(np.linspace(0, n / 1e6, len(shown)), shown, color=color, lw=0.5, label=label)
    series.set(xlabel="steps (10⁶)", ylabel="radius of gyration (σ)", xlim=(0, n / 1e6))
    series.set_title("Rg against time, first seed")
    series.set_ylim(top=run["rg"].max() + 0.25)
    series.legend(loc="upper right", ncols=2)
    for line in series.get_legend().get_lines():
        line.set_linewidth(2)

    z, v = run["z"], bias(run["z"], run["hills"])
    scale = (1 + BIAS_TEMPERATURE) / BIAS_TEMPERATURE
    order = np.random.default_rng(0).permutation(len(z))[:6000]
    shown = plane.scatter(*z[order].T, c=scale * (v.max() - v[order]), s=4, cmap="viridis", lw=0, rasterized=True)
    plane.scatter(
        *run["z_training"][::4].T, s=3, color="white", lw=0.25, edgecolors="black", label="training frames"
    )
    figure.colorbar(shown, ax=plane, label="free energy over the latents (kT)")
    plane.set(xlabel="z0", ylabel="z1")
    plane.set_title("Latent plane of the biased run, first seed")
    plane.set_ylim(top=z[:, 1].max() + 0.15 * np.ptp(z[:, 1]))
    plane.legend(loc="upper left", markerscale=3)
    return figure


def tell(runs: list[dict], training_steps: int) -> dict:
    """The figures in words; the ratios of steps with their spread.

    Where the unbiased run ended before it was there, its length counts, and the ratio is a lower bound.
    """
    result = {"uncorrected": [run["uncorrected"] for run in runs]}
    listed = ", ".join(f"{value:.2f}" for value in result["uncorrected"])
    print(f"the biased runs, not reweighted: rms difference {listed} kT below {LIMITS[0]} kT")
    for limit in LIMITS:
        print(f"below {limit} kT:")
        steps = {}
        for name in ("biased", "unbiased"):
            length = runs[0][name]["at"][-1]
            found = ", ".join(f"{run[name]['difference'][limit]:.2f}" for run in runs)
            steps[name] = np.array([run[name]["steps"][limit] for run in runs])
            needed = ", ".join(f"{s:,.0f}" if s < np.inf else "not reached" for s in steps[name])
            print(f"  {name}, {length:,} steps: rms difference {found} kT; within 1 kT from step {needed}")
        ended = runs[0]["unbiased"]["at"][-1]
        result[limit] = {"steps": steps, "difference": [run["biased"]["difference"][limit] for run in runs]}
        for what, more in (("ratio", 0), ("ratio_with_training", training_steps)):
            ratio = np.minimum(steps["unbiased"], ended) / (steps["biased"] + more)
            result[limit][what] = ratio
            listed = ", ".join(
                "none" if not r else f"{'>' if s == np.inf else ''}{r:.1f}"
                for r, s in zip(ratio, steps["unbiased"], strict=True)
            )
            words = ", the steps to train on counted" if more else ""
            median = f"{np.median(ratio):.1f}" if np.median(ratio) else "none"
            print(f"  unbiased / biased steps{words}: {listed}; median {median}")
    return result


def main(argv=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lag", type=int, default=20, help="of the CV, in frames of 500 steps")
    parser.add_argument("--steps", type=int, default=2_000_000, help="with the bias")
    parser.add_argument("--unbiased", type=int, default=10_000_000, help="steps of the run to compare with")
    parser.add_argument("--training", type=int, default=1_000_000, help="unbiased steps to train on")
    parser.add_argument("--quick", action="store_true", help="one seed, a quarter of the steps")
    parser.add_argument("--reference", action="store_true", help="make data/globule_rg.csv anew")
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="for the figure")
    args = parser.parse_args(argv)
    if args.reference:
        write_reference()
    epochs = None
    if args.quick:
        args.seeds, args.steps, args.unbiased, epochs = 1, args.steps // 4, args.unbiased // 10, 50
    runs = [
        one_seed(seed, args.steps, args.unbiased, args.training, args.lag, epochs) for seed in range(args.seeds)
    ]
    result = tell(runs, args.training)
    args.out.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        figure_of(runs).savefig(args.out / "free_energy.png", dpi=90)
    print(args.out / "free_energy.png")
    return result


if __name__ == "__main__":
    main()

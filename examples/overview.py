"""From a trajectory to latent coordinates and a compact structure, with the picture of the README.

python examples/overview.py [--quick] [--out FOLDER]
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

import polyvae as pv
from polyvae import plot

DATA = Path(__file__).resolve().parent.parent / "data" / "chain2d.npz"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="train for a few epochs only")
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="for the picture")
    args = parser.parse_args(argv)

    traj = pv.read(DATA)
    cv = pv.fit(traj, epochs=5 if args.quick else None)
    z = cv.transform(traj)
    rg = np.asarray(jax.vmap(pv.radius_of_gyration)(traj.positions))
    best = pv.optimize(cv, start=traj, n_starts=4 if args.quick else 32)
    print(f"Rg {best.value:.3f} sigma, most compact frame {best.extreme_value:.3f}: {best.message}")

    figure = Figure(figsize=(13, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.5, 1, 1])
    plot.overlay(cv.align(traj), ax=left)
    plot.latent_values(z, rg, label="radius of gyration Rg (σ)", ax=middle)
    plot.structure(best.structure.positions[0], title=f"Optimised: Rg {best.value:.2f} σ", ax=right)
    args.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out / "overview.png", dpi=110)
    print(args.out / "overview.png")


if __name__ == "__main__":
    main()

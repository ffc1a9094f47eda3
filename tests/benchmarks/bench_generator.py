"""What a generator costs, and how near its draws come to the data: the settings of today and those before.

    python tests/benchmarks/bench_generator.py SYSTEMS [NAME...]

SYSTEMS is the folder that `systems.py` wrote; chain2d is that of `data/`. A row a system and setting: seconds of
this process (of all its cores, compilation included) in training and in 4,000 draws, and the distances of as many
draws as frames to the data, in noise floors as in scores.json. The Rg of today's draws is fitted to the data, so
that there the distances of all pairs are the independent judge.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import polyvae as pv

DATA = Path(__file__).parents[2] / "data"
NAMES = ("chain2d", "globule", "ring", "stiff40", "melt", "alanine")
MEASURES = ("bond", "angle", "rg", "end_to_end", "pairs")
BEFORE = {"steps": 5000, "width": 256, "learning_rate": 2e-3}
MAX_FRAMES = 10_000


def read(systems: Path, name: str) -> pv.Trajectory:
    traj = pv.read(DATA / "chain2d.npz" if name == "chain2d" else systems / f"{name}.npz")
    return traj[:: -(-len(traj) // MAX_FRAMES)]


def without_size(cv: pv.LatentCV) -> pv.LatentCV:
    """The model that settles bonds and angles alone."""
    tables = {name: getattr(cv.generator, name)[:-1] for name in ("drawn", "real")}
    return dataclasses.replace(cv, generator=dataclasses.replace(cv.generator, **tables))


def clocked(function) -> tuple[float, object]:
    began = time.process_time()
    result = function()
    return time.process_time() - began, result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("systems", type=Path)
    parser.add_argument("names", nargs="*", default=NAMES)
    args = parser.parse_args()
    print(f"{'system':9s}{'settings':9s}{'train s':>8s}{'draw s':>8s}" + "".join(f"{m:>12s}" for m in MEASURES))
    for name in args.names:
        traj = read(args.systems, name)
        cv = pv.fit(traj, seed=0)
        for label, options in (("before", BEFORE), ("today", {})):
            training, model = clocked(
                lambda cv=cv, traj=traj, options=options: pv.fit_generator(cv, traj, **options)
            )
            model = without_size(model) if label == "before" else model
            drawing, _ = clocked(lambda model=model: pv.sample(model, 4000))
            apart = pv.score(model, traj, generated=pv.sample(model, len(traj)), alternatives=False).generated
            floors = [getattr(apart, m) / getattr(apart.noise_floor, m) for m in MEASURES]
            row = f"{name:9s}{label:9s}{training:8.1f}{drawing:8.1f}"
            print(row + "".join(f"{value:12.2f}" for value in floors), flush=True)


if __name__ == "__main__":
    main()

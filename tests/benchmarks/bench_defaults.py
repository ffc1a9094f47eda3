"""What a first user gets: `polyvae run` with no option but files, over the systems of `systems.py` and of `data/`.

    python tests/benchmarks/bench_defaults.py SYSTEMS OUT [CHECKOUT] [NAME...]

SYSTEMS is the folder that `systems.py` wrote; results go to OUT/NAME. With another CHECKOUT of this repository the
same is done with its code (a "." is this one). Prints a row a system: alignment, lag, jumps and VAMP-2 of an
independent run held out (at the lag chosen, or 1), seconds of the whole command, generated ensembles in noise
floors (bond, angle, Rg, end-to-end, pairs), and the verdict.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import polyvae as pv
from polyvae.features import continuity
from polyvae.measures import kinetics

ROOT = Path(__file__).parents[2]
DATA = ROOT / "data"
LAGS = {"globule": 30, "stiff40": 30, "melt": 30, "alanine": 20}  # frames, of VAMP-2, for all versions alike
OWN = {
    "chain2d": ([DATA / "chain2d.npz"], {}, DATA / "chain2d_heldout.npz"),
    "chain3d": (
        [DATA / "chain3d.dcd", "--top", DATA / "chain3d.pdb", "--unit", "sigma"],
        {"topology": DATA / "chain3d.pdb", "length_unit": "sigma"},
        DATA / "chain3d_heldout.dcd",
    ),
}
NAMES = ("chain2d", "chain3d", "globule", "ring", "stiff40", "melt", "alanine")


def main(systems: str, out: str, checkout: str = ".", *names: str) -> None:
    where = ROOT if checkout == "." else Path(checkout)
    print(
        f"{'':8s} {'alignment':14s} {'lag':>4s} {'jumps':>6s} {'VAMP-2':>7s} {'s':>4s}  bond angle Rg ends pairs"
    )
    for name in names or NAMES:
        files, reading, heldout = OWN.get(name) or (
            [Path(systems) / f"{name}.npz"],
            {},
            Path(systems) / f"{name}_heldout.npz",
        )
        folder = Path(out) / name
        words = [sys.executable, "-m", "polyvae", "run", *map(str, files), "--out", str(folder), "--force"]
        began = time.perf_counter()
        environment = os.environ | {"PYTHONPATH": str(where)}
        done = subprocess.run(words, cwd=where, env=environment, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        if done.returncode:
            print(f"{name:8s} {done.stderr.splitlines()[-1]}")
            continue
        scores = json.loads((folder / "scores.json").read_text())
        cv, run = pv.load(folder / "model.safetensors"), pv.read(heldout, **reading)
        settings, apart = scores["model"]["settings"], scores["generated"]
        vamp = kinetics.vamp2(cv.transform(run), LAGS.get(name, 1), run.segments)
        floors = " ".join(
            f"{apart[key] / apart['noise_floor'][key]:5.1f}"
            for key in ("bond", "angle", "rg", "end_to_end", "pairs")
        )
        n_jumps = continuity.jumps(run, cv.featurizer).count
        row = (
            f"{name:8s} {settings['featurizer']:14s} {settings['lag']:4d} {n_jumps:6d} {vamp:7.3f} {seconds:4.0f}"
        )
        print(f"{row} {floors}  {(scores.get('verdict') or ['-'])[0]}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

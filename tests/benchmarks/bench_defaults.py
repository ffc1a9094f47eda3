"""What a first user gets: `polyvae run` with no option but files, over the systems of `systems.py` and of `data/`.

    python tests/benchmarks/bench_defaults.py SYSTEMS OUT [CHECKOUT] [NAME...]

SYSTEMS is the folder that `systems.py` wrote; results go to OUT/NAME. With another CHECKOUT of this repository the
same is done with its code (a "." is this one, "-" measures what OUT holds already). Prints a row a system:
alignment, lag, jumps and VAMP-2 of an independent run held out (at `LAGS`, or 1), seconds of the whole command,
generated ensembles in noise floors of today (bond, angle, Rg, end-to-end, pairs), and the verdict. The system adk,
98 frames of adenylate kinase, needs `pip install MDAnalysisTests`, and has no run held out.

One run of it on 2 cores, seconds of chain2d alone, else beside other work; below it the code of commit 459367f:

             alignment       lag  jumps  VAMP-2    s  bond angle Rg ends pairs
    chain2d  Reference         0      1   1.251   71   0.8   0.9   0.3   0.5   0.6  fair
             PrincipalAxes     0    208   1.018   31 207.3  24.8   8.5   8.4  11.2
    chain3d  Reference         0      0   1.140  133   0.6   1.6   0.3   0.7   0.8  fair
             PrincipalAxes     0      0   1.136   39 972.2 364.3   5.4   5.5   8.8
    globule  Reference        81      0   1.864  100   1.1   1.5   1.1   1.9   1.2  good
             PrincipalAxes     0   1514   1.001   32 211.8  18.3  22.3  15.2  14.1
    ring     PrincipalAxes     0      0   1.036  121   1.3   1.1   0.4   1.2   1.3  fair
             PrincipalAxes     0      0   1.036   37 668.4 174.3   9.7 162.5  10.0
    stiff40  Reference        27      0   1.464  270   1.1   2.7   0.4   1.0   1.1  fair
             PrincipalAxes     0    163   1.342   46 3044.9 1335.1   4.9   3.5   9.2
    melt     Reference         4      0   1.017  239   1.8   0.8   0.6   1.0   1.1  good
             PrincipalAxes     0      1   1.014   61 2301.3 219.7   4.7   3.5   8.5
    alanine  Reference        23      0   2.000  204   1.6   1.1   1.4   1.6   1.8  fair
             PrincipalAxes     0    534   1.338   43 130.5 106.1   6.5   7.7  19.4
    adk      PrincipalAxes     0      0     nan  216   0.5   0.7   0.2   0.7   0.5  poor: 98 frames are too few
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import polyvae as pv
from polyvae.features import continuity
from polyvae.measures import ensemble_distances, kinetics, noise_floor

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
if importlib.util.find_spec("MDAnalysisTests"):
    from MDAnalysisTests.datafiles import DCD, PSF

    OWN["adk"] = ([DCD, "--top", PSF, "--select", "name CA"], {"topology": PSF, "select": "name CA"}, None)
NAMES = ("chain2d", "chain3d", "globule", "ring", "stiff40", "melt", "alanine")


def main(systems: str, out: str, checkout: str = ".", *names: str) -> None:
    where = ROOT if checkout == "." else Path(checkout)
    print(
        f"{'':8s} {'alignment':14s} {'lag':>4s} {'jumps':>6s} {'VAMP-2':>7s} {'s':>4s}  bond angle Rg ends pairs"
    )
    for name in names or [*NAMES, *(name for name in OWN if name not in NAMES)]:
        path = Path(systems).resolve() / name
        files, reading, heldout = OWN.get(name) or ([f"{path}.npz"], {}, f"{path}_heldout.npz")
        folder = Path(out).resolve() / name
        words = [sys.executable, "-m", "polyvae", "run", *map(str, files), "--out", str(folder), "--force"]
        began = time.perf_counter()
        if checkout != "-":
            environment = os.environ | {"PYTHONPATH": str(where)}
            done = subprocess.run(words, cwd=where, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{name:8s} {done.stderr.strip().splitlines()[-1:]}", flush=True)
                continue
        seconds = time.perf_counter() - began
        print(f"{name:8s} {row(folder, pv.read(files[0], **reading), reading, heldout, seconds)}", flush=True)


def row(folder: Path, traj: pv.Trajectory, reading: dict, heldout: Path | str | None, seconds: float) -> str:
    scores = json.loads((folder / "scores.json").read_text())
    settings = scores["model"]["settings"]
    vamp, n_jumps = float("nan"), scores["alignment"]["n_jumps"]
    if heldout is not None:
        cv, run = pv.load(folder / "model.safetensors"), pv.read(heldout, **reading)
        vamp = kinetics.vamp2(cv.transform(run), LAGS.get(folder.name, 1), run.segments)
        n_jumps = continuity.jumps(run, cv.featurizer).count
    written = folder / "generated.dcd"
    named = {"topology": folder / "generated.pdb", "length_unit": traj.length_unit}
    generated = pv.read(written, **named) if written.exists() else pv.read(folder / "generated.npz")
    apart, floor = ensemble_distances(generated, traj), noise_floor(traj)
    floors = " ".join(f"{apart[key] / floor[key]:5.1f}" for key in ("bond", "angle", "rg", "end_to_end", "pairs"))
    chosen = f"{settings['featurizer']:14s} {settings['lag']:4d} {n_jumps:6d} {vamp:7.3f} {seconds:4.0f}"
    said = scores.get("verdict")  # of an older checkout lines, or nothing
    return f"{chosen} {floors}  {said['mark'] if isinstance(said, dict) else (said or ['-'])[0]}"


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Files and clocks of the benchmarks."""

import statistics
import time

import numpy as np
from mdtraj.formats import DCDTrajectoryFile, XTCTrajectoryFile


def write_files(folder, n_frames: int, n_beads: int = 12) -> None:
    """folder/run.xtc and run.dcd, random walks without a box, seed 0; and run.pdb."""
    import polyvae as pv

    steps = np.random.default_rng(0).normal(size=(n_frames, n_beads, 3)).astype(np.float32)
    x = 0.5 * np.cumsum(steps, axis=1)
    with XTCTrajectoryFile(str(folder / "run.xtc"), "w") as file:
        file.write(
            x,
            time=np.arange(n_frames, dtype=np.float32),
            step=np.arange(n_frames),
            box=np.zeros((n_frames, 3, 3), np.float32),
        )
    with DCDTrajectoryFile(str(folder / "run.dcd"), "w") as file:
        file.write(10 * x, cell_lengths=np.zeros((n_frames, 3)), cell_angles=np.full((n_frames, 3), 90.0))
    pv.write(folder / "run.pdb", pv.Trajectory(x[:1], length_unit="nm"))


def side_by_side(functions: dict, rounds: int) -> dict[str, list[float]]:
    """Seconds of each function in each round, the functions taking turns."""
    seconds = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def print_ratios(title: str, seconds: dict[str, list[float]], base: str, claim: str) -> None:
    """A table of medians over rounds, as seconds and as multiples of `base` in the same round."""
    print(f"{title} ({claim})")
    for name, values in seconds.items():
        ratio = statistics.median(v / b for v, b in zip(values, seconds[base], strict=True))
        print(f"  {name:34s}{statistics.median(values):8.3f} s{ratio:8.2f}")

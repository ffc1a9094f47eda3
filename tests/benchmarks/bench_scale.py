"""Encoding at scale: frames a second and peak memory at 10^4 to 10^7 frames, 1 to 2 workers, and 10^9 on paper.

A chain of 12 beads (random walks, seed 0) as XTC, the default encoder, hardly trained (its speed does not depend
on the weights). Lengths: `project` of one file, streamed, in a child process on one core, compiled before; memory
is the largest resident size that the kernel counted. Weak scaling: `transform_many` of 16 files of 125,000 frames
for each worker, a process of one thread, that has compiled. Seconds are those of the clock; CPU seconds, of the
process or of all workers together, are the ones to compare where others use the machine. Files lie in a temporary
folder, which goes; the largest takes 150 bytes a frame.

On two cores that did nothing else:

      frames      MB   table       s   CPU s   frames/s     /CPU s  peak MB
      10,000     1.5  COLVAR    0.04    0.04    230,784    230,786      382
      10,000     1.5     npz    0.02    0.02    405,949    405,942      381
     100,000    14.9  COLVAR    0.26    0.26    385,632    385,631      405
     100,000    14.9     npz    0.22    0.22    446,433    446,448      404
   1,000,000   148.7  COLVAR    2.27    2.27    439,859    439,895      602
   1,000,000   148.7     npz    1.96    1.96    510,356    510,422      603
  10,000,000  1486.5  COLVAR   24.25   24.24    412,372    412,506      666
  10,000,000  1486.5     npz   21.81   21.81    458,431    458,496      656

16 files of 125,000 frames a worker: two workers 102 % of one by the clock, 113 % by CPU seconds (best of three
rounds). A task that does nothing took 3.9 ms of the scheduler; on a loaded machine 9.

On paper 10^9 frames of 12 beads are 0.15 TB and 0.6 core hours: 100 nodes of 32 cores have 0.7 s of work, less
than they take to start. Of 1,000 beads they are 12 TB, 50 core hours and 57 s of work for these nodes, but 21
minutes for a file system that gives 10 GB/s, which 147 cores that read fill: a sixth node brings nothing. The
scheduler hands out 64 MB 255 times a second, 17 GB/s; larger `task_bytes` make it more.

Run: python tests/benchmarks/bench_scale.py [frames]
"""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
from mdtraj.formats import XTCTrajectoryFile

import polyvae as pv
from polyvae.cluster import outcomes

CHILD = """
import json, re, sys, time
import polyvae as pv
cv, path, out, kind = pv.load(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
pv.project(cv, pv.stream(path, length_unit="nm", stop=4096), out + "/warm." + kind)
start, cpu = time.perf_counter(), time.process_time()
n = pv.project(cv, pv.stream(path, length_unit="nm"), out + "/z." + kind)
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
print(json.dumps([n, seconds, cpu, peak]))
"""


def one_core(*command: str) -> list:
    """What a child process on one core prints."""
    child = subprocess.run(
        ["taskset", "-c", "0", sys.executable, "-c", CHILD, *command],
        env=os.environ | {"NPROC": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(child.stdout)


def write(path: pathlib.Path, n_frames: int) -> None:
    """Random walks without a box, a million at a time."""
    rng = np.random.default_rng(0)
    with XTCTrajectoryFile(str(path), "w") as file:
        for start in range(0, n_frames, 1_000_000):
            n = min(1_000_000, n_frames - start)
            x = np.cumsum(0.5 * rng.standard_normal((n, 12, 3), np.float32), axis=1)
            step = np.arange(start, start + n)
            file.write(x, time=step.astype(np.float32), step=step, box=np.zeros((n, 3, 3), np.float32))


def by_length(folder: pathlib.Path, model: str, largest: int) -> tuple[float, float]:
    """A row for each number of frames; gives frames and bytes a CPU second of the longest."""
    print("one process on one core")
    print("      frames      MB   table       s   CPU s   frames/s     /CPU s  peak MB")
    n, found = 10_000, (1.0, 1.0)
    while n <= largest:
        path = folder / "run.xtc"
        write(path, n)
        size = path.stat().st_size
        for kind in ("COLVAR", "npz"):
            n_done, seconds, cpu, peak = one_core(model, str(path), str(folder), kind)
            assert n_done == n
            print(
                f"{n:12,d}{size / 1e6:8.1f}{kind:>8s}{seconds:8.2f}{cpu:8.2f}{n / seconds:11,.0f}{n / cpu:11,.0f}"
                f"{peak:9.0f}",
                flush=True,
            )
            (folder / f"z.{kind}").unlink()
        found = n / cpu, size / cpu
        n *= 10
    return found


def weak_scaling(folder: pathlib.Path, model: str) -> None:
    """Files for each worker, by one and by two of them."""
    from distributed import Client, LocalCluster

    write(folder / "one.xtc", 125_000)
    files = [folder / f"run{k}.xtc" for k in range(32)]
    for file in files:
        os.link(folder / "one.xtc", file)
    cv, times, spent = pv.load(model), {1: [], 2: []}, {1: [], 2: []}
    print("\n16 files of 125,000 frames a worker, COLVAR; three rounds")
    print(f"{'workers':>12s}{'s':>8s}{'CPU s':>8s}{'frames/s':>11s}{'/CPU s':>11s}")
    with contextlib.ExitStack() as stack:
        clients = {}
        for n in (1, 2):
            cluster = LocalCluster(n_workers=n, threads_per_worker=1, dashboard_address=":0", env={"NPROC": "1"})
            clients[n] = stack.enter_context(Client(stack.enter_context(cluster)))
            pv.transform_many(files[: 2 * n], cv, folder / f"warm{n}", client=clients[n], length_unit="nm")
        for k in range(3):
            for n, client in clients.items():
                before, start = sum(client.run(time.process_time).values()), time.perf_counter()
                made = pv.transform_many(files[: 16 * n], cv, folder / f"t{n}{k}", client=client, length_unit="nm")
                times[n].append(time.perf_counter() - start)
                spent[n].append(sum(client.run(time.process_time).values()) - before)
                assert made.n_frames == 16 * n * 125_000
                shutil.rmtree(folder / f"t{n}{k}")
        for n in (1, 2):
            seconds, cpu, frames = min(times[n]), min(spent[n]), 16 * n * 125_000
            print(f"{n:12d}{seconds:8.2f}{cpu:8.2f}{frames / seconds:11,.0f}{frames / cpu:11,.0f}")
        print(f"efficiency of two: {min(times[1]) / min(times[2]):.0%} by the clock, ", end="")
        print(f"{2 * min(spent[1]) / min(spent[2]):.0%} by CPU seconds")
        start = time.perf_counter()
        assert sum(1 for _ in outcomes(clients[2], lambda call, k: call(abs, k), range(2000))) == 2000
        print(f"a task that does nothing: {(time.perf_counter() - start) / 2000 * 1e3:.2f} ms of the scheduler")


def on_paper(frames_per_s: float, bytes_per_s: float, n: float = 1e9, nodes: int = 100, cores: int = 32) -> None:
    """What 10^9 frames on 100 nodes of 32 cores would take, from the rates of one core."""
    print(f"\non paper: {n:.0e} frames on {nodes} nodes of {cores} cores, rates of one core as measured")
    print("       beads      TB  core h  s of cores  s of 10 GB/s  cores that fill it")
    for beads in (12, 100, 1000):
        size = n * bytes_per_s / frames_per_s * beads / 12
        work = size / bytes_per_s
        print(
            f"{beads:12d}{size / 1e12:8.2f}{work / 3600:8.1f}{work / (nodes * cores):12.1f}{size / 1e10:14.1f}"
            f"{1e10 / bytes_per_s:20.0f}"
        )


def main(largest: int = 10_000_000) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write(folder / "run.xtc", 2000)
        model = str(folder / "model.safetensors")
        pv.fit(pv.read(folder / "run.xtc", length_unit="nm"), epochs=1, lag=0).save(model)
        rates = by_length(folder, model, largest)
        weak_scaling(folder, model)
        on_paper(*rates)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

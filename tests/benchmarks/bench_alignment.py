"""Claim: aligning a trajectory costs no more than mdtraj's superposition.

    python tests/benchmarks/bench_alignment.py [--quick]

`PrincipalAxes` at least 2 times as fast as centring, `numpy.linalg.eigh` and matrix product on whole
arrays, and at least 0.8 times as fast as `mdtraj.Trajectory.superpose`; `Reference` at least 1.0 times as
fast as `superpose`. From a NumPy array to a NumPy array, one process, random 3-D chains, seed 0. The
methods take turns, and a ratio is the median over the rounds of the ratios within a round, so that a
neighbour's load on the machine falls on both. Nothing is asserted about time.
"""

import argparse
import time

import jax
import mdtraj
import numpy as np

import polyvae as pv


def chains(n_frames, n_beads, seed=0):
    steps = np.random.default_rng(seed).normal(size=(n_frames, n_beads, 3))
    return np.cumsum(steps, axis=1).astype(np.float32)


def with_mdtraj(x):
    topology = mdtraj.Topology()
    residue = topology.add_residue("CHN", topology.add_chain())
    for _ in range(x.shape[1]):
        topology.add_atom("B", mdtraj.element.carbon, residue)
    trajectory = mdtraj.Trajectory(x.copy(), topology)
    return lambda: trajectory.superpose(trajectory, 0)


def with_numpy(x):
    def run():
        r = x - x.mean(axis=1, keepdims=True)
        _, axes = np.linalg.eigh(np.swapaxes(r, 1, 2) @ r / x.shape[1])
        return r @ axes[:, :, ::-1]

    return run


def with_polyvae(x, featurizer):
    featurize = jax.jit(jax.vmap(featurizer.fit(pv.Trajectory(x[:1000]))))
    return lambda: np.asarray(featurize(x))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few frames, few rounds")
    quick = parser.parse_args().quick
    print(f"{'beads':>5} {'frames':>7}  {'method':24} {'ms':>7} {'x superpose':>12} {'x numpy eigh':>13}")
    for n_beads, n_frames in ((12, 200_000), (100, 200_000), (100, 50_000)):
        x = chains(n_frames // (50 if quick else 1), n_beads)
        methods = {
            "mdtraj superpose": with_mdtraj(x),
            "numpy eigh": with_numpy(x),
            "PrincipalAxes()": with_polyvae(x, pv.PrincipalAxes()),
            "Reference()": with_polyvae(x, pv.Reference()),
            "PrincipalAxes(reversal)": with_polyvae(x, pv.PrincipalAxes(reversal=True)),
        }
        times = {name: [] for name in methods}
        for turn in range(4 if quick else 10):
            for name, run in methods.items():
                began = time.perf_counter()
                result = run()
                elapsed = time.perf_counter() - began
                del result
                if turn:  # the first one compiles
                    times[name].append(elapsed)
        for name, taken in times.items():
            superpose, eigh = (
                np.median(np.divide(times[other], taken)) for other in ("mdtraj superpose", "numpy eigh")
            )
            print(
                f"{n_beads:5} {len(x):7}  {name:24} {1e3 * np.median(taken):7.1f} {superpose:12.2f} {eigh:13.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

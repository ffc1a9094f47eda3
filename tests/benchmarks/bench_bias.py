"""OPES against well-tempered metadynamics, both of `polyvae.export`, on a coordinate that is not the whole way.

    python tests/benchmarks/bench_bias.py [steps] [seeds]

A double well of 7 kT along z, which is biased, with a coordinate y beside it that follows z slowly. Metropolis
steps, a kernel or hill of width 0.15 every 50, a barrier of 16 kT (metadynamics: a bias factor of 16; its frames
are weighted by the bias at the end). Root mean square error in kT of the free energy over z below 9 kT, without
the first tenth, and crossings.

40,000 steps, seeds 0 to 3: OPES 0.19 0.17 0.15 0.22 kT; metadynamics with hills of 0.5 kT 0.25 0.19 0.53 0.32 kT,
of 0.1 kT 0.48 0.70 0.28 0.62 kT; 17 to 31 crossings each.
"""

import sys

import numpy as np

from polyvae.export.metadynamics import Metadynamics
from polyvae.export.opes import Opes

BINS, LIMIT = 13, 9.0
EDGES = np.linspace(-1.3, 1.3, BINS + 1)


def potential(z, y):
    return 7 * (z**2 - 1) ** 2 + 0.5 * z + 4 * (y - z) ** 2


def truth() -> np.ndarray:
    z, y = np.linspace(EDGES[0], EDGES[-1], 100 * BINS + 1)[:-1], np.linspace(-3, 3, 301)
    return -np.log(np.exp(-potential(z[:, None], y)).reshape(BINS, -1).sum(axis=1))


def run(bias, seed: int, steps: int) -> tuple[float, int]:
    rng = np.random.default_rng(seed)
    z, y = -1.0, -1.0
    along, beside, draws = 0.2 * rng.normal(size=steps), 0.05 * rng.normal(size=steps), np.log(rng.random(steps))
    pushed, seen, energies = bias(np.array([z]), 1)[0], [], []
    for step in range(steps):
        a, b = z + along[step], y + beside[step]
        there = bias(np.array([a]), 1)[0]  # at a step at which no kernel is due
        if draws[step] < potential(z, y) + pushed - potential(a, b) - there:
            z, y = a, b
        pushed = bias(np.array([z]), step)[0]
        if step % 20 == 0:
            seen.append(z)
            energies.append(pushed)
    s, n = np.array(seen), len(seen) // 10
    energy = bias.energy(s[:, None]) if isinstance(bias, Metadynamics) else np.array(energies)
    weights = np.exp(energy[n:] - energy[n:].max())
    with np.errstate(divide="ignore"):
        found = -np.log(np.histogram(s[n:], EDGES, weights=weights)[0])
    expected = truth()
    deep = expected - expected.min() < LIMIT
    off = float(np.std((found - expected)[deep])) if np.isfinite(found[deep]).all() else np.inf
    return off, int((np.diff(np.sign(s[np.abs(s) > 0.7])) != 0).sum())


def main(steps: int = 40_000, seeds: int = 4) -> None:
    for seed in range(seeds):
        kinds = {"OPES": Opes([0.15], barrier=16.0, kT=1.0, stride=50)}
        for height in (0.5, 0.1):
            hills = Metadynamics([0.15], height=height, kT=1.0, bias_factor=16.0, stride=50)
            kinds[f"hills of {height} kT"] = hills
        said = [f"{name}: {off:.2f} kT, {n} crossings" for name, (off, n) in
                ((name, run(bias, seed, steps)) for name, bias in kinds.items())]  # fmt: skip
        print(f"seed {seed}   " + "   ".join(said), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

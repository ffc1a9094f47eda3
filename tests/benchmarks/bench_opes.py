"""What a latent CV of alanine dipeptide gains when it is biased: crossings a nanosecond, against phi and psi.

    python tests/benchmarks/bench_opes.py SYSTEMS [seeds] [nanoseconds] [runs] [smoothness] [femtoseconds]

SYSTEMS is the folder that `systems.py` wrote. For each seed `polyvae.fit` with no option trains on 6 ns in each
of two basins; then OPES (openmm-opes, barrier 40 kJ/mol, a kernel every 500 steps of 2 fs) runs from phi = -80
degrees on the latents that `polyvae.export` would bias, with its ranges and widths, RUNS times with other noise,
which tells what is the CV's from what is the run's. A crossing goes from phi in
-165..-35 degrees to 30..110 or back. Also: the share of frames of an independent run whose basin z0 tells, by one
threshold half-way between the basins of the training data.

One run of it, 1 ns a figure: phi, psi 10 2 12 crossings; the latents of five seeds 347 333 344, 311 284 93,
278 180 132, 176 72 190, 159 241 126, with widths of 0.011 to 0.013 and 100.000 % told apart in each. One CV's runs
differ by as much as CVs do. Where CVs differ is on the way over, of which no frame was trained on: with phi turned
by hand z0 goes smoothly from one basin to the other, but at phi = 0 it spreads by 0.3 to 0.4 with all else.

How many of these crossings are the integrator's? Two runs of seed 0, 1 ns each, by smoothness and time step:

| smoothness | 2 fs | 0.5 fs | width |
|---|---|---|---|
| phi, psi | 10 2 | 6 10 | 0.35 |
| 0 | 330 298 | 126 77 | 0.013 |
| 1 | 44 72 | 34 31 | 0.055 |

Without the term a latent is a step between the basins, and the bias on it too stiff for 2 fs: most crossings are
then no dynamics, and the difference of the basins came out up to 1.3 kT wrong in runs of 2 ns (2.24 for 3.54).
With it, and with phi and psi, the time step changes little.
"""

import sys
import time
from pathlib import Path

import numpy as np
import openmm
import systems
from openmm import app, unit
from openmm_opes import OPES

import polyvae as pv
from polyvae.export.openmm import bias_variables, range_and_width

BARRIER, STRIDE, LOOK = 40.0, 500, 100  # kJ/mol; steps between kernels, and between two looks at phi


def crossings(variables_of, seed: int, nanoseconds: float, femtoseconds: float) -> tuple[int, float]:
    """Crossings of a biased run, kernels and looks as far apart in time at every step; microseconds a step."""
    _, system, _, heavy, torsions = systems.dipeptide()
    start = systems.prepared(5, 0)[0].context.getState(positions=True).getPositions()
    finer, step = round(2 / femtoseconds), 1e-3 * femtoseconds
    bias = OPES(system, variables_of(system, heavy, torsions), 300 * unit.kelvin, BARRIER, STRIDE * finer, None)
    integrator = openmm.LangevinMiddleIntegrator(300 * unit.kelvin, 1 / unit.picosecond, step * unit.picoseconds)
    integrator.setRandomNumberSeed(7 + seed)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(systems.dipeptide()[0], system, integrator, platform)
    simulation.context.setPositions(start)
    simulation.context.setVelocitiesToTemperature(300, 11 + seed)
    looks = int(nanoseconds * 1000 / systems.STEP / LOOK)  # whatever the step
    phi, began = np.empty(looks), time.perf_counter()
    for k in range(looks):
        bias.step(simulation, LOOK * finer)
        x = simulation.context.getState(positions=True).getPositions(asNumpy=True)._value
        phi[k] = np.degrees(systems.torsion(x[torsions[0]]))
    states = np.select([(phi > 30) & (phi < 110), (phi > -165) & (phi < -35)], [1, -1])
    states = states[states != 0]
    return int((np.diff(states) != 0).sum()), 1e6 * (time.perf_counter() - began) / (looks * LOOK * finer)


def torsions_of(system, heavy, torsions) -> list:
    return systems.torsion_variables(torsions[:2])


def several(variables_of, first: int, runs: int, ns: float, fs: float) -> str:
    """Crossings a nanosecond of each run, and what a step costs."""
    found = [crossings(variables_of, first + 100 * k, ns, fs) for k in range(runs)]
    rates, cost = " ".join(f"{n / ns:4.0f}" for n, _ in found), np.median([cost for _, cost in found])
    return f"{rates} a ns   {cost:4.1f} us a step"


def main(
    folder: str, seeds: str = "5", nanoseconds: str = "1", runs: str = "3", smoothness: str = "0", fs: str = "2"
) -> None:
    ns, train, heldout = (
        float(nanoseconds),
        *(pv.read(Path(folder) / name) for name in ("alanine.npz", "alanine_heldout.npz")),
    )
    print(f"phi, psi          {several(torsions_of, 0, int(runs), ns, float(fs))}", flush=True)
    right = np.repeat([False, True], len(heldout) // 2)  # each basin is a half of the run, which it never leaves
    for seed in range(int(seeds)):
        cv = pv.fit(train, seed=seed, smoothness=float(smoothness))
        z, new = cv.transform(train)[:, 0], cv.transform(heldout)[:, 0]
        one, two = np.split(z, 2)
        told = (new > (one.mean() + two.mean()) / 2) == (two.mean() > one.mean())
        biased = cv.keep(cv.active_latents)
        low, high, width = range_and_width(biased, train)

        def latents(system, heavy, torsions, biased=biased, low=low, high=high, width=width):
            return bias_variables(biased, heavy, minimum=low, maximum=high, width=width, system=system)

        rates = several(latents, seed, int(runs), ns, float(fs))
        print(
            f"latents, seed {seed}   {rates}   width {np.round(width, 4)}, "
            f"basins told apart in {np.mean(told == right):.3%}, {cv.record.choices['lag']}",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])

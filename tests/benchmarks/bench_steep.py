"""How far the atoms move for one width of a bias's kernels, and what a biased run of that CV gives.

    python tests/benchmarks/bench_steep.py [ALA|VAL] [seeds] [factors]

A dipeptide in vacuum (OpenMM, 2 fs, 300 K), trained on 6 ns in each of two basins: `fit` with smoothness 0 and 1,
and the CV of smoothness 1 made steep on purpose, as tanh(factor (z - middle)). OPES (40 kJ/mol, a kernel every ps)
runs 10^6 steps on each, with the width of `export.grid_bias.bias_width`.

Printed: the distance of `cv.steepness` that 95 % of the lines between the basins exceed and the least, crossings
and free energy. The reference is OPES on phi and psi. The figures are in docs/concepts/smoothness.md.
"""

import dataclasses
import sys

import bench_adapt
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import openmm
import systems

import polyvae as pv
from polyvae.engines.openmm import openmm_engine
from polyvae.engines.runs import Bias
from polyvae.export.grid_bias import bias_width, statistics
from polyvae.vae.network import VAE

STEPS, STRIDE = 1_000_000, 250
FRAMES = 12_000  # in each basin


def made_steep(cv: pv.LatentCV, z: np.ndarray, factor: float) -> pv.LatentCV:
    """tanh(factor (z0 - middle)) of a CV with two hidden layers; z (n_frames,) says where the middle is."""

    def parts(vae: VAE) -> list:
        return [part for layer in vae.encoder.layers for part in (layer.weight, layer.bias)]

    old = parts(cv.vae)
    middle = 0.5 * (z.min() + z.max())
    hidden = factor * old[4][:1], factor * (old[5][:1] - middle)
    layers = (*cv.record.settings.encoder, 1)
    vae = VAE(
        cv.mean.size, latent_dim=1, encoder=layers, decoder=(), likelihood=cv.vae.likelihood, key=jax.random.key(0)
    )
    new = [*old[:4], *hidden, jnp.array([[1.0], [0.0]]), jnp.zeros(2)]
    scaled = eqx.tree_at(lambda scaled: scaled.vae, cv.scaled, eqx.tree_at(parts, vae, new))
    return dataclasses.replace(cv.keep([0]), scaled=scaled)


def reference(make, torsions, variable, heavy, edges: np.ndarray) -> np.ndarray:
    """Free energy in kT over phi, by OPES on phi and psi."""
    variables = systems.torsion_variables(torsions[:2])
    x, weights, _ = bench_adapt.textbook(make, variables, 40.0, 4 * STEPS, STRIDE, 900)
    kept = len(x) // 10
    return bench_adapt.energy_of(variable(x[kept:, heavy]), edges, weights[kept:])


def main(residue: str = "ALA", seeds: str = "3", factors: str = "1,2,4,8") -> None:
    topology, system, _, heavy, torsions = systems.dipeptide(residue)
    xml = openmm.XmlSerializer.serialize(system)
    start = systems.prepared(5, 0, residue)[0].context.getState(positions=True).getPositions()

    def make():
        return bench_adapt.simulation_of(topology, openmm.XmlSerializer.deserialize(xml), start, systems.STEP)

    case = bench_adapt.dipeptide(residue, True)
    energy = reference(make, torsions, case.variable, heavy, case.edges)
    train = systems.joined([systems.alanine_piece(1, basin, FRAMES, residue) for basin in range(2)])
    engine = openmm_engine(make, temperature=300, particles=heavy)

    def tell(name: str, cv: pv.LatentCV, seed: int) -> None:
        stats = statistics(cv, train)
        width, margin = bias_width(stats), 0.25 * (stats["max"] - stats["min"])
        move = [1e3 * width / np.array(slopes) for slopes in stats["slopes"].to_dict().values()]
        head = f"{name:16s} width {width.round(4)}, moved {move[0].round(2)} pm, least {move[1].round(2)}: "
        bias = Bias(stats["min"] - margin, stats["max"] + margin, width, 40 / bench_adapt.KT, 500)
        try:
            run = engine.run(cv, bias=bias, start=None, steps=STEPS, stride=STRIDE, seed=1 + seed)
        except pv.InputError as error:
            print(head + str(error).partition(":")[0], flush=True)
            return
        found = case.told(case.variable(run.traj.positions), np.exp(run.bias - run.bias.max()), energy)
        print(head + found, flush=True)

    for seed in range(int(seeds)):
        for smoothness in (0.0, 1.0):
            cv = pv.fit(train, seed=seed, smoothness=smoothness)
            tell(f"smoothness {smoothness:g}", cv.keep(cv.active_latents), seed)
        z = cv.transform(train)[:, 0]
        for factor in map(float, factors.split(",")):
            tell(f"tanh({factor:g} z)", made_steep(cv, z, factor), seed)


if __name__ == "__main__":
    main(*sys.argv[1:])

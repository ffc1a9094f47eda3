"""What training gives, on however many devices there are: `python tests/devices.py OUT.npz`, or `found()`."""

import sys
import tempfile

import jax
import numpy as np

from polyvae.vae import epochs, training
from polyvae.vae.fitting import fit_vae
from polyvae.vae.mesh import layout_for
from polyvae.vae.network import VAE
from polyvae.vae.settings import Settings

NETWORK = {"encoder": (16,), "decoder": (16,)}
CASES = {
    "weights": {"free_bits": 0.1, "weights": np.linspace(0, 2, 701)},
    "pairs, a batch of 50": {
        "lag": 2, "smoothness": 0.5, "lr_schedule": "plateau", "batch_size": 50, "validation": 0.0
    },
}  # fmt: skip


def vectors() -> np.ndarray:
    """701 random walks of 6 steps: neither they nor those held out divide by 8."""
    return np.random.default_rng(0).normal(size=(701, 6)).cumsum(axis=1).astype(np.float32)


def gradient() -> np.ndarray:
    """Of the mean loss of one batch, drawn from 701 rows, with respect to all weights."""
    import equinox as eqx

    weights, static = eqx.partition(VAE(6, **NETWORK, key=jax.random.key(0)), eqx.is_inexact_array)
    x, layout = vectors(), layout_for(64, 701)
    order = jax.random.permutation(jax.random.key(1), 701)[:64]
    rows = epochs.Rows(x, x, None)
    rows = layout.shared(rows)

    @jax.jit
    def slope(weights, rows):
        def loss(weights):
            batch = jax.tree.map(lambda a: a[order], rows) if layout.mesh is None else layout.take(rows, order)
            noise = jax.random.normal(jax.random.key(2), (64, 2))
            reconstruction, kl, _ = epochs.loss_terms(weights, static, batch, noise, 0.0)
            return reconstruction + kl

        return jax.grad(loss)(weights)

    weights = layout.everywhere(weights)
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(slope(weights, rows))])


def from_disk() -> np.ndarray:
    """The loss curve of training from a file, in blocks."""
    settings = Settings(batch_size=64, epochs=3)
    with tempfile.TemporaryFile() as file:
        x = np.memmap(file, np.float32, "w+", shape=(701, 6))
        x[:] = vectors()
        vae = VAE(6, **NETWORK, key=jax.random.key(0))
        rows = np.arange(600), np.arange(600, 701)
        history = training.train(vae, x, *rows, settings=settings, key=jax.random.key(1)).history
    return np.stack(list(history.values()))


def found() -> dict[str, np.ndarray]:
    options = {**NETWORK, "epochs": 4, "batch_size": 64, "seed": 3}
    curves = {}
    for name, case in CASES.items():
        history = fit_vae(vectors(), **options | case).record.history
        curves[name] = np.stack(list(history.values()))
    return curves | {"gradient": gradient(), "from disk": from_disk()}


if __name__ == "__main__":
    np.savez(sys.argv[1], n_devices=jax.device_count(), **found())

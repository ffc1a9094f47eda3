"""Training on one and on several simulated devices of this machine's CPU, which take turns.

Prints samples a second, networks narrow and wide, relative to one device: batches of 256 rows shared by the
devices (strong scaling), and 256 rows on each device (weak scaling: relative to one device with 256).

Devices of a CPU share its cores, and one alone uses several of them where matrices are large; so the tables show
what sharing costs, not what more hardware gains. No GPU was at hand: there nothing is measured yet.
Run: python tests/benchmarks/bench_devices.py [rounds] [devices]
"""

import os
import statistics
import sys

ROUNDS, DEVICES = int((sys.argv[1:] or [5])[0]), int((sys.argv[2:] or [2])[0])
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES} {os.environ.get('XLA_FLAGS', '')}"

import jax  # noqa: E402
import numpy as np  # noqa: E402
from common import side_by_side  # noqa: E402

from polyvae.vae import training  # noqa: E402
from polyvae.vae.network import VAE  # noqa: E402
from polyvae.vae.settings import Settings  # noqa: E402

N_FRAMES = 32_768
ALL = jax.local_devices()
NETWORKS = {"36 features, 64,64 and 256,256": (36, (64, 64), (256, 256), 8),
            "300 features, 512,512 each way": (300, (512, 512), (512, 512), 1)}  # fmt: skip


def trained(name: str, batch: int, n_devices: int = 1):
    """Some epochs on the first devices, already compiled."""
    n_features, encoder, decoder, epochs = NETWORKS[name]
    x = np.random.default_rng(0).normal(size=(N_FRAMES, n_features)).astype(np.float32)
    vae = VAE(n_features, encoder=encoder, decoder=decoder, key=jax.random.key(0))
    settings = Settings(batch_size=batch, epochs=epochs)

    def run():
        jax.local_devices = lambda: ALL[:n_devices]
        training.train(vae, x, np.arange(N_FRAMES), settings=settings, key=jax.random.key(1))

    run()
    return run


def on_devices() -> None:
    print(f"samples a second, {N_FRAMES:,} frames, {os.cpu_count()} cores, median of {ROUNDS} rounds")
    for name, (*_, epochs) in NETWORKS.items():
        cases = {(1, 256): "", (DEVICES, 256): "strong", (1, 256 * DEVICES): "", (DEVICES, 256 * DEVICES): "weak"}
        seconds = side_by_side({(n, batch): trained(name, batch, n) for n, batch in cases}, ROUNDS)
        for (n, batch), values in seconds.items():
            base = seconds[1, 256 if cases[n, batch] != "weak" else 256 * DEVICES]
            ratio = statistics.median(b / v for v, b in zip(values, base, strict=True))
            rate = statistics.median(N_FRAMES * epochs / v for v in values)
            words = f"{ratio:.2f} of one device at this batch ({cases[n, batch]})" if n > 1 else ""
            print(f"  {name}   {n} device{'s' * (n > 1)}, batch {batch:5d}{rate:10.0f}   {words}")


if __name__ == "__main__":
    on_devices()

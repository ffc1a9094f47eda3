"""Training on one and on several simulated devices of this machine's CPU, which take turns.

Prints:
1. samples a second, networks narrow and wide, relative to one device: batches of 256 rows shared by the devices
   (strong scaling), and 256 rows on each device (weak scaling: relative to one device with 256);
2. the same for as many processes with one device each, which meet on this machine (weak scaling);
3. peak memory of training on 10^6 frames of 36 features.

Devices of a CPU share its cores, and one alone uses several of them where matrices are large; so the tables show
what sharing costs, not what more hardware gains. No GPU was at hand: there nothing is measured yet.
Run: python tests/benchmarks/bench_devices.py [rounds] [devices]
"""

import os
import re
import socket
import statistics
import subprocess
import sys

ROUNDS, DEVICES = int((sys.argv[1:] or [5])[0]), int((sys.argv[2:] or [2])[0])
CHILD = len(sys.argv) > 3
if not CHILD:
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES} {os.environ.get('XLA_FLAGS', '')}"

import jax  # noqa: E402
import numpy as np  # noqa: E402
from common import side_by_side  # noqa: E402

from polyvae.trajectory.share import among_processes  # noqa: E402
from polyvae.vae import training  # noqa: E402
from polyvae.vae.network import VAE  # noqa: E402
from polyvae.vae.settings import Settings  # noqa: E402

N_FRAMES = 32_768
ALL = () if CHILD else jax.local_devices()
NETWORKS = {"36 features, 64,64 and 256,256": (36, (64, 64), (256, 256), 8),
            "300 features, 512,512 each way": (300, (512, 512), (512, 512), 1)}  # fmt: skip


def trained(name: str, batch: int, n_devices: int = 1, n_frames: int = N_FRAMES, share=None):
    """Some epochs on the first devices, already compiled."""
    n_features, encoder, decoder, epochs = NETWORKS[name]
    x = np.random.default_rng(0).normal(size=(n_frames, n_features)).astype(np.float32)
    vae = VAE(n_features, encoder=encoder, decoder=decoder, key=jax.random.key(0))
    settings = Settings(batch_size=batch, epochs=epochs)

    def run():
        if not CHILD:
            jax.local_devices = lambda: ALL[:n_devices]
        training.train(vae, x, np.arange(n_frames), settings=settings, key=jax.random.key(1), share=share)

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


def in_processes() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    print(f"\nthe same with 1 and with {DEVICES} processes, each with its own frames and 256 rows of a batch")
    for n in (1, DEVICES):
        words = [sys.executable, __file__, str(ROUNDS), str(n), f"127.0.0.1:{port}"]
        environment = os.environ | {"XLA_FLAGS": ""}
        children = [
            subprocess.Popen([*words, str(k)], stdout=subprocess.PIPE if k == 0 else subprocess.DEVNULL, text=True,
                             env=environment)
            for k in range(n)
        ]  # fmt: skip
        said = children[0].communicate()[0]
        for child in children[1:]:
            child.wait()
        print(*(line for line in said.splitlines() if line.startswith("  ")), sep="\n")


def child(address: str, k: int) -> None:
    """One of the processes: times, printed by the first; and the peak of each for 10^6 frames."""
    if DEVICES > 1:
        jax.distributed.initialize(address, DEVICES, k)
    share = among_processes(N_FRAMES)
    for name, (*_, epochs) in NETWORKS.items():
        run = trained(name, 256 * DEVICES, share=share)
        seconds = statistics.median(side_by_side({"": run}, ROUNDS)[""])
        rate = share.n * epochs / seconds
        print(f"  {name}   {DEVICES} process{'es' * (DEVICES > 1)}, batch {256 * DEVICES:5d}{rate:10.0f}")
    n = 1_000_000 // DEVICES
    trained(next(iter(NETWORKS)), 4096, n_frames=n, share=among_processes(n))
    with open("/proc/self/status") as status:
        peak = int(re.search(r"VmHWM:\s+(\d+)", status.read())[1]) / 1024
    print(f"  10^6 frames of 36 features (144 MB), {DEVICES} process{'es' * (DEVICES > 1)}: {peak:.0f} MB each")


if __name__ == "__main__":
    if CHILD:
        child(sys.argv[3], int(sys.argv[4]))
    else:
        on_devices()
        in_processes()

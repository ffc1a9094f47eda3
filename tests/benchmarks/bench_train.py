"""How fast a VAE trains, on the book chapter's task: 24 inputs, three hidden layers of 256 each way, 2 latents.

Prints four tables:
1. the chapter's final squared error, 3.50 in its own frame and with its own weighting, against the 354 s that its
   code was measured at: how long `pv.fit_vae` takes to get there, compilation included (claim: at most 11.8 s);
2. training samples a second with tanh and Adam, at batches of 32 and 256, as ratios to a loop of one jitted
   gradient and one optimiser update a step outside of it (claim: 20 at batch 32), to a plain PyTorch loop (claims:
   2.5 and 1.3) and to mlcolvar's VAE (claim: 2 at batch 256), and the share of the machine's matrix-product rate;
3. samples a second from 10^4 to 10^6 frames (claim: within 20 %);
4. the time of an epoch against the number of beads.

The frames are the chapter's where they are, else random walks. PyTorch and mlcolvar are used where installed.
Run: python tests/benchmarks/bench_train.py [rounds]
"""

import itertools
import logging
import statistics
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from common import side_by_side
from jax.example_libraries import optimizers

import polyvae as pv
from polyvae.vae import training
from polyvae.vae.bound import elbo_terms
from polyvae.vae.network import VAE
from polyvae.vae.settings import Settings

CHAPTER = Path(__file__).resolve().parents[3] / "shared" / "seed" / "long_paths.npz"
HIDDEN = (256, 256, 256)
PARAMETERS = 24 * 256 + 2 * 256**2 + 256 * 4 + 2 * 256 + 2 * 256**2 + 256 * 24
FLOPS = 6 * PARAMETERS  # a sample: a product forward, two backward, each a multiplication and an addition


def chapter_frames() -> np.ndarray:
    """2,048 frames of 12 beads in the chapter's frame: centred, the long axis along x, its sign left open."""
    if CHAPTER.exists():
        x = np.load(CHAPTER)["arr"]
    else:
        x = np.random.default_rng(0).normal(size=(2048, 12, 2)).cumsum(axis=1)
    x = x - x.mean(axis=1, keepdims=True)
    axes = np.linalg.eigh(np.einsum("fbi,fbj->fij", x, x))[1][:, :, -1]
    turn = np.stack([axes, np.stack([-axes[:, 1], axes[:, 0]], axis=1)], axis=1)
    return np.einsum("fij,fbj->fbi", turn, x).reshape(len(x), -1).astype(np.float32)


def to_the_chapter_s_error(x: np.ndarray) -> None:
    start = time.perf_counter()
    model = pv.fit_vae(
        x, likelihood=pv.Gaussian(0.5**0.5), beta=0.01 / 2, encoder=HIDDEN, decoder=HIDDEN, batch_size=128,
        epochs=250, learning_rate=2e-3, validation=0,
    )  # fmt: skip
    error = float(((model.decode(model.transform(x)) - x) ** 2).sum(axis=1).mean())
    seconds = time.perf_counter() - start
    print("\nsquared error summed over 24 coordinates, encoder mean decoded (the chapter: 3.50 in 354 s)")
    print(f"  pv.fit_vae{error:26.2f} in {seconds:.1f} s, compilation included: 1/{354 / seconds:.0f} of its time")


def scanned(x: np.ndarray, batch: int, epochs: int):
    """polyvae's own training, already compiled."""
    vae = VAE(x.shape[1], latent_dim=2, encoder=HIDDEN, decoder=HIDDEN, key=jax.random.key(0))
    rows, settings = np.arange(len(x)), Settings(epochs=epochs, batch_size=batch, learning_rate=1e-3)

    def run():
        training.train(vae, x, rows, settings=settings, key=jax.random.key(1))

    return run


def step_by_step(x: np.ndarray, batch: int, epochs: int):
    """One jitted gradient and one optimiser update outside of it a step, as the chapter's code has it."""
    vae = VAE(x.shape[1], latent_dim=2, encoder=HIDDEN, decoder=HIDDEN, key=jax.random.key(0))
    start, static = eqx.partition(vae, eqx.is_inexact_array)
    first, update, weights_in = optimizers.adam(1e-3)  # the one that the chapter uses

    def loss(weights, frames, key):
        noise = jax.random.normal(key, (len(frames), 2))
        log_prob, kl = jax.vmap(partial(elbo_terms, eqx.combine(weights, static)))(frames, noise, frames)
        return jnp.mean(kl.sum(axis=1) - log_prob)

    gradient = jax.jit(jax.grad(loss))

    x = jnp.asarray(x)

    def run():
        state, key, step = first(start), jax.random.key(1), 0
        for _ in range(epochs):
            for k in range(0, len(x) - batch + 1, batch):
                key, step_key = jax.random.split(key)
                state = update(step, gradient(weights_in(state), x[k : k + batch], step_key), state)
                step += 1
        jax.block_until_ready(weights_in(state))

    return run


def in_pytorch(x: np.ndarray, batch: int, epochs: int):
    """A plain loop: layers, loss, backward, Adam."""
    import torch
    from torch import nn

    frames = torch.tensor(x)

    def network(*widths):
        layers = []
        for n_in, n_out in itertools.pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.Tanh()]
        return nn.Sequential(*layers[:-1])

    encoder, decoder = network(x.shape[1], *HIDDEN, 4), network(2, *HIDDEN, x.shape[1])
    log_width = nn.Parameter(torch.zeros(()))
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters(), log_width], lr=1e-3)

    def run():
        for _ in range(epochs):
            order = torch.randperm(len(frames))
            for k in range(0, len(frames) - batch + 1, batch):
                seen = frames[order[k : k + batch]]
                mean, log_std = encoder(seen).chunk(2, dim=1)
                decoded = decoder(mean + log_std.exp() * torch.randn_like(mean))
                squared = ((seen - decoded) ** 2).sum(dim=1)
                reconstruction = 0.5 * squared * torch.exp(-2 * log_width) + x.shape[1] * log_width
                kl = (0.5 * (mean**2 + (2 * log_std).exp() - 1) - log_std).sum(dim=1)
                optimiser.zero_grad()
                (reconstruction + kl).mean().backward()
                optimiser.step()

    return run


def in_mlcolvar(x: np.ndarray, batch: int, epochs: int):
    """Its VAE class, dataset and trainer, nothing logged or saved."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    import lightning
    import torch
    from mlcolvar.cvs import VariationalAutoEncoderCV
    from mlcolvar.data import DictDataset, DictModule

    options = {name: {"activation": "tanh"} for name in ("encoder", "decoder")}

    def run():
        model = VariationalAutoEncoderCV(2, [x.shape[1], *HIDDEN], [*HIDDEN, x.shape[1]], options=options)
        data = DictModule(DictDataset({"data": torch.tensor(x)}), lengths=[1.0], batch_size=batch)
        trainer = lightning.Trainer(
            max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, limit_val_batches=0, num_sanity_val_steps=0, accelerator="cpu",
        )  # fmt: skip
        trainer.fit(model, data)

    return run


def matrix_rate() -> float:
    """Floating-point operations a second in the product of two large float32 matrices."""
    a = jnp.asarray(np.random.default_rng(0).normal(size=(2048, 2048)), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    seconds = side_by_side({"": lambda: product(a).block_until_ready()}, 10)[""]
    return 2 * 2048**3 / min(seconds)


def against_others(x: np.ndarray, rounds: int) -> None:
    peak = matrix_rate()
    print(f"\nsamples a second, {len(x)} frames (large float32 matrix product here: {peak / 1e9:.0f} GFLOP/s)")
    for batch, epochs in ((32, 10), (256, 25)):
        loops = {}
        makers = {"polyvae": (scanned, epochs), "jitted gradient, step by step": (step_by_step, 1)}
        makers |= {"PyTorch": (in_pytorch, max(1, epochs // 4)), "mlcolvar": (in_mlcolvar, max(1, epochs // 8))}
        for name, (make, n) in makers.items():
            try:
                loops[name] = make(x, batch, n)
                loops[name]()
            except ImportError:
                print(f"  batch {batch:4d}  {name}: not installed")
                loops.pop(name, None)
        seconds = side_by_side(loops, rounds)
        used = len(x) // batch * batch
        rates = {name: [used * makers[name][1] / s for s in values] for name, values in seconds.items()}
        for name, values in rates.items():
            ratio = statistics.median(a / b for a, b in zip(rates["polyvae"], values, strict=True))
            share = statistics.median(values) * FLOPS / peak
            print(
                f"  batch {batch:4d}  {name:32s}{statistics.median(values):10.0f}"
                f"   polyvae is {ratio:5.2f} x this   {share:6.1%} of the matrix product's rate"
            )


def against_frames(x: np.ndarray, rounds: int) -> None:
    print("\nsamples a second against the number of frames, batch 256")
    many = np.tile(x, (1_000_000 // len(x) + 1, 1))
    runs = {
        n: (scanned(many[:n], 256, max(1, 200_000 // n)), n * max(1, 200_000 // n)) for n in (10**4, 10**5, 10**6)
    }
    for run, _ in runs.values():
        run()
    seconds = side_by_side({n: run for n, (run, _) in runs.items()}, rounds)
    rates = {n: statistics.median(runs[n][1] / s for s in values) for n, values in seconds.items()}
    for n, rate in rates.items():
        print(f"  {n:10d} frames{rate:12.0f}{rate / rates[10**4]:8.2f} of that at 10^4")


def against_beads(rounds: int) -> None:
    print("\none epoch of 10,000 frames in 3-D, batch 256, default networks, against beads")
    walks = np.random.default_rng(0).normal(size=(10_000, 200, 3)).astype(np.float32)
    epoch = {}
    for beads in (12, 50, 200):
        x = np.ascontiguousarray(walks[:, :beads]).reshape(10_000, -1)
        vae = VAE(x.shape[1], key=jax.random.key(0))

        def run(x=x, vae=vae):
            training.train(vae, x, np.arange(10_000), settings=Settings(epochs=5), key=jax.random.key(1))

        run()
        epoch[beads] = run
    for beads, seconds in side_by_side(epoch, rounds).items():
        print(f"  {beads:4d} beads{statistics.median(seconds) / 5:10.3f} s")


def main(rounds: int = 5) -> None:
    x = chapter_frames()
    if CHAPTER.exists():
        to_the_chapter_s_error(x)
    x = (x - x.mean(axis=0)) / x.std()
    against_others(x, rounds)
    against_frames(x, rounds)
    against_beads(rounds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

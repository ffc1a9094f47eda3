"""The order of a trained model's latents: slow ones first, and last those that carry nothing."""

import equinox as eqx
import jax
import numpy as np

from polyvae.batches import map_frames
from polyvae.vae.network import VAE, Dense

ACTIVE = 0.01  # variance of the mean above which a latent counts as active (Burda et al., arXiv:1509.00519)
MAX_PAIRS = 100_000

_means = eqx.filter_jit(lambda vae, rows: jax.vmap(lambda row: vae.encode(row)[0])(rows))


def ordered_by_slowness(
    vae: VAE, x: np.ndarray, rows: np.ndarray, pairs: np.ndarray, lag: int
) -> tuple[VAE, list[int]]:
    """The same model with its latents in order of their correlation with themselves a lag later, active ones
    first; and the numbers, in that order, of those that are not active.

    Without pairs, the order is that of their variance.

    Args:
        x: (n_frames, n_features), scaled.
        rows: numbers of the training frames; pairs: of those that have another one `lag` frames later. Evenly
            spaced ones of both are used.
    """
    rows, pairs = (chosen[:: -(-len(chosen) // MAX_PAIRS) or 1] for chosen in (rows, pairs))
    spread = _encoded(vae, x, rows).var(axis=0)
    slowness = spread
    if len(pairs) > 2:
        now, then = (_encoded(vae, x, pairs + shift) for shift in (0, lag))
        now, then = now - now.mean(axis=0), then - then.mean(axis=0)
        norms = np.sqrt((now**2).sum(axis=0) * (then**2).sum(axis=0))
        slowness = (now * then).sum(axis=0) / np.where(norms > 0, norms, 1)
    active = spread > ACTIVE
    order = np.lexsort((-slowness, ~active))
    return reordered(vae, order), np.flatnonzero(~active[order]).tolist()


def _encoded(vae: VAE, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return map_frames(lambda chunk: _means(vae, chunk), np.asarray(x[rows], np.float32)).astype(np.float64)


def reordered(vae: VAE, order: np.ndarray) -> VAE:
    """The model whose latent k is this one's latent `order[k]`; where some are left out, the decoder sees 0 of
    them.

    q(z|x) of those that stay is what it was.
    """
    out, into = vae.encoder.layers[-1], vae.decoder.layers[0]
    assert out.bias is not None
    both = np.concatenate([order, vae.latent_dim + order])
    shaped = VAE(
        _inputs(vae.encoder),
        latent_dim=len(order),
        encoder=_hidden(vae.encoder),
        decoder=_hidden(vae.decoder),
        likelihood=vae.likelihood,
        key=jax.random.key(0),
    )

    changed = eqx.tree_at(
        lambda model: (
            model.encoder.layers[-1].weight,
            model.encoder.layers[-1].bias,
            model.decoder.layers[0].weight,
        ),
        vae,
        (out.weight[both], out.bias[both], into.weight[:, order]),
    )
    return jax.tree.unflatten(jax.tree.structure(shaped), jax.tree.leaves(changed))


def _inputs(network: Dense) -> int:
    """Numbers that a network takes."""
    return network.layers[0].weight.shape[1]


def _hidden(network: Dense) -> tuple[int, ...]:
    """Widths of its hidden layers."""
    return tuple(layer.weight.shape[0] for layer in network.layers[:-1])

"""The order of a trained model's latents: slow ones first, inactive ones last."""

import equinox as eqx
import jax
import numpy as np

from polyvae.batches import map_frames
from polyvae.vae.network import VAE

ACTIVE = 0.01  # variance of the mean above which a latent counts as active (Burda et al., arXiv:1509.00519)
MAX_PAIRS = 100_000

_means = eqx.filter_jit(lambda vae, rows: jax.vmap(lambda row: vae.encode(row)[0])(rows))


def order_by_slowness(
    vae: VAE, x: np.ndarray, rows: np.ndarray, pairs: np.ndarray, lag: int
) -> tuple[VAE, list[int]]:
    """Order the latents by their correlation with themselves a lag later, inactive ones last.

    Returns the model and the numbers, in the new order, of the inactive latents. `rows` are the training frames,
    `pairs` those with another one `lag` frames later, at most `MAX_PAIRS` evenly spaced ones of each. Without
    pairs, latents are ordered by their variance.
    """
    rows = rows[:: max(1, -(-len(rows) // MAX_PAIRS))]
    pairs = pairs[:: max(1, -(-len(pairs) // MAX_PAIRS))]
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
    """The model whose latent k is this one's latent `order[k]`; the decoder sees 0 of those that are left out.

    q(z|x) of the latents that stay does not change.
    """
    encoder, decoder = vae.encoder.layers, vae.decoder.layers
    assert encoder[-1].bias is not None
    both = np.concatenate([order, vae.latent_dim + order])
    changed = eqx.tree_at(
        lambda model: (
            model.encoder.layers[-1].weight,
            model.encoder.layers[-1].bias,
            model.decoder.layers[0].weight,
        ),
        vae,
        (encoder[-1].weight[both], encoder[-1].bias[both], decoder[0].weight[:, order]),
    )
    # The numbers of inputs and outputs are static parts of a layer, and change with the number of latents.
    shaped = VAE(
        encoder[0].weight.shape[1],
        latent_dim=len(order),
        encoder=[len(layer.weight) for layer in encoder[:-1]],
        decoder=[len(layer.weight) for layer in decoder[:-1]],
        likelihood=vae.likelihood,
        key=jax.random.key(0),
    )
    return jax.tree.unflatten(jax.tree.structure(shaped), jax.tree.leaves(changed))

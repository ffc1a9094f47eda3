"""Compiled functions over many frames, in batches of one fixed size."""

import functools
from collections.abc import Callable

import jax
import numpy as np

BATCH = 4096


def map_frames(batched: Callable, rows: np.ndarray, batch: int = BATCH):
    """A compiled, batched function over many rows, in chunks of one fixed size.

    One compilation and bounded memory; and since the shape is always the same, the result for a row does
    not depend, to the last bit, on how many rows come with it.
    """
    if len(rows) == 0:
        output = jax.eval_shape(batched, jax.ShapeDtypeStruct((0, *rows.shape[1:]), rows.dtype))
        return jax.tree.map(lambda a: np.empty(a.shape, a.dtype), output)
    outputs = []
    for start in range(0, len(rows), batch):
        piece = rows[start : start + batch]
        padding = [(0, batch - len(piece))] + [(0, 0)] * (rows.ndim - 1)
        output = batched(np.pad(piece, padding, mode="edge"))
        outputs.append(jax.tree.map(functools.partial(_head, n=len(piece)), output))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)


def _head(rows, n: int) -> np.ndarray:
    return np.asarray(rows)[:n]

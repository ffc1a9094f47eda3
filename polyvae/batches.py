"""Compiled functions over many frames, in batches of one fixed size."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np

BATCH = 4096  # rows at a time on a CPU
ACCELERATED = 16  # times as many on a GPU or TPU, which has little to do in small pieces
_NUMBERS = 1 << 22  # most numbers in a batch
_MADE = 1 << 24  # most numbers that are made of a batch
P = ParamSpec("P")
R = TypeVar("R")


def single_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with JAX in single precision in this thread, also where `jax_enable_x64` is set.

    Models, draws and numbers are then the same in a process that another package has switched to double precision.
    This is for functions of whole data sets. A pure function of one frame keeps the type of its argument, since it
    may be part of a program of the caller's.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        import jax  # modules that read files import this one for `BATCH`, and do without JAX

        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return run


@single_precision
def map_frames(batched: Callable, *columns: np.ndarray, batch: int = BATCH, width: int = 1):
    """Apply a compiled, batched function to many rows, in chunks of one fixed size, smaller for long rows.

    There is one compilation and bounded memory. Since the shape is always the same, the result for a row does not
    depend, to the last bit, on the number of rows.

    Args:
        batched: function of one array for each column, all with the same number of rows; it returns arrays with
            that number of rows.
        batch: most rows in a chunk on a CPU; an accelerator takes `ACCELERATED` times as many.
        columns: arrays of one length, row i of each belonging to row i of the others.
        width: numbers that the function makes of a row, where these are many, such as distances.
    """
    import jax

    n = len(columns[0])
    if n == 0:
        output = jax.eval_shape(batched, *(jax.ShapeDtypeStruct((0, *c.shape[1:]), c.dtype) for c in columns))
        return jax.tree.map(lambda a: np.empty(a.shape, a.dtype), output)
    row = max(1, sum(column[0].size for column in columns))
    times = 1 if jax.default_backend() == "cpu" else ACCELERATED
    batch = max(1, min(times * batch, times * _NUMBERS // row, times * _MADE // width))
    outputs = []
    for start in range(0, n, batch):
        pieces = [column[start : start + batch] for column in columns]
        output = batched(*(_fill_up(piece, batch) for piece in pieces))
        outputs.append(jax.tree.map(functools.partial(_head, n=len(pieces[0])), output))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)


def _fill_up(piece: np.ndarray, n: int) -> np.ndarray:
    """The rows, with the last one repeated until there are n."""
    return np.pad(piece, [(0, n - len(piece))] + [(0, 0)] * (piece.ndim - 1), mode="edge")


def _head(rows, n: int) -> np.ndarray:
    return np.asarray(rows)[:n]

"""Trajectories that come in chunks, and pieces of a trajectory put together."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from polyvae.arguments import function, if_given, statistical_weights, text, whole_number
from polyvae.errors import InputError
from polyvae.trajectory.record import Trajectory


class Stream:
    """A trajectory as a row of chunks, each a `Trajectory`, that need not fit into memory together.

    Iterating starts at the first frame, every time. `len(stream)` is the number of frames. A chunk whose
    `continues` is not 0 continues the chunk before it: pairs of neighbouring frames in time (lagged pairs, counts
    of jumps) may join the two.

    Args:
        chunks: called without arguments, gives an iterator of the chunks from the first on.
        n_frames: how many frames they hold together.
        about: what the repr says of where they come from.
        elsewhere: `apply`, where chunks are read by other processes.
    """

    def __init__(
        self,
        chunks: Callable[[], Iterator[Trajectory]],
        n_frames: int,
        about: str = "",
        elsewhere: Callable[..., Iterator] | None = None,
    ):
        self._chunks, self._about = function("chunks", chunks), text("about", about)
        self.n_frames = whole_number("n_frames", n_frames, 0)
        self._elsewhere = if_given(function, "elsewhere", elsewhere)

    def apply(self, measure: Callable, *arguments) -> Iterator:
        """`measure(chunk, first_frame, *arguments)` of each chunk, in order, made where the chunk is read.

        `measure` must be a function at the top of a module.
        """
        if self._elsewhere is not None:
            yield from self._elsewhere(measure, *arguments)
            return
        first = 0
        for chunk in self:
            yield measure(chunk, first, *arguments)
            first += len(chunk)

    def __iter__(self) -> Iterator[Trajectory]:
        return self._chunks()

    def __len__(self) -> int:
        return self.n_frames

    def __repr__(self):
        return f"<Stream: {self.n_frames} frames{self._about}>"


def weighted(data: Any, weights: np.ndarray) -> Any:
    """The same frames, a `Trajectory` or a `Stream`, with statistical weights, (n_frames,)."""
    if isinstance(data, Trajectory):
        return dataclasses.replace(data, weights=statistical_weights(weights, len(data)))
    weights = statistical_weights(weights, len(data))

    def chunks() -> Iterator[Trajectory]:
        n = 0
        for chunk in data:
            yield dataclasses.replace(chunk, weights=weights[n : n + len(chunk)], part=True)
            n += len(chunk)

    return Stream(chunks, len(data), ", weighted")


def whole(pieces: list[Trajectory]) -> Trajectory:
    """`concatenate` of all pieces of a run; its weights must not all be 0."""
    joined = concatenate(pieces)
    if joined.weights is not None:
        return dataclasses.replace(joined, part=False)
    joined = copy.copy(joined)  # nothing else changes, and positions need no second check
    object.__setattr__(joined, "part", False)
    return joined


def concatenate(pieces: list[Trajectory], positions: np.ndarray | None = None) -> Trajectory:
    """One trajectory of pieces of the same beads, in the unit of the first, such as the chunks of a stream.

    Segments are kept; where a piece `continues` the one before it, theirs become one. With `positions`, those of
    all pieces in one array, their order is kept: pieces of several molecules stay segments of their own.
    """
    first = pieces[0]
    if len(pieces) == 1:
        return first
    pieces = [piece.to_unit(first.length_unit) for piece in pieces]
    weighted = [piece.weights is not None for piece in pieces]
    if any(weighted) and not all(weighted):
        raise InputError(
            f"piece {weighted.index(False)} holds no weights, piece {weighted.index(True)} does; give all or none"
        )
    segments, order = joined_segments(
        [(piece.segments, piece.continues) for piece in pieces], keep_order=positions is not None
    )

    def joined(name):
        values = [getattr(piece, name) for piece in pieces]
        return None if any(value is None for value in values) else np.concatenate(values)[order]

    return dataclasses.replace(
        first,
        positions=joined("positions") if positions is None else positions,
        segments=segments,
        part=True,
        **{name: joined(name) for name in ("time", "box", "weights", "origin")},
    )


def joined_segments(
    pieces: list[tuple[tuple[int, ...], int]], *, keep_order: bool = False
) -> tuple[tuple[int, ...], np.ndarray | slice]:
    """Segments of pieces (`segments` and `continues` of each), and the order of frames that makes them whole.

    With `keep_order` segments stay apart that only another order would join.
    """
    parts: list[list[range]] = []  # of each segment, the rows of all pieces that it is made of
    n = 0
    for segments, continues in pieces:
        ends = n + np.cumsum(segments)
        rows = [range(end - length, end) for end, length in zip(ends, segments, strict=True)]
        going_on = continues if continues <= (min(len(parts), 1) if keep_order else len(parts)) else 0
        for part, more in zip(parts[len(parts) - going_on :], rows, strict=False):
            part.append(more)
        parts += [[row] for row in rows[going_on:]]
        n += sum(segments)
    # Only of several molecules, which take turns in every chunk, do rows change places.
    moved = not keep_order and any(continues > 1 for _, continues in pieces[1:])
    order = np.concatenate([row for part in parts for row in part]) if moved else slice(None)
    return tuple(sum(map(len, part)) for part in parts), order

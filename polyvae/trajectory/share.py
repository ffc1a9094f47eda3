"""The part of a run that this process holds, where several train together (`jax.distributed`).

Every process does the same with its own part, and what concerns all frames is put together here: sums, largest
values, and picked rows, in the order of the processes, so that all of them get the same bits. One process alone
holds all, and nothing is sent.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from polyvae.errors import InputError

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Share:
    """Rows that lie on several processes, one process after another.

    Args:
        counts: rows on each.
        process: which of them this is.
    """

    counts: tuple[int, ...]
    process: int = 0

    n = property(lambda self: sum(self.counts), doc="Rows on all processes.")
    start = property(lambda self: sum(self.counts[: self.process]), doc="The number of the first row here.")
    several = property(lambda self: len(self.counts) > 1, doc="Whether there is more than one process.")

    def of(self, n: int) -> "Share":
        """Other rows, of which `n` lie here."""
        return dataclasses.replace(self, counts=tuple(self.gathered(np.asarray(n)).tolist()))

    def here(self, rows):
        """The rows of this process, of what holds those of all."""
        return rows[self.start : self.start + self.counts[self.process]]

    def every(self, step: int) -> slice:
        """Which rows here belong to every `step`-th row of all, counted from the first."""
        return slice(-self.start % step, None, step)

    def total(self, value):
        """The sum of an array, or a number, over the processes."""
        return self.gathered(np.asarray(value)).sum(axis=0) if self.several else value

    def largest(self, value):
        """The largest value of an array, or a number, over the processes."""
        return self.gathered(np.asarray(value)).max(axis=0) if self.several else value

    def joined(self, rows: np.ndarray) -> np.ndarray:
        """The rows of all processes, of an array with any number of them here."""
        if not self.several:
            return rows
        counts = self.of(len(rows)).counts
        filled = np.zeros((max(counts), *rows.shape[1:]), rows.dtype)
        filled[: len(rows)] = rows
        return np.concatenate([part[:n] for part, n in zip(self.gathered(filled), counts, strict=True)])

    def told(self, value) -> list:
        """What each process says, as JSON holds it."""
        text = np.frombuffer(json.dumps(value).encode(), np.uint8)
        lengths = self.of(len(text)).counts
        ends = np.cumsum(lengths)
        words = self.joined(text).tobytes()
        return [json.loads(words[end - n : end]) for end, n in zip(ends, lengths, strict=True)]

    def gathered(self, value: np.ndarray) -> np.ndarray:
        """An array of one shape on all processes, (n_processes, ...)."""
        if not self.several:
            return value[None]
        from jax.experimental.multihost_utils import process_allgather

        # As bytes: JAX would make single precision of double. Of few lengths: each is compiled.
        n_bytes = value.nbytes
        sent = np.zeros(1 << (n_bytes - 1).bit_length() if n_bytes > 64 else 64, np.uint8)
        sent[:n_bytes] = np.frombuffer(value.tobytes(), np.uint8)
        found = np.asarray(process_allgather(sent))[:, :n_bytes]
        return np.frombuffer(found.tobytes(), value.dtype).reshape(len(self.counts), *value.shape)

    def agree(self, facts: dict) -> None:
        """Refuse facts that are not the same on all processes; the first one that differs is named."""
        told = self.told(facts)
        for k, others in enumerate(told):
            for name, value in told[0].items():
                if others[name] != value:
                    raise InputError(
                        f"{name} must be the same on all processes; "
                        f"process 0 has {value}, process {k} {others[name]}"
                    )

    def together(self, work: Callable[[], Result]) -> Result:
        """What `work` gives here; where it is refused on one process, all are told, and none waits for it."""
        if not self.several:
            return work()
        result: Any = None
        error: InputError | OSError | None = None
        try:
            result = work()
        except (InputError, OSError) as caught:
            error = caught
        for k, words in enumerate(self.told(None if error is None else str(error))):
            if words is not None:
                raise error or InputError(f"process {k}: {words}")
        return result


def alone(n: int) -> Share:
    """All of n rows, on this process."""
    return Share((n,))


def among_processes(n: int) -> Share:
    """`n` rows here, and others on the other processes of `jax.distributed`; all of them call this."""
    return Share((0,) * jax.process_count(), jax.process_index()).of(n)


def divided(sizes: list[int], n_parts: int) -> list[range]:
    """Numbers of things of such sizes in runs, one a part, each with one at least, that weigh about the same."""
    if len(sizes) < n_parts:
        raise InputError(
            f"{n_parts} processes need a file each, at least; got {len(sizes)}. Start fewer, or split the files"
        )
    ends = np.cumsum(sizes)
    cuts = [0]
    for k in range(1, n_parts):
        nearest = int(np.argmin(np.abs(ends - ends[-1] * k / n_parts))) + 1
        cuts.append(min(max(nearest, cuts[-1] + 1), len(sizes) - (n_parts - k)))
    return [range(a, b) for a, b in zip(cuts, [*cuts[1:], len(sizes)], strict=True)]

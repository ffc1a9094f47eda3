"""Unfinished training runs on disk: all that is needed to continue with the same bits."""

import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import safetensors
from jaxtyping import Array

from polyvae.errors import InputError
from polyvae.files import save_tensors
from polyvae.records import json_object

_EVERY = 1.0  # seconds between two files; writing one takes milliseconds


class Checkpoint:
    """The file of an unfinished run. It stays when the run is finished, since the model is not saved yet.

    `identity` is all that decides the result: settings, data fingerprint, versions. With `resume` the run
    continues from the file if it exists. `InputError` for a file of another run, a damaged one, or one that would
    be lost.
    """

    def __init__(self, path: str | os.PathLike, identity: dict, *, resume: bool):
        self.path, self._identity, self._last = Path(path), json.dumps(identity, sort_keys=True), 0.0
        self.saved = self._load() if resume and self.path.exists() else None
        if not resume and self.path.exists():
            raise InputError(
                f"{path} holds an unfinished run; continue it (--resume, resume=True), or remove it (--force) "
                f"to start over"
            )

    def save(self, leaves: list, table: np.ndarray, last: bool) -> None:
        """Write the state after an epoch, once a second and at the end; the file appears whole or not at all."""
        if time.monotonic() - self._last < _EVERY and not last:
            return
        tensors = {f"state.{k:04d}": leaf for k, leaf in enumerate(leaves)}
        save_tensors(self.path, tensors | {"history": table}, {"polyvae-run": self._identity})
        self._last = time.monotonic()

    def _load(self) -> tuple[list[np.ndarray], np.ndarray]:
        try:
            with safetensors.safe_open(self.path, framework="numpy") as file:
                identity = (file.metadata() or {}).get("polyvae-run")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            table = tensors.pop("history")
        except (safetensors.SafetensorError, KeyError, OSError) as error:
            raise InputError(
                f"{self.path} is not an unfinished run ({error}); remove it and train from the beginning"
            ) from None
        if identity != self._identity:
            there = json_object(identity or "{}", self.path, "remove it and train from the beginning")
            raise InputError(
                f"{self.path} is an unfinished run with other {_difference(there, json.loads(self._identity))}; "
                f"give the same to continue it, or remove it to start over"
            )
        return [tensors[name] for name in sorted(tensors)], table


def _difference(there: dict, here: dict) -> str:
    names = [name for name in sorted({*there, *here}) if there.get(name) != here.get(name)]
    words = {"inputs": "data, weights, segments, features or likelihood"}
    return ", ".join(words.get(n, f"{n} ({there.get(n)} there, {here.get(n)} here)") for n in names)


def digest(*arrays: np.ndarray | Array | None) -> str:
    """SHA-256 of arrays, computed in pieces so that arrays on disk stay there."""
    found = hashlib.sha256()
    for array in arrays:
        if array is None:
            continue
        for start in range(0, max(1, len(array)), 1 << 16):
            found.update(np.ascontiguousarray(array[start : start + (1 << 16)]).data)
    return found.hexdigest()


def digest_if_any(array: np.ndarray | None) -> str | None:
    """SHA-256 of an array; None without one."""
    if array is None:
        return None
    return digest(array)

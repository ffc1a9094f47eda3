"""Compiled programs that a second call of the command line finds on disk."""

import hashlib
import os
import platform
import sys
import warnings
from pathlib import Path

_MOST = 256_000_000  # bytes; a call of `run` adds some three million
_SECONDS = "0.05"  # programs that compile faster are not worth a file


def keep_programs() -> None:
    """Let JAX keep compiled programs in the user's cache folder.

    JAX distinguishes versions and options by itself, but not processors, and a home folder may serve several: a
    program for another one would end in an illegal instruction. So each kind of processor has a folder.
    A folder of the user's own in `JAX_COMPILATION_CACHE_DIR` stays. Where no folder can be made, nothing is kept.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or "jax" in sys.modules:
        return
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = cache / "polyvae" / f"programs-{_processor()}"
        folder.mkdir(parents=True, exist_ok=True)
        _remove_oldest(folder)
    except (OSError, RuntimeError):  # read-only, full, or no home
        return
    # A file that a killed process left half-written is compiled anew, as is one that a full disk does not take.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", _SECONDS)


def _processor() -> str:
    """Short name of the instructions that this processor has."""
    text = f"{platform.machine()} {platform.processor()}"
    info = Path("/proc/cpuinfo")
    if info.exists():
        kept = ("flags", "model name", "Features", "CPU part")
        text += "".join(sorted({line for line in info.read_text().splitlines() if line.startswith(kept)}))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _remove_oldest(folder: Path) -> None:
    """Remove the oldest half of the programs where they take more than `_MOST` bytes."""
    found = [(path.stat(), path) for path in folder.iterdir()]
    if sum(status.st_size for status, _ in found) <= _MOST:
        return
    found.sort(key=lambda entry: entry[0].st_mtime)
    for _, path in found[: (len(found) + 1) // 2]:
        path.unlink(missing_ok=True)

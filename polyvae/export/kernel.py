"""The CV's C code compiled here and now, and called from Python."""

import contextlib
import ctypes
import functools
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

from polyvae.errors import InputError
from polyvae.export.grid_bias import GridBias
from polyvae.files import temporary_folder
from polyvae.io import processes

log = logging.getLogger(__name__)

# Fast math is taken back where CC= asks for it: a library of it changes how the whole process rounds.
FLAGS = ("-O3", "-march=native", "-fno-fast-math", "-ffp-contract=fast", "-fPIC", "-shared")


class Kernel(NamedTuple):
    """Functions of a compiled model, all in float64 and in its length unit. They may run in several threads.

    Args:
        one: positions (n_beads, n_dims), and a factor that turns them into the model's unit, 1 by default, to
            latents (latent_dim,) and gradients (latent_dim, n_beads, n_dims) by the positions as given.
        frames: `one` for (n_frames, n_beads, n_dims); also the first frame whose latents are not finite, or -1.
            With `gradients=False` there are None.
        whole: positions (n_beads, n_dims) and box (n_dims, n_dims), both contiguous, to whole positions, and
            whether every bond is then clearly shorter than half the box.
        pushed: positions (n_beads, n_dims), a factor as for `one`, and a `GridBias`, to its energy, which it keeps
            beside latents as its own call does, and what it adds to the forces (n_beads, n_dims).
        fix_call: address of `latent_fix_call`, for LAMMPS.
    """

    one: Callable
    frames: Callable
    whole: Callable
    pushed: Callable
    fix_call: int


def named(variable: str, *defaults: str) -> list[str]:
    """The command of a compiler: the words of an environment variable, else the first default that is installed.

    Raises:
        InputError: what the variable names is not installed, or none of the defaults is.
    """
    text = os.environ.get(variable, "").strip()
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"{variable} must be a command; got {text!r}: {error}") from None
    if words:
        if shutil.which(words[0]) is None:
            raise InputError(f"{variable} names {words[0]}, which is not installed; name another, or unset it")
        return words
    for name in defaults:
        if shutil.which(name):
            return [name]
    raise InputError(f"there is no compiler: install {' or '.join(defaults[-2:])}, or name one by {variable}=")


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """A temporary folder to compile in, removed in the end; `InputError` where it cannot hold programs."""
    try:
        with temporary_folder() as folder:
            yield folder
    except OSError as error:
        raise InputError(
            f"what is compiled in {tempfile.gettempdir()} cannot be used: {error}. Set TMPDIR to a folder that "
            f"may hold programs"
        ) from None


def run(command: list[str], folder: Path | None = None) -> None:
    """Run a compiler, in a folder; `InputError` with its first error where it fails."""
    try:
        done = processes.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    except OSError as error:
        raise InputError(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        lines = done.stderr.splitlines()
        first = next((line for line in lines if "error" in line), lines[0] if lines else "it gives no reason")
        raise InputError(f"{command[0]} failed: {first.strip()}")


@functools.cache
def compiler() -> tuple[str, ...] | None:
    """The command of a C compiler whose programs run here, see `named`; None, and a log entry, without one."""
    try:
        words = named("CC", "cc", "gcc", "clang")
        with workshop() as folder:
            (folder / "try.c").write_text("int answer(void);\nint answer(void) { return 42; }\n")
            run([*words, *FLAGS, "try.c", "-o", "try.so"], folder)
            if ctypes.CDLL(str(folder / "try.so")).answer() != 42:
                raise InputError(f"{words[0]} compiles wrongly")
    except InputError as error:
        log.warning("the CV runs in JAX, slower than as C: %s", error)
        return None
    return tuple(words)


def where() -> str:
    """How a CV is computed in a Python process: "as C, compiled by gcc", or "in JAX, ..."."""
    command = compiler()
    return "in JAX, slower, for want of a C compiler" if command is None else f"as C, compiled by {command[0]}"


def compiled(source: Path, sizes: tuple[int, int, int]) -> Kernel:
    """An exported `latent_cv.c` as functions. What the compiler writes goes to a temporary folder and is removed.

    Args:
        sizes: beads, dimensions and latents that the code must have.

    Raises:
        InputError: no C compiler; code that does not compile, or of other sizes.
    """
    command = compiler() or named("CC", "cc", "gcc", "clang")
    with workshop() as folder:
        more = (resources.files("polyvae.export") / "c_files" / "in_process.c").read_text()
        (folder / "in_process.c").write_text(f'#include "latent_cv.c"\n{more}')
        library = folder / "latent_cv.so"
        flags = ["-std=c99", *FLAGS, f"-I{source.absolute().parent}"]
        run([*command, *flags, "in_process.c", "-o", library.name, "-lm"], folder)
        code = ctypes.CDLL(str(library))
    found = tuple((ctypes.c_int * 3).in_dll(code, "latent_cv_sizes"))
    if found != sizes:
        raise InputError(
            "the code takes {} beads in {}-D and gives {} latents, ".format(*found)
            + "the model {}, {} and {}; export it again".format(*sizes)
        )
    return _functions(code, sizes)


def _functions(code: ctypes.CDLL, sizes: tuple[int, int, int]) -> Kernel:
    n_beads, n_dims, n_latents = sizes
    pointer = ctypes.c_void_p
    code.latent_cv.argtypes = [pointer] * 3
    code.latent_cv_whole.argtypes = [pointer] * 3
    code.latent_cv_frames.argtypes = [ctypes.c_long, *[pointer] * 3]
    code.latent_cv_frames.restype = ctypes.c_long

    code.latent_cv_pushed.argtypes = [ctypes.c_double, *[pointer] * 6]
    # To ask numpy for an address takes as long as to compute a latent: each thread keeps arrays and asks once.
    rooms = threading.local()

    def room() -> tuple:
        arrays = np.empty((n_beads, n_dims)), np.empty(n_latents), np.empty((n_latents, n_beads, n_dims))
        rooms.found = (*arrays, tuple(pointer(array.ctypes.data) for array in arrays))
        return rooms.found

    def pushing(bias: GridBias) -> tuple:
        x, z, energies, push = (np.empty(shape) for shape in ((n_beads, n_dims), n_latents, 2, (n_beads, n_dims)))
        pointers = [pointer(array.ctypes.data) for array in (x, bias.values, bias.axes, z, energies, push)]
        rooms.pushing = bias, x, z, energies, push, pointers
        return rooms.pushing

    def one(positions: np.ndarray, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        try:
            x, z, gradients, pointers = rooms.found
        except AttributeError:
            x, z, gradients, pointers = room()
        np.multiply(positions, factor, out=x)
        code.latent_cv(*pointers)
        return z.copy(), gradients * factor

    def pushed(positions: np.ndarray, factor: float, bias: GridBias) -> tuple[float, np.ndarray]:
        kept = getattr(rooms, "pushing", (None,))
        _, x, z, energies, push, pointers = kept if kept[0] is bias else pushing(bias)
        x[:] = positions
        code.latent_cv_pushed(factor, *pointers)
        table, walls = energies.tolist()
        bias.last = z.copy(), table, walls
        return table + walls, push.copy()

    def frames(positions: np.ndarray, gradients: bool = True) -> tuple[np.ndarray, np.ndarray | None, int]:
        positions = np.ascontiguousarray(positions, np.float64)
        z = np.empty((len(positions), n_latents))
        slopes = np.empty((len(positions), n_latents, n_beads, n_dims)) if gradients else None
        slopes_data = None if slopes is None else slopes.ctypes.data
        bad = code.latent_cv_frames(len(positions), positions.ctypes.data, z.ctypes.data, slopes_data)
        return z, slopes, bad

    def whole(positions: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, bool]:
        result = np.empty_like(positions)
        status = code.latent_cv_whole(positions.ctypes.data, box.ctypes.data, result.ctypes.data)
        return result, status == 0

    address = ctypes.cast(code.latent_fix_call, pointer).value
    assert address is not None
    return Kernel(one, frames, whole, pushed, address)

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
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np

from polyvae.errors import InputError
from polyvae.export.grid_bias import GridBias
from polyvae.files import temporary_folder
from polyvae.io import processes

log = logging.getLogger(__name__)

_POINTER = ctypes.c_void_p

# Fast math is taken back where CC= asks for it: a library of it changes how the whole process rounds.
FLAGS = ("-O3", "-march=native", "-fno-fast-math", "-ffp-contract=fast", "-fPIC", "-shared")


class Kernel:
    """Functions of a compiled model, all in float64 and in its length unit. They may run in several threads.

    Args:
        code: the library.
        sizes: beads, dimensions and latents.

    Attributes:
        fix_call: address of `latent_fix_call`, for LAMMPS.
    """

    def __init__(self, code: ctypes.CDLL, sizes: tuple[int, int, int]):
        self.n_beads, self.n_dims, self.n_latents = sizes
        for function in (code.latent_cv, code.latent_cv_whole):
            function.argtypes = [_POINTER] * 3
        code.latent_cv_frames.argtypes = [ctypes.c_long, *[_POINTER] * 3]
        code.latent_cv_frames.restype = ctypes.c_long
        code.latent_cv_pushed.argtypes = [ctypes.c_double, *[_POINTER] * 6]
        self._code = code
        # To ask numpy for an address takes as long as to compute a latent: each thread keeps arrays and asks once.
        self._kept = threading.local()
        self.fix_call = ctypes.cast(code.latent_fix_call, _POINTER).value

    def one(self, positions: np.ndarray, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Return latents (latent_dim,), and gradients (latent_dim, n_beads, n_dims) by the positions as given.

        Args:
            positions: (n_beads, n_dims).
            factor: turns them into the model's unit.
        """
        try:
            x, z, gradients, pointers = self._kept.one
        except AttributeError:
            x, z = np.empty((self.n_beads, self.n_dims)), np.empty(self.n_latents)
            gradients = np.empty((self.n_latents, self.n_beads, self.n_dims))
            pointers = _pointers(x, z, gradients)
            self._kept.one = x, z, gradients, pointers
        np.multiply(positions, factor, out=x)
        self._code.latent_cv(*pointers)
        return z.copy(), gradients * factor

    def pushed(self, positions: np.ndarray, factor: float, bias: GridBias) -> tuple[float, np.ndarray]:
        """Return the energy of a bias, and its force (n_beads, n_dims) on positions; `bias.last` is set."""
        kept: tuple = getattr(self._kept, "pushed", (None,))
        if kept[0] is not bias:
            x, push = np.empty((2, self.n_beads, self.n_dims))
            z, energies = np.empty(self.n_latents), np.empty(2)
            kept = bias, x, z, energies, push, _pointers(x, bias.values, bias.axes, z, energies, push)
            self._kept.pushed = kept
        _, x, z, energies, push, pointers = kept
        x[:] = positions
        self._code.latent_cv_pushed(factor, *pointers)
        table, walls = energies.tolist()
        bias.last = z.copy(), table, walls
        return table + walls, push.copy()

    def frames(self, positions: np.ndarray, gradients: bool = True) -> tuple[np.ndarray, np.ndarray | None, int]:
        """Return `one` of frames (n_frames, n_beads, n_dims), and the first whose latents are not finite, or -1.

        Gradients are None where they are not wanted.
        """
        positions = np.ascontiguousarray(positions, np.float64)
        z, slopes, address = np.empty((len(positions), self.n_latents)), None, None
        if gradients:
            slopes = np.empty((*z.shape, self.n_beads, self.n_dims))
            address = slopes.ctypes.data
        bad = self._code.latent_cv_frames(len(positions), positions.ctypes.data, z.ctypes.data, address)
        return z, slopes, bad

    def whole(self, positions: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, bool]:
        """Return whole positions (n_beads, n_dims), and whether every bond is then clearly shorter than half a box
        (n_dims, n_dims). Both arrays must be contiguous."""
        result = np.empty_like(positions)
        return result, self._code.latent_cv_whole(*_pointers(positions, box, result)) == 0


def _pointers(*arrays: np.ndarray) -> list[ctypes.c_void_p]:
    return [_POINTER(array.ctypes.data) for array in arrays]


def find_compiler(variable: str, *defaults: str) -> list[str]:
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
    """Return the command of a C compiler whose programs run here; None, and a log entry, without one."""
    try:
        words = find_compiler("CC", "cc", "gcc", "clang")
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


def compile_source(source: Path, sizes: tuple[int, int, int]) -> Kernel:
    """An exported `latent_cv.c` as functions. What the compiler writes goes to a temporary folder and is removed.

    Args:
        sizes: beads, dimensions and latents that the code must have.

    Raises:
        InputError: no C compiler; code that does not compile, or of other sizes.
    """
    command = compiler() or find_compiler("CC", "cc", "gcc", "clang")
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
    return Kernel(code, sizes)

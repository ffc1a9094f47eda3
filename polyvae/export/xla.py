"""The compiled kernel inside JAX programs, as PySAGES makes them: an XLA call with its derivative.

Source: the documentation of JAX, https://docs.jax.dev (foreign function interface, `jax.custom_jvp`).
"""

import ctypes
import hashlib
import logging
from collections.abc import Callable
from importlib import resources

import jax
import jax.numpy as jnp

from polyvae.cv.latent import LatentCV, latent_cv
from polyvae.errors import InputError
from polyvae.export import kernel
from polyvae.export.c import write_sources
from polyvae.export.common import atom_numbers

log = logging.getLogger(__name__)
_SOURCE = "latent_xla.cpp"
_registered: dict[str, object] = {}  # calls by name, in this process


def latent_function(cv: LatentCV) -> Callable:
    """A pure function from positions (n_beads, n_dims) to latents (latent_dim,), for `jax.jit`, `jax.vmap` and one
    derivative, by the compiled kernel: several times faster than `cv` itself for a frame at a time.

    On a CPU and in float64; on other devices, in float32 and without a C++ compiler it is the CV in JAX.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
    """
    function = latent_cv(cv).function()

    def in_jax(positions):
        return function.posterior(positions)[0]

    try:
        name = _register(cv)
    except InputError as error:
        log.warning("the CV runs in JAX, slower than as C: %s", error)
        return in_jax

    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float64)
        for shape in ((cv.latent_dim,), (cv.latent_dim, cv.n_beads, cv.n_dims))
    ]

    def with_gradients(positions):
        return jax.lax.platform_dependent(
            positions,
            cpu=lambda x: tuple(jax.ffi.ffi_call(name, shapes, vmap_method="broadcast_all")(x)),
            default=lambda x: (in_jax(x), jax.jacrev(in_jax)(x)),
        )

    @jax.custom_jvp
    def by_kernel(positions):
        return with_gradients(positions)[0]

    @by_kernel.defjvp
    def _(primals, tangents):
        z, gradients = with_gradients(*primals)
        return z, jnp.tensordot(gradients, tangents[0], 2)

    def latents(positions):
        positions = jnp.asarray(positions)
        if positions.shape != (cv.n_beads, cv.n_dims):
            raise InputError(
                f"one frame must have shape ({cv.n_beads}, {cv.n_dims}); got {positions.shape}. Use jax.vmap for "
                f"many"
            )
        return by_kernel(positions) if positions.dtype == jnp.float64 else in_jax(positions)

    return latents


def _register(cv: LatentCV) -> str:
    """Compile the call and make it known to JAX; its name."""
    command = kernel.named("CXX", "g++", "clang++")
    with kernel.workshop() as place:
        write_sources(cv, place, atom_numbers(cv))
        text = b"".join(path.read_bytes() for path in sorted(place.iterdir()))
        name = f"polyvae_latent_cv_{hashlib.sha256(text).hexdigest()}"
        if name in _registered:
            return name
        source, library = place / _SOURCE, place / "latent_xla.so"
        source.write_bytes((resources.files("polyvae.export") / "c_files" / _SOURCE).read_bytes())
        include = f"-I{jax.ffi.include_dir()}"
        kernel.run([*command, "-std=c++17", *kernel.FLAGS, include, str(source), "-o", str(library)])
        call = ctypes.CDLL(str(library)).latent_cv_xla
    _registered[name] = call
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(call), platform="cpu")
    return name

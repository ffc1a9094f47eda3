"""The checker of array shapes and types that the tests run with: beartype, on what jaxtyping annotates.

Other arguments are left alone, for the package refuses bad ones itself, in its own words. A NumPy array will do
for a JAX array, as it does for JAX.
"""

import types
import typing

import jax
import jaxtyping
import numpy as np
from beartype import beartype

_KINDS = [jaxtyping.Float, jaxtyping.Int, jaxtyping.Bool]


def _is_of_arrays(hint) -> bool:
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(map(_is_of_arrays, typing.get_args(hint)))


def _of_either(hint):
    """The hint with NumPy arrays beside JAX arrays."""
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        (kind,) = (kind for kind in _KINDS if kind.dtypes == hint.dtypes)
        return kind[jax.Array | np.ndarray, hint.dim_str]
    if not _is_of_arrays(hint):
        return hint
    parts = tuple(map(_of_either, typing.get_args(hint)))
    origin = typing.get_origin(hint)
    return typing.Union[parts] if origin in (types.UnionType, typing.Union) else origin[parts]  # noqa: UP007


def checked(function):
    """The function with its arrays checked in every call; what has no annotated array is given back as it is."""
    hints = getattr(function, "__annotations__", {})
    if isinstance(function, type) or not any(map(_is_of_arrays, hints.values())):
        return function
    function.__annotations__ = {name: _of_either(hint) for name, hint in hints.items() if _is_of_arrays(hint)}
    try:
        return beartype(function)
    finally:
        function.__annotations__ = hints

"""Checks of arguments: each returns the value as the kind that is needed, or raises `InputError` with its name."""

import math
import operator
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from polyvae.errors import InputError

_SHOWN = 60  # letters of a value that a message repeats
LARGEST_SEED = 2**32 - 1
_NO_NUMBERS = (bool, np.bool_, str, bytes, np.ma.core.MaskedConstant)  # float() would accept them


def shown(value: Any) -> str:
    """A value in a few words, in one line."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and np.ndim(value):
        return f"an array of {value.dtype} of shape {tuple(value.shape)}"
    if isinstance(value, np.generic):
        value = value.item()
    text = " ".join(repr(value).split())
    if len(text) > _SHOWN:
        text = f"{text[: _SHOWN - 4]} ..."
    return text


def refusal(name: str, what: str, value: Any) -> InputError:
    """The error to raise: `name` must be `what`, and this came."""
    return InputError(f"{name} must be {what}; got {shown(value)}")


def whole_number(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """An integer, also one of NumPy, or a float without a fraction; a bool is refused."""
    if isinstance(value, (float, np.floating)) and value.is_integer():
        value = int(value)
    bounds = ""
    if least is not None:
        bounds = f", at least {least}"
        if most is not None:
            bounds = f" from {least} to {most}"
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise refusal(name, f"a whole number{bounds}", value) from None
    if (least is not None and number < least) or (most is not None and number > most):
        raise refusal(name, f"a whole number{bounds}", value)
    return number


def seed_number(value: Any) -> int:
    """A seed for JAX and for NumPy."""
    return whole_number("seed", value, 0, LARGEST_SEED)


def real_number(name: str, value: Any, *, least: float = -math.inf, above: float = -math.inf) -> float:
    """A finite number, not below `least`, and greater than `above`; a bool is refused."""
    bounds = ""
    if least > -math.inf:
        bounds = f", at least {least:g}"
    elif above > -math.inf:
        bounds = f" greater than {above:g}"
    try:
        if isinstance(value, _NO_NUMBERS):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise refusal(name, f"a number{bounds}", value) from None
    if not (math.isfinite(number) and number >= least and number > above):
        raise refusal(name, f"a finite number{bounds}", value)
    return number


def flag(name: str, value: Any) -> bool:
    """True or False; a word such as "no" would count as true."""
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, (int, np.integer)) and value in (0, 1)):
        return bool(value)
    raise refusal(name, "True or False", value)


def one_of(name: str, value: Any, known: Collection) -> Any:
    """A word, or another plain value, among those that are known."""
    if not isinstance(value, (str, int, np.integer, np.bool_, type(None))) or value not in known:
        raise refusal(name, f"one of {', '.join(map(str, known))}", value)
    return value


def function(name: str, value: Any) -> Callable:
    """Something to call."""
    if not callable(value):
        raise refusal(name, "a function", value)
    return value


def text(name: str, value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise refusal(name, "text", value)
    return value


def file_name(name: str, value: Any) -> str:
    """The name of a file or folder."""
    if not isinstance(value, (str, os.PathLike)):
        raise refusal(name, "the name of a file or folder", value)
    return os.fspath(value)


def if_given(check: Callable, name: str, value: Any, *bounds: Any) -> Any:
    """Check a value unless it is None."""
    if value is None:
        return None
    return check(name, value, *bounds)


def file_names(name: str, value: Any) -> list[str | os.PathLike]:
    """The names of files; one name alone is a list of one."""
    given = [value] if isinstance(value, (str, os.PathLike)) or not np.iterable(value) else list(value)
    for one in [value] if isinstance(value, Mapping) else given:
        file_name(name, one)
    return given


def functions(name: str, value: Any) -> dict[str, Callable]:
    """Functions by name; an empty dictionary for None."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) and callable(f) for key, f in value.items()):
        raise refusal(name, 'functions by name, such as {"rg": polyvae.radius_of_gyration}', value)
    return dict(value)


def is_array_like(value: Any) -> bool:
    """Whether NumPy makes an array of numbers of it, not one that holds a Python object."""
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        return True
    return isinstance(value, (Sequence, int, float)) and not isinstance(value, (str, bytes))


def without_mask(name: str, value: Any) -> Any:
    """Refuse masked entries: they mean missing values, and NumPy would read the numbers behind the mask."""
    if hidden := _masked(value):
        raise InputError(
            f"{name} must be known numbers; {hidden} of them are masked, which means missing. Leave out what they "
            f"belong to, or fill them in"
        )
    return value


def _masked(value: Any) -> int:
    """How many entries of an array, or of arrays in a list, are masked."""
    if isinstance(value, np.ma.MaskedArray):
        return int(np.ma.count_masked(value))
    if not isinstance(value, (list, tuple)):
        return 0
    return sum(_masked(one) for one in value if isinstance(one, (np.ma.MaskedArray, list, tuple)))


def numbers_array(name: str, value: Any, what: str, kind: Any = np.float64, *, finite: bool = True) -> np.ndarray:
    """An array of one kind of numbers; an integer type is made only from numbers without a fraction.

    Args:
        what: words for the required value, with its shape.
        kind: the type of the result; None leaves that of the array.
    """
    without_mask(name, value)
    try:
        array = np.asarray(value) if is_array_like(value) else None
    except (TypeError, ValueError):  # rows of unequal lengths
        array = None
    whole = kind is not None and np.issubdtype(kind, np.integer)
    allowed = "iuf" if whole or array is None or array.ndim == 0 else "iufb"
    if array is None or not (array.dtype.kind in allowed or array.size == 0):
        raise refusal(name, what, value)
    if whole and array.dtype.kind == "f" and not (array == np.rint(array)).all():
        raise refusal(name, what, value)
    if finite and not np.isfinite(array).all():
        raise InputError(f"{name} must be finite; got {array[~np.isfinite(array)][0]}")
    if kind is None:
        return array
    return array.astype(kind, copy=False)


def check_shape(name: str, value: Any, shape: Sequence[int | str], *, whole: bool = False) -> None:
    """Refuse anything but an array of numbers of this shape; a word in the shape allows any length.

    Only type and shape are looked at, since an array that JAX traces has no values.
    """
    without_mask(name, value)
    what = f"{'whole numbers' if whole else 'an array of numbers'} of shape ({', '.join(map(str, shape))})"
    array = value if hasattr(value, "dtype") and hasattr(value, "ndim") else numbers_array(name, value, what, None)
    good = array.ndim == len(shape) and all(
        isinstance(n, str) or n == size for n, size in zip(shape, array.shape, strict=True)
    )
    if not good or array.dtype.kind not in ("iu" if whole else "iuf") + "V":  # V: bfloat16 and the like
        raise refusal(name, what, value)


def one_frame(value: Any, name: str = "positions") -> Any:
    """The array of one frame (n_beads, n_dims); a list becomes an array."""
    if getattr(value, "ndim", 2) > 2:
        raise refusal(name, "one frame (n_beads, n_dims); jax.vmap goes over many", value)
    check_shape(name, value, ("n_beads", "n_dims"))
    if hasattr(value, "dtype"):
        return value
    return np.asarray(value)


def whole_numbers(name: str, value: Any, what: str, least: int | None = None) -> tuple[int, ...]:
    """A row of integers; `what` describes it in words."""
    array = numbers_array(name, value, what, None, finite=False)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise refusal(name, what, value)
    if least is not None and array.size and array.min() < least:
        raise refusal(name, what, value)
    return tuple(array.tolist())


def one_each(name: str, value: Any, n: int, per: str = "frame", *, finite: bool = True) -> np.ndarray:
    """One number for each of n frames, or of n things that `per` names."""
    what = f"one number a {per} for {n} {per}s, shape ({n},)"
    array = numbers_array(name, value, what, finite=False)
    if array.shape != (n,):
        raise refusal(name, what, value)
    if finite and not (good := np.isfinite(array)).all():
        raise InputError(f"{name} must be finite; entry {int(np.argmin(good))} is not")
    return array


def statistical_weights(value: Any, n_frames: int, *, part: bool = False) -> np.ndarray:
    """Weights (n_frames,), none negative, such as those that remove a bias.

    They must not all be 0, except for a `part` of the frames.
    """
    weights = one_each("weights", value, n_frames, finite=False)
    if not (good := np.isfinite(weights) & (weights >= 0)).all():
        frame = int(np.argmin(good))
        raise InputError(
            f"weights must be 0 or positive numbers; that of frame {frame} is {weights[frame]:g}. Give "
            f"exp(bias / kT), not the bias"
        )
    if not (part or weights.any()):
        raise InputError(
            f"weights must not all be 0; those of all {n_frames} frames are. Give exp((bias - max(bias)) / kT), "
            f"or no weights"
        )
    return weights


def segment_lengths(value: Any, n_frames: int) -> tuple[int, ...]:
    """Lengths of the pieces that are continuous in time: one piece where they are None."""
    if value is None:
        return (n_frames,)
    what = f"lengths, at least 1, that add up to {n_frames} frames"
    found = numbers_array("segments", value, what, np.int64, finite=False)
    if found.ndim != 1 or not found.size or found.min() < 1 or found.sum() != n_frames:
        raise refusal("segments", what, value)
    return tuple(found.tolist())


def check_progress(progress: Any) -> None:
    """Check `progress=`: a function, True for a bar, False or None for nothing."""
    if not isinstance(progress, bool):
        if_given(function, "progress", progress)


def check_run(progress: Any, checkpoint: Any, resume: Any) -> None:
    """Check the arguments of a training that are not settings."""
    check_progress(progress)
    if_given(file_name, "checkpoint", checkpoint)
    flag("resume", resume)

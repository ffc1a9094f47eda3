"""Numbers to text, many at a time: several times faster than by NumPy or the formatting of Python."""

import numpy as np

_LONGEST = 12  # digits of a mantissa


def scientific(values: np.ndarray, n_digits: int) -> np.ndarray:
    """Text of numbers in scientific notation, as bytes of one width (n, width): "-1.23456789e+00".

    Correctly rounded to `n_digits`, from 2 to 12, but for ties; 9 digits give back every float32. Right
    aligned, blanks before positive numbers; "nan" and "inf" stand for themselves.

    Args:
        values: (n,), taken as float64.
    """
    values = np.asarray(values, np.float64)
    if not 2 <= n_digits <= _LONGEST:
        raise ValueError(f"n_digits must be from 2 to {_LONGEST}; got {n_digits}")
    size = np.abs(values)
    finite = np.isfinite(size)
    size = np.where(finite, size, 0.0)
    with np.errstate(divide="ignore"):
        exponent = np.where(size > 0, np.floor(np.log10(size)), 0).astype(np.int64)
    # In two steps, since 10^(n_digits - 1 - exponent) itself can be too large or too small a number.
    shift = n_digits - 1 - exponent
    half = shift // 2
    mantissa = np.rint(size * 10.0**half * 10.0 ** (shift - half)).astype(np.int64)
    # The logarithm of a number next to a power of ten can be off by one; rounding up can add a digit.
    for _ in range(2):
        high, low = mantissa >= 10**n_digits, (mantissa < 10 ** (n_digits - 1)) & (size > 0)
        if not (high.any() or low.any()):
            break
        exponent += high.astype(np.int64) - low
        shift = n_digits - 1 - exponent
        half = shift // 2
        again = np.rint(size * 10.0**half * 10.0 ** (shift - half)).astype(np.int64)
        mantissa = np.where(high | low, np.minimum(again, 10**n_digits - 1 + high), mantissa)

    wide = np.abs(exponent).max(initial=0) >= 100
    width = n_digits + 6 + wide
    text = np.full((len(values), width), ord(" "), np.uint8)
    text[np.signbit(values) & finite, 0] = ord("-")
    text[:, 2] = ord(".")
    rest = mantissa
    for place in range(n_digits, 0, -1):
        rest, digit = np.divmod(rest, 10)
        text[:, place + (place > 1)] = digit + ord("0")
    text[:, n_digits + 2] = ord("e")
    text[:, n_digits + 3] = np.where(exponent < 0, ord("-"), ord("+"))
    rest = np.abs(exponent)
    for place in range(width - 1, n_digits + 3, -1):
        rest, digit = np.divmod(rest, 10)
        text[:, place] = digit + ord("0")
    for k in np.flatnonzero(~finite):
        text[k] = np.frombuffer(f"{values[k]}".rjust(width).encode(), np.uint8)
    return text


def table(columns: list[np.ndarray], delimiter: str) -> bytes:
    """Rows of text of several blocks of bytes (n, width) side by side."""
    n = len(columns[0])
    parts = [columns[0]]
    for column in columns[1:]:
        parts += [np.full((n, 1), ord(delimiter), np.uint8), column]
    parts.append(np.full((n, 1), ord("\n"), np.uint8))
    return np.concatenate(parts, axis=1).tobytes()

"""Names and patterns of the files of one run."""

import functools
import glob
import operator
import os
import re
from collections import Counter
from collections.abc import Sequence

from polyvae import arguments
from polyvae.errors import InputError

Paths = str | os.PathLike | Sequence[str | os.PathLike]


def expanded(paths: Paths) -> list[str | os.PathLike]:
    """The files of names and patterns, those of a pattern in natural order (run2 before run10)."""
    given = arguments.file_names("paths", paths)
    if not given:
        raise InputError("no trajectory file was given")
    found = []
    for path in given:
        text = os.fspath(path)
        if os.path.exists(text) or not glob.has_magic(text):
            found.append(path)
            continue
        matches = sorted(glob.glob(text), key=natural_order)
        if not matches:
            raise FileNotFoundError(f"{text}: no file matches this pattern; check the folder")
        found.extend(matches)
    return found


def natural_order(name: str | os.PathLike) -> list:
    """A key for `sorted` by which run2 comes before run10."""
    parts = re.split(r"(\d+)", os.fspath(name))
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def in_pairs(tables: Sequence[str | os.PathLike], frames: Sequence[str | os.PathLike]) -> list:
    """The tables in the order of the trajectories that they belong to, by the folders and numbers in their names.

    Lists of different lengths, or of unrelated names, stay in their order. `InputError` for names of different
    runs.
    """
    given = list(tables)
    if len(given) != len(frames) or len(given) < 2:
        return given
    keys, wanted = _what_differs(given), _what_differs(frames)
    if sorted(keys) == sorted(wanted) and len(set(keys)) == len(keys):
        return [given[keys.index(key)] for key in wanted]
    numbered = [all(any(word.isdigit() for word in key) for key in found) for found in (keys, wanted)]
    if set(keys) & set(wanted) or all(numbered):
        raise InputError(
            "tables and trajectories must be of the same runs, by the folders and numbers in their names; got "
            f"{', '.join(map(str, given))} for {', '.join(map(str, frames))}. Give a table for each trajectory"
        )
    return given


def _what_differs(names: Sequence[str | os.PathLike]) -> list[tuple[str, ...]]:
    """The words and numbers of each name that not all names have."""
    words = [re.findall(r"\d+|[^\W\d_]+", os.fspath(name)) for name in names]
    counts = [Counter(word.lstrip("0") or word[:1] for word in found) for found in words]
    common = functools.reduce(operator.and_, counts)
    return [tuple((count - common).elements()) for count in counts]

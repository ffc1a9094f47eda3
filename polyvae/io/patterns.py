"""Names and patterns of the files of one run."""

import glob
import os
import re
from collections.abc import Sequence

from polyvae import arguments
from polyvae.errors import InputError

Paths = str | os.PathLike | Sequence[str | os.PathLike]


def expanded(paths: Paths) -> list[str | os.PathLike]:
    """The files that names and patterns stand for, those of a pattern in natural order (run2 before run10)."""
    given = arguments.file_names("paths", paths)
    if not given:
        raise InputError("no trajectory file was given")
    found = []
    for path in given:
        text = os.fspath(path)
        if os.path.exists(text) or not glob.has_magic(text):
            found.append(path)
            continue
        matches = sorted(glob.glob(text), key=_natural)
        if not matches:
            raise FileNotFoundError(f"{text}: no file matches this pattern; check the folder")
        found.extend(matches)
    return found


def _natural(name: str) -> list:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]

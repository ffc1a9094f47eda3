"""Writing files so that they appear whole or not at all."""

import contextlib
import glob
import json
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import safetensors.numpy

from polyvae import arguments
from polyvae.errors import InputError


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes `path`'s place if the block ends well.

    If the block raises, the temporary file goes and whatever stood at `path` still does.
    """
    path = Path(arguments.file_name("path", path))
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file")
    # The suffix stays last: writers choose the format by it.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        # Some writers make files for their owner alone; a result is as readable as any file of the user's.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        _name(error, temporary, path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(
    path: str | os.PathLike,
    *,
    force: bool = False,
    results: Collection[str] = (),
    inputs: Collection[str | os.PathLike | None] = (),
) -> Iterator[Path]:
    """A temporary folder beside `path` to fill; its files move into `path` if the block ends well.

    A folder that already holds anything is refused before the block runs, unless `force`: then files of
    the same name are replaced and all others stay. One of the `inputs` under a name among `results`, which
    may be patterns, is refused.
    """
    path = Path(arguments.file_name("folder", path)).absolute()
    arguments.flag("force", force)
    if any(place.is_file() for place in (path, *path.parents)):
        raise InputError(f"{path} is a file or lies under one; name a folder")
    refuse_overwriting(path, force=force)
    for file in (file for name in results for file in path.glob(name)):
        refuse_inputs(file, inputs)
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        yield temporary
        for file in sorted(p for p in temporary.rglob("*") if p.is_file()):
            target = path / file.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
    except OSError as error:
        _name(error, temporary, path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:  # innermost first; one that got its results is not empty
            with contextlib.suppress(OSError):
                parent.rmdir()


def _name(error: OSError, temporary: Path, path: Path) -> None:
    """Let an error of the system, a full disk above all, name the result and not what stands for it meanwhile."""
    if error.errno is None:
        return
    named = temporary if error.filename is None else Path(os.fsdecode(error.filename))
    if named == temporary or temporary in named.parents:
        error.filename = str(path / named.relative_to(temporary))
        error.filename2 = None


def refuse_overwriting(path: str | os.PathLike, *, force: bool = False) -> None:
    """Raise `InputError` where something stands at `path` already, an empty folder aside, unless `force`."""
    path = Path(path)
    occupied = any(path.iterdir()) if path.is_dir() else path.exists()
    if occupied and not force:
        what = "holds files already" if path.is_dir() else "exists already"
        raise InputError(f"{path} {what}; name another place, or give --force to replace")


def refuse_inputs(path: str | os.PathLike, inputs: Iterable[str | os.PathLike | None]) -> None:
    """Raise `InputError` where `path` is one of the inputs, patterns among them, be it through a link."""
    path = Path(path)
    if not path.exists():
        return
    for given in inputs:
        found = [] if given is None else [given] if os.path.exists(given) else glob.glob(os.fspath(given))
        for file in found:
            if os.path.samefile(file, path):
                raise InputError(f"{path} is an input here and would be lost; name another place for the result")


def check_output(
    path: str | os.PathLike,
    *,
    force: bool = False,
    suffixes: Collection[str] = (),
    inputs: Iterable[str | os.PathLike | None] = (),
) -> None:
    """Raise, before any work is done, where a file cannot or must not be written at `path`.

    Raises:
        FileNotFoundError: its folder does not exist.
        InputError: it is a folder, ends in none of `suffixes`, is one of the `inputs`, or stands there already
            without `force`.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: the name must end in {', '.join(suffixes)}; got {path.suffix or 'no suffix'}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file")
    refuse_inputs(path, inputs)
    refuse_overwriting(path, force=force)


def write_json(path: str | os.PathLike, values: dict) -> None:
    """Write a JSON file, which appears whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")


def save_tensors(path: str | os.PathLike, tensors: dict, metadata: dict[str, str]) -> None:
    """Write a safetensors file, which appears whole or not at all; raises `OSError` where it cannot be written."""
    with replacing(path) as temporary:
        try:
            safetensors.numpy.save_file(tensors, temporary, metadata=metadata)
        except safetensors.SafetensorError as error:  # of what the system says, it keeps the text alone
            found = re.search(r"\(os error (\d+)\)", str(error))
            if found is None:
                raise OSError(f"{path} cannot be written: {error}") from None
            raise OSError(int(found[1]), os.strerror(int(found[1])), os.fspath(path)) from None

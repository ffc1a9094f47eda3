"""Writing files so that they appear whole or not at all."""

import contextlib
import glob
import json
import os
import re
import secrets
import shutil
import socket
import threading
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np
import safetensors.numpy

from polyvae import arguments
from polyvae.errors import InputError

LOCK = ".lock"  # in a folder; of a file it is the end of a name
_TEMPORARY: set[Path] = set()  # files and folders that are being written
_INPUTS: list[set[tuple[int, int]]] = []  # device and number of each file that is not to be replaced
_LOCKED: set[tuple[Path, int]] = set()  # lock files that threads of this process hold


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes `path`'s place if the block ends well.

    If the block raises, the temporary file is removed and `path` is as it was. Inputs of `protecting` are refused.
    """
    path = Path(arguments.file_name("path", path))
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file")
    refuse_inputs(path)
    # The suffix stays last: writers choose the format by it.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    _TEMPORARY.add(temporary)
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
        _TEMPORARY.discard(temporary)


@contextlib.contextmanager
def replacing_folder(
    path: str | os.PathLike,
    *,
    force: bool = False,
    results: Collection[str] = (),
) -> Iterator[Path]:
    """A temporary folder beside `path` to fill; its files move into `path` if the block ends well.

    A folder that already holds anything is refused before the block runs, unless `force`: then files of
    the same name are replaced and all others stay. An input of `protecting` is never replaced; one under a name
    among `results`, which may be patterns, is refused before the block runs.
    """
    path = Path(arguments.file_name("folder", path)).absolute()
    arguments.flag("force", force)
    if any(place.is_file() for place in (path, *path.parents)):
        raise InputError(f"{path} is a file or lies under one; name a folder")
    refuse_overwriting(path, force=force)
    for file in (file for name in results for file in path.glob(name)):
        refuse_inputs(file)
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with _holding(_lock_file_of(path), path):
            temporary.mkdir()
            _TEMPORARY.add(temporary)
            yield temporary
            made_files = sorted(file for file in temporary.rglob("*") if file.is_file())
            targets = [path / file.relative_to(temporary) for file in made_files]
            for target in targets:
                refuse_inputs(target)
            for file, target in zip(made_files, targets, strict=True):
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
    except OSError as error:
        _name(error, temporary, path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _TEMPORARY.discard(temporary)
        for parent in made:  # innermost first; one that got its results is not empty
            with contextlib.suppress(OSError):
                parent.rmdir()


@contextlib.contextmanager
def locked(path: str | os.PathLike | None) -> Iterator[None]:
    """Keep other jobs away from a file or a folder that is written to in steps.

    The lock is a hidden file that names host and process: within a folder, beside a file. It ends with its
    process, also with one that is killed, where the file system has locks. Locks of one thread may be nested. None
    locks nothing.

    Raises:
        InputError: another job, or another thread, holds the lock; with what to do where that one is dead.
        FileNotFoundError: the folder does not exist.
    """
    if path is None:
        yield
        return
    path = Path(os.path.realpath(arguments.file_name("path", path)))
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist; create it first")
    with _holding(path / LOCK if path.is_dir() else _lock_file_of(path), path):
        yield


def _lock_file_of(path: Path) -> Path:
    return path.with_name(f".{path.name}{LOCK}")


@contextlib.contextmanager
def _holding(place: Path, path: Path) -> Iterator[None]:
    key = place, threading.get_ident()
    if key in _LOCKED:
        yield
        return
    descriptor = _lock(place, path)
    _LOCKED.add(key)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{socket.gethostname()} {os.getpid()}\n".encode(), 0)
        yield
    finally:
        _LOCKED.discard(key)
        place.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(place: Path, path: Path) -> int:
    """The open lock file, locked, and still the one of that name."""
    while True:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _hold(descriptor, place, path)
            with contextlib.suppress(FileNotFoundError):  # the one that held it has just removed it
                if os.path.samestat(os.fstat(descriptor), place.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _hold(descriptor: int, place: Path, path: Path) -> None:
    """Lock an open file, or refuse what another job holds."""
    host, _, number = os.read(descriptor, 300).decode(errors="replace").strip().partition(" ")
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        pass
    except (ImportError, OSError):  # Windows, or a file system without locks: what the file says must do
        if not host or (host == socket.gethostname() and not _alive(number)):
            return
    raise InputError(
        f"{path} is in use: another job writes there (process {number or '?'} on {host or 'this machine'}). Wait "
        f"for it, or name another place. If that process is dead, remove {place} and call again"
    )


def _alive(number: str) -> bool:
    """Whether a process of this machine may be alive."""
    if os.name != "posix" or not number.isdigit():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def remove_temporaries() -> None:
    """Remove what is half written and the locks of this process, which ends at once after this."""
    for path in [*_TEMPORARY, *(place for place, _ in _LOCKED)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


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
    occupied = any(file.name != LOCK for file in path.iterdir()) if path.is_dir() else path.exists()
    if occupied and not force:
        what = "holds files already" if path.is_dir() else "exists already"
        raise InputError(f"{path} {what}; name another place, or give --force to replace")


@contextlib.contextmanager
def protecting(inputs: Iterable[str | os.PathLike]) -> Iterator[None]:
    """Let nothing in this module replace one of the inputs, files or patterns, while the block runs.

    The command line calls it for every verb, with all files that its options name.
    """
    found: set[tuple[int, int]] = set()
    for given in inputs:
        text = os.fspath(given)
        for file in [text] if os.path.exists(text) else glob.glob(text):
            with contextlib.suppress(OSError):
                stat = os.stat(file)
                found.add((stat.st_dev, stat.st_ino))
    _INPUTS.append(found)
    try:
        yield
    finally:
        _INPUTS.remove(found)


def refuse_inputs(path: str | os.PathLike) -> None:
    """Raise `InputError` where `path` is an input of `protecting`, be it through a link."""
    try:
        stat = os.stat(path)
    except OSError:
        return
    if any((stat.st_dev, stat.st_ino) in inputs for inputs in _INPUTS):
        raise InputError(f"{path} is an input here and would be lost; name another place for the result")


def check_output(
    path: str | os.PathLike,
    *,
    force: bool = False,
    suffixes: Collection[str] = (),
) -> None:
    """Raise, before any work is done, where a file cannot or must not be written at `path`.

    Raises:
        FileNotFoundError: its folder does not exist.
        InputError: it is a folder, ends in none of `suffixes`, is an input of `protecting`, or is there already
            and `force` is not given.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: the name must end in {', '.join(suffixes)}; got {path.suffix or 'no suffix'}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file")
    refuse_inputs(path)
    refuse_overwriting(path, force=force)


def write_json(path: str | os.PathLike, values: dict) -> None:
    """Write a JSON file, which appears whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")


def save_tensors(path: str | os.PathLike, tensors: dict, metadata: dict[str, str]) -> None:
    """Write a safetensors file, which appears whole or not at all; raises `OSError` where it cannot be written."""
    in_order = {name: _in_order(value) for name, value in tensors.items()}
    with replacing(path) as temporary:
        try:
            safetensors.numpy.save_file(in_order, temporary, metadata=metadata)
        except safetensors.SafetensorError as error:  # of what the system says, it keeps the text alone
            found = re.search(r"\(os error (\d+)\)", str(error))
            if found is None:
                raise OSError(f"{path} cannot be written: {error}") from None
            raise OSError(int(found[1]), os.strerror(int(found[1])), os.fspath(path)) from None


def _in_order(value) -> np.ndarray:
    """An array as safetensors holds it, row by row: version 0.8.0 writes others in the order of their memory."""
    array = np.asarray(value, order="C")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)

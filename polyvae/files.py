"""Writing of files that appear whole or not at all, temporary folders, and locks."""

import contextlib
import glob
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
import time
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np
import safetensors.numpy

from polyvae import arguments
from polyvae.errors import InputError

LOCK = ".lock"  # name of the lock of a folder; the name of a file's lock ends in it
_TEMPORARY: set[Path] = set()  # files and folders that are being written
_INPUTS: list[set[tuple[int, int]]] = []  # device and number of each file that is not to be replaced
_LOCKED: set[tuple[Path, int]] = set()  # lock files that threads of this process hold
_SWEPT: set[Path] = set()  # folders in which this process has removed what killed ones left
_LEFT = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}(\..*)?")  # names of temporary files, of `_hidden`
_OLD = 7 * 86400  # seconds without a change, after which a temporary file of another machine is removed


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes `path`'s place if the block ends well.

    If the block raises, the temporary file is removed and `path` does not change. Inputs of `protecting` are
    refused.
    """
    path = Path(arguments.file_name("path", path))
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file")
    refuse_inputs(path)
    if path.parent not in _SWEPT:
        sweep(path.parent)
    temporary = _hidden(path)
    _TEMPORARY.add(temporary)
    try:
        yield temporary
        # Some writers make files that only their owner can read; results get the user's usual permissions.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        if type(error) is OSError and error.errno is None and str(path) not in str(error):  # a writer's own words
            raise OSError(f"{path} cannot be written ({error}); is the disk full?") from error
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
    """A temporary folder beside `path` to fill; it becomes `path`, or its files move there, if all goes well.

    A folder that already holds anything is refused before the block runs. With `force`, files of the same name are
    replaced and all others stay. An input of `protecting` is never replaced; if its name is among `results`, which
    may be patterns, it is refused before the block runs. Where a process is killed while files move into a folder
    that exists, the next call for that folder moves the rest.
    """
    path = Path(arguments.file_name("folder", path)).absolute()
    arguments.flag("force", force)
    if any(place.is_file() for place in (path, *path.parents)):
        raise InputError(f"{path} is a file or is under one; name a folder")
    whole = path.with_name(f".{path.name}.whole")
    if whole.is_dir():
        with _holding(_lock_file_of(path), path):
            _move_files(whole, path)
    refuse_overwriting(path, force=force)
    for file in (file for name in results for file in path.glob(name)):
        refuse_inputs(file)
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _SWEPT:
        sweep(path.parent)
    temporary = _hidden(path)
    try:
        with _holding(_lock_file_of(path), path):
            temporary.mkdir()
            _TEMPORARY.add(temporary)
            yield temporary
            for file in _files_in(temporary):
                refuse_inputs(target := path / file.relative_to(temporary))
                if target.is_dir():
                    raise InputError(f"{target} is a folder; remove it, or name another place")
            if not os.path.lexists(path):
                os.rename(temporary, path)
                return
            os.rename(temporary, whole)
            try:
                _move_files(whole, path)
            except BaseException:  # a signal
                _move_files(whole, path)
                raise
    except OSError as error:
        _name(error, temporary, path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _TEMPORARY.discard(temporary)
        for parent in made:  # innermost first; a folder with results is not empty, and stays
            with contextlib.suppress(OSError):
                parent.rmdir()


def _files_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _move_files(folder: Path, path: Path) -> None:
    """Move the files of a folder into another, and remove the first."""
    for file in _files_in(folder):
        target = path / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for files that only this process reads, which is removed in the end."""
    place = Path(tempfile.gettempdir())
    if place not in _SWEPT:
        sweep(place)
    folder = _hidden(place / "polyvae")
    try:
        folder.mkdir(mode=0o700)
        _TEMPORARY.add(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _TEMPORARY.discard(folder)


def _hidden(path: Path) -> Path:
    """A new hidden name beside `path`, with machine and process; the suffix stays last, as writers look at it."""
    name = f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f".{path.stem}.{name}{path.suffix}")


def _machine() -> str:
    """Eight digits for the machine, or the container, that numbers its processes."""
    numbering = Path("/proc/self/ns/pid")
    name = f"{socket.gethostname()} {os.readlink(numbering) if numbering.exists() else ''}"
    return f"{zlib.crc32(name.encode()):08x}"


def sweep(folder: Path, age: float = _OLD) -> None:
    """Remove the temporary files in a folder whose processes were killed.

    Args:
        age: seconds without a change, after which files of other machines are removed.
    """
    _SWEPT.add(folder)
    for path in folder.glob(".*"):
        if (found := _LEFT.fullmatch(path.name)) is None:
            continue
        with contextlib.suppress(OSError):  # it is gone, or another user's
            is_old = path.stat().st_mtime <= time.time() - age
            if not _alive(found[2]) if found[1] == _machine() else is_old:
                _remove(path)


def _remove(path: Path) -> None:
    """Remove a file, or a folder with all in it."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: str | os.PathLike | None) -> Iterator[None]:
    """Keep other jobs away from a file or a folder that is written to in steps.

    The lock is a hidden file with host and process, within a folder or beside a file. Where the file system has
    locks, it ends with its process, also if that is killed. Locks of one thread may be nested. None locks nothing.

    Raises:
        InputError: another job, or another thread, holds the lock; the message says what to do if that is dead.
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
    """Open and lock the lock file, and make sure that it still has its name."""
    while True:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _hold(descriptor, place, path)
            with contextlib.suppress(FileNotFoundError):  # its last holder has just removed it
                if os.path.samestat(os.fstat(descriptor), place.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _hold(descriptor: int, place: Path, path: Path) -> None:
    """Lock an open file; raise `InputError` if another job holds it."""
    host, _, number = os.read(descriptor, 300).decode(errors="replace").strip().partition(" ")
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        pass
    except (ImportError, OSError):  # Windows, or a file system without locks: only the text in the file is known
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
    """Remove half-written files and the locks of this process, which ends right after this."""
    locks = [place for place, _ in list(_LOCKED)]  # of a copy, since another thread may change the set
    for path in [*_TEMPORARY, *locks]:
        with contextlib.suppress(OSError):  # one that cannot be removed keeps no other
            _remove(path)


def _name(error: OSError, temporary: Path, path: Path) -> None:
    """Make an error of the system, such as a full disk, name the result instead of the temporary file."""
    if error.errno is None:
        return
    named = temporary if error.filename is None else Path(os.fsdecode(error.filename))
    if named == temporary or temporary in named.parents:
        error.filename = str(path / named.relative_to(temporary))
        error.filename2 = None


def refuse_overwriting(path: str | os.PathLike, *, force: bool = False) -> None:
    """Raise `InputError` if there is anything at `path` except an empty folder, unless `force`."""
    path = Path(path)
    if force or not path.exists():
        return
    what = "exists already"
    if path.is_dir():
        if all(file.name == LOCK for file in path.iterdir()):
            return
        what = "holds files already"
    raise InputError(f"{path} {what}; name another place, or give --force to replace")


@contextlib.contextmanager
def protecting(inputs: Iterable[str | os.PathLike]) -> Iterator[None]:
    """Keep all functions of this module from replacing the inputs, files or patterns, while the block runs.

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
    """Raise `InputError` where `path` is an input of `protecting`, also through a link."""
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
        InputError: it is a folder, ends in none of `suffixes`, is an input of `protecting`, or exists and `force`
            is not given.
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
        except safetensors.SafetensorError as error:  # it holds an error of the system as text
            found = re.search(r"\(os error (\d+)\)", str(error))
            if found is None:
                raise OSError(f"{path} cannot be written: {error}") from None
            raise OSError(int(found[1]), os.strerror(int(found[1])), os.fspath(path)) from None


def _in_order(value) -> np.ndarray:
    """An array in row order: safetensors 0.8.0 writes other arrays in the order of their memory."""
    array = np.asarray(value, order="C")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)

"""General mutations of the bytes of valid files, and a child process that reads these.

Run as a program, it reads mutants and writes a line for each: its number before, and what was wrong after.
"""

import contextlib
import gzip
import io
import json
import os
import queue
import re
import resource
import struct
import subprocess
import sys
import tempfile
import threading
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from valid import resume, walks

LIMIT = 20.0  # seconds for one mutant
_MEMORY = 1 << 30  # bytes more than the process had before
_NUMBER = re.compile(rb"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")
_UNRAISED: list[str] = []  # errors that Python prints where an object goes
_WORDS = (b"1e999", b"-1e308", b"nan", b"-inf", b"99999999999999999999", b"-1", b"0", b"2147483648", b"x", b"")
_WORDS += (b"\xff\xfe", b"1_0", b"0x10", b"\xd9\xa3", b"1e400000", b'"', b"{}")


def numbers_replaced(data: bytes, rng: np.random.Generator) -> bytes:
    """Text with one number, or a few, replaced by another word; bytes with a few words replaced by extremes."""
    found = list(_NUMBER.finditer(data))
    if len(found) < 4 or b"\0" in data:
        size = int(rng.choice([2, 4, 8]))
        at = int(rng.integers(max(1, len(data) - size))) // 4 * 4
        other = [b"\xff" * size, b"\0" * size, b"\x7f" + b"\xff" * (size - 1), b"\xff" * (size - 1) + b"\x7f"]
        other += [
            struct.pack(kind, value)[-size:] for kind in ("<d", ">d", "<f", ">f") for value in (np.nan, 1e30)
        ]
        return data[:at] + other[rng.integers(len(other))] + data[at + size :]
    for _ in range(int(rng.integers(1, 4))):
        number = found[int(rng.integers(len(found) if rng.random() < 0.5 else min(len(found), 12)))]
        word = _WORDS[int(rng.integers(len(_WORDS)))]
        data = data[: number.start()] + word + data[number.end() :]
        found = list(_NUMBER.finditer(data)) or [number]
    return data


def lines_changed(data: bytes, rng: np.random.Generator) -> bytes:
    """A line, or a block of bytes of a file that has none, left out, doubled, or put in another's place."""
    parts = data.splitlines(keepends=True) if b"\0" not in data else []
    if len(parts) < 3:
        size = 1 << int(rng.integers(2, 10))
        parts = [data[k : k + size] for k in range(0, len(data), size)]
    k, other = rng.integers(len(parts), size=2)
    parts[k : k + 1] = [[], [parts[k]] * 2, [parts[other]], [parts[k], b"\n"]][rng.integers(4)]
    return b"".join(parts)


def bytes_flipped(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, mostly one, half of the time within the first two hundred."""
    changed = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 1, 3, 30]))):
        at = int(rng.integers(len(data) if rng.random() < 0.5 else min(200, len(data))))
        changed[at] = rng.integers(256) if rng.random() < 0.5 else changed[at] ^ 1 << int(rng.integers(8))
    return bytes(changed)


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """The end, the beginning, or a part left out."""
    a, b = sorted(rng.integers(len(data), size=2))
    return [data[:a], data[b:], data[:a] + data[b:], data[:-1], data + data[a:b]][rng.integers(5)]


_CHANGES = (bytes_flipped, cut, lines_changed, numbers_replaced, numbers_replaced)


def _zip_changed(data: bytes, rng: np.random.Generator) -> bytes:
    """A zip whose entries are packed anew, one of them changed, left out or named otherwise."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        entries = old.infolist()
        hit = int(rng.integers(len(entries)))
        for k, entry in enumerate(entries):
            content, name = old.read(entry), entry.filename
            if k == hit:
                what = rng.random()
                if what < 0.1:
                    continue
                name = f"x{name}" if what < 0.2 else name
                content = content if what < 0.2 else changed(content, rng)
            new.writestr(name, content)
    return made.getvalue()


def changed(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes with one mutation, sometimes two; packed files are often unpacked for it and packed again."""
    if data[:2] == b"PK" and rng.random() < 0.6:
        return _zip_changed(data, rng)
    if data[:2] == b"\x1f\x8b" and rng.random() < 0.6:
        return gzip.compress(changed(gzip.decompress(data), rng), mtime=0)
    for _ in range(1 if rng.random() < 0.7 else 2):
        if data:
            data = _CHANGES[rng.integers(len(_CHANGES))](data, rng)
    return data


def mutant(name: str, data: bytes, number: int) -> bytes:
    """The mutant of this number of a file that is valid."""
    return changed(data, np.random.default_rng([zlib.crc32(name.encode()), number]))


def calls_of(kind: str, file: Path, number: int, options: dict, folder: Path):
    """Functions to call on a mutant, each with an input that may be refused."""
    import polyvae as pv

    command = number % 25 == 0
    if kind == "trajectory":
        yield lambda: pv.read(file, **options)
        yield lambda: pv.read(file, keep_good=True, **options)
        if number % 3 == 0:
            yield lambda: list(pv.stream(file, chunk_bytes=300, **options))
        words = ["info", file] + [word for key, value in options.items() for word in (_OPTIONS[key], value)]
    elif kind == "topology":
        yield lambda: pv.read(folder / "a.xtc", topology=file)
        yield lambda: pv.read(folder / "a.xtc", topology=file, select="bynum 1:6")
        words = ["info", folder / "a.xtc", "--top", file]
    elif kind == "table":
        yield lambda: use_table(pv.read_colvar(file))
        command = number % 50 == 0
        words = ["fes", file, "--cv", "phi", "--kt", "1", "--bins", "20", "--out", folder / "fes", "--force"]
    elif kind == "weights":
        from polyvae.app.reading import read_weights, with_weights

        yield lambda: with_weights(pv.Trajectory(walks(20)), read_weights(file))
        return
    elif kind == "unfinished":
        yield lambda: resume(file)
        return
    else:
        yield lambda: _model(pv.load(file))
        words = ["info", file]
    if command:
        yield lambda: _command([str(word) for word in words])


_OPTIONS = {"topology": "--top", "format": "--format"}


def use_table(table) -> None:
    """Make a free energy of a table, as `polyvae fes` does."""
    import polyvae as pv
    from polyvae.app import energies

    repr(table), table.time, table._repr_html_()
    names = [name for name in ("phi", "z", "z0") if name in table]
    if table.kind != "rows":
        energies.of_bias(table, names, 1.0, {"range": None, "bins": 20})
        return
    s = np.stack([table[name] for name in names or list(table)[:1]], axis=1)
    bias = {name: table[name] for name in ("opes.bias", "bias") if name in table}
    periods = [table.periods.get(name) for name in names or list(table)[:1]]
    pv.free_energy(s[:, :1], kT=1.0, segments=table.segments, periods=periods[:1], bins=20,
                   bias=next(iter(bias.values()), None))  # fmt: skip


def _model(model) -> None:
    import polyvae as pv

    model.record.rows(), model._repr_html_()
    if isinstance(model, pv.LatentCV):
        model.decode(model.transform(model.template))


def _command(words: list[str]) -> None:
    from polyvae.app import cli

    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.main(words)
        except SystemExit as ended:
            lines = [line for line in said.getvalue().splitlines() if line.startswith("polyvae: error")]
            if ended.code not in (0, 1, 2) or len(lines) != (ended.code != 0):
                raise AssertionError(f"exit {ended.code}: {said.getvalue()[-300:]}") from None


def fault_of(call) -> str:
    """What is wrong with how a mutant is taken; "" for a result, and for one clear line."""
    import traceback

    from polyvae.errors import InputError

    try:
        with warnings.catch_warnings(record=True) as noise:
            warnings.simplefilter("always")
            call()
    except InputError as error:
        if "\n" in str(error) or len(str(error)) > 1000:
            return f"lines: {str(error)[:300]!r}"
    except Exception as error:
        frames = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
        return f"{type(error).__name__}: {str(error)[:150]!r} at {' '.join(frames[-6:])}"
    if _UNRAISED:
        return f"printed: {_UNRAISED.pop()}"
    told = [one for one in noise if "polyvae" in one.filename]
    return f"warning: {told[0].message} at {Path(told[0].filename).name}:{told[0].lineno}" if told else ""


def _read_mutants(folder: Path, names: list[str], first: int, last: int) -> None:
    """In a child: a line with each mutant's name and number before it is read, and with its faults after.

    Args:
        first: the first mutant of the first name; of the others it is 0.
    """
    import logging

    logging.getLogger("polyvae").setLevel(logging.CRITICAL)
    logging.lastResort = None
    sys.unraisablehook = lambda one: _UNRAISED.append(f"{one.exc_type.__name__}: {one.exc_value}")
    out = os.fdopen(os.dup(1), "w", buffering=1)
    valid = json.loads((folder / "valid.json").read_text())
    with tempfile.TemporaryDirectory(dir=folder) as own:
        for name in names:
            what, path = valid[name], Path(own) / valid[name]["file"]
            data = (folder / what["file"]).read_bytes()
            out.write(json.dumps([name, -1]) + "\n")
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            for call in calls_of(what["kind"], folder / what["file"], 0, what["options"], folder):
                call()  # the valid file, which loads what is needed
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, resource.RLIM_INFINITY))
            for number in range(first, last):
                out.write(json.dumps([name, number]) + "\n")
                path.write_bytes(mutant(name, data, number))
                for call in calls_of(what["kind"], path, number, what["options"], folder):
                    if fault := fault_of(call):
                        out.write(json.dumps([name, number, fault]) + "\n")
            first = 0
    out.write("done\n")


class Fault(NamedTuple):
    name: str
    number: int
    text: str


def campaign(folder: Path, names: list[str], n: int) -> list[Fault]:
    """Faults of the first n mutants of some kinds of file, with crashes and hangs of the child that reads them."""
    faults: list[Fault] = []
    first = 0
    while names:
        at, end = _one_child(folder, names, first, n, faults)
        if not end:
            break
        assert at[1] >= 0, f"the valid {at[0]} is not read: {end}"
        faults.append(Fault(*at, end))
        names = names[names.index(at[0]) :]
        first = at[1] + 1
    return faults


def _one_child(folder: Path, names: list[str], first: int, n: int, faults: list[Fault]) -> tuple[tuple, str]:
    """Run a child; the last mutant that it read, and what ended it, or nothing if it came to its end."""
    words = [sys.executable, __file__, str(folder), str(first), str(n), *names]
    lines: queue.Queue = queue.Queue()
    with tempfile.TemporaryFile() as said:  # a pipe would fill up
        child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said, start_new_session=True, text=True)
        threading.Thread(target=lambda: [*map(lines.put, child.stdout), lines.put("")], daemon=True).start()
        at, end = (names[0], -1), "crash"
        with child:
            while end == "crash":
                try:  # to begin with, all is loaded
                    line = lines.get(timeout=LIMIT if at[1] >= 0 else 6 * LIMIT)
                except queue.Empty:
                    end = f"hang: longer than {LIMIT:g} s"
                    child.kill()
                    continue
                if line == "done\n":
                    end = ""
                elif not line:
                    break
                else:
                    name, number, *fault = json.loads(line)
                    at = name, number
                    faults += [Fault(name, number, text) for text in fault]
        said.seek(0)
        last = said.read().decode(errors="replace").strip().splitlines()[-1:]
    return at, f"crash: exit {child.returncode} {last}" if end == "crash" else end


def kinds_of(faults: list[Fault]) -> dict[str, list[int]]:
    """Numbers of mutants by their fault, digits and quoted words left out."""
    found: dict[str, list[int]] = {}
    for fault in faults:
        found.setdefault(re.sub(r"'[^']*'|\d{3,}", "...", fault.text), []).append(fault.number)
    return found


if __name__ == "__main__":
    _read_mutants(Path(sys.argv[1]), sys.argv[4:], int(sys.argv[2]), int(sys.argv[3]))

"""Valid files of every kind that is read, general mutations of their bytes, and a child process that reads those.

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
import shutil
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


# Valid files.


def _x(n_frames: int = 5, n_beads: int = 12) -> np.ndarray:
    steps = np.random.default_rng(7).normal(size=(n_frames, n_beads, 3)) * 0.3
    return (4 + steps.cumsum(axis=1)).astype(np.float32)


def _big_endian_dcd(data: bytes) -> bytes:
    """A DCD in the other byte order: all its numbers have four bytes, but for cells and text."""
    made, at = b"", 0
    while at < len(data):
        (size,) = struct.unpack_from("<i", data, at)
        content = data[at + 4 : at + 4 + size]
        if content[:4] == b"CORD":
            content = b"CORD" + np.frombuffer(content[4:], "<i4").astype(">i4").tobytes()
        elif size == 48:
            content = np.frombuffer(content, "<f8").astype(">f8").tobytes()
        elif (size - 4) % 80:
            content = np.frombuffer(content, "<i4").astype(">i4").tobytes()
        else:
            content = np.frombuffer(content[:4], "<i4").astype(">i4").tobytes() + content[4:]
        made += struct.pack(">i", size) + content + struct.pack(">i", size)
        at += size + 8
    return made


def _dump(x: np.ndarray) -> str:
    lines = []
    for k, frame in enumerate(x):
        lines += ["ITEM: UNITS", "real", "ITEM: TIME", f"{k * 0.5}", "ITEM: TIMESTEP", f"{k * 100}"]
        lines += ["ITEM: NUMBER OF ATOMS", f"{len(frame)}", "ITEM: BOX BOUNDS xy xz yz pp pp ff"]
        lines += ["0 30.0 1.0", "0 30.0 0.5", "0 30.0 0.2", "ITEM: ATOMS id mol type xu yu zu mass"]
        lines += [f"{i + 1} 1 1 {a:.4f} {b:.4f} {c:.4f} 12.0" for i, (a, b, c) in enumerate(frame)]
    return "\n".join(lines) + "\n"


def _extxyz(x: np.ndarray) -> str:
    text = ""
    for k, frame in enumerate(x):
        text += f'{len(frame)}\nLattice="30 0 0 0 30 0 0 0 30" pbc="T T F" time={0.5 * k} '
        text += "Properties=species:S:1:pos:R:3:id:I:1:mass:R:1\n"
        text += "".join(f"B {a:.4f} {b:.4f} {c:.4f} {i + 1} 12.0\n" for i, (a, b, c) in enumerate(frame))
    return text


def _arc(x: np.ndarray) -> str:
    text = ""
    for frame in x:
        text += f"{len(frame):6d} chains\n    30.0 30.0 30.0 90.0 90.0 90.0\n"
        text += "".join(f"{i + 1:6d} C {a:12.6f}{b:12.6f}{c:12.6f}     1\n" for i, (a, b, c) in enumerate(frame))
    return text


def _history(x: np.ndarray) -> str:
    text = f"chains\n{0:10d}{1:10d}{x.shape[1]:10d}\n"
    for k, frame in enumerate(x):
        text += f"timestep{k:10d}{len(frame):10d}{0:10d}{1:10d}{0.0005:20.6f}{k * 0.5:20.6f}\n"
        text += "".join(f"{a:20.10f}{b:20.10f}{c:20.10f}\n" for a, b, c in 30 * np.eye(3))
        for i, (a, b, c) in enumerate(frame):
            text += f"{'B':8s}{i + 1:10d}{1.0:12.6f}{0.0:12.6f}{0.0:12.6f}\n{a:20.10f}{b:20.10f}{c:20.10f}\n"
    return text


def _inpcrd(x: np.ndarray) -> str:
    numbers = [*x[0].ravel(), 30, 30, 30, 90, 90, 90]
    rows = ["".join(f"{v:12.7f}" for v in numbers[k : k + 6]) for k in range(0, len(numbers), 6)]
    return f"chains\n{x.shape[1]:5d}{12.5:15.7e}\n" + "\n".join(rows) + "\n"


def _mdcrd(x: np.ndarray) -> str:
    text = "chains\n"
    for frame in x:
        numbers = frame.ravel()
        text += "".join(
            "".join(f"{v:8.3f}" for v in numbers[k : k + 10]) + "\n" for k in range(0, len(numbers), 10)
        )
    return text


def _psf(n: int) -> str:
    text = f"PSF\n\n{1:8d} !NTITLE\n REMARKS chains\n\n{n:8d} !NATOM\n"
    for i in range(n):
        text += f"{i + 1:8d} A    1    MOL  B    B    {0.1:10.6f} {12.0:13.4f} {0:11d}\n"
    pairs = "".join(f"{i + 1:8d}{i + 2:8d}" + ("\n" if i % 4 == 3 else "") for i in range(n - 1))
    rest = "".join(f"{0:8d} !{name}\n\n" for name in ("NTHETA: angles", "NPHI: dihedrals", "NIMPHI: impropers"))
    return text + f"\n{n - 1:8d} !NBOND: bonds\n{pairs}\n\n{rest}"


def _data(x: np.ndarray) -> str:
    n = x.shape[1]
    text = f"chains\n\n{n} atoms\n{n - 1} bonds\n1 atom types\n1 bond types\n\n"
    text += "0 30 xlo xhi\n0 30 ylo yhi\n0 30 zlo zhi\n\nMasses\n\n1 12.0\n\nAtoms # bond\n\n"
    text += "".join(f"{i + 1} 1 1 {a:.4f} {b:.4f} {c:.4f}\n" for i, (a, b, c) in enumerate(x[0]))
    return text + "\nBonds\n\n" + "".join(f"{i + 1} 1 {i + 1} {i + 2}\n" for i in range(n - 1))


def _mol2(x: np.ndarray) -> str:
    n = x.shape[1]
    text = f"@<TRIPOS>MOLECULE\nchains\n{n} {n - 1} 1 0 0\nSMALL\nNO_CHARGES\n\n@<TRIPOS>ATOM\n"
    text += "".join(f"{i + 1} C{i} {a:.4f} {b:.4f} {c:.4f} C.3 1 MOL 0.0\n" for i, (a, b, c) in enumerate(x[0]))
    return text + "@<TRIPOS>BOND\n" + "".join(f"{i + 1} {i + 1} {i + 2} 1\n" for i in range(n - 1))


def _rows(head: str, *columns: np.ndarray) -> str:
    return head + "".join(" " + " ".join(f"{v:.6f}" for v in row) + "\n" for row in zip(*columns, strict=True))


def _tables() -> dict[str, str]:
    rng, t = np.random.default_rng(3), np.arange(60.0)
    phi, z, bias = rng.uniform(-3, 3, 60), rng.normal(size=60), rng.normal(size=60)
    periodic = "#! SET min_phi -pi\n#! SET max_phi pi\n"
    pairs = list(zip(phi, z, strict=True))
    one, wide = np.ones(60), np.full(60, 0.3)
    hills = "#! FIELDS time phi z sigma_phi sigma_z height biasf\n#! SET multivariate false\n"
    kernels = (
        "#! FIELDS time phi z sigma_phi sigma_z height logweight\n#! SET biasfactor 10\n#! SET epsilon 1e-6\n"
    )
    kernels += "#! SET kernel_cutoff 5.0\n"
    state = "#! FIELDS time phi z sigma_phi sigma_z height\n#! SET biasfactor 10\n#! SET epsilon 1e-6\n"
    state += "#! SET kernel_cutoff 5.0\n#! SET compression_threshold 1\n#! SET zed 0.5\n#! SET sum_weights 20\n"
    state += "#! SET sum_weights2 10\n#! SET counter 60\n"
    steps = "".join(f" {k} {a:.6f} ( {a:.4f} , {b:.4f} , {1.0:.4f} )\n" for k, (a, b) in enumerate(pairs))
    average = "# Time-averaged data for fix 1\n# TimeStep v_phi v_z\n"
    average += "".join(f"{100 * k} {a:.5f} {b:.5f}\n" for k, (a, b) in enumerate(pairs))
    vector = "# Time-averaged data for fix 2\n# TimeStep Number-of-rows\n# Row c_a[1] c_a[2]\n"
    for k in range(10):
        vector += f"{100 * k} 3\n" + "".join(f"{r + 1} {phi[k]:.4f} {z[r]:.4f}\n" for r in range(3))
    pmf = "# 2\n# -3 0.5 12 1\n# -2 0.5 8 0\n"
    pmf += "".join(
        f" {a:.3f} {b:.3f} {a * a + b * b:.5f}\n" for a in np.arange(-3, 3, 0.5) for b in np.arange(-2, 2, 0.5)
    )
    log = "LAMMPS (1 Jan 2025)\nrun 1000\n   Step          Temp          E_pair\n"
    log += "".join(f"{100 * k:10d} {300 + a:.4f} {b:.4f}\n" for k, (a, b) in enumerate(pairs))
    log += "Loop time of 1.2 on 1 procs for 1000 steps with 12 atoms\n"
    return {
        "COLVAR": _rows(f"#! FIELDS time phi z opes.bias\n{periodic}", t, phi, z, bias),
        "HILLS": _rows(hills + periodic, t, phi, z, wide, wide, one, 10 * one),
        "KERNELS": _rows(kernels + periodic, t, phi, z, wide, wide, one, one),
        "STATE": _rows(state + periodic, 59 + 0 * t[:20], phi[:20], z[:20], wide[:20], wide[:20], one[:20]),
        "a.colvars.traj": "# step phi v\n" + steps,
        "a.hills.traj": _rows("", t, phi, wide, one),
        "a.pmf": pmf,
        "a.xvg": _rows('# made by\n@    title "x"\n@    xaxis  label "Time (ps)"\n@ s0 legend "phi"\n'
                       '@ s1 legend "z"\n', t, phi, z),
        "a.csv": "time,phi,z\n" + "".join(f"{a},{b:.6f},{c:.6f}\n" for a, b, c in zip(t, phi, z, strict=True)),
        "averages.txt": average,
        "vectors.txt": vector,
        "log.lammps": log,
    }  # fmt: skip


def make_valid(folder: Path) -> dict[str, dict]:
    """Write a valid file of each kind; by name, its file, how it is tried, and the options of that."""
    import polyvae as pv

    x = _x()
    n = x.shape[1]
    bonds = np.stack([np.arange(n - 1), np.arange(1, n)], axis=1)
    box = np.broadcast_to(30 * np.eye(3, dtype=np.float32), (5, 3, 3))
    traj = pv.Trajectory(x, length_unit="nm", time=0.5 * np.arange(5), box=box, names=["B"] * n, bonds=bonds)
    found: dict[str, dict] = {}

    def add(name: str, file: str, kind: str, data: bytes | str | None = None, **options) -> None:
        if data is not None:
            (folder / file).write_bytes(data if isinstance(data, bytes) else data.encode())
        found[name] = {"file": file, "kind": kind, "options": options}

    top = str(pv.write(folder / "top.pdb", traj[:1])[0])
    for suffix in ("npz", "xtc", "dcd", "gro", "pdb"):
        pv.write(folder / f"a.{suffix}", traj, topology=False)
        add(suffix, f"a.{suffix}", "trajectory")
    pv.write(folder / "few.xtc", pv.Trajectory(x[:, :6], length_unit="nm"), topology=False)
    add("xtc of few beads", "few.xtc", "trajectory")
    np.savez_compressed(folder / "packed.npz", positions=x, time=np.arange(5.0), weights=np.ones(5), bonds=bonds,
                        segments=[3, 2], names=["B"] * n, length_unit="nm", box=box, ids=np.arange(n))  # fmt: skip
    add("packed npz", "packed.npz", "trajectory")
    add("big-endian dcd", "big.dcd", "trajectory", _big_endian_dcd((folder / "a.dcd").read_bytes()))
    add("dump", "a.lammpstrj", "trajectory", _dump(x))
    add("packed dump", "a.lammpstrj.gz", "trajectory", gzip.compress(_dump(x).encode(), mtime=0))
    add("xyz", "a.xyz", "trajectory", _extxyz(x))
    add("packed gro", "a.gro.gz", "trajectory", gzip.compress((folder / "a.gro").read_bytes(), mtime=0))
    add("tinker", "a.arc", "trajectory", _arc(x))
    add("history", "HISTORY", "trajectory", _history(x), topology=top, format="HISTORY")
    add("inpcrd", "a.inpcrd", "trajectory", _inpcrd(x), topology=top)
    add("mdcrd", "a.mdcrd", "trajectory", _mdcrd(x), topology=top)
    _binary(folder, traj, add)
    add("psf", "top.psf", "topology", _psf(n))
    add("lammps data", "top.data", "topology", _data(x))
    add("mol2", "top.mol2", "topology", _mol2(x))
    add("gro as topology", "a.gro", "topology")
    add("pdb as topology", "top.pdb", "topology")
    for file, text in _tables().items():
        add(file.removeprefix("a."), file, "table", text)
    np.savez(folder / "z.npz", z=x[:, :2, 0].repeat(12, 0), time=np.arange(60.0), bias=np.zeros(60))
    add("npz of a table", "z.npz", "table")
    add("packed COLVAR", "COLVAR.gz", "table", gzip.compress(_tables()["COLVAR"].encode(), mtime=0))
    add("weights", "weights.txt", "weights", "".join(f"{k % 3 + 0.5}\n" for k in range(20)))
    saved = Path(__file__).parent / "saved"
    for name in ("reference_3d", "distances_2d", "gaussian", "categorical"):
        shutil.copy(saved / f"{name}.safetensors", folder)
        add(f"model {name}", f"{name}.safetensors", "model")
    return found


def _binary(folder: Path, traj, add) -> None:
    """Files that other libraries write."""
    import h5py
    import netCDF4
    from gsd import hoomd
    from MDAnalysis.lib.formats.libmdaxdr import TRRFile

    x, time, n = traj.positions, traj.time, traj.n_beads
    box = np.asarray(traj.box)
    with TRRFile(str(folder / "a.trr"), "w") as file:
        for k, frame in enumerate(x):
            file.write(frame, None, None, box[k], k, time[k], 0.0, n)
    add("trr", "a.trr", "trajectory")
    with h5py.File(folder / "a.h5md", "w") as file:
        file["h5md/version"] = [1, 1]
        group = file.create_group("particles/all")
        group["position/value"], group["position/step"], group["position/time"] = x, np.arange(5), time
        group["position/value"].attrs["unit"] = "nm"
        group["id/value"], group["id/step"] = np.tile(np.arange(n), (5, 1)), np.arange(5)
        group["mass"] = np.full(n, 12.0)
        group["box/edges/value"], group["box/edges/step"] = np.full((5, 3), 30.0), np.arange(5)
        group["box"].attrs["boundary"] = [b"periodic"] * 3
        group["box"].attrs["dimension"] = 3
        file["connectivity/bonds"] = traj.bonds
    add("h5md", "a.h5md", "trajectory")
    for name, kind in (("netcdf", "NETCDF3_64BIT_OFFSET"), ("netcdf 4", "NETCDF4")):
        file = netCDF4.Dataset(str(folder / f"{kind}.nc"), "w", format=kind)
        file.Conventions, file.ConventionVersion = "AMBER", "1.0"
        for dimension, size in (
            ("frame", None),
            ("atom", n),
            ("spatial", 3),
            ("cell_spatial", 3),
            ("cell_angular", 3),
        ):
            file.createDimension(dimension, size)
        for variable, dims, unit, values in (
            ("time", ("frame",), "picosecond", time), ("coordinates", ("frame", "atom", "spatial"), "angstrom", x),
            ("cell_lengths", ("frame", "cell_spatial"), "angstrom", np.full((5, 3), 30.0)),
            ("cell_angles", ("frame", "cell_angular"), "degree", np.full((5, 3), 90.0)),
        ):  # fmt: skip
            made = file.createVariable(variable, "f4", dims)
            made.units, made[:] = unit, values
        file.close()
        add(name, f"{kind}.nc", "trajectory")
    with hoomd.open(str(folder / "a.gsd"), "w") as file:
        for k, frame in enumerate(x):
            snapshot = hoomd.Frame()
            snapshot.configuration.step, snapshot.configuration.box = 10 * k, [30, 30, 30, 0, 0, 0]
            snapshot.particles.N, snapshot.particles.position = n, frame - 4
            snapshot.particles.types, snapshot.particles.typeid = ["A", "B"], [0, 1] * (n // 2)
            snapshot.particles.mass = [12.0] * n
            snapshot.bonds.N, snapshot.bonds.types = n - 1, ["b"]
            snapshot.bonds.typeid, snapshot.bonds.group = [0] * (n - 1), traj.bonds
            file.append(snapshot)
    add("gsd", "a.gsd", "trajectory")


# How each kind is tried.


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
        yield lambda: pv.read(folder / "a.xtc", topology=file, select="name B")
        words = ["info", folder / "a.xtc", "--top", file]
    elif kind == "table":
        yield lambda: _energy(pv.read_colvar(file))
        command = number % 50 == 0
        words = ["fes", file, "--cv", "phi", "--kt", "1", "--bins", "20", "--out", folder / "fes", "--force"]
    elif kind == "weights":
        from polyvae.app.reading import read_weights, with_weights

        yield lambda: with_weights(pv.Trajectory(_x(20)), read_weights(file))
        return
    else:
        yield lambda: _model(pv.load(file))
        words = ["info", file]
    if command:
        yield lambda: _command([str(word) for word in words])


_OPTIONS = {"topology": "--top", "format": "--format"}


def _energy(table) -> None:
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

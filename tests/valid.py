"""A small valid file of each kind that is read."""

import gzip
import shutil
import struct
from pathlib import Path

import numpy as np


def walks(n_frames: int = 5, n_beads: int = 12) -> np.ndarray:
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
    text = f"@<TRIPOS>MOLECULE\nchains\n{n} {n - 1} 1 0 0\nSMALL\nUSER_CHARGES\n\n@<TRIPOS>ATOM\n"
    text += "".join(f"{i + 1} C{i} {a:.4f} {b:.4f} {c:.4f} C.3 1 MOL 0.0\n" for i, (a, b, c) in enumerate(x[0]))
    return text + "@<TRIPOS>BOND\n" + "".join(f"{i + 1} {i + 1} {i + 2} 1\n" for i in range(n - 1))


def _rows(head: str, *columns: np.ndarray) -> str:
    return head + "".join(" " + " ".join(f"{v:.6f}" for v in row) + "\n" for row in zip(*columns, strict=True))


def tables() -> dict[str, str]:
    rng, t = np.random.default_rng(3), np.arange(60.0)
    phi, z, bias = rng.uniform(-3, 3, 60), rng.normal(size=60), rng.normal(size=60)
    periodic = "#! SET min_phi -pi\n#! SET max_phi pi\n"
    pairs = list(zip(phi, z, strict=True))
    one, wide = np.ones(60), np.full(60, 0.3)
    hills = "#! FIELDS time phi z sigma_phi sigma_z height biasf\n#! SET multivariate false\n"
    kernels = (
        "#! FIELDS time phi z sigma_phi sigma_z height logweight\n#! SET biasfactor 10\n#! SET epsilon 1e-6\n"
    )
    kernels += "#! SET kernel_cutoff 5.0\n#! SET compression_threshold 1\n"
    state = "#! FIELDS time phi z sigma_phi sigma_z height\n#! SET biasfactor 10\n#! SET epsilon 1e-6\n"
    state += "#! SET kernel_cutoff 5.0\n#! SET compression_threshold 1\n#! SET zed 0.5\n#! SET sum_weights 20\n"
    state += "#! SET sum_weights2 10\n#! SET counter 60\n"
    steps = "".join(f" {k} {a:.6f} ( {a:.4f} , {b:.4f} , {1.0:.4f} )\n" for k, (a, b) in enumerate(pairs))
    average = "# Time-averaged data for fix 1\n# TimeStep v_phi v_z\n"
    average += "".join(f"{100 * k} {a:.5f} {b:.5f}\n" for k, (a, b) in enumerate(pairs))
    return {
        "COLVAR": _rows(f"#! FIELDS time phi z opes.bias\n{periodic}", t, phi, z, bias),
        "HILLS": _rows(hills + periodic, t, phi, z, wide, wide, one, 10 * one),
        "KERNELS": _rows(kernels + periodic, t, phi, z, wide, wide, one, one),
        "STATE": _rows(state + periodic, 59 + 0 * t[:20], phi[:20], z[:20], wide[:20], wide[:20], one[:20]),
        "a.colvars.traj": "# step phi v\n" + steps,
        "a.hills.traj": _rows("", t, phi, wide, one),
        "a.xvg": _rows('# made by\n@    title "x"\n@    xaxis  label "Time (ps)"\n@ s0 legend "phi"\n'
                       '@ s1 legend "z"\n', t, phi, z),
        "a.csv": "time,phi,z\n" + "".join(f"{a},{b:.6f},{c:.6f}\n" for a, b, c in zip(t, phi, z, strict=True)),
        "averages.txt": average,
    }  # fmt: skip


def resume(path: Path) -> None:
    """Begin a short training, or continue it from its file."""
    import polyvae as pv

    x = walks(80)[:, 0]
    pv.fit_vae(x, latent_dim=1, epochs=2, encoder=(4,), decoder=(4,), checkpoint=path, resume=True)


def make_valid(folder: Path) -> dict[str, dict]:
    """Write a valid file of each kind; by name, its file, how it is tried, and the options of that."""
    import polyvae as pv

    x = walks()
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
    for file, text in tables().items():
        add(file.removeprefix("a."), file, "table", text)
    np.savez(folder / "z.npz", z=x[:, :2, 0].repeat(12, 0), time=np.arange(60.0), bias=np.zeros(60))
    add("npz of a table", "z.npz", "table")
    add("packed COLVAR", "COLVAR.gz", "table", gzip.compress(tables()["COLVAR"].encode(), mtime=0))
    add("weights", "weights.txt", "weights", "".join(f"{k % 3 + 0.5}\n" for k in range(20)))
    saved = Path(__file__).parent / "saved"
    for name in ("reference_3d", "distances_2d", "gaussian", "categorical"):
        shutil.copy(saved / f"{name}.safetensors", folder)
        add(f"model {name}", f"{name}.safetensors", "model")
    resume(folder / "a.unfinished")
    add("unfinished run", "a.unfinished", "unfinished")
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

"""Runs by any command whose engine has PLUMED: OPES_METAD on the exported CV, frames and COLVAR read from files.

Source: the PLUMED manual, https://www.plumed.org/doc (action OPES_METAD); Invernizzi & Parrinello,
10.1021/acs.jpclett.0c00497.
"""

import contextlib
import dataclasses
import hashlib
import logging
import os
import shlex
import shutil
import string
import subprocess
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from polyvae.arguments import real_number, text
from polyvae.core.units import boltzmann
from polyvae.cv.latent import LatentCV
from polyvae.engines.runs import Bias, Run, Snapshots, kept_frames
from polyvae.errors import InputError
from polyvae.export import plumed, plumed_native, write
from polyvae.files import replacing
from polyvae.io.processes import ending_with_us
from polyvae.io.reading import read, stream
from polyvae.io.tables import read_colvar

log = logging.getLogger(__name__)

PLACES = ("plumed", "folder", "start", "seed", "steps", "stride")
_PRINTED = 300  # letters of what a command printed that failed
_LOG, _LOCK = "command.log", "engine.lock"


@dataclasses.dataclass(frozen=True)
class CommandEngine:
    """An engine that is a command of the shell, run in a folder of its own.

    Its processes end with this one. Where one outlives it all the same, the next run in that folder waits for it.

    Args:
        command: with the places {plumed}, the input for PLUMED; {start}, a structure to start from; {seed};
            {steps}; {stride}, steps between frames; {folder}. Each path is absolute, and quoted for the shell
            where it has to be. Such as `sh run.sh {plumed} {start} {seed} {steps}`.
        frames: pattern of the trajectory that it writes into its folder, such as "traj.xtc".
        topology: topology of all atoms, for `frames`; also the first start.
        temperature: K; kT for a model in reduced units.
        start: structure of the first start, where `topology` is none.
        atoms: PLUMED's numbers of the beads, see `export.common.atom_numbers`.
        dialect: dialect of `export.plumed`; by default "native" where it can be compiled here, "vector" elsewhere.
        reading: further options of `polyvae.read` for `frames`, such as `select` or `format`.

    Raises:
        InputError: a command without {plumed}; in a run, a command that fails, and files that it should have
            written and has not.
    """

    command: str
    _: dataclasses.KW_ONLY
    frames: str
    topology: str | os.PathLike
    temperature: float
    start: str | os.PathLike | None = None
    atoms: str | Sequence[int] | None = None
    dialect: str | None = None
    reading: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        places = string.Formatter().parse(text("command", self.command))
        named = {name for _, name, _, _ in places if name is not None}
        if "plumed" not in named or not named <= set(PLACES):
            raise InputError(
                f"the command must name {{plumed}}, and may name {', '.join(f'{{{p}}}' for p in PLACES[1:])}; got "
                f"{self.command!r}"
            )
        put = object.__setattr__
        put(self, "temperature", real_number("temperature", self.temperature, above=0))
        put(self, "topology", Path(self.topology).absolute())
        put(self, "start", self.topology if self.start is None else Path(self.start).absolute())
        for path in (self.topology, self.start):
            if not path.is_file():  # type: ignore[union-attr]  # both are paths by now
                raise FileNotFoundError(f"{path}: no such file")

    def facts(self) -> dict[str, Any]:
        """Facts that decide the runs: rounds of another command or topology are not continued."""
        files = {"topology": self.topology, "start": self.start}
        digests = {name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for name, path in files.items()}  # type: ignore[arg-type]  # as above
        return {"command": self.command, "frames": self.frames, "reading": _plain(self.reading), **digests}

    def run(
        self,
        cv: LatentCV,
        *,
        bias: Bias | None,
        start: Snapshots | None,
        steps: int,
        stride: int,
        seed: int,
        folder: Path,
    ) -> Run:
        """Run with `cv`, `bias`, `start`, `steps`, `stride`, `seed` and `folder`: see `engines.runs.Engine`."""
        place = Path(folder).absolute()
        place.mkdir(parents=True, exist_ok=True)
        topology, begin = Path(self.topology), Path(self.start or self.topology)
        options = {"topology": topology} | dict(self.reading or {})
        with _alone(place) as lock:
            for left in place.glob(self.frames):  # of a try that failed
                left.unlink()
            _write_input(place, cv, bias, self.temperature, stride, self.atoms, self.dialect)
            if start is not None:
                begin = _structure(place / "start.pdb", topology, start, options.get("topology_format"))
            places = {"plumed": place / "plumed.dat", "folder": place, "start": begin}
            quoted = {name: shlex.quote(os.fspath(path)) for name, path in places.items()}
            _execute(self.command.format(**quoted, seed=seed, steps=steps, stride=stride), place, lock)
        return _read(place, cv, self.frames, options, bias, self.temperature, topology)

    def __call__(self, cv: LatentCV, **given) -> Run:
        """`run` of `cv`, with the other arguments `given`."""
        return self.run(cv, **given)


command_engine = CommandEngine  # as scripts name it


def _plain(reading: Mapping[str, Any] | None) -> dict[str, str]:
    return {name: str(value) for name, value in (reading or {}).items() if value is not None}


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[IO]:
    """A lock that this process and those of the engine hold: a run waits for what is left of one before."""
    with (place / _LOCK).open("w") as lock:
        with contextlib.suppress(ImportError, OSError):  # Windows, a file system without locks
            import fcntl

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.warning("%s: waiting for the engine that an earlier call has started here", place)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock  # and the file stays, since a process that is left may hold it


def _execute(line: str, place: Path, lock: IO) -> None:
    """Run a command of the shell in a folder, as a group of processes that ends with this process."""
    # Only files named here pass to the children: the lock is held as long as one of them lives.
    own: dict[str, Any] = {"process_group": 0, "pass_fds": [lock.fileno()]} if os.name == "posix" else {}
    with (place / _LOG).open("w") as written:
        written.write(f"$ {line}\n")
        written.flush()
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": written, "stderr": subprocess.STDOUT}
        child = subprocess.Popen(line, shell=True, cwd=place, **pipes, **own)
        with ending_with_us(child):
            code = child.wait()
    if code:
        printed = (place / _LOG).read_text(errors="replace").strip()[-_PRINTED:]
        raise InputError(f"the command ended with {code}; its words are in {place / _LOG}: ... {printed}")


def _kT(cv: LatentCV, temperature: float) -> float:
    return temperature if cv.length_unit == "sigma" else boltzmann("kJ/mol") * temperature


def _write_input(
    place: Path, cv: LatentCV, bias: Bias | None, temperature: float, stride: int, atoms, dialect
) -> None:
    """Write plumed.dat and what it includes, with absolute paths, since engines run in any folder."""
    for name in ("COLVAR", "KERNELS"):
        (place / name).unlink(missing_ok=True)
    native = dialect or ("native" if plumed_native.installed() else "vector")
    exported = place / "cv"
    shutil.rmtree(exported, ignore_errors=True)
    write(cv, "plumed", exported, atoms=atoms, latents=range(cv.latent_dim), dialect=native)
    label = f"{plumed_native.LABEL}." if native == "native" else ""
    latents = ",".join(f"{label}z{k}" for k in range(cv.latent_dim))
    lines = (exported / "latent.dat").read_text()
    for name in (plumed_native.LIBRARY, "reference.pdb"):
        lines = lines.replace(f"FILE=./{name}", f"FILE={{{exported / name}}}")
        lines = lines.replace(f"REFERENCE={name}", f"REFERENCE={{{exported / name}}}")
    printed = latents
    if bias is not None:
        width = ",".join(f"{w:.6g}" for w in bias.width)
        barrier = bias.barrier * _kT(cv, temperature)
        lines += (
            f"opes: OPES_METAD ARG={latents} SIGMA={width} BARRIER={barrier:.10g} TEMP={temperature:.10g} "
            f"PACE={bias.pace} FILE={{{place / 'KERNELS'}}}\n"
        )
        printed += ",opes.bias"
        if bias.walls is not None:
            kappa = ",".join(f"{0.5 * k * _kT(cv, temperature):.10g}" for k in bias.stiffness())
            for kind, at in zip(("LOWER", "UPPER"), bias.walls, strict=True):
                at = ",".join(f"{value:.10g}" for value in at)
                lines += f"{kind.lower()}: {kind}_WALLS ARG={latents} AT={at} KAPPA={kappa}\n"
            printed += ",lower.bias,upper.bias"
    lines += f"PRINT ARG={printed} STRIDE={stride} FILE={{{place / 'COLVAR'}}} FMT=%.9g\n"
    with replacing(place / "plumed.dat") as temporary:
        temporary.write_text(f"{plumed.units_line(cv)}\n{lines}")


def _structure(path: Path, topology: Path, start: Snapshots, kind: str | None = None) -> Path:
    """Write all atoms of a snapshot as a PDB; `kind` is the format of the topology, by MDAnalysis' name."""
    import MDAnalysis

    with _quiet():
        universe = MDAnalysis.Universe(os.fspath(topology), topology_format=kind)
        universe.atoms.positions = start.positions[0]
        if start.box is not None:
            universe.dimensions = MDAnalysis.lib.mdamath.triclinic_box(*start.box[0])
        universe.atoms.write(os.fspath(path))
    return path


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence MDAnalysis' warnings about elements and boxes that a structure does not hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _read(place: Path, cv: LatentCV, frames: str, options: dict, bias, temperature: float, topology: Path) -> Run:
    """The run that a command has written into its folder."""
    found = sorted(place.glob(frames))
    if not found:
        raise InputError(f"the command must write {frames} into {place}; there is no such file")
    traj = cv.as_trajectory(read(found, **options))
    table = read_colvar(place / "COLVAR")
    energies = np.zeros(len(traj))
    rows = table.rows_at(traj.time, traj.segments)
    if bias is not None:
        names = [name for name in ("opes.bias", "lower.bias", "upper.bias") if name in table]
        energies = np.sum([table[name][rows] for name in names], axis=0) / _kT(cv, temperature)
    return Run(traj, energies, _snapshots(found, options, len(traj)))


def _snapshots(found: Sequence[Path], options: Mapping[str, Any], n_frames: int) -> Snapshots:
    """All atoms at some frames, as they are in the files, in Å as structures have them; reduced lengths stay."""
    whole = {name: value for name, value in options.items() if name not in ("select", "per_molecule", "dims")}
    positions: list[np.ndarray] = []
    boxes: list[Any] = []
    numbers, first = np.zeros(0, int), 0
    for chunk in stream(found, **whole | {"unwrap": False}):
        if not first:
            numbers = kept_frames(n_frames, chunk.n_beads)
        here = chunk[numbers[(numbers >= first) & (numbers < first + len(chunk))] - first]
        first += len(chunk)
        if len(here):
            here = here if here.length_unit == "sigma" else here.to_unit("angstrom")
            missing = 3 - here.n_dims
            positions.append(np.pad(here.positions, ((0, 0), (0, 0), (0, missing))))
            boxes.append(here.box)
    periodic = all(box is not None for box in boxes)
    return Snapshots(np.concatenate(positions), numbers, np.concatenate(boxes) if periodic else None)

"""Runs in LAMMPS from an input script, in this process, biased by well-tempered metadynamics; no PLUMED is needed.

Source: Barducci, Bussi & Parrinello, 10.1103/PhysRevLett.100.020603; the LAMMPS manual, https://docs.lammps.org.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.arguments import file_name, real_number
from polyvae.core.units import LAMMPS, picoseconds
from polyvae.cv.latent import LatentCV
from polyvae.engines.runs import Bias, Run, Snapshots, bead_trajectory, check_finite, kept_frames
from polyvae.errors import InputError
from polyvae.export.colvars import load_lammps
from polyvae.export.lammps import LatentBias, attach
from polyvae.export.lammps_grid import GridFix

_HILL = 0.5, 0.1  # least height of the first hill in kT, and most, of the barrier
_FILLED = 0.5  # of the run, by when hills of that height are as high as the barrier everywhere


@dataclasses.dataclass(frozen=True)
class LammpsEngine:
    """An engine of a LAMMPS input script.

    Args:
        script: sets up everything up to the `run`, thermostat and time step too, and has none; it may use the
            variables `seed` and `temperature`, such as in `fix bath all langevin $$T $$T 1.0 ${seed}`.
        temperature: temperature of its thermostat, in its units: K, or kT/epsilon in `units lj`.
        atoms: atom IDs of the beads, see `export.lammps.attach`.
        sigma: see `export.lammps.attach`.

    Raises:
        InputError: no LAMMPS; in a run, what `attach` refuses, a script that LAMMPS refuses or that sets up no
            atoms, and a run that blows up.
    """

    script: str | os.PathLike
    _: dataclasses.KW_ONLY
    temperature: float
    atoms: str | Sequence[int] | None = None
    sigma: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "script", Path(file_name("script", self.script)))
        object.__setattr__(self, "temperature", real_number("temperature", self.temperature, above=0))
        load_lammps()
        if not Path(self.script).is_file():
            raise FileNotFoundError(f"{self.script}: no such file")

    def facts(self) -> dict[str, Any]:
        """Facts that decide the runs, beside a script that may be mended."""
        return {"atoms": None if self.atoms is None else str(self.atoms), "sigma": self.sigma}

    def run(
        self,
        cv: LatentCV,
        *,
        bias: Bias | None,
        start: Snapshots | None,
        steps: int,
        stride: int,
        seed: int,
        folder: Path | None = None,
    ) -> Run:
        """Run with `cv`, `bias`, `start`, `steps`, `stride`, `seed` and `folder`: see `engines.runs.Engine`."""
        script, temperature = Path(self.script), self.temperature
        variables = ["-var", "seed", str(seed), "-var", "temperature", str(temperature)]
        quiet = ["-log", "none", "-screen", "none"]
        with (
            contextlib.closing(load_lammps()(cmdargs=[*quiet, *variables])) as lmp,
            contextlib.chdir(script.parent),
        ):
            _command(lmp, f"include {script.name}", script)
            if not lmp.extract_setting("box_exist") or not lmp.get_natoms():
                raise InputError(f"{script}: has no atoms at its end; it must set up the system, and not run it")
            kT = lmp.extract_global("boltz") * temperature
            hills = None if bias is None else LatentHills(bias, _hill(bias, steps) * kT, kT)
            latent: LatentBias
            if hills is not None:
                latent = GridFix(lmp, cv, hills.table, atoms=self.atoms, sigma=self.sigma)
            else:  # looked at when a frame is due
                latent = attach(lmp, cv, _nothing, atoms=self.atoms, sigma=self.sigma, interval=stride)
            if start is not None:
                _place(lmp, start)
            _command(lmp, f"velocity all create {temperature} {seed} dist gaussian", script)
            _command(lmp, "reset_timestep 0", script)
            _command(lmp, "run 0 post no", script)
            frames, z, snapshots = _frames(lmp, latent, hills, max(1, steps // stride), stride, script)
            energy = np.zeros(len(frames))
            if hills is not None:
                energy = np.array([hills.table(at)[0] for at in z]) / kT
            _, unit = LAMMPS[lmp.extract_global("units")]
            dt = lmp.extract_global("dt") * (picoseconds(unit) or 1.0)  # tau stays tau
        traj = bead_trajectory(frames, stride * dt * np.arange(1, len(frames) + 1), cv.template, cv.length_unit)
        return Run(traj, energy, snapshots)

    def __call__(self, cv: LatentCV, **given) -> Run:
        """`run` of `cv`, with the other arguments `given`."""
        return self.run(cv, **given)


lammps_engine = LammpsEngine  # as scripts name it


def _frames(
    lmp, latent: LatentBias, hills: "LatentHills | None", n: int, stride: int, script: Path
) -> tuple[list[np.ndarray], list[np.ndarray], Snapshots]:
    """Run n frames: the beads, the latents, and all atoms of some."""
    kept = kept_frames(n, lmp.get_natoms())
    frames, z, positions, boxes, step = [], [], [], [], 0
    for frame in range(n):
        for ahead in _stages(frame * stride, stride, None if hills is None else hills.pace):
            _command(lmp, f"run {ahead} pre no post no", script)
            if isinstance(latent, GridFix):
                latent.check()
            step += ahead
            if hills is not None and step % hills.pace == 0:
                hills.add(latent.z)
        check_finite(latent.positions, frame, stride)
        frames.append(latent.positions - latent.positions.mean(axis=0))
        z.append(latent.z)
        if frame in kept:
            x, order = _atoms(lmp)
            positions.append(np.array(x[order], np.float64))
            boxes.append(_box(lmp))
    return frames, z, Snapshots(np.array(positions), kept, np.array(boxes))


def _atoms(lmp) -> tuple[np.ndarray, np.ndarray]:
    """Positions (n_atoms, 3) as LAMMPS holds them, and their order by ID. IDs may have gaps, which LAMMPS' own
    `gather_atoms` refuses."""
    n = lmp.extract_setting("nlocal")
    return lmp.numpy.extract_atom("x")[:n], np.argsort(lmp.numpy.extract_atom("id")[:n])


def _hill(bias: Bias, steps: int) -> float:
    """Height of the first hill in kT: so that the known range is filled to the barrier in half of the run."""
    cells = np.prod(0.5 * (bias.high - bias.low) / (np.sqrt(2 * np.pi) * bias.width))  # without its margins
    height = bias.barrier * float(cells) / max(1.0, _FILLED * steps / bias.pace)
    return float(np.clip(height, _HILL[0], max(_HILL[0], _HILL[1] * bias.barrier)))


class LatentHills:
    """Well-tempered metadynamics on a table, with the walls of a bias.

    Args:
        bias: range, width of the hills, barrier, pace, walls.
        height: of the first hill.
        kT: in the unit of the height.

    Attributes:
        table: the bias, which `add` changes.
    """

    def __init__(self, bias: Bias, height: float, kT: float):
        self.table, self.pace = bias.table(kT), bias.pace
        self.height, self.rise = height, kT * (max(2.0, bias.barrier) - 1)
        # On a coarse table a hill is as wide as its mesh, or it would be lost between the points.
        self.axes = self.table.grid()
        self.width = np.maximum(bias.width, [axis[1] - axis[0] for axis in self.axes])

    def add(self, z: np.ndarray) -> None:
        """Add a hill at latents (latent_dim,), lower where there are many."""
        away = [(axis - s) / width for axis, s, width in zip(self.axes, z, self.width, strict=True)]
        hill = functools.reduce(np.multiply.outer, [np.exp(-0.5 * each**2) for each in away])
        energy = self.table(z)[0] - self.table.last[2]
        self.table.values += self.height * np.exp(-energy / self.rise) * hill


def _nothing(z: np.ndarray, step: int) -> tuple[float, np.ndarray]:
    return 0.0, np.zeros(len(z))


def _stages(step: int, stride: int, pace: int | None) -> list[int]:
    """Steps to the next frame, from a step with a frame, by way of the hills."""
    due = [] if pace is None else range(step + pace - step % pace, step + stride, pace)
    return np.diff([step, *due, step + stride]).tolist()


def _command(lmp, text: str, script: Path) -> None:
    """Give LAMMPS a command; its own error becomes an `InputError` of one line."""
    try:
        lmp.command(text)
    except InputError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise InputError(f"{script}: LAMMPS ended with: {said}") from None


def _box(lmp) -> np.ndarray:
    low, high, xy, yz, xz, *_ = lmp.extract_box()
    box = np.diag(np.subtract(high, low))
    box[1, 0], box[2, 0], box[2, 1] = xy, xz, yz
    return box


def _place(lmp, start: Snapshots) -> None:
    """Put all atoms where they are in a snapshot, in its box."""
    if start.box is not None:
        low, _, *_ = lmp.extract_box()
        box = start.box[0]
        if not np.allclose(box, _box(lmp)):
            ends = " ".join(
                f"{axis} final {low[k]!r} {float(low[k] + box[k, k])!r}" for k, axis in enumerate("xyz")
            )
            tilts = "".join(
                f" {name} final {float(box[i, j])!r}" for name, i, j in (("xy", 1, 0), ("xz", 2, 0), ("yz", 2, 1))
                if box[i, j]
            )  # fmt: skip
            lmp.command(f"change_box all {ends}{tilts} units box")
    x, order = _atoms(lmp)
    x[order] = start.positions[0]

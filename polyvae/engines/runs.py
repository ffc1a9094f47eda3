"""Arguments and results of a run, the same for every engine."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from polyvae.arguments import function, one_each
from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError, one_line
from polyvae.files import replacing
from polyvae.io.archives import arrays_of
from polyvae.io.colvar import write_colvar
from polyvae.io.reading import read
from polyvae.io.writing import write
from polyvae.trajectory.record import Trajectory

WALL = 10.0  # kT
# Points of a bias on a grid, by the number of latents: a width of the kernels, and along each latent at most.
# Kernels of OPES get narrower in a run, to a third of their first width.
_POINTS = ((5, 2000), (3, 300), (2, 40))
SNAPSHOTS = 400  # of a run, at most
_HELD = 1 << 26  # bytes of them, at most

FRAMES, REST, TABLE = "frames.npz", "run.npz", "COLVAR"


class Engine(Protocol):
    """Starts runs and returns them, with a bias on the latents or without one.

    A function with the arguments of `run` does as well. Rounds of another `temperature`, or of an engine with
    other `facts()`, where it has these, are not continued.
    """

    def run(
        self,
        cv: LatentCV,
        *,
        bias: "Bias | None",
        start: "Snapshots | None",
        steps: int,
        stride: int,
        seed: int,
        folder: Path,
    ) -> "Run":
        """Run an engine.

        Args:
            cv: all of its latents are biased, and its beads are the frames.
            bias: None for an unbiased run.
            start: one snapshot of an earlier run, velocities to be drawn; None for the engine's own start.
            steps: length of the run.
            stride: steps between frames.
            seed: seed of velocities and thermostat; one seed gives one run.
            folder: for files of the engine's own; it exists.

        Raises:
            InputError: a run that failed, and may be tried again with another seed.
        """


@dataclasses.dataclass(frozen=True)
class FunctionEngine:
    """A function with the arguments of `Engine.run`, as an engine."""

    run: Callable
    temperature: float | None = None


def as_engine(engine: "Engine | Callable") -> Any:
    """An engine, or a function as one; raises `InputError` for what is neither."""
    if callable(getattr(engine, "run", None)):
        return engine
    return FunctionEngine(function("engine", engine), getattr(engine, "temperature", None))


@dataclasses.dataclass(frozen=True)
class Bias:
    """A bias on all latents of a CV.

    Args:
        low, high: (latent_dim,) where the CV is expected to be.
        width: (latent_dim,) standard deviation of the kernels or hills.
        barrier: in kT, the highest that the run should cross.
        pace: steps between kernels or hills.
        walls: (2, latent_dim) least and greatest values, beyond which a harmonic wall pushes the run back: by
            `WALL` kT a tenth of the way between them outside. None for no walls.
    """

    low: Float[np.ndarray, "latent"]
    high: Float[np.ndarray, "latent"]
    width: Float[np.ndarray, "latent"]
    barrier: float
    pace: int
    walls: Float[np.ndarray, "2 latent"] | None = None

    def table(self, kT: float):
        """An empty `export.grid_bias.GridBias` over the range, with the walls, in the unit of energy of kT."""
        from polyvae.export.grid_bias import GridBias

        a_width, most = _POINTS[len(self.low) - 1]
        points = np.clip(np.ceil(a_width * (self.high - self.low) / self.width), 8, most).astype(int).tolist()
        walls = None if self.walls is None else np.stack([*self.walls, kT * self.stiffness()])
        return GridBias(self.low, self.high, points, walls)

    def stiffness(self) -> np.ndarray:
        """Force constants (latent_dim,) of the walls, in kT: energy k / 2 (z - wall)^2."""
        assert self.walls is not None
        return 2 * WALL / (0.1 * (self.walls[1] - self.walls[0])) ** 2

    def of_walls(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energy of the walls in kT and its slope at latents (..., latent_dim).

        Args:
            z: (..., latent_dim).
        """
        if self.walls is None:
            return np.zeros(np.shape(z)[:-1]), np.zeros(np.shape(z))
        out = np.maximum(z - self.walls[1], 0) + np.minimum(z - self.walls[0], 0)
        return 0.5 * (self.stiffness() * out**2).sum(axis=-1), self.stiffness() * out


@dataclasses.dataclass(frozen=True)
class Snapshots:
    """All atoms of a system at some frames of a run, to start other runs from.

    Args:
        positions: (n, n_atoms, 3) in the engine's unit.
        frames: (n,) numbers of the frames that they belong to.
        box: (n, 3, 3) vectors as rows, or None.
    """

    positions: Float[np.ndarray, "snapshots atoms 3"]
    frames: Int[np.ndarray, "snapshots"]
    box: Float[np.ndarray, "snapshots 3 3"] | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, number: int) -> "Snapshots":
        rows = slice(number, number + 1)
        return Snapshots(self.positions[rows], self.frames[rows], None if self.box is None else self.box[rows])


@dataclasses.dataclass(frozen=True)
class Run:
    """Frames of one run.

    Args:
        traj: the model's beads, whole molecules, `stride` steps apart, without the first.
        bias: (n_frames,) in kT; zeros of a free run. What takes it off again is exp(bias).
        snapshots: of all atoms.
    """

    traj: Trajectory
    bias: Float[np.ndarray, "frames"]
    snapshots: Snapshots

    def __post_init__(self) -> None:
        bias = one_each("bias", self.bias, len(self.traj))
        object.__setattr__(self, "bias", bias)


def kept_frames(n_frames: int, n_atoms: int) -> np.ndarray:
    """Numbers of the frames whose snapshots are kept: evenly spread, the last among them."""
    n = max(1, min(SNAPSHOTS, n_frames, _HELD // (12 * max(1, n_atoms))))
    return np.unique(np.linspace(n_frames / n, n_frames, n).astype(int) - 1)


def save_run(folder: str | os.PathLike, run: Run, cv: LatentCV) -> None:
    """Write a run into a folder: frames, COLVAR, snapshots and bias; the last file that appears is `run.npz`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / FRAMES, run.traj)
    write_colvar(folder / TABLE, cv.transform(run.traj), time=run.traj.time, columns={"bias": run.bias})
    arrays: dict[str, Any] = {
        "bias": run.bias,
        "positions": run.snapshots.positions,
        "frames": run.snapshots.frames,
    }
    if run.snapshots.box is not None:
        arrays["box"] = run.snapshots.box
    with replacing(folder / REST) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def saved_run(folder: str | os.PathLike) -> Run | None:
    """The run that `save_run` wrote into a folder; None where it is not whole.

    Raises:
        InputError: a damaged file, which is named.
    """
    folder = Path(folder)
    path = folder / REST
    if not path.exists():
        return None
    try:
        arrays = arrays_of(path)
        bias, positions, frames = (arrays.pop(name) for name in ("bias", "positions", "frames"))
        traj = read(folder / FRAMES)
        if positions.ndim != 3 or frames.shape != positions.shape[:1] or not (frames < len(traj)).all():
            raise InputError("its arrays do not fit each other")
        return Run(traj, bias, Snapshots(positions, frames, arrays.pop("box", None)))
    except KeyError as error:
        reason = f"it holds no array {error}"
    except (InputError, ValueError, OSError) as error:
        reason = one_line(error).partition(". ")[0]
    raise InputError(
        f"{path} is no whole run ({reason}); remove the folder {folder}, and the same call repeats this run"
    )


def check_finite(positions: np.ndarray, frame: int, stride: int) -> None:
    """Raise `InputError` where the `positions` of a `frame`, one every `stride` steps, are not finite."""
    if not (np.abs(positions) <= np.finfo(np.float32).max).all():  # which frames are kept in
        raise InputError(
            f"the run blew up: positions are not finite after {(frame + 1) * stride} steps. Shorten the step, "
            f"or look at the structure that it starts from"
        )


def bead_trajectory(
    positions: Sequence[np.ndarray], time: np.ndarray, like: Trajectory, length_unit: str
) -> Trajectory:
    """Frames of beads (n_frames, n_beads, n_dims) as a trajectory with names, masses and bonds of the model's."""
    return dataclasses.replace(
        like, positions=np.asarray(positions, np.float32), time=time, segments=(len(time),),
        length_unit=length_unit, weights=None, box=None, origin=None,
    )  # fmt: skip

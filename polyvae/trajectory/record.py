"""The trajectory record: positions of beads over frames, and what is known about them."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from polyvae.arguments import (
    flag,
    is_array_like,
    numbers_array,
    one_each,
    one_of,
    refusal,
    segment_lengths,
    statistical_weights,
    whole_number,
    without_mask,
)
from polyvae.core.units import LENGTH_UNITS, LENGTHS
from polyvae.errors import InputError
from polyvae.records import html_of
from polyvae.trajectory.precision import LARGEST, in_single_precision


def unit_factor(source: str, target: str) -> float:
    """Factor from lengths in unit `source` to `target`; `InputError` between reduced and physical units."""
    for unit in (source, target):
        one_of("length unit", unit, LENGTH_UNITS)
    if source == target:
        return 1.0
    if "sigma" in (source, target):
        raise InputError(
            f"lengths in {source} cannot be turned into {target}: sigma is a reduced unit; "
            f"state the unit of the numbers: --unit {target}, pv.read(..., length_unit={target!r}), "
            f"or pv.as_trajectory(data, length_unit={target!r}) for data in memory"
        )
    return LENGTHS[source].nm / LENGTHS[target].nm


class Selection(NamedTuple):
    """Which atoms of a larger system the beads are."""

    atoms: np.ndarray  # (n_beads,) numbers from 0, in the order of the beads
    n_atoms: int  # atoms in the system
    text: str | None = None  # how they were chosen, in MDAnalysis' selection language, or None

    def __str__(self):
        return f"{len(self.atoms)} of {self.n_atoms} atoms" + (f", {self.text!r}" if self.text else "")


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """Frames of one set of beads.

    Args:
        positions: (n_frames, n_beads, n_dims), kept as float32; n_dims is 2 or 3. In `length_unit`. Frames of
            float64 so far from the origin that float32 would blur their shapes are moved there.
        time: (n_frames,) in the engine's time unit (ps for real units, tau for reduced), or None.
        length_unit: "nm", "angstrom" or "sigma" (reduced units).
        masses: (n_beads,), ones where not given; 0 for virtual sites.
        names: bead names, or None.
        bonds: (n_bonds, 2) bead indices from 0, or None where not known.
        segments: lengths of the pieces that are continuous in time; they add up to n_frames.
        weights: (n_frames,) statistical weights of the frames, none negative, or None.
        box: (n_frames, 3, 3) vectors of the periodic box as rows, in `length_unit`, or None. Positions are
            whole molecules all the same: nothing here looks at the box.
        origin: (n_frames, 2) frame and molecule of the run that each frame shows, where one run held many
            molecules, or None.
        periodic: three bools, whether the box is periodic along each of its vectors; None where that is not
            stated.
        ids: (n_beads,) numbers of the beads in their file, none twice, by which LAMMPS, Colvars and PLUMED
            address them; those of the first molecule where there are many; None where the file numbers none.
        selection: which atoms of the file or system the beads are, those of the first molecule where there are
            many; None where they are all of them, or where that is not known.
        part: whether these are frames of a larger run, as slices are; their weights may all be 0.
        continues: in a chunk of a `Stream`, how many of its first segments continue, one after another, as many
            last segments of the chunk before it: 1 within a continuous piece, the number of molecules where each
            is a segment of its own, and otherwise 0.

    Raises:
        InputError: for arrays of the wrong rank or length, and for NaN, infinite or absurdly large positions
            (the first bad frame and bead are named).
    """

    positions: np.ndarray
    time: np.ndarray | None = None
    length_unit: str = "sigma"
    masses: np.ndarray = None  # type: ignore[assignment]  # `__post_init__` sees to it
    names: tuple[str, ...] | None = None
    bonds: np.ndarray | None = None
    segments: tuple[int, ...] = None  # type: ignore[assignment]  # `__post_init__` sees to it
    weights: np.ndarray | None = None
    box: np.ndarray | None = None
    origin: np.ndarray | None = None
    periodic: tuple[bool, bool, bool] | None = None
    ids: np.ndarray | None = None
    selection: Selection | None = None
    continues: int = 0
    part: bool = False

    def __post_init__(self):
        put = functools.partial(object.__setattr__, self)
        positions = _usable_positions(self.positions)
        n_frames, n_beads, _ = positions.shape
        put("positions", positions)
        one_of("length_unit", self.length_unit, LENGTH_UNITS)
        put("masses", _usable_masses(self.masses, n_beads))
        put("part", flag("part", self.part))
        checks: dict[str, Callable[[Any], Any]] = {
            "time": lambda value: one_each("time", value, n_frames),
            "weights": lambda value: statistical_weights(value, n_frames, part=self.part),
            "names": lambda value: _checked_names(value, n_beads),
            "bonds": lambda value: _checked_bonds(value, n_beads),
            "box": lambda value: _of_shape("box", value, (n_frames, 3, 3), np.float32),
            "origin": lambda value: _of_shape("origin", value, (n_frames, 2), np.int64),
            "periodic": _checked_directions,
            "ids": lambda value: _checked_ids(value, n_beads),
            "selection": lambda value: _checked_selection(value, n_beads),
        }
        for name, check in checks.items():
            if (value := getattr(self, name)) is not None:
                put(name, check(value))
        put("segments", segment_lengths(self.segments, n_frames))
        put("continues", whole_number("continues", self.continues, 0, len(self.segments)))

    n_frames = property(lambda self: self.positions.shape[0], doc="Number of frames.")
    n_beads = property(lambda self: self.positions.shape[1], doc="Number of beads.")
    n_dims = property(lambda self: self.positions.shape[2], doc="2 or 3.")

    @property
    def unequal_masses(self) -> np.ndarray | None:
        """Masses (n_beads,) in single precision, or None where all are equal, so that none count."""
        return None if (self.masses == self.masses[0]).all() else self.masses.astype(np.float32)

    def __len__(self):
        return self.n_frames

    def __getitem__(self, index) -> "Trajectory":
        """Frames by slice, integer, index array or mask; always a `Trajectory`.

        A segment of the result is a run of frames that came, in order, from one segment.
        """
        chosen = np.atleast_1d(np.arange(self.n_frames)[index])
        if chosen.ndim != 1 or chosen.size == 0:
            raise InputError(f"index {index!r} selects no frame of {self.n_frames}")
        piece = np.repeat(np.arange(len(self.segments)), self.segments)[chosen]
        breaks = np.flatnonzero((np.diff(piece) != 0) | (np.diff(chosen) <= 0)) + 1
        per_frame: dict[str, Any] = {
            name: None if (values := getattr(self, name)) is None else values[chosen]
            for name in ("time", "weights", "box", "origin")
        }
        return dataclasses.replace(
            self,
            positions=self.positions[chosen],
            **per_frame,
            segments=tuple(np.diff([0, *breaks, chosen.size])),
            # Some of many molecules may have lost all their frames, so that none is sure to continue.
            continues=int(self.continues == 1 and piece[0] == 0),
            part=True,
        )

    def __repr__(self):
        parts = [f"{self.n_frames} frames of {self.n_beads} beads in {self.n_dims}-D", self.length_unit]
        if self.time is not None:
            parts.append(f"time {self.time[0]:g} to {self.time[-1]:g}")
        if self.bonds is not None:
            parts.append(f"{len(self.bonds)} bonds")
        if len(self.segments) > 1:
            parts.append(f"{len(self.segments)} segments")
        if self.weights is not None:
            parts.append("weighted")
        return f"<Trajectory: {', '.join(parts)}>"

    def _repr_html_(self) -> str:
        rows = [["frames", f"{self.n_frames:,}"], ["beads", f"{self.n_beads:,}"], ["dimensions", self.n_dims]]
        rows.append(["lengths", {"sigma": "sigma (reduced)"}.get(self.length_unit, self.length_unit)])
        if self.time is not None:
            unit = "tau" if self.length_unit == "sigma" else "ps"
            rows.append(["time", f"{self.time[0]:g} to {self.time[-1]:g} {unit}"])
        rows.append(["bonds", "not known" if self.bonds is None else f"{len(self.bonds):,}"])
        rows.append(["segments", len(self.segments)])
        rows.append(["weights", "none" if self.weights is None else "one a frame"])
        rows.append(["box", "none" if self.box is None else _periodic_words(self.periodic)])
        if self.selection is not None:
            rows.append(["atoms", str(self.selection)])
        return html_of("Trajectory", [[""], *rows])

    def take_beads(self, order: np.ndarray) -> "Trajectory":
        """The trajectory with its beads in another `order`, (n_beads,) the number of the bead at each place."""
        order = np.asarray(order)
        place = np.argsort(order)
        some: dict[str, Any] = {
            name: None if (values := getattr(self, name)) is None else np.asarray(values)[order]
            for name in ("masses", "names", "ids")
        }
        selection = self.selection and self.selection._replace(atoms=self.selection.atoms[order])
        bonds = None if self.bonds is None else place[self.bonds]
        return dataclasses.replace(
            self, positions=self.positions[:, order], bonds=bonds, selection=selection, **some
        )

    def to_mdanalysis(self):
        """The frames as an `MDAnalysis.Universe` in memory, in Å; lengths in sigma keep their numbers.

        It holds positions, box, names, masses, bonds and ids, and times that are evenly spaced (it counts frames
        by 1 ps otherwise), but neither weights nor segments. `as_trajectory(universe, length_unit=...)` turns it
        back.

        Raises:
            InputError: a box that lengths and angles do not describe.
        """
        from polyvae.trajectory.handover import make_universe

        return make_universe(self)

    def to_mdtraj(self):
        """The frames as an `mdtraj.Trajectory`, in nm; lengths in sigma keep their numbers.

        It holds positions, box, names, bonds and times, but no masses, weights or segments.
        `as_trajectory(run, length_unit=...)` turns it back.

        Raises:
            InputError: a box that lengths and angles do not describe.
        """
        from polyvae.trajectory.handover import make_mdtraj

        return make_mdtraj(self)

    def to_unit(self, length_unit: str) -> "Trajectory":
        """The trajectory in another `length_unit`; reduced and real units cannot be turned into each other."""
        factor = unit_factor(self.length_unit, length_unit)
        if factor == 1.0:
            return self
        return dataclasses.replace(
            self,
            positions=self.positions * np.float32(factor),
            box=None if self.box is None else self.box * np.float32(factor),
            length_unit=length_unit,
        )


def _periodic_words(periodic: tuple[bool, bool, bool] | None) -> str:
    """Along which vectors a box is periodic, in words."""
    if periodic is None:
        return "periodic, as far as is known"
    along = [axis for axis, there in zip("abc", periodic, strict=True) if there]
    return f"periodic along {', '.join(along)}" if along else "not periodic"


def _usable_positions(value: Any) -> np.ndarray:
    """Positions as float32, in the order of memory; other shapes, and numbers that are not finite, are refused."""
    without_mask("positions", value)
    try:
        positions = np.asarray(value) if is_array_like(value) else np.asarray(None)
    except (TypeError, ValueError):
        raise InputError(
            "positions must be one array (n_frames, n_beads, 2 or 3); got rows of unequal lengths. Take "
            "the same beads in every frame"
        ) from None
    if positions.ndim != 3 or positions.shape[2] not in (2, 3):
        raise InputError(
            "positions must have shape (n_frames, n_beads, 2 or 3); "
            f"got {positions.shape}. Reshape a flat array to (n_frames, n_beads, n_dims) first"
        )
    if 0 in positions.shape[:2]:
        raise InputError(f"a trajectory needs at least one frame and one bead; got shape {positions.shape}")
    if positions.dtype.kind not in "iuf":
        raise InputError(f"positions must be real numbers; got dtype {positions.dtype}")
    positions = np.ascontiguousarray(in_single_precision(positions))
    if not all_usable(positions):
        finite = np.abs(positions) < LARGEST
        frame, bead, _ = np.argwhere(~finite)[0]
        raise InputError(
            f"positions must be finite, and below {LARGEST:g}; frame {frame}, bead {bead} holds "
            f"{positions[frame, bead].tolist()} ({int((~finite).any((1, 2)).sum())} of {len(positions)} "
            f"frames are bad). Remove those frames first"
        )
    return positions


def _usable_masses(value: Any, n_beads: int) -> np.ndarray:
    masses = np.ones(n_beads)
    if value is not None:
        masses = one_each("masses", value, n_beads, "bead")
    if not (masses >= 0).all() or not masses.any():
        bead = int(np.argmin(masses > 0))
        raise InputError(
            f"masses must be positive, or 0 for virtual sites beside others; bead {bead} has {masses[bead]:g}"
        )
    return masses


def _checked_names(value: Any, n_beads: int) -> tuple[str, ...]:
    if not np.iterable(value):
        raise refusal("names", f"one name a bead, of {n_beads} beads", value)
    names = tuple(map(str, value))
    if len(names) != n_beads:
        raise InputError(f"names must hold one name a bead: {n_beads} beads, {len(names)} names")
    return names


def _checked_bonds(value: Any, n_beads: int) -> np.ndarray:
    pairs = "whole numbers (n_bonds, 2), the beads of each bond"
    bonds = numbers_array("bonds", value, pairs, np.int64)
    if bonds.size and (bonds.ndim != 2 or bonds.shape[1] != 2):
        raise refusal("bonds", pairs, value)
    if bonds.size and (bonds.min() < 0 or bonds.max() >= n_beads):
        raise InputError(f"bonds must join beads 0 to {n_beads - 1}; got {bonds.min()} to {bonds.max()}")
    return bonds.reshape(-1, 2)


def _of_shape(name: str, value: Any, shape: tuple[int, ...], kind: Any) -> np.ndarray:
    array = numbers_array(name, value, f"numbers of shape {shape}", kind, finite=False)
    if array.shape != shape:
        raise InputError(f"{name} must have shape {shape}; got {array.shape}")
    return array


def _checked_directions(value: Any) -> tuple[bool, ...]:
    if np.shape(value) != (3,):
        raise refusal("periodic", "three bools, one for each box vector", value)
    return tuple(map(bool, value))


def _checked_ids(value: Any, n_beads: int) -> np.ndarray:
    each = f"whole numbers, one for each of {n_beads} beads"
    ids = numbers_array("ids", value, each, np.int64)
    if ids.shape != (n_beads,):
        raise refusal("ids", each, value)
    if len(np.unique(ids)) < n_beads:
        raise InputError("ids must number each bead once; one number stands twice")
    return ids


def _checked_selection(value: Any, n_beads: int) -> Selection:
    if not isinstance(value, Selection):
        raise refusal("selection", "a Selection", value)
    atoms, last = np.asarray(value.atoms, np.int64), value.n_atoms - 1
    if atoms.shape != (n_beads,) or atoms.min() < 0 or atoms.max() > last:
        raise InputError(
            f"the selection must name an atom from 0 to {last} for each of {n_beads} beads; got {atoms}"
        )
    return value._replace(atoms=atoms)


def all_usable(array: np.ndarray) -> bool:
    """Whether an array holds neither NaN nor infinity, and nothing from `LARGEST` on."""
    flat = array.reshape(-1)
    with np.errstate(invalid="ignore", over="ignore"):
        # The sum of squares takes a third of the time; where it is small, all numbers are.
        return bool(np.dot(flat, flat) < LARGEST**2) or bool((np.abs(flat) < LARGEST).all())


def bonds_of(traj: Trajectory) -> np.ndarray:
    """Bonds (n_bonds, 2); consecutive beads where none are known."""
    return traj.bonds if traj.bonds is not None and len(traj.bonds) else chain_bonds(traj.n_beads)


def is_linear(bonds: np.ndarray, n_beads: int) -> bool:
    """Whether the first and the last bead are the two ends of one unbranched chain, so that the distance between
    them is a size: not of rings, stars, or molecules whose bonds are all atoms'."""
    neighbours: list[set[int]] = [set() for _ in range(n_beads)]
    for i, j in np.asarray(bonds).tolist():
        neighbours[i].add(j)
        neighbours[j].add(i)
    before, bead, passed = -1, 0, 1
    while len(onward := neighbours[bead] - {before}) == 1 and passed < n_beads:
        before, bead, passed = bead, onward.pop(), passed + 1
    return bead == n_beads - 1 == passed - 1 and not neighbours[bead] - {before}


def chain_bonds(n_beads: int) -> np.ndarray:
    """Bonds of a linear chain in bead order, (n_beads - 1, 2)."""
    return np.stack([np.arange(n_beads - 1), np.arange(1, n_beads)], axis=1)


def bonded_triples(bonds: np.ndarray) -> np.ndarray:
    """Triples (n_triples, 3) of beads, the first and the last bonded to the middle one."""
    neighbours: dict[int, set[int]] = {}
    for i, j in np.asarray(bonds).tolist():
        neighbours.setdefault(i, set()).add(j)
        neighbours.setdefault(j, set()).add(i)
    found = [(a, b, c) for b in sorted(neighbours) for a, c in itertools.combinations(sorted(neighbours[b]), 2)]
    return np.array(found, int).reshape(-1, 3)

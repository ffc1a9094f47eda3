"""Trajectories of what other libraries hold in memory.

Universes, atom groups and mdtraj trajectories are known by their attributes, so that neither library is
imported for data that are not theirs.
"""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from polyvae.arguments import is_array_like, one_of, refusal
from polyvae.core.units import LENGTH_UNITS
from polyvae.errors import InputError
from polyvae.trajectory.assembly import Assembler, check_how
from polyvae.trajectory.molecules import Atoms
from polyvae.trajectory.precision import warn_of_blur
from polyvae.trajectory.record import Selection, Trajectory
from polyvae.trajectory.stream import Stream, whole
from polyvae.trajectory.universe import boxes_of, formats_of, periodic_of

log = logging.getLogger(__name__)

STEPS_ALONE = "a LAMMPS dump holds the numbers of steps and no times, so times are left out"


def chunks_of(data, **options) -> Iterator[Trajectory]:
    """The chunks of a `Stream`, or all of anything else that `as_trajectory` takes as the only one."""
    return iter(data) if isinstance(data, Stream) else iter([as_trajectory(data, **options)])


def as_trajectory(
    data,
    *,
    length_unit: str | None = None,
    array_unit: str = "sigma",
    unwrap: bool | str = "auto",
    per_molecule: bool = False,
    dims: int | None = None,
) -> Trajectory:
    """A `Trajectory` of what other libraries hold in memory.

    Args:
        data: a `Trajectory` (given back), an `MDAnalysis.Universe` or `AtomGroup` (all frames of its
            trajectory; the end of each of several files ends a segment), an `mdtraj.Trajectory`, a `Stream`
            (its chunks together), or an array (n_frames, n_beads, 2 or 3).
        length_unit: unit of the numbers; by default Å for MDAnalysis, nm for mdtraj, `array_unit` for
            arrays. Say "sigma" for a universe or mdtraj trajectory in reduced units.
        unwrap, per_molecule, dims: as for `read`; for data of MDAnalysis and mdtraj.

    Masses are those that the topology states, as for `read`; what MDAnalysis guesses from names and mdtraj
    from elements is not taken, for a coarse bead "B" is not boron.

    Raises:
        InputError: an atom group that may hold other atoms in each frame; shapes that do not fit; another
            unit for a `Trajectory` or a `Stream`, which know theirs.
    """
    check_how(unwrap, per_molecule, dims)
    one_of("array_unit", array_unit, LENGTH_UNITS)
    one_of("length_unit", length_unit, (None, *LENGTH_UNITS))
    periodic = None
    if isinstance(data, Stream):
        data = whole(list(data))
    if isinstance(data, Trajectory):
        if length_unit not in (None, data.length_unit):
            raise InputError(
                f"the trajectory is in {data.length_unit}, not {length_unit}; convert it with to_unit, or state "
                f"the unit where it is made: pv.read(..., length_unit={length_unit!r})"
            )
        return data
    if hasattr(data, "atoms") and hasattr(data, "universe"):
        system = atoms_of(data.atoms if data.universe is data else data)
        unit, where = "angstrom", "the atom group"
        # Atoms outside the molecules that are wanted stay behind, frame by frame.
        needed = system.needed()
        positions, time, dimensions = _frames_of_universe(data, needed)
        reader = data.universe.trajectory
        box = boxes_of(dimensions, reader, unwrap is not False)
        periodic = periodic_of(reader)
        segments = _segments_of(data.universe.trajectory)
        atoms: Atoms | None = system.among(needed)
    elif hasattr(data, "xyz") and hasattr(data, "unitcell_vectors"):
        positions, box, time = data.xyz, data.unitcell_vectors, data.time
        atoms, unit, where = _atoms_of_mdtraj(data.topology), "nm", "the mdtraj trajectory"
        segments = (len(positions),)
    else:
        if isinstance(data, (str, bytes)) or hasattr(data, "__fspath__"):
            raise InputError(f"{str(data)!r} is the name of a file; read it first, with pv.read")
        if not is_array_like(data):
            kinds = "a Trajectory, a Stream, an array (n_frames, n_beads, 2 or 3), or data of MDAnalysis or mdtraj"
            raise refusal("data", kinds, data)
        traj = Trajectory(data, length_unit=length_unit or array_unit)
        warn_of_blur(traj.positions, "the array")
        return traj
    if time is not None:
        falls = ~(np.diff(time) > 0)
        falls[np.cumsum(segments)[:-1] - 1] = False
        if falls.any():
            k = int(np.argmax(falls))
            log.info("%s: times are left out, for that of frame %d is not after the one before", where, k + 1)
            time = None
    how: dict[str, Any] = {"unwrap": unwrap, "per_molecule": per_molecule, "dims": dims}
    assembler = Assembler(atoms, length_unit or unit, **how, periodic=periodic, where=where)
    return assembler.record(positions, time, box, segments)


def atoms_of(group) -> Atoms:
    """The facts that an MDAnalysis atom group has of its atoms."""
    if type(group).__name__ == "UpdatingAtomGroup":
        raise InputError(
            "an updating atom group may hold other atoms in every frame, and a CV needs the same ones; "
            "select without updating=True"
        )
    if (level := getattr(getattr(group, "level", None), "name", "atom")) != "atom":
        raise InputError(f"beads are atoms of an AtomGroup; got a group of {level}s. Give its atoms (group.atoms)")
    indices = np.asarray(group.indices)
    if not len(indices):
        raise InputError("the atom group holds no atoms, and a CV needs at least one; check the selection")
    repeated = len(np.unique(indices)) < len(indices)
    if repeated:
        raise InputError("the atom group holds an atom twice; take group.unique")
    universe = group.universe
    bonds = getattr(universe, "bonds", None)
    bonds = None if bonds is None or len(bonds) == 0 else np.asarray(bonds.indices)
    names = tuple(group.names) if hasattr(group, "names") else None
    # Guessed from names or elements, masses would make a coarse bead "B" boron.
    stated = hasattr(group, "masses") and not universe._topology.masses.is_guessed
    masses = np.asarray(group.masses) if stated else None
    n_total = len(universe.atoms)
    of_lammps = {"LAMMPSDUMP", "DATA"} & formats_of(getattr(universe, "trajectory", None))
    numbered = hasattr(group, "ids") and (of_lammps or str(universe.filename).endswith(".data"))
    if stated and bonds is not None:
        bonds = with_sites(bonds, np.asarray(universe.atoms.masses), np.asarray(universe.atoms.resindices))
    return Atoms(
        indices,
        n_total,
        bonds,
        names=names,
        masses=usable_masses(masses, "the atoms"),
        residues=np.asarray(group.resindices),
        kinds=tuple(map(str, group.types)) if names is None and hasattr(group, "types") else None,
        residue_sizes=_residue_sizes(universe.atoms.resindices, group.resindices) if names else None,
        ids=np.asarray(group.ids) if numbered else None,
        selection=None if np.array_equal(indices, np.arange(n_total)) else Selection(indices, n_total),
    )


def usable_masses(masses: np.ndarray | None, where: str) -> np.ndarray | None:
    """Masses with which beads can be weighted, or None; a mass of 0 is that of a virtual site."""
    if masses is None:
        return None
    masses = np.asarray(masses, np.float64)
    if not np.isfinite(masses).all() or (masses < 0).any():
        log.warning(
            "%s: masses must be finite and not negative; they are left out, and all beads count alike", where
        )
        return None
    if not masses.any():
        log.info("%s: all chosen beads have the mass 0, so all count alike", where)
        return None
    return masses


def with_sites(bonds: np.ndarray, masses: np.ndarray, residues: np.ndarray) -> np.ndarray:
    """Bonds (n_bonds, 2), and one for each virtual site without any: to an atom with a mass of its residue.

    `masses` and `residues` are (n_atoms,), with a mass of 0 for virtual sites.
    """
    sites = np.setdiff1d(np.flatnonzero(masses == 0), bonds)
    heavy = np.flatnonzero(masses > 0)
    if not len(sites) or not len(heavy):
        return bonds
    heavy = heavy[np.argsort(residues[heavy], kind="stable")]
    at = np.searchsorted(residues[heavy], residues[sites])
    partners = heavy[np.minimum(at, len(heavy) - 1)]
    together = residues[partners] == residues[sites]
    return np.concatenate([bonds, np.stack([partners, sites], axis=1)[together]])


def _atoms_of_mdtraj(topology) -> Atoms | None:
    if topology is None:
        return None
    atoms = list(topology.atoms)
    bonds = np.array([[bond[0].index, bond[1].index] for bond in topology.bonds], int).reshape(-1, 2)
    residues = np.array([atom.residue.index for atom in atoms])
    return Atoms(
        np.arange(len(atoms)),
        len(atoms),
        bonds if len(bonds) else None,
        names=tuple(atom.name for atom in atoms),
        residues=residues,
        residue_sizes=_residue_sizes(residues, residues),
        chain_ids=_several([atom.residue.chain.index for atom in atoms]),
    )


def _several(labels: list[int]) -> np.ndarray | None:
    """Labels where there is more than one."""
    return np.array(labels) if len(set(labels)) > 1 else None


def _residue_sizes(of_all: np.ndarray, of_chosen: np.ndarray) -> np.ndarray | None:
    """Atoms in the residue of each chosen atom; None for a single residue, since all atoms may be put in one."""
    sizes = np.bincount(of_all)
    return sizes[of_chosen] if len(sizes) > 1 else None


def _segments_of(trajectory) -> tuple[int, ...]:
    """Frames of each file of an MDAnalysis trajectory; one piece where it leaves out overlaps."""
    lengths = [int(reader.n_frames) for reader in getattr(trajectory, "readers", [])]
    return tuple(lengths) if sum(lengths) == len(trajectory) else (len(trajectory),)


def time_of(ts, reader) -> float:
    """The time of an MDAnalysis frame; NaN where the reader makes it up.

    Where a file holds no time step, readers count frames by 1 ps, and that of LAMMPS dumps MD steps.
    """
    if has_steps_alone(reader):
        return ts.time if "dt" in ts.data else np.nan
    return ts.time if "time" in ts.data or "dt" in ts.data else np.nan


def has_steps_alone(reader) -> bool:
    """Whether the files of an MDAnalysis reader hold steps and not times."""
    return any(one.format == "LAMMPSDUMP" for one in getattr(reader, "readers", [reader]))


def _frames_of_universe(group, indices: np.ndarray):
    """Positions (n, n_indices, 3), times, and box dimensions (n, 6) of all frames.

    The universe's own frame stays current.
    """
    trajectory = group.universe.trajectory
    n, current = len(trajectory), trajectory.ts.frame
    positions = np.empty((n, len(indices), 3), np.float32)
    dimensions, time = np.zeros((n, 6)), np.empty(n)
    given = 0
    for k, ts in enumerate(trajectory):
        given += 1
        if not ts.has_positions:
            raise InputError(f"frame {k} of the universe holds no positions; read the file with pv.read")
        positions[k] = ts.positions[indices]
        time[k] = time_of(ts, trajectory)
        if ts.dimensions is not None:
            dimensions[k] = ts.dimensions
    trajectory[current]
    if given < n:
        raise InputError(
            f"MDAnalysis promised {n} frames and gave {given}; read the file with pv.read, which names the frame"
        )
    if has_steps_alone(trajectory) and np.isnan(time).any():
        log.info("the atom group: %s; give them: MDAnalysis.Universe(..., dt=the ps of one step)", STEPS_ALONE)
    return positions, None if np.isnan(time).any() else time, dimensions

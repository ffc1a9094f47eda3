"""Trajectories as objects of MDAnalysis and mdtraj."""

import logging
from typing import Any

import numpy as np

from polyvae.core.units import LENGTHS
from polyvae.errors import InputError
from polyvae.trajectory.box import is_lower, lengths_and_angles
from polyvae.trajectory.record import Trajectory

log = logging.getLogger(__name__)

_NM = {name: unit.nm for name, unit in LENGTHS.items()}
_ANGSTROM = {"nm": 10.0, "angstrom": 1.0, "sigma": 1.0}  # lengths in sigma keep their numbers


def make_universe(traj: Trajectory):
    """Make an `MDAnalysis.Universe` in memory; see `Trajectory.to_mdanalysis`."""
    import MDAnalysis

    universe = MDAnalysis.Universe.empty(traj.n_beads, trajectory=True)
    universe.add_TopologyAttr("names", _names(traj))
    universe.add_TopologyAttr("masses", traj.masses)
    if traj.ids is not None:
        universe.add_TopologyAttr("ids", traj.ids)
    if traj.bonds is not None:
        universe.add_TopologyAttr("bonds", [tuple(bond) for bond in traj.bonds.tolist()])
    options: dict[str, Any] = {}
    cells = _cells(traj, _ANGSTROM)
    if cells is not None:
        options["dimensions"] = np.concatenate(cells, axis=1)
    if traj.time is not None and len(traj) > 1:
        steps = np.diff(traj.time)
        if not np.allclose(steps, steps[0], rtol=1e-4):
            log.info("MDAnalysis counts these frames by 1 ps: in memory it holds evenly spaced times alone")
        else:
            options |= {"dt": float(steps.mean()), "time_offset": float(traj.time[0])}
    return universe.load_new(_spatial(traj, _ANGSTROM), order="fac", **options)


def make_mdtraj(traj: Trajectory):
    """Make an `mdtraj.Trajectory`; see `Trajectory.to_mdtraj`."""
    import mdtraj

    topology = mdtraj.Topology()
    residue = topology.add_residue("BEA", topology.add_chain())
    atoms = [topology.add_atom(name, mdtraj.element.virtual, residue) for name in _names(traj)]
    for i, j in [] if traj.bonds is None else traj.bonds.tolist():
        topology.add_bond(atoms[i], atoms[j])
    lengths, angles = _cells(traj, _NM) or (None, None)
    x = _spatial(traj, _NM)
    return mdtraj.Trajectory(x, topology, time=traj.time, unitcell_lengths=lengths, unitcell_angles=angles)


def _names(traj: Trajectory) -> list[str]:
    return ["B"] * traj.n_beads if traj.names is None else list(traj.names)


def _spatial(traj: Trajectory, factors: dict[str, float]) -> np.ndarray:
    """Positions (n_frames, n_beads, 3) in the library's unit; z is 0 in two dimensions."""
    x = np.zeros((traj.n_frames, traj.n_beads, 3), np.float32)
    x[..., : traj.n_dims] = traj.positions * np.float32(factors[traj.length_unit])
    return x


def _cells(traj: Trajectory, factors: dict[str, float]) -> tuple[np.ndarray, np.ndarray] | None:
    """Lengths and angles (n_frames, 3) of the boxes; None without a box.

    Raises:
        InputError: a turned box, which lengths and angles do not describe.
    """
    if traj.box is None:
        return None
    if not is_lower(traj.box):
        raise InputError(
            "MDAnalysis and mdtraj need boxes with the first vector along x and the second in the xy plane; this "
            "one is turned. Leave it out: dataclasses.replace(traj, box=None)"
        )
    lengths, angles = lengths_and_angles(traj.box)
    return lengths * factors[traj.length_unit], angles

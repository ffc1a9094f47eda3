"""The record of a trajectory: beads over frames, their molecules and boxes, in memory or as a stream."""

from polyvae.trajectory.convert import as_trajectory, chunks_of
from polyvae.trajectory.record import Selection, Trajectory, bonded_triples, chain_bonds, unit_factor
from polyvae.trajectory.stream import Stream, concatenate, weighted

__all__ = [
    "Selection",
    "Stream",
    "Trajectory",
    "as_trajectory",
    "bonded_triples",
    "chain_bonds",
    "chunks_of",
    "concatenate",
    "unit_factor",
    "weighted",
]

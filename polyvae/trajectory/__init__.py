"""The record of a trajectory: beads over frames, their molecules and boxes, in memory or as a stream."""

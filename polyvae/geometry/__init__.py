"""Geometry of one frame: its own axes, superposition, shape, distances; every gradient is finite."""

from polyvae.geometry.shape import (
    acylindricity,
    angles,
    asphericity,
    bead_sums,
    bead_weights,
    canonical_order,
    center,
    center_of_mass,
    center_with_sums,
    chain_moment,
    contacts,
    distances,
    end_to_end,
    frame_margins,
    gyration_tensor,
    in_principal_frame,
    pairs_at,
    principal_frame,
    radius_of_gyration,
    reversal_margin,
    rotate,
    shape_anisotropy,
)
from polyvae.geometry.superposition import rmsd

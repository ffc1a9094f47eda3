"""Featurizers: one frame of positions to a vector that rotation and translation leave alone, and back."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from polyvae import geometry
from polyvae.trajectory import Trajectory


class PrincipalAxes(eqx.Module):
    """Coordinates in the chain's own principal frame, flattened bead by bead.

    Centre on the centre of mass, turn the principal axes of the gyration tensor onto x, y(, z), largest
    extent first (`geometry.principal_frame`). A function of the conformation alone: no reference
    structure. Mirror images stay different.

    Args:
        sign: "chain" fixes the direction of each axis by the chain moment; "none" leaves it to the
            eigensolver, as many scripts do, so that frames flip.
    """

    sign: str = eqx.field(static=True, default="chain")
    masses: Float[Array, "beads"] | None = None

    def __check_init__(self):
        if self.sign not in ("chain", "none"):
            raise ValueError(f'sign must be "chain" or "none"; got {self.sign!r}')

    def fit(self, traj: Trajectory) -> "PrincipalAxes":
        """The featurizer with what it takes from the data: the masses, where they differ."""
        equal = (traj.masses == traj.masses[0]).all()
        return PrincipalAxes(self.sign, None if equal else jnp.asarray(traj.masses, jnp.float32))

    def __call__(self, positions: Float[Array, "beads dims"]) -> Float[Array, "features"]:
        frame = geometry.principal_frame(positions, self.masses, self.sign)
        return (geometry.center(positions, self.masses) @ frame.T).ravel()

    def inverse(self, features: Float[Array, "features"], n_dims: int) -> Float[Array, "beads dims"]:
        """Positions in the principal frame, centre of mass at the origin."""
        return features.reshape(-1, n_dims)

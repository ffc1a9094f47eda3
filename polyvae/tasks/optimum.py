"""Result of `optimize`: the best conformation, beside the most extreme frame of the data."""

import dataclasses
import math

import numpy as np

from polyvae import geometry
from polyvae.measures.limits import Limits
from polyvae.measures.objectives import objective_of
from polyvae.measures.pairs import FrameMeasures, frame_measures
from polyvae.records import html_of, in_words
from polyvae.trajectory.record import Trajectory, is_linear


@dataclasses.dataclass(frozen=True, eq=False)
class Optimum:
    """Result of `optimize`.

    Args:
        structure: the best conformation, one frame in the featurizer's frame.
        value: the objective there; `z`, its latent coordinates.
        valid: all bonds and pairs of `structure` are within `limits`.
        better: `value` is beyond that of every frame of the data, or within 1 % of the target.
        message: both in words.
        extreme, extreme_value: the frame of the data with the best objective.
        limits: what was asked of bonds and pairs.
        path: (n_steps, n_starts), the objective of the decoded conformation while z moves.
        z_path: (n_steps, n_starts, latent_dim).
        decoded: (n_starts,) Trajectory of the decoder's conformations at the end of `path`.
        candidates: (2 n_starts,) Trajectory after refinement, `candidate_values` and `candidate_valid`
            (2 n_starts,); `structure` is the best of them.
        route: Trajectory of how `structure` came about, about 200 frames in two segments: decoded
            conformations while z moves, then the conformation while its coordinates are refined.
    """

    structure: Trajectory
    value: float
    z: np.ndarray
    valid: bool
    better: bool
    message: str
    extreme: Trajectory
    extreme_value: float
    limits: Limits
    path: np.ndarray
    z_path: np.ndarray
    decoded: Trajectory
    candidates: Trajectory
    candidate_values: np.ndarray
    candidate_valid: np.ndarray
    route: Trajectory

    def _repr_html_(self) -> str:
        both, names = self.summary(), ("objective", "rg", "shortest_bond", "longest_bond", "closest_pair")
        found = (both["optimized"], both["data_extreme"])
        rows = [[name.replace("_", " "), *(in_words(which[name]) for which in found)] for name in names]
        head = [f"lengths in {self.structure.length_unit}", "found", "data extreme"]
        return html_of("Optimum", [head, *rows], self.message)

    def summary(self) -> dict:
        """The result as plain numbers: the conformation found, the most extreme frame of the data, and the limits.

        Where several limits hold for one distance, the narrowest is listed.
        """
        limits = self.limits.record()
        del limits["shape"]
        bond, *apart = self.limits.least_apart()
        limits |= {"shortest_bond": bond, "closest_free_pair": min(apart), "closest_apart": apart}
        return {
            "optimized": self._measure(self.structure, self.value) | {"z": self.z.tolist()},
            "data_extreme": self._measure(self.extreme, self.extreme_value),
            "limits": limits,
            "valid": self.valid,
            "better": self.better,
            "message": self.message,
        }

    def _measure(self, traj: Trajectory, value: float) -> dict:
        """Numbers of one frame; None for a distance that the molecule does not have."""
        positions = traj.positions[0]
        measures = FrameMeasures(*(part[0] for part in frame_measures(traj.positions[:1], self.limits.bonds)))
        bonds, shortest = measures.bonds, float(measures.bonds.min(initial=np.inf))
        end_to_end = None
        if is_linear(self.limits.bonds, self.structure.n_beads):
            end_to_end = float(geometry.end_to_end(positions))
        apart = [_if_finite(r) for r in measures.closest_apart]
        means = [_if_finite(mean) for mean in measures.mean_apart]
        for k, least in enumerate(apart[: len(means)]):
            if least is None:  # the mean over no pairs says nothing
                means[k] = None
        free = float(measures.closest_apart.min())
        return {
            "objective": value,
            "rg": float(objective_of("rg", traj.unequal_masses)(positions)),
            "end_to_end": end_to_end,
            "shortest_bond": shortest,
            "mean_bond": float(bonds.mean()),
            "longest_bond": float(bonds.max(initial=0.0)),
            "closest_pair": min(shortest, free),
            "closest_free_pair": _if_finite(free),
            "closest_apart": apart,
            "closest_mean_apart": means,
            "closest_contacts": float(measures.contacts),
        }


def _if_finite(value: float) -> float | None:
    if math.isfinite(value):
        return float(value)
    return None

"""Whether an engine can follow a bias: the distance that the atoms move for one width of its kernels.

The bounds are shares of a bond's length, since time steps are chosen by the bonds. A bias that changes by kT on a
distance d has the stiffness kT / d^2, a bond that fluctuates by s has kT / s^2. Bonds of carbon fluctuate by a
50th of their length at 300 K. With usual time steps the integration is unstable where the bias is more than 16
times as stiff as the bonds: d below s / 4, a 200th of the length. `tests/benchmarks/bench_steep.py` measures both
bounds.
"""

import logging

import numpy as np

from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.trajectory.record import bonds_of
from polyvae.vae.settings import Slopes

log = logging.getLogger(__name__)

BONDS = 90  # a bond's length is so many times the least distance at which free energies were right
TOO_STEEP = 300  # and so many times the distance below which they were wrong by several kT, or runs blow up
_HELP = "Train with --smoothness 1 or more (smoothness=1 in Python)"


def mean_bond(cv: LatentCV) -> float:
    """Root mean square length of the bonds in the model's frame; 0 for a single bead."""
    bonds, x = bonds_of(cv.template), cv.template.positions[0].astype(np.float64)
    if not len(bonds):
        return 0.0
    return float(np.sqrt(((x[bonds[:, 0]] - x[bonds[:, 1]]) ** 2).sum(axis=1).mean()))


def check_steepness(cv: LatentCV, width: np.ndarray, slopes: Slopes | None, *, refuse: bool = True) -> None:
    """Log a warning where a bias with kernels of this width is steep; refuse one that no time step can follow.

    Args:
        width: (latent_dim,) standard deviation of the kernels.
        slopes: of the latents; without them nothing is checked.
        refuse: raise, and do not only log, where a latent changes by a width on less than a 300th of a bond.

    Raises:
        InputError: such a latent.
    """
    bond = mean_bond(cv)
    if slopes is None or not bond:
        return
    for k, (sigma, slope) in enumerate(zip(width.tolist(), slopes.steep, strict=True)):
        if slope * bond <= BONDS * sigma:
            continue
        found = (
            f"z{k} is steep: between its ends the atoms move {sigma / slope:.2g} {cv.length_unit} while it "
            f"changes by {sigma:.3g}, the width of the bias's kernels; it should be {bond / BONDS:.2g} or more, a "
            f"{BONDS}th of a bond"
        )
        if refuse and slope * bond > TOO_STEEP * sigma:
            raise InputError(f"{found}. The run blows up, or its free energy is wrong by several kT. {_HELP}")
        log.warning("%s. Free energies may be wrong by more than their errors. %s", found, _HELP)


def describe_steepness(cv: LatentCV, slopes: Slopes | None, width: np.ndarray | None) -> str:
    """Return a note on how steep the latents are, for a README.

    Args:
        width: (latent_dim,) standard deviation of the kernels, or None where the export sets none.
    """
    if slopes is None:
        return (
            "How steep the latents are is not known: an older version trained the model. Export with --data TRAJ."
        )
    unit, bond, found = cv.length_unit, mean_bond(cv), []
    for k, (steep, steepest) in enumerate(zip(slopes.steep, slopes.steepest, strict=True)):
        text = f"z{k} changes by up to {steep:.3g} per {unit}, at most {steepest:.3g}"
        if width is not None and steep > 0:
            text += f": by a width of {width[k]:.3g} while the atoms move {width[k] / steep:.2g} {unit}"
        found.append(text)
    text = f"Steepness, on straight lines between frames at both ends of a latent: {'; '.join(found)}."
    if bond:
        text += (
            f" A bias needs {bond / BONDS:.2g} {unit} for a width, a 90th of a bond; less than "
            f"{bond / TOO_STEEP:.2g} is refused."
        )
    return text

"""The bias of OPES from its kernels, as PLUMED writes them in STATE and KERNELS, and the free energy they show.

Source: Invernizzi & Parrinello, 10.1021/acs.jpclett.0c00497, and for OPES_METAD_EXPLORE 10.1021/acs.jctc.2c00152.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from polyvae.arguments import real_number
from polyvae.errors import InputError
from polyvae.measures.hills import Hills, HillsEnergy, along, grid_around, hills_of

_ROWS = 1 << 22  # distances in memory together


@dataclasses.dataclass(frozen=True)
class Kernels:
    """An estimate of a probability, P(s) = sum of kernels / norm, and the bias kT f log(P(s) / Z + epsilon).

    Args:
        centres, widths: (n_kernels, n_variables).
        heights: (n_kernels,).
        periods: (low, high) of each variable's period, or None.
        cutoff: where kernels end, in widths; each is lowered so that it is 0 there.
        norm, zed, epsilon: as above.
        bias_factor: of the target distribution; infinite for a flat one.
        explore: whether P is that of the biased run (OPES_METAD_EXPLORE), with f = g - 1, or that of the run
            without its bias (OPES_METAD), with f = 1 - 1 / g; g is the bias factor.
    """

    centres: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    periods: Sequence[tuple[float, float] | None]
    cutoff: float
    norm: float
    zed: float
    epsilon: float
    bias_factor: float
    explore: bool

    def total(self, s: np.ndarray) -> np.ndarray:
        """Sum (n_points,) of the kernels at points (n_points, n_variables)."""
        found, rows = np.zeros(len(s)), max(1, _ROWS // len(self.heights))
        for start in range(0, len(s), rows):
            part = slice(start, start + rows)
            away = np.zeros((len(s[part]), len(self.heights)))
            for k, ends in enumerate(self.periods):
                with np.errstate(over="ignore"):  # far away is far away
                    away += (_apart(s[part, k, None], self.centres[:, k], ends) / self.widths[:, k]) ** 2
            values = np.exp(-0.5 * away) - math.exp(-0.5 * self.cutoff**2)
            found[part] = np.where(away < self.cutoff**2, values, 0) @ self.heights
        return found

    def bias(self, s: np.ndarray, kT: float) -> np.ndarray:
        """The bias (n_points,) at the end of the run, in the unit of kT."""
        factor = self.bias_factor - 1 if self.explore else 1 - 1 / self.bias_factor
        return kT * factor * np.log(self.total(s) / self.norm / self.zed + self.epsilon)

    def energy(self, s: np.ndarray, kT: float) -> np.ndarray:
        """The free energy (n_points,) that the bias shows, up to a constant: minus the bias times g / (g - 1)."""
        return -self.bias(s, kT) / (1 - 1 / self.bias_factor)

    def free_energy(self, kT: float, *, range: Sequence | None = None, bins=None) -> HillsEnergy:
        """`energy` on a grid, its lowest value 0; no error is known.

        Args:
            kT, range, bins: as `Hills.free_energy` has them.
        """
        grid, points, periods = grid_around(self.centres, self.widths, self.periods, range, bins)
        energy = self.energy(points, kT)
        energy = (energy - energy.min()).reshape([len(axis) for axis in grid])
        return HillsEnergy(grid, energy, np.full(energy.shape, np.nan), kT, periods)


def bias_of(table, names: Sequence[str] | None = None) -> tuple[Hills | Kernels, list[str]]:
    """The hills or kernels of a table, whichever it holds; as `hills_of` and `kernels_of`."""
    return (kernels_of if table.kind in ("KERNELS", "STATE") else hills_of)(table, names)


def kernels_of(table, names: Sequence[str] | None = None) -> tuple[Kernels, list[str]]:
    """The kernels of a STATE or KERNELS file (`polyvae.read_colvar`), and the names of the variables.

    Those of KERNELS are put together as PLUMED does when it restarts from that file.

    Args:
        names: the variables in the order that is wanted.

    Raises:
        InputError: another table, settings or columns that are not there.
    """
    with np.errstate(all="ignore"):  # what overflows is refused in the end
        found, names = _kernels_of(table, names)
    numbers = [*found.widths.flat, *found.heights, found.norm, found.zed, found.epsilon]
    if not all(0 < number < math.inf for number in numbers):
        raise InputError(
            f"{table.kind} of OPES must hold finite widths, heights, sums and epsilon, all greater than 0; give "
            f"the file as PLUMED wrote it"
        )
    return found, names


def _kernels_of(table, names: Sequence[str] | None) -> tuple[Kernels, list[str]]:
    """As `kernels_of`, unchecked."""
    if table.kind not in ("KERNELS", "STATE"):
        raise InputError(f"a STATE or KERNELS file of OPES is needed; got a table of {table.kind}")
    names = along(table, names)
    periods = [table.periods.get(name) for name in names]
    centres = np.stack([table[name] for name in names], axis=1)
    widths = np.stack([table[f"sigma_{name}"] for name in names], axis=1)
    heights, explore = table["height"], "EXPLORE" in table.settings.get("action", "")
    cutoff, epsilon = _setting(table, "kernel_cutoff"), _setting(table, "epsilon")
    factor = math.inf if table.settings.get("biasfactor") == "inf" else _setting(table, "biasfactor")
    if factor <= 1 or (explore and math.isinf(factor)):
        raise InputError(f"the bias factor of OPES must be greater than 1; got {factor:g}")
    if table.kind == "STATE":
        norm, zed = _setting(table, "counter" if explore else "sum_weights"), _setting(table, "zed")
    else:
        first = epsilon ** (1 - 1 / factor)  # the weight that OPES starts with
        norm = 1.0 + len(heights) if explore else first + float(np.exp(table["logweight"]).sum())
        centres, widths, heights = _together(
            centres, widths, heights, periods, _setting(table, "compression_threshold")
        )
        zed = 1.0
    found = Kernels(centres, widths, heights, periods, cutoff, norm, zed, epsilon, factor, explore)
    if table.kind == "KERNELS":
        found = dataclasses.replace(found, zed=float(found.total(centres).sum() / norm / len(heights)))
    return found, names


def _setting(table, name: str) -> float:
    word = table.settings.get(name)
    if word is None:
        raise InputError(
            f"{table.kind} of OPES must hold a line `#! SET {name} ...`; it has none. Give the file as PLUMED "
            f"wrote it, or a COLVAR and its column opes.bias"
        )
    try:
        return real_number(f"{name} of {table.kind}", float(word), least=0)
    except ValueError:
        raise InputError(f"{name} of {table.kind} must be a number; got {word!r}") from None


def _apart(a, b, ends: tuple[float, float] | None):
    """Difference a - b, the shortest around a period."""
    away = a - b
    return away if ends is None else away - (ends[1] - ends[0]) * np.round(away / (ends[1] - ends[0]))


def _together(centres, widths, heights, periods, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernels after each has joined the nearest one within the threshold, in its widths, and so on."""
    c, w, h, n = np.empty_like(centres), np.empty_like(widths), np.empty_like(heights), 0
    for centre, width, height in zip(centres, widths, heights, strict=True):
        c[n], w[n], h[n] = centre, width, height
        giver, size = n, n + 1
        while threshold > 0 and size > 1:
            steps = [_apart(c[giver, k], c[:size, k], ends) for k, ends in enumerate(periods)]
            away = ((np.stack(steps, axis=1) / w[:size]) ** 2).sum(axis=1)
            away[giver] = np.inf
            taker = int(np.argmin(away))
            if away[taker] >= threshold**2:
                break
            taker, giver = sorted((taker, giver))
            _merge(c, w, h, taker, giver, periods)
            for array in (c, w, h):
                array[giver : size - 1] = array[giver + 1 : size]
            giver, size = taker, size - 1
        n = size
    return c[:n].copy(), w[:n].copy(), h[:n].copy()


def _merge(c, w, h, taker: int, giver: int, periods) -> None:
    """Put the mean, the variance and the height of two kernels into the first."""
    total = h[taker] + h[giver]
    for k, ends in enumerate(periods):
        one = c[giver, k] + _apart(c[taker, k], c[giver, k], ends)
        mean = (h[taker] * one + h[giver] * c[giver, k]) / total
        second = h[taker] * (w[taker, k] ** 2 + one**2) + h[giver] * (w[giver, k] ** 2 + c[giver, k] ** 2)
        w[taker, k] = math.sqrt(second / total - mean**2)
        c[taker, k] = mean if ends is None else ends[0] + (mean - ends[0]) % (ends[1] - ends[0])
    h[taker] = total

"""The bias of metadynamics as the sum of its hills, and the free energy that they show."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from polyvae.arguments import is_array_like, numbers_array, one_each, real_number, refusal, whole_number
from polyvae.errors import InputError
from polyvae.measures.grids import check_points, one_or_each, ranges_of

_CUT = 6.25  # half a squared distance in widths, where PLUMED ends a hill
_ROWS = 1 << 22  # distances in memory together
_PARTS = 10  # of the last half of the hills; their differences from the end are the error
_ENDS = {"gaussian": "cut", "stretched-gaussian": "stretched", "colvars": None}
LIMIT = 6.0  # kT, up to where two free energies are compared


@dataclasses.dataclass(frozen=True)
class Hills:
    """Gaussians that a run left along one or more variables, in the order of time.

    Args:
        centres: (n_hills, n_variables).
        widths: (n_hills, n_variables) standard deviations.
        heights: (n_hills,) as in PLUMED's HILLS: in a well-tempered run, those of the bias times
            g / (g - 1), g the bias factor, so that their sum is minus the free energy.
        bias_factor: of a well-tempered run; 1 of one whose hills have all one height. A number, or (n_hills,).
            None where it is not known and the heights are those of the bias.
        periods: (low, high) of each variable's period, or None.
        ended: hills end at 3.5 widths, as PLUMED's do, and "stretched" so that they are continuous there.
    """

    centres: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    bias_factor: float | np.ndarray | None = 1.0
    periods: Sequence[tuple[float, float] | None] | None = None
    ended: str | None = None

    def __post_init__(self) -> None:
        what = "numbers (n_hills, n_variables)"
        centres = numbers_array("centres", self.centres, what)
        widths = numbers_array("widths", self.widths, what)
        if centres.ndim != 2 or not len(centres) or widths.shape != centres.shape:
            raise InputError(f"hills need centres and widths {what}; got {centres.shape} and {widths.shape}")
        if not (widths > 0).all():
            raise InputError(f"the widths of hills must be greater than 0; got {widths.min():g}")
        factor, given = None, self.bias_factor
        if given is not None:
            factors = np.atleast_1d(given) if is_array_like(given) else [given]
            known = {real_number("the bias factor", factor, least=1) for factor in set(factors)}
            factor = one_each("the bias factor", factors, len(centres), "hill") if len(known) > 1 else known.pop()
        periods = ranges_of("periods", self.periods, centres.shape[1])
        if self.ended not in (None, "cut", "stretched"):
            raise refusal("ended", "None, cut or stretched", self.ended)
        heights = one_each("heights", self.heights, len(centres), "hill")
        values = {
            "centres": centres,
            "widths": widths,
            "heights": heights,
            "bias_factor": factor,
            "periods": periods,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def total(
        self, s: Float[np.ndarray, "points variables"], start: int = 0, stop: int | None = None
    ) -> np.ndarray:
        """Sum (n_points,) of the hills from `start` up to `stop`: minus the free energy, up to a constant."""
        s = np.asarray(s, float)
        found = np.zeros(len(s))
        rows = max(1, _ROWS // max(1, len(s)))
        stop = len(self.heights) if stop is None else stop
        assert self.periods is not None
        scale, shift = 1.0, 0.0
        if self.ended == "stretched":
            scale = 1 / (1 - np.exp(-_CUT))
            shift = -np.exp(-_CUT) * scale
        for first in range(start, stop, rows):
            part = slice(first, min(stop, first + rows))
            away = np.zeros((len(s), part.stop - first))
            for k, ends in enumerate(self.periods):
                apart = s[:, k, None] - self.centres[part, k]
                if ends is not None:
                    apart -= (ends[1] - ends[0]) * np.round(apart / (ends[1] - ends[0]))
                with np.errstate(over="ignore"):  # far away is far away
                    away += 0.5 * (apart / self.widths[part, k]) ** 2
            hills = scale * np.exp(-away) + shift
            if self.ended is not None:
                hills[away >= _CUT] = 0
            found += hills @ self.heights[part]
        return found

    def energy(self, s: Float[np.ndarray, "points variables"], kT: float | None = None) -> np.ndarray:
        """The free energy (n_points,) that the hills show, up to a constant; kT is not needed."""
        return -self.total(s)

    def bias(self, s: Float[np.ndarray, "points variables"], kT: float | None = None) -> np.ndarray:
        """The bias (n_points,) at the end of the run; kT is not needed."""
        if self.bias_factor is None:
            return self.total(s)
        share = np.where(np.equal(self.bias_factor, 1), 1.0, 1 - 1 / np.asarray(self.bias_factor))
        return dataclasses.replace(self, heights=self.heights * share, bias_factor=1.0).total(s)

    def free_energy(
        self, kT: float, *, range: Sequence | None = None, bins: int | Sequence[int] | None = None
    ) -> "HillsEnergy":
        """Minus the sum of the hills on a grid, its lowest value 0, in the unit of the heights.

        Args:
            kT: thermal energy.
            range: (low, high), or one for each variable; by default its period, or three widths beyond the hills.
            bins: points of the grid, ends of the range among them, a number or one a variable; by default 201, of
                two variables 101 each.
        """
        if self.bias_factor is None:
            raise InputError(
                "hills of several heights are of a well-tempered run, whose bias factor this file does not state, "
                "so that their sum shows no free energy. Weigh frames by them: COLVAR --hills HILLS"
            )
        if np.ndim(self.bias_factor):
            factors = np.unique(self.bias_factor)
            raise InputError(
                f"a free energy is the sum of hills of one bias factor; these have {factors[0]:g} to "
                f"{factors[-1]:g}. Give the hills of one run, or weigh frames by them: COLVAR --hills HILLS"
            )
        grid, points, periods = grid_around(self.centres, self.widths, self.periods, range, bins)
        last = len(self.heights)
        parts = np.unique(np.linspace(last / 2, last, _PARTS + 1).astype(int).clip(1)).tolist()
        steps = [-self.total(points, a, b) for a, b in itertools.pairwise([0, *parts])]
        *earlier, energy = np.cumsum(steps, axis=0)
        off = np.array(earlier or [energy]) - energy
        deep = energy - energy.min() < LIMIT * kT
        off -= off[:, deep].mean(axis=1, keepdims=True)  # known up to a constant each
        error = np.sqrt((off**2).mean(axis=0))
        shape = tuple(len(axis) for axis in grid)
        lifted = (energy - energy.min()).reshape(shape)
        return HillsEnergy(grid, lifted, error.reshape(shape), kT, periods)


def grid_around(centres, widths, periods, range, bins) -> tuple:
    """Axes over the period of each variable, the range given, or three widths beyond the centres (n, n_variables);
    their points (n_points, n_variables); and the length of each period that the grid goes around, or None."""
    n = centres.shape[1]
    if n > 2:
        raise InputError(f"a free energy is drawn over one or two variables; these hills are along {n}")
    ranges, grid, around = ranges_of("range", range, n), [], []
    points_of = one_or_each("bins", (201, 101)[n - 1] if bins is None else bins, n)
    check_points([whole_number("bins", number, 2) for number in points_of])
    for k, pair in enumerate(ranges):
        ends, margin = periods[k], 3 * widths[:, k].max()
        low, high = pair or ends or (centres[:, k].min() - margin, centres[:, k].max() + margin)
        whole = ends is not None and bool(np.isclose(high - low, ends[1] - ends[0]))
        around.append(float(high - low) if whole else None)
        grid.append(np.linspace(low, high, int(points_of[k]), endpoint=not whole))
    points = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, n)
    return tuple(grid), points, tuple(around)


@dataclasses.dataclass(frozen=True)
class HillsEnergy:
    """A free energy from hills alone.

    Args:
        grid: points of each variable.
        energy: (n_points,) or (n_points, n_points).
        error: of the same shape, root mean square change over the last half of the hills: how far the run is from
            its end, and no interval.
        kT: thermal energy.
        periods: of each variable, or None; the grid goes around a period once.
    """

    grid: tuple[np.ndarray, ...]
    energy: np.ndarray
    error: np.ndarray
    kT: float
    periods: tuple[float | None, ...]


def hills_of(table, names: Sequence[str] | None = None) -> tuple[Hills, list[str]]:
    """The hills of a table (`polyvae.read_colvar`) that holds centre `x` and width `sigma_x` of each variable, and
    `height`, as PLUMED's HILLS; and the names of the variables.

    Args:
        names: the variables in the order that is wanted.

    Raises:
        InputError: columns that are not there, other variables, hills that are turned against the variables.
    """
    if table.kind in ("KERNELS", "STATE"):
        raise InputError(
            f"{table.kind} of OPES holds kernels of a probability, which are no hills of metadynamics; read it by "
            f"`polyvae.measures.kernels.kernels_of`, or give a COLVAR and its column opes.bias"
        )
    if table.settings.get("multivariate", "false") == "true":
        raise InputError(
            "these hills are turned against the variables (multivariate true), which is not read here"
        )
    kernel = table.settings.get("kerneltype", "gaussian").lower()
    if kernel not in _ENDS:
        raise InputError(f"the hills are of kernel type {kernel}; gaussian and stretched-gaussian are read")
    table = name_hills(table, names)
    names = along(table, names)
    factor: float | np.ndarray | None = table["biasf"].clip(1) if "biasf" in table else 1.0
    if "biasf" not in table and np.ptp(table["height"]) > 1e-6 * np.abs(table["height"]).max():
        factor = None  # well-tempered
    hills = Hills(
        np.stack([table[name] for name in names], axis=1),
        np.stack([table[f"sigma_{name}"] for name in names], axis=1),
        table["height"],
        factor,
        [table.periods.get(name) for name in names] if len(names) > 1 else table.periods.get(names[0]),
        _ENDS[kernel],
    )
    return hills, names


def name_hills(table, names: Sequence[str] | None):
    """The table of the hills of Colvars, which states no names, with names for its variables in their order.

    Other tables, and those without names to take, stay as they are.
    """
    own = [name.removeprefix("sigma_") for name in table if name.startswith("sigma_")]
    if table.settings.get("kerneltype") != "colvars" or len(names or ()) != len(own):
        return table
    new = dict(zip(own, names or (), strict=True))
    new |= {f"sigma_{name}": f"sigma_{other}" for name, other in new.items()}
    columns = {new.get(name, name): values for name, values in table.columns.items()}
    return dataclasses.replace(table, columns=columns)


def along(table, names: Sequence[str] | None) -> list[str]:
    """The variables of a table of hills or kernels, in the order that is wanted."""
    given = [name.removeprefix("sigma_") for name in table if name.startswith("sigma_")]
    names = list(names or given)
    if not given or sorted(given) != sorted(names):
        raise InputError(
            f"these hills are along {', '.join(given) or 'nothing'}; got {', '.join(names)}. Name those"
        )
    return names

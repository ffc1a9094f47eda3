"""How a run is read: the options of `read`, in one record."""

import dataclasses
import difflib
import os
from collections.abc import Iterable

from polyvae.arguments import file_name, flag, if_given, one_of, real_number, text, whole_number
from polyvae.core.units import LENGTH_UNITS
from polyvae.io.formats import check_format
from polyvae.trajectory.assembly import check_how


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """The options of `read`, which explains them; `InputError` for unknown units, formats and the like."""

    topology: str | os.PathLike | None = None
    select: str | None = None
    length_unit: str | None = None
    start: int = 0
    stop: int | None = None
    step: int = 1
    unwrap: bool | str = "auto"
    per_molecule: bool = False
    dims: int | None = None
    keep_good: bool = False
    ignore_times: bool = False
    dt: float | None = None
    format: str | None = None
    topology_format: str | None = None

    def __post_init__(self):
        put = object.__setattr__
        for name in ("format", "topology_format"):
            check_format(name, getattr(self, name))
        one_of("length_unit", self.length_unit, (*LENGTH_UNITS, None))
        put(self, "start", whole_number("start", self.start, 0))
        put(self, "stop", if_given(whole_number, "stop", self.stop))
        put(self, "step", whole_number("step", self.step, 1))
        if_given(text, "select", self.select)
        if_given(file_name, "topology", self.topology)
        flag("keep_good", self.keep_good)
        flag("ignore_times", self.ignore_times)
        if self.dt is not None:
            put(self, "dt", real_number("dt", self.dt, above=0))
        check_how(self.unwrap, self.per_molecule, self.dims)


_MEANT = {"top": "topology", "unit": "length_unit", "units": "length_unit", "stride": "step", "timestep": "dt"}


def refuse_unknown(function: str, names: Iterable[str]) -> None:
    """Raise TypeError for a name that is no option of `read`; it says which one is meant."""
    known = [field.name for field in dataclasses.fields(ReadOptions)]
    for name in names:
        if name in known:
            continue
        near = [_MEANT[name]] if name in _MEANT else difflib.get_close_matches(name, known, 1)
        meant = f", but {near[0]!r}" if near else ""
        raise TypeError(f"{function}() has no option {name!r}{meant}; its options are {', '.join(known)}")

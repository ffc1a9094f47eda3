"""H5MD, by h5py: MDAnalysis passes over particle ids, fixed boxes and steps, and boundaries.

Format: https://www.nongnu.org/h5md/h5md.html, version 1.1.
"""

import contextlib
import logging
from pathlib import Path
from typing import Any

import numpy as np

from polyvae.core.units import picoseconds
from polyvae.errors import InputError
from polyvae.io.formats import check_installed
from polyvae.io.frames import Frames, TrajectoryFile, part_of
from polyvae.trajectory.facts import IN_FRAMES, NOT_STATED, stated_array, stated_if, understood_length

log = logging.getLogger(__name__)


class H5mdFile(TrajectoryFile):
    """An H5MD file; see `frames.TrajectoryFile`. Beads come in the order of their ids."""

    NO_PLACE_FOR = ("names", "chains", "residues", "weights", "segments")
    usual_unit = "sigma"

    def __init__(self, path: Path):
        check_installed(path, "H5MD")
        self.path = path
        with contextlib.closing(self):
            self._open()
            self._look()

    def _open(self) -> None:
        if self._file is not None:
            return
        import h5py

        self._file = h5py.File(self.path, "r")
        particles = self._file.get("particles")
        groups = [name for name in particles or () if "position" in particles[name]]
        if not groups:
            raise InputError(f"{self.path}: an H5MD file needs particles with positions, and this one holds none")
        if len(groups) > 1:
            log.warning("%s: holds the groups %s; %s is taken", self.path, ", ".join(groups), groups[0])
        self._group = particles[groups[0]]

    def _look(self) -> None:
        """Find what the file states, and how many frames it holds."""
        value = _value(self._group["position"])
        shape = value.shape if _is_element(self._group["position"]) else (1, *value.shape)
        if len(shape) != 3 or shape[2] not in (2, 3) or 0 in shape:
            raise InputError(f"{self.path}: positions need the shape (frames, particles, 2 or 3); got {shape}")
        self.n_frames, self.n_atoms, self._n_dims = map(int, shape)
        self.always_3d = self._n_dims == 3
        if "id" in self._group:
            self.ids = np.sort(self._rows("id", 0, 1)[0].astype(np.int64))
            if np.isin(_own_fill_value(_value(self._group["id"])), self.ids).any():
                raise InputError(
                    f"{self.path}: particles are missing in some frames (their id is the fill value); write "
                    f"the same particles in every frame"
                )
            if (np.diff(self.ids) == 0).any():
                raise InputError(
                    f"{self.path}: an id stands twice in the first frame; each particle needs its own"
                )
        self._steps, self._times, time_unit = self._clocks()
        boxed = "edges" in self._group.get("box", {})
        self.state(
            length_unit=understood_length(_unit(value)),
            time=stated_if(self._times is not None),
            time_unit=stated_if(time_unit is not None and picoseconds(time_unit) is not None, time_unit),
            box=stated_if(boxed),
            periodic=self._boundary(),
            ids=stated_array(self.ids),
            images=stated_if("image" in self._group and boxed),
            masses=self._fixed("mass"),
            charges=self._fixed("charge"),
            types=self._fixed("species"),
            bonds=self._bonds(),
        )

    def read(self, start: int, stop: int) -> Frames:
        self._open()
        positions = self._rows("position", start, stop).astype(np.float64)
        order = self._order(start, stop)
        box = self._box(start, stop)
        if self.facts.images is IN_FRAMES:
            assert box is not None
            positions += self._rows("image", start, stop) @ box[:, : self._n_dims, : self._n_dims]
        if order is not None:
            positions = np.take_along_axis(positions, order[..., None], axis=1)
        return Frames(
            positions,
            part_of(self._times, start, stop),
            None if box is None else box.astype(np.float32),
            part_of(self._steps, start, stop),
        )

    def clock(self) -> np.ndarray | None:
        return self._steps if self._times is None else self._times

    def __getstate__(self):
        return super().__getstate__() | {"_group": None}

    def _rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Values of an element in some frames; one that is fixed in time is the same in each."""
        element = self._group[name]
        if _is_element(element):
            return np.asarray(_value(element)[start:stop])
        return np.broadcast_to(np.asarray(element), (stop - start, *element.shape))

    def _fixed(self, name: str) -> Any:
        """Values of an element in the first frame, in the order of ids."""
        if name not in self._group:
            return NOT_STATED
        values, order = self._rows(name, 0, 1)[0], self._order(0, 1)
        return values if order is None else values[order[0]]

    def _order(self, start: int, stop: int) -> np.ndarray | None:
        """Places that sort the particles of each frame by id, (n, n_atoms); None without ids."""
        if self.ids is None:
            return None
        return self.order_of(self._rows("id", start, stop).astype(np.int64), start)

    def _box(self, start: int, stop: int) -> np.ndarray | None:
        """Box vectors (n, 3, 3) of some frames."""
        if not self.facts.stated("box"):
            return None
        element = self._group["box/edges"]
        if _is_element(element) and len(_value(element)) != self.n_frames:
            raise InputError(
                f"{self.path}: boxes need one entry for each of {self.n_frames} frames; got {len(_value(element))}"
            )
        edges = self._rows("box/edges", start, stop)
        d = self._n_dims
        box = np.zeros((stop - start, 3, 3))
        if edges.ndim == 2:
            box[:, range(d), range(d)] = edges
        else:
            box[:, :d, :d] = edges
        return box

    def _boundary(self) -> Any:
        """Along which box vectors the box is periodic."""
        words = self._group["box"].attrs.get("boundary") if "box" in self._group else None
        if words is None:
            return NOT_STATED
        flags = [_text(word) == "periodic" for word in np.atleast_1d(words)]
        return tuple([*flags, False][:3]) if len(flags) >= 2 else NOT_STATED

    def _clocks(self) -> tuple[np.ndarray | None, np.ndarray | None, str | None]:
        """Steps, times, and the unit of time."""
        element = self._group["position"]
        if not _is_element(element):
            return None, None, None
        steps, times = (self._series(element, name) for name in ("step", "time"))
        unit = None if times is None else _unit(element["time"])
        return None if steps is None else steps.astype(np.int64), times, unit

    def _series(self, element, name: str) -> np.ndarray | None:
        """Steps or times of all frames; a scalar is their increment."""
        if name not in element:
            return None
        values = np.asarray(element[name])
        if values.ndim == 0:
            return float(element[name].attrs.get("offset", 0)) + float(values) * np.arange(self.n_frames)
        if len(values) != self.n_frames:
            raise InputError(
                f"{self.path}: {name} needs one entry for each of {self.n_frames} frames; got {len(values)}"
            )
        return values

    def _bonds(self) -> Any:
        """Bonds by place in the order of ids, from the group connectivity."""
        found = self._file.get("connectivity/bonds")
        if found is None or getattr(found, "shape", (0,))[-1] != 2:
            return NOT_STATED
        pairs = np.asarray(found, np.int64)
        if self.ids is None:
            return pairs
        if not np.isin(pairs, self.ids).all():
            raise InputError(f"{self.path}: its bonds name particles (id) that it does not hold; mend the bonds")
        return np.searchsorted(self.ids, pairs)


def _is_element(item) -> bool:
    """Whether an item varies with time: a group with values, and not a data set alone."""
    return hasattr(item, "keys")


def _value(item):
    return item["value"] if _is_element(item) else item


def _own_fill_value(data) -> list[int]:
    """The fill value of a data set, where one was set: of an id, it marks a particle that does not exist."""
    from h5py import h5d

    stated = data.id.get_create_plist().fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED
    return [int(data.fillvalue)] if stated else []


def _text(word: Any) -> str:
    return word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word)


def _unit(data) -> str | None:
    """The unit that a data set states."""
    found = data.attrs.get("unit")
    return None if found is None else _text(found)

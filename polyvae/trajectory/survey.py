"""Properties of all frames of one run, found from its first frames, as many as settle it. NumPy only."""

import numpy as np

_LOOKED_AT = 1000  # frames that a box may follow to be taken for shrink-wrapped
_FEW = 1000  # atoms; more of them fill a periodic box to a thousandth, too
_FAR_MORE = 10  # in a periodic box, the middle of the atoms varies as much as the gap to the faces
_ENOUGH = 10  # frames from which on it counts how a box follows the atoms, and not alone how closely


class Survey:
    """Whether a run is planar, and along which box vectors it is periodic.

    Frames come in blocks, from the first, until `settled`: one frame whose z differs settles that the data are not
    planar, and takes every frame otherwise; a thousand frames show whether a box follows the atoms. The answer
    does not depend on how many frames come at once.

    Args:
        wanted: the atoms whose z count, an index.
        dims: 2 or 3 where that is not asked.
        always_3d: whether planar data may have three coordinates.
        stated: three bools, along which box vectors the file says that it is periodic; None where it does not say.
        unwrap: whether it matters what the box is.

    Attributes:
        n_dims, planar: 2 or 3, once settled; whether the data hold three coordinates, and z never varies.
        boxed: whether the first frame has a box in those dimensions.
        periodic: three bools; if not stated, a direction along which the box follows the outermost atoms is not
            periodic, as in boxes of shrink-wrapped runs.
        first, first_box, first_frame: the first wanted bead and the box of the first frame, and its number.
    """

    def __init__(self, wanted, *, dims: int | None, always_3d: bool, stated=None, unwrap: bool = True):
        self._wanted, self._dims, self._always_3d = wanted, dims, always_3d
        self._stated, self._ask = stated, unwrap and stated is None
        self.settled, self._seen = False, 0
        self.planar: bool | None = None
        self._boxes: list[np.ndarray] = []  # diagonals of the boxes, (n, d) each
        self._lows: list[np.ndarray] = []
        self._highs: list[np.ndarray] = []

    def look(self, positions: np.ndarray, box: np.ndarray, first_frame: int = 0) -> None:
        """Look at the next frames: positions (n, n_atoms, 2 or 3), box (n, 3, 3), the number of the first."""
        if self.settled:
            return
        if not self._seen:
            self._begin(positions[0], np.asarray(box[0]), first_frame)
        if self.planar is None:
            if self.flat(positions[:1])[0] and self.flat(positions).all():
                self._moving |= bool((positions[:, self._wanted, :2] != self.first[:2]).any())
            else:
                self.planar = False
        if self._ask and (left := _LOOKED_AT - self._seen) > 0:
            d = positions.shape[2]
            self._boxes.append(np.diagonal(box[:left], axis1=1, axis2=2)[:, :d].astype(np.float64))
            self._lows.append(positions[:left].min(axis=1).astype(np.float64))
            self._highs.append(positions[:left].max(axis=1).astype(np.float64))
        self._seen += len(positions)
        undecided = self._ask and self._seen < _LOOKED_AT and self._may_follow().any()
        if self.planar is not None and not undecided:
            self.settle()

    def settle(self) -> None:
        """No frame is left to look at, or none is needed."""
        if self.settled:
            return
        self.planar = self._moving if self.planar is None else self.planar
        d = self.n_dims = 2 if self._flat_land or self.planar else 3
        self.boxed = bool(self.first_box[:d, :d].any())
        self.periodic = np.ones(3, bool) if self._stated is None else np.asarray(self._stated, bool)
        if self._ask and self._boxes:
            follows = self._follows()
            self.periodic[: len(follows)] &= ~follows
        self.settled = True

    def flat(self, positions: np.ndarray) -> np.ndarray:
        """Whether every z in a frame is that of the first bead of the first frame, (n,)."""
        return (positions[:, self._wanted, 2] == self.first[2]).all(axis=1)

    def _begin(self, positions: np.ndarray, box: np.ndarray, number: int) -> None:
        self._n_atoms, d = positions.shape
        self.first, self.first_box, self.first_frame = positions[self._wanted][0], box, number
        self.planar = None if d == 3 and self._dims is None and self._always_3d else False
        self._flat_land, self._moving = d == 2 or self._dims == 2, False
        self._ask = self._ask and bool(box.any())

    def _may_follow(self) -> np.ndarray:
        """Along which axes a box may follow the atoms, (d,): it differs in the first two frames, and is near."""
        length, extent = (values[:2] for values in self._lengths_and_extents())
        with np.errstate(invalid="ignore"):
            near = (np.abs(length - extent) <= 0.2 * length).all(axis=0)
        return near & ((len(length) < 2) | (length[0] != length[-1]))

    def _lengths_and_extents(self) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate(self._boxes), np.concatenate(self._highs) - np.concatenate(self._lows)

    def _follows(self) -> np.ndarray:
        """Along which axes the box varies and follows the outermost atoms, (d,).

        Boxes of a shrink-wrapped run fit in the frames in which the engine sets them. Between these, atoms move in
        and out, as in a periodic box that varies. There the middle of the atoms stays where the box is; in a
        shrink-wrapped run it goes where the molecule goes.
        """
        length, extent = self._lengths_and_extents()
        n, d = length.shape
        if n < 3:
            return np.zeros(d, bool)
        with np.errstate(invalid="ignore"):  # frames that are not finite are refused where they are used
            gap = length - extent
            varies = self._may_follow()
            close = (np.abs(gap) <= 1e-3 * length).all(axis=0) & (self._n_atoms <= _FEW)
            if n < _ENOUGH:
                return varies & close
            near = np.abs(gap).mean(axis=0) <= 0.05 * length.mean(axis=0)
            middle = np.concatenate(self._highs) + np.concatenate(self._lows)
            off = middle - middle.mean(axis=0)
            spread = length - length.mean(axis=0)
            slope = (off * spread).sum(axis=0) / np.maximum((spread**2).sum(axis=0), 1e-30)
            wanders = np.var(off - slope * spread, axis=0) > _FAR_MORE * np.var(gap, axis=0)
            return varies & (close | (near & wanders))

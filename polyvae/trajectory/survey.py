"""What holds for all frames of one run, told from its first frames, as many as settle it. NumPy only."""

import numpy as np

_LOOKED_AT = 1000  # frames, and atoms, that a box may follow to be taken for shrink-wrapped


class Survey:
    """Whether a run is planar, and whether it is periodic.

    Frames come in blocks, from the first, until `settled`: one frame whose z differs and one that does not
    fill its box settle all; else it takes every frame to tell planar data, and a thousand to tell a box
    that follows the atoms. The answer does not depend on how many frames come at once.

    Args:
        wanted: the atoms whose z count, an index.
        dims: 2 or 3 where that is not asked.
        always_3d: whether three coordinates may stand for two.
        periodic: whether it matters what the box is.

    Attributes:
        n_dims: 2 or 3; once settled.
        planar: whether the data hold three coordinates, and z never varies.
        boxed: whether the first frame has a box in those dimensions.
        shrink_wrapped: whether the box varies and the atoms fill it to a thousandth in every frame. Engines
            write such a box for runs that are not periodic; a large periodic system fills its box too, so
            more than a thousand atoms do not count.
        first, first_box, first_frame: the first wanted bead and the box of the first frame, and its number.
    """

    def __init__(self, wanted, *, dims: int | None, always_3d: bool, periodic: bool):
        self._wanted, self._dims, self._always_3d, self._periodic = wanted, dims, always_3d, periodic
        self.settled, self._seen = False, 0
        self.planar: bool | None = None

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
        if self._follows.any() and (left := _LOOKED_AT - self._seen) > 0:
            self._compare(positions[:left], box[:left])
        self._seen += len(positions)
        undecided = self._follows[: self._count()].all() and self._seen < _LOOKED_AT
        if self.planar is not None and not undecided:
            self.settle()

    def settle(self) -> None:
        """No frame is left to look at, or none is needed."""
        if self.settled:
            return
        self.planar = self._moving if self.planar is None else self.planar
        d = self.n_dims = self._count()
        self.boxed = bool(self.first_box[:d, :d].any())
        self.shrink_wrapped = bool(self._seen >= 3 and self._follows[:d].all() and self._varies[:d].any())
        self.settled = True

    def flat(self, positions: np.ndarray) -> np.ndarray:
        """Whether every z in a frame is that of the first bead of the first frame, (n,)."""
        return (positions[:, self._wanted, 2] == self.first[2]).all(axis=1)

    def _begin(self, positions: np.ndarray, box: np.ndarray, number: int) -> None:
        n_atoms, d = positions.shape
        self.first, self.first_box, self.first_frame = positions[self._wanted][0], box, number
        self.planar = None if d == 3 and self._dims is None and self._always_3d else False
        self._flat_land, self._moving = d == 2 or self._dims == 2, False
        self._follows = np.full(d, self._periodic and n_atoms <= _LOOKED_AT)
        self._varies = np.zeros(d, bool)

    def _count(self) -> int:
        return 2 if self._flat_land or self.planar else 3

    def _compare(self, positions: np.ndarray, box: np.ndarray) -> None:
        d = len(self._follows)
        lengths = np.diagonal(box, axis1=1, axis2=2)[:, :d]
        with np.errstate(invalid="ignore"):  # frames that are no numbers are refused where they are used
            extent = positions.max(axis=1) - positions.min(axis=1)
            self._follows &= (np.abs(lengths - extent) <= 1e-3 * lengths).all(axis=0)
        self._varies |= (lengths != np.diagonal(self.first_box)[:d]).any(axis=0)

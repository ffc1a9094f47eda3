"""The times of the frames of one file: increasing in each of its segments, or left out."""

import logging
from pathlib import Path

import numpy as np

from polyvae.errors import InputError

log = logging.getLogger(__name__)


def pieces_in_time(path: Path, clock: np.ndarray | None, stated: np.ndarray | None, n_frames: int) -> np.ndarray:
    """Lengths of the pieces of a file that are continuous in time.

    Times or steps that leap from their usual distance, as those of frames picked by a criterion do, begin a piece.
    `clock` (n_frames,) holds times or steps; `stated` are lengths of the segments that the file states.
    """
    lengths = np.array([n_frames]) if stated is None else np.asarray(stated)
    begins = np.cumsum(lengths)[:-1]
    if clock is None or n_frames < 3:
        return lengths
    clock = np.asarray(clock, np.float64)
    steps = np.diff(clock)
    within = ~np.isin(np.arange(1, n_frames), begins) & (steps > 0)
    if not within.any() or (steps == steps[0]).all():
        return lengths
    usual = float(np.median(steps[within]))
    # Times in single precision are rounded.
    rounding = 4 * float(np.spacing(np.float32(np.abs(clock[np.isfinite(clock)]).max())))
    off = np.abs(steps - usual) > 0.5 * usual + rounding
    leaps = within & off
    if not leaps.any():
        return lengths
    if leaps.sum() > 0.5 * within.sum():
        text = "%s: times between frames vary from %g to %g, so lags and timescales count frames and not time"
        log.warning(text, path, steps[within].min(), steps[within].max())
        return lengths
    begins = np.union1d(begins, np.flatnonzero(leaps) + 1).astype(int)
    text = (
        "%s: times leap from their usual distance of %g at %d frames, the first of them %d; each begins a "
        "segment, so that no lagged pair crosses a leap"
    )
    log.warning(text, path, usual, leaps.sum(), np.flatnonzero(leaps)[0] + 1)
    return np.diff([0, *begins, n_frames])


class Times:
    """Whether a file holds times that differ between frames, and the check that they increase.

    Frames come in blocks, from the first, until `settled`: one time that differs settles it. A file with one time
    for all frames, or without one for the first, is taken to hold none; `ignore` takes it so, too. Where the file
    states segments, times need to differ only within each.
    """

    def __init__(self, path: Path, ignore: bool = False):
        self._path, self._first, self._seen = path, None, 0
        self.settled, self._kept = ignore, False
        self.begin()

    def look(self, time: np.ndarray | None) -> None:
        """Look at the next frames' times."""
        if self.settled:
            return
        if not self._seen:
            self._first = None if time is None or np.isnan(time[0]) else time[0]
            if time is not None and self._first is None:
                log.info("%s: the first frame has no time (nan), so times are left out", self._path)
        self._seen += 1 if time is None else len(time)
        if self._first is None:
            self.settled = True
        elif time is None or (time != self._first).any():
            self.settled = self._kept = True

    def settle(self, n_segments: int = 1) -> None:
        """No frame is left to look at."""
        if not self.settled:
            self.settled, self._kept = True, self._seen == n_segments
            if not self._kept:
                log.info("%s: all frames have the same time, which is left out", self._path)

    kept = property(lambda self: self._kept, doc="Whether the file holds times; once settled.")

    def leave_out(self) -> None:
        """Take the file to hold no times."""
        self.settled, self._kept = True, False

    def begin(self) -> None:
        """The next block is the first one."""
        self._last: tuple | None = None

    def checked(
        self, frames: range, time: np.ndarray | None, step: np.ndarray | None, segment: np.ndarray
    ) -> np.ndarray | None:
        """The times of the next block, numbers `frames`, or None where the file is taken to hold none.

        `segment` (n,) numbers the segment of each frame. `InputError` for a time that does not increase.
        """
        if not self._kept:
            return None
        time = np.full(len(frames), np.nan) if time is None else time
        before_time, before_step, before = (time[0], None, segment[0] - 1) if self._last is None else self._last
        rise = np.diff(time, prepend=before_time)
        bad = ~(rise > 0)
        if bad.any() and step is not None:
            # Single precision runs out of digits late in a long run; the step numbers distinguish frames.
            bad &= ~((rise == 0) & (np.diff(step, prepend=step[0] if before_step is None else before_step) > 0))
        bad &= np.diff(segment, prepend=before) == 0
        if bad.any():
            at = int(np.argmax(bad))
            raise InputError(
                f"{self._path}: the time of frame {frames[at]} is {time[at]:g}, that of the frame before it "
                f"{time[at - 1] if at else before_time:g}; times must increase in each segment of a "
                f"file. Cut the file there, or leave times out (--ignore-times, ignore_times=True)"
            )
        self._last = time[-1], None if step is None else step[-1], segment[-1]
        return time

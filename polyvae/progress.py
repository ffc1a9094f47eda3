"""Progress bars."""

import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Iterator

from polyvae.arguments import check_progress, if_given, text, whole_number

_NAMES = {"reconstruction": "-log p", "kl": "KL", "loss": "loss", "val_loss": "held out"}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Log warnings alone: a job of many small pieces would repeat each note for every piece."""
    logger = logging.getLogger("polyvae")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def progress_bar(
    what: str, *, total: int | None = None, unit: str = "step"
) -> contextlib.AbstractContextManager[Callable]:
    """A bar on a terminal and in a notebook, for `progress=` of `fit` and others; nothing is shown in a pipe.

    `progress=True` makes such a bar; this one has words of your own.

    `with progress_bar("training") as bar: cv = fit(traj, progress=bar)`. Functions that report steps done
    and in all set the length of the bar themselves; loss terms are shown beside it.

    Args:
        what: words before the bar.
        total: its length, for `project` and `movie`, which report the frames done since the last call.
        unit: name of a step.
    """
    return _bar(text("what", what), if_given(whole_number, "total", total, 0), text("unit", unit))


@contextlib.contextmanager
def reporting(progress, what: str, unit: str = "step") -> Iterator[Callable | None]:
    """The function that takes the progress: that of `progress=`, or a bar where it is True."""
    if progress is True:
        with _bar(what, None, unit) as bar:
            yield bar
    else:
        check_progress(progress)
        yield progress or None


def reports(what: str, unit: str = "step") -> Callable:
    """Decorator of a function with `progress=`, which may be True."""

    def decorate(work: Callable) -> Callable:
        @functools.wraps(work)
        def with_bar(*arguments, progress=None, **named):
            with reporting(progress, what, unit) as report:
                return work(*arguments, progress=report, **named)

        return with_bar

    return decorate


@contextlib.contextmanager
def _bar(what: str, length: int | None, unit: str) -> Iterator[Callable]:
    from tqdm.auto import tqdm  # in a notebook its own form

    hidden = False if "ipykernel" in sys.modules else None  # None: hidden unless stderr is a terminal
    with tqdm(desc=what, unit=unit, total=length, disable=hidden, file=sys.stderr, leave=False) as bar:

        def update(done: int, total: int | None = None, terms: dict[str, float] | None = None) -> None:
            if terms:
                shown = ", ".join(f"{name} {terms[key]:.2f}" for key, name in _NAMES.items() if key in terms)
                bar.set_postfix_str(shown, refresh=False)
            if total is None:
                bar.update(done)
            else:
                bar.total = total
                bar.update(done - bar.n)

        yield update

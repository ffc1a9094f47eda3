"""SIGTERM and SIGHUP end the process within two seconds, also in a library that does not look at signals."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator
from typing import Any

_GRACE = 1.2  # seconds for an orderly end
_SIGNALS = (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))  # Windows has no SIGHUP


@contextlib.contextmanager
def ending_promptly() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit, so that temporary files are removed; end the process where that
    takes longer than `_GRACE`, as when XLA compiles.

    The system's own handler writes the number of a signal into a pipe, which a thread reads.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []

    def leave(number: int, frame: types.FrameType | None) -> None:
        caught.append(number)
        while frame is not None:  # an error within the import of a compiled module may crash the process
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                _end(128 + number)
            frame = frame.f_back
        sys.exit(128 + number)

    for number in _SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP, and so does this
            signal.signal(number, leave)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()
    try:
        yield
    finally:
        if caught:  # all is cleaned up; the interpreter's own end may wait for, or crash in, XLA's threads
            _end(128 + caught[0])
        signal.set_wakeup_fd(before)
        os.close(writing)


def _watch(reading: int) -> None:
    while number := os.read(reading, 1):
        if number[0] in _SIGNALS:
            time.sleep(_GRACE)
            _end(128 + number[0])
    os.close(reading)


def _end(code: int) -> None:
    """End the children and this process at once; temporary files are removed."""
    files: Any = sys.modules.get("polyvae.files")  # not imported: that may be what was going on
    children = multiprocessing.active_children()
    try:
        for child in children:
            child.kill()
        if hasattr(files, "remove_temporaries"):
            files.remove_temporaries()
        for child in children:
            child.join(0.1)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # also after an error, such as a pipe that is closed: nothing may keep a process that is to end
        os._exit(code)

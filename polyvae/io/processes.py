"""Programs that are run beside this process, and end with it."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

GRACE = 1.0  # seconds between the signals that ask a group of processes to end and that end it


def run(words: Sequence[str], **options: Any) -> subprocess.CompletedProcess:
    """Run a program to its end, as `subprocess.run` does with the `options` of `subprocess.Popen`.

    Args:
        words: the program and its arguments.

    Raises:
        OSError: the program cannot be run.
    """
    group: dict[str, Any] = {"process_group": 0} if os.name == "posix" else {}
    child = subprocess.Popen(words, **group, **options)
    with ending_with_us(child):
        out, errors = child.communicate()
    return subprocess.CompletedProcess(words, child.returncode, out, errors)


@contextlib.contextmanager
def ending_with_us(child: subprocess.Popen) -> Iterator[None]:
    """End the group of a child where the block is left by an error or a signal.

    A small shell does the same where this process is killed: it reads the end of a pipe that only this process
    holds open.
    """
    watcher = None
    if os.name == "posix":
        script = f"read _; kill -TERM -{child.pid}; sleep {GRACE:g}; kill -KILL -{child.pid}"
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        watcher = subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE, process_group=0, **quiet)
    try:
        yield
    finally:
        if child.poll() is None:
            _end(child)
        if watcher is not None:
            watcher.kill()
            watcher.communicate()


def _end(child: subprocess.Popen) -> None:
    """Ask the group of a child to end, and end it a second later."""
    if os.name != "posix":
        child.kill()
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)

"""The same functions here, or on a Dask cluster: tasks whose results are told as they come, whatever fails."""

import collections
import contextlib
import itertools
import logging
import multiprocessing
import os
import pickle
import signal
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from polyvae.arguments import refusal
from polyvae.errors import InputError, one_line

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Call = Callable[..., Any]

_IN_A_TASK = 1 << 24  # bytes of a shared value that the scheduler keeps, from which it can be made again
_CONNECTING = 30.0  # seconds
_ATTEMPTS = 3


def checked_client(client: Any) -> Any:
    """A `distributed.Client`, or None where all is to be done in this process."""
    if client is None:
        return None
    try:
        from distributed import Client
    except ImportError:
        raise refusal("client", "a distributed.Client (pip install 'polyvae[dask]')", client) from None
    if not isinstance(client, Client) or client.asynchronous:
        raise refusal("client", "a distributed.Client that is not asynchronous, or None", client)
    return client


@contextlib.contextmanager
def connected(scheduler: str | None = None, workers: int | None = None) -> Iterator[Any]:
    """A client of the scheduler at an address, or of as many workers as are wanted on this machine; None, for this
    process, where neither is given or one worker is wanted.

    Each worker is a process with one thread, and its share of the cores for what JAX compiles.

    Raises:
        InputError: both are given, no Dask is installed, nothing answers at the address.
    """
    if scheduler is not None and workers is not None:
        raise InputError("a scheduler has workers of its own; give --scheduler or --workers, not both")
    if scheduler is None and workers in (None, 1):
        yield None
        return
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise InputError("several workers need Dask: pip install 'polyvae[dask]'") from None
    with contextlib.ExitStack() as stack:
        for name in ("distributed", "asyncio"):  # of what these say, the tasks' outcomes tell what matters
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        if scheduler is None:
            env = {"NPROC": str(max(1, cores() // (workers or 1))), "DASK_LOGGING__DISTRIBUTED": "critical"}
            cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0", env=env)
            scheduler = stack.enter_context(cluster)
        try:
            client = stack.enter_context(Client(scheduler, timeout=_CONNECTING))
        except (OSError, ValueError) as error:
            raise InputError(f"no Dask scheduler answers at {scheduler} ({one_line(error)})") from None
        if workers is not None:
            client.run(_wait_for_the_end)
        yield client


def _wait_for_the_end() -> None:
    """In a worker: leave an interrupt, which a terminal sends to all processes, to the one that started them."""
    with contextlib.suppress(ValueError):  # in a thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def outcomes(
    client: Any, work: Callable[[Call, Item], Any], items: Iterable[Item]
) -> Iterator[tuple[Item, Any | InputError]]:
    """What became of each item, as soon as it is known: its result, or why there is none.

    `work(call, item)` says what is to be done, with `call(function, *arguments)` for each task of it; what a call
    gives may be an argument of the next, also in a list. Without a client, calls are made at once and items come
    in their order. On a cluster the tasks of a lost worker are done again by the others, as often as Dask's
    `allowed-failures` says; where the iterator is closed early, what is not done is cancelled.
    """
    if client is None:
        for item in items:
            yield item, work(_tried, item)
        return
    from distributed import as_completed

    def call(function: Call, *arguments):
        key = f"{function.__name__.strip('_')}-{uuid.uuid4().hex}"  # the name that Dask's own page shows
        return client.submit(_tried, function, *arguments, key=key, pure=False)

    in_here = client.scheduler.address.startswith("inproc")  # where what is logged is there anyway
    if not in_here:
        client.forward_logging("polyvae")  # warnings
    futures: dict[Any, Any] = {}
    try:
        for item in items:
            futures[work(call, item)] = item
        # Told of results alone: gathering them there, an error of the connection would leave it waiting for ever.
        for future in as_completed(list(futures)):
            yield futures[future], _result(future)
            del futures[future]
    finally:
        with contextlib.suppress(Exception):  # of a scheduler that is gone
            if client.status == "running":
                client.cancel(list(futures))
                if not in_here:
                    client.unforward_logging("polyvae")


def in_order(client: Any, function: Call, items: Iterable, *arguments) -> Iterator:
    """`function(item, *arguments)` of each item by the workers, in the order of the items, a few ahead of the one
    that is wanted.

    Raises:
        InputError: one of them failed.
    """
    ahead = 2 + 2 * sum(client.nthreads().values())
    waiting: collections.deque = collections.deque()
    items = iter(items)
    try:
        while True:
            for item in itertools.islice(items, ahead - len(waiting)):
                waiting.append(client.submit(_tried, function, item, *arguments, pure=False))
            if not waiting:
                return
            result = _result(waiting[0])
            if isinstance(result, InputError):
                raise result
            waiting.popleft()
            yield result
    finally:
        with contextlib.suppress(Exception):  # of a scheduler that is gone
            if client.status == "running":
                client.cancel(list(waiting))


def _result(future: Any) -> Any:
    """The result of a future, or why there is none; asked for again where the connection stumbles."""
    for attempt in range(_ATTEMPTS):
        try:
            return future.result()
        except Exception as error:
            if future.status == "error" or attempt == _ATTEMPTS - 1:
                return _told(error)
            log.debug("asking again", exc_info=True)
    return None


def _tried(function: Call, *arguments):
    """What a function gives, or, as a value, why it gives nothing; that of an argument, where one is such."""
    for argument in arguments:
        for value in argument if isinstance(argument, list) else [argument]:
            if isinstance(value, InputError):
                return value
    try:
        return function(*arguments)
    except (InputError, OSError) as error:
        return InputError(one_line(error))
    except Exception as error:
        log.debug("%s failed", function, exc_info=True)
        return InputError(f"{type(error).__name__}: {one_line(error)}")


def _told(error: BaseException) -> InputError:
    """What ended a task from without."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return InputError(
            f"{error.allowed_failures + 1} workers died at it one after another; was there too little memory, or "
            f"is the file damaged? Give workers more memory, or leave it out"
        )
    return InputError(f"{type(error).__name__}: {one_line(error)}")


def shared(client: Any, value: Any) -> Any:
    """A value for arguments of `call` that goes to each worker once, not with each task."""
    if client is None:
        return value
    from distributed.protocol.pickle import dumps

    text = dumps(value)
    if len(text) > _IN_A_TASK:
        return client.scatter([value], broadcast=True, hash=False)[0]  # of a tuple it would scatter the members
    # What is scattered is lost with the workers that hold it; what a task has made is made again.
    return client.submit(_unpickled, text, pure=False)


def _unpickled(text: bytes) -> Any:
    from distributed import get_worker

    # Before JAX starts its threads, which would be as many as the machine has cores in every worker on it.
    if multiprocessing.parent_process() is not None:
        os.environ.setdefault("NPROC", str(get_worker().state.nthreads))
    return pickle.loads(text)

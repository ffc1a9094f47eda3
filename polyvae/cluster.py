"""Functions of many items, run in this process or on a Dask cluster, with an outcome for each item."""

import collections
import contextlib
import itertools
import logging
import math
import multiprocessing
import os
import pickle
import queue
import signal
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, TypeVar

from polyvae.arguments import refusal
from polyvae.errors import InputError, one_line

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Call = Callable[..., Any]

_IN_A_TASK = 1 << 24  # most bytes of a shared value that goes through the scheduler, which can send it again
_CONNECTING = 30.0  # seconds
_LOOKING = 2.0  # seconds between two looks at the connection
_ATTEMPTS = 3  # to fetch a result
_AHEAD, _A_THREAD = 2, 3  # submitted items: a few, and a few more for each thread of the workers
_LOST = object()  # stands for a result that was lost with the connection


def check_client(client: Any) -> Any:
    """Check a `distributed.Client`, or None for this process."""
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
    """Connect to the scheduler at an address, or start a number of workers on this machine.

    Yields the client, or None, for this process, if neither is given or one worker is wanted. Each worker is a
    process with one thread, and has its share of the cores for programs of JAX.

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
        for name in list(logging.root.manager.loggerDict):  # several of Dask's loggers have a level of their own
            if name.partition(".")[0] not in ("distributed", "asyncio", "tornado"):
                continue
            logger = logging.getLogger(name)  # silent, since the outcomes of the tasks hold their errors
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
    """Ignore interrupts in a worker: a terminal sends them to all processes, and the first one handles them."""
    with contextlib.suppress(ValueError):  # signals cannot be set in a thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def outcomes(
    client: Any, work: Callable[[Call, Item], Any], items: Iterable[Item]
) -> Iterator[tuple[Item, Any | InputError]]:
    """Yield each item with its result or its error, as soon as it is known.

    `work(call, item)` submits the tasks of an item by `call(function, *arguments)` and returns the last one. The
    result of a call may be an argument of the next, also in a list. Without a client, calls are made at once and
    items come in their order. On a cluster, few items are submitted at a time. The other workers repeat the tasks
    of a lost one, as often as Dask's `allowed-failures` allows. Items that are lost with the connection are
    submitted again once the client has reconnected. Closing the iterator early cancels the other tasks.

    Raises:
        InputError: the scheduler is gone.
    """
    if client is None:
        for item in items:
            yield item, work(_try, item)
        return

    def call(function: Call, *arguments):
        key = f"{function.__name__.strip('_')}-{uuid.uuid4().hex}"  # the name that Dask's own page shows
        return client.submit(_try, function, *map(_place, arguments), key=key, pure=False)

    in_here = client.scheduler.address.startswith("inproc")  # such workers log in this process
    if not in_here:
        client.forward_logging("polyvae")
    under_way: dict[Any, tuple[Any, Item]] = {}  # by the key of the last task of each item
    room = _Room(client)
    ended: queue.SimpleQueue = queue.SimpleQueue()
    again: collections.deque[Item] = collections.deque()
    items = iter(items)
    try:
        while True:
            for item in itertools.islice(itertools.chain(_drain(again), items), room.left(under_way)):
                future = work(call, item)
                under_way[future.key] = future, item
                future.add_done_callback(ended.put)
            if not under_way:
                return
            future, item = under_way.pop(_next(client, ended).key)
            result = _result(client, future)
            if result is _LOST:
                again.append(item)
            else:
                yield item, result
    finally:
        with contextlib.suppress(Exception):  # of a scheduler that is gone
            if client.status == "running":
                client.cancel([future for future, _ in under_way.values()])
                if not in_here:
                    client.unforward_logging("polyvae")


def in_order(client: Any, function: Call, items: Iterable, *arguments) -> Iterator:
    """Yield `function(item, *arguments)` of each item in order; workers do a few items ahead.

    Raises:
        InputError: one of them failed, or the scheduler is gone.
    """

    def submitted(item):
        return client.submit(_try, function, item, *map(_place, arguments), pure=False)

    waiting: collections.deque = collections.deque()
    items, room = iter(items), _Room(client)
    try:
        while True:
            for item in itertools.islice(items, room.left(waiting)):
                waiting.append((item, submitted(item)))
            if not waiting:
                return
            item, future = waiting[0]
            result = _result(client, future)
            if result is _LOST:
                waiting[0] = item, submitted(item)
                continue
            if isinstance(result, InputError):
                raise result
            waiting.popleft()
            yield result
    finally:
        with contextlib.suppress(Exception):  # of a scheduler that is gone
            if client.status == "running":
                client.cancel([future for _, future in waiting])


def _drain(again: collections.deque[Item]) -> Iterator[Item]:
    while again:
        yield again.popleft()


class _Room:
    """Number of items that may be submitted: a few for each thread of the present workers.

    Thousands would slow the scheduler down, and would all be lost with it.
    """

    def __init__(self, client: Any):
        self._client, self._most, self._asked = client, _AHEAD, -math.inf

    def left(self, under_way: Collection) -> int:
        if time.monotonic() - self._asked > _LOOKING:
            with contextlib.suppress(Exception):  # while the client reconnects
                self._most = _AHEAD + _A_THREAD * sum(self._client.nthreads().values())
            self._asked = time.monotonic()
        return max(0, self._most - len(under_way))


def _next(client: Any, ended: queue.SimpleQueue) -> Any:
    """The next future that has ended, with a result or an error."""
    while True:
        with contextlib.suppress(queue.Empty):
            return ended.get(timeout=_LOOKING)
        _check_connection(client)


def _result(client: Any, future: Any) -> Any:
    """The result or the error of a future, or `_LOST` if the connection was lost."""
    failed = 0
    while True:
        try:
            return future.result(timeout=_CONNECTING)
        except Exception as error:
            if future.status == "error":
                return _describe(error)
            _check_connection(client)
            if future.status == "cancelled":
                return _LOST
            failed += future.status == "finished"  # done, but its result could not be fetched
            if failed == _ATTEMPTS:
                return _describe(error)
            log.debug("asking again", exc_info=True)


def _check_connection(client: Any) -> None:
    """Wait for a client that reconnects; raise `InputError` if it gives up."""
    deadline = time.monotonic() + 2 * _CONNECTING
    while client.status == "connecting" and time.monotonic() < deadline:
        time.sleep(0.1)
    if client.status != "running":
        raise InputError(
            "the connection to the Dask scheduler was lost, and it does not answer any more; start it again, and "
            "call again: what is done is not done twice"
        )


def _try(function: Call, *arguments):
    """Return the function's result, or the `InputError` that it raised or that is among its arguments."""
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


def _describe(error: BaseException) -> InputError:
    """The reason, in one line, why a task was ended from outside."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return InputError(
            f"{error.allowed_failures + 1} workers died at it one after another; was there too little memory, or "
            f"is the file damaged? Give workers more memory, or leave it out"
        )
    return InputError(f"{type(error).__name__}: {one_line(error)}")


class Shared:
    """An argument of `call` that goes to each worker once, not with each task."""

    def __init__(self, client: Any, value: Any):
        self._client, self._value, self._future = client, value, None

    def future(self) -> Any:
        """The value on the cluster; it is sent again if it was lost with a connection or with workers."""
        from distributed.protocol.pickle import dumps

        if self._future is None or self._future.status not in ("pending", "finished"):
            text = dumps(self._value)
            if len(text) > _IN_A_TASK:  # in a list, since `scatter` takes a tuple apart
                [self._future] = self._client.scatter([self._value], broadcast=True, hash=False)
            else:  # a scattered value is lost with its workers; the value of a task is made again
                self._future = self._client.submit(_unpickle, text, pure=False)
        return self._future


def shared(client: Any, value: Any) -> Any:
    """The value, or on a cluster a `Shared` one."""
    if client is None:
        return value
    return Shared(client, value)


def _place(argument: Any) -> Any:
    if isinstance(argument, Shared):
        return argument.future()
    return argument


def _unpickle(text: bytes) -> Any:
    from distributed import get_worker

    # This must be set before JAX starts its threads: each worker would have as many as the machine has cores.
    if multiprocessing.parent_process() is not None:
        os.environ.setdefault("NPROC", str(get_worker().state.nthreads))
    return pickle.loads(text)

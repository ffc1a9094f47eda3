"""Training by several processes, each started with the same command, on one machine or on many."""

import contextlib
import logging
from typing import Annotated

import jax
import typer

from polyvae.app.console import say
from polyvae.errors import InputError

Coordinator = Annotated[
    str | None,
    typer.Option(
        "--coordinator",
        metavar="auto|HOST:PORT",
        help="Where several processes meet that train together, each on its share of the files; auto asks SLURM, "
        "Open MPI or a cloud TPU.",
    ),
]
Process = Annotated[
    str | None,
    typer.Option("--process", metavar="K/N", help="Which of them this is: 0/2 and 1/2 [default: asks as auto]."),
]


def join(coordinator: str | None, process: str | None) -> bool:
    """Meet the other processes, where there are any; whether this is the first, which alone speaks and writes."""
    if coordinator is None:
        if process is not None:
            raise typer.BadParameter("it is for --coordinator HOST:PORT; give that, too", param_hint="--process")
        return True
    jax.config.update(
        "jax_enable_preemption_service", False
    )  # which would take a batch system's SIGTERM and go on
    k, n = (None, None) if coordinator == "auto" else _numbers(coordinator, process)
    try:
        jax.distributed.initialize(None if coordinator == "auto" else coordinator, num_processes=n, process_id=k)
    except (ValueError, RuntimeError) as error:
        # Of auto, JAX names the arguments of its own that it did not find out.
        own = coordinator == "auto" and isinstance(error, ValueError)
        why = "" if own else f" ({str(error).splitlines()[0]})"
        raise InputError(
            f"the processes did not meet{why}; outside of SLURM, Open MPI and cloud "
            f"TPUs give all of them --coordinator HOST:PORT and --process K/N"
        ) from None
    first = jax.process_index() == 0
    if first:
        say(_company(jax.process_count(), jax.device_count()))
    else:
        logging.getLogger("polyvae").setLevel(logging.ERROR)
        logging.getLogger("polyvae.io").setLevel(logging.WARNING)  # of its own files, which no other reads
    return first


def _company(n: int, n_devices: int) -> str:
    """Who trains, in words."""
    together = "processes" if n > 1 else "process"
    return (
        f"{n} {together} with {n_devices} device{'s' * (n_devices > 1)} {'train together' if n > 1 else 'trains'}"
    )


def _numbers(coordinator: str, process: str | None) -> tuple[int | None, int | None]:
    """Which process this is, and of how many; None where JAX finds that out."""
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdigit()):
        raise typer.BadParameter(f"{coordinator!r} is neither auto nor HOST:PORT", param_hint="--coordinator")
    if process is None:
        return None, None
    with contextlib.suppress(ValueError):
        k, n = map(int, process.split("/"))
        if 0 <= k < n:
            return k, n
    raise typer.BadParameter(f"{process!r} is not K/N with K from 0 to N - 1, such as 0/2", param_hint="--process")

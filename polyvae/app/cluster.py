"""Options of the verbs that a cluster can do."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated

import typer

# By the name in `polyvae.cluster.connected`.
CLUSTER = {
    "scheduler": (
        Annotated[
            str | None,
            typer.Option(
                "--scheduler",
                metavar="ADDRESS",
                help="Address of a Dask cluster, as tcp://host:8786; not with --workers.",
            ),
        ],
        None,
    ),
    "workers": (
        Annotated[
            int | None,
            typer.Option("--workers", min=1, help="Processes on this machine; not with --scheduler [default: 1]."),
        ],
        None,
    ),
}


def on_cluster(verb: Callable) -> Callable:
    """Decorator below `takes(cluster=CLUSTER)`: the verb gets a client of that cluster, or None, as `client`."""

    @functools.wraps(verb)
    def command(cluster: dict, **given):
        if cluster["scheduler"] is not None and cluster["workers"] is not None:
            raise typer.BadParameter(
                "a scheduler has workers of its own; give one of the two, not both", param_hint="--workers"
            )
        from polyvae.cluster import connected

        with connected(**cluster) as client:
            return verb(client=client, **given)

    signature = inspect.signature(verb)
    parameters = [p.replace(name="cluster") if p.name == "client" else p for p in signature.parameters.values()]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # `takes` reads it
    return command

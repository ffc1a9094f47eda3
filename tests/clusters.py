"""A small Dask cluster inside the process of the tests, and what stands in the log of one."""

import contextlib

import pytest


@contextlib.contextmanager
def small_cluster(n_workers: int = 2):
    """A client of workers that are threads, which start at once."""
    distributed = pytest.importorskip("distributed", reason="pip install 'polyvae[dask]'")
    with (
        distributed.LocalCluster(
            n_workers=n_workers, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client

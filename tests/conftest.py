"""Shared by all tests: small data, a small model, and strict JAX."""

import ctypes
import functools
import gc
import os
import resource
import shutil
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Most of the time goes into compiling small programs that run once. XLA's optimisations cost three times what
# they save here; `XLA_FLAGS= pytest` has the programs that users have, as `.ci/run` has for claims.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")
# What one process has compiled, the other worker and the commands that tests start read from disk.
OWN_CACHE = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    OWN_CACHE = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="polyvae-tests-")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
# For the workers, which start later: memory that compiling has used goes back.
os.environ.setdefault("MALLOC_ARENA_MAX", "2")
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", "1000000")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

if os.environ.get("POLYVAE_CHECK_SHAPES") == "1":
    from jaxtyping import install_import_hook

    install_import_hook("polyvae", "shapes.checked")  # what it makes of annotations stands there

import polyvae as pv  # noqa: E402
from polyvae.export import kernel  # noqa: E402

MOST = 1.2  # GiB that a worker may hold at the end of a file; what the next one adds must fit into 2
PEAKS = {}  # of the workers, GiB: their own and that of the commands they started
DATA = ROOT / "data"
SEED_DATA = ROOT.parent / "shared" / "seed"

# (n,) - (n, 1) must fail in a test, not broadcast. The package itself sets nothing.
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_sessionfinish(session):
    """Each worker tells the most memory that it, or a command that it started, ever held."""
    if hasattr(session.config, "workeroutput"):
        kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        session.config.workeroutput["peak"] = [resource.getrusage(kind).ru_maxrss / 2**20 for kind in kinds]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    PEAKS[node.gateway.id] = getattr(node, "workeroutput", {}).get("peak", [0, 0])


def pytest_terminal_summary(terminalreporter):
    for name, (own, commands) in sorted(PEAKS.items()):
        terminalreporter.write_line(f"peak memory of {name}: {own:.2f} GiB, of its commands {commands:.2f} GiB")


def pytest_unconfigure():
    if OWN_CACHE is not None:
        shutil.rmtree(OWN_CACHE, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Keep compiled programs for the next files, which find most of theirs, as long as memory allows."""
    yield
    free_memory()
    if resident() > MOST:
        jax.clear_caches()
        free_memory()


@pytest.fixture(autouse=True)
def _compile_quickly(request, monkeypatch):
    """C is compiled with -O1, in a third of the time; for long tests as users have it."""
    if not request.node.get_closest_marker("long"):
        monkeypatch.setattr(kernel, "FLAGS", ("-O1", *kernel.FLAGS[1:]))


def free_memory():
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # of glibc, which otherwise keeps what is free
        trim(0)


def resident() -> float:
    """Memory of this process in GiB; its peak where there is no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return pages * resource.getpagesize() / 2**30


def arrays(path) -> dict[str, np.ndarray]:
    """What an npz file holds, with the file closed again."""
    with np.load(path) as file:
        return dict(file)


def ideal_chains(n_frames: int, n_beads: int, n_dims: int, seed: int = 0) -> np.ndarray:
    """Gaussian chains: <Rg^2> = n_dims (N^2 - 1) / (6 N) for steps of unit variance in each direction."""
    steps = np.random.default_rng(seed).normal(size=(n_frames, n_beads, n_dims))
    return steps.cumsum(axis=1).astype(np.float32)


def random_rotations(n: int, n_dims: int, rng: np.random.Generator) -> np.ndarray:
    """Proper rotations, uniform: QR of Gaussian matrices with the signs put right."""
    q, r = np.linalg.qr(rng.normal(size=(n, n_dims, n_dims)))
    q = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    q[:, :, 0] *= np.sign(np.linalg.det(q))[:, None]
    return q


@functools.cache
def simulated(name: str) -> pv.Trajectory:
    """A run of data/: chain2d, chain2d_heldout, chain2d_dense, chain3d or chain3d_heldout."""
    if name.startswith("chain2d"):
        return pv.read(DATA / f"{name}.npz")
    return pv.read(DATA / f"{name}.dcd", topology=DATA / "chain3d.pdb", length_unit="sigma")


def chapter(name: str) -> Path:
    """A data file of the book chapter, which lies beside the checkout where it may be used."""
    path = SEED_DATA / name
    if not path.exists():
        pytest.skip(f"the chapter's {name} is not here (its licence keeps it out of the project)")
    return path


# Decorator for tests of `traj` or `cv` whose subject does not depend on the number of dimensions: they would
# compile and train everything a second time to show the same.
in_3d = pytest.mark.parametrize("traj", [3], indirect=True, ids=["3-D"])


@pytest.fixture(scope="session", params=[2, 3], ids=["2-D", "3-D"])
def traj(request) -> pv.Trajectory:
    """600 ideal chains of 8 beads."""
    n = 600
    return pv.Trajectory(ideal_chains(n, 8, request.param), time=0.5 * np.arange(n), names=["B"] * 8)


@pytest.fixture(scope="session")
def cv(traj) -> pv.LatentCV:
    """A briefly trained model of `traj`."""
    return pv.fit(traj, epochs=20, batch_size=64, encoder=(16,), decoder=(32,))

"""A latent CV as an MDAnalysis analysis.

Not imported by `polyvae` itself: `from polyvae.mdanalysis import LatentAnalysis`.
"""

import contextlib
import functools
import multiprocessing
import pickle
import sys

import numpy as np
from MDAnalysis.analysis.backends import BackendDask, BackendMultiprocessing
from MDAnalysis.analysis.base import AnalysisBase
from MDAnalysis.analysis.results import ResultsGroup

from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.trajectory.assembly import Assembler
from polyvae.trajectory.convert import atoms_of
from polyvae.trajectory.record import unit_factor
from polyvae.trajectory.universe import boxes_of, periodic_of


class _Spawned(BackendMultiprocessing):
    """MDAnalysis' backend with fresh processes: a fork of a process in which JAX runs threads can hang."""

    def apply(self, func, computations):
        with multiprocessing.get_context("spawn").Pool(self.n_workers) as pool:
            return pool.map(func, computations)


class _Clustered(BackendDask):
    """MDAnalysis' backend, which starts processes of its own, on the cluster that there is a client of."""

    def apply(self, func, computations):
        client = _client()
        if client is None:
            return super().apply(func, computations)
        # An analysis gathers frames in itself: each piece needs its own, where a worker has several threads.
        text = sys.modules["distributed"].protocol.pickle.dumps(func)
        return client.gather(client.map(functools.partial(_called, text), computations, pure=False))


def _called(text: bytes, computation):
    return pickle.loads(text)(computation)


def _client():
    if "distributed" in sys.modules:
        with contextlib.suppress(ValueError):
            return sys.modules["distributed"].default_client()
    return None


class LatentAnalysis(AnalysisBase):
    """Latent coordinates of an atom group over its trajectory.

    ```python
    from polyvae.mdanalysis import LatentAnalysis
    analysis = LatentAnalysis(universe.select_atoms("name B"), cv).run(backend="multiprocessing", n_workers=4)
    analysis.results.latent
    ```

    The numbers are those of `cv.transform` under every backend: workers gather coordinates, and the
    encoding is done once they are together, in the process that called `run` (reading is what takes the
    time). "multiprocessing" starts fresh processes, so a script that uses it needs the usual
    `if __name__ == "__main__":`. "dask" does so, too, unless a `distributed.Client` is there, whose cluster it
    then works on; `n_workers` is the number of pieces.

    Args:
        atomgroup: the beads that the model was trained on, in its order; a `Universe` for all atoms. Not
            an updating group.
        cv: a `LatentCV`.
        length_unit: unit of the group's coordinates: "angstrom", as MDAnalysis has it, by default;
            "sigma" where the numbers are in reduced units.
        unwrap: "auto" makes molecules whole along their bonds where there is a periodic box, True refuses
            trajectories without one, False takes coordinates as they are.

    Attributes:
        results.latent: (n_frames, latent_dim), the encoder's mean.
        results.times: (n_frames,), in ps.

    Raises:
        InputError: no `LatentCV`, a unit that cannot be turned into the model's, atoms that do not fit the
            model, an updating group, molecules that cannot be made whole.
    """

    _analysis_algorithm_is_parallelizable = True

    @classmethod
    def get_supported_backends(cls):
        """Names of the backends that `run` takes."""
        return ("serial", "multiprocessing", "dask")

    def __init__(self, atomgroup, cv: LatentCV, *, length_unit: str = "angstrom", unwrap="auto", **kwargs):
        if not isinstance(cv, LatentCV):
            raise InputError(f"cv must be a LatentCV, as polyvae.load(path) gives; got {type(cv).__name__}")
        unit_factor(length_unit, cv.length_unit)
        super().__init__(atomgroup.universe.trajectory, **kwargs)
        self._atoms = atoms_of(atomgroup.atoms if atomgroup.universe is atomgroup else atomgroup)
        self._needed = self._atoms.needed()
        self._group = atomgroup.universe.atoms[self._needed]
        self.cv, self._length_unit, self._unwrap = cv, length_unit, unwrap
        if len(self._atoms.chosen) != cv.n_beads:
            raise InputError(
                f"the model takes {cv.n_beads} beads, the atom group holds {len(self._atoms.chosen)}; "
                f"select the beads that the model was trained on"
            )

    def _configure_backend(self, backend, n_workers, unsupported_backend=False):
        executor = super()._configure_backend(backend, n_workers, unsupported_backend)
        own = {BackendMultiprocessing: _Spawned, BackendDask: _Clustered}.get(type(executor))
        return executor if own is None else own(n_workers=n_workers)

    def __getstate__(self):
        state = self.__dict__.copy()
        state["cv"] = None  # the workers do not need it, and compiled functions do not travel
        return state

    def _prepare(self):
        self.results.positions, self.results.dimensions = [], []

    def _single_frame(self):
        self.results.positions.append(self._group.positions)
        dimensions = self._ts.dimensions
        self.results.dimensions.append(np.zeros(6) if dimensions is None else dimensions.copy())

    def _get_aggregator(self):
        return ResultsGroup(
            lookup={"positions": ResultsGroup.flatten_sequence, "dimensions": ResultsGroup.flatten_sequence}
        )

    def _conclude(self):
        positions, cell = self.results.pop("positions"), self.results.pop("dimensions")
        self.results.times = self.times
        if not len(positions):
            self.results.latent = np.empty((0, self.cv.latent_dim), np.float32)
            return
        cell = np.array(cell)
        assembler = Assembler(
            self._atoms.among(self._needed),
            self._length_unit,
            unwrap=self._unwrap,
            dims=self.cv.n_dims,
            periodic=periodic_of(self._trajectory),
            where="the atom group",
        )
        box = boxes_of(cell, self._trajectory, self._unwrap is not False)
        self.results.latent = self.cv.transform(assembler.record(np.array(positions, np.float32), None, box))

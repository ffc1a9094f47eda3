"""Choice of settings: a grid of models on one trajectory, measured on held-out frames."""

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from polyvae.arguments import flag, if_given, one_of, whole_number
from polyvae.batches import single_precision
from polyvae.cluster import check_client, outcomes, shared
from polyvae.cv.fitting import check_width, fit, prepare_data
from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.progress import reports
from polyvae.records import html_of, in_words
from polyvae.tasks.scoring import score
from polyvae.trajectory.convert import as_trajectory
from polyvae.trajectory.record import Trajectory
from polyvae.vae.fitting import train_together
from polyvae.vae.model import FittedVAE
from polyvae.vae.network import check_latent_dim
from polyvae.vae.settings import Settings, Training

# Arguments of `fit` that its settings keep, beside the options of training and the cell of the grid.
_SHARED = ("encoder", "decoder", "smoothness", "lag")
_CELL = ("latent_dim", "beta", "seed")  # settings in which the models of a grid differ
# Measures by name, and the names of `score` for them.
MEASURES = {"bound": "iw_bound", "fve": "fve", "active_units": "active_units", "vamp2": "vamp2"}


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
    """Results of a grid of models.

    Args:
        rows: one dictionary a model, in the order of `models`: latent_dim, beta and seed; and on the held-out
            frames (on all, where none were) "bound", the importance-weighted bound on log p(x) in nats per
            frame, whatever beta was, "fve", the fraction of variance explained, "active_units" and "vamp2";
            and "epochs".
        models: the models.
    """

    rows: list[dict]
    models: list[LatentCV]

    def __repr__(self):
        return f"<Sweep: {len(self.models)} models, {len(self.summary())} settings>"

    def summary(self) -> list[dict]:
        """One dictionary for each setting: mean over the seeds of each measure, and "..._std", their spread."""
        groups: dict[tuple, list[dict]] = {}
        for row in self.rows:
            groups.setdefault((row["latent_dim"], row["beta"]), []).append(row)
        found = []
        for (latent_dim, beta), rows in groups.items():
            entry = {"latent_dim": latent_dim, "beta": beta, "n_seeds": len(rows)}
            for name in MEASURES:
                values = [row[name] for row in rows if row[name] is not None]
                entry[name] = entry[f"{name}_std"] = None
                if values:
                    entry[name] = float(np.mean(values))
                if len(values) > 1:
                    entry[f"{name}_std"] = float(np.std(values, ddof=1))
            found.append(entry)
        return found

    def table(self) -> list[list[str]]:
        """A row for each setting: mean over the seeds of each measure, their standard deviation in brackets."""
        rows = [["latents", "beta", *MEASURES]]
        for entry in self.summary():
            cells = [str(entry["latent_dim"]), f"{entry['beta']:g}"]
            for name in MEASURES:
                spread = entry[f"{name}_std"]
                cells.append(in_words(entry[name]))
                if spread is not None:
                    cells[-1] += f" ({spread:.3f})"
            rows.append(cells)
        return rows

    def _repr_html_(self) -> str:
        return html_of(
            f"Sweep: {len(self.models)} models", self.table(), "on held-out frames; spread of seeds in brackets"
        )

    def best(self, measure: str = "bound") -> LatentCV:
        """The model with the largest value of a measure."""
        one_of("measure", measure, MEASURES)
        values = [-np.inf if row[measure] is None else row[measure] for row in self.rows]
        return self.models[int(np.argmax(values))]


@single_precision
@reports("training", "model")
def sweep(
    data,
    *,
    latent_dim: int | Sequence[int] = 2,
    beta: float | Sequence[float] = 1.0,
    seeds: int | Sequence[int] = 3,
    together: bool | None = None,
    client: Any = None,
    score_lag: int | None = None,
    progress: Callable[[int, int], None] | bool | None = None,
    **options,
) -> Sweep:
    """Train a model for every latent_dim, beta and seed, and measure each on the held-out frames.

    These frames also decide when training ends, so that the best values are a little too good. Measure the model
    that you choose on another run.

    Args:
        data: as for `fit`.
        latent_dim, beta: values to try.
        seeds: list of seeds, or their number.
        together: train all models of one latent_dim in one vectorised program. This is the default on an
            accelerator. A CPU trains them one after another with the same compiled program, and ends each when it
            has converged. Either way a model is the one that `fit` returns for these settings, one after another
            to the bit.
        client: a `distributed.Client`. Each worker trains and measures one model at a time; another worker repeats
            the work of a lost one. The data go to each worker once.
        score_lag: lag of the VAMP-2 score, in frames; see `score`.
        progress: True for a bar, or a function of models done and models in all.
        **options: options of `fit`, except seed, checkpoint and resume.

    Raises:
        InputError: as `fit`.
    """
    grid: dict[str, Any] = {"latent_dim": latent_dim, "beta": beta, "seeds": seeds}
    if _is_one(seeds):
        grid["seeds"] = range(whole_number("seeds", seeds, 0))
    for name, values in grid.items():
        grid[name] = [values] if _is_one(values) else list(values)
        if not grid[name]:
            raise InputError(f"the sweep needs at least one value of {name}; got none")
    if ignored := {"seed", "progress", "checkpoint", "resume"} & set(options):
        raise TypeError(f"a sweep takes no {', '.join(sorted(ignored))}; see seeds and progress")
    if_given(flag, "together", together)
    score_lag = if_given(whole_number, "score_lag", score_lag, 1)
    if check_client(client) is not None and together:
        raise InputError("together must not be True with a client, whose workers train one each; leave one out")
    if together is None:
        together = client is None and jax.default_backend() != "cpu"
    call = inspect.signature(fit).bind(data, **options)
    call.apply_defaults()
    given = call.arguments
    traj = data if isinstance(data, Trajectory) else as_trajectory(data)
    if given["weights"] is not None:  # for what is measured, too
        traj = dataclasses.replace(traj, weights=given["weights"])
    cells = [dict(zip(_CELL, cell, strict=True)) for cell in itertools.product(*grid.values())]
    training = Training.of(given["training"], given["options"])
    common_settings = {name: given[name] for name in _SHARED} | training.settings()
    common_settings["width"] = check_width(given["width"])
    settings = [Settings(**common_settings | cell) for cell in cells]  # all are checked before one is trained
    found: dict[int, tuple[LatentCV, dict]] = {}
    with prepare_data(traj, given["featurizer"], settings[0], cache=training.cache) as (make, prepared):
        for cell in settings:
            check_latent_dim(cell.latent_dim, prepared.x.shape[1])
        runs = [dataclasses.replace(prepared.settings, **cell) for cell in cells]
        common = prepared, make, traj, score_lag
        trained = _train_on_cluster(runs, common, client)
        if client is None:
            trained = _train_here(runs, common, together)
        for place, one in trained:
            found[place] = one
            if callable(progress):
                progress(len(found), len(runs))
    models, rows = zip(*(found[place] for place in range(len(runs))), strict=True)
    return Sweep(list(rows), list(models))


def _train_here(
    runs: list[Settings], common: tuple, together: bool
) -> Iterator[tuple[int, tuple[LatentCV, dict]]]:
    """Yield the number of each run, its model and the measures of it."""
    if not together:
        yield from enumerate(_train_one(run, common) for run in runs)
        return
    prepared, *rest = common
    for _, of_one_size in itertools.groupby(enumerate(runs), lambda run: run[1].latent_dim):
        places, group = zip(*of_one_size, strict=True)
        trained = train_together([dataclasses.replace(prepared, settings=run) for run in group])
        for place, run, model in zip(places, group, trained, strict=True):
            yield place, _measure_model(run, model, *rest)


def _train_on_cluster(
    runs: list[Settings], common: tuple, client: Any
) -> Iterator[tuple[int, tuple[LatentCV, dict]]]:
    """Yield the same from the workers of a cluster, as they finish."""
    data = shared(client, common)
    for place, one in outcomes(client, lambda call, k: call(_train_one, runs[k], data), range(len(runs))):
        if isinstance(one, InputError):
            raise one
        yield place, one


@single_precision  # on a worker
def _train_one(run: Settings, common: tuple) -> tuple[LatentCV, dict]:
    prepared, *rest = common
    return _measure_model(run, dataclasses.replace(prepared, settings=run).train(), *rest)


def _measure_model(
    run: Settings, model: FittedVAE, make: Callable, traj: Trajectory, lag: int | None
) -> tuple[LatentCV, dict]:
    cv = make(model)
    frames = score(cv, traj, lag=lag, alternatives=False).frames
    held_out = frames.validation or frames.all
    row = {name: run[name] for name in _CELL}
    row |= {name: held_out[key] for name, key in MEASURES.items()}
    return cv, row | {"epochs": len(cv.record.history["kl"])}


def _is_one(value) -> bool:
    """Whether the value is one to try, not a list of them."""
    return isinstance(value, (str, bytes, Mapping)) or not np.iterable(value)

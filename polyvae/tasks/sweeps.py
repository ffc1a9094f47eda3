"""Choosing settings: a grid of models on one trajectory, and what each is worth on held-out frames."""

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from polyvae.cv.latent import LatentCV, fit, latent_cv, prepared_data
from polyvae.errors import InputError
from polyvae.tasks.scoring import score
from polyvae.trajectory.record import Trajectory
from polyvae.trajectory.stream import as_trajectory
from polyvae.vae import training
from polyvae.vae.fitting import Prepared, check_settings, settings_of
from polyvae.vae.model import FittedVAE
from polyvae.vae.network import check_latent_dim

# By the name that `score` gives them.
MEASURES = {"bound": "iw_bound", "fve": "fve", "active_units": "active_units", "vamp2": "vamp2"}


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
    """What a grid of models came to.

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
                entry[name] = float(np.mean(values)) if values else None
                entry[f"{name}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
            found.append(entry)
        return found

    def best(self, measure: str = "bound") -> LatentCV:
        """The model with the largest value of a measure."""
        if measure not in MEASURES:
            raise InputError(f"measure must be one of {', '.join(MEASURES)}; got {measure!r}")
        values = [-np.inf if row[measure] is None else row[measure] for row in self.rows]
        return self.models[int(np.argmax(values))]


def sweep(
    data,
    *,
    latent_dim: int | Sequence[int] = 2,
    beta: float | Sequence[float] = 1.0,
    seeds: int | Sequence[int] = 3,
    together: bool | None = None,
    score_lag: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options,
) -> Sweep:
    """Train a model for every latent_dim, beta and seed, and measure each on the held-out frames.

    These frames also end the training of each, so that the best values are a little too good; measure the
    model that you take on another run.

    Args:
        data: as for `fit`.
        latent_dim, beta: values to try.
        seeds: their numbers, or how many.
        together: train all models of one latent_dim in one vectorised program. By default where there is an
            accelerator; a CPU trains them one after another with the same compiled program, and ends each when
            it has converged. Either way a model is the one that `fit` gives with these settings, one after
            another to the bit.
        score_lag: of the VAMP-2 score, in frames; see `score`.
        progress: called with models done and models in all.
        **options: those of `fit`, but for seed, checkpoint and resume.

    Raises:
        InputError: as `fit`.
    """
    grid = {"latent_dim": latent_dim, "beta": beta, "seeds": range(int(seeds)) if np.ndim(seeds) == 0 else seeds}
    grid = {name: [v] if np.ndim(v) == 0 else list(v) for name, v in grid.items()}
    for name, values in grid.items():
        if not values:
            raise InputError(f"the sweep needs at least one value of {name}; got none")
    if ignored := {"seed", "progress", "checkpoint", "resume"} & set(options):
        raise TypeError(f"a sweep takes no {', '.join(sorted(ignored))}; see seeds and progress")
    together = jax.default_backend() != "cpu" if together is None else together
    call = inspect.signature(fit).bind(data, **options)
    call.apply_defaults()
    given = call.arguments
    traj = data if isinstance(data, Trajectory) else as_trajectory(data)
    if given["weights"] is not None:  # for what is measured, too
        traj = dataclasses.replace(traj, weights=given["weights"])
    names = ("latent_dim", "beta", "seed")
    cells = [dict(zip(names, cell, strict=True)) for cell in itertools.product(*grid.values())]
    settings = [settings_of(given | cell) for cell in cells]
    for cell in settings:  # all, before the first is trained
        check_settings(cell)
    rows, models = [], []
    with prepared_data(
        traj, given["featurizer"], settings[0] | {"width": given["width"]}, cache=given["cache"]
    ) as (featurizer, template, prepared):
        for cell in settings:
            check_latent_dim(cell["latent_dim"], prepared.x.shape[1])
        runs = [
            dataclasses.replace(prepared, settings=prepared.settings | {name: cell[name] for name in names})
            for cell in settings
        ]
        for _, group in itertools.groupby(runs, lambda run: run.settings["latent_dim"]):
            group = list(group)
            for run, model in zip(
                group, _together(group) if together else map(Prepared.train, group), strict=True
            ):
                models.append(latent_cv(model, featurizer, template))
                row = {name: run.settings[name] for name in names}
                rows.append(row | _measured(models[-1], traj, score_lag))
                if progress is not None:
                    progress(len(models), len(runs))
    return Sweep(rows, models)


def _measured(cv: LatentCV, traj: Trajectory, lag: int | None) -> dict:
    found = score(cv, traj, lag=lag, alternatives=False)["frames"]
    found = found.get("validation", found["all"])
    return {name: found[key] for name, key in MEASURES.items()} | {"epochs": len(cv.record["history"]["kl"])}


def _together(runs: list[Prepared]) -> list[FittedVAE]:
    """`Prepared.train` of runs that differ in beta and seed alone, as one program over stacked weights."""
    first, s = runs[0], runs[0].settings
    names = (
        "epochs",
        "batch_size",
        "patience",
        "learning_rate",
        "lr_schedule",
        "beta_schedule",
        "free_bits",
        "lag",
    )
    plan = training.make_plan(len(first.rows), on_disk=False, **{name: s[name] for name in names})
    val = training.validation_rows(first.x, first.weights, first.val_rows, s["lag"])
    weights = training.normalised(first.weights, first.rows)
    data = jax.tree.map(jnp.asarray, training.Rows.of(first.x, weights, first.rows, s["lag"]))
    starts, keys = zip(*(run.initial() for run in runs), strict=True)
    states, statics = zip(*(eqx.partition(vae, eqx.is_inexact_array) for vae in starts), strict=True)
    states = [training.initial_state(state, plan) for state in states]
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    keys = jax.vmap(jax.random.split)(jnp.stack(keys))
    betas = jnp.asarray([run.settings["beta"] for run in runs], jnp.float32)
    tables = np.zeros((len(runs), 0, 2 if val is None else len(training.TERMS)), np.float32)
    while True:
        best = np.asarray(state.best_epoch)
        ends = [_ended(t, int(b), s["epochs"], plan, val is not None) for t, b in zip(tables, best, strict=True)]
        if None not in ends:
            break
        n = min(plan.stride, s["epochs"] - tables.shape[1])
        span = jnp.asarray([tables.shape[1], n])
        state, new = _epochs_of_all(state, statics[0], data, val, keys, betas, span, plan)
        tables = np.concatenate([tables, np.asarray(new)[:, :n]], axis=1)
    best_weights = [jax.tree.map(lambda leaf, k=k: leaf[k], state.best_weights) for k in range(len(runs))]
    return [
        run.model(training.finished(chosen, statics[0], table[:n], int(b), stopped, plan))
        for run, chosen, table, b, (n, stopped) in zip(runs, best_weights, tables, best, ends, strict=True)
    ]


def _ended(table, best_epoch, epochs, plan, validated) -> tuple[int, str] | None:
    """How many epochs count for one run, and why it ended; None where it goes on."""
    patient = best_epoch + plan.patience + 1 if validated else len(table)
    n = min(len(table), max(patient, 1))
    stopped = training.ended(table[:n], best_epoch, epochs, plan, validated)
    return None if stopped is None else (n, stopped)


@eqx.filter_jit
def _epochs_of_all(state, static, data, val, keys, betas, span, plan):
    def one(state, keys, beta):
        return training.epochs(state, static, data, val, keys, beta, span, plan)

    return jax.vmap(one)(state, keys, betas)

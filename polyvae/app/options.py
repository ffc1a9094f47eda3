"""Options of the command line: those that several verbs share, and how a verb takes them in groups."""

import contextlib
import functools
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

import polyvae as pv
from polyvae.app import choices
from polyvae.app.reading import read_weights
from polyvae.core.units import LENGTH_UNITS, length_of

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="TRAJ...",
        help="Files or patterns: .npz, .xtc, .dcd, .lammpstrj, or any other format that MDAnalysis reads.",
    ),
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Model file, as model.safetensors.")]
_OF_FILES = ("--data", "--check")  # options that take all words up to the next option


class Option(NamedTuple):
    """An option of the command line."""

    kind: Any  # type of the value
    text: str  # help
    default: Any  # value without the option; `...` where it is required
    names: str  # by default that of the parameter, as --learning-rate
    more: Mapping[str, Any]  # arguments of `typer.Option`

    def parameter(self, name: str) -> inspect.Parameter:
        """The parameter of a verb that has this option, with typer's annotation."""
        default = inspect.Parameter.empty if self.default is ... else self.default
        names = (self.names or f"--{name.replace('_', '-')}").split()
        about = typer.Option(*names, help=self.text, **self.more)
        if default is None:
            annotation: Any = Annotated[self.kind | None, about]
        else:
            annotation = Annotated[self.kind, about]
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def option(kind: Any, text: str, default: Any = None, names: str = "", **more) -> Option:
    """An option, see `Option`."""
    return Option(kind, text, default, names, more)


def known(option: str, name: str, table) -> str:
    """The name, if the table has it; bad use otherwise."""
    if name not in table:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(table)}", param_hint=f"--{option}")
    return name


def _unit(name: str | None) -> str | None:
    """Return the length unit of that name in any spelling, none of another size."""
    if name is None:
        return None
    unit, factor = length_of(name) or (name, 1.0)
    return known("unit", unit if factor == 1 else name, LENGTH_UNITS)


def _positive(value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise typer.BadParameter(f"must be a positive number; got {value}", param_hint="--dt")
    return value


def _figures(name: str) -> str:
    return known("figures", name, choices.FIGURES)


SEED = option(int, "Seed of initial weights, batches and draws.", 0, min=0, max=2**32 - 1)
WEIGHTS = option(Path, "Text file with one weight per frame, as for a biased run.")
LAG = option(int, "Lag of VAMP-2 in frames [default: the lag of training, or 1].", min=1)
FORCE = option(bool, "Replace existing files.", False)
FIGURE_FORMAT = option(str, f"Format of the pictures: {', '.join(choices.FIGURES)}.", "png", callback=_figures)
GENERATOR = "Train a generator after the model; it draws better conformations than the decoder."
# By the name in `pv.read`.
READING = {
    "topology": option(Path, "Topology file that MDAnalysis reads.", names="--top"),
    "format": option(str, "Format of the files by MDAnalysis' name, as LAMMPSDUMP [default: by suffix]."),
    "topology_format": option(str, "Format of the topology [default: by suffix]."),
    "select": option(str, 'Atoms to read, in MDAnalysis\' language, as "name B".'),
    "length_unit": option(str, "Length unit of the file: nm, angstrom, sigma.", names="--unit", callback=_unit),
    "start": option(int, "First frame to read of each file, from 0.", 0, min=0),
    "stop": option(int, "Frame of each file to stop before."),
    "step": option(int, "Read every STEP-th frame.", 1, min=1),
    "unwrap": option(
        bool,
        "Make molecules whole across periodic boundaries [default: if the file has a box].",
        names="--unwrap/--no-unwrap",
    ),
    "per_molecule": option(
        bool, "Treat each molecule of a melt or solution as a frame of its own.", False, "--per-molecule"
    ),
    "dims": option(int, "Number of dimensions, 2 or 3 [default: 2 if z never varies].", min=2, max=3),
    "keep_good": option(
        bool, "Read the intact frames of a damaged XTC, DCD or dump; small damage cannot be detected.", False
    ),
    "ignore_times": option(
        bool, "Ignore frame times. Without this option they must increase.", False, "--ignore-times"
    ),
    "dt": option(
        float,
        "Time between frames in ps, or tau in reduced units; for files that do not state it.",
        callback=_positive,
    ),
}
# By the name in `pv.fit`, but for `every` of the featurizer.
TRAINING = {
    "featurizer": option(
        str,
        f"Alignment of frames: {', '.join(choices.FEATURIZERS)}; auto takes the first that hardly jumps.",
        "auto",
        "--align",
    ),
    "every": option(int, "Use every EVERY-th bead for --align distances [default: at most 100 beads].", min=1),
    "encoder": option(str, "Widths of the encoder's hidden layers [default: 64,64 or less]."),
    "decoder": option(str, "Widths of the decoder's hidden layers.", "256,256"),
    "beta_schedule": option(str, f"Rise of beta: {', '.join(choices.BETA_SCHEDULES)}.", "constant"),
    "free_bits": option(float, "KL, in nats per latent, that is not penalised.", 0.0, min=0.0),
    "smoothness": option(
        float,
        "Penalty on latents that jump between frames [default: 1 with a time lag and in adapt, otherwise 0].",
        min=0.0,
    ),
    "lag": option(int, "Decode the frame LAG frames later, for a slow CV [default: by relaxation times].", min=0),
    "weights": WEIGHTS,
    "width": option(str, "Standard deviation of the decoder's Gaussian: learned, or a length.", "learned"),
    "epochs": option(int, "Number of passes over the data [default: as many as take 8,000 steps].", min=1),
    "batch_size": option(int, "Number of frames in a batch [default: 16 to 256].", min=1),
    "learning_rate": option(float, "Learning rate of the Adam optimiser.", 2e-3),
    "lr_schedule": option(str, f"Schedule of the learning rate: {', '.join(choices.LR_SCHEDULES)}.", "cosine"),
    "validation": option(
        float,
        "Fraction of frames held out for early stopping [default: 0.1; of few frames 0.2].",
        min=0.0,
        max=0.9,
    ),
    "patience": option(
        int, "Epochs without progress before training stops [default: a fifth of all; with a lag all].", min=1
    ),
}
# By the name in `polyvae.export.export_files`.
EXPORTING = {
    "to": option(str, f"Engine or format to write: {', '.join(choices.TARGETS)}.", ...),
    "atoms": option(str, 'Atoms of the engine, from 1, as "1-12,20" [default: by --select, or as in training].'),
    "data": option(list[Path], "Training data, for widths and bounds of metadynamics.", metavar="TRAJ..."),
    "check": option(list[Path], "Frames to compare the installed engine with JAX on.", metavar="TRAJ..."),
    "dialect": option(str, "plumed: vector (text), native (C++, fastest); colvars: lammps, namd, gromacs."),
    "latents": option(str, "Latents to export, from 0 [default: those that vary].", metavar="0,1"),
    "bias": option(str, "Bias of --to openmm: metad or opes."),
}
# By the name in `conformations.make`: what `generate` makes.
MAKING = {
    "mean": option(bool, "Take the decoder's mean, without its noise.", False),
    "at": option(str, "Draw all conformations at this latent point.", metavar="Z0,Z1"),
    "prior": option(
        str, f"Distribution of z: {', '.join(choices.PRIORS)} [default: data if the model has a generator]."
    ),
    "path": option(str, "Decode a path between two latent points, as -1,0:2,1.", metavar="A:B"),
    "along": option(
        str, f"Course of --path: {', '.join(choices.PATHS)} (along dense regions of --data).", choices.PATHS[0]
    ),
    "grid": option(
        int, "Decode a grid with this many points per latent, over the range of --data, or -2 to 2.", min=2
    ),
    "data": option(
        list[Path], "Frames for --along and --grid, and to check the conformations against.", metavar="TRAJ..."
    ),
    "valid_only": option(bool, "Keep only conformations within the limits of the data.", False),
    "max_draws": option(int, "Largest number of draws for --valid-only [default: 20 for each wanted].", min=1),
    "relax": option(bool, "Relax bonds and overlaps to those of the data.", False),
}
# How `optimize` searches, by the name in `pv.optimize`.
SEARCHING = {
    "objective": option(str, f"Quantity to optimise: {', '.join(choices.OBJECTIVES)}.", "rg"),
    "maximize": option(bool, "Search for the largest value instead of the smallest.", False),
    "target": option(float, "Search for this value, to 1 %."),
    "n_starts": option(int, "Number of starting points.", names="--starts", min=1),
    "seed": SEED,
}
ONE_MODEL = {
    "latent_dim": option(int, "Number of collective variables.", 2, min=1),
    "beta": option(float, "Weight of the KL term; 1 is the ELBO.", 1.0, min=0.0),
    "seed": SEED,
}
# Where a cluster does the work, by the name in `polyvae.cluster.connected`.
CLUSTER = {
    "scheduler": option(
        str, "Address of a Dask cluster, as tcp://host:8786; not with --workers.", metavar="ADDRESS"
    ),
    "workers": option(int, "Processes on this machine; not with --scheduler [default: 1].", min=1),
}


def files_named(values: Iterable) -> list[str]:
    """The files and patterns among the values of options: all paths, and words of a text that name a file, as in
    `run.py:make`."""
    found = []
    for value in values:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, Path):
                found.append(str(one))
            elif isinstance(one, str):
                found += [word for word in (one, *re.split("[:=]", one)) if os.path.isfile(word)]
    return found


def takes(**groups: Mapping[str, Option]) -> Callable:
    """Decorator: add the options of each group to a verb, which gets them as one dictionary per group.

    In place of a group `cluster` the verb gets a client of that cluster, or None, as `client`. While the verb
    runs, no file that its options name is written over, but for --out.
    """

    def with_groups(verb: Callable) -> Callable:
        own = [p for p in inspect.signature(verb).parameters.values() if p.name not in (*groups, "client")]
        shared = [one.parameter(name) for group in groups.values() for name, one in group.items()]

        @functools.wraps(verb)
        def command(**given):
            from polyvae.files import protecting

            inputs = files_named(value for name, value in given.items() if name != "out")
            for name, group in groups.items():
                given[name] = {option: given.pop(option) for option in group}
            with protecting(inputs), _with_client(given):
                return verb(**given)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + shared
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # `signature` reads it
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return with_groups


@contextlib.contextmanager
def _with_client(given: dict) -> Iterator[None]:
    """Put a client of the cluster that the options name in their place."""
    cluster = given.pop("cluster", None)
    if cluster is None:
        yield
        return
    if cluster["scheduler"] is not None and cluster["workers"] is not None:
        text = "a scheduler has workers of its own; give one of the two, not both"
        raise typer.BadParameter(text, param_hint="--workers")
    from polyvae.cluster import connected

    with connected(**cluster) as client:
        given["client"] = client
        yield


def spread(words: list[str]) -> list[str]:
    """Repeat an option of several files, `--data a.xtc b.xtc`, before each file, as the parser needs it; a
    model among the files is left where it is."""
    found, option, first = [], "", False
    for word in words:
        if word.startswith("-"):
            name, *value = word.split("=", 1)
            option, first = name if name in _OF_FILES and words[0] in ("export", "generate") else "", not value
        elif option and not first and not word.endswith(".safetensors"):
            found.append(option)
        else:
            first = False
        found.append(word)
    return found


def numbers(option: str, text: str, kind: type, least: float) -> list:
    """Parse numbers of one kind, none below `least`, from text such as "1,2,4"; an empty text has none."""
    try:
        found = [kind(word) for word in text.split(",")] if text.strip() else []
    except ValueError:
        found = [least - 1]
    if any(not least <= value < float("inf") for value in found):
        what = "whole numbers" if kind is int else "numbers"
        raise typer.BadParameter(
            f"{text!r} is no list of {what}, {least} or more, such as 1,2,4", param_hint=f"--{option}"
        )
    return found


def for_training(training: dict) -> dict:
    """Turn options of the command line into arguments of `pv.fit`; bad ones are refused."""
    known("align", training["featurizer"], choices.FEATURIZERS)
    known("beta-schedule", training["beta_schedule"], choices.BETA_SCHEDULES)
    known("lr-schedule", training["lr_schedule"], choices.LR_SCHEDULES)
    found = dict(training)
    name, every = choices.FEATURIZERS[training["featurizer"]], found.pop("every")
    if every is not None and name != "PairDistances":
        raise typer.BadParameter("is for --align distances", param_hint="--every")
    found["featurizer"] = name and getattr(pv, name)(**({} if every is None else {"every": every}))
    for layers in ("encoder", "decoder"):
        if found[layers] is not None:
            found[layers] = numbers(layers, found[layers], int, 1)
    found["weights"] = read_weights(training["weights"])
    if training["width"] != "learned":
        (found["width"],) = numbers("width", training["width"], float, 0) or [0.0]
    if found["smoothness"] is None:  # which each verb has its own default for
        del found["smoothness"]
    return found

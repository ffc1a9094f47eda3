"""Options of the command line that several verbs share."""

import functools
import inspect
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

import polyvae as pv
from polyvae.app.choices import (
    BETA_SCHEDULES,
    FEATURIZERS,
    FIGURES,
    LR_SCHEDULES,
    OBJECTIVES,
    PATHS,
    PRIORS,
    TARGETS,
)
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
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of initial weights, batches and draws.")
]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="Text file with one weight per frame, as for a biased run.")
]
Lag = Annotated[
    int | None, typer.Option("--lag", min=1, help="Lag of VAMP-2 in frames [default: the lag of training, or 1].")
]
Generator = Annotated[
    bool,
    typer.Option(
        "--generator/--no-generator",
        help="Train a generator after the model; it draws better conformations than the decoder.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace existing files.")]
Objective = Annotated[str, typer.Option("--objective", help=f"Quantity to optimise: {', '.join(OBJECTIVES)}.")]


def known(option: str, name: str, table) -> str:
    """The name, if the table has it; bad use otherwise."""
    if name not in table:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(table)}", param_hint=f"--{option}")
    return name


Figures = Annotated[
    str,
    typer.Option(
        "--figures",
        callback=lambda name: known("figures", name, FIGURES),
        help=f"Format of the pictures: {', '.join(FIGURES)}.",
    ),
]


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


def option_of(kind, default, name: str, text: str, **more) -> tuple:
    """Annotation and default of a parameter that is an option of the command line."""
    return Annotated[kind, typer.Option(name, help=text, **more)], default


# By the name in `pv.read`.
READING = {
    "topology": option_of(Path | None, None, "--top", "Topology file that MDAnalysis reads."),
    "format": option_of(
        str | None,
        None,
        "--format",
        "Format of the files by MDAnalysis' name, as LAMMPSDUMP [default: by suffix].",
    ),
    "topology_format": option_of(
        str | None, None, "--topology-format", "Format of the topology [default: by suffix]."
    ),
    "select": option_of(str | None, None, "--select", 'Atoms to read, in MDAnalysis\' language, as "name B".'),
    "length_unit": option_of(
        str | None, None, "--unit", "Length unit of the file: nm, angstrom, sigma.", callback=_unit
    ),
    "start": option_of(int, 0, "--start", "First frame to read of each file, from 0.", min=0),
    "stop": option_of(int | None, None, "--stop", "Frame of each file to stop before."),
    "step": option_of(int, 1, "--step", "Read every STEP-th frame.", min=1),
    "unwrap": option_of(
        bool | None,
        None,
        "--unwrap/--no-unwrap",
        "Make molecules whole across periodic boundaries [default: if the file has a box].",
    ),
    "per_molecule": option_of(
        bool, False, "--per-molecule", "Treat each molecule of a melt or solution as a frame of its own."
    ),
    "dims": option_of(
        int | None, None, "--dims", "Number of dimensions, 2 or 3 [default: 2 if z never varies].", min=2, max=3
    ),
    "keep_good": option_of(
        bool,
        False,
        "--keep-good",
        "Read the intact frames of a damaged XTC, DCD or dump; small damage cannot be detected.",
    ),
    "ignore_times": option_of(
        bool, False, "--ignore-times", "Ignore frame times. Without this option they must increase."
    ),
    "dt": option_of(
        float | None,
        None,
        "--dt",
        "Time between frames in ps, or tau in reduced units; for files that do not state it.",
        callback=_positive,
    ),
}

# By the name in `pv.fit`, but for `every` of the featurizer.
TRAINING = {
    "featurizer": option_of(
        str,
        "auto",
        "--align",
        f"Alignment of frames: {', '.join(FEATURIZERS)}; auto takes the first that hardly jumps.",
    ),
    "every": option_of(
        int | None,
        None,
        "--every",
        "Use every EVERY-th bead for --align distances [default: at most 100 beads].",
        min=1,
    ),
    "encoder": option_of(
        str | None, None, "--encoder", "Widths of the encoder's hidden layers [default: 64,64 or less]."
    ),
    "decoder": option_of(str, "256,256", "--decoder", "Widths of the decoder's hidden layers."),
    "beta_schedule": option_of(str, "constant", "--beta-schedule", f"Rise of beta: {', '.join(BETA_SCHEDULES)}."),
    "free_bits": option_of(float, 0.0, "--free-bits", "KL, in nats per latent, that is not penalised.", min=0.0),
    "smoothness": option_of(
        float | None,
        None,
        "--smoothness",
        "Penalty on latents that jump between frames [default: 1 with a time lag and in adapt, otherwise 0].",
        min=0.0,
    ),
    "lag": option_of(
        int | None,
        None,
        "--lag",
        "Decode the frame LAG frames later, for a slow CV [default: by relaxation times].",
        min=0,
    ),
    "weights": (Weights, None),
    "width": option_of(
        str, "learned", "--width", "Standard deviation of the decoder's Gaussian: learned, or a length."
    ),
    "epochs": option_of(
        int | None,
        None,
        "--epochs",
        "Number of passes over the data [default: as many as take 8,000 steps].",
        min=1,
    ),
    "batch_size": option_of(
        int | None, None, "--batch-size", "Number of frames in a batch [default: 16 to 256].", min=1
    ),
    "learning_rate": option_of(float, 2e-3, "--learning-rate", "Learning rate of the Adam optimiser."),
    "lr_schedule": option_of(
        str, "cosine", "--lr-schedule", f"Schedule of the learning rate: {', '.join(LR_SCHEDULES)}."
    ),
    "validation": option_of(
        float | None,
        None,
        "--validation",
        "Fraction of frames held out for early stopping [default: 0.1; of few frames 0.2].",
        min=0.0,
        max=0.9,
    ),
    "patience": option_of(
        int | None,
        None,
        "--patience",
        "Epochs without progress before training stops [default: a fifth of all; with a lag all].",
        min=1,
    ),
}
# By the name in `polyvae.export.export_files`.
EXPORTING = {
    "to": option_of(str, inspect.Parameter.empty, "--to", f"Engine or format to write: {', '.join(TARGETS)}."),
    "atoms": option_of(
        str | None,
        None,
        "--atoms",
        'Atoms of the engine, from 1, as "1-12,20" [default: by --select, or as in training].',
    ),
    "data": option_of(
        list[Path] | None,
        None,
        "--data",
        "Training data, for widths and bounds of metadynamics.",
        metavar="TRAJ...",
    ),
    "check": option_of(
        list[Path] | None,
        None,
        "--check",
        "Frames to compare the installed engine with JAX on.",
        metavar="TRAJ...",
    ),
    "dialect": option_of(
        str | None,
        None,
        "--dialect",
        "plumed: vector (text), native (C++, fastest); colvars: lammps, namd, gromacs.",
    ),
    "latents": option_of(
        str | None, None, "--latents", "Latents to export, from 0 [default: those that vary].", metavar="0,1"
    ),
    "bias": option_of(str | None, None, "--bias", "Bias of --to openmm: metad or opes."),
}
# By the name in `conformations.made`: what `generate` makes.
MAKING = {
    "mean": option_of(bool, False, "--mean", "Take the decoder's mean, without its noise."),
    "at": option_of(str | None, None, "--at", "Draw all conformations at this latent point.", metavar="Z0,Z1"),
    "prior": option_of(
        str | None,
        None,
        "--prior",
        f"Distribution of z: {', '.join(PRIORS)} [default: data if the model has a generator].",
    ),
    "path": option_of(
        str | None, None, "--path", "Decode a path between two latent points, as -1,0:2,1.", metavar="A:B"
    ),
    "along": option_of(
        str, PATHS[0], "--along", f"Course of --path: {', '.join(PATHS)} (along dense regions of --data)."
    ),
    "grid": option_of(
        int | None,
        None,
        "--grid",
        "Decode a grid with this many points per latent, over the range of --data, or -2 to 2.",
        min=2,
    ),
    "data": option_of(
        list[Path] | None,
        None,
        "--data",
        "Frames for --along and --grid, and to check the conformations against.",
        metavar="TRAJ...",
    ),
    "valid_only": option_of(bool, False, "--valid-only", "Keep only conformations within the limits of the data."),
    "max_draws": option_of(
        int | None,
        None,
        "--max-draws",
        "Largest number of draws for --valid-only [default: 20 for each wanted].",
        min=1,
    ),
    "relax": option_of(bool, False, "--relax", "Relax bonds and overlaps to those of the data."),
}
_OF_FILES = ("--data", "--check")  # options that take all words up to the next option
ONE_MODEL = {
    "latent_dim": option_of(int, 2, "--latent-dim", "Number of collective variables.", min=1),
    "beta": option_of(float, 1.0, "--beta", "Weight of the KL term; 1 is the ELBO.", min=0.0),
    "seed": (Seed, 0),
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


def takes(**groups: dict) -> Callable:
    """Decorator: add the options of each group to a verb, which gets them as one dictionary per group.

    While the verb runs, no file that its options name is written over, but for --out.
    """

    def with_groups(verb: Callable) -> Callable:
        own = [p for p in inspect.signature(verb).parameters.values() if p.name not in groups]
        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for group in groups.values()
            for name, (annotation, default) in group.items()
        ]

        @functools.wraps(verb)
        def command(**given):
            from polyvae.files import protecting

            inputs = files_named(value for name, value in given.items() if name != "out")
            for name, group in groups.items():
                given[name] = {option: given.pop(option) for option in group}
            with protecting(inputs):
                return verb(**given)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + shared
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # `signature` reads it
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return with_groups


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
    known("align", training["featurizer"], FEATURIZERS)
    known("beta-schedule", training["beta_schedule"], BETA_SCHEDULES)
    known("lr-schedule", training["lr_schedule"], LR_SCHEDULES)
    widths = {
        name: numbers(name, training[name], int, 1)
        for name in ("encoder", "decoder")
        if training[name] is not None
    }
    name, every = FEATURIZERS[training["featurizer"]], training["every"]
    if every is not None and name != "PairDistances":
        raise typer.BadParameter("is for --align distances", param_hint="--every")
    own = {} if every is None else {"every": every}
    featurizer = name and getattr(pv, name)(**own)
    found = {"featurizer": featurizer, "weights": read_weights(training["weights"])}
    if training["width"] != "learned":
        (found["width"],) = numbers("width", training["width"], float, 0) or [0.0]
    given = {name: value for name, value in training.items() if name != "every"}
    if given["smoothness"] is None:  # which each verb has its own default for
        del given["smoothness"]
    return given | widths | found

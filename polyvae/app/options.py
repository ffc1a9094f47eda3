"""Options of the command line that several verbs share."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

import polyvae as pv
from polyvae.app.choices import (
    BETA_SCHEDULES,
    FEATURIZERS,
    FIGURES,
    LENGTH_UNITS,
    LR_SCHEDULES,
    OBJECTIVES,
    PATHS,
    PRIORS,
    TARGETS,
)
from polyvae.app.reading import read_weights

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

# Other names of units, in lower case.
_OTHER_NAMES = {
    "a": "angstrom",
    "å": "angstrom",
    "angstroms": "angstrom",
    "ångström": "angstrom",
    "nanometer": "nm",
}


def _unit(name: str | None) -> str | None:
    return None if name is None else known("unit", _OTHER_NAMES.get(name.lower(), name), LENGTH_UNITS)


# By the name in `pv.read`: type and default.
READING = {
    "topology": (Annotated[Path | None, typer.Option("--top", help="Topology file that MDAnalysis reads.")], None),
    "format": (
        Annotated[
            str | None,
            typer.Option(
                "--format", help="Format of the files by MDAnalysis' name, as LAMMPSDUMP [default: by suffix]."
            ),
        ],
        None,
    ),
    "topology_format": (
        Annotated[
            str | None, typer.Option("--topology-format", help="Format of the topology [default: by suffix].")
        ],
        None,
    ),
    "select": (
        Annotated[
            str | None, typer.Option("--select", help='Atoms to read, in MDAnalysis\' language, as "name B".')
        ],
        None,
    ),
    "length_unit": (
        Annotated[
            str | None,
            typer.Option(
                "--unit",
                callback=_unit,
                help="Length unit of the file: nm, angstrom, sigma.",
            ),
        ],
        None,
    ),
    "start": (Annotated[int, typer.Option("--start", min=0, help="First frame to read of each file, from 0.")], 0),
    "stop": (Annotated[int | None, typer.Option("--stop", help="Frame of each file to stop before.")], None),
    "step": (Annotated[int, typer.Option("--step", min=1, help="Read every STEP-th frame.")], 1),
    "unwrap": (
        Annotated[
            bool | None,
            typer.Option(
                "--unwrap/--no-unwrap",
                help="Make molecules whole across periodic boundaries [default: if the file has a box].",
            ),
        ],
        None,
    ),
    "per_molecule": (
        Annotated[
            bool,
            typer.Option(
                "--per-molecule", help="Treat each molecule of a melt or solution as a frame of its own."
            ),
        ],
        False,
    ),
    "dims": (
        Annotated[
            int | None,
            typer.Option(
                "--dims", min=2, max=3, help="Number of dimensions, 2 or 3 [default: 2 if z never varies]."
            ),
        ],
        None,
    ),
    "keep_good": (
        Annotated[
            bool,
            typer.Option(
                "--keep-good",
                help="Read the intact frames of a damaged XTC, DCD or dump; small damage cannot be detected.",
            ),
        ],
        False,
    ),
    "ignore_times": (
        Annotated[
            bool,
            typer.Option("--ignore-times", help="Ignore frame times. Without this option they must increase."),
        ],
        False,
    ),
}

# By the name in `pv.fit`, but for `every` of the featurizer.
TRAINING = {
    "featurizer": (
        Annotated[
            str,
            typer.Option(
                "--align",
                help=f"Alignment of frames: {', '.join(FEATURIZERS)}; auto takes the first that hardly jumps.",
            ),
        ],
        "auto",
    ),
    "every": (
        Annotated[
            int | None,
            typer.Option(
                "--every",
                min=1,
                help="Use every EVERY-th bead for --align distances [default: at most 100 beads].",
            ),
        ],
        None,
    ),
    "encoder": (
        Annotated[
            str | None,
            typer.Option("--encoder", help="Widths of the encoder's hidden layers [default: 64,64 or less]."),
        ],
        None,
    ),
    "decoder": (
        Annotated[str, typer.Option("--decoder", help="Widths of the decoder's hidden layers.")],
        "256,256",
    ),
    "beta_schedule": (
        Annotated[str, typer.Option("--beta-schedule", help=f"Rise of beta: {', '.join(BETA_SCHEDULES)}.")],
        "constant",
    ),
    "free_bits": (
        Annotated[
            float, typer.Option("--free-bits", min=0.0, help="KL, in nats per latent, that is not penalised.")
        ],
        0.0,
    ),
    "smoothness": (
        Annotated[
            float | None,
            typer.Option(
                "--smoothness",
                min=0.0,
                help="Penalty on latents that jump between frames, for biased runs [default: 0; adapt: 1].",
            ),
        ],
        None,
    ),
    "lag": (
        Annotated[
            int | None,
            typer.Option(
                "--lag",
                min=0,
                help="Decode the frame LAG frames later, for a slow CV [default: by relaxation times].",
            ),
        ],
        None,
    ),
    "weights": (Weights, None),
    "width": (
        Annotated[
            str,
            typer.Option("--width", help="Standard deviation of the decoder's Gaussian: learned, or a length."),
        ],
        "learned",
    ),
    "epochs": (
        Annotated[
            int | None,
            typer.Option(
                "--epochs", min=1, help="Number of passes over the data [default: as many as take 8,000 steps]."
            ),
        ],
        None,
    ),
    "batch_size": (
        Annotated[
            int | None,
            typer.Option("--batch-size", min=1, help="Number of frames in a batch [default: 16 to 256]."),
        ],
        None,
    ),
    "learning_rate": (
        Annotated[float, typer.Option("--learning-rate", help="Learning rate of the Adam optimiser.")],
        2e-3,
    ),
    "lr_schedule": (
        Annotated[
            str, typer.Option("--lr-schedule", help=f"Schedule of the learning rate: {', '.join(LR_SCHEDULES)}.")
        ],
        "cosine",
    ),
    "validation": (
        Annotated[
            float | None,
            typer.Option(
                "--validation",
                min=0.0,
                max=0.9,
                help="Fraction of frames held out for early stopping [default: 0.1; of few frames 0.2].",
            ),
        ],
        None,
    ),
    "patience": (
        Annotated[
            int | None,
            typer.Option(
                "--patience",
                min=1,
                help="Epochs without progress before training stops [default: a fifth of all; with a lag all].",
            ),
        ],
        None,
    ),
}
# By the name in `polyvae.export.export_files`.
EXPORTING = {
    "to": (
        Annotated[str, typer.Option("--to", help=f"Engine or format to write: {', '.join(TARGETS)}.")],
        inspect.Parameter.empty,
    ),
    "atoms": (
        Annotated[
            str | None,
            typer.Option(
                "--atoms",
                help='Atoms of the engine, from 1, as "1-12,20" [default: by --select, or as in training].',
            ),
        ],
        None,
    ),
    "data": (
        Annotated[
            list[Path] | None,
            typer.Option(
                "--data", metavar="TRAJ...", help="Training data, for widths and bounds of metadynamics."
            ),
        ],
        None,
    ),
    "check": (
        Annotated[
            list[Path] | None,
            typer.Option("--check", metavar="TRAJ...", help="Frames to compare the installed engine with JAX on."),
        ],
        None,
    ),
    "dialect": (
        Annotated[
            str | None,
            typer.Option(
                "--dialect",
                help="plumed: vector, ann for old ones, native (C++, fastest); colvars: lammps, namd, gromacs.",
            ),
        ],
        None,
    ),
    "latents": (
        Annotated[
            str | None,
            typer.Option("--latents", metavar="0,1", help="Latents to export, from 0 [default: those that vary]."),
        ],
        None,
    ),
    "bias": (Annotated[str | None, typer.Option("--bias", help="Bias of --to openmm: metad or opes.")], None),
}
# By the name in `conformations.made`: what `generate` makes.
MAKING = {
    "mean": (Annotated[bool, typer.Option("--mean", help="Take the decoder's mean, without its noise.")], False),
    "at": (
        Annotated[
            str | None, typer.Option("--at", metavar="Z0,Z1", help="Draw all conformations at this latent point.")
        ],
        None,
    ),
    "prior": (
        Annotated[
            str | None,
            typer.Option(
                "--prior",
                help=f"Distribution of z: {', '.join(PRIORS)} [default: data if the model has a generator].",
            ),
        ],
        None,
    ),
    "path": (
        Annotated[
            str | None,
            typer.Option("--path", metavar="A:B", help="Decode a path between two latent points, as -1,0:2,1."),
        ],
        None,
    ),
    "along": (
        Annotated[
            str,
            typer.Option("--along", help=f"Course of --path: {', '.join(PATHS)} (along dense regions of --data)."),
        ],
        PATHS[0],
    ),
    "grid": (
        Annotated[
            int | None,
            typer.Option(
                "--grid",
                min=2,
                help="Decode a grid with this many points per latent, over the range of --data, or -2 to 2.",
            ),
        ],
        None,
    ),
    "data": (
        Annotated[
            list[Path] | None,
            typer.Option(
                "--data",
                metavar="TRAJ...",
                help="Frames for --along and --grid, and to check the conformations against.",
            ),
        ],
        None,
    ),
    "valid_only": (
        Annotated[
            bool, typer.Option("--valid-only", help="Keep only conformations within the limits of the data.")
        ],
        False,
    ),
    "max_draws": (
        Annotated[
            int | None,
            typer.Option(
                "--max-draws",
                min=1,
                help="Largest number of draws for --valid-only [default: 20 for each wanted].",
            ),
        ],
        None,
    ),
    "relax": (
        Annotated[bool, typer.Option("--relax", help="Relax bonds and overlaps to those of the data.")],
        False,
    ),
}
_OF_FILES = ("--data", "--check")  # options that take all words up to the next option
ONE_MODEL = {
    "latent_dim": (Annotated[int, typer.Option("--latent-dim", min=1, help="Number of collective variables.")], 2),
    "beta": (Annotated[float, typer.Option("--beta", min=0.0, help="Weight of the KL term; 1 is the ELBO.")], 1.0),
    "seed": (Seed, 0),
}


def takes(**groups: dict) -> Callable:
    """Decorator: add the options of each group to a verb, which gets them as one dictionary per group."""

    def with_groups(verb: Callable) -> Callable:
        own = [p for p in inspect.signature(verb).parameters.values() if p.name not in groups]
        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for group in groups.values()
            for name, (annotation, default) in group.items()
        ]

        @functools.wraps(verb)
        def command(**given):
            for name, group in groups.items():
                given[name] = {option: given.pop(option) for option in group}
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

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
        metavar="TRAJ...", help="Files or patterns: .npz, .xtc, .dcd, .lammpstrj, all MDAnalysis reads."
    ),
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model.safetensors.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of weights, batches and draws.")]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="Text file, one weight a frame, as of a biased run.")
]
Lag = Annotated[int | None, typer.Option("--lag", min=1, help="Frames, for VAMP-2 [default: as trained, else 1].")]
Generator = Annotated[
    bool,
    typer.Option("--generator/--no-generator", help="Then train a generator, to draw conformations from."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Objective = Annotated[str, typer.Option("--objective", help=f"One of {', '.join(OBJECTIVES)}.")]


def known(option: str, name: str, table) -> str:
    """A name of the table; another is refused as bad use."""
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

# What units are called beside their names, in lower case.
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
    "topology": (Annotated[Path | None, typer.Option("--top", help="Topology that MDAnalysis reads.")], None),
    "format": (
        Annotated[
            str | None,
            typer.Option("--format", help="Of the files, as MDAnalysis names it: LAMMPSDUMP [default: by name]."),
        ],
        None,
    ),
    "topology_format": (
        Annotated[str | None, typer.Option("--topology-format", help="Of the topology [default: by name].")],
        None,
    ),
    "select": (Annotated[str | None, typer.Option("--select", help='Atoms, as in MDAnalysis: "name B".')], None),
    "length_unit": (
        Annotated[
            str | None,
            typer.Option(
                "--unit",
                callback=_unit,
                help="Unit of the numbers in the file: nm, angstrom, sigma.",
            ),
        ],
        None,
    ),
    "start": (Annotated[int, typer.Option("--start", min=0, help="First frame of each file.")], 0),
    "stop": (Annotated[int | None, typer.Option("--stop", help="Frame to stop before.")], None),
    "step": (Annotated[int, typer.Option("--step", min=1, help="Take every STEP-th frame.")], 1),
    "unwrap": (
        Annotated[
            bool | None,
            typer.Option("--unwrap/--no-unwrap", help="Make molecules whole [default: where there is a box]."),
        ],
        None,
    ),
    "per_molecule": (
        Annotated[bool, typer.Option("--per-molecule", help="Each of many like molecules is a frame.")],
        False,
    ),
    "dims": (
        Annotated[int | None, typer.Option("--dims", min=2, max=3, help="2 or 3 [default: 2 if z never varies].")],
        None,
    ),
    "keep_good": (
        Annotated[
            bool,
            typer.Option(
                "--keep-good",
                help="Take the whole frames of a damaged XTC, DCD or dump; gross damage alone shows.",
            ),
        ],
        False,
    ),
    "ignore_times": (
        Annotated[bool, typer.Option("--ignore-times", help="Leave out times, which must increase else.")],
        False,
    ),
}

# By the name in `pv.fit`, but for `every` of the featurizer.
TRAINING = {
    "featurizer": (
        Annotated[
            str,
            typer.Option(
                "--align", help=f"How frames are aligned: {', '.join(FEATURIZERS)} (the first that hardly jumps)."
            ),
        ],
        "auto",
    ),
    "every": (
        Annotated[
            int | None,
            typer.Option(
                "--every", min=1, help="Of --align distances: one bead in so many [default: 100 beads at most]."
            ),
        ],
        None,
    ),
    "encoder": (
        Annotated[
            str | None, typer.Option("--encoder", help="Widths of the hidden layers [default: 64,64 or less].")
        ],
        None,
    ),
    "decoder": (Annotated[str, typer.Option("--decoder", help="Widths of the hidden layers.")], "256,256"),
    "beta_schedule": (
        Annotated[str, typer.Option("--beta-schedule", help=f"Rise of beta: {', '.join(BETA_SCHEDULES)}.")],
        "constant",
    ),
    "free_bits": (
        Annotated[float, typer.Option("--free-bits", min=0.0, help="Nats per latent that cost nothing.")],
        0.0,
    ),
    "smoothness": (
        Annotated[
            float | None,
            typer.Option(
                "--smoothness", min=0.0, help="Of the way between frames, for a bias [default: 0; adapt: 1]."
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
                help="Decode the frame so many later: a slow CV [default: by relaxation times].",
            ),
        ],
        None,
    ),
    "weights": (Weights, None),
    "width": (Annotated[str, typer.Option("--width", help="Of the decoder: learned, or a length.")], "learned"),
    "epochs": (
        Annotated[
            int | None, typer.Option("--epochs", min=1, help="Passes over the data [default: ~8,000 steps].")
        ],
        None,
    ),
    "batch_size": (
        Annotated[int | None, typer.Option("--batch-size", min=1, help="Frames in a batch [default: 16 to 256].")],
        None,
    ),
    "learning_rate": (Annotated[float, typer.Option("--learning-rate", help="Of Adam.")], 2e-3),
    "lr_schedule": (
        Annotated[str, typer.Option("--lr-schedule", help=f"One of {', '.join(LR_SCHEDULES)}.")],
        "cosine",
    ),
    "validation": (
        Annotated[
            float | None,
            typer.Option(
                "--validation",
                min=0.0,
                max=0.9,
                help="Fraction held out for early stopping; 0 for none [default: 0.1, of few frames 0.2].",
            ),
        ],
        None,
    ),
    "patience": (
        Annotated[
            int | None,
            typer.Option("--patience", min=1, help="Epochs without progress [default: a fifth; lag: all]."),
        ],
        None,
    ),
}
# By the name in `polyvae.export.export_files`.
EXPORTING = {
    "to": (
        Annotated[str, typer.Option("--to", help=f"Engine: {', '.join(TARGETS)}.")],
        inspect.Parameter.empty,
    ),
    "atoms": (
        Annotated[
            str | None,
            typer.Option(
                "--atoms", help='Its atoms, from 1: "1-12,20" [default: by --select, else as in training].'
            ),
        ],
        None,
    ),
    "data": (
        Annotated[
            list[Path] | None,
            typer.Option("--data", metavar="TRAJ...", help="For widths and bounds of metadynamics: as for fit."),
        ],
        None,
    ),
    "check": (
        Annotated[
            list[Path] | None,
            typer.Option(
                "--check", metavar="TRAJ...", help="Evaluate in the engine, if it is here, on these frames."
            ),
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
            typer.Option("--latents", metavar="0,1", help="Which to export, from 0 [default: those that vary]."),
        ],
        None,
    ),
    "bias": (Annotated[str | None, typer.Option("--bias", help="openmm: metad or opes.")], None),
}
# Of `generate`: what else than draws from the model, and which of them.
MAKING = {
    "mean": (Annotated[bool, typer.Option("--mean", help="The decoder's mean, without its noise.")], False),
    "at": (
        Annotated[str | None, typer.Option("--at", metavar="Z0,Z1", help="Draw all at this point of the CV.")],
        None,
    ),
    "prior": (
        Annotated[
            str | None,
            typer.Option("--prior", help=f"Else z is of: {', '.join(PRIORS)} [default: data with a generator]."),
        ],
        None,
    ),
    "path": (
        Annotated[str | None, typer.Option("--path", metavar="A:B", help="Between latent points: -1,0:2,1.")],
        None,
    ),
    "along": (
        Annotated[str, typer.Option("--along", help=f"Of the path: {', '.join(PATHS)} (where --data are dense).")],
        PATHS[0],
    ),
    "grid": (
        Annotated[
            int | None,
            typer.Option("--grid", min=2, help="Points for each latent, over the range of --data, else -2 to 2."),
        ],
        None,
    ),
    "data": (
        Annotated[
            list[Path] | None,
            typer.Option("--data", metavar="TRAJ...", help="For --along, --grid, and to check against."),
        ],
        None,
    ),
    "valid_only": (
        Annotated[bool, typer.Option("--valid-only", help="Draw until all are within the data's limits.")],
        False,
    ),
    "max_draws": (
        Annotated[
            int | None, typer.Option("--max-draws", min=1, help="For --valid-only [default: 20 for each wanted].")
        ],
        None,
    ),
    "relax": (
        Annotated[bool, typer.Option("--relax", help="Put bonds and overlaps right, as the data have them.")],
        False,
    ),
}
_OF_FILES = ("--data", "--check")  # as many as follow
ONE_MODEL = {
    "latent_dim": (Annotated[int, typer.Option("--latent-dim", min=1, help="Number of collective variables.")], 2),
    "beta": (Annotated[float, typer.Option("--beta", min=0.0, help="Weight of the KL term; 1 is the ELBO.")], 1.0),
    "seed": (Seed, 0),
}


def takes(**groups: dict) -> Callable:
    """Decorator: the verb takes all options of each group, and gets them as one dictionary under its name."""

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
    """The words of a command line with an option of several files, `--data a.xtc b.xtc`, before each of them, as
    the parser takes it; a model among the files is left where it is."""
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
    """Numbers of one kind, none below `least`, from text such as "1,2,4"; none from an empty text."""
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
    """The options of `pv.fit` from those of the command line; bad ones are refused."""
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

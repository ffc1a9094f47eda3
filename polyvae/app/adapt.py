"""The verb `adapt`: rounds of bias and learning in an engine, and a free energy in the end."""

import csv
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import polyvae as pv
from polyvae.app.console import print_free_energy, say
from polyvae.app.options import ONE_MODEL, READING, TRAINING, Figures, for_training, option_of, takes
from polyvae.app.reading import for_reading, read_files

if TYPE_CHECKING:
    from polyvae.engines.runs import Engine

_REQUIRED = inspect.Parameter.empty
_PLACES = "{plumed}, {start}, {seed}, {steps}, {stride}, {folder}"
ENGINE = {
    "temperature": option_of(
        float,
        _REQUIRED,
        "--temperature",
        "Temperature of the thermostat in K; kT/epsilon in reduced units.",
    ),
    "openmm": option_of(
        str | None, None, "--openmm", "OpenMM system as system.xml, with --structure, or function as run.py:make."
    ),
    "lammps": option_of(
        Path | None, None, "--lammps", "LAMMPS input script that sets up the system and does not run it."
    ),
    "command": option_of(str | None, None, "--command", f"Command of the shell, with {_PLACES} to fill in."),
    "frames": option_of(str, "*.xtc", "--frames", "Trajectory that --command writes, a pattern."),
    "structure": option_of(
        Path | None, None, "--structure", "PDB file of all atoms, to start from [default: the file of --top]."
    ),
    "sigma": option_of(
        float | None,
        None,
        "--sigma",
        "Length of one sigma in the unit of the engine, for models in reduced units.",
    ),
    "timestep": option_of(float, 0.002, "--timestep", "Time step of a system.xml in ps."),
    "platform": option_of(
        str | None, None, "--platform", "OpenMM platform of a system.xml [default: the fastest]."
    ),
}
# By the name in `pv.adapt`.
ROUNDS = {
    "steps": option_of(int, _REQUIRED, "--steps", "Steps of each biased run.", min=1),
    "stride": option_of(int, _REQUIRED, "--stride", "Steps between frames.", min=1),
    "rounds": option_of(int, 8, "--rounds", "Most rounds.", min=1),
    "walkers": option_of(int, 1, "--walkers", "Biased runs of each round.", min=1),
    "free_runs": option_of(int, 16, "--free-runs", "Unbiased runs of each round.", min=1),
    "free_steps": option_of(
        int | None, None, "--free-steps", "Steps of each unbiased run [default: those of 500 frames].", min=1
    ),
    "barrier": option_of(float, 16.0, "--barrier", "Highest barrier to cross, in kT."),
    "pace": option_of(int, 500, "--pace", "Steps between kernels or hills.", min=1),
}
RESULTS = ("model.safetensors", "biased.npz", "rounds.csv", "fes.csv", "fes.npz", "summary.json")


@takes(model=ONE_MODEL, training=TRAINING, reading=READING, engine=ENGINE, rounds_of=ROUNDS)
def adapt(
    files: Annotated[
        list[Path], typer.Argument(metavar="TRAJ...", help="Unbiased frames to begin with, STRIDE steps apart.")
    ],
    model: dict,
    training: dict,
    reading: dict,
    engine: dict,
    rounds_of: dict,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the rounds; rounds that are there are continued.")
    ] = Path("polyvae-adapt"),
    figures: Figures = "png",
):
    """Bias, learn a better CV from what the runs found, and again; in the end a free energy with its error.

    Killed at any point, the same command continues. Each round is a folder with model, frames and COLVAR files.

    Example: polyvae adapt run.npz --openmm system.xml --structure start.pdb --temperature 300 --steps 500000
    --stride 250
    """
    options = for_training(training)
    if options.pop("weights") is not None:
        raise typer.BadParameter("the frames to begin with are unbiased", param_hint="--weights")
    if sum(engine[kind] is not None for kind in ("openmm", "lammps", "command")) != 1:
        raise typer.BadParameter("name one engine: --openmm, --lammps or --command", param_hint="--openmm")
    from polyvae.arguments import if_given, real_number
    from polyvae.files import refuse_inputs

    for name, value, least in (("temperature", engine, 0), ("barrier", rounds_of, 1), ("timestep", engine, 0)):
        real_number(name, value[name], above=least)
    if_given(real_number, "sigma", engine["sigma"])
    for name in RESULTS:  # before the runs, which take hours
        refuse_inputs(out / name)
    runs = _engine(engine, reading)
    traj = read_files(files, reading)
    # Options that are not given are chosen from the frames of every round, the lag once.
    given = {name: value for name, value in (model | options).items() if value is not None}
    seed = given.pop("seed")
    found = pv.adapt(traj, runs, out, progress=say, seed=seed, training=given, **rounds_of)
    _results(out, found, figures)


def _engine(given: dict, reading: dict) -> "Engine":
    """The engine that the options name."""
    structure = given["structure"] or reading["topology"]
    common = {"temperature": given["temperature"], "sigma": given["sigma"]}
    if given["openmm"] is not None:
        from polyvae.engines.openmm import OpenMMEngine, function_in, simulation_maker

        if not given["openmm"].endswith(".xml"):
            return OpenMMEngine(function_in(given["openmm"]), **common)
        if structure is None:
            raise typer.BadParameter("a system.xml needs a PDB of its particles", param_hint="--structure")
        own = {name: given[name] for name in ("temperature", "timestep", "platform")}
        return OpenMMEngine(simulation_maker(given["openmm"], structure, **own), **common)
    if given["lammps"] is not None:
        from polyvae.engines.lammps import LammpsEngine

        return LammpsEngine(given["lammps"], **common)
    from polyvae.engines.command import CommandEngine

    if reading["topology"] is None:
        raise typer.BadParameter("the frames of a command need a topology", param_hint="--top")
    kept = {k: v for k, v in for_reading(reading).items() if k not in ("topology", "start", "stop", "step")}
    return CommandEngine(
        given["command"],
        frames=given["frames"],
        topology=reading["topology"],
        temperature=given["temperature"],
        start=structure,
        reading=kept,
    )


def _results(out: Path, found: "pv.Adapted", figures: str) -> None:
    from polyvae.app.energies import summary_of, write_energy
    from polyvae.files import replacing

    with replacing(out / "rounds.csv") as temporary, temporary.open("w", newline="") as file:
        rows = [record.to_dict() for record in found.rounds]
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    about = {"converged": found.converged, "rounds": len(found.rounds)} | summary_of(found.free_energy, ["z0"])
    write_energy(out, ["z0"], "kT", found.free_energy, about, figures=figures)
    z = found.cv.transform(found.biased)[:, 0]
    axes = pv.plot.free_energy_checks(
        found.free_energy, z, segments=found.biased.segments, names=["z0"], unit="kT"
    )
    pv.plot.save(axes, out / f"checks.{figures}")
    print_free_energy(found.free_energy, ["z0"], "kT")
    end = (
        "CV and free energy have stopped to change"
        if found.converged
        else "not converged: continue with more --rounds"
    )
    print(f"{len(found.rounds)} rounds, {end}")
    print(f"results in {out}: model.safetensors, biased.npz (frames with weights), fes.csv, rounds.csv, pictures")

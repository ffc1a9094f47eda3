"""The verb `adapt`: rounds of bias and learning in an engine, and a free energy in the end."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import polyvae as pv
from polyvae.app.console import print_free_energy, say, write_rows
from polyvae.app.options import FIGURE_FORMAT, ONE_MODEL, READING, TRAINING, for_training, option, takes
from polyvae.app.reading import for_reading, read_files

if TYPE_CHECKING:
    from polyvae.engines.runs import Engine

_PLACES = "{plumed}, {start}, {seed}, {steps}, {stride}, {folder}"
ENGINE = {
    "temperature": option(float, "Temperature of the thermostat in K; kT/epsilon in reduced units.", ...),
    "openmm": option(str, "OpenMM system as system.xml, with --structure, or function as run.py:make."),
    "lammps": option(Path, "LAMMPS input script that sets up the system and does not run it."),
    "command": option(str, f"Command of the shell, with {_PLACES} to fill in."),
    "frames": option(str, "Trajectory that --command writes, a pattern.", "*.xtc"),
    "structure": option(Path, "PDB file of all atoms, to start from [default: the file of --top]."),
    "sigma": option(float, "Length of one sigma in the unit of the engine, for models in reduced units."),
    "timestep": option(float, "Time step of a system.xml in ps.", 0.002),
    "platform": option(str, "OpenMM platform of a system.xml [default: the fastest]."),
}
# By the name in `pv.adapt`.
ROUNDS = {
    "steps": option(int, "Steps of each biased run.", ..., min=1),
    "stride": option(int, "Steps between frames.", ..., min=1),
    "rounds": option(int, "Maximum number of rounds.", 8, min=1),
    "walkers": option(int, "Biased runs of each round.", 1, min=1),
    "free_runs": option(int, "Unbiased runs of each round.", 16, min=1),
    "free_steps": option(int, "Steps of each unbiased run [default: those of 500 frames].", min=1),
    "barrier": option(float, "Highest barrier to cross, in kT.", 16.0),
    "pace": option(int, "Steps between kernels or hills.", 500, min=1),
}
OUTPUT = {
    "out": option(Path, "Folder for the rounds; rounds that are there are continued.", Path("polyvae-adapt")),
    "figures": FIGURE_FORMAT,
}
RESULTS = ("model.safetensors", "biased.npz", "rounds.csv", "fes.csv", "fes.npz", "summary.json")


@takes(model=ONE_MODEL, training=TRAINING, reading=READING, engine=ENGINE, rounds_of=ROUNDS, output=OUTPUT)
def adapt(
    files: Annotated[
        list[Path], typer.Argument(metavar="TRAJ...", help="Unbiased frames to begin with, STRIDE steps apart.")
    ],
    model: dict,
    training: dict,
    reading: dict,
    engine: dict,
    rounds_of: dict,
    output: dict,
):
    """Repeat rounds of biased runs and training of a better CV; end with a free energy and its error.

    Killed at any point, the same command continues. Each round is a folder with model, frames and COLVAR files.

    Example: polyvae adapt run.npz --openmm system.xml --structure start.pdb --temperature 300 --steps 500000
    --stride 250
    """
    options, out = for_training(training), output["out"]
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
    _results(out, found, output["figures"])


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

    write_rows(out / "rounds.csv", [record.to_dict() for record in found.rounds])
    about = {"converged": found.converged, "rounds": len(found.rounds)} | summary_of(found.free_energy, ["z0"])
    write_energy(out, ["z0"], "kT", found.free_energy, about, figures=figures)
    z = found.cv.transform(found.biased)[:, 0]
    axes = pv.plot.free_energy_checks(
        found.free_energy, z, segments=found.biased.segments, names=["z0"], unit="kT"
    )
    pv.plot.save(axes, out / f"checks.{figures}")
    print_free_energy(found.free_energy, ["z0"], "kT")
    end = "not converged: continue with more --rounds"
    if found.converged:
        end = "CV and free energy have stopped to change"
    print(f"{len(found.rounds)} rounds, {end}")
    print(f"results in {out}: model.safetensors, biased.npz (frames with weights), fes.csv, rounds.csv, pictures")

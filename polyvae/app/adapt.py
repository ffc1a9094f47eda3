"""The verb `adapt`: rounds of bias and learning in an engine, and a free energy in the end."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import polyvae as pv
from polyvae.app.console import print_free_energy, say
from polyvae.app.options import ONE_MODEL, READING, TRAINING, Figures, for_training, takes
from polyvae.app.reading import for_reading, read_files

if TYPE_CHECKING:
    from polyvae.engines.runs import Engine


@takes(model=ONE_MODEL, training=TRAINING, reading=READING)
def adapt(
    files: Annotated[
        list[Path], typer.Argument(metavar="TRAJ...", help="Unbiased frames to begin with, STRIDE steps apart.")
    ],
    model: dict,
    training: dict,
    reading: dict,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Of each biased run.")],
    stride: Annotated[int, typer.Option("--stride", min=1, help="Steps between frames.")],
    temperature: Annotated[float, typer.Option("--temperature", help="K; kT/epsilon in reduced units.")],
    openmm: Annotated[
        str | None, typer.Option("--openmm", help="A system.xml with --structure, or run.py:make.")
    ] = None,
    lammps: Annotated[
        Path | None, typer.Option("--lammps", help="An input script that sets up all, without its run.")
    ] = None,
    command: Annotated[
        str | None,
        typer.Option("--command", help="With {plumed}, {start}, {seed}, {steps}, {stride}, {folder} to fill in."),
    ] = None,
    frames: Annotated[str, typer.Option("--frames", help="Of --command: trajectory that it writes.")] = "*.xtc",
    structure: Annotated[
        Path | None, typer.Option("--structure", help="PDB of all atoms, to start from [default: --top].")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="At most.")] = 8,
    walkers: Annotated[int, typer.Option("--walkers", min=1, help="Biased runs of a round.")] = 1,
    free_runs: Annotated[int, typer.Option("--free-runs", min=1, help="Unbiased runs of a round.")] = 16,
    free_steps: Annotated[
        int | None, typer.Option("--free-steps", min=1, help="Of each unbiased run [default: 500 frames].")
    ] = None,
    barrier: Annotated[float, typer.Option("--barrier", help="In kT, the highest to cross.")] = 16.0,
    pace: Annotated[int, typer.Option("--pace", min=1, help="Steps between kernels or hills.")] = 500,
    sigma: Annotated[float | None, typer.Option("--sigma", help="Of reduced units, in the engine's.")] = None,
    timestep: Annotated[float, typer.Option("--timestep", help="Of a system.xml, ps.")] = 0.002,
    platform: Annotated[str | None, typer.Option("--platform", help="Of OpenMM [default: the fastest].")] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the rounds; one that is there goes on.")] = Path(
        "polyvae-adapt"
    ),
    figures: Figures = "png",
):
    """Bias, learn a better CV from what the runs found, and again; in the end a free energy with its error.

    Killed at any point, the same command goes on. Each round is a folder with its model, frames and COLVAR files.

    Example: polyvae adapt run.npz --openmm system.xml --structure start.pdb --temperature 300 --steps 500000
    --stride 250
    """
    options = for_training(training)
    if options.pop("weights") is not None:
        raise typer.BadParameter("the frames to begin with are unbiased", param_hint="--weights")
    if sum(kind is not None for kind in (openmm, lammps, command)) != 1:
        raise typer.BadParameter("name one engine: --openmm, --lammps or --command", param_hint="--openmm")
    from polyvae.arguments import if_given, real_number

    real_number("temperature", temperature, above=0)
    real_number("barrier", barrier, above=1)
    real_number("timestep", timestep, above=0)
    if_given(real_number, "sigma", sigma)
    structure = structure or reading["topology"]
    engine = _engine(openmm, lammps, command, frames, structure, temperature, sigma, timestep, platform, reading)
    traj = read_files(files, reading)
    seed = model.pop("seed")
    found = pv.adapt(
        traj,
        engine,
        out,
        steps=steps,
        stride=stride,
        rounds=rounds,
        walkers=walkers,
        free_runs=free_runs,
        free_steps=free_steps,
        barrier=barrier,
        pace=pace,
        seed=seed,
        training=_told(model | options),
        progress=say,
    )
    _results(out, found, figures)


def _told(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given: what is left out is chosen from the frames of every round, the lag once."""
    return {name: value for name, value in options.items() if value is not None}


def _engine(
    openmm, lammps, command, frames, structure, temperature, sigma, timestep, platform, reading
) -> "Engine":
    if openmm is not None:
        from polyvae.engines.openmm import function_in, openmm_engine, simulation_maker

        if not openmm.endswith(".xml"):
            return openmm_engine(function_in(openmm), temperature=temperature, sigma=sigma)
        if structure is None:
            raise typer.BadParameter("a system.xml needs a PDB of its particles", param_hint="--structure")
        make = simulation_maker(openmm, structure, temperature=temperature, timestep=timestep, platform=platform)
        return openmm_engine(make, temperature=temperature, sigma=sigma)
    if lammps is not None:
        from polyvae.engines.lammps import lammps_engine

        return lammps_engine(lammps, temperature=temperature, sigma=sigma)
    from polyvae.engines.command import command_engine

    if reading["topology"] is None:
        raise typer.BadParameter("the frames of a command need a topology", param_hint="--top")
    kept = {k: v for k, v in for_reading(reading).items() if k not in ("topology", "start", "stop", "step")}
    return command_engine(
        command,
        frames=frames,
        topology=reading["topology"],
        temperature=temperature,
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
        else "not converged: go on with more --rounds"
    )
    print(f"{len(found.rounds)} rounds, {end}")
    print(f"results in {out}: model.safetensors, biased.npz (frames with weights), fes.csv, rounds.csv, pictures")

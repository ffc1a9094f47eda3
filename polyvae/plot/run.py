"""The pictures of one run, and how each is read."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from polyvae.arguments import one_of
from polyvae.cv.latent import LatentCV
from polyvae.measures.free_energy import FreeEnergy
from polyvae.measures.weights import counting
from polyvae.plot.chains import optimum_structures, overlay, side_by_side, structures
from polyvae.plot.curves import latent_marginals, marginals, optimization, training
from polyvae.plot.energies import free_energy, free_energy_with_error
from polyvae.plot.latent import latent_trajectory, latent_values, mean_kl, to_show
from polyvae.plot.style import FORMATS, label_length, save, styled
from polyvae.tasks.optimum import Optimum
from polyvae.tasks.states import States, find_states
from polyvae.trajectory.record import Trajectory

# File name of each picture of a run: its title, and how to read it.
CAPTIONS = {
    "01_frames": (
        "The data",
        "Frames of the data in the aligned frame, over each other: dense where many bonds lie, "
        "the colour running along the chain.",
    ),
    "02_distances": (
        "Distances in the data",
        "How the distances from bead 0 to beads 1, 3, 5 and 7 are distributed: what generated chains must match.",
    ),
    "03_training": (
        "Training",
        "Both terms of the loss, of whose sum lower is better: a validation curve that climbs away from the "
        "training curve indicates overfitting, and the dashed line marks the weights that were kept.",
    ),
    "04_samples": (
        "Generated conformations",
        "Single draws from the model's generator, or without one from its decoder, noise included; bonds of "
        "uneven length are then the detail that the latents do not hold.",
    ),
    "05_latent_trajectory": (
        "The way through the latent space",
        "Latent coordinates in the order of time: frames close in time should lie close together, and a long "
        "straight stroke is a jump, of the conformation or of its alignment; the grey contours hold 25 to 95 % "
        "of all frames, the dotted circles are one and two standard deviations of the prior.",
    ),
    "06_generated": (
        "Data beside generated",
        "The same number of frames of both, on the same scale and with the same opacity; "
        "a generated cloud that is wider or fuzzier shows what the model does not resolve.",
    ),
    "07_generated_distances": (
        "Distances, data and generated",
        "The curves should coincide, within the band of the random halves of the data; W₁, the Wasserstein-1 "
        "distance, is how far they are apart on average, in brackets that between the halves.",
    ),
    "08_optimization": (
        "The search for a compact conformation",
        "Each line is one start moving through the latent space; the decoder's conformation may fall below what "
        "real bonds allow, so the refined value, with bonds and contacts restored, is the one that counts.",
    ),
    "09_optimized": (
        "The optimised conformation",
        "What the search found beside the most compact frame of the data, on one scale.",
    ),
    "10_latent_rg": (
        "What the latents mean",
        "Each dot is a frame with its radius of gyration: where that changes smoothly, the latents order "
        "the frames by size.",
    ),
    "11_free_energy": (
        "Free energy over the latents",
        "In kT, of all frames by their weights: basins are states, and what lies between them is as high as the "
        "frames there are rare. Beside it, or as a band, the error that 68 of 100 such runs would keep within; "
        "places with an error of 1 kT or more, such as those of single frames, are left white.",
    ),
    "12_latent_marginals": (
        "Distributions of the latents",
        "How the latents of the data fill the prior, and how those of generated conformations fill the data: a "
        "curve outside the band, which random halves of the data keep, has too many or too few of them there.",
    ),
}


@styled
def save_figures(
    folder: str | os.PathLike,
    cv: LatentCV,
    traj: Trajectory,
    z: np.ndarray,
    generated: Trajectory | None = None,
    optimum: Optimum | None = None,
    *,
    formats: Sequence[str] = ("png",),
    states: tuple[States, FreeEnergy | None] | None = None,
) -> list[Path]:
    """Write the pictures of one run; returns their paths, in order.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        folder: made where it is not there.
        traj: its frames count by their weights, if it has any, those of weight 0 not at all.
        z: `cv.transform(traj)`.
        generated: `sample(cv, ...)`, and
        optimum: `optimize(cv, start=traj)` with the radius of gyration; without them their pictures are left out.
        formats: some of "png", "pdf" and "svg"; each picture is written in all of them.
        states: of `tasks.states.find_states`, with the free energy to draw; found here by default.
    """
    formats = tuple(dict.fromkeys(one_of("formats", name, tuple(FORMATS)) for name in formats))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    unit = {"length_unit": cv.length_unit}
    bonds = {"bonds": cv.template.bonds}
    rows, weights = counting(traj)
    traj, z, weighted = traj[rows], z[rows], {"weights": weights}
    data = cv.align(traj)
    kl = None
    if cv.latent_dim > 2:
        kl = mean_kl(cv, traj, weights)
    rg = np.sqrt(((data - data.mean(axis=1, keepdims=True)) ** 2).sum(axis=2).mean(axis=1))
    rg_label = label_length("radius of gyration Rg", cv.length_unit)

    pictures = {"01_frames": lambda: overlay(data, **unit, **bonds, **weighted)}
    if generated is None:  # otherwise the picture of both shows them
        pictures["02_distances"] = lambda: marginals({"data": data}, weights={"data": weights}, **unit)
    pictures["03_training"] = lambda: training(cv.record.history, best_epoch=cv.record.best_epoch)
    if generated is not None:
        new = generated.to_unit(cv.length_unit).positions
        few = new[:3]
        names = [f"Generated conformation {k + 1}" for k in range(len(few))]
        pictures["04_samples"] = lambda: structures(few, names, **unit, **bonds)
    pictures["05_latent_trajectory"] = lambda: latent_trajectory(
        z, time=traj.time, segments=traj.segments, kl=kl, **unit, **weighted
    )
    if generated is not None:
        pictures["06_generated"] = lambda: side_by_side(data, new, **unit, **bonds, **weighted)
        pictures["07_generated_distances"] = lambda: marginals(
            {"data": data, "generated": new}, weights={"data": weights}, **unit
        )
    if optimum is not None:
        pictures["08_optimization"] = lambda: optimization(optimum, label=rg_label)
        pictures["09_optimized"] = lambda: optimum_structures(optimum)
    pictures["10_latent_rg"] = lambda: latent_values(z, rg, label=rg_label, kl=kl, **weighted)

    if states is None:
        states = find_states(cv, traj, z, to_show(z, kl, weights)[0])
    found, energy = states
    if energy is not None:
        axis_names = [f"z{k}" for k in found.latents]
        draw_energy = free_energy if len(axis_names) == 1 else free_energy_with_error
        pictures["11_free_energy"] = lambda: draw_energy(energy, names=axis_names)
    z_new = None if generated is None else cv.transform(generated)
    pictures["12_latent_marginals"] = lambda: latent_marginals(z, generated=z_new, **weighted)

    paths = []
    for name, draw in pictures.items():
        axes = draw()
        paths += [save(axes, folder / f"{name}.{kind}") for kind in formats]
    return paths

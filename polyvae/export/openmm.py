"""The latent coordinates as forces of OpenMM, for `CustomCVForce` and `app.Metadynamics`.

Source: the OpenMM user guide and the API documentation of `PythonForce`, `CustomCVForce` and `app.Metadynamics`
(openmm.org).
"""

import dataclasses
import logging
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import equinox as eqx
import jax
import numpy as np

from polyvae.arguments import flag, function, if_given, numbers_array, refusal
from polyvae.cv.latent import LatentCV, check_cv, load_cv
from polyvae.errors import InputError
from polyvae.export import kernel
from polyvae.export.common import particle_numbers
from polyvae.export.exporter import Export, fill_template
from polyvae.export.grid_bias import GridBias, bias_width, statistics
from polyvae.export.openmm_state import BiasOfLatents, BiasOnGrid, Latent
from polyvae.export.particles import length_factor, wholeness
from polyvae.export.readme import wrap_text
from polyvae.export.steepness import check_steepness, describe_steepness
from polyvae.vae.settings import ModelRecord

log = logging.getLogger(__name__)

FIRST_ATOM = 0
_BIASES = {
    "metad": {
        "method": "Well-tempered metadynamics",
        "method_in_text": "well-tempered metadynamics",
        "packages": "openmm polyvae",
        "imports": "",
        "hills": "hills",
    },
    "opes": {
        "method": "OPES",
        "method_in_text": "OPES",
        "packages": "openmm openmm-opes polyvae",
        "imports": "\nfrom openmm_opes import OPES",
        "hills": "kernels",
    },
}
OPTIONS = {"bias": tuple(_BIASES), "sigma": None}
_PRIOR = (-4.0, 4.0, 0.2)  # latents of a trained model are spread much like the prior, a standard normal


def latent_forces(
    cv: LatentCV,
    particles: Sequence[int],
    *,
    system=None,
    periodic: bool | None = None,
    bonds: np.ndarray | None = None,
    sigma: float | None = None,
) -> list:
    """One `openmm.PythonForce` for each latent coordinate. Its energy, as a bare number, is the latent's value.

    For `CustomCVForce.addCollectiveVariable`, not for `System.addForce`. Computed in float64; all latents at
    one set of positions are evaluated together. The forces can be copied, pickled and serialised, as
    `XmlSerializer` does with the system; what is written holds a pickle, to be loaded with polyvae installed.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        particles: (n_beads,) numbers from 0, in the order of the model's beads. A 2-D model ignores z.
        system: the `openmm.System`, with its forces, to check the numbers against and to see whether it is
            periodic.
        periodic: make the molecule whole by the minimum image along its bonds before the CV is computed; a
            barostat may change the box. By default what `system` says.
        bonds: (n_bonds, 2) bead numbers, for a periodic system; by default those of the training data. They
            may join any beads that are always less than half the box apart.
        sigma: nm per sigma, required for a model in reduced units, since OpenMM has none.

    Raises:
        InputError: a model without coordinates; particles of the wrong count, repeated or out of range; a
            reduced model without `sigma`; a periodic system without bonds that join all beads; no OpenMM. And, in
            a periodic run, a bond of about half the box or longer, from which the molecule cannot be made whole.
    """
    model, make = force_maker(cv, particles, system, periodic, bonds, sigma)
    return [make(Latent(model, k), f"latent {k}") for k in range(cv.latent_dim)]


def bias_force(
    cv: LatentCV,
    particles: Sequence[int],
    bias: Callable,
    *,
    system=None,
    periodic: bool | None = None,
    bonds: np.ndarray | None = None,
    sigma: float | None = None,
):
    """An `openmm.PythonForce` whose energy is a function of all latents, for `System.addForce`: a restraint,
    walls, or a bias of one's own.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        bias: called with latents (latent_dim,), gives an energy in kJ/mol and its derivative by each latent
            (latent_dim,); in place of derivatives that are all 0 also None. Writing the system to XML takes
            one that can be pickled.
        particles, system, periodic, bonds, sigma: as for `latent_forces`.

    Raises:
        InputError: as `latent_forces`; and, in a run, derivatives of another number.
    """
    function("bias", bias)
    model, make = force_maker(cv, particles, system, periodic, bonds, sigma)
    return make(BiasOfLatents(model, bias), "bias on latents")


def grid_force(cv: LatentCV, particles: Sequence[int], bias: GridBias, *, system, sigma: float | None = None):
    """`bias_force` of a `GridBias`, which the compiled kernel looks up once a step; it cannot be written to XML.

    Args:
        cv, particles, system, sigma: as for `latent_forces`.
    """
    model, make = force_maker(cv, particles, system, None, None, sigma)
    return make(BiasOnGrid(model, bias), "bias on latents")


def force_maker(cv, particles, system, periodic, bonds, sigma) -> tuple[bytes, Callable]:
    """A pickled model, and what makes a named force on the particles of a function of a state."""
    openmm = _openmm()
    if not isinstance(system, (openmm.System, type(None))):
        raise refusal("system", "an openmm.System", system)
    if particles is None:
        raise refusal("particles", "whole numbers, one for each bead", particles)
    numbers = particle_numbers(cv, particles, None if system is None else system.getNumParticles())
    factor = length_factor(cv, "nm", sigma)
    periodic = if_given(flag, "periodic", periodic)
    if periodic is None:
        if system is None:
            raise InputError(
                "whether the system is periodic must be known; give system=, or periodic=True or False"
            )
        periodic = system.usesPeriodicBoundaryConditions()
    known = wholeness(cv, bonds, periodic)
    # A copy that OpenMM makes, by pickle, must not depend on the process; the encoder is all it needs.
    template = cv.template if known is None else dataclasses.replace(cv.template, bonds=known.bonds)
    encoder = eqx.tree_at(lambda scaled: scaled.vae.decoder, cv.scaled, None)
    encoder, featurizer = jax.tree.map(np.asarray, (encoder, cv.featurizer))
    bare = LatentCV(featurizer, encoder, template, ModelRecord())
    model = pickle.dumps((bare, factor, known))
    log.info("in OpenMM the CV runs %s", kernel.where())

    def make(computation: Callable, name: str):
        force = openmm.PythonForce(computation)
        force.setName(name)
        force.setParticles(numbers)
        force.setUsesPeriodicBoundaryConditions(periodic)
        return force

    return model, make


def bias_variables(
    cv: LatentCV,
    particles: Sequence[int],
    *,
    data=None,
    minimum: float | Sequence[float] | None = None,
    maximum: float | Sequence[float] | None = None,
    width: float | Sequence[float] | None = None,
    **options,
) -> list:
    """One `app.BiasVariable` for each latent coordinate, for `app.Metadynamics`, which takes up to three.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        data: what `cv.transform` takes; range and hill width come from it where they are not given, see
            `range_and_width`.
        minimum, maximum, width: range of the grid and standard deviation of the hills, a number each or one
            for each latent. Outside the range there is no bias.
        particles: as for `latent_forces`.
        options: `system`, `periodic`, `bonds` and `sigma`, as for `latent_forces`.

    Raises:
        InputError: as `latent_forces`; neither data nor numbers; an empty range or a width that is not positive.
    """
    forces = latent_forces(cv, particles, **options)
    from openmm import app

    given = [minimum, maximum, width]
    if data is None and any(value is None for value in given):
        raise InputError("the bias needs minimum, maximum and width; give them, or data= to take them from")
    grid, slopes = np.full((3, cv.latent_dim), np.nan), cv.record.slopes
    if data is not None:
        stats = statistics(check_cv(cv), data)
        grid, slopes = _grid_of(stats), stats["slopes"]
    for name, row, wanted in zip(("minimum", "maximum", "width"), grid, given, strict=True):
        if wanted is not None:
            value = numbers_array(name, wanted, f"one number, or {cv.latent_dim}", finite=False)
            if np.shape(value) not in ((), row.shape):
                raise refusal(name, f"one number, or {cv.latent_dim}, one for each latent", wanted)
            row[:] = value
    if not (np.isfinite(grid).all() and (grid[0] < grid[1]).all() and (grid[2] > 0).all()):
        raise InputError(
            f"the bias needs minimum < maximum and width > 0 for every latent; got {grid[0].tolist()}, "
            f"{grid[1].tolist()}, {grid[2].tolist()}"
        )
    check_steepness(cv, grid[2], slopes)
    # OpenMM fits a spline to the whole grid whenever the bias grows. With its five points a hill width that takes
    # as long as hundreds of steps in two dimensions, most of a minute in three. Three give a hill to 5e-4.
    low, high, width = grid
    a_width = (5, 3, 2)[min(cv.latent_dim, 3) - 1]
    points = np.ceil(a_width * (high - low) / width).astype(int).tolist()
    return [
        app.BiasVariable(force, *map(float, row), False, n)
        for force, row, n in zip(forces, grid.T, points, strict=True)
    ]


def range_and_width(cv: LatentCV, data) -> np.ndarray:
    """Minimum, maximum and width of each latent, (3, latent_dim), from data that `cv.transform` takes.

    The range is that of the data and a quarter of it more at each end. The width is `grid_bias.bias_width`, which
    counts weights of frames.

    Raises:
        InputError: a latent that is the same in all frames.
    """
    if data is None:
        raise refusal("data", "a trajectory, to take range and widths from", data)
    return _grid_of(statistics(check_cv(cv), data))


def _grid_of(stats: dict[str, np.ndarray]) -> np.ndarray:
    margin = 0.25 * (stats["max"] - stats["min"])
    return np.stack([stats["min"] - margin, stats["max"] + margin, bias_width(stats)])


def evaluate_forces(
    forces: list, positions: np.ndarray, box: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Values and gradients of `latent_forces` as OpenMM gives them for frames, to check an export.

    Each force is a variable of a `CustomCVForce` whose energy is linear in it, on the reference platform. The
    gradient is read from the forces on the particles.

    Args:
        positions: (n_frames, n_particles, 3) of all particles of the system, in nm.
        box: (3, 3) vectors as rows, in nm, lower triangular; for periodic forces.

    Returns:
        (n_frames, n_latents), and (n_frames, n_latents, n_particles, 3) per nm, both float64.
    """
    openmm = _openmm()
    system = openmm.System()
    for _ in range(positions.shape[1]):
        system.addParticle(1.0)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*np.asarray(box, float))
    linear = openmm.CustomCVForce(" + ".join(f"pick{k} * z{k}" for k in range(len(forces))))
    for k, force in enumerate(forces):
        linear.addCollectiveVariable(f"z{k}", pickle.loads(pickle.dumps(force)))  # the system owns its forces
        linear.addGlobalParameter(f"pick{k}", 0.0)
    system.addForce(linear)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    values, gradients = [], []
    for frame in np.asarray(positions, float):
        context.setPositions(frame)
        values.append(linear.getCollectiveVariableValues(context))
        for k in range(len(forces)):
            for j in range(len(forces)):
                context.setParameter(f"pick{j}", float(j == k))
            gradients.append(-context.getState(forces=True).getForces(asNumpy=True)._value)
    shape = (len(positions), len(forces), *positions.shape[1:])
    return np.array(values), np.reshape(gradients, shape)


def evaluate(
    folder: str | os.PathLike, cv: LatentCV, frames: np.ndarray, *, atoms: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return latents and gradients in OpenMM of the exported model; see `exporter.Exporter.evaluate`."""
    exported = load_cv(Path(folder) / "model.safetensors")
    numbers, sigma = particle_numbers(cv, atoms), 1.0 if cv.length_unit == "sigma" else None
    factor = length_factor(cv, "nm", sigma)
    positions = np.zeros((len(frames), max(numbers) + 1, 3))
    positions[:, numbers, : cv.n_dims] = np.asarray(frames, float) / factor
    values, gradients = evaluate_forces(latent_forces(exported, numbers, periodic=False, sigma=sigma), positions)
    return values, gradients[:, :, numbers, : cv.n_dims] / factor


def _openmm():
    try:
        import openmm
    except ImportError:
        raise InputError("this needs OpenMM, which is not installed: pip install 'polyvae[openmm]'") from None
    if not hasattr(openmm, "PythonForce"):
        raise InputError(
            f"this needs an OpenMM with PythonForce; {openmm.__version__} has none: pip install --upgrade openmm"
        )
    return openmm


def write_files(export: Export, place: Path) -> None:
    """Write the model, a biased run as a Python script, and a README.

    The script runs as it is, on a bead-spring chain like the model's, until the user's system takes its place. The
    bias is "metad", well-tempered metadynamics by OpenMM itself, or "opes", by the package openmm-opes. Its range
    and width come from data; without data they are those of a standard normal. One sigma of a model in reduced
    units is 1 nm in the script, where it can be changed, unless the option `sigma` says otherwise.

    Raises:
        InputError: more than three latents, which `app.Metadynamics` does not take; a folder with the bias of an
            earlier run.
    """
    cv, sigma, bias = export.cv, export.sigma, export.bias or "metad"
    if cv.latent_dim > 3:
        raise InputError(
            f"OpenMM's metadynamics takes up to three variables, and the model has {cv.latent_dim} latents; train "
            f"one with --latent-dim 3 or fewer, or bias `polyvae.export.openmm.latent_forces` in your own script"
        )
    if (earlier := export.folder / "bias").exists():
        raise InputError(
            f"{earlier} is the bias of a run of an earlier export, and the next run would go on with it; move "
            f"it away, or name another folder"
        )
    if cv.length_unit == "sigma" and sigma is None:
        sigma = 1.0
    length_factor(cv, "nm", sigma)
    grid, whence = np.outer(_PRIOR, np.ones(cv.latent_dim)), "a standard normal, as no data were given"
    if export.stats is not None:
        grid, whence = _grid_of(export.stats), "the data that were given"
    low, high, width = grid
    check_steepness(cv, width, export.slopes)

    def listed(values):
        return "[" + ", ".join(f"{value:.4g}" for value in values) + "]"

    words = {
        "particles": export.atoms,
        "sigma": sigma,
        "minimum": listed(low),
        "maximum": listed(high),
        "width": listed(width),
        "model": repr(cv),
        "unit": "sigma (reduced units)" if cv.length_unit == "sigma" else cv.length_unit,
        "scale": "" if sigma is None else f", 1 sigma taken as {sigma:g} nm (SIGMA in the script)",
        "plane": "" if cv.n_dims == 3 else " The model is 2-D: z is ignored, so keep the particles in a plane.",
        "whence": whence,
        "steepness": wrap_text(describe_steepness(cv, export.slopes, width)),
        "bias": fill_template(f"openmm_{bias}.py.in", {}),
    } | _BIASES[bias]
    cv.save(place / "model.safetensors")
    (place / "biased_run.py").write_text(fill_template("openmm.py.in", words))
    (place / "README.md").write_text(fill_template("openmm.md.in", words))

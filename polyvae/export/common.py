"""Atom numbers, and the network with its scaling, for all exporters."""

import functools
import logging
from collections.abc import Callable, Sequence

import jax
import numpy as np

from polyvae.arguments import if_given, refusal, shown, whole_number, whole_numbers
from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.trajectory.record import chain_bonds
from polyvae.trajectory.wholeness import spanning_tree

log = logging.getLogger(__name__)


def atom_numbers(cv: LatentCV, atoms: str | Sequence[int] | None = None, n_atoms: int | None = None) -> list[int]:
    """Return the numbers of the model's beads, from 1, in an engine that counts atoms by their ids.

    These are LAMMPS, Colvars and PLUMED. The numbers come in the order of the beads.

    Args:
        atoms: numbers, or text such as "1-12,20". By default these are the ids of the beads in the training file,
            or their places in it if the file has no ids. If neither is known, they are 1 to n_beads, which is
            logged.
        n_atoms: how many atoms the engine has, where that is known.

    Raises:
        InputError: text that cannot be read as numbers; numbers out of range, repeated or of the wrong count;
            a system of another size than the model was trained in, without numbers for it.
    """
    _require_positions(cv)
    if atoms is not None:
        words = "whole numbers, one for each bead, or text such as 1-12,20"
        found = _parsed(atoms) if isinstance(atoms, str) else list(whole_numbers("atoms", atoms, words))
        if not found:
            raise refusal("atoms", words, atoms)
        return _checked(found, cv, 1, n_atoms)
    places, ids = _places(cv, n_atoms), cv.template.ids
    if ids is not None:
        return _checked(ids.tolist(), cv, 1, None)
    return [place + 1 for place in places or _first_places(cv, n_atoms)]


def particle_numbers(
    cv: LatentCV, particles: Sequence[int] | np.ndarray | None = None, n_particles: int | None = None
) -> list[int]:
    """Return the numbers of the model's beads, from 0, in an engine that counts atoms by their order.

    These are OpenMM and PySAGES. A 2-D model takes x and y of each particle; that z is ignored is logged.

    Args:
        particles: (n_beads,) numbers in the order of the beads; by default the places of the beads in the training
            file. If these are not known, they are 0 to n_beads - 1, which is logged unless the ids say the same.
        n_particles: particles in the engine's system, where known.

    Raises:
        InputError: as `atom_numbers`.
    """
    _require_positions(cv)
    n_particles = if_given(whole_number, "n_particles", n_particles, 1)
    first, ids = list(range(cv.n_beads)), cv.template.ids
    if particles is not None:
        found = list(whole_numbers("particles", particles, "whole numbers, one for each bead"))
    elif (places := _places(cv, n_particles)) is not None:
        found = places
    elif ids is not None and np.array_equal(ids, np.array(first) + 1):
        found = first
    else:
        found = _first_places(cv, n_particles)
    if cv.n_dims == 2:
        log.warning("the model is 2-D: z of the particles is ignored; keep them near a plane of constant z")
    return _checked(found, cv, 0, n_particles)


def _require_positions(cv: LatentCV) -> None:
    if not isinstance(cv, LatentCV):
        raise InputError(
            f"an engine needs a CV of positions; got {shown(cv)}, which takes none. Give a model that pv.fit made "
            f"of a trajectory"
        )


def _places(cv: LatentCV, n_atoms: int | None) -> list[int] | None:
    """Return the places of the beads among the atoms of the training file, from 0, where they are known."""
    trained = cv.template.selection
    if trained is None:
        return None
    if n_atoms not in (None, trained.n_atoms):
        raise InputError(
            f"the model was trained on {trained}, and this system has {n_atoms}; say which of them are the beads: "
            f"--select, or --atoms"
        )
    return trained.atoms.tolist()


def _first_places(cv: LatentCV, n_atoms: int | None) -> list[int]:
    if n_atoms != cv.n_beads:
        _report_first(cv.n_beads, n_atoms)
    return list(range(cv.n_beads))


@functools.cache  # once, not in each of many runs
def _report_first(n_beads: int, n_atoms: int | None) -> None:
    of_all = "" if n_atoms is None else f" of the {n_atoms} in the system"
    log.warning(
        "the model's %d beads are taken to be the first %d atoms%s, since neither their ids nor their places are "
        "known; name them where they are others: --atoms",
        n_beads,
        n_beads,
        of_all,
    )


def _checked(numbers: list[int], cv: LatentCV, first: int, n_atoms: int | None) -> list[int]:
    """Return the numbers of the beads, which an engine counts from `first`, after checking them."""
    noun = "atom numbers" if first else "particles"
    if len(numbers) != cv.n_beads:
        example = f", such as --atoms 1-{cv.n_beads}" if first else ""
        raise InputError(
            f"the model takes {cv.n_beads} beads; got {len(numbers)} {noun} ({ranges(numbers)}). Give the number "
            f"of each bead, in the order of the beads{example}"
        )
    last = np.inf if n_atoms is None else first + n_atoms - 1
    for bead, number in enumerate(numbers):
        if not first <= number <= last:
            upper = "up" if n_atoms is None else f"to {last}"
            raise InputError(
                f"{noun} must go from {first} {upper}; got {number} for bead {bead}. This engine counts atoms "
                f"from {first}"
            )
        if (earlier := numbers.index(number)) < bead:
            raise InputError(
                f"{noun} must be others for each bead; got {number} twice, for beads {earlier} and {bead}. Give "
                f"it once"
            )
    return numbers


def _parsed(text: str) -> list[int]:
    found: list[int] = []
    for word in text.split(","):
        first, dash, last = word.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
            raise InputError(
                f"atoms must be numbers and rising ranges such as 1-12,20; got {word.strip()!r} in {text!r}"
            )
        found += range(int(first), int(last) + 1)
    return found


def ranges(numbers: Sequence[int]) -> str:
    """Numbers as PLUMED writes them: "1-12,20"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def scaled_layers(cv: LatentCV) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights (out, in) and biases (out,) in float64, from features less their mean, in `length_unit`, to latents.

    The scale is part of the first layer. The last layer keeps the rows of the mean alone. tanh follows each layer
    but the last.
    """
    layers = [
        (np.asarray(layer.weight, np.float64), np.asarray(layer.bias, np.float64))
        for layer in cv.vae.encoder.layers
    ]
    weight, bias = layers[0]
    layers[0] = weight / np.asarray(cv.scale, np.float64), bias
    weight, bias = layers[-1]
    layers[-1] = weight[: cv.latent_dim], bias[: cv.latent_dim]
    return layers


def encoder_layers(cv: LatentCV) -> list[tuple[np.ndarray, np.ndarray]]:
    """`scaled_layers` from the features themselves: their mean, too, is part of the first layer."""
    layers = scaled_layers(cv)
    weight, bias = layers[0]
    layers[0] = weight, bias - weight @ np.asarray(cv.mean, np.float64)
    return layers


def mass_fractions(cv: LatentCV) -> np.ndarray:
    """Return the share (n_beads,) of each bead in the mass, in float64; equal shares without masses."""
    masses = getattr(cv.featurizer, "masses", None)
    masses = np.ones(cv.n_beads) if masses is None else np.asarray(masses, np.float64)
    return masses / masses.sum()


def full_digits(values) -> list[str]:
    """Each number in 17 significant digits, which give back every float64."""
    return [f"{value:.17g}" for value in np.ravel(np.asarray(values, np.float64))]


def exact(cv: LatentCV) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """A function from one frame (n_beads, n_dims) to latents (latent_dim,) and gradients (latent_dim, n_beads,
    n_dims), computed in float64 whatever precision JAX is set to; it changes no setting.

    The weights are float32 numbers, which float64 holds exactly.
    """
    function = cv.function()

    @jax.jit
    def both(positions):
        def latents(x):
            z = function.posterior(x)[0]
            return z, z

        gradients, z = jax.jacrev(latents, has_aux=True)(positions)
        return z, gradients

    def evaluate(positions):
        with jax.enable_x64(True):
            z, gradients = both(np.asarray(positions, np.float64))
            return np.asarray(z), np.asarray(gradients)

    return evaluate


def walk(cv: LatentCV) -> list[int]:
    """Beads, from 0, in an order in which each is bonded to the one before: to make a molecule whole in a row.

    Where the molecule branches the walk goes back over beads it has seen. Chain order where no bonds are known.
    """
    bonds = chain_bonds(cv.n_beads) if cv.template.bonds is None else cv.template.bonds
    partners: dict[int, list[int]] = {bead: [] for bead in range(cv.n_beads)}
    for i, j in np.asarray(bonds).tolist():
        partners[i].append(j)
        partners[j].append(i)
    ends = [bead for bead in partners if len(partners[bead]) == 1]
    path: list[int] = []
    seen: set[int] = set()
    for start in [*ends[:1], *range(cv.n_beads)]:
        if start in seen:
            continue
        branch, way, end = [start], [start], 1
        seen.add(start)
        while branch:
            ahead = next((bead for bead in partners[branch[-1]] if bead not in seen), None)
            if ahead is None:
                branch.pop()
                way += branch[-1:]
            else:
                seen.add(ahead)
                branch.append(ahead)
                way.append(ahead)
                end = len(way)
        path += way[:end]
    return path


def pieces_note(cv: LatentCV) -> str:
    """Return a sentence on how the molecule is made whole where its bonds leave that open, or an empty text."""
    if cv.template.bonds is None:
        return " The model knows no bonds, so it joins the beads in their order."
    if (n := spanning_tree(cv.n_beads, cv.template.bonds).n_molecules) > 1:
        return (
            f" The bonds leave {n} pieces, each of which is put into the image nearest to the one before: see "
            f"that they lay so in the training data."
        )
    return ""


def featurizer_name(cv: LatentCV) -> str:
    """The featurizer with the options that are not its defaults, as one would write it."""
    options = [
        f"{name}={value!r}"
        for name, default in (("planar", "in-plane"), ("sign", "chain"), ("mirror", False), ("reversal", False))
        if (value := getattr(cv.featurizer, name, default)) != default
    ]
    return f"{type(cv.featurizer).__name__}({', '.join(options)})"

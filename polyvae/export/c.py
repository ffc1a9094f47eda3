"""The CV as plain C99: one function that gives the latents and their gradients, for engines and for code of one's
own. It needs libm alone, allocates nothing and may be called from several threads.

The arithmetic is in `c_files`, one file for each subject, with the derivatives written out by hand. An export
has the files that its model needs, and the numbers as a table.
"""

import functools
import logging
import os
import textwrap
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.export import kernel
from polyvae.export.common import (
    atom_numbers,
    featurizer_name,
    full_digits,
    mass_fractions,
    pieces_note,
    scaled_layers,
    walk,
)
from polyvae.export.exporter import Export
from polyvae.export.readme import write_readme
from polyvae.features.featurizers import PairDistances, PrincipalAxes, Reference
from polyvae.trajectory.wholeness import NEAR_HALF

log = logging.getLogger(__name__)

FIRST_ATOM = 1
OPTIONS: dict[str, None] = {}
_BLOCK = 32  # as in c_files/head.c
_WEIGHTS_HEAD = (
    "/* The numbers of latent_cv.c, which includes this file. Weights of the first layer are divided by\n"
    "   the standard deviation of the features. */"
)
_STACK = 400 * 1024  # bytes; the threads of some systems have no more than 512 KiB


def write_files(export: Export, place: Path) -> None:
    """Write `latent_cv.c`, `latent_cv.h`, the table `latent_cv_weights.h` and a README.

    Every featurizer with every option works, in float64.

    Raises:
        InputError: a model of a single bead, or one that needs too much of the stack.
    """
    cv = export.cv
    write_sources(cv, place, export.atoms)
    write_readme(place, "c", export, {"stack": f"{_stack_bytes(cv) / 1024:.0f}", "pieces": pieces_note(cv)})


def evaluate(
    folder: str | os.PathLike, cv: LatentCV, frames: np.ndarray, *, atoms: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return latents and gradients of the exported code, which is compiled in a temporary folder.

    See `exporter.Exporter.evaluate`.

    Raises:
        InputError: no C compiler; code that does not compile; code of a model of other sizes.
    """
    code = kernel.compile_source(Path(folder) / "latent_cv.c", (cv.n_beads, cv.n_dims, cv.latent_dim))
    z, gradients, _ = code.frames(frames)
    assert gradients is not None
    return z, gradients


def compiled(cv: LatentCV) -> kernel.Kernel:
    """The model as compiled functions, its C written and compiled in a temporary folder.

    Raises:
        InputError: no C compiler that works; what `write_sources` refuses.
    """
    texts = tuple(_sources(cv, atom_numbers(cv)).items())
    return _compiled(texts, (cv.n_beads, cv.n_dims, cv.latent_dim), kernel.compiler())


@functools.lru_cache(maxsize=4)  # an engine's many short runs are of one CV
def _compiled(texts: tuple[tuple[str, str], ...], sizes: tuple[int, int, int], by) -> kernel.Kernel:
    with kernel.workshop() as folder:
        for name, text in texts:
            (folder / name).write_text(text)
        return kernel.compile_source(folder / "latent_cv.c", sizes)


def compiled_if_possible(cv: LatentCV) -> kernel.Kernel | None:
    """Return `compiled`, or None, with a warning in the log, where there is no compiler or it fails."""
    if kernel.compiler() is None:
        return None
    try:
        return compiled(cv)
    except InputError as error:
        log.warning("the CV runs in JAX, slower than as C: %s", error)
        return None


def write_sources(cv: LatentCV, folder: Path, numbers: Sequence[int]) -> None:
    """The three files of the code.

    Args:
        numbers: (n_beads,) `LATENT_CV_ATOMS`, from 1.

    Raises:
        InputError: a model of a single bead, or one so large that a call could overflow a thread's stack.
    """
    for name, text in _sources(cv, numbers).items():
        (folder / name).write_text(text)


def _sources(cv: LatentCV, numbers: Sequence[int]) -> dict[str, str]:
    if cv.n_beads < 2:
        raise InputError("one bead has no conformation; a kernel needs a model of two beads or more")
    if (size := _stack_bytes(cv)) > _STACK:
        raise InputError(
            f"a kernel may take {_STACK // 1024} KiB of the stack, and this model needs {size // 1024}; train one "
            f"with fewer features, as pv.PairDistances(max_pairs=5000) has, or fewer latents"
        )
    parts = [_part(name) for name in ["head", "whole", *_features_parts(cv), _network_part(cv), "latent_cv"]]
    return {
        "latent_cv.h": _header(cv, numbers),
        "latent_cv_weights.h": _weights(cv),
        "latent_cv.c": "/* See latent_cv.h for what this computes. */\n\n" + "\n".join(parts),
    }


def _part(name: str) -> str:
    return (resources.files("polyvae.export") / "c_files" / f"{name}.c").read_text()


def _features_parts(cv: LatentCV) -> list[str]:
    kind, space = cv.featurizer, cv.n_dims
    order = "reversal" if kind.reversal else "forward"
    if isinstance(kind, PairDistances):
        return [order, "pair_distances"]
    in_space = ["jacobi_3", "eigh_3"] if space == 3 else []
    cross = ["cross_3"] if space == 3 else []
    if isinstance(kind, Reference):
        return [order, "centre", *in_space, *cross, f"rotation_{space}", "reference"]
    return [order, "centre", *(in_space or ["eigh_2"]), *cross, f"right_handed_{space}", "principal_axes"]


def _network_part(cv: LatentCV) -> str:
    return "network" if len(cv.vae.encoder.layers) > 1 else "linear"


def _header(cv: LatentCV, numbers: Sequence[int]) -> str:
    unit = "reduced units (sigma)" if cv.length_unit == "sigma" else cv.length_unit
    constants = {
        "BEADS": cv.n_beads,
        "DIMS": cv.n_dims,
        "LATENTS": cv.latent_dim,
        "UNIT": f'"{cv.length_unit}"',
    }
    text = (resources.files("polyvae.export") / "c_files" / "latent_cv.h").read_text()
    described = f"{featurizer_name(cv)}, network {' -> '.join(map(str, _widths(cv)))} with tanh, lengths in {unit}"
    values = "\n".join(f"#define LATENT_CV_{name} {value}" for name, value in constants.items())
    atoms = textwrap.wrap(", ".join(map(str, numbers)), 100)
    listed = "#define LATENT_CV_ATOMS \\\n    {" + " \\\n     ".join(atoms) + "}"
    for word, by in (("@MODEL@", described), ("@CONSTANTS@", values), ("@ATOMS@", listed)):
        text = text.replace(word, by)
    return text


def _widths(cv: LatentCV) -> list[int]:
    return [cv.mean.size, *(len(bias) for _, bias in scaled_layers(cv))]


def _weights(cv: LatentCV) -> str:
    """Return the table: constants that only `latent_cv.c` needs, and the numbers."""
    links, bonds = _links(cv)
    constants = {"FEATURES": cv.mean.size, "LINKS": len(links), "BONDS": len(bonds), "LONGEST_BOND": NEAR_HALF}
    of_network, network_tables = _network_tables(cv)
    of_features, feature_tables = _feature_tables(cv)
    constants |= of_network | of_features
    values = "\n".join(f"#define {name} {value}" for name, value in constants.items())
    tables = [
        _table("links", "bead and the bead that is put beside it, from 0", links, "int"),
        _table("bonds", "these must be closer than half the box then", bonds, "int"),
        *feature_tables,
        *network_tables,
    ]
    return "\n\n".join([_WEIGHTS_HEAD, values, *tables, "#define LATENT_CV_WEIGHTS_END\n"])


def _feature_tables(cv: LatentCV) -> tuple[dict[str, object], list[str]]:
    """Return constants and tables of the featurizer and of the mean of its features."""
    kind = cv.featurizer
    mean = _table("feature_mean", f"over the training data, in {cv.length_unit}", np.asarray(cv.mean)[:, None])
    if isinstance(kind, PairDistances):
        return {}, [_table("pairs", "of beads, from 0", np.asarray(kind.pairs), "int"), mean]
    fractions = mass_fractions(cv)
    tables = [_table("mass_fraction", "of each bead", fractions[None])]
    if isinstance(kind, PrincipalAxes):
        return {"MIRROR": int(kind.mirror), "SIGNS_BY_CHAIN": int(kind.sign == "chain")}, [*tables, mean]
    reference = np.asarray(kind.template(), np.float64)
    reference = reference - reference[0]
    centred = reference - fractions @ reference
    tables.append(_table("reference", "about its centre of mass; its size does not matter", centred))
    return {"MIRROR": int(kind._mirrored(cv.n_dims))}, [*tables, mean]


def _network_tables(cv: LatentCV) -> tuple[dict[str, object], list[str]]:
    """Return constants and tables of the network, with zeros that fill up whole blocks of units."""
    *hidden, (head, head_bias) = scaled_layers(cv)
    last, widths, rows, tables = cv.mean.size, [], [], []
    for k, (weight, bias) in enumerate(hidden):
        units, n_inputs = weight.shape
        last = _padded(units)
        widths.append(last)
        rows.append(f"{{{n_inputs}, {last}, weight_{k}, bias_{k}}}")
        what = f"layer {k}: {n_inputs} inputs, {units} units (zeros up to {last}); a row an input"
        padding = (0, last - units)
        tables.append(_table(f"weight_{k}", what, np.pad(weight.T, ((0, 0), padding))))
        tables.append(_table(f"bias_{k}", f"layer {k}", np.pad(bias, padding)[None]))
    head = np.pad(head, ((0, 0), (0, last - head.shape[1])))
    tables.append(_table("head_weight", "the latents; a row a latent", head))
    tables.append(_table("head_bias", "the latents", head_bias[None]))
    constants: dict[str, object] = {"LAST_WIDTH": last}
    if hidden:
        layers = ", ".join(rows)
        constants |= {"HIDDEN_LAYERS": len(hidden), "WIDEST": max(widths), "LAYERS": f"{{{layers}}}"}
    return constants, tables


def _padded(units: int) -> int:
    """Return the units of a layer with those that fill up its last block."""
    return -(-units // _BLOCK) * _BLOCK


def _table(name: str, what: str, rows: np.ndarray, kind: str = "double") -> str:
    """A two-dimensional table, row by row, and the line by which the compiler sees that it is whole."""
    rows = np.asarray(rows)
    written = [", ".join(map(str, row) if kind == "int" else full_digits(row)) for row in rows.tolist()]
    if len(rows) == 1:
        written = [line.rstrip(",") for line in textwrap.wrap(written[0], 100)]
    lines = ",\n    ".join(written)
    shape = " * ".join(map(str, rows.shape))
    return f"/* {what} */\nstatic const {kind} {name}[] = {{\n    {lines}}};\nTABLE({name}, {shape});"


def _links(cv: LatentCV) -> tuple[np.ndarray, np.ndarray]:
    """Which bead is put beside which, in order, and the pairs that must be close then, these and all bonds; beads
    from 0."""
    path, links = walk(cv), []
    seen: set[int] = set()
    for before, bead in zip([path[0], *path[:-1]], path, strict=True):
        if bead not in seen and seen:
            links.append((before, bead))
        seen.add(bead)
    made = np.array(links)
    bonds = np.empty((0, 2), int) if cv.template.bonds is None else np.asarray(cv.template.bonds)
    short = np.unique(np.sort(np.concatenate([made, bonds.reshape(-1, 2)]), axis=1), axis=0)
    return made, short


def _stack_bytes(cv: LatentCV) -> int:
    """Bytes of the stack that a call needs, approximately."""
    features, *units = _widths(cv)
    widths, n = [features, *map(_padded, units)], cv.n_beads * cv.n_dims
    hidden = len(widths) - 2
    widest = max(widths[1:])
    return 8 * ((2 + cv.latent_dim) * widths[0] + 4 * n + (hidden + 2 * cv.latent_dim) * widest)

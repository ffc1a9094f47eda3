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
from polyvae.export.common import atom_numbers, digits, featurizer_name, pieces_note, scaled_layers, walk
from polyvae.export.grid_bias import statistics
from polyvae.export.readme import Readme
from polyvae.features.featurizers import PairDistances, PrincipalAxes, Reference
from polyvae.files import replacing_folder
from polyvae.trajectory.wholeness import NEAR_HALF

log = logging.getLogger(__name__)

CHECKED = "gcc 12 and clang 14, as C99 and as C++"
_BLOCK = 32  # as in c_files/head.c
_STACK = 400 * 1024  # bytes; the threads of some systems have no more than 512 KiB

_BUILD = """```sh
gcc   -std=c99 -O3 -march=native -ffp-contract=fast main.c latent_cv.c -lm
clang -std=c99 -O3 -march=native -ffp-contract=fast main.c latent_cv.c -lm
```

or, in CMake,

```cmake
add_library(latent_cv STATIC latent_cv.c)
target_compile_options(latent_cv PRIVATE -O3 -march=native -ffp-contract=fast)
target_link_libraries(latent_cv PUBLIC m)
```

with a main.c such as

```c
#include "latent_cv.h"
#include <stdio.h>

int main(void)
{
    static double positions[LATENT_CV_BEADS][LATENT_CV_DIMS]; /* yours, in LATENT_CV_UNIT */
    static double z[LATENT_CV_LATENTS], dz[LATENT_CV_LATENTS][LATENT_CV_BEADS][LATENT_CV_DIMS];
    for (int i = 0; i < LATENT_CV_BEADS; i++)
        positions[i][0] = i;
    if (latent_cv(&positions[0][0], z, &dz[0][0][0]))
        return 1;
    for (int a = 0; a < LATENT_CV_LATENTS; a++)
        printf("z%d = %.9g, by x of the first bead %.9g\\n", a, z[a], dz[a][0][0]);
    return 0;
}
```"""
_CHECK = (
    "`polyvae export MODEL --to c --out DIR --check TRAJ` compiles the exported code, runs it on frames of a "
    "trajectory, and prints the largest difference from the model, in values and in gradients."
)


def export(
    cv: LatentCV,
    folder: str | os.PathLike,
    *,
    atoms: str | Sequence[int] | None = None,
    data=None,
    force: bool = False,
) -> None:
    """Write `latent_cv.c`, `latent_cv.h`, the table `latent_cv_weights.h` and a README.

    Every featurizer with every option works, in float64.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        folder: where to write; made if need be.
        atoms: see `common.atom_numbers`; `LATENT_CV_ATOMS` in the code.
        data: a trajectory; the README then holds statistics of its latents.
        force: write into a folder that holds files.

    Raises:
        InputError: atom numbers that do not fit; a model of a single bead; a folder that holds files.
    """
    numbers = atom_numbers(cv, atoms)
    with replacing_folder(folder, force=force) as place:
        write_sources(cv, place, numbers)
        readme = Readme(
            engine="C and C++",
            kind="c",
            atoms=numbers,
            files={
                "latent_cv.h": "what a program includes: sizes, and two functions with what they take and give",
                "latent_cv.c": "the arithmetic",
                "latent_cv_weights.h": "the numbers: weights, scaling, reference",
            },
            use=_BUILD,
            notes=[
                f"A call takes {_stack_bytes(cv) / 1024:.0f} KiB of the stack, no other memory.",
                "In a periodic box call `latent_cv_whole` first: it makes the molecule whole along its bonds, as "
                "polyvae does when it reads a trajectory. The gradient stays what it is." + pieces_note(cv),
                "-ffp-contract=fast lets the compiler use fused multiply-add; without -march=native the code runs "
                "on every processor of the kind, slower.",
            ],
            checked=CHECKED,
            check=_CHECK,
            stats=None if data is None else statistics(cv, data),
        )
        readme.write(place, cv)


def evaluate(
    folder: str | os.PathLike, cv: LatentCV, frames: np.ndarray, *, atoms: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Latents (n_frames, latent_dim) and gradients (n_frames, latent_dim, n_beads, n_dims) of the exported code.

    Args:
        folder: what `export` wrote; it is compiled, elsewhere, and run.
        frames: (n_frames, n_beads, n_dims) in the model's unit.

    Raises:
        InputError: no C compiler; code that does not compile; code of a model of other sizes.
    """
    code = kernel.compiled(Path(folder) / "latent_cv.c", (cv.n_beads, cv.n_dims, cv.latent_dim))
    return code.frames(frames)[:2]


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
        return kernel.compiled(folder / "latent_cv.c", sizes)


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
    """The table: constants that only `latent_cv.c` needs, and the numbers."""
    kind, layers = cv.featurizer, scaled_layers(cv)
    *hidden, (head, head_bias) = layers
    widths = [-(-len(bias) // _BLOCK) * _BLOCK for _, bias in hidden]
    links, bonds = _links(cv)
    constants = {
        "FEATURES": cv.mean.size,
        "LINKS": len(links),
        "BONDS": len(bonds),
        "LONGEST_BOND": NEAR_HALF,
        "LAST_WIDTH": widths[-1] if hidden else cv.mean.size,
    }
    if hidden:
        inputs = [weight.shape[1] for weight, _ in hidden]
        sized = list(enumerate(zip(inputs, widths, strict=True)))
        rows = [f"{{{n}, {width}, weight_{k}, bias_{k}}}" for k, (n, width) in sized]
        constants |= {
            "HIDDEN_LAYERS": len(hidden),
            "WIDEST": max(widths),
            "LAYERS": "{" + ", ".join(rows) + "}",
        }
    tables = [
        _table("links", "bead and the bead that is put beside it, from 0", links, "int"),
        _table("bonds", "these must be closer than half the box then", bonds, "int"),
    ]
    if isinstance(kind, PairDistances):
        tables.append(_table("pairs", "of beads, from 0", np.asarray(kind.pairs), "int"))
    else:
        constants |= {"MIRROR": int(_mirrored(cv))}
        masses = np.ones(cv.n_beads) if kind.masses is None else np.asarray(kind.masses, np.float64)
        fractions = masses / masses.sum()
        tables.append(_table("mass_fraction", "of each bead", fractions[None]))
        if isinstance(kind, PrincipalAxes):
            constants |= {"SIGNS_BY_CHAIN": int(kind.sign == "chain")}
        else:
            reference = np.asarray(kind.template(), np.float64)
            reference = reference - reference[0]
            centred = reference - fractions @ reference
            tables.append(_table("reference", "about its centre of mass; its size does not matter", centred))
    tables.append(
        _table("feature_mean", f"over the training data, in {cv.length_unit}", np.asarray(cv.mean)[:, None])
    )
    for k, ((weight, bias), width) in enumerate(zip(hidden, widths, strict=True)):
        padding = (0, width - len(bias))
        what = f"layer {k}: {weight.shape[1]} inputs, {len(bias)} units (zeros up to {width}); a row an input"
        tables.append(_table(f"weight_{k}", what, np.pad(weight.T, ((0, 0), padding))))
        tables.append(_table(f"bias_{k}", f"layer {k}", np.pad(bias, padding)[None]))
    padded = np.pad(head, ((0, 0), (0, (widths[-1] if hidden else cv.mean.size) - head.shape[1])))
    tables.append(_table("head_weight", "the latents; a row a latent", padded))
    tables.append(_table("head_bias", "the latents", head_bias[None]))
    values = "\n".join(f"#define {name} {value}" for name, value in constants.items())
    return "\n\n".join(
        [
            "/* The numbers of latent_cv.c, which includes this file. Weights of the first layer are divided by\n"
            "   the standard deviation of the features. */",
            values,
            *tables,
            "#define LATENT_CV_WEIGHTS_END\n",
        ]
    )


def _mirrored(cv: LatentCV) -> bool:
    kind = cv.featurizer
    return kind._mirrored(cv.n_dims) if isinstance(kind, Reference) else getattr(kind, "mirror", False)


def _table(name: str, what: str, rows: np.ndarray, kind: str = "double") -> str:
    """A two-dimensional table, row by row, and the line by which the compiler sees that it is whole."""
    rows = np.asarray(rows)
    written = [", ".join(map(str, row) if kind == "int" else digits(row)) for row in rows.tolist()]
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
    widths, n = [features, *(-(-width // _BLOCK) * _BLOCK for width in units)], cv.n_beads * cv.n_dims
    hidden = len(widths) - 2
    widest = max(widths[1:])
    return 8 * ((2 + cv.latent_dim) * widths[0] + 4 * n + (hidden + 2 * cv.latent_dim) * widest)

"""The CV in PLUMED through pycv: Python runs inside the engine, and calls the model as compiled C, or JAX.

Source: the PLUMED manual, module pycv, https://www.plumed.org/doc (action PYCVINTERFACE); Giorgino,
10.21105/joss.01773.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from polyvae.cv.latent import LatentCV
from polyvae.export import kernel, plumed
from polyvae.export.common import atom_numbers, ranges, statistics, write_readme
from polyvae.files import replacing_folder

CHECKED = "PLUMED 2.11 with pycv (both in the hillclimber 0.1.8 wheel) and Python 3.11"
NAME = "polyvae_cv"  # of the module that PLUMED imports
_MODULE = '''"""The collective variables of model.safetensors, beside this file, for PLUMED's PYCVINTERFACE."""

from pathlib import Path

import numpy as np
import plumedCommunications

from polyvae.cv.latent import load_cv
from polyvae.export.c import evaluator

cv = load_cv(Path(__file__).with_name("model.safetensors"))
evaluate = evaluator(cv)  # values and gradients in float64, as compiled C or, without a compiler, in JAX

plumedInit = {
    "COMPONENTS": {f"z{k}": plumedCommunications.defaults.COMPONENT for k in range(cv.latent_dim)},
    "NOPBC": True,  # WHOLEMOLECULES has made the molecule whole
}


def plumedCalculate(action):
    positions = np.array(action.getPositions())
    values, gradients = evaluate(positions[:, : cv.n_dims])
    slopes = np.zeros((cv.latent_dim, *positions.shape))
    slopes[:, :, : cv.n_dims] = gradients
    # Without periodic boundaries PLUMED finds the virial itself: a derivative of the cell would count twice.
    return {f"z{k}": (float(values[k]), slopes[k], np.zeros((3, 3))) for k in range(cv.latent_dim)}
'''


def export(
    cv: LatentCV,
    folder: str | os.PathLike,
    *,
    atoms: str | Sequence[int] | None = None,
    data=None,
    force: bool = False,
) -> None:
    """Write `plumed.dat`, the module that it imports, the model beside it, and a README.

    The engine's Python needs polyvae. Every featurizer with every option works, in float64.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        folder: where to write; made if need be.
        atoms: see `common.atom_numbers`.
        data: see `common.statistics`; widths and bounds of the METAD and OPES_METAD lines.
        force: write into a folder that holds files.

    Raises:
        InputError: atom numbers that do not fit; a folder that holds files.
    """
    numbers = atom_numbers(cv, atoms)
    aliases = [f"z{k}: CUSTOM ARG=latent.py-z{k} FUNC=x PERIODIC=NO" for k in range(cv.latent_dim)]
    lines = [
        f"LOAD FILE={_plugin()}",
        plumed.whole_molecule(cv, numbers),
        f"latent: PYCVINTERFACE ATOMS={ranges(numbers)} IMPORT={NAME}",
        *aliases,
    ]
    with replacing_folder(folder, force=force) as place:
        stats = statistics(cv, data)
        cv.save(place / "model.safetensors")
        (place / f"{NAME}.py").write_text(_MODULE)
        (place / "plumed.dat").write_text(plumed.main_input(cv, stats, "\n".join(lines)))
        write_readme(
            place,
            cv,
            engine="PLUMED with pycv",
            kind="pycv",
            atoms=numbers,
            files={
                "plumed.dat": "units, the CV, output and biases; edit this one",
                f"{NAME}.py": "what PLUMED imports; loads the model beside it",
                "model.safetensors": "the model",
            },
            use="Copy all files to the folder of the run and give `plumed.dat` to the engine. Its LOAD line names "
            "the pycv\nplug-in: put in the path that `python -c 'import plumed; print(plumed.get_pycv_path())'` "
            "prints, or that of your\nbuild's PythonCVInterface.so.",
            notes=[
                "The engine's Python must find polyvae and this folder (PYTHONPATH); a program that is not Python "
                "itself, as `plumed driver`, may need LD_PRELOAD of libpython and the environment first on PATH.",
                "On the machine of the export the CV runs "
                + kernel.where()
                + "; elsewhere it is compiled when a run starts, and runs in JAX where there is no C compiler.",
                plumed.whole_note(cv),
            ],
            checked=CHECKED,
            stats=stats,
        )


def _plugin() -> str:
    """Path of the plug-in of the PLUMED that is installed here, else its name."""
    try:
        from plumed import get_pycv_path
    except ImportError:
        return "PythonCVInterface.so"
    return get_pycv_path()


def evaluate(
    folder: str | os.PathLike, cv: LatentCV, frames: np.ndarray, **options
) -> tuple[np.ndarray, np.ndarray]:
    """`plumed.evaluate`, with the exported module where PLUMED imports it from."""
    with _importable(Path(folder)):
        return plumed.evaluate(folder, cv, frames, **options)


@contextlib.contextmanager
def _importable(folder: Path):
    # Another export's module has the same name.
    sys.modules.pop(NAME, None)
    sys.path.insert(0, str(folder.absolute()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.absolute()))
        sys.modules.pop(NAME, None)

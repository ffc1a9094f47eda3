"""The CV as an action of PLUMED in C++ around the exported C: `LATENT_CV`, loaded when a run starts.

Source: the PLUMED manual, https://www.plumed.org/doc (action LOAD, `plumed mklib`).
"""

import logging
import os
import shlex
import shutil
from importlib import resources, util
from pathlib import Path

from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.export import kernel
from polyvae.export.c import write_sources
from polyvae.export.common import ranges

log = logging.getLogger(__name__)

SOURCE, LIBRARY, SCRIPT = "LatentCV.cpp", "LatentCV.so", "compile.sh"
LABEL = "latent"  # of the action; its components are LABEL.z0, ..., for an alias costs as much as the CV itself
_FLAGS = ["-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-shared"]


def write_action(cv: LatentCV, numbers: list[int], folder: Path) -> tuple[list[str], list[str]]:
    """Write the sources, compile them where a compiler and PLUMED are found, and give the lines that compute
    latent.z0, latent.z1, ..., with notes for the README."""
    write_sources(cv, folder, numbers)
    (folder / SOURCE).write_bytes((resources.files("polyvae.export") / "c_files" / SOURCE).read_bytes())
    try:
        build(folder, folder / LIBRARY)
        built = f"{LIBRARY} was compiled for the processor and the PLUMED of this machine."
    except InputError as error:
        built = f"{LIBRARY} is still to be compiled: {error}."
        log.warning("%s", built)
    (folder / SCRIPT).write_text(_script())
    whole = "The action makes the molecule whole along its bonds, unless it has the flag NOPBC."
    notes = [
        whole
        if cv.template.bonds is not None
        else f"{whole} The model knows no bonds: beads are joined in order.",
        f"{built} For another one run `sh {SCRIPT} FOLDER`, FOLDER holding `include` and `lib` of its PLUMED; for "
        f"an engine that PLUMED is linked into statically use `plumed mklib {SOURCE}`.",
    ]
    return [f"LOAD FILE=./{LIBRARY}", f"{LABEL}: LATENT_CV ATOMS={ranges(numbers)}"], notes


def build(folder: Path, library: Path) -> None:
    """Compile the exported action.

    Raises:
        InputError: no compiler or no PLUMED, or what the compiler says.
    """
    if (root := _installed()) is None:
        raise InputError("no PLUMED with its headers was found")
    command = build_command(folder, library, root)
    if shutil.which(command[0]) is None:
        raise InputError(f"{command[0]} is not installed")
    kernel.run(command)


def build_command(folder: Path, library: Path, root: Path) -> list[str]:
    """The line that compiles the action in a folder.

    Args:
        root: the folder that holds PLUMED's `include` and `lib`.
    """
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    linked = [f"-L{root / 'lib'}", "-lplumedKernel", f"-Wl,-rpath,{root / 'lib'}"]
    return [*compiler, *_FLAGS, f"-I{root / 'include'}", str(folder / SOURCE), "-o", str(library), *linked]


def _script() -> str:
    """The text of `compile.sh`."""
    known = _installed()
    root = '"$PLUMED"'
    words = [shlex.quote(word) for word in build_command(Path(), Path(LIBRARY), Path("ROOT"))]
    command = " ".join(word.replace("ROOT", root) for word in words)
    default = f"${{1:-{known}}}" if known else '${1:?"name the folder that holds include and lib of PLUMED"}'
    title = f"# Compiles {LIBRARY}: sh {SCRIPT} [folder that holds PLUMED's include and lib]"
    return f"{title}\nset -e\nPLUMED={default}\n{command}\n"


def _installed() -> Path | None:
    """The folder of an installed PLUMED that holds `include` and `lib`: of the Python module, of the variable
    PLUMED_KERNEL, or of the program."""
    places = []
    if found := util.find_spec("plumed"):
        places += [Path(place, "_lib") for place in found.submodule_search_locations or ()]
    if library := os.environ.get("PLUMED_KERNEL"):
        places.append(Path(library).parent.parent)
    if program := shutil.which("plumed"):
        places.append(Path(program).resolve().parent.parent)
    whole = (place for place in places if (place / "include" / "plumed" / "core" / "Colvar.h").exists())
    return next(whole, None)

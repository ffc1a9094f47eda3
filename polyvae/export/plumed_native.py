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
from polyvae.export.common import pieces_note, ranges
from polyvae.export.exporter import fill_template

log = logging.getLogger(__name__)

SOURCE, LIBRARY, SCRIPT = "LatentCV.cpp", "LatentCV.so", "compile.sh"
LABEL = "latent"  # of the action; its components are LABEL.z0, ..., for an alias costs as much as the CV itself


def write_action(cv: LatentCV, numbers: list[int], folder: Path) -> tuple[list[str], dict[str, str]]:
    """Write the sources, compile them where a compiler and PLUMED are found, and return the lines that compute
    latent.z0, latent.z1, ..., with words for the README."""
    write_sources(cv, folder, numbers)
    (folder / SOURCE).write_bytes((resources.files("polyvae.export") / "c_files" / SOURCE).read_bytes())
    try:
        built = (
            f"{LIBRARY} was compiled for the processor and the PLUMED of this machine ({build(folder, folder)})."
        )
    except InputError as error:
        built = f"{LIBRARY} is still to be compiled: {error}."
        log.warning("%s", built)
    (folder / SCRIPT).write_text(_script())
    whole = "The action makes the molecule whole along its bonds, unless it has the flag NOPBC."
    notes = {
        "whole": whole + pieces_note(cv),
        "dialect": f"{built} For another one run `sh {SCRIPT} FOLDER`, FOLDER holding `include` and `lib` of its "
        "PLUMED. For an engine that a PLUMED built from source is linked into statically use its `plumed mklib "
        f"{SOURCE}`.",
    }
    return [f"LOAD FILE=./{LIBRARY}", f"{LABEL}: LATENT_CV ATOMS={ranges(numbers)}"], notes


def build(folder: Path, into: Path) -> Path:
    """Compile the exported action; the folder of the PLUMED that it was compiled for.

    Raises:
        InputError: no compiler or no PLUMED, or what the compiler says.
    """
    if (root := installed()) is None:
        raise InputError("no PLUMED with its headers was found")
    compiler = kernel.find_compiler("CXX", "g++", "clang++")
    library = into / LIBRARY
    kernel.run([*compiler, *_flags(str(root)), str(folder / SOURCE), "-o", str(library), *_linked(str(root))])
    if not library.exists():
        raise InputError(f"{compiler[0]} gave no {LIBRARY}")
    return root


def _flags(root: str) -> list[str]:
    return ["-std=c++17", *kernel.FLAGS, f"-I{root}/include"]


def _linked(root: str) -> list[str]:
    return [f"-L{root}/lib", "-lplumedKernel", f"-Wl,-rpath,{root}/lib"]


def _script() -> str:
    """Return the text of `compile.sh`."""
    known = installed()
    first = "${1:?name the folder that holds include and lib of PLUMED}"
    if known is not None:
        first = f"${{1:-{shlex.quote(str(known))}}}"
    command = " ".join([*_flags("$PLUMED"), SOURCE, "-o", LIBRARY, *_linked("$PLUMED")])
    words = {"folder": first, "command": command.replace("$PLUMED", '"$PLUMED"')}
    return fill_template("plumed_compile.sh.in", words)


def installed() -> Path | None:
    """The folder of an installed PLUMED that holds `include` and `lib`: of the variable PLUMED_KERNEL, of the
    Python module, or of the program."""
    places = []
    if library := os.environ.get("PLUMED_KERNEL"):
        places.append(Path(library).parent.parent)
    if found := util.find_spec("plumed"):
        places += [Path(place, "_lib") for place in found.submodule_search_locations or ()]
    if program := shutil.which("plumed"):
        places.append(Path(program).resolve().parent.parent)
    whole = (place for place in places if (place / "include" / "plumed" / "core" / "Colvar.h").exists())
    return next(whole, None)

"""The CV as a TorchScript file, for programs that load PyTorch models: PLUMED, OpenMM, Colvars, code of one's own.

Sources: the code of PLUMED's PYTORCH_MODEL, https://www.plumed.org/doc; of Colvars' torchANN,
https://colvars.github.io; and of openmm-torch, https://github.com/openmm/openmm-torch.
"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.export.exporter import Export
from polyvae.export.grid_bias import check_bias
from polyvae.export.plumed import main_input, whole_molecule, whole_note
from polyvae.export.readme import write_readme
from polyvae.export.torch_module import require_torch, scripted

FIRST_ATOM = 1
OPTIONS: dict[str, None] = {}
FILE = "latent_cv.pt"
# Factors from nm in the script for OpenMM.
_PER_NM = {"nm": "1.0", "angstrom": "10.0", "sigma": "1 / 1.0  # one by the length of sigma in nm"}


def write_files(export: Export, place: Path) -> None:
    """Write `latent_cv.pt`, `plumed.dat` with PYTORCH_MODEL, and a README.

    Raises:
        InputError: no PyTorch; `PrincipalAxes(sign="none")`; a model of a single bead.
    """
    cv, atoms = export.cv, export.atoms
    n, d = cv.n_beads, cv.n_dims
    width = check_bias(cv, export.stats)
    scripted(cv).save(str(place / FILE))
    columns = [f"p{k}.{axis}" for k in range(n) for axis in "xyz"[:d]]
    lines = [whole_molecule(cv, atoms), *(f"p{k}: POSITION ATOM={atom} NOPBC" for k, atom in enumerate(atoms))]
    lines.append(f"latent: PYTORCH_MODEL FILE={FILE} ARG={','.join(columns)}")
    lines += [f"z{k}: CUSTOM ARG=latent.node-{k} FUNC=x PERIODIC=NO" for k in range(cv.latent_dim)]
    (place / "plumed.dat").write_text(main_input(cv, export.stats, "\n".join(lines)))
    words = {
        "beads": n,
        "dims": d,
        "numbers": n * d,
        "atoms": " ".join(map(str, atoms)),
        "particles": [number - 1 for number in atoms],
        "factor": _PER_NM[cv.length_unit],
        "whole": whole_note(cv),
    }
    blocks = {"z": " z", "flat": ""} if d == 3 else {"z": "", "flat": "\n      useZ off"}
    write_readme(place, "torchscript", export, words, width=width, blocks=blocks)


def evaluate(
    folder: str | os.PathLike, cv: LatentCV, frames: np.ndarray, *, atoms: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return latents and gradients by PyTorch, in float64; see `exporter.Exporter.evaluate`.

    Raises:
        InputError: no PyTorch; a file that it cannot read, or of a model of other sizes.
    """
    require_torch()
    import torch

    path = Path(folder) / FILE
    x = torch.tensor(np.asarray(frames, np.float64), requires_grad=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch's, of all TorchScript
            model = torch.jit.load(str(path))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({str(error).splitlines()[0]}); export the model again") from None
    try:
        z = model(x)
    except (RuntimeError, torch.jit.Error) as error:
        raise InputError(f"{path} does not take these frames: {str(error).splitlines()[-1]}") from None
    if z.shape[-1] != cv.latent_dim:
        raise InputError(f"{path} gives {z.shape[-1]} latents, and the model {cv.latent_dim}; export it again")
    gradients = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in z.T]
    return z.detach().numpy(), torch.stack(gradients, 1).numpy()

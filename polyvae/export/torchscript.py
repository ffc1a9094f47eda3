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
from polyvae.export.common import atom_numbers
from polyvae.export.grid_bias import check_bias, statistics
from polyvae.export.plumed import main_input, whole_molecule, whole_note
from polyvae.export.readme import Readme
from polyvae.export.torch_module import require_torch, scripted
from polyvae.files import replacing_folder

CHECKED = (
    "PyTorch 2.13 and, in PLUMED 2.11, PYTORCH_MODEL compiled against it (values to 1e-7); neither Colvars nor "
    "openmm-torch has run it"
)
FILE = "latent_cv.pt"
_PER_NM = {"nm": "1.0", "angstrom": "10.0", "sigma": "1 / 1.0  # one by the length of sigma in nm"}

_USE = """Code of one's own calls `torch.jit.load("{file}")` with positions of shape ({beads}, {dims}),
(frames, {beads}, {dims}) or (frames, {numbers}), the last as rows x y{z} of one bead after another. Latents are
the last axis of what it gives, in the precision of the positions; inside it computes in float64.

- PLUMED with the module pytorch: `plumed.dat` is complete. PYTORCH_MODEL rounds positions, latents and
  derivatives to float32, about seven digits.
- Colvars built with Torch, one such colvar for each latent, lengths in {unit}:

```
colvar {{
  name z0
  torchANN {{
    modelFile {file}
    output_component 0
    doubleInputTensor on
    cartesian {{
      atoms {{ atomNumbers {atoms} }}{flat}
    }}
  }}
}}
```

- OpenMM with openmm-torch, which gives nm of all particles and takes one number back, so each latent is a file:

```python
import openmm, openmmtorch, torch

class Latent(torch.nn.Module):
    def __init__(self, k: int):
        super().__init__()
        self.k, self.cv = k, torch.jit.load("{file}")
        self.factor = {factor}
        self.register_buffer("beads", torch.tensor({particles}))

    def forward(self, positions):
        return self.cv(self.factor * positions[self.beads, :{dims}])[self.k]

torch.jit.script(Latent(0)).save("z0.pt")
bias = openmm.CustomCVForce("50 * (z0 - 1)^2")
bias.addCollectiveVariable("z0", openmmtorch.TorchForce("z0.pt"))
```"""


def export(
    cv: LatentCV,
    folder: str | os.PathLike,
    *,
    atoms: str | Sequence[int] | None = None,
    data=None,
    force: bool = False,
) -> None:
    """Write `latent_cv.pt`, `plumed.dat` with PYTORCH_MODEL, and a README.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        folder: where to write; made if need be.
        atoms: see `common.atom_numbers`.
        data: see `grid_bias.statistics`; widths and bounds of the METAD and OPES_METAD lines.
        force: write into a folder that holds files.

    Raises:
        InputError: no PyTorch; `PrincipalAxes(sign="none")`; a model of a single bead; atom numbers that do not
            fit; a folder that holds files.
    """
    numbers = atom_numbers(cv, atoms)
    model = scripted(cv)
    n, d = cv.n_beads, cv.n_dims
    columns = [f"p{k}.{axis}" for k in range(n) for axis in "xyz"[:d]]
    lines = [whole_molecule(cv, numbers), *(f"p{k}: POSITION ATOM={atom} NOPBC" for k, atom in enumerate(numbers))]
    lines.append(f"latent: PYTORCH_MODEL FILE={FILE} ARG={','.join(columns)}")
    lines += [f"z{k}: CUSTOM ARG=latent.node-{k} FUNC=x PERIODIC=NO" for k in range(cv.latent_dim)]
    use = _USE.format(
        file=FILE,
        beads=n,
        dims=d,
        numbers=n * d,
        z=" z" if d == 3 else "",
        unit=cv.length_unit,
        atoms=" ".join(map(str, numbers)),
        flat="" if d == 3 else "\n      useZ off",
        particles=[number - 1 for number in numbers],
        factor=_PER_NM[cv.length_unit],
    )
    with replacing_folder(folder, force=force) as place:
        stats = statistics(cv, data)
        width = check_bias(cv, stats)
        model.save(str(place / FILE))
        (place / "plumed.dat").write_text(main_input(cv, stats, "\n".join(lines)))
        readme = Readme(
            engine="PyTorch (PLUMED, Colvars, OpenMM)",
            kind="torchscript",
            atoms=numbers,
            files={FILE: "the CV as TorchScript", "plumed.dat": "input for PLUMED, biases to edit at its end"},
            use=use,
            notes=[
                whole_note(cv)
                + " Colvars and openmm-torch make no molecule whole: give them unwrapped positions.",
                "Gradients are by autograd, of first order: second derivatives are not those of the CV.",
            ],
            checked=CHECKED,
            stats=stats,
            width=width,
        )
        readme.write(place, cv)


def evaluate(
    folder: str | os.PathLike, cv: LatentCV, frames: np.ndarray, *, atoms: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Latents (n_frames, latent_dim) and gradients (n_frames, latent_dim, n_beads, n_dims) by PyTorch, in float64.

    Args:
        folder: what `export` wrote.
        frames: (n_frames, n_beads, n_dims) in the model's unit.

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

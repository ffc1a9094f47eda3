"""The CV as a TorchScript file, for programs that load PyTorch models: PLUMED, OpenMM, Colvars, code of one's own.

Sources: the code of PLUMED's PYTORCH_MODEL, https://www.plumed.org/doc; of Colvars' torchANN,
https://colvars.github.io; and of openmm-torch, https://github.com/openmm/openmm-torch.
"""

import os
import warnings
from collections.abc import Sequence
from importlib import util
from pathlib import Path

import numpy as np

from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.export.common import atom_numbers, scaled_layers, statistics, write_readme
from polyvae.export.plumed import UNITS, main_input, whole_molecule, whole_note
from polyvae.features.featurizers import PairDistances, PrincipalAxes, Reference
from polyvae.files import replacing_folder

CHECKED = "PyTorch 2.13"
FILE = "latent_cv.pt"
_FROM_NM = {"nm": "positions", "angstrom": "10 * positions", "sigma": "positions / SIGMA"}

_USE = """A program of one's own calls `torch.jit.load("{file}")` with positions of shape ({beads}, {dims}), or
(frames, {beads}, {dims}), or rows of {numbers} numbers, x y{z} of one bead after another. It gives one latent after
another, on the last axis, in the precision of the positions; inside it computes in float64.

- PLUMED with the module pytorch: `plumed.dat` is complete. PYTORCH_MODEL hands positions over in float32, so that the
  latents have six digits.
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
{sigma}
class Latent(torch.nn.Module):
    def __init__(self, k: int):
        super().__init__()
        self.k, self.cv = k, torch.jit.load("{file}")
        self.register_buffer("beads", torch.tensor({particles}))

    def forward(self, positions):
        return self.cv(({scaled})[self.beads, :{dims}])[self.k]

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
        folder: where to write; made if need be.
        atoms: see `common.atom_numbers`.
        data: see `common.statistics`; widths and bounds of the METAD and OPES_METAD lines.
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
        unit=UNITS[cv.length_unit].split("=")[-1] if cv.length_unit != "sigma" else "sigma",
        atoms=" ".join(map(str, numbers)),
        flat="" if d == 3 else "\n      useZ off",
        sigma="\nSIGMA = 1.0  # nm: the length of one sigma\n" if cv.length_unit == "sigma" else "",
        particles=[number - 1 for number in numbers],
        scaled=_FROM_NM[cv.length_unit],
    )
    with replacing_folder(folder, force=force) as place:
        stats = statistics(cv, data)
        model.save(str(place / FILE))
        (place / "plumed.dat").write_text(main_input(cv, stats, "\n".join(lines)))
        write_readme(
            place,
            cv,
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
        )


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
    _require_torch()
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
    except RuntimeError as error:
        raise InputError(f"{path} does not take these frames: {str(error).splitlines()[-1]}") from None
    if z.shape[-1] != cv.latent_dim:
        raise InputError(f"{path} gives {z.shape[-1]} latents, and the model {cv.latent_dim}; export it again")
    gradients = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in z.T]
    return z.detach().numpy(), torch.stack(gradients, 1).numpy()


def _require_torch() -> None:
    if util.find_spec("torch") is None:
        raise InputError(
            "TorchScript needs PyTorch, which is not installed: pip install 'polyvae[torch]', or, small and "
            "without CUDA, pip install torch --index-url https://download.pytorch.org/whl/cpu"
        )


def scripted(cv: LatentCV):
    """The CV as a `torch.jit.ScriptModule` in float64, without gradients of its weights.

    Axes and rotations come from PyTorch's solvers as constants, and a first-order step that is 0 gives them
    their derivative, that of `geometry.linalg`, which is finite where the solvers' own is not.

    Raises:
        InputError: see `export`.
    """
    _require_torch()
    import torch

    kind, n, d = cv.featurizer, cv.n_beads, cv.n_dims
    if n < 2:
        raise InputError("one bead has no conformation; TorchScript needs a model of two beads or more")
    if isinstance(kind, PrincipalAxes) and kind.sign == "none":
        raise InputError(
            'PrincipalAxes(sign="none") leaves the direction of each axis to the eigensolver, and PyTorch has '
            'another one; train with sign="chain" (the default), or export to c or pycv'
        )

    def constant(values):
        return torch.tensor(np.asarray(values, np.float64))

    def rounding(x):
        return 8 * (2.0**-52 if x.dtype == torch.float64 else 2.0**-23)

    class Ordered(torch.nn.Module):  # `geometry.canonical_order`
        def __init__(self):
            super().__init__()
            self.half, self.planar = n // 2, d == 2
            self.register_buffer("order", constant(np.arange(n // 2) - (n - 1) / 2))
            self.register_buffer("lie", constant(np.float32([1.0, 0.618, 0.414][:d])))

        def forward(self, positions):
            x = positions.detach()
            local = x - 0.5 * (x[:, :1] + x[:, -1:])
            first, second = local[:, : self.half], local.flip(1)[:, : self.half]
            middle = local[:, self.half : local.shape[1] - self.half]
            mean = ((first + second).sum(1, keepdim=True) + middle.sum(1, keepdim=True)) / x.shape[1]
            reach, other = ((first - mean) ** 2).sum(2), ((second - mean) ** 2).sum(2)
            asymmetry = (self.order * (reach - other)).sum(1)
            if self.planar:
                a, b = x[:, :-1] - x[:, :1], x[:, 1:] - x[:, :1]
                area = (a[:, :, 0] * b[:, :, 1] - a[:, :, 1] * b[:, :, 0]).sum(1)
                bound = (-self.order * (reach + other)).sum(1)
                asymmetry = torch.where(asymmetry.abs() <= 8 * rounding(x) * bound, area, asymmetry)
            lie = ((x[:, : self.half] - x.flip(1)[:, : self.half]) * self.lie).sum(2).sum(1)
            asymmetry = torch.where(asymmetry == 0, lie, asymmetry)
            return torch.where((asymmetry < 0)[:, None, None], positions.flip(1), positions)

    class Distances(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("pairs", torch.tensor(np.asarray(kind.pairs, np.int64)))

        def forward(self, x):
            squared = ((x[:, self.pairs[:, 0]] - x[:, self.pairs[:, 1]]) ** 2).sum(2)
            return squared.masked_fill(squared == 0, 1.0).sqrt().masked_fill(squared == 0, 0.0)

    class Axes(torch.nn.Module):  # `geometry.in_principal_frame`
        def __init__(self):
            super().__init__()
            self.mirror, self.planar = kind.mirror, d == 2
            self.register_buffer("mass", constant(fractions))
            self.register_buffer("order", constant(np.arange(n) - (n - 1) / 2))

        def forward(self, x):
            x = x - x[:, :1]
            r = x - (self.mass[:, None] * x).sum(1, keepdim=True)
            tensor = r.transpose(1, 2) @ (self.mass[:, None] * r)
            values, vectors = torch.linalg.eigh(tensor.detach())
            values, axes = values.flip(1), vectors.transpose(1, 2).flip(1)
            gap = values[:, :, None] - values[:, None, :]
            same = gap.abs() <= rounding(x) * values.abs().sum(1)[:, None, None]
            mixed = axes @ tensor @ axes.transpose(1, 2)
            axes = axes + (mixed / gap.masked_fill(same, 1.0)).masked_fill(same, 0.0) @ axes
            along = (axes @ (self.order[:, None] * x).sum(1)[:, :, None]).detach()
            axes = torch.where(along < 0, -axes, axes)
            if not self.mirror:
                if self.planar:
                    last = torch.stack([-axes[:, 0, 1], axes[:, 0, 0]], 1)
                else:
                    last = torch.linalg.cross(axes[:, 0], axes[:, 1])
                axes = torch.cat([axes[:, :-1], last[:, None]], 1)
            return r @ axes.transpose(1, 2)

    class Superposed(torch.nn.Module):  # `superposition.superpose`
        def __init__(self):
            super().__init__()
            self.mirror = kind._mirrored(d)
            self.register_buffer("mass", constant(fractions))
            reference = np.asarray(kind.template(), np.float64)
            reference = reference - reference[0]
            self.register_buffer(
                "weighted", constant((fractions[:, None] * (reference - fractions @ reference)).T)
            )

        def forward(self, x):
            x = x - x[:, :1]
            r = x - (self.mass[:, None] * x).sum(1, keepdim=True)
            h = self.weighted @ r
            u, sizes, v = torch.linalg.svd(h.detach())
            sign = torch.linalg.det(u @ v).sign()
            if self.mirror:
                sign = torch.where(torch.linalg.det(h.detach()) < 0, -sign, sign)
            signs = torch.cat([torch.ones_like(sizes[:, 1:]), sign[:, None]], 1)
            sizes, rotation = signs * sizes, (u * signs[:, None]) @ v
            stiffness = sizes[:, :, None] + sizes[:, None, :]
            open = stiffness <= 2 * rounding(x) * sizes.abs().sum(1)[:, None, None]
            twist = h @ rotation.transpose(1, 2)
            turn = u.transpose(1, 2) @ (twist - twist.transpose(1, 2)) @ u
            turn = (turn / stiffness.masked_fill(open, 1.0)).masked_fill(open, 0.0)
            rotation = rotation + u @ turn @ u.transpose(1, 2) @ rotation
            return r @ rotation.transpose(1, 2)

    class Latents(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.beads, self.dims, self.latents = n, d, cv.latent_dim
            self.expected = f"positions must have the shape (..., {n}, {d}) or (..., {n * d})"
            self.ordered = Ordered() if kind.reversal else torch.nn.Identity()
            self.features = {PairDistances: Distances, PrincipalAxes: Axes, Reference: Superposed}[type(kind)]()
            self.register_buffer("mean", constant(cv.mean))
            stack = []
            for weight, bias in scaled_layers(cv):
                layer = torch.nn.Linear(*weight.T.shape, device="meta")
                layer.weight = torch.nn.Parameter(constant(weight), requires_grad=False)
                layer.bias = torch.nn.Parameter(constant(bias), requires_grad=False)
                stack += [layer, torch.nn.Tanh()]
            self.network = torch.nn.Sequential(*stack[:-1])

        def forward(self, positions):
            shape = positions.shape
            frames = shape[:-1]
            if shape[-1] != self.beads * self.dims:
                frames = shape[:-2]
                if list(shape[-2:]) != [self.beads, self.dims]:
                    raise ValueError(self.expected)
            x = positions.to(self.mean).reshape(-1, self.beads, self.dims)
            z = self.network(self.features(self.ordered(x)).flatten(1) - self.mean)
            return z.reshape(list(frames) + [self.latents]).to(positions)

    masses = np.ones(n) if getattr(kind, "masses", None) is None else np.asarray(kind.masses, np.float64)
    fractions = masses / masses.sum()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(Latents().eval())

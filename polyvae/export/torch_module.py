"""The CV as a PyTorch module in TorchScript: featurizers and network, a class for each, on many frames at once."""

import warnings
from importlib import util
from typing import no_type_check

import numpy as np

from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.export.common import scaled_layers
from polyvae.features.featurizers import PairDistances, PrincipalAxes, Reference


def require_torch() -> None:
    """Raise `InputError` where PyTorch is not installed."""
    if util.find_spec("torch") is None:
        raise InputError(
            "TorchScript needs PyTorch, which is not installed: pip install 'polyvae[torch]', or, small and "
            "without CUDA, pip install torch --index-url https://download.pytorch.org/whl/cpu"
        )


@no_type_check  # TorchScript reads these classes, which no checker of shapes may wrap
def scripted(cv: LatentCV):
    """The CV as a `torch.jit.ScriptModule` in float64, without gradients of its weights.

    Axes and rotations come from PyTorch's solvers as constants, and a first-order step that is 0 gives them
    their derivative, that of `geometry.linalg`, which is finite where the solvers' own is not.

    Raises:
        InputError: see `export`.
    """
    require_torch()
    import torch

    kind, n, d = cv.featurizer, cv.n_beads, cv.n_dims
    if n < 2:
        raise InputError("one bead has no conformation; TorchScript needs a model of two beads or more")
    if isinstance(kind, PrincipalAxes) and kind.sign == "none":
        raise InputError(
            'PrincipalAxes(sign="none") leaves the direction of each axis to the eigensolver, and PyTorch has '
            'another one; train with sign="chain" (the default), or export to c'
        )

    masses = getattr(kind, "masses", None)
    masses = np.ones(n) if masses is None else np.asarray(masses, np.float64)
    fractions = masses / masses.sum()

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
            shape = list(positions.shape)
            frames = shape[:-1]
            if shape[-1] != self.beads * self.dims:
                frames = shape[:-2]
                if shape[-2:] != [self.beads, self.dims]:
                    raise ValueError(self.expected)
            frames.append(self.latents)
            x = positions.to(self.mean).reshape(-1, self.beads, self.dims)
            z = self.network(self.features(self.ordered(x)).flatten(1) - self.mean)
            return z.reshape(frames).to(positions)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(Latents().eval())

"""The CV as a PyTorch module in TorchScript: featurizers and network, a class for each, on many frames at once.

Functions make the classes, since PyTorch is loaded when a model is exported and not before.
"""

import warnings
from importlib import util
from typing import no_type_check

import numpy as np

from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.export.common import mass_fractions, scaled_layers
from polyvae.features.featurizers import PairDistances, PrincipalAxes, Reference


def require_torch() -> None:
    """Raise `InputError` where PyTorch is not installed."""
    if util.find_spec("torch") is None:
        raise InputError(
            "TorchScript needs PyTorch, which is not installed: pip install 'polyvae[torch]', or, small and "
            "without CUDA, pip install torch --index-url https://download.pytorch.org/whl/cpu"
        )


def scripted(cv: LatentCV):
    """Return the CV as a `torch.jit.ScriptModule` in float64, without gradients of its weights.

    Axes and rotations come from PyTorch's solvers as constants, and a first-order step that is 0 gives them
    their derivative, that of `geometry.linalg`, which is finite where the solvers' own is not.

    Raises:
        InputError: no PyTorch; a model of a single bead; `PrincipalAxes(sign="none")`.
    """
    require_torch()
    import torch

    kind = cv.featurizer
    if cv.n_beads < 2:
        raise InputError("one bead has no conformation; TorchScript needs a model of two beads or more")
    if isinstance(kind, PrincipalAxes) and kind.sign == "none":
        raise InputError(
            'PrincipalAxes(sign="none") leaves the direction of each axis to the eigensolver, and PyTorch has '
            'another one; train with sign="chain" (the default), or export to c'
        )
    features = {PairDistances: _distances, PrincipalAxes: _axes, Reference: _superposed}[type(kind)](cv)
    ordered = _ordered(cv) if kind.reversal else torch.nn.Identity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(_latents(cv, ordered, features).eval())


def _constant(values):
    import torch

    return torch.tensor(np.asarray(values, np.float64))


def _rounding():
    import torch

    def rounding(x):
        return 8 * (2.0**-52 if x.dtype == torch.float64 else 2.0**-23)

    return rounding


# TorchScript reads the classes, which no checker of shapes may wrap.
@no_type_check
def _ordered(cv: LatentCV):
    """Return `geometry.canonical_order`."""
    import torch

    n, d, rounding = cv.n_beads, cv.n_dims, _rounding()

    class Ordered(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.half, self.planar = n // 2, d == 2
            self.register_buffer("order", _constant(np.arange(n // 2) - (n - 1) / 2))
            self.register_buffer("lie", _constant(np.float32([1.0, 0.618, 0.414][:d])))

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

    return Ordered()


@no_type_check
def _distances(cv: LatentCV):
    """Return distances of pairs."""
    import torch

    class Distances(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("pairs", torch.tensor(np.asarray(cv.featurizer.pairs, np.int64)))

        def forward(self, x):
            squared = ((x[:, self.pairs[:, 0]] - x[:, self.pairs[:, 1]]) ** 2).sum(2)
            return squared.masked_fill(squared == 0, 1.0).sqrt().masked_fill(squared == 0, 0.0)

    return Distances()


@no_type_check
def _axes(cv: LatentCV):
    """Return `geometry.in_principal_frame`."""
    import torch

    n, rounding = cv.n_beads, _rounding()

    class Axes(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mirror, self.planar = cv.featurizer.mirror, cv.n_dims == 2
            self.register_buffer("mass", _constant(mass_fractions(cv)))
            self.register_buffer("order", _constant(np.arange(n) - (n - 1) / 2))

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

    return Axes()


@no_type_check
def _superposed(cv: LatentCV):
    """Return `superposition.superpose`."""
    import torch

    fractions, rounding = mass_fractions(cv), _rounding()

    class Superposed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mirror = cv.featurizer._mirrored(cv.n_dims)
            self.register_buffer("mass", _constant(fractions))
            reference = np.asarray(cv.featurizer.template(), np.float64)
            reference = reference - reference[0]
            centred = reference - fractions @ reference
            self.register_buffer("weighted", _constant((fractions[:, None] * centred).T))

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

    return Superposed()


@no_type_check
def _latents(cv: LatentCV, ordered, features):
    """Return the whole: order of the beads, features and network."""
    import torch

    class Latents(torch.nn.Module):
        def __init__(self):
            super().__init__()
            n, d = cv.n_beads, cv.n_dims
            self.beads, self.dims, self.latents = n, d, cv.latent_dim
            self.expected = f"positions must have the shape (..., {n}, {d}) or (..., {n * d})"
            self.ordered, self.features = ordered, features
            self.register_buffer("mean", _constant(cv.mean))
            stack = []
            for weight, bias in scaled_layers(cv):
                layer = torch.nn.Linear(*weight.T.shape, device="meta")
                layer.weight = torch.nn.Parameter(_constant(weight), requires_grad=False)
                layer.bias = torch.nn.Parameter(_constant(bias), requires_grad=False)
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

    return Latents()

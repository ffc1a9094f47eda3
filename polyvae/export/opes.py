"""OPES on latents, for engines that have none of their own: a density of merged kernels, no grid.

Source: Invernizzi & Parrinello, 10.1021/acs.jpclett.0c00497, with its kernels merged as in Sodkomkham et al.,
10.1016/j.neucom.2015.09.084; what numbers begin with as in PLUMED's OPES_METAD (www.plumed.org).
"""

from collections.abc import Sequence

import numpy as np

from polyvae.arguments import numbers_array, real_number, refusal, whole_number

_NEAR = 1.0  # standard deviations of a kernel, within which a new one becomes part of it


class Opes:
    """A bias that levels the density of the latents, from an estimate of that which grows with the run.

    V(z) = (1 - 1/g) kT log(P(z) / Z + e), with P the density of the frames so far, each weighted by exp(V / kT) of
    its time, Z its mean over the kernels, g = barrier / kT and e = exp(-barrier / (kT - kT / g)). Every `stride`
    steps the latents become a kernel, narrower the more independent frames there are.

    Args:
        sigma: (latent_dim,) standard deviation of the first kernels along each latent.
        barrier: the highest that the run should cross, in the engine's unit of energy; more than kT.
        kT: thermal energy in that unit.
        stride: steps between kernels.
    """

    def __init__(self, sigma: Sequence[float], *, barrier: float, kT: float, stride: int):
        widths = "a number greater than 0 for each latent"
        self.sigma = np.atleast_1d(numbers_array("sigma", sigma, widths))
        if self.sigma.ndim != 1 or not self.sigma.size or not (self.sigma > 0).all():
            raise refusal("sigma", widths, sigma)
        self.kT = real_number("kT", kT, above=0)
        self.barrier = real_number("barrier", barrier, above=self.kT)
        self.stride = whole_number("stride", stride, 1)
        self._share = 1 - self.kT / self.barrier
        self._least = np.exp(-self.barrier / (self.kT * self._share))
        self._sum = np.exp(-self.barrier / self.kT)  # of the weights
        self._sum2 = self._sum**2
        self.centres = np.zeros((0, len(self.sigma)))
        self.widths = np.zeros((0, len(self.sigma)))
        self.heights = np.zeros(0)
        self._at = np.zeros(0)  # sum of all kernels in the middle of each
        self._scale = 0.0  # 1 / Z, but for what P and Z have in common
        self._seen: int | None = None

    def __call__(self, z: np.ndarray, step: int) -> tuple[float, np.ndarray]:
        """Bias and its gradient (latent_dim,) at latents z (latent_dim,) by the kernels of the steps before.

        Where a kernel is due it is added then, once in a step however often that is seen, and none at the step
        that is seen first.
        """
        away = (z - self.centres) / self.widths
        kernels = self.heights * np.exp(-0.5 * np.einsum("ij,ij->i", away, away))
        level = float(kernels.sum()) * self._scale + self._least
        factor = self._share * self.kT
        energy = factor * float(np.log(level))
        slope = -factor * self._scale / level * (kernels @ (away / self.widths))
        if step % self.stride == 0 and self._seen not in (None, step):
            self.add(z, energy)
        self._seen = step
        return energy, slope

    def add(self, z: np.ndarray, energy: float) -> None:
        """Add the kernel of a frame.

        Args:
            z: (latent_dim,) latents.
            energy: of the bias there.
        """
        weight = float(np.exp(energy / self.kT))
        self._sum, self._sum2 = self._sum + weight, self._sum2 + weight**2
        worth = (1 + self._sum) ** 2 / (1 + self._sum2)
        dims = len(self.sigma)
        narrower = (worth * (dims + 2) / 4) ** (-1 / (dims + 4))
        width = self.sigma * min(1.0, narrower)
        height = weight * float(np.prod(self.sigma / width))
        centre = np.asarray(z, float)
        while len(self.heights):
            near = (((centre - self.centres) / self.widths) ** 2).sum(axis=1)
            k = int(np.argmin(near))
            if near[k] >= _NEAR**2:
                break
            other, (centre2, width2) = self.heights[k], (self.centres[k].copy(), self.widths[k].copy())
            self._take_out(k)
            both = height + other
            middle = (height * centre + other * centre2) / both
            spread = height * (width**2 + centre**2) + other * (width2**2 + centre2**2)
            width = np.sqrt(spread / both - middle**2)
            height, centre = both, middle
        self._at += height * _gauss(self.centres, centre, width)
        at = float(self.heights @ _gauss(centre, self.centres, self.widths)) + height
        self.centres, self.widths = np.vstack([self.centres, centre]), np.vstack([self.widths, width])
        self.heights, self._at = np.append(self.heights, height), np.append(self._at, at)
        self._scale = 1 / float(self._at.mean())

    def _take_out(self, k: int) -> None:
        self._at = np.delete(self._at - self.heights[k] * _gauss(self.centres, self.centres[k], self.widths[k]), k)
        self.centres, self.widths = np.delete(self.centres, k, axis=0), np.delete(self.widths, k, axis=0)
        self.heights = np.delete(self.heights, k)


def _gauss(z: np.ndarray, centre: np.ndarray, width: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * (((z - centre) / width) ** 2).sum(axis=-1))

"""Well-tempered metadynamics on latents, for engines that have none of their own: a sum of Gaussians, no grid.

Source: Barducci, Bussi & Parrinello, 10.1103/PhysRevLett.100.020603; weights of frames: Branduardi, Bussi &
Parrinello, 10.1021/ct3002464.
"""

from collections.abc import Sequence

import numpy as np

from polyvae.arguments import numbers_array, real_number, refusal, whole_number


class Metadynamics:
    """A bias that grows with the run: every `stride` steps a Gaussian at the latents, lower where there are many.

    V(z) = sum_i h_i exp(-sum_k (z_k - c_ik)^2 / (2 s_k^2)), and h = height exp(-V(z) / (kT (bias_factor - 1))) for
    the next one. Every step costs a sum over all hills: microseconds for hundreds, a millisecond for a hundred
    thousand.

    Args:
        sigma: (latent_dim,) standard deviation of a hill along each latent.
        height: of the first hill, in the engine's unit of energy.
        kT: thermal energy in that unit.
        bias_factor: how many times higher the temperature of the latents becomes; greater than 1, infinity for
            hills that all have one height.
        stride: steps between hills.
    """

    def __init__(self, sigma: Sequence[float], *, height: float, kT: float, bias_factor: float, stride: int):
        widths = "a number greater than 0 for each latent"
        self.sigma = np.atleast_1d(numbers_array("sigma", sigma, widths))
        if self.sigma.ndim != 1 or not self.sigma.size:
            raise refusal("sigma", widths, sigma)
        for width in self.sigma:
            real_number("sigma", width, above=0)
        self.height, self.kT = real_number("height", height, above=0), real_number("kT", kT, above=0)
        self.stride = whole_number("stride", stride, 1)
        # Infinite for hills that all have one height.
        one_height = isinstance(bias_factor, float) and bias_factor == np.inf
        self.bias_factor = bias_factor if one_height else real_number("the bias factor", bias_factor, above=1)
        self.n_hills = 0
        self._hills = np.zeros((64, 2 + len(self.sigma)))  # step, height, centre
        self._seen: int | None = None

    @property
    def steps(self) -> np.ndarray:
        """Steps (n_hills,) at which the hills were added."""
        return self._hills[: self.n_hills, 0].astype(np.int64)

    @property
    def heights(self) -> np.ndarray:
        """Heights (n_hills,) as they were added, in the engine's unit of energy."""
        return self._hills[: self.n_hills, 1]

    @property
    def centres(self) -> np.ndarray:
        """Latents (n_hills, latent_dim) in the middle of the hills."""
        return self._hills[: self.n_hills, 2:]

    def __call__(self, z: np.ndarray, step: int) -> tuple[float, np.ndarray]:
        """Bias and its gradient (latent_dim,) at latents z (latent_dim,) by the hills of the steps before.

        Where a hill is due it is added then, once in a step however often that is seen, and none at the step
        that is seen first.
        """
        away = (z - self.centres) / self.sigma
        hills = self.heights * np.exp(-0.5 * np.einsum("ij,ij->i", away, away))
        energy, slope = float(hills.sum()), -(hills @ away) / self.sigma
        if step % self.stride == 0 and self._seen not in (None, step):
            self.add(step, z, self.height * np.exp(-energy / (self.kT * (self.bias_factor - 1))))
        self._seen = step
        return energy, slope

    def add(self, step: int, centre: np.ndarray, height: float) -> None:
        """Add a hill, such as one of an earlier run.

        Args:
            step: the step at which the hill was added.
            centre: (latent_dim,).
            height: in the engine's unit of energy.
        """
        if self.n_hills == len(self._hills):
            self._hills = np.concatenate([self._hills, np.zeros_like(self._hills)])
        self._hills[self.n_hills] = step, height, *centre
        self.n_hills += 1

    def energy(self, z: np.ndarray) -> np.ndarray:
        """Bias (n,) of all hills at latents (n, latent_dim).

        Args:
            z: (n, latent_dim).
        """
        total = np.zeros(len(z))
        for centre, height in zip(self.centres, self.heights, strict=True):
            total += height * np.exp(-0.5 * (((z - centre) / self.sigma) ** 2).sum(axis=1))
        return total

    def weights(self, z: np.ndarray) -> np.ndarray:
        """Weights (n,) that turn frames of the biased run into frames of an unbiased one: exp(V(z) / kT), V the
        bias of all hills, divided so that their mean is 1.

        They hold once the bias hardly changes any more, up to a constant; frames of the beginning are left out.

        Args:
            z: (n, latent_dim) latents of the frames.
        """
        energy = self.energy(z) / self.kT
        weights = np.exp(energy - energy.max())
        return weights / weights.mean()

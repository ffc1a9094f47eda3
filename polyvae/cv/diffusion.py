"""A diffusion model of conformations given the latent coordinates: the arithmetic, for one frame.

A network learns to remove noise from aligned coordinates, at all levels from far above the size of the
molecule to far below a bond. Draws start from noise alone, which is removed step by step. Source:
Karras, Aittala, Aila & Laine, 10.48550/arXiv.2206.00364 (denoiser, noise levels, stochastic Heun sampler).
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from polyvae import geometry
from polyvae.batches import map_frames
from polyvae.geometry.linalg import safe_sqrt
from polyvae.vae.modelfile import fill_tensors

# Noise levels, in standard deviations of the coordinates (`Generator.spread`): the median and the spread of
# ln(noise) in training, and the levels of sampling, the lowest about a thousandth of a bond.
LOG_NOISE = (-1.5, 1.5)
NOISE_MAX, NOISE_MIN, LEVELS, RHO = 8.0, 0.003, 40, 7
# Share by which noise is raised again at each level. It corrects errors of earlier steps; without it (0) the
# distances between generated and held-out chains are 2 to 4 times as large.
CHURN = 0.15
# Sweeps of `Generator.settle`. Larger steps swing where many pairs meet; momentum saves nine sweeps in ten.
_SWEEPS, _RATE, _MOMENTUM = 200, 0.2, 0.9
_BATCH = 512  # frames drawn at once, of up to 64 beads; `settle` holds all pairs of beads of each
_SILU = jax.nn.silu


class Network(eqx.Module):
    """Residual layers: h + W2 silu(W1 silu(h)). The last layer starts at zero."""

    first: eqx.nn.Linear
    blocks: tuple[tuple[eqx.nn.Linear, ...], ...]
    last: eqx.nn.Linear

    def __init__(self, n_in: int, n_out: int, *, width: int, depth: int, key):
        keys = iter(jax.random.split(key, 2 * depth + 2))
        self.first = eqx.nn.Linear(n_in, width, key=next(keys))
        self.blocks = tuple(
            tuple(eqx.nn.Linear(width, width, key=next(keys)) for _ in range(2)) for _ in range(depth)
        )
        last = eqx.nn.Linear(width, n_out, key=next(keys))
        self.last = jax.tree.map(jnp.zeros_like, last)

    def __call__(self, x: Float[Array, "inputs"]) -> Float[Array, "outputs"]:
        h = self.first(x)
        for one, two in self.blocks:
            h = h + two(_SILU(one(_SILU(h))))
        return self.last(_SILU(h))


def quadratic(z: Float[Array, "latent"]) -> Float[Array, "terms"]:
    """1, each latent, and each product of two."""
    i, j = np.triu_indices(len(z))
    return jnp.concatenate([jnp.ones(1), z, z[i] * z[j]])


def _centred(x):
    return x - jnp.mean(x, axis=0, keepdims=True)


class Generator(eqx.Module):
    """p(x|z), and the density of z that the data have.

    All lengths but `scale` are multiples of `scale`.
    """

    network: Network  # see `denoise`
    shape: tuple[int, int] = eqx.field(static=True)  # n_beads, n_dims
    scale: Float[Array, ""]  # the length that is 1 inside: the standard deviation of the aligned coordinates
    pairs: Int[Array, "pairs 2"]  # pairs of beads, the inputs of the network, along which it also pulls
    # pair_mean, pair_std: mean and standard deviation of their distances in the data
    pair_mean: Float[Array, "pairs"]
    pair_std: Float[Array, "pairs"]
    closest: Float[Array, ""]  # the smallest distance in the data between beads without a bond
    bonds: Int[Array, "bonds 2"]  # bonds, angles: the bonds, and the triples of bonded beads
    angles: Int[Array, "angles 3"]
    # drawn, real: quantiles of each bond length, of each angle and of the radius of gyration, (n_bonds + n_angles
    # + 1, n_quantiles), in raw draws and in the data. The last row may be missing.
    drawn: Float[Array, "internals quantiles"]
    real: Float[Array, "internals quantiles"]
    # z, z_width: latent coordinates (n, latent_dim) of the data, and the widths of the Gaussian kernel on each of
    # them
    z: Float[Array, "points latent"]
    z_width: Float[Array, "points latent"]
    # coefficients of `quadratic` terms of z; their sum is the conformation that `denoise` starts from
    mean: Float[Array, "terms beads dims"]
    spread: Float[Array, ""]  # the standard deviation of the coordinates about it

    def denoise(
        self, x: Float[Array, "beads dims"], noise: Float[Array, ""], z: Float[Array, "latent"]
    ) -> Float[Array, "beads dims"]:
        """Mean of the centred conformations at z that this one may be with noise.

        The network returns a displacement of each bead and a pull along each pair. Both fade out when little
        noise is left, pulls also with the distance of the pair.
        """
        # Matrix products in place of gather and scatter, which are slow where there are many frames.
        first, second = jax.nn.one_hot(self.pairs.T, self.shape[0], dtype=x.dtype)
        incidence = first - second
        centre = self.centre(z)
        apart = incidence @ x
        distances = jnp.sqrt(jnp.sum(apart**2, axis=1) + 1e-6)
        shrink = 1 / jnp.sqrt(self.spread**2 + noise**2)
        level = jnp.log(noise / self.spread) / 4
        waves = jnp.stack([level, jnp.sin(4 * level), jnp.cos(4 * level), jnp.sin(8 * level), jnp.cos(8 * level)])
        relative = (distances - self.pair_mean) / jnp.sqrt(self.pair_std**2 + noise**2)
        contact = jnp.minimum(jnp.exp(4 * (1 - distances / self.closest)), 8.0)
        out = self.network(jnp.concatenate([shrink * (x - centre).ravel(), z, waves, relative, contact]))
        moved = out[: x.size].reshape(x.shape) * jnp.tanh(2 * noise / self.closest)
        beyond = jnp.maximum(distances - self.closest, 0)
        pull = out[x.size :] * jnp.exp(-beyond / (self.closest + 3 * noise)) / distances
        change = moved + incidence.T @ (pull[:, None] * apart)
        kept = (self.spread * shrink) ** 2
        return _centred(centre + kept * (x - centre) + self.spread * noise * shrink * change)

    def centre(self, z: Float[Array, "latent"]) -> Float[Array, "beads dims"]:
        """The conformation at z that `denoise` starts from."""
        return jnp.tensordot(quadratic(z), self.mean, 1)

    def loss(self, x: Float[Array, "beads dims"], z: Float[Array, "latent"], noise: Float[Array, ""], key):
        """Squared error of `denoise`, weighted so that it is of order 1 a coordinate at all noise levels."""
        noisy = x + noise * _centred(jax.random.normal(key, x.shape))
        return jnp.sum((self.denoise(noisy, noise, z) - x) ** 2) * (self.spread**-2 + noise**-2)

    def raw_draw(self, key, z: Float[Array, "latent"]) -> Float[Array, "beads dims"]:
        """A draw from p(x|z) by the diffusion model alone, centred, in multiples of `scale`."""

        def slope(x, noise):
            return (x - self.denoise(x, noise, z)) / noise

        def step(x, inputs):
            here, there, key = inputs
            raised = (1 + CHURN) * here
            x = x + jnp.sqrt(raised**2 - here**2) * _centred(jax.random.normal(key, x.shape))
            first = slope(x, raised)
            second = slope(x + (there - raised) * first, there)
            return x + (there - raised) * 0.5 * (first + second), None

        keys = jax.random.split(key, LEVELS + 1)
        highest = NOISE_MAX * self.spread
        start = self.centre(z) + highest * _centred(jax.random.normal(keys[-1], self.shape))
        spaced = np.linspace(NOISE_MAX ** (1 / RHO), NOISE_MIN ** (1 / RHO), LEVELS + 1) ** RHO
        levels = self.spread * jnp.asarray(spaced, start.dtype)
        x, _ = jax.lax.scan(step, start, (levels[:-1], levels[1:], keys[:-1]))
        return self.denoise(x, levels[-1], z)

    def internal(self, x: Float[Array, "beads dims"]) -> Float[Array, "internals"]:
        """Bond lengths, angles in radians, and the radius of gyration."""
        size = geometry.radius_of_gyration(x)[None]
        return jnp.concatenate([geometry.distances(x, self.bonds), geometry.angles(x, self.angles), size])

    def settle(self, x: Float[Array, "beads dims"]) -> Float[Array, "beads dims"]:
        """Move to the nearest conformation with the bonds, angles and radius of gyration of the data, by rank.

        Other pairs are moved to be no closer than those of the data.

        Each sweep moves all pairs of beads with a wrong distance along the line between them (Jacobi's form of
        SHAKE, 10.1016/0021-9991(77)90098-5, with momentum). Nearly straight angles are only approached, since the
        distance of their ends hardly depends on them.
        """
        n_bonds, n_angles = len(self.bonds), len(self.angles)
        wanted = jax.vmap(jnp.interp)(self.internal(x)[: len(self.drawn)], self.drawn, self.real)
        lengths, angles, size = jnp.split(wanted, [n_bonds, n_bonds + n_angles])
        n = self.shape[0]
        of_pair = jnp.zeros((n, n), x.dtype).at[self.bonds[:, 0], self.bonds[:, 1]].set(lengths)
        of_pair = jnp.maximum(of_pair, of_pair.T)
        a, b, c = self.angles.T
        one, two = of_pair[a, b], of_pair[b, c]
        across = safe_sqrt(one**2 + two**2 - 2 * one * two * jnp.cos(angles))
        of_ends = jnp.zeros((n, n), x.dtype).at[a, c].set(jnp.maximum(across, self.closest))
        of_pair = jnp.where(of_pair > 0, of_pair, jnp.maximum(of_ends, of_ends.T))  # in rings of three, the bond

        def sweep(_, carried):
            x, step = carried
            apart = x[:, None] - x[None]
            distances = safe_sqrt(jnp.sum(apart**2, axis=2)) + jnp.eye(n, dtype=x.dtype)
            goal = jnp.where(of_pair > 0, of_pair, jnp.maximum(distances, self.closest))
            push = jnp.sum((goal / distances - 1)[..., None] * apart, axis=1)
            if len(size):  # otherwise beads that move apart would make a dense molecule, such as a ring, swell
                push += (size[0] / geometry.radius_of_gyration(x) - 1) * _centred(x)
            step = _MOMENTUM * step + _RATE * push
            return x + step, step

        return jax.lax.fori_loop(0, _SWEEPS, sweep, (x, jnp.zeros_like(x)))[0]

    def draw(self, key, z: Float[Array, "latent"]) -> Float[Array, "beads dims"]:
        """A conformation drawn from p(x|z), centred, in the unit of the data."""
        return self.scale * self.settle(self.raw_draw(key, z))

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray], shape: tuple[int, int], latent_dim: int) -> "Generator":
        """The generator from its tensors; raises ValueError or KeyError where they do not fit.

        Older files without `mean` have a centre of zeros and a spread of 1.
        """
        n_terms = len(quadratic(jnp.zeros(tensors["z"].shape[1])))
        tensors = {"mean": np.zeros((n_terms, *shape), np.float32), "spread": np.ones((), np.float32)} | tensors
        _check_tensors(tensors, shape, latent_dim)
        own = {
            name: jnp.asarray(tensors[name]) for name in cls.__annotations__ if name not in ("network", "shape")
        }
        width, depth = len(tensors["network.first.bias"]), sum("blocks" in name for name in tensors) // 4
        like = eqx.filter_eval_shape(network_for, shape, own["pairs"], own["z"], width, depth, jax.random.key(0))
        return cls(network=fill_tensors(like, tensors, "network.{}".format), shape=shape, **own)


def _check_tensors(tensors: dict[str, np.ndarray], shape: tuple[int, int], latent_dim: int) -> None:
    """Raise ValueError where arrays have other shapes than `Generator` needs, or name missing beads."""
    pairs, bonds, angles, points = (len(tensors[name]) for name in ("pairs", "bonds", "angles", "z"))
    expected: dict[str, tuple[int, ...]] = dict.fromkeys(("scale", "closest", "spread"), ())
    expected |= {"pair_mean": (pairs,), "pair_std": (pairs,), "pairs": (pairs, 2), "bonds": (bonds, 2)}
    expected |= {"angles": (angles, 3), "z": (points, latent_dim), "z_width": (points, latent_dim)}
    expected |= {"mean": (len(quadratic(jnp.zeros(latent_dim))), *shape), "real": tensors["drawn"].shape}
    for name, wanted in expected.items():
        if tensors[name].shape != wanted:
            raise ValueError(f"generator.{name} has shape {tensors[name].shape}, expected {wanted}")
    for name in ("pairs", "bonds", "angles"):
        if not ((tensors[name] >= 0) & (tensors[name] < shape[0])).all():
            raise ValueError(f"generator.{name} must be of beads 0 to {shape[0] - 1}")
    rows = tensors["drawn"].shape[0]
    if tensors["drawn"].ndim != 2 or rows not in (bonds + angles, bonds + angles + 1):
        raise ValueError(f"generator.drawn has {rows} rows for {bonds} bonds and {angles} angles")


def network_for(shape: tuple[int, int], pairs, z, width: int, depth: int, key) -> Network:
    """A network of the size that `Generator.denoise` needs."""
    size = int(np.prod(shape))
    return Network(size + z.shape[1] + 5 + 2 * len(pairs), size + len(pairs), width=width, depth=depth, key=key)


def draw_latents(generator: Generator, key, n: int) -> np.ndarray:
    """Draw latent coordinates (n, latent_dim) from the density of the data's z.

    Every kernel is used once before any is used again, so that averages over many draws vary less.
    """
    order_key, noise_key = jax.random.split(key)
    count = len(generator.z)
    n_rounds = -(-n // count)
    orders = [jax.random.permutation(jax.random.fold_in(order_key, k), count) for k in range(n_rounds)]
    chosen = np.concatenate(orders)[:n]
    keys = jax.vmap(lambda i: jax.random.fold_in(noise_key, i))(np.arange(n))
    noise = jax.vmap(lambda key: jax.random.normal(key, generator.z.shape[1:]))(keys)
    return np.asarray(generator.z[chosen] + generator.z_width[chosen] * noise)


@eqx.filter_jit
def _draw(generator: Generator, raw: bool, key_data, z):
    draw = generator.raw_draw if raw else generator.draw
    return jax.vmap(draw)(jax.random.wrap_key_data(key_data), z)


def draw_frames(generator: Generator, key, z: np.ndarray, *, raw: bool = False) -> np.ndarray:
    """A conformation for each z (n, latent_dim), (n, n_beads, n_dims); `raw` as in `Generator.raw_draw`.

    Frame i depends on the key, on i and on its z alone.
    """
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(np.arange(len(z)))
    draw = functools.partial(_draw, generator, raw)
    batch = max(8, min(_BATCH, _BATCH * 64**2 // generator.shape[0] ** 2))
    return map_frames(draw, np.asarray(jax.random.key_data(keys)), np.asarray(z, np.float32), batch=batch)


@eqx.filter_jit
def _internal(generator, rows):
    return jax.vmap(generator.internal)(rows)


def internal_of(generator: Generator, frames: np.ndarray) -> np.ndarray:
    """`Generator.internal` of many frames."""
    return map_frames(functools.partial(_internal, generator), np.asarray(frames, np.float32))

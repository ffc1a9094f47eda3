"""Explanation of a latent by plain variables of the chain: distances, torsions and size."""

import dataclasses
from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from polyvae.arguments import whole_number
from polyvae.batches import single_precision
from polyvae.cv.latent import CVFunction, LatentCV, check_cv
from polyvae.errors import InputError
from polyvae.measures.weights import counting
from polyvae.records import Record

MAX_FRAMES = 2000  # evenly spaced; a regression on more names no other variables
MAX_BEADS = 24  # evenly spaced ones, for distances
MAX_TORSIONS = 200
LEAST_GAIN = 0.01  # of the variance, that a further variable must explain


@dataclasses.dataclass(frozen=True)
class PlainVariable(Record):
    """A plain variable that explains a latent."""

    name: str  # such as "distance 3-9", "torsion 2-3-4-5" or "radius of gyration", with bead numbers from 0
    r2: float  # share of the latent's variance that this variable and those before it explain
    alone: float  # share that it explains alone


@dataclasses.dataclass(frozen=True)
class Explanation(Record):
    """A latent explained by plain variables.

    Args:
        latent: its number.
        variables: the best first; a regression on the values and their squares, of torsions on cosine and sine.
        beads: (n_beads,) share of each bead in the latent's sensitivity: the mean norm of its gradient times the
            bead's spread in the aligned frames. They add up to 1.
    """

    latent: int
    variables: list[PlainVariable]
    beads: list[float]

    def __str__(self):
        found = ", then ".join(f"{v.name} (R² {v.r2:.2f})" for v in self.variables)
        return f"z{self.latent} is explained by {found}"

    def table(self) -> list[list[str]]:
        """A row for each variable."""
        rows = [[v.name, f"{v.r2:.3f}", f"{v.alone:.3f}"] for v in self.variables]
        return [["variable", "R² with those above", "R² alone"], *rows]

    def to_frame(self):
        """The variables as a pandas table, one a row."""
        import pandas as pd

        return pd.DataFrame([v.to_dict() for v in self.variables]).set_index("name")


@single_precision
def explain(cv: LatentCV, data, *, latent: int = 0, most: int = 3) -> Explanation:
    """Name the distances, torsions and sizes that explain a latent.

    A sparse regression: the variable that explains most of the latent's variance is taken first, then the one that
    explains most of what is left, until a further one adds less than 1 %.

    Args:
        cv: the collective variable, as `fit` and `load` give it.
        data: a `Trajectory`, or what `as_trajectory` takes; at most `MAX_FRAMES` evenly spaced frames are used.
        latent: number of the latent.
        most: largest number of variables.

    Returns:
        `Explanation`: the variables with R², and the sensitivity of each bead.

    Raises:
        InputError: a latent that the model does not have, or that does not vary over the data.
    """
    latent, most = whole_number("latent", latent, 0), whole_number("most", most, 1)
    if latent >= check_cv(cv).latent_dim:
        raise InputError(f"the model has latents 0 to {cv.latent_dim - 1}; got latent {latent}")
    traj = cv.as_trajectory(data)
    rows, weights = counting(traj)
    few = np.linspace(0, len(rows) - 1, min(len(rows), MAX_FRAMES)).astype(int)
    positions = traj.positions[rows[few]]
    shares = None if weights is None else weights[few]
    values = np.asarray(cv.encode(positions), np.float64)[:, latent]
    variables = find_variables(positions, values, traj.masses, weights=shares, most=most)
    return Explanation(latent, variables, _sensitivities(cv, positions, shares, latent).tolist())


def find_variables(
    positions: Float[np.ndarray, "frames beads dims"],
    values: Float[np.ndarray, " frames"],
    masses: Float[np.ndarray, " beads"] | None = None,
    *,
    weights: Float[np.ndarray, " frames"] | None = None,
    most: int = 3,
) -> list[PlainVariable]:
    """Find the plain variables that explain values of frames, best first, by forward selection.

    `InputError` for values that do not vary.
    """
    root = np.ones(len(values)) if weights is None else np.sqrt(weights / weights.mean())
    residual = _centred(values[:, None], root)[:, 0]
    total = residual @ residual
    if not total > 1e-12 * (root * values @ (root * values)):
        raise InputError("the latent does not vary over these frames; choose another, or give other frames")
    names, bases = [], []
    for name, columns in _candidates(np.asarray(positions, np.float64), masses):
        names.append(name)
        bases.append(_orthonormal(_centred(columns, root)))
    alone = [float(((basis.T @ residual) ** 2).sum() / total) for basis in bases]
    found: list[PlainVariable] = []
    explained = 0.0
    while len(found) < most:
        gains = [float(((basis.T @ residual) ** 2).sum() / total) for basis in bases]
        best = int(np.argmax(gains))
        if found and gains[best] < LEAST_GAIN:
            break
        taken = bases[best]
        explained += gains[best]
        residual = residual - taken @ (taken.T @ residual)
        found.append(PlainVariable(names[best], explained, alone[best]))
        bases = [_orthonormal(basis - taken @ (taken.T @ basis)) for basis in bases]
    return found


def _candidates(x: np.ndarray, masses: np.ndarray | None) -> Iterator[tuple[str, np.ndarray]]:
    """Name and columns (n_frames, n) of each plain variable."""
    n_beads, n_dims = x.shape[1:]
    shares = np.full(n_beads, 1 / n_beads) if masses is None else masses / masses.sum()
    off = x - (shares[:, None] * x).sum(axis=1, keepdims=True)
    rg = np.sqrt((shares * (off**2).sum(axis=2)).sum(axis=1))
    yield "radius of gyration", np.stack([rg, rg**2], axis=1)
    chosen = np.unique(np.linspace(0, n_beads - 1, min(n_beads, MAX_BEADS)).astype(int))
    for k, one in enumerate(chosen):
        for other in chosen[k + 1 :]:
            apart = np.linalg.norm(x[:, other] - x[:, one], axis=1)
            yield f"distance {one}-{other}", np.stack([apart, apart**2], axis=1)
    if n_dims == 3 and n_beads > 3:
        for k in np.unique(np.linspace(0, n_beads - 4, min(n_beads - 3, MAX_TORSIONS)).astype(int)):
            angle = _torsion(x[:, k : k + 4])
            yield f"torsion {k}-{k + 1}-{k + 2}-{k + 3}", np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _torsion(x: Float[np.ndarray, "frames 4 3"]) -> Float[np.ndarray, " frames"]:
    """The angle of rotation about the middle bond, in radians."""
    a, b, c = x[:, 1] - x[:, 0], x[:, 2] - x[:, 1], x[:, 3] - x[:, 2]
    left, right = np.cross(a, b), np.cross(b, c)
    height = (a * right).sum(axis=1) * np.linalg.norm(b, axis=1)
    return np.arctan2(height, (left * right).sum(axis=1))


def _centred(columns: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Columns without their weighted means, times the roots of the weights."""
    return root[:, None] * (columns - (root**2 @ columns) / (root**2).sum())


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis of what the columns span; what is within rounding of nothing is left out."""
    size = np.sqrt((columns**2).sum(axis=0))
    kept = columns[:, size > 1e-9 * np.sqrt(len(columns))]
    if not kept.shape[1]:
        return kept
    left, spread, _ = np.linalg.svd(kept / np.sqrt((kept**2).sum(axis=0)), full_matrices=False)
    return left[:, spread > 1e-6 * spread[0]]


def _sensitivities(cv: LatentCV, positions: np.ndarray, weights: np.ndarray | None, latent: int) -> np.ndarray:
    """Share of each bead, (n_beads,): the mean norm of its gradient times its spread in the aligned frames."""
    aligned = np.asarray(cv.turn(positions), np.float64)
    spread = np.sqrt(aligned.var(axis=0).sum(axis=1))
    norms = np.asarray(_slopes(cv.function(), positions, latent), np.float64)
    shares = np.average(norms, axis=0, weights=weights) * spread
    return shares / max(shares.sum(), 1e-300)


@eqx.filter_jit
def _slopes(cv: CVFunction, positions, latent: int):
    """The norm of one latent's gradient at each bead, (n_frames, n_beads)."""

    def one(frame):
        slope = jax.grad(lambda x: cv.posterior(x)[0][latent])(frame)
        return jnp.sqrt(jnp.sum(slope**2, axis=1))

    return jax.lax.map(one, positions, batch_size=min(256, len(positions)))

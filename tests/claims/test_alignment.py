"""Claims: features ignore how a chain lies, their gradients are finite and right, and frames do not jump.

Invariance: features of a chain that is turned, shifted or given in another unit change by less than 1e-5
relative in float32 and 1e-12 in float64 (random chains, hypothesis, seeds drawn; near an undefined frame
by that over its margin). Gradients: central differences in float64 to 1e-6, and finite on degenerate
conformations and on 1,000 frames that approach them. Jumps: on the two trajectories of the book chapter
at most 1 and 0 with `PrincipalAxes()`, 0 and 0 with `Reference()`; variance of the aligned `long_paths` at
most 8.7 and 8.1. `chain2d_dense` likewise 0 with `Reference()`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import arrays, chapter, simulated
from hypothesis import given, settings
from hypothesis import strategies as st

import polyvae as pv
from polyvae import geometry
from polyvae.features import continuity

pytestmark = pytest.mark.long

N_BEADS = 12
FEATURIZERS = {
    "PrincipalAxes": pv.PrincipalAxes(),
    "PrincipalAxes(masses)": pv.PrincipalAxes(),
    "PrincipalAxes(mirror)": pv.PrincipalAxes(mirror=True),
    "PrincipalAxes(reversal)": pv.PrincipalAxes(reversal=True),
    "Reference": pv.Reference(),
    "Reference(masses)": pv.Reference(),
    "Reference(3d)": pv.Reference(planar="3d", pdb_grid=True),
    "Reference(mirror, reversal)": pv.Reference(mirror=True, reversal=True),
    "PairDistances": pv.PairDistances(),
    "PairDistances(reversal)": pv.PairDistances(reversal=True),
}
MAIN = ("PrincipalAxes", "Reference", "PairDistances")
# Compiling takes the time: the variants of an option run with the other full-size claims.
NAMES = [name if name in MAIN else pytest.param(name, marks=pytest.mark.slow) for name in FEATURIZERS]
MEASURES = {
    "radius_of_gyration": pv.radius_of_gyration,
    "end_to_end": pv.end_to_end,
    "asphericity": pv.asphericity,
    "shape_anisotropy": pv.shape_anisotropy,
    "contacts": functools.partial(pv.contacts, cutoff=1.5),
}


def chain(rng, n_dims, n_beads=N_BEADS):
    return np.cumsum(rng.normal(size=(n_beads, n_dims)), axis=0)


def rotation(rng, n_dims):
    q, r = np.linalg.qr(rng.normal(size=(n_dims, n_dims)))
    q = q * np.sign(np.diagonal(r))
    q[:, 0] *= np.sign(np.linalg.det(q))
    return q


@functools.cache
def fitted(name, n_dims, n_beads=N_BEADS):
    rng = np.random.default_rng(100 + n_dims)
    masses = np.r_[1.0:n_beads:1, 3.0] if "masses" in name else None
    frames = np.stack([chain(rng, n_dims, n_beads)])  # any one structure will do as a reference
    return FEATURIZERS[name].fit(pv.Trajectory(frames, masses=masses))


@functools.cache
def compiled(name, n_dims):
    """Features and the smallest margin of a pair of frames."""
    featurizer = fitted(name, n_dims)

    def both(x):
        return featurizer(x), jnp.min(jnp.stack([jnp.ones((), x.dtype), *featurizer.margins(x).values()]))

    return jax.jit(jax.vmap(both))


def assert_same_features(name, x, y, dtype, scale=1.0):
    with jax.enable_x64(dtype is np.float64):
        features, margin = compiled(name, x.shape[1])(np.stack([x, y]).astype(dtype))
        features, margin = np.asarray(features, np.float64), float(np.asarray(margin)[0])
    tolerance = 1e-5 if dtype is np.float32 else 1e-12
    # Rounding turns a frame by eps over its margin: 0.05 is typical of a random chain.
    tolerance *= max(1, 0.05 / max(margin, 1e-30))
    if tolerance > 1e-2:
        return  # as good as undefined
    size = np.sqrt(np.mean(features[0] ** 2))
    assert np.abs(features[1] / scale - features[0]).max() < tolerance * max(size, 1) * 10 ** (size == 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_rotation_and_translation_leave_features_alone(name, n_dims, dtype):
    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-5, 5))
    def check(seed, shift):
        rng = np.random.default_rng(seed)
        x = chain(rng, n_dims).astype(dtype)
        assert_same_features(name, x, x @ rotation(rng, n_dims).T + shift, dtype)

    check()


@pytest.mark.parametrize("name", ["PrincipalAxes", "PrincipalAxes(masses)", "Reference", "PairDistances"])
def test_a_chain_far_from_the_origin_loses_no_digits(name):
    """Positions and shift that float32 holds exactly: then the features are the same to the last bits."""
    rng = np.random.default_rng(0)
    for n_dims in (2, 3):
        x = np.rint(chain(rng, n_dims) * 256) / 256
        assert_same_features(name, x, x + 4096.0, np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["PrincipalAxes", "Reference", "PairDistances"])
def test_features_scale_with_the_unit(name, dtype):
    rng = np.random.default_rng(1)
    for n_dims in (2, 3):
        for scale in (10.0, 0.1, 1e-9, 1e9):
            for _ in range(5):
                x = chain(rng, n_dims).astype(dtype)
                # A reference has no scale, so the same one serves.
                assert_same_features(name, x, x * dtype(scale), dtype, scale)


def degenerate(n_dims):
    """Conformations at which some axis, rotation or distance is undefined."""
    n = N_BEADS
    i = np.arange(n)
    rod = np.zeros((n, n_dims))
    rod[:, 0] = i - (n - 1) / 2
    polygon = np.zeros((n, n_dims))
    polygon[:, 0], polygon[:, 1] = np.cos(2 * np.pi * i / n), np.sin(2 * np.pi * i / n)
    zigzag = rod.copy()
    zigzag[:, 1] = (-1.0) ** i
    rng = np.random.default_rng(2)
    shapes = {
        "rod": rod,
        "oblique rod": rod @ rotation(rng, n_dims).T,
        "polygon": polygon,
        "coincident": np.zeros((n, n_dims)),
        "coincident, elsewhere": np.full((n, n_dims), 3.7),
        "two points": np.where(i[:, None] < n // 2, 1.0, -1.0) * np.eye(n_dims)[0],
        "palindrome": np.where(i < n // 2, i, n - 1 - i)[:, None] * np.ones(n_dims),
        "zigzag": zigzag,
    }
    if n_dims == 3:
        tetrahedron = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
        planar = chain(rng, 3)
        planar[:, 2] = 0
        shapes |= {"tetrahedron": np.tile(tetrahedron, (n // 4, 1)), "planar": planar}
    return shapes


@functools.cache
def derivative(name, n_dims, n_beads=N_BEADS):
    function = MEASURES[name] if name in MEASURES else fitted(name, n_dims, n_beads)
    return jax.jit(jax.vmap(jax.jacrev(function)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("name", [*NAMES, *MEASURES])
def test_gradients_are_finite_at_and_near_undefined_frames(name, n_dims, dtype):
    """Each degenerate conformation, the reference itself, and 1,000 frames that approach them."""
    structure = np.asarray(fitted("Reference", n_dims).structure)
    mirror = structure * np.r_[np.ones(n_dims - 1), -1.0]
    shapes = [*degenerate(n_dims).values(), structure, mirror]
    rng = np.random.default_rng(3)
    frames = np.tile(np.stack(shapes), (100, 1, 1))[:1000]
    distance = 10.0 ** rng.uniform(-20, 0, size=(len(frames), 1, 1))
    distance[: len(shapes)] = 0
    frames = frames + distance * rng.normal(size=frames.shape)
    with jax.enable_x64(dtype is np.float64):
        slopes = np.asarray(derivative(name, n_dims)(frames.astype(dtype)))
    assert len(frames) == 1000
    bad = np.flatnonzero(~np.isfinite(slopes.reshape(len(frames), -1)).all(1))
    assert bad.size == 0, f"frame {bad[0]}, {distance[bad[0], 0, 0]:g} from degenerate"


@pytest.mark.parametrize("n_beads", [1, 2])
@pytest.mark.parametrize("name", ["PrincipalAxes", "Reference", "radius_of_gyration", "asphericity", "end_to_end"])
def test_gradients_of_one_and_two_beads_are_finite(name, n_beads):
    for n_dims in (2, 3):
        x = np.stack([np.zeros((n_beads, n_dims)), np.arange(n_beads * n_dims).reshape(n_beads, n_dims)])
        assert np.isfinite(derivative(name, n_dims, n_beads)(x.astype(np.float32))).all()


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("name", [*NAMES, *MEASURES])
def test_gradients_are_those_of_central_differences(name, n_dims):
    rng = np.random.default_rng(4)
    function = MEASURES[name] if name in MEASURES else fitted(name, n_dims)
    x = np.stack([chain(rng, n_dims) for _ in range(60)])
    along = rng.normal(size=x.shape)
    h = 1e-5
    with jax.enable_x64(True):
        if name in FEATURIZERS:
            margin = np.asarray(compiled(name, n_dims)(x)[1])
            x, along = x[margin > 0.02], along[margin > 0.02]
            assert len(x) >= 10
        values = jax.jit(jax.vmap(function))
        slopes = np.asarray(derivative(name, n_dims)(x))
        expected = (np.asarray(values(x + h * along)) - np.asarray(values(x - h * along))) / (2 * h)
    found = np.einsum("f...bd,fbd->f...", slopes, along)
    error = np.abs(found - expected).max() / max(1, np.abs(expected).max())
    print(f"{name} in {n_dims}-D: {len(x)} chains, largest relative error {error:.1e}")
    assert error < 1e-6


@pytest.mark.parametrize("n_dims", [2, 3])
def test_a_rotation_of_the_chain_turns_gradients_with_it(n_dims):
    """Features do not change under rotation and translation, so their gradients sum to no force, no torque."""
    rng = np.random.default_rng(5)
    x = np.stack([chain(rng, n_dims) for _ in range(20)])
    with jax.enable_x64(True):
        for name in ("PrincipalAxes", "Reference"):
            slopes = np.asarray(derivative(name, n_dims)(x))
            scale = np.abs(slopes).max(axis=(1, 2, 3), keepdims=True)[..., 0]
            assert (np.abs(slopes.sum(axis=2)) < 1e-10 * scale).all()
            torque = np.einsum("fkbi,fbj->fkij", slopes, x)
            assert (np.abs(torque - np.swapaxes(torque, 2, 3)) < 1e-9 * scale[..., None]).all()


@pytest.mark.parametrize(
    ("name", "featurizer", "most_jumps", "most_variance"),
    [
        ("paths", pv.PrincipalAxes(), 1, None),
        ("paths", pv.Reference(), 0, None),
        ("long_paths", pv.PrincipalAxes(), 0, 8.7),
        ("long_paths", pv.Reference(), 0, 8.1),
    ],
)
def test_jumps_and_variance_on_the_chapters_trajectories(name, featurizer, most_jumps, most_variance):
    traj = pv.Trajectory(arrays(chapter(f"{name}.npz"))["arr"])
    featurizer = featurizer.fit(traj)
    found = continuity.jumps(traj, featurizer)
    features = np.asarray(jax.jit(jax.vmap(featurizer))(traj.positions), np.float64)
    variance = features.var(axis=0).sum()
    print(f"{name}, {continuity.describe(featurizer)}: {found.count} jumps, variance {variance:.2f}")
    assert found.n_steps == 2047
    assert found.count <= most_jumps
    assert most_variance is None or variance <= most_variance


def test_the_check_finds_the_flipping_axis_and_names_the_cure():
    traj = pv.Trajectory(arrays(chapter("paths.npz"))["arr"])
    report = continuity.check_alignment(traj, pv.PrincipalAxes(sign="none").fit(traj))
    print(report.message)
    assert report.jumps.count >= 1
    assert report.better == "Reference()"
    assert "PrincipalAxes(sign='none') jumps at" in report.message
    assert "Reference() does not" in report.message
    quiet = continuity.check_alignment(traj, pv.Reference().fit(traj))
    assert quiet.message is quiet.better is None
    assert quiet.alternatives == {}


def test_chain2d_dense_does_not_jump_on_its_mean():
    traj = simulated("chain2d_dense")
    counts = {
        continuity.describe(f): continuity.jumps(traj, f.fit(traj)).count
        for f in (pv.Reference(), pv.PrincipalAxes())
    }
    print(f"chain2d_dense, {traj.n_frames} frames: jumps {counts}")
    assert counts["Reference()"] == 0


def flipping(segments=None):
    """A bent chain whose bend leans slowly from one end to the other: its short axis loses its sign once."""
    lean = np.linspace(-1, 1, 100)  # an even number, so that none is 0
    i = np.arange(6) - 2.5
    x = np.stack([np.stack([i, 0.3 * i**2 + 0.1 * s * i], axis=1) for s in lean])
    return pv.Trajectory(x, segments=segments)


def test_jumps_are_counted_within_segments_only_and_in_units_of_size():
    traj, featurizer = flipping(), pv.PrincipalAxes(mirror=True)
    found = continuity.jumps(traj, featurizer)
    assert found.frames.tolist() == [50]
    assert found.n_steps == 99
    assert found.aligned[49] > 5 * found.superposed[49] + found.floor
    assert continuity.jump_fraction(traj, featurizer) == found.fraction == 1 / 99
    across = continuity.jumps(flipping((50, 50)), featurizer)
    assert (across.count, across.n_steps) == (0, 98)
    beside = continuity.jumps(flipping((51, 49)), featurizer)
    assert (beside.count, beside.n_steps) == (1, 98)
    singles = continuity.jumps(flipping((1,) * 100), featurizer)
    assert (singles.fraction, singles.n_steps) == (0, 0)
    again = continuity.jumps(pv.Trajectory(traj.positions * 1000), featurizer)
    assert again.frames.tolist() == [50]
    assert again.floor == pytest.approx(1000 * found.floor)
    assert continuity.jumps(traj, pv.PrincipalAxes()).count == 0


def test_margins_point_at_the_frames_that_jump():
    traj = flipping()
    margins = continuity.margins(traj, pv.PrincipalAxes(mirror=True))
    assert set(margins) == {"eigenvalue_gap", "chain_moment"}
    assert margins["chain_moment"].shape == (100,)
    assert set(np.argsort(margins["chain_moment"])[:2].tolist()) == {49, 50}
    assert margins["eigenvalue_gap"].min() > 0.1
    assert set(continuity.margins(traj, pv.Reference().fit(traj))) == {"rotation"}
    without_sign = continuity.margins(traj, pv.PrincipalAxes(reversal=True, sign="none"))
    assert set(without_sign) == {"eigenvalue_gap", "reversal"}
    assert continuity.margins(traj, pv.PairDistances().fit(traj)) == {}


def test_frames_turn_with_the_chain():
    rng = np.random.default_rng(6)
    for n_dims in (2, 3):
        x = np.stack([chain(rng, n_dims) for _ in range(50)])
        turn = rotation(rng, n_dims)
        with jax.enable_x64(True):
            frame = jax.jit(jax.vmap(geometry.principal_frame))
            margin = np.min(jax.vmap(geometry.frame_margins)(x), axis=0)
            difference = np.abs(np.asarray(frame(x @ turn.T)) - np.asarray(frame(x)) @ turn.T).max((1, 2))
        assert (difference * margin < 1e-13).all()

"""Geometry of one frame: solvers against NumPy, frames, reversal, shapes, superposition, distance geometry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import polyvae as pv
from polyvae import geometry
from polyvae.geometry import linalg, superposition
from polyvae.geometry.distance_geometry import coordinates_from_distances


def rotations(rng, n, n_dims):
    q, r = np.linalg.qr(rng.normal(size=(n, n_dims, n_dims)))
    q = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    q[:, :, 0] *= np.sign(np.linalg.det(q))[:, None]
    return q


def walks(rng, n, n_beads, n_dims):
    return np.cumsum(rng.normal(size=(n, n_beads, n_dims)), axis=1)


def svd_rotation(h, mirror=False):
    """The textbook solution, in float64."""
    u, s, vt = np.linalg.svd(np.asarray(h, np.float64))
    sign = np.sign(np.linalg.det(u @ vt))
    if not mirror:
        u[..., -1] *= sign[..., None]
        s[..., -1] *= sign
    return u @ vt, s


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_eigh_descending_is_numpys(n_dims, dtype):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(500, n_dims, n_dims)).astype(dtype)
    a = a @ np.swapaxes(a, 1, 2)
    with jax.enable_x64(dtype is np.float64):
        values, axes = map(np.asarray, jax.jit(jax.vmap(linalg.eigh_descending))(a))
    assert values.dtype == dtype
    size = np.trace(a, axis1=1, axis2=2)
    eps = np.finfo(dtype).eps
    assert (np.abs(values - np.linalg.eigvalsh(a)[:, ::-1]).max(1) < 20 * eps * size).all()
    rebuilt = np.einsum("fk,fki,fkj->fij", values, axes, axes)
    assert (np.abs(rebuilt - a).max((1, 2)) < 20 * eps * size).all()


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearest_rotation_is_the_svd_solution(n_dims, dtype, mirror):
    rng = np.random.default_rng(1)
    h = rng.normal(size=(2000, n_dims, n_dims)).astype(dtype)
    solve = linalg.nearest_orthogonal if mirror else linalg.nearest_rotation
    with jax.enable_x64(dtype is np.float64):
        found = np.asarray(jax.jit(jax.vmap(solve))(h))
    expected, s = svd_rotation(h, mirror)
    eps = np.finfo(dtype).eps
    # The rotation is as well known as the smallest sum of two singular values is large.
    gap = (s[:, -2] + s[:, -1]) / np.abs(s).sum(1)
    assert (np.abs(found - expected).max((1, 2)) * gap < 40 * eps).all()
    assert np.abs(found @ np.swapaxes(found, 1, 2) - np.eye(n_dims)).max() < 20 * eps
    determinant = np.linalg.det(found)
    assert np.allclose(determinant, np.sign(np.linalg.det(h)) if mirror else 1.0, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(
    "h",
    [
        np.zeros((3, 3)),
        np.outer([1, 2, 3], [3, -1, 2]),
        np.outer([1, 0, 0], [0, 1, 0]),
        -np.outer([1, 2, 3], [1, 2, 3]),
        np.diag([1.0, 1.0, 0.0]),
        np.diag([0.0, 1.0, 1.0]),
        -np.eye(3),
        np.diag([1.0, 1.0, -1.0]),
        np.zeros((2, 2)),
        np.diag([1.0, -1.0]),
    ],
)
def test_nearest_rotation_of_an_undefined_problem_is_still_optimal_and_smooth(h):
    h = jnp.asarray(h, jnp.float32)
    found = np.asarray(linalg.nearest_rotation(h))
    _, s = svd_rotation(h)
    assert np.trace(found.T @ h) == pytest.approx(s.sum(), abs=1e-5)
    assert np.linalg.det(found) == pytest.approx(1, abs=1e-5)
    for derivative in (jax.jacobian, jax.hessian):
        assert np.isfinite(derivative(linalg.nearest_rotation)(h)).all()


def test_solvers_name_the_shape_they_cannot_take():
    for solve in (linalg.eigh_descending, linalg.nearest_rotation):
        with pytest.raises(ValueError, match=r"3x3.*\(4, 4\)"):
            solve(jnp.eye(4))


@pytest.mark.parametrize("masses", [None, np.arange(1.0, 13.0)])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_frame_is_proper_equivariant_and_signed_by_the_chain_moment(n_dims, masses):
    rng = np.random.default_rng(2)
    x = walks(rng, 200, 12, n_dims)
    turns = rotations(rng, 200, n_dims)
    with jax.enable_x64(True):
        frame = jax.jit(jax.vmap(lambda r: geometry.principal_frame(r, masses)))
        f, turned = np.asarray(frame(x)), np.asarray(frame(x @ np.swapaxes(turns, 1, 2)))
        moment = np.asarray(jax.vmap(geometry.chain_moment)(x))
        centred = np.asarray(jax.vmap(lambda r: geometry.center(r, masses))(x))
        gap, sign = map(np.asarray, jax.vmap(lambda r: geometry.frame_margins(r, masses))(x))
    assert np.allclose(np.linalg.det(f), 1)
    fine = (gap > 1e-3) & (sign > 1e-6)
    assert fine.mean() > 0.9
    np.testing.assert_allclose(turned[fine], (f @ np.swapaxes(turns, 1, 2))[fine], atol=1e-11)
    assert (np.einsum("fki,fi->fk", f, moment)[:, : n_dims - 1] >= 0).all()
    weights = np.ones(12) if masses is None else masses
    assert np.abs(np.einsum("i,fik->fk", weights, centred)).max() < 1e-11
    extents = np.einsum("b,fbk->fk", weights, (centred @ np.swapaxes(f, 1, 2)) ** 2)
    assert (np.diff(extents, axis=1) <= 1e-9).all()


def test_mirror_frame_gives_mirror_images_one_set_of_coordinates():
    rng = np.random.default_rng(3)
    for n_dims in (2, 3):
        x = walks(rng, 50, 9, n_dims).astype(np.float32)
        image = x * np.array([1.0] * (n_dims - 1) + [-1.0], np.float32)
        plain, mirrored = (
            jax.jit(jax.vmap(lambda r, m=m: geometry.in_principal_frame(r, mirror=m))) for m in (False, True)
        )
        np.testing.assert_allclose(mirrored(x), mirrored(image), atol=2e-5)
        assert (np.abs(np.asarray(plain(x)) - plain(image)).max((1, 2)) > 0.1).all()


def test_frame_margins_are_zero_where_undefined_and_one_where_best():
    square = jnp.asarray([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    assert geometry.frame_margins(square)[0] < 1e-6
    rod = jnp.stack([jnp.arange(8.0), jnp.zeros(8), jnp.zeros(8)], axis=1)
    gap, moment = geometry.frame_margins(rod)
    assert gap == 0  # the two short axes
    assert moment == 0  # nothing lies along the second axis that could sign it
    gap, moment = geometry.frame_margins(rod[:, :2])
    assert gap == pytest.approx(1)
    assert moment == pytest.approx(1)
    hairpin = jnp.asarray([[0.0, 0], [2, 0], [2, 0.2], [0, 0.2]])
    assert geometry.frame_margins(hairpin)[1] < 1e-6


def test_sign_and_mirror_options_are_checked():
    x = jnp.eye(3)
    with pytest.raises(ValueError, match="sign must be"):
        geometry.principal_frame(x, sign="end")
    with pytest.raises(ValueError, match='needs sign="chain"'):
        geometry.principal_frame(x, sign="none", mirror=True)


@pytest.mark.parametrize("n_beads", [1, 2, 3, 8, 11])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_canonical_order_of_chain_and_reverse_is_one_array_bit_for_bit(n_beads, n_dims):
    rng = np.random.default_rng(4)
    x = walks(rng, 1000, n_beads, n_dims).astype(np.float32) + np.float32(7)
    near = x + x[:, ::-1] @ np.diag([-1.0] + [1.0] * (n_dims - 1)).astype(np.float32)
    near += 1e-6 * rng.normal(size=x.shape).astype(np.float32)  # its own reversal but for a few last bits
    order = jax.jit(jax.vmap(geometry.canonical_order))
    if n_beads > 2:
        assert (np.asarray(order(near)) == np.asarray(order(near[:, ::-1]))).all()
    forward, backward = np.asarray(order(x)), np.asarray(order(x[:, ::-1]))
    if n_beads > 2 or n_dims == 3:
        assert ((forward == x).all((1, 2)) | (forward == x[:, ::-1]).all((1, 2))).all()
    if n_beads > 2:  # two beads are their own reversal, turned
        assert (forward == backward).all()
        assert 0.3 < (forward == x).all((1, 2)).mean() < 0.7


def test_canonical_order_tells_a_c_shape_in_the_plane_however_it_is_turned():
    angle = np.linspace(-2, 2, 9)
    c = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    order = jax.jit(geometry.canonical_order)
    for turn in rotations(np.random.default_rng(5), 20, 2):
        x = (c @ turn.T).astype(np.float32)
        forward, backward = np.asarray(order(x)), np.asarray(order(x[::-1]))
        assert (forward == x).all()
        assert (backward == x).all()


def test_shape_measures_on_known_bodies():
    rod = jnp.stack([jnp.arange(5.0), jnp.zeros(5), jnp.zeros(5)], axis=1)
    assert pv.radius_of_gyration(rod) == pytest.approx(np.sqrt(2))
    assert pv.end_to_end(rod) == 4
    assert pv.asphericity(rod) == pytest.approx(2)  # Rg^2
    assert pv.shape_anisotropy(rod) == pytest.approx(1)
    assert pv.acylindricity(rod) == pytest.approx(0, abs=1e-6)
    tetrahedron = jnp.asarray([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    assert pv.asphericity(tetrahedron) == pytest.approx(0, abs=1e-6)
    assert pv.shape_anisotropy(tetrahedron) == pytest.approx(0, abs=1e-6)
    polygon = jnp.stack([jnp.cos(jnp.arange(6) * jnp.pi / 3), jnp.sin(jnp.arange(6) * jnp.pi / 3)], axis=1)
    assert pv.asphericity(polygon) == pytest.approx(0, abs=1e-6)
    flat = jnp.pad(polygon, ((0, 0), (0, 1)))
    assert pv.acylindricity(flat) == pytest.approx(0.5)
    assert pv.shape_anisotropy(flat) == pytest.approx(0.25)  # a ring
    with pytest.raises(ValueError, match="3-D"):
        pv.acylindricity(polygon)


def test_mass_weights_equal_repeated_beads():
    rng = np.random.default_rng(6)
    x, masses = rng.normal(size=(5, 3)).astype(np.float32), np.array([1, 2, 1, 3, 1])
    repeated = np.repeat(x, masses, axis=0)
    for measure in (pv.radius_of_gyration, pv.asphericity, pv.shape_anisotropy, geometry.center_of_mass):
        np.testing.assert_allclose(measure(x, masses.astype(float)), measure(repeated), rtol=1e-5)
    reference = rng.normal(size=(5, 3)).astype(np.float32)
    assert pv.rmsd(x, reference, masses.astype(float)) == pytest.approx(
        float(pv.rmsd(repeated, np.repeat(reference, masses, axis=0))), rel=1e-5
    )


def test_contacts_count_pairs_by_distance():
    x = jnp.asarray([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    assert pv.contacts(x, 1.0) == pytest.approx(0.5)  # the one pair three bonds apart, at the cutoff
    assert pv.contacts(x, 10.0, separation=1) == pytest.approx(6, abs=1e-3)
    assert pv.contacts(x, 0.1, separation=1) == pytest.approx(0, abs=1e-4)
    assert pv.contacts(x[:1], 1.0) == 0


def test_ideal_chains_have_their_closed_form_size():
    """<Rg^2> = b^2 (N^2 - 1) / (6 N) and <R^2> = b^2 (N - 1), within 5 standard errors."""
    rng = np.random.default_rng(7)
    b = 0.7
    for n_beads, n_dims in ((12, 2), (12, 3), (50, 3)):
        bonds = rng.normal(size=(20_000, n_beads - 1, n_dims))
        bonds *= b / np.linalg.norm(bonds, axis=2, keepdims=True)
        x = np.concatenate([np.zeros((20_000, 1, n_dims)), np.cumsum(bonds, axis=1)], axis=1).astype(np.float32)
        for measure, expected in (
            (pv.radius_of_gyration, b**2 * (n_beads**2 - 1) / (6 * n_beads)),
            (pv.end_to_end, b**2 * (n_beads - 1)),
        ):
            squared = np.asarray(jax.jit(jax.vmap(measure))(x), np.float64) ** 2
            error = squared.std(ddof=1) / np.sqrt(len(squared))
            print(
                f"{measure.__name__} N={n_beads} d={n_dims}: {squared.mean():.4f} +- {error:.4f}, {expected:.4f}"
            )
            assert abs(squared.mean() - expected) < 5 * error


def test_rmsd_is_the_textbook_one_and_zero_for_the_same_conformation():
    rng = np.random.default_rng(8)
    for n_dims in (2, 3):
        x, reference = walks(rng, 2, 10, n_dims)
        a, b = x - x.mean(0), reference - reference.mean(0)
        turn, _ = svd_rotation(b.T @ a)
        expected = np.sqrt(np.mean(np.sum((a @ turn.T - b) ** 2, axis=1)))
        with jax.enable_x64(True):
            assert pv.rmsd(x, reference) == pytest.approx(expected, rel=1e-12)
            moved = x @ rotations(rng, 1, n_dims)[0].T + 3
            assert pv.rmsd(moved, x) < 1e-12
            image = x * np.array([-1.0] + [1.0] * (n_dims - 1))
            assert pv.rmsd(image, x) > 0.1


def test_superposition_margin_is_small_near_a_mirror_image():
    rng = np.random.default_rng(9)
    for n_dims in (2, 3):
        x = walks(rng, 1, 10, n_dims)[0].astype(np.float32)
        assert superposition.superposition_margin(x, x) > 0.1 / n_dims
        rod = np.zeros((5, n_dims), np.float32)
        rod[:, 0] = np.arange(5)
        assert superposition.superposition_margin(rod, rod) == pytest.approx(0.0 if n_dims == 3 else 1.0)
    cross = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
    assert superposition.superposition_margin(cross * np.float32([1, -1]), cross) < 1e-6


def test_mean_structure_depends_on_neither_orientation_order_nor_start():
    rng = np.random.default_rng(10)
    for n_dims in (2, 3):
        shape = walks(rng, 1, 12, n_dims)
        x = (shape + 0.2 * rng.normal(size=(300, 12, n_dims))).astype(np.float32)
        mean = superposition.mean_structure(x)
        moved = (x @ np.swapaxes(rotations(rng, 300, n_dims), 1, 2) + rng.normal(size=(300, 1, n_dims)))[::-1]
        again = superposition.mean_structure(moved.astype(np.float32))
        size = np.sqrt(np.mean(mean**2))
        assert float(pv.rmsd(again.astype(np.float32), mean.astype(np.float32))) < 1e-4 * size
        assert float(pv.rmsd(mean.astype(np.float32), shape[0].astype(np.float32))) < 0.1 * size
        weights = rng.integers(1, 4, size=300)
        weighted = superposition.mean_structure(x, weights=weights)
        repeated = superposition.mean_structure(np.repeat(x, weights, axis=0))
        np.testing.assert_allclose(weighted, repeated, atol=1e-4 * size)


@pytest.mark.parametrize("n_beads", [2, 3, 12, 101])
def test_grid_rounding_has_an_exactly_zero_sum_and_moves_nothing_by_more_than_a_step(n_beads):
    x = np.random.default_rng(n_beads).normal(size=(n_beads, 3))
    counts = superposition.round_to_grid(x, 1e-3)
    assert (counts == np.rint(counts)).all()
    assert (counts.sum(0) == 0).all()
    assert np.abs(counts * 1e-3 - (x - x.mean(0))).max() < 1.51e-3
    text = [[f"{c:8.3f}" for c in row] for row in counts * 1e-3]
    assert (np.array(text, float) == np.array([[float(c) for c in row] for row in counts]) / 1000).all()


def test_grid_rounding_refuses_what_a_pdb_column_cannot_hold():
    with pytest.raises(pv.InputError, match="pdb_grid=False"):
        superposition.round_to_grid(np.array([[-2000.0, 0], [2000, 0]]), 1e-3)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_exact_distances_give_the_conformation_back_up_to_a_mirror_image(n_dims):
    rng = np.random.default_rng(11)
    x = walks(rng, 20, 10, n_dims).astype(np.float32)
    pairs = np.stack(np.triu_indices(10, 1), axis=1)
    d = jax.vmap(lambda r: geometry.distances(r, pairs))(x)
    back = jax.jit(jax.vmap(lambda v: coordinates_from_distances(v, pairs, 10, n_dims)))(d)
    expected = jax.vmap(lambda r: geometry.in_principal_frame(r, mirror=True))(x)
    again = jax.vmap(lambda r: geometry.distances(r, pairs))(back)
    np.testing.assert_allclose(again, d, atol=2e-4)
    gap, moment = jax.vmap(lambda r: geometry.frame_margins(r, mirror=True))(x)
    fine = (np.asarray(gap) > 0.05) & (np.asarray(moment) > 0.02)
    assert fine.sum() >= 5
    np.testing.assert_allclose(np.asarray(back)[fine], np.asarray(expected)[fine], atol=2e-3)


@pytest.mark.long
def test_refinement_lowers_the_stress_of_impossible_and_of_missing_distances():
    rng = np.random.default_rng(12)
    x = walks(rng, 1, 10, 3)[0].astype(np.float32)
    pairs = np.stack(np.triu_indices(10, 1), axis=1)
    exact = geometry.distances(x, pairs)
    noisy = jnp.abs(exact + 0.3 * rng.normal(size=len(pairs)).astype(np.float32))

    def stress(d, chosen, n):
        y = coordinates_from_distances(d, chosen, 10, 3, refinements=n)
        return float(jnp.sum((geometry.distances(y, chosen) - d) ** 2))

    assert stress(noisy, pairs, 100) < 0.9 * stress(noisy, pairs, 0)
    some = pairs[:, 1] - pairs[:, 0] <= 5
    assert stress(exact[some], pairs[some], 1000) < 0.02 * stress(exact[some], pairs[some], 0)
    gradient = jax.grad(lambda d: pv.radius_of_gyration(coordinates_from_distances(d, pairs, 10, 3)))(exact)
    assert np.isfinite(gradient).all()
    # Scaling all distances scales the radius: Euler's theorem for the derivative.
    assert float(gradient @ exact) == pytest.approx(float(pv.radius_of_gyration(x)), rel=0.05)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_angles_are_exact_also_when_straight(n_dims):
    """Against the arc cosine in float64; next to 0 and pi, where that has no digits, against the construction."""
    x = walks(np.random.default_rng(0), 200, 3, n_dims)
    u, v = x[:, 0] - x[:, 1], x[:, 2] - x[:, 1]
    expected = np.arccos((u * v).sum(axis=1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1))
    found = jax.vmap(lambda frame: geometry.angles(frame, [[0, 1, 2]])[0])(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    for small in (0.0, 1e-5, 1e-3):
        for sign, angle in ((1, small), (-1, np.pi - small)):
            bent = np.zeros((3, n_dims), np.float32)
            bent[0, 0], bent[2, :2] = 1, (sign * np.cos(small), np.sin(small))
            assert geometry.angles(bent, [[0, 1, 2]])[0] == pytest.approx(angle, abs=2e-7)
            assert np.isfinite(jax.grad(lambda r: geometry.angles(r, [[0, 1, 2]])[0])(bent)).all()
    same = np.zeros((3, n_dims), np.float32)
    assert np.isfinite(jax.grad(lambda r: geometry.angles(r, [[0, 1, 2]])[0])(same)).all()

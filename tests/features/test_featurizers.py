"""Featurizers: options, fit, errors, symmetries, and their life inside a latent CV."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ideal_chains
from models import features_of as features
from models import untrained

import polyvae as pv
from polyvae import geometry
from polyvae.features import continuity, featurizers


def blob(n_frames=300, n_beads=8, n_dims=2, seed=0, **options):
    """Conformations spread about one shape, as a trajectory."""
    rng = np.random.default_rng(seed)
    shape = np.cumsum(rng.normal(size=(n_beads, n_dims)), axis=0)
    return pv.Trajectory(shape + 0.3 * rng.normal(size=(n_frames, n_beads, n_dims)), **options)


def quick_fit(traj, featurizer):
    return pv.fit(traj, featurizer=featurizer, epochs=2, batch_size=64, encoder=(8,), decoder=(8,))


ALL = [
    pv.PrincipalAxes(),
    pv.PrincipalAxes(sign="none"),
    pv.PrincipalAxes(mirror=True),
    pv.PrincipalAxes(reversal=True),
    pv.Reference(),
    pv.Reference(planar="3d"),
    pv.Reference(pdb_grid=True),
    pv.Reference(mirror=True, reversal=True),
    pv.PairDistances(),
    pv.PairDistances(every=2),
    pv.PairDistances(max_pairs=9, reversal=True),
]


@pytest.mark.parametrize(
    "featurizer",
    [f if k in (0, 7, 10) else pytest.param(f, marks=pytest.mark.slow) for k, f in enumerate(ALL)],
    ids=continuity.describe,
)
def test_a_saved_model_featurizes_as_before(tmp_path, featurizer):
    masses = [1.0, 2, 3, 4, 4, 3, 2, 1] if featurizer.coordinates else None
    traj = blob(n_dims=3 if type(featurizer) is pv.Reference else 2, masses=masses)
    cv = untrained(traj, featurizer=featurizer)
    cv.save(tmp_path / "model.safetensors")
    again = pv.load(tmp_path / "model.safetensors")
    assert type(again.featurizer) is type(featurizer)
    assert (again.transform(traj) == cv.transform(traj)).all()
    for name, value in vars(cv.featurizer).items():
        assert np.array_equal(getattr(again.featurizer, name), value), name


def test_options_are_checked():
    for bad in (
        lambda: pv.PrincipalAxes(sign="end"),
        lambda: pv.PrincipalAxes(sign="none", mirror=True),
        lambda: pv.Reference(planar="flat"),
        lambda: pv.PairDistances(every=0),
        lambda: pv.PairDistances(max_pairs=0),
    ):
        with pytest.raises(ValueError, match=r"must be|needs"):
            bad()


def test_reference_is_the_given_structure_in_the_unit_of_the_data():
    traj = blob(length_unit="angstrom")
    given = traj.positions[3]
    by_array = pv.Reference(given).fit(traj)
    by_frame = pv.Reference(traj[3]).fit(traj)
    by_other_unit = pv.Reference(traj[3].to_unit("nm")).fit(traj)
    for fitted in (by_array, by_frame, by_other_unit):
        np.testing.assert_allclose(fitted.structure, given - given.mean(0), atol=1e-5)
    at_home = features(by_array, traj.positions)[3].reshape(-1, 2)
    np.testing.assert_allclose(at_home, given - given.mean(0), atol=1e-5)
    # A fitted reference stays as it is on other data.
    again = by_array.fit(blob(seed=5, length_unit="angstrom"))
    np.testing.assert_allclose(again.structure, by_array.structure, atol=1e-6)


def test_reference_names_what_does_not_match():
    traj = blob()
    with pytest.raises(pv.InputError, match=r"\(8, 2\).*\(7, 2\)"):
        pv.Reference(np.zeros((7, 2))).fit(traj)
    with pytest.raises(pv.InputError, match="one frame.*300"):
        pv.Reference(traj).fit(traj)
    with pytest.raises(pv.InputError, match="finite"):
        pv.Reference(np.full((8, 2), np.nan)).fit(traj)
    with pytest.raises(pv.InputError, match="sigma"):
        pv.Reference(traj[0]).fit(blob(length_unit="nm"))
    with pytest.raises(pv.InputError, match=r"\.fit\(traj\)"):
        pv.Reference()(traj.positions[0])


@pytest.mark.parametrize(("unit", "step"), [("angstrom", 1e-3), ("nm", 1e-4), ("sigma", 1e-3)])
def test_reference_on_the_pdb_grid_is_what_the_file_holds(unit, step):
    traj = blob(n_dims=3, length_unit=unit)
    fitted = pv.Reference(pdb_grid=True).fit(traj)
    assert fitted.step == step
    assert (np.asarray(fitted.template()).sum(0) == 0).all()
    # What a reader of the file gets: the printed decimals, in double precision.
    in_file = np.array([[float(f"{x / step / 1000:8.3f}") for x in row] for row in np.asarray(fitted.structure)])
    with jax.enable_x64(True):
        x = traj.positions[0].astype(np.float64)
        ours = np.asarray(fitted(x)).reshape(-1, 3)
    a, b = x - x.mean(0), in_file - in_file.mean(0)
    u, _, vt = np.linalg.svd(b.T @ a)
    u[:, -1] *= np.linalg.det(u @ vt)
    np.testing.assert_allclose(ours, a @ (u @ vt).T, atol=1e-14)


def test_planar_3d_is_the_rotation_in_space_of_a_flat_chain():
    rng = np.random.default_rng(1)
    x = np.cumsum(rng.normal(size=(200, 9, 2)), axis=1).astype(np.float32)
    reference = x[0]
    flat = np.pad(x, ((0, 0), (0, 0), (0, 1)))
    in_space = pv.Reference(flat[0]).fit(pv.Trajectory(flat))
    named = pv.Reference(reference, planar="3d").fit(pv.Trajectory(x))
    turned = pv.Reference(reference).fit(pv.Trajectory(x))
    space = features(in_space, flat).reshape(200, 9, 3)
    margin = continuity.margins(pv.Trajectory(x), named)["rotation"]
    fine = margin > 1e-3
    assert fine.sum() > 180
    np.testing.assert_allclose(space[..., :2].reshape(200, -1)[fine], features(named, x)[fine], atol=1e-4)
    assert np.abs(space[..., 2]).max() < 1e-5
    differ = np.abs(features(named, x) - features(turned, x)).max(1) > 1e-3
    assert 0.2 < differ.mean() < 0.8  # about half of all chains are closer turned over


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("kind", [pv.PrincipalAxes, pv.Reference])
def test_mirror_images_differ_unless_asked(kind, n_dims):
    traj = blob(n_dims=n_dims)
    image = traj.positions * np.array([1.0] * (n_dims - 1) + [-1.0], np.float32)
    plain, mirrored = kind().fit(traj), kind(mirror=True).fit(traj)
    assert (np.abs(features(plain, traj.positions) - features(plain, image)).max(1) > 0.1).all()
    margin = min(values.min() for values in continuity.margins(traj, mirrored).values())
    assert margin > 0
    np.testing.assert_allclose(features(mirrored, traj.positions), features(mirrored, image), atol=1e-4)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_distances_are_the_same_for_mirror_images(n_dims):
    traj = blob(n_dims=n_dims)
    image = traj.positions * np.array([1.0] * (n_dims - 1) + [-1.0], np.float32)
    fitted = pv.PairDistances().fit(traj)
    np.testing.assert_array_equal(features(fitted, traj.positions), features(fitted, image))


@pytest.mark.parametrize(
    "featurizer",
    [
        pv.PrincipalAxes(reversal=True),
        pytest.param(pv.Reference(reversal=True), marks=pytest.mark.slow),
        pytest.param(pv.PairDistances(reversal=True), marks=pytest.mark.slow),
    ],
    ids=continuity.describe,
)
@pytest.mark.parametrize("n_dims", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_reversal_gives_exactly_equal_latents_for_a_chain_and_its_reverse(featurizer, n_dims):
    rng = np.random.default_rng(2)
    traj = pv.Trajectory(np.cumsum(rng.normal(size=(1000, 12, n_dims)), axis=1))
    cv = untrained(traj, featurizer=featurizer)
    forward, backward = cv.transform(traj), cv.transform(traj.positions[:, ::-1])
    assert (forward == backward).all()
    assert forward.std(0).min() > 0
    plain = untrained(traj, featurizer=dataclasses.replace(featurizer, reversal=False))
    assert np.abs(plain.transform(traj) - plain.transform(traj.positions[:, ::-1])).max() > 1e-3
    one = jax.jit(cv)
    assert (one(traj.positions[0]) == one(traj.positions[0][::-1])).all()


def test_reversal_needs_ends_that_cannot_be_told_apart():
    traj = blob(masses=[1.0, 1, 1, 1, 1, 1, 2, 1])
    for kind in (pv.PrincipalAxes, pv.Reference):
        with pytest.raises(pv.InputError, match="bead 1 .*partner 6 2"):
            kind(reversal=True).fit(traj)
    with pytest.raises(pv.InputError, match="both ends"):
        continuity.with_images(traj, reversal=True)


def test_images_stand_beside_their_frame_and_share_its_weight():
    traj = blob(n_frames=5, n_dims=3, weights=np.arange(1.0, 6))
    both = continuity.with_images(traj, mirror=True, reversal=True)
    assert both.n_frames == 20
    assert both.segments == (1,) * 20
    np.testing.assert_allclose(both.weights.reshape(5, 4).sum(1), traj.weights)
    four = both.positions.reshape(5, 4, 8, 3)
    assert (four[:, 0] == traj.positions).all()
    assert (four[:, 1] == traj.positions[:, ::-1]).all()
    assert (four[:, 2] == traj.positions * np.float32([1, 1, -1])).all()
    assert (four[:, 3] == traj.positions[:, ::-1] * np.float32([1, 1, -1])).all()


def test_pairs_are_all_or_a_stated_subset():
    traj = blob(n_beads=9)
    every = pv.PairDistances().fit(traj)
    assert every.pairs.shape == (36, 2)
    third = pv.PairDistances(every=3).fit(traj)
    assert np.asarray(third.pairs).tolist() == [[0, 3], [0, 6], [3, 6]]
    few = pv.PairDistances(max_pairs=5).fit(traj)
    assert few.pairs.shape == (5, 2)
    assert len(np.unique(few.pairs, axis=0)) == 5
    own = pv.PairDistances(np.array([[0, 8], [2, 3]])).fit(traj)
    x = traj.positions[0]
    expected = [np.linalg.norm(x[0] - x[8]), np.linalg.norm(x[2] - x[3])]
    np.testing.assert_allclose(own(x), expected, rtol=1e-6)


def test_pairs_that_make_no_sense_are_named():
    traj = blob(n_beads=3)
    for pairs in ([[0, 3]], [[1, 1]], [[-1, 0]]):
        with pytest.raises(pv.InputError, match="different beads .*0 to 2"):
            pv.PairDistances(np.array(pairs)).fit(traj)
    with pytest.raises(pv.InputError, match=r"shape \(n_pairs, 2\)"):
        pv.PairDistances(np.zeros((2, 2))).fit(traj)
    with pytest.raises(pv.InputError, match="no pair is left"):
        pv.PairDistances(every=5).fit(traj)
    with pytest.raises(pv.InputError, match="no pair is left"):
        pv.PairDistances().fit(blob(n_beads=1))
    with pytest.raises(pv.InputError, match=r"\.fit\(traj\)"):
        pv.PairDistances()(traj.positions[0])


def test_distances_have_a_scale_each_that_keeps_stiff_bonds_quiet():
    traj = blob()
    x = np.array(traj.positions)
    x[:, 1] = x[:, 0] + [1, 0]  # a rigid bond
    cv = quick_fit(pv.Trajectory(x), pv.PairDistances())
    assert cv.scale.shape == cv.mean.shape == (28,)
    standard = np.asarray(jax.vmap(cv.standardize)(x))
    assert np.abs(standard[:, 0]).max() < 0.01
    np.testing.assert_allclose(standard[:, 1:].std(0), 1, atol=0.15)
    with pytest.raises(pv.InputError, match="learned"):
        pv.fit(traj, featurizer=pv.PairDistances(), width=0.1)


def test_decode_gives_distances_and_coordinates_where_asked():
    traj = blob(n_dims=3)
    cv = quick_fit(traj, pv.PairDistances())
    z = cv.transform(traj[:10])
    d, x = cv.decode(z), cv.decode(z, coordinates=True)
    assert d.shape == (10, 28)
    assert (d >= 0).all()
    assert x.shape == (10, 8, 3)
    # Averages of distances belong to no conformation, but nearly.
    assert np.sqrt(np.mean((features(cv.featurizer, x) - d) ** 2)) < 0.1 * d.mean()
    other = quick_fit(traj, pv.Reference())
    assert (other.decode(z) == other.decode(z, coordinates=True)).all()


def test_coordinates_from_too_few_distances_are_refused_by_name():
    traj = blob()
    pairs = np.array([[0, 1], [2, 3], [1, 4]])
    for featurizer in (pv.PairDistances(every=2, max_pairs=2), pv.PairDistances(pairs)):
        cv = untrained(traj, featurizer=featurizer)
        assert cv.decode(cv.transform(traj[:2])).shape == (2, len(cv.featurizer.pairs))
        with pytest.raises(pv.InputError, match=r"bead [24] .*not joined"):
            cv.decode(cv.transform(traj[:2]), coordinates=True)


def test_between_the_beads_with_distances_a_chain_is_straight():
    """A chain that is straight there anyway comes back, be its last bead among those with distances or not."""
    for n_beads in (13, 15):
        x = ideal_chains(1, 6, 3)[0]
        place = np.arange(n_beads) / 3
        left = np.minimum(place.astype(int), (n_beads - 1) // 3 - 1)
        x = x[left] + (place - left)[:, None] * (x[left + 1] - x[left])
        fitted = pv.PairDistances(every=3).fit(pv.Trajectory(x[None]))
        y = fitted.inverse(fitted(x), 3)
        every = pv.PairDistances().fit(pv.Trajectory(x[None]))
        np.testing.assert_allclose(every(y), every(x), atol=1e-4)


def test_of_a_long_chain_every_so_many_beads_are_taken():
    """And no list of all pairs is made: of 100,000 beads it would have 5 10^9 rows."""
    for n_beads, every, n_pairs in ((100, None, 4950), (101, 2, 1275), (500, 5, 4950), (100_000, 1000, 4950)):
        fitted = pv.PairDistances().fit(pv.Trajectory(np.zeros((1, n_beads, 2))))
        assert (fitted.every, len(fitted.pairs)) == (every, n_pairs)
        again = pv.PairDistances(every=every).fit(pv.Trajectory(np.zeros((1, n_beads, 2))))
        assert (again.pairs == fitted.pairs).all()
    many = pv.PairDistances(max_pairs=10).fit(pv.Trajectory(np.zeros((1, 100_000, 2))))
    assert np.asarray(many.pairs).tolist()[::9] == [[0, 1], [99_998, 99_999]]


def test_more_pairs_than_can_be_trained_on_are_refused_before_they_are_listed():
    traj = pv.Trajectory(np.zeros((1, 100_000, 2)))
    for featurizer in (pv.PairDistances(every=1), pv.PairDistances(max_pairs=10**9)):
        with pytest.raises(pv.InputError, match=r"pairs of 100,000 beads .* .200,000.; .*--every 1000.*--select"):
            featurizer.fit(traj)


@pytest.mark.parametrize(
    "featurizer",
    [ALL[0], pytest.param(ALL[6], marks=pytest.mark.slow), pytest.param(ALL[7], marks=pytest.mark.slow), ALL[9]],
    ids=continuity.describe,
)
def test_one_and_two_beads(featurizer):
    for n_beads in (1, 2):
        for n_dims in (2, 3):
            traj = blob(n_frames=50, n_beads=n_beads, n_dims=n_dims)
            if not featurizer.coordinates and -(-n_beads // (featurizer.every or 1)) < 2:
                with pytest.raises(pv.InputError, match="no pair is left"):
                    featurizer.fit(traj)
                continue
            fitted = featurizer.fit(traj)
            assert np.isfinite(features(fitted, traj.positions)).all()


def test_features_of_a_batch_of_units_scale():
    traj = blob(n_dims=3, length_unit="nm")
    for featurizer in (pv.PrincipalAxes(), pv.Reference(), pv.PairDistances()):
        nm = features(featurizer.fit(traj), traj.positions)
        angstrom = traj.to_unit("angstrom")
        np.testing.assert_allclose(
            features(featurizer.fit(angstrom), angstrom.positions) / 10, nm, atol=1e-5 * np.abs(nm).max()
        )


def test_every_featurizer_is_registered_under_its_name():
    assert set(featurizers.FEATURIZERS) == {"PrincipalAxes", "Reference", "PairDistances"}
    for name, kind in featurizers.FEATURIZERS.items():
        assert kind is getattr(pv, name)


def test_principal_axes_stay_what_they_were():
    """The default featurizer, spelt out: saved models depend on it."""
    x = blob(n_dims=3).positions[0].astype(np.float64)
    with jax.enable_x64(True):
        ours = np.asarray(pv.PrincipalAxes()(jnp.asarray(x))).reshape(-1, 3)
    r = x - x.mean(0)
    axes = np.linalg.eigh(r.T @ r)[1].T[::-1]
    axes = axes * np.sign(axes @ ((np.arange(8) - 3.5) @ r))[:, None]
    axes[2] = np.cross(axes[0], axes[1])
    np.testing.assert_allclose(ours, r @ axes.T, atol=1e-12)
    assert geometry.frame_margins(x.astype(np.float32))[0] > 0.01

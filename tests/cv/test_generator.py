"""The generator beside a CV: closed forms of its arithmetic, and what `sample` promises."""

import dataclasses
import functools
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from conftest import ideal_chains, in_3d
from models import untrained

import polyvae as pv
import polyvae.measures
from polyvae.cv import diffusion, generator
from polyvae.cv.diffusion import Generator, draw_frames, draw_latents, network_for
from polyvae.trajectory.record import bonded_triples, chain_bonds
from polyvae.vae.splits import validation_blocks

SMALL = {"steps": 500, "batch_size": 64, "width": 16, "depth": 1}


def blank(n_beads: int, n_dims: int, **changes) -> Generator:
    """A generator whose network is untrained, and so gives zeros, with tables that change nothing."""
    bonds, shape = chain_bonds(n_beads), (n_beads, n_dims)
    angles, pairs = bonded_triples(bonds), np.stack(np.triu_indices(n_beads, 1), axis=1)
    table = jnp.tile(jnp.linspace(0, 10, 11), (len(bonds) + len(angles), 1))
    parts = {
        "network": network_for(shape, pairs, np.zeros((5, 2)), 8, 1, jax.random.key(0)),
        "scale": jnp.ones(()),
        "pairs": jnp.asarray(pairs),
        "pair_mean": jnp.ones(len(pairs)),
        "pair_std": jnp.ones(len(pairs)),
        "closest": jnp.asarray(1e-3),
        "bonds": jnp.asarray(bonds),
        "angles": jnp.asarray(angles),
        "drawn": table,
        "real": table,
        "z": jnp.zeros((5, 2)),
        "z_width": jnp.ones((5, 2)),
        "mean": jnp.zeros((6, *shape)),
        "spread": jnp.ones(()),
    }
    return Generator(shape=shape, **parts | changes)


def about_a_centre(spread: float, *shape: int) -> tuple[Generator, np.ndarray, np.ndarray]:
    """A generator whose denoiser starts from a shape quadratic in z, a z, and the shape there."""
    mean = np.random.default_rng(5).normal(size=(6, *shape)).astype(np.float32)
    mean -= mean.mean(axis=1, keepdims=True)
    z = np.array([0.5, -2.0], np.float32)
    centre = np.tensordot([1, 0.5, -2, 0.25, -1, 4], mean, 1).astype(np.float32)
    return blank(*shape, mean=jnp.asarray(mean), spread=jnp.asarray(spread)), z, centre


@pytest.mark.parametrize("spread", [1.0, 0.05])
@pytest.mark.parametrize("noise", [0.01, 0.3, 8.0])
def test_the_loss_without_a_network_is_that_of_normal_data(noise, spread):
    """Of data normal about the centre at z, alike in each coordinate, the best denoiser is what a network of zeros
    leaves; its weighted error is 1 for each degree of freedom."""
    (g, z, centre), n = about_a_centre(spread, 6, 3), 4000
    x = np.random.default_rng(0).normal(size=(n, 6, 3)).astype(np.float32)
    x = centre + spread * (x - x.mean(axis=1, keepdims=True))
    keys = jax.random.split(jax.random.key(1), n)
    losses = np.asarray(jax.vmap(g.loss, (0, None, None, 0))(x, z, jnp.float32(noise), keys))
    assert losses.mean() == pytest.approx(15, abs=5 * losses.std() / np.sqrt(n))


@pytest.mark.parametrize("spread", [1.0, 0.05, 0.01])
def test_sampling_without_a_network_gives_normal_data(spread):
    """The sampler against its exact result: coordinates of one variance, independent but for the centre."""
    (g, z, centre), n = about_a_centre(spread, 4, 2), 4000
    x = draw_frames(g, jax.random.key(0), np.tile(z, (n, 1)), raw=True)
    np.testing.assert_allclose(x.mean(axis=1), 0, atol=1e-5)
    x = (x - centre) / spread
    covariance = np.cov(x.reshape(n, -1).T)
    expected = np.kron(np.eye(4) - 1 / 4, np.eye(2))
    # Steps of finite size widen or narrow by some hundredths at most.
    np.testing.assert_allclose(covariance, expected, atol=0.04 + 5 / np.sqrt(n))
    assert np.trace(covariance) == pytest.approx(6, rel=0.03)
    assert abs(x.mean(axis=0)).max() < 5 / np.sqrt(n)


def test_settling_keeps_what_is_right(traj):
    g, x = blank(8, traj.n_dims), traj.positions[:20]
    np.testing.assert_allclose(jax.vmap(g.settle)(x), x, atol=2e-4)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_settling_gives_bonds_and_angles_of_the_same_rank(n_dims):
    """Bonds a tenth too short and angles a twentieth too wide are put right, and mirror images stay apart."""
    t = np.arange(8)
    turns = np.cumsum([0, 0.9, -0.7, 0.8, 0.9, -1, 0.7])
    steps = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    x = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    if n_dims == 3:
        x = np.stack([np.cos(1.4 * t), np.sin(1.4 * t), 0.4 * t], axis=1)
    g = blank(8, n_dims)
    g = dataclasses.replace(g, real=g.drawn * np.r_[[1.1] * 7, [0.95] * 6][:, None].astype(np.float32))
    before = np.asarray(g.internal(jnp.asarray(x, jnp.float32)))
    y = np.asarray(g.settle(jnp.asarray(x, jnp.float32)))
    after = np.asarray(g.internal(jnp.asarray(y)))
    np.testing.assert_allclose(after[:7], 1.1 * before[:7], atol=0.01)
    np.testing.assert_allclose(after[7:13], 0.95 * before[7:13], atol=0.02)
    mirror = np.r_[-1, np.ones(n_dims - 1)]
    np.testing.assert_allclose(g.settle(jnp.asarray(x * mirror, jnp.float32)), y * mirror, atol=1e-4)


def test_settling_gives_a_size_of_the_same_rank(traj):
    """A ninth less of Rg, bonds and angles kept; tables without its row, as older files have, leave Rg alone."""
    g, x = blank(8, traj.n_dims), jnp.asarray(traj.positions[0])
    row = g.drawn[:1]
    sized = dataclasses.replace(
        g, drawn=jnp.concatenate([g.drawn, row]), real=jnp.concatenate([g.real, row * (8 / 9)])
    )
    before, after, old = (np.asarray(g.internal(y)) for y in (x, sized.settle(x), g.settle(x)))
    # Seven bonds hold against one size, so that neither is met to the last digit.
    assert after[-1] / before[-1] == pytest.approx(8 / 9, abs=0.04)
    np.testing.assert_allclose(after[:7], before[:7], rtol=0.08)
    assert old[-1] == pytest.approx(before[-1], abs=1e-3)


def test_settling_parts_beads_that_overlap():
    x = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.1], [0, 0.2, 0.1], [-1, 0.2, 0.1]], np.float32)
    y = np.asarray(blank(6, 3, closest=jnp.asarray(0.8)).settle(jnp.asarray(x)))
    apart = np.linalg.norm(y[:, None] - y[None], axis=2)[np.triu_indices(6, 2)]
    assert apart.min() > 0.79
    assert np.linalg.norm(x[4] - x[0]) < 0.3


@pytest.fixture(scope="module")
def model(cv, traj):
    return pv.fit_generator(cv, traj, **SMALL)


def test_the_cv_is_what_it_was(cv, model, traj):
    np.testing.assert_array_equal(model.transform(traj), cv.transform(traj))
    assert model.record["settings"] == cv.record["settings"]
    assert "with a generator" in repr(model)
    assert cv.generator is None


@in_3d
def test_training_lowers_the_loss_and_repeats(cv, model, traj):
    found = model.record["generator"]
    assert found["history"]["val_loss"][1] < found["history"]["val_loss"][0]
    assert found["history"]["loss"][1] < 0.95 * found["history"]["loss"][0]
    assert found["best_step"] == 500
    again = pv.fit_generator(cv, traj, **SMALL)
    for one, two in zip(jax.tree.leaves(again.generator), jax.tree.leaves(model.generator), strict=True):
        np.testing.assert_array_equal(one, two)
    other = pv.fit_generator(cv, traj, **SMALL, seed=1).generator.network.first.weight
    assert not np.array_equal(other, model.generator.network.first.weight)


def test_samples(model, traj):
    drawn = pv.sample(model, 600, seed=1)
    assert drawn.positions.shape == (600, 8, model.n_dims)
    assert drawn.segments == (1,) * 600
    np.testing.assert_allclose(drawn.positions, model.align(drawn), atol=1e-4)  # in the featurizer's frame
    # A frame depends on the seed and its number, and not on how many are drawn.
    np.testing.assert_array_equal(pv.sample(model, 10, seed=1).positions, drawn.positions[:10])
    assert not np.array_equal(pv.sample(model, 10, seed=2).positions, drawn.positions[:10])
    # However little is learnt, bonds are of lengths that the data have.
    bonds, data = (np.linalg.norm(np.diff(t.positions, axis=1), axis=2) for t in (drawn, traj))
    assert bonds.min() > data.min() - 0.05
    assert bonds.max() < data.max() + 0.05
    np.testing.assert_allclose(np.median(bonds, axis=0), np.median(data, axis=0), rtol=0.15)


@in_3d
def test_samples_at_a_point(model):
    """One point for all is that point for each; the prior does not come in."""
    z = np.array([0.3, -1.0])
    one = pv.sample(model, 5, at=z, seed=3)
    np.testing.assert_array_equal(one.positions, pv.sample(model, 5, at=np.tile(z, (5, 1)), seed=3).positions)
    assert not np.array_equal(one.positions, pv.sample(model, 5, at=-z, seed=3).positions)
    mean = pv.sample(model, 2, at=z, noise=False).positions
    np.testing.assert_array_equal(mean, model.decode(np.tile(z, (2, 1)).astype(np.float32)))


def test_a_decoder_alone_is_sampled_at_a_point_too(cv):
    z = np.array([0.3, -1.0])
    drawn = pv.sample(cv, 4000, at=z, seed=1).positions
    mean, width = cv.decode(z[None].astype(np.float32))[0], float(cv.vae.likelihood.width * cv.scale)
    noise = (drawn - mean) / width
    assert abs(noise.mean(axis=0)).max() < 5 / np.sqrt(4000)
    assert noise.std() == pytest.approx(1, abs=0.02)


@in_3d
def test_the_priors(cv, model, traj):
    """Of the data: kernels on their z, each drawn from as often as any other; normal: N(0, I)."""
    n = len(model.generator.z)
    assert n == len(traj)
    z = draw_latents(model.generator, jax.random.key(0), 2 * n)
    near = np.square(z[:, None] - np.asarray(model.generator.z)[None]).sum(axis=2).argmin(axis=1)
    assert len(np.unique(near)) > 0.7 * n
    data = cv.transform(traj)
    np.testing.assert_allclose(z.mean(axis=0), data.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(np.cov(z.T), np.cov(data.T), atol=0.1)
    default, named, normal = (
        pv.sample(model, 20, **k).positions for k in ({}, {"prior": "data"}, {"prior": "normal"})
    )
    np.testing.assert_array_equal(default, named)
    assert not np.array_equal(default, normal)
    plain = (pv.sample(cv, 20, **k).positions for k in ({}, {"prior": "normal"}))
    np.testing.assert_array_equal(*plain)


def test_the_kernels_are_as_wide_as_the_way_to_the_nearest_point():
    z = np.array([[0.0, 0], [1, 0], [3, 0], [3, 0], [6, 1]])
    points, width = generator._density(z, np.ones(5))
    np.testing.assert_array_equal(points, z)
    sd = z.std(axis=0)
    np.testing.assert_allclose(width, np.array([1, 1, 2, 2, 10**0.5])[:, None] * sd / np.linalg.norm(sd))
    silent = 1e-4 * np.random.default_rng(0).normal(size=(5, 6))
    _, among = generator._density(np.hstack([z, silent]), np.ones(5))
    np.testing.assert_allclose(among[[0, 1, 4], :2], width[[0, 1, 4]], rtol=1e-3)
    assert among[:, 2:].max() < 1e-3
    # Weights count as repetitions: what weighs nothing is not there.
    points, _ = generator._density(z, np.array([0.0, 4, 0, 0, 4]))
    assert {tuple(p) for p in points} == {(1.0, 0.0), (6.0, 1.0)}


@in_3d
def test_saved_and_loaded_it_draws_the_same_bytes(model, cv, tmp_path):
    model.save(tmp_path / "m.safetensors")
    loaded = pv.load(tmp_path / "m.safetensors")
    assert loaded.record.to_dict() == json.loads(json.dumps(model.record.to_dict()))
    assert pv.sample(loaded, 30, seed=4).positions.tobytes() == pv.sample(model, 30, seed=4).positions.tobytes()
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()
    cv.save(tmp_path / "plain.safetensors")
    assert pv.load(tmp_path / "plain.safetensors").generator is None


@pytest.mark.parametrize("name", ["z", "network.last.bias", "pair_mean"])
@in_3d
def test_a_file_whose_generator_is_damaged_is_refused(model, tmp_path, name):
    path = tmp_path / "m.safetensors"
    model.save(path)
    tensors = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        header = file.metadata()
    del tensors[f"generator.{name}"]
    safetensors.numpy.save_file(tensors, path, header)
    with pytest.raises(pv.InputError, match="is damaged"):
        pv.load(path)


@in_3d
def test_a_file_of_before_draws_as_it_did(model, tmp_path):
    path = tmp_path / "m.safetensors"
    model.save(path)
    tensors = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        header = file.metadata()
    assert not tensors.pop("generator.mean").any()
    assert tensors.pop("generator.spread") == 1
    safetensors.numpy.save_file(tensors, path, header)
    np.testing.assert_array_equal(*(pv.sample(m, 20).positions for m in (model, pv.load(path))))


def test_draws_are_settled_to_quantiles_of_all_frames(model, traj):
    """Those held out for the choice of weights, too: of a slow run they are not like the others."""
    g = model.generator
    values = diffusion.internal_of(g, traj.positions / np.float32(g.scale))
    levels = np.linspace(0, 1, g.real.shape[1])
    np.testing.assert_allclose(g.real, np.quantile(values, levels, axis=0).T, rtol=1e-3)
    trained_on = values[~validation_blocks(len(traj), 0.1)]
    assert not np.allclose(g.real, np.quantile(trained_on, levels, axis=0).T, rtol=1e-3)


@in_3d
def test_streams_and_weights(cv, traj, tmp_path, monkeypatch):
    """A stream gives what its frames give in memory, and of a long one evenly spaced frames are taken."""
    pv.write(tmp_path / "run.npz", traj)
    stream = pv.stream([tmp_path / "run.npz"])
    one, two = (pv.fit_generator(cv, data, **SMALL).generator for data in (traj, stream))
    np.testing.assert_array_equal(one.network.last.weight, two.network.last.weight)
    heavy = dataclasses.replace(traj, weights=np.where(np.arange(600) < 300, 1.0, 9.0))
    other = pv.fit_generator(cv, heavy, **SMALL).generator
    assert not np.array_equal(other.network.last.weight, one.network.last.weight)
    late = (np.asarray(other.z)[:, None] == cv.transform(traj)[None, 300:]).all(axis=2).any(axis=1)
    assert late.mean() == pytest.approx(0.9, abs=0.01)
    monkeypatch.setattr(generator, "MAX_FRAMES", 250)
    short = generator._in_memory(cv, stream)
    np.testing.assert_array_equal(short.positions, traj.positions[::3])


@pytest.mark.long
def test_draws_follow_the_weights():
    """Large chains are half of the frames and have a tenth of the weight, and so in the draws."""
    x = ideal_chains(600, 5, 2)
    x[::2] *= 4
    traj = pv.Trajectory(x, weights=np.where(np.arange(600) % 2, 9.0, 1.0))
    model = pv.fit_generator(untrained(traj), traj, **SMALL)
    g = model.generator  # raw draws: what is settled has the Rg of the data, whatever was learnt
    raw = draw_frames(g, jax.random.key(1), draw_latents(g, jax.random.key(2), 1000), raw=True)
    size = np.asarray(jax.vmap(pv.radius_of_gyration)(raw * g.scale))
    own = np.asarray(jax.vmap(pv.radius_of_gyration)(x))
    plain, weighted = own.mean(), np.average(own, weights=traj.weights)
    assert abs(size.mean() - weighted) < 0.15 * abs(plain - weighted)


@pytest.mark.long
@pytest.mark.parametrize(
    "featurizer",
    [pv.PairDistances(), pytest.param(pv.Reference(mirror=True), marks=pytest.mark.slow)],
    ids=["distances", "mirror"],
)
def test_other_featurizers(featurizer):
    traj = pv.Trajectory(ideal_chains(200, 5, 3))
    model = pv.fit_generator(untrained(traj, featurizer=featurizer), traj, **SMALL)
    drawn = pv.sample(model, 10)
    assert np.isfinite(drawn.positions).all()
    assert np.isfinite(model.transform(drawn)).all()


@pytest.mark.long
@pytest.mark.slow
def test_rings_and_branches():
    """A ring of three with a tail: the bond wins where a pair is both a bond and the end of an angle."""
    bonds = np.array([[0, 1], [1, 2], [0, 2], [2, 3]])
    assert bonded_triples(bonds).tolist() == [[1, 0, 2], [0, 1, 2], [0, 2, 1], [0, 2, 3], [1, 2, 3]]
    rng = np.random.default_rng(0)
    x = np.array([[0, 0, 0], [1, 0, 0], [0.5, 0.9, 0], [0.5, 1.9, 0]]) + 0.05 * rng.normal(size=(300, 4, 3))
    traj = pv.Trajectory(x.astype(np.float32), bonds=bonds)
    drawn = pv.sample(pv.fit_generator(untrained(traj), traj, **SMALL), 50).positions
    length = np.linalg.norm(drawn[:, bonds[:, 0]] - drawn[:, bonds[:, 1]], axis=2)
    assert 0.7 < length.min() < length.max() < 1.4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "at least 1"),
        ({"prior": "flat"}, "normal, data.*'flat'"),
        ({"at": [0.0]}, r"\(3, 2\); got \(1,\)"),
        ({"at": np.zeros((2, 2))}, r"\(3, 2\); got \(2, 2\)"),
        ({"at": [0.0, np.nan]}, "finite"),
        ({"at": [1e30, 0.0]}, r"z = 1e\+30,0"),
        ({"at": "here"}, "numbers of shape"),
        ({"at": [0.0, 0.0], "prior": "data"}, "either given or drawn"),
    ],
)
@in_3d
def test_bad_questions(model, options, message):
    with pytest.raises(pv.InputError, match=message):
        pv.sample(model, **{"n": 3} | options)


@in_3d
def test_few_frames_are_one_batch(cv, traj):
    """What sufficed for the CV, in smaller batches, suffices for the generator without more being asked."""
    settings = pv.fit_generator(cv, traj[:100], steps=5, width=8, depth=0).record["generator"]["settings"]
    assert settings["batch_size"] == 90


@pytest.mark.long
def test_a_body_that_z_tells_is_drawn_from_a_fit_on_z():
    """Few frames of many beads, all of one motion: from noise alone the shape could not be learnt."""
    rng = np.random.default_rng(0)
    chain = np.cumsum(rng.normal(size=(2, 24, 3)), axis=1)
    t = np.linspace(-1, 1, 80)[:, None, None]
    body = pv.Trajectory((chain[0] + 0.5 * t * chain[1] + 0.02 * rng.normal(size=(80, 24, 3))).astype(np.float32))
    cv = pv.fit(body, epochs=300, lag=0, featurizer=pv.Reference())
    model = pv.fit_generator(cv, body, steps=200, width=32, depth=2)
    apart = polyvae.measures.ensemble_distances(pv.sample(model, 80), body)
    floor = polyvae.measures.noise_floor(body)
    print(apart, floor, model.generator.spread)
    assert model.generator.spread < 0.1
    assert apart["pairs"] < 2 * floor["pairs"]


def test_a_fit_on_z_is_judged_for_new_frames(model):
    """As many terms as frames fit anything, and tell nothing; chains have more in them than z."""
    rng = np.random.default_rng(0)
    noise, z = rng.normal(size=(54, 20, 3)).astype(np.float32), rng.normal(size=(54, 9)).astype(np.float32)
    for latents in (z, z[:, :5], z[:, :3]):
        assert generator._centre(noise, latents, np.full(54, 1 / 54))[1] == 1
    assert model.generator.spread == 1
    assert not model.generator.mean.any()


@in_3d
def test_training_ends_where_held_out_frames_gain_no_more(cv, traj, monkeypatch):
    """Of twenty frames, which are soon learnt by heart; without validation all steps are done."""
    monkeypatch.setattr(generator, "_STRIDE", 50)
    options = {"steps": 1500, "width": 64, "depth": 1}
    found = pv.fit_generator(cv, traj[:20], **options, validation=0.2).record["generator"]
    looks = len(found["history"]["val_loss"])
    assert looks < 30
    assert looks * 50 - found["best_step"] == 50 * generator._PATIENCE
    whole = pv.fit_generator(cv, traj[:20], **options, validation=0).record["generator"]
    assert len(whole["history"]["loss"]) == 30


@in_3d
def test_what_cannot_be_done_is_said(cv, traj, monkeypatch):
    with pytest.raises(pv.InputError, match="with a generator"):
        pv.sample(cv, 3, prior="data")
    for options, message in (
        ({"steps": 0}, "steps must"),
        ({"width": 0}, "width must"),
        ({"learning_rate": 0.0}, "learning rate must"),
        ({"batch_size": 0}, "batch size must"),
        ({"batch_size": 1000}, "batch of 1000 .*600 .*540"),
    ):
        with pytest.raises(pv.InputError, match=message):
            pv.fit_generator(cv, traj, **options)
    with pytest.raises(pv.InputError, match="beads"):
        pv.fit_generator(cv, traj.positions[:, :5])
    with pytest.raises(pv.InputError, match="lower the learning rate"):
        pv.fit_generator(cv, traj, **SMALL | {"learning_rate": 1e30})
    monkeypatch.setattr(generator, "MAX_BEADS", 5)
    with pytest.raises(pv.InputError, match="at most 5 beads.*got 8"):
        pv.fit_generator(cv, traj)


@pytest.mark.long
def test_from_the_shell(model, traj, tmp_path, monkeypatch, capsys):
    from polyvae.app.cli import main

    model.save(tmp_path / "m.safetensors")
    pv.write(tmp_path / "run.npz", traj)
    monkeypatch.setattr(pv, "fit_generator", functools.partial(pv.fit_generator, **SMALL))

    def call(*words) -> str:
        with pytest.raises(SystemExit) as exit_:
            main([str(word) for word in words])
        assert exit_.value.code == 0, capsys.readouterr().err
        return capsys.readouterr().out

    file = tmp_path / "gen.npz"
    assert "10 conformations of the generator, z of prior data," in call(
        "generate", tmp_path / "m.safetensors", "-n", 10, "--out", file
    )
    np.testing.assert_array_equal(pv.read(file).positions, pv.sample(model, 10).positions)
    assert "z = [-1.0, 0.5]," in call(
        "generate", tmp_path / "m.safetensors", "-n", 4, "--at", "-1,0.5", "--out", file, "--force"
    )
    np.testing.assert_array_equal(pv.read(file).positions, pv.sample(model, 4, at=[-1, 0.5]).positions)
    assert "prior normal" in call(
        "generate", tmp_path / "m.safetensors", "-n", 4, "--prior", "normal", "--out", file, "--force"
    )
    short = ("--epochs", 1, "--encoder", 8, "--decoder", 8)
    assert "with a generator" in call(
        "fit", tmp_path / "run.npz", *short, "--generator", "--out", tmp_path / "f.safetensors"
    )
    assert "with a generator" not in call("fit", tmp_path / "run.npz", *short, "--out", tmp_path / "g.safetensors")
    for words in (("--at", "x,y"), ("--prior", "flat")):
        with pytest.raises(SystemExit) as exit_:
            main(["generate", str(tmp_path / "m.safetensors"), "--out", str(tmp_path / "new.npz"), *words])
        assert exit_.value.code != 0


@in_3d
def test_an_interrupted_generator_leaves_what_resume_goes_on_with(traj, tmp_path, monkeypatch, capsys):
    from polyvae.app.cli import main

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    pv.write(tmp_path / "run.npz", traj)
    words = ["fit", tmp_path / "run.npz", "--epochs", 1, "--encoder", 8, "--decoder", 8, "--generator"]
    words += ["--out", tmp_path / "m.safetensors"]
    for generate, more, code in (
        (interrupted, [], 130),
        (functools.partial(pv.fit_generator, **SMALL), ["--resume"], 0),
    ):
        monkeypatch.setattr(pv, "fit_generator", generate)
        with pytest.raises(SystemExit) as exit_:
            main([str(word) for word in words + more])
        assert exit_.value.code == code
        assert ("--resume continues it" in capsys.readouterr().err) == (code == 130)
    assert pv.load(tmp_path / "m.safetensors").generator is not None
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.safetensors", "run.npz"]


def test_the_network_begins_with_zeros():
    net = diffusion.Network(3, 4, width=8, depth=2, key=jax.random.key(0))
    np.testing.assert_array_equal(net(jnp.ones(3)), np.zeros(4))
    assert len(eqx.filter(net.blocks, eqx.is_array)) == 2


class Killed(BaseException):
    """As Ctrl-C between two looks at the validation frames."""


@in_3d
def test_an_interrupted_training_goes_on_to_the_same_bytes(cv, model, traj, tmp_path, monkeypatch):
    monkeypatch.setattr("polyvae.vae.checkpoint._EVERY", 0.0)
    unfinished = tmp_path / "g.unfinished"

    def kill(done, *_):
        if done == 250:
            raise Killed

    with pytest.raises(Killed):
        pv.fit_generator(cv, traj, **SMALL, checkpoint=unfinished, progress=kill)
    with pytest.raises(pv.InputError, match="--resume"):
        pv.fit_generator(cv, traj, **SMALL, checkpoint=unfinished)
    with pytest.raises(pv.InputError, match="other seed"):
        pv.fit_generator(cv, traj, **SMALL, checkpoint=unfinished, resume=True, seed=1)
    with pytest.raises(pv.InputError, match="other data"):
        pv.fit_generator(cv, traj[::-1], **SMALL, checkpoint=unfinished, resume=True)
    seen = []
    again = pv.fit_generator(
        cv, traj, **SMALL, checkpoint=unfinished, resume=True, progress=lambda done, *_: seen.append(done)
    )
    assert seen == [500], "the first look was not taken again"
    again.save(tmp_path / "again")
    model.save(tmp_path / "whole")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "whole").read_bytes()

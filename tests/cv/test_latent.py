"""The artefact: one number everywhere, saved and loaded to the bit."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from conftest import ideal_chains, random_rotations
from engines import random_model
from models import untrained

import polyvae as pv


def small(traj, **settings):
    return pv.fit(traj, **{"epochs": 3, "batch_size": 64, "encoder": (8,), "decoder": (8,)} | settings)


def test_transform_is_the_pure_function_of_each_frame(cv, traj):
    z = cv.transform(traj)
    assert z.shape == (len(traj), 2)
    np.testing.assert_allclose(cv(traj.positions[5]), z[5], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.jit(cv)(traj.positions[5]), z[5], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(cv)(jnp.asarray(traj.positions[:7])), z[:7], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(cv.transform(traj.positions), z)


def test_a_frame_has_one_value_whatever_comes_with_it(cv, traj):
    z = cv.transform(traj)
    np.testing.assert_array_equal(cv.transform(traj[17:18]), z[17:18])
    np.testing.assert_array_equal(cv.transform(traj[100:]), z[100:])


def test_more_frames_than_a_chunk(cv, traj):
    many = np.concatenate([traj.positions] * 8)
    np.testing.assert_array_equal(cv.transform(many), np.concatenate([cv.transform(traj)] * 8))


def test_gradient_against_finite_differences(cv, traj):
    with jax.enable_x64(True):
        x = np.asarray(traj.positions[3], np.float64)
        gradient = np.asarray(jax.jacobian(cv)(jnp.asarray(x)))
        h = 1e-5
        for bead, axis in ((0, 0), (3, 1), (7, traj.n_dims - 1)):
            step = np.zeros_like(x)
            step[bead, axis] = h
            slope = (np.asarray(cv(x + step)) - np.asarray(cv(x - step))) / (2 * h)
            np.testing.assert_allclose(gradient[:, bead, axis], slope, rtol=1e-6, atol=1e-8)


def test_rotated_and_shifted_frames_have_the_same_cv(cv, traj):
    rng = np.random.default_rng(0)
    turned = np.einsum("fij,fbj->fbi", random_rotations(len(traj), traj.n_dims, rng), traj.positions)
    moved = (turned + rng.uniform(-10, 10, (len(traj), 1, traj.n_dims))).astype(np.float32)
    z = cv.transform(traj)
    assert np.abs(cv.transform(moved) - z).max() < 1e-4 * z.std()


def test_saved_and_loaded_to_the_bit(cv, traj, tmp_path):
    cv.save(tmp_path / "a.safetensors")
    again = pv.load(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(again.transform(traj), cv.transform(traj))
    z = np.array([[0.3, -1.0], [2.0, 0.1]], np.float32)
    np.testing.assert_array_equal(again.decode(z), cv.decode(z))
    assert again.record == cv.record
    assert again.template.names == cv.template.names
    again.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("width", ["learned", 0.3])
def test_everything_a_model_can_hold_survives_saving(tmp_path, width):
    rng = np.random.default_rng(0)
    traj = pv.Trajectory(
        ideal_chains(200, 5, 3),
        length_unit="nm",
        masses=rng.uniform(1, 3, 5),
        names="ABCDE",
        bonds=[[0, 1], [1, 4]],
    )
    model = small(traj, width=width, latent_dim=3, encoder=(7, 5, 3), decoder=())
    model.save(tmp_path / "m.safetensors")
    again = pv.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again.transform(traj), model.transform(traj))
    assert again.length_unit == "nm"
    np.testing.assert_array_equal(again.template.bonds, traj.bonds)
    assert float(again.vae.likelihood.width * again.scale) == pytest.approx(
        0.3 if width == 0.3 else again.vae.likelihood.width * again.scale
    )
    assert again.vae.likelihood.learned == (width == "learned")


def test_a_model_loads_where_double_precision_is_on(cv, traj, tmp_path):
    """As after importing PySAGES, which turns it on."""
    cv.save(tmp_path / "model.safetensors")
    with jax.enable_x64(True):
        loaded = pv.load(tmp_path / "model.safetensors")
        z = loaded(np.asarray(traj.positions[0], np.float64))
        assert z.dtype == np.float64
    np.testing.assert_allclose(z, cv(traj.positions[0]), atol=1e-4)


def test_one_seed_gives_one_model_and_another_another(tmp_path):
    traj = pv.Trajectory(ideal_chains(300, 5, 2))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        small(traj, seed=seed).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_masses_move_the_centre():
    heavy = pv.Trajectory(ideal_chains(300, 8, 3), masses=[1000.0, *[1.0] * 7])
    model = small(heavy, epochs=1, featurizer=pv.PrincipalAxes())
    aligned = model.align(heavy)
    assert np.abs(aligned[:, 0]).max() < 0.05 * np.abs(aligned).max()
    np.testing.assert_allclose((aligned * heavy.masses[None, :, None]).sum(1) / heavy.masses.sum(), 0, atol=1e-5)


def test_units_give_the_same_fit(tmp_path):
    nm = pv.Trajectory(ideal_chains(300, 6, 3), length_unit="nm")
    in_nm, in_angstrom = (small(t, epochs=2) for t in (nm, nm.to_unit("angstrom")))
    # Rounding differs in the last bit of the data, nothing else.
    np.testing.assert_allclose(in_nm.transform(nm), in_angstrom.transform(nm.to_unit("angstrom")), atol=1e-3)
    np.testing.assert_allclose(in_nm.transform(nm.to_unit("angstrom")), in_nm.transform(nm), atol=1e-5)
    np.testing.assert_allclose(10 * in_nm.scale, in_angstrom.scale, rtol=1e-5)
    shift = nm.n_beads * nm.n_dims * np.log(10)  # a density over Å is smaller than one over nm
    a, b = (np.array(m.record["history"]["reconstruction"]) for m in (in_nm, in_angstrom))
    np.testing.assert_allclose(a + shift, b, atol=0.05)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"latent_dim": 0}, "latent_dim"),
        ({"latent_dim": 99}, "latent_dim"),
        ({"beta": -1}, "beta"),
        ({"beta": float("nan")}, "beta"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch size"),
        ({"batch_size": 1000}, "batch of 1000 .*600 .*480 .*20%"),
        ({"validation": 1.0}, "validation"),
        ({"encoder": (0,)}, "widths"),
    ],
)
def test_fit_refuses_settings_by_name(traj, settings, words):
    with pytest.raises(pv.InputError, match=words):
        small(traj, **settings)


def test_fit_refuses_frames_that_are_all_the_same():
    with pytest.raises(pv.InputError, match="all the same"):
        small(np.repeat(ideal_chains(1, 5, 2), 300, axis=0))


def test_refuses_other_chains(cv, traj):
    with pytest.raises(pv.InputError, match="8 beads"):
        cv.transform(traj.positions[:, :5])
    with pytest.raises(pv.InputError, match="one frame"):
        cv(traj.positions)
    with pytest.raises(pv.InputError, match="reduced unit"):
        cv.transform(pv.Trajectory(traj.positions, length_unit="nm"))
    with pytest.raises(pv.InputError, match=r"\(n, 2\)"):
        cv.decode(np.zeros((3, 5)))


class TestBadModelFiles:
    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file"):
            pv.load(tmp_path / "none.safetensors")

    @pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 100, b"\xff" * 100])
    def test_no_safetensors(self, tmp_path, content):
        path = tmp_path / "m.safetensors"
        path.write_bytes(content)
        with pytest.raises(pv.InputError, match="not a polyvae model"):
            pv.load(path)

    def test_another_programs_safetensors(self, tmp_path):
        path = tmp_path / "m.safetensors"
        safetensors.numpy.save_file({"w": np.zeros(3)}, path)
        with pytest.raises(pv.InputError, match="no polyvae header"):
            pv.load(path)

    def test_truncated(self, cv, tmp_path):
        path = tmp_path / "m.safetensors"
        cv.save(path)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(pv.InputError, match="not a polyvae model"):
            pv.load(path)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda t, h: h.update(format=99), "format 99"),
            (lambda t, h: t.pop("encoder.0.weight"), "damaged"),
            (lambda t, h: t.update(mean=np.zeros(3, np.float32)), "damaged"),
            (lambda t, h: h.pop("record"), "damaged"),
            (lambda t, h: h.update(activation="relu"), "damaged: .*'relu'"),
            (lambda t, h: h["featurizer"].update(kind="Bogus"), "Bogus"),
            (lambda t, h: h.update(length_unit="furlong"), "furlong"),
        ],
    )
    def test_a_header_or_tensor_that_does_not_fit(self, cv, tmp_path, change, words):
        path = tmp_path / "m.safetensors"
        cv.save(path)
        with safetensors.safe_open(path, "numpy") as file:
            header = json.loads(file.metadata()["polyvae"])
        tensors = safetensors.numpy.load_file(path)
        change(tensors, header)
        safetensors.numpy.save_file(tensors, path, metadata={"polyvae": json.dumps(header)})
        with pytest.raises(pv.InputError, match=words):
            pv.load(path)


def test_a_model_is_as_readable_as_any_file(cv, tmp_path):
    cv.save(tmp_path / "m.safetensors")
    (tmp_path / "plain").touch()
    assert (tmp_path / "m.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_saving_leaves_the_old_file_when_it_fails(cv, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"precious")

    def half(tensors, target, metadata):
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.numpy, "save_file", half)
    with pytest.raises(OSError, match="disk full"):
        cv.save(path)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_bonds_of_another_length_are_told(caplog):
    """As of a file in nm that is read as one in angstrom; a chain that is stretched threefold would break."""
    traj = pv.Trajectory(ideal_chains(40, 6, 3), length_unit="nm")
    cv = random_model(traj, pv.PrincipalAxes(), (4,), 1, 0)
    cv.transform(traj)
    assert not caplog.records
    cv.transform(dataclasses.replace(traj, length_unit="angstrom"))
    assert "bonds are 0.1 times as long as the model's" in caplog.text


@pytest.mark.parametrize(
    ("inactive", "active"), [(None, [0, 1, 2]), ([], [0, 1, 2]), ([2], [0, 1]), ([0, 1, 2], [])]
)
def test_active_latents_are_those_that_the_record_does_not_list(inactive, active):
    cv = untrained(pv.Trajectory(ideal_chains(20, 5, 3)), latent_dim=3)
    cv = dataclasses.replace(cv, record=dataclasses.replace(cv.record, collapsed=inactive))
    assert cv.active_latents == active
    if active:
        kept = cv.keep(active)
        assert kept.active_latents == list(range(len(active)))


def test_limits_are_those_of_the_training_data(cv, traj):
    """The shortest and longest bond of all but one frame in a thousand, by NumPy; a model without them says so."""
    bonds = np.sort(np.linalg.norm(np.diff(traj.positions, axis=1), axis=2).min(axis=1))
    assert bonds[0] <= cv.limits.shortest_bond <= bonds[len(bonds) // 50]
    with pytest.raises(pv.InputError, match="keeps no limits"):
        untrained(traj).limits  # noqa: B018

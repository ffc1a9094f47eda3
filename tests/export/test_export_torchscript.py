"""The CV as TorchScript: the model's numbers, in every layout and precision, and called as engines call it."""

import re
import warnings

import numpy as np
import pytest
from conftest import ideal_chains
from engines import float64_values, random_model
from test_export_c import CASES, N_BEADS, frames, model, relative_errors, singular

import polyvae as pv
from polyvae.export import compare, torch_module, torchscript, write

torch = pytest.importorskip("torch")

CASES = [case for case in CASES if "no signs" not in case[0]]
IDS = [f"{name} {n_dims}-D" for name, n_dims in CASES]


def load(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(str(folder / torchscript.FILE))


def near(n: int, n_dims: int) -> np.ndarray:
    """`frames` about the origin in float32, where rounding is that of the arithmetic and not of the place."""
    chains = frames(n, n_dims)
    return (chains - chains.mean(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("name", "n_dims"), CASES, ids=IDS)
def test_equals_jax(name, n_dims, tmp_path):
    cv, positions = model(name, n_dims), frames(100, n_dims)
    write(cv, "torchscript", tmp_path / "out")
    errors = relative_errors(cv, positions, torchscript.evaluate(tmp_path / "out", cv, positions))
    assert max(errors) < 1e-12
    rounded = near(100, n_dims)
    z = float64_values(cv, rounded)[0]
    loaded = load(tmp_path / "out")
    found = loaded(torch.tensor(rounded))
    assert found.dtype == torch.float32
    in_single = loaded.float()(torch.tensor(rounded))
    errors = [float(np.abs(one.numpy() - z).max() / np.abs(z).max()) for one in (found, in_single)]
    print(f"\n{name:24s} {n_dims}-D float32 positions {errors[0]:.1e}, all in float32 {errors[1]:.1e}", end="")
    assert errors[0] < 1e-6
    assert errors[1] < (5e-6 if "axes" in name else 1e-6)  # axes take the rounding of the smallest gap


@pytest.mark.parametrize("encoder", [(), (5,), (33, 7, 20)])
def test_every_size_of_network(encoder, tmp_path):
    cv, positions = model("reference", 3, encoder, latent_dim=3), frames(20, 3)
    write(cv, "torchscript", tmp_path / "out")
    assert max(relative_errors(cv, positions, torchscript.evaluate(tmp_path / "out", cv, positions))) < 1e-12


@pytest.mark.parametrize("n_dims", [2, 3])
def test_layouts(n_dims):
    latents, positions = torch_module.scripted(model("axes", n_dims)), torch.tensor(frames(6, n_dims))
    z = latents(positions)
    assert z.shape == (6, 2)
    for given, shape in (
        (positions.flatten(1), (6, 2)),
        (positions[0], (2,)),
        (positions[0].flatten(), (2,)),
        (positions.reshape(2, 3, N_BEADS, n_dims), (2, 3, 2)),
        (positions[:0], (0, 2)),
    ):
        found = latents(given)
        assert found.shape == shape
        torch.testing.assert_close(found.reshape(-1), z.reshape(-1)[: found.numel()], rtol=1e-13, atol=1e-13)
    for wrong in (positions[:, 1:], positions[:, :, 1:], positions[0, 0]):
        with pytest.raises(torch.jit.Error, match=r"shape \(\.\.\.,"):
            latents(wrong)


@pytest.mark.parametrize(("name", "n_dims"), CASES, ids=IDS)
def test_as_engines_call_it(name, n_dims, tmp_path):
    """PLUMED freezes the file, tries it on zeros, and goes back through one output after another, in float32;
    Colvars does in float64, on one output."""
    cv, positions = model(name, n_dims), near(5, n_dims)
    write(cv, "torchscript", tmp_path / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        frozen = torch.jit.optimize_for_inference(torch.jit.freeze(load(tmp_path / "out").eval()))
    assert torch.isfinite(frozen(torch.zeros(1, N_BEADS * n_dims))).all()
    z, gradients = float64_values(cv, positions)
    for k, frame in enumerate(positions.reshape(5, 1, -1)):
        for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
            row = torch.tensor(frame, dtype=dtype, requires_grad=True)
            out = frozen(row)
            assert out.dtype == dtype
            np.testing.assert_allclose(out.detach()[0], z[k], atol=tolerance * np.abs(z).max())
            for a in range(2):
                ones = torch.ones(1, 1, dtype=dtype)
                slope = torch.autograd.grad(out[:, a : a + 1], row, ones, retain_graph=True)[0]
                expected = gradients[k, a].reshape(1, -1)
                np.testing.assert_allclose(slope, expected, atol=tolerance * np.abs(gradients[k]).max())


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("name", ["axes, all", "reference, all", "distances, all"])
def test_a_chain_and_its_reversal_have_the_very_same_latents(name, n_dims):
    latents, positions = torch_module.scripted(model(name, n_dims)), torch.tensor(frames(200, n_dims))
    torch.testing.assert_close(latents(positions.flip(1)), latents(positions), rtol=0, atol=0)
    if "distances" not in name:
        mirrored = positions * torch.tensor([-1.0, 1.0, 1.0][:n_dims])
        torch.testing.assert_close(latents(mirrored), latents(positions), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("name", "n_dims"), CASES, ids=IDS)
def test_singular_points_are_finite(name, n_dims, tmp_path):
    cv, positions = model(name, n_dims), singular(n_dims)
    write(cv, "torchscript", tmp_path / "out")
    z, gradients = torchscript.evaluate(tmp_path / "out", cv, positions)
    assert np.isfinite(z).all()
    assert np.isfinite(gradients).all()
    expected = float64_values(cv, positions)
    np.testing.assert_allclose(z[3:], expected[0][3:], rtol=1e-11)
    np.testing.assert_allclose(gradients[3], expected[1][3], atol=1e-11 * np.abs(expected[1][3]).max())


def test_check_and_readme(tmp_path):
    cv, atoms = model("reference", 2), [9, 1, 4, 7, 2, 3, 8]
    data = pv.Trajectory(ideal_chains(60, N_BEADS, 2))
    write(cv, "torchscript", tmp_path / "out", atoms=atoms, data=data)
    n, value, gradient = compare(cv, "torchscript", tmp_path / "out", frames(60, 2), atoms=atoms)
    assert n == 50
    assert max(value, gradient) < 1e-10
    readme, text = ((tmp_path / "out" / name).read_text() for name in ("README.md", "plumed.dat"))
    assert "p2: POSITION ATOM=4 NOPBC" in text
    assert "ARG=p0.x,p0.y,p1.x,p1.y," in text
    assert "METAD ARG=z0,z1" in text
    assert "atomNumbers 9 1 4 7 2 3 8 }\n      useZ off" in readme
    # The lines for OpenMM, up to OpenMM itself: positions of ten particles in nm give one latent.
    code = re.search(r"```python\n(.*?)```", readme, re.S)[1]
    code = code.replace("import openmm, openmmtorch, torch", "import torch").partition("bias =")[0]
    (tmp_path / "out" / "latent_forces.py").write_text(code)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        patch.chdir(tmp_path / "out")
        patch.syspath_prepend(tmp_path / "out")
        import latent_forces  # noqa: F401

        z0 = torch.jit.load("z0.pt")
    everything = np.random.default_rng(0).normal(size=(10, 3))
    expected = float64_values(cv, everything[None, np.array(atoms) - 1, :2])
    positions = torch.tensor(everything, requires_grad=True)
    z0(positions).backward()
    np.testing.assert_allclose(z0(positions).item(), expected[0][0, 0], rtol=1e-12)
    slope = positions.grad[np.array(atoms) - 1, :2]
    np.testing.assert_allclose(slope, expected[1][0, 0], atol=1e-12 * np.abs(expected[1]).max())


def test_bad_use(tmp_path, monkeypatch):
    cv = model("reference", 3)
    write(cv, "torchscript", tmp_path / "out")
    with pytest.raises(pv.InputError, match="2 latents.* 3"):
        torchscript.evaluate(tmp_path / "out", model("reference", 3, latent_dim=3), frames(2, 3))
    with pytest.raises(pv.InputError, match=r"shape \(\.\.\.,"):
        torchscript.evaluate(tmp_path / "out", model("reference", 2), frames(2, 2))
    (tmp_path / "out" / torchscript.FILE).write_bytes(b"PK")
    for folder in (tmp_path / "out", tmp_path / "none"):
        with pytest.raises(pv.InputError, match=r"cannot be read .*export"):
            torchscript.evaluate(folder, cv, frames(2, 3))
    with pytest.raises(pv.InputError, match='sign="none"'):
        write(model("axes, no signs", 3), "torchscript", tmp_path / "signs")
    one = random_model(pv.Trajectory(np.random.default_rng(0).normal(size=(9, 1, 3))), pv.Reference(), (4,))
    with pytest.raises(pv.InputError, match="two beads or more"):
        write(one, "torchscript", tmp_path / "one")
    monkeypatch.setattr(torch_module.util, "find_spec", lambda name: None)
    for call in (
        lambda: write(cv, "torchscript", tmp_path / "none"),
        lambda: torchscript.evaluate(tmp_path, cv, frames(1, 3)),
    ):
        with pytest.raises(pv.InputError, match="not installed.*'polyvae.torch.'"):
            call()
    assert not (tmp_path / "none").exists()

"""Pictures: what the artists hold is what came in, with units, and nothing global changes."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from conftest import ideal_chains
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import polyvae as pv
from polyvae import plot
from polyvae.plot.curves import smooth_density
from polyvae.plot.latent import _stretch
from polyvae.plot.style import digits
from polyvae.trajectory.record import chain_bonds
from polyvae.vae.likelihood import Gaussian
from polyvae.vae.network import VAE
from polyvae.vae.scaled import ScaledVAE
from polyvae.vae.settings import ModelRecord

HISTORY = {
    "reconstruction": [9.0, 6.0, 5.0],
    "kl": [0.1, 1.0, 1.2],
    "val_reconstruction": [8.0, 6.5, 6.6],
    "val_kl": [0.2, 1.1, 1.3],
}


def untrained(traj: pv.Trajectory, latent_dim: int, history: dict) -> pv.LatentCV:
    """A model with random weights: pictures ask for nothing more."""
    n = traj.n_beads * traj.n_dims
    vae = VAE(
        n, latent_dim=latent_dim, encoder=(4,), decoder=(4,), likelihood=Gaussian(0.1), key=jax.random.key(0)
    )
    scaled = ScaledVAE(jnp.zeros(n), jnp.asarray(1.0), vae)
    return pv.LatentCV(pv.PrincipalAxes(), scaled, traj[0], ModelRecord(history=history, best_epoch=1))


@pytest.fixture(scope="module")
def traj() -> pv.Trajectory:
    return pv.Trajectory(ideal_chains(600, 8, 3), time=0.5 * np.arange(600))


@pytest.fixture(scope="module")
def optimum(traj) -> pv.Optimum:
    return pv.Optimum(
        structure=traj[3],
        value=0.71234,
        z=np.zeros(2),
        valid=False,
        better=True,
        message="",
        extreme=traj[5],
        extreme_value=0.8,
        limits=pv.Limits(chain_bonds(8), 0.1, 3.0, 0.5, 2.0, 0.1, 0.1, (0.1, 0.1, 0.1), (0.1, 0.1), 0.1, {}),
        path=np.linspace([2.0, 1.5, 1.0], 0.6, 20),
        z_path=np.zeros((20, 3, 2)),
        decoded=traj[:3],
        candidates=traj[:3],
        candidate_values=np.array([0.8, 0.71234, 0.9]),
        candidate_valid=np.zeros(3, bool),
        route=traj[:3],
    )


@pytest.fixture(autouse=True)
def nothing_global_changes():
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def drawn(axes):
    """Draw for real: layout and every artist; returns the figure."""
    figure = np.ravel(axes)[0].figure
    figure.canvas.draw()
    return figure


def only(ax, kind):
    found = [artist for artist in ax.collections if type(artist) is kind]
    assert len(found) == 1
    return found[0]


def is_equal_aspect(ax):
    return ax.get_aspect() in ("equal", 1.0)


def test_importing_plot_and_report_loads_no_matplotlib():
    code = "import sys, polyvae.plot, polyvae.app.report; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_overlay_holds_the_frames(traj):
    x = traj.positions[:50]
    ax = plot.overlay(x, length_unit="angstrom")
    drawn(ax)
    lines = only(ax, LineCollection)
    segments = np.array(lines.get_segments()).reshape(50, 7, 2, 2)
    np.testing.assert_allclose(segments[:, :, 0], x[:, :-1, :2])
    np.testing.assert_allclose(segments[:, :, 1], x[:, 1:, :2])
    assert is_equal_aspect(ax)
    assert "50 frames" in ax.get_title(loc="left")
    assert "(Å)" in ax.get_xlabel()
    assert "(Å)" in ax.get_ylabel()
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    assert x0 < x[..., 0].min() < x[..., 0].max() < x1
    assert y0 < x[..., 1].min() < x[..., 1].max() < y1


def test_overlay_thins_evenly_and_says_so(traj):
    ax = plot.overlay(traj.positions, max_frames=100)
    segments = np.array(only(ax, LineCollection).get_segments()).reshape(100, 7, 2, 2)
    shown = [int(np.flatnonzero((traj.positions[:, 0, :2] == s[0, 0]).all(axis=1))[0]) for s in segments]
    assert (shown[0], shown[-1]) == (0, 599)
    assert set(np.diff(shown)) == {6, 7} or set(np.diff(shown)) == {6}
    assert "100 of 600 frames" in ax.get_title(loc="left")


def test_overlay_draws_the_bonds_it_is_given():
    x = ideal_chains(5, 4, 2)
    segments = only(plot.overlay(x, bonds=np.array([[0, 3]])), LineCollection).get_segments()
    np.testing.assert_allclose(segments, x[:, [0, 3]])


def test_more_frames_are_drawn_fainter():
    x = ideal_chains(3000, 8, 2)
    alpha = [only(plot.overlay(x[:n], max_frames=n), LineCollection).get_alpha() for n in (10, 100, 1000, 3000)]
    assert alpha == sorted(alpha, reverse=True)
    assert 0.02 <= alpha[-1] < alpha[0] <= 1


def test_side_by_side_shares_scale_and_opacity(traj):
    data, generated = traj.positions[:100], 2 * traj.positions[:80]
    axes = plot.side_by_side(data, generated, length_unit="nm")
    figure = drawn(axes)
    assert len(axes) == 2
    assert len(figure.axes) == 3  # and the key to the colours
    assert axes[0].get_xlim() == axes[1].get_xlim()
    assert axes[0].get_ylim() == axes[1].get_ylim()
    lines = [only(ax, LineCollection) for ax in axes]
    assert lines[0].get_alpha() == lines[1].get_alpha()
    assert len(lines[0].get_segments()) == len(lines[1].get_segments()) == 80 * 7
    assert [ax.get_title(loc="left") for ax in axes] == ["Data: 80 of 100 frames", "Generated: 80 frames"]


@pytest.mark.parametrize(("n_beads", "partners"), [(2, [1]), (4, [1, 3]), (6, [1, 3, 5]), (12, [1, 3, 5, 7])])
def test_marginals_of_short_and_long_chains(n_beads, partners):
    x = ideal_chains(300, n_beads, 3)
    axes = plot.marginals({"data": x, "generated": x + 0.0}, length_unit="nm")
    figure = drawn(axes)
    assert len(axes) == len(figure.axes) == len(partners)
    for ax, j in zip(axes, partners, strict=True):
        assert ax.get_xlabel() == f"distance between beads 0 and {j} (nm)"
        assert ax.get_ylabel() == "density (1/nm)"
        assert len(ax.lines) == 2
        assert "W₁ = 0.00 (" in ax.get_title(loc="left")
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["its halves", "data", "generated"]


def test_smooth_density_is_the_known_one():
    # Distances of 2-D Gaussian steps follow r exp(-r^2/2): 0 at 0, mode at 1.
    r = np.linalg.norm(np.random.default_rng(0).normal(size=(50_000, 2)), axis=1)
    x, density = smooth_density(r)
    assert np.trapezoid(density, x) == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(density, x * np.exp(-(x**2) / 2), atol=0.025)
    assert density[0] == 0


def test_smooth_density_of_a_constant_stands():
    x, density = smooth_density(np.full(20, 1.5))
    assert np.isfinite(density).all()
    assert x[np.argmax(density)] == pytest.approx(1.5, abs=0.01)


def test_smooth_density_of_rigid_bonds_stands():
    """Constrained bonds differ in the last digit of single precision only."""
    r = np.float32(1.0) + np.float32(1.2e-7) * np.arange(300, dtype=np.float32)[::-1].round(-2) / 100
    assert 0 < np.ptp(r) < 1e-6
    x, density = smooth_density(r)
    assert np.trapezoid(density, x) == pytest.approx(1, abs=1e-3)
    assert x[np.argmax(density)] == pytest.approx(1, abs=1e-3)


def test_training_curves_hold_the_history():
    history, best = HISTORY, 1
    axes = plot.training(history, best_epoch=best)
    drawn(axes)
    for ax, term in zip(axes, ("reconstruction", "kl"), strict=True):
        train, validation, mark = ax.lines
        np.testing.assert_array_equal(train.get_ydata(), history[term])
        np.testing.assert_array_equal(validation.get_ydata(), history[f"val_{term}"])
        assert list(mark.get_xdata()) == [best, best]
        assert ax.get_xlabel() == "epoch"
        assert "nats per frame" in ax.get_ylabel()
    assert f"best epoch, {best}" in [text.get_text() for text in axes[0].get_legend().get_texts()]


def test_training_without_validation_and_of_one_epoch():
    axes = plot.training({"reconstruction": [3.0], "kl": [0.5]})
    drawn(axes)
    assert [len(ax.lines) for ax in axes] == [1, 1]
    assert axes[0].lines[0].get_marker() == "o"  # a line of one point would not show


def test_training_is_readable_after_a_large_start():
    late = 5 + np.exp(-np.arange(90) / 30)
    history = {"reconstruction": [*np.geomspace(1e5, 10, 10), *late], "kl": np.linspace(0, 3, 100)}
    axes = plot.training(history)
    low, high = axes[0].get_ylim()
    assert low < late.min()
    assert late.max() < high < 20
    assert "1e+05" in axes[0].get_title(loc="left")
    assert axes[1].get_title(loc="left") == ""


@pytest.mark.parametrize("n_dims", [2, 3])
def test_structure_shows_every_bead_at_its_place(n_dims):
    x = ideal_chains(1, 10, n_dims)[0] * 3
    ax = plot.structure(x, length_unit="nm", radius=0.1, title="one")
    drawn(ax)
    assert is_equal_aspect(ax)
    paths = only(ax, PatchCollection).get_paths()
    boxes = [path.get_extents() for path in paths]
    centers = np.array([[(b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2] for b in boxes if abs(b.width - 0.2) < 1e-5])
    found = {min(range(10), key=lambda k: np.linalg.norm(x[k, :2] - c)) for c in centers}
    assert found == set(range(10))
    for k in range(10):
        assert np.linalg.norm(centers - x[k, :2], axis=1).min() < 1e-5
    assert [text.get_text() for text in ax.texts] == ["0", "9"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x (nm)", "y (nm)")


def test_near_beads_cover_far_ones():
    x = np.array([[0.0, 0.0, 1.0], [3.0, 0.0, 0.0], [0.05, 0.0, -1.0]])
    ax = plot.structure(x, radius=0.5)
    patches = only(ax, PatchCollection)
    extents = [path.get_extents() for path in patches.get_paths()]
    balls = [k for k, box in enumerate(extents) if box.width == pytest.approx(1.0, abs=1e-4)]
    order = [round((extents[k].x0 + extents[k].x1) / 2, 2) for k in balls]
    assert order == [0.05, 3.0, 0.0]
    faces = patches.get_facecolor()[balls]
    assert faces[0][:3].min() > to_rgb("black")[0] + 0.5  # the farthest has faded


@pytest.mark.parametrize("x", [np.zeros((1, 2)), np.zeros((3, 3)), np.array([[0.0, 0.0], [1.0, 0.0]])])
def test_structure_of_degenerate_chains(x):
    drawn(plot.structure(x))


def test_structures_share_one_scale():
    x = ideal_chains(2, 6, 3)
    axes = plot.structures([x[0], 4 * x[1]], ["a", "b"], length_unit="nm")
    drawn(axes)
    assert axes[0].get_xlim() == axes[1].get_xlim()
    assert [ax.get_title(loc="left") for ax in axes] == ["a", "b"]
    sizes = {round(p.get_extents().width, 4) for ax in axes for p in only(ax, PatchCollection).get_paths()}
    assert len([s for s in sizes if s == max(sizes)]) == 1


def test_latent_trajectory_of_two_latents_breaks_at_segments():
    z = np.cumsum(0.1 * np.random.default_rng(0).normal(size=(60, 2)), axis=0)
    ax = plot.latent_trajectory(z, time=np.arange(60) * 2.0, segments=(20, 40), length_unit="nm")
    figure = drawn(ax)
    lines = only(ax, LineCollection)
    np.testing.assert_allclose(np.array(lines.get_segments())[:, 0], np.delete(z, [19, 59], axis=0))
    assert len(lines.get_segments()) == 58
    assert figure.axes[1].get_ylabel() == "time (ps)"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("z0", "z1")
    assert is_equal_aspect(ax)
    low, high = lines.get_clim()
    assert (low, high) == (0, 118)


def test_a_long_way_is_shown_in_part_and_says_so():
    z = np.random.default_rng(0).normal(size=(5000, 2))
    ax = plot.latent_trajectory(z, segments=(1000, 4000))
    drawn(ax)
    lines = only(ax, LineCollection)
    assert 20 < len(lines.get_segments()) < 400
    np.testing.assert_allclose(lines.get_segments()[0], z[1000:1002])
    assert "frames 1,000–" in ax.get_title(loc="left")
    assert "of 5,000" in ax.get_title(loc="left")
    assert "frame" in ax.figure.axes[1].get_ylabel()
    assert len(ax.collections) > 2  # the density of all frames lies below


def test_a_clock_that_starts_again_gives_way_to_the_frame_number():
    z = np.zeros((6, 2)) + np.arange(6)[:, None] / 10
    ax = plot.latent_trajectory(z, time=np.array([0, 1, 2, 0, 1, 2.0]), segments=(3, 3))
    assert ax.figure.axes[1].get_ylabel() == "frame"


def test_stretch_stays_inside_its_segment():
    z = np.random.default_rng(1).normal(size=(6000, 2))
    ends = np.cumsum([30] * 200)
    first, last = _stretch(z, ends)
    assert (first, last) == (0, 30)


def test_one_latent_is_drawn_against_time():
    z = np.random.default_rng(0).normal(size=(50, 1))
    ax = plot.latent_trajectory(z, time=3.0 * np.arange(50), length_unit="sigma")
    drawn(ax)
    segments = only(ax, LineCollection).get_segments()
    np.testing.assert_allclose(segments[3], [[9, z[3, 0]], [12, z[4, 0]]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (τ)", "z0")


def test_of_more_latents_the_two_of_largest_kl_are_shown():
    z = np.random.default_rng(0).normal(size=(30, 4))
    for ax in (
        plot.latent_trajectory(z, kl=[0.1, 2, 0.0, 1]),
        plot.latent_values(z, z[:, 0], label="a", kl=[0.1, 2, 0.0, 1]),
    ):
        drawn(ax)
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("z1", "z3")
        assert "z1 and z3: the largest KL of 4 latents" in ax.get_title(loc="left")
    assert "largest variance" in plot.latent_trajectory(z).get_title(loc="left")


def test_latents_that_do_not_move():
    drawn(plot.latent_trajectory(np.zeros((5000, 2))))
    drawn(plot.latent_trajectory(np.zeros((1, 2))))
    drawn(plot.latent_values(np.zeros((5, 2)), np.ones(5), label="Rg (nm)"))


@pytest.mark.parametrize("latent_dim", [1, 2])
def test_latent_values_hold_the_values(latent_dim):
    rng = np.random.default_rng(0)
    z, rg = rng.normal(size=(40, latent_dim)), rng.uniform(1, 2, 40)
    ax = plot.latent_values(z, rg, label="Rg (nm)")
    figure = drawn(ax)
    (dots,) = ax.collections
    if latent_dim == 1:
        np.testing.assert_allclose(dots.get_offsets(), np.stack([z[:, 0], rg], axis=1))
        assert ax.get_ylabel() == "Rg (nm)"
    else:
        np.testing.assert_allclose(dots.get_offsets(), z)
        np.testing.assert_allclose(dots.get_array(), rg)
        assert figure.axes[1].get_ylabel() == "Rg (nm)"
    thin = plot.latent_values(z, rg, label="Rg", max_points=10)
    assert len(thin.collections[0].get_offsets()) == 10
    assert "10 of 40 frames" in thin.get_title(loc="left")


def test_optimization_shows_every_start_the_extreme_and_the_result(optimum):
    ax = plot.optimization(optimum, label="Rg (σ)")
    drawn(ax)
    *paths, extreme, refined = ax.lines
    np.testing.assert_allclose([line.get_ydata() for line in paths], optimum.path.T)
    assert set(extreme.get_ydata()) == {optimum.extreme_value}
    assert list(refined.get_ydata()) == [optimum.value]
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert any("3 starts" in text for text in texts)
    assert any(digits(optimum.extreme_value) in text for text in texts)
    assert texts[-1] == "refined conformation, 0.712, outside the data's limits"
    assert ax.get_ylabel() == "Rg (σ)"


def test_optimised_structure_beside_the_extreme_frame(optimum):
    axes = plot.optimum_structures(optimum)
    drawn(axes)
    numbers = optimum.summary()
    for ax, key in zip(axes, ("optimized", "data_extreme"), strict=True):
        title = ax.get_title(loc="left")
        for name in ("rg", "shortest_bond", "closest_pair"):
            assert digits(numbers[key][name]) in title
        assert "σ" in title
    assert axes[0].get_xlim() == axes[1].get_xlim()


def test_given_axes_are_drawn_on(traj, optimum):
    figure = Figure()
    ax = figure.add_subplot()
    assert plot.overlay(traj.positions[:5], ax=ax, colorbar=False) is ax
    axes = Figure().subplots(2, 2)
    assert list(plot.marginals({"data": traj.positions}, axes=axes)) == list(axes.ravel())
    with pytest.raises(ValueError, match="2 axes"):
        plot.training({"reconstruction": [1], "kl": [1]}, axes=[ax])
    with pytest.raises(ValueError, match="2 axes"):
        plot.optimum_structures(optimum, axes=ax)


def test_a_figure_of_its_own_is_styled_and_a_given_axes_is_not(traj):
    assert plot.latent_values(np.zeros((3, 1)), np.ones(3), label="a").spines["top"].get_visible() is False
    ax = Figure().add_subplot()
    plot.latent_values(np.zeros((3, 1)), np.ones(3), label="a", ax=ax)
    assert ax.spines["top"].get_visible() is True
    assert ax.xaxis.label.get_size() == matplotlib.rcParams["font.size"]


def test_a_notebook_shows_a_picture_once(monkeypatch, tmp_path):
    """A figure of pyplot's where a kernel runs, until it is saved; none on the caller's axes."""
    from matplotlib import pyplot

    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    ax = plot.latent_values(np.zeros((3, 2)), np.ones(3))
    assert pyplot.get_fignums() == [ax.figure.number]
    plot.latent_values(np.zeros((3, 2)), np.ones(3), ax=Figure().add_subplot())
    assert len(pyplot.get_fignums()) == 1
    plot.save(ax, tmp_path / "a.png")
    assert pyplot.get_fignums() == []


@pytest.mark.long
def test_save_figures(tmp_path, traj, optimum):
    cv = untrained(traj, 2, HISTORY)
    z = np.random.default_rng(0).normal(size=(600, 2))
    paths = plot.save_figures(tmp_path / "figures", cv, traj, z, traj[:50], optimum)
    assert [path.stem for path in paths] == sorted(set(plot.CAPTIONS) - {"02_distances"})
    assert sorted((tmp_path / "figures").iterdir()) == paths
    for path in paths:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5000


@pytest.mark.parametrize(("n_beads", "n_dims", "latent_dim"), [(2, 3, 1), (5, 2, 3)])
def test_save_figures_of_small_chains_in_another_unit_without_validation(tmp_path, n_beads, n_dims, latent_dim):
    traj = pv.Trajectory(ideal_chains(80, n_beads, n_dims), length_unit="nm", segments=(40, 40))
    cv = untrained(traj, latent_dim, {key: HISTORY[key] for key in ("reconstruction", "kl")})
    z = np.random.default_rng(0).normal(size=(80, latent_dim))
    paths = plot.save_figures(tmp_path, cv, traj.to_unit("angstrom"), z, traj[:2])
    # 80 frames hold no free energy.
    assert [p.name[:2] for p in paths] == ["01", "03", "04", "05", "06", "07", "10", "12"]


def test_save_figures_gives_the_same_bytes_twice(tmp_path, traj):
    cv, z = untrained(traj, 1, HISTORY), np.zeros((600, 1))
    first, second = (plot.save_figures(tmp_path / name, cv, traj, z) for name in "ab")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert [p.name[:2] for p in first] == ["01", "02", "03", "05", "10", "12"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.23, "0.230"), (1.3333, "1.33"), (0.9996, "1.00"), (1234.5, "1234"), (0.0, "0.00"), (np.nan, "nan")],
)
def test_digits(value, text):
    assert digits(value) == text


def test_structures_and_overlays_of_many_beads_are_lines():
    """1,500 beads: bonds as lines, those in front last, and no more of them than a page can carry."""
    x = ideal_chains(80, 1500, 3)
    ax = plot.structure(x[0])
    (lines,) = ax.collections
    assert isinstance(lines, LineCollection)
    depth = np.array(
        [x[0][np.all(x[0][:, :2] == end, axis=1), 2][0] for end in np.array(lines.get_segments())[:, 0]]
    )
    assert len(depth) == 1499
    assert np.corrcoef(np.arange(1499), depth)[0, 1] > 0.9
    ax = plot.overlay(x)
    assert len(ax.collections[0].get_segments()) == 66 * 1499
    assert "66 of 80 frames" in ax.get_title(loc="left")


def test_an_overlay_draws_frames_as_often_as_they_weigh(traj):
    weights = np.where(np.arange(600) < 300, 0.0, 1.0)
    weights[400] = 300
    ax = plot.overlay(traj.positions, weights=weights)
    drawn = np.array(ax.collections[0].get_segments()).reshape(600, -1, 2, 2)[:, :, 0]
    same = [(drawn == traj.positions[k, :-1, :2]).all(axis=(1, 2)).sum() for k in (10, 400, 500)]
    assert same[0] == 0
    assert 290 < same[1] < 310
    assert same[2] in (1, 2)
    assert "by weight" in ax.get_title(loc="left")


@pytest.mark.long
def test_the_pictures_of_a_weighted_run_are_those_of_its_frames_that_count(traj, tmp_path):
    cv = untrained(traj, 3, HISTORY)
    z = cv.transform(traj)
    weights = np.random.default_rng(0).integers(0, 3, 600).astype(float)
    counts = np.flatnonzero(weights)
    weighted = dataclasses.replace(traj, weights=weights)
    few = weighted[counts]
    runs = {"all": (weighted, z), "few": (few, z[counts]), "plain": (traj, z)}
    found = {
        name: {p.name: p.read_bytes() for p in plot.save_figures(tmp_path / name, cv, run, points, traj[:50])}
        for name, (run, points) in runs.items()
    }
    assert found["all"] == found["few"]
    for name in (
        "01_frames.png",
        "11_free_energy.png",
        "12_latent_marginals.png",
        "06_generated.png",
        "10_latent_rg.png",
    ):
        assert found["all"][name] != found["plain"][name], name


def test_figures_in_every_format_and_the_same_bytes_twice(tmp_path):
    starts = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    for kind, start in starts.items():
        axes = [plot.latent_values(np.zeros((3, 2)), np.ones(3), label="a (nm)") for _ in "ab"]
        paths = [plot.save(ax, tmp_path / f"{k}.{kind}") for k, ax in enumerate(axes)]
        first, second = (path.read_bytes() for path in paths)
        assert first.startswith(start)
        assert first == second
    with pytest.raises(pv.InputError, match="the format of a figure"):
        plot.save(axes, tmp_path / "a.jpg")


def two_basins(n: int, dims: int) -> np.ndarray:
    """Angles in degrees about 170 and -60, the first basin across the end of the period."""
    rng = np.random.default_rng(0)
    return (np.where(rng.random((n, 1)) < 0.5, 170, -60) + 15 * rng.normal(size=(n, dims)) + 180) % 360 - 180


@pytest.mark.parametrize("method", ["kde", "histogram"])
def test_a_periodic_free_energy_has_no_seam(method):
    period = (-180.0, 180.0)
    result = pv.free_energy(two_basins(2000, 1), periods=period, method=method)
    ax = plot.free_energy(result, names=["phi (deg)"])
    drawn(ax)
    assert ax.get_xlim() == period
    x, y = ax.lines[0].get_data()
    assert x.min() <= -180
    assert x.max() >= 180  # the curve goes on over both edges
    assert np.interp(-180, x, y) == pytest.approx(np.interp(180, x, y))
    both = pv.free_energy(two_basins(2000, 2), periods=[period] * 2, method=method)
    energy, error, *_ = plot.free_energy_with_error(both, names=["phi (deg)", "psi (deg)"], unit="kT")
    figure = drawn(energy)
    for ax in (energy, error):
        assert (ax.get_xlim(), ax.get_ylim()) == (period, period)
        assert ax.get_xlabel() == "phi (deg)"
    assert energy.get_ylabel() == "psi (deg)"
    assert [ax.get_ylabel() for ax in figure.axes[2:]] == ["free energy (kT)", "error (kT)"]


def test_a_free_energy_is_not_shown_where_kernels_alone_are():
    z = np.random.default_rng(0).normal(size=(2000, 1))
    result = pv.free_energy(z)
    top = plot.free_energy(result, names=["z0"]).get_ylim()[1]
    at_frames = np.interp(z[:, 0], *result.grid, result.energy)
    assert at_frames.max() < top < at_frames.max() + 1 < result.energy.max()


def test_marginals_of_latents_count_frames_by_weight_and_keep_their_halves_in_the_band():
    rng = np.random.default_rng(0)
    z, weights = rng.normal(size=(400, 2)), rng.integers(0, 3, 400).astype(float)
    generated = rng.normal(size=(300, 2)) + 1
    twice = z[np.repeat(np.arange(400), weights.astype(int))]
    by_weight = plot.latent_marginals(z, weights=weights, generated=generated)
    drawn(by_weight)
    for one, other in zip(by_weight, plot.latent_marginals(twice), strict=True):
        at, density = one.lines[1].get_data()
        np.testing.assert_allclose(density, np.interp(at, *other.lines[1].get_data()), atol=1e-3)
    for k, ax in enumerate(by_weight):
        assert ax.get_xlabel() == f"z{k}"
        x, y = ax.lines[2].get_data()
        assert np.trapezoid(x * y, x) == pytest.approx(generated[:, k].mean(), abs=0.01)
        (band,) = ax.collections
        points = band.get_paths()[0].vertices
        at, density = ax.lines[1].get_data()
        top = [points[np.abs(points[:, 0] - x) < 1e-9, 1] for x in at[::20]]
        inside = [t.min() - 1e-9 <= d <= t.max() + 1e-9 for t, d in zip(top, density[::20], strict=True)]
        assert np.mean(inside) > 0.9  # the whole lies between halves of it


def test_the_floor_in_brackets_is_that_of_the_scores(traj):
    """The halves are those that `measures.noise_floor` takes."""
    from polyvae.measures import noise_floor
    from polyvae.plot.curves import halves_apart

    bonds = np.linalg.norm(np.diff(traj.positions[:, :2], axis=1), axis=2)[:, 0]
    two = dataclasses.replace(traj, positions=traj.positions[:, :2], masses=None, names=None, bonds=None)
    assert halves_apart(bonds) == pytest.approx(noise_floor(two)["bond"], rel=1e-4)

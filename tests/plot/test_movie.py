"""A movie holds the frames that it says, and shows each where it is."""

import dataclasses
import json
import shutil
import subprocess

import numpy as np
import pytest
from conftest import ideal_chains
from models import untrained

import polyvae as pv
from polyvae.plot.movie import followed, storyboard


@pytest.fixture(scope="module")
def run() -> pv.Trajectory:
    """A 3-D chain that turns and drifts, in two segments."""
    x = ideal_chains(40, 6, 3) + np.linspace(0, 300, 40)[:, None, None]
    return pv.Trajectory(x, time=2.0 * np.arange(40), length_unit="nm", segments=(25, 15))


@pytest.fixture(scope="module")
def cv(run) -> pv.LatentCV:
    return untrained(run)


def dot(ax):
    return np.ravel([line.get_data() for line in ax.lines if line.get_marker() == "o"])


def test_each_panel_shows_the_frame_that_is_on(run, cv):
    rows = np.array([0, 7, 24, 25, 39])
    figure, draw = storyboard(cv, run, rows)
    as_read, aligned, latent = figure.axes
    z, turned = cv.transform(run), cv.align(run)
    for k in (2, 0, 4):
        draw(k)
        np.testing.assert_allclose(dot(latent), z[rows[k]])
        for ax, x in ((as_read, run.positions[rows[k]]), (aligned, turned[rows[k]])):
            (chain,) = ax.collections
            boxes = [path.get_extents() for path in chain.get_paths()]
            centres = np.array([[(b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2] for b in boxes])
            for bead in x[:, :2]:
                assert np.abs(centres - bead).max(axis=1).min() < 1e-3
                assert ax.get_xlim()[0] < bead[0] < ax.get_xlim()[1]
                assert ax.get_ylim()[0] < bead[1] < ax.get_ylim()[1]
        assert f"{run.time[rows[k]]:g} ps" in as_read.get_title(loc="left")
    assert as_read.get_xlabel() == "x (nm)"


def test_the_trail_ends_at_the_point_and_breaks_at_segments(run, cv):
    figure, draw = storyboard(cv, run, np.arange(40))
    z = cv.transform(run)
    trail = next(c for c in figure.axes[2].collections if c.get_zorder() == 4)
    draw(24)
    np.testing.assert_allclose(trail.get_segments()[-1], z[23:25], rtol=1e-6)
    alphas = trail.get_colors()[:, 3]
    assert (np.diff(alphas) > 0).all()
    draw(25)  # the first of a new segment: nothing joins the two
    assert not any(np.allclose(step, z[24:26]) for step in trail.get_segments())
    draw(0)
    assert len(trail.get_segments()) == 0


def test_the_view_follows_only_before_the_chain_would_leave():
    still = followed(np.array([[0.0, 0], [0.9, 0], [-0.9, 0.5]]), 1.0)
    assert (still == 0).all()
    moved = followed(np.array([[0.0, 0], [3.0, 0], [2.5, 0], [0.0, 0]]), 1.0)
    np.testing.assert_allclose(moved[:, 0], [0, 2, 2, 1])


def test_one_latent_is_a_point_in_time(run):
    cv = untrained(run, latent_dim=1)
    figure, draw = storyboard(cv, run, np.arange(40))
    draw(11)
    np.testing.assert_allclose(dot(figure.axes[2]), [22.0, cv.transform(run)[11, 0]])
    assert figure.axes[2].get_xlabel() == "time (ps)"


def test_the_density_is_that_of_the_weights(run, cv):
    weights = np.arange(40) % 3.0
    twice = run[np.repeat(np.arange(40), weights.astype(int))]
    levels = []
    for traj in (dataclasses.replace(run, weights=weights), twice, run):
        figure, _ = storyboard(cv, traj, np.arange(3))
        levels.append(figure.axes[2].collections[0].levels[:-1])
    np.testing.assert_allclose(levels[0], levels[1], rtol=1e-5)
    assert not np.allclose(levels[0], levels[2], rtol=1e-2)


def test_a_gif_has_the_frames_the_pace_and_white_paper(run, cv, tmp_path, caplog):
    from PIL import Image

    seen = []
    with caplog.at_level("INFO", logger="polyvae"):
        assert pv.movie(cv, run, tmp_path / "m.gif", frames=5, fps=4, progress=seen.append) == 5
    assert seen == [1] * 5
    assert "5 of 40 frames" in caplog.text
    with Image.open(tmp_path / "m.gif") as image:
        assert (image.n_frames, image.info["duration"], image.info["loop"]) == (5, 250, 0)
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert [path.name for path in tmp_path.iterdir()] == ["m.gif"]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg here")
def test_an_mp4_has_the_frames(cv, run, tmp_path):
    pv.movie(cv, run[:4], tmp_path / "m.mp4")
    ask = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", str(tmp_path / "m.mp4")]
    (stream,) = json.loads(subprocess.run(ask, check=True, capture_output=True).stdout)["streams"]
    assert (stream["codec_name"], stream["pix_fmt"], stream["nb_read_frames"]) == ("h264", "yuv420p", "4")
    assert [path.name for path in tmp_path.iterdir()] == ["m.mp4"]


def test_what_cannot_be_written_is_refused_and_leaves_nothing(cv, run, tmp_path, monkeypatch):
    with pytest.raises(pv.InputError, match=r"must end in .gif, .mp4; got .avi"):
        pv.movie(cv, run, tmp_path / "m.avi")
    with pytest.raises(pv.InputError, match="at most 50 frames a second"):
        pv.movie(cv, run, tmp_path / "m.gif", fps=60)

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pv.movie(cv, run, tmp_path / "m.gif", frames=2, progress=stop)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pv.InputError, match="ffmpeg"):
        pv.movie(cv, run, tmp_path / "m.mp4")
    assert list(tmp_path.iterdir()) == []

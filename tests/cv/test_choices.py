"""What `fit` chooses where it is not told, on chains and on motions whose times are known."""

import dataclasses
import logging

import numpy as np
import pytest
from conftest import DATA, ideal_chains

import polyvae as pv
from polyvae.cv import choices, fitting
from polyvae.cv.choices import choose_alignment, choose_lag
from polyvae.features import continuity
from polyvae.vae.settings import Settings, sized

UNTOLD = Settings(batch_size=None, validation=None, encoder=None)
TINY = {"epochs": 1, "encoder": (4,), "decoder": (4,), "batch_size": 50}


def moving(times, n: int, seed: int = 0) -> np.ndarray:
    """Independent Ornstein-Uhlenbeck motions of unit variance, with these relaxation times in frames."""
    rng, keep = np.random.default_rng(seed), np.exp(-1 / np.asarray(times, float))
    x = np.zeros((n, len(times)))
    for k in range(1, n):
        x[k] = keep * x[k - 1] + np.sqrt(1 - keep**2) * rng.normal(size=len(times))
    return x.astype(np.float32)


class TestAlignment:
    def test_a_run_whose_principal_axes_jump_is_superposed(self, caplog):
        traj = pv.read(DATA / "chain2d_dense.npz")
        choice = choose_alignment(traj)
        assert isinstance(choice.value, pv.Reference)
        assert choice.reason.startswith("alignment Reference(): PrincipalAxes() jumps at 27 of 1999 steps")
        with caplog.at_level(logging.INFO, logger="polyvae"):
            cv = pv.fit(traj, lag=0, **TINY)
        assert isinstance(cv.featurizer, pv.Reference)
        assert cv.record.choices["featurizer"] in caplog.text

    def test_a_stiff_s_keeps_its_principal_axes(self):
        """Its extents differ, and so do its two ends."""
        t, rng = np.arange(8) - 3.5, np.random.default_rng(0)
        letter = np.stack([t, 0.05 * t**3 - 0.3 * t, 0 * t], axis=1)
        traj = pv.Trajectory(letter + 0.01 * rng.normal(size=(300, 8, 3)))
        assert isinstance(choose_alignment(traj).value, pv.PrincipalAxes)

    def test_what_is_told_is_taken(self):
        cv = pv.fit(pv.read(DATA / "chain2d_dense.npz")[:400], featurizer=pv.PrincipalAxes(), lag=3, **TINY)
        assert isinstance(cv.featurizer, pv.PrincipalAxes)
        assert cv.record.choices is None
        assert cv.record.settings.lag == 3


class TestDistances:
    """Of a chain of more than 100 beads not all pairs are taken."""

    def test_it_is_said_recorded_and_saved(self, tmp_path, caplog):
        traj = pv.Trajectory(ideal_chains(60, 250, 2))
        with caplog.at_level(logging.INFO, logger="polyvae"):
            cv = pv.fit(traj, featurizer=pv.PairDistances(), lag=0, **TINY | {"batch_size": 16})
        assert cv.mean.shape == (84 * 83 // 2,)
        (said,) = (record.message for record in caplog.records if "bead" in record.message)
        assert said == cv.record.choices["pairs"]
        assert said.startswith("distances among one bead in 3, 84 of 250, since 31,125 pairs are too many")
        cv.save(tmp_path / "model.safetensors")
        again = pv.load(tmp_path / "model.safetensors")
        assert again.featurizer.every == 3
        assert (again.transform(traj) == cv.transform(traj)).all()
        assert pv.sample(again, 2).positions.shape == (2, 250, 2)

    def test_what_is_told_is_taken(self):
        traj = pv.Trajectory(ideal_chains(60, 250, 2))
        told = pv.PairDistances(every=25)
        assert pv.fit(traj, featurizer=told, lag=0, **TINY | {"batch_size": 16}).record.choices is None

    def test_the_choice_of_an_alignment_makes_no_list_of_all_pairs(self, monkeypatch):
        """All pairs of 5,000 beads, for as many frames as are taken at once, would be 40 GB."""
        seen = []

        def jumps(traj, featurizer):
            seen.append(continuity.jumps(traj, featurizer))
            return seen[-1] if len(seen) == 3 else dataclasses.replace(seen[-1], fraction=0.5)

        monkeypatch.setattr(choices, "jumps", jumps)
        assert isinstance(choose_alignment(pv.Trajectory(ideal_chains(3, 5_000, 3))).value, pv.PairDistances)
        assert [found.n_steps for found in seen] == [2, 2, 2]

    def test_features_of_many_times_the_coordinates_lie_on_disk(self, monkeypatch):
        traj, made = pv.Trajectory(ideal_chains(60, 40, 2)), []
        new_file = fitting._temporary_file
        monkeypatch.setattr(fitting, "IN_MEMORY", 2 * traj.positions.nbytes)
        monkeypatch.setattr(fitting, "_temporary_file", lambda *a: made.append(new_file(*a)) or made[-1])
        pv.fit(traj, featurizer=pv.PairDistances(), lag=0, **TINY | {"batch_size": 16})
        assert [file.shape for file in made] == [(60, 780)]


class TestLag:
    @pytest.mark.parametrize(("times", "low", "high"), [((1000, 10, 3, 2), 20, 40), ((30, 28, 27, 26), 6, 12)])
    def test_three_times_the_second_and_a_third_of_the_first(self, times, low, high):
        choice = choose_lag(moving(times, 40_000), (40_000,), most=1000)
        assert low <= choice.value <= high, choice.reason

    def test_states_that_the_run_never_leaves(self):
        """Two pieces, each in a state of its own: the slowest motion is endless, and the rest fast."""
        x = moving((8, 3, 2), 10_000)
        x = np.concatenate([x, np.repeat([[5.0], [-5.0]], 5000, axis=0)], axis=1)
        assert 15 <= choose_lag(x, (5000, 5000), most=1000).value <= 40

    def test_none_where_there_is_nothing_to_go_by(self):
        independent = np.random.default_rng(0).normal(size=(5000, 6))
        assert choose_lag(independent, (5000,), most=100).value == 0
        slow = moving((300, 30), 400)
        assert choose_lag(slow, (400,), most=100).value == 0, "too few neighbours"
        assert choose_lag(moving((300, 30), 5000), (50,) * 100, most=100).value == 0, "many short pieces"

    def test_no_longer_than_what_a_held_out_block_can_hold(self):
        assert choose_lag(moving((1000, 50, 3), 20_000), (20_000,), most=7).value == 7

    def test_weights_mean_none_and_the_record_says_so(self):
        traj = pv.read(DATA / "chain2d_dense.npz")
        cv = pv.fit(traj, weights=np.ones(len(traj)), **TINY)
        assert cv.record.settings.lag == 0
        assert "weights" in cv.record.choices["lag"]


class TestSizes:
    @pytest.mark.parametrize(
        ("n", "batch", "validation"),
        [(50, 16, 0.2), (98, 16, 0.2), (999, 256, 0.2), (1000, 256, 0.1), (10**7, 256, 0.1)],
    )
    def test_they_follow_the_frames(self, n, batch, validation):
        found = sized(UNTOLD, n, 36)
        assert (found.batch_size, found.validation, found.encoder) == (batch, validation, (64, 64))

    def test_what_is_told_stays_and_wide_molecules_get_a_narrow_encoder(self):
        told = Settings(batch_size=7, validation=0.3, encoder=(5,))
        assert sized(told, 20, 9).to_dict() == told.to_dict()
        assert sized(UNTOLD, 5000, 6000).encoder == (32, 32)

    def test_too_few_frames_are_refused_and_sixty_are_not(self):
        traj = pv.read(DATA / "chain2d.npz")
        with pytest.raises(pv.InputError, match="at least 50 frames.* got 49"):
            pv.fit(traj[:49])
        cv = pv.fit(traj[:60], epochs=2)
        assert (cv.record.data.n_train, cv.record.data.n_validation) == (50, 10)
        assert np.isfinite(cv.transform(traj)).all()


class TestOrder:
    def test_slow_latents_stand_first_and_idle_ones_last(self):
        """One slow direction and one fast one, a lag that only the slow one outlives, three latents."""
        x = np.concatenate(
            [moving((3000, 2), 6000), 0.1 * np.random.default_rng(1).normal(size=(6000, 2))], axis=1
        )
        found = []
        for seed in range(3):
            model = pv.fit_vae(x, latent_dim=3, lag=20, seed=seed, epochs=40, encoder=(16,), decoder=(16,))
            z = model.transform(x)
            assert model.record.collapsed == [k for k in range(3) if z[:, k].var() <= 0.01]
            assert abs(np.corrcoef(z[:, 0], x[:, 0])[0, 1]) > 0.9
            found.append(model.record.collapsed)
        assert found == [[1, 2]] * 3

    def test_kept_latents_are_the_same_function(self, tmp_path):
        traj = pv.read(DATA / "chain2d.npz")[:300]
        cv = pv.fit(traj, latent_dim=3, **TINY)
        few = cv.keep([2, 0])
        np.testing.assert_allclose(few.transform(traj), cv.transform(traj)[:, [2, 0]], atol=1e-6)
        z = few.transform(traj)
        padded = np.stack([z[:, 1], np.zeros(len(z)), z[:, 0]], axis=1)
        np.testing.assert_allclose(few.decode(z), cv.decode(padded), atol=1e-5)
        few.save(tmp_path / "few.safetensors")
        np.testing.assert_array_equal(pv.load(tmp_path / "few.safetensors").transform(traj), z)
        assert cv.keep([0, 1, 2]) is cv
        for bad in ([], [3], [0, 0]):
            with pytest.raises(pv.InputError, match="latents must be some of 0 to 2"):
                cv.keep(bad)

"""You learn the whole way from a trajectory to a collective variable: read a run, train, look at the latent
plane, follow a path through it, and search it for a structure more compact than any that the run has seen.

The run is a bead-spring chain in two dimensions (data/chain2d.npz), 4,000 frames far apart in time, with an
independent run to test on and one of frames close in time, in which the chain folds and unfolds. The same few
calls serve any trajectory: put your own file into `pv.read`.

    python 04_polymer.py [--quick] [--out FOLDER]
"""

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
from common import DATA, QUICK, save

import polyvae as pv
from polyvae import plot

# %% [markdown]
# A trajectory says what it holds: frames, beads, unit, time.

# %%
traj = pv.read(DATA / "chain2d.npz", step=8 if QUICK else 1)
dense = pv.read(DATA / "chain2d_dense.npz", stop=500 if QUICK else None)
heldout = pv.read(DATA / "chain2d_heldout.npz", step=8 if QUICK else 1)
print(traj)

# %% [markdown]
# Training. Frames are centred and superposed first, so that the CV knows neither place nor orientation; `pv.fit`
# says in its log which alignment it took, and why. Expect the latents to explain some 95 % of the variance of a
# run that they were not trained on, and the frames to fill the prior: mean 0, standard deviation 1.

# %%
cv = pv.fit(
    traj,
    seed=0,
    **({"epochs": 3, "encoder": (16,), "decoder": (32,), "featurizer": pv.PrincipalAxes()} if QUICK else {}),
)
z, z_dense = cv.transform(traj), cv.transform(dense)
scores = pv.score(cv, heldout, alternatives=False).frames.all
print(cv)
print(f"held-out run: {scores.fve:.1%} of the variance explained, ELBO {scores.elbo:.2f} nats per frame")
print(f"latents: mean {np.round(scores.latent_mean, 2)}, std {np.round(scores.aggregated_std, 2)}")

# %% [markdown]
# A CV must be continuous: along a run of frames that are close in time the latents should move in small steps,
# and the largest should not stand out by far. (`pv.score` counts the jumps of an alignment.)

# %%
steps = np.linalg.norm(np.diff(z_dense, axis=0), axis=1)
print(f"frames close in time: a step of {np.median(steps):.2f} in the median, {steps.max():.2f} at most")

# %% [markdown]
# The most compact structure: z moves down the gradient of the radius of gyration, then the coordinates
# themselves, held to the bonds and contacts that the data have. Expect an Rg below that of every frame, and
# "within the data's limits" in the message.

# %%
best = pv.optimize(cv, start=traj, **({"n_starts": 2, "steps": 30, "refine_steps": 100} if QUICK else {}))
print(f"optimised: Rg {best.value:.3f} σ, most compact frame {best.extreme_value:.3f} σ: {best.message}")

# %% [markdown]
# Left: the frames, aligned. Middle: what the latents mean, by the radius of gyration. Right: what the search
# found.

# %%
rg = np.asarray(jax.vmap(pv.radius_of_gyration)(traj.positions))
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), width_ratios=[1.4, 1.3, 0.95])
plot.overlay(cv.align(traj), title="Aligned", ax=left)
plot.latent_values(z, rg, label="radius of gyration Rg (σ)", ax=middle)
plot.structure(best.structure.positions[0], title=f"Optimised: Rg {best.value:.2f} σ", ax=right)
save(figure, "04_polymer")

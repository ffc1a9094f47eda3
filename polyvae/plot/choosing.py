"""Results of a sweep over settings."""

import numpy as np

from polyvae.plot.style import ALONG, NEUTRAL, canvas, evenly, styled
from polyvae.tasks.sweeps import Sweep

LABELS = {
    "bound": "bound on log p (nats a frame)",
    "fve": "fraction of variance explained",
    "active_units": "active latents",
    "vamp2": "VAMP-2",
}


@styled
def sweep(result: Sweep, *, axes=None):
    """Bound, FVE, active units and VAMP-2 on held-out frames, a line for each latent_dim.

    Against beta, or against latent_dim where there is one beta only. Dots are models, lines the means over
    their seeds.

    Args:
        result: of `polyvae.sweep`.
        axes: four of them; by default those of a new figure.

    Returns:
        Array of four axes.
    """
    import matplotlib

    betas = sorted({row["beta"] for row in result.rows})
    sizes = sorted({row["latent_dim"] for row in result.rows})
    along, over = ("latent_dim", "beta") if len(betas) == 1 else ("beta", "latent_dim")
    groups = betas if over == "beta" else sizes
    axes = canvas(axes, 2, 2, (8.4, 6.0))
    colors = matplotlib.colormaps[ALONG](np.linspace(0.1, 0.8, len(groups)))
    for ax, (name, label) in zip(axes, LABELS.items(), strict=True):
        for color, group in zip(colors, groups, strict=True):
            rows = [row for row in result.rows if row[over] == group and row[name] is not None]
            means = [row for row in result.summary() if row[over] == group and row[name] is not None]
            means.sort(key=lambda row: row[along])
            title = f"{group} latent{'s' * (group != 1)}" if over == "latent_dim" else f"beta {group:g}"
            ax.plot([m[along] for m in means], [m[name] for m in means], color=color, linewidth=1.6, label=title)
            ax.plot([r[along] for r in rows], [r[name] for r in rows], "o", color=color, markersize=3.5, alpha=0.6)
        ax.set_ylabel(label)
        if along == "beta":
            ax.set_xlabel("beta, the weight of the KL term")
            if betas[0] > 0 and betas[-1] > 4 * betas[0]:
                ax.set_xscale("log")
            shown = [betas[k] for k in evenly(len(betas), 6)]
            ax.set_xticks(shown, [f"{value:g}" for value in shown])
            ax.minorticks_off()
        else:
            ax.set_xlabel("latent coordinates")
            ax.set_xticks(sizes)
    if len(groups) > 1:
        axes[0].legend()
    elif along == "beta":
        axes[0].set_title(f"{groups[0]} latent{'s' * (groups[0] != 1)}", color=NEUTRAL)
    axes[2].yaxis.get_major_locator().set_params(integer=True)
    return axes

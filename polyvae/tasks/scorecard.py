"""Results of `score`: records of plain numbers, which scores.json holds under the same names."""

import dataclasses

import numpy as np

from polyvae.records import Record, html_of, in_words


@dataclasses.dataclass(frozen=True)
class FrameScores(Record):
    """The numbers of some frames; None for a number that cannot be computed.

    Averages are weighted where the trajectory has weights. `n_frames` and numbers that depend on the order of the
    frames are not weighted. A model with a time lag decodes the later frame, and frames without one in their
    segment (in their chunk, for a `Stream`) are not decoded.

    Args:
        n_frames: number of frames.
        squared_error: squared distance between a frame's features and the decoded mean of its encoding, summed
            over features, in length^2.
        rmsd: the root of squared_error per bead, or with `PairDistances` per pair.
        fve: the fraction of the features' variance that the decoded mean explains.
        reconstruction, kl, elbo: in nats per frame, the density taken in the model's length unit and the
            expectation over one draw of z a frame.
        kl_per_latent: the terms of kl.
        active_units: number of latents with a variance of the encoder's mean above 0.01.
        latent_mean, latent_std: mean and standard deviation of the encoder's mean, one number a latent.
        aggregated_std, aggregated_covariance: the same with the encoder's own spread, about latent_mean. Where the
            data fill the prior, the mean is 0 and the covariance is the unit matrix.
        correlation_rg, correlation_end_to_end: of each latent's mean with these lengths; None for one that does
            not vary, and for the ends of molecules other than linear chains.
        iw_bound: the importance-weighted bound (`importance_weighted_bound`), in the nats of elbo: elbo plus the
            mean difference of the two on n_costly evenly chosen frames.
        iw_k: draws of z a frame for that bound.
        n_costly: number of frames for iw_bound and the gradients.
        gradient_mean, gradient_max: norm of each latent's gradient in all positions of a frame, the alignment's
            part included, in 1 / length.
        vamp2: between 1 and 1 + latents, at the lag of `Kinetics`, of the encoder's mean. No pair of frames
            crosses from one segment, or one held-out block, to another, here and below.
        timescale: the slowest implied timescale at that lag, a lower bound; None where these frames hold it fewer
            than four times.
        autocorrelation_time: one a latent, about twice its decay time; None where the pieces are too short.
        n_steps: steps between neighbouring frames; None for a `Stream`.
        n_jumps: steps at which the features jump; None for a `Stream`.
    """

    n_frames: int
    squared_error: float | None
    rmsd: float | None
    fve: float | None
    reconstruction: float | None
    elbo: float | None
    kl: float
    kl_per_latent: list[float]
    active_units: int
    latent_mean: list[float]
    latent_std: list[float]
    aggregated_std: list[float]
    aggregated_covariance: list[list[float]]
    correlation_rg: list[float | None]
    correlation_end_to_end: list[float | None]
    iw_bound: float | None
    iw_k: int
    n_costly: int
    gradient_mean: list[float] | None
    gradient_max: list[float] | None
    vamp2: float | None
    timescale: float | None
    autocorrelation_time: list[float | None]
    n_steps: int | None = None
    n_jumps: int | None = None

    OPTIONAL = ("n_steps", "n_jumps")


@dataclasses.dataclass(frozen=True)
class ScoredFrames(Record):
    """Scores of all frames; also of training and validation frames if these are the frames of the fit."""

    all: FrameScores
    train: FrameScores | None = None
    validation: FrameScores | None = None

    OPTIONAL = ("train", "validation")

    def parts(self) -> dict[str, FrameScores]:
        """The parts that exist, by name."""
        return {name: part for name, part in vars(self).items() if part is not None}


@dataclasses.dataclass(frozen=True)
class Kinetics(Record):
    """Settings of the kinetic numbers.

    Args:
        lag: in frames.
        time_step: between frames; None where the times are not known or not evenly spaced.
        time_unit: of timescale and autocorrelation_time: "ps" ("tau" for reduced units), or "frames" without a
            time_step.
    """

    lag: int
    time_step: float | None
    time_unit: str


@dataclasses.dataclass(frozen=True)
class Alignment(Record):
    """How continuous the featurizer is along the trajectory.

    Args:
        featurizer: its name.
        n_steps: steps between neighbouring frames.
        n_jumps: steps at which the features jump (`continuity.jumps`).
        jump_fraction: their share of all steps.
        margins: distances from an undefined frame (`continuity.margins`) by name: the "smallest", and the weighted
            1 % quantile over the frames, "one_percent". Frames of weight 0 are left out.
        message: names a featurizer that does not jump; None if this one does not.
    """

    featurizer: str
    n_steps: int
    n_jumps: int
    jump_fraction: float
    margins: dict[str, dict[str, float]]
    message: str | None


@dataclasses.dataclass(frozen=True)
class Distances(Record):
    """Wasserstein-1 distances between two ensembles (`ensemble_distances`), as lengths, for angles in radians.

    Args:
        end_to_end: None for molecules other than linear chains.
    """

    bond: float
    angle: float
    rg: float
    end_to_end: float | None
    pairs: float


@dataclasses.dataclass(frozen=True)
class Generated(Distances):
    """Distances between generated conformations and the data.

    Args:
        noise_floor: distances between random halves of the data, with their weights (`measures.noise_floor`).
    """

    noise_floor: Distances


@dataclasses.dataclass(frozen=True)
class Scores(Record):
    """Result of `score`, such as `scores.frames.all.fve`.

    Args:
        length_unit: of all lengths.
        frames: scores of all frames, and of training and validation frames apart.
        kinetics: lag and unit of time of the kinetic numbers.
        alignment: jumps of the featurizer; None for a `Stream`.
        generated: distances between generated conformations and the data; None without generated conformations.
    """

    length_unit: str
    frames: ScoredFrames
    kinetics: Kinetics
    alignment: Alignment | None = None
    generated: Generated | None = None

    OPTIONAL = ("alignment", "generated")

    def table(self) -> list[list[str]]:
        """The numbers of all frames, and of training and validation frames, a column each."""
        unit, time_unit, parts = self.length_unit, self.kinetics.time_unit, self.frames.parts()
        rows = [["", *parts]]
        for label, key in (
            ("frames", "n_frames"),
            ("variance explained", "fve"),
            (f"RMSD ({unit})", "rmsd"),
            ("ELBO (nats a frame)", "elbo"),
            (f"importance-weighted bound, k = {self.frames.all.iw_k}", "iw_bound"),
            ("KL per latent (nats)", "kl_per_latent"),
            ("active latents", "active_units"),
            ("aggregated mean", "latent_mean"),
            ("aggregated std", "aggregated_std"),
            (f"VAMP-2 at lag {self.kinetics.lag}", "vamp2"),
            (f"slowest timescale ({time_unit})", "timescale"),
            (f"autocorrelation time ({time_unit})", "autocorrelation_time"),
            ("correlation with Rg", "correlation_rg"),
            ("correlation with end-to-end", "correlation_end_to_end"),
            (f"mean gradient (1/{unit})", "gradient_mean"),
            (f"largest gradient (1/{unit})", "gradient_max"),
        ):
            cells = [in_words(getattr(part, key)) for part in parts.values()]
            if key != "correlation_end_to_end" or set("".join(cells)) - set("- "):
                rows.append([label, *cells])
        if self.alignment is not None:
            rows.append(["alignment jumps", *(f"{part.n_jumps} of {part.n_steps}" for part in parts.values())])
        return rows

    def to_frame(self):
        """The numbers as a pandas table: a column for all, training and validation frames, a row for each number.

        Numbers of a latent are in rows such as "latent_std z0".
        """
        import pandas as pd

        columns: dict[str, dict[str, float]] = {}
        for part, found in self.frames.parts().items():
            columns[part] = {}
            for name, value in found.to_dict().items():
                for index, number in np.ndenumerate(np.asarray(value, float)):
                    columns[part][" ".join([name, *(f"z{k}" for k in index)])] = float(number)
        return pd.DataFrame(columns)

    def about_generated(self) -> str:
        """A line on the distances of generated conformations; empty without these."""
        if self.generated is None:
            return ""
        names = [name for name in Distances.__annotations__ if self.generated[name] is not None]
        floor = self.generated.noise_floor
        return (
            f"generated against data, Wasserstein-1 in {self.length_unit}, angles in radians "
            "(two halves of the data): "
            + ", ".join(f"{name} {self.generated[name]:.3f} ({floor[name]:.3f})" for name in names)
        )

    def _repr_html_(self) -> str:
        return html_of("Scores", self.table(), self.about_generated())

"""The numbers that a report shows: what each is called, what a good value is, which of two is better."""

import dataclasses
from html import escape

from polyvae.app.markup import finite, get, number
from polyvae.core.units import LENGTHS
from polyvae.tasks.states import ENOUGH
from polyvae.tasks.verdict import FLOORS, JUDGED, JUMPS

ENSEMBLES = {
    "bond": "bond lengths",
    "angle": "bond angles",
    "rg": "radii of gyration",
    "end_to_end": "end-to-end distances",
    "pairs": "bead distances",
}


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One number of a model."""

    key: str  # field of `FrameScores`, or a name of its own; name: in words; unit: escaped, or ""
    name: str
    unit: str
    good: str  # description of a good value
    better: int = 0  # 1 where larger is better, -1 where smaller is, 0 where neither is
    alike: tuple[str, ...] = ()  # settings, beside their data, that two models must share to be compared
    given: str = ""  # condition that it was taken at, if that varies from model to model

    def title(self) -> str:
        """The name, and what it was taken at."""
        return f"{self.name}{self.given and ', '}{self.given}"


def length_unit(scores: dict) -> str:
    """The symbol of the length unit, escaped."""
    name = get(scores, "length_unit", kind=str) or get(scores, "data", "length_unit", kind=str) or ""
    return escape(LENGTHS[name].symbol if name in LENGTHS else name)


def time_unit(scores: dict) -> str:
    """The symbol of the unit of time, escaped."""
    name = get(scores, "kinetics", "time_unit", kind=str) or ""
    return escape({"tau": "τ"}.get(name, name))


def parts(scores: dict) -> dict[str, dict]:
    """Scores of the frames trained on and held out, by what they are called; of all frames where that is all."""
    names = {"train": "training", "validation": "held out"}
    found = {title: part for key, title in names.items() if (part := get(scores, "frames", key, kind=dict))}
    everything = get(scores, "frames", "all", kind=dict)
    return found or ({"all frames": everything} if everything else {})


def n_latents(scores: dict) -> int:
    """How many latents there are; 0 where that is not known."""
    kl = get(scores, "frames", "all", "kl_per_latent", kind=list)
    asked = finite(get(scores, "model", "settings", "latent_dim"))
    return len(kl) if kl else int(asked or 0)


def of_frames(scores: dict) -> list[Quantity]:
    """One number for some frames, by its name in `FrameScores`."""
    unit, time, n = length_unit(scores), time_unit(scores), n_latents(scores)
    lag, k = number(get(scores, "kinetics", "lag")), number(get(scores, "frames", "all", "iw_k"))
    draws = f"k\u00a0=\u00a0{k}" if k else ""
    shape = ("alignment", "lag", "validation")
    frames = "frame" if lag == "1" else "frames"
    most = f"near {1 + n}: nothing is forgotten over the lag; 1: all is" if n else "large"
    at = f"lag {lag} {frames}" if lag else ""
    kinetic = ("lag of the scores", "validation")
    bound = "high: what to compare models of the same data by"
    long = "long beside the lag; a lower bound, which rises with the lag to half the autocorrelation time"
    return [
        Quantity("fve", "variance explained", "", "near 1, less with a time lag", 1, shape),
        Quantity("rmsd", "RMSD per bead, decoded", unit, "well below a bond length", -1, shape),
        Quantity("elbo", "ELBO", "nats a frame", "held out as in training; much lower is over-fitting", 1, shape),
        Quantity("iw_bound", "importance-weighted bound", "nats a frame", bound, 1, shape, draws),
        Quantity("vamp2", "VAMP-2", "", most, 1, (*kinetic, "number of latents"), at),
        Quantity("timescale", "slowest implied timescale", time, long, 1, kinetic, at),
        Quantity("n_jumps", "jumps of the alignment", "", f"0; up to {JUMPS:.0%} of the steps is fair", -1),
    ]


def of_latents(scores: dict) -> list[Quantity]:
    """One number a latent, by its name in `FrameScores`."""
    unit, time = length_unit(scores), time_unit(scores)
    per_length = f"1/{unit}" if unit else ""
    slow = "long, of z0 the longest; about twice a decay time"
    even = "near each other; where not, try --smoothness"
    return [
        Quantity("kl_per_latent", "KL: the information in it", "nats", "above 0; an inactive latent has 0"),
        Quantity("latent_mean", "mean", "", "0"),
        Quantity("aggregated_std", "spread", "", "0.8 to 1.2: draws from the prior meet the data"),
        Quantity("correlation_rg", "correlation with Rg", "", "any; at ±1 it is Rg under another name"),
        Quantity("correlation_end_to_end", "correlation with end-to-end", "", "any"),
        Quantity("autocorrelation_time", "autocorrelation time", time, slow),
        Quantity("gradient", "slope, mean and steepest", per_length, even),
    ]


def of_ensemble(scores: dict) -> list[tuple[str, float | None, float | None, float | None]]:
    """Distances between generated conformations and the data: key, distance, noise floor and their ratio."""
    found = []
    for key in ENSEMBLES:
        apart, floor = (finite(get(scores, "generated", *path, key)) for path in ((), ("noise_floor",)))
        ratio = apart / floor if apart is not None and floor else None
        found.append((key, apart, floor, ratio if ratio is None or ratio >= 0 else None))
    return found


def good_ratio(key: str) -> str:
    """Description of a good distance in noise floors."""
    limit = f"below {FLOORS:g}" if key in JUDGED else "the verdict does not ask"
    return f"{limit}; 1 is the data's own noise"


def compared(scores: dict) -> list[tuple[Quantity, float | None]]:
    """One number a model, for models side by side: of held-out frames where there are any."""
    part = list(parts(scores).values())[-1:] or [{}]
    found = [(quantity, finite(get(part[0], quantity.key))) for quantity in of_frames(scores)]
    everything = get(scores, "frames", "all", kind=dict) or {}
    jumps, time = finite(get(everything, "n_jumps")), time_unit(scores)
    found = [(quantity, jumps if quantity.key == "n_jumps" else value) for quantity, value in found]
    slow = _first(get(everything, "autocorrelation_time"))
    good = f"long, and in the run {ENOUGH} times or more"
    found.append((Quantity("slowest", "autocorrelation time of z0", time, good, 1), slow))
    mean, most = (_first(get(everything, key)) for key in ("gradient_mean", "gradient_max"))
    steep = most / mean if mean and most is not None else None
    good = "a few; many want --smoothness before a bias"
    found.append((Quantity("steepest", "steepest slope of z0", "times its mean", good, -1), steep))
    for key, _, _, ratio in of_ensemble(scores):
        name, good = f"generated {ENSEMBLES[key]}", good_ratio(key)
        found.append((Quantity(f"generated_{key}", name, "noise floors", good, -1), ratio))
    valid = get(scores, "optimized", "valid") is True
    rg = finite(get(scores, "optimized", "optimized", "rg")) if valid else None
    good = "smaller than in any frame"
    found.append((Quantity("optimum", "Rg of the optimised structure", length_unit(scores), good, -1), rg))
    return found


def _first(values) -> float | None:
    return finite(values[0]) if isinstance(values, list) and values else None


def setting(scores: dict, name: str):
    """A setting that numbers of a model depend on, by its name in `Quantity.alike`; None where it is not known."""
    paths = {
        "alignment": ("model", "settings", "featurizer"),
        "lag": ("model", "settings", "lag"),
        "validation": ("model", "settings", "validation"),
        "lag of the scores": ("kinetics", "lag"),
    }
    return n_latents(scores) if name == "number of latents" else get(scores, *paths[name])


def data_of(scores: dict) -> tuple | None:
    """Identity of a model's data: fingerprints of frames and weights, and the unit."""
    data = get(scores, "data", kind=dict) or {}
    frames = get(data, "sha256", kind=str)
    return (frames, get(data, "weights_sha256"), get(data, "length_unit")) if frames else None

"""What the command line shows a person: notes, progress bars and tables."""

import contextlib
import logging
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def notes() -> Iterator[None]:
    """Show on stderr what the package tells its log."""
    logger, handler = logging.getLogger("polyvae"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def say(text: str) -> None:
    print(text, file=sys.stderr)


@contextlib.contextmanager
def training_bar(what: str) -> Iterator:
    """A callback for `pv.fit` that draws a bar with both loss terms on a terminal, and nothing in a pipe."""
    from tqdm import tqdm

    with tqdm(desc=what, unit="epoch", disable=None, file=sys.stderr, leave=False) as bar:

        def update(done: int, total: int, terms: dict[str, float]) -> None:
            bar.total = total
            bar.set_postfix_str(f"-log p {terms['reconstruction']:.2f}, KL {terms['kl']:.2f} nats", refresh=False)
            bar.update(done - bar.n)

        yield update


@contextlib.contextmanager
def frame_bar(what: str, total: int) -> Iterator:
    """A callback that takes a number of frames done, for a bar on a terminal and nothing in a pipe."""
    from tqdm import tqdm

    with tqdm(desc=what, unit="frame", total=total, disable=None, file=sys.stderr, leave=False) as bar:
        yield bar.update


def print_scores(scores: dict) -> None:
    unit = scores["length_unit"]
    parts = scores["frames"]
    print(f"{'':26s}" + "".join(f"{name:>14s}" for name in parts))
    for label, key in (
        ("frames", "n_frames"),
        ("variance explained", "fve"),
        (f"RMSD ({unit})", "rmsd"),
        ("ELBO (nats a frame)", "elbo"),
        ("KL (nats a frame)", "kl"),
        ("active latents", "active_units"),
        ("aggregated std", "aggregated_std"),
        ("correlation with Rg", "correlation_rg"),
    ):
        print(f"{label:26s}" + "".join(f"{_number(part[key]):>14s}" for part in parts.values()))
    floor = scores["generated"]["noise_floor"]
    print(f"generated against data, Wasserstein-1 in {unit} (two halves of the data):")
    print("  " + ", ".join(f"{k} {v:.3f} ({floor[k]:.3f})" for k, v in scores["generated"].items() if k in floor))


def _number(value) -> str:
    if isinstance(value, list):
        return " ".join(_number(v) for v in value)
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def print_optimum(summary: dict, objective: str, unit: str) -> None:
    found, extreme, limits = summary["optimized"], summary["data_extreme"], summary["limits"]
    print(f"\n{f'optimised {objective} ({unit})':26s}{'found':>14s}{'data extreme':>14s}   allowed")
    for label, key, allowed in (
        ("objective", "objective", ""),
        ("Rg", "rg", ""),
        ("shortest bond", "shortest_bond", f"at least {limits['shortest_bond']:.3f}"),
        ("mean bond", "mean_bond", f"{limits['shortest_mean_bond']:.3f} to {limits['longest_mean_bond']:.3f}"),
        ("longest bond", "longest_bond", f"at most {limits['longest_bond']:.3f}"),
        ("closest pair", "closest_pair", f"at least {limits['closest_pair']:.3f}"),
    ):
        print(f"{label:26s}{found[key]:14.3f}{extreme[key]:14.3f}   {allowed}")
    print(summary["message"])

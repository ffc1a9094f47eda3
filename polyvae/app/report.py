"""One self-contained HTML page from the files of a run: what was read, what came out, how to read it."""

import base64
import json
import math
import os
import struct
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from polyvae.app.explorer import explorer_section
from polyvae.errors import InputError
from polyvae.files import replacing
from polyvae.plot import CAPTIONS
from polyvae.plot.style import UNIT_SYMBOLS
from polyvae.tasks.scoring import ACTIVE

_PAGE = files("polyvae.app") / "page"
_UNIT_NAMES = {"nm": "nanometres", "angstrom": "ångström", "sigma": "reduced units (σ)"}

_PURPOSES = {
    "report.html": "this page",
    "model.safetensors": "the collective variable: polyvae.load, polyvae project",
    "COLVAR": "latent coordinates of every frame, as PLUMED writes and reads them",
    "latent.npz": "the same latent coordinates as a NumPy array",
    "latent.csv": "the same latent coordinates as a table",
    "optimized.pdb": "the optimised conformation",
    "explorer.json": "what the explorer on this page shows",
    "generated": "conformations drawn from the model, in the format of the input",
    "scores.json": "every number on this page and more, in full precision",
    "figures": "the pictures on this page, as PNG files",
}


def write_report(folder: str | os.PathLike) -> Path:
    """Write `report.html` from the scores.json and figures/*.png that lie in a folder; returns its path.

    The page stands alone, and nothing is fetched. What is missing from the folder is left out.

    Raises:
        InputError: there is no scores.json in the folder, or it does not hold a JSON object.
    """
    folder = Path(folder)
    scores = _read_scores(folder / "scores.json")
    sections = [
        _headline(scores),
        explorer_section(folder),
        _ensembles(scores),
        _optimum(scores),
        _figures(sorted((folder / "figures").glob("*.png"))),
        _frames(scores),
        _latents(scores),
        _model(scores),
        _files(folder),
    ]
    template, style = (_PAGE.joinpath(name).read_text(encoding="utf-8") for name in ("report.html", "report.css"))
    html = Template(template).substitute(style=style, sections="\n".join(filter(None, sections)))
    with replacing(path := folder / "report.html") as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def _read_scores(path: Path) -> dict:
    advice = "`polyvae run` and `polyvae score` write it"
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"a report needs the numbers in {path}, which does not exist; {advice}") from None
    except (OSError, ValueError) as error:  # a JSON or a text decoding error is a ValueError
        raise InputError(f"{path} must hold a JSON object, but cannot be read ({error}); {advice}") from None
    if not isinstance(scores, dict):
        raise InputError(f"{path} must hold a JSON object; it holds a {type(scores).__name__}; {advice}")
    return scores


def _get(tree, *keys, kind=object):
    """What lies at a path of keys, or None where it is missing or not of that kind."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree if isinstance(tree, kind) else None


def _number(value) -> str | None:
    """Three significant digits, thousands separated; None for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    if isinstance(value, int) or value == 0:
        text = f"{value:,.0f}"
    elif 1e-4 <= abs(value) < 1e6:
        text = f"{value:,.{max(0, 2 - int(f'{value:.2e}'.split('e')[1]))}f}"
    else:
        text = f"{value:.2e}"
    return text.replace("-", "−")


def _numbers(values) -> list[str]:
    return [text for text in map(_number, values or []) if text is not None]


def _unit(scores: dict) -> str:
    name = _get(scores, "length_unit", kind=str) or _get(scores, "data", "length_unit", kind=str) or ""
    return UNIT_SYMBOLS.get(name, name)


def _best_part(scores: dict) -> tuple[str, dict]:
    """The frames that tell most: those that training has not seen, else all."""
    for name in ("validation", "all"):
        part = _get(scores, "frames", name, kind=dict)
        if part:
            return name, part
    return "all", {}


def _table(head: Sequence[str], rows: Iterable[Sequence[str | None]], css: str = "") -> str:
    """Rows that hold a value beside their name; cells are HTML already."""
    rows = [row for row in rows if any(row[1:])]
    if not rows:
        return ""
    top = "<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>" if any(head) else ""
    body = "".join("<tr>" + "".join(f"<td>{cell or ''}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table class="{css}">{top}{body}</table></div>'


def _section(title: str, *parts: str) -> str:
    return f"<h2>{title}</h2>\n" + "\n".join(filter(None, parts)) if any(parts) else ""


def _headline(scores: dict) -> str:
    data, unit = _get(scores, "data", kind=dict) or {}, _unit(scores)
    n_frames = _number(_get(data, "n_frames")) or _number(_get(scores, "frames", "all", "n_frames"))
    name, part = _best_part(scores)
    n_latents = len(_get(part, "kl_per_latent", kind=list) or []) or _get(
        scores, "model", "settings", "latent_dim"
    )
    beads, dims = _number(_get(data, "n_beads")), _number(_get(data, "n_dims"))

    what = [
        f"{n_frames} frames" if n_frames else "",
        f"{beads} beads" if beads else "",
        f"{dims}-D" if dims else "",
    ]
    read = " of ".join(filter(None, what[:2])) + (f" in {what[2]}" if what[2] else "")
    latents = f"{n_latents} latent coordinate{'' if n_latents == 1 else 's'}" if _number(n_latents) else ""
    out = [f"<h1>{escape(' → '.join(filter(None, (read, latents)))) or 'polyvae report'}</h1>"]
    files = [escape(Path(str(file)).name) for file in _get(data, "files", kind=list) or []]
    source = "Read from " + ", ".join(f"<code>{file}</code>" for file in files) + ". " if files else ""
    unit_name = _get(scores, "length_unit", kind=str) or _get(data, "length_unit", kind=str)
    if unit_name:
        source += f"Lengths in {escape(_UNIT_NAMES.get(unit_name, unit_name))}. "
    if worth := _number(_get(data, "n_effective")):
        source += f"All but kinetic numbers are weighted; the frames are worth {worth} of equal weight. "
    out.append(f"<p>{source}{escape(_get(data, 'unit_note', kind=str) or '')}</p>")
    if _get(scores, "command", kind=str):
        out.append(f"<pre>{escape(scores['command'])}</pre>")
    out.append(_verdict(scores))
    out.append(_cards(part, name, unit))
    out.append(_plain_words(scores, part, name, unit))
    return "\n".join(out)


def _verdict(scores: dict) -> str:
    chosen = (f"chosen: {text}" for text in (_get(scores, "model", "choices", kind=dict) or {}).values())
    parts = (str(line).partition(": ") for line in [*(_get(scores, "verdict", kind=list) or []), *chosen])
    items = "".join(f"<li><b>{escape(name.capitalize())}:</b> {escape(text)}.</li>" for name, _, text in parts)
    return items and f'<ul class="plain">{items}</ul>'


def _cards(part: dict, name: str, unit: str) -> str:
    seen = "on the validation frames" if name == "validation" else "on all frames"
    fve, rmsd, elbo = _get(part, "fve"), _number(_get(part, "rmsd")), _number(_get(part, "elbo"))
    latents = len(_get(part, "kl_per_latent", kind=list) or [])
    active = _number(_get(part, "active_units"))
    rg = max(_finite(_get(part, "correlation_rg", kind=list)), key=lambda pair: abs(pair[1]), default=None)
    cards = []
    if _number(fve):
        text = f"{100 * fve:.1f}".replace("-", "−")
        cards.append((f"{text} %", "", "variance explained", f"of the aligned coordinates (FVE), {seen}"))
    if rmsd:
        cards.append((rmsd, unit, "RMSD per bead", f"a frame against the decoded mean of its latents, {seen}"))
    if elbo:
        cards.append((elbo, "nats", "ELBO per frame", f"density per length unit, {seen}; higher is better"))
    if active:
        cards.append(
            (
                f"{active} of {latents}" if latents else active,
                "",
                "latents active",
                f"variance of their mean above {ACTIVE}",
            )
        )
    if rg:
        text = f"{rg[1]:.2f}".replace("-", "−")
        cards.append(
            (text, "", f"correlation of z{rg[0]} with Rg", "the strongest of the latents; the sign is free")
        )
    if not cards:
        return ""
    html = "".join(
        f'<div class="card"><b>{value}{f" <small>{escape(small)}</small>" if small else ""}</b>'
        f"<span>{title}</span><p>{note}</p></div>"
        for value, small, title, note in cards
    )
    return f'<div class="cards">{html}</div>'


def _finite(values) -> list[tuple[int, float]]:
    return [(k, value) for k, value in enumerate(values or []) if _number(value)]


def _plain_words(scores: dict, part: dict, name: str, unit: str) -> str:
    lines = []
    train, held = (_get(scores, "frames", which, "elbo") for which in ("train", "validation"))
    if _number(train) and _number(held):
        lines.append(
            f"The ELBO is {_number(held)} nats per frame on validation frames and {_number(train)} on training "
            "frames; a much lower number on validation would be over-fitting."
        )
    active, latents = _get(part, "active_units"), len(_get(part, "kl_per_latent", kind=list) or [])
    if isinstance(active, int) and latents:
        text = {0: "No latent carries information: the model ignores them.", latents: "Every latent is active."}
        spare = f"{latents - active} of {latents} latents carry nothing: fewer would do."
        lines.append(text.get(active, spare))
    spread = _get(scores, "frames", "all", "aggregated_std", kind=list) or _get(part, "aggregated_std", kind=list)
    if spread and len(_numbers(spread)) == len(spread):
        fills = all(0.8 <= s <= 1.2 for s in spread)
        verdict = "so the data are as wide as the prior" if fills else "so draws from the prior may miss the data"
        lines.append(
            f"Over the data the latents spread by {', '.join(_numbers(spread))} standard deviations of the prior "
            f"(1 fills it), {verdict}; the figures of the latent plane show whether they leave holes in it."
        )
    jumps = _get(scores, "alignment", "message", kind=str)
    if jumps:
        lines.append(f"The alignment is not continuous: {escape(jumps)}. The latent coordinates jump there too.")
    for key, word in (("pairs", "bead distances"), ("bond", "bond lengths")):
        apart, floor = _get(scores, "generated", key), _get(scores, "generated", "noise_floor", key)
        if _number(apart) and _number(floor):
            ratio = _ratio(apart, floor)
            lines.append(
                f"Generated {word} differ from the data by {_number(apart)} {escape(unit)} (Wasserstein-1); two "
                f"random halves of the data differ by {_number(floor)} {escape(unit)}"
                + (f", so the model is at {ratio} that noise floor." if ratio else ".")
            )
    message = _get(scores, "optimized", "message", kind=str)
    if message:
        lines.append(f"Search for an extreme conformation: {escape(message)}.")
    return '<ul class="plain">' + "".join(f"<li>{line}</li>" for line in lines) + "</ul>" if lines else ""


def _ratio(apart, floor) -> str | None:
    if not _number(apart) or not _number(floor) or floor <= 0:
        return None
    return f"{_number(apart / floor)}×"


def _ensembles(scores: dict) -> str:
    unit = escape(_unit(scores))
    names = {
        "bond": "bond length",
        "angle": "bond angle (radians)",
        "rg": "radius of gyration",
        "end_to_end": "end-to-end distance",
    }
    names["pairs"] = "bead distances, mean over pairs"
    rows = []
    for key, name in names.items():
        apart, floor = _get(scores, "generated", key), _get(scores, "generated", "noise_floor", key)
        if _number(apart):
            rows.append((name, _number(apart), _number(floor), _ratio(apart, floor)))
    table = _table(("", f"generated to data ({unit})", f"noise floor ({unit})", "ratio"), rows)
    note = (
        '<p class="soft">Wasserstein-1 distances: how far, on average, one distribution must be moved to become '
        "the other. The noise floor is that between two random, weighted halves of the data; an ensemble as near "
        "to the data as that cannot be told from them by this measure.</p>"
    )
    return _section("Generated ensemble against the data", table, note if table else "")


def _optimum(scores: dict) -> str:
    found, unit = _get(scores, "optimized", kind=dict) or {}, escape(_unit(scores))
    limits = _get(found, "limits", kind=dict) or {}

    def between(low, high):
        low, high = _number(_get(limits, low)), _number(_get(limits, high))
        return f"{low} to {high}" if low and high else None

    least, apart = (_number(_get(limits, key)) for key in ("closest_pair", "closest_free_pair"))
    bonds = between("shortest_bond", "longest_bond")
    allowed = {
        "shortest_bond": bonds,
        "longest_bond": bonds,
        "mean_bond": between("shortest_mean_bond", "longest_mean_bond"),
        "closest_pair": f"at least {least}" if least else None,
        "closest_free_pair": f"at least {apart}" if apart else None,
    }
    names = {
        "rg": "radius of gyration",
        "end_to_end": "end-to-end distance",
        "shortest_bond": "shortest bond",
        "mean_bond": "mean bond",
        "longest_bond": "longest bond",
        "closest_pair": "closest pair of beads",
        "closest_free_pair": "closest pair without a bond",
    }
    rows = []
    for key, name in names.items():
        values = [_number(_get(found, which, key)) for which in ("optimized", "data_extreme")]
        if any(values):
            rows.append((name, *values, allowed.get(key)))
    table = _table((f"({unit})", "optimised", "extreme frame of the data", "limits from the data"), rows)
    message = _get(found, "message", kind=str)
    good = _get(found, "valid") is True and _get(found, "better") is True
    words = (
        f'<p class="{"good" if good else "bad"}">{escape(message[:1].upper() + message[1:])}.</p>'
        if message
        else ""
    )
    return _section("Optimised conformation", words, table)


def _figures(paths: Sequence[Path]) -> str:
    parts = []
    for path in paths:
        title, caption = CAPTIONS.get(path.stem, (path.stem.replace("_", " "), ""))
        content = path.read_bytes()
        size = ""
        if content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) >= 24:
            size = ' width="{}" height="{}"'.format(*struct.unpack(">II", content[16:24]))
        data = base64.b64encode(content).decode("ascii")
        parts.append(
            f'<figure><img src="data:image/png;base64,{data}" alt="{escape(title)}"{size}>'
            f"<figcaption><b>{escape(title)}.</b> {escape(caption)}</figcaption></figure>"
        )
    return _section("Figures", *parts)


def _frames(scores: dict) -> str:
    parts = [name for name in ("train", "validation", "all") if _get(scores, "frames", name, kind=dict)]
    unit, first = escape(_unit(scores)), _get(scores, "frames", "all", kind=dict) or {}
    lag, time_unit = _number(_get(scores, "kinetics", "lag")), _time_unit(scores)
    k = _number(_get(first, "iw_k"))
    names = {
        "n_frames": "frames",
        "fve": "fraction of variance explained",
        "rmsd": f"RMSD per bead ({unit})",
        "squared_error": f"squared error per frame ({unit}²)",
        "reconstruction": "reconstruction, −E log p(x|z) (nats)",
        "kl": "KL (nats)",
        "elbo": "ELBO (nats)",
        "iw_bound": f"importance-weighted bound{f', k = {k}' if k else ''} (nats)",
        "active_units": "active latents",
        "vamp2": f"VAMP-2 at a lag of {lag or '?'} frame{'' if lag == '1' else 's'}",
        "timescale": f"slowest implied timescale ({time_unit})",
        "n_jumps": "jumps of the alignment",
        "n_steps": "steps between frames",
    }
    rows = [(name, *(_number(_get(scores, "frames", p, key)) for p in parts)) for key, name in names.items()]
    latents = len(_get(first, "kl_per_latent", kind=list) or [])
    notes = []
    if _number(_get(first, "iw_bound")):
        notes.append(
            "Both bounds lie below the model’s log-likelihood, the importance-weighted one closer: compare models "
            "by that."
        )
    if _number(_get(first, "vamp2")):
        notes.append(
            f"VAMP-2 is 1 where nothing is left to predict after the lag, and {latents + 1} where all {latents} "
            "latents are unchanged by it; a slower collective variable scores higher."
        )
    note = f'<p class="soft">{" ".join(notes)}</p>' if notes else ""
    return _section("Scores by frames", _table(("", *parts), rows), note)


def _time_unit(scores: dict) -> str:
    name = _get(scores, "kinetics", "time_unit", kind=str) or ""
    return escape({"tau": "τ"}.get(name, name))


def _latents(scores: dict) -> str:
    """A row for each quantity, a column for each latent: in training and, beside it, in validation."""
    parts = [name for name in ("train", "validation") if _get(scores, "frames", name, kind=dict)] or ["all"]
    unit, time_unit = escape(_unit(scores)), _time_unit(scores)
    names = {
        "kl_per_latent": "KL (nats)",
        "latent_mean": "mean",
        "latent_std": "std of the mean",
        "aggregated_std": "spread, 1 fills the prior",
        "correlation_rg": "correlation with Rg",
        "correlation_end_to_end": "correlation with end-to-end",
        "autocorrelation_time": f"autocorrelation time ({time_unit})",
        "gradient_mean": f"gradient, mean (1/{unit})",
        "gradient_max": f"gradient, largest (1/{unit})",
    }
    latents = range(len(_get(scores, "frames", parts[0], "kl_per_latent", kind=list) or []))
    columns = [(k, part) for k in latents for part in parts]

    def cells(key, pick):
        for k, part in columns:
            values = _get(scores, "frames", part, key, kind=list) or []
            yield _number(pick(values[k], k)) if k < len(values) else None

    rows = [(name, *cells(key, lambda value, k: value)) for key, name in names.items()]
    for j in latents:
        others = cells("aggregated_covariance", lambda row, k, j=j: _at(row, j) if k != j else None)
        rows.append((f"covariance with z{j}", *others))
    head = [f"z{k}{_idle(scores, k)}" + (f" {part}" if len(parts) > 1 else "") for k, part in columns]
    return _section("Latent coordinates", _table(("", *head), rows))


def _at(row, j: int):
    return row[j] if isinstance(row, list) and j < len(row) else None


def _idle(scores: dict, k: int) -> str:
    std = (_get(scores, "frames", "all", "latent_std", kind=list) or [])[k : k + 1]
    return " (idle)" if std and _number(std[0]) is not None and std[0] ** 2 <= ACTIVE else ""


def _model(scores: dict) -> str:
    model = _get(scores, "model", kind=dict) or {}
    settings = _get(model, "settings", kind=dict) or {}
    rows: list[tuple[str, str | None]] = [
        (escape(str(key).replace("_", " ")), _plain(value)) for key, value in settings.items()
    ]
    best = _number(_get(model, "best_epoch"))
    rows.append(("weights kept from epoch", f"{best} (counted from 0)" if best else None))
    rows.append(("training ended", escape(_get(model, "stopped", kind=str) or "")))
    for name, version in (_get(model, "versions", kind=dict) or {}).items():
        rows.append((f"{escape(str(name))} version", _plain(version)))
    return _section("Settings and versions", _table((), rows, css="words"))


def _plain(value) -> str:
    if isinstance(value, (list, tuple)):
        return escape(" × ".join(map(str, value)))
    return escape(str(value))


def _files(folder: Path) -> str:
    present = {path.name: path for path in folder.iterdir() if not path.name.startswith(".")}
    present.setdefault("report.html", folder / "report.html")
    order = [name for name in _PURPOSES if name in present] + sorted(set(present) - set(_PURPOSES))
    rows = []
    for name in order:
        purpose = _PURPOSES.get("generated" if name.startswith("generated.") else name, "")
        shown = f"{name}/" if present[name].is_dir() else name
        rows.append((f"<code>{escape(shown)}</code>", escape(purpose) or "–"))
    return _section("Files in this folder", _table((), rows, css="words"))

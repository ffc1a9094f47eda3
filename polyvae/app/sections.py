"""The sections of a report on one model, in its order: verdict, numbers, figures, and where all comes from."""

import hashlib
from html import escape
from pathlib import Path

from polyvae.app.markup import (
    facts,
    figure,
    finite,
    get,
    labelled,
    mark,
    number,
    section,
    sentence,
    setting_text,
    table,
    viewer,
)
from polyvae.app.quantities import (
    ENSEMBLES,
    good_ratio,
    length_unit,
    n_latents,
    of_ensemble,
    of_frames,
    of_latents,
    parts,
    time_unit,
)
from polyvae.core.units import LENGTHS
from polyvae.tasks.verdict import FEW_FRAMES, MARKS, QUESTIONS
from polyvae.vae.order import ACTIVE

_MODEL = "model.safetensors"
_PURPOSES = {
    "report.html": "this page",
    _MODEL: "the collective variable: polyvae.load, polyvae project",
    "COLVAR": "latent coordinates of every frame, as PLUMED writes and reads them",
    "latent.npz": "the same latent coordinates as a NumPy array",
    "latent.csv": "the same latent coordinates as a table",
    "optimized.pdb": "the optimised conformation",
    "scores.json": "every number on this page and more, in full precision",
    "explorer.json": "what the explorer on this page shows: frames, latents, decoder",
    "states": "the medoid frame of each state, as PDB files",
    "figures": "the pictures on this page, as PNG files",
}


def title_of(scores: dict) -> str:
    """Data and results in one sentence."""
    data, latents = get(scores, "data", kind=dict) or {}, n_latents(scores)
    frames = number(get(data, "n_frames")) or number(get(scores, "frames", "all", "n_frames"))
    beads, dims = number(get(data, "n_beads")), number(get(data, "n_dims"))
    read = " of ".join(filter(None, (frames and f"{frames} frames", beads and f"{beads} beads")))
    read += f" in {dims}\u2011D" if read and dims else ""
    made = f"{latents} latent coordinate{'' if latents == 1 else 's'}" if latents else ""
    return " → ".join(filter(None, (read, made))) or "polyvae report"


def heading(scores: dict) -> str:
    """The title of the page."""
    files = [f"<code>{escape(name)}</code>" for name in source_names(scores)]
    source = f'<p class="soft">From {", ".join(files)}</p>' if files else ""
    return f"<header><h1>{escape(title_of(scores))}</h1>{source}</header>"


def source_names(scores: dict) -> list[str]:
    """The names of the files that were read, without their folders."""
    return [Path(str(file)).name for file in get(scores, "data", "files", kind=list) or []]


def answers_of(scores: dict) -> dict[str, tuple[str, str]]:
    """Mark and text of each question that was answered."""
    answers = [a for a in get(scores, "verdict", "answers", kind=list) or [] if get(a, "mark") in MARKS]
    found = {get(a, "question", kind=str): (a["mark"], get(a, "text", kind=str) or "") for a in answers}
    return {key: found[key] for key in QUESTIONS if key in found}


def verdict_section(scores: dict) -> str:
    """Is the CV good, question by question, and what to do."""
    word, advice = (get(scores, "verdict", key, kind=str) for key in ("mark", "advice"))
    if word not in MARKS:
        return ""
    rows = [
        f"<dt>{QUESTIONS[key]}</dt><dd>{mark(name)} <span>{sentence(text)}</span></dd>"
        for key, (name, text) in answers_of(scores).items()
    ]
    todo = f'<p class="todo"><b>What to do</b> {sentence(advice)}</p>' if advice else ""
    return (
        f'<section class="verdict {word}">\n<h2>Is this collective variable good? {mark(word)}</h2>\n'
        f"<dl>{''.join(rows)}</dl>\n{todo}\n</section>"
    )


def numbers_sections(scores: dict) -> list[str]:
    """Every number, each with what a good value is."""
    return [_states(scores), _frames(scores), _latents(scores), _ensembles(scores), _optimum(scores)]


def _states(scores: dict) -> str:
    """The states of the latent plane, or why there are none, and what is withheld."""
    states, time = get(scores, "states", kind=dict), time_unit(scores)
    if states is None:
        return ""
    rows = []
    for state in get(states, "states", kind=list) or []:
        name, frame = get(state, "name", kind=str) or "", number(get(state, "medoid"))
        share, error = finite(get(state, "share")), number(get(state, "error"))
        energy = number(get(state, "energy"))
        if energy and error and finite(get(state, "error")):
            energy += f" ± {error}"
        rows.append(
            (
                escape(name),
                None if share is None else f"{share:.0%}",
                energy or "–",
                number(get(state, "entries")),
                number(get(state, "first_passage")) or "–",
                frame and f'{frame} <a href="states/{escape(name)}.pdb">{escape(name)}.pdb</a>',
            )
        )
    passage = labelled("mean first passage", time)
    head = ("state", "share", "energy <small>(kT)</small>", "entries", passage, "medoid frame")
    shown = table(head, rows, css="states")
    notes = []
    if len(rows) == 1:
        notes.append("one state: no barrier of 1 kT divides the latent plane")
    if withheld := get(states, "withheld", kind=str):
        notes.append(withheld)
    worth = finite(get(states, "n_independent"))
    if worth is not None:
        slowest = number(get(states, "autocorrelation_frames"))
        how = f"the slowest latent has an autocorrelation time of {slowest} frames"
        if not slowest:
            how = "each piece counts as one, since all are too short for an autocorrelation time"
        notes.append(f"the frames are worth {worth:,.0f} independent ones: {how}")
    if shown and any(row[4] != "–" for row in rows):
        notes.append("mean first passage is the time until the state is reached, from the cores of the others")
    told = "".join(f"<p>{sentence(note)}</p>" for note in notes)
    return section("States", shown, told)


def _frames(scores: dict) -> str:
    columns = parts(scores)
    rows = []
    for quantity in of_frames(scores):
        cells = [number(get(part, quantity.key)) for part in columns.values()]
        if quantity.key == "n_jumps":
            steps = [number(get(part, "n_steps")) for part in columns.values()]
            cells = [c and (f"{c} of {n}" if n else c) for c, n in zip(cells, steps, strict=True)]
        if any(cells):
            rows.append((labelled(quantity.title(), quantity.unit), *cells, quantity.good))
    worth = number(get(scores, "data", "n_effective"))
    if worth:
        blank = [""] * (len(columns) - 1)
        rows.append(("frames of equal weight that these are worth", *blank, worth, f"{FEW_FRAMES} or more"))
    head = []
    for title, part in columns.items():
        n = number(get(part, "n_frames"))
        head.append(title + (f" <small>n\u00a0=\u00a0{n}</small>" if n else ""))
    return section("How well it describes the run", table(("", *head, "good"), rows, css="numbers"))


def _latents(scores: dict) -> str:
    """A row for each quantity, a column for each latent, of all frames."""
    everything, latents = get(scores, "frames", "all", kind=dict) or {}, range(n_latents(scores))
    found = []

    def column(key):
        values = get(everything, key, kind=list) or []
        return [values[k] if k < len(values) else None for k in latents]

    for quantity in of_latents(scores):
        if quantity.key == "gradient":
            pairs = zip(column("gradient_mean"), column("gradient_max"), strict=True)
            cells = [f"{number(a)}, {number(b)}" if number(a) and number(b) else None for a, b in pairs]
        else:
            cells = [number(value) for value in column(quantity.key)]
        if any(cells):
            found.append((labelled(quantity.title(), quantity.unit), *cells, quantity.good))
    for j in latents[:-1]:
        cells = [number(_at(row, j)) if k > j else "" for k, row in enumerate(column("aggregated_covariance"))]
        if any(cells):
            found.append((f"covariance with z{j}", *cells, "0"))
    inactive = [std is not None and std**2 <= ACTIVE for std in map(finite, column("latent_std"))]
    head = [f"z{k}" + (" <small>inactive</small>" if inactive[k] else "") for k in latents]
    return section("Latent coordinates", table(("", *head, "good"), found, css="numbers"))


def _at(row, j: int):
    return row[j] if isinstance(row, list) and j < len(row) else None


def _ensembles(scores: dict) -> str:
    unit = length_unit(scores)
    rows = []
    for key, *values in of_ensemble(scores):
        own = {"angle": "radians", "pairs": f"{unit}, mean over pairs"}.get(key, unit)
        apart, floor, ratio = map(number, values)
        if apart:
            label = labelled(ENSEMBLES[key], own)
            rows.append((label, apart, floor, ratio and f"{ratio}×", good_ratio(key)))
    shown = table(("", "to the data", "noise floor", "ratio", "good"), rows, css="numbers")
    note = (
        '<p class="soft">How far, on average, one distribution must be moved to become the other (Wasserstein-1). '
        "The noise floor is that between random halves of the data.</p>"
    )
    return section("Generated conformations", shown, note if shown else "")


def _optimum(scores: dict) -> str:
    found, unit = get(scores, "optimized", kind=dict) or {}, length_unit(scores)
    limits = get(found, "limits", kind=dict) or {}

    def between(low, high):
        low, high = number(get(limits, low)), number(get(limits, high))
        return f"{low} to {high}" if low and high else None

    apart = number(get(limits, "closest_free_pair"))
    bonds = between("shortest_bond", "longest_bond")
    rows = []
    for key, name, good in (
        ("rg", "radius of gyration", "beyond the data's"),
        ("end_to_end", "end-to-end distance", "any"),
        ("shortest_bond", "shortest bond", bonds),
        ("mean_bond", "mean bond", between("shortest_mean_bond", "longest_mean_bond")),
        ("longest_bond", "longest bond", bonds),
        ("closest_free_pair", "closest pair without a bond", f"at least {apart}" if apart else None),
    ):
        values = [number(get(found, which, key)) for which in ("optimized", "data_extreme")]
        if any(values):
            rows.append((labelled(name, unit), *values, good))
    shown = table(("", "found", "extreme frame", "good"), rows, css="numbers")
    message, valid = get(found, "message", kind=str), get(found, "valid") is True
    word = "poor" if not valid else "good" if get(found, "better") is True else "fair"
    told = f"<p>{mark(word)} {sentence(message)}</p>" if message else ""
    return section("Optimised conformation", told, shown)


def figures_section(folder: Path) -> str:
    """The pictures of a folder in a grid."""
    shown = "".join(map(figure, sorted((folder / "figures").glob("*.png"))))
    return section("Figures", shown and f'<div class="grid">{shown}</div>{viewer()}')


def provenance_sections(scores: dict, folder: Path) -> list[str]:
    """Where all this comes from, and how to do it again."""
    command = get(scores, "command", kind=str)
    return [
        section(
            "Where this comes from", f"<pre>{escape(command)}</pre>" if command else "", _sources(scores, folder)
        ),
        section("Settings", facts(settings_of(scores).items(), css="settings")),
        section("Files in this folder", facts(_files(folder))),
    ]


def _sources(scores: dict, folder: Path) -> str:
    data, model = (get(scores, key, kind=dict) or {} for key in ("data", "model"))
    unit, file = get(scores, "length_unit", kind=str) or get(data, "length_unit", kind=str), folder / _MODEL
    epoch, choices = number(get(model, "best_epoch")), get(model, "choices", kind=dict) or {}
    paths = get(data, "files", kind=list) or []
    return facts(
        [
            ("data", ", ".join(f"<code>{escape(str(path))}</code>" for path in paths)),
            ("atoms", escape(get(data, "selection", kind=str) or "")),
            ("pieces continuous in time", number(get(data, "n_segments"))),
            ("length unit", escape(LENGTHS[unit].name if unit in LENGTHS else unit or "")),
            ("frames, SHA-256", _digits(get(data, "sha256", kind=str))),
            ("their weights, SHA-256", _digits(get(data, "weights_sha256", kind=str))),
            ("model, SHA-256", _digits(hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None)),
            *((f"{escape(str(name))} chosen", sentence(str(text))) for name, text in choices.items()),
            ("training", sentence(get(model, "stopped", kind=str) or "")),
            ("weights kept from epoch", f"{epoch} (counted from 0)" if epoch else None),
            ("versions", setting_text(get(model, "versions", kind=dict) or {})),
        ]
    )


def settings_of(scores: dict) -> dict[str, str]:
    """Settings of the model, the generator last, as HTML."""
    settings, generator = (get(scores, "model", key, kind=dict) or {} for key in ("settings", "generator"))
    every = dict(settings) | {f"generator {key}": value for key, value in generator.items()}
    return {escape(str(key).replace("_", " ")): setting_text(value) for key, value in every.items()}


def _digits(sha256: str | None) -> str:
    """As many digits of a fingerprint as `polyvae info` prints."""
    return f"<code>{escape(sha256[:16])}</code>" if sha256 else ""


def _files(folder: Path) -> list[tuple[str, str]]:
    present = {path.name: path for path in folder.iterdir() if not path.name.startswith(".")}
    present.setdefault("report.html", folder / "report.html")
    order = [name for name in _PURPOSES if name in present] + sorted(set(present) - set(_PURPOSES))
    rows = []
    for name in order:
        purpose = _PURPOSES.get(name, "")
        if name.startswith("generated."):
            purpose = "conformations drawn from the model, in the format of the input"
        shown = f"{name}/" if present[name].is_dir() else name
        rows.append((f"<code>{escape(shown)}</code>", escape(purpose) or "–"))
    return rows

"""The sections of a page on several models: their verdicts, settings, numbers and figures side by side."""

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

from polyvae.app.markup import (
    caption_of,
    facts,
    figure,
    get,
    labelled,
    mark,
    number,
    section,
    sentence,
    table,
    viewer,
)
from polyvae.app.quantities import Quantity, compared, data_of, setting
from polyvae.app.sections import answers_of, settings_of, source_names, title_of
from polyvae.tasks.verdict import MARKS, QUESTIONS

_BETTER = '<span class="better">{} <small>better</small></span>'


def names_of(folders: Sequence[Path]) -> list[str]:
    """A short name for each folder: its last part, or as many parts of the path as make all names different."""
    full = [path.resolve().parts for path in folders]
    for depth in range(1, max(map(len, full)) + 1):
        names = [os.sep.join(parts[-depth:]) for parts in full]
        if len(set(names)) == len(names):
            break
    return names


def sections_of(scores: dict[str, dict], folders: dict[str, Path]) -> list[str]:
    """The whole page, from the scores of each model by its name."""
    same = _same_data(scores)
    return [
        _heading(scores, same),
        _verdicts(scores),
        _settings(scores),
        _numbers(scores, same),
        _figures(folders),
        _commands(scores),
    ]


def _same_data(scores: dict[str, dict]) -> bool | None:
    """Whether all models are of the same data; None where that is not known."""
    found = [data_of(one) for one in scores.values()]
    return None if None in found else len(set(found)) == 1


def _heading(scores: dict[str, dict], same: bool | None) -> str:
    title = f"{len(scores)} models side by side"
    if same:
        one = next(iter(scores.values()))
        files = ", ".join(f"<code>{escape(name)}</code>" for name in source_names(one))
        told = f'<p class="soft">Of the same data{": " if files else ""}{files}</p>'
    else:
        known = (
            "of different data" if same is False else "of data that they do not name, written by an older polyvae"
        )
        told = (
            f'<p class="remark">{mark("fair", "take care")} These models are {known}: bounds, errors and '
            "timescales of one cannot be held against those of another, and none is marked as better.</p>"
        )
    return f"<header><h1>{title}</h1>{told}</header>"


def _verdicts(scores: dict[str, dict]) -> str:
    answers = {name: answers_of(one) for name, one in scores.items()}

    def cell(found: tuple[str, str] | None) -> str:
        return f"{mark(found[0])}<p>{sentence(found[1])}</p>" if found else "–"

    words = [get(one, "verdict", "mark", kind=str) for one in scores.values()]
    rows = [("Is it good?", *(mark(word) if word in MARKS else "" for word in words))]
    rows += [(text, *(cell(found.get(key)) for found in answers.values())) for key, text in QUESTIONS.items()]
    advice = (get(one, "verdict", "advice", kind=str) or "" for one in scores.values())
    rows.append(("What to do", *map(sentence, advice)))
    if not any(words):
        return ""
    what = [f"{escape(name)} <small>{escape(title_of(one))}</small>" for name, one in scores.items()]
    return section("Verdicts", table(("", *what), rows, css="words"))


def _numbers(scores: dict[str, dict], same: bool | None) -> str:
    columns = [compared(one) for one in scores.values()]
    rows = []
    for entries in zip(*columns, strict=True):
        quantities, values = zip(*entries, strict=True)
        cells = [number(value) for value in values]
        best, why_not = _best(quantities[0], values, list(scores.values())) if same else (None, "")
        cells = [cell and (_BETTER.format(cell) if cell == best else cell) for cell in cells]
        unit, given, good = (_common([getattr(q, name) for q in quantities]) for name in ("unit", "given", "good"))
        for k, quantity in enumerate(quantities):
            own = [quantity.unit if unit is None else "", quantity.given if given is None else ""]
            if cell := cells[k]:
                cells[k] = labelled(cell, ", ".join(filter(None, own)))
        label = labelled(quantities[0].name + (f", {given}" if given else ""), unit or "")
        if any(cells):
            rows.append((label, *(cell or "–" for cell in cells), why_not or good or ""))
    note = '<p class="soft">Of held-out frames, where there are any; slopes and times of all frames.</p>'
    return section("Numbers", table(("", *map(escape, scores), "good"), rows, css="numbers"), note if rows else "")


def _common(values: Sequence[str]) -> str | None:
    """The one value that all have, or None."""
    return values[0] if len(set(values)) == 1 else None


def _best(quantity: Quantity, values: Sequence[float | None], scores: Sequence[dict]) -> tuple[str | None, str]:
    """The best value as it is shown, or None; and the reason where values cannot be compared."""
    shown = [number(value) for value in values]
    if not quantity.better or None in shown or len(set(shown)) == 1:
        return None, ""
    for name in quantity.alike:
        if len({str(setting(one, name)) for one in scores}) > 1:
            return None, f"not to be compared: another {name}"
    found = [value for value in values if value is not None]
    if quantity.unit == "noise floors":
        found = [max(value, 1.0) for value in found]  # below its own noise an ensemble is as good as the data
        if len(set(found)) == 1:
            return None, ""
    best = max(found) if quantity.better > 0 else min(found)
    return shown[found.index(best)], ""


def _settings(scores: dict[str, dict]) -> str:
    settings = {name: settings_of(one) for name, one in scores.items()}
    keys = dict.fromkeys(key for given in settings.values() for key in given)
    rows = [(key, *(given.get(key) or "–" for given in settings.values())) for key in keys]
    differ = [row for row in rows if len(set(row[1:])) > 1]
    if not rows:
        return ""
    n_same = len(rows) - len(differ)
    alike = f"The other {n_same} settings are the same." if differ else f"All {n_same} settings are the same."
    shown = table(("", *map(escape, scores)), differ, css="words")
    return section("Settings that differ", shown, f'<p class="soft">{alike}</p>' if n_same else "")


def _figures(folders: dict[str, Path]) -> str:
    """The same picture of each model in a row; one that is the same for all, as of their data, once."""
    stems = sorted({path.stem for folder in folders.values() for path in (folder / "figures").glob("*.png")})
    rows = []
    for stem in stems:
        title, caption = caption_of(stem)
        files = {name: folder / "figures" / f"{stem}.png" for name, folder in folders.items()}
        found = [path.read_bytes() if path.is_file() else None for path in files.values()]
        if None not in found and len(set(found)) == 1:
            files = {"all models": next(iter(files.values()))}
        shown = "".join(
            figure(path, name) if path.is_file() else "<figure></figure>" for name, path in files.items()
        )
        words = f'<h3>{escape(title)}</h3><p class="soft">{escape(caption)}</p>'
        rows.append(f'<div class="same">{words}<div class="row">{shown}</div></div>')
    return section("Figures", "\n".join(rows) + viewer() if rows else "")


def _commands(scores: dict[str, dict]) -> str:
    commands = ((escape(name), get(one, "command", kind=str)) for name, one in scores.items())
    return section("Commands", facts((name, f"<code>{escape(text)}</code>") for name, text in commands if text))

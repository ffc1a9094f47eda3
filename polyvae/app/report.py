"""The report: one self-contained HTML page from the files of a run, or of several side by side."""

import os
from collections.abc import Sequence
from pathlib import Path

from polyvae.app import comparing, sections
from polyvae.app.explorer import explorer_section
from polyvae.app.markup import page
from polyvae.errors import InputError
from polyvae.files import replacing
from polyvae.records import json_object

_ADVICE = "`polyvae run` writes it"


def write_report(folder: str | os.PathLike, out: str | os.PathLike | None = None) -> Path:
    """Write the report of a results folder; returns its path.

    It shows scores.json, explorer.json and figures/*.png. Pictures, style and script are inside the page, and
    nothing is fetched. Missing files are left out.

    Args:
        out: the file to write; by default report.html in the folder.

    Raises:
        InputError: scores.json is missing, or it does not hold a JSON object.
    """
    folder = Path(folder)
    scores = _read_scores(folder)
    html = page(
        f"polyvae: {', '.join(sections.source_names(scores)) or folder.name}",
        [
            sections.heading(scores),
            sections.verdict_section(scores),
            explorer_section(folder),
            *sections.numbers_sections(scores),
            sections.figures_section(folder),
            *sections.provenance_sections(scores, folder),
        ],
    )
    return _write(folder / "report.html" if out is None else Path(out), html)


def write_comparison(folders: Sequence[str | os.PathLike], out: str | os.PathLike) -> Path:
    """Write a page that sets the models of several results folders side by side; returns its path.

    Raises:
        InputError: a folder has no scores.json, or one without a JSON object; a folder is named twice.
    """
    paths = [Path(folder) for folder in folders]
    seen: dict[Path, Path] = {}
    for path in paths:
        if (place := path.resolve()) in seen:
            raise InputError(f"{path} is the same folder as {seen[place]}; name each model once")
        seen[place] = path
    names = comparing.names_of(paths)
    scores = {name: _read_scores(path) for name, path in zip(names, paths, strict=True)}
    folders_of = dict(zip(names, paths, strict=True))
    html = page(f"polyvae: {', '.join(names)}", comparing.sections_of(scores, folders_of))
    return _write(Path(out), html)


def _write(path: Path, html: str) -> Path:
    with replacing(path) as temporary:
        temporary.write_bytes(html.encode("utf-8", "replace"))  # a folder may have a name of any bytes
    return path


def _read_scores(folder: Path) -> dict:
    path = folder / "scores.json"
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"a report needs a folder that `polyvae run` wrote; {folder} {found}")
    try:
        return json_object(path.read_bytes(), path, _ADVICE)
    except FileNotFoundError:
        raise InputError(f"a report needs the numbers in {path}, which does not exist; {_ADVICE}") from None
    except OSError as error:
        raise InputError(f"{path} must hold a JSON object, but cannot be read ({error}); {_ADVICE}") from None

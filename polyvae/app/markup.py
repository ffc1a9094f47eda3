"""Parts of pages as HTML (numbers, marks, tables, figures), and access to the values in scores.json."""

import base64
import io
import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from polyvae.plot.run import CAPTIONS

_PAGE = files("polyvae.app") / "page"
LARGE = 60_000  # bytes of a PNG file
# Circle, triangle and square, so that a mark is read without colour.
_SHAPES = {
    "good": '<circle cx="8" cy="8" r="7"/><path d="m4.6 8.3 2.4 2.4 4.4-5"/>',
    "fair": '<path class="shape" d="M8 1.2 15.4 14.6H.6z"/><path d="M8 6v4M8 12.2v.3"/>',
    "poor": '<rect x="1.2" y="1.2" width="13.6" height="13.6" rx="2"/><path d="m5 5 6 6m0-6-6 6"/>',
    "open": '<circle class="hollow" cx="8" cy="8" r="6.4"/>',
}


def page(title: str, sections: Iterable[str]) -> str:
    """A whole page that fetches nothing: its style and script are inside."""
    parts = {name: _PAGE.joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "report.js")}
    template = Template(_PAGE.joinpath("report.html").read_text(encoding="utf-8"))
    body = "\n".join(filter(None, sections))
    style, script = parts["report.css"], parts["report.js"]
    return template.substitute(title=escape(title), style=style, script=script, sections=body)


def get(tree, *keys, kind=object):
    """The value at a path of keys, or None where it is missing or not of that kind."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree if isinstance(tree, kind) else None


def finite(value) -> float | None:
    """The number, or None where the value is not a finite number."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if good else None


def number(value) -> str | None:
    """Three significant digits, thousands separated; None where the value is not a finite number."""
    if finite(value) is None:
        return None
    if isinstance(value, int) or value == 0:
        text = f"{value:,.0f}"
    elif 1e-4 <= abs(value) < 1e6:
        text = f"{value:,.{max(0, 2 - int(f'{value:.2e}'.split('e')[1]))}f}"
    else:
        text = f"{value:.2e}"
    return text.replace("-", "−")


def sentence(text: str) -> str:
    """Words that begin with a capital, but for names such as z0, and end with a full stop, escaped."""
    text = text.strip()
    if not text:
        return ""
    first = text[:1] if text[1:2].isdigit() else text[:1].upper()
    return escape(first + text[1:] + ("" if text.endswith((".", "!", "?")) else "."))


def setting_text(value) -> str:
    """A setting as it was given, escaped."""
    if isinstance(value, dict):
        return ", ".join(f"{escape(str(key))} {setting_text(inner)}" for key, inner in value.items())
    return escape(" × ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value))


def labelled(name: str, unit: str) -> str:
    """The name of a number with its unit, which is HTML already."""
    return f"{name} <small>({unit})</small>" if unit else name


def mark(name: str, word: str | None = None) -> str:
    """One of the marks of a verdict: a shape and its word."""
    name = name if name in _SHAPES else "open"
    shape = f'<svg viewBox="0 0 16 16" aria-hidden="true">{_SHAPES[name]}</svg>'
    return f'<span class="mark {name}">{shape}{escape(word or ("not judged" if name == "open" else name))}</span>'


def table(head: Sequence[str], rows: Iterable[Sequence[str | None]], css: str = "") -> str:
    """Rows that hold a value beside their name; cells are HTML already, the first of a row its name."""
    rows = [row for row in rows if any(row[1:])]
    if not rows:
        return ""
    if css == "numbers" and len(head) > 5:
        css = "numbers many"  # which no narrow screen has the width for
    top = "<thead><tr>" + "".join(f'<th scope="col">{cell}</th>' for cell in head) + "</tr></thead>"
    body = "".join(
        f'<tr><th scope="row">{name}</th>' + "".join(f"<td>{cell or ''}</td>" for cell in cells) + "</tr>"
        for name, *cells in rows
    )
    return f'<div class="wide"><table class="{css}">{top}<tbody>{body}</tbody></table></div>'


def facts(rows: Iterable[tuple[str, str | None]], css: str = "facts") -> str:
    """Names and what they are, HTML already; a row without a value is left out."""
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows if value)
    return items and f'<dl class="{css}">{items}</dl>'


def section(title: str, *parts: str) -> str:
    """A heading and the parts under it; empty where all parts are empty."""
    return f"<section>\n<h2>{title}</h2>\n" + "\n".join(filter(None, parts)) + "\n</section>" if any(parts) else ""


def caption_of(stem: str) -> tuple[str, str]:
    """The title of a picture, by its file name, and how to read it."""
    return CAPTIONS.get(stem, (stem.replace("_", " "), ""))


def figure(path: Path, name: str | None = None) -> str:
    """A picture in the page, under its own title and caption or the name of its model, that opens large."""
    title, caption = caption_of(path.stem)
    kind, content, size = _picture(path)
    data = base64.b64encode(content).decode("ascii")
    alt = escape(f"{title}: {name}" if name else title)
    words = f"<b>{escape(name or title)}</b> {'' if name else escape(caption)}"
    return (
        f'<figure><button type="button" class="enlarge" title="Enlarge">'
        f'<img src="data:image/{kind};base64,{data}" alt="{alt}"{size}></button>'
        f"<figcaption>{words}</figcaption></figure>"
    )


def _picture(path: Path) -> tuple[str, bytes, str]:
    """Kind, bytes and size of a picture: large PNG files as WebP, a fifth of the bytes where many lines cross."""
    from PIL import Image, UnidentifiedImageError

    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as image:
            size = f' width="{image.width}" height="{image.height}"'
            if len(content) > LARGE:
                smaller = io.BytesIO()
                image.convert("RGB").save(smaller, "WEBP", quality=90, method=6)
                return "webp", smaller.getvalue(), size
    except (UnidentifiedImageError, OSError):  # which a browser shows as a broken one
        size = ""
    return "png", content, size


def viewer() -> str:
    """Dialog that shows a figure large; report.js fills it."""
    return (
        '<dialog id="large" aria-label="Figure"><img alt=""><p></p><form method="dialog">'
        '<button type="button" data-step="-1">Previous</button><button type="button" data-step="1">Next</button>'
        "<button autofocus>Close</button></form></dialog>"
    )

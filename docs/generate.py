"""Pages that are written out at each build, so that they cannot go stale: the verbs, and the list of examples."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def verbs() -> str:
    """Every verb with its arguments and options, in Markdown, as `--help` has them."""
    from typer.main import get_command

    from polyvae.app.cli import app

    parts = []
    for name, verb in get_command(app).commands.items():
        what, _, example = inspect.cleandoc(verb.help).partition("Example:")
        shell = f"```sh\n{' '.join(example.split())}\n```"
        arguments = [p for p in verb.params if p.param_type_name == "argument"]
        options = [p for p in verb.params if p.param_type_name == "option"]
        rows = ["| option | what it says |", "|---|---|"]
        rows += [f"| `{p.metavar}` | {_cell(p.help)} |" for p in arguments]
        rows += [f"| {_names(p)} | {_cell(p.help)}{_default(p)} |" for p in options]
        parts.append("\n\n".join([f"## polyvae {name}", what.strip(), shell, "\n".join(rows)]))
    return "\n\n".join(parts)


def _names(option) -> str:
    words = [*option.opts, *option.secondary_opts]
    value = "" if option.is_flag else f" {option.metavar or option.opts[-1].strip('-').upper()}"
    return ", ".join(f"`{word}{value}`" for word in words)


def _default(option) -> str:
    if option.required:
        return " Required."
    if option.is_flag or option.default is None or "[default" in (option.help or ""):
        return ""
    return f" [default: {_cell(str(option.default))}]"


def _cell(text: str | None) -> str:
    return re.sub(r"(?<!\S)(--?[a-z][\w-]*)", r"`\1`", " ".join((text or "").split())).replace("|", "\\|")


def examples(folder: Path = ROOT / "examples") -> str:
    """A line an example: its name and the first paragraph of its docstring, in the order of the file names."""
    lines = []
    for path, text in _scripts(folder):
        lines.append(f"- [`{path.name}`](../examples/{path.name}): {' '.join(text.split())}")
    return "\n".join(lines)


def _scripts(folder: Path) -> Iterator[tuple[Path, str]]:
    numbered = sorted(folder.glob("[0-9]*.py"))
    for path in numbered or sorted(folder.glob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        if docstring:
            yield path, docstring.split("\n\n")[0]


def formats() -> str:
    """The facts that files of each format can state, and what becomes of them, from the readers themselves."""
    from polyvae.io.readers import READERS
    from polyvae.trajectory.facts import FACTS, FATES

    names = list(READERS)
    rows = ["| fact | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for fact in FACTS:
        cells = ["–" if fact in reader.NO_PLACE_FOR else FATES[fact] for reader in READERS.values()]
        rows.append(f"| {fact.replace('_', ' ')} | " + " | ".join(cells) + " |")
    units = [reader.usual_unit.replace("angstrom", "Å") for reader in READERS.values()]
    rows.append("| unit by convention | " + " | ".join(units) + " |")
    return "\n".join(rows)


# What stands in a page between <!-- and -->, and what takes its place.
PARTS = {"polyvae: verbs": verbs, "polyvae: examples": examples, "polyvae: formats": formats}


def filled_in(text: str) -> str:
    """A page with its generated parts."""
    for name, write in PARTS.items():
        if (place := f"<!-- {name} -->") in text:
            text = text.replace(place, write())
    return text

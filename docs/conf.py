"""Settings of the site: `sphinx-build -W docs OUT`."""

import importlib.metadata
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from generate import filled_in

project = "polyvae"
author = "The polyvae authors"
copyright = author
version = release = importlib.metadata.version("polyvae")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["deflist"]  # formulas are plain text: the site loads nothing from elsewhere
myst_heading_anchors = 3

# A word in single backticks is code, in docstrings as in Markdown.
default_role = "literal"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
smartquotes = False
highlight_language = "none"
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "polyvae"
html_static_path = ["_static"]
html_css_files = ["polyvae.css"]
html_copy_source = False
html_show_sphinx = False


SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Example):$")


def _as_rst(app, what, name, obj, options, lines):
    """Docstrings are plain text with Markdown's backticks, fences and tables; Sphinx wants reStructuredText."""
    found, inside, text, before = [], False, True, ""
    for line in lines:
        text = text and not SECTION.match(line)
        if fence := re.match(r"\s*```(\w*)$", line):
            inside = not inside
            found += ["", f".. code-block:: {fence[1] or 'text'}", ""] if inside else [""]
        elif inside:
            found.append("   " + line)
        elif line.startswith("|"):
            found += _row(line, first=not before.startswith("|"))
        else:
            if text and line.startswith("    ") and not before:  # a formula
                found += ["::", ""]
            formula = text and line.startswith("    ")
            found.append(line if formula else _escaped(line))
        before = line.strip()
    lines[:] = found


def _escaped(line: str) -> str:
    """The line with what Sphinx would take for a reference made plain, but for code."""
    parts = line.split("`")
    parts[::2] = [re.sub(r"\||(?<=\w)_(?!\w)", lambda match: "\\" + match[0], part) for part in parts[::2]]
    return "`".join(parts)


def _row(line: str, first: bool) -> list[str]:
    cells = [cell.strip() for cell in line.strip("| ").split("|")]
    if set("".join(cells)) <= set("-: "):
        return []
    head = ["", ".. list-table::", "   :header-rows: 1", ""] if first else []
    return head + [f"   {'*' if k == 0 else ' '} - {cell}" for k, cell in enumerate(cells)]


def setup(app):
    app.connect("source-read", lambda app, name, source: source.__setitem__(0, filled_in(source[0])))
    app.connect("autodoc-process-docstring", _as_rst, priority=100)
    return {"parallel_read_safe": True}

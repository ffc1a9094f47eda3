"""Settings of the site: `sphinx-build -W docs OUT`."""

import re
import sys
import importlib.metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from generate import filled_in

project = "polyvae"
author = "The polyvae authors"
copyright = author
version = release = importlib.metadata.version("polyvae")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns: list[str] = []
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

# A word in single backticks is code, in docstrings as in Markdown.
default_role = "literal"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_mock_imports: list[str] = []
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "polyvae"
html_static_path = ["_static"]
html_css_files = ["polyvae.css"]
html_copy_source = False
html_show_sphinx = False


def _fenced(app, what, name, obj, options, lines):
    """Code between fences, as Markdown has it, in the words of reStructuredText."""
    found, inside = [], False
    for line in lines:
        if fence := re.match(r"\s*```(\w*)$", line):
            inside = not inside
            found += ["", f".. code-block:: {fence[1] or 'text'}", ""] if inside else [""]
        else:
            found.append("   " + line if inside else line)
    lines[:] = found


def setup(app):
    app.connect("source-read", lambda app, name, source: source.__setitem__(0, filled_in(source[0])))
    app.connect("autodoc-process-docstring", _fenced, priority=100)
    return {"parallel_read_safe": True}

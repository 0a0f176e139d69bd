"""How Sphinx makes the pages of this directory into build/docs."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import roletalk  # noqa: E402

project = "roletalk"
author = "roletalk contributors"
project_copyright = author
version = release = roletalk.__version__

extensions = ["myst_parser", "sphinx_copybutton", "outside", "reference"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_*"]
nitpicky = True
# Names of other libraries: their documentation is not asked for, so that a build needs no network.
nitpick_ignore_regex = [(r"py:.*", r"(?!roletalk\.).*")]

add_module_names = False
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
# Of the protocol's pages: bytes in hex and what they mean.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = f"roletalk {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_logo = html_favicon = "_static/mark.svg"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#20606d", "color-brand-content": "#20707f"},
    "dark_css_variables": {"color-brand-primary": "#6fc3d2", "color-brand-content": "#6fc3d2"},
}
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"

copybutton_selector = "div:not(.highlight-text) > div.highlight > pre"
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = "$ "

"""Sphinx's settings. What is made from the code is made first: see made.py."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from docs import made  # noqa: E402 - found by the line above

made.make(HERE / "made")

project = "xenidc"
html_title = "xenidc"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["made/*.md"]  # they are included

myst_heading_anchors = 3

default_role = "py:obj"  # `Name` in a docstring
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_ivar = True

highlight_language = "none"  # of what says nothing else

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["style.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False

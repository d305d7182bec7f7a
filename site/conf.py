"""Sphinx's settings for the book; `make site` has site/gather.py lay out the sources first."""

import sys
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [
    str(PROJECT),
    str(PROJECT / "site"),
]  # for autodoc, and for the extension beside this file
citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))

project = html_title = citation["title"]
author = citation["authors"][0]["name"]
project_copyright = "the trainable-attention authors; MIT licence"
release = version = str(citation["version"])
language = "en"

# napoleon: docstrings with Args, Returns and Raises; before book, which sees what it makes of them
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib.bibtex",
    "book",
]
exclude_patterns = ["README.md"]  # pages quote it
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", ".*")
]  # types of torch and pandas: their manuals are on other hosts

nb_execution_mode = "off"  # the outputs that are stored in the notebooks
nb_ipywidgets_js = {}
nb_merge_streams = True
nb_code_prompt_show = "Show the set-up, which is the same in every notebook"
nb_code_prompt_hide = "Hide the set-up"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "unsrt"

autodoc_member_order = "bysource"
default_role = "code"  # docstrings put code between single backticks
maximum_signature_line_length = 70
python_use_unqualified_type_names = True

html_theme = "furo"
pygments_dark_style = "a11y-dark"  # furo's light one is of the same family
html_static_path = ["static"]
html_css_files = ["book.css"]
html_js_files = [("book.js", {"defer": "defer"})]
html_extra_path = ["_build/extra"]  # the slides, of gather.py
html_favicon = str(PROJECT / "site" / "static" / "icon.svg")
templates_path = ["templates"]
html_math_renderer = "mathml"  # of book.py: no script
html_copy_source = False
html_use_index = False
html_domain_indices = False
html_theme_options = {"top_of_page_buttons": []}

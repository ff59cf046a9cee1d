"""Sphinx settings: Markdown pages by MyST, the theme furo, and reference pages made of what is installed."""

import sys
from pathlib import Path

import helix_kernel

sys.path.insert(0, str(Path(__file__).parent))  # for generated_pages

project = "Helix"
author = "the Helix authors"
copyright = f"2026, {author}"  # noqa: A001 - Sphinx's name for it
version = release = helix_kernel.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated_pages"]
exclude_patterns = ["_build", "examples/*/**"]  # an example's own README is read where it lies

# Pages.
myst_enable_extensions = ["colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 4
smartquotes = False  # quotes are often those of a value
myst_links_external_new_tab = False
suppress_warnings = [
    "ref.python"
]  # annotations name classes without their modules, and two are called Sample

# Docstrings.
default_role = "code"  # docstrings say `name` where reStructuredText would have ``name``
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
# Links to the pages of others would have to be fetched, and names that annotations shorten are not found.
nitpick_ignore_regex = [(r"py:.*", r".*")]

# Looks.
html_theme = "furo"
html_title = "Helix"
html_static_path = ["_static"]
html_css_files = ["helix.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "default"
pygments_dark_style = "github-dark"

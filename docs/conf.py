"""The site: `make docs` builds it offline from the Markdown pages and the docstrings.

The root of the sources is the repository's, so that links to results and other pages lead to pages of the site.
"""

import pmpo_offline

project = "pmpo-offline"
author = "the pmpo-offline maintainers"
release = pmpo_offline.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "benchmarks/**.md", "baselines/**.md"]
exclude_patterns = ["docs/_build", "docs/reader", "docs/tutorial.ipynb", "**/tests"]
suppress_warnings = ["toc.not_included"]  # results, which pages link to
html_theme = "furo"
html_title = f"pmpo-offline {release}"
html_show_copyright = False
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True

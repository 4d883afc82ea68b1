"""The site's configuration: ``make docs``, or ``python -m sphinx -W docs build/docs``. It needs no network."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_extensions")]

import resnet_cuda  # noqa: E402

project = "resnet_cuda"
author = "the resnet_cuda authors"
copyright = author
version = release = resnet_cuda.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "repository_pages",
    "program_help",
    "short_names",
]
exclude_patterns = ["_extensions"]
source_suffix = {".md": "markdown"}

myst_heading_anchors = 4  # GitHub's anchors, so that links work there and here
# Of python blocks only the first word is the language: `python needs=torchvision` is for the tests.
suppress_warnings = ["misc.highlighting_failure"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
# Libraries that integrations import, and that need not be installed for the site.
autodoc_mock_imports = ["detectron2", "mmcv", "mmdet", "mmengine", "transformers"]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

# Every reference to a name of this package must lead somewhere; those of others have no pages here.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!resnet_cuda).*")]

html_theme = "furo"
html_title = f"resnet_cuda {release}"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_theme_options = {"navigation_with_keys": True}

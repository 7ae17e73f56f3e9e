"""The documentation site: `make docs`. Nothing here needs the network."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

# Notebooks live beside docs/, with their data; Sphinx takes pages from one folder only.
_notebooks = HERE / "notebooks"
if not _notebooks.is_symlink():
    _notebooks.symlink_to(Path("..") / "notebooks", target_is_directory=True)

project = "metatensor_jax"
author = "the metatensor_jax developers"
copyright = author
html_title = "metatensor_jax"

extensions = [
    "mathml",
    "myst_nb",
    "short_names",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_ext", "notebooks/**/*.py", "**/.ipynb_checkpoints"]
suppress_warnings = ["config.cache"]

# --- pages ---------------------------------------------------------------------------

myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
# The suite runs the code of all pages (tests/test_docs_pages.py). Notebooks are stored
# without results: they are run here for their pictures, and again if a cell changes.
nb_execution_mode = "cache"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_excludepatterns = ["*.md"]
nb_merge_streams = True

# --- reference -----------------------------------------------------------------------

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 78
add_module_names = False

# --- looks ---------------------------------------------------------------------------

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
copybutton_exclude = ".linenos, .gp, .go"

"""The documentation as a site: `python -m sphinx -W docs <folder>`."""

project = "eagle_jax"
author = "the authors of eagle_jax"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "eagle_jax"
myst_heading_anchors = 3

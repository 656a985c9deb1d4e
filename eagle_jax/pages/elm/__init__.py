"""ELM's side of the pages: its raters' form, and its space."""

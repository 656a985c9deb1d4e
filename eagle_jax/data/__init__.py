"""Catalogues: entities as text, with ratings and tags."""

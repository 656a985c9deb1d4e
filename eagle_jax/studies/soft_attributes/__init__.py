"""Directions of tags against raters' orderings of films."""

"""Held-out episodes of every way to get a text."""

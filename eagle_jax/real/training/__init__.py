"""Preference optimisation on the labelled pairs."""

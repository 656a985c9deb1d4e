"""Experiments beside the three papers."""

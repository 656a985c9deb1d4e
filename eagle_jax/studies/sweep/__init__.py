"""Runs of one experiment over a grid of settings."""

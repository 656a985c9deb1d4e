"""Preferences between responses, from the formats that people have them in."""

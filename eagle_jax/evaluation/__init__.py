"""Measures, statistics, rater forms and the report."""

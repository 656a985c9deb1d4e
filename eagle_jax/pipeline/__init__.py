"""Whole experiments: stages that read and write a work directory."""

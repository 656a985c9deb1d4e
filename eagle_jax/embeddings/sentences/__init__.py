"""Encoders of sentences in the layout of sentence-transformers."""

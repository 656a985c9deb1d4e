"""Hugging Face folders: configurations, weights, adapters, tokenizers."""

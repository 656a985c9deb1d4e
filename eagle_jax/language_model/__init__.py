"""Decoders, their checkpoints and tokenizers, sampling, and models behind endpoints."""

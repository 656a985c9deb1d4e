"""EAGLE, ELM and REAL in JAX: language models steered by, and reading, embedding spaces."""

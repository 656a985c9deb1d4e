"""ELM: a language model that reads embedding vectors (Tennenholtz et al., ICLR 2024)."""

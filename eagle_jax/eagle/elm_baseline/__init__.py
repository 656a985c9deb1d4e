"""The paper's baseline: an ELM asked for the best point near an anchor."""

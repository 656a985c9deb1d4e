"""ELM's appendix D: one-stage against two-stage training."""

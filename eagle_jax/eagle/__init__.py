"""EAGLE: a policy that steers an environment through an embedding space (NeurIPS 2024)."""

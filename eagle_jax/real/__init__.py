"""REAL: which pairs of responses are worth a label (Zhang et al., arXiv 2409.17169)."""

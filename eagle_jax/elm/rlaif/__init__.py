"""An ELM that goes on with a reward (ELM, appendix H)."""
